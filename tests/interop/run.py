"""Real gRPC clients and servers in four languages, through the node: the interop matrix and the scenarios.

    run.py [--direct] [--backend uring,epoll] [--clients python,…] [--servers go,…] [--cases empty_unary,…]
           [--only matrix|scenarios] [--full]

`--direct` connects clients to servers without the node, to test the programs themselves. Standard library
only; the programs are built under `.cache/`. Exit status 1 when anything failed.
"""

import argparse
import os
import sys
import time

import scenes
from harness import lab, process, testservice, tools, towpath

OFFICIAL = (
    "empty_unary cacheable_unary large_unary client_compressed_unary server_compressed_unary client_streaming "
    "client_compressed_streaming server_streaming server_compressed_streaming ping_pong empty_stream "
    "custom_metadata status_code_and_message special_status_message unimplemented_method unimplemented_service "
    "cancel_after_begin cancel_after_first_response timeout_on_sleeping_server rpc_soak channel_soak"
).split()
FURTHER = (
    "big_metadata binary_metadata concurrent_300 deadline_seen cancel_seen status_details mebibyte_both_ways "
    "stream_of_1000"
).split()

# What a server library does not let its program do; the hand-written `wire` peer covers these.
COMPRESSED_REQUEST = {"client_compressed_unary", "client_compressed_streaming"}
CANNOT = {
    "python": (COMPRESSED_REQUEST | {"cacheable_unary"}, "grpcio servers cannot see a message's flag"),
    "node": (
        COMPRESSED_REQUEST | {"cacheable_unary", "server_compressed_unary", "server_compressed_streaming"},
        "grpc-js servers neither see nor choose a message's flag",
    ),
    "tonic": ({"cacheable_unary", "server_compressed_streaming"}, "tonic compresses a whole answer, not messages"),
    "go": ({"cacheable_unary", "server_compressed_streaming"}, "grpc-go compresses a whole answer, not messages"),
    # Answers only when the request has ended.
    "wire": (
        {"ping_pong", "cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server",
         "concurrent_300", "deadline_seen", "cancel_seen", "custom_metadata"}, "the wire server is no full implementation",
    ),
}  # fmt: skip
# Between these two libraries alone, without the node in between.
DIRECT_CANNOT = {
    ("tonic", "tonic"): {"timeout_on_sleeping_server"},  # their deadlines end when headers have come
    ("python", "go"): {"timeout_on_sleeping_server"},  # grpc-go resets first, which grpcio calls CANCELLED
}
STREAMS_MAX = 100


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], {}

    def skip(self, what, reason):
        self.skipped[what] = reason

    def note(self, what, wrong):
        if wrong is None:
            self.passed += 1
        else:
            self.failed.append((what, wrong))
            print(f"FAIL {what}: {wrong}", flush=True)


def start_server(language, program, port=0):
    """Gives (stop function, 'host:port')."""
    if language == "wire":
        server = testservice.Server(port)
        return server.stop, server.endpoint
    # grpcio 1.85 servers reset surplus streams and then hang when they limit them: not our matter.
    limit = [] if language == "python" else ["--max_streams", str(STREAMS_MAX)]
    child = process.Process([*program.server, "--port", str(port), *limit], program.env, name=f"{language} server")
    try:
        found = child.ready(r"^listening (\d+)$", 20)
    except process.NotReady:
        child.kill()
        raise
    return child.kill, f"{lab.host()}:{found.group(1)}"


def run_client(tally, title, language, program, address, cases, seconds=120):
    """One client program for all its cases."""
    if language == "wire":
        host, port = address.split(":")
        for name, wrong in testservice.run((host, int(port)), cases):
            tally.note(f"{title} {name}", wrong)
        return
    status, out = process.bounded([*program.client, "--address", address, "--cases", ",".join(cases)], seconds, env=program.env)
    left = list(cases)
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if word not in ("PASS", "FAIL", "SKIP") or name not in left:
            continue
        left.remove(name)
        if word == "SKIP":
            tally.skip(f"{title} {name}", text)
        else:
            tally.note(f"{title} {name}", None if word == "PASS" else text)
    for name in left:
        tally.note(f"{title} {name}", f"no result (exit {status}): {out[-300:]}")


def pair(tally, label, client, server, programs, address, cases, direct):
    cannot, reason = CANNOT[server]
    if direct:
        cannot = cannot | DIRECT_CANNOT.get((client, server), set())
    title = f"{label} {client}->{server}"
    for name in cases:
        if name in cannot:
            tally.skip(f"{title} {name}", reason)
    wanted = [name for name in cases if name not in cannot]
    start, failed, passed = time.monotonic(), len(tally.failed), tally.passed
    run_client(tally, title, client, programs.get(client), address, wanted)
    took, wrong = time.monotonic() - start, len(tally.failed) - failed
    print(f"  {title:<28} {tally.passed - passed:3} passed {wrong:3} failed {took:6.1f} s", flush=True)


def matrix(tally, backend, clients, servers, programs, cases):
    """Every client against every server; `backend` None is direct."""
    for server in servers:
        try:
            stop, endpoint = start_server(server, programs.get(server))
        except process.NotReady as reason:
            tally.note(f"{server} server", str(reason))
            continue
        node = None
        if lab.current:
            lab.current.mend_bridge()
        try:
            address, label = endpoint, "direct"
            if backend:
                node = towpath.Node(towpath.policy("LoadBalancing - Logging", [endpoint]), backend)
                address, label = node.endpoint, backend
            for client in clients:
                pair(tally, label, client, server, programs, address, cases, backend is None)
                if node and not node.alive():
                    tally.note(f"{label} {client}->{server}", f"towpath died:\n{node.process.tail()}")
                    break
        except process.NotReady as reason:
            tally.note(f"{backend} {server}", str(reason))
        finally:
            stop()
            if node:
                node.stop()


def report(tally):
    reasons = {}
    for what, reason in tally.skipped.items():
        reasons.setdefault(reason, []).append(what)
    for reason, what in sorted(reasons.items()):
        print(f"skipped {len(what):4}: {reason}")
    print(f"interop: {tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped")


def names(text, known, parser):
    chosen = [name for name in text.split(",") if name]
    for name in chosen:
        if name not in known:
            parser.error(f"{name}: not one of {', '.join(known)}")
    return chosen


def main():
    parser = argparse.ArgumentParser(prog="run.py")
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--backend", default=",".join(towpath.BACKENDS))
    parser.add_argument("--clients", default=",".join(tools.LANGUAGES) + ",wire")
    parser.add_argument("--servers", default=",".join(tools.LANGUAGES) + ",wire")
    parser.add_argument("--cases", default=",".join(OFFICIAL + FURTHER))
    parser.add_argument("--only", choices=("matrix", "scenarios"))
    parser.add_argument("--scenario", default="", help="scenarios whose name contains this")
    parser.add_argument("--full", action="store_true", help="the slow scenarios too")
    options = parser.parse_args()
    backends = [None] if options.direct else names(options.backend, (*towpath.BACKENDS, *lab.RAW), parser)
    known = (*tools.LANGUAGES, "wire")
    clients, servers = names(options.clients, known, parser), names(options.servers, known, parser)
    cases = names(options.cases, OFFICIAL + FURTHER, parser)

    tally = Tally()
    programs = {}
    if not options.direct:
        error = towpath.build()
        if error:
            print(f"towpath does not build:\n{error}")
            return 1
    languages = [name for name in tools.LANGUAGES if name in clients + servers]
    programs, missing = tools.setup(languages)
    for language, reason in missing.items():
        print(f"skipped: {language}: {reason}")
        if os.environ.get("CI") and not reason.endswith("is not installed"):
            tally.note(language, reason)
        else:
            tally.skip(language, reason)
    clients = [name for name in clients if name not in missing]
    servers = [name for name in servers if name not in missing]
    for backend in backends:
        reason = towpath.uring_works() if backend == "uring" else None
        if reason:
            tally.skip("uring", f"uring does not start here: {reason.splitlines()[-1]}")
            continue
        reason = lab.missing() if backend in lab.RAW else None
        if reason:
            tally.skip(backend, reason)
            continue
        with lab.entered(backend):
            if options.only != "scenarios":
                matrix(tally, backend, clients, servers, programs, cases)
            if backend and options.only != "matrix":
                scenes.run_all(tally, backend, programs, options.full, options.scenario)
    report(tally)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
