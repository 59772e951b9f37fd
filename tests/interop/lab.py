"""examples/lab/README.md, walked as its reader would: unchanged grpcio programs in namespaces of their own, through one
node on each kind of port, and through two nodes that seal, on the CPU and on DPDK's devices. What tells the ways apart
is one line of settings.

    lab.py       root; a node with DPDK; exit status 1 when anything failed, 77 when it cannot run here
"""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from harness import process, tools, towpath
from harness.lab import missing
from harness.process import ROOT, NotReady, Process, bounded

EXAMPLES = ROOT / "examples" / "lab"
# A lab of the test's own: somebody may be playing in theirs.
NAME = f"tpi{os.getpid()}"
ENV = {"TOWPATH_LAB": NAME}
CASES = (
    "empty_unary large_unary client_streaming server_streaming ping_pong empty_stream custom_metadata "
    "status_code_and_message special_status_message unimplemented_method cancel_after_begin "
    "cancel_after_first_response timeout_on_sleeping_server concurrent_300 big_metadata deadline_seen cancel_seen "
    "status_details mebibyte_both_ways stream_of_1000"
).split()
METRICS = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9901/metrics', timeout=5).read().decode())"


class Wrong(Exception):
    """What is not as the README says."""


def inside(role, *command):
    return [ROOT / "scripts" / "lab.sh", "exec", f"{NAME}-{role}", *command]


def start(role, command, ready, env=None, cwd=None):
    child = Process(inside(role, *command), {**ENV, **(env or {})}, cwd, name=f"{Path(command[0]).name} in {role}")
    try:
        child.ready(ready, 60)
    except NotReady:
        child.kill()
        raise
    return child


def node(role, adn, config, cwd=None):
    command = [towpath.binary(), "run", EXAMPLES / adn, "--config", config]
    return start(role, command, r"towpath ready: .*listening ", cwd=cwd)


def greeted(python, address):
    """The README's client, through `address`."""
    command = inside("client", python, EXAMPLES / "client.py", address)
    status, said = bounded(command, 60, env=ENV)
    found = re.search(r"p50 \d+ µs", said)
    if status != 0 or "all answered" not in said or not found:
        raise Wrong(f"the client through {address} ended with {status}:\n{said[-1500:]}")
    return found.group(0)


def counted(role):
    status, said = bounded(inside(role, sys.executable, "-c", METRICS), 20, env=ENV)
    if status != 0:
        raise Wrong(f"the node in {role} has no metrics:\n{said[-500:]}")
    totals = {}
    for name, value in re.findall(r"^towpath_(\w+?)_total(?:\{[^}]*\})? (\S+)$", said, re.M):
        totals[name] = totals.get(name, 0) + float(value)
    return totals


def ended(*children):
    for child in children:
        child.kill()


def one_node(python):
    """The node's settings for its two raw ports differ in one line."""
    both = [(EXAMPLES / f"{name}.toml").read_text().splitlines() for name in ("xdp", "dpdk")]
    others = [(a, b) for a, b in zip(*both, strict=True) if a != b and not a.startswith("#")]
    if len(others) != 1:
        raise Wrong(f"one line was to differ: {others}")
    server = start("server", [python, "-u", EXAMPLES / "server.py", "10.7.0.3:50051"], "listening on")
    try:
        for config, address in (("kernel", "10.7.0.2"), ("xdp", "10.7.0.10"), ("dpdk", "10.7.0.10")):
            child = node("node", "lab.adn", EXAMPLES / f"{config}.toml")
            try:
                print(f"  {config:<8} {greeted(python, f'{address}:15001')}", flush=True)
            finally:
                ended(child)
    finally:
        ended(server)


def over_ipv6(python):
    """The same programs, application and settings, with IPv6's addresses: neighbours are asked for by ICMPv6."""
    home = Path(tempfile.mkdtemp(prefix="towpath-lab-"))
    try:
        for role, number in (("client", 1), ("node", 2), ("server", 3)):
            bounded(["ip", "-n", f"{NAME}-{role}", "addr", "add", f"fd07::{number}/64", "dev", "fabric0", "nodad"], 10)
        new = lambda text: re.sub(r"10\.7\.0\.(\d+)(:\d+|/24)?", to_ipv6, text)
        (home / "lab.adn").write_text(new((EXAMPLES / "lab.adn").read_text()))
        server = start("server", [python, "-u", EXAMPLES / "server.py", "[fd07::3]:50051"], "listening on")
        try:
            for config in ("xdp", "dpdk"):
                (home / f"{config}.toml").write_text(new((EXAMPLES / f"{config}.toml").read_text()))
                child = node("node", home / "lab.adn", home / f"{config}.toml")
                try:
                    print(f"  {config:<8} {greeted(python, '[fd07::10]:15001')}, over IPv6", flush=True)
                finally:
                    ended(child)
        finally:
            ended(server)
    finally:
        shutil.rmtree(home)


def to_ipv6(found):
    """`10.7.0.9` is `fd07::9`, with its port or its network."""
    number, tail = found.group(1), found.group(2) or ""
    return f"[fd07::{number}]{tail}" if tail.startswith(":") else f"fd07::{number}" + tail.replace("/24", "/64")


def loads():
    """pktgen at both ends: calls over raw ports to an echo on a raw port, and all answered."""
    pktgen = Path(towpath.binary()).with_name("pktgen")
    for backend, device in (("xdp", "fabric0"), ("dpdk", "net_af_packet0,iface=fabric0")):
        port = ["--backend", backend, "--device", device, "--address"]
        listen = ["--listen", "10.7.0.13:50051", *port, "10.7.0.13/24"]
        server = start("server", [pktgen, "echo", *listen], r"pktgen echo: ready on ")
        try:
            call = ["--to", "10.7.0.13:50051", "--method", "/lab.Echo/Echo", "--conns", "4", "--streams", "8"]
            bounds = ["--count", "5000", "--for", "20s", "--wait", "5s", "--json", "-"]
            command = inside("client", pktgen, "call", *call, *bounds, *port, "10.7.0.11/24")
            status, said = bounded(command, 60, env=ENV)
            figures = json.loads(said[said.find("{") :]) if status == 0 else {}
            if figures.get("failed") != 0 or figures["calls"] < 5000:
                raise Wrong(f"pktgen call over {backend} ended with {status}:\n{said[-1500:]}")
            print(f"  {backend:<8} {figures['calls']} calls from pktgen to pktgen, none failed", flush=True)
        finally:
            ended(server)


def on_devices(text):
    """Settings with the one line that the example has commented out; pinned, so that small jobs go there too."""
    line = re.compile(r"^# (offload = \{.*) \}$", re.M)
    if not line.search(text):
        raise Wrong(f"no such line in:\n{text}")
    return line.sub(r'\1, placement = "pinned" }', text)


def two_nodes(program, place):
    """grpcio's own cases and the README's client, from end to end, with jobs on `place`."""
    home = Path(tempfile.mkdtemp(prefix="towpath-lab-"))
    running = []
    try:
        (home / ".cache/lab").mkdir(parents=True)
        key = home / ".cache/lab/fabric.keys"
        key.touch(0o600)
        key.write_text(f"1 {os.urandom(32).hex()}\n")
        for name in ("caller", "callee"):
            text = (EXAMPLES / f"sealed/{name}.toml").read_text()
            (home / f"{name}.toml").write_text(on_devices(text) if place == "dpdk" else text)
        server = [*program.server, "--port", "50051"]
        running.append(start("server", server, r"^listening \d+$", program.env))
        running.append(node("server", "sealed/callee.adn", home / "callee.toml", home))
        running.append(node("client", "sealed/caller.adn", home / "caller.toml", home))

        command = inside("client", *program.client, "--address", "127.0.0.1:15001", "--cases", ",".join(CASES))
        _, said = bounded(command, 120, env={**ENV, **program.env})
        passed = [line.split()[1] for line in said.splitlines() if line.startswith("PASS ")]
        if sorted(passed) != sorted(CASES):
            raise Wrong(f"{place}: {len(passed)} of {len(CASES)} cases passed:\n{said[-2000:]}")
        ended(running.pop(0))
        python = program.server[0]
        running.insert(0, start("server", [python, "-u", EXAMPLES / "server.py", "127.0.0.1:50051"], "listening on"))
        p50 = greeted(python, "127.0.0.1:15001")

        socket = home / ".cache/lab/caller.sock"
        explain = ["explain", EXAMPLES / "sealed/caller.adn", "--config", home / "caller.toml"]
        for question in (["status", "--admin", socket], explain):
            status, said = bounded([towpath.binary(), *question], 20, home)
            if status != 0 or ("device, pinned" in said) != (place == "dpdk"):
                raise Wrong(f"{place}: {question[0]} says ({status}):\n{said}")
        caller, callee = counted("client"), counted("server")
        jobs = [totals.get("offload_device_jobs", 0) for totals in (caller, callee)]
        sealed, opened = caller.get("messages_sealed", 0), callee.get("messages_opened", 0)
        for what, is_so in (
            ("messages are sealed", min(sealed, opened) > 2000),
            ("messages are compressed", caller.get("messages_compressed", 0) > 0),
            ("devices do the work", (min(jobs) > 1000) == (place == "dpdk")),
            ("no device died", not (caller | callee).get("offload_device_died")),
        ):
            if not is_so:
                raise Wrong(f"{place}: not so: {what}: sealed {sealed}, opened {opened}, jobs on devices {jobs}")
        print(f"  {place:<8} {p50}, {len(CASES)} cases of grpcio, jobs on devices {jobs}", flush=True)
    finally:
        ended(*reversed(running))
        shutil.rmtree(home)


def main():
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        return 77
    error = towpath.build()
    if error:
        print(f"towpath does not build:\n{error}")
        return 1
    program = tools.python()
    try:
        status, said = bounded([ROOT / "scripts" / "lab.sh", "up"], 60, env=ENV)
        if status != 0:
            raise Wrong(f"the lab did not come up:\n{said}")
        one_node(program.server[0])
        over_ipv6(program.server[0])
        loads()
        for place in ("cpu", "dpdk"):
            two_nodes(program, place)
    except (Wrong, NotReady, tools.Missing) as wrong:
        print(f"FAIL lab: {wrong}")
        return 1
    finally:
        bounded([ROOT / "scripts" / "lab.sh", "down"], 60, env=ENV)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
