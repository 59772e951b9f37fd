"""A caller that breaks RFC 9113 and RFC 7541, one rule at a time.

Each entry says what it sends on a fresh connection and what must come back. All of it must stay this
connection's own trouble: `abuse.py` keeps a good caller running beside it.
"""

import struct

from harness import h2, hpack, wire

from .outcome import expect, observe, require

CASES = []
GOOD = wire.request_fields()
STALLED = wire.request_fields("/towpath.test.Echo/Stall")


def case(function):
    CASES.append((function.__name__, function))
    return function


def simple(name, send, *allowed, stream=1):
    """`send(conn)` on a fresh connection, then exactly one of `allowed`."""

    def attack(box):
        with h2.connect(box.address) as conn:
            send(conn)
            expect(observe(conn, stream), *allowed)

    CASES.append((name, attack))


def u32(*values):
    return b"".join(struct.pack(">I", value) for value in values)


def opened(conn, stream=1):
    """An open stream: headers without END_STREAM."""
    conn.headers(stream, GOOD)


def whole(conn, stream=1):
    conn.headers(stream, GOOD)
    conn.data(stream, wire.message(b"hello"), end_stream=True)


PROTOCOL, CLOSED, SIZE = "PROTOCOL_ERROR", "STREAM_CLOSED", "FRAME_SIZE_ERROR"
FLOW, COMPRESSION, CALM = "FLOW_CONTROL_ERROR", "COMPRESSION_ERROR", "ENHANCE_YOUR_CALM"

# Section 4: frames and header blocks.
simple("frame_too_large", lambda c: (opened(c), c.frame(h2.DATA, 0, 1, bytes(16385))), f"goaway {SIZE}", f"reset {SIZE}")
simple("unknown_frame_is_ignored", lambda c: (c.frame(0xBE, 0xFF, 0, b"x" * 9), whole(c)), "status 0")
simple("hpack_index_0", lambda c: c.headers(1, None, True, block=b"\x80"), f"goaway {COMPRESSION}")
simple("hpack_index_unknown", lambda c: c.headers(1, None, True, block=b"\xff\x80\x80\x01"), f"goaway {COMPRESSION}")
simple("hpack_table_size_above_setting", lambda c: c.headers(1, None, True, block=b"\x3f\xe1\xff\x03"), f"goaway {COMPRESSION}")
simple("hpack_integer_without_end", lambda c: c.headers(1, None, True, block=b"\xff" * 40), f"goaway {COMPRESSION}")
simple("hpack_string_cut_off", lambda c: c.headers(1, None, True, block=b"\x00\x05ab"), f"goaway {COMPRESSION}")
simple("hpack_huffman_eos", lambda c: c.headers(1, None, True, block=b"\x00\x84\xff\xff\xff\xff\x00"), f"goaway {COMPRESSION}")
simple("hpack_huffman_padding", lambda c: c.headers(1, None, True, block=b"\x00\x82\x1f\xff\x00"), f"goaway {COMPRESSION}")
simple(
    "frame_between_continuations",
    lambda c: (c.headers(1, GOOD, end_headers=False), c.frame(h2.PING, 0, 0, bytes(8))),
    f"goaway {PROTOCOL}",
)
simple("continuation_alone", lambda c: c.frame(h2.CONTINUATION, 4, 1, b""), f"goaway {PROTOCOL}")

# Section 5: streams.
simple("even_stream", lambda c: c.headers(2, GOOD, True), f"goaway {PROTOCOL}")
simple("stream_goes_back", lambda c: (opened(c, 5), opened(c, 3)), f"goaway {PROTOCOL}", f"goaway {CLOSED}", stream=0)
simple("headers_on_stream_0", lambda c: c.headers(0, GOOD, True), f"goaway {PROTOCOL}")
simple("data_on_idle", lambda c: c.frame(h2.DATA, 1, 1, b"x"), f"goaway {PROTOCOL}")
simple("reset_on_idle", lambda c: c.reset(1), f"goaway {PROTOCOL}")
simple("window_on_idle", lambda c: c.frame(h2.WINDOW_UPDATE, 0, 1, u32(1)), f"goaway {PROTOCOL}")
simple("push_promise_from_a_caller", lambda c: c.frame(h2.PUSH_PROMISE, 4, 1, u32(2)), f"goaway {PROTOCOL}")
simple(
    "data_padding_too_long", lambda c: (opened(c), c.frame(h2.DATA, h2.PADDED, 1, b"\xff123")), f"goaway {PROTOCOL}"
)

# Section 6: single frames.
simple("settings_ack_with_payload", lambda c: c.frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), f"goaway {SIZE}")
simple("settings_odd_length", lambda c: c.frame(h2.SETTINGS, 0, 0, bytes(5)), f"goaway {SIZE}")
simple("settings_on_a_stream", lambda c: c.frame(h2.SETTINGS, 0, 1, bytes(6)), f"goaway {PROTOCOL}")
simple("settings_push_2", lambda c: c.raw(h2.emit_settings([(h2.ENABLE_PUSH, 2)])), f"goaway {PROTOCOL}")
simple("settings_window_2_31", lambda c: c.raw(h2.emit_settings([(h2.INITIAL_WINDOW, 1 << 31)])), f"goaway {FLOW}")
simple("settings_frame_size_1", lambda c: c.raw(h2.emit_settings([(h2.MAX_FRAME, 1)])), f"goaway {PROTOCOL}")
simple("ping_of_7_bytes", lambda c: c.frame(h2.PING, 0, 0, bytes(7)), f"goaway {SIZE}")
simple("ping_on_a_stream", lambda c: c.frame(h2.PING, 0, 1, bytes(8)), f"goaway {PROTOCOL}")
simple("goaway_on_a_stream", lambda c: c.frame(h2.GOAWAY, 0, 1, bytes(8)), f"goaway {PROTOCOL}")
simple("window_of_0_on_the_connection", lambda c: c.frame(h2.WINDOW_UPDATE, 0, 0, u32(0)), f"goaway {PROTOCOL}")
simple(
    "window_of_0_on_a_stream", lambda c: (opened(c), c.frame(h2.WINDOW_UPDATE, 0, 1, u32(0))), f"reset {PROTOCOL}", f"goaway {PROTOCOL}"
)
simple(
    "window_overflow_on_the_connection",
    lambda c: [c.frame(h2.WINDOW_UPDATE, 0, 0, u32(0x7FFFFFFF)) for _ in range(2)],
    f"goaway {FLOW}",
)
simple(
    "window_overflow_on_a_stream",
    lambda c: (opened(c), [c.frame(h2.WINDOW_UPDATE, 0, 1, u32(0x7FFFFFFF)) for _ in range(2)]),
    f"reset {FLOW}",
)
simple("reset_of_3_bytes", lambda c: (opened(c), c.frame(h2.RST_STREAM, 0, 1, bytes(3))), f"goaway {SIZE}")
simple("priority_of_4_bytes", lambda c: c.frame(h2.PRIORITY, 0, 1, bytes(4)), f"reset {SIZE}", f"goaway {SIZE}")


@case
def data_after_end_stream(box):
    with h2.connect(box.address) as conn:
        conn.headers(1, GOOD)
        out = h2.emit_frame(h2.DATA, h2.END_STREAM, 1, wire.message(b"hello"))
        conn.raw(out + h2.emit_frame(h2.DATA, 0, 1, b"more"))
        expect(observe(conn), f"reset {CLOSED}", f"goaway {CLOSED}")


@case
def more_data_than_the_window(box):
    """The backend grants no window, so Towpath can grant none either: the caller sends anyway."""
    with h2.connect(box.address) as conn:
        conn.until(lambda f: f.kind == h2.SETTINGS and not f.flags)
        conn.headers(1, STALLED)
        try:
            conn.raw(h2.emit_frame(h2.DATA, 0, 1, bytes(16384)) * 4096)  # 64 MiB, far above all windows on the way
        except h2.Closed:
            pass
        expect(observe(conn), f"reset {FLOW}", f"goaway {FLOW}", "closed")


# Section 8: a message that is malformed is a stream error and never reaches the backend.


def malformed(name, fields, trailers=None):
    """The stream must be reset, nothing of it may reach the backend, and the connection goes on."""

    def attack(box):
        mark = f"mark-{name}"
        with wire.Client(box.address) as client:
            conn = client.conn
            conn.headers(1, fields + [("x-mark", mark)], end_stream=trailers is None)
            if trailers is not None:
                conn.data(1, wire.message(b"hello"))
                conn.headers(1, trailers, end_stream=True)
            allowed = [f"reset {PROTOCOL}", "http 400"] + (["status 13", "status 3"] if trailers is None else [])
            expect(observe(conn), *allowed)
            conn.next_stream = 3
            require(client.unary().status == 0, "the connection did not go on")
        reached = [call for call in box.backend.calls if call.field("x-mark") == mark]
        require(trailers is not None or not reached, "the request reached the backend")
        for call in reached:
            require(not call.ended, "the malformed trailers ended the call at the backend as if they were good")

    CASES.append((f"malformed_{name}", attack))


def without(name):
    return [field for field in GOOD if field[0] != name]


malformed("uppercase_name", GOOD + [("X-Upper", "1")])
for _name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"):
    malformed(_name.replace("-", "_"), GOOD + [(_name, "close")])
malformed("te_gzip", without("te") + [("te", "gzip")])
malformed("value_with_crlf", GOOD + [("x-bad", "a\r\nx-injected: 1")])
malformed("value_with_lf", GOOD + [("x-bad", "a\nb")])
malformed("value_with_nul", GOOD + [("x-bad", "a\0b")])
malformed("value_with_leading_space", GOOD + [("x-bad", " a")])
malformed("value_with_trailing_tab", GOOD + [("x-bad", "a\t")])
malformed("name_with_space", GOOD + [("x bad", "1")])
malformed("name_with_colon", GOOD + [("x:bad", "1")])
malformed("name_with_crlf", GOOD + [("x\r\nbad", "1")])
malformed("name_empty", GOOD + [("", "1")])
malformed("name_above_ascii", GOOD + [("x-\xe4", "1")])
malformed("pseudo_after_field", without(":path") + [(":path", wire.ECHO_PATH)])
malformed("pseudo_unknown", [(":status", "200")] + GOOD)
malformed("pseudo_twice", [(":method", "POST")] + GOOD)
malformed("method_missing", without(":method"))
malformed("path_missing", without(":path"))
malformed("scheme_missing", without(":scheme"))
malformed("path_empty", [(":path", "")] + without(":path"))
malformed("path_with_crlf", [(":path", "/a HTTP/1.1\r\nx: y")] + without(":path"))
malformed("authority_with_crlf", [(":authority", "a\r\nx: y")] + without(":authority"))
malformed("content_length_not_a_number", GOOD + [("content-length", "x")])
malformed("content_length_too_large", GOOD + [("content-length", "7")])
malformed("trailers_with_pseudo", GOOD, trailers=[(":path", "/"), ("x-t", "1")])
malformed("trailers_with_connection", GOOD, trailers=[("connection", "close")])
malformed("trailers_with_crlf", GOOD, trailers=[("x-t", "a\r\nb")])


@case
def trailers_without_end_stream(box):
    with h2.connect(box.address) as conn:
        opened(conn)
        conn.headers(1, [("x-t", "1")], end_stream=False)
        expect(observe(conn), f"reset {PROTOCOL}", f"goaway {PROTOCOL}")


@case
def metadata_bytes_arrive_as_they_are(box):
    """Odd but allowed values pass: obs-text, tabs inside, an empty value, repeated names, `-bin` unpadded."""
    odd = [("x-empty", ""), ("x-obs", "caf\xe9"), ("x-tab", "a\tb"), ("x-twice", "1"), ("x-twice", "2"),
           ("x-a-bin", "q6ur"), ("x-b-bin", "AAE"), ("x-c-bin", "AAE=")]  # fmt: skip
    with wire.Client(box.address) as client:
        answer = client.unary(extra=[("x-mark", "odd"), *odd])
        require(answer.status == 0, f"answered {answer}")
    call = next(call for call in box.backend.calls if call.field("x-mark") == "odd")
    met = [field for field in call.fields if field[0].startswith(("x-empty", "x-obs", "x-t", "x-a", "x-b", "x-c"))]
    require(met == odd, f"the backend saw {met}")


# The first bytes of a connection.


@case
def tls_hello(box):
    """A TLS client on the cleartext listener is closed at once, and counted."""
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(32) + bytes(160)
    _told_off(box, hello)


@case
def http_1_request(box):
    _told_off(box, b"GET / HTTP/1.1\r\nHost: echo.test\r\n\r\n")


@case
def garbage(box):
    _told_off(box, bytes(range(256)) * 8)


@case
def preface_with_a_wrong_end(box):
    _told_off(box, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + h2.emit_settings([]))


def _told_off(box, first):
    conn = h2.connect(box.address, auto=False, greet=False)
    with conn:
        try:
            conn.raw(first)
            conn.sock.settimeout(4)
            while conn.sock.recv(4096):
                pass
        except (h2.Closed, ConnectionResetError):
            pass
        except TimeoutError:
            require(False, "the connection stays open")


@case
def no_settings_first(box):
    with h2.connect(box.address, greet=False) as conn:
        conn.raw(h2.PREFACE + h2.emit_frame(h2.PING, 0, 0, bytes(8)))
        expect(observe(conn), f"goaway {PROTOCOL}")


@case
def gone_in_the_middle_of_a_frame(box):
    for cut in (3, 9, 20):
        conn = h2.connect(box.address)
        conn.raw(h2.emit_frame(h2.HEADERS, 4, 1, hpack.encode(GOOD))[:cut])
        conn.close()


@case
def gone_in_the_middle_of_a_call(box):
    """The backend learns of it."""
    with h2.connect(box.address) as conn:
        conn.headers(1, GOOD + [("x-mark", "gone")])
        conn.data(1, wire.message(b"half")[:6])
        call = box.await_call("gone")
    require(box.until(lambda: call.reset is not None), "the backend never saw the reset")
