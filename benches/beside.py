#!/usr/bin/env python3
"""What small calls feel of a compression load on the same shard, with the jobs on the CPU and on a DPDK device.

    cargo build --release --features dpdk
    python3 benches/beside.py                 about a minute; --device dpdk:compress_zlib0 for another one

One node of one shard on core 0; client and backend share core 1. The small calls are an open loop of 500 a second, 32 B,
without compression; the load is a closed loop of 48 KiB messages whose answers are compressed with gzip. Printed: the
small calls' latency alone and beside the load, and what the load got through. Runs take turns, figures are medians.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
SMALL = ["--rate", "500", "--conns", "2", "--size", "32"]
LOAD = ["--conns", "4", "--streams", "4", "--size", "49152", "--header", "grpc-accept-encoding:gzip"]


def pinned(core, *command):
    return ["taskset", "-c", str(core), *map(str, command)]


def calls(to, seconds, options):
    command = [TARGET / "pktgen", "call", "--to", to, "--method", "/echo.Echo/Call", "--for", f"{seconds}s"]
    command += ["--warm-up", "500ms", "--poll", "block", "--quiet", "--json", "-", *options]
    return subprocess.Popen(pinned(1, *command), stdout=subprocess.PIPE, text=True)


def answer(process, seconds):
    return json.loads(process.communicate(timeout=seconds + 30)[0])


def started(command, ready):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if ready in line:
            return process, line
    raise RuntimeError("".join(said))


def ended(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def run(place, seconds, folder):
    """One node: small calls alone, then beside the load."""
    backend, line = started(pinned(1, TARGET / "pktgen", "echo", "--listen", "127.0.0.1:0", "--poll", "block"), "127.0.0.1:")
    endpoint = next(word.rstrip(",") for word in line.split() if word.startswith("127.0.0.1:"))
    (folder / "app.adn").write_text(f'service client\nservice server {{ endpoints: ["{endpoint}"] }}\nclient -> server: LoadBalancing - Compression\n')
    offload = f'[offload]\ncompression = "{place}"\n' + ('placement = "pinned"\n' if place != "cpu" else "")
    (folder / "node.toml").write_text(f'{offload}[access_log]\nto = "off"\n[admin]\naddress = "off"\nsocket = "{folder}/admin.sock"\n')
    command = [TARGET / "towpath", "run", folder / "app.adn", "--config", folder / "node.toml", "--listen", "127.0.0.1:0", "--cores", "0"]
    try:
        node, line = started(list(map(str, command)), "towpath ready")
        to = line.split("listening ")[1].split(",")[0].split()[0]
        try:
            alone = answer(calls(to, seconds, SMALL), seconds)
            load = calls(to, seconds + 1, LOAD)
            beside = answer(calls(to, seconds, SMALL), seconds)
            load = answer(load, seconds)
        finally:
            ended(node)
    finally:
        ended(backend)
    if alone["failed"] or beside["failed"] or load["failed"]:
        raise RuntimeError(f"{place}: calls failed: {alone['failed']}, {beside['failed']}, {load['failed']}")
    return alone["latency_us"], beside["latency_us"], load["calls_per_s"], load["rx_bytes"] / max(1, load["calls"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="dpdk:compress_isal0")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--for", dest="seconds", type=int, default=3)
    args = parser.parse_args()
    found = {"cpu": [], args.device: []}
    with tempfile.TemporaryDirectory(prefix="beside-") as folder:
        for _ in range(args.runs):
            for place in found:
                found[place].append(run(place, args.seconds, Path(folder)))
    for place, runs in found.items():
        middle = lambda pick: statistics.median(pick(one) for one in runs)  # noqa: E731
        print(f"{place:22} small calls alone p50 {middle(lambda o: o[0]['p50']):6.0f} p99 {middle(lambda o: o[0]['p99']):6.0f} us,"
              f"  beside the load p50 {middle(lambda o: o[1]['p50']):6.0f} p99 {middle(lambda o: o[1]['p99']):6.0f} us;"
              f"  load {middle(lambda o: o[2]):7,.0f} calls/s, {middle(lambda o: o[3]):7,.0f} B each")  # fmt: skip


if __name__ == "__main__":
    main()
