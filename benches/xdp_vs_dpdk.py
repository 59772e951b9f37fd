#!/usr/bin/env python3
"""Our AF_XDP port beside DPDK's net_af_xdp on the same veth pair, driven by the same program.

    cargo build --release -p pktgen --features dpdk
    python3 benches/xdp_vs_dpdk.py                       skb and drv mode, about two minutes
    python3 benches/xdp_vs_dpdk.py drv --runs 7 --for 4

`pktgen packet --forward` returns frames on core 0, over each port in turn, so that noise of the machine meets both;
`pktgen packet --backend xdp` sends as fast as it can from core 1, in the namespace at the other end. A figure is the
median over the runs. `ns a frame` is the returner's CPU time over frames returned, the kernel's share of it included.
On a machine that others use it is the fairer one of the two: a sender that is interrupted slows both returners down.
Needs root.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import port_layer

WITHIN = 1.2


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


def show(mode, size, result):
    print(f"\nveth, {mode} mode, {size}-byte frames")
    print(f"{'':<12}{'M frames/s':>12}{'ns a frame':>12}")
    for who, row in result.items():
        print(f"{who:<12}{row['frames_per_s'] / 1e6:>12.3f}{row['ns_per_frame']:>12.0f}")


def main():
    parser = argparse.ArgumentParser(description="AF_XDP ports beside DPDK's")
    parser.add_argument("modes", nargs="*", default=["skb", "drv"], help="of skb, drv")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, interleaved")
    parser.add_argument("--for", dest="seconds", type=int, default=3, metavar="SECONDS")
    parser.add_argument("--size", type=int, default=64, help="bytes of a frame")
    parser.add_argument("--pktgen", default=str(port_layer.ROOT / "target/release/pktgen"))
    parser.add_argument("--json", metavar="FILE", help="write the figures too")
    args = parser.parse_args()
    if unknown := [mode for mode in args.modes if mode not in ("skb", "drv")]:
        parser.error(f"no mode {unknown[0]} (there are: skb, drv)")
    if os.geteuid() != 0:
        sys.exit("it makes network namespaces: run it as root")
    if not Path(args.pktgen).exists():
        sys.exit(f"{args.pktgen} is missing: cargo build --release -p pktgen --features dpdk")
    results = {}
    pair = Pair()
    try:
        for mode in args.modes:
            results[mode] = part(pair, mode, args)
            show(mode, args.size, results[mode])
    finally:
        pair.close()
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
