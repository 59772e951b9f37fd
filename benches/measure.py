"""What a run costs: CPU time, memory and system calls of a process and its children, read from /proc and perf.

CPU time is that of every thread of the process tree in nanoseconds (/proc/PID/task/TID/schedstat, falling back to
the 10 ms ticks of /proc/PID/stat). The kernel's work on a send over loopback, the receiver's TCP included, is done in
the sender's context and so is charged to whoever writes; it is the same for every proxy.
"""

import os
import re
import shutil
import signal
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as f:
                found += [int(p) for p in f.read().split()]
        except OSError:
            pass
    return found


def _ticks_ns(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // TICKS


def cpu_ns(pid):
    """CPU time used so far by a process tree, ns."""
    total = 0
    for p in tree(pid):
        try:
            spent = 0
            for tid in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{tid}/schedstat") as f:
                    spent += int(f.read().split()[0])
            total += spent or _ticks_ns(p)
        except OSError:
            continue
    return total


def ticks(pid):
    """Ticks of the scheduler's clock that found a process outside the kernel, and inside: a sample, not a sum."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def status_kib(pid, key="VmRSS"):
    """A line of /proc/PID/status summed over the tree, KiB."""
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/status") as f:
                match = re.search(rf"^{key}:\s+(\d+) kB", f.read(), re.M)
            total += int(match.group(1)) if match else 0
        except OSError:
            continue
    return total


def core_busy_ns(core):
    """Time a core has spent on anything but idling, ns (10 ms ticks)."""
    with open("/proc/stat") as f:
        for line in f:
            if line.startswith(f"cpu{core} "):
                user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, line.split()[1:])
                return (user + nice + system + irq + softirq) * 1_000_000_000 // TICKS
    return 0


class Syscalls:
    """Counts the system calls a process tree enters while the block runs: `perf stat`, which does not stop it."""

    def __init__(self, pid):
        self.pid = pid
        self.count = None

    def __enter__(self):
        self.perf = None
        if shutil.which("perf"):
            pids = ",".join(str(p) for p in tree(self.pid))
            command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", pids]
            self.perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        if self.perf is None:
            return
        self.perf.send_signal(signal.SIGINT)
        _, text = self.perf.communicate(timeout=20)
        for line in text.splitlines():
            if "raw_syscalls:sys_enter" in line and line.split(",")[0].isdigit():
                self.count = int(line.split(",")[0])
