"""What a user of the node relies on beyond single calls: endpoints that come and go, drains, reloads,
faults, compression, limits. Each scenario starts its own node and backends and is bounded in time.
"""

import time

from harness import h2, lab, process, towpath, wire


class Wrong(Exception):
    """A scenario failed."""


SCENES = []


def scene(function):
    """Registers a scenario; it is given the backend's name and the language programs."""
    SCENES.append((function.__name__, function, False))
    return function


def slow(function):
    """The same, for --full only."""
    SCENES.append((function.__name__, function, True))
    return function


def require(condition, text):
    if not condition:
        raise Wrong(text)


def same(met, wanted, what):
    require(met == wanted, f"{what}: {met!r}, expected {wanted!r}")


def until(condition, seconds, what):
    """Waits for a true value and gives it."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Wrong(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def free_port():
    """A port nobody listens on (until somebody does)."""
    listener = wire.Listener(lambda sock: None)
    port = listener.address[1]
    listener.stop()
    return port


# About the command line, loopback and unix sockets, or with two nodes: the same whatever carries the calls.
KERNEL_ONLY = {
    "mistakes_are_explained", "admin_address", "unix_sockets_both_ways", "every_standard_element",
    "sealed_calls_arrive_and_nobody_between_reads_them", "sealed_failures_are_the_servers_own",
    "sealed_messages_are_compressed_first", "whatever_is_done_to_sealed_calls_is_noticed",
    "keys_are_turned_while_calls_run", "a_sealed_call_may_be_slow_and_not_old", "libraries_notice_no_seal",
    "libraries_notice_no_device",
}  # fmt: skip


def played(scene, backend, programs):
    """What was wrong in a scene, or None."""
    try:
        scene(backend, programs)
        return None
    except (Wrong, h2.Closed, process.NotReady, TimeoutError, OSError, ValueError, KeyError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


def run_all(tally, backend, programs, full, only=""):
    import scenes.chains  # noqa: F401 -- registers
    import scenes.command  # noqa: F401
    import scenes.elements  # noqa: F401
    import scenes.endpoints  # noqa: F401
    import scenes.load  # noqa: F401
    import scenes.messages  # noqa: F401
    import scenes.sealed  # noqa: F401

    for name, function, is_slow in SCENES:
        if only not in name:
            continue
        if lab.current and name in KERNEL_ONLY:
            tally.skip(f"{backend} {name}", "about the kernel's own sockets")
            continue
        if is_slow and not full:
            tally.skip(f"{backend} {name}", "slow: --full or CI=true runs it")
            continue
        start = time.monotonic()
        wrong = played(function, backend, programs)
        if lab.current and lab.current.mend_bridge():
            print(f"  {backend} {name}: testpmd, which is not what is tested, has died; again", flush=True)
            wrong = played(function, backend, programs)
        tally.note(f"{backend} {name}", wrong)
        print(f"  {backend} {name:<36} {'ok' if wrong is None else 'FAILED'} {time.monotonic() - start:6.1f} s", flush=True)


def node(backend, chain, *endpoints, extra="", config="", args=()):
    return towpath.Node(towpath.policy(chain, endpoints, extra), backend, config, args)


def many(client, count, **options):
    """Statuses of `count` calls over one connection, 50 at a time."""
    statuses, open_streams, started = [], [], 0
    while len(statuses) < count:
        while started < count and len(open_streams) < 50:
            fields = wire.request_fields(extra=options.get("extra", ()), path=options.get("path", wire.ECHO_PATH))
            open_streams.append(client.start(fields, wire.message(b"x" * 32)))
            started += 1
        statuses.append(client.finish(open_streams.pop(0), 15).status)
    return statuses
