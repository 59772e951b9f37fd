//! The bounded hunt of every test run, and the promise that a seed repeats exactly.
//!
//! `TOWPATH_SIM_SEEDS=N` runs N times as many seeds; `cargo run -p towpath-sim -- --seeds N` looks further.

use sim::{Scenario, run};

fn hunt(scenario: Scenario, seeds: u64) {
    #[expect(clippy::disallowed_methods, reason = "a test's own setting")]
    let factor = std::env::var("TOWPATH_SIM_SEEDS").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    for seed in 0..seeds * factor {
        let failure = run(scenario, seed, false).err().map(|failure| failure.to_string());
        assert!(failure.is_none(), "{}", failure.unwrap_or_default());
    }
}

#[test]
fn relayed_streams_arrive_as_they_were_sent() {
    hunt(Scenario::Relay, 600);
}

#[test]
fn every_call_ends_once_and_as_it_must() {
    hunt(Scenario::Calls, 700);
}

#[test]
fn no_message_passes_its_chain_unjudged() {
    hunt(Scenario::Messages, 500);
}

#[test]
fn sealed_messages_arrive_over_two_nodes() {
    hunt(Scenario::Sealed, 400);
}

#[test]
fn hostile_peers_harm_nobody_else() {
    hunt(Scenario::Abuse, 100);
}

#[test]
fn streams_and_calls_survive_a_bad_wire() {
    hunt(Scenario::Net, 500);
}

/// Seeds that found what the hunts above do not reach.
#[test]
fn seeds_that_failed_once() {
    let seeds = [
        // Calls kept from an endpoint by a full send buffer, and never let go.
        (Scenario::Messages, 1107),
        // A drain closed connections whose first bytes were on their way.
        (Scenario::Messages, 4701),
        (Scenario::Messages, 6437),
        // Sent again to the endpoint that reads its encoding, and elements were told of another.
        (Scenario::Messages, 11_708),
        // The only message filled the window at once, and what followed it could not come.
        (Scenario::Messages, 24_736),
        // An endpoint that was lost without a word, seen by the keep-alive only.
        (Scenario::Net, 8554),
        // A last segment, sent again, reached beyond the window: the stream ended where the window did.
        (Scenario::Net, 7_002_612),
        // A caller's RST was lost, and nobody else told the node that it had gone.
        (Scenario::Net, 7_103_233),
    ];
    for (scenario, seed) in seeds {
        let failure = run(scenario, seed, false).err().map(|failure| failure.to_string());
        assert!(failure.is_none(), "{}", failure.unwrap_or_default());
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for scenario in Scenario::ALL {
        for seed in 0..6 {
            assert_eq!(
                run(*scenario, seed, false),
                run(*scenario, seed, false),
                "{} {seed}",
                scenario.name()
            );
        }
    }
}
