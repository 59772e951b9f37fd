"""What the four elements do to real calls: faults, compression, the log; and reloads."""

import gzip
import os
import signal
import struct
import time
import zlib

from harness import towpath, wire

from . import many, node, require, same, scene, until

PLAIN = bytes(10_000)
ACCEPTS = ("grpc-accept-encoding", "identity,deflate,gzip")


@scene
def faults_are_the_share_asked_for(backend, _):
    """2,000 calls at 10 %: within 5 sigma, and the metrics say the same number as the callers saw."""
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging - FaultInjection(0.1)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            statuses = many(client, 2000)
            faults = statuses.count(14)
            same(sorted(set(statuses)), [0, 14], "statuses")
            require(133 <= faults <= 267, f"{faults} of 2000 faulted")
            answer = until(lambda: next((a for a in [client.unary()] if a.status == 14), None), 10, "one more fault")
            require("FaultInjection" in answer.detail or "fault injected" in answer.detail, f"message {answer.detail!r}")
            same(client.unary(path="/grpc.health.v1.Health/Check").status, 0, "a health check")
            health = [client.unary(path="/grpc.health.v1.Health/Check").status for _ in range(200)]
            same(health, [0] * 200, "health checks under a general rule")
        metrics = towpath_node.metrics()
        counted = [v for k, v in metrics.items() if "FaultInjection" in k and "reject" in k.lower()]
        require(counted and max(counted) >= faults + 1, f"the metrics count {counted}, the caller saw {faults} and more")
    server.stop()


@scene
def fault_delay(backend, _):
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - FaultInjection(100%, delay: 150ms)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            start = time.monotonic()
            same(client.unary().status, 0, "status")
            require(0.145 < time.monotonic() - start < 0.6, f"took {time.monotonic() - start:.3f} s")
            start = time.monotonic()
            same(client.unary(extra=[("grpc-timeout", "50m")]).status, 4, "a deadline within the delay")
            require(time.monotonic() - start < 0.14, f"the deadline came after {time.monotonic() - start:.3f} s")
    server.stop()


@scene
def fault_status(backend, _):
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - FaultInjection(1.0, RESOURCE_EXHAUSTED)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(set(many(client, 20)), {8}, "statuses")
    server.stop()


@scene
def answers_are_compressed_for_those_who_ask(backend, _):
    server = wire.Backend()
    with node(backend, "LoadBalancing - Compression(min: 1KiB)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            asked = client.unary(PLAIN, extra=[ACCEPTS])
            same((asked.status, asked.field("grpc-encoding")), (0, "gzip"), "status and encoding")
            same(asked.messages(), [(1, PLAIN)], "the message")
            require(len(asked.body) < 1000, f"{len(asked.body)} bytes on the wire of {len(PLAIN)}")

            silent = client.unary(PLAIN)
            same((silent.status, silent.field("grpc-encoding")), (0, None), "without asking: status and encoding")
            same(silent.messages(), [(0, PLAIN)], "without asking: the message")

            other = client.unary(PLAIN, extra=[("grpc-accept-encoding", "identity,snappy")])
            same(other.messages(), [(0, PLAIN)], "asking for something else: the message")

            small = client.unary(b"small", extra=[ACCEPTS])
            same(small.messages(), [(0, b"small")], "below min")
            noise = os.urandom(5000)
            same(client.unary(noise, extra=[ACCEPTS]).messages(), [(0, noise)], "what does not shrink")
        saved = [v for k, v in towpath_node.metrics().items() if "saved" in k or "compress" in k]
        require(any(saved), "no metric moved for compression")
    server.stop()


@scene
def deflate_is_zlib(backend, _):
    server = wire.Backend()
    with node(backend, "LoadBalancing - Compression(deflate)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            answer = client.unary(PLAIN, extra=[ACCEPTS])
            same(answer.field("grpc-encoding"), "deflate", "encoding")
            flag, size = struct.unpack(">BI", answer.body[:5])
            same((flag, zlib.decompress(answer.body[5 : 5 + size])), (1, PLAIN), "the message, RFC 1950")
    server.stop()


@scene
def requests_are_compressed_once_advertised(backend, _):
    """The first request goes as it is; after an answer that advertises gzip, the next ones are compressed."""

    def answer(conn, stream, call):
        extra = [("grpc-accept-encoding", "identity,gzip")] if call.path.endswith("/Tells") else []
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), *extra])
        conn.data(stream, wire.message(wire.messages(call.body)[0][1]))
        conn.trailers(stream, [("grpc-status", "0")])

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing - Compression", server.endpoint, args=("--cores", "0")) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            for path in ("/t.T/Silent", "/t.T/Silent", "/t.T/Tells", "/t.T/Tells", "/t.T/Silent"):
                met = client.unary(PLAIN, path=path)
                same((met.status, met.messages()), (0, [(0, PLAIN)]), path)
        flags = [wire.messages(call.body)[0][0] for call in server.calls]
        same(flags, [0, 0, 0, 1, 1], "flags of the requests at the server")
        encodings = [call.field("grpc-encoding") for call in server.calls]
        same(encodings[3:], ["gzip", "gzip"], "encodings")
        for call in server.calls:
            require("gzip" in (call.field("grpc-accept-encoding") or ""), "the server is not told what the node can undo")
            same(wire.messages(call.body)[0][1], PLAIN, "what the server read")
    server.stop()


@scene
def decompress_sends_both_ways_plain(backend, _):
    """A caller and a server that both compress see plain messages only, and say so in no header."""

    def answer(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")])
        conn.data(stream, wire.message(PLAIN, True) + wire.message(b"plain", False))
        conn.trailers(stream, [("grpc-status", "0")])

    server = wire.Backend(answer=answer)
    extra = "element Plain { request { decompress() } }\n"
    with towpath.Node(towpath.policy("LoadBalancing - Plain", [server.endpoint], extra), backend) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            for _ in range(3):
                met = client.unary(PLAIN, compressed=True, extra=[ACCEPTS, ("grpc-encoding", "gzip")])
                same((met.status, met.messages()), (0, [(0, PLAIN), (0, b"plain")]), "the answer")
                require(met.field("grpc-encoding") in (None, "identity"), f"encoding {met.field('grpc-encoding')}")
        for call in server.calls:
            same(wire.messages(call.body), [(0, PLAIN)], "the request")
            same(call.field("grpc-encoding"), None, "the request's encoding")
    server.stop()


@scene
def compressed_answers_are_undone(backend, _):
    """The server compresses because the node said it may; a caller who cannot decompress gets it plain."""

    def answer(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")])
        conn.data(stream, wire.message(PLAIN, True) + wire.message(b"plain", False) + wire.message(PLAIN, True))
        conn.trailers(stream, [("grpc-status", "0")])

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing - Compression", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            met = client.unary(b"x")
            same((met.status, met.messages()), (0, [(0, PLAIN), (0, b"plain"), (0, PLAIN)]), "a caller without gzip")
            require(met.field("grpc-encoding") in (None, "identity"), f"encoding {met.field('grpc-encoding')}")
            met = client.unary(b"x", extra=[ACCEPTS])
            same([plain for _, plain in met.messages()], [PLAIN, b"plain", PLAIN], "a caller with gzip")
    server.stop()


@scene
def compression_bombs_are_bounded(backend, _):
    """64 MiB of zeros in 64 KiB, from a caller and from a server: RESOURCE_EXHAUSTED, not memory."""
    import gzip
    packed = gzip.compress(bytes(64 << 20))
    bomb = struct.pack(">BI", 1, len(packed)) + packed

    def answer(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")])
        conn.data(stream, bomb)
        conn.trailers(stream, [("grpc-status", "0")])

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing - Compression", server.endpoint) as towpath_node:
        start = towpath_node.process.resident_bytes()
        for _ in range(5):
            with wire.Client(towpath_node.address) as client:
                met = client.unary(b"x", seconds=10)
                same(met.status, 8, f"from a server: {met}")
                fields = wire.request_fields(extra=[("grpc-encoding", "gzip")])
                met = client.finish(client.start(fields, bomb), 10)
                same(met.status, 8, f"from a caller: {met}")
        same(towpath_node.total("calls_message_inflates"), 10, "bombs counted")
        grown = towpath_node.process.resident_bytes() - start
        require(grown < 48 << 20, f"memory grew by {grown >> 20} MiB")
    server.stop()


@scene
def broken_compression_ends_the_call(backend, _):
    """A server whose message says gzip and is not: a caller that needs it undone is answered INTERNAL."""
    def answer(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")])
        conn.data(stream, struct.pack(">BI", 1, 20) + b"this is not gzipped!")
        conn.trailers(stream, [("grpc-status", "0")])

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing - Compression", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same([client.unary(seconds=5).status for _ in range(3)], [13] * 3, "statuses")
        same(towpath_node.total("calls_message_corrupt"), 3, "damaged messages counted")
    server.stop()


@scene
def messages_that_are_none_are_counted_by_what_is_wrong(backend, _):
    """A flag of 255, a message that the stream's end cuts, a stream of gzip cut short or damaged, a length too
    large, a bomb."""
    import gzip
    packed = gzip.compress(b"plain " * 100)
    damaged = packed[:20] + bytes([packed[20] ^ 0x55]) + packed[21:]
    framed = lambda flag, body, length=None: struct.pack(">BI", flag, len(body) if length is None else length) + body
    server = wire.Backend()
    extra = "element Plain { request { decompress() } }\n"
    with towpath.Node(towpath.policy("LoadBalancing - Plain", [server.endpoint], extra), backend) as towpath_node:
        for body, status, counter, text in [
            (framed(255, b"x"), 13, "calls_message_flag", "neither 0 nor 1"),
            (framed(0, b"short", 100), 13, "calls_message_cut", "ends inside a message"),
            (framed(1, packed[:-9]), 13, "calls_message_corrupt", "damaged or cut short"),
            (framed(1, damaged), 13, "calls_message_corrupt", "damaged or cut short"),
            (framed(1, b"x" * 100, 8 << 20), 8, "calls_message_too_large", "larger than message_bytes_max"),
            (framed(1, gzip.compress(bytes(8 << 20))), 8, "calls_message_inflates", "unpacks to more than"),
        ]:
            before = towpath_node.total(counter)
            with wire.Client(towpath_node.address) as client:
                fields = wire.request_fields(extra=[("grpc-encoding", "gzip")])
                met = client.finish(client.start(fields, body), 10)
                same(met.status, status, f"{counter}: {met}")
                require(text in str(met.field("grpc-message")), f"{counter}: {met.field('grpc-message')}")
            same(towpath_node.total(counter) - before, 1, counter)
        with wire.Client(towpath_node.address) as client:
            same(client.unary(b"whole").status, 0, "a call after them")
    server.stop()


@scene
def every_call_is_logged(backend, _):
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging - FaultInjection(50%)", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            statuses = many(client, 200)
        lines = until(lambda: len(towpath_node.log()) >= 200 and towpath_node.log(), 5, "200 lines in the log")
        same(len(lines), 200, "lines")
        failed = [line for line in lines if str(line.get("status")) in ("14", "UNAVAILABLE")]
        same(len(failed), statuses.count(14), "failures in the log")
        text = str(failed[0])
        for word in ("FaultInjection", "FI", "client", "server", "towpath.test.Echo"):
            require(word in text, f"no {word} in {text}")
        good = next(line for line in lines if line not in failed)
        require(server.endpoint in str(good), f"no endpoint in {good}")
    server.stop()


@scene
def reload_swaps_the_chain(backend, _):
    """SIGHUP: new calls meet the new chain, the call in flight ends on the old one, a bad file changes nothing."""
    held = []

    def answer(conn, stream, call):
        if call.path.endswith("/Held"):
            held.append((conn, stream, call))
        else:
            wire.Backend.echo(conn, stream, call)

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(set(many(client, 20)), {0}, "before")
            stream = client.start(wire.request_fields("/t.T/Held"), wire.message(b"held"))
            until(lambda: held, 5, "the held call arrives")
            faulty = towpath.policy("LoadBalancing - FaultInjection(1.0)", [server.endpoint])
            towpath_node.adn.write_text(faulty)
            towpath_node.process.signal(signal.SIGHUP)
            until(lambda: client.unary().status == 14, 5, "the new chain")
            same(set(many(client, 20)), {14}, "after the reload")
            wire.Backend.echo(*held[0])
            same(client.finish(stream, 5).status, 0, "the call in flight")
            towpath_node.adn.write_text("service client\nclient -> nobody: LoadBalancing - Nonsense(\n")
            towpath_node.process.signal(signal.SIGHUP)
            time.sleep(0.5)
            same(set(many(client, 20)), {14}, "after a refused reload")
            require(towpath_node.alive(), "the node ended")
    server.stop()
