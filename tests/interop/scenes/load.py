"""Many of something: connections, callers, shards, stalled readers; real programs through the seed chain."""

import resource
import threading
import time

import run
from harness import h2, process, towpath, wire

from . import many, node, require, same, scene, slow

SEED_CHAIN = "LoadBalancing - Logging - Compression - FaultInjection(0.0)"
SEED_CASES = (
    "empty_unary large_unary client_streaming server_streaming ping_pong empty_stream custom_metadata "
    "status_code_and_message special_status_message unimplemented_method cancel_after_first_response "
    "timeout_on_sleeping_server rpc_soak big_metadata concurrent_300 deadline_seen cancel_seen "
    "mebibyte_both_ways stream_of_1000"
).split()


class Gather:
    """A tally that only collects."""

    def __init__(self):
        self.wrong, self.passed = [], 0

    def note(self, what, wrong):
        self.passed += wrong is None
        if wrong is not None:
            self.wrong.append(f"{what}: {wrong}")

    def skip(self, *_):
        pass


def through(backend, programs, chain, cases, config="", args=()):
    """Every language's client against its own server and the next one's, through `chain`."""
    tally, languages = Gather(), [name for name in programs]
    for at, server in enumerate(languages):
        stop, endpoint = run.start_server(server, programs[server])
        try:
            with towpath.Node(towpath.policy(chain, [endpoint]), backend, config, args) as towpath_node:
                for client in dict.fromkeys((server, languages[(at + 1) % len(languages)])):
                    run.run_client(tally, f"{client}->{server}", client, programs[client], towpath_node.endpoint, cases)
        finally:
            stop()
    require(not tally.wrong, f"{len(tally.wrong)} of {tally.passed + len(tally.wrong)}: {tally.wrong[:4]}")
    require(tally.passed or not languages, "nothing ran")


@scene
def real_programs_through_the_seed_chain(backend, programs):
    through(backend, programs, SEED_CHAIN, SEED_CASES)


@slow
def real_programs_on_the_old_kernel_baseline(backend, programs):
    """Nothing of io_uring that Linux 6.1 did not have."""
    if backend == "uring":
        through(backend, programs, "LoadBalancing - Logging", SEED_CASES, config="[shards]\nforce_baseline = true\n")


@slow
def real_programs_on_one_shard_that_blocks(backend, programs):
    config = '[shards]\npoll = "block"\n'
    through(backend, programs, "LoadBalancing - Logging", SEED_CASES, config=config, args=("--cores", "0"))


@scene
def many_callers_at_once(backend, _):
    """40 connections with a call each, again and again: no failure, and no call waits a second."""
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        callers = [wire.Caller(towpath_node.address, pause=0) for _ in range(40)]
        for caller in callers:
            caller.start()
        time.sleep(2)
        for caller in callers:
            caller.halt.set()
        for caller in callers:
            caller.stop()
        failed = [caller.first for caller in callers if caller.failed]
        require(not failed, f"{len(failed)} callers failed: {failed[0] if failed else ''}")
        calls, slowest = sum(caller.done for caller in callers), max(caller.slowest for caller in callers)
        require(calls > 250, f"only {calls} calls")
        require(slowest < 1.5, f"the slowest call took {slowest:.1f} s of {calls} calls")
    server.stop()


@scene
def calls_now_and_then(backend, _):
    """A call after each pause of 0 to 40 ms on fresh and on old connections: a lost wake-up would show."""
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        old = [wire.Client(towpath_node.address) for _ in range(8)]
        for turn in range(120):
            with wire.Client(towpath_node.address) as fresh:
                for client in (fresh, old[turn % 8]):
                    start = time.monotonic()
                    same(client.unary(seconds=3).status, 0, f"call {turn}")
                    require(time.monotonic() - start < 0.8, f"call {turn} took {time.monotonic() - start:.2f} s")
            time.sleep(turn % 5 / 100)
        for client in old:
            client.close()
    server.stop()


@scene
def three_thousand_calls_at_once(backend, _):
    """Small calls that all wait for their server: a window for each must not use up the byte pool."""

    def answer(conn, stream, call):
        if call.path.endswith("/Slow"):
            wire.later(1.5, lambda: wire.Backend.echo(conn, stream, call))
        else:
            wire.Backend.echo(conn, stream, call)

    servers = [wire.Backend(answer=answer, keep=False) for _ in range(2)]
    with node(backend, "LoadBalancing - Logging", *[server.endpoint for server in servers]) as towpath_node:
        clients = [wire.Client(towpath_node.address) for _ in range(8)]
        fields = wire.request_fields("/t.T/Slow")
        calls = [(client, client.start(fields, wire.message(b"x" * 32))) for client in clients for _ in range(380)]
        statuses = [client.finish(stream, 20).status for client, stream in calls]
        same({code: statuses.count(code) for code in set(statuses)}, {0: 3040}, "statuses")
        for client in clients:
            client.close()
    for server in servers:
        server.stop()


@scene
def storms_of_connections(backend, _):
    """200 connections come and go at once, ten times, beside two callers: nobody waits."""
    server = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        callers = [wire.Caller(towpath_node.address) for _ in range(4)]
        for caller in callers:
            caller.start()
        for turn in range(10):
            storm = [h2.connect(towpath_node.address, greet=index % 3 > 0) for index in range(200)]
            time.sleep(0.05)
            for conn in storm:
                conn.close()
            time.sleep(0.3 if turn % 2 else 0.0)
        time.sleep(1)
        for caller in callers:
            caller.stop()
            require(not caller.failed, f"a caller failed: {caller.first}")
            require(caller.slowest < 1.5, f"a call took {caller.slowest:.1f} s")
    server.stop()


@scene
def a_stalled_reader_costs_little(backend, _):
    """400 streams of 16 MiB that nobody reads: under 64 MiB more, and another caller does not notice."""
    body = wire.message(bytes(16 << 20))

    def answer(conn, stream, call):
        if call.path.endswith("/Huge"):
            conn.headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            conn.data(stream, body)
            conn.trailers(stream, [("grpc-status", "0")])
        else:
            wire.Backend.echo(conn, stream, call)

    server = wire.Backend(answer=answer, keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as good:
            same(set(many(good, 50)), {0}, "before")
            start = towpath_node.process.resident_bytes()
            with h2.connect(towpath_node.address, auto=False, settings=((h2.INITIAL_WINDOW, 1 << 30),)) as stalled:
                stalled.raw(h2.emit_frame(h2.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
                for index in range(400):
                    stalled.headers(2 * index + 1, wire.request_fields("/t.T/Huge"), end_stream=True)
                end = time.monotonic() + 4
                most, slowest = 0, 0.0
                while time.monotonic() < end:
                    began = time.monotonic()
                    same(good.unary(seconds=5).status, 0, "the other caller")
                    slowest = max(slowest, time.monotonic() - began)
                    most = max(most, towpath_node.process.resident_bytes() - start)
                    time.sleep(0.02)
            require(most < 64 << 20, f"{most >> 20} MiB more")
            require(slowest < 1.5, f"the other caller waited {slowest:.2f} s")
    server.stop()


@slow
def ten_thousand_idle_connections(backend, _):
    """They add less than 20 MiB, and calls go on beside them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 10_000
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        count = hard - 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 400), hard))
    server = wire.Backend(keep=False)
    idle = []
    try:
        with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
            with wire.Client(towpath_node.address) as client:
                same(set(many(client, 50)), {0}, "before")
                start = towpath_node.process.resident_bytes()
                for _ in range(count):
                    idle.append(h2.connect(towpath_node.address))
                time.sleep(1)
                same(set(many(client, 100)), {0}, "beside them")
                grown = towpath_node.process.resident_bytes() - start
                require(grown < (20 << 20) * count / 10_000, f"{count} connections: {grown / (1 << 20):.1f} MiB more")
    finally:
        for conn in idle:
            conn.close()
        server.stop()


@scene
def both_shards_take_connections(backend, _):
    server = wire.Backend(keep=False)
    if process.os.cpu_count() < 2:
        return
    with node(backend, "LoadBalancing - Logging", server.endpoint, args=("--cores", "0,1")) as towpath_node:
        clients = [wire.Client(towpath_node.address) for _ in range(20)]
        streams = []
        barrier = threading.Barrier(20)

        def one(client):
            barrier.wait(5)
            streams.append(set(many(client, 20)))

        threads = [threading.Thread(target=one, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        same(streams, [{0}] * 20, "statuses")
        metrics = towpath_node.metrics()
        shares = [v for k, v in metrics.items() if "conn" in k and "downstream" in k and 'shard="' in k]
        if shares:
            require(min(shares) > 0, f"connections by shard: {shares}")
        for client in clients:
            client.close()
    server.stop()
