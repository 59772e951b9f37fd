//! Tests of the simulator itself: a relay that is right passes, and each way to get it wrong is found.

use super::*;
use crate::mini::{BUG, Bug, mini};

fn first_finding(bug: Bug, seeds: u64) -> Option<(u64, String)> {
    BUG.set(bug);
    (0..seeds).find_map(|seed| run(seed, Trace::new(false), mini).err().map(|what| (seed, what)))
}

#[test]
fn a_relay_that_is_right_passes() {
    assert_eq!(first_finding(Bug::None, 200), None);
}

#[test]
fn a_seed_repeats_exactly_and_another_differs() {
    BUG.set(Bug::None);
    let hash = |seed| run(seed, Trace::new(false), mini).map(|o| o.hash);
    for seed in 0..20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(1), hash(2));
}

#[test]
fn every_way_to_get_it_wrong_is_found() {
    use Bug::*;
    for bug in [ForgetsRest, SwallowsEof, Leaks, IgnoresReset, Spins, MixesGenerations, NeverPauses, Repeats]
    {
        let found = first_finding(bug, 2000);
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
