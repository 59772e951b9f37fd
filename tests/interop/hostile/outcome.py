"""What an attack met, in one word or two, so that expectations read like the RFC.

`goaway R`: the connection was ended with reason R. `reset R`: the stream was. `closed`: the connection
ended without a word. `status N`: the call was answered. `silence`: nothing of these in time.
"""

from harness import h2


class Failed(Exception):
    """The node did something else than the attack expects."""


def observe(conn, stream=1, seconds=4.0):
    """Reads until something final happens to the connection or the stream."""
    status = None
    try:
        while True:
            frame = conn.until(lambda f: f.kind in (h2.GOAWAY, h2.RST_STREAM, h2.HEADERS, h2.DATA), seconds)
            if frame is None:
                return status or "silence"
            if frame.kind == h2.GOAWAY and frame.error != "NO_ERROR":
                return f"goaway {frame.error}"
            if frame.stream != stream:
                continue
            if frame.kind == h2.RST_STREAM:
                return status or f"reset {frame.error}"
            if frame.kind == h2.HEADERS:
                fields = dict(frame.fields)
                if "grpc-status" in fields:
                    status = f"status {fields['grpc-status']}"
                elif fields.get(":status", "200") != "200":
                    status = f"http {fields[':status']}"
            if frame.end_stream:
                return status or "ended"
    except h2.Closed:
        return status or ("closed" if conn.goaway is None else f"goaway {conn.goaway.error}")


def told(conn, stream, seconds):
    """What the node, as a client, said of the answer it got: the reason of GOAWAY or RST_STREAM."""
    try:
        frame = conn.until(
            lambda f: (f.kind == h2.GOAWAY and f.error != "NO_ERROR") or (f.kind == h2.RST_STREAM and f.stream == stream),
            seconds,
        )
        return f"{'goaway' if frame.kind == h2.GOAWAY else 'reset'} {frame.error}" if frame else "silence"
    except h2.Closed:
        return "closed"


def expect(met, *allowed):
    if met not in allowed:
        raise Failed(f"met `{met}`, expected {' or '.join(f'`{text}`' for text in allowed)}")


def require(condition, text):
    if not condition:
        raise Failed(text)
