//! Maglev, by where the calls of many keys go.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use crate::common::{Mock, compiled, run};
use abi::Entry;
use towpath_lang::Compiled;

const KEYS: u64 = 10_000;

/// `catalog` with endpoints of these ports and weights, behind links whose key is the header `x-user`.
fn app(links: &str, rest: &str, endpoints: &[(u16, u32)]) -> (Compiled, Mock) {
    let listed: Vec<String> = endpoints
        .iter()
        .map(|(port, weight)| {
            let zone = if port % 2 == 0 { "even" } else { "odd" };
            format!("{{ address: \"10.0.0.1:{port}\", weight: {weight}, zone: \"{zone}\" }}")
        })
        .collect();
    let compiled = compiled(&format!(
        "service frontend\nservice catalog {{ endpoints: [{}] }}\nservice other {{ endpoints: [\"10.0.0.2:1\", \"10.0.0.2:2\", \"10.0.0.2:3\"] }}\n\
         frontend -> catalog: {links}\n{rest}\n",
        listed.join(", ")
    ));
    let mut mock = Mock::new(endpoints.len());
    for (stat, (_, weight)) in mock.endpoints.iter_mut().zip(endpoints) {
        stat.weight = *weight;
    }
    mock.destination = 1;
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    (compiled, mock)
}

/// The place of each key's endpoint.
fn places((compiled, mut mock): (Compiled, Mock)) -> Vec<u16> {
    let chain = compiled.program.chains[0].clone();
    (0..KEYS)
        .map(|key| {
            mock.request.clear();
            mock = std::mem::take(&mut mock).header("x-user", &format!("user-{key}"));
            (mock.id, mock.endpoint) = (key, None);
            mock.words.fill(0);
            run(&compiled, Entry::Request, &mut mock);
            chain.run(Entry::Pick, 0, &mut mock);
            mock.endpoint.unwrap()
        })
        .collect()
}

const LB: &str = "LoadBalancing(policy: maglev, by: call.metadata[\"x-user\"])";

fn equal(ports: impl Iterator<Item = u16>) -> Vec<(u16, u32)> {
    ports.map(|port| (port, 1)).collect()
}

fn count(places: &[u16], place: u16) -> usize {
    places.iter().filter(|p| **p == place).count()
}

#[test]
fn shares_are_even_or_by_weight() {
    let even = places(app(LB, "", &equal(1..=10)));
    for place in 0..10 {
        assert!((880..1120).contains(&count(&even, place)), "{place}: {}", count(&even, place));
    }
    let weighted = places(app(LB, "", &[(1, 1), (2, 3), (3, 6), (4, 0)]));
    for (place, share) in [(0, 1000), (1, 3000), (2, 6000), (3, 0)] {
        assert!(count(&weighted, place).abs_diff(share) < 200, "{place}: {}", count(&weighted, place));
    }
}

#[test]
fn when_an_endpoint_goes_hardly_another_key_moves() {
    let before = places(app(LB, "", &equal(1..=20)));
    // The one on port 7, at place 6.
    let after = places(app(LB, "", &equal((1..=20).filter(|port| *port != 7))));
    let was = |place: u16| if place >= 6 { place + 1 } else { place };
    let moved = before.iter().zip(&after).filter(|(b, a)| **b != 6 && **b != was(**a)).count();
    assert!(moved < 400, "{moved} of {KEYS} keys of other endpoints moved");
    for place in 0..19 {
        assert!((390..690).contains(&count(&after, place)), "{place}: {}", count(&after, place));
    }
}

#[test]
fn an_unhealthy_endpoint_loses_its_keys_and_no_other_does() {
    let before = places(app(LB, "", &equal(1..=10)));
    let (compiled, mut mock) = app(LB, "", &equal(1..=10));
    mock.endpoints[6].healthy = false;
    let after = places((compiled, mock));
    assert_eq!(count(&after, 6), 0);
    assert!(before.iter().zip(&after).all(|(b, a)| *b == 6 || a == b), "a key of a healthy endpoint moved");
    for place in (0..10).filter(|p| *p != 6) {
        assert!((970..1260).contains(&count(&after, place)), "{place}: {}", count(&after, place));
    }
}

#[test]
fn with_hardly_any_or_none_healthy_calls_still_go_somewhere() {
    let (compiled, mut mock) = app(LB, "", &equal(1..=200));
    mock.endpoints.iter_mut().for_each(|e| e.healthy = false);
    mock.endpoints[150].healthy = true;
    assert_eq!(count(&places((compiled, mock)), 150), usize::try_from(KEYS).unwrap());
    let (compiled, mut mock) = app(LB, "", &equal(1..=10));
    mock.endpoints.iter_mut().for_each(|e| e.healthy = false);
    assert_eq!(places((compiled, mock)), places(app(LB, "", &equal(1..=10))));
}

#[test]
fn a_list_of_some_endpoints_gives_one_of_them() {
    let some = "element E { request { let key = call.metadata[\"x-user\"] else return
        call.endpoint = maglev(filter(call.destination.endpoints, e => e.zone == \"odd\"), key) } }";
    let seen = places(app("E", some, &equal(1..=10)));
    assert!(seen.iter().all(|place| place % 2 == 0) && count(&seen, 4) > 1700, "ports 1, 3, 5, 7, 9");
}

#[test]
fn each_destination_has_a_table_of_its_own() {
    let (compiled, mut mock) = app(&format!("Split({{ other: 1 }}) - {LB}"), "", &equal(1..=10));
    mock.endpoints.truncate(3);
    let seen = places((compiled, mock));
    assert!((0..3).all(|place| (3000..3700).contains(&count(&seen, place))), "{:?}", count(&seen, 0));
}

#[test]
fn a_call_without_the_key_goes_by_p2c() {
    let (compiled, mut mock) = app(LB, "", &equal(1..=4));
    for id in 0..200 {
        (mock.id, mock.endpoint) = (id, None);
        mock.endpoints[2].inflight = 1000;
        run(&compiled, Entry::Request, &mut mock);
        compiled.program.chains[0].run(Entry::Pick, 0, &mut mock);
        assert!(mock.endpoint.is_some_and(|e| e != 2), "the busy one was taken");
    }
}
