//! What the node knows of itself at one moment: every shard's copy, and their sum.
//!
//! Shards share nothing; a copy is made between two turns when somebody asks. Not here: how figures are
//! shown (`metrics`, `status`).

use std::collections::BTreeMap;

use abi::Status;
use shard::{ChainSnapshot, EndpointSnapshot, LATENCY_BOUNDS_NS, MethodSnapshot, MetricSnapshot, Snapshot};

/// One shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardFigures {
    /// Its core.
    pub(crate) core: usize,
    /// What it counts.
    pub(crate) shard: Snapshot,
    /// What its sockets count.
    pub(crate) sockets: io::Snapshot,
    /// What its raw ports count.
    pub(crate) ports: Vec<io::PortSnapshot>,
}

impl ShardFigures {
    /// Connections, on sockets and raw ports.
    pub(crate) fn conns_open(&self) -> u64 {
        self.sockets.conns_open + self.ports.iter().map(|port| port.net.conns_open).sum::<u64>()
    }
}

/// The node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// By shard.
    pub(crate) shards: Vec<ShardFigures>,
    /// Log lines written, dropped, failed; notices muted.
    pub(crate) log: [u64; 4],
    /// What each shard's job queue counts.
    pub(crate) queues: Vec<offload::QueueSnapshot>,
    /// What the node has sealed and opened, if it has a named key.
    pub(crate) seals: Option<offload::SealSnapshot>,
    /// How long the node has been up, nanoseconds.
    pub(crate) uptime_ns: u64,
    /// Resident memory, bytes.
    pub(crate) resident_bytes: u64,
}

impl Figures {
    /// The sum over shards.
    pub(crate) fn sum(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for one in &self.shards {
            add(&mut sum, &one.shard);
        }
        sum
    }
}

fn add(sum: &mut Snapshot, one: &Snapshot) {
    for &(name, help, value) in &one.counters {
        add_named(&mut sum.counters, name, help, value);
    }
    for &(name, help, value) in &one.gauges {
        add_named(&mut sum.gauges, name, help, value);
    }
    for (name, help, label, values) in &one.labelled {
        let place = match sum.labelled.iter().position(|(n, ..)| n == name) {
            Some(place) => place,
            None => {
                sum.labelled.push((name, help, label, Vec::new()));
                sum.labelled.len() - 1
            }
        };
        let Some((.., into)) = sum.labelled.get_mut(place) else { continue };
        for &(value, count) in values {
            match into.iter_mut().find(|(v, _)| *v == value) {
                Some((_, so_far)) => *so_far += count,
                None => into.push((value, count)),
            }
        }
    }
    for method in &one.methods {
        let same = |m: &&mut MethodSnapshot| {
            m.method == method.method && m.source == method.source && m.destination == method.destination
        };
        match sum.methods.iter_mut().find(same) {
            Some(into) => add_method(into, method),
            None => sum.methods.push(method.clone()),
        }
    }
    for chain in &one.chains {
        let same = |c: &&mut ChainSnapshot| {
            c.line == chain.line && c.source == chain.source && c.destination == chain.destination
        };
        match sum.chains.iter_mut().find(same) {
            Some(into) => add_chain(into, chain),
            None => sum.chains.push(chain.clone()),
        }
    }
    for endpoint in &one.endpoints {
        let same = |e: &&mut EndpointSnapshot| e.service == endpoint.service && e.addr == endpoint.addr;
        match sum.endpoints.iter_mut().find(same) {
            Some(into) => add_endpoint(into, endpoint),
            None => sum.endpoints.push(endpoint.clone()),
        }
    }
    for metric in &one.metrics {
        match sum.metrics.iter_mut().find(|m| m.name == metric.name) {
            Some(into) => add_metric(into, metric),
            None => sum.metrics.push(metric.clone()),
        }
    }
    sum.generation = sum.generation.max(one.generation);
}

fn add_metric(into: &mut MetricSnapshot, one: &MetricSnapshot) {
    into.overflow += one.overflow;
    let mut places: BTreeMap<_, _> =
        into.counts.iter().enumerate().map(|(at, (labels, _))| (labels.clone(), at)).collect();
    for (labels, count) in &one.counts {
        match places.get(labels) {
            Some(at) => into.counts[*at].1 += count,
            None => {
                places.insert(labels.clone(), into.counts.len());
                into.counts.push((labels.clone(), *count));
            }
        }
    }
    match (&mut into.observed, &one.observed) {
        (Some(into), Some(one)) => {
            into.count += one.count;
            into.sum += one.sum;
            for (so_far, more) in into.buckets.iter_mut().zip(one.buckets) {
                *so_far += more;
            }
        }
        (None, Some(one)) => into.observed = Some(one.clone()),
        (_, None) => {}
    }
}

fn add_named(
    list: &mut Vec<(&'static str, &'static str, u64)>,
    name: &'static str,
    help: &'static str,
    by: u64,
) {
    match list.iter_mut().find(|(n, ..)| *n == name) {
        Some((.., value)) => *value += by,
        None => list.push((name, help, by)),
    }
}

fn add_method(into: &mut MethodSnapshot, one: &MethodSnapshot) {
    into.started += one.started;
    for (a, b) in into.by_status.iter_mut().zip(one.by_status) {
        *a += b;
    }
    for (a, b) in into.latency.iter_mut().zip(one.latency) {
        *a += b;
    }
    into.latency_ns_sum += one.latency_ns_sum;
    into.attempts += one.attempts;
    into.request_bytes += one.request_bytes;
    into.response_bytes += one.response_bytes;
}

fn add_chain(into: &mut ChainSnapshot, one: &ChainSnapshot) {
    into.entered += one.entered;
    for (a, b) in into.elements.iter_mut().zip(&one.elements) {
        a.forwarded += b.forwarded;
        a.rejected += b.rejected;
        a.delayed += b.delayed;
        a.sampled += b.sampled;
        a.sampled_ns += b.sampled_ns;
    }
}

fn add_endpoint(into: &mut EndpointSnapshot, one: &EndpointSnapshot) {
    // Each shard knows an endpoint by its own connections: one that reaches it is enough.
    into.healthy |= one.healthy;
    into.connections += one.connections;
    into.inflight += one.inflight;
    into.calls += one.calls;
    into.failures += one.failures;
    into.latency_ns = into.latency_ns.max(one.latency_ns);
    into.saved_bytes += one.saved_bytes;
}

/// Calls that ended, whatever their status.
pub(crate) fn ended(method: &MethodSnapshot) -> u64 {
    method.by_status.iter().sum()
}

/// Calls that Linkerd's classification takes for failures: the server's fault, not the caller's.
pub(crate) fn is_failure(status: Status) -> bool {
    const DATA_LOSS: Status = Status::from_code(15);
    matches!(
        status,
        Status::UNKNOWN
            | Status::DEADLINE_EXCEEDED
            | Status::PERMISSION_DENIED
            | Status::INTERNAL
            | Status::UNAVAILABLE
            | DATA_LOSS
    )
}

/// The latency below which this share (0..1) of calls ended, nanoseconds, interpolated within its bucket.
pub(crate) fn quantile_ns(latency: &[u64; LATENCY_BOUNDS_NS.len() + 1], share: f64) -> u64 {
    let total: u64 = latency.iter().sum();
    if total == 0 {
        return 0;
    }
    let wanted = share * total as f64;
    let mut below = 0.0;
    let mut lower = 0;
    for (at, count) in latency.iter().enumerate() {
        let count = *count as f64;
        let Some(upper) = LATENCY_BOUNDS_NS.get(at).copied() else { break };
        if below + count >= wanted && count > 0.0 {
            let part = (wanted - below) / count;
            return lower + crate::value::rounded(part.clamp(0.0, 1.0) * (upper - lower) as f64);
        }
        below += count;
        lower = upper;
    }
    lower
}

#[cfg(test)]
pub(crate) mod tests {
    use abi::ElementInfo;
    use shard::{ElementSnapshot, ObservedSnapshot};

    use super::*;

    /// A shard with a little of everything.
    pub(crate) fn sample() -> Snapshot {
        let mut by_status = [0; Status::COUNT];
        by_status[0] = 90;
        by_status[14] = 10;
        let mut latency = [0; LATENCY_BOUNDS_NS.len() + 1];
        latency[1] = 60;
        latency[2] = 40;
        Snapshot {
            counters: vec![
                ("calls_started", "Calls that arrived.", 103),
                ("calls_no_rule", "Calls that no rule covers.", 2),
            ],
            labelled: vec![(
                "downstream_faults",
                "What callers did wrong, by fault.",
                "fault",
                vec![("rapid_reset", 2)],
            )],
            gauges: vec![("calls_in_flight", "Calls in flight.", 3)],
            methods: vec![MethodSnapshot {
                source: "frontend".into(),
                destination: "catalog".into(),
                method: "shop.Catalog/List".into(),
                started: 103,
                by_status,
                latency,
                latency_ns_sum: 5_000_000,
                attempts: 91,
                request_bytes: 3200,
                response_bytes: 6400,
            }],
            chains: vec![ChainSnapshot {
                source: "frontend".into(),
                destination: "catalog".into(),
                line: 3,
                entered: 103,
                elements: vec![ElementSnapshot {
                    info: ElementInfo {
                        name: "FaultInjection".into(),
                        text: "FaultInjection(0.1)".into(),
                        line: 3,
                    },
                    forwarded: 93,
                    rejected: 10,
                    delayed: 0,
                    sampled: 10,
                    sampled_ns: 500,
                }],
            }],
            endpoints: vec![EndpointSnapshot {
                service: "catalog".into(),
                addr: "127.0.0.1:50051".into(),
                healthy: true,
                connections: 1,
                inflight: 3,
                calls: 91,
                failures: 0,
                latency_ns: 80_000,
                saved_bytes: 1000,
            }],
            metrics: vec![MetricSnapshot {
                name: "cache_hits".into(),
                counts: vec![(Vec::new(), 5), (vec![("tenant".into(), "a\"b".into())], 3)],
                overflow: 1,
                observed: Some(ObservedSnapshot {
                    count: 2,
                    sum: 2.5,
                    buckets: core::array::from_fn(|at| u64::from(at == 9 || at == 10)),
                }),
            }],
            generation: 1,
        }
    }

    /// Two of them.
    pub(crate) fn two() -> Figures {
        let one = |core| ShardFigures {
            core,
            shard: sample(),
            sockets: io::Snapshot::default(),
            ports: Vec::new(),
        };
        let mut shards = vec![one(0), one(1)];
        let mut net = io::NetSnapshot { conns_open: 5, link_up: 1, ..Default::default() };
        (net.counters.rx_frames, net.counters.bad_tcp_checksum) = (100, 3);
        let device = vec![("rx_frames", 100), ("port_rx_missed", 8)];
        shards[0].ports.push(io::PortSnapshot { name: "fabric".into(), net, device, buffers: Some([64, 9]) });
        Figures {
            shards,
            log: [10, 1, 0, 2],
            queues: vec![offload::QueueSnapshot { cpu_jobs: 7, device_full: 2, ..Default::default() }; 2],
            seals: Some(offload::SealSnapshot { forged: 3, senders: 2, ..Default::default() }),
            uptime_ns: 2_000_000_000,
            resident_bytes: 8 << 20,
        }
    }

    #[test]
    fn shards_add_up() {
        let sum = two().sum();
        assert_eq!(sum.counters[0].2, 206);
        assert_eq!(sum.labelled[0].3, [("rapid_reset", 4)]);
        assert_eq!(sum.gauges[0].2, 6);
        assert_eq!((sum.methods.len(), sum.methods[0].started, ended(&sum.methods[0])), (1, 206, 200));
        assert_eq!(sum.chains[0].elements[0].rejected, 20);
        assert_eq!((sum.endpoints[0].connections, sum.endpoints[0].latency_ns), (2, 80_000));
        let counts: Vec<u64> = sum.metrics[0].counts.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts, sum.metrics[0].overflow), (vec![10, 6], 2));
        assert_eq!(sum.metrics[0].observed.as_ref().map(|o| (o.count, o.sum)), Some((4, 5.0)));
        assert_eq!(sum.generation, 1);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let latency = sample().methods[0].latency;
        assert!((10_000..=50_000).contains(&quantile_ns(&latency, 0.5)));
        assert!((50_000..=100_000).contains(&quantile_ns(&latency, 0.9)));
        assert_eq!(quantile_ns(&[0; LATENCY_BOUNDS_NS.len() + 1], 0.5), 0);
    }
}
