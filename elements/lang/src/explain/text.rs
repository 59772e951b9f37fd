//! An explanation for people.

use std::fmt::Write;

use super::Report;
use super::facts::{ChainFacts, ElementFacts, HandlerFacts, LinkFacts, ParamKind, RuleFacts};
use super::model::{self, percent};
use super::routes;
use crate::vm::Image;

/// Other rules named for one.
const NEIGHBOURS_MAX: usize = 6;
/// Columns of a heading within a chain.
const HEADING: usize = 10;

pub(super) fn render(report: &Report<'_>) -> String {
    let mut out = String::new();
    let analysis = report.analysis;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{}: {}, {} in {}",
        report.program.file,
        count(analysis.rules.len(), "rule"),
        count(report.program.routes.len(), "route"),
        count(report.images.len(), "chain"),
    );
    let chains = model::chains_by_rule(report);
    for (at, (rule, chains)) in analysis.rules.iter().zip(&chains).enumerate() {
        let _ = writeln!(out, "\n{}   ({}:{})", rule.text, rule.file, rule.line);
        let calls = routes::covers(report, &rule.sources, rule.destination, &rule.method);
        entry(&mut out, "calls", &calls);
        if rule.every {
            let owner = if rule.operator { "the operator's; " } else { "" };
            entry(
                &mut out,
                "stands",
                &format!("{owner}left of each rule that serves such calls; it cannot be overridden"),
            );
            continue;
        }
        specificity(report, &mut out, at, rule);
        for (chain, of) in chains {
            if chains.len() > 1 {
                let keys: Vec<String> = of
                    .iter()
                    .filter_map(|r| report.program.routes.get(*r))
                    .map(|r| routes::covers(report, &[r.source], r.destination, &r.method))
                    .collect();
                let _ = writeln!(out, "\n  for {}", keys.join("; and for "));
            }
            if let (Some(facts), Some(image)) = (analysis.chains.get(*chain), report.images.get(*chain)) {
                self::chain(report, &mut out, at, facts, image);
            }
        }
    }
    if !report.notes.is_empty() {
        let _ = writeln!(out, "\nnotes");
        for line in report.notes.to_string().lines() {
            let _ = writeln!(out, "  {}", line.replace(": note: ", ": "));
        }
    }
    out
}

/// One line under a heading; an empty heading goes on with the last.
fn entry(out: &mut String, heading: &str, text: &str) {
    let _ = writeln!(out, "  {heading:HEADING$}{text}");
}

/// Lines under one heading.
fn entries(out: &mut String, heading: &str, lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        entry(out, if at == 0 { heading } else { "" }, line);
    }
}

/// Which other rules meet this one, and who wins.
fn specificity(report: &Report<'_>, out: &mut String, at: usize, rule: &RuleFacts) {
    let mut over = Vec::new();
    let mut under = Vec::new();
    let mut more = 0;
    for (other_at, other) in report.analysis.rules.iter().enumerate() {
        if other.every || other_at == at || !routes::meet(rule, other) {
            continue;
        }
        let shown = |why: &str| format!("`{}` ({}:{}): {why}", other.text, other.file, other.line);
        if over.len() + under.len() == NEIGHBOURS_MAX {
            more += 1;
        } else if let Some(why) = routes::wins(rule, other) {
            over.push(shown(why));
        } else if let Some(why) = routes::wins(other, rule) {
            under.push(shown(why));
        }
    }
    entries(out, "wins over", &over);
    entries(out, "yields to", &under);
    if more > 0 {
        entry(out, "", &format!("… and {more} more rules meet it"));
    }
}

fn chain(report: &Report<'_>, out: &mut String, rule: usize, facts: &ChainFacts, image: &Image) {
    for (at, link) in facts.links.iter().enumerate() {
        self::link(out, at + 1, rule, link);
    }
    out.push('\n');
    entry(out, "request", &model::request_wait(facts, image).sentence);
    entry(out, "answer", &model::response_wait(facts, image).sentence);
    entries(out, "sealed", &model::boundaries(report.program, image));
    entries(out, "code", &code(report, facts, image));
    let state: Vec<String> = image
        .states
        .iter()
        .map(|s| format!("{}: {}; a reload keeps it as long as both stay", s.key, s.described()))
        .collect();
    entries(out, "state", &state);
    if image.plan.call_words > 0 {
        entry(
            out,
            "a call",
            &format!("keeps {} words of its own from request to response", image.plan.call_words),
        );
    }
    let order: Vec<String> = model::neighbours(facts)
        .into_iter()
        .map(|(at, verdict)| {
            let says = if verdict.swappable { "could be swapped" } else { "stay as they are" };
            format!("{at} and {} {says}: {}", at + 1, verdict.why)
        })
        .collect();
    entries(out, "order", &order);
}

fn code(report: &Report<'_>, facts: &ChainFacts, image: &Image) -> Vec<String> {
    let mut out = Vec::new();
    for f in model::functions(report, facts, image) {
        let elements: Vec<String> = f.elements.iter().map(usize::to_string).collect();
        let which = match elements.as_slice() {
            [] => "no element".to_owned(),
            [one] => format!("element {one}"),
            many => format!("elements {} in one function", many.join(", ")),
        };
        let mut line = format!(
            "{}: {which}, {} instructions, at most {} operations",
            f.name, f.instructions, f.worst_case
        );
        if f.suspends > 0 {
            let _ = write!(
                line,
                "; may be suspended in {} place{}",
                f.suspends,
                if f.suspends == 1 { "" } else { "s" }
            );
        }
        if f.name == "pick" {
            line.push_str("; once for every attempt");
        }
        out.push(line);
    }
    if out.is_empty() {
        out.push("none: no element of it has anything to do".to_owned());
    }
    out
}

fn link(out: &mut String, number: usize, rule: usize, link: &LinkFacts) {
    let element = &link.element;
    let mut title = element.text.clone();
    if let Some(when) = &element.when {
        let _ = write!(title, " when ({when})");
    }
    if element.dry {
        title.push_str(" dry");
    }
    let by = if usize::try_from(link.rule) == Ok(rule) { "" } else { "by an `every` rule, " };
    let _ = writeln!(out, "\n  {number} {title}   ({by}{}:{})", link.file, link.line);
    let mut lines = parameters(element);
    if element.dry {
        lines.push((
            "dry".to_owned(),
            "verdicts, delays and writes are counted and logged as `would`, not done".to_owned(),
        ));
    }
    for h in &element.handlers {
        handler(element, h, &mut lines);
    }
    let mut last = String::new();
    for (heading, text) in lines {
        let shown = if heading == last { "" } else { heading.as_str() };
        let _ = writeln!(out, "      {shown:18}{text}");
        last = heading;
    }
}

fn parameters(element: &ElementFacts) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let of = |kind: ParamKind| {
        let some = element.params.iter().filter(move |p| p.kind == kind);
        some.map(|p| format!("{} = {}", p.name, p.value)).collect::<Vec<_>>()
    };
    let constants = of(ParamKind::Constant);
    if !constants.is_empty() {
        out.push(("with".to_owned(), constants.join(", ")));
    }
    for one in of(ParamKind::PerCall) {
        out.push(("once a call".to_owned(), one));
    }
    for one in of(ParamKind::Unread) {
        out.push(("never evaluated".to_owned(), format!("{one}: nothing that is left reads it")));
    }
    for state in &element.states {
        out.push((
            "state".to_owned(),
            format!("{} {}: {}; {}", state.scope, state.name, state.ty, state.atomic),
        ));
    }
    out
}

/// `endpoints' a`, `endpoints' b` as one.
fn gathered(reads: &[String]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut fields = Vec::new();
    for read in reads {
        match read.strip_prefix("endpoints' ") {
            Some(field) => fields.push(field),
            None => out.push(read.clone()),
        }
    }
    if !fields.is_empty() {
        out.retain(|r| r != "endpoints");
        out.push(format!("endpoints ({})", fields.join(", ")));
    }
    out.join(", ")
}

fn chance(share: Option<f64>) -> String {
    share.map(|p| format!(" with a chance of {}", percent(p))).unwrap_or_default()
}

fn handler(element: &ElementFacts, h: &HandlerFacts, out: &mut Vec<(String, String)>) {
    let mut say = |text: String| out.push((h.kind.to_owned(), text));
    let would = if element.dry { "would " } else { "" };
    let verb =
        |plain: &str, s: &str| if element.dry { format!("would {plain}") } else { format!("{plain}{s}") };
    if !h.reads.is_empty() {
        say(format!("reads {}", gathered(&h.reads)));
    }
    if !h.writes.is_empty() {
        say(format!("{} {}", verb("write", "s"), h.writes.join(", ")));
    }
    for what in &h.does {
        say(what.clone());
    }
    for exit in &h.rejects {
        let verb = if h.kind == "response" { "changes the outcome to" } else { "rejects with" };
        let verb = if element.dry { format!("{would}reject with") } else { verb.to_owned() };
        say(format!("{verb} {} {}{} (line {})", exit.status, exit.text, chance(exit.chance), exit.line));
        for absent in &exit.passes {
            say(format!("  passes when {absent} is absent"));
        }
    }
    for wait in &h.delays {
        say(format!("{} {}{} (line {})", verb("wait", "s"), wait.time, chance(wait.chance), wait.line));
    }
    for folded in &h.folded {
        let because: Vec<String> = folded.because.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        let because =
            if because.is_empty() { String::new() } else { format!(" because {}", because.join(", ")) };
        say(format!("decided: `{}` is {}{because} (line {})", folded.what, folded.is, folded.line));
    }
    if h.reads.is_empty()
        && h.writes.is_empty()
        && h.does.is_empty()
        && h.rejects.is_empty()
        && h.delays.is_empty()
    {
        say("does nothing".to_owned());
    }
}
