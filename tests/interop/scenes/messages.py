"""What chains that read, judge, hold and rewrite messages do to real calls, byte by byte and through grpcio."""

import struct
import time

from harness import lab, process, testservice, towpath, wire
from harness.process import ROOT

from . import require, same, scene, until

PROTO = ROOT / "tests" / "interop" / "proto" / "interop" / "test.proto"
UNARY = testservice.SERVICE + "UnaryCall"
DUPLEX = testservice.SERVICE + "FullDuplexCall"
ELEMENTS = """
element Wall {
    request { if call.payload.response_size > 100 { reject(PERMISSION_DENIED, "{call.payload.response_size} is too much") } }
}
element Rewrite {
    request { call.payload.response_size = call.payload.response_size + 1 }
    response {
        if call.status == OK { call.metadata["x-size"] = "{call.size}" }
        call.payload.payload = None
    }
}
element Stream {
    state call seen: uint = 0
    request message {
        seen += 1
        if seen > 3 { reject(RESOURCE_EXHAUSTED, "message {seen} of {call.size} B") }
    }
    response message { delay(30ms) }
}
"""


def policy(endpoint, unary, duplex="LoadBalancing"):
    return (
        f'proto "{PROTO}"\nservice client\nservice server {{ endpoints: ["{endpoint}"] }}\n{ELEMENTS}'
        f"client -> server: LoadBalancing\n"
        f"client -> server.grpc.testing.TestService/UnaryCall: LoadBalancing - {unary}\n"
        f"client -> server.grpc.testing.TestService/FullDuplexCall: {duplex}\n"
    )


def ask(size):
    return testservice.field(2, size)


@scene
def a_wall_reads_every_message_or_ends_the_call(backend, _):
    """Plain, compressed, merged fields: read. Malformed, cut, second, none: never at the server."""
    server = wire.Backend()
    with towpath.Node(policy(server.endpoint, "Wall"), backend) as node, wire.Client(node.address) as client:
        gzip = [("grpc-encoding", "gzip")]
        twice = ask(7) + ask(101)
        for what, met, status in (
            ("allowed", client.unary(ask(100), path=UNARY), 0),
            ("allowed, compressed", client.unary(ask(100), path=UNARY, extra=gzip, compressed=True), 0),
            ("refused", client.unary(ask(101), path=UNARY), 7),
            ("refused, compressed", client.unary(ask(101), path=UNARY, extra=gzip, compressed=True), 7),
            ("refused, last value wins", client.unary(twice, path=UNARY), 7),
            ("refused, behind 100 KB", client.unary(testservice.field(99, bytes(100_000)) + ask(101), path=UNARY), 7),
            ("malformed", client.unary(b"\x12\xff", path=UNARY), 13),
            ("an encoding nobody knows", client.unary(ask(1), path=UNARY, extra=[("grpc-encoding", "x")], compressed=True), 12),
        ):
            same(met.status, status, f"{what} ({met.detail})")
        bodies = (
            ("no message", b"", 13),
            ("a second message", wire.message(ask(1)) + wire.message(ask(101)), 13),
            ("trailing bytes", wire.message(ask(1)) + b"\0", 13),
            ("a cut message", wire.message(ask(1))[:-1], 13),
            ("a wrong flag", b"\x07" + wire.message(ask(1))[1:], 13),
            ("longer than a message may be", struct.pack(">BI", 0, 5 << 20) + b"x", 8),
        )
        for what, body, status in bodies:
            stream = client.start(wire.request_fields(path=UNARY), body)
            same(client.finish(stream).status, status, what)
        same([wire.messages(call.body)[0][1] for call in server.calls], [ask(100)] * 2, "what reached the server")
        same(client.unary(ask(1), path=UNARY).status, 0, "the same connection afterwards")
    server.stop()


@scene
def fields_are_rewritten_on_both_ways(backend, _):
    answer_body = testservice.field(1, testservice.field(2, b"body")) + testservice.field(88, b"kept")

    def answer(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc"), ("x-own", "1")])
        conn.data(stream, wire.message(answer_body))
        conn.trailers(stream, [("grpc-status", "0"), ("x-end", "2")])

    server = wire.Backend(answer=answer)
    chain = "Rewrite"
    with towpath.Node(policy(server.endpoint, chain), backend) as node, wire.Client(node.address) as client:
        own = testservice.field(77, b"kept")
        for options in ({}, {"extra": [("grpc-encoding", "gzip")], "compressed": True}):
            met = client.unary(own + ask(41), path=UNARY, **options)
            same((met.status, met.field("x-size"), met.field("x-own"), met.field("x-end")),
                 (0, str(len(answer_body)), "1", "2"), f"the answer ({met.detail})")
            parsed = testservice.parse(met.messages()[0][1])
            same(parsed, {88: [b"kept"]}, "its message")
            at_server = testservice.parse(wire.messages(server.calls[-1].body)[0][1])
            same(at_server, {77: [b"kept"], 2: [42]}, "the request at the server")
    server.stop()


@scene
def a_stream_is_judged_message_by_message(backend, _):
    """Three messages pass, the fourth ends both directions; answers are paced and keep their order."""
    server = wire.Backend()
    with towpath.Node(policy(server.endpoint, "Wall", "Stream"), backend) as node, wire.Client(node.address) as client:
        sent = [bytes([n]) * (20_000 * n) for n in range(1, 4)]
        start = time.monotonic()
        stream = client.start(wire.request_fields(path=DUPLEX), b"".join(map(wire.message, sent)))
        met = client.finish(stream)
        took = time.monotonic() - start
        same((met.status, met.messages()), (0, [(0, body) for body in sent]), "three messages")
        require(0.085 < took < 2, f"three answers of 30 ms each took {took:.3f} s")
        sent = [b"one", b"two", b"three"]
        stream = client.start(wire.request_fields(path=DUPLEX), b"".join(map(wire.message, sent)), end=False)
        until(lambda: len(server.calls) == 2 and len(server.calls[1].body) == 26, 5, "the first three")
        client.conn.data(stream, wire.message(b"four"))
        met = client.finish(stream)
        same(met.status, 8, "the fourth")
        require("message 4 of 4 B" in met.detail, met.detail)
        call = server.calls[1]
        until(lambda: getattr(call, "reset", None) == "CANCEL", 5, "the server is told by RST_STREAM(CANCEL)")
        same([body for _, body in wire.messages(call.body)], sent, "what reached the server")
    server.stop()


@scene
def libraries_notice_nothing(backend, programs):
    """gRPC's own cases through chains that take every message apart and put it together again."""
    if "python" not in programs:
        return
    program = programs["python"]
    cases = (
        "empty_unary large_unary client_streaming server_streaming ping_pong empty_stream status_code_and_message "
        "cancel_after_first_response timeout_on_sleeping_server concurrent_300 mebibyte_both_ways stream_of_1000"
    ).split()
    text = (
        "element Every { request message { observe(\"sizes\", call.size) } response message { observe(\"sizes\", call.size) } }\n"
        "element Whole { request { let asked = call.payload.response_size  if asked < 0 { reject(INTERNAL, \"no\") } }\n"
        "                response { if call.size > 0 { call.metadata[\"x-size\"] = \"{call.size}\" } } }\n"
    )
    server = process.Process([*program.server, "--port", "0"], program.env, name="python server")
    try:
        endpoint = f"{lab.host()}:" + server.ready(r"^listening (\d+)$", 20).group(1)
        policy = (
            f'proto "{PROTO}"\nservice client\nservice server {{ endpoints: ["{endpoint}"] }}\n{text}'
            "client -> server: LoadBalancing - Every\n"
            "client -> server.grpc.testing.TestService/UnaryCall: LoadBalancing - Every - Whole\n"
        )
        with towpath.Node(policy, backend) as node:
            command = [*program.client, "--address", node.endpoint, "--cases", ",".join(cases)]
            _, out = process.bounded(command, 120, env=program.env)
            passed = [line.split()[1] for line in out.splitlines() if line.startswith("PASS ")]
            same(sorted(passed), sorted(cases), f"cases that passed:\n{out[-2000:]}")
            observed = node.total("towpath_element_metric_observed_count")
            require(observed > 2500, f"{observed} messages were seen")
    finally:
        server.kill()
