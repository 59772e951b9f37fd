//! What a load found, as values, as text for a terminal and as JSON for scripts.

use std::fmt::Write as _;

use abi::Status;
use serde_json::{Value, json};

use crate::load::{Hold, LoadConfig, Pace};
use crate::stats::{Histogram, Snapshot};

/// Figures of one interval of the measured time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// The interval's end, seconds since counting began.
    pub at_s: f64,
    /// Calls that ended, a second.
    pub calls_per_s: f64,
    /// Those of them that failed, a second.
    pub failed_per_s: f64,
    /// Median latency, ns; 0 if no call ended.
    pub p50_ns: u64,
    /// 99th percentile of latency, ns.
    pub p99_ns: u64,
}

/// What a load found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What it was told.
    pub config: LoadConfig,
    /// The figures.
    pub seen: Snapshot,
    /// How they went over time.
    pub samples: Vec<Sample>,
    /// What went wrong with connections, and how often.
    pub troubles: Vec<(String, u64)>,
    /// The first `grpc-message` that came with each status.
    pub messages: Vec<(Status, String)>,
}

impl Summary {
    /// True when not one counted call succeeded, though some were asked for.
    pub fn is_failure(&self) -> bool {
        let was_asked = self.config.hold == Hold::No;
        was_asked && self.seen.ok() == 0 || !was_asked && self.seen.elapsed_ns == 0
    }

    /// The pace in words.
    pub fn pace_text(&self) -> String {
        let conns = count(u64::from(self.config.conns), "connection");
        match (self.config.hold, self.config.pace) {
            (Hold::Idle, _) => format!("{conns}, idle"),
            (_, Pace::Closed { streams }) => {
                format!("closed loop, {conns} × {}", count(u64::from(streams), "stream"))
            }
            (_, Pace::Open { calls_per_s }) => {
                format!("open loop, {} calls/s over {conns}", number(calls_per_s))
            }
        }
    }

    /// Where latency is measured from, in words.
    pub fn latency_note(&self) -> &'static str {
        match self.config.pace {
            Pace::Closed { .. } => "from sending a call to its status, with a full queue (closed loop)",
            Pace::Open { .. } => {
                "from the time each call was due, sent or not (open loop: no coordinated omission)"
            }
        }
    }

    /// The targets, comma separated.
    pub fn targets(&self) -> String {
        self.config.to.iter().map(|t| t.addr.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Counted calls by status, the most frequent first, then those without one.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let seen = Status::all().zip(self.seen.statuses).filter(|(_, n)| *n > 0);
        let mut list: Vec<_> = seen.map(|(s, n)| (s.name(), n)).collect();
        list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let others = [("no answer", self.seen.unanswered), ("never sent", self.seen.unsent)];
        list.extend(others.into_iter().filter(|(_, n)| *n > 0));
        list
    }

    /// For a terminal; ends with a line feed.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let seen = &self.seen;
        let config = &self.config;
        let _ = writeln!(out, "{} → {}", config.method, self.targets());
        let _ = writeln!(out, "  load      {}, {} B messages", self.pace_text(), config.message_bytes);
        let _ = writeln!(
            out,
            "  calls     {} in {}; {} before and after not counted",
            grouped(seen.calls()),
            seconds(seen.elapsed_ns),
            grouped(seen.uncounted_calls)
        );
        let _ = writeln!(out, "  rate      {} calls/s", number(seen.calls_per_s()));
        if seen.latency.count() > 0 {
            let _ = writeln!(out, "  latency   {}", quantiles(&seen.latency));
            let _ = writeln!(out, "            {}", self.latency_note());
        }
        if seen.lateness.count() > 0 {
            let late = &seen.lateness;
            let (p50, p99) = (span(late.quantile_ns(0.5)), span(late.quantile_ns(0.99)));
            let _ = writeln!(out, "  sent      p50 {p50}, p99 {p99} after the time due");
        }
        let all = (seen.ok() + seen.failed()).max(1);
        for (i, (name, n)) in self.outcomes().into_iter().enumerate() {
            let label = if i == 0 { "status" } else { "" };
            let share = n as f64 * 100.0 / all as f64;
            let _ = writeln!(out, "  {label:<9} {name:<18} {:>12}  {share:>6.2} %", grouped(n));
        }
        let _ = writeln!(out, "  bytes     {} sent, {} received", size(seen.tx_bytes), size(seen.rx_bytes));
        if seen.requeued > 0 {
            let _ = writeln!(out, "  goaway    {} calls sent again", grouped(seen.requeued));
        }
        if seen.unsent > 0 {
            let _ = writeln!(
                out,
                "  note      the target took fewer calls than were due; what they had waited at the end is \
                 in the latencies, and is a lower bound"
            );
        }
        for (status, text) in &self.messages {
            let _ = writeln!(out, "  message   {}: {text}", status.name());
        }
        for (trouble, n) in &self.troubles {
            let _ = writeln!(out, "  trouble   {trouble} ({} times)", grouped(*n));
        }
        out
    }

    /// For scripts. Times are microseconds unless named otherwise.
    pub fn json(&self) -> Value {
        let seen = &self.seen;
        let config = &self.config;
        let us = |ns: u64| ns as f64 / 1000.0;
        let histogram = |h: &Histogram| {
            json!({
                "count": h.count(), "min": us(h.min_ns()), "mean": us(h.mean_ns()),
                "p50": us(h.quantile_ns(0.5)), "p90": us(h.quantile_ns(0.9)), "p99": us(h.quantile_ns(0.99)),
                "p99_9": us(h.quantile_ns(0.999)), "max": us(h.max_ns()),
            })
        };
        let pace = match config.pace {
            Pace::Closed { streams } => json!({ "loop": "closed", "streams_per_conn": streams }),
            Pace::Open { calls_per_s } => json!({ "loop": "open", "calls_per_s": calls_per_s }),
        };
        let statuses: serde_json::Map<String, Value> = Status::all()
            .zip(seen.statuses)
            .filter(|(_, n)| *n > 0)
            .map(|(s, n)| (s.name().to_owned(), json!(n)))
            .collect();
        let samples: Vec<Value> = self
            .samples
            .iter()
            .map(|s| {
                json!({
                    "at_s": s.at_s, "calls_per_s": s.calls_per_s, "failed_per_s": s.failed_per_s,
                    "p50_us": us(s.p50_ns), "p99_us": us(s.p99_ns),
                })
            })
            .collect();
        json!({
            "method": config.method,
            "to": config.to.iter().map(|t| t.addr.to_string()).collect::<Vec<_>>(),
            "conns": config.conns,
            "pace": pace,
            "message_bytes": config.message_bytes,
            "warm_up_s": config.warm_up.as_secs_f64(),
            "seconds": seen.elapsed_ns as f64 / 1e9,
            "calls": seen.calls(),
            "ok": seen.ok(),
            "failed": seen.failed(),
            "uncounted_calls": seen.uncounted_calls,
            "calls_per_s": seen.calls_per_s(),
            "statuses": statuses,
            "unanswered": seen.unanswered,
            "unsent": seen.unsent,
            "requeued": seen.requeued,
            "tx_bytes": seen.tx_bytes,
            "rx_bytes": seen.rx_bytes,
            "latency_us": histogram(&seen.latency),
            "latency_from": match config.pace { Pace::Closed { .. } => "sent", Pace::Open { .. } => "due" },
            "lateness_us": histogram(&seen.lateness),
            "samples": samples,
            "messages": self.messages.iter().map(|(s, t)| json!({ "status": s.name(), "message": t })).collect::<Vec<_>>(),
            "troubles": self.troubles.iter().map(|(t, n)| json!({ "what": t, "count": n })).collect::<Vec<_>>(),
        })
    }
}

/// The usual quantiles on one line.
pub fn quantiles(h: &Histogram) -> String {
    format!(
        "p50 {} · p90 {} · p99 {} · p99.9 {} · max {} · mean {}",
        span(h.quantile_ns(0.5)),
        span(h.quantile_ns(0.9)),
        span(h.quantile_ns(0.99)),
        span(h.quantile_ns(0.999)),
        span(h.max_ns()),
        span(h.mean_ns())
    )
}

/// Nanoseconds with three significant digits and a fitting unit.
pub fn span(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// Bytes with a fitting unit.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A whole number with its thousands apart.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate: whole above 100, else with decimals.
pub(crate) fn number(value: f64) -> String {
    if value >= 100.0 { grouped(whole(value.round())) } else { format!("{value:.2}") }
}

/// The whole part of a number; below 0 and NaN are 0.
pub(crate) fn whole(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "saturating, and the fraction is not wanted")]
    let whole = value as u64;
    whole
}

fn seconds(ns: u64) -> String {
    format!("{:.2} s", ns as f64 / 1e9)
}

fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Live;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(span(850), "850 ns");
        assert_eq!(span(1_234), "1.23 µs");
        assert_eq!(span(97_600), "97.6 µs");
        assert_eq!(span(120_000_000), "120 ms");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(12), "12 B");
    }

    #[test]
    fn text_and_json_tell_the_same_story() {
        let live = Live::new();
        live.set_elapsed_ns(2_000_000_000);
        live.record_call(Status::OK, 100_000);
        live.record_call(Status::OK, 100_000);
        live.record_call(Status::UNAVAILABLE, 50_000);
        live.record_unanswered(2_000_000);
        let config = LoadConfig { method: "/p.S/M".to_owned(), ..LoadConfig::default() };
        let summary =
            Summary { config, seen: live.snapshot(), samples: vec![], troubles: vec![], messages: vec![] };
        let json = summary.json();
        assert_eq!((&json["calls"], &json["ok"], &json["failed"]), (&json!(3), &json!(2), &json!(2)));
        assert_eq!(json["calls_per_s"], json!(1.5));
        assert_eq!(json["statuses"], json!({ "OK": 2, "UNAVAILABLE": 1 }));
        let text = summary.text();
        assert!(
            text.contains("UNAVAILABLE") && text.contains("no answer") && text.contains("1.50 calls/s"),
            "{text}"
        );
        assert!(!summary.is_failure());
    }
}
