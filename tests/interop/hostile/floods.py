"""A caller that spends: floods, bombs, stalls and slow starts, each a known CVE or its cousin.

The node must end the connection or hold it within its bounds; its memory must not grow by more than
`MEMORY_GROWTH_MAX`, which every flood here would exceed many times if it were kept.
"""

import struct
import threading
import time

from harness import h2, hpack, wire

from .caller import CALM, COMPRESSION, GOOD, PROTOCOL, u32
from .outcome import expect, observe, require

CASES = []
MEMORY_GROWTH_MAX = 96 << 20
ENDED = (f"goaway {CALM}", "closed")


def case(function):
    def attack(box):
        before = box.resident()
        function(box)
        grown = box.resident() - before
        require(grown < MEMORY_GROWTH_MAX, f"memory grew by {grown >> 20} MiB")

    CASES.append((function.__name__, attack))
    return function


def pour(conn, chunk, times):
    """Sends until the peer closes; what it said before that can still be read."""
    try:
        for _ in range(times):
            conn.raw(chunk)
        return True
    except h2.Closed:
        return False


def flood(name, chunk, times, first=None, allowed=ENDED):
    def attack(box):
        with h2.connect(box.address, auto=False) as conn:
            conn.sock.settimeout(10)
            if first:
                first(conn)
            pour(conn, chunk, times)
            expect(observe(conn), *allowed)

    attack.__name__ = name
    case(attack)


@case
def rapid_reset(box):
    """CVE-2023-44487: open and reset, 20,000 times. Few may reach the backend, and the caller is cut off."""
    block = hpack.encode(GOOD + [("x-mark", "rapid")])
    with h2.connect(box.address) as conn:
        stream = 1
        for _ in range(200):
            out = b""
            for _ in range(100):
                out += h2.emit_frame(h2.HEADERS, h2.END_HEADERS, stream, block)
                out += h2.emit_frame(h2.RST_STREAM, 0, stream, u32(8))
                stream += 2
            if not pour(conn, out, 1):
                break
        expect(observe(conn), *ENDED)
    reached = sum(call.field("x-mark") == "rapid" for call in box.backend.calls)
    require(reached < 2000, f"{reached} of the reset streams reached the backend")


@case
def reset_by_provocation(box):
    """CVE-2025-8671 (MadeYouReset): 20,000 streams that make the *node* reset them."""
    block = hpack.encode(GOOD)
    with h2.connect(box.address) as conn:
        stream = 1
        for _ in range(200):
            out = b""
            for _ in range(100):
                out += h2.emit_frame(h2.HEADERS, h2.END_HEADERS, stream, block)
                out += h2.emit_frame(h2.WINDOW_UPDATE, 0, stream, u32(0))
                stream += 2
            if not pour(conn, out, 1):
                break
        expect(observe(conn, 0), *ENDED, f"goaway {PROTOCOL}")


def opened(conn):
    conn.headers(1, GOOD)


def unfinished(conn):
    conn.headers(1, GOOD, end_headers=False)


PINGS = h2.emit_frame(h2.PING, 0, 0, bytes(8)) * 1000
SETTINGS = h2.emit_settings([(h2.INITIAL_WINDOW, 65535)]) * 1000
EMPTY_DATA = h2.emit_frame(h2.DATA, 0, 1) * 1000
PRIORITIES = h2.emit_frame(h2.PRIORITY, 0, 1, bytes(5)) * 1000
WINDOW_UPDATES = h2.emit_frame(h2.WINDOW_UPDATE, 0, 1, u32(1)) * 1000
CONTINUATIONS = h2.emit_frame(h2.CONTINUATION, 0, 1, hpack.encode([("x-fill", "y" * 1000)])) * 64
EMPTY_CONTINUATIONS = h2.emit_frame(h2.CONTINUATION, 0, 1) * 1000

flood("ping_flood", PINGS, 2000)
flood("settings_flood", SETTINGS, 2000)
flood("empty_data_flood", EMPTY_DATA, 100, opened, ENDED + (f"reset {CALM}",))
flood("priority_flood", PRIORITIES, 2000)
flood("empty_continuation_flood", EMPTY_CONTINUATIONS, 200, unfinished, ENDED + (f"goaway {PROTOCOL}",))
flood("continuation_flood", CONTINUATIONS, 2000, unfinished, ENDED + (f"goaway {PROTOCOL}",))


@case
def padding_flood(box):
    """DATA that is padding only: it counts for flow control, carries nothing, and must not be kept."""
    with h2.connect(box.address) as conn:
        opened(conn)
        pour(conn, h2.emit_frame(h2.DATA, h2.PADDED, 1, b"\xff" + bytes(255)) * 64, 4000)
        met = observe(conn)
        expect(met, *ENDED, f"reset {CALM}", "reset FLOW_CONTROL_ERROR", "goaway FLOW_CONTROL_ERROR")


@case
def header_list_of_a_mebibyte(box):
    with wire.Client(box.address) as client:
        stream = client.start(wire.request_fields(extra=[("x-huge", "y" * (1 << 20))]))
        met = observe(client.conn, stream)
        expect(met, "status 8", "http 431", "reset ENHANCE_YOUR_CALM", f"reset {PROTOCOL}", *ENDED, f"goaway {PROTOCOL}")
        require(all(call.field("x-huge") is None for call in box.backend.calls), "it reached the backend")


@case
def hpack_bomb(box):
    """One table entry of 4 KiB, named 16,000 times at one byte each: 64 MiB of list from 16 KiB."""
    with h2.connect(box.address) as conn:
        block = hpack.encode(GOOD) + hpack.encode_indexed([("x-bomb", "y" * 4000)])
        conn.headers(1, None, True, block=block + b"\xbe" * 16000)
        met = observe(conn)
        expect(met, "status 8", "http 431", f"reset {CALM}", f"reset {PROTOCOL}", *ENDED, f"goaway {PROTOCOL}", f"goaway {COMPRESSION}")


@case
def many_small_fields(box):
    """40,000 fields of two bytes."""
    with h2.connect(box.address) as conn:
        conn.headers(1, GOOD + [("a", "b")] * 40000, True)
        met = observe(conn)
        expect(met, "status 8", "http 431", f"reset {CALM}", f"reset {PROTOCOL}", *ENDED, f"goaway {PROTOCOL}")


@case
def table_size_updates(box):
    """A header block of nothing but size updates."""
    with h2.connect(box.address) as conn:
        conn.headers(1, None, True, block=b"\x20" * 15000 + hpack.encode(GOOD))
        expect(observe(conn), f"goaway {COMPRESSION}", *ENDED, "status 0", "ended", f"goaway {PROTOCOL}")


@case
def streams_past_the_limit(box):
    """Twice as many open streams as allowed: the surplus is refused, the rest lives."""
    with wire.Client(box.address) as client:
        conn = client.conn
        conn.until(lambda f: f.kind == h2.SETTINGS and not f.flags)
        limit = conn.peer_settings.get(h2.MAX_STREAMS)
        require(limit is not None, "no SETTINGS_MAX_CONCURRENT_STREAMS")
        refused = set()
        block = hpack.encode(GOOD)
        count = min(2 * limit, 4000)
        try:
            conn.raw(b"".join(h2.emit_frame(h2.HEADERS, h2.END_HEADERS, 2 * index + 1, block) for index in range(count)))
            while True:
                frame = conn.until(lambda f: f.kind == h2.RST_STREAM or f.kind == h2.GOAWAY, 2)
                if frame is None or frame.kind == h2.GOAWAY:
                    break
                refused.add(frame.error)
        except h2.Closed:
            return
        require(conn.goaway is not None or refused & {"REFUSED_STREAM", PROTOCOL, CALM}, f"refused: {refused}")


@case
def a_reader_that_never_reads(box):
    """200 calls whose 1 MiB answers are never granted a window nor read: held within bounds."""
    with h2.connect(box.address, auto=False, settings=((h2.INITIAL_WINDOW, 0),)) as conn:
        block = hpack.encode(wire.request_fields("/towpath.test.Echo/Big"))
        for index in range(200):
            conn.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 2 * index + 1, block)
        time.sleep(2)
        require(box.resident() < box.start + MEMORY_GROWTH_MAX, f"resident {box.resident() >> 20} MiB")
        with wire.Client(box.address) as client:
            require(client.unary(seconds=3).status == 0, "another caller is stalled")


@case
def a_sender_that_never_ends(box):
    """A request body without end, to a backend that does not read it: backpressure, not memory."""
    with h2.connect(box.address) as conn:
        conn.headers(1, wire.request_fields("/towpath.test.Echo/Stall"))
        conn.data(1, bytes(200 << 20))
        conn.until(lambda _: False, 2)
        with wire.Client(box.address) as client:
            require(client.unary(seconds=3).status == 0, "another caller is stalled")


@case
def many_connections(box):
    """500 connections opened, half of them with a preface, then dropped."""
    conns = []
    for index in range(500):
        conns.append(h2.connect(box.address, greet=index % 2 == 0))
    with wire.Client(box.address) as client:
        require(client.unary(seconds=5).status == 0, "a caller could not get in")
    for conn in conns:
        conn.close()


@case
def slow_preface(box):
    """One byte of preface a second: closed within the preface timeout (10 s by default), and many at once."""
    conns = [h2.connect(box.address, auto=False, greet=False) for _ in range(20)]
    start, at, open_count = time.monotonic(), 0, len(conns)
    while time.monotonic() - start < 15 and open_count:
        for conn in list(conns):
            try:
                conn.raw(h2.PREFACE[at % 24 : at % 24 + 1])
                conn.sock.settimeout(0.01)
                if not conn.sock.recv(64):
                    raise h2.Closed
            except TimeoutError:
                pass
            except (h2.Closed, OSError):
                conns.remove(conn)
                open_count -= 1
        at += 1
        time.sleep(0.7)
    for conn in conns:
        conn.close()
    require(open_count == 0, f"{open_count} of 20 are still open after {time.monotonic() - start:.0f} s")


@case
def never_ending_trailers(box):
    """A trailer block that is continued for ever."""
    with h2.connect(box.address, auto=False) as conn:
        conn.headers(1, GOOD)
        conn.frame(h2.DATA, 0, 1, wire.message(b"hello"))
        conn.headers(1, [("x-t", "1")], end_stream=True, end_headers=False)
        pour(conn, CONTINUATIONS, 2000)
        expect(observe(conn, 0), *ENDED, f"goaway {PROTOCOL}")


@case
def bytes_from_a_seed(box):
    """Random frames, valid in shape: nothing in particular must come back, but nothing may break."""
    import random

    random.seed(7)

    def one(seed):
        dice = random.Random(seed)
        try:
            with h2.connect(box.address, auto=False) as conn:
                for _ in range(200):
                    kind, size = dice.randrange(12), dice.choice((0, 1, 4, 5, 6, 8, 9, 64, 900))
                    payload = dice.randbytes(size)
                    conn.raw(struct.pack(">I", size)[1:] + bytes([kind, dice.randrange(256)]) + u32(dice.choice((0, 1, 3, 5, 7, 2))) + payload)
        except (h2.Closed, OSError):
            pass

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
