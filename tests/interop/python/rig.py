"""What the element scenes stand on: grpcio backends that remember, callers that tell everything, one node."""

import os
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from interop import messages_pb2, test_pb2_grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import towpath  # noqa: E402
from harness.process import ROOT  # noqa: E402

HOST = os.environ.get("TOWPATH_TEST_HOST", "127.0.0.1")
PROTO = ROOT / "tests" / "interop" / "proto" / "interop" / "test.proto"


class Wrong(Exception):
    """An element did not do what it says."""


def require(condition, text):
    if not condition:
        raise Wrong(text)


def same(met, wanted, what):
    require(met == wanted, f"{what}: {met!r}, expected {wanted!r}")


def between(low, met, high, what):
    require(low <= met <= high, f"{what}: {met:.3f}, expected {low:.3f} to {high:.3f}")


def until(condition, seconds, what):
    """Waits for a true value and gives it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        require(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


class Backend(test_pb2_grpc.TestServiceServicer):
    """Says in `x-backend` who it is. Of a request, `x-wait-ms` and `x-fail: STATUS` tell it how to behave, and
    with `x-hold` it waits until calls are `released`."""

    seen, lock = [], threading.Lock()  # (name, metadata) of every call at any backend
    released = threading.Event()

    def __init__(self, name):
        self.name, self.load = name, 0
        self.server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        test_pb2_grpc.add_TestServiceServicer_to_server(self, self.server)
        self.endpoint = f"{HOST}:{self.server.add_insecure_port(f'{HOST}:0')}"
        self.server.start()

    def begin(self, context):
        metadata = dict(context.invocation_metadata())
        with self.lock:
            self.seen.append((self.name, metadata))
        context.send_initial_metadata((("x-backend", self.name),))
        report = f"TEXT named_metrics.rif={self.load}"
        context.set_trailing_metadata((("endpoint-load-metrics", report), ("x-trace", "42")))
        time.sleep(int(metadata.get("x-wait-ms", 0)) / 1000)
        if "x-hold" in metadata:
            self.released.wait(30)
        if "x-fail" in metadata:
            context.abort(grpc.StatusCode[metadata["x-fail"]], "as asked")

    def UnaryCall(self, request, context):
        self.begin(context)
        return messages_pb2.SimpleResponse(payload=messages_pb2.Payload(body=bytes(request.response_size)))

    def StreamingInputCall(self, requests, context):
        self.begin(context)
        total = sum(len(request.payload.body) for request in requests)
        return messages_pb2.StreamingInputCallResponse(aggregated_payload_size=total)


class Outcome:
    """What a caller saw of a call that has ended."""

    def __init__(self, future, began):
        self.status, self.text = future.code().name, future.details() or ""
        self.metadata = dict((*(future.initial_metadata() or ()), *(future.trailing_metadata() or ())))
        self.backend = self.metadata.get("x-backend")
        self.took = time.monotonic() - began
        self.answer = future.result() if self.status == "OK" else None

    def __repr__(self):
        return f"<{self.status} {self.text!r} from {self.backend}>"


class Caller:
    """Calls one service of the node, over `CHANNELS` connections by turns, so that every shard has some."""

    CHANNELS = 4

    def __init__(self, service, node):
        self.service, self.node, self.turn = service, node, 0
        options = [("grpc.default_authority", f"{service}.test"), ("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.insecure_channel(node.endpoint, options) for _ in range(self.CHANNELS)]
        self.stubs = [test_pb2_grpc.TestServiceStub(channel) for channel in self.channels]

    def start(self, size=0, answer=0, name="", seconds=10, channel=None, **metadata):
        """Begins a unary call with `x_wait_ms=…` as the header `x-wait-ms`; gives what ends in an Outcome."""
        request = messages_pb2.SimpleRequest(response_size=answer, payload=messages_pb2.Payload(body=bytes(size)))
        if name:
            request.response_status.message = name
        self.turn += 1
        stub = self.stubs[(self.turn if channel is None else channel) % self.CHANNELS]
        fields = [(key.replace("_", "-"), str(value)) for key, value in metadata.items()]
        began = time.monotonic()
        future = stub.UnaryCall.future(request, timeout=seconds, metadata=fields)

        def finish():
            future.exception()  # waits; an outcome is no error here
            return Outcome(future, began)

        finish.is_done = future.done
        return finish

    def call(self, **options):
        return self.start(**options)()

    def ok(self, **options):
        """A call that must succeed."""
        outcome = self.call(**options)
        same(outcome.status, "OK", f"a call with {options} ({outcome.text})")
        return outcome

    def many(self, count, at_once=20, **options):
        """Outcomes of `count` calls, so many under way at any time."""
        waiting, done = [], []
        for _ in range(count):
            waiting.append(self.start(**options))
            if len(waiting) == at_once:
                done.append(waiting.pop(0)())
        return done + [finish() for finish in waiting]

    def stream(self, sizes, seconds=10):
        """A client stream of messages of these sizes."""
        requests = (messages_pb2.StreamingInputCallRequest(payload=messages_pb2.Payload(body=bytes(n))) for n in sizes)
        began = time.monotonic()
        future = self.stubs[0].StreamingInputCall.future(requests, timeout=seconds)
        future.exception()
        return Outcome(future, began)

    def hold(self, count, **options):
        """So many calls that stay at the backend; gives what ends them all in Outcomes, once each is there or refused."""
        Backend.released.clear()
        before = len(Backend.seen)
        held = [self.start(x_hold=1, seconds=30, **options) for _ in range(count)]

        def decided():
            return len(Backend.seen) - before + sum(finish.is_done() for finish in held) >= count

        until(decided, 20, f"{count} calls at the backends or refused")

        def release():
            Backend.released.set()
            return [finish() for finish in held]

        return release

    def arrived(self, count):
        until(lambda: len(Backend.seen) >= count, 5, f"{count} calls at the backends")

    def log(self, count):
        """This service's lines in the access log, when there are so many."""

        def lines():
            found = [line for line in self.node.log() if line.get("destination") == self.service]
            return found if len(found) >= count else None

        return until(lines, 5, f"{count} lines in the log")

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        metrics = self.node.metrics().items()
        return sum(value for key, value in metrics if key.startswith(name + "{") and all(w in key for w in wanted))

    def close(self):
        for channel in self.channels:
            channel.close()


def reload(node, text):
    """What `towpath reload` prints."""
    node.adn.write_text(text)
    status, out = towpath.bounded([towpath.binary(), "reload", "--admin", node.dir / "admin.sock"], 20)
    same(status, 0, f"reload ({out})")
    return out
