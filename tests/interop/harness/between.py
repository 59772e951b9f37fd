"""Whoever sits on the wire between two nodes: passes HTTP/2 frames on, keeps what it saw, changes what it is told to."""

import socket
import struct
import threading

from . import h2, hpack, wire


class Request:
    """A request as it went by."""

    def __init__(self, fields):
        self.fields, self.body = fields, b""


class Between(wire.Listener):
    """Listens for one node and connects to the other. `edit(towards, frame)` gives the payload and flags that go
    on instead of a frame's own, or None for no frame at all; `towards` is true for requests."""

    def __init__(self, target):
        self.target, self.edit = target, None
        self.seen = bytearray()
        self.requests = []
        super().__init__(self._between)

    def _between(self, sock):
        far = socket.create_connection(self.target, timeout=10)
        for end in (sock, far):
            end.settimeout(600)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pump, args=(far, sock, False), daemon=True).start()
        self._pump(sock, far, True)

    def _pump(self, source, sink, towards):
        decoder, live, block = hpack.Decoder(), {}, b""
        try:
            if towards:
                sink.sendall(take(source, len(h2.PREFACE)))
            while True:
                head = take(source, 9)
                frame = h2.Frame(
                    head[3], head[4], struct.unpack(">I", head[5:9])[0] & 0x7FFFFFFF,
                    take(source, int.from_bytes(head[:3], "big")),
                )  # fmt: skip
                self.seen += head + frame.payload
                if towards and frame.kind in (h2.HEADERS, h2.CONTINUATION):
                    block += frame.payload
                if towards and block and frame.flags & h2.END_HEADERS:
                    fields, block = decoder.decode(block), b""
                    if frame.stream not in live:
                        live[frame.stream] = Request(fields)
                        self.requests.append(live[frame.stream])
                elif towards and frame.kind == h2.DATA and frame.stream in live:
                    live[frame.stream].body += frame.payload
                out = (frame.payload, frame.flags)
                if self.edit:
                    out = self.edit(towards, frame)
                if out:
                    sink.sendall(h2.emit_frame(frame.kind, out[1], frame.stream, bytes(out[0])))
        except (h2.Closed, OSError):
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def take(sock, size):
    out = b""
    while len(out) < size:
        part = sock.recv(size - len(out))
        if not part:
            raise h2.Closed("closed")
        out += part
    return out
