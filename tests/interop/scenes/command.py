"""The command line and the admin addresses, as scripts use them."""

import os
import socket
import tempfile
import threading
import urllib.request
from pathlib import Path

from harness import h2, process, towpath, wire

from . import many, node, require, same, scene


def refused(command, *words):
    """Exit 1 and an explanation on standard error that has all these words."""
    child = process.Process(command, name="towpath")
    status = child.wait(10)
    text = child.tail(40)
    child.kill()
    same(status, 1, f"exit status of {command[1:]} ({text})")
    for word in words:
        require(word in text, f"no {word!r} in: {text}")


def write(folder, name, text):
    path = Path(folder) / name
    path.write_text(text)
    return path


@scene
def mistakes_are_explained(backend, _):
    good = towpath.policy("LoadBalancing - Logging", ["127.0.0.1:1"])
    with tempfile.TemporaryDirectory() as folder:
        adn = write(folder, "app.adn", good)
        run = [towpath.binary(), "run", adn, "--backend", backend, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
        bad = write(folder, "bad.adn", good.replace("Logging", "Loging"))
        refused([towpath.binary(), "check", bad], "bad.adn:3", "Loging", "Logging")
        refused([*run[:2], bad, *run[3:]], "bad.adn:3", "Logging")
        cut = write(folder, "cut.adn", "service a {\n")
        refused([towpath.binary(), "check", cut], "cut.adn:")
        toml = write(folder, "node.toml", "[limits]\nno_such_limit = 1\n")
        refused([*run, "--config", toml], "node.toml:2", "no_such_limit")
        toml = write(folder, "other.toml", "[limits\n")
        refused([*run, "--config", toml], "other.toml:1")
        refused([*run[:2], Path(folder) / "absent.adn", *run[3:]], "absent.adn")
        refused([*run, "--cores", "9999"], "9999")
        taken = wire.Listener(lambda sock: None)
        refused([*run[:-1], taken.endpoint], taken.endpoint)
        taken.stop()
        status, out = process.bounded([towpath.binary(), "check", adn], 10)
        same(status, 0, f"check of a good file ({out})")


@scene
def admin_address(backend, _):
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(set(many(client, 100)), {0}, "statuses")
        base = f"http://{towpath_node.admin[0]}:{towpath_node.admin[1]}"
        with urllib.request.urlopen(base + "/ready", timeout=5) as answer:
            same(answer.status, 200, "/ready")
        metrics = towpath_node.metrics()
        started = sum(v for k, v in metrics.items() if k.startswith("grpc_server_call_started_total"))
        same(started, 100.0, "calls started")
        total = sum(v for k, v in metrics.items() if k.startswith("response_total") and 'classification="success"' in k)
        same(total, 100.0, "Linkerd's response_total")
        require(any("LoadBalancing" in name for name in metrics), "no counter names an element")
    server.stop()


@scene
def status_and_doctor(backend, _):
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(set(many(client, 10)), {0}, "statuses")
        socket = towpath_node.dir / "admin.sock"
        same(socket.stat().st_mode & 0o777, 0o600, "mode of the admin socket")
        status, out = process.bounded([towpath.binary(), "status", "--admin", socket], 10)
        same(status, 0, f"status ({out})")
        require(server.endpoint in out, f"status does not name the endpoint: {out}")
        status, out = process.bounded([towpath.binary(), "doctor"], 20)
        same(status, 0, f"doctor ({out})")
        require("epoll" in out and "uring" in out, f"doctor: {out}")
    server.stop()


@scene
def endpoints_from_the_command_line(backend, _):
    server = wire.Backend()
    setting = f"service.server.endpoints={server.endpoint}"
    with node(backend, "LoadBalancing", "127.0.0.1:1", args=("--set", setting)) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(set(many(client, 10)), {0}, "statuses")
    server.stop()


@scene
def unix_sockets_both_ways(backend, _):
    """A listener and an endpoint on unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        path, inner = os.path.join(folder, "in.sock"), os.path.join(folder, "out.sock")
        server = wire.Backend()
        # The backend listens on TCP; a small forwarder gives it a unix socket.
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(inner)
        listener.listen(16)

        def forward():
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=server._run, args=(one,), daemon=True).start()

        threading.Thread(target=forward, daemon=True).start()
        with towpath.Node(towpath.policy("LoadBalancing", [f"unix:{inner}"]), backend, args=("--listen", f"unix:{path}")) as _node:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            client = wire.Client(h2.Conn(sock, True))
            same(set(many(client, 50)), {0}, "statuses")
            client.close()
        listener.close()
        server.stop()


@scene
def a_listener_can_relay_tcp(backend, _):
    """`protocol = "tcp"`: bytes pass as they are, both ways, and a half close arrives."""

    def serve(sock):
        got = b""
        while chunk := sock.recv(65536):
            got += chunk
        sock.sendall(got[::-1])

    upstream = wire.Listener(serve)
    config = '[[listen]]\nname = "raw"\naddress = "' + towpath.listen_default() + '"\nprotocol = "tcp"\ndestination = "server"\n'
    adn = towpath.policy("LoadBalancing", [upstream.endpoint])
    with towpath.Node(adn, backend, config, listen=False) as towpath_node:
        data = bytes(range(256)) * 4000
        with socket.create_connection(towpath_node.address, timeout=5) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            back = b""
            while chunk := sock.recv(65536):
                back += chunk
        same(back == data[::-1], True, "bytes through the relay")
    upstream.stop()
