//! Compiled chains against the same chain by hand: what they do, and how many instructions they take.
#![allow(dead_code, reason = "shared with the benchmark")]

#[path = "../benches/cost/mod.rs"]
mod cost;
#[path = "../benches/cost/count.rs"]
mod count;

use cost::{Way, done};

/// What the compiled chain may cost over the one by hand; it is at 1.19.
const RATIO_MAX: f64 = 1.2;

#[test]
fn every_way_does_the_same() {
    let [hand, compiled, interpreted] = Way::HEADERS.map(Way::chain);
    let mut rejected = 0;
    for id in 0..2000 {
        let by_hand = done(&*hand, id);
        assert_eq!(by_hand, done(&*compiled, id));
        assert_eq!(by_hand, done(&*interpreted, id));
        rejected += usize::from(by_hand.contains("UNAVAILABLE") || by_hand.starts_with("Status(14)"));
    }
    assert!((5..60).contains(&rejected), "{rejected} of 2000 are 1 %");
}

/// Nothing by itself: where the counted process does its work.
#[test]
fn the_counted_process() {
    count::is_counted();
}

#[test]
fn compiled_code_takes_hardly_more_instructions_than_code_by_hand() {
    if cfg!(debug_assertions) {
        eprintln!("skipped: only optimised code is worth counting (cargo test --release)");
        return;
    }
    let (Some(hand), Some(compiled)) = (count::per_passage(Way::Hand), count::per_passage(Way::Compiled))
    else {
        eprintln!("skipped: valgrind is not there");
        return;
    };
    let ratio = compiled / hand;
    assert!(ratio <= RATIO_MAX, "{compiled:.0} instructions a passage, {hand:.0} by hand: {ratio:.2}");
}
