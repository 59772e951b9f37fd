//! Which calls a rule covers, and which of two rules serves a call.

use abi::{MethodMatch, Program, ServiceIdx};

use super::Report;
use super::facts::RuleFacts;

/// How specific a rule is: method, destination, source, in this order.
fn rank(rule: &RuleFacts) -> (u8, bool, bool) {
    let method = match rule.method {
        MethodMatch::Any => 0,
        MethodMatch::Service(_) => 1,
        MethodMatch::Method(..) => 2,
    };
    (method, rule.destination.is_some(), rule.sources.iter().any(Option::is_some))
}

fn methods_meet(a: &MethodMatch, b: &MethodMatch) -> bool {
    match (a, b) {
        (MethodMatch::Any, MethodMatch::Service(s) | MethodMatch::Method(s, _))
        | (MethodMatch::Service(s) | MethodMatch::Method(s, _), MethodMatch::Any) => !Program::is_reserved(s),
        (MethodMatch::Any, MethodMatch::Any) => true,
        (MethodMatch::Method(s, m), MethodMatch::Method(t, n)) => s == t && m == n,
        (
            MethodMatch::Service(s) | MethodMatch::Method(s, _),
            MethodMatch::Service(t) | MethodMatch::Method(t, _),
        ) => s == t,
    }
}

/// There are calls that both cover.
pub(super) fn meet(a: &RuleFacts, b: &RuleFacts) -> bool {
    let destination = match (a.destination, b.destination) {
        (Some(x), Some(y)) => x == y,
        _ => true,
    };
    let source = a.sources.iter().any(|x| x.is_none() || b.sources.iter().any(|y| y.is_none() || x == y));
    destination && source && methods_meet(&a.method, &b.method)
}

/// Why `winner` serves the calls of both; `None` if it does not.
pub(super) fn wins(winner: &RuleFacts, loser: &RuleFacts) -> Option<&'static str> {
    let (w, l) = (rank(winner), rank(loser));
    Some(match () {
        () if w.0 > l.0 && w.0 == 2 => "it names the method",
        () if w.0 > l.0 => "it names the gRPC service",
        () if w.0 < l.0 => return None,
        () if w.1 && !l.1 => "it names the called service",
        () if w.1 != l.1 => return None,
        () if w.2 && !l.2 => "it names the caller",
        () => return None,
    })
}

/// Why a rule does not cover a call; `None` if it does.
pub(super) fn misses(
    report: &Report<'_>,
    rule: &RuleFacts,
    source: Option<ServiceIdx>,
    destination: ServiceIdx,
    service: &str,
    method: &str,
) -> Option<String> {
    let name = |s: Option<ServiceIdx>| report.program.service_name(s).to_owned();
    if rule.destination.is_some_and(|d| d != destination) {
        return Some(format!("it is for calls to {}", name(rule.destination)));
    }
    if !rule.sources.iter().any(|s| s.is_none() || *s == source) {
        let of: Vec<String> = rule.sources.iter().map(|s| name(*s)).collect();
        return Some(format!("it is for calls from {}", of.join(", ")));
    }
    match &rule.method {
        MethodMatch::Any if Program::is_reserved(service) => {
            Some("health checks and reflection match only rules that name them".to_owned())
        }
        MethodMatch::Service(s) if s != service => Some(format!("it is for methods of {s}")),
        MethodMatch::Method(s, m) if s != service || m != method => Some(format!("it is for {s}/{m}")),
        _ => None,
    }
}

/// The calls of a key, in words.
pub(super) fn covers(
    report: &Report<'_>,
    sources: &[Option<ServiceIdx>],
    destination: Option<ServiceIdx>,
    method: &MethodMatch,
) -> String {
    let name = |s: Option<ServiceIdx>| match s {
        Some(_) => report.program.service_name(s).to_owned(),
        None => "anybody".to_owned(),
    };
    let to = match destination {
        Some(_) => report.program.service_name(destination).to_owned(),
        None => "any service".to_owned(),
    };
    let what = match method {
        MethodMatch::Any => format!("every method of {to}"),
        MethodMatch::Service(s) => format!("the methods of {s} at {to}"),
        MethodMatch::Method(s, m) => format!("{s}/{m} at {to}"),
    };
    let from: Vec<String> = sources.iter().map(|s| name(*s)).collect();
    let but = if *method == MethodMatch::Any { ", but for health checks and reflection" } else { "" };
    format!("{what}, called by {}{but}", from.join(" or "))
}
