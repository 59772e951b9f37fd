#!/usr/bin/env python3
"""Connect, load and close over a raw port for a while: what the node holds at the end must be what it held at first.

    cargo build --release --features dpdk
    python3 benches/soak.py --backend xdp-drv --minutes 10        root; also dpdk-packet, dpdk-memif, dpdk-xdp, xdp-skb

The node is in one network namespace, `pktgen` as client and as backend at the far end of a veth pair in another
(tests/interop/harness/lab.py). Each round opens 200 connections, loads them for two seconds and closes them; every
fourth client is killed instead. Printed each minute: resident memory, connections, rings (those kept for connections to
come with them: a pool within `ring_budget_bytes`, which grows as long as a round needs more of one size than any
before), DPDK's buffers that are out, and what ran out. A round in which no call came through is printed with what the
node counted in it. Exit status 1 if there was one, if connections are left at the end or more buffers out than before
the first, or memory without rings has grown by more than 2 MiB after the first minute.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "interop"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
os.environ.setdefault("TOWPATH_BIN", str(TARGET / "towpath"))
from harness import lab, process, towpath  # noqa: E402

RAN_OUT = ("tx_no_buffer", "rx_no_buffer", "frames_refused", "no_buffer", "conn_errors", "failed")


def seen(node):
    """Resident KiB, connections, KiB of rings, buffers that are out, counters of things that ran out."""
    metrics = node.metrics()
    of_ports = {name: value for name, value in metrics.items() if name.startswith(("towpath_port_", "towpath_device_"))}
    out = {name: value for name, value in of_ports.items() if value and any(word in name for word in RAN_OUT)}
    conns = sum(value for name, value in of_ports.items() if "port_conns_open" in name)
    rings = sum(value for name, value in of_ports.items() if "port_ring_" in name)
    buffers = sum(value for name, value in of_ports.items() if "device_buffers_in_use" in name)
    return node.process.resident_bytes() >> 10, int(conns), int(rings) >> 10, int(buffers), out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="xdp-drv", choices=list(lab.RAW))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--conns", type=int, default=200)
    args = parser.parse_args()
    reason = lab.missing()
    if reason:
        print(reason)
        return 1
    pktgen = TARGET / "pktgen"
    with lab.entered(args.backend):
        backend = process.Process([pktgen, "echo", "--listen", f"{lab.host()}:50051"], name="pktgen echo")
        backend.ready("ready on")
        node = towpath.Node(towpath.policy("LoadBalancing - Logging(to: \"/dev/null\")", [f"{lab.host()}:50051"]), args.backend)
        load = [pktgen, "call", "--to", node.endpoint, "--method", "/echo.Echo/Call", "--conns", str(args.conns), "--streams", "2",
                "--for", "2s", "--warm-up", "0s", "--wait", "5s", "--quiet"]  # fmt: skip
        begun, rounds, failed, first, said = time.monotonic(), 0, 0, None, 0
        idle_buffers = seen(node)[3]
        before = node.metrics()
        while time.monotonic() - begun < args.minutes * 60:
            client = subprocess.Popen([str(word) for word in load], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if rounds % 4 == 3:
                time.sleep(1)
                client.send_signal(signal.SIGKILL)
            errors = client.communicate(timeout=60)[1].decode()
            rounds += 1
            after = node.metrics()
            if client.returncode > 0:
                failed += 1
                moved = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
                print(f"{time.monotonic() - begun:.0f} s, round {rounds}: {errors.strip()}\n  {moved}", flush=True)
            before = after
            if time.monotonic() - begun >= 60 * (said + 1):
                said += 1
                figures = seen(node)
                first = first or figures
                resident, conns, rings, buffers, out = figures
                print(f"{said:3} min {rounds:5} rounds: {resident:7} KiB resident, {conns:4} connections, {rings:6} KiB rings, {buffers:5} buffers out {out or ''}", flush=True)
        time.sleep(15)
        resident, conns, rings, buffers, out = seen(node)
        grown = (resident - rings) - (first[0] - first[2] if first else resident - rings)
        print(
            f"end     {rounds:5} rounds: {resident:7} KiB resident, {rings} KiB rings, {grown:+} KiB of all else since the first minute; "
            f"{conns} connections, {buffers} buffers out ({idle_buffers} before) {out or ''}"
        )
        calls = node.total("grpc_server_handled_total") or node.total("calls_started")
        print(f"{calls:,.0f} calls; the node's own connection to the backend is the one that stays")
        node.stop()
        backend.kill()
        return 1 if failed or conns > 8 or grown > 2048 or buffers > idle_buffers else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
