//! What must be true of sealed calls when a run is over: nobody got what had not been sealed for him, and nothing
//! was refused that nobody had harmed.

use std::collections::BTreeSet;

use abi::Status;
use sha2::{Digest, Sha256};

use crate::ledger::{Call, End};
use crate::meddler::Purpose;
use crate::world::World;

/// What callers are told of a key that has gone.
const KEY_GONE: &str = "a key that is not here";
/// What they are told of a call that was sent under the tag of another.
const REPLAYED: &str = "has been here before";
/// Why sealed calls end, by what may happen to them: nothing, a key that has gone, an attacker.
const BREACHES: [&str; 5] =
    [KEY_GONE, REPLAYED, "does not open", "not sealed as it should be", "end without the last"];

/// Texts that explain why a call is refused.
pub(crate) fn breaches(is_hasty: bool, is_meddled: bool) -> &'static [&'static str] {
    match (is_hasty, is_meddled) {
        (_, true) => &BREACHES,
        (true, false) => &BREACHES[..1],
        (false, false) => &[],
    }
}

/// All calls, and what the nodes count.
pub(crate) fn all(world: &World, is_hasty: bool) -> Result<(), String> {
    let [near, far] = [0, 1].map(|at| world.nodes[at].offload.meddler.borrow());
    let harmed = &near.harmed | &far.harmed;
    let groups = || near.tagged.values().filter(|calls| calls.len() > 1);
    let shared = groups().flatten().copied().collect::<BTreeSet<_>>();
    let calls = world.ledger.calls.iter().enumerate().map(|(number, call)| (number, purpose(number), call));
    for (number, purpose, call) in calls.clone() {
        let harm = [true, false].map(|is_request| harmed.contains(&(purpose, is_request)));
        one(call, harm, shared.contains(&purpose), is_hasty)
            .map_err(|what| format!("call {number}: {what}: {:?} {}", call.end, call.message))?;
    }
    let known = calls.clone().map(|(_, purpose, _)| purpose).collect::<BTreeSet<_>>();
    if near.tagged.values().any(|calls| !calls.is_subset(&known)) {
        return Err("sealed for a call that nobody made".into());
    }
    for group in groups() {
        let came =
            calls.clone().filter(|(_, purpose, call)| group.contains(purpose) && !call.attempts.is_empty());
        if came.count() > 1 {
            return Err("two calls under one tag reached servers".into());
        }
    }
    if near.twice + far.twice > 0 {
        return Err("two messages were sealed in one place".into());
    }
    let replays: usize = groups().map(|calls| calls.len() - 1).sum();
    let intruders = world.ledger.calls.iter().filter(|call| call.is_abuse).count();
    counted(world, harmed.len() + replays + intruders, is_hasty)
}

/// The first half of the path's SHA-256.
fn purpose(call: usize) -> Purpose {
    let digest: [u8; 32] = Sha256::digest(format!("/sim.S/C{call}")).into();
    core::array::from_fn(|at| digest[at])
}

fn one(call: &Call, [asked, answered]: [bool; 2], is_shared: bool, is_hasty: bool) -> Result<(), String> {
    if call.is_abuse && !call.attempts.is_empty() {
        return Err("it was not sealed, and a server has seen it".into());
    }
    let status =
        call.end.and_then(|(_, end)| if let End::Status(status) = end { Some(status) } else { None });
    if asked && call.attempts.iter().any(|attempt| attempt.saw_end) {
        return Err("a message to its server was harmed, and its server saw the end".into());
    }
    if answered && status == Some(Status::OK) {
        return Err("a message of its answer was harmed, and it ended well".into());
    }
    let is_refused = status == Some(Status::UNAUTHENTICATED);
    let Some(text) = BREACHES.iter().find(|text| is_refused && call.message.contains(**text)) else {
        return Ok(());
    };
    if *text == REPLAYED && !call.attempts.is_empty() {
        return Err("refused, but a server has seen it".into());
    }
    let is_due =
        call.is_abuse || asked || answered || is_shared && *text == REPLAYED || is_hasty && *text == KEY_GONE;
    if is_due { Ok(()) } else { Err("refused over a seal that nobody broke".into()) }
}

/// No seal is said to be broken that was not, none was left out, and nothing was opened that had not been sealed.
fn counted(world: &World, broken: usize, is_hasty: bool) -> Result<(), String> {
    let counters = world.nodes.iter().flat_map(|node| node.core.snapshot().counters);
    let told = counters.filter(|(name, ..)| {
        (name.starts_with("calls_seal_") || *name == "calls_unsealed")
            && !(is_hasty && *name == "calls_seal_unknown_key")
    });
    let told: u64 = told.map(|(.., value)| value).sum();
    if told > broken as u64 {
        return Err(format!("{told} seals are said to be broken, but {broken} were"));
    }
    let [near, far] = [0, 1].map(|at| {
        let node = &world.nodes[at];
        (node.count("messages_sealed"), node.count("messages_opened"))
    });
    let calls = &world.ledger.calls;
    // A refused attempt sends again what has been opened once.
    let arrived = |call: &Call| call.attempts.iter().map(|a| a.messages).max().unwrap_or(0);
    let arrived: usize = calls.iter().map(arrived).sum();
    let answered: usize = calls.iter().map(|c| c.messages).sum();
    if far.1 > near.0 || near.1 > far.0 || (arrived as u64) > far.1 || (answered as u64) > near.1 {
        return Err(format!(
            "sealed and opened: near {near:?}, far {far:?}; {arrived} at servers, {answered} at callers"
        ));
    }
    Ok(())
}
