//! A copy of all a shard counts, made when somebody asks (between turns).

use alloc::{string::String, vec::Vec};

use abi::{ElementInfo, Status};

/// Upper bounds of latency buckets, nanoseconds: gRFC A66's from 10 µs up; the last bucket is open.
pub const LATENCY_BOUNDS_NS: [u64; 25] = [
    10_000,
    50_000,
    100_000,
    300_000,
    600_000,
    800_000,
    1_000_000,
    2_000_000,
    3_000_000,
    4_000_000,
    5_000_000,
    6_000_000,
    8_000_000,
    10_000_000,
    13_000_000,
    16_000_000,
    20_000_000,
    25_000_000,
    30_000_000,
    40_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
];

/// All a shard counts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Plain counters: metric name without the `towpath_` prefix, help text, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Counters by one label (faults by name, …): metric name, help text, label, then (value of label, count).
    pub labelled: Vec<(&'static str, &'static str, &'static str, Vec<(&'static str, u64)>)>,
    /// What is now: name, help text, value.
    pub gauges: Vec<(&'static str, &'static str, u64)>,
    /// By source, destination and method.
    pub methods: Vec<MethodSnapshot>,
    /// By chain.
    pub chains: Vec<ChainSnapshot>,
    /// By endpoint.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Metrics of elements (`count`, `observe`): name, count, sum.
    pub metrics: Vec<(String, u64, f64)>,
    /// How many programs this shard has adopted, the first included.
    pub generation: u64,
}

/// Calls of one method.
#[derive(Clone, Debug)]
pub struct MethodSnapshot {
    /// Calling service; empty when not known.
    pub source: String,
    /// Called service.
    pub destination: String,
    /// `pkg.Service/Method`; `other` when there are too many.
    pub method: String,
    /// Calls begun.
    pub started: u64,
    /// Calls ended, by status code.
    pub by_status: [u64; Status::COUNT],
    /// Ended calls by latency: [`LATENCY_BOUNDS_NS`], then the rest.
    pub latency: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// Sum of latencies, nanoseconds.
    pub latency_ns_sum: u64,
    /// Attempts sent upstream.
    pub attempts: u64,
    /// Body bytes from callers.
    pub request_bytes: u64,
    /// Body bytes to callers.
    pub response_bytes: u64,
}

/// One chain.
#[derive(Clone, Debug)]
pub struct ChainSnapshot {
    /// Calling service; `*` for any.
    pub source: String,
    /// Called service; `*` for any.
    pub destination: String,
    /// Line of the rule, from 1.
    pub line: u32,
    /// Calls that entered.
    pub entered: u64,
    /// What each element did, from left to right.
    pub elements: Vec<ElementSnapshot>,
}

/// One element of a chain.
#[derive(Clone, Debug)]
pub struct ElementSnapshot {
    /// Which.
    pub info: ElementInfo,
    /// Calls it let through.
    pub forwarded: u64,
    /// Calls it rejected.
    pub rejected: u64,
    /// Times it delayed one.
    pub delayed: u64,
    /// Sampled calls whose time in it was taken.
    pub sampled: u64,
    /// Their time in it, nanoseconds.
    pub sampled_ns: u64,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSnapshot {
    /// Its service.
    pub service: String,
    /// Its address.
    pub addr: String,
    /// Takes calls.
    pub healthy: bool,
    /// Connections up.
    pub connections: u32,
    /// Calls sent and not answered.
    pub inflight: u32,
    /// Calls sent.
    pub calls: u64,
    /// Of these, failed ones (connection lost, reset, UNAVAILABLE).
    pub failures: u64,
    /// Peak EWMA of its answer time, nanoseconds.
    pub latency_ns: u64,
    /// Bytes that compression kept off the wire, both directions.
    pub saved_bytes: u64,
}
