//! A chain allocates nothing once its call's memory is warm.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "suite/shop.rs"]
mod shop;

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
        ("LoadBalancing(maglev, by: call.metadata[\"x-user\"])", ""),
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

/// Fields, items and entries of a message, written again and again.
const WRITES: &str = r#"
    element E {
        request {
            call.payload.user.name = call.method
            call.payload.labels["seen"] = call.payload.labels["from"] ?? "nobody"
            call.payload.labels[call.method] = "x"
            call.payload.parts[7].notes[0] = "y"
            call.payload.sizes[1] = 5
            call.payload.tags = ["a", call.method]
            call.payload.items[0].sku = call.payload.tags[1] ?? ""
            call.payload.parts[8] = Item { sku: "made", notes: ["n"] }
        }
    }"#;

#[test]
fn writing_messages_allocates_nothing() {
    use prost_reflect::{MapKey, Value};
    let compiled = shop::compile("catalog.shop.Catalog/Get: E", WRITES).unwrap();
    let chain = compiled.program.chains[0].clone();
    let item = |sku: &str| {
        let notes = Value::List(vec![shop::text("one"), shop::text("two")]);
        Value::Message(shop::made("shop.Item", &[("sku", shop::text(sku)), ("notes", notes)]))
    };
    let message = shop::encode(
        "shop.GetRequest",
        &[
            ("labels", Value::Map([(MapKey::String("from".into()), shop::text("edge"))].into())),
            ("parts", Value::Map([(MapKey::I32(7), item("seven"))].into())),
            ("sizes", Value::List(vec![Value::I32(1), Value::I32(2)])),
            ("items", Value::List(vec![item("first")])),
        ],
    );
    let mut mock = common::Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.payload = Some(Vec::with_capacity(4096));
    mock.words = vec![0; chain.plan().call_words];
    let mut passages = |n: u64| {
        for id in 0..n {
            mock.id = id;
            mock.words.fill(0);
            let payload = mock.payload.as_mut().unwrap();
            payload.clear();
            payload.extend_from_slice(&message);
            assert_eq!(chain.run(Entry::Request, 0, &mut mock), abi::Verdict::Forward);
        }
    };
    passages(50);
    let counted = allocation_counter::measure(|| passages(200));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
