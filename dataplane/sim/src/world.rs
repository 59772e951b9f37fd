//! One run: a shard, a network, peers, and the loop that moves the virtual clock.
//!
//! The loop does what a node does: turn while there is work, else wait for the network, a timer of the
//! shard, or a completed offload job. Every turn is followed by the checks that must always hold; the
//! checks of a finished run are in [`crate::check`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use abi::Program;
use shard::{ListenerId, Log, Setup, Shard, Snapshot, Turn};
use wire::Instant;

use crate::ledger::Ledger;
use crate::log::{Lines, SimLog};
use crate::net::{LinkId, Net, TurnCount};
use crate::offload::{OffloadView, SimOffload};
use crate::peer::{Peer, PeerIo, Wake};
use crate::relay::caller_addr;
use crate::rng::Rng;

/// Turns in a row that claim work although nothing moved, before it is called a livelock.
const IDLE_TURNS_MAX: u32 = 200;
/// What a relay may hold of one direction: the shard pauses at 256 KiB, and what its transport had received
/// by then may still come.
const RELAY_BYTES_MAX: u64 = 600 << 10;
/// How often the pool is looked at, in turns.
const POOL_LOOK_TURNS: u64 = 256;
/// Turns of one run.
const TURNS_MAX: u64 = 3_000_000;

/// What is tested: the shard, or a stand-in that tests the simulator.
pub(crate) trait Core {
    fn turn(&mut self, now: Instant, net: &mut Net) -> Turn;
    fn drain(&mut self, now: Instant, net: &mut Net);
    fn is_drained(&self) -> bool;
    fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>);
    fn snapshot(&self) -> Snapshot;
}

impl Core for Shard<Net, SimOffload> {
    fn turn(&mut self, now: Instant, net: &mut Net) -> Turn {
        Self::turn(self, now, net)
    }

    fn drain(&mut self, now: Instant, net: &mut Net) {
        Self::drain(self, now, net);
    }

    fn is_drained(&self) -> bool {
        Self::is_drained(self)
    }

    fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>) {
        Self::adopt(self, program, sinks);
    }

    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }
}

/// Makes what is tested.
pub(crate) type Make = fn(Setup, SimOffload, Box<dyn Log>) -> Box<dyn Core>;

/// Makes the real thing.
pub(crate) fn real(setup: Setup, offload: SimOffload, log: Box<dyn Log>) -> Box<dyn Core> {
    Box::new(Shard::<Net, SimOffload>::new(setup, offload, log))
}

/// Makes the peer behind a connection that the shard has opened to a backend.
pub(crate) type Birth = Box<dyn FnMut(usize, LinkId, &mut Rng, &mut Ledger) -> Box<dyn Peer>>;

struct Seat {
    link: LinkId,
    peer: Option<Box<dyn Peer>>,
    wake_at: Option<u64>,
    is_client: bool,
}

/// A programme change at a time of the run.
pub(crate) struct Swap {
    pub(crate) at: u64,
    pub(crate) program: Arc<Program>,
    pub(crate) sinks: Vec<u16>,
}

/// Everything of one run.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) shard: Box<dyn Core>,
    pub(crate) ledger: Ledger,
    pub(crate) lines: Lines,
    pub(crate) offload: OffloadView,
    pub(crate) swaps: Vec<Swap>,
    /// When to begin to drain although callers are still there.
    pub(crate) drain_at: Option<u64>,
    /// Peers that connect because another was connected to.
    pub(crate) arrivals: Rc<RefCell<Vec<Box<dyn Peer>>>>,
    pub(crate) turns: u64,
    pub(crate) events: u64,
    birth: Birth,
    seats: Vec<Seat>,
    idle_turns: u32,
    until: Option<u64>,
    must_turn: bool,
}

impl World {
    pub(crate) fn new(mut net: Net, setup: Setup, birth: Birth, make: Make) -> Self {
        let log = SimLog::default();
        let lines = Rc::clone(&log.lines);
        let offload = OffloadView::default();
        offload.now.set(net.now);
        let queue = SimOffload::new(net.rng.fork(1), offload.clone());
        Self {
            shard: make(setup, queue, Box::new(log)),
            net,
            ledger: Ledger::default(),
            lines,
            offload,
            swaps: Vec::new(),
            drain_at: None,
            arrivals: Rc::default(),
            turns: 0,
            events: 0,
            birth,
            seats: Vec::new(),
            idle_turns: 0,
            until: None,
            must_turn: true,
        }
    }

    /// Puts a peer at the far end of a link. It is first woken when its link has come to be.
    pub(crate) fn seat(&mut self, link: LinkId, peer: Box<dyn Peer>, wake_at: u64, is_client: bool) {
        self.seats.push(Seat { link, peer: Some(peer), wake_at: Some(wake_at), is_client });
    }

    /// Peers that are not done: callers, then backends.
    pub(crate) fn unfinished(&self) -> (usize, usize) {
        let busy =
            |is_client| self.seats.iter().filter(|s| s.peer.is_some() && s.is_client == is_client).count();
        (busy(true), busy(false))
    }

    /// Runs until no caller is left, or `until` has come.
    pub(crate) fn run_callers(&mut self, until: u64) -> Result<(), String> {
        while self.unfinished().0 > 0 {
            if !self.step(until)? && self.unfinished().0 > 0 {
                return Err(format!("{} callers wait for ever", self.unfinished().0));
            }
            if self.net.now >= until {
                return Err(format!("{} callers are not done in time", self.unfinished().0));
            }
        }
        Ok(())
    }

    /// Runs for so long, or until nothing can happen any more.
    pub(crate) fn run_for(&mut self, ns: u64) -> Result<(), String> {
        let end = self.net.now + ns;
        while self.net.now < end {
            if !self.step(end)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Drains the shard and gives it its time; true if it says it is drained.
    pub(crate) fn drain(&mut self, ns: u64) -> Result<bool, String> {
        self.begin_drain();
        let end = self.net.now + ns;
        while self.net.now < end && !self.shard.is_drained() {
            if !self.step(end)? {
                break;
            }
        }
        Ok(self.shard.is_drained())
    }

    fn begin_drain(&mut self) {
        self.drain_at = None;
        let now = self.net.now;
        self.net.trace.note(now, format_args!("drain"));
        self.shard.drain(Instant(now), &mut self.net);
        self.must_turn = true;
    }

    /// Wires between nodes end.
    pub(crate) fn hang_up(&mut self) {
        self.ledger.is_over = true;
        self.net.links.iter_mut().for_each(|link| link.peer_news = true);
    }

    /// Peers, then a turn, then time. False if nothing is left that could happen.
    fn step(&mut self, end: u64) -> Result<bool, String> {
        self.peers();
        if self.drain_at.is_some_and(|at| at <= self.net.now) {
            self.begin_drain();
        }
        while self.swaps.first().is_some_and(|s| s.at <= self.net.now) {
            let swap = self.swaps.remove(0);
            let now = self.net.now;
            self.net.trace.note(now, format_args!("adopt"));
            self.shard.adopt(swap.program, swap.sinks);
            self.must_turn = true;
        }
        let is_due = self.until.is_some_and(|at| at <= self.net.now);
        let has_late = self.offload.wake_at.get().is_some_and(|at| at <= self.net.now);
        if self.must_turn || is_due || has_late || self.net.has_events() {
            self.turn()?;
            let cost = 1 + self.net.rng.below(self.net.plan.turn_ns_max);
            self.move_to(self.net.now + cost);
            return Ok(true);
        }
        let seats = self.seats.iter().filter(|s| s.peer.is_some()).filter_map(|s| s.wake_at);
        let swap = self.swaps.first().map(|s| s.at);
        let next = [self.net.next_due(), self.until, self.offload.wake_at.get(), swap, self.drain_at]
            .into_iter()
            .flatten()
            .chain(seats)
            .min();
        let Some(next) = next else { return Ok(false) };
        self.move_to(next.clamp(self.net.now + 1, end.max(self.net.now + 1)));
        Ok(true)
    }

    fn move_to(&mut self, now: u64) {
        self.net.advance(now);
        self.offload.now.set(now);
    }

    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        self.net.turn = TurnCount::default();
        let pending = self.offload.pending.get();
        let was_due = self.until.is_some_and(|at| at <= self.net.now);
        let turn = self.shard.turn(Instant(self.net.now), &mut self.net);
        let count = self.net.turn;
        self.events += count.events as u64;
        if self.net.trace.prints() {
            eprintln!("{:>17} turn: did_work {}, until {:?}", "", turn.did_work, turn.until.map(|at| at.0));
        }
        self.must_turn = turn.did_work;
        self.until = turn.until.map(|at| at.0);
        if let Some(what) = self.net.violations.first() {
            return Err(format!("transport misused: {what}"));
        }
        if let Some(what) = self.ledger.problems.first() {
            return Err(what.clone());
        }
        self.backpressure()?;
        if self.turns.is_multiple_of(POOL_LOOK_TURNS) {
            self.pool()?;
        }
        if count.events > 32 {
            return Err(format!("a turn took {} events", count.events));
        }
        if count.tx_calls > 0 && count.flushes != 1 {
            return Err(format!("{} flushes in a turn with tx", count.flushes));
        }
        let moved = count.events > 0 || count.actions > 0 || pending != self.offload.pending.get();
        let claims = turn.did_work || self.until.is_some_and(|at| at <= self.net.now);
        let is_idle = claims && !moved && !(was_due && self.until.is_none_or(|at| at > self.net.now));
        self.idle_turns = if is_idle { self.idle_turns + 1 } else { 0 };
        if self.idle_turns > IDLE_TURNS_MAX {
            let (did, until, now) = (turn.did_work, self.until, self.net.now);
            return Err(format!("livelock: did_work {did}, until {until:?} at {now}, nothing moves"));
        }
        if self.turns > TURNS_MAX {
            return Err("too many turns".into());
        }
        Ok(())
    }

    /// What calls were granted never exceeds the byte pool.
    fn pool(&self) -> Result<(), String> {
        let gauges = self.shard.snapshot().gauges;
        let value = |name| gauges.iter().find(|(n, ..)| *n == name).map(|(_, _, value)| *value);
        match (value("pool_bytes_used"), value("pool_bytes_max")) {
            (Some(used), Some(max)) if used > max => Err(format!("{used} bytes of a pool of {max} are used")),
            _ => Ok(()),
        }
    }

    /// A relay holds no more of a stream than it must: its reader's pace reaches its writer.
    fn backpressure(&self) -> Result<(), String> {
        let flows = &self.ledger.flows;
        for (at, flow) in flows.iter().enumerate().filter(|(_, flow)| !flow.done) {
            let Some(partner) = flow.partner.map(|p| &flows[p]).filter(|p| !p.done) else { continue };
            let from = &self.net.links[partner.link.0].to_shard;
            let to = &self.net.links[flow.link.0].to_peer;
            let held = from.read.saturating_sub(to.written);
            if held > RELAY_BYTES_MAX {
                return Err(format!("{held} bytes are held between flows {at} and {:?}", flow.partner));
            }
        }
        Ok(())
    }

    fn peers(&mut self) {
        for link in core::mem::take(&mut self.net.born) {
            let backend = self.net.links[link.0].backend.unwrap_or(0);
            let mut rng = self.net.rng.fork(link.0 as u64);
            let peer = (self.birth)(backend, link, &mut rng, &mut self.ledger);
            self.seat(link, peer, self.net.now, false);
        }
        for peer in self.arrivals.take() {
            let link = self.net.arrive(0, ListenerId(1), caller_addr(3, self.net.links.len()));
            self.seat(link, peer, self.net.now, false);
        }
        let now = self.net.now;
        for seat in &mut self.seats {
            let it = &mut self.net.links[seat.link.0];
            let is_due = seat.wake_at.is_some_and(|at| at <= now);
            if !(is_due || it.peer_news && seat.wake_at != Some(u64::MAX)) {
                continue;
            }
            let Some(peer) = &mut seat.peer else { continue };
            if let crate::net::Phase::Arriving(due, ..) = it.phase
                && due > now
            {
                continue;
            }
            it.peer_news = false;
            match peer.wake(&mut PeerIo::new(&mut self.net, seat.link), &mut self.ledger) {
                Wake::OnNews => seat.wake_at = None,
                Wake::At(at) => seat.wake_at = Some(at.max(now + 1)),
                Wake::Done => {
                    seat.peer = None;
                    if !self.net.links[seat.link.0].peer_gone {
                        PeerIo::new(&mut self.net, seat.link).close();
                    }
                }
            }
        }
        self.seats.retain(|seat| seat.peer.is_some());
    }
}
