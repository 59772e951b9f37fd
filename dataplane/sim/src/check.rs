//! What must hold when a run is over.

use shard::Snapshot;

use crate::ledger::Flow;
use crate::plan::{SECOND, Weather};
use crate::world::World;

/// Relayed streams: both ends saw the same bytes, and each other's end.
pub(crate) fn relay(world: &World) -> Result<(), String> {
    let flows = &world.ledger.flows;
    let link = |flow: &Flow| &world.net.links[flow.link.0];
    for (at, flow) in flows.iter().enumerate() {
        if !flow.done {
            return Err(format!(
                "flow {at}: its relay ended, but it was never told: {flow:?} {:?}",
                link(flow)
            ));
        }
        let is_clean = !flow.aborted && !link(flow).is_faulted;
        let Some(partner) = flow.partner.map(|p| &flows[p]) else {
            // `auto` waits for a first byte.
            let must_meet =
                is_clean && flow.sent > 0 && flow.is_client && world.net.plan.weather == Weather::Fair;
            let all_silent = flows.iter().any(|f| !f.is_client && f.sent == 0 || f.aborted);
            if must_meet && !all_silent {
                return Err(format!("flow {at}: nothing failed, and yet it reached nobody"));
            }
            continue;
        };
        if flow.received > partner.sent {
            return Err(format!("flow {at}: received {} of {} bytes sent", flow.received, partner.sent));
        }
        if !is_clean || partner.aborted || link(partner).is_faulted {
            continue;
        }
        if flow.saw_reset {
            return Err(format!("flow {at}: reset, although neither end broke it"));
        }
        if flow.received != partner.sent || !flow.saw_eof {
            let (received, sent, eof) = (flow.received, partner.sent, flow.saw_eof);
            return Err(format!("flow {at}: {received} of {sent} bytes, end seen: {eof}"));
        }
    }
    Ok(())
}

/// Nobody is left: nothing may be held, and a drain ends.
pub(crate) fn quiet(world: &mut World) -> Result<(), String> {
    held(world, "after the last caller left")?;
    if !world.drain(130 * SECOND)? {
        return Err("not drained in time".into());
    }
    world.run_for(SECOND)?;
    held(world, "after the drain")?;
    let callers = world.net.alive.iter().map(|id| &world.net.links[id.0]);
    let callers = callers.filter(|link| link.slot.is_some() && link.backend.is_none()).count();
    if callers > 0 {
        return Err(format!("{callers} callers' connections open after the drain"));
    }
    Ok(())
}

/// Gauges that must be zero when no call is there.
pub(crate) const EMPTY_GAUGES: [&str; 5] =
    ["calls_in_flight", "calls_waiting", "pool_bytes_used", "connections_downstream", "connections_relayed"];

fn held(world: &World, when: &str) -> Result<(), String> {
    let rx = world.net.rx_live.get();
    if rx > 0 {
        return Err(format!("{rx} receive buffers held {when}"));
    }
    world.nodes.iter().try_for_each(|node| {
        let pending = node.offload.pending.get();
        if pending > 0 {
            return Err(format!("{pending} offload jobs pending {when}"));
        }
        empty(&node.core.snapshot(), when)
    })
}

/// A node has no call.
fn empty(snapshot: &Snapshot, when: &str) -> Result<(), String> {
    if let Some(endpoint) = snapshot.endpoints.iter().find(|e| e.inflight > 0) {
        return Err(format!("endpoint {} has {} calls in flight {when}", endpoint.addr, endpoint.inflight));
    }
    let count = |name| snapshot.counters.iter().find(|(n, ..)| *n == name).map_or(0, |(_, _, value)| *value);
    if count("calls_started") != count("calls_ended") {
        let (started, ended) = (count("calls_started"), count("calls_ended"));
        return Err(format!("{started} calls started, {ended} ended {when}"));
    }
    for (name, _, value) in &snapshot.gauges {
        if *name == "programs_alive" && *value != 1 {
            return Err(format!("{value} programs alive {when}"));
        }
        if EMPTY_GAUGES.contains(name) && *value > 0 {
            return Err(format!("{name} is {value} {when}"));
        }
    }
    Ok(())
}
