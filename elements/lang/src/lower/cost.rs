//! The worst case of an entry, in operations: the longest way through its instructions, loops as often as
//! their lists can be long.

use std::collections::BTreeMap;

use crate::vm::code::{Code, Op, Shared};
use crate::vm::lists::PARTS_MAX;
use crate::vm::maglev::PROBES_MAX;

/// How often an atomic step is tried.
const STEP_TRIES: u64 = 8;

/// It can go on to the next instruction.
fn goes_on(op: &Op) -> bool {
    !matches!(op, Op::Jump { .. } | Op::Reject { .. } | Op::End)
}

/// Instructions that look at every endpoint, or at every item of a list.
fn weight(op: &Op, items: u64, endpoints: u64) -> u64 {
    match *op {
        Op::Healthy { .. } | Op::Ring { .. } | Op::ByWeight { .. } | Op::Turn { .. } => endpoints.max(1),
        Op::Maglev { .. } => endpoints.saturating_add(PROBES_MAX as u64),
        Op::MetaAll { max, .. } => u64::from(max),
        Op::Split { .. } => PARTS_MAX as u64,
        Op::PackList { .. } | Op::UnpackList { .. } | Op::FindEntry { .. } => items,
        Op::PutPair { .. } | Op::FindPair { .. } | Op::Keys { .. } => items,
        Op::Distinct { .. } => items.saturating_mul(items),
        _ => 1,
    }
}

/// How long a list of this code can be.
fn items(shared: &Shared, code: &Code, endpoints: u64) -> u64 {
    let of = |op: &Op| match *op {
        Op::MetaAll { max, .. } => u64::from(max),
        Op::Split { .. } => PARTS_MAX as u64,
        Op::SlotList { site, .. } | Op::InsideList { site, .. } => {
            let reading = shared.readings.get(usize::from(site));
            let lists = reading.into_iter().flat_map(|r| &r.slots).filter(|s| s.is_list);
            lists.map(|s| u64::from(s.items_max)).max().unwrap_or(0)
        }
        _ => 0,
    };
    let constant = shared.lists.iter().map(|list| list.len() as u64).max().unwrap_or(0);
    let longest = endpoints.max(constant).max(1);
    code.ops.iter().map(of).max().unwrap_or(0).max(longest)
}

/// What each instruction costs a run at most, with at most `endpoints` endpoints a service.
fn costs(shared: &Shared, code: &Code, endpoints: usize) -> Vec<u64> {
    let endpoints = endpoints as u64;
    let items = items(shared, code, endpoints);
    // Loops by where they begin: several jumps lead back to one.
    let mut loops: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for (at, op) in code.ops.iter().enumerate() {
        if let Some(to) = op.target().filter(|to| *to as usize <= at) {
            let times = if matches!(op, Op::SwapScalars { .. }) { STEP_TRIES } else { items };
            loops.insert(to as usize, (at, times));
        }
    }
    let mut times = vec![1_u64; code.ops.len()];
    for (begin, (end, more)) in loops {
        times.iter_mut().take(end + 1).skip(begin).for_each(|t| *t = t.saturating_mul(more));
    }
    for (times, op) in times.iter_mut().zip(&code.ops) {
        *times = times.saturating_mul(weight(op, items, endpoints));
    }
    times
}

/// The element with the dearest instruction.
pub(crate) fn dearest_element(shared: &Shared, code: &Code, endpoints: usize) -> usize {
    let costs = costs(shared, code, endpoints);
    let dearest = costs.iter().enumerate().max_by_key(|(_, cost)| **cost).map_or(0, |(at, _)| at);
    // Each element's code ends by saying whose it was.
    let mark = code.ops.iter().skip(dearest).find_map(|op| match op {
        Op::Mark { element } => Some(usize::from(*element)),
        _ => None,
    });
    mark.unwrap_or(0)
}

/// At most so many operations run, with at most `endpoints` endpoints a service.
pub(crate) fn worst_case(shared: &Shared, code: &Code, endpoints: usize) -> u64 {
    let costs = costs(shared, code, endpoints);
    let mut longest = vec![0_u64; code.ops.len() + 1];
    for (at, op) in code.ops.iter().enumerate().rev() {
        let to = op.target().filter(|to| *to as usize > at);
        let there = to.and_then(|to| longest.get(to as usize)).copied();
        let next = if goes_on(op) { longest.get(at + 1).copied() } else { None };
        // A jump back ends its turn of the loop; the loop's own `Next` leads out.
        let rest = there.max(next).unwrap_or(0);
        let own = costs.get(at).copied().unwrap_or(1);
        if let Some(slot) = longest.get_mut(at) {
            *slot = own.saturating_add(rest);
        }
    }
    longest.first().copied().unwrap_or(0)
}
