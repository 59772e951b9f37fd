"""gRPC over `h2.Conn`: a unary and streaming client that sees every byte, and a backend that records.

Used where a library would hide what matters: flags of single messages, header lists, resets.
"""

import gzip
import heapq
import socket
import struct
import threading
import time

from . import h2, lab

ECHO_PATH = "/towpath.test.Echo/Unary"


def message(payload, compressed=False):
    body = gzip.compress(payload) if compressed else payload
    return struct.pack(">BI", int(compressed), len(body)) + body


def messages(body):
    """[(flag, plain bytes)] of a message stream; a cut-off message is an error."""
    out = []
    while body:
        flag, size = struct.unpack(">BI", body[:5])
        if len(body) < 5 + size:
            raise ValueError("message cut off")
        raw, body = body[5 : 5 + size], body[5 + size :]
        out.append((flag, gzip.decompress(raw) if flag else raw))
    return out


def request_fields(path=ECHO_PATH, authority="echo.test", extra=(), method="POST"):
    return [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *extra,
    ]


class Later:
    """Runs functions after a delay, all on one thread."""

    def __init__(self):
        self.heap, self.news, self.count = [], threading.Condition(), 0
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self, seconds, function):
        with self.news:
            self.count += 1
            heapq.heappush(self.heap, (time.monotonic() + seconds, self.count, function))
            self.news.notify()

    def _run(self):
        while True:
            with self.news:
                while not self.heap or self.heap[0][0] > time.monotonic():
                    self.news.wait(self.heap[0][0] - time.monotonic() if self.heap else None)
                function = heapq.heappop(self.heap)[2]
            try:
                function()
            except (h2.Closed, OSError):
                pass  # the peer has gone meanwhile


later = Later()


class Answer:
    """Everything the caller saw of one call. `status` is None when no grpc-status came."""

    def __init__(self):
        self.headers, self.trailers, self.body, self.reset = None, None, b"", None

    def field(self, name, default=None):
        for key, value in (self.trailers or []) + (self.headers or []):
            if key == name:
                return value
        return default

    @property
    def status(self):
        """-1 when it is there but no number."""
        value = self.field("grpc-status")
        return None if value is None else int(value) if value.isdecimal() else -1

    @property
    def detail(self):
        return self.field("grpc-message", "")

    def messages(self):
        return messages(self.body)

    def __repr__(self):
        return f"<answer status={self.status} {self.detail!r} reset={self.reset} headers={self.headers}>"


class Client:
    """Calls over one connection (or a new one to an address); several may be in flight."""

    def __init__(self, to, **options):
        self.conn = to if isinstance(to, h2.Conn) else h2.connect(to, **options)
        self.answers = {}

    def start(self, fields=None, body=None, end=True):
        """Opens a call; `body` is sent as it is. Gives the stream id."""
        stream = self.conn.next_stream
        self.conn.next_stream += 2
        self.answers[stream] = Answer()
        self.conn.headers(stream, request_fields() if fields is None else fields, end_stream=body is None and end)
        if body is not None:
            self.conn.data(stream, body, end_stream=end)
        return stream

    def finish(self, stream, seconds=10.0):
        """Reads until this call has ended; raises TimeoutError or h2.Closed."""
        end = time.monotonic() + seconds
        while not self.done(stream):
            self.step(max(end - time.monotonic(), 0.0001))
        return self.answers[stream]

    def done(self, stream):
        answer = self.answers[stream]
        return getattr(answer, "ended", False)

    def step(self, seconds):
        """Reads one frame and files it."""
        frame = self.conn.read(seconds)
        answer = self.answers.get(frame.stream)
        if answer is None:
            return frame
        if frame.kind == h2.HEADERS:
            if answer.headers is None and not dict(frame.fields).get(":status", "").startswith("1"):
                answer.headers = frame.fields
            elif answer.headers is not None:
                answer.trailers = frame.fields
        elif frame.kind == h2.DATA:
            answer.body += frame.body()
        elif frame.kind == h2.RST_STREAM:
            answer.reset = frame.error
        answer.ended = frame.end_stream or frame.kind == h2.RST_STREAM
        return frame

    def unary(self, payload=b"hello", path=ECHO_PATH, extra=(), seconds=10.0, compressed=False, **fields):
        stream = self.start(request_fields(path, extra=extra, **fields), message(payload, compressed))
        return self.finish(stream, seconds)

    def close(self):
        self.conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Listener:
    """Accepts on a port the system chose; one thread per connection runs `serve(sock)`."""

    def __init__(self, serve, port=0):
        self.serve = serve
        self.sock = socket.create_server((lab.host(), port), backlog=256, reuse_port=False)
        self.address = self.sock.getsockname()
        self.open, self.stopped = set(), False
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self):
        return f"{self.address[0]}:{self.address[1]}"

    def _accept(self):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            self.open.add(sock)
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock):
        try:
            self.serve(sock)
        except (h2.Closed, OSError, TimeoutError):
            pass
        finally:
            self.open.discard(sock)
            sock.close()

    def stop(self):
        """Closes the listener and every connection: the endpoint is gone."""
        self.stopped = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        for sock in list(self.open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Call:
    """A request as the backend received it."""

    def __init__(self, fields):
        self.fields, self.chunks, self.reset, self.ended = fields, [], None, False
        self.trailers = None

    @property
    def body(self):
        return b"".join(self.chunks)

    def field(self, name, default=None):
        return next((value for key, value in self.fields if key == name), default)

    @property
    def path(self):
        return self.field(":path", "")


class Backend(Listener):
    """A gRPC server: answers each finished request with its own messages, and keeps all it received.

    `answer(conn, stream, call)` replaces the echo. `settings` are announced.
    """

    def __init__(self, answer=None, port=0, settings=((h2.INITIAL_WINDOW, 1 << 24),), keep=True):
        self.answer, self.settings, self.keep = answer or self.echo, settings, keep
        self.calls, self.resets = [], 0
        self.lock = threading.Lock()
        super().__init__(self._serve, port)

    @staticmethod
    def echo(conn, stream, call):
        conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        conn.data(stream, call.body)
        conn.trailers(stream, [("grpc-status", "0")])

    def _serve(self, sock):
        sock.settimeout(10)
        conn = h2.Conn(sock, False, settings=self.settings)
        conn._take(len(h2.PREFACE), time.monotonic() + 10)
        live = {}
        while not self.stopped:
            try:
                frame = conn.read(600)
            except TimeoutError:
                return
            call = live.get(frame.stream)
            if frame.kind == h2.HEADERS and call is None:
                call = live[frame.stream] = Call(frame.fields)
                if call.path.endswith("/Stall"):
                    conn.stalled.add(frame.stream)
                if self.keep:
                    with self.lock:
                        self.calls.append(call)
            elif frame.kind == h2.HEADERS:
                call.trailers = frame.fields
            elif frame.kind == h2.DATA and call:
                call.chunks.append(frame.body())
            elif frame.kind == h2.RST_STREAM and call:
                call.reset, call.reset_at = frame.error, time.monotonic()
                self.resets += 1
                conn.queued.pop(frame.stream, None)
                del live[frame.stream]
            if call and frame.end_stream:
                call.ended = True
                self.answer(conn, frame.stream, call)
                while len(live) > 2000:  # enough to see a late reset
                    live.pop(next(iter(live)))


class Caller(threading.Thread):
    """A well-behaved client that keeps calling on its own connection and counts what fails."""

    def __init__(self, address, path=ECHO_PATH, pause=0.005):
        super().__init__(daemon=True)
        self.address, self.path, self.pause = address, path, pause
        self.done, self.failed, self.first = 0, 0, None
        self.slowest = self.slowest_of_all = 0.0
        self.halt = threading.Event()

    def run(self):
        client = None
        while not self.halt.is_set():
            start = time.monotonic()
            try:
                client = client or Client(self.address)
                answer = client.unary(b"good" * 16, self.path, seconds=10)
                if answer.status != 0 or answer.messages() != [(0, b"good" * 16)]:
                    self.fault(repr(answer))
            except (h2.Closed, OSError, TimeoutError, ValueError) as error:
                self.fault(f"{type(error).__name__}: {error}")
                client = None
            self.slowest = max(self.slowest, time.monotonic() - start)
            self.done += 1
            time.sleep(self.pause)
        if client:
            client.close()

    def fault(self, what):
        self.failed += 1
        self.first = self.first or what

    def stop(self):
        self.halt.set()
        self.join(15)
        return self
