#!/usr/bin/env python3
"""The port layer alone beside DPDK's own testpmd: frames a second returned, and what each step of ours costs.

    cargo build --release -p pktgen --features dpdk
    python3 benches/port_layer.py                      memif and af_packet, about a minute
    python3 benches/port_layer.py memif --runs 5 --for 4

One process returns frames (`dpdk-testpmd --forward-mode=macswap`, or `pktgen packet --forward`, which also parses
the headers and finds the flow), another sends them as fast as it can and counts what comes back (`pktgen packet`).
The returner has core 0, the sender core 1. The two returners take turns, so that noise of the machine meets both; a
figure is the median over the runs. `ns a frame` is the returner's CPU time over frames returned. On a machine that
others use it is the fairer one of the two: a sender that is interrupted slows both returners down.

Between processes: `memif` by shared memory, `af_packet` by the kernel over a veth pair between two network
namespaces, made here and removed at the end (root only).
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measure

RETURN_CORE, SEND_CORE = 0, 1
ROOT = Path(__file__).resolve().parent.parent
PARTS = ["memif", "af_packet"]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Veth:
    """Two namespaces and a veth pair between them."""

    def __init__(self):
        self.spaces = [f"towpath-pl-{os.getpid()}-{side}" for side in "ab"]
        for space in self.spaces:
            subprocess.run(["ip", "netns", "add", space], check=True)
        a, b = self.spaces
        pair = ["ip", "link", "add", "va", "netns", a, "type", "veth", "peer", "name", "vb", "netns", b]
        subprocess.run(pair, check=True)
        for space, link in ((a, "va"), (b, "vb")):
            quiet = ["ip", "netns", "exec", space, "sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1"]
            subprocess.run(quiet, check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "-n", space, "link", "set", link, "up"], check=True)

    def close(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)


class Memif:
    name = "memif"

    def __init__(self, work):
        self.socket = work / "memif.sock"

    def device(self, side):
        role = "server" if side == "return" else "client"
        return f"net_memif0,role={role},socket={self.socket},socket-abstract=no"

    def inside(self, _):
        return []

    def close(self):
        pass


class AfPacket:
    name = "af_packet"

    def __init__(self, _):
        self.veth = Veth()

    def device(self, side):
        return f"net_af_packet0,iface={'vb' if side == 'return' else 'va'}"

    def inside(self, side):
        return ["ip", "netns", "exec", self.veth.spaces[1 if side == "return" else 0]]

    def close(self):
        self.veth.close()


class Returner:
    """A process that returns frames, measured from outside."""

    def __init__(self, command):
        # What it prints goes to a file: a full pipe would stop it.
        self.out = tempfile.TemporaryFile(mode="w+")
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self.out, stderr=subprocess.DEVNULL, text=True
        )

    def cpu_ns(self):
        return measure.cpu_ns(self.child.pid)

    def stop(self):
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.out.seek(0)
        return self.out.read()


def testpmd(link):
    eal = ["--no-huge", "-m", "512", "--no-pci", "--no-telemetry", f"--file-prefix=pl{os.getpid()}"]
    lcores = f"--lcores=0@{SEND_CORE},1@{RETURN_CORE}"
    own = ["--forward-mode=macswap", "--auto-start", "--burst=32", "--total-num-mbufs=16384"]
    return link.inside("return") + ["dpdk-testpmd", *eal, lcores, f"--vdev={link.device('return')}", "--", *own]


def towpath(link, pktgen):
    own = [pktgen, "packet", "--forward", "--core", str(RETURN_CORE), "--json", "-", "--wait", "20s"]
    return link.inside("return") + [*own, "--port", link.device("return")]


def send(link, pktgen, args):
    own = [pktgen, "packet", "--core", str(SEND_CORE), "--json", "-", "--size", str(args.size)]
    own += ["--for", f"{args.seconds}s", "--backend", getattr(link, "backend", "dpdk"), "--port", link.device("send")]
    done = subprocess.run(link.inside("send") + own, capture_output=True, text=True, timeout=args.seconds + 40)
    if done.returncode != 0:
        raise RuntimeError(f"nothing came back: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measure_one(link, command, pktgen, args):
    returner = Returner(command)
    try:
        time.sleep(1.5)
        before = returner.cpu_ns()
        began = time.monotonic()
        seen = send(link, pktgen, args)
        # Time it polled before the sender was up and after it went is not work: scaled to the sending.
        share = seen["elapsed_ns"] / 1e9 / (time.monotonic() - began)
        spent = (returner.cpu_ns() - before) * share
    finally:
        said = returner.stop()
    frames = seen["rx_frames"]
    return {"frames_per_s": seen["rx_frames_per_s"], "ns_per_frame": spent / max(frames, 1)}, said


def part(link, pktgen, args):
    found = {"testpmd": [], "towpath": []}
    stages = []
    for run in range(args.runs):
        for name, command in (("testpmd", testpmd(link)), ("towpath", towpath(link, pktgen))):
            figures, said = measure_one(link, command, pktgen, args)
            found[name].append(figures)
            say(f"{link.name} {run + 1}: {name} {figures['frames_per_s'] / 1e6:.3f} M frames/s")
            if name == "towpath":
                stages.append(json.loads(said)["stage_ns_per_frame"])
    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    result = {
        name: {key: middle(rows, key) for key in ("frames_per_s", "ns_per_frame")} for name, rows in found.items()
    }
    result["stage_ns_per_frame"] = {stage: middle(stages, stage) for stage in stages[0]}
    result["ratio"] = result["towpath"]["frames_per_s"] / result["testpmd"]["frames_per_s"]
    return result


def show(name, size, result):
    print(f"\n{name}, {size}-byte frames")
    print(f"{'':<10}{'M frames/s':>12}{'ns a frame':>12}")
    for who in ("testpmd", "towpath"):
        row = result[who]
        print(f"{who:<10}{row['frames_per_s'] / 1e6:>12.3f}{row['ns_per_frame']:>12.0f}")
    print(f"towpath / testpmd: {result['ratio']:.2f} (aim: 0.50 or more)")
    steps = ", ".join(f"{stage} {ns:.0f}" for stage, ns in result["stage_ns_per_frame"].items())
    print(f"towpath's steps, ns a frame: {steps}")


def main():
    parser = argparse.ArgumentParser(description="the port layer beside testpmd")
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, interleaved")
    parser.add_argument("--for", dest="seconds", type=int, default=3, metavar="SECONDS")
    parser.add_argument("--size", type=int, default=64, help="bytes of a frame")
    parser.add_argument("--pktgen", default=str(ROOT / "target/release/pktgen"))
    parser.add_argument("--json", metavar="FILE", help="write the figures too")
    args = parser.parse_args()
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no part named {unknown[0]} (there are: {', '.join(PARTS)})")
    if not shutil.which("dpdk-testpmd"):
        sys.exit("dpdk-testpmd is missing: apt-get install dpdk")
    if not Path(args.pktgen).exists():
        sys.exit(f"{args.pktgen} is missing: cargo build --release -p pktgen --features dpdk")
    results = {}
    with tempfile.TemporaryDirectory(prefix="towpath-port-layer-") as work:
        for name in args.parts:
            if name == "af_packet" and os.geteuid() != 0:
                say("af_packet left out: it needs root")
                continue
            link = {"memif": Memif, "af_packet": AfPacket}[name](Path(work))
            try:
                results[name] = part(link, args.pktgen, args)
            finally:
                link.close()
            show(name, args.size, results[name])
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["ratio"] >= 0.5 for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
