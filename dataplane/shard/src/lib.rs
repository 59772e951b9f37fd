//! The run-to-completion core: turn, calls, chains, upstreams, timers, counters, limits.
//!
//! Generic over a [`Transport`] and an [`Offload`]; names no backend and no compiler.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod answer;
mod body;
mod burst;
mod call;
mod callers;
mod chain;
mod conn;
mod counters;
mod device;
mod downstream;
mod endpoint;
mod gate;
mod generation;
mod limits;
mod log;
mod messages;
mod metric;
mod offload;
mod outcome;
mod pace;
mod pool;
mod relay;
mod report;
mod sealed;
mod setup;
mod shard;
mod slab;
mod slots;
mod snapshot;
mod state;
mod stats;
mod sweep;
#[cfg(test)]
mod tests;
mod transport;
mod upstream;
mod view;
mod wheel;

pub use burst::Burst;
pub use device::{Checksums, Device, DeviceInfo, Spread, Steering};
pub use limits::Limits;
pub use log::{AccessRecord, ElementRecord, Log, Notice};
pub use metric::{MetricSnapshot, OBSERVED_BOUNDS, ObservedSnapshot};
pub use offload::{CallTag, Done, Job, JobError, JobKey, Offload, Ring, Seal, Work};
pub use setup::{AccessWhen, Listener, Protocol, Setup};
pub use shard::{Shard, Turn};
pub use slots::Slots;
pub use snapshot::{
    ChainSnapshot, ElementSnapshot, EndpointSnapshot, LATENCY_BOUNDS_NS, Labelled, MethodSnapshot, Snapshot,
};
pub use state::GENERATIONS_MAX;
pub use transport::{ConnId, Event, ListenerId, Peer, Transport, Via, Why};
pub use wire::Instant;
