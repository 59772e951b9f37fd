//! A copy of all a shard counts, made when somebody asks (between turns).

use alloc::{string::String, vec::Vec};

use abi::{ElementInfo, Status};

use crate::conn::Kind;
use crate::metric::MetricSnapshot;
use crate::state::Core;

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

/// Counters that differ in one label: metric name, help text, label, then its values and their counts.
pub type Labelled = (&'static str, &'static str, &'static str, Vec<(&'static str, u64)>);

/// All a shard counts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Plain counters: metric name without the `towpath_` prefix, help text, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Counters by one label (faults by name, …): metric name, help text, label, then (value of label, count).
    pub labelled: Vec<Labelled>,
    /// What is now: name, help text, value.
    pub gauges: Vec<(&'static str, &'static str, u64)>,
    /// By source, destination and method.
    pub methods: Vec<MethodSnapshot>,
    /// By chain.
    pub chains: Vec<ChainSnapshot>,
    /// By endpoint.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Metrics of elements (`count`, `observe`).
    pub metrics: Vec<MetricSnapshot>,
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

/// A program with more chains than this tells only of those that a call has entered: a snapshot is made
/// between two turns.
const IDLE_CHAINS_MAX: usize = 256;

impl Core {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let faults = |counts: &[u64]| {
            wire::h2::Fault::ALL.iter().zip(counts).map(|(fault, n)| (fault.name(), *n)).collect()
        };
        let count = |is: fn(&Kind) -> bool| {
            (0..self.conns.slots())
                .filter_map(|i| self.conns.key_at(i))
                .filter(|k| self.conns.get(*k).is_some_and(|c| is(&c.kind)))
                .count() as u64
        };
        let waiting: usize = self.endpoints.iter().map(crate::endpoint::Endpoint::queued).sum();
        Snapshot {
            counters: self.counters.list(),
            labelled: alloc::vec![
                (
                    "downstream_faults",
                    "What callers did wrong, by fault.",
                    "fault",
                    faults(&self.faults_down)
                ),
                ("upstream_faults", "What endpoints did wrong, by fault.", "fault", faults(&self.faults_up)),
            ],
            gauges: alloc::vec![
                ("calls_in_flight", "Calls that have not ended.", self.calls.len() as u64),
                ("calls_waiting", "Calls that wait for an endpoint's stream.", waiting as u64),
                (
                    "connections_downstream",
                    "Callers' connections.",
                    count(|k| matches!(k, Kind::Down(_) | Kind::Sniffing(..)))
                ),
                ("connections_upstream", "Connections to endpoints.", count(|k| matches!(k, Kind::Up(_)))),
                (
                    "connections_relayed",
                    "Ends of relayed connections.",
                    count(|k| matches!(k, Kind::Relay(_)))
                ),
                ("callers", "Callers told apart.", self.callers.len() as u64),
                ("pool_bytes_used", "Windows granted and bytes held.", self.pool.used),
                ("pool_bytes_max", "The byte pool's size.", self.pool.max),
                (
                    "spare_buffer_bytes",
                    "Memory of buffers kept for reuse.",
                    self.buffers.spare_bytes() as u64
                ),
                ("programs_alive", "Programs that calls are in.", self.generations_alive() as u64),
            ],
            methods: self.methods.list(),
            chains: self.chain_snapshots(),
            endpoints: self.endpoint_snapshots(),
            metrics: self.metrics.snapshot(),
            generation: self.adopted,
        }
    }

    fn chain_snapshots(&self) -> Vec<ChainSnapshot> {
        let Some(generation) = self.generations[usize::from(self.current)].as_ref() else {
            return Vec::new();
        };
        let program = &generation.program;
        let name = |s: Option<abi::ServiceIdx>| {
            s.map_or_else(|| String::from("*"), |s| String::from(generation.service_name(Some(s))))
        };
        // The first line that names each chain.
        let mut lines = alloc::vec![u32::MAX; program.chains.len()];
        for (line, route) in (0_u32..).zip(program.routes.iter()) {
            if let Some(slot) = lines.get_mut(route.chain as usize).filter(|slot| **slot == u32::MAX) {
                *slot = line;
            }
        }
        let is_long = program.chains.len() > IDLE_CHAINS_MAX;
        let mut list = Vec::new();
        for (at, (chain, stats)) in program.chains.iter().zip(&generation.chains).enumerate() {
            let Some(route) = lines.get(at).and_then(|line| program.routes.get(*line as usize)) else {
                continue;
            };
            if is_long && stats.entered == 0 {
                continue;
            }
            let mut left = stats.entered;
            let elements = chain.plan().elements.iter().zip(&stats.elements).map(|(info, e)| {
                left = left.saturating_sub(e.rejected);
                ElementSnapshot {
                    info: info.clone(),
                    forwarded: left,
                    rejected: e.rejected,
                    delayed: e.delayed,
                    sampled: e.sampled,
                    sampled_ns: e.sampled_ns,
                }
            });
            list.push(ChainSnapshot {
                source: name(route.source),
                destination: name(route.destination),
                line: route.line,
                entered: stats.entered,
                elements: elements.collect(),
            });
        }
        list
    }

    fn endpoint_snapshots(&self) -> Vec<EndpointSnapshot> {
        let Some(generation) = self.generations[usize::from(self.current)].as_ref() else {
            return Vec::new();
        };
        let mut list = Vec::new();
        for (service, places) in generation.program.services.iter().zip(&generation.endpoints) {
            for place in places {
                let endpoint = &self.endpoints[*place as usize];
                list.push(EndpointSnapshot {
                    service: service.name.clone(),
                    addr: alloc::format!("{}", endpoint.addr),
                    healthy: endpoint.is_healthy(),
                    connections: u32::try_from(endpoint.conns.len()).unwrap_or(u32::MAX)
                        - endpoint.connecting,
                    inflight: endpoint.inflight,
                    calls: endpoint.calls,
                    failures: endpoint.failures,
                    latency_ns: endpoint.latency_ns(self.now),
                    saved_bytes: endpoint.saved_bytes,
                });
            }
        }
        list
    }
}
