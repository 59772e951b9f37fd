//! What must be true of calls when a run is over: each ended once, with an outcome that what happened
//! explains, and left nothing behind at its server.

use std::sync::atomic::Ordering;

use abi::{Flag, Status};
use wire::h2::Reason;

use crate::calls::CHAIN_SINK;
use crate::chain::{Passages, REJECT_LINE};
use crate::ledger::{Attempt, AttemptEnd, Call, End};
use crate::log::Line;
use crate::plan::SECOND;
use crate::plan_call::{CallPlan, Cancel};
use crate::world::World;

/// What a run allows to go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// No link was lost and no connect failed.
    pub(crate) is_fair: bool,
    /// The shard was drained while calls ran.
    pub(crate) drains: bool,
    pub(crate) message_bytes_max: usize,
    /// Pools or queues are so small that calls are refused.
    pub(crate) is_tight: bool,
    /// Streams a caller may open; before it has been told, it may have opened more.
    pub(crate) streams_max: u32,
    /// What an element that draws lots ends calls with.
    pub(crate) fault: Option<Status>,
    /// Request bytes kept for another attempt.
    pub(crate) retry_bytes_max: u64,
    /// No small call may take longer, whatever others do, ns.
    pub(crate) small_ns_max: u64,
    /// Calls wait for their message before their chain sees them.
    pub(crate) waits: bool,
    /// An element logs.
    pub(crate) logs: bool,
    /// An element compresses, so that messages are held until they are whole.
    pub(crate) recodes: bool,
    /// Two nodes have it: the second is the one whose servers count.
    pub(crate) is_sealed: bool,
    /// What callers may be told of a seal that is broken.
    pub(crate) breaches: &'static [&'static str],
    /// The node before the servers was drained while calls ran.
    pub(crate) far_drains: bool,
}

/// Virtual time by which the other end has heard of a cancel.
const CANCEL_NS_MAX: u64 = 10 * SECOND;

/// Every call, the log and the chain.
pub(crate) fn all(world: &World, terms: &Terms, passages: &Passages) -> Result<(), String> {
    let lines = world.lines.borrow();
    for (number, call) in world.ledger.calls.iter().enumerate() {
        let path = format!("/sim.S/C{number}");
        let mine = lines.iter().filter(|l| l.path == path && l.node == 0).collect::<Vec<_>>();
        one(world, terms, call).map_err(|what| {
            let (end, attempts) = (call.end.map(|(_, end)| end), &call.attempts);
            let plan = &call.plan;
            let text = &call.message;
            format!("call {number}: {what}\n  end {end:?} {text}\n  {mine:?}\n  attempts {attempts:?}\n  plan {plan:?}")
        })?;
        logged(terms, call, &mine).map_err(|what| format!("call {number}: {what}: {mine:?}"))?;
    }
    let (entered, judged) =
        (passages.entered.load(Ordering::Relaxed), passages.judged.load(Ordering::Relaxed));
    let wrong = passages.wrong.load(Ordering::Relaxed);
    if entered != judged || wrong > 0 {
        return Err(format!(
            "{entered} passages entered the chain, {judged} were judged, {wrong} of them wrongly"
        ));
    }
    Ok(())
}

fn logged(terms: &Terms, call: &Call, mine: &[&Line]) -> Result<(), String> {
    let may_be_unseen = call.is_abuse
        || call.end.is_some_and(|(_, end)| {
            matches!(end, End::NotSent | End::ConnLost | End::Cancelled | End::Reset(_))
        });
    if mine.len() > 1 || mine.is_empty() && !may_be_unseen {
        return Err(format!("{} access-log lines", mine.len()));
    }
    let sink = if terms.logs { CHAIN_SINK } else { 0 };
    // A call whose message never came has not been in its chain.
    let is_elsewhere = |line: &&Line| line.sink != sink && !(terms.waits && line.attempts == 0);
    if !terms.is_tight && mine.iter().any(is_elsewhere) {
        return Err(format!("its line should have gone to sink {sink}"));
    }
    if !call.attempts.is_empty() && mine.is_empty() {
        return Err("reached a server and has no access-log line".into());
    }
    for line in mine {
        if let Some((_, End::Status(status))) = call.end
            && line.status != status
        {
            return Err(format!("the caller saw {}, the log says {}", status.name(), line.status.name()));
        }
        let started = call.sent_at.unwrap_or(0);
        if call.end.is_some_and(|(at, end)| matches!(end, End::Status(_)) && line.latency_ns > at - started) {
            return Err("the log says it took longer than its caller waited".into());
        }
        if !terms.is_sealed && (line.attempts as usize) < call.attempts.len() {
            return Err(format!("{} attempts reached servers", call.attempts.len()));
        }
        let is_plain =
            !call.is_abuse && !terms.recodes && call.plan.sends.is_none() && !call.plan.server_sends;
        let is_whole =
            call.end.is_some_and(|(_, end)| end == End::Status(Status::OK)) && call.plan.early.is_none();
        if is_plain && is_whole && (line.request_bytes, line.response_bytes) != bodies(&call.plan) {
            return Err(format!("the log does not count {:?} body bytes", bodies(&call.plan)));
        }
        let named = line.element.as_deref().unwrap_or("");
        if line.flag == Flag::FaultInjected
            && !named.starts_with("FaultInjection:")
            && named != format!("Fault:{REJECT_LINE}")
        {
            return Err("rejected, but the log does not name the element and line".into());
        }
    }
    Ok(())
}

/// Bytes of plain bodies, prefixes included.
fn bodies(plan: &CallPlan) -> (u64, u64) {
    let sum = |lens: &[usize]| lens.iter().map(|len| *len as u64 + 5).sum();
    (sum(&plan.request), sum(&plan.response))
}

fn one(world: &World, terms: &Terms, call: &Call) -> Result<(), String> {
    let Some((ended_at, end)) = call.end else { return Err("never ended".into()) };
    attempts(world, call, ended_at)?;
    if call.is_abuse {
        return Ok(());
    }
    // The caller's own connection failed it, or a drain sent it away before anybody had seen it.
    let is_lost = call.link.is_some_and(|link| world.net.links[link.0].is_faulted);
    let is_own_fault = is_lost || terms.drains && call.attempts.is_empty();
    match end {
        End::Cancelled if call.plan.cancel != Cancel::Never => return Ok(()),
        End::Cancelled => return Err("cancelled by nobody".into()),
        End::NotSent | End::ConnLost if is_own_fault || !terms.is_fair || terms.is_tight => return Ok(()),
        End::NotSent | End::ConnLost => return Err("its connection ended without a reason".into()),
        End::Reset(Reason::REFUSED_STREAM) if terms.is_tight || terms.drains || terms.streams_max < 100 => {
            let is_untouched = call.attempts.is_empty();
            return if is_untouched { Ok(()) } else { Err("refused, but a server has seen it".into()) };
        }
        // Legal where trailers cannot follow: the answer was cut inside a message.
        End::Reset(_) if call.partial > 0 => {}
        End::Reset(reason) => return Err(format!("reset ({}) instead of a status", reason.0)),
        End::Status(status) => contents(call, status)?,
    }
    let size = bodies(&call.plan);
    let took = ended_at - call.sent_at.unwrap_or(ended_at);
    if terms.is_fair && size.0 + size.1 < 1000 && !call.plan.is_hopeless() && took > terms.small_ns_max {
        return Err(format!("a small call took {} ms", took / 1_000_000));
    }
    if let Some(deadline) = call.plan.deadline_ns
        && call.plan.is_hopeless()
        && let Some(sent_at) = call.sent_at
        && terms.is_fair
        && ended_at > sent_at + deadline + 5 * SECOND
    {
        return Err(format!("ended {} ms after its deadline", (ended_at - sent_at - deadline) / 1_000_000));
    }
    if let End::Status(status) = end { explained(world, terms, call, status) } else { Ok(()) }
}

/// What servers saw of a call.
fn attempts(world: &World, call: &Call, ended_at: u64) -> Result<(), String> {
    let (last, earlier) = match call.attempts.split_last() {
        Some(split) => split,
        None => return Ok(()),
    };
    if let Some(twice) = earlier.iter().find(|a| !matches!(a.end, Some((_, AttemptEnd::Refused)))) {
        return Err(format!("repeated although a server had begun it: {twice:?}"));
    }
    if call.attempts.len() > 2 {
        return Err(format!("{} attempts: a refused call is repeated once", call.attempts.len()));
    }
    for attempt in &call.attempts {
        let Some((at, _)) = attempt.end else { return Err("a server still works on it".into()) };
        let is_lossy = world.net.links[attempt.link.0].is_faulted;
        let gave_up = call.left_at.unwrap_or(ended_at);
        if at > gave_up + CANCEL_NS_MAX && !is_lossy {
            return Err(format!("its server heard {} ms too late", (at - gave_up) / 1_000_000));
        }
    }
    if last.messages > call.plan.request.len() {
        return Err("its server got more messages than were sent".into());
    }
    if last.saw_end && last.messages != call.plan.request.len() {
        return Err("its server saw the end without all messages".into());
    }
    Ok(())
}

/// Bytes on both sides, given the status the caller saw.
fn contents(call: &Call, status: Status) -> Result<(), String> {
    if status != Status::OK {
        return Ok(());
    }
    let Some(last) = call.attempts.last() else { return Err("OK without a server".into()) };
    if !matches!(last.end, Some((_, AttemptEnd::Answered))) || call.plan.status != Status::OK {
        return Err("OK, but its server did not say so".into());
    }
    if call.messages != call.plan.response.len() {
        return Err(format!("OK with {} of {} messages", call.messages, call.plan.response.len()));
    }
    if call.plan.early.is_none() && !last.saw_end {
        return Err("OK, but its server had not got the whole request".into());
    }
    Ok(())
}

/// Why a call may have ended with this status.
fn explained(world: &World, terms: &Terms, call: &Call, status: Status) -> Result<(), String> {
    let plan = &call.plan;
    let last = call.attempts.last();
    let answered = |a: &Attempt| matches!(a.end, Some((_, AttemptEnd::Answered)));
    // Whatever its server did: the seals of its answer may be broken, too.
    if status == Status::UNAUTHENTICATED && terms.breaches.iter().any(|text| call.message.contains(text)) {
        return Ok(());
    }
    let long = |lens: &[usize]| lens.iter().any(|len| *len + 64 > terms.message_bytes_max);
    let is_long = status == Status::RESOURCE_EXHAUSTED && (long(&plan.request) || long(&plan.response));
    if is_long && call.message.contains("message_bytes_max")
        || crate::check_gate::explains(plan, status, &call.message)
    {
        return Ok(());
    }
    if last.is_some_and(answered) && status == plan.status {
        let is_whole = call.messages == plan.response.len();
        return if is_whole || !terms.is_fair { Ok(()) } else { Err("its answer is cut short".into()) };
    }
    if plan.reject == Some(status) && last.is_none() && call.message.contains("Fault") {
        return Ok(());
    }
    if terms.fault == Some(status) && last.is_none() && call.message.contains("FaultInjection") {
        return Ok(());
    }
    if plan.reject.is_some() && last.is_some() {
        return Err("rejected by its chain, and yet it reached a server".into());
    }
    if status == Status::DEADLINE_EXCEEDED && plan.deadline_ns.is_some() {
        let deadline = plan.deadline_ns.unwrap_or(0);
        let took = call.end.map_or(0, |(at, _)| at) - call.sent_at.unwrap_or(0);
        return if took >= deadline { Ok(()) } else { Err("its deadline was not past".into()) };
    }
    if is_long {
        return Ok(());
    }
    if let Some((_, reason)) = plan.server_reset
        && matches!(last, Some(Attempt { end: Some((_, AttemptEnd::Broke)), .. }))
    {
        let mapped = Status::from_code(wire::grpc::status_of_reason(reason.0));
        let is_right = status == mapped || status == Status::UNAVAILABLE;
        return if is_right { Ok(()) } else { Err(format!("its server reset it with {}", reason.0)) };
    }
    if status == Status::RESOURCE_EXHAUSTED && terms.is_tight {
        return Ok(());
    }
    if status == Status::UNAVAILABLE {
        // A call is repeated once; what is refused or sent away twice has to fail.
        let refused =
            call.attempts.iter().filter(|a| matches!(a.end, Some((_, AttemptEnd::Refused)))).count();
        let away = world.ledger.backend_faults;
        let is_late = terms.far_drains && call.attempts.is_empty();
        let is_explained = !terms.is_fair || terms.is_tight || is_late || refused + away.min(9) as usize >= 2;
        // What is no longer kept whole cannot be repeated.
        let packing = if plan.sends.is_some() { 64 * plan.request.len() as u64 } else { 0 };
        let packing = packing + 2 * plan.request.len() as u64;
        let cannot_repeat = away > 0 || refused > 0 && bodies(plan).0 + packing > terms.retry_bytes_max;
        return if is_explained || cannot_repeat {
            Ok(())
        } else {
            Err("UNAVAILABLE, but nothing failed".into())
        };
    }
    Err(format!("{} has no explanation", status.name()))
}
