//! What the demo shows: opening, live figures, summary. Text only; nothing here reads a clock or a socket.

use std::fmt::Write as _;
use std::path::Path;

use abi::Addr;
use pktgen::Summary;
use pktgen::stats::{Histogram, Snapshot};

use super::scene::{CONNS, LATENCIES, MESSAGE_BYTES, STREAMS};
use crate::figures::Figures;
use crate::status::{cost, percent};
use crate::table::Table;
use crate::value::{rounded, show_bytes, show_count, show_ns};

/// Cells of a full bar.
const BAR: usize = 24;

/// What stands above the live figures.
pub(super) fn opening(application: &str, backend: &str, addr: &Addr) -> String {
    let mut out = String::from("towpath demo: a gRPC client, three gRPC servers, and this between them:\n\n");
    for line in application.trim_end().lines() {
        let _ = writeln!(out, "{}", format!("    {line}").trim_end());
    }
    let _ = write!(out, "\n  one shard on core {}, listening on {addr}, {backend}\n", super::cores_text());
    out
}

/// The figures of one moment.
#[derive(Default)]
pub(super) struct Look {
    elapsed_ns: u64,
    calls: u64,
    latency: Option<Histogram>,
    entered: u64,
    rejected: u64,
    saved_bytes: u64,
    endpoints: Vec<(String, u64)>,
}

impl Look {
    /// From what client and node count.
    pub(super) fn take(client: &Snapshot, figures: &Figures) -> Self {
        let sum = figures.sum();
        let last = |c: &shard::ChainSnapshot| c.elements.iter().map(|e| e.rejected).sum::<u64>();
        Self {
            elapsed_ns: client.elapsed_ns,
            calls: client.calls(),
            latency: Some(client.latency.clone()),
            entered: sum.chains.iter().map(|c| c.entered).sum(),
            rejected: sum.chains.iter().map(last).sum(),
            saved_bytes: sum.endpoints.iter().map(|e| e.saved_bytes).sum(),
            endpoints: sum.endpoints.iter().map(|e| (e.addr.clone(), e.calls)).collect(),
        }
    }

    fn per_second(&self, last: &Self) -> u64 {
        let ns = self.elapsed_ns.saturating_sub(last.elapsed_ns);
        let calls = self.calls.saturating_sub(last.calls);
        if ns == 0 { 0 } else { rounded(calls as f64 * 1e9 / ns as f64) }
    }

    /// p50 and p99 since the last look.
    fn latency(&self, last: &Self) -> (u64, u64) {
        let Some(now) = &self.latency else { return (0, 0) };
        let span = last.latency.as_ref().map_or_else(|| now.clone(), |before| now.since(before));
        (span.quantile_ns(0.5), span.quantile_ns(0.99))
    }

    /// For a terminal: redrawn in place.
    pub(super) fn block(&self, last: &Self) -> String {
        let (p50, p99) = self.latency(last);
        let mut out = format!(
            "  {:>5.1} s   {:>9} calls/s   p50 {:>8}   p99 {:>8}\n",
            self.elapsed_ns as f64 / 1e9,
            show_count(self.per_second(last)),
            show_ns(p50),
            show_ns(p99),
        );
        let all: u64 = self.endpoints.iter().map(|(_, calls)| calls).sum();
        for ((addr, calls), latency) in self.endpoints.iter().zip(LATENCIES) {
            let share = if all == 0 { 0.0 } else { *calls as f64 / all as f64 };
            let cells = usize::try_from(rounded(share * BAR as f64)).unwrap_or(BAR);
            let _ = writeln!(
                out,
                "  {addr:<21} {:<8} {:<BAR$} {:>7}",
                format!("+{latency:?}"),
                "█".repeat(cells.min(BAR)),
                percent(*calls, all)
            );
        }
        let _ = writeln!(
            out,
            "  faults injected {} ({})   kept off the wire {}",
            show_count(self.rejected),
            percent(self.rejected, self.entered),
            show_bytes(self.saved_bytes)
        );
        out
    }

    /// For a pipe: one line.
    pub(super) fn line(&self, last: &Self) -> String {
        let (p50, p99) = self.latency(last);
        format!(
            "  {:>5.1} s  {:>9} calls/s  p50 {}  p99 {}  faults {}  saved {}\n",
            self.elapsed_ns as f64 / 1e9,
            show_count(self.per_second(last)),
            show_ns(p50),
            show_ns(p99),
            percent(self.rejected, self.entered),
            show_bytes(self.saved_bytes)
        )
    }
}

/// What a stranger reads when it is over.
pub(super) fn summary(
    seen: &Summary,
    figures: &Figures,
    cpu_ns: u64,
    rejected: Option<&str>,
    file: Option<&Path>,
) -> String {
    let sum = figures.sum();
    let client = &seen.seen;
    let q = |share: f64| show_ns(client.latency.quantile_ns(share));
    let mut out = String::from("\nwhat happened\n");
    let mut say = |what: &str, text: String| {
        let _ = writeln!(out, "  {what:<14} {text}");
    };
    say(
        "calls",
        format!(
            "{} in {:.1} s: {} a second, {} at a time, plain gRPC on both sides",
            show_count(client.calls()),
            client.elapsed_ns as f64 / 1e9,
            show_count(rounded(client.calls_per_s())),
            CONNS * STREAMS
        ),
    );
    say("latency", format!("p50 {}, p90 {}, p99 {} as the client saw it", q(0.5), q(0.9), q(0.99)));
    let elements = || sum.chains.iter().flat_map(|c| &c.elements);
    let entered: u64 = sum.chains.iter().map(|c| c.entered).sum();
    let faults: u64 = elements().map(|e| e.rejected).sum();
    say(
        "faults",
        format!("{} calls rejected on purpose: {} of all", show_count(faults), percent(faults, entered)),
    );
    if let Some(each) = cpu_ns.checked_div(entered) {
        say(
            "cost",
            format!("{} of CPU a call in Towpath's own threads, compression included", show_ns(each)),
        );
    }
    let saved: u64 = sum.endpoints.iter().map(|e| e.saved_bytes).sum();
    say(
        "compression",
        format!("{} kept off the wire (answers of {MESSAGE_BYTES} B, gzip)", show_bytes(saved)),
    );

    let all: u64 = sum.endpoints.iter().map(|e| e.calls).sum();
    let mut table = Table::new(&["endpoint of catalog", ">its own time", ">calls", ">share"]);
    for (e, latency) in sum.endpoints.iter().zip(LATENCIES) {
        let own = format!("{latency:?}");
        table.row(vec![e.addr.clone(), own, show_count(e.calls), percent(e.calls, all)]);
    }
    let _ = write!(out, "\nwhere calls went: most to those that answer soonest\n{}", table.text("  "));

    let mut table = Table::new(&["element", ">forwarded", ">rejected", ">cost per call"]);
    for e in elements() {
        table.row(vec![e.info.text.clone(), show_count(e.forwarded), show_count(e.rejected), cost(e)]);
    }
    let _ = write!(out, "\nwhat each element did\n{}", table.text("  "));

    if let Some(line) = rejected {
        let _ = write!(out, "\none rejected call, as the access log has it\n{}", access_line(line));
    }
    out.push_str(&next(file));
    out
}

/// The line, and in words who decided.
fn access_line(line: &str) -> String {
    let field = |name: &str| -> Option<&str> {
        let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
        match rest.strip_prefix('"') {
            Some(text) => text.split('"').next(),
            None => rest.split([',', '}']).next(),
        }
    };
    let mut out = format!("  {line}\n");
    if let (Some(element), Some(at), Some(rule)) = (field("element"), field("line"), field("rule_line")) {
        let _ = writeln!(
            out,
            "  → decided by {element}: line {rule} of the application, line {at} of the element's own file"
        );
    }
    out
}

/// Three commands that work as they stand.
fn next(file: Option<&Path>) -> String {
    let program = program();
    let file = file.map_or("demo.adn".to_owned(), |f| f.display().to_string());
    let mut out = String::from("\nnext\n");
    let commands = [
        (format!("{program} check {file}"), "the application you just saw; edit it, break it, check it"),
        (
            format!("{program} run {file} --set service.catalog.endpoints=127.0.0.1:50051"),
            "before a gRPC server of yours; then point its client at 127.0.0.1:15001",
        ),
        (format!("{program} doctor"), "what this machine offers, and what would make it faster"),
    ];
    for (command, what) in commands {
        let _ = writeln!(out, "  {command}\n      {what}");
    }
    out
}

/// How this program was called, as short as it can be said.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "towpath".into() };
    let here = std::env::current_dir().unwrap_or_default();
    let shown = path.strip_prefix(&here).unwrap_or(&path);
    shown.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_call_names_who_decided() {
        let line = r#"{"time":"x","status":"UNAVAILABLE","element":"FaultInjection(0.1)","line":12,"rule_line":4,"message":"fault injected"}"#;
        let text = access_line(line);
        assert!(
            text.contains(
                "decided by FaultInjection(0.1): line 4 of the application, line 12 of the element"
            ),
            "{text}"
        );
        assert_eq!(access_line("{}"), "  {}\n");
    }

    #[test]
    fn live_figures_are_of_the_last_interval() {
        let before = Look { elapsed_ns: 1_000_000_000, calls: 1000, ..Look::default() };
        let now = Look {
            elapsed_ns: 1_500_000_000,
            calls: 2000,
            entered: 2000,
            rejected: 200,
            saved_bytes: 4096,
            endpoints: vec![("127.0.0.1:1".into(), 75), ("127.0.0.1:2".into(), 25)],
            ..Look::default()
        };
        let line = now.line(&before);
        assert!(
            line.contains("2,000 calls/s")
                && line.contains("faults 10.0 %")
                && line.contains("saved 4.00 KiB"),
            "{line}"
        );
        let block = now.block(&before);
        assert!(block.contains(&"█".repeat(18)) && block.contains("75.0 %"), "{block}");
        assert!(block.lines().all(|l| l.chars().count() <= 79), "{block}");
    }
}
