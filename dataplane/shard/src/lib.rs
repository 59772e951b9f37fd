//! The run-to-completion core: turn, calls, chains, upstreams, timers, counters, limits.
//!
//! Generic over a [`Transport`] and an [`Offload`]; names no backend and no compiler.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod burst;
mod limits;
mod log;
mod offload;
mod setup;
mod shard;
mod snapshot;
mod transport;

pub use burst::Burst;
pub use limits::Limits;
pub use log::{AccessRecord, ElementRecord, Log, Notice};
pub use offload::{Done, Job, JobError, JobKey, Offload, Work};
pub use setup::{AccessWhen, Listener, Protocol, Setup};
pub use shard::{Shard, Turn};
pub use snapshot::{
    ChainSnapshot, ElementSnapshot, EndpointSnapshot, LATENCY_BOUNDS_NS, MethodSnapshot, Snapshot,
};
pub use transport::{ConnId, Event, ListenerId, Peer, Transport, Via, Why};
pub use wire::Instant;
