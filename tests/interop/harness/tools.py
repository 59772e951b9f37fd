"""Builds the client and server programs under `.cache/`; what cannot be built here is named and skipped.

Versions are pinned: `python/requirements.txt`, `node/package.json`, `go/go.mod`, `tonic/Cargo.lock`.
"""

import os
import shutil
import sys
from pathlib import Path

from .process import CACHE, ROOT, bounded

HERE = ROOT / "tests" / "interop"
LANGUAGES = ("python", "node", "tonic", "go")


class Missing(Exception):
    """Why a language is not available."""


class Program:
    """How to start a language's client and server."""

    def __init__(self, client, server, env=None):
        self.client, self.server, self.env = client, server, env or {}


def _run(command, seconds, cwd=None, env=None):
    status, out = bounded(command, seconds, cwd, env)
    if status != 0:
        raise Missing(f"{' '.join(map(str, command[:4]))} failed: {' '.join(out.split())[-400:]}")


def _fresh(stamp, sources):
    """Whether `stamp` is newer than all sources."""
    return stamp.exists() and all(stamp.stat().st_mtime > source.stat().st_mtime for source in sources)


def python():
    folder, venv = CACHE / "python", CACHE / "python" / "venv"
    wanted, stamp = HERE / "python" / "requirements.txt", CACHE / "python" / "stamp"
    protos = sorted((HERE / "proto" / "interop").glob("*.proto"))
    if not _fresh(stamp, [wanted, *protos]):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([sys.executable, "-m", "venv", venv], 120)
        _run([venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "-r", wanted], 300)
        (folder / "gen").mkdir()
        out = folder / "gen"
        _run(
            [venv / "bin" / "python", "-m", "grpc_tools.protoc", f"-I{HERE / 'proto'}", f"--python_out={out}",
             f"--grpc_python_out={out}", *protos], 60,
        )  # fmt: skip
        stamp.touch()
    run = [venv / "bin" / "python", "-u"]
    env = {"PYTHONPATH": str(folder / "gen")}
    return Program([*run, HERE / "python" / "client.py"], [*run, HERE / "python" / "server.py"], env)


def node():
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed")
    folder, wanted = CACHE / "node", HERE / "node" / "package.json"
    stamp = folder / "stamp"
    if not _fresh(stamp, [wanted]):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(wanted, folder)
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"], 300, folder)
        stamp.touch()
    env = {"NODE_PATH": str(folder / "node_modules")}
    return Program(["node", HERE / "node" / "client.js"], ["node", HERE / "node" / "server.js"], env)


def tonic():
    target = CACHE / "tonic"
    env = {"CARGO_TARGET_DIR": str(target)}
    _run(["cargo", "build", "--locked", "--bins"], 600, HERE / "tonic", env)
    return Program([target / "debug" / "client"], [target / "debug" / "server"])


def go_build(*packages):
    """Builds packages of `go/` into `.cache/go`; gives the folder."""
    if not shutil.which("go"):
        raise Missing("go is not installed")
    folder = CACHE / "go"
    folder.mkdir(parents=True, exist_ok=True)
    env = {"GOFLAGS": "-mod=readonly -modcacherw", "CGO_ENABLED": "0"}
    if "GOPATH" not in os.environ:
        env["GOPATH"] = str(CACHE / "gopath")
    _run(["go", "build", "-o", f"{folder}/", *packages], 420, HERE / "go", env)
    return folder


def go():
    folder = go_build("./client", "./server")
    return Program([folder / "client"], [folder / "server"])


def setup(languages):
    """{language: Program} and {language: why not}."""
    ready, missing = {}, {}
    for language in languages:
        try:
            ready[language] = {"python": python, "node": node, "tonic": tonic, "go": go}[language]()
        except (Missing, OSError) as reason:
            missing[language] = str(reason)
    return ready, missing


def h2spec():
    """The pinned h2spec, built from `go/go.mod`."""
    return go_build("github.com/summerwind/h2spec/cmd/h2spec") / Path("h2spec")
