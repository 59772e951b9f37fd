//! The report of a load as one self-contained page: no script, no font, nothing fetched.

mod plot;

use std::fmt::Write as _;

use crate::load::Pace;
use crate::summary::{Summary, grouped, number, size, span, whole};
use plot::{Area, Axis, Plot};

const STYLE: &str = include_str!("report/style.css");

/// The page.
pub fn html(summary: &Summary) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let title = format!("{} → {}", escaped(&summary.config.method), escaped(&summary.targets()));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>pktgen: {title}</title>\
         <style>{STYLE}</style></head>\n<body><main>\n<header><h1>{}</h1><p>→ {}</p><p class=\"dim\">{}, {} \
         messages; {} counted after {} of warm-up</p></header>\n",
        escaped(&summary.config.method),
        escaped(&summary.targets()),
        summary.pace_text(),
        size(u64::from(summary.config.message_bytes)),
        span(summary.seen.elapsed_ns),
        span(u64::try_from(summary.config.warm_up.as_nanos()).unwrap_or(u64::MAX)),
    );
    tiles(&mut out, summary);
    if summary.seen.latency.count() > 0 {
        percentiles(&mut out, summary);
    }
    if summary.samples.len() > 1 {
        over_time(&mut out, summary);
    }
    outcomes(&mut out, summary);
    let _ = write!(
        out,
        "<footer>Written by pktgen {}. Latency runs {}. Percentiles are exact to 0.4 %.</footer>\n\
         </main></body></html>\n",
        env!("CARGO_PKG_VERSION"),
        summary.latency_note(),
    );
    out
}

/// Microseconds as a tick's label.
fn us_label(us: f64) -> String {
    span(whole((us * 1e3).round())).replace(".00", "").replace(".0 ", " ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn tiles(out: &mut String, summary: &Summary) {
    let seen = &summary.seen;
    let all = seen.ok() + seen.failed();
    let ok = if all == 0 { 0.0 } else { seen.ok() as f64 * 100.0 / all as f64 };
    let latency = |q: f64| span(seen.latency.quantile_ns(q));
    let tiles = [
        ("calls a second", number(seen.calls_per_s()), ""),
        ("calls", grouped(seen.calls()), ""),
        ("ok", format!("{ok:.2} %"), if seen.failed() > 0 { "bad" } else { "" }),
        ("p50", latency(0.5), ""),
        ("p99", latency(0.99), ""),
        ("p99.9", latency(0.999), ""),
        ("max", span(seen.latency.max_ns()), ""),
    ];
    out.push_str("<section class=\"tiles\">");
    for (name, value, class) in tiles {
        let _ = write!(out, "<div><b class=\"{class}\">{value}</b><span>{name}</span></div>");
    }
    out.push_str("</section>\n");
}

/// Latency by percentile; the abscissa is 1/(1-q), so that each decade is one more nine.
fn percentiles(out: &mut String, summary: &Summary) {
    let latency = &summary.seen.latency;
    let us = |ns: u64| (ns as f64 / 1e3).max(0.001);
    let last = (latency.count() as f64).clamp(10.0, 1e6);
    let share = |x: f64| 1.0 - 1.0 / x;
    let steps = 160u32;
    let xs = (0..=steps).map(|i| last.powf(f64::from(i) / f64::from(steps)));
    let mut points: Vec<(f64, f64)> = xs.map(|x| (x, us(latency.quantile_ns(share(x))))).collect();
    if let Some(end) = points.last_mut() {
        end.1 = us(latency.max_ns());
    }
    let nines =
        [(1.0, "0 %"), (2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %")];
    let nines = nines.into_iter().chain([(1e5, "99.999 %"), (1e6, "99.9999 %")]);
    let ticks = nines.filter(|(x, _)| *x <= last).map(|(x, label)| (x, label.to_owned())).collect();
    let y = Axis::log(us(latency.min_ns()), us(latency.max_ns()), us_label);
    let mut plot = Plot::new(Axis::marked(1.0, last, ticks), y);
    plot.series("p50", Area::Filled, &points);
    for (q, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")] {
        let x = 1.0 / (1.0 - q);
        if x <= last {
            let value = latency.quantile_ns(q);
            plot.mark("p50", x, us(value), &format!("{name} {}", span(value)));
        }
    }
    let _ = writeln!(
        out,
        "<section><h2>Latency by percentile</h2><p class=\"dim\">{}</p>{}</section>",
        summary.latency_note(),
        plot.svg("Latency by percentile")
    );
}

fn over_time(out: &mut String, summary: &Summary) {
    let samples = &summary.samples;
    let end = samples.last().map_or(1.0, |s| s.at_s);
    let time = || Axis::linear_to(end, |v| format!("{v} s"));
    let peak = samples.iter().map(|s| s.calls_per_s).fold(0.0, f64::max);
    let wanted = match summary.config.pace {
        Pace::Open { calls_per_s } => calls_per_s,
        Pace::Closed { .. } => 0.0,
    };
    let rate = Axis::linear(peak.max(wanted) * 1.05, |v| number(v).replace(".00", ""));
    let mut plot = Plot::new(time(), rate);
    let of =
        |f: fn(&crate::summary::Sample) -> f64| samples.iter().map(|s| (s.at_s, f(s))).collect::<Vec<_>>();
    plot.series("rate", Area::Filled, &of(|s| s.calls_per_s));
    let has_failed = samples.iter().any(|s| s.failed_per_s > 0.0);
    if has_failed {
        plot.series("failed", Area::Filled, &of(|s| s.failed_per_s));
    }
    if wanted > 0.0 {
        plot.series("wanted", Area::Open, &[(0.0, wanted), (end, wanted)]);
    }
    let failed_key = if has_failed { "<i class=\"failed\"></i>failed" } else { "" };
    let wanted_key = if wanted > 0.0 { "<i class=\"wanted\"></i>due" } else { "" };
    let _ = writeln!(
        out,
        "<section><h2>Calls a second</h2><p class=\"dim key\"><i class=\"rate\"></i>ended {failed_key} \
         {wanted_key}</p>{}</section>",
        plot.svg("Calls a second over time")
    );
    let seen: Vec<_> = samples.iter().filter(|s| s.p99_ns > 0).collect();
    if seen.len() < 2 {
        return;
    }
    let us = |ns: u64| (ns as f64 / 1e3).max(0.001);
    let low = seen.iter().map(|s| us(s.p50_ns)).fold(f64::MAX, f64::min);
    let high = seen.iter().map(|s| us(s.p99_ns)).fold(0.0, f64::max);
    let mut plot = Plot::new(time(), Axis::log(low, high, us_label));
    plot.series("p99", Area::Open, &seen.iter().map(|s| (s.at_s, us(s.p99_ns))).collect::<Vec<_>>());
    plot.series("p50", Area::Open, &seen.iter().map(|s| (s.at_s, us(s.p50_ns))).collect::<Vec<_>>());
    let _ = writeln!(
        out,
        "<section><h2>Latency over time</h2><p class=\"dim key\"><i class=\"p50\"></i>p50 \
         <i class=\"p99\"></i>p99, each of its interval</p>{}</section>",
        plot.svg("Latency over time")
    );
}

fn outcomes(out: &mut String, summary: &Summary) {
    let seen = &summary.seen;
    let all = (seen.ok() + seen.failed()).max(1);
    out.push_str("<section class=\"pair\"><div><h2>How calls ended</h2><table>");
    for (name, n) in summary.outcomes() {
        let share = n as f64 * 100.0 / all as f64;
        let class = if name == "OK" { "ok" } else { "bad" };
        let _ = write!(
            out,
            "<tr><td>{name}</td><td class=\"n\">{}</td><td class=\"n\">{share:.2} %</td>\
             <td class=\"bar\"><div class=\"{class}\" style=\"width:{:.1}%\"></div></td></tr>",
            grouped(n),
            share.max(0.5)
        );
    }
    for (status, text) in &summary.messages {
        let name = status.name();
        let _ = write!(out, "<tr><td colspan=\"4\" class=\"dim\">{name}: {}</td></tr>", escaped(text));
    }
    out.push_str("</table></div><div><h2>Figures</h2><table>");
    let latency = &seen.latency;
    let mut rows = vec![
        ("latency, mean", span(latency.mean_ns())),
        ("latency, min", span(latency.min_ns())),
        ("latency, p90", span(latency.quantile_ns(0.9))),
        ("latency, p99.99", span(latency.quantile_ns(0.9999))),
        ("bytes sent", size(seen.tx_bytes)),
        ("bytes received", size(seen.rx_bytes)),
    ];
    if seen.lateness.count() > 0 {
        let late = &seen.lateness;
        rows.push(("sent after due, p50", span(late.quantile_ns(0.5))));
        rows.push(("sent after due, p99", span(late.quantile_ns(0.99))));
    }
    if seen.requeued > 0 {
        rows.push(("sent again after GOAWAY", grouped(seen.requeued)));
    }
    for (name, value) in rows {
        let _ = write!(out, "<tr><td>{name}</td><td class=\"n\">{value}</td></tr>");
    }
    out.push_str("</table></div></section>\n");
    if !summary.troubles.is_empty() {
        out.push_str("<section><h2>Troubles with connections</h2><table>");
        for (what, n) in &summary.troubles {
            let _ = write!(out, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escaped(what), grouped(*n));
        }
        out.push_str("</table></section>\n");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::load::LoadConfig;
    use crate::stats::Live;
    use crate::summary::Sample;
    use abi::Status;

    #[test]
    fn the_page_is_whole_and_self_contained() {
        let live = Arc::new(Live::new());
        live.set_elapsed_ns(3_000_000_000);
        for i in 1..5000u64 {
            live.record_call(if i % 10 == 0 { Status::UNAVAILABLE } else { Status::OK }, i * 1000);
        }
        let sample = |i: u32| Sample {
            at_s: f64::from(i),
            calls_per_s: 1e4,
            failed_per_s: 10.0,
            p50_ns: 1000,
            p99_ns: 9000,
        };
        let summary = Summary {
            config: LoadConfig { method: "/<p>.S/M&N".to_owned(), ..LoadConfig::default() },
            seen: live.snapshot(),
            samples: (1..4).map(sample).collect(),
            troubles: vec![("127.0.0.1:9: refused".to_owned(), 3)],
            messages: vec![(Status::UNAVAILABLE, "<away>".to_owned())],
        };
        let page = html(&summary);
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("/&lt;p>.S/M&amp;N") && page.contains("UNAVAILABLE"));
        assert!(!page.contains("NaN") && !page.contains("inf ") && !page.contains("http"), "self-contained");
        for tag in ["section", "table", "svg", "div", "main"] {
            let (open, close) =
                (page.matches(&format!("<{tag}")).count(), page.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
    }
}
