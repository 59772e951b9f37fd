"""Endpoints that are dead, die, come back, refuse or limit; routing; drain."""

import signal
import struct
import threading
import time

from harness import h2, towpath, wire

from . import free_port, many, node, require, same, scene, until


@scene
def one_of_two_endpoints_is_dead(backend, _):
    good = wire.Backend(keep=False)
    with node(backend, "LoadBalancing - Logging", f"127.0.0.1:{free_port()}", good.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            statuses = many(client, 300)
        same(statuses, [0] * 300, "statuses")
    good.stop()


@scene
def calls_are_spread_over_endpoints(backend, _):
    servers = [wire.Backend() for _ in range(3)]
    for policy in ("", "(policy: round_robin)", "(policy: least_request)", "(policy: random)"):
        for server in servers:
            server.calls.clear()
        with node(backend, f"LoadBalancing{policy} - Logging", *[server.endpoint for server in servers]) as towpath_node:
            with wire.Client(towpath_node.address) as client:
                same(many(client, 300), [0] * 300, f"statuses with {policy or 'the default'}")
        shares = [len(server.calls) for server in servers]
        require(min(shares) >= 20, f"{policy or 'default'}: shares {shares} of 300")
        if "round_robin" in policy:
            require(max(shares) - min(shares) <= 6, f"round robin: shares {shares}")
    for server in servers:
        server.stop()


@scene
def server_goes_down_and_comes_back(backend, _):
    server = wire.Backend(keep=False)
    port = server.address[1]
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(client.unary().status, 0, "before")
            server.stop()
            start = time.monotonic()
            for _ in range(5):
                answer = client.unary(seconds=5)
                same(answer.status, 14, "while it is down")
                require(answer.detail, "UNAVAILABLE without a message")
            require(time.monotonic() - start < 10, "UNAVAILABLE took long")
            server = wire.Backend(port=port, keep=False)
            until(lambda: client.unary(seconds=5).status == 0, 35, "recovery without a restart")
            same(many(client, 50), [0] * 50, "after")
    server.stop()


@scene
def no_backend_from_the_start(backend, _):
    with node(backend, "LoadBalancing - Logging", f"127.0.0.1:{free_port()}") as towpath_node:
        with wire.Client(towpath_node.address) as client:
            same(client.unary(seconds=5).status, 14, "status")
        require(towpath_node.alive(), "the node ended")


@scene
def calls_in_flight_when_the_server_dies(backend, _):
    arrived = threading.Semaphore(0)
    server = wire.Backend(answer=lambda *_: arrived.release())
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            streams = [client.start(None, wire.message(b"x")) for _ in range(20)]
            for _ in streams:
                require(arrived.acquire(timeout=5), "a call did not arrive")
            server.stop()
            same({client.finish(stream, 5).status for stream in streams}, {14}, "statuses")


@scene
def refused_streams_are_retried(backend, _):
    """REFUSED_STREAM means it was not processed: gRPC's transparent retry, seen by nobody."""
    refused = []

    def answer(conn, stream, call):
        if len(refused) < 1:
            refused.append(stream)
            conn.reset(stream, 7)
        else:
            wire.Backend.echo(conn, stream, call)

    server = wire.Backend(answer=answer)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            answer_met = client.unary(b"again")
            same(answer_met.status, 0, "status")
            same(answer_met.messages(), [(0, b"again")], "answer")
            same(len(server.calls), 2, "attempts")
    server.stop()


@scene
def goaway_loses_no_call(backend, _):
    """A server that ends each connection after 60 calls, and ignores what it had not yet begun."""

    def answer(conn, stream, call):
        if stream > getattr(conn, "last", 1 << 31):
            return
        if stream > 120 and not hasattr(conn, "last"):
            conn.last = stream
            conn.frame(h2.GOAWAY, 0, 0, struct.pack(">II", stream, 0))
        wire.Backend.echo(conn, stream, call)

    server = wire.Backend(answer=answer, keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            statuses = many(client, 600)
        same(statuses.count(0), 600, f"good ones among {set(statuses)}")
    require(server.accepted >= 5, f"there were only {server.accepted} connections")
    server.stop()


@scene
def stream_limit_queues(backend, _):
    """100 calls at once to a server of 10 streams: none fails, and no connection ever has more than 10."""
    lock, open_now, most = threading.Lock(), {}, [0]

    def answer(conn, stream, call):
        with lock:
            open_now[id(conn)] = open_now.get(id(conn), 0) + 1
            most[0] = max(most[0], open_now[id(conn)])

        def finish():
            with lock:
                open_now[id(conn)] -= 1
            wire.Backend.echo(conn, stream, call)

        wire.later(0.05, finish)

    server = wire.Backend(answer=answer, settings=((h2.MAX_STREAMS, 10), (h2.INITIAL_WINDOW, 1 << 20)))
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            streams = [client.start(None, wire.message(b"x")) for _ in range(100)]
            same({client.finish(stream, 20).status for stream in streams}, {0}, "statuses")
    require(most[0] <= 10, f"{most[0]} streams at once on one connection")
    server.stop()


@scene
def services_by_authority(backend, _):
    """`hosts` chooses the service; a name nobody has, with two destinations, is answered UNIMPLEMENTED."""
    one, two = wire.Backend(), wire.Backend()
    adn = (
        "service client\n"
        f'service one {{ hosts: ["one.test"] endpoints: ["{one.endpoint}"] }}\n'
        f'service two {{ hosts: ["two.test"] endpoints: ["{two.endpoint}"] }}\n'
        "client -> one: LoadBalancing - Logging\n"
        "client -> two: LoadBalancing - Logging\n"
    )
    with towpath.Node(adn, backend) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            for _ in range(5):
                same(client.unary(authority="one.test").status, 0, "one")
            for _ in range(3):
                same(client.unary(authority="two.test").status, 0, "two")
            same(client.unary(authority="three.test").status, 12, "an unknown authority")
    same((len(one.calls), len(two.calls)), (5, 3), "calls by service")
    one.stop()
    two.stop()


@scene
def deadlines(backend, _):
    """The remaining time is forwarded; a silent server is given up at the deadline, and told."""
    server = wire.Backend(answer=lambda *_: None)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            start = time.monotonic()
            answer = client.unary(extra=[("grpc-timeout", "300m")], seconds=5)
            took = time.monotonic() - start
            same(answer.status, 4, "status")
            require(0.25 < took < 1.0, f"answered after {took:.3f} s of 0.3")
            sent = server.calls[0].field("grpc-timeout")
            unit = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1, "M": 60, "H": 3600}[sent[-1]]
            require(0.1 < int(sent[:-1]) * unit <= 0.3, f"the server was given {sent} of 300m")
            until(lambda: server.calls[0].reset, 2, "the server is told of the end")
            before = len(server.calls)
            same(client.unary(extra=[("grpc-timeout", "0m")], seconds=5).status, 4, "a deadline already past")
            same(len(server.calls), before, "calls that left after their deadline")
    server.stop()


@scene
def cancel_reaches_the_server_at_once(backend, _):
    arrived = threading.Semaphore(0)
    server = wire.Backend(answer=lambda *_: arrived.release())
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            stream = client.start(None, wire.message(b"x"))
            require(arrived.acquire(timeout=5), "the call did not arrive")
            start = time.monotonic()
            client.conn.reset(stream)
            until(lambda: server.calls[0].reset, 2, "the server sees the cancel")
            require(server.calls[0].reset_at - start < 0.25, "the cancel took long")
            same(server.calls[0].reset, "CANCEL", "reset")
    server.stop()


@scene
def drain_loses_no_call(backend, _):
    """SIGTERM while calls run on 10 connections: each call at or below the last GOAWAY's id ends OK."""

    def answer(conn, stream, call):
        wire.later(0.3, lambda: wire.Backend.echo(conn, stream, call))

    server = wire.Backend(answer=answer, keep=False)
    lost, done, lock = [], [0], threading.Lock()

    def caller(address, stop_at):
        client = wire.Client(address)
        streams = []
        try:
            try:
                while time.monotonic() < stop_at and client.conn.goaway is None:
                    streams.append(client.start(None, wire.message(b"x")))
                    try:
                        client.step(0.02)
                    except TimeoutError:
                        pass
            except h2.Closed:
                pass  # while it sent: answers may still be there to read
            for stream in streams:
                while not client.done(stream):
                    client.step(5)
        except (h2.Closed, TimeoutError) as error:
            reason = f"{type(error).__name__} {error}"
        else:
            reason = ""
        last = struct.unpack(">I", client.conn.goaway.payload[:4])[0] if client.conn.goaway else 1 << 31
        for stream in streams:
            answer_met = client.answers[stream]
            with lock:
                if client.done(stream) and answer_met.status == 0:
                    done[0] += 1
                elif stream <= last:
                    lost.append(f"stream {stream} (last {last}) {answer_met} {reason}")
        client.close()

    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        stop_at = time.monotonic() + 6
        threads = [threading.Thread(target=caller, args=(towpath_node.address, stop_at)) for _ in range(10)]
        for thread in threads:
            thread.start()
        time.sleep(0.8)
        towpath_node.drain()
        for thread in threads:
            thread.join(15)
        require(not lost, f"{len(lost)} lost of {done[0] + len(lost)}: {lost[:2]}")
        require(done[0] > 50, f"only {done[0]} calls were made")
        same(towpath_node.process.wait(5), 0, "exit status after the drain")
    server.stop()


@scene
def second_sigterm_stops(backend, _):
    server = wire.Backend(answer=lambda *_: None, keep=False)
    with node(backend, "LoadBalancing - Logging", server.endpoint) as towpath_node:
        with wire.Client(towpath_node.address) as client:
            client.start(None, wire.message(b"x"))
            time.sleep(0.2)
            towpath_node.process.signal(signal.SIGTERM)
            same(towpath_node.process.wait(0.7), None, "exit with a call in flight")
            towpath_node.process.signal(signal.SIGTERM)
            require(towpath_node.process.wait(5) is not None, "it still runs after the second SIGTERM")
    server.stop()
