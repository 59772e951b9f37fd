"""Every standard element at work on grpcio's calls: one node, one service for each line of the table.

`--backend uring|epoll`. Prints PASS, FAIL or SKIP with the scene's name on each line, as the clients do. Cases run
one after the other, each against its own service; what they hold on to is what a caller, a backend or an operator
sees, with room for a busy machine.
"""

import argparse
import math
import os
import re
import tempfile
import time

from rig import PROTO, ROOT, Backend, Caller, Wrong, between, reload, require, same, towpath, until

SCENES = []  # (name, element, chain, method, backends, function)


def shows(element, chain, backends=1, method=""):
    """Registers a scene of `element`: its service has the first so many backends and stands behind `chain`."""

    def register(function):
        SCENES.append((function.__name__, element, chain, method, backends, function))
        return function

    return register


UNARY, STREAM = ".grpc.testing.TestService/UnaryCall", ".grpc.testing.TestService/StreamingInputCall"


def shares(outcomes):
    """{backend: calls}, all of which must have succeeded."""
    same({outcome.status for outcome in outcomes}, {"OK"}, "statuses")
    names = [outcome.backend for outcome in outcomes]
    return {name: names.count(name) for name in set(names)}


def refused(outcomes, status, text):
    """How many ended with this status and text; the others must have succeeded."""
    bad = [outcome for outcome in outcomes if outcome.status != "OK"]
    for outcome in bad:
        require(outcome.status == status and text in outcome.text, f"{outcome}, expected {status} {text!r}")
    return len(bad)


@shows("LoadBalancing", "LoadBalancing(policy: round_robin)", backends=3)
def turns(at):
    met = shares(at.many(90))
    require(set(met) == {"a", "b", "c"} and max(met.values()) - min(met.values()) <= 8, f"shares {met} of 90")


def has_a_place_for_each_key(at):
    # Where they are differs from run to run, as endpoints' ports do: so many that all endpoints have some.
    places = {user: set(shares(at.many(2, x_user=user))) for user in (f"user{n}" for n in range(48))}
    same({len(found) for found in places.values()}, {1}, "endpoints of each key")
    same(len(set.union(*places.values())), 3, "endpoints of all keys")


@shows("LoadBalancing", 'LoadBalancing(policy: ring_hash, by: call.metadata["x-user"])', backends=3)
def ring(at):
    has_a_place_for_each_key(at)


@shows("LoadBalancing", 'LoadBalancing(policy: maglev, by: call.metadata["x-user"])', backends=3)
def maglev(at):
    has_a_place_for_each_key(at)


@shows("Logging", "Logging - LoadBalancing")
def logging(at):
    at.ok(x_wait_ms=30)
    same(at.call(x_fail="NOT_FOUND").status, "NOT_FOUND", "the failing call")
    lines = sorted(at.log(2), key=lambda line: line["status"] != "OK")  # shards write by turns
    same([line["status"] for line in lines], ["OK", "NOT_FOUND"], "statuses in the log")
    same(lines[0]["method"], "/grpc.testing.TestService/UnaryCall", "the method")
    same(lines[0]["endpoint"], at.backends[0].endpoint, "the endpoint")
    same(lines[0]["source"], "client", "the source")
    between(0.03, lines[0]["latency_us"] / 1e6, 1, "the latency")


@shows("Metrics", "Metrics - LoadBalancing")
def metrics(at):
    at.many(9, x_wait_ms=20)
    same(at.call(x_fail="NOT_FOUND").status, "NOT_FOUND", "the failing call")
    name, labels = "towpath_element_metric_count", {"metric": "calls", "method": "UnaryCall"}
    met = [at.metric(name, **labels, status=status) for status in ("OK", "NOT_FOUND")]
    same(met, [9.0, 1.0], "calls by status in /metrics")
    observed = "towpath_element_metric_observed"
    same(at.metric(f"{observed}_count", metric="latency_seconds"), 10.0, "observed calls")
    between(9 * 0.02, at.metric(f"{observed}_sum", metric="latency_seconds"), 5, "their seconds")


@shows("Compression", "Compression - LoadBalancing")
def compression(at):
    for outcome in at.many(20, answer=50_000, size=50_000):
        same(len(outcome.answer.payload.body), 50_000, "the answer's size")
    saved = at.metric("towpath_endpoint_saved_bytes_total", service=at.service)
    require(saved > 20 * 40_000, f"{saved} bytes were kept off the wire")


@shows("FaultInjection", "FaultInjection(20%, RESOURCE_EXHAUSTED) - LoadBalancing")
def faults(at):
    faulted = refused(at.many(300), "RESOURCE_EXHAUSTED", "fault injected")
    require(25 <= faulted <= 95, f"{faulted} of 300 faulted, 5 sigma around 60 are 25 to 95")
    same(len(Backend.seen), 300 - faulted, "calls at the backend")
    counted = at.metric("towpath_element_verdicts_total", destination=at.service, element="FaultInjection", verdict="reject")
    same(counted, float(faulted), "faults in /metrics")


@shows("FaultInjection", "FaultInjection(100%, delay: 100ms) - LoadBalancing")
def faulty_delay(at):
    between(0.1, at.ok().took, 1, "the delay")


@shows("FaultInjection", "FaultInjection(100%, headers: true) - LoadBalancing")
def faults_asked_for(at):
    at.ok()
    between(0.1, at.ok(x_envoy_fault_delay_request=100).took, 1, "the delay")
    asked = at.many(5, x_envoy_fault_abort_grpc_request=8)
    same(refused(asked, "RESOURCE_EXHAUSTED", "fault injected"), 5, "faults")
    at.ok(x_envoy_fault_abort_grpc_request=8, x_envoy_fault_abort_request_percentage=0)


@shows("Delay", "Delay(100ms) - LoadBalancing")
def delay(at):
    at.ok()  # the connection is up
    between(0.1, at.ok().took, 1, "the delay")
    same(at.call(seconds=0.05).status, "DEADLINE_EXCEEDED", "a deadline within the delay")


@shows("Null", "Null - LoadBalancing")
def null(at):
    same(len(at.ok(answer=1000).answer.payload.body), 1000, "the answer's size")


@shows("Timeout", 'Timeout(match call.method { "UnaryCall" => 150ms  _ => 60s }) - LoadBalancing')
def timeout(at):
    at.ok(x_wait_ms=10)
    late = at.call(x_wait_ms=1000)
    same(late.status, "DEADLINE_EXCEEDED", f"a late call ({late.text})")
    between(0.14, late.took, 0.8, "the late call")


@shows("RateLimit", 'RateLimit(40/s, burst: 30, by: call.metadata["x-tenant"]) - LoadBalancing')
def rate_limit(at):
    """A tenant that hammers, over both shards, is admitted `burst` and `rate`; the other notices nothing."""
    at.many(8, x_tenant="warm")

    def hammer(tenant):
        """How many calls less than were due got through: a full bucket loses what would come."""
        began, outcomes = time.monotonic(), []
        while time.monotonic() - began < 1.5:
            outcomes += at.many(20, x_tenant=tenant)
        took = time.monotonic() - began
        admitted = len(outcomes) - refused(outcomes, "RESOURCE_EXHAUSTED", "rate limited to 40/s")
        due = 30 + 40 * took
        require(admitted <= due + 1, f"{admitted} admitted of {len(outcomes)} in {took:.2f} s, due were {due:.1f}")
        return due - admitted

    # On a busy machine there are times when nobody asks; a limit that is too low is so every time.
    short = [hammer("greedy")]
    while short[-1] > 12 and len(short) < 5:
        short.append(hammer(f"greedy{len(short)}"))
    require(short[-1] <= 12, f"so many admitted too few, each time: {short}")
    same(refused(at.many(20, x_tenant="modest"), "", ""), 0, "refused of the other tenant")


@shows("BandwidthLimit", "BandwidthLimit(200KiB/s, burst: 100KiB) - LoadBalancing")
def bandwidth(at):
    kib = 1024
    between(0, at.ok(size=90 * kib).took, 0.4, "within the burst")
    began = time.monotonic()
    same(shares(at.many(4, at_once=2, size=40 * kib)), {"a": 4}, "shares")
    between(0.5, time.monotonic() - began, 2, "150 KiB beyond the burst at 200 KiB/s")


@shows("AdmissionControl", "AdmissionControl(over: 2s) - LoadBalancing")
def admission(at):
    same(shares(at.many(20, at_once=1)), {"a": 20}, "shares while all is well")
    outcomes = at.many(150, x_fail="RESOURCE_EXHAUSTED")
    refusals = refused([o for o in outcomes if o.text != "as asked"], "UNAVAILABLE", "admission control")
    reached = len(Backend.seen) - 20
    same(reached, 150 - refusals, "failing calls at the backend")
    require(20 <= reached <= 110, f"{reached} of 150 reached an endpoint that accepts none")
    time.sleep(2.5)
    same(shares(at.many(20, at_once=1)), {"a": 20}, "shares when `over` has passed")


@shows("ConcurrencyLimit", "ConcurrencyLimit(3) - LoadBalancing")
def concurrency(at):
    release = at.hold(3)
    same(refused(at.many(6), "UNAVAILABLE", "3 calls are under way"), 6, "refused while three are under way")
    same({outcome.status for outcome in release()}, {"OK"}, "the three")
    at.ok()


@shows("AdaptiveConcurrency", "AdaptiveConcurrency(max: 12, over: 200ms) - LoadBalancing")
def adaptive(at):
    """Twelve at most; fewer once the endpoint has become slow."""

    def admitted():
        # What fails says nothing of the latency: looking changes nothing.
        outcomes = [o for o in at.hold(30, x_fail="NOT_FOUND")() if o.text != "as asked"]
        return 30 - refused(outcomes, "UNAVAILABLE", "at the limit of")

    def until_admitted(low, high, calls, what, **options):
        end, met = time.monotonic() + 20, []
        while not met or not low <= met[-1] <= high:
            require(time.monotonic() < end, f"under way at once {what}: {met}, expected {low} to {high}")
            for _ in range(calls // 5):
                at.many(5, at_once=5, **options)
            met.append(admitted())
            between(4, met[-1], 12, "under way at once")

    until_admitted(12, 12, 200, "while it is quick")
    until_admitted(4, 9, 10, "since it is slow", x_wait_ms=500)


@shows("CircuitBreaker", "CircuitBreaker(errors: 50%, calls: 10, over: 60s, rest: 1/s) - LoadBalancing")
def breaker(at):
    def refuses(calls, what):
        """While it is open all are refused but the probes that are due; those fail, and it stays open."""
        outcomes = at.many(calls, x_fail="INTERNAL")
        probes = [outcome for outcome in outcomes if outcome.text == "as asked"]
        same(refused([o for o in outcomes if o not in probes], "UNAVAILABLE", "circuit open"), calls - len(probes), what)
        between(0, len(probes), time.monotonic() - opened, f"probes {what}, at one a second")
        return len(probes)

    opened = time.monotonic()
    same({at.call(x_fail="INTERNAL").text for _ in range(10)}, {"as asked"}, "the failures")
    probes = refuses(10, "while it rests")
    time.sleep(1.1)
    same(at.call(x_fail="INTERNAL").text, "as asked", "a probe")
    probes += 1 + refuses(5, "after a probe that failed")
    time.sleep(1.1)
    at.ok()
    same(shares(at.many(20)), {"a": 20}, "shares when it has closed")
    same(len(Backend.seen), 10 + probes + 1 + 20, "calls at the backend")


@shows("Firewall", 'Firewall(call.metadata["x-team"], allow: ["web", "mobile"], absent: false) - LoadBalancing')
def firewall_header(at):
    at.ok(x_team="mobile")
    same(refused([at.call(x_team="print")], "PERMISSION_DENIED", "firewall: denied"), 1, "refused")
    same(refused([at.call()], "PERMISSION_DENIED", "firewall: nothing to judge by"), 1, "refused without the header")
    same(len(Backend.seen), 1, "calls at the backend")


@shows("Firewall", 'Firewall(call.payload.response_status.message, deny: ["mallory"]) - LoadBalancing', method=UNARY)
def firewall_payload(at):
    at.ok(name="alice")
    at.ok()
    same(refused(at.many(3, name="mallory"), "PERMISSION_DENIED", "firewall: denied"), 3, "refused")
    same(len(Backend.seen), 2, "calls at the backend")


@shows("StickyRouting", 'StickyRouting(by: call.metadata["x-session"]) - LoadBalancing(policy: round_robin)', backends=3)
def sticky(at):
    same(len(shares(at.many(12))), 3, "endpoints of calls without a session")
    places = set()
    for session in ("s1", "s2", "s3", "s4", "s5", "s6"):
        place = at.ok(x_session=session).backend
        # The other shard knows it a turn later.
        until(lambda: shares(at.many(12, x_session=session)) == {place: 12}, 5, f"{session} goes to {place} only")
        places.add(place)
    require(len(places) > 1, "six sessions at one endpoint, which takes turns")


@shows(
    "Split",
    'Split({ alpha: 80, beta: 20 }, by: call.metadata["x-user"], '
    'force: if call.metadata["x-canary"] != None { beta } else { None }) - LoadBalancing',
)
def split(at):
    met = shares(at.many(300))
    require(25 <= met.get("b", 0) <= 95, f"shares {met}, 5 sigma around 60 of 300 are 25 to 95")
    same({len(shares(at.many(5, x_user=f"user{n}"))) for n in range(10)}, {1}, "ways of one user")
    same(shares(at.many(10, x_canary=1)), {"b": 10}, "forced")


@shows(
    "Mutation",
    'Mutation("x-tenant", to: call.authority) - Mutation("x-debug") - Mutation(response: "x-trace")'
    ' - Mutation(response: "x-served", answer: call.method) - LoadBalancing',
)
def mutation(at):
    outcome = at.ok(x_tenant="forged", x_debug=1, x_other=2)
    metadata = Backend.seen[0][1]
    same([metadata.get(key) for key in ("x-tenant", "x-debug", "x-other")], [f"{at.service}.test", None, "2"], "request")
    same([outcome.metadata.get(key) for key in ("x-trace", "x-served")], [None, "UnaryCall"], "answer")


@shows("StreamLimit", "StreamLimit(each: 1KiB, total: 20, pace: 20/s) - LoadBalancing", method=STREAM)
def stream_limit(at):
    paced = at.stream([100] * 20)
    same((paced.status, paced.answer and paced.answer.aggregated_payload_size), ("OK", 2000), f"20 messages {paced.text}")
    between(0.45, paced.took, 2, "ten at once and ten at 20/s")
    large = at.stream([100, 2000])
    same(refused([large], "RESOURCE_EXHAUSTED", "message 2,"), 1, "refused for a large message")
    same(refused([at.stream([1] * 21)], "RESOURCE_EXHAUSTED", "message 21,"), 1, "refused for one message too many")


@shows("ServiceRouter", 'ServiceRouter(call.metadata["x-region"], { "eu": beta, "us": alpha }) - LoadBalancing', backends=3)
def router(at):
    same(shares(at.many(6, x_region="eu")), {"b": 6}, "eu")
    same(shares(at.many(6, x_region="us")), {"a": 6}, "us")
    require("c" in shares(at.many(30)), "the rule's own destination was not used")


@shows("Prequal", "Prequal(hot: 0.6)", backends=3)
def prequal(at):
    """Endpoint `a` reports a load that the others have not: once told, it is left alone."""
    at.backends[0].load = 500
    shares(at.many(60, at_once=6))
    met = shares(at.many(60, at_once=6))
    require(met.get("a", 0) <= 6, f"shares {met}, `a` is hot")


OWN = """
element Gate {{
    state node admitted: map<string, bucket>[max {keys}, share] = bucket(1/10s, burst: 5)
    request {{ if !admitted["all"].take() {{ reject(RESOURCE_EXHAUSTED, "gate") }} }}
}}
"""
RELOADED = "RateLimit(1/10s, burst: 5) - LoadBalancing"


@shows("RateLimit", "RateLimit(1/10s, burst: 5) - LoadBalancing")
def reload_keeps(at):
    """A bucket outlives a reload that changes what stands around it; one of another shape begins anew."""
    gate = Caller("gate", at.node)
    try:
        def admitted(caller):
            outcomes = caller.many(12)
            return len(outcomes) - refused(outcomes, "RESOURCE_EXHAUSTED", "")

        same((admitted(at), admitted(gate)), (5, 5), "admitted at first")
        told = reload(at.node, policy(at.backends, {at.service: "Mutation(\"x-new\", to: call.method) - " + RELOADED}))
        kept = re.findall(r"^  kept +(.*)$", told, re.M)
        require(any(at.service in key and "RateLimit.admitted" in key for key in kept), f"not kept: {told}")
        met = admitted(at)
        require(met <= 1 and admitted(gate) <= 1, f"{met} admitted after a reload")
        told = reload(at.node, policy(at.backends, {at.service: RELOADED}, keys=20))
        require(re.search(r"^  reset +client -> gate: Gate.admitted: was .*max 10.*, is .*max 20", told, re.M), told)
        met = admitted(at)
        require(met <= 1, f"{met} admitted by the bucket that was kept")
        same(admitted(gate), 5, "admitted by the bucket that begins anew")
    finally:
        gate.close()


@shows("Encryption", 'Encryption("fabric") - LoadBalancing')
def unreadable(at):
    """A backend without a node in front of it cannot read what is sealed; `scenes/sealed.py` has the other end."""
    met = at.call(size=10)
    require(met.status not in ("OK", "UNAUTHENTICATED"), f"{met}")
    require(at.node.total("messages_sealed") >= 1, "no message was sealed")


@shows("Decryption", 'Decryption("fabric") - LoadBalancing')
def unsealed(at):
    same(refused(at.many(5), "UNAUTHENTICATED", "not sealed"), 5, "plain calls that were refused")
    same(len(Backend.seen), 0, "calls at the backend")
    same(at.node.total("calls_unsealed"), 5.0, "calls counted")


def policy(backends, chains=None, keys=10):
    """The table as a policy; `chains` stand in for some services' own."""
    chains = chains or {}
    out = [f'proto "{PROTO}"', "service client", OWN.format(keys=keys)]
    out += [service(name, [backend]) for name, backend in zip(("alpha", "beta"), backends)]
    out += [service("gate", backends[:1]), "client -> gate: Gate - LoadBalancing"]
    for name, element, chain, method, count, _ in SCENES:
        if exists(element):
            # The scenes that route elsewhere have a third endpoint that only their own destination has.
            out += [service(name, backends[:count]), f"client -> {name}{method}: {chains.get(name, chain)}"]
    return "\n".join(out) + "\n"


def service(name, backends):
    listed = ", ".join(f'"{backend.endpoint}"' for backend in backends)
    return f'service {name} {{ endpoints: [{listed}]  hosts: ["{name}.test"] }}'


def exists(element):
    return (ROOT / "elements" / "std" / f"{element}.adn").exists()


def run(name, element, function, node, backends):
    """The line that says how a scene went."""
    if not exists(element):
        return f"SKIP {name} {element} is not there yet"
    Backend.seen.clear()
    began, at = time.monotonic(), Caller(name, node)
    at.backends = backends
    try:
        function(at)
        require(node.alive(), f"the node ended: {node.process.tail()}")
        return f"PASS {name} {math.ceil((time.monotonic() - began) * 1000)}"
    except (Wrong, OSError, ValueError, KeyError, IndexError) as error:
        return f"FAIL {name} {element}: {' '.join(str(error).split())}"
    finally:
        for backend in backends:
            backend.load = 0
        at.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=towpath.BACKENDS, default="epoll")
    parser.add_argument("--only", default="", help="scenes whose name contains this")
    options = parser.parse_args()
    backends = [Backend(name) for name in "abc"]
    shown = {element for _, element, *_ in SCENES}
    for file in sorted((ROOT / "elements" / "std").glob("*.adn")):
        if file.stem not in shown:
            print(f"FAIL {file.stem} no scene shows it")
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write(f"1 {os.urandom(16).hex()}\n")
        keys.flush()
        config = f'[shards]\ncores = [0, 1]\n[keys]\nfabric = "{keys.name}"\n'
        show(policy(backends), options, config, backends)


def show(text, options, config, backends):
    with towpath.Node(text, options.backend, config) as node:
        for name, element, _, _, _, function in SCENES:
            if options.only in name:
                print(run(name, element, function, node, backends), flush=True)


if __name__ == "__main__":
    main()
