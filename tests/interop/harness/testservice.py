"""gRPC's interop service by hand: a server that checks each message's compressed flag, and the client
cases that need to see it. The libraries hide the flag; this is where it is tested.
"""

import struct
import time

from . import h2, wire

TRAILING, INITIAL = "x-grpc-test-echo-trailing-bin", "x-grpc-test-echo-initial"
SERVICE = "/grpc.testing.TestService/"
ACCEPTS = ("grpc-accept-encoding", "identity,gzip")


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


def boolean(number, value):
    return field(number, field(1, int(value)))


def payload(number, size):
    return field(number, field(2, bytes(size)))


def parse(data):
    """{number: [int or bytes]}; wire types 0 and 2 are all these messages have."""
    out, at = {}, 0

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value

    while at < len(data):
        key = read()
        value = read()
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        out.setdefault(key >> 3, []).append(value)
    return out


def one(fields, number, default=0):
    return fields.get(number, [default])[-1]


def flag(fields, number):
    return bool(one(parse(one(fields, number, b"")), 1))


def body_size(fields, number):
    return len(one(parse(one(fields, number, b"")), 2, b""))


class Server(wire.Backend):
    """Answers when the request has ended, so everything but full duplex conversations."""

    def __init__(self, port=0):
        super().__init__(self.respond, port, keep=False, settings=((h2.INITIAL_WINDOW, 1 << 24), (h2.MAX_HEADER_LIST, 1 << 20)))

    def respond(self, conn, stream, call):
        initial = [(":status", "200"), ("content-type", "application/grpc")]
        trailers = []
        if call.field(INITIAL) is not None:
            initial.append((INITIAL, call.field(INITIAL)))
        if call.field(TRAILING) is not None:
            trailers.append((TRAILING, call.field(TRAILING)))
        code, detail, answers = self.judge(call)
        if call.field("x-test-details-bin") is not None:
            code, detail, answers = 9, "with details", []
            trailers.append(("grpc-status-details-bin", call.field("x-test-details-bin")))
        if any(compressed for _, compressed in answers):
            initial.append(("grpc-encoding", "gzip"))
        status = [("grpc-status", str(code))]
        if detail:
            status.append(("grpc-message", percent(detail)))
        if not answers and code:
            conn.headers(stream, initial + status + trailers, end_stream=True)
            return
        conn.headers(stream, initial)
        for plain, compressed in answers:
            conn.data(stream, wire.message(plain, compressed))
        conn.trailers(stream, status + trailers)

    def judge(self, call):
        """(status, message, [(plain message, whether to compress)])."""
        method = call.path.removeprefix(SERVICE)
        if method == "CacheableUnaryCall":
            return 0, "", [(field(1, field(2, str(time.time_ns()).encode())), False)]
        messages = [(bool(bit), parse(plain)) for bit, plain in wire.messages(call.body)]
        if method == "EmptyCall":
            return 0, "", [(b"", False)]
        if method == "UnaryCall":
            bit, request = messages[0]
            if flag(request, 8) and not bit:
                return 3, "the message is not compressed", []
            return echoed(request) or (0, "", [(payload(1, one(request, 2)), flag(request, 6))])
        if method == "StreamingInputCall":
            if any(flag(request, 2) and not bit for bit, request in messages):
                return 3, "the message is not compressed", []
            return 0, "", [(field(1, sum(body_size(request, 1) for _, request in messages)), False)]
        if method in ("StreamingOutputCall", "FullDuplexCall"):
            answers = []
            for _, request in messages:
                status = echoed(request)
                if status:
                    return status
                for parameters in map(parse, request.get(2, [])):
                    time.sleep(one(parameters, 2) / 1e6)
                    answers.append((payload(1, one(parameters, 1)), flag(parameters, 3)))
            return 0, "", answers
        return 12, "no such method", []


def echoed(request):
    status = parse(one(request, 7, b""))
    code = one(status, 1)
    return (code, one(status, 2, b"").decode(), []) if code else None


def percent(text):
    return "".join(chr(b) if 0x20 <= b <= 0x7E and b != 0x25 else f"%{b:02X}" for b in text.encode())


class Wrong(Exception):
    """A case failed."""


def same(met, wanted, what):
    if met != wanted:
        raise Wrong(f"{what}: {met!r}, expected {wanted!r}")


def _call(client, method, body, compressed=False):
    extra = [ACCEPTS, ("grpc-timeout", "10S")] + ([("grpc-encoding", "gzip")] if compressed else [])
    return client.finish(client.start(wire.request_fields(SERVICE + method, extra=extra), body), 15)


def client_compressed_unary(client):
    def request(expect):
        return boolean(8, expect) + field(2, 314159) + payload(3, 271828)

    same(_call(client, "UnaryCall", wire.message(request(True))).status, 3, "the probe's status")
    for compressed in (True, False):
        answer = _call(client, "UnaryCall", wire.message(request(compressed), compressed), compressed)
        same(answer.status, 0, f"status ({answer.detail})")
        same(body_size(parse(answer.messages()[0][1]), 1), 314159, "size")


def server_compressed_unary(client):
    for compressed in (True, False):
        request = boolean(6, compressed) + field(2, 314159) + payload(3, 271828)
        answer = _call(client, "UnaryCall", wire.message(request))
        same(answer.status, 0, f"status ({answer.detail})")
        same([bit for bit, _ in answer.messages()], [int(compressed)], "flags")
        same(body_size(parse(answer.messages()[0][1]), 1), 314159, "size")


def client_compressed_streaming(client):
    first = boolean(2, True) + payload(1, 27182)
    second = boolean(2, False) + payload(1, 45904)
    same(_call(client, "StreamingInputCall", wire.message(first)).status, 3, "the probe's status")
    answer = _call(client, "StreamingInputCall", wire.message(first, True) + wire.message(second), True)
    same(answer.status, 0, f"status ({answer.detail})")
    same(one(parse(answer.messages()[0][1]), 1), 73086, "sum")


def server_compressed_streaming(client):
    request = b"".join(field(2, field(1, size) + boolean(3, bit)) for size, bit in ((31415, True), (92653, False)))
    answer = _call(client, "StreamingOutputCall", wire.message(request))
    same(answer.status, 0, f"status ({answer.detail})")
    same([bit for bit, _ in answer.messages()], [1, 0], "flags")
    same([body_size(parse(plain), 1) for _, plain in answer.messages()], [31415, 92653], "sizes")


def cacheable_unary(client):
    """GET, as the official text has it; there is no cache here, so the answers only have to arrive."""
    request = payload(3, 0) + field(3, field(2, str(time.time_ns()).encode()))
    for _ in range(2):
        fields = wire.request_fields(SERVICE + "CacheableUnaryCall", extra=[("x-user-ip", "1.2.3.4")], method="GET")
        answer = client.finish(client.start(fields, wire.message(request)), 10)
        same(answer.status, 0, f"status ({answer.detail})")


CASES = {
    function.__name__: function
    for function in (
        client_compressed_unary, server_compressed_unary, client_compressed_streaming,
        server_compressed_streaming, cacheable_unary,
    )
}  # fmt: skip


def run(address, names):
    """[(case, None or what went wrong)] for those cases it has."""
    out = []
    for name in names:
        if name not in CASES:
            continue
        try:
            with wire.Client(address) as client:
                CASES[name](client)
            out.append((name, None))
        except (Wrong, h2.Closed, TimeoutError, ValueError, OSError, struct.error, IndexError) as error:
            out.append((name, f"{type(error).__name__}: {error}"))
    return out
