#!/usr/bin/env python3
"""Programs swapped ten times a second under full load: no call lost, none judged by two programs, how much slower.

    cargo build --release --bin towpath --bin pktgen && python3 benches/swap.py [--for 10] [--rounds 3]

The node has core 0, `pktgen call` (closed loop) and `pktgen echo` share core 1. Rounds with and without swaps take
turns; the median call is compared between the medians of both. Two programs alternate, each of five elements; a
call's `response` checks that its own program's `request` has judged it, and counts.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("TOWPATH_BIN", ROOT / "target/release/towpath")).parent

ELEMENT = """
element Generation(name: string) {
    request { call.metadata["x-generation"] = name }
    response {
        if call.request.metadata["x-generation"] == name { count("judged") } else { count("misjudged") }
    }
}
"""


def program(name, port):
    other = {"a": 'Logging(to: "/dev/null") - LoadBalancing', "b": 'LoadBalancing - Logging(to: "/dev/null")'}
    return (
        f'service frontend\nservice catalog {{ endpoints: ["127.0.0.1:{port}"] }}\n'
        f'frontend -> catalog: Generation("{name}") - {other[name]} - Compression - FaultInjection(0)\n{ELEMENT}'
    )


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(path, method, target):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(path)
        s.sendall(f"{method} {target} HTTP/1.1\r\nhost: towpath\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while part := s.recv(1 << 16):
            answer += part
    return int(answer.split()[1]), answer.decode(errors="replace")


def pinned(core, *command, **how):
    return subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], **how)


def replace(path, text):
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


class Swaps:
    """One node, its backend, and a load."""

    def __init__(self, folder):
        self.backend, self.port = free_port(), free_port()
        self.app, self.socket = folder / "app.adn", str(folder / "admin.sock")
        self.json = folder / "calls.json"
        self.name, said = "a", folder / "node.log"
        replace(self.app, program(self.name, self.backend))
        config = folder / "node.toml"
        config.write_text(
            f'[[listen]]\nname = "pods"\naddress = "127.0.0.1:{self.port}"\n[shards]\ncores = [0]\n'
            f'[admin]\naddress = "127.0.0.1:0"\nsocket = "{self.socket}"\n'
        )
        self.echo = pinned(1, BIN / "pktgen", "echo", "--listen", f"127.0.0.1:{self.backend}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.node = pinned(0, BIN / "towpath", "run", self.app, "--config", config, stderr=said.open("w"))
        until = time.monotonic() + 10
        while "ready" not in said.read_text():
            if self.node.poll() is not None or time.monotonic() > until:
                sys.exit(f"the node did not become ready: {said.read_text()}")
            time.sleep(0.02)

    def end(self):
        for process in (self.node, self.echo):
            process.terminate()
            process.wait(15)

    def round(self, seconds, swaps_a_second):
        load = pinned(
            1, BIN / "pktgen", "call", "--to", f"127.0.0.1:{self.port}", "--method", "/catalog.Catalog/Get",
            "--streams", 16, "--conns", 4, "--for", f"{seconds}s", "--warm-up", "500ms", "--json", self.json,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(0.6)
        begun, swaps, slowest = time.monotonic(), 0, 0.0
        while swaps_a_second and time.monotonic() - begun < seconds:
            self.name = "b" if self.name == "a" else "a"
            replace(self.app, program(self.name, self.backend))
            asked = time.monotonic()
            code, answer = ask(self.socket, "POST", "/reload")
            slowest = max(slowest, time.monotonic() - asked)
            if code != 200:
                sys.exit(f"reload refused: {answer}")
            swaps += 1
            time.sleep(max(0.0, begun + swaps / swaps_a_second - time.monotonic()))
        load.wait(seconds + 30)
        return json.loads(self.json.read_text()), swaps, slowest

    def counted(self, name):
        _, text = ask(self.socket, "GET", "/metrics")
        found = re.findall(rf'^towpath_\S*{name}\S* ([0-9.e+]+)$', text, re.M)
        return sum(float(value) for value in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--for", dest="seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=10, help="swaps a second")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        node = Swaps(Path(folder))
        try:
            medians = {True: [], False: []}
            swaps, calls, failed, slowest = 0, 0, 0, 0.0
            for _ in range(args.rounds):
                for swapping in (False, True):
                    told, n, slow = node.round(args.seconds, args.rate if swapping else 0)
                    swaps, slowest = swaps + n, max(slowest, slow)
                    calls += told["ok"]
                    failed += told["calls"] - told["ok"]
                    medians[swapping].append(told["latency_us"]["p50"])
            judged, misjudged = node.counted("[^_]judged") or node.counted("judged"), node.counted("misjudged")
        finally:
            node.end()
    still, moved = statistics.median(medians[False]), statistics.median(medians[True])
    print(f"{swaps} swaps, the slowest reload {slowest * 1e3:.1f} ms; {calls} calls, {failed} failed, {misjudged:.0f} misjudged")
    print(f"median call {still:.1f} µs without, {moved:.1f} µs with swaps: {100 * (moved / still - 1):+.1f} %")
    sys.exit(bool(failed or misjudged or not judged))


if __name__ == "__main__":
    main()
