"""The interop test service in grpcio, with the extra features of PROTOCOL.md."""

import argparse
import os
import time
from concurrent import futures

import grpc
from interop import empty_pb2, messages_pb2, test_pb2_grpc

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
CANCELLED = set()


def before(context):
    """Metadata echo, the deadline report and status details, before the method's own work."""
    metadata = dict(context.invocation_metadata() or ())
    trailing = []
    if INITIAL in metadata:
        context.send_initial_metadata(((INITIAL, metadata[INITIAL]),))
    if TRAILING in metadata:
        trailing.append((TRAILING, metadata[TRAILING]))
    if "x-test-report" in metadata:
        left = context.time_remaining()
        trailing.append(("x-test-remaining-ms", "none" if left is None or left > 1e9 else str(int(left * 1000))))
    if "x-test-was-cancelled" in metadata:
        trailing.append(("x-test-cancelled", "yes" if metadata["x-test-was-cancelled"] in CANCELLED else "no"))
    if "x-test-details-bin" in metadata:
        trailing.append(("grpc-status-details-bin", metadata["x-test-details-bin"]))
    if trailing:
        context.set_trailing_metadata(tuple(trailing))
    if "x-test-details-bin" in metadata:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "with details")
    return metadata


def echo_status(context, request):
    if request.HasField("response_status") and request.response_status.code:
        code = next(c for c in grpc.StatusCode if c.value[0] == request.response_status.code)
        context.abort(code, request.response_status.message)


def body(size):
    return messages_pb2.Payload(body=bytes(size))


class TestService(test_pb2_grpc.TestServiceServicer):
    def EmptyCall(self, request, context):
        before(context)
        return empty_pb2.Empty()

    def UnaryCall(self, request, context):
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        before(context)
        echo_status(context, request)
        return messages_pb2.SimpleResponse(payload=body(request.response_size))

    def _outputs(self, request, context):
        for parameters in request.response_parameters:
            if parameters.interval_us:
                time.sleep(parameters.interval_us / 1e6)
            if not parameters.compressed.value:
                context.disable_next_message_compression()
            yield messages_pb2.StreamingOutputCallResponse(payload=body(parameters.size))

    def StreamingOutputCall(self, request, context):
        if any(parameters.compressed.value for parameters in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        before(context)
        echo_status(context, request)
        yield from self._outputs(request, context)

    def StreamingInputCall(self, requests, context):
        before(context)
        total = 0
        for request in requests:
            total += len(request.payload.body)
        return messages_pb2.StreamingInputCallResponse(aggregated_payload_size=total)

    def FullDuplexCall(self, requests, context):
        metadata = dict(context.invocation_metadata() or ())
        before(context)
        if "x-test-id" in metadata:
            open_call = {metadata["x-test-id"]}
            context.add_callback(lambda: CANCELLED.update(open_call))
        for request in requests:
            echo_status(context, request)
            yield from self._outputs(request, context)
        if "x-test-id" in metadata:
            open_call.clear()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max_streams", type=int, default=0)
    options = parser.parse_args()
    arguments = [
        ("grpc.max_metadata_size", 1 << 20),
        ("grpc.absolute_max_metadata_size", 1 << 20),
        ("grpc.max_receive_message_length", 8 << 20),
        ("grpc.so_reuseport", 0),
    ]
    if options.max_streams:
        arguments.append(("grpc.max_concurrent_streams", options.max_streams))
    server = grpc.server(futures.ThreadPoolExecutor(400), options=arguments)
    test_pb2_grpc.add_TestServiceServicer_to_server(TestService(), server)
    port = server.add_insecure_port(f"{os.environ.get('TOWPATH_TEST_HOST', '127.0.0.1')}:{options.port}")
    server.start()
    print(f"listening {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
