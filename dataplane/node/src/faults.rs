//! Counters that stand at zero when all is well: the shards', the raw ports', the job queues' and the seals'.

use shard::Snapshot;

use crate::figures::Figures;

/// One of them, that does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// `calls_no_rule`, `downstream_faults rapid_reset`, `port fabric: bad_tcp_checksum`.
    pub(crate) counter: String,
    /// Over all shards.
    pub(crate) count: u64,
    /// One sentence.
    pub(crate) meaning: String,
}

/// Shard counters that move when all is well, among those whose names say what became of calls and connections.
const USUAL: [&str; 5] = [
    "calls_started",
    "calls_ended",
    "connections_accepted",
    "upstream_connects",
    "calls_rejected_by_element",
];

/// TCP/IP's that do: traffic, and what any network has.
const USUAL_ON_PORTS: [&str; 21] = [
    "rx_frames",
    "tx_frames",
    "rx_bytes",
    "tx_bytes",
    "tx_cut",
    "accepts",
    "connects",
    "resets_received",
    "resets_inexact",
    "not_for_us",
    "bad_ethertype",
    "bad_protocol",
    "rsts_sent",
    "echoes",
    "icmp_ignored",
    "neighbours_asked",
    "neighbour_answers",
    "shared",
    "shared_dropped",
    "retransmits",
    "half_open_expired",
];

/// Devices' that do.
const USUAL_OF_DEVICES: [&str; 9] = [
    "rx_frames",
    "rx_bytes",
    "rx_bursts",
    "tx_frames",
    "tx_bytes",
    "tx_cut",
    "sleeps",
    "spins_paid",
    "wakes",
];

/// Queues' and seals' that do.
const USUAL_OF_JOBS: [&str; 6] = ["cpu_jobs", "device_jobs", "device_unfit", "sealed", "opened", "derived"];

/// Those that do not stand at zero.
pub(crate) fn faults(figures: &Figures, sum: &Snapshot) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut add = |counter: String, count: u64, meaning: &str| {
        if count == 0 {
            return;
        }
        match found.iter_mut().find(|fault: &&mut Fault| fault.counter == counter) {
            Some(fault) => fault.count += count,
            None => found.push(Fault { counter, count, meaning: meaning.to_owned() }),
        }
    };
    for (name, help, count) in &sum.counters {
        let is_of_calls = ["calls_", "connections_", "upstream_"].iter().any(|p| name.starts_with(p));
        if is_of_calls && !USUAL.contains(name) {
            add((*name).to_owned(), *count, help);
        }
    }
    for (name, help, _, values) in &sum.labelled {
        for (value, count) in values {
            add(format!("{name} {value}"), *count, help);
        }
    }
    for port in figures.shards.iter().flat_map(|shard| &shard.ports) {
        for (name, help, count) in port.net.counters.entries() {
            if !USUAL_ON_PORTS.contains(&name) {
                add(format!("port {}: {name}", port.name), count, help);
            }
        }
        for (name, count) in &port.device {
            if !USUAL_OF_DEVICES.contains(name) {
                add(format!("port {}: {name}", port.name), *count, "Its device counts them.");
            }
        }
    }
    let jobs = figures.queues.iter().flat_map(|queue| queue.iter().collect::<Vec<_>>());
    for (name, help, count) in jobs.filter(|(name, ..)| !USUAL_OF_JOBS.contains(name)) {
        add(format!("offload_{name}"), count, help);
    }
    for (name, help, count) in figures.seals.iter().flat_map(|seals| seals.iter().collect::<Vec<_>>()) {
        if !USUAL_OF_JOBS.contains(&name) {
            add(format!("seal_{name}"), count, help);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::two;

    #[test]
    fn what_moves_when_all_is_well_is_not_told_and_what_does_not_is() {
        let figures = two();
        let found = faults(&figures, &figures.sum());
        let told: Vec<_> = found.iter().map(|fault| (fault.counter.as_str(), fault.count)).collect();
        let expected = [
            ("calls_no_rule", 4),
            ("downstream_faults rapid_reset", 4),
            ("port fabric: bad_tcp_checksum", 3),
            ("port fabric: port_rx_missed", 8),
            ("offload_device_full", 4),
            ("seal_forged", 3),
        ];
        assert_eq!(told, expected);
        assert_eq!(found[2].meaning, "TCP checksums.");
    }

    #[test]
    fn the_lists_name_counters_that_there_are() {
        let net = io::NetCounters::default();
        for name in USUAL_ON_PORTS {
            assert!(net.entries().any(|(one, ..)| one == name), "{name}");
        }
        let jobs = offload::QueueSnapshot::default();
        let seals = offload::SealSnapshot::default();
        for name in USUAL_OF_JOBS {
            assert!(jobs.iter().chain(seals.iter()).any(|(one, ..)| one == name), "{name}");
        }
    }
}
