"""Peers that break the rules, against a running node: it must survive, answer with the RFC's error, count
it by name, and harm nobody else. A good caller runs all the time and must see no failure.

    abuse.py [--backend uring,epoll] [--only TEXT] [--full]

Standard library only. Exit status 1 when anything failed.
"""

import argparse
import struct
import sys
import time

from harness import h2, process, towpath, wire
from hostile import backend as hostile_backend
from hostile import caller, faults, floods
from hostile.outcome import Failed

BIG = bytes(1 << 20)


class Box:
    """The node, its good backend, and one service per hostile backend."""

    def __init__(self, backend_name):
        self.backend = wire.Backend(answer=self.answer)
        self.hostile = [wire.Listener(case.serve) for case in hostile_backend.CASES]
        services = [("good", "echo.test", self.backend.endpoint)]
        for number, (case, listener) in enumerate(zip(hostile_backend.CASES, self.hostile)):
            services.append((f"evil{number}", case.authority, listener.endpoint))
        adn = "service client\n"
        for name, host, endpoint in services:
            adn += f'service {name} {{ hosts: ["{host}"] endpoints: ["{endpoint}"] }}\n'
            adn += f"client -> {name}: LoadBalancing - Logging\n"
        self.node = towpath.Node(adn, backend_name)
        self.address = self.node.address
        time.sleep(0.3)
        self.start = self.resident()

    @staticmethod
    def answer(conn, stream, call):
        if call.path.endswith("/Big"):
            conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            conn.data(stream, wire.message(BIG))
            conn.trailers(stream, [("grpc-status", "0")])
        else:
            wire.Backend.echo(conn, stream, call)

    def resident(self):
        return self.node.process.resident_bytes()

    def until(self, condition, seconds=4.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.01)
        return condition()

    def await_call(self, mark):
        def find():
            return next((call for call in list(self.backend.calls) if call.field("x-mark") == mark), None)

        call = self.until(find)
        if call is None:
            raise Failed("the call never reached the backend")
        return call

    def stop(self):
        self.node.stop()
        self.backend.stop()
        for listener in self.hostile:
            listener.stop()


def run_one(box, good, name, attack):
    """None, or what went wrong."""
    failures = good.failed
    counter = faults.counter(name)
    before = box.node.total(counter) if counter else 0
    try:
        attack(box)
    except Failed as reason:
        return str(reason)
    except (h2.Closed, TimeoutError, OSError, ValueError, struct.error) as error:
        return f"{type(error).__name__}: {error}"
    if not box.node.alive():
        return f"the node died\n{box.node.process.tail()}"
    if counter and not box.until(lambda: box.node.total(counter) > before, 2.0):
        return f"{counter}…}} did not move"
    if good.failed > failures:
        return f"the good caller failed: {good.first}"
    return None


def run_backend(name, cases, verbose):
    passed, failed = 0, []
    box = Box(name)
    good = wire.Caller(box.address)
    good.start()
    try:
        for title, attack in cases:
            start = time.monotonic()
            wrong = run_one(box, good, title, attack)
            took = time.monotonic() - start
            if verbose:
                print(f"  {title} {took:.2f} s, slowest good call {good.slowest:.2f} s", flush=True)
            good.slowest_of_all, good.slowest = max(good.slowest_of_all, good.slowest), 0.0
            if wrong is None:
                passed += 1
            else:
                failed.append((f"{name} {title}", wrong))
                print(f"FAIL {name} {title} ({took:.1f} s): {wrong}", flush=True)
            if not box.node.alive():
                good.stop()
                box.stop()
                box = Box(name)
                good = wire.Caller(box.address)
                good.start()
        good.stop()
        if good.failed or (good.done < 20 and len(cases) > 20):
            failed.append((f"{name} good_caller", f"{good.failed} of {good.done} failed: {good.first}"))
        print(f"{name}: good caller {good.done} calls, {good.failed} failed, slowest {good.slowest_of_all * 1000:.0f} ms")
    finally:
        box.stop()
    return passed, failed


def main():
    parser = argparse.ArgumentParser(prog="abuse.py")
    parser.add_argument("--backend", default=",".join(towpath.BACKENDS))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="every case's time")
    parser.add_argument("--full", action="store_true", help="accepted for scripts/test.sh")
    options = parser.parse_args()
    error = towpath.build()
    if error:
        print(f"towpath does not build:\n{error}")
        return 1
    cases = caller.CASES + floods.CASES
    cases += [(f"backend_{case.name}", case.attack) for case in hostile_backend.CASES]
    cases = [entry for entry in cases if options.only in entry[0]]
    passed, failed, skipped = 0, [], 0
    for name in options.backend.split(","):
        reason = towpath.uring_works() if name == "uring" else None
        if reason:
            print(f"skipped: uring does not start here: {reason.splitlines()[-1]}")
            skipped += len(cases)
            continue
        ok, wrong = run_backend(name, cases, options.verbose)
        passed += ok
        failed += wrong
    print(f"abuse: {passed} passed, {len(failed)} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
