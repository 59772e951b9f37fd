//! One run: a node or two, a network, peers, and the loop that moves the virtual clock.
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
use crate::net::{LinkId, Net};
use crate::node::{Deed, Node};
use crate::offload::SimOffload;
use crate::peer::{Peer, PeerIo, Wake};
use crate::relay::caller_addr;
use crate::rng::Rng;

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

/// Everything of one run.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
    pub(crate) ledger: Ledger,
    pub(crate) lines: Lines,
    /// What is done when to which node, in order.
    changes: Vec<(u64, usize, Deed)>,
    /// Peers that connect to the last node because another was connected to.
    pub(crate) arrivals: Rc<RefCell<Vec<Box<dyn Peer>>>>,
    pub(crate) turns: u64,
    pub(crate) events: u64,
    birth: Birth,
    seats: Vec<Seat>,
}

impl World {
    pub(crate) fn new(mut net: Net, setup: Setup, birth: Birth, make: Make) -> Self {
        let log = SimLog::default();
        let lines = Rc::clone(&log.lines);
        Self {
            nodes: vec![Node::new(0, &mut net, setup, log, make)],
            net,
            ledger: Ledger::default(),
            lines,
            changes: Vec::new(),
            arrivals: Rc::default(),
            turns: 0,
            events: 0,
            birth,
            seats: Vec::new(),
        }
    }

    /// Another node on the same network.
    pub(crate) fn join(&mut self, setup: Setup, make: Make) {
        let node = self.nodes.len();
        let log = SimLog { node, lines: Rc::clone(&self.lines) };
        self.nodes.push(Node::new(node, &mut self.net, setup, log, make));
    }

    /// Does something to a node at a time of the run.
    pub(crate) fn change(&mut self, at: u64, node: usize, deed: Deed) {
        let place = self.changes.partition_point(|(other, ..)| *other <= at);
        self.changes.insert(place, (at, node, deed));
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

    /// Drains all nodes and gives them their time; true if they say they are drained.
    pub(crate) fn drain(&mut self, ns: u64) -> Result<bool, String> {
        for node in &mut self.nodes {
            node.undergo(Deed::Drain, &mut self.net);
        }
        let end = self.net.now + ns;
        let are_drained = |nodes: &[Node]| nodes.iter().all(|node| node.core.is_drained());
        while self.net.now < end && !are_drained(&self.nodes) {
            if !self.step(end)? {
                break;
            }
        }
        Ok(are_drained(&self.nodes))
    }

    /// Wires between nodes end.
    pub(crate) fn hang_up(&mut self) {
        self.ledger.is_over = true;
        self.net.links.iter_mut().for_each(|link| link.peer_news = true);
    }

    /// Peers, then turns, then time. False if nothing is left that could happen.
    fn step(&mut self, end: u64) -> Result<bool, String> {
        self.peers();
        while self.changes.first().is_some_and(|(at, ..)| *at <= self.net.now) {
            let (_, node, deed) = self.changes.remove(0);
            self.nodes[node].undergo(deed, &mut self.net);
        }
        let mut has_turned = false;
        for at in 0..self.nodes.len() {
            if self.nodes[at].wants_turn(&self.net) {
                has_turned = true;
                self.turn(at)?;
                let cost = 1 + self.net.rng.below(self.net.plan.turn_ns_max);
                self.move_to(self.net.now + cost);
            }
        }
        if has_turned {
            return Ok(true);
        }
        let seats = self.seats.iter().filter(|s| s.peer.is_some()).filter_map(|s| s.wake_at);
        let nodes = self.nodes.iter().filter_map(Node::next_due);
        let change = self.changes.first().map(|(at, ..)| *at);
        let next = self.net.next_due().into_iter().chain(change).chain(nodes).chain(seats).min();
        let Some(next) = next else { return Ok(false) };
        self.move_to(next.clamp(self.net.now + 1, end.max(self.net.now + 1)));
        Ok(true)
    }

    fn move_to(&mut self, now: u64) {
        self.net.advance(now);
        self.nodes.iter().for_each(|node| node.offload.now.set(now));
    }

    fn turn(&mut self, at: usize) -> Result<(), String> {
        self.turns += 1;
        self.nodes[at].turn(&mut self.net)?;
        self.events += self.net.turn.events as u64;
        if let Some(what) = self.ledger.problems.first() {
            return Err(what.clone());
        }
        self.backpressure()?;
        if self.turns.is_multiple_of(POOL_LOOK_TURNS) {
            self.nodes[at].pool()?;
        }
        if self.turns > TURNS_MAX {
            return Err("too many turns".into());
        }
        Ok(())
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
            let (node, from) = (self.nodes.len() - 1, caller_addr(3, self.net.links.len()));
            let link = self.net.arrive_at(node, 0, ListenerId(0), from);
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
