"""Child processes that are always bounded: a ready line within a time, logs kept, the group ended."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache"
LIVE = []
# Whoever ends a suite early ends what it started too: each program's main calls `end_all` on its way out.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class NotReady(Exception):
    """The process ended, or said nothing in time; the message carries its last lines."""


class Process:
    """Standard output and error are read by threads into `out` and `err`."""

    def __init__(self, command, env=None, cwd=None, name=None):
        self.name = name or Path(command[0]).name
        self.command = [str(part) for part in command]
        self.child = subprocess.Popen(
            self.command, cwd=cwd or ROOT, env=dict(os.environ, **(env or {})), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.out, self.err, self.news = [], [], threading.Condition()
        self.readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.child.stdout, self.out), (self.child.stderr, self.err))
        ]
        for reader in self.readers:
            reader.start()
        LIVE.append(self)

    def _read(self, stream, lines):
        for line in stream:
            with self.news:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.news.notify_all()

    def ready(self, pattern, seconds=15.0):
        """Waits for a line (either stream) that matches; gives the match."""
        end = time.monotonic() + seconds
        with self.news:
            while True:
                for line in self.err + self.out:
                    found = re.search(pattern, line)
                    if found:
                        return found
                left = end - time.monotonic()
                if left <= 0 or (self.child.poll() is not None and not any(r.is_alive() for r in self.readers)):
                    raise NotReady(f"{self.name}: no ready line\n{self.tail()}")
                self.news.wait(min(left, 0.1))

    def tail(self, count=15):
        return "\n".join((self.err + self.out)[-count:])

    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        if self.alive():
            self.child.send_signal(number)

    def wait(self, seconds):
        """The exit status, or None when it still runs after `seconds`."""
        try:
            status = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for reader in self.readers:
            reader.join(2)
        return status

    def kill(self):
        _end_group(self.child)
        if self in LIVE:
            LIVE.remove(self)

    def stop(self, seconds=5.0):
        """SIGTERM, then SIGKILL to the whole group."""
        self.signal(signal.SIGTERM)
        status = self.wait(seconds)
        self.kill()
        return status

    def cpu_seconds(self):
        """User and system time so far."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def end_all():
    for process in list(LIVE):
        process.kill()


def bounded(command, seconds, cwd=None, env=None, quiet=True):
    """Runs to the end; (status or None when ended by us, output)."""
    child = subprocess.Popen(
        [str(part) for part in command], cwd=cwd or ROOT, env=dict(os.environ, **(env or {})),
        start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None,
    )  # fmt: skip
    try:
        out, _ = child.communicate(timeout=seconds)
        return child.returncode, (out or b"").decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        _end_group(child)
        out, _ = child.communicate()
        return None, (out or b"").decode("utf-8", "replace") + f"\nended after {seconds} s"
    finally:
        _end_group(child)


def _end_group(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
