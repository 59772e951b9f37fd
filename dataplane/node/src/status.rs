//! `towpath status`: the running node as a table.

use shard::{ElementSnapshot, LATENCY_BOUNDS_NS, Snapshot};

use crate::faults::faults;
use crate::figures::{Figures, ended, quantile_ns};
use crate::reload::Origin;
use crate::table::Table;
use crate::value::{show_bytes, show_count, show_ns};

/// The text that `/status` answers and `towpath status` prints.
pub(crate) fn text(figures: &Figures, origin: &Origin, is_draining: bool) -> String {
    let sum = figures.sum();
    let state = if is_draining { "draining" } else { "serving" };
    let mut out = format!(
        "towpath {}: {state} for {}, generation {}, {} resident\n",
        env!("CARGO_PKG_VERSION"),
        show_ns(figures.uptime_ns),
        sum.generation,
        show_bytes(figures.resident_bytes),
    );
    out.push_str(&format!("{}\n", origin.text()));
    let sections = [
        ("shards", shards(figures)),
        ("ports", ports(figures)),
        ("methods", methods(&sum)),
        ("endpoints", endpoints(&sum)),
        ("elements", elements(&sum)),
        ("worth a look", worth_a_look(figures, &sum)),
    ];
    for (title, table) in sections {
        if !table.is_empty() {
            out.push_str(&format!("\n{title}\n{}", table.text("  ")));
        }
    }
    let [lines, dropped, failed, _] = figures.log;
    let [lines, dropped, failed] = [lines, dropped, failed].map(show_count);
    out.push_str(&format!("\naccess log: {lines} lines, {dropped} dropped, {failed} not written\n"));
    out
}

/// The same for programs. Names are stable: they may be added to, never changed.
pub(crate) fn json(figures: &Figures, origin: &Origin, is_draining: bool) -> String {
    let sum = figures.sum();
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    let shards = figures.shards.iter().enumerate().map(|(at, one)| {
        let gauge = |name| named_value(&one.shard.gauges, name);
        format!(
            "{{\"shard\":{at},\"core\":{},\"generation\":{},\"programs_alive\":{},\"connections\":{},\
             \"calls\":{},\"calls_in_flight\":{}}}",
            one.core,
            one.shard.generation,
            gauge("programs_alive"),
            one.conns_open(),
            named_value(&one.shard.counters, "calls_started"),
            gauge("calls_in_flight"),
        )
    });
    let elements = sum.chains.iter().flat_map(|chain| chain.elements.iter().map(move |e| (chain, e)));
    let elements = elements.map(|(chain, e)| {
        format!(
            "{{\"source\":{},\"destination\":{},\"line\":{},\"element\":{},\"forwarded\":{},\"rejected\":{},\
             \"delayed\":{}}}",
            quoted(&chain.source),
            quoted(&chain.destination),
            chain.line,
            quoted(&e.info.text),
            e.forwarded,
            e.rejected,
            e.delayed
        )
    });
    let endpoints = sum.endpoints.iter().map(|e| {
        format!(
            "{{\"service\":{},\"endpoint\":{},\"healthy\":{},\"connections\":{},\"in_flight\":{},\"calls\":{},\
             \"failed\":{},\"latency_ns\":{}}}",
            quoted(&e.service),
            quoted(&e.addr),
            e.healthy,
            e.connections,
            e.inflight,
            e.calls,
            e.failures,
            e.latency_ns
        )
    });
    let ports =
        figures.shards.iter().enumerate().flat_map(|(at, one)| one.ports.iter().map(move |p| (at, p)));
    let ports = ports.map(|(at, port)| {
        let net = &port.net.counters;
        format!(
            "{{\"port\":{},\"shard\":{at},\"link_up\":{},\"connections\":{},\"rx_frames\":{},\"tx_frames\":{},\
             \"rx_bytes\":{},\"tx_bytes\":{}}}",
            quoted(&port.name),
            port.net.link_up == 1,
            port.net.conns_open,
            net.rx_frames,
            net.tx_frames,
            net.rx_bytes,
            net.tx_bytes,
        )
    });
    let offload = figures.queues.iter().enumerate().map(|(at, queue)| {
        let counts: Vec<_> = queue.iter().map(|(name, _, count)| format!("\"{name}\":{count}")).collect();
        format!("{{\"shard\":{at},{}}}", counts.join(","))
    });
    let faults = faults(figures, &sum);
    let faults =
        faults.iter().map(|one| format!("{{\"counter\":{},\"count\":{}}}", quoted(&one.counter), one.count));
    format!(
        "{{\"version\":{},\"state\":{},\"uptime_ns\":{},\"resident_bytes\":{},\"generation\":{},\"program\":{{\
         \"file\":{},\"xxh64\":\"{:016x}\",\"since\":{}}},\"shards\":{},\"elements\":{},\"endpoints\":{},\
         \"ports\":{},\"offload\":{},\"worth_a_look\":{}}}\n",
        quoted(env!("CARGO_PKG_VERSION")),
        quoted(if is_draining { "draining" } else { "serving" }),
        figures.uptime_ns,
        figures.resident_bytes,
        sum.generation,
        quoted(&origin.file),
        origin.hash,
        quoted(&origin.time),
        list(shards.collect()),
        list(elements.collect()),
        list(endpoints.collect()),
        list(ports.collect()),
        list(offload.collect()),
        list(faults.collect()),
    )
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn ports(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        "port",
        ">shard",
        "link",
        ">connections",
        ">frames in",
        ">frames out",
        ">received",
        ">sent",
        ">refused",
        ">bytes/connection",
    ]);
    for (at, one) in figures.shards.iter().enumerate() {
        for port in &one.ports {
            let net = &port.net.counters;
            table.row(vec![
                port.name.clone(),
                at.to_string(),
                if port.net.link_up == 1 { "up" } else { "down" }.to_owned(),
                show_count(port.net.conns_open),
                show_count(net.rx_frames),
                show_count(net.tx_frames),
                show_bytes(net.rx_bytes),
                show_bytes(net.tx_bytes),
                show_count(
                    net.syns_refused + net.syns_dropped + net.syns_dropped_source + net.syns_over_conns_max,
                ),
                show_bytes(port.net.bytes_per_conn()),
            ]);
        }
    }
    table
}

fn shards(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        ">shard",
        ">core",
        ">connections",
        ">calls",
        ">in flight",
        ">received",
        ">sent",
        ">syscalls/call",
        ">generation",
        ">alive",
    ]);
    for (at, one) in figures.shards.iter().enumerate() {
        let calls = named_value(&one.shard.counters, "calls_started");
        let per_call = match calls {
            0 => "-".to_owned(),
            calls => format!("{:.2}", one.sockets.syscalls() as f64 / calls as f64),
        };
        table.row(vec![
            at.to_string(),
            one.core.to_string(),
            show_count(one.conns_open()),
            show_count(calls),
            show_count(named_value(&one.shard.gauges, "calls_in_flight")),
            show_bytes(one.sockets.rx_bytes),
            show_bytes(one.sockets.tx_bytes),
            per_call,
            one.shard.generation.to_string(),
            show_count(named_value(&one.shard.gauges, "programs_alive")),
        ]);
    }
    table
}

fn named_value(list: &[(&str, &str, u64)], name: &str) -> u64 {
    list.iter().find(|(n, ..)| *n == name).map_or(0, |(.., value)| *value)
}

fn methods(sum: &Snapshot) -> Table {
    let mut table = Table::new(&["source", "destination", "method", ">calls", ">not OK", ">p50", ">p99"]);
    for m in &sum.methods {
        let finished = ended(m);
        let ok = m.by_status.first().copied().unwrap_or(0);
        table.row(vec![
            named(&m.source),
            named(&m.destination),
            m.method.clone(),
            show_count(finished),
            percent(finished - ok, finished),
            about(&m.latency, 0.5),
            about(&m.latency, 0.99),
        ]);
    }
    table
}

fn endpoints(sum: &Snapshot) -> Table {
    let mut table = Table::new(&[
        "service",
        "endpoint",
        "healthy",
        ">conns",
        ">in flight",
        ">calls",
        ">share",
        ">failed",
        ">latency",
        ">saved",
    ]);
    for e in &sum.endpoints {
        let all: u64 = sum.endpoints.iter().filter(|o| o.service == e.service).map(|o| o.calls).sum();
        table.row(vec![
            e.service.clone(),
            e.addr.clone(),
            if e.healthy { "yes" } else { "no" }.into(),
            e.connections.to_string(),
            e.inflight.to_string(),
            show_count(e.calls),
            percent(e.calls, all),
            show_count(e.failures),
            if e.latency_ns == 0 { "-".into() } else { show_ns(e.latency_ns) },
            show_bytes(e.saved_bytes),
        ]);
    }
    table
}

fn elements(sum: &Snapshot) -> Table {
    let mut table = Table::new(&["rule", "element", ">forwarded", ">rejected", ">delayed", ">cost"]);
    for chain in &sum.chains {
        for e in &chain.elements {
            table.row(vec![
                format!("{} -> {} (line {})", chain.source, chain.destination, chain.line),
                e.info.text.clone(),
                show_count(e.forwarded),
                show_count(e.rejected),
                show_count(e.delayed),
                cost(e),
            ]);
        }
    }
    table
}

fn worth_a_look(figures: &Figures, sum: &Snapshot) -> Table {
    let mut table = Table::new(&["counter", ">count", "meaning"]);
    for fault in faults(figures, sum) {
        table.row(vec![fault.counter, show_count(fault.count), fault.meaning]);
    }
    table
}

fn named(service: &str) -> String {
    if service.is_empty() { "-".into() } else { service.into() }
}

fn about(latency: &[u64; LATENCY_BOUNDS_NS.len() + 1], share: f64) -> String {
    match quantile_ns(latency, share) {
        0 => "-".into(),
        ns => show_ns(ns),
    }
}

/// The mean time of a sampled call in an element.
pub(crate) fn cost(element: &ElementSnapshot) -> String {
    match element.sampled_ns.checked_div(element.sampled) {
        Some(ns) => show_ns(ns),
        None => "-".into(),
    }
}

/// `12.3 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::two;

    #[test]
    fn every_section_is_there() {
        let origin = Origin { file: "a \"b\".adn".into(), hash: 1, time: "now".into() };
        let json = json(&two(), &origin, false);
        for part in [
            "\"program\":{\"file\":\"a \\\"b\\\".adn\",\"xxh64\":\"0000000000000001\",\"since\":\"now\"}",
            "{\"shard\":1,\"core\":1,\"generation\":1,",
            "\"element\":\"FaultInjection(0.1)\",\"forwarded\":186,\"rejected\":20,",
            "\"ports\":[{\"port\":\"fabric\",\"shard\":0,\"link_up\":true,\"connections\":5,",
            "\"offload\":[{\"shard\":0,\"cpu_jobs\":7,",
            "{\"counter\":\"port fabric: bad_tcp_checksum\",\"count\":3}",
        ] {
            assert!(json.contains(part), "missing: {part}\n{json}");
        }
        let text = text(&two(), &origin, false);
        for part in [
            "serving for 2.00 s, generation 1, 8.00 MiB resident",
            "    1     1            0    103          3       0 B   0 B           0.00",
            "frontend  catalog      shop.Catalog/List    200  10.0 %",
            "catalog  127.0.0.1:50051  yes",
            "frontend -> catalog (line 3)  FaultInjection(0.1)        186        20        0  50 ns",
            "fabric      0  up              5",
            "calls_no_rule                      4  Calls that no rule covers.",
            "downstream_faults rapid_reset      4  What callers did wrong, by fault.",
            "port fabric: bad_tcp_checksum      3  TCP checksums.",
            "seal_forged                        3  Envelopes that do not open.",
            "access log: 10 lines, 1 dropped, 0 not written",
        ] {
            assert!(text.contains(part), "missing: {part}\n{text}");
        }
    }
}
