"""The interop cases with a grpcio client. Prints PASS, FAIL or SKIP with the case's name on each line."""

import argparse
import os
import queue
import time

import grpc
from interop import empty_pb2, messages_pb2, test_pb2_grpc

# google.rpc.Status{code: 9, message: "with details", details: [Any{type_url: "a/b", value: ff 00}]}
DETAILS = b"\x08\x09\x12\x0cwith details\x1a\x09\x0a\x03a/b\x12\x02\xff\x00"
REQUEST_SIZES, RESPONSE_SIZES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
OPTIONS = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20),
           ("grpc.max_receive_message_length", 8 << 20)]  # fmt: skip


class Skip(Exception):
    """The library cannot do this."""


def payload(size):
    return messages_pb2.Payload(body=bytes(size))


def output_request(size=None, body=0, interval_us=0, **more):
    parameters = [] if size is None else [messages_pb2.ResponseParameters(size=size, interval_us=interval_us)]
    return messages_pb2.StreamingOutputCallRequest(response_parameters=parameters, payload=payload(body), **more)


def same(met, wanted, what):
    assert met == wanted, f"{what}: {met!r}, expected {wanted!r}"


def fails(call, code):
    try:
        call()
    except grpc.RpcError as error:
        same(error.code(), code, "status")
        return error
    raise AssertionError(f"succeeded, expected {code}")


class Requests:
    """A request stream fed by the test."""

    def __init__(self):
        self.queue = queue.Queue()

    def send(self, request):
        self.queue.put(request)

    def close(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


class Cases:
    def __init__(self, address):
        self.address = address
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        self.stub = test_pb2_grpc.TestServiceStub(self.channel)

    def empty_unary(self):
        same(self.stub.EmptyCall(empty_pb2.Empty(), timeout=10), empty_pb2.Empty(), "answer")

    def cacheable_unary(self):
        raise Skip("grpcio has no GET requests")

    def unary(self, request_size, response_size, stub=None, **options):
        request = messages_pb2.SimpleRequest(response_size=response_size, payload=payload(request_size))
        response = (stub or self.stub).UnaryCall(request, timeout=20, **options)
        same(len(response.payload.body), response_size, "size")
        same(response.payload.body.count(0), response_size, "zeros")

    def large_unary(self):
        self.unary(271828, 314159)

    def client_compressed_unary(self):
        request = messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828))
        request.expect_compressed.value = True
        fails(lambda: self.stub.UnaryCall(request, timeout=10), grpc.StatusCode.INVALID_ARGUMENT)
        response = self.stub.UnaryCall(request, timeout=10, compression=grpc.Compression.Gzip)
        same(len(response.payload.body), 314159, "size")
        request.expect_compressed.value = False
        same(len(self.stub.UnaryCall(request, timeout=10).payload.body), 314159, "size")

    def server_compressed_unary(self):
        for compressed in (True, False):
            request = messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828))
            request.response_compressed.value = compressed
            same(len(self.stub.UnaryCall(request, timeout=10).payload.body), 314159, "size")

    def client_streaming(self):
        requests = (messages_pb2.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES)
        same(self.stub.StreamingInputCall(requests, timeout=10).aggregated_payload_size, 74922, "sum")

    def client_compressed_streaming(self):
        raise Skip("grpcio compresses a whole call, not single messages")

    def server_streaming(self):
        request = output_request()
        request.response_parameters.extend(messages_pb2.ResponseParameters(size=size) for size in RESPONSE_SIZES)
        sizes = [len(response.payload.body) for response in self.stub.StreamingOutputCall(request, timeout=10)]
        same(sizes, list(RESPONSE_SIZES), "sizes")

    def server_compressed_streaming(self):
        request = output_request()
        for size, compressed in ((31415, True), (92653, False)):
            value = messages_pb2.BoolValue(value=compressed)
            request.response_parameters.append(messages_pb2.ResponseParameters(size=size, compressed=value))
        sizes = [len(response.payload.body) for response in self.stub.StreamingOutputCall(request, timeout=10)]
        same(sizes, [31415, 92653], "sizes")

    def ping_pong(self):
        requests = Requests()
        responses = self.stub.FullDuplexCall(iter(requests), timeout=20)
        for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
            requests.send(output_request(response_size, request_size))
            same(len(next(responses).payload.body), response_size, "size")
        requests.close()
        same(list(responses), [], "further responses")

    def empty_stream(self):
        same(list(self.stub.FullDuplexCall(iter(()), timeout=10)), [], "responses")

    def custom_metadata(self):
        self.echo("test_initial_metadata_value", b"\xab\xab\xab")

    def echo(self, initial, trailing):
        metadata = ((INITIAL, initial), (TRAILING, trailing))
        request = messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828))
        _, unary = self.stub.UnaryCall.with_call(request, metadata=metadata, timeout=20)
        stream = self.stub.FullDuplexCall(iter([output_request(314159, 271828)]), metadata=metadata, timeout=20)
        same(len(list(stream)), 1, "responses")
        for call in (unary, stream):
            same(dict(call.initial_metadata()).get(INITIAL), initial, "initial metadata")
            same(dict(call.trailing_metadata()).get(TRAILING), trailing, "trailing metadata")

    def status_of(self, message):
        status = messages_pb2.EchoStatus(code=2, message=message)
        request = messages_pb2.SimpleRequest(response_status=status)
        error = fails(lambda: self.stub.UnaryCall(request, timeout=10), grpc.StatusCode.UNKNOWN)
        same(error.details(), message, "message")
        stream = iter([output_request(response_status=status)])
        error = fails(lambda: list(self.stub.FullDuplexCall(stream, timeout=10)), grpc.StatusCode.UNKNOWN)
        same(error.details(), message, "message")

    def status_code_and_message(self):
        self.status_of("test status message")

    def special_status_message(self):
        self.status_of("\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n")

    def unimplemented_method(self):
        call = self.stub.UnimplementedCall
        fails(lambda: call(empty_pb2.Empty(), timeout=10), grpc.StatusCode.UNIMPLEMENTED)

    def unimplemented_service(self):
        call = test_pb2_grpc.UnimplementedServiceStub(self.channel).UnimplementedCall
        fails(lambda: call(empty_pb2.Empty(), timeout=10), grpc.StatusCode.UNIMPLEMENTED)

    def cancel_after_begin(self):
        requests = Requests()
        call = self.stub.StreamingInputCall.future(iter(requests), timeout=10)
        call.cancel()
        same(call.code(), grpc.StatusCode.CANCELLED, "status")
        requests.close()

    def cancel_after_first_response(self):
        self.cancel_seen()

    def timeout_on_sleeping_server(self):
        # A server whose own timer is first may reset the stream, which grpcio reports as CANCELLED: try again.
        for last in (False, False, True):
            requests = Requests()
            requests.send(output_request(1, 27182, interval_us=1_000_000))
            try:
                list(self.stub.FullDuplexCall(iter(requests), timeout=0.001))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED or last:
                    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "status")
                    return
            finally:
                requests.close()

    def rpc_soak(self):
        for _ in range(10):
            self.unary(271828, 314159)

    def channel_soak(self):
        for _ in range(10):
            with grpc.insecure_channel(self.address, options=OPTIONS + [("grpc.use_local_subchannel_pool", 1)]) as one:
                self.unary(271828, 314159, test_pb2_grpc.TestServiceStub(one))

    # Beyond the official list; see PROTOCOL.md.

    def big_metadata(self):
        self.echo("m" * 20_000, os.urandom(22_500))

    def binary_metadata(self):
        for value in (b"", b"\0", bytes(range(256)), b"a,b, c", os.urandom(1001)):
            self.echo("x", value)

    def concurrent_300(self):
        request = output_request(10, 10, interval_us=300_000)
        calls = [self.stub.StreamingOutputCall(request, timeout=30) for _ in range(300)]
        for call in calls:
            same([len(response.payload.body) for response in call], [10], "sizes")

    def deadline_seen(self):
        _, call = self.stub.EmptyCall.with_call(empty_pb2.Empty(), timeout=5, metadata=(("x-test-report", "1"),))
        left = dict(call.trailing_metadata()).get("x-test-remaining-ms")
        assert left not in (None, "none") and 2000 < int(left) <= 5100, f"the server saw {left} of 5000 ms"
        _, call = self.stub.EmptyCall.with_call(empty_pb2.Empty(), metadata=(("x-test-report", "1"),))
        same(dict(call.trailing_metadata()).get("x-test-remaining-ms"), "none", "deadline seen")

    def cancel_seen(self):
        name = os.urandom(8).hex()
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), metadata=(("x-test-id", name),), timeout=20)
        request = output_request(31415, 27182)
        request.response_parameters.append(messages_pb2.ResponseParameters(size=1, interval_us=1_000_000))
        requests.send(request)
        same(len(next(call).payload.body), 31415, "size")
        call.cancel()
        same(call.code(), grpc.StatusCode.CANCELLED, "status")
        requests.close()
        for _ in range(100):
            ask = (("x-test-was-cancelled", name),)
            _, answer = self.stub.EmptyCall.with_call(empty_pb2.Empty(), metadata=ask, timeout=10)
            if dict(answer.trailing_metadata()).get("x-test-cancelled") == "yes":
                return
            time.sleep(0.02)
        raise AssertionError("the server never saw the cancel")

    def status_details(self):
        metadata = (("x-test-details-bin", DETAILS),)
        call = lambda: self.stub.EmptyCall(empty_pb2.Empty(), metadata=metadata, timeout=10)  # noqa: E731
        error = fails(call, grpc.StatusCode.FAILED_PRECONDITION)
        same(error.details(), "with details", "message")
        same(dict(error.trailing_metadata()).get("grpc-status-details-bin"), DETAILS, "details")

    def mebibyte_both_ways(self):
        self.unary(1 << 20, 1 << 20)
        stream = self.stub.FullDuplexCall(iter([output_request(1 << 20, 1 << 20)] * 4), timeout=20)
        same([len(response.payload.body) for response in stream], [1 << 20] * 4, "sizes")

    def stream_of_1000(self):
        requests = (output_request(100, 100) for _ in range(1000))
        sizes = [len(response.payload.body) for response in self.stub.FullDuplexCall(requests, timeout=30)]
        same(sizes, [100] * 1000, "sizes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--cases", required=True)
    options = parser.parse_args()
    cases = Cases(options.address)
    for name in options.cases.split(","):
        start = time.monotonic()
        try:
            getattr(cases, name)()
            print(f"PASS {name} {(time.monotonic() - start) * 1000:.0f}", flush=True)
        except Skip as reason:
            print(f"SKIP {name} {reason}", flush=True)
        except Exception as error:  # noqa: BLE001 -- one case must not hide the others
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {name} {text[:500]}", flush=True)


if __name__ == "__main__":
    main()
