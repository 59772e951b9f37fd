//! Whether two neighbours could stand the other way round. Kept order is what runs: this says what an
//! optimizer would have to respect.

use super::facts::{ElementFacts, HandlerFacts};

/// Why two neighbours, `left` before `right`, may or may not be swapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) swappable: bool,
    pub(super) why: String,
}

fn handler<'e>(element: &'e ElementFacts, kind: &str) -> Option<&'e HandlerFacts> {
    element.handlers.iter().find(|h| h.kind == kind)
}

/// `payload` and `payload.a`, `metadata[…]` and `metadata["k"]` are the same thing in part.
fn touches(a: &str, b: &str) -> bool {
    let within = |whole: &str, part: &str| {
        part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '?']))
    };
    let list = |s: &str| s.strip_suffix("[…]").map(str::to_owned);
    let unknown = |a: &str, b: &str| list(a).is_some_and(|l| b.starts_with(&l));
    // Which endpoints there are follows from the destination.
    let follows = |a: &str, b: &str| a == "destination" && b.starts_with("endpoint");
    let (a, b) = (&a.replace("?.", "."), &b.replace("?.", "."));
    [(a, b), (b, a)].into_iter().any(|(a, b)| within(a, b) || unknown(a, b) || follows(a, b))
}

fn common<'s>(some: &'s [String], others: &[String]) -> Option<&'s str> {
    some.iter().find(|a| others.iter().any(|b| touches(a, b))).map(String::as_str)
}

/// Of one kind of handler: what one writes and the other reads or writes.
fn conflict(left: &ElementFacts, right: &ElementFacts, kind: &str) -> Option<String> {
    let (l, r) = (handler(left, kind)?, handler(right, kind)?);
    let [ln, rn] = [&left.name, &right.name];
    let none = Vec::new();
    let writes = |e: &ElementFacts, h: &'_ HandlerFacts| if e.dry { none.clone() } else { h.writes.clone() };
    let (lw, rw) = (writes(left, l), writes(right, r));
    if let Some(what) = common(&lw, &rw) {
        return Some(format!("both write {what} in `{kind}`"));
    }
    if let Some(what) = common(&lw, &r.reads) {
        return Some(format!("{ln} writes {what} in `{kind}`, and {rn} depends on it"));
    }
    let what = common(&rw, &l.reads)?;
    Some(format!("{rn} writes {what} in `{kind}`, and {ln} depends on it"))
}

/// What somebody would notice if the element saw another call, or did not see one.
fn noticed(element: &ElementFacts) -> Option<String> {
    for h in &element.handlers {
        // How messages are compressed matters to calls that go on only.
        let is_quiet = |d: &str| d.starts_with("compress") || d == "decompresses" || is_boundary(d);
        if let Some(what) = h.does.iter().find(|d| !is_quiet(d)) {
            return Some(format!("its `{}` {what}", h.kind));
        }
        if let Some(what) = h.writes.iter().find(|w| w.starts_with("state ")) {
            let scope = element.states.iter().find(|s| w_is(what, &s.name)).map_or("call", |s| s.scope);
            if scope != "call" {
                return Some(format!("its `{}` writes {what}", h.kind));
            }
        }
        if h.kind == "response" && !h.writes.is_empty() && !element.dry {
            return Some(format!("its `response` writes {}", h.writes.join(", ")));
        }
    }
    None
}

/// It seals or opens messages.
fn is_boundary(does: &str) -> bool {
    does.starts_with("seals ") || does.starts_with("opens ")
}

/// Who stands on which side of a boundary decides who sees messages plain.
fn across(boundary: &ElementFacts, other: &ElementFacts) -> Option<String> {
    if !boundary.handlers.iter().any(|h| h.does.iter().any(|d| is_boundary(d))) {
        return None;
    }
    let (b, o) = (&boundary.name, &other.name);
    if other.handlers.iter().any(|h| h.does.iter().any(|d| is_boundary(d))) {
        return Some(format!("both {b} and {o} seal or open messages"));
    }
    let of_message =
        |w: &String| *w == "size" || w.starts_with("payload") || w.starts_with("request.payload");
    let uses = other.handlers.iter().any(|h| h.reads.iter().chain(&h.writes).any(of_message));
    uses.then(|| format!("{o} uses the message, which {b} seals or opens"))
}

fn w_is(what: &str, name: &str) -> bool {
    what.strip_prefix("state ") == Some(name)
}

fn rejects(element: &ElementFacts) -> bool {
    !element.dry && element.handlers.iter().any(|h| h.kind != "response" && !h.rejects.is_empty())
}

fn delays(element: &ElementFacts) -> bool {
    !element.dry && element.handlers.iter().any(|h| !h.delays.is_empty())
}

fn reads_time(element: &ElementFacts) -> bool {
    element.handlers.iter().any(|h| h.reads.iter().any(|r| r == "time"))
}

/// Whether these neighbours could be swapped without anybody noticing.
pub(super) fn neighbours(left: &ElementFacts, right: &ElementFacts) -> Verdict {
    let kept = |why: String| Verdict { swappable: false, why };
    let [l, r] = [&left.name, &right.name];
    if let Some(why) = across(left, right).or_else(|| across(right, left)) {
        return kept(why);
    }
    for kind in ["request", "request message", "response message", "response"] {
        if let Some(why) = conflict(left, right, kind) {
            return kept(why);
        }
    }
    if rejects(left) && rejects(right) {
        return kept(format!("both may reject: of a call that both refuse the caller sees {l}'s status"));
    }
    if let (true, Some(what)) = (rejects(left), noticed(right)) {
        return kept(format!("calls that {l} rejects are not seen by {r}, and {what}"));
    }
    if let (true, Some(what)) = (rejects(right), noticed(left)) {
        return kept(format!("{l} sees the calls that {r} rejects, and {what}"));
    }
    for (waits, other, at) in [(left, right, "before"), (right, left, "after")] {
        if delays(waits) && reads_time(other) {
            let (w, o) = (&waits.name, &other.name);
            return kept(format!("{w} may wait {at} {o} reads the time"));
        }
        if delays(waits) && rejects(other) {
            let (w, o) = (&waits.name, &other.name);
            return kept(format!("{w} may wait, and {o} may reject: calls would wait in vain, or no longer"));
        }
    }
    Verdict { swappable: true, why: "neither sees what the other does".to_owned() }
}
