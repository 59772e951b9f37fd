//! `explain --call`: which rule one imagined call meets, why it won, and what each element does to the call.

use std::fmt::Write;
use std::net::IpAddr;

use abi::{Chain, Entry, Route, ServiceIdx, Status, Suspend, Verdict};

use crate::state::Store;
use crate::suggest::nearest;
use crate::vm::Interpreted;

use super::Report;
use super::facts::{ChainFacts, RuleFacts};
use super::imagined::{View, duration};
use super::model::{self, percent};
use super::routes;

/// A call somebody imagines.
#[derive(Clone, Debug, Default)]
pub struct Imagined {
    /// The calling service; `None` is somebody unknown.
    pub source: Option<String>,
    /// The called service.
    pub destination: String,
    /// `pkg.Service`.
    pub service: String,
    /// `Method`.
    pub method: String,
    /// Metadata, in order.
    pub headers: Vec<(String, String)>,
    /// The request message, encoded.
    pub message: Option<Vec<u8>>,
    /// The peer's address.
    pub peer: Option<IpAddr>,
    /// What its draws derive from.
    pub seed: u64,
    /// How the upstream answers.
    pub status: Status,
}

/// Why a text is no call: one sentence.
pub type ParseError = String;

/// Reads `frontend -> catalog.pkg.Service/Method`; `*` calls as nobody known.
///
/// # Errors
/// What was expected.
pub fn parse_call(text: &str) -> Result<Imagined, ParseError> {
    let shape = || format!("`{text}` is no call; expected 'frontend -> catalog.pkg.Service/Method'");
    let (source, to) = text.split_once("->").or_else(|| text.split_once('→')).ok_or_else(shape)?;
    let (source, to) = (source.trim(), to.trim());
    let unquoted = |s: &str| s.trim_matches('"').to_owned();
    let (destination, path) = match to.strip_prefix('"') {
        Some(rest) => rest.split_once("\".").ok_or_else(shape)?,
        None => to.split_once('.').ok_or_else(shape)?,
    };
    let (service, method) = path.rsplit_once('/').ok_or_else(shape)?;
    if source.is_empty() || destination.is_empty() || service.is_empty() || method.is_empty() {
        return Err(shape());
    }
    Ok(Imagined {
        source: (source != "*").then(|| unquoted(source)),
        destination: destination.to_owned(),
        service: service.to_owned(),
        method: method.to_owned(),
        ..Imagined::default()
    })
}

fn service(report: &Report<'_>, name: &str) -> Result<ServiceIdx, String> {
    report.program.service(name).ok_or_else(|| {
        let known: Vec<&str> = report.program.services.iter().map(|s| s.name.as_str()).collect();
        let near = nearest(name, known.iter().copied()).map(|n| format!("; did you mean `{n}`?"));
        format!(
            "no service `{name}` in {} (known: {}){}",
            report.program.file,
            known.join(", "),
            near.unwrap_or_default()
        )
    })
}

/// The explanation.
///
/// # Errors
/// One line, when a service is unknown.
pub(super) fn render(report: &Report<'_>, call: &Imagined) -> Result<String, String> {
    let source = call.source.as_deref().map(|name| service(report, name)).transpose()?;
    let to = service(report, &call.destination)?;
    let mut out = String::new();
    let from = call.source.as_deref().unwrap_or("*");
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "{from} -> {}.{}/{}", call.destination, call.service, call.method);
    let found = report.program.routes.find(source, to, &call.service, &call.method);
    let winner = winner(report, found);
    rules(report, &mut out, call, winner, source, to);
    let chain = found.and_then(|route| usize::try_from(route.chain).ok());
    match chain.and_then(|c| Some((report.analysis.chains.get(c)?, c))) {
        Some((facts, at)) => passage(report, &mut out, call, facts, at, to),
        None if abi::Program::is_reserved(&call.service) => {
            let _ =
                writeln!(out, "\nit is balanced and nothing else: no rule names health checks or reflection");
        }
        None => {
            let _ = writeln!(out, "\nverdict   UNIMPLEMENTED, flag NR: no rule covers it");
        }
    }
    Ok(out)
}

/// The place of a route's rule.
fn winner(report: &Report<'_>, route: Option<&Route>) -> Option<usize> {
    let route = route?;
    let at = report.program.routes.iter().position(|r| std::ptr::eq(r, route))?;
    usize::try_from(*report.analysis.routes.get(at)?).ok()
}

/// The rule that serves a call, if its services are known.
pub(super) fn serving<'a>(report: &Report<'a>, call: &Imagined) -> Option<&'a RuleFacts> {
    let source = match &call.source {
        Some(name) => Some(report.program.service(name)?),
        None => None,
    };
    let to = report.program.service(&call.destination)?;
    let route = report.program.routes.find(source, to, &call.service, &call.method);
    report.analysis.rules.get(winner(report, route)?)
}

/// The rule that serves it, and of each other rule why it does not.
fn rules(
    report: &Report<'_>,
    out: &mut String,
    call: &Imagined,
    winner: Option<usize>,
    source: Option<ServiceIdx>,
    to: ServiceIdx,
) {
    let all = &report.analysis.rules;
    let won = winner.and_then(|at| all.get(at));
    match won {
        Some(rule) => {
            let _ = writeln!(out, "\nserved by `{}` ({}:{})", rule.text, rule.file, rule.line);
        }
        None => out.push_str("\nserved by no rule\n"),
    }
    for (at, rule) in all.iter().enumerate() {
        if Some(at) == winner {
            continue;
        }
        let misses = routes::misses(report, rule, source, to, &call.service, &call.method);
        let says = match (misses, rule.every, won) {
            (Some(why), ..) => format!("does not: {why}"),
            (None, true, _) => "stands to its left: an `every` rule covers the call".to_owned(),
            (None, false, Some(won)) => {
                let why = routes::wins(won, rule).unwrap_or("it is as specific, and stands first");
                format!("is less specific: the winner wins because {why}")
            }
            (None, false, None) => "covers it".to_owned(),
        };
        let _ = writeln!(out, "  `{}` ({}:{}) {says}", rule.text, rule.file, rule.line);
    }
}

/// Runs an entry to its verdict, over all waits.
fn run(chain: &Interpreted, entry: Entry, view: &mut View<'_>, out: &mut Vec<(u16, Vec<String>)>) -> Verdict {
    let mut segment = 0;
    loop {
        match chain.run(entry, segment, view) {
            Verdict::Suspend(Suspend::Timer { ns, segment: to, element }) => {
                view.now_ns = view.now_ns.saturating_add(ns);
                view.close(element);
                out.extend(view.take());
                out.push((element, vec![format!("waits {}", duration(ns))]));
                segment = to;
            }
            verdict => {
                out.extend(view.take());
                return verdict;
            }
        }
    }
}

/// The call through its chain.
fn passage(
    report: &Report<'_>,
    out: &mut String,
    call: &Imagined,
    facts: &ChainFacts,
    at: usize,
    to: ServiceIdx,
) {
    let Some(image) = report.images.get(at) else { return };
    // Nobody else has been here: state is as it begins.
    let (bound, _) = Store::new(1).bind(std::slice::from_ref(image));
    let chain = Interpreted::new(image.clone(), bound.into_iter().next().unwrap_or_default());
    let mut view = View::new(report.program, call, to, image.plan.call_words);
    let _ = writeln!(out, "\nrequest   (state is as it begins; every endpoint is healthy and idle)");
    let mut events = Vec::new();
    let verdict = run(&chain, Entry::Request, &mut view, &mut events);
    let rejected = match verdict {
        Verdict::Reject(reject) => Some(reject),
        _ => None,
    };
    elements(out, facts, &events, rejected.map(|r| r.element), false);
    match verdict {
        Verdict::Reject(reject) => {
            let element = facts.links.get(usize::from(reject.element)).map(|l| &l.element);
            let name = element.map_or("", |e| e.name.as_str());
            let flag = match reject.flag.name() {
                "" => String::new(),
                flag => format!(", flag {flag}"),
            };
            let _ = writeln!(
                out,
                "\nverdict   {} {:?}{flag}: rejected by {} {name}, line {} of its file",
                reject.status.name(),
                view.reject_text,
                usize::from(reject.element) + 1,
                reject.line
            );
            view.status = reject.status;
        }
        Verdict::Unreadable(why) => {
            let _ = match call.message {
                Some(_) => {
                    writeln!(out, "\nverdict   the message cannot be read ({why:?}): the call ends here")
                }
                None => writeln!(out, "\nverdict   none: it waits for the message, which --message imagines"),
            };
            return;
        }
        _ => {
            pick(out, facts, &chain, &mut view);
            let _ = writeln!(out, "\nverdict   forward to {} at {}", view.destination_name(), chosen(&view));
            for line in model::boundaries(report.program, image) {
                let _ = writeln!(out, "          {line}");
            }
            view.status = call.status;
            if image.plan.request_message {
                out.push_str("          each message passes `request message`, which is not told here\n");
            }
        }
    }
    // Nobody imagines the answer's message.
    view.payload = None;
    if image.plan.response_payload {
        out.push_str("\nresponse  reads the answer's message, which is not told here\n");
    } else if image.plan.response {
        let mut events = Vec::new();
        let before = view.status;
        run(&chain, Entry::Response, &mut view, &mut events);
        if !events.is_empty() {
            let _ = writeln!(out, "\nresponse  (if the outcome is {})", before.name());
            elements(out, facts, &events, None, true);
        }
    }
}

fn chosen(view: &View<'_>) -> String {
    match view.endpoint {
        Some(at) => view.address(at),
        None => "an endpoint by P2C".to_owned(),
    }
}

fn pick(out: &mut String, facts: &ChainFacts, chain: &Interpreted, view: &mut View<'_>) {
    let mut events = Vec::new();
    run(chain, Entry::Pick, view, &mut events);
    if !events.is_empty() {
        out.push_str("\npick      (once for every attempt)\n");
        elements(out, facts, &events, None, true);
    }
}

/// What each element did, in the order it ran. In `request` those that had nothing to say are named, too.
fn elements(
    out: &mut String,
    facts: &ChainFacts,
    events: &[(u16, Vec<String>)],
    rejected_by: Option<u16>,
    only_active: bool,
) {
    let picks = model::picks(facts);
    let order: Vec<u16> = if only_active {
        let mut seen: Vec<u16> = Vec::new();
        events.iter().for_each(|(at, _)| {
            if !seen.contains(at) {
                seen.push(*at);
            }
        });
        seen
    } else {
        let last = rejected_by.map_or(usize::MAX, |at| usize::from(at) + 1);
        (0..facts.links.len().min(last)).filter_map(|at| u16::try_from(at).ok()).collect()
    };
    for at in order {
        let Some(link) = facts.links.get(usize::from(at)) else { continue };
        let mut said: Vec<String> =
            events.iter().filter(|(of, _)| *of == at).flat_map(|(_, lines)| lines.clone()).collect();
        if !only_active {
            said.extend(chances(&link.element));
        }
        if rejected_by == Some(at) {
            said.push("rejects".to_owned());
        } else if !only_active && picks.get(usize::from(at)) == Some(&true) {
            said.push("chooses at the pick, below".to_owned());
        } else if said.is_empty() {
            said.push("nothing to say: forward".to_owned());
        } else if !only_active {
            said.push("forward".to_owned());
        }
        let title = format!("{} {}", at + 1, link.element.text);
        for (n, line) in said.iter().enumerate() {
            let shown = if n == 0 { title.as_str() } else { "" };
            let _ = writeln!(out, "  {shown:32}{}{line}", if shown.len() > 31 { "  " } else { "" });
        }
    }
}

/// What chance decides in an element, whatever was drawn now.
fn chances(element: &super::facts::ElementFacts) -> Vec<String> {
    let mut out = Vec::new();
    for h in element.handlers.iter().filter(|h| h.is_request()) {
        let reject = h.rejects.iter().filter_map(|r| Some(("rejected with", r.status.clone(), r.chance?)));
        let wait = h.delays.iter().filter_map(|w| Some(("delayed by", w.time.clone(), w.chance?)));
        for (what, how, share) in reject.chain(wait) {
            out.push(format!("({} of such calls are {what} {how})", percent(share)));
        }
    }
    out
}
