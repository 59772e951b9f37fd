//! One node of a run: its shard, its offload queue, and when it next wants a turn.

use std::sync::Arc;

use abi::Program;
use shard::Setup;
use wire::Instant;

use crate::log::SimLog;
use crate::net::{Net, TurnCount};
use crate::offload::{OffloadView, SimOffload};
use crate::seals::Keys;
use crate::world::{Core, Make};

/// Turns in a row that claim work although nothing moved, before it is called a livelock.
const IDLE_TURNS_MAX: u32 = 200;

/// What is done to a node while it runs.
pub(crate) enum Deed {
    /// It takes a program over, with the sinks of its log.
    Adopt(Arc<Program>, Vec<u16>),
    /// Its keys change.
    Keys(Keys),
    /// It begins to drain.
    Drain,
}

/// A node.
pub(crate) struct Node {
    pub(crate) core: Box<dyn Core>,
    pub(crate) offload: OffloadView,
    place: usize,
    until: Option<u64>,
    must_turn: bool,
    idle_turns: u32,
}

impl Node {
    pub(crate) fn new(place: usize, net: &mut Net, setup: Setup, log: SimLog, make: Make) -> Self {
        let offload = OffloadView::default();
        offload.now.set(net.now);
        let queue = SimOffload::new(place, net.rng.fork(1), offload.clone());
        let core = make(setup, queue, Box::new(log));
        Self { core, offload, place, until: None, must_turn: true, idle_turns: 0 }
    }

    pub(crate) fn wants_turn(&self, net: &Net) -> bool {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= net.now);
        self.must_turn
            || is_due(self.until)
            || is_due(self.offload.wake_at.get())
            || net.has_events(self.place)
    }

    /// When it wants a turn by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        [self.until, self.offload.wake_at.get()].into_iter().flatten().min()
    }

    pub(crate) fn undergo(&mut self, deed: Deed, net: &mut Net) {
        let (place, now) = (self.place, net.now);
        net.node = place;
        self.must_turn = true;
        match deed {
            Deed::Adopt(program, sinks) => {
                net.trace.note(now, format_args!("node {place} adopts"));
                self.core.adopt(program, sinks);
            }
            Deed::Keys(keys) => {
                net.trace.note(now, format_args!("node {place} has {keys:?}"));
                self.offload.keys.replace(keys);
            }
            Deed::Drain => {
                net.trace.note(now, format_args!("node {place} drains"));
                self.core.drain(Instant(now), net);
            }
        }
    }

    /// A turn, and the checks that hold after every one.
    pub(crate) fn turn(&mut self, net: &mut Net) -> Result<(), String> {
        net.node = self.place;
        net.turn = TurnCount::default();
        let pending = self.offload.pending.get();
        let was_due = self.until.is_some_and(|at| at <= net.now);
        let turn = self.core.turn(Instant(net.now), net);
        let count = net.turn;
        if net.trace.prints() {
            let (did_work, until) = (turn.did_work, turn.until.map(|at| at.0));
            eprintln!("{:>17} turn of node {}: did_work {did_work}, until {until:?}", "", self.place);
        }
        self.must_turn = turn.did_work;
        self.until = turn.until.map(|at| at.0);
        if let Some(what) = net.violations.first() {
            return Err(format!("transport misused: {what}"));
        }
        if count.events > 32 {
            return Err(format!("a turn took {} events", count.events));
        }
        if count.tx_calls > 0 && count.flushes != 1 {
            return Err(format!("{} flushes in a turn with tx", count.flushes));
        }
        let moved = count.events > 0 || count.actions > 0 || pending != self.offload.pending.get();
        let claims = turn.did_work || self.until.is_some_and(|at| at <= net.now);
        let is_idle = claims && !moved && !(was_due && self.until.is_none_or(|at| at > net.now));
        self.idle_turns = if is_idle { self.idle_turns + 1 } else { 0 };
        if self.idle_turns > IDLE_TURNS_MAX {
            let (did, until, now) = (turn.did_work, self.until, net.now);
            return Err(format!("livelock: did_work {did}, until {until:?} at {now}, nothing moves"));
        }
        Ok(())
    }

    /// What calls were granted never exceeds the byte pool.
    pub(crate) fn pool(&self) -> Result<(), String> {
        let gauges = self.core.snapshot().gauges;
        let value = |name| gauges.iter().find(|(n, ..)| *n == name).map(|(_, _, value)| *value);
        match (value("pool_bytes_used"), value("pool_bytes_max")) {
            (Some(used), Some(max)) if used > max => Err(format!("{used} bytes of a pool of {max} are used")),
            _ => Ok(()),
        }
    }

    /// The value of a counter.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let counters = self.core.snapshot().counters;
        counters.iter().find(|(n, ..)| *n == name).map_or(0, |(_, _, value)| *value)
    }
}
