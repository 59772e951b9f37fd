"""h2spec, strict, against the node in front of an HTTP/2 backend: every case must pass.

    conformance.py [--backend uring,epoll] [--direct HOST:PORT]

h2spec is built from `go/go.mod` where there is a Go toolchain, else the suite is skipped with a line;
H2SPEC names another binary. The pinned release has 146 cases, 2.6.0 has 147.
"""

import argparse
import os
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

from harness import process, tools, towpath, wire

CASES_MIN = 146


def answer(conn, stream, call):
    """A plain HTTP/2 answer with a body, which h2spec's flow-control cases need."""
    del call
    conn.headers(stream, [(":status", "200"), ("content-type", "text/plain")])
    conn.data(stream, b"hello from behind the node\n" * 4, end_stream=True)


def judge(address, binary):
    """(passed, [what failed])."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "h2spec.xml"
        command = [binary, "-S", "-h", address[0], "-p", address[1], "-o", "5", "-j", report, "http2", "generic", "hpack"]
        status, out = process.bounded(command, 240)
        if not report.exists():
            return 0, [f"h2spec gave no report (exit {status}): {out[-500:]}"]
        passed, failed = 0, []
        for case in xml.parse(report).getroot().iter("testcase"):
            wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
            if wrong is None and case.find("skipped") is None:
                passed += 1
            else:
                text = " ".join((wrong.text or "").split()) if wrong is not None else "skipped"
                failed.append(f"{case.get('package')} {case.get('classname')}: {text}")
        return passed, failed


def main():
    parser = argparse.ArgumentParser(prog="conformance.py")
    parser.add_argument("--backend", default=",".join(towpath.BACKENDS))
    parser.add_argument("--direct", default="", help="judge this address instead of the node")
    parser.add_argument("--full", action="store_true", help="accepted for scripts/test.sh")
    options = parser.parse_args()
    try:
        binary = Path(os.environ["H2SPEC"]) if "H2SPEC" in os.environ else tools.h2spec()
    except tools.Missing as reason:
        print(f"h2spec: skipped: {reason}")
        return 1 if os.environ.get("CI") and not str(reason).endswith("is not installed") else 0
    wrong = 0
    if options.direct:
        host, port = options.direct.split(":")
        targets = [(options.direct, None, (host, int(port)))]
    else:
        error = towpath.build()
        if error:
            print(f"towpath does not build:\n{error}")
            return 1
        targets = [(name, name, None) for name in options.backend.split(",")]
    for title, backend, address in targets:
        node = echo = None
        if backend:
            reason = towpath.uring_works() if backend == "uring" else None
            if reason:
                print(f"h2spec {title}: skipped: uring does not start here: {reason.splitlines()[-1]}")
                continue
            echo = wire.Backend(answer=answer, keep=False)
            node = towpath.Node(towpath.policy("LoadBalancing - Logging", [echo.endpoint]), backend)
            address = node.address
        passed, failed = judge(address, binary)
        if node and not node.alive():
            failed.append(f"the node died: {node.process.tail()}")
        for text in failed:
            print(f"FAIL h2spec {title} {text}")
        if not failed and passed < CASES_MIN:
            failed.append(f"only {passed} cases ran")
        wrong += len(failed)
        print(f"h2spec {title}: {passed} passed, {len(failed)} failed", flush=True)
        if node:
            node.stop()
            echo.stop()
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
