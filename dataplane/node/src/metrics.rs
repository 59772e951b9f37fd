//! Prometheus text (version 0.0.4) of a node's [`Figures`].
//!
//! Three families of names: OpenTelemetry's of gRPC (gRFC A66) and Linkerd's, which existing dashboards and
//! canary tools query, and `towpath_*` for the rest. Values are sums over shards; what differs by shard has
//! a `shard` label.

use std::fmt::Write;

use abi::Status;
use shard::{LATENCY_BOUNDS_NS, MethodSnapshot, OBSERVED_BOUNDS, Snapshot};

use crate::figures::{Figures, ended, is_failure};

/// Encodes them all.
pub(crate) fn encode(figures: &Figures) -> String {
    let sum = figures.sum();
    let mut out = Text(String::with_capacity(16 << 10));
    grpc(&mut out, &sum);
    linkerd(&mut out, &sum);
    node(&mut out, figures);
    shards(&mut out, figures);
    ports(&mut out, figures);
    jobs(&mut out, figures);
    chains(&mut out, &sum);
    endpoints(&mut out, &sum);
    for (name, help, value) in &sum.counters {
        let name = total(name);
        out.family(&name, help, "counter");
        out.sample(&name, &[], *value as f64);
    }
    for (name, help, label, values) in &sum.labelled {
        let name = total(name);
        out.family(&name, help, "counter");
        for (value, count) in values {
            out.sample(&name, &[(label, value)], *count as f64);
        }
    }
    for (name, help, value) in &sum.gauges {
        let name = format!("towpath_{name}");
        out.family(&name, help, "gauge");
        out.sample(&name, &[], *value as f64);
    }
    elements(&mut out, &sum);
    out.0
}

/// What elements count and observe themselves.
fn elements(out: &mut Text, sum: &Snapshot) {
    if sum.metrics.is_empty() {
        return;
    }
    let name = "towpath_element_metric_count";
    out.family(name, "What elements counted, by metric and their own labels.", "counter");
    for metric in &sum.metrics {
        // A metric that is only counted under labels, or only observed, has no count of its own.
        let counts = metric.counts.iter().filter(|(labels, count)| !labels.is_empty() || *count > 0);
        for (own, count) in counts {
            let names: Vec<String> = own.iter().map(|(name, _)| label(name)).collect();
            let mut labels = vec![("metric", metric.name.as_str())];
            labels.extend(names.iter().zip(own).map(|(name, (_, value))| (name.as_str(), value.as_str())));
            out.sample(name, &labels, *count as f64);
        }
        if metric.overflow > 0 {
            let labels = [("metric", metric.name.as_str()), ("overflow", "true")];
            out.sample(name, &labels, metric.overflow as f64);
        }
    }
    let name = "towpath_element_metric_observed";
    out.family(name, "What elements observed, by metric.", "histogram");
    for (metric, observed) in sum.metrics.iter().filter_map(|m| Some((&m.name, m.observed.as_ref()?))) {
        let bounds = OBSERVED_BOUNDS.iter().map(|bound| format!("{bound}"));
        let mut so_far = 0;
        for (count, bound) in observed.buckets.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            so_far += count;
            out.sample(&format!("{name}_bucket"), &[("metric", metric), ("le", &bound)], so_far as f64);
        }
        out.sample(&format!("{name}_sum"), &[("metric", metric)], observed.sum);
        out.sample(&format!("{name}_count"), &[("metric", metric)], observed.count as f64);
    }
}

/// A label's name as Prometheus allows it, and none that is ours.
fn label(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect::<String>();
    let is_ours = matches!(plain.as_str(), "metric" | "overflow" | "le");
    let is_bad =
        is_ours || plain.starts_with("__") || !plain.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if is_bad { format!("label_{plain}") } else { plain }
}

/// A counter's name as Prometheus wants it.
fn total(name: &str) -> String {
    format!("towpath_{}_total", name.trim_end_matches("_total"))
}

/// The text so far.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        // Writing into a String does not fail.
        let _ = write!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\n', " "));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push_str(if at == 0 { "{" } else { "," });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A histogram's samples; `scale` turns nanoseconds into the unit of the name.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], m: &MethodSnapshot, scale: f64) {
        let bucket = format!("{name}_bucket");
        let mut so_far = 0;
        let bounds = LATENCY_BOUNDS_NS.iter().map(|ns| format!("{}", *ns as f64 / scale));
        for (count, bound) in m.latency.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            so_far += count;
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            self.sample(&bucket, &with_bound, so_far as f64);
        }
        self.sample(&format!("{name}_sum"), labels, m.latency_ns_sum as f64 / scale);
        self.sample(&format!("{name}_count"), labels, so_far as f64);
    }
}

/// OpenTelemetry's names (gRFC A66) in Prometheus form.
fn grpc(out: &mut Text, sum: &Snapshot) {
    let labels = |m: &MethodSnapshot| {
        [
            ("grpc_method", m.method.clone()),
            ("source", m.source.clone()),
            ("destination", m.destination.clone()),
        ]
    };
    type Column = (&'static str, &'static str, fn(&MethodSnapshot) -> u64);
    let counters: [Column; 4] = [
        ("grpc_server_call_started_total", "Calls begun by callers.", |m| m.started),
        ("grpc_client_attempt_started_total", "Attempts sent to endpoints.", |m| m.attempts),
        ("towpath_request_bytes_total", "Body bytes from callers.", |m| m.request_bytes),
        ("towpath_response_bytes_total", "Body bytes to callers.", |m| m.response_bytes),
    ];
    for (name, help, value) in counters {
        out.family(name, help, "counter");
        for m in &sum.methods {
            let labels = labels(m);
            out.sample(name, &labels.each_ref().map(|(k, v)| (*k, v.as_str())), value(m) as f64);
        }
    }
    let name = "grpc_server_call_duration_seconds";
    out.family(name, "From the arrival of the request's headers to the call's end.", "histogram");
    for m in &sum.methods {
        let labels = labels(m);
        out.histogram(name, &labels.each_ref().map(|(k, v)| (*k, v.as_str())), m, 1e9);
    }
}

/// What canary tools written for Linkerd query.
fn linkerd(out: &mut Text, sum: &Snapshot) {
    out.family("request_total", "Calls begun.", "counter");
    for m in &sum.methods {
        let labels = [
            ("direction", "inbound"),
            ("src", m.source.as_str()),
            ("dst", &m.destination),
            ("rt_route", &m.method),
        ];
        out.sample("request_total", &labels, m.started as f64);
    }
    out.family("response_total", "Calls ended.", "counter");
    for m in &sum.methods {
        for (status, count) in Status::all().zip(m.by_status).filter(|(_, count)| *count > 0) {
            let code = status.code().to_string();
            let labels = [
                ("classification", if is_failure(status) { "failure" } else { "success" }),
                ("direction", "inbound"),
                ("grpc_status_code", code.as_str()),
                ("grpc_status", status.name()),
                ("src", &m.source),
                ("dst", &m.destination),
                ("rt_route", &m.method),
            ];
            out.sample("response_total", &labels, count as f64);
        }
    }
    out.family(
        "response_latency_ms",
        "From the arrival of the request's headers to the call's end.",
        "histogram",
    );
    for m in &sum.methods {
        let labels = [
            ("direction", "inbound"),
            ("src", m.source.as_str()),
            ("dst", &m.destination),
            ("rt_route", &m.method),
        ];
        out.histogram("response_latency_ms", &labels, m, 1e6);
    }
}

fn node(out: &mut Text, figures: &Figures) {
    out.family("towpath_build_info", "Which version runs.", "gauge");
    out.sample("towpath_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let plain = [
        ("towpath_uptime_seconds", "Since the node was ready.", figures.uptime_ns as f64 / 1e9),
        ("process_resident_memory_bytes", "Resident memory.", figures.resident_bytes as f64),
    ];
    for (name, help, value) in plain {
        out.family(name, help, "gauge");
        out.sample(name, &[], value);
    }
    let [lines, dropped, failed, muted] = figures.log;
    let log = [
        ("towpath_log_lines_total", "Access-log lines handed to the writer.", lines),
        ("towpath_log_lines_dropped_total", "Lines dropped because the writer was behind.", dropped),
        ("towpath_log_lines_failed_total", "Lines whose file could not be written.", failed),
        ("towpath_notices_muted_total", "Notices counted and not written, being too many.", muted),
    ];
    for (name, help, value) in log {
        out.family(name, help, "counter");
        out.sample(name, &[], value as f64);
    }
}

/// What the sockets of each shard count, and each shard's generation.
fn shards(out: &mut Text, figures: &Figures) {
    let Some(first) = figures.shards.first() else { return };
    out.family("towpath_generation", "Programs adopted, the first included.", "gauge");
    for (at, one) in figures.shards.iter().enumerate() {
        let labels = [("shard", at.to_string()), ("core", one.core.to_string())];
        out.sample(
            "towpath_generation",
            &labels.each_ref().map(|(k, v)| (*k, v.as_str())),
            one.shard.generation as f64,
        );
    }
    for (place, (counter, _)) in first.sockets.iter().enumerate() {
        let is_gauge = counter == "conns_open";
        let name =
            if is_gauge { "towpath_conns_open".to_owned() } else { format!("towpath_io_{counter}_total") };
        let help = format!("Sockets: {}.", counter.replace('_', " "));
        out.family(&name, &help, if is_gauge { "gauge" } else { "counter" });
        for (at, one) in figures.shards.iter().enumerate() {
            let value = one.sockets.iter().nth(place).map_or(0, |(_, value)| value);
            out.sample(&name, &[("shard", &at.to_string())], value as f64);
        }
    }
}

/// Where jobs ran, and what was sealed and opened.
fn jobs(out: &mut Text, figures: &Figures) {
    for (at, (name, help, _)) in offload::QueueSnapshot::default().iter().enumerate() {
        let name = format!("towpath_offload_{name}_total");
        out.family(&name, help, "counter");
        for (shard, queue) in figures.queues.iter().enumerate() {
            let value = queue.iter().nth(at).map_or(0, |(.., value)| value);
            out.sample(&name, &[("shard", &shard.to_string())], value as f64);
        }
    }
    let Some(seals) = &figures.seals else { return };
    for (name, help, value) in seals.iter() {
        let name = format!("towpath_seal_{name}_total");
        out.family(&name, help, "counter");
        out.sample(&name, &[], value as f64);
    }
    let name = "towpath_seal_senders";
    out.family(name, "Sealing shards whose calls are remembered against replay.", "gauge");
    out.sample(name, &[], seals.senders as f64);
}

/// What the raw ports of each shard count: the device's totals, TCP/IP's, and what it holds now.
fn ports(out: &mut Text, figures: &Figures) {
    let of_all = || {
        figures
            .shards
            .iter()
            .enumerate()
            .flat_map(|(at, one)| one.ports.iter().map(move |port| (at.to_string(), port)))
    };
    let Some((_, first)) = of_all().next() else { return };
    let mut family =
        |name: &str, help: &str, kind: &str, value: &dyn Fn(&io::PortSnapshot) -> Option<u64>| {
            out.family(name, help, kind);
            for (shard, port) in of_all() {
                if let Some(value) = value(port) {
                    out.sample(name, &[("port", port.name.as_str()), ("shard", &shard)], value as f64);
                }
            }
        };
    for (counter, help, _) in first.net.counters.entries() {
        let entries = |port: &io::PortSnapshot| {
            port.net.counters.entries().find(|(name, ..)| *name == counter).map(|(.., value)| value)
        };
        family(&format!("towpath_port_{counter}_total"), help, "counter", &entries);
    }
    // Ports of different backends count different things.
    let mut device: Vec<&str> =
        of_all().flat_map(|(_, port)| port.device.iter().map(|(name, _)| *name)).collect();
    device.sort_unstable();
    device.dedup();
    for counter in device {
        let help = format!("Devices of raw ports: {}.", counter.replace('_', " "));
        let value = |port: &io::PortSnapshot| named(port.device.iter().copied(), counter);
        family(&format!("towpath_device_{counter}_total"), &help, "counter", &value);
    }
    type Gauge = (&'static str, &'static str, fn(&io::PortSnapshot) -> u64);
    let gauges: [Gauge; 10] = [
        ("towpath_port_link_up", "1 if the port's link is up.", |p| p.net.link_up),
        ("towpath_port_conns_open", "Connections on raw ports.", |p| p.net.conns_open),
        ("towpath_port_half_open", "Connections whose handshake is not over.", |p| p.net.half_open),
        ("towpath_port_neighbours", "Neighbours known or asked for.", |p| p.net.neighbours),
        ("towpath_port_time_wait", "Closed connections still remembered.", |p| p.net.time_wait),
        ("towpath_port_ring_bytes", "Send and receive rings of connections.", |p| p.net.ring_bytes),
        ("towpath_port_ring_spare_bytes", "Rings kept for connections to come.", |p| p.net.ring_bytes_spare),
        ("towpath_port_rx_buffers", "Buffers made for received bytes.", |p| p.net.rx_buffers_made),
        ("towpath_port_rx_buffers_in_use", "Of these, with bytes of a call.", |p| p.net.rx_buffers_out),
        ("towpath_port_bytes_per_conn", "Memory of a connection, rings included.", |p| {
            p.net.bytes_per_conn()
        }),
    ];
    for (name, help, value) in gauges {
        family(name, help, "gauge", &|port| Some(value(port)));
    }
    let buffers = [
        ("towpath_device_buffers", "Buffers for frames."),
        ("towpath_device_buffers_in_use", "Of these, in rings or with whoever works on them."),
    ];
    for (place, (name, help)) in buffers.into_iter().enumerate() {
        family(name, help, "gauge", &|port| port.buffers.and_then(|both| both.get(place).copied()));
    }
}

fn named<'a>(mut entries: impl Iterator<Item = (&'a str, u64)>, wanted: &str) -> Option<u64> {
    entries.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn chains(out: &mut Text, sum: &Snapshot) {
    let name = "towpath_element_verdicts_total";
    out.family(name, "What each element decided.", "counter");
    for (chain, element) in sum.chains.iter().flat_map(|c| c.elements.iter().map(move |e| (c, e))) {
        let verdicts =
            [("forward", element.forwarded), ("reject", element.rejected), ("delay", element.delayed)];
        for (verdict, count) in verdicts {
            let labels = [
                ("source", chain.source.as_str()),
                ("destination", &chain.destination),
                ("element", &element.info.name),
                ("verdict", verdict),
                ("line", &element.info.line.to_string()),
            ];
            out.sample(name, &labels, count as f64);
        }
    }
    type Column = (&'static str, &'static str, fn(&shard::ElementSnapshot) -> f64);
    let sampled: [Column; 2] = [
        ("towpath_element_sampled_total", "Calls whose time in the element was taken.", |e| e.sampled as f64),
        ("towpath_element_sampled_seconds_total", "Their time in the element.", |e| {
            e.sampled_ns as f64 / 1e9
        }),
    ];
    for (name, help, value) in sampled {
        out.family(name, help, "counter");
        for (chain, element) in sum.chains.iter().flat_map(|c| c.elements.iter().map(move |e| (c, e))) {
            let labels = [
                ("source", chain.source.as_str()),
                ("destination", &chain.destination),
                ("element", &element.info.name),
                ("line", &element.info.line.to_string()),
            ];
            out.sample(name, &labels, value(element));
        }
    }
}

fn endpoints(out: &mut Text, sum: &Snapshot) {
    type Column = (&'static str, &'static str, &'static str, fn(&shard::EndpointSnapshot) -> f64);
    let columns: [Column; 7] = [
        ("towpath_endpoint_healthy", "Takes calls.", "gauge", |e| f64::from(u8::from(e.healthy))),
        ("towpath_endpoint_connections", "Connections up.", "gauge", |e| f64::from(e.connections)),
        ("towpath_endpoint_inflight", "Calls sent and not answered.", "gauge", |e| f64::from(e.inflight)),
        ("towpath_endpoint_calls_total", "Calls sent.", "counter", |e| e.calls as f64),
        ("towpath_endpoint_failures_total", "Calls that failed there.", "counter", |e| e.failures as f64),
        ("towpath_endpoint_latency_seconds", "Peak EWMA of its answer time.", "gauge", |e| {
            e.latency_ns as f64 / 1e9
        }),
        ("towpath_endpoint_saved_bytes_total", "Bytes compression kept off the wire.", "counter", |e| {
            e.saved_bytes as f64
        }),
    ];
    for (name, help, kind, value) in columns {
        out.family(name, help, kind);
        for e in &sum.endpoints {
            out.sample(name, &[("service", &e.service), ("endpoint", &e.addr)], value(e));
        }
    }
    debug_assert!(sum.methods.iter().all(|m| ended(m) <= m.started));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::two;

    #[test]
    fn the_names_that_dashboards_query_are_there_with_their_values() {
        let text = encode(&two());
        for line in [
            r#"grpc_server_call_started_total{grpc_method="shop.Catalog/List",source="frontend",destination="catalog"} 206"#,
            r#"grpc_client_attempt_started_total{grpc_method="shop.Catalog/List",source="frontend",destination="catalog"} 182"#,
            r#"grpc_server_call_duration_seconds_bucket{grpc_method="shop.Catalog/List",source="frontend",destination="catalog",le="0.00001"} 0"#,
            r#"grpc_server_call_duration_seconds_bucket{grpc_method="shop.Catalog/List",source="frontend",destination="catalog",le="0.0001"} 200"#,
            r#"grpc_server_call_duration_seconds_bucket{grpc_method="shop.Catalog/List",source="frontend",destination="catalog",le="+Inf"} 200"#,
            r#"grpc_server_call_duration_seconds_sum{grpc_method="shop.Catalog/List",source="frontend",destination="catalog"} 0.01"#,
            r#"response_total{classification="failure",direction="inbound",grpc_status_code="14",grpc_status="UNAVAILABLE",src="frontend",dst="catalog",rt_route="shop.Catalog/List"} 20"#,
            r#"response_latency_ms_bucket{direction="inbound",src="frontend",dst="catalog",rt_route="shop.Catalog/List",le="0.05"} 120"#,
            r#"towpath_element_verdicts_total{source="frontend",destination="catalog",element="FaultInjection",verdict="reject",line="3"} 20"#,
            r#"towpath_endpoint_saved_bytes_total{service="catalog",endpoint="127.0.0.1:50051"} 2000"#,
            "towpath_calls_started_total 206",
            r#"towpath_downstream_faults_total{fault="rapid_reset"} 4"#,
            "towpath_calls_in_flight 6",
            "towpath_log_lines_dropped_total 1",
            r#"towpath_offload_cpu_jobs_total{shard="1"} 7"#,
            "towpath_seal_forged_total 3",
            "towpath_seal_senders 2",
            r#"towpath_generation{shard="1",core="1"} 1"#,
            r#"towpath_element_metric_count{metric="cache_hits"} 10"#,
            r#"towpath_element_metric_count{metric="cache_hits",tenant="a\"b"} 6"#,
            r#"towpath_element_metric_count{metric="cache_hits",overflow="true"} 2"#,
            r#"towpath_element_metric_observed_bucket{metric="cache_hits",le="0.5"} 0"#,
            r#"towpath_element_metric_observed_bucket{metric="cache_hits",le="2"} 4"#,
            r#"towpath_element_metric_observed_sum{metric="cache_hits"} 5"#,
            r#"towpath_element_metric_observed_count{metric="cache_hits"} 4"#,
        ] {
            assert!(text.lines().any(|l| l == line), "missing: {line}\n{text}");
        }
    }

    #[test]
    fn every_family_is_declared_once_and_before_its_samples() {
        let text = encode(&two());
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap().to_owned();
                assert!(!declared.contains(&name), "{name} is declared twice");
                declared.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = declared.last().unwrap();
                assert!(name.starts_with(family.as_str()), "{name} under {family}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut figures = two();
        figures.shards[0].shard.methods[0].method = "a\"b\\c\nd".into();
        assert!(encode(&figures).contains(r#"grpc_method="a\"b\\c\nd""#));
    }
}
