"""One HTTP/2 connection over a blocking socket, for test peers that must be able to misbehave.

`Conn` answers SETTINGS and PING and keeps both flow-control windows while `auto` is on, and sends
whatever it is told, right or wrong; streams in `stalled` are granted nothing. Nothing here refuses to break a
rule: that is what it is for.
Every wait is bounded. Frames: RFC 9113 section 4 and 6.
"""

import socket
import struct
import threading
import time

from . import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)
REASONS = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED "
    "FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM "
    "INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()


def reason(code):
    return REASONS[code] if code < len(REASONS) else f"0x{code:x}"


def emit_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def emit_settings(pairs):
    return emit_frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


class Frame:
    """A received frame; HEADERS and CONTINUATION are joined, and `fields` holds their list."""

    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload
        self.fields = None

    @property
    def end_stream(self):
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def error(self):
        """The error code's name, of RST_STREAM and GOAWAY."""
        at = {RST_STREAM: 0, GOAWAY: 4}.get(self.kind)
        return None if at is None else reason(struct.unpack(">I", self.payload[at : at + 4])[0])

    def body(self):
        """A DATA frame's bytes without padding."""
        if not self.flags & PADDED:
            return self.payload
        return self.payload[1 : len(self.payload) - self.payload[0]]

    def __repr__(self):
        return f"<frame kind={self.kind} flags={self.flags:#x} stream={self.stream} len={len(self.payload)}>"


class Closed(Exception):
    """The peer closed the connection."""


class Conn:
    """`client` says which end we are. `auto`: acknowledge, and grant windows as bytes arrive."""

    def __init__(self, sock, client, auto=True, settings=((INITIAL_WINDOW, 1 << 24),), greet=True):
        self.sock, self.client, self.auto = sock, client, auto
        self.lock = threading.RLock()  # answers may be sent by other threads than the one that reads
        self.buffer, self.decoder = b"", hpack.Decoder()
        self.goaway = None
        self.peer_settings = {}
        self.conn_window, self.windows, self.initial = 65535, {}, 65535
        self.queued, self.stalled = {}, set()
        self.next_stream = 1
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if greet:
            hello = emit_settings(settings)
            if auto:
                hello += emit_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 29))
            self.raw((PREFACE if client else b"") + hello)

    # sending

    def raw(self, data):
        try:
            with self.lock:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError, socket.timeout, TimeoutError) as error:
            raise Closed(str(error)) from error

    def frame(self, kind, flags, stream, payload=b""):
        self.raw(emit_frame(kind, flags, stream, payload))

    def headers(self, stream, fields, end_stream=False, block=None, end_headers=True):
        """A header block, split into CONTINUATION frames where it must be."""
        block = hpack.encode(fields) if block is None else block
        size = self.peer_settings.get(MAX_FRAME, 16384)
        parts = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
        out = b""
        for index, part in enumerate(parts):
            flags = END_HEADERS if end_headers and index == len(parts) - 1 else 0
            if index == 0:
                flags |= END_STREAM if end_stream else 0
            out += emit_frame(HEADERS if index == 0 else CONTINUATION, flags, stream, part)
        self.raw(out)

    def data(self, stream, payload, end_stream=False):
        """DATA within the peer's windows; what does not fit waits for its WINDOW_UPDATE in `read`."""
        with self.lock:
            self.queued.setdefault(stream, []).append([memoryview(payload), end_stream])
            self._send_queued(stream)

    def trailers(self, stream, fields):
        """A trailer section after all queued DATA."""
        with self.lock:
            self.queued.setdefault(stream, []).append([list(fields), True])
            self._send_queued(stream)

    def _send_queued(self, stream):
        waiting = self.queued.get(stream, [])
        while waiting:
            payload, end = waiting[0]
            if isinstance(payload, list):
                self.headers(stream, payload, end_stream=True)
                waiting.pop(0)
                continue
            window = min(self.conn_window, self.windows.get(stream, self.initial))
            size = min(window, len(payload), self.peer_settings.get(MAX_FRAME, 16384))
            if size <= 0 and payload:
                return
            last = size == len(payload)
            self.conn_window -= size
            self.windows[stream] = self.windows.get(stream, self.initial) - size
            self.frame(DATA, END_STREAM if last and end else 0, stream, bytes(payload[:size]))
            if last:
                waiting.pop(0)
            else:
                waiting[0][0] = payload[size:]
        self.queued.pop(stream, None)

    def reset(self, stream, code=8):
        self.queued.pop(stream, None)
        self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    # receiving

    def _take(self, size, until):
        while len(self.buffer) < size:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                chunk = self.sock.recv(1 << 18)
            except (ConnectionResetError, BrokenPipeError) as error:
                raise Closed("reset") from error
            except (socket.timeout, TimeoutError) as error:
                raise TimeoutError from error
            finally:
                self.sock.settimeout(10)
            if not chunk:
                raise Closed("closed")
            self.buffer += chunk
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def read(self, seconds=5.0):
        """The next frame; raises TimeoutError or Closed."""
        until = time.monotonic() + seconds
        if len(self.buffer) < 9:  # leave a partial header in place if the time is up
            head = self._peek(9, until)
        else:
            head = self.buffer[:9]
        length = int.from_bytes(head[:3], "big")
        whole = self._take(9 + length, until)
        frame = Frame(head[3], head[4], struct.unpack(">I", head[5:9])[0] & 0x7FFFFFFF, whole[9:])
        if frame.kind == HEADERS:
            self._join(frame, until)
        with self.lock:
            self._react(frame)
        return frame

    def _peek(self, size, until):
        taken = self._take(size, until)
        self.buffer = taken + self.buffer
        return taken

    def _join(self, frame, until):
        block = frame.payload
        if frame.flags & PADDED:
            block = block[1 : len(block) - block[0]]
        if frame.flags & PRIORITY_FLAG:
            block = block[5:]
        flags = frame.flags
        while not flags & END_HEADERS:
            head = self._take(9, until)
            flags = head[4]
            block += self._take(int.from_bytes(head[:3], "big"), until)
        frame.fields = self.decoder.decode(block)

    def _react(self, frame):
        if frame.kind == SETTINGS and not frame.flags & ACK:
            for at in range(0, len(frame.payload), 6):
                key, value = struct.unpack(">HI", frame.payload[at : at + 6])
                if key == INITIAL_WINDOW:
                    for stream in self.windows:
                        self.windows[stream] += value - self.initial
                    self.initial = value
                self.peer_settings[key] = value
            if self.auto:
                self._reply(emit_frame(SETTINGS, ACK, 0))
        elif frame.kind == PING and not frame.flags & ACK and self.auto:
            self._reply(emit_frame(PING, ACK, 0, frame.payload))
        elif frame.kind == GOAWAY:
            self.goaway = frame
        elif frame.kind == WINDOW_UPDATE:
            amount = struct.unpack(">I", frame.payload)[0]
            if frame.stream:
                self.windows[frame.stream] = self.windows.get(frame.stream, self.initial) + amount
            else:
                self.conn_window += amount
            for stream in list(self.queued):
                self._send_queued(stream)
        elif frame.kind == DATA and self.auto and frame.payload:
            grant = struct.pack(">I", len(frame.payload))
            update = emit_frame(WINDOW_UPDATE, 0, 0, grant)
            if not frame.end_stream and frame.stream not in self.stalled:
                update += emit_frame(WINDOW_UPDATE, 0, frame.stream, grant)
            self._reply(update)

    def _reply(self, data):
        """What a peer that has closed need not get: there may be more of it to read."""
        try:
            self.raw(data)
        except Closed:
            pass

    def until(self, wanted, seconds=5.0):
        """Reads until `wanted(frame)`; gives that frame, or None when the time is up. Raises Closed."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return None
            try:
                frame = self.read(left)
            except TimeoutError:
                return None
            if wanted(frame):
                return frame

    def until_closed(self, seconds=5.0):
        """Reads to the end; True when the peer closed within the time."""
        try:
            self.until(lambda _: False, seconds)
        except Closed:
            return True
        return False

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(address, auto=True, seconds=5.0, **options):
    """A client connection to `(host, port)`."""
    return Conn(socket.create_connection(address, timeout=seconds), True, auto, **options)
