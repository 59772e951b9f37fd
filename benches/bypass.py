#!/usr/bin/env python3
"""What bypassing the kernel saves: the node over `net_memif` beside the node over io_uring, the same chain and load.

    cargo build --release --features dpdk
    python3 benches/bypass.py                 about five minutes
    python3 benches/bypass.py --runs 7 --for 3
    python3 benches/bypass.py --target target/pgo/bin         the production build, see scripts/pgo.sh

The node has core 0 for itself; one thread on core 1 is client and backend (`pktgen call --echo`), so that nobody's
wake-ups are measured. Over memif the node has two ports, one towards the client and one towards the backend, each
shared memory between the two processes; over io_uring both are on loopback, and (`veth`, as root) at the two ends of a
veth pair, as pods are. Runs of both take turns; a figure is the median over the runs, a ratio that
of two medians of the same run of this program. CPU is that of the node's whole process while the calls were made.

Parts: `load` (16 connections x 8 streams and 128 x 1, 32 B: CPU per call), `sizes` (16 x 8 with larger messages, memif with an
MTU of 1,500 and of 9,000; loopback has one of 65,536), `idle` (one call at a time: p50), `conns` (20 and 2,000 connections
with one call each on one port: CPU per call).
"""

import argparse
import atexit
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))
import measure  # noqa: E402

NODE_CORE, LOAD_CORE = "0", "1"
CHAIN = 'LoadBalancing - Logging(to: "/dev/null") - Compression - FaultInjection(0)'
CLIENT_PORT = 15001


def wire():
    """Two network namespaces and a veth pair between them, as pods have it, until this program ends."""
    spaces = [f"bypass-{side}-{os.getpid()}" for side in ("near", "far")]
    ip = lambda words: subprocess.run(["ip", *words.split()], check=True, capture_output=True)  # noqa: E731
    for space in spaces:
        ip(f"netns add {space}")
        atexit.register(subprocess.run, ["ip", "netns", "del", space], capture_output=True)
    ip(f"link add veth0 netns {spaces[0]} type veth peer name veth0 netns {spaces[1]}")
    for space, address in zip(spaces, ("10.9.0.2/24", "10.9.0.1/24")):
        ip(f"-n {space} addr add {address} dev veth0")
        ip(f"-n {space} link set veth0 up")
        ip(f"-n {space} link set lo up")
    return spaces


class Setting:
    """A node over one backend, and the load's options that reach it."""

    def __init__(self, name, target, mtu=1500):
        self.name, self.target, self.more, self.backend = name, target, "", "auto"
        self.near = self.far = []
        self.dir = Path(tempfile.mkdtemp(prefix="bypass-"))
        if name == "memif":
            self.listen, self.echo = f"10.7.0.2:{CLIENT_PORT}", "10.8.0.3:50051"
            socket = "net_memif{n},role={role},socket-abstract=no,socket={dir}/{side}.sock"
            side = lambda n, role, side: socket.format(n=n, role=role, dir=self.dir, side=side)  # noqa: E731
            self.config = "".join(
                f'[[port]]\nname = "{name}"\nbackend = "dpdk"\ndevice = "{side(n, "server", name)}"\naddress = "{address}"\nmtu = {mtu}\n'
                for n, name, address in ((0, "client", "10.7.0.2/24"), (1, "backend", "10.8.0.2/24"))
            )
            self.load = ["--backend", "dpdk", "--device", side(0, "client", "client"), "--address", "10.7.0.1/24"]
            self.load += ["--echo-device", side(1, "client", "backend"), "--echo-address", "10.8.0.3/24", "--mtu", str(mtu)]
        else:
            self.backend = "uring"
            self.listen, self.echo, self.config = "127.0.0.1:15101", "127.0.0.1:15151", ""
            if name == "veth":
                near, far = wire()
                self.listen, self.echo = f"10.9.0.2:{CLIENT_PORT}", "10.9.0.1:50051"
                self.near, self.far = ([["ip", "netns", "exec", space] for space in (near, far)])
            self.load = ["--backend", "uring"]
        self.load += ["--echo", self.echo, "--to", self.listen, "--poll", "busy"]

    def run(self, conns, streams, seconds, size=32):
        """One node, one load: the load's figures and the node's CPU per call, ns."""
        (self.dir / "app.adn").write_text(
            f'service client\nservice server {{ endpoints: ["{self.echo}"] }}\nclient -> server: {CHAIN}\n'
        )
        (self.dir / "node.toml").write_text(
            f'{self.config}{self.more}[access_log]\nto = "off"\n[admin]\naddress = "off"\nsocket = "{self.dir}/admin.sock"\n'
        )
        node = subprocess.Popen(
            [*self.near, self.target / "towpath", "run", self.dir / "app.adn", "--config", self.dir / "node.toml", "--backend", self.backend,
             "--listen", self.listen, "--cores", NODE_CORE],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            said = []
            for line in node.stderr:
                said.append(line)
                if "towpath ready" in line:
                    break
            else:
                raise RuntimeError("".join(said))
            figures = self.dir / "figures.json"
            before, outside, inside = measure.cpu_ns(node.pid), *measure.ticks(node.pid)
            done = subprocess.run(
                [*self.far, self.target / "pktgen", "call", "--method", "/echo.Echo/Call", "--conns", str(conns), "--streams", str(streams),
                 "--size", str(size), "--for", f"{seconds}s", "--warm-up", "0s", "--wait", "10s", "--core", LOAD_CORE,
                 "--json", figures, "--quiet", *self.load],
                capture_output=True, text=True, timeout=seconds + 60,
            )  # fmt: skip
            spent, ticks = measure.cpu_ns(node.pid) - before, measure.ticks(node.pid)
            outside, inside = ticks[0] - outside, ticks[1] - inside
            if done.returncode != 0:
                raise RuntimeError(f"{self.name}: {done.stderr.strip()}")
            answer = json.loads(figures.read_text())
        finally:
            node.send_signal(signal.SIGTERM)
            try:
                node.wait(5)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        if answer["failed"]:
            raise RuntimeError(f"{self.name}: {answer['failed']} of {answer['calls']} calls failed: {answer['messages']}")
        kernel = spent / answer["calls"] * inside / max(inside + outside, 1)
        return {"cpu_ns": spent / answer["calls"], "kernel_ns": kernel, "p50_us": answer["latency_us"]["p50"], "calls_per_s": answer["calls_per_s"]}


def medians(found, key):
    return {name: statistics.median(one[key] for one in runs) for name, runs in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["load", "sizes", "idle", "conns"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--for", dest="seconds", type=int, default=3)
    parser.add_argument("--target", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    args = parser.parse_args()
    # What was made is removed then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    uring, memif = Setting("uring", args.target), Setting("memif", args.target)
    veth = Setting("veth", args.target) if os.geteuid() == 0 else None
    everyone = [setting for setting in (uring, veth, memif) if setting]

    if "load" in args.parts:
        for conns, streams in ((16, 8), (128, 1)):
            found = {setting.name: [] for setting in everyone}
            for _ in range(args.runs):
                for setting in everyone:
                    found[setting.name].append(setting.run(conns, streams, args.seconds))
            cpu, kernel, rate = (medians(found, key) for key in ("cpu_ns", "kernel_ns", "calls_per_s"))
            shape = f"{conns}x{streams}"
            for name in found:
                print(f"load   {shape:5} 32 B  {name:6} {cpu[name]:8.0f} ns CPU a call, {kernel[name]:5.0f} of them in the kernel   {rate[name]:10,.0f} calls/s")
            for name in list(found)[:-1]:
                print(f"load   {shape:5} memif / {name} CPU a call: {cpu['memif'] / cpu[name]:.2f}" + (" (aim 0.60)" if streams > 1 else ""))
            least = 1 - kernel["uring"] / cpu["uring"]
            print(f"load   {shape:5} with a port, and TCP, that cost nothing: {least:.2f} (HTTP/2, chain and log alone, as io_uring's node has them)")
    if "sizes" in args.parts:
        settings = {"uring": uring, "memif 1500": memif, "memif 9000": Setting("memif", args.target, 9000)}
        for size in (1 << 10, 16 << 10, 64 << 10):
            found = {name: [] for name in settings}
            for _ in range(args.runs):
                for name, setting in settings.items():
                    found[name].append(setting.run(16, 8, args.seconds, size))
            cpu = medians(found, "cpu_ns")
            for name in found:
                print(f"sizes  {size >> 10:2} KiB      {name:10} {cpu[name] / 1000:8.2f} us CPU a call, {cpu[name] / cpu['uring']:.2f} of uring's")
    if "idle" in args.parts:
        found = {setting.name: [] for setting in everyone}
        for _ in range(args.runs):
            for setting in everyone:
                found[setting.name].append(setting.run(1, 1, args.seconds))
        p50 = medians(found, "p50_us")
        for name in found:
            print(f"idle   1x1 32 B    {name:6} p50 {p50[name]:7.1f} us")
        for name in list(found)[:-1]:
            print(f"idle   memif / {name} p50: {p50['memif'] / p50[name]:.2f} (aim 0.33)")
    if "conns" in args.parts:
        found = {20: [], 2000: []}
        for _ in range(args.runs):
            for conns in found:
                found[conns].append(memif.run(conns, 1, args.seconds))
        cpu = medians(found, "cpu_ns")
        for conns in found:
            print(f"conns  {conns:5} x 1 32 B  memif {cpu[conns]:8.0f} ns CPU a call")
        print(f"conns  2,000 / 20 CPU a call: {cpu[2000] / cpu[20]:.2f} (aim 1.50)")


if __name__ == "__main__":
    main()
