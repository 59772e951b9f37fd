//! A chain allocates nothing once its call's memory is warm.

mod common;

use abi::Entry;
use common::one;

/// Elements that copy headers, make texts and lists, keep call-parameters, wait and go on.
const BUSY: &str = r#"
    element Tenant(by: call => string?, block: list<string> = []) {
        state call began: instant = now()
        request {
            let tenant = by else { reject(UNAUTHENTICATED, "who?") }
            if lower(tenant) in block { reject(PERMISSION_DENIED, "{tenant} is blocked") }
            let masked = mask(tenant, keep: 2)
            let near = filter(call.destination.endpoints, e => e.healthy && e.zone != masked)
            for e in sample(near, 2) { observe("inflight", e.inflight) }
            delay(5ms)
            count("seen", len(base64(masked)) + len(near))
        }
        response { if by == "x" || call.peer.ip == None { observe("seconds", (now() - began) / 1s) } }
    }"#;

#[test]
fn a_warm_chain_allocates_nothing() {
    for (rule, rest) in [
        ("LoadBalancing - Logging - Compression - FaultInjection(0.1)", ""),
        (
            "LoadBalancing(ring_hash, by: call.metadata[\"x-user\"]) - Logging - FaultInjection(50%, delay: 1ms)",
            "",
        ),
        (
            "RateLimit(100/s, by: call.metadata[\"x-user\"]) - CircuitBreaker - AdaptiveConcurrency - StickyRouting(by: call.metadata[\"x-user\"]) - Prequal",
            "",
        ),
        ("Tenant(by: call.metadata[\"x-user\"], block: [\"evil\"]) - LoadBalancing(least_request)", BUSY),
    ] {
        let (compiled, mock) = one(rule, rest);
        let mut mock = mock.header("x-user", "anna-the-first");
        let chain = compiled.program.chains[0].clone();
        mock.counts.reserve(1000);
        mock.reject_text.reserve(100);
        mock.observed.reserve(2000);
        let mut passages = |n: u64| {
            for id in 0..n {
                mock.id = id;
                mock.endpoint = None;
                mock.words.fill(0);
                let mut segment = 0;
                while let abi::Verdict::Suspend(abi::Suspend::Timer { segment: to, .. }) =
                    chain.run(Entry::Request, segment, &mut mock)
                {
                    segment = to;
                }
                chain.run(Entry::Pick, 0, &mut mock);
                chain.run(Entry::Response, 0, &mut mock);
            }
        };
        passages(50);
        let counted = allocation_counter::measure(|| passages(200));
        assert_eq!(counted.count_total, 0, "{rule}: {counted:?}");
    }
}
