"""The steps of scripts/test.sh, in order, each bounded in time, and a table of them at the end.

A step that needs something this machine lacks is skipped with one line that names it. With CI=true
or --full the slow suites run too, and a missing rustfmt or clippy fails instead of being skipped.
Standard library only: this runs before anything is installed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
if CI:
    # What is built once and thrown away keeps no notes for a second time.
    os.environ.setdefault("CARGO_INCREMENTAL", "0")
# Debian package by the program it brings; only what is absent is installed, and only as root.
APT = {
    "cc": "build-essential",
    "pkg-config": "pkg-config",
    "dpdk-testpmd": "dpdk",
    "node": "nodejs",
    "npm": "npm",
    "nghttpd": "nghttp2-server",
    "h2load": "nghttp2-client",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "debootstrap": "debootstrap",
    "depmod": "kmod",
    "tcpdump": "tcpdump",
    "shellcheck": "shellcheck",
}
# What the feature `dpdk` builds with; no program tells whether it is there.
DPDK = ["libdpdk-dev", "libclang-dev"]
DPDK_CRATES = ["dpdk-sys", "towpath-io", "pktgen", "towpath"]
# The raw ports of the interop run, and the languages it speaks over them.
RAW = "xdp-skb,xdp-drv,dpdk-packet,dpdk-xdp,dpdk-memif,dpdk-virtio"
PEERS = "python,go,wire"


class Skip(Exception):
    """The step cannot run here; the message says what it would need."""


def run(command, seconds, env=None):
    """Runs one command in its own process group; ends the whole group after `seconds`."""
    print("  $ " + " ".join(command), flush=True)
    full = dict(os.environ, **(env or {}))
    child = subprocess.Popen(command, cwd=ROOT, env=full, start_new_session=True)
    try:
        return child.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"  ended after {seconds} s: {command[0]}", flush=True)
        return False
    finally:
        end(child)


def end(child):
    """Asks the child to end what it started in groups of their own, then ends its group."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def cargo_component(binary, component):
    """Makes `cargo fmt` or `cargo clippy` available, or skips (on a desk) or fails (in CI)."""
    if subprocess.run(["cargo", binary, "--version"], cwd=ROOT, capture_output=True).returncode == 0:
        return True
    if shutil.which("rustup") and run(["rustup", "component", "add", component], 180):
        return True
    if CI:
        print(f"  {component} is missing and could not be added")
        return False
    raise Skip(f"rustup component add {component}")


def prepare(_):
    absent = sorted({package for program, package in APT.items() if not shutil.which(program)})
    venv = subprocess.run([sys.executable, "-c", "import venv, ensurepip"], capture_output=True)
    if venv.returncode != 0:
        absent.append("python3-venv")
    if not has_dpdk():
        absent += DPDK
    if not absent:
        return True
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Skip("not root; for the whole suite: sudo apt-get install " + " ".join(absent))
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], 180, env)
    for package in absent:
        if not run(["apt-get", "install", "-y", "-q", "--no-install-recommends", package], 300, env):
            print(f"  {package} could not be installed; what needs it will be skipped")
    return True


def has_dpdk():
    """True if DPDK's headers and the library that reads them are there."""
    if not shutil.which("pkg-config") or not any(Path("/usr/lib").glob("llvm-*/lib/libclang*.so*")):
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk >= 22.11"]).returncode == 0


def tidy(_):
    return run([sys.executable, "scripts/tidy.py"], 60)


def fmt(_):
    return cargo_component("fmt", "rustfmt") and run(["cargo", "fmt", "--all", "--check"], 120)


def workspace():
    """The whole workspace, with everything this machine can build: cargo compiles it once for all steps."""
    features = ["--features", ",".join(f"{crate}/dpdk" for crate in DPDK_CRATES)] if has_dpdk() else []
    return ["--workspace", "--locked", *features]


def built(program):
    """Where the step `build` leaves a program."""
    return str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / program)


def clippy(_):
    lint = ["cargo", "clippy", *workspace(), "--all-targets", "--", "-D", "warnings"]
    return cargo_component("clippy", "clippy") and run(lint, 900)


def build(_):
    # With the tests: without them some dependencies have fewer features, and all that stands on them is built twice.
    return run(["cargo", "build", "--bins", "--tests", *workspace()], 1200)


def test(_):
    return run(["cargo", "test", "--quiet", *workspace()], 1200)


def dpdk(_):
    """What the other steps, which have the feature where they can, leave out: the build without it and programs
    through that, then unchanged programs through every raw port and through the lab of examples/."""
    if not has_dpdk():
        if CI:
            print("  DPDK is missing and could not be added")
            return False
        raise Skip("apt-get install dpdk pkg-config " + " ".join(DPDK))
    without = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]
    plain = [sys.executable, "tests/interop/run.py", "--backend", "uring,xdp-drv", "--only", "matrix", "--clients", "go", "--servers", "go"]
    ports = [sys.executable, "tests/interop/run.py", "--backend", RAW, "--clients", PEERS, "--servers", PEERS]
    return (
        cargo_component("clippy", "clippy")
        and run(without, 600)
        and run(["cargo", "build", "--locked", "--bin", "towpath"], 600)
        and run(plain, 600, {"TOWPATH_BIN": built("towpath")})
        and build(_)
        and run(ports, 600, {"TOWPATH_BIN": built("towpath")})
        and run([sys.executable, "tests/interop/lab.py"], 300, {"TOWPATH_BIN": built("towpath")})
        # What scripts/pgo.sh learns from: every chain and backend of it carries calls.
        and run([sys.executable, "benches/train.py", "--for", "0.1", str(Path(built("towpath")).parent), "uring", "epoll", "memif"], 120)
    )


def hardware(options):
    """NICs this machine does not have: the node in a machine that has them, in software."""
    if not has_dpdk():
        raise Skip("apt-get install dpdk pkg-config " + " ".join(DPDK))
    if os.geteuid() != 0:
        raise Skip("not root")
    return build(options) and run([sys.executable, "tests/hardware/run.py"], 600, {"TOWPATH_BIN": built("towpath")})


def langfuzz(_):
    seed = str(int(time.time()) % 1_000_000 * 1000)
    return build(_) and run([built("towpath-langfuzz"), "--minutes", "1", "--from", seed], 300)


def scripts(_):
    return run([sys.executable, "tests/ops/scripts.py"], 120)


def harness(name, seconds):
    """A step that runs one program of tests/interop; exit status 77 means skipped."""

    def step(options):
        script = ROOT / "tests" / "interop" / f"{name}.py"
        if not script.exists():
            raise Skip(f"tests/interop/{name}.py is not there")
        command = [sys.executable, str(script)] + (["--full"] if options.full else [])
        return build(options) and run(command, seconds, {"TOWPATH_BIN": built("towpath")})

    return step


# name, what runs it, whether only --full and CI run it
STEPS = [
    ("prepare", prepare, False),
    ("tidy", tidy, False),
    ("fmt", fmt, False),
    ("scripts", scripts, False),
    ("clippy", clippy, False),
    ("build", build, False),
    ("test", test, False),
    ("dpdk", dpdk, False),
    ("hardware", hardware, True),
    ("langfuzz", langfuzz, True),
    ("abuse", harness("abuse", 400), False),
    ("h2spec", harness("conformance", 300), False),
    ("interop", harness("run", 900), False),
]


def main():
    parser = argparse.ArgumentParser(prog="scripts/test.sh", description="every test of the project")
    parser.add_argument("--full", action="store_true", default=CI, help="the slow suites too (CI=true)")
    parser.add_argument("--only", default="", metavar="STEP[,STEP]", help="these steps only")
    parser.add_argument("--list", action="store_true", help="the steps' names, then stop")
    options = parser.parse_args()
    names = [name for name, _, _ in STEPS]
    if options.list:
        print("\n".join(names))
        return 0
    only = [name for name in options.only.split(",") if name]
    for name in only:
        if name not in names:
            parser.error(f"no step named {name} (there are: {', '.join(names)})")

    rows, failed = [], 0
    for name, step, slow in STEPS:
        if (only and name not in only) or (slow and not options.full):
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        try:
            passed, note = step(options), ""
            result = "ok" if passed else "FAILED"
            failed += not passed
        except Skip as reason:
            result, note = "skipped", str(reason)
            print(f"  skipped: {reason}")
        rows.append((name, result, time.monotonic() - start, note))

    print("\nstep        result    seconds")
    for name, result, seconds, note in rows:
        print(f"{name:<11} {result:<9} {seconds:7.1f}  {note}".rstrip())
    total = sum(seconds for _, _, seconds, _ in rows)
    print(f"{'all':<11} {'FAILED' if failed else 'ok':<9} {total:7.1f}")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
