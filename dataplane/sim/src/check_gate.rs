//! What must be true of messages that a chain sees: none passes unjudged, refused or unreadable.

use abi::Status;

use crate::gate::{Gates, Torn, Watch};
use crate::ledger::{Call, End};
use crate::plan_call::CallPlan;
use crate::world::World;

/// Every call.
pub(crate) fn all(world: &World, gates: Gates, watch: &Watch) -> Result<(), String> {
    if let Some(what) = watch.first_problem() {
        return Err(what);
    }
    for (number, call) in world.ledger.calls.iter().enumerate() {
        one(call, gates, watch.judged(number)).map_err(|what| {
            let (end, attempts, plan, text) = (call.end, &call.attempts, &call.plan, &call.message);
            format!("call {number}: {what}\n  end {end:?} {text}\n  attempts {attempts:?}\n  plan {plan:?}")
        })?;
    }
    Ok(())
}

fn one(call: &Call, gates: Gates, judged: [usize; 2]) -> Result<(), String> {
    let plan = &call.plan;
    let reached = call.attempts.iter().map(|a| a.messages).max().unwrap_or(0);
    if gates.payload[0] && plan.request.len() != 1 && !call.attempts.is_empty() {
        return Err("its request is not one message, and yet it reached a server".into());
    }
    if gates.message[0].is_some() && reached > judged[0] {
        return Err(format!("{reached} messages reached its server, {} were judged", judged[0]));
    }
    if gates.message[1].is_some() && call.messages > judged[1] {
        return Err(format!("{} messages reached its caller, {} were judged", call.messages, judged[1]));
    }
    if plan.gate.torn.is_some() && reached >= plan.request.len() {
        return Err("a message that cannot be read reached its server".into());
    }
    if plan.gate.reject_at[0].is_some_and(|at| reached > at) {
        return Err("a message that was refused reached its server".into());
    }
    if plan.gate.reject_at[1].is_some_and(|at| call.messages > at) {
        return Err("a message that was refused reached its caller".into());
    }
    if gates.payload[1] && plan.response.len() > 1 && call.messages > 0 {
        return Err("an answer of more than one message was let through".into());
    }
    if let Some((_, End::Status(Status::PERMISSION_DENIED))) = call.end {
        let passed =
            plan.gate.reject_at[1].filter(|at| call.message.contains(&format!("Response message {at}")));
        if passed.is_some_and(|at| call.messages != at || call.partial > 0) {
            return Err("messages that were let through before the one that was refused are not whole".into());
        }
        if call.message.contains("Gate: answer") && call.messages > 0 {
            return Err("an answer that was refused reached its caller".into());
        }
    }
    Ok(())
}

/// A chain that sees messages may have ended the call so.
pub(crate) fn explains(plan: &CallPlan, status: Status, text: &str) -> bool {
    let gate = &plan.gate;
    let is_not_one = plan.request.len() != 1 || plan.response.len() != 1;
    match status {
        Status::PERMISSION_DENIED => text.contains("Gate: "),
        Status::INTERNAL if text.contains("malformed") => gate.unreadable.is_some(),
        Status::INTERNAL if text.contains("neither 0 nor 1") => gate.torn == Some(Torn::Flag),
        Status::INTERNAL if text.contains("ends inside a message") => gate.torn == Some(Torn::Cut),
        Status::INTERNAL if text.contains("damaged or cut short") => gate.torn == Some(Torn::Garbage),
        Status::INTERNAL if text.contains("exactly one message") => is_not_one,
        _ => false,
    }
}
