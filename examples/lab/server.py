"""The lab's server: greets whoever calls. Plain grpcio; knows nothing of Towpath."""

import sys
from concurrent import futures

import grpc


class Greeter(grpc.GenericRpcHandler):
    """`/lab.Greeter/Greet`: a name in, a greeting out, both UTF-8 text."""

    def service(self, call):
        if call.method == "/lab.Greeter/Greet":
            return grpc.unary_unary_rpc_method_handler(lambda name, context: b"Hello, " + name)
        return None


def main():
    address = sys.argv[1]
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Greeter(),))
    server.add_insecure_port(address)
    server.start()
    print(f"listening on {address}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
