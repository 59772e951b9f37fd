#!/usr/bin/env python3
"""Towpath's DPDK provider beside DPDK's own perf tools: same device, burst, size and settings, one after the other.

Usage: benches/offload.py [--seconds S] [--json FILE]

Builds `elements/offload/examples/provider.rs` with the feature `dpdk` and needs Debian's package `dpdk-dev` for
dpdk-test-compress-perf and dpdk-test-crypto-perf. What is compared: operations a second of one core, of jobs that own
their bytes (gzip's checksum, envelope, associated data of 83 bytes) through the queue a shard uses, from the burst
handed over to the results taken, against the tools, which hand the same buffers to the device again and again. Ours are
used again, too; an envelope that was opened in place is written anew outside of the time that counts. The CPU's own
provider stands beside them. The figure to reach is 80 %.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EAL = ["--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "-l", "0,1"]
BURST = 32
ROUNDS = 9
CASES = [
    ("compress", "compress_isal", 1024),
    ("compress", "compress_isal", 16384),
    ("compress", "compress_zlib", 1024),
    ("decompress", "compress_isal", 1024),
    ("decompress", "compress_isal", 16384),
    ("decompress", "compress_zlib", 1024),
    ("seal", "crypto_aesni_gcm", 1024),
    ("seal", "crypto_aesni_gcm", 4096),
    ("seal", "crypto_aesni_gcm", 16384),
    ("open", "crypto_aesni_gcm", 1024),
    ("open", "crypto_aesni_gcm", 4096),
    ("open", "crypto_aesni_gcm", 16384),
    ("seal", "crypto_aesni_mb", 1024),
    ("seal", "crypto_aesni_mb", 4096),
    ("seal", "crypto_aesni_mb", 16384),
    ("seal", "crypto_openssl", 1024),
]


def text(path, size):
    """Text like JSON lists, the same for everybody."""
    items = (b'{"id":%d,"name":"item"}' % (n * n % 7919) for n in range(size // 16))
    with open(path, "wb") as out:
        out.write(b"".join(items)[:size])


def provider():
    build = ["cargo", "build", "--release", "-q", "-p", "towpath-offload", "--features", "dpdk", "--example", "provider"]
    subprocess.run(build, cwd=REPO, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(REPO, "target"))
    return os.path.join(target, "release/examples/provider")


def ours(binary, place, what, size, seconds, file):
    done = subprocess.run([binary, place, what, str(size), str(seconds), file], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"provider {place} {what} {size}: {done.stderr.strip()}")
    said = json.loads(done.stdout.splitlines()[-1])
    if place != "cpu" and (said["fallbacks"] * 100 > said["ops"] or said["on_device"] < said["ops"]):
        raise RuntimeError(
            f"provider {place} {what} {size}: of {said['ops']} jobs {said['on_device']} were the device's, "
            f"and {said['fallbacks']} fell back"
        )
    return said["ops_per_second"]


def run_tool(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return done.stdout + done.stderr


def compress_tool(driver, what, size, seconds, file):
    # The tool inflates only what it has just deflated itself.
    operation, column = ("comp", 4) if what == "compress" else ("comp_and_decomp", 5)

    def run(rounds):
        out = run_tool(
            ["dpdk-test-compress-perf", *EAL, f"--file-prefix=cp{os.getpid()}", "--vdev", f"{driver}0", "--"]
            + ["--driver-name", driver, "--input-file", file, "--ptest", "throughput", "--operation", operation]
            + ["--seg-sz", str(size), "--max-num-sgl-segs", "1", "--burst-sz", str(BURST), "--num-iter", str(rounds)]
            + ["--huffman-enc", "dynamic", "--compress-level", "1", "--pool-sz", "4096"]
        )
        # lcore, level, compressed size, ratio, Gbps of compression, Gbps of decompression
        rows = [line.split() for line in out.splitlines() if re.match(r"^\s*\d+\s+\d+\s+\d+", line)]
        if not rows:
            raise RuntimeError(f"no figures in: {out[-400:]}")
        return float(rows[-1][column]) * 1e9 / 8 / size

    # The first run says how many rounds of the file fill the time.
    probe = run(5)
    per_round = os.path.getsize(file) / size / probe
    return run(max(5, int(seconds / per_round)))


def crypto_tool(driver, what, size, seconds):
    def run(ops):
        out = run_tool(
            ["dpdk-test-crypto-perf", *EAL, f"--file-prefix=cp{os.getpid()}", "--vdev", f"{driver}0", "--"]
            + ["--ptest", "throughput", "--devtype", driver, "--optype", "aead", "--aead-algo", "aes-gcm"]
            + ["--aead-op", "encrypt" if what == "seal" else "decrypt", "--aead-key-sz", "16", "--aead-iv-sz", "12"]
            + ["--aead-aad-sz", "83", "--digest-sz", "16", "--buffer-sz", str(size), "--burst-sz", str(BURST)]
            + ["--total-ops", str(ops), "--silent", "--csv-friendly"]
        )
        rows = [line.split(",") for line in out.splitlines() if re.match(r"^\d+,\d+,\d+,", line)]
        if not rows:
            raise RuntimeError(f"no figures in: {out[-400:]}")
        return float(rows[-1][7]) * 1e6

    return run(int(run(200_000) * seconds))


def measure(binary, what, driver, size, seconds, file):
    if what in ("compress", "decompress"):
        theirs = compress_tool(driver, what, size, seconds, file)
    else:
        theirs = crypto_tool(driver, what, size, seconds)
    return theirs, ours(binary, f"dpdk:{driver}0", what, size, seconds, file), ours(binary, "cpu", what, size, seconds, file)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=0.2, help="for each figure")
    arguments.add_argument("--json", help="write the figures to this file")
    arguments = arguments.parse_args()
    binary = provider()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "text")
        text(file, 1 << 20)
        print(f"Operations a second, burst {BURST}: medians of {ROUNDS} runs that take turns, and the share of the best of each.")
        print(f"{'':<32}{'ours':>12}{'DPDK tool':>12}{'share':>8}{'of best':>9}{'cpu':>12}")
        for what, driver, size in CASES:
            name = f"{what} {size} B {driver}"
            try:
                rounds = [measure(binary, what, driver, size, arguments.seconds, file) for _ in range(ROUNDS)]
            except (RuntimeError, FileNotFoundError, subprocess.TimeoutExpired) as error:
                print(f"{name:<32}  not measured: {error}")
                continue
            theirs, mine, cpu = (statistics.median(column) for column in zip(*rounds))
            # What disturbs a run only makes it slower.
            best = max(one[1] for one in rounds) / max(one[0] for one in rounds)
            row = {"what": what, "device": driver, "bytes": size, "ours": mine, "tool": theirs, "cpu": cpu, "share_of_best": best}
            rows.append(row)
            print(f"{name:<32}{mine:>12,.0f}{theirs:>12,.0f}{mine / theirs:>8.0%}{best:>9.0%}{cpu:>12,.0f}")
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(rows, out, indent=1)
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
