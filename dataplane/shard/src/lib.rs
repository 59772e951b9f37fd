//! The run-to-completion core: turn, calls, chains, upstreams, timers, counters, limits.
//!
//! Generic over a [`Transport`] and an [`Offload`]; names no backend and no compiler.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod burst;
mod offload;
mod transport;

pub use burst::Burst;
pub use offload::{Done, Job, JobError, JobKey, Offload, Work};
pub use transport::{ConnId, Event, ListenerId, Peer, Transport, Via, Why};
pub use wire::Instant;
