"""A backend that breaks the rules towards the node, its client.

Each entry is what the backend does once it has the first request, and what the caller may then see. The
node must answer the caller in gRPC's terms, tell the backend the RFC's reason where there is one, and
leave calls to other backends alone.
"""

import struct
import time

from harness import h2, hpack, wire

from .outcome import Failed, require, told

CASES = []
OK_FIELDS = [(":status", "200"), ("content-type", "application/grpc")]
UNAVAILABLE, INTERNAL, UNKNOWN, DEADLINE, CANCELLED, EXHAUSTED = 14, 13, 2, 4, 1, 8
BROKEN = (UNAVAILABLE, INTERNAL, UNKNOWN)


def u32(*values):
    return b"".join(struct.pack(">I", value) for value in values)


def answer(conn, stream, payload=b"hello", trailers=(("grpc-status", "0"),)):
    conn.headers(stream, OK_FIELDS)
    conn.data(stream, wire.message(payload))
    conn.trailers(stream, list(trailers))


class Case:
    """`act(conn, stream)` on the first request of each connection.

    `statuses`: what the caller may see. `told`: reasons one of which the backend must be told. `check`
    gets the caller's answer. Each case has an endpoint and an authority of its own, so that the backoff
    one has earned does not hide the next.
    """

    def __init__(self, name, act, statuses, told=None, timeout_ms=3000, body=b"hello", greet=True, check=None, settings=()):
        self.name, self.act, self.statuses, self.told, self.check = name, act, statuses, told, check
        self.timeout_ms, self.body, self.greet, self.settings = timeout_ms, body, greet, settings
        self.authority = name.replace("_", "-") + ".evil"
        self.heard = []

    def serve(self, sock):
        sock.settimeout(10)
        settings = self.settings or ((h2.INITIAL_WINDOW, 1 << 20),)
        conn = h2.Conn(sock, False, greet=self.greet, settings=settings)
        conn._take(len(h2.PREFACE), time.monotonic() + 10)
        stream = 0
        if self.greet:
            first = conn.until(lambda f: f.kind == h2.HEADERS, 10)
            if first is None:
                return
            stream = first.stream
        try:
            self.act(conn, stream)
        except h2.Closed:
            pass
        finally:
            self.heard.append(told(conn, stream, 4 if self.told else 0.5))

    def attack(self, box):
        self.heard.clear()
        try:
            with wire.Client(box.address) as client:
                extra = [("grpc-timeout", f"{self.timeout_ms}m")]
                patience = self.timeout_ms / 1000 + 4
                got = client.unary(self.body, authority=self.authority, extra=extra, seconds=patience)
        except (TimeoutError, h2.Closed) as error:
            raise Failed(f"the caller got no answer: {type(error).__name__} {error}") from error
        require(got.status in self.statuses, f"the caller saw {got}, expected status {self.statuses}")
        if self.check:
            self.check(got)
        if self.told:
            box.until(lambda: self.heard, 5)
            met = any(word in text for text in self.heard for word in self.told)
            require(met, f"the backend was told {self.heard}, expected {self.told}")


def case(name, *args, **options):
    CASES.append(Case(name, *args, **options))


def clean(got):
    """Nothing of a malformed answer may reach the caller."""
    for name, value in (got.headers or []) + (got.trailers or []):
        bad = name in ("connection", "transfer-encoding", "x-injected") or name != name.lower()
        require(not bad and not set(value) & set("\r\n\0"), f"the caller was given {name}: {value!r}")


def raw(data):
    return lambda conn, _: conn.raw(data)


def wait(conn, _):
    conn.until(lambda _: False, 6)


# Not HTTP/2 at all, or nothing.
case("speaks_http_1", raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), (UNAVAILABLE,), greet=False)
case("speaks_tls", raw(bytes.fromhex("15030300020228")), (UNAVAILABLE,), greet=False)
case("speaks_garbage", raw(bytes(range(256)) * 16), BROKEN, greet=False)
case("closes_at_once", lambda conn, _: conn.close(), (UNAVAILABLE,), greet=False)
case("never_greets", wait, (DEADLINE, UNAVAILABLE), greet=False, timeout_ms=1500)
case("never_answers", wait, (DEADLINE,), timeout_ms=800)
case("closes_after_the_request", lambda conn, _: conn.close(), (UNAVAILABLE,))

# RFC 9113 broken towards a client.
PUSH = h2.emit_frame(h2.PUSH_PROMISE, 4, 1, u32(2) + hpack.encode([(":method", "GET")]))
case("push_promise", raw(PUSH), BROKEN, told=("PROTOCOL_ERROR",))
case("headers_on_an_even_stream", lambda c, s: c.headers(2, OK_FIELDS), BROKEN, told=("PROTOCOL_ERROR",))
case("headers_on_an_idle_stream", lambda c, s: c.headers(s + 100, OK_FIELDS), BROKEN, told=("PROTOCOL_ERROR",))
case("data_before_headers", lambda c, s: c.frame(h2.DATA, 0, s, b"x"), BROKEN, told=("PROTOCOL_ERROR",))
case("frame_too_large", lambda c, s: c.frame(h2.DATA, 0, s, bytes(1 << 17)), BROKEN, told=("FRAME_SIZE_ERROR",))
case("bad_hpack", lambda c, s: c.headers(s, None, block=b"\x80"), BROKEN, told=("COMPRESSION_ERROR",))
case("settings_odd_length", raw(h2.emit_frame(h2.SETTINGS, 0, 0, bytes(5))), BROKEN, told=("FRAME_SIZE_ERROR",))
case("settings_window_2_31", raw(h2.emit_settings([(4, 1 << 31)])), BROKEN, told=("FLOW_CONTROL_ERROR",))
case("settings_push_1", raw(h2.emit_settings([(h2.ENABLE_PUSH, 1)])), BROKEN, told=("PROTOCOL_ERROR",))
case("ping_of_7_bytes", raw(h2.emit_frame(h2.PING, 0, 0, bytes(7))), BROKEN, told=("FRAME_SIZE_ERROR",))
case("window_of_0", raw(h2.emit_frame(h2.WINDOW_UPDATE, 0, 0, u32(0))), BROKEN, told=("PROTOCOL_ERROR",))
case(
    "window_overflow",
    lambda c, s: [c.frame(h2.WINDOW_UPDATE, 0, s, u32(0x7FFFFFFF)) for _ in range(2)],
    BROKEN + (EXHAUSTED,),
    told=("FLOW_CONTROL_ERROR",),
)
case("goaway_on_a_stream", lambda c, s: c.frame(h2.GOAWAY, 0, s, bytes(8)), BROKEN, told=("PROTOCOL_ERROR",))


def after_the_end(conn, stream):
    """A whole answer, then more of it: the caller has its answer already."""
    answer(conn, stream)
    conn.frame(h2.DATA, 0, stream, b"more")


case("data_after_end_stream", after_the_end, (0,))


def beyond_the_window(conn, stream):
    conn.headers(stream, OK_FIELDS)
    conn.frame(h2.DATA, 0, stream, struct.pack(">BI", 0, 1 << 30))
    for _ in range(4096):
        conn.frame(h2.DATA, 0, stream, bytes(16384))


case("data_beyond_the_window", beyond_the_window, BROKEN + (EXHAUSTED,), told=("FLOW_CONTROL_ERROR",))

# Malformed answers.
for _name, _fields in {
    "no_status": [("content-type", "application/grpc")],
    "status_text": [(":status", "abc")],
    "status_twice": [(":status", "200")] + OK_FIELDS,
    "request_pseudo": [(":status", "200"), (":path", "/"), ("content-type", "application/grpc")],
    "uppercase": OK_FIELDS + [("X-Upper", "1")],
    "connection": OK_FIELDS + [("connection", "close")],
    "transfer_encoding": OK_FIELDS + [("transfer-encoding", "chunked")],
    "crlf": OK_FIELDS + [("x-bad", "a\r\nx-injected: 1")],
    "nul": OK_FIELDS + [("x-bad", "a\0")],
}.items():
    case(f"headers_{_name}", lambda c, s, fields=_fields: c.headers(s, fields), BROKEN, told=("PROTOCOL_ERROR",), check=clean)
for _name, _fields in {
    "pseudo": [("grpc-status", "0"), (":status", "200")],
    "crlf": [("grpc-status", "0"), ("x-bad", "a\r\nx-injected: 1")],
    "connection": [("grpc-status", "0"), ("connection", "close")],
    "not_a_number": [("grpc-status", "fine")],
}.items():
    # Whether a status that is no number is passed on or mapped is the node's choice: libraries read UNKNOWN.
    _told = None if _name == "not_a_number" else ("PROTOCOL_ERROR",)
    _statuses = BROKEN + ((-1,) if _told is None else ())
    case(f"trailers_{_name}", lambda c, s, fields=_fields: answer(c, s, trailers=fields), _statuses, told=_told, check=clean)


def trailers_then_silence(conn, stream):
    conn.headers(stream, OK_FIELDS)
    conn.headers(stream, [("x-t", "1")])


case("trailers_without_end_stream", trailers_then_silence, BROKEN, told=("PROTOCOL_ERROR",))

# Plain HTTP answers, CONVENTIONS.md.
for _http, _status in {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 500: 2, 502: 14, 503: 14, 504: 14}.items():
    case(
        f"http_{_http}",
        lambda c, s, code=str(_http): c.headers(s, [(":status", code), ("content-type", "text/html")], end_stream=True),
        (_status,),
    )
case("ends_without_grpc_status", lambda c, s: (c.headers(s, OK_FIELDS), c.data(s, b"", True)), BROKEN)

# Resets: what a gRPC client would make of them, or UNAVAILABLE.
for _code, _statuses in {0: (13, 14, 2), 2: (13, 14), 7: (14,), 8: (1, 14), 11: (8, 14), 12: (7, 14)}.items():
    case(f"reset_{h2.reason(_code).lower()}", lambda c, s, code=_code: c.reset(s, code), _statuses)

# Floods and bombs.
case("ping_flood", raw(h2.emit_frame(h2.PING, 0, 0, bytes(8)) * 500_000), BROKEN + (DEADLINE, EXHAUSTED))
case("settings_flood", raw(h2.emit_settings([(4, 65535)]) * 500_000), BROKEN + (DEADLINE, EXHAUSTED))


def endless_continuation(conn, stream):
    conn.headers(stream, OK_FIELDS, end_headers=False)
    for _ in range(2000):
        conn.raw(h2.emit_frame(h2.CONTINUATION, 0, stream, hpack.encode([("x-fill", "y" * 1000)])) * 16)


case("endless_continuation", endless_continuation, BROKEN + (EXHAUSTED,))
case("huge_headers", lambda c, s: c.headers(s, OK_FIELDS + [("x-huge", "y" * (1 << 20))]), BROKEN + (EXHAUSTED,))
case(
    "hpack_bomb",
    lambda c, s: c.headers(s, None, block=hpack.encode(OK_FIELDS) + hpack.encode_indexed([("x", "y" * 4000)]) + b"\xbe" * 16000),
    BROKEN + (EXHAUSTED,),
)


def endless_informational(conn, stream):
    for _ in range(20_000):
        conn.headers(stream, [(":status", "103")])


case("endless_informational", endless_informational, BROKEN + (DEADLINE, EXHAUSTED))

# Stalls: the deadline must hold.
case("no_streams_allowed", wait, (DEADLINE, UNAVAILABLE), timeout_ms=1200, settings=((h2.MAX_STREAMS, 0),))
case("window_stays_0", wait, (DEADLINE,), timeout_ms=1000, body=bytes(200_000), settings=((h2.INITIAL_WINDOW, 0),))


def half_an_answer(conn, stream):
    conn.headers(stream, OK_FIELDS)
    conn.data(stream, wire.message(b"hello" * 100)[:50])
    wait(conn, stream)


case("half_an_answer", half_an_answer, (DEADLINE,), timeout_ms=1000)

# Odd but allowed: the call succeeds.


def allowed_oddities(conn, stream):
    conn.frame(0xEE, 0xFF, stream, b"unknown")
    conn.raw(h2.emit_settings([(h2.TABLE_SIZE, 0), (0x99, 1), (h2.INITIAL_WINDOW, 10)]))
    conn.frame(h2.PRIORITY, 0, stream, bytes(5))
    conn.headers(stream, [(":status", "103"), ("link", "x")])
    conn.headers(stream, OK_FIELDS)
    conn.frame(h2.DATA, h2.PADDED, stream, b"\x05" + wire.message(b"hello") + bytes(5))
    conn.frame(h2.DATA, 0, stream, b"")
    conn.trailers(stream, [("grpc-status", "0")])


def says_hello(got):
    require(got.messages() == [(0, b"hello")], f"the caller saw {got.messages()}")


case("allowed_oddities", allowed_oddities, (0,), check=says_hello)


def goaway_then_answer(conn, stream):
    """A graceful shutdown: calls at or below the id are finished."""
    conn.frame(h2.GOAWAY, 0, 0, u32(stream, 0))
    time.sleep(0.1)
    answer(conn, stream)


case("goaway_then_answer", goaway_then_answer, (0,), check=says_hello)


def error_before_the_body_ends(conn, stream):
    """A final answer while the request still flows, then RST_STREAM(NO_ERROR), RFC 9113 section 8.1."""
    conn.headers(stream, OK_FIELDS + [("grpc-status", "9"), ("grpc-message", "early")], end_stream=True)
    conn.reset(stream, 0)


case("early_answer", error_before_the_body_ends, (9,), body=bytes(2 << 20))
