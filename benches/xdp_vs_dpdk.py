#!/usr/bin/env python3
"""Our AF_XDP port beside DPDK's net_af_xdp on the same veth pair, driven by the same program.

    cargo build --release --features dpdk
    python3 benches/xdp_vs_dpdk.py                       skb and drv mode and calls, about three minutes
    python3 benches/xdp_vs_dpdk.py drv --runs 7 --for 4

`pktgen packet --forward` returns frames on core 0, over each port in turn, so that noise of the machine meets both;
`pktgen packet --backend xdp` sends as fast as it can from core 1, in the namespace at the other end. A figure is the
median over the runs. `ns a frame` is the returner's CPU time over frames returned, the kernel's share of it included.
On a machine that others use it is the fairer one of the two: a sender that is interrupted slows both returners down.

`calls` is the node instead, with gRPC calls of the kernel at the other end, over each port in drv mode: its CPU a call.
Needs root.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bypass
import port_layer

WITHIN = 1.2
# Connections, streams, bytes.
SHAPES = ((1, 1, 32), (16, 8, 32), (128, 1, 32), (16, 8, 1024))


class Pair(port_layer.Veth):
    """What `port_layer` measures over, with the sender always on our own port."""

    backend = "xdp"

    def device(self, _):
        return "va"

    def inside(self, side):
        return ["ip", "netns", "exec", self.spaces[1 if side == "return" else 0]]


def returner(pair, pktgen, port):
    own = [pktgen, "packet", "--forward", "--core", str(port_layer.RETURN_CORE), "--json", "-", "--wait", "20s"]
    return pair.inside("return") + own + port


def ports(mode):
    # net_af_xdp takes the driver's mode where it can, unless it is told not to.
    forced = ",force_copy=1" if mode == "drv" else ""
    found = {"xdp": ["--backend", "xdp", "--mode", mode, "--port", "vb"]}
    if mode == "drv":
        found["net_af_xdp"] = ["--backend", "dpdk", "--port", f"net_af_xdp0,iface=vb{forced}"]
    return found


def part(pair, mode, args):
    found = {name: [] for name in ports(mode)}
    for run in range(args.runs):
        for name, port in ports(mode).items():
            figures, _ = port_layer.measure_one(pair, returner(pair, args.pktgen, port), args.pktgen, args)
            found[name].append(figures)
            port_layer.say(f"{mode} {run + 1}: {name} {figures['frames_per_s'] / 1e6:.3f} M frames/s")
    keys = ("frames_per_s", "ns_per_frame")
    return {name: {key: statistics.median(row[key] for row in rows) for key in keys} for name, rows in found.items()}


class Node(bypass.Setting):
    """A node over a port on the near end of `wired`'s veth pair."""

    def __init__(self, wired, port):
        super().__init__("uring", wired.target)
        self.near, self.far, self.echo = wired.near, wired.far, wired.echo
        self.backend, self.listen = "auto", f"10.9.0.10:{bypass.CLIENT_PORT}"
        self.config = f'[[port]]\nname = "fabric"\n{port}\naddress = "10.9.0.10/24"\n'
        self.load = ["--backend", "uring", "--echo", self.echo, "--to", self.listen, "--poll", "busy"]


def calls(args):
    wired = bypass.Setting("veth", Path(args.pktgen).parent)
    for inside in (wired.near, wired.far):
        off = [word for name in ("tx", "sg", "tso", "gso", "gro") for word in (name, "off")]
        subprocess.run([*inside, "ethtool", "-K", "veth0", *off], check=True, capture_output=True)
    nodes = {
        "xdp": Node(wired, 'backend = "xdp"\ndevice = "veth0"\nmode = "drv"'),
        "net_af_xdp": Node(wired, 'backend = "dpdk"\ndevice = "net_af_xdp0,iface=veth0,force_copy=1"'),
    }
    found = {}
    for conns, streams, size in SHAPES:
        runs = [{name: node.run(conns, streams, args.seconds, size) for name, node in nodes.items()} for _ in range(args.runs)]
        cpu = {name: statistics.median(run[name]["cpu_ns"] for run in runs) for name in nodes}
        found[f"{conns}x{streams} {size} B"] = cpu
        said = ", ".join(f"{name} {ns:,.0f} ns" for name, ns in cpu.items())
        print(f"calls  {conns:3} x {streams} {size:4} B  CPU a call: {said}, ratio {cpu['xdp'] / cpu['net_af_xdp']:.2f}", flush=True)
    return found


def show(mode, size, result):
    print(f"\nveth, {mode} mode, {size}-byte frames")
    print(f"{'':<12}{'M frames/s':>12}{'ns a frame':>12}")
    for who, row in result.items():
        print(f"{who:<12}{row['frames_per_s'] / 1e6:>12.3f}{row['ns_per_frame']:>12.0f}")


def main():
    parser = argparse.ArgumentParser(description="AF_XDP ports beside DPDK's")
    parser.add_argument("modes", nargs="*", default=["skb", "drv", "calls"], help="of skb, drv, calls")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, interleaved")
    parser.add_argument("--for", dest="seconds", type=int, default=3, metavar="SECONDS")
    parser.add_argument("--size", type=int, default=64, help="bytes of a frame")
    parser.add_argument("--pktgen", default=str(port_layer.ROOT / "target/release/pktgen"))
    parser.add_argument("--json", metavar="FILE", help="write the figures too")
    args = parser.parse_args()
    if unknown := [mode for mode in args.modes if mode not in ("skb", "drv", "calls")]:
        parser.error(f"no mode {unknown[0]} (there are: skb, drv, calls)")
    if os.geteuid() != 0:
        sys.exit("it makes network namespaces: run it as root")
    if not Path(args.pktgen).exists():
        sys.exit(f"{args.pktgen} is missing: cargo build --release --features dpdk")
    results = {}
    if returned := [mode for mode in args.modes if mode != "calls"]:
        pair = Pair()
        try:
            for mode in returned:
                results[mode] = part(pair, mode, args)
                show(mode, args.size, results[mode])
        finally:
            pair.close()
    if "calls" in args.modes:
        results["calls"] = calls(args)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")
    compared = results.get("drv")
    if not compared:
        return 0
    ratio = compared["xdp"]["ns_per_frame"] / compared["net_af_xdp"]["ns_per_frame"]
    print(f"\nxdp / net_af_xdp, CPU a frame: {ratio:.2f} (aim: {WITHIN:.2f} or less)")
    return 0 if ratio <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())
