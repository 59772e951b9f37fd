//! What a seed can be run as, and what a run comes to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::trace::Trace;
use crate::wired::wired;
use crate::world::{World, real};
use crate::{abuse, calls, relay, sealed};

/// A family of runs; the seed draws everything within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Opaque byte streams.
    Relay,
    /// gRPC calls.
    Calls,
    /// gRPC calls through chains that see messages.
    Messages,
    /// gRPC calls through two nodes that seal messages between them.
    Sealed,
    /// Honest calls beside hostile peers.
    Abuse,
    /// Byte streams and gRPC calls over TCP/IP on a wire that loses, doubles, reorders and corrupts frames.
    Net,
}

impl Scenario {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Relay, Self::Calls, Self::Messages, Self::Sealed, Self::Abuse, Self::Net];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Calls => "calls",
            Self::Messages => "messages",
            Self::Sealed => "sealed",
            Self::Abuse => "abuse",
            Self::Net => "net",
        }
    }

    /// The scenario of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }
}

/// A run without a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Hash of everything that happened.
    pub hash: u64,
    /// Turns of the shard.
    pub turns: u64,
    /// Events it was given.
    pub events: u64,
    /// Byte streams or calls the peers ran.
    pub items: u64,
    /// Virtual time, ns.
    pub virtual_ns: u64,
}

impl Outcome {
    pub(crate) fn of(world: &World) -> Self {
        Self {
            hash: world.net.trace.hash(),
            turns: world.turns,
            events: world.events,
            items: (world.ledger.flows.len() + world.ledger.calls.len()) as u64,
            virtual_ns: world.net.now,
        }
    }
}

/// A run that found something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which family.
    pub scenario: Scenario,
    /// Which run of it.
    pub seed: u64,
    /// What was found.
    pub what: String,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (name, seed) = (self.scenario.name(), self.seed);
        writeln!(f, "scenario {name}, seed {seed}: {}", self.what)?;
        write!(f, "  replay: cargo run -p towpath-sim -- --scenario {name} --seed {seed} --trace")
    }
}

/// Runs one seed of one scenario; a panic of the shard is a finding like any other.
///
/// # Errors
/// What was found, with all that is needed to replay it.
pub fn run(scenario: Scenario, seed: u64, prints: bool) -> Result<Outcome, Failure> {
    let one = || match scenario {
        Scenario::Relay => relay::run(seed, Trace::new(prints), real),
        Scenario::Calls => calls::run(seed, Trace::new(prints), real),
        Scenario::Messages => calls::run_gated(seed, Trace::new(prints), real),
        Scenario::Sealed => sealed::run(seed, Trace::new(prints), real),
        Scenario::Abuse => abuse::run(seed, Trace::new(prints), real),
        Scenario::Net if seed.is_multiple_of(2) => relay::run(seed, Trace::new(prints), wired),
        Scenario::Net => calls::run(seed, Trace::new(prints), wired),
    };
    let result = catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).into()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    result.map_err(|what| Failure { scenario, seed, what })
}
