//! The standard elements that limit, protect and route, by what happens to calls.
#![allow(clippy::panic, reason = "helpers of a test")]

use crate::common::{Mock, endpoint, errors, one, run};
use abi::{Entry, Flag, Note, Status, Verdict};
use towpath_lang::Compiled;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// A request; what it was refused with, if it was.
fn ask(compiled: &Compiled, mock: &mut Mock) -> Option<Status> {
    mock.words.fill(0);
    match run(compiled, Entry::Request, mock).0 {
        Verdict::Forward => None,
        Verdict::Reject(reject) => Some(reject.status),
        other => panic!("{other:?}"),
    }
}

fn answer(compiled: &Compiled, mock: &mut Mock, status: Status) {
    mock.status = u64::from(status.code());
    run(compiled, Entry::Response, mock);
}

#[test]
fn rate_limits_by_key_with_a_burst() {
    let (compiled, mock) = one("RateLimit(10/s, burst: 2, by: call.metadata[\"t\"])", "");
    for tenant in ["a", "b"] {
        let mut mock = mock.clone().header("t", tenant);
        let asks: Vec<_> = (0..3).map(|_| ask(&compiled, &mut mock)).collect();
        assert_eq!(asks, [None, None, Some(Status::RESOURCE_EXHAUSTED)]);
        assert_eq!(mock.reject_text, "rate limited to 10/s");
        mock.now_ns += 100 * MS;
        assert_eq!((ask(&compiled, &mut mock), ask(&compiled, &mut mock).is_some()), (None, true));
    }
    let (compiled, mut mock) = one("RateLimit(1/5s)", "");
    assert_eq!(
        (ask(&compiled, &mut mock), ask(&compiled, &mut mock).is_some()),
        (None, true),
        "at least one"
    );
    let Verdict::Reject(reject) = run(&compiled, Entry::Request, &mut mock).0 else { panic!() };
    assert_eq!(reject.flag, Flag::RateLimited);
}

#[test]
fn a_flood_of_keys_costs_the_others_nothing() {
    let (compiled, mock) = one("RateLimit(1/s, by: call.metadata[\"t\"])", "");
    let mut known = mock.clone().header("t", "known");
    assert_eq!(ask(&compiled, &mut known), None);
    let (mut through, mut shared) = (0, 0);
    for n in 0..20_000 {
        let mut mock = mock.clone().header("t", &format!("junk-{n}"));
        through += u32::from(ask(&compiled, &mut mock).is_none());
        shared += mock.notes.iter().filter(|note| **note == Note::MapShared).count();
    }
    assert_eq!((through, shared), (10_000, 10_001), "further keys share one limit");
    known.now_ns += S;
    assert_eq!(ask(&compiled, &mut known), None, "who was there keeps a limit of its own");
}

#[test]
fn concurrency_counts_whatever_the_outcome() {
    let (compiled, mut mock) = one("ConcurrencyLimit(3)", "");
    for _ in 0..10 {
        let asks: Vec<_> = (0..5).map(|_| ask(&compiled, &mut mock).is_none()).collect();
        assert_eq!(asks, [true, true, true, false, false]);
        for status in [Status::OK, Status::UNAVAILABLE, Status::from_code(1)] {
            mock.passed = 1;
            answer(&compiled, &mut mock, status);
        }
    }
}

#[test]
fn adaptive_concurrency_follows_latency() {
    let (compiled, mut mock) = one("AdaptiveConcurrency(max: 100)", "");
    // Rounds of calls until one is refused; all take as long as `took`.
    let mut round = |took: u64| {
        let mut running = 0;
        while running < 200 && ask(&compiled, &mut mock).is_none() {
            running += 1;
        }
        mock.now_ns += S / 2;
        for _ in 0..running {
            mock.passed = 1;
            mock.latency_ns = took;
            answer(&compiled, &mut mock, Status::OK);
        }
        running
    };
    let first = round(10 * MS);
    for _ in 0..60 {
        round(10 * MS);
    }
    let steady = round(10 * MS);
    for _ in 0..6 {
        round(200 * MS);
    }
    let slow = round(200 * MS);
    assert_eq!((first, steady), (20, 100), "it grows to the most while nothing slows down");
    assert!((4..50).contains(&slow), "and shrinks when it does: {slow}");
}

#[test]
fn a_circuit_breaker_opens_and_probes() {
    let (compiled, mut mock) = one("CircuitBreaker(calls: 4, rest: 1/2s)", "");
    for _ in 0..4 {
        assert_eq!(ask(&compiled, &mut mock), None);
        answer(&compiled, &mut mock, Status::UNAVAILABLE);
    }
    assert_eq!(ask(&compiled, &mut mock), Some(Status::UNAVAILABLE));
    assert_eq!(mock.reject_text, "circuit open");
    mock.now_ns += 2 * S;
    assert_eq!(ask(&compiled, &mut mock), None, "a probe");
    answer(&compiled, &mut mock, Status::OK);
    assert_eq!(ask(&compiled, &mut mock), None, "closed");
}

#[test]
fn admission_control_sheds_in_proportion() {
    let (compiled, mut mock) = one("AdmissionControl(over: 10s)", "");
    let (mut refused, mut free) = (0, 0);
    for id in 0..4000 {
        mock.id = id;
        mock.now_ns = S + id * MS;
        match ask(&compiled, &mut mock) {
            // The endpoints serve one call in five milliseconds.
            None if id >= free => {
                free = id + 5;
                answer(&compiled, &mut mock, Status::OK);
            }
            None => answer(&compiled, &mut mock, Status::UNAVAILABLE),
            Some(_) => refused += 1,
        }
    }
    assert!((2700..3300).contains(&refused), "of what is let through half is served: {refused}");
}

#[test]
fn sticky_routing_pins_what_answered() {
    let (compiled, mock) = one("StickyRouting(by: call.metadata[\"s\"])", "");
    let pass = |session: Option<&str>, chosen: u16, status: Status| {
        let mut mock = mock.clone();
        if let Some(session) = session {
            mock = mock.header("s", session);
        }
        ask(&compiled, &mut mock);
        run(&compiled, Entry::Pick, &mut mock);
        let pinned = mock.endpoint;
        mock.endpoint = pinned.or(Some(chosen));
        answer(&compiled, &mut mock, status);
        pinned
    };
    assert_eq!(pass(Some("x"), 1, Status::UNAVAILABLE), None);
    assert_eq!(pass(Some("x"), 1, Status::OK), None, "what failed pins nothing");
    assert_eq!(pass(Some("x"), 0, Status::OK), Some(1));
    assert_eq!(pass(None, 0, Status::OK), None);
    assert_eq!(pass(Some("y"), 0, Status::OK), None);
}

#[test]
fn prequal_leaves_the_hot_out() {
    let (compiled, mut mock) = one("Prequal(choices: 20)", "");
    mock.endpoints = (0..20).map(endpoint).collect();
    for (at, stat) in mock.endpoints.iter_mut().enumerate() {
        stat.latency_ns = (20 - at as u64) * MS;
        stat.inflight = 1;
    }
    let pick = |mock: &mut Mock| {
        mock.endpoint = None;
        ask(&compiled, mock);
        run(&compiled, Entry::Pick, mock);
        mock.endpoint
    };
    assert_eq!(pick(&mut mock), Some(19), "the quickest");
    mock.reports = vec![(19, "rif".into(), 50.0), (18, "rif".into(), 40.0), (17, "other".into(), 99.0)];
    assert_eq!(pick(&mut mock), Some(17), "the quickest of those that are not hot");
}

#[test]
fn split_and_router_choose_services() {
    let (compiled, mut mock) = one("Split({ catalog: 75, canary: 25 })", "");
    let mut canary = 0;
    for id in 0..4000 {
        mock.id = id;
        mock.destination = 1;
        ask(&compiled, &mut mock);
        canary += u32::from(mock.destination == 2);
    }
    assert!((850..1150).contains(&canary), "{canary}");

    let (compiled, mock) =
        one("ServiceRouter(call.metadata[\"r\"], { \"new\": canary, \"old\": catalog })", "");
    for (header, to) in [(Some("new"), 2), (Some("old"), 1), (Some("none"), 1), (None, 1)] {
        let mut mock = mock.clone();
        if let Some(header) = header {
            mock = mock.header("r", header);
        }
        ask(&compiled, &mut mock);
        assert_eq!(mock.destination, to, "{header:?}");
    }
    let told = errors(&crate::common::app("ServiceRouter(call.method, { \"x\": canari })", ""));
    assert!(told.contains("did you mean `canary`?"), "{told}");
}

#[test]
fn counts_have_labels_and_patterns_are_read_when_compiling() {
    let rest = "element X { request { count(\"hits\", 2, method: call.method, again: call.attempt > 1) } }";
    let (compiled, mut mock) = one("X", rest);
    ask(&compiled, &mut mock);
    assert_eq!(mock.labels, [r#"[("method", Text("List")), ("again", Bool(false))]"#]);
    for (pattern, expected) in
        [("a(b", "unclosed group"), ("(?=x)", "look-around"), (r"(a\{1000\})\{1000\}", "")]
    {
        let told = errors(&crate::common::app(
            "X",
            &format!(
                "element X {{ request {{ if matches(call.method, \"{pattern}\") {{ count(\"x\") }} }} }}"
            ),
        ));
        assert!(told.contains("this pattern cannot be read") && told.contains(expected), "{told}");
    }
    let told = errors(&crate::common::app(
        "X",
        "element X { request { if matches(call.method, call.service) { count(\"x\") } } }",
    ));
    assert!(told.contains("the pattern must be constant"), "{told}");
}
