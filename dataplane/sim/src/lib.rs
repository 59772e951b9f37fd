//! The simulator: the real shard under a virtual clock, a fault-injecting transport, scripted peers on the
//! other end of every connection, and checkers that are always on.
//!
//! A run is a function of its seed: faults, peers, calls and times are drawn from it, and the trace hash of
//! two runs is equal. Models: TigerBeetle's vopr and s2n-quic's Monte Carlo tests.
//!
//! - [`Net`](net::Net) is the network and implements `shard::Transport`; time moves only between turns.
//! - A peer is woken with its end of a link and the ledger, where it writes what it did and saw.
//! - The world moves the clock, and checks after each turn; `check` compares the ledger at the end.
//!
//! Not here: sockets, threads, a real clock. Not simulated: layer 2 and TCP itself (that is `net`'s).
//!
//! `cargo run -p towpath-sim -- --seeds 1000` hunts; `--scenario S --seed N --trace` replays.
#![forbid(unsafe_code)]

mod abuse;
mod body;
mod calls;
mod chain;
mod check;
mod check_calls;
mod check_gate;
mod check_seals;
mod client;
mod gate;
mod h2_io;
mod hostile;
mod join;
mod ledger;
mod log;
mod meddler;
#[cfg(test)]
mod mini;
mod net;
mod node;
mod offload;
mod opaque;
mod peer;
mod pipe;
mod plan;
mod plan_call;
mod relay;
mod rng;
mod scenario;
mod sealed;
mod seals;
mod server;
mod trace;
mod transport;
mod wired;
mod world;

pub use scenario::{Failure, Outcome, Scenario, run};
