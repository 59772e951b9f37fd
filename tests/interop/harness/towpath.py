"""Starts the node under test with a generated `.adn`, and reads its metrics and access log."""

import json
import os
import re
import shutil
import signal
import socket
import tempfile
import urllib.request
from pathlib import Path

from . import lab
from .process import ROOT, NotReady, Process, bounded

BACKENDS = ("uring", "epoll")
ADDRESS = r"(\d+\.\d+\.\d+\.\d+):(\d+)"


def binary():
    """The built `towpath`; TOWPATH_BIN names another one."""
    if os.environ.get("TOWPATH_BIN"):
        return Path(os.environ["TOWPATH_BIN"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug" / "towpath"


def build():
    """Builds it unless TOWPATH_BIN is given. Gives an error text or None."""
    if os.environ.get("TOWPATH_BIN"):
        return None if binary().exists() else f"{binary()} does not exist"
    status, out = bounded(["cargo", "build", "--bin", "towpath", "--locked"], 900)
    return None if status == 0 else out[-3000:]


def policy(chain, endpoints, extra=""):
    """One service `server` behind `chain`."""
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    rule = f"client -> server: {chain}\n"
    return f"service client\nservice server {{ endpoints: [{listed}] }}\n{extra}{rule}"


def listen_default():
    """Where a node listens when nobody says; a raw port lends no free port numbers."""
    return f"{lab.NODE_ADDRESS}:{lab.PORT}" if lab.current else "127.0.0.1:0"


def uring_works():
    """Whether `--backend uring` starts on this machine; containers often forbid io_uring."""
    try:
        Node(policy("LoadBalancing", ["127.0.0.1:1"]), "uring").stop()
        return None
    except NotReady as reason:
        return str(reason)


class Node:
    """A running `towpath run`. `address` is its listener, `admin` its admin address."""

    def __init__(self, adn, backend, config="", args=(), listen=True, seconds=20.0):
        self.dir = Path(tempfile.mkdtemp(prefix="towpath-test-"))
        self.adn = self.dir / "app.adn"
        self.adn.write_text(adn)
        raw = lab.current
        kind = backend.partition("-")[0]
        command = [*(raw.prefix() if raw else []), binary(), "run", self.adn, "--backend", kind, "--admin", "127.0.0.1:0"]
        if listen and "--listen" not in args:
            command += ["--listen", listen_default()]
        if raw:
            config += raw.config()
        (self.dir / "node.toml").write_text(f'[admin]\nsocket = "{self.dir}/admin.sock"\n{config}')
        command += ["--config", self.dir / "node.toml", *args]
        self.process = Process(command, name="towpath")
        self.backend = backend
        try:
            line = self.process.ready(r"^.*\bready\b.*$", seconds).group(0)
            self.ready_line = line
            self.address = None if "listening unix:" in line else _address(line, "listening")
            self.admin = _address(line, "admin")
        except NotReady:
            self.stop(1)
            raise

    @property
    def endpoint(self):
        return f"{self.address[0]}:{self.address[1]}"

    def metrics_text(self):
        if lab.current:  # its loopback is not ours
            return unix_get(f"{self.dir}/admin.sock", "/metrics")
        url = f"http://{self.admin[0]}:{self.admin[1]}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()

    def metrics(self):
        """{'name{labels}': value}."""
        out = {}
        for line in self.metrics_text().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                out[name] = float(value)
        return out

    def total(self, text, metrics=None):
        """The sum of all counters whose name or labels contain `text`."""
        counters = self.metrics() if metrics is None else metrics
        return sum(value for name, value in counters.items() if text in name and "_bucket" not in name)

    def log(self):
        """The access log's JSON lines."""
        return [json.loads(line) for line in list(self.process.out) if line.startswith("{")]

    def alive(self):
        return self.process.alive()

    def drain(self):
        self.process.signal(signal.SIGTERM)

    def stop(self, seconds=5.0):
        status = self.process.wait(0.0) if not self.process.alive() else None
        if status is None:
            self.process.signal(signal.SIGTERM)
            # A raw port is left in order: some drivers leave their program at the interface otherwise.
            status = self.process.wait(3.0 if lab.current else 0.2)
        if status is None:
            self.process.signal(signal.SIGTERM)
            status = self.process.wait(seconds)
        self.process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def unix_get(path, what):
    """The body of an HTTP answer over a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(f"GET {what} HTTP/1.1\r\nHost: towpath\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).partition(b"\r\n\r\n")[2].decode()


def _address(line, word):
    """The address that follows `word` in the ready line."""
    found = re.search(word + r"\D{0,24}?" + ADDRESS, line)
    if not found:
        raise NotReady(f"no {word} address in the ready line: {line}")
    return (found.group(1), int(found.group(2)))
