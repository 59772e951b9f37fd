//! A chain's way with messages: which it sees, and what one call asks it to do to them. The chain by hand
//! does it and watches what it is shown; the checkers know what must come of it.
#![expect(clippy::disallowed_types, reason = "chains are `Sync` by their type; a run has one thread")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use abi::{CallView, Entry, Flag, Num, Plan, Reject, Side, Spill, Status, Suspend, Unreadable, Verdict};
use wire::Headers;

use crate::body::{Way, message};
use crate::chain::REJECT_LINE;
use crate::plan::{MS, US};
use crate::plan_call::CallPlan;
use crate::rng::Rng;

/// The element that deals with messages.
pub(crate) const GATE: u16 = 3;

/// What every server reports of its load, with each answer.
pub(crate) const REPORT: f64 = 42.5;

/// What a chain sees of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gates {
    /// `request` reads the one message; `response` does.
    pub(crate) payload: [bool; 2],
    /// `request message` and `response message` run; and read the message itself.
    pub(crate) message: [Option<bool>; 2],
}

impl Gates {
    /// At least one of the four.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut payload = [rng.chance(500), rng.chance(500)];
        let mut one = || rng.chance(500).then(|| rng.chance(600));
        let message = [one(), one()];
        if payload == [false; 2] && message == [None; 2] {
            payload[rng.size(0, 1)] = true;
        }
        Self { payload, message }
    }

    pub(crate) fn plan(self, plan: Plan) -> Plan {
        Plan {
            request_payload: self.payload[0],
            response_payload: self.payload[1],
            request_message: self.message[0].is_some(),
            response_message: self.message[1].is_some(),
            request_message_payload: self.message[0] == Some(true),
            response_message_payload: self.message[1] == Some(true),
            endpoint_reports: true,
            call_words: 3,
            ..plan
        }
    }

    /// What the chain appends to each message of a direction of a call that is marked.
    pub(crate) fn suffix(self, way: Way) -> Vec<u8> {
        let (whole, each): (&[u8], &[u8]) = match way {
            Way::Request => (b"Q", b"M"),
            Way::Response => (b"r", b"m"),
        };
        let at = way as usize;
        let whole = if self.payload[at] { whole } else { b"" };
        let each = if self.message[at] == Some(true) { each } else { b"" };
        // A request is whole before its message handlers see it, an answer after they have.
        if way == Way::Request { [whole, each].concat() } else { [each, whole].concat() }
    }
}

/// How a caller breaks its last message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Torn {
    /// A flag that is neither 0 nor 1.
    Flag,
    /// The end in the middle.
    Cut,
    /// A packed message that nobody can unpack.
    Garbage,
}

impl Torn {
    /// Does it to a framed message.
    pub(crate) fn tear(self, framed: &mut Vec<u8>) {
        match self {
            Self::Flag => framed[0] = 7,
            Self::Cut => framed.truncate(framed.len() - 1),
            Self::Garbage => {
                framed[0] = 1;
                framed[5..].fill(0x55);
            }
        }
    }
}

/// Where a chain says that it cannot read a message.
const ENTRIES: [(Entry, &str); 4] = [
    (Entry::Request, "request"),
    (Entry::RequestMessage, "request message"),
    (Entry::ResponseMessage, "response message"),
    (Entry::Response, "response"),
];

/// What one call asks of the chain; and what its caller does wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatePlan {
    /// Messages get a suffix.
    pub(crate) marks: bool,
    /// Each message is held back so long, ns.
    pub(crate) delay_ns: [u64; 2],
    /// This message is refused.
    pub(crate) reject_at: [Option<usize>; 2],
    pub(crate) end_delay_ns: u64,
    pub(crate) end_rejects: bool,
    /// A place in [`ENTRIES`].
    pub(crate) unreadable: Option<usize>,
    pub(crate) torn: Option<Torn>,
}

impl GatePlan {
    pub(crate) fn draw(rng: &mut Rng, gates: Gates, plan: &CallPlan) -> Self {
        let delays = [0, 0, 0, 1, 50 * US, 5 * MS];
        let mut reject = |lens: &[usize], gate: Option<bool>| {
            (gate.is_some() && rng.chance(100)).then(|| rng.size(0, lens.len()))
        };
        let reject_at = [reject(&plan.request, gates.message[0]), reject(&plan.response, gates.message[1])];
        let unreadable = rng.chance(80).then(|| rng.size(0, ENTRIES.len() - 1));
        let torn = if plan.sends.is_some() { [Torn::Cut, Torn::Garbage] } else { [Torn::Cut, Torn::Flag] };
        let is_read = gates.payload[0] || gates.message[0].is_some();
        let has_body = plan.request.last().is_some_and(|len| *len > 0);
        Self {
            marks: rng.chance(700),
            delay_ns: [rng.pick(&delays), rng.pick(&delays)],
            reject_at,
            end_delay_ns: rng.pick(&delays),
            end_rejects: gates.payload[1] && rng.chance(100),
            unreadable,
            torn: (is_read && has_body && rng.chance(100)).then(|| rng.pick(&torn)),
        }
    }

    /// Tells the chain.
    pub(crate) fn tell(&self, plan: &CallPlan, list: &mut Headers) {
        let lens = |lens: &[usize]| lens.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut push = |name: &str, value: String| list.push(name.as_bytes(), value.as_bytes());
        push("x-sim-lens0", lens(&plan.request));
        push("x-sim-lens1", lens(&plan.response));
        for at in 0..2 {
            push(["x-sim-delay0", "x-sim-delay1"][at], self.delay_ns[at].to_string());
            if let Some(number) = self.reject_at[at] {
                push(["x-sim-reject0", "x-sim-reject1"][at], number.to_string());
            }
        }
        push("x-sim-end-delay", self.end_delay_ns.to_string());
        if self.marks {
            push("x-sim-marks", String::new());
        }
        if self.end_rejects {
            push("x-sim-end-rejects", String::new());
        }
        if let Some(at) = self.unreadable {
            push("x-sim-unreadable", ENTRIES[at].1.into());
        }
    }
}

/// What chains of a run have seen.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// By call: messages let through, by direction.
    judged: Mutex<BTreeMap<usize, [usize; 2]>>,
    problems: Mutex<Vec<String>>,
}

impl Watch {
    pub(crate) fn judged(&self, call: usize) -> [usize; 2] {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.get(&call).copied().unwrap_or_default()
    }

    pub(crate) fn first_problem(&self) -> Option<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    fn problem(&self, what: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn count(&self, call: usize, way: Way) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.entry(call).or_default()[way as usize] += 1;
    }
}

fn header<'a>(call: &'a dyn CallView, name: &str) -> Option<&'a str> {
    call.metadata(Side::Request, name, 0).and_then(|v| core::str::from_utf8(v).ok())
}

fn number(call: &dyn CallView, name: &str) -> Option<u64> {
    header(call, name)?.parse().ok()
}

fn len_of(call: &dyn CallView, way: Way, at: usize) -> Option<usize> {
    let lens = header(call, ["x-sim-lens0", "x-sim-lens1"][way as usize])?;
    lens.split(',').nth(at)?.parse().ok()
}

fn is_unreadable(call: &dyn CallView, entry: Entry) -> bool {
    ENTRIES.iter().any(|(e, name)| *e == entry && header(call, "x-sim-unreadable") == Some(name))
}

fn reject(call: &mut dyn CallView, status: Status, text: &str) -> Verdict {
    call.set_reject_text(text);
    Verdict::Reject(Reject { status, flag: Flag::FaultInjected, element: GATE, line: REJECT_LINE })
}

/// The texts a call keeps from its request on.
fn kept(id: u64) -> Vec<u8> {
    format!("kept {id}").into_bytes()
}

/// The message part of the chain by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) gates: Gates,
    pub(crate) watch: &'a Watch,
}

impl Gate<'_> {
    /// The spill as a chain of the language uses it: what is kept stays in front, the rest is its own.
    fn enter(self, id: u64, segment: u16, live: &[u8], spill: &mut Spill) {
        let mut wanted = kept(id);
        if segment == 0 {
            spill.words.clear();
            spill.bytes.truncate(wanted.len());
        } else {
            wanted.extend_from_slice(live);
        }
        let words: &[u64] = if segment == 0 { &[] } else { &[id] };
        if spill.bytes != wanted || spill.words != words {
            self.watch.problem(format!("call {id}: its memory changed while it waited: {spill:?}"));
        }
    }

    fn wait(self, id: u64, ns: u64, live: &[u8], spill: &mut Spill) -> Verdict {
        spill.words.push(id);
        spill.bytes.extend_from_slice(live);
        Verdict::Suspend(Suspend::Timer { ns, segment: 1, element: GATE })
    }

    /// What is at hand must be this message with this suffix.
    fn look(self, call: &dyn CallView, way: Way, at: usize, suffix: &[u8], is_read: bool) {
        let Some(id) = number(call, "x-sim") else { return };
        let id_at = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(len) = len_of(call, way, at) else {
            return self.watch.problem(format!("call {id}: {way:?} message {at} was never sent"));
        };
        let wanted = [&message(id_at, way, at, len), suffix].concat();
        let size = call.num(Num::Size);
        if size != wanted.len() as u64 {
            self.watch
                .problem(format!("call {id}: {way:?} message {at} has size {size}, not {}", wanted.len()));
        }
        match call.payload() {
            Some(payload) if payload != wanted => {
                self.watch.problem(format!("call {id}: {way:?} message {at} is another: {}", payload.len()));
            }
            None if is_read => {
                self.watch.problem(format!("call {id}: {way:?} message {at} cannot be read"));
            }
            _ => {}
        }
    }

    /// Appends to the message at hand.
    fn mark(self, call: &mut dyn CallView, suffix: &[u8]) -> Option<Verdict> {
        header(call, "x-sim-marks")?;
        let marked = [call.payload()?, suffix].concat();
        let fits = call.set_payload(&marked);
        (!fits).then(|| reject(call, Status::RESOURCE_EXHAUSTED, "Gate: no room for the mark"))
    }

    /// `request`, before anything else it does. `None` goes on.
    pub(crate) fn request(self, segment: u16, call: &mut dyn CallView) -> Option<Verdict> {
        let id = number(call, "x-sim")?;
        if segment != 0 {
            self.enter(id, segment, b"", call.spill());
            call.spill().words.clear();
        } else {
            if self.gates.payload[0] && is_unreadable(call, Entry::Request) {
                return Some(Verdict::Unreadable(Unreadable::Malformed));
            }
            call.spill().bytes.extend(kept(id));
        }
        if self.gates.payload[0] {
            self.look(call, Way::Request, 0, b"", true);
        } else if call.payload().is_some() || call.num(Num::Size) != 0 {
            self.watch.problem(format!("call {id}: a message that nobody asked for"));
        }
        None
    }

    /// `request` waits.
    pub(crate) fn request_waits(self, ns: u64, call: &mut dyn CallView) -> Verdict {
        let id = number(call, "x-sim").unwrap_or(0);
        self.wait(id, ns, b"", call.spill())
    }

    /// `request` has nothing against it.
    pub(crate) fn request_done(self, call: &mut dyn CallView) -> Option<Verdict> {
        if self.gates.payload[0] { self.mark(call, b"Q") } else { None }
    }

    /// A message handler.
    pub(crate) fn message(self, way: Way, segment: u16, call: &mut dyn CallView) -> Verdict {
        let Some(id) = number(call, "x-sim") else { return Verdict::Forward };
        let at = way as usize;
        let entry = [Entry::RequestMessage, Entry::ResponseMessage][at];
        let live = format!(" live {way:?}").into_bytes();
        let count = usize::try_from(call.words()[1 + at]).unwrap_or(usize::MAX);
        if segment == 0 && is_unreadable(call, entry) {
            return Verdict::Unreadable(Unreadable::Malformed);
        }
        self.enter(id, segment, &live, call.spill());
        let is_marked = header(call, "x-sim-marks").is_some();
        let is_read = self.gates.message[at] == Some(true);
        let before: &[u8] =
            if is_marked && way == Way::Request && self.gates.payload[0] { b"Q" } else { b"" };
        self.look(call, way, count, before, is_read);
        let delay = number(call, ["x-sim-delay0", "x-sim-delay1"][at]).unwrap_or(0);
        if segment == 0 && delay > 0 {
            return self.wait(id, delay, &live, call.spill());
        }
        call.spill().words.clear();
        call.spill().bytes.truncate(kept(id).len());
        if number(call, ["x-sim-reject0", "x-sim-reject1"][at]) == Some(count as u64) {
            return reject(call, Status::PERMISSION_DENIED, &format!("Gate: {way:?} message {count}"));
        }
        if is_read && let Some(verdict) = self.mark(call, if way == Way::Request { b"M" } else { b"m" }) {
            return verdict;
        }
        call.words()[1 + at] += 1;
        self.watch.count(usize::try_from(id).unwrap_or(usize::MAX), way);
        Verdict::Forward
    }

    /// `response`. `None` where the answer cannot be read and no handler is to see it.
    pub(crate) fn response(self, segment: u16, call: &mut dyn CallView, enter: impl FnOnce()) -> Verdict {
        let Some(id) = number(call, "x-sim") else {
            enter();
            return Verdict::Forward;
        };
        if segment == 0 {
            if call.payload().is_some() && is_unreadable(call, Entry::Response) {
                return Verdict::Unreadable(Unreadable::Malformed);
            }
            enter();
        }
        let report = call.endpoint().and_then(|at| call.endpoint_report(at, "sim"));
        if call.num(Num::Status) == 0 && report != Some(REPORT) {
            self.watch.problem(format!("call {id}: its endpoint reported {report:?}"));
        }
        if call.passed() > GATE {
            self.enter(id, segment, b" end", call.spill());
        }
        let is_marked = header(call, "x-sim-marks").is_some();
        if call.payload().is_some() || call.num(Num::Size) > 0 {
            let is_each = is_marked && self.gates.message[1] == Some(true);
            self.look(call, Way::Response, 0, if is_each { b"m" } else { b"" }, true);
            if !self.gates.payload[1] {
                self.watch.problem(format!("call {id}: an answer that nobody asked for"));
            }
        }
        let delay = number(call, "x-sim-end-delay").unwrap_or(0);
        if segment == 0 && delay > 0 && call.passed() > GATE {
            return self.wait(id, delay, b" end", call.spill());
        }
        if header(call, "x-sim-end-rejects").is_some() && call.payload().is_some() {
            return reject(call, Status::PERMISSION_DENIED, "Gate: answer");
        }
        self.mark(call, b"r").unwrap_or(Verdict::Forward)
    }
}
