//! An explanation for programs. Names are stable: they may be added to, never changed.

use std::fmt;

use super::Report;
use super::facts::{ChainFacts, HandlerFacts, LinkFacts, ParamKind};
use super::model;
use super::routes;
use crate::vm::Image;

/// A JSON value.
pub(super) enum Json {
    Null,
    Bool(bool),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Json {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Uint(n) => write!(f, "{n}"),
            Self::Float(x) if x.is_finite() => write!(f, "{x}"),
            Self::Float(_) => f.write_str("null"),
            Self::Text(text) => quoted(f, text),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}\"{name}\":{value}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

fn texts(of: &[String]) -> Json {
    Json::List(of.iter().map(Json::from).collect())
}

pub(super) fn render(report: &Report<'_>) -> Json {
    let rules = report.analysis.rules.iter().zip(model::chains_by_rule(report)).enumerate();
    let rules = rules.map(|(at, (rule, chains))| {
        let shown = |c: &(usize, Vec<usize>)| {
            let (facts, image) = (report.analysis.chains.get(c.0)?, report.images.get(c.0)?);
            Some(chain(report, &c.1, facts, image))
        };
        let mut wins = Vec::new();
        let mut yields = Vec::new();
        for (other_at, other) in report.analysis.rules.iter().enumerate() {
            if rule.every || other.every || other_at == at || !routes::meet(rule, other) {
                continue;
            }
            let named = |why: &str| {
                Json::Object(vec![
                    ("rule", (&other.text).into()),
                    ("line", Json::Uint(other.line.into())),
                    ("reason", why.into()),
                ])
            };
            wins.extend(routes::wins(rule, other).map(named));
            yields.extend(routes::wins(other, rule).map(named));
        }
        Json::Object(vec![
            ("rule", (&rule.text).into()),
            ("file", (&*rule.file).into()),
            ("line", Json::Uint(rule.line.into())),
            ("every", Json::Bool(rule.every)),
            ("operator", Json::Bool(rule.operator)),
            ("calls", Json::Text(routes::covers(report, &rule.sources, rule.destination, &rule.method))),
            ("wins_over", Json::List(wins)),
            ("yields_to", Json::List(yields)),
            ("chains", Json::List(chains.iter().filter_map(shown).collect())),
        ])
    });
    let notes = report.notes.to_string();
    Json::Object(vec![
        ("file", (&report.program.file).into()),
        ("rules", Json::List(rules.collect())),
        ("notes", Json::List(notes.lines().map(Json::from).collect())),
    ])
}

fn chain(report: &Report<'_>, of: &[usize], facts: &ChainFacts, image: &Image) -> Json {
    let calls = of.iter().filter_map(|r| report.program.routes.get(*r));
    let calls = calls.map(|r| Json::Text(routes::covers(report, &[r.source], r.destination, &r.method)));
    let wait = |w: model::Wait| {
        Json::Object(vec![("waits_for_message", Json::Bool(w.waits)), ("why", Json::Text(w.sentence))])
    };
    let functions = model::functions(report, facts, image).into_iter().map(|f| {
        Json::Object(vec![
            ("entry", f.name.into()),
            ("elements", Json::List(f.elements.iter().map(|n| Json::Uint(*n as u64)).collect())),
            ("instructions", Json::Uint(f.instructions as u64)),
            ("worst_case", Json::Uint(f.worst_case)),
            ("suspends", Json::Uint(f.suspends as u64)),
        ])
    });
    let states = image
        .states
        .iter()
        .map(|s| Json::Object(vec![("key", (&s.key).into()), ("shape", Json::Text(s.described()))]));
    let order = model::neighbours(facts).into_iter().map(|(left, verdict)| {
        Json::Object(vec![
            ("left", Json::Uint(left as u64)),
            ("right", Json::Uint(left as u64 + 1)),
            ("swappable", Json::Bool(verdict.swappable)),
            ("why", Json::Text(verdict.why)),
        ])
    });
    Json::Object(vec![
        ("calls", Json::List(calls.collect())),
        ("elements", Json::List(facts.links.iter().map(link).collect())),
        ("request", wait(model::request_wait(facts, image))),
        ("answer", wait(model::response_wait(facts, image))),
        ("sealed", texts(&model::boundaries(report.program, image))),
        ("functions", Json::List(functions.collect())),
        ("call_words", Json::Uint(image.plan.call_words as u64)),
        ("state", Json::List(states.collect())),
        ("order", Json::List(order.collect())),
    ])
}

fn link(link: &LinkFacts) -> Json {
    let element = &link.element;
    let params = element.params.iter().map(|p| {
        let kind = match p.kind {
            ParamKind::Constant => "constant",
            ParamKind::PerCall => "once a call",
            ParamKind::Unread => "never evaluated",
        };
        Json::Object(vec![("name", (&p.name).into()), ("value", (&p.value).into()), ("kind", kind.into())])
    });
    let states = element.states.iter().map(|s| {
        Json::Object(vec![
            ("name", (&s.name).into()),
            ("scope", s.scope.into()),
            ("type", (&s.ty).into()),
            ("atomic", s.atomic.into()),
        ])
    });
    Json::Object(vec![
        ("name", (&element.name).into()),
        ("text", (&element.text).into()),
        ("file", (&*link.file).into()),
        ("line", Json::Uint(link.line.into())),
        ("dry", Json::Bool(element.dry)),
        ("when", element.when.as_ref().map_or(Json::Null, Json::from)),
        ("arguments", Json::List(params.collect())),
        ("state", Json::List(states.collect())),
        ("handlers", Json::List(element.handlers.iter().map(handler).collect())),
    ])
}

fn handler(h: &HandlerFacts) -> Json {
    let chance = |c: Option<f64>| c.map_or(Json::Null, Json::Float);
    let rejects = h.rejects.iter().map(|r| {
        Json::Object(vec![
            ("status", (&r.status).into()),
            ("text", (&r.text).into()),
            ("line", Json::Uint(r.line.into())),
            ("chance", chance(r.chance)),
            ("passes_when_absent", texts(&r.passes)),
        ])
    });
    let delays = h.delays.iter().map(|d| {
        Json::Object(vec![
            ("time", (&d.time).into()),
            ("line", Json::Uint(d.line.into())),
            ("chance", chance(d.chance)),
        ])
    });
    let folded = h.folded.iter().map(|f| {
        let because = f.because.iter().map(|(n, v)| Json::Text(format!("{n} = {v}")));
        Json::Object(vec![
            ("what", (&f.what).into()),
            ("is", (&f.is).into()),
            ("because", Json::List(because.collect())),
            ("line", Json::Uint(f.line.into())),
        ])
    });
    Json::Object(vec![
        ("handler", h.kind.into()),
        ("reads", texts(&h.reads)),
        ("writes", texts(&h.writes)),
        ("does", texts(&h.does)),
        ("rejects", Json::List(rejects.collect())),
        ("delays", Json::List(delays.collect())),
        ("decided", Json::List(folded.collect())),
    ])
}
