"""Messages sealed between two nodes: what a caller and a backend see, what whoever sits between them sees, and
what becomes of calls that were meddled with."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

from harness import between, h2, process, towpath, wire

from . import require, same, scene, until

SECRET = b"the harbour gate opens at four; " * 40
CALLER, CALLEE = 'LoadBalancing - Encryption("fabric")', 'Decryption("fabric") - LoadBalancing'
BREACHES = "unknown_key forged replayed expired malformed cut not_grpc".split()


class Pair:
    """client - node a - somebody on the wire - node b - server."""

    def __init__(self, backend, server, caller=CALLER, callee=CALLEE, keys=None, config="", config_b=""):
        self.dir = Path(tempfile.mkdtemp(prefix="towpath-keys-"))
        self.files = [self.dir / "a.keys", self.dir / "b.keys"]
        keys = keys or [f"1 {os.urandom(16).hex()}\n"] * 2
        for file, text in zip(self.files, keys):
            file.write_text(text)
            file.chmod(0o600)
        configs = [f'[keys]\nfabric = "{file}"\n{config}' for file in self.files]
        self.b = towpath.Node(towpath.policy(callee, [server]), backend, configs[1] + config_b)
        self.wire = between.Between(self.b.address)
        try:
            self.a = towpath.Node(towpath.policy(caller, [self.wire.endpoint]), backend, configs[0])
        except process.NotReady:
            self.b.stop()
            raise

    def breaches(self):
        """What each node has counted, by kind, zeros left out."""
        out = []
        for node in (self.a, self.b):
            counted = node.metrics()
            kinds = {kind: node.total(f"calls_seal_{kind}", counted) for kind in BREACHES}
            kinds["unsealed"] = node.total("calls_unsealed", counted)
            out.append({kind: int(count) for kind, count in kinds.items() if count})
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.a.stop()
        self.wire.stop()
        self.b.stop()
        for file in self.files:
            file.unlink()
        self.dir.rmdir()


@contextlib.contextmanager
def sealed(backend, answer=None, **options):
    """A pair of nodes in front of a recording server, and a client's connection to them."""
    server = wire.Backend(answer=answer)
    try:
        with Pair(backend, server.endpoint, **options) as pair, wire.Client(pair.a.address) as client:
            yield pair, server, client
    finally:
        server.stop()


@scene
def sealed_calls_arrive_and_nobody_between_reads_them(backend, _):
    def echo(conn, stream, call):
        packed = [("grpc-encoding", "gzip")] if call.field("grpc-encoding") else []
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), *packed])
        conn.data(stream, call.body)
        conn.trailers(stream, [("grpc-status", "0")])

    with sealed(backend, echo) as (pair, server, client):
        gzip = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")]
        bodies = {
            "a message": wire.message(SECRET),
            "an empty one": wire.message(b""),
            "a packed one": wire.message(SECRET, compressed=True),
            "a long one": wire.message(SECRET * 800),
            "a stream": b"".join(wire.message(SECRET[:n]) for n in (1, 0, 700, 33)),
            "no message": b"",
        }
        for what, body in bodies.items():
            extra = [*(gzip if what == "a packed one" else []), ("x-own", what)]
            stream = client.start(wire.request_fields(extra=extra), body)
            met = client.finish(stream, 20)
            call = server.calls[-1]
            same((met.status, met.detail), (0, ""), what)
            same((call.body, met.body == body), (body, True), f"{what}: at the server, and back")
            same((call.field("x-own"), call.field("towpath-call")), (what, None), f"{what}: metadata")
        # A stream whose end comes when its messages have long gone.
        stream = client.start(wire.request_fields(), wire.message(SECRET), end=False)
        until(lambda: len(server.calls[-1].body) == len(SECRET) + 5, 5, "the first message")
        client.conn.data(stream, wire.message(b"last"), end_stream=False)
        client.conn.data(stream, b"", end_stream=True)
        same(client.finish(stream).messages(), [(0, SECRET), (0, b"last")], "a stream in pieces")
        # Its headers end the stream: there is no body at all.
        same(client.finish(client.start(wire.request_fields())).status, 0, "no body")
        require(SECRET[:16] not in pair.wire.seen, "a part of a message stood on the wire")
        same({len(call.fields) and dict(call.fields).get("towpath-call") is not None for call in pair.wire.requests},
             {True}, "each call is named on the wire")
        same(pair.breaches(), [{}, {}], "breaches")
        count = 1 + 1 + 1 + 1 + 4 + 2
        for node in (pair.a, pair.b):
            counted = node.metrics()
            for what in ("messages_sealed", "messages_opened"):
                same(node.total(what, counted), count, what)


@scene
def sealed_failures_are_the_servers_own(backend, _):
    """Status and trailers arrive; an answer of one header block that says OK ends sealed, too."""

    def answer(conn, stream, call):
        code = call.field("x-code")
        block = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", code), ("x-end", "1")]
        conn.headers(stream, block, end_stream=True)

    with sealed(backend, answer) as (pair, _, client):
        for code in (0, 5, 13, 0):
            met = client.unary(SECRET, extra=[("x-code", str(code))])
            same((met.status, met.field("x-end"), met.body), (code, "1", b""), f"status {code}")
        same(pair.breaches(), [{}, {}], "breaches")


@scene
def sealed_messages_are_compressed_first(backend, _):
    def answer(conn, stream, call):
        accepts = [("grpc-accept-encoding", "identity,gzip")]
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), *accepts])
        conn.data(stream, wire.message(wire.messages(call.body)[0][1]))
        conn.trailers(stream, [("grpc-status", "0")])

    caller, callee = 'LoadBalancing - Compression(min: 100) - Encryption("fabric")', \
        'Decryption("fabric") - Compression(min: 100) - LoadBalancing'
    with sealed(backend, answer, caller=caller, callee=callee) as (pair, server, client):
        long = SECRET * 100
        for turn in range(3):
            before = len(pair.wire.seen)
            met = client.unary(long, extra=[("grpc-accept-encoding", "identity,gzip")])
            same((met.status, met.messages()), (0, [(1, long)]), f"call {turn}: the answer, packed")
            went = len(pair.wire.seen) - before
            same(wire.messages(server.calls[-1].body)[0][1], long, f"call {turn}: the request")
        require(went < len(long) // 10, f"{went} bytes on the wire for twice {len(long)}")
        same(wire.messages(server.calls[-1].body)[0][0], 1, "the server asked for gzip, and gets it")
        same(client.unary(long).messages(), [(0, long)], "a caller that asks for nothing gets it plain")
        require(SECRET[:16] not in pair.wire.seen, "a part of a message stood on the wire")
        same(pair.breaches(), [{}, {}], "breaches")


def flip(towards_wanted, at):
    """Changes one bit of the first DATA frame of a direction that is so long."""
    done = []

    def edit(towards, frame):
        if frame.kind == h2.DATA and towards == towards_wanted and len(frame.payload) > at and not done:
            done.append(frame)
            changed = bytearray(frame.payload)
            changed[at] ^= 4
            return changed, frame.flags
        return frame.payload, frame.flags

    return edit


def empty(nth=0):
    """Takes the bytes out of the nth DATA frame of an answer."""
    met = []

    def edit(towards, frame):
        if frame.kind == h2.DATA and not towards and frame.payload:
            met.append(frame)
            if len(met) == nth + 1:
                return b"", frame.flags
        return frame.payload, frame.flags

    return edit


def endless(towards, frame):
    """Takes the bytes out of the DATA frame that ends a request; the end stays."""
    if frame.kind == h2.DATA and towards and frame.end_stream:
        return b"", frame.flags
    return frame.payload, frame.flags


def twice(towards, frame):
    """A record of an answer comes a second time."""
    if frame.kind == h2.DATA and not towards and frame.payload:
        return frame.payload * 2, frame.flags
    return frame.payload, frame.flags


@scene
def whatever_is_done_to_sealed_calls_is_noticed(backend, _):
    """One bit, a part left out, a part repeated, an old call, a plain one: each ends with UNAUTHENTICATED and one
    count at the node that noticed; the connection and the calls beside it go on."""
    with sealed(backend) as (pair, server, client):
        same(client.unary(SECRET).status, 0, "before")
        counted = [{}, {}]

        def ends(what, kind, at_callee, call):
            # A call may have begun well, if its first message came behind its headers; but no part of one arrives.
            begins = kind not in ("replayed", "unsealed", "malformed")
            count = lambda: len([c for c in server.calls if not begins or c.ended or c.body])  # noqa: E731
            reached = count()
            met = call()
            pair.wire.edit = None
            same(met.status, 16, f"{what}: status ({met.detail})")
            require(met.detail and "key" not in met.detail or kind == "unknown_key", f"{what}: {met.detail!r}")
            counts = counted[1 if at_callee else 0]
            counts[kind] = counts.get(kind, 0) + 1
            until(lambda: pair.breaches() == counted, 5, f"{what}: counted as {counted}, met {pair.breaches()}")
            if at_callee:
                same(count(), reached, f"{what}: calls at the server")
            same(client.unary(SECRET).messages(), [(0, SECRET)], f"after {what}")

        def edited(edit, body=wire.message(SECRET)):
            def call():
                pair.wire.edit = edit
                return client.finish(client.start(wire.request_fields(), body))

            return call

        ends("a changed byte of a request", "forged", True, edited(flip(True, 90)))
        ends("a changed key id of a request", "unknown_key", True, edited(flip(True, 5 + 4)))
        ends("a changed version of a request", "malformed", True, edited(flip(True, 5)))
        ends("a request without its message", "cut", True, edited(endless))
        ends("a changed byte of an answer", "forged", False, edited(flip(False, 90)))
        ends("an answer without its message", "forged", False, edited(empty()))
        ends("an answer without its end", "cut", False, edited(empty(1)))
        ends("an answer repeated", "forged", False, edited(twice))

        old = pair.wire.requests[0]
        with wire.Client(pair.b.address) as direct:

            def again(path=dict(old.fields)[":path"]):
                fields = [(k, path if k == ":path" else v) for k, v in old.fields if k != "grpc-timeout"]
                return direct.finish(direct.start(fields, old.body))

            ends("a call to another method", "forged", True, lambda: again("/catalog.Catalog/Other"))
            ends("an old call, again", "replayed", True, again)
            ends("a plain call", "unsealed", True, lambda: direct.unary(SECRET))
            ends("a call with a name that is none", "unsealed", True,
                 lambda: direct.unary(SECRET, extra=[("towpath-call", "guess")]))
            name = [(k, v) for k, v in pair.wire.requests[1].fields if k == "towpath-call"]
            ends("a plain call under a stolen name", "malformed", True, lambda: direct.unary(SECRET, extra=name))
            ends("a sealed message under another call", "forged", True,
                 lambda: direct.finish(direct.start(wire.request_fields(extra=name), old.body)))
        logged = [line for line in pair.b.log() if line.get("status") == "UNAUTHENTICATED"]
        same({line.get("flag") for line in logged}, {"UAEX"}, "flags in the access log")


@scene
def a_sealed_call_may_be_slow_and_not_old(backend, _):
    """A call is named as soon as it begins, so its first message may come late; what was recorded is no call for long."""
    with sealed(backend, config_b='[offload]\ncall_age_max = "1s"\n') as (pair, server, client):
        stream = client.start(wire.request_fields(), end=False)
        same(client.unary(SECRET).status, 0, "a call beside it")
        until(lambda: len(server.calls) == 2, 5, "the slow call is at the server, without a message")
        time.sleep(2.5)
        client.conn.data(stream, wire.message(SECRET), end_stream=True)
        same(client.finish(stream).messages(), [(0, SECRET)], "the slow call")
        old = pair.wire.requests[1]
        with wire.Client(pair.b.address) as direct:
            fields = [(k, v) for k, v in old.fields if k != "grpc-timeout"]
            same(direct.finish(direct.start(fields, old.body)).status, 16, "the recorded call")
        same(pair.breaches(), [{}, {"expired": 1}], "breaches")


@scene
def keys_are_turned_while_calls_run(backend, _):
    """A new key: known to all, then sealed with by all, then the old one goes. No call fails. A node that was
    forgotten is told apart from one with a wrong key."""
    old, new = (f"{number} {os.urandom(32).hex()}" for number in (1, 2))
    with sealed(backend, keys=[f"{old}\n"] * 2) as (pair, _, client):
        caller = wire.Caller(pair.a.address, pause=0.002)
        caller.start()
        for texts in ([f"{new} open-only\n{old}\n"] * 2, [f"{old} open-only\n{new}\n"] * 2, [f"{new}\n"] * 2):
            for node, file, text in zip((pair.b, pair.a), reversed(pair.files), texts):
                file.write_text(text)
                node.process.signal(signal.SIGHUP)
                done = caller.done
                until(lambda: caller.done > done + 20, 10, "calls go on")
        caller.stop()
        same((caller.failed, caller.first), (0, None), "failed calls while keys turned")
        for text, kind in ((f"7 {os.urandom(32).hex()}\n", "unknown_key"), (f"2 {os.urandom(32).hex()}\n", "forged")):
            pair.files[1].write_text(text)
            pair.b.process.signal(signal.SIGHUP)
            # A call that was under way may be answered under the new key, and fail at the other node.
            until(lambda: client.unary(SECRET).status == 16 and pair.breaches()[1].get(kind), 5, f"{kind} at the callee's node")
        # A file that is no keyring changes nothing.
        pair.files[1].write_text(f"{new}\n")
        pair.b.process.signal(signal.SIGHUP)
        until(lambda: client.unary(SECRET).status == 0, 5, "the right key again")
        pair.files[1].write_text("2 tooshort\n")
        pair.b.process.signal(signal.SIGHUP)
        until(lambda: any("refused" in line for line in pair.b.process.tail().splitlines()), 5, "the reload is refused")
        same(client.unary(SECRET).status, 0, "the keys from before stay")


def libraries_through_both_nodes(backend, programs, checked, **options):
    """gRPC's own cases from grpcio to grpcio through a pair of nodes, which are then handed to `checked`."""
    program = programs["python"]
    cases = (
        "empty_unary large_unary client_streaming server_streaming ping_pong empty_stream custom_metadata "
        "status_code_and_message special_status_message unimplemented_method cancel_after_begin "
        "cancel_after_first_response timeout_on_sleeping_server concurrent_300 big_metadata deadline_seen cancel_seen "
        "status_details mebibyte_both_ways stream_of_1000"
    ).split()
    server = process.Process([*program.server, "--port", "0"], program.env, name="python server")
    try:
        endpoint = "127.0.0.1:" + server.ready(r"^listening (\d+)$", 20).group(1)
        with Pair(backend, endpoint, **options) as pair:
            command = [*program.client, "--address", pair.a.endpoint, "--cases", ",".join(cases)]
            _, out = process.bounded(command, 120, env=program.env)
            passed = [line.split()[1] for line in out.splitlines() if line.startswith("PASS ")]
            same(sorted(passed), sorted(cases), f"cases that passed:\n{out[-2000:]}")
            same(pair.breaches(), [{}, {}], "breaches")
            require(pair.b.total("messages_opened") > 1000, f"{pair.b.total('messages_opened')} messages were sealed")
            checked(pair)
    finally:
        server.kill()


@scene
def libraries_notice_no_seal(backend, programs):
    if "python" in programs:
        libraries_through_both_nodes(backend, programs, lambda _: None)


# What switches a node from the CPU to DPDK's software devices.
DEVICES = '[offload]\ncompression = "dpdk:compress_zlib0"\ncrypto = "dpdk:crypto_openssl0"\nplacement = "pinned"\n'


@scene
def libraries_notice_no_device(backend, programs):
    """The same with jobs on devices, messages compressed before they are sealed. Needs a node with DPDK."""

    def checked(pair):
        for node in (pair.a, pair.b):
            counted = node.metrics()
            jobs, died = (node.total(f"offload_device_{what}", counted) for what in ("jobs", "died"))
            require(jobs > 1000 and died == 0, f"{jobs} jobs on devices, {died} devices died")
        require(pair.a.total("messages_compressed") > 0, "nothing was compressed")

    if "python" not in programs:
        return
    chains = {"caller": 'LoadBalancing - Logging - Compression - Encryption("fabric")', "callee": CALLEE}
    try:
        libraries_through_both_nodes(backend, programs, checked, config=DEVICES, **chains)
    except process.NotReady as refused:
        if "this build has no DPDK" not in str(refused):
            raise
