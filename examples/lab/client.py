"""The lab's client: calls the server a number of times, and says how long that took. Plain grpcio."""

import sys
import time

import grpc


def main():
    address = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    took = []
    with grpc.insecure_channel(address) as channel:
        greet = channel.unary_unary("/lab.Greeter/Greet")
        for number in range(count):
            start = time.perf_counter()
            answer = greet(b"caller %d" % number, timeout=5)
            took.append(time.perf_counter() - start)
            assert answer == b"Hello, caller %d" % number, answer
    took.sort()
    print(f"{count} calls through {address}, all answered; the last: {answer.decode()!r}")
    print(f"p50 {took[count // 2] * 1e6:.0f} µs, p99 {took[count * 99 // 100] * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
