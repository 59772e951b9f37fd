"""The node on NICs: SR-IOV functions and whole NICs by vfio-pci behind an IOMMU, hashed queues, links that go and come
back, jumbo frames, netem, AF_XDP in a NIC's driver. The NICs are those of the computer in software of `machine.py`;
`guest.py` is what runs inside, with this repository's scripts and unchanged gRPC programs.

    run.py [--case NAME] [--keep]   root; a node with DPDK (TOWPATH_BIN); exit status 1 when anything failed, 77 when
                                    it cannot run here. --keep prints all the machine says
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import machine
from machine import ROOT, Machine, Missing
from harness import process, tools, towpath

SECONDS_MAX = 400
# What its kernel says when the emulated processor stands still, which is nothing a node inside can do.
STALLED = "rcu: INFO: rcu_preempt detected stalls"


class Stalled(Exception):
    """The emulator did not go on."""


def start_script(folder, options):
    """What the machine runs first: a shell script, for it has nothing of its own."""
    keep = {"TOWPATH_BIN": towpath.binary().resolve(), "PATH": os.environ["PATH"], "HOME": "/root", "CI": os.environ.get("CI", "")}
    lines = [
        "#!/bin/sh",
        *(f"export {name}={shlex.quote(str(value))}" for name, value in keep.items()),
        "for dir in /run /tmp /dev/shm; do mkdir -p $dir; mount -t tmpfs tmpfs $dir; done",
        "mkdir -p /dev/pts /run/lock /lib/modules; mount -t devpts devpts /dev/pts",
        f"mount --bind {machine.TREE}/usr/lib/modules /lib/modules",
        "ip link set lo up; ulimit -n 65536",
        f"cd {ROOT}; {sys.executable} -u tests/hardware/guest.py {shlex.quote(options.case)} 2>&1",
        "echo o >/proc/sysrq-trigger; while :; do sleep 1; done",
    ]
    script = Path(folder) / "start"
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return script


def follow(computer, everything):
    """Prints what the machine says and does what it asks for; gives its last line's verdict. Raises Stalled."""
    seen, verdict, end = 0, None, time.monotonic() + SECONDS_MAX
    while time.monotonic() < end:
        done = not computer.process.alive()
        fresh, seen = computer.lines[seen:], len(computer.lines)
        for line in fresh:
            line = line.strip("\r")
            if STALLED in line:
                raise Stalled(line)
            word, _, rest = line.partition(" ")
            if word == "plug:":
                nic, _, way = rest.partition(" ")
                computer.plug(nic, way == "in")
            elif word == "hardware:":
                verdict = rest
            elif everything or not line.startswith("["):
                print(f"  {line}", flush=True)
        if done:
            return verdict
        time.sleep(0.05)
    print(f"the machine was still running after {SECONDS_MAX} s")
    return None


def run(start, options, is_last=False):
    """One machine from its start to its end; its verdict, or None after it has said what is wrong. Raises Stalled unless
    it is the last try."""
    computer = Machine(start)
    try:
        verdict = follow(computer, options.keep)
    except Stalled:
        if not is_last:
            raise
        verdict = None
    finally:
        computer.end()
    if verdict is None:
        print("FAIL the machine did not come to its end; its last lines:")
        print("\n".join(computer.lines[-40:]) + computer.process.tail(5))
    return verdict


def main():
    parser = argparse.ArgumentParser(prog="tests/hardware/run.py")
    parser.add_argument("--case", default="", help="cases whose name contains this")
    parser.add_argument("--keep", action="store_true", help="print all the machine says")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: a machine's disk is this machine's, which root reads")
        return 77
    error = towpath.build()
    if error:
        print(f"towpath does not build:\n{error}")
        return 1
    try:
        tools.go()
        machine.build()
    except (Missing, tools.Missing) as reason:
        print(f"skipped: {reason}")
        return 77
    with tempfile.TemporaryDirectory(prefix="towpath-start-", dir=machine.HOME) as folder:
        start = start_script(folder, options)
        try:
            verdict = run(start, options)
        except Stalled as said:
            print(f"the emulated processor stood still, and the machine starts again, once: {said}", flush=True)
            verdict = run(start, options, is_last=True)
    if verdict is None:
        return 1
    print(f"hardware: {verdict}")
    return 0 if verdict.endswith(" 0 failed") else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        process.end_all()
