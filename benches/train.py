#!/usr/bin/env python3
"""The load by which `scripts/pgo.sh` has the compiler learn what is hot: several backends, chains and message sizes.

Usage: benches/train.py [--for SECONDS] DIRECTORY BACKEND…      where the binaries are; uring, epoll, memif

Each of five loads runs for two seconds over each backend, and through two nodes with seals between them. Nothing is
measured. Needs two cores, 0 and 1.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ELEMENTS = (
    'Metrics - RateLimit(100000000/s) - Timeout(10s) - Firewall(call.metadata["x-user"], deny: ["mallory"], absent: true)'
    ' - LoadBalancing - Logging(to: "/dev/null") - Compression - FaultInjection(0)'
)
# Connections, streams, bytes, metadata.
SHAPES = [
    (16, 8, 32, []),
    (128, 1, 32, ["x-user:alice"]),
    (16, 8, 1024, ["grpc-accept-encoding:gzip"]),
    (8, 2, 65536, []),
    (1, 1, 32, []),
]


def node(binaries, here, name, rules, config, listen, backend):
    """A node that runs `rules`, once it is ready."""
    (here / f"{name}.adn").write_text(rules)
    (here / f"{name}.toml").write_text(f'{config}\n[access_log]\nto = "/dev/null"\n[admin]\naddress = "off"\nsocket = "{here}/{name}.sock"\n')
    command = [binaries / "towpath", "run", here / f"{name}.adn", "--config", here / f"{name}.toml"]
    command += ["--listen", listen, "--backend", backend, "--cores", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if "towpath ready" in line:
            return process
    sys.exit("".join(said))


def run(binaries, seconds, begin, load):
    """Calls of every shape, each through new nodes. They end in good order: only then a program writes its profile."""
    for conns, streams, size, metadata in SHAPES:
        nodes = begin()
        command = [binaries / "pktgen", "call", "--method", "/train.Train/Call", "--conns", str(conns), "--streams", str(streams)]
        command += ["--size", str(size), "--for", f"{int(seconds * 1000)}ms", "--warm-up", "0s", "--wait", "10s", "--quiet", "--core", "1", *load]
        try:
            subprocess.run([*command, *(word for one in metadata for word in ("-H", one))], timeout=60, check=True)
            for process in nodes:
                process.send_signal(signal.SIGTERM)
                if process.wait(60):
                    sys.exit(f"train.py: a node has failed: {process.stderr.read()}")
        finally:
            # None is left when something has gone wrong.
            for process in nodes:
                process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--for", dest="seconds", type=float, default=2.0, help="seconds of each load")
    parser.add_argument("binaries", type=Path)
    parser.add_argument("backends", nargs="+", choices=["uring", "epoll", "memif"])
    args = parser.parse_args()
    binaries = args.binaries
    rules = "service client\nservice server {{ endpoints: [\"{}\"] }}\nclient -> server: {}\n"
    with tempfile.TemporaryDirectory(prefix="train-") as here:
        here = Path(here)
        for backend in args.backends:
            if backend == "memif":
                listen, echo = "10.7.0.2:15001", "10.8.0.3:50051"
                device = "net_memif{},role={},socket-abstract=no,socket=" + str(here) + "/{}.sock"
                port = '[[port]]\nname = "{0}"\nbackend = "dpdk"\ndevice = "{1}"\naddress = "{2}"\n'
                config = port.format("near", device.format(0, "server", "near"), "10.7.0.2/24")
                config += port.format("far", device.format(1, "server", "far"), "10.8.0.2/24")
                load = ["--backend", "dpdk", "--device", device.format(0, "client", "near"), "--address", "10.7.0.1/24"]
                load += ["--echo-device", device.format(1, "client", "far"), "--echo-address", "10.8.0.3/24"]
            else:
                listen, echo, config, load = "127.0.0.1:15301", "127.0.0.1:15302", "", ["--backend", backend]
            kernel = "auto" if backend == "memif" else backend
            begin = lambda: [node(binaries, here, "node", rules.format(echo, ELEMENTS), config, listen, kernel)]  # noqa: B023, E731
            run(binaries, args.seconds, begin, [*load, "--echo", echo, "--to", listen])
        # Two nodes, sealed between them.
        (here / "keys").write_text(f"1 {'5a' * 32}\n")
        (here / "keys").chmod(0o600)
        keys = f'[keys]\nfabric = "{here}/keys"'
        callee = rules.format("127.0.0.1:15302", 'Decryption("fabric") - LoadBalancing')
        caller = rules.format("127.0.0.1:15303", 'LoadBalancing - Logging(to: "/dev/null") - Compression - Encryption("fabric")')
        begin = lambda: [  # noqa: E731
            node(binaries, here, "callee", callee, keys, "127.0.0.1:15303", "auto"),
            node(binaries, here, "caller", caller, keys, "127.0.0.1:15301", "auto"),
        ]
        run(binaries, args.seconds, begin, ["--echo", "127.0.0.1:15302", "--to", "127.0.0.1:15301"])


if __name__ == "__main__":
    main()
