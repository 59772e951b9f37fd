//! What follows from the facts of one chain: its entries, what it waits for, what it remembers, its order.

use abi::Entry;

use super::Report;
use super::facts::{ChainFacts, ElementFacts};
use super::order::{self, Verdict};
use crate::vm::Image;

/// One compiled function.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Elements that are in it, in the order they run, from 1.
    pub(super) elements: Vec<usize>,
    pub(super) instructions: usize,
    pub(super) worst_case: u64,
    /// Places where a call may be suspended.
    pub(super) suspends: usize,
}

/// What a direction waits for.
pub(super) struct Wait {
    pub(super) waits: bool,
    pub(super) sentence: String,
}

/// Elements whose `request` runs in `Entry::Pick`: nobody to their right chooses an endpoint otherwise.
pub(super) fn picks(chain: &ChainFacts) -> Vec<bool> {
    let mut out = vec![false; chain.links.len()];
    let mut chosen_later = false;
    for (at, link) in chain.links.iter().enumerate().rev() {
        let element = &link.element;
        if let Some(slot) = out.get_mut(at) {
            *slot = element.only_chooses && !chosen_later;
        }
        let writes =
            element.handlers.iter().any(|h| h.is_request() && h.writes.iter().any(|w| w == "endpoint"));
        chosen_later |= writes && !element.only_chooses;
    }
    out
}

/// The functions of a chain.
pub(super) fn functions(report: &Report<'_>, chain: &ChainFacts, image: &Image) -> Vec<Function> {
    let picks = picks(chain);
    let endpoints = report.program.services.iter().map(|s| s.endpoints.len()).max().unwrap_or(0);
    let has = |element: &ElementFacts, kind: &str| {
        element.handlers.iter().any(|h| h.kind == kind) || (kind == "request" && element.when.is_some())
    };
    let all = [
        (Entry::Request, "request"),
        (Entry::Pick, "pick"),
        (Entry::RequestMessage, "request message"),
        (Entry::ResponseMessage, "response message"),
        (Entry::Response, "response"),
    ];
    let mut out = Vec::new();
    for (entry, name) in all {
        let Some(code) = image.code(entry) else { continue };
        let is_in = |(at, link): &(usize, &super::facts::LinkFacts)| {
            let picks = picks.get(*at).copied().unwrap_or(false);
            match entry {
                Entry::Pick => picks,
                Entry::Request => has(&link.element, name) && !picks,
                _ => has(&link.element, name),
            }
        };
        let mut elements: Vec<usize> =
            chain.links.iter().enumerate().filter(is_in).map(|(at, _)| at + 1).collect();
        if matches!(entry, Entry::Response | Entry::ResponseMessage) {
            elements.reverse();
        }
        out.push(Function {
            name,
            elements,
            instructions: code.ops.len(),
            worst_case: crate::lower::worst_case(&image.shared, code, endpoints),
            suspends: code.segments.len(),
        });
    }
    out
}

/// Who reads or writes the message of a side, and what of it.
fn message_users(chain: &ChainFacts, kind: &str) -> Vec<String> {
    let of_message = |w: &&String| *w == "size" || w.starts_with("payload");
    let mut out = Vec::new();
    for link in &chain.links {
        for h in link.element.handlers.iter().filter(|h| h.kind == kind) {
            let reads: Vec<&str> = h.reads.iter().filter(of_message).map(String::as_str).collect();
            let writes: Vec<&str> = h.writes.iter().filter(of_message).map(String::as_str).collect();
            if !reads.is_empty() {
                out.push(format!("{} reads {}", link.element.name, reads.join(", ")));
            } else if !writes.is_empty() {
                out.push(format!("{} writes {}", link.element.name, writes.join(", ")));
            }
        }
    }
    out
}

fn because(users: Vec<String>) -> String {
    if users.is_empty() { "an element needs it".to_owned() } else { users.join(", ") }
}

/// What the request waits for.
pub(super) fn request_wait(chain: &ChainFacts, image: &Image) -> Wait {
    let plan = &image.plan;
    let sentence = if plan.request_payload {
        format!("waits for the request message, because {}", because(message_users(chain, "request")))
    } else if plan.request_message {
        "headers only, forwarded before the first message byte; then each message passes `request message`"
            .to_owned()
    } else {
        "headers only: forwarded before the first message byte".to_owned()
    };
    Wait { waits: plan.request_payload, sentence }
}

/// What the answer waits for.
pub(super) fn response_wait(chain: &ChainFacts, image: &Image) -> Wait {
    let plan = &image.plan;
    let sentence = if plan.response_payload {
        format!(
            "answers are held until their trailers, because {}",
            because(message_users(chain, "response"))
        )
    } else if plan.response_message {
        "answers flow; each message passes `response message`".to_owned()
    } else if plan.response {
        "answers flow at once; `response` runs when the outcome is known, and what it writes travels as trailers"
            .to_owned()
    } else {
        "answers flow at once, untouched".to_owned()
    };
    Wait { waits: plan.response_payload, sentence }
}

/// Where messages are opened and sealed, in the order they pass.
pub(super) fn boundaries(program: &abi::Program, image: &Image) -> Vec<String> {
    let plan = &image.plan;
    let name = |key: Option<abi::KeyIdx>| key.and_then(|k| program.keys.get(usize::from(k.0)));
    let mut out = Vec::new();
    for (what, boundary, to) in [
        ("requests", plan.request_boundary, "the endpoint"),
        ("answers", plan.response_boundary, "the caller"),
    ] {
        let opens = name(boundary.opens)
            .map(|key| format!("come sealed with key \"{key}\" and are opened before any element sees them"));
        let seals = name(boundary.seals)
            .map(|key| format!("are sealed with key \"{key}\" when they leave for {to}, each message whole"));
        let said: Vec<String> = opens.into_iter().chain(seals).collect();
        if !said.is_empty() {
            out.push(format!("{what} {}", said.join("; they ")));
        } else if plan.request_boundary.is_any() || plan.response_boundary.is_any() {
            out.push(format!("{what} travel as they are"));
        }
    }
    out
}

/// Each pair of neighbours, the left one from 1.
pub(super) fn neighbours(chain: &ChainFacts) -> Vec<(usize, Verdict)> {
    let pairs = chain.links.iter().zip(chain.links.iter().skip(1));
    pairs.enumerate().map(|(at, (l, r))| (at + 1, order::neighbours(&l.element, &r.element))).collect()
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    let rounded = (share * 1e6).round() / 1e4;
    format!("{rounded} %")
}

/// Chains of each rule: with the routes that share one, as places in the program's routes. The rule's own
/// calls come first, then those that `every` rules narrow.
pub(super) fn chains_by_rule(report: &Report<'_>) -> Vec<Vec<(usize, Vec<usize>)>> {
    let mut out: Vec<Vec<(usize, Vec<usize>)>> = vec![Vec::new(); report.analysis.rules.len()];
    for (at, (of, route)) in report.analysis.routes.iter().zip(report.program.routes.iter()).enumerate().rev()
    {
        let chain = usize::try_from(route.chain).unwrap_or(usize::MAX);
        let Some(chains) = out.get_mut(usize::try_from(*of).unwrap_or(usize::MAX)) else { continue };
        match chains.iter_mut().find(|(c, _)| *c == chain) {
            Some((_, routes)) => routes.push(at),
            None => chains.push((chain, vec![at])),
        }
    }
    out
}
