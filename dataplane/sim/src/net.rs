//! The simulated network: links between the shard and scripted peers, and what both ends may do to them.
//!
//! A link has a shard's end (a slot of the transport, with a generation) and a peer's end. Each direction is
//! a [`Pipe`]. Links are never reused, slots are. Time moves only in [`Net::advance`].

use std::cell::Cell;
use std::rc::Rc;

use abi::Addr;
use shard::{ConnId, ListenerId, Peer, Why};

use crate::pipe::Pipe;
use crate::plan::{FaultPlan, LinkPlan, Weather};
use crate::rng::Rng;
use crate::trace::Trace;

/// A link's place in [`Net::links`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LinkId(pub(crate) usize);

/// How far a link has come, seen from the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// A peer connects at this time.
    Arriving(u64, ListenerId, Peer),
    /// The shard connects; this is how it will end, `None` never.
    Connecting(Option<(u64, Result<(), Why>)>),
    /// The peer's end exists, the shard has not been told.
    Pending,
    /// Both ends know.
    Open,
}

/// Nodes a network can have.
pub(crate) const NODES_MAX: usize = 2;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The node whose shard has it.
    pub(crate) node: usize,
    pub(crate) plan: LinkPlan,
    pub(crate) to_shard: Pipe,
    pub(crate) to_peer: Pipe,
    pub(crate) phase: Phase,
    /// Which backend it leads to; `None` for a caller's.
    pub(crate) backend: Option<usize>,
    pub(crate) slot: Option<ConnId>,
    pub(crate) is_paused: bool,
    /// Bytes that may still be delivered although paused: they had been received.
    pub(crate) grace: usize,
    pub(crate) shard_finished: bool,
    pub(crate) eof_told: bool,
    pub(crate) reset_to_shard: Option<(u64, Why)>,
    pub(crate) reset_to_peer: Option<u64>,
    /// The peer's end was closed or reset; nobody reads `to_peer` any more.
    pub(crate) peer_gone: bool,
    /// Something happened that the peer has not been woken for.
    pub(crate) peer_news: bool,
    /// Lost on the way, refused or reset by a fault, not by an end.
    pub(crate) is_faulted: bool,
    began_at: u64,
}

/// A place a shard may connect to.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) addr: Addr,
    /// Nobody listens in these intervals, ns.
    pub(crate) down: Vec<(u64, u64)>,
}

/// Transport state of the nodes' shards: what [`crate::transport`] implements the trait on.
#[derive(Debug)]
pub(crate) struct Net {
    /// The node that uses it now.
    pub(crate) node: usize,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: FaultPlan,
    pub(crate) trace: Trace,
    pub(crate) links: Vec<Link>,
    pub(crate) alive: Vec<LinkId>,
    pub(crate) slots: Vec<(u32, Option<LinkId>)>,
    pub(crate) backends: Vec<Backend>,
    /// Links to backends whose peer's end has just come to be.
    pub(crate) born: Vec<LinkId>,
    pub(crate) rx_live: Rc<Cell<usize>>,
    /// By node.
    pub(crate) is_accepting: [bool; NODES_MAX],
    /// Misuse of the transport by the shard.
    pub(crate) violations: Vec<String>,
    pub(crate) turn: TurnCount,
    pub(crate) load: u32,
}

/// What a shard did to the transport in one turn.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct TurnCount {
    pub(crate) events: usize,
    pub(crate) bursts: usize,
    pub(crate) actions: usize,
    pub(crate) tx_calls: usize,
    pub(crate) flushes: usize,
}

impl Net {
    /// A network without links.
    pub(crate) fn new(rng: Rng, plan: FaultPlan, trace: Trace) -> Self {
        Self {
            node: 0,
            // Not zero, so that a time compared with a forgotten zero shows.
            now: 1_000_000_000,
            rng,
            plan,
            trace,
            links: Vec::new(),
            alive: Vec::new(),
            slots: Vec::new(),
            backends: Vec::new(),
            born: Vec::new(),
            rx_live: Rc::new(Cell::new(0)),
            is_accepting: [true; NODES_MAX],
            violations: Vec::new(),
            turn: TurnCount::default(),
            load: 0,
        }
    }

    /// A peer's connection to the first node that arrives `in_ns` from now.
    pub(crate) fn arrive(&mut self, in_ns: u64, listener: ListenerId, peer: Peer) -> LinkId {
        self.arrive_at(0, in_ns, listener, peer)
    }

    /// A peer's connection to a node that arrives `in_ns` from now.
    pub(crate) fn arrive_at(&mut self, node: usize, in_ns: u64, listener: ListenerId, peer: Peer) -> LinkId {
        let link = self.add(Phase::Arriving(self.now + in_ns, listener, peer), None, node);
        if !self.is_accepting[node] {
            self.turn_away(link);
        }
        link
    }

    /// Nobody listens any more where a link arrives.
    pub(crate) fn turn_away(&mut self, link: LinkId) {
        let lag = self.lag(link);
        let it = &mut self.links[link.0];
        it.is_faulted = true;
        it.reset_to_peer.get_or_insert(lag);
        it.phase = Phase::Open;
        it.peer_news = true;
    }

    /// A connection of the shard's to `addr`.
    pub(crate) fn begin(&mut self, addr: &Addr) -> (LinkId, ConnId) {
        let backend = self.backends.iter().position(|b| b.addr == *addr);
        let due = self.now + 1 + self.rng.below(2_000_000);
        let foul = self.plan.weather == Weather::Foul;
        let is_down = backend
            .and_then(|at| self.backends.get(at))
            .is_none_or(|b| b.down.iter().any(|(from, to)| (*from..*to).contains(&due)));
        let end = if is_down || self.rng.chance(self.plan.refuse_permille) {
            let whys = [Why::Refused, Why::Refused, Why::Unreachable, Why::TimedOut, Why::Exhausted];
            Some((due, Err(if foul { self.rng.pick(&whys) } else { Why::Refused })))
        } else if self.rng.chance(self.plan.lost_permille) {
            None
        } else {
            Some((due, Ok(())))
        };
        let link = self.add(Phase::Connecting(end), backend, self.node);
        self.links[link.0].is_faulted = !matches!(end, Some((_, Ok(()))));
        let conn = self.occupy(link);
        (link, conn)
    }

    fn add(&mut self, phase: Phase, backend: Option<usize>, node: usize) -> LinkId {
        let plan = self.plan.link(&mut self.rng);
        let began_at = match phase {
            Phase::Arriving(due, ..) => due,
            _ => self.now,
        };
        let id = LinkId(self.links.len());
        self.links.push(Link {
            node,
            plan,
            to_shard: Pipe::default(),
            to_peer: Pipe::default(),
            phase,
            backend,
            slot: None,
            is_paused: false,
            grace: 0,
            shard_finished: false,
            eof_told: false,
            reset_to_shard: None,
            reset_to_peer: None,
            peer_gone: false,
            peer_news: true,
            is_faulted: false,
            began_at,
        });
        self.alive.push(id);
        id
    }

    /// Gives a link a slot: a new one, or a freed one with another generation.
    pub(crate) fn occupy(&mut self, link: LinkId) -> ConnId {
        let free: Vec<usize> =
            self.slots.iter().enumerate().filter(|(_, (_, l))| l.is_none()).map(|(at, _)| at).collect();
        let at = if free.is_empty() {
            self.slots.push((0, None));
            self.slots.len() - 1
        } else if self.plan.reuse_lowest {
            free[0]
        } else {
            self.rng.pick(&free)
        };
        let (generation, taken) = &mut self.slots[at];
        *generation += 1;
        *taken = Some(link);
        let conn = ConnId { index: u32::try_from(at).unwrap_or(u32::MAX), generation: *generation };
        self.links[link.0].slot = Some(conn);
        conn
    }

    /// The live link behind a shard's handle.
    pub(crate) fn of(&self, conn: ConnId) -> Option<LinkId> {
        let (generation, link) = self.slots.get(conn.index as usize)?;
        if *generation == conn.generation { *link } else { None }
    }

    /// Frees the shard's end.
    pub(crate) fn vacate(&mut self, link: LinkId) {
        if let Some(conn) = self.links[link.0].slot.take()
            && let Some((_, taken)) = self.slots.get_mut(conn.index as usize)
        {
            *taken = None;
        }
    }

    /// A delay like that of this link.
    pub(crate) fn lag(&mut self, link: LinkId) -> u64 {
        let plan = &self.links[link.0].plan;
        let (low, high) = (plan.delay_ns_min, plan.delay_ns_max);
        self.now + 1 + low + self.rng.below(high - low)
    }

    /// The link is lost: both ends see a reset.
    fn lose(&mut self, link: LinkId) {
        let (to_shard, to_peer) = (self.lag(link), self.lag(link));
        let why = self.rng.pick(&[Why::Reset, Why::Reset, Why::TimedOut, Why::Other]);
        let now = self.now;
        self.trace.note(now, format_args!("link {} is lost", link.0));
        let it = &mut self.links[link.0];
        it.is_faulted = true;
        it.plan.reset_after_bytes = None;
        it.plan.reset_after_ns = None;
        it.reset_to_shard.get_or_insert((to_shard, why));
        it.reset_to_peer.get_or_insert(to_peer);
    }

    /// Moves time to `now`: deliveries, losses, connects that come true.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = now;
        let alive = core::mem::take(&mut self.alive);
        for id in &alive {
            let it = &mut self.links[id.0];
            let before = it.to_peer.readable();
            it.to_shard.advance(now);
            it.to_peer.advance(now);
            let is_open = matches!(it.phase, Phase::Open | Phase::Pending);
            it.peer_news |= it.to_peer.readable() > before
                || it.to_peer.at_end(now)
                || it.reset_to_peer.is_some_and(|due| due <= now)
                || it.to_shard.wants_writer(now, &it.plan);
            if let Phase::Connecting(Some((due, Ok(())))) = it.phase
                && due <= now
                && it.slot.is_some()
            {
                it.phase = Phase::Pending;
                self.born.push(*id);
            }
            let moved = it.to_shard.written + it.to_peer.written;
            let too_far = it.plan.reset_after_bytes.is_some_and(|bytes| moved >= bytes);
            let too_long = it.plan.reset_after_ns.is_some_and(|ns| now >= it.began_at + ns);
            if is_open && (too_far || too_long) {
                self.lose(*id);
            }
        }
        self.alive = alive;
        let links = &mut self.links;
        self.alive.retain(|id| {
            let it = &mut links[id.0];
            let arriving = matches!(it.phase, Phase::Arriving(..));
            let is_over = it.peer_gone && it.slot.is_none() && !arriving;
            if is_over {
                it.to_shard.drop_all();
                it.to_peer.drop_all();
            }
            !is_over
        });
    }

    /// When something happens by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let now = self.now;
        let due = |it: &Link| {
            let phase = match it.phase {
                Phase::Arriving(due, ..) if self.is_accepting[it.node] => Some(due),
                Phase::Connecting(Some((due, _))) => Some(due),
                _ => None,
            };
            let lost = it.plan.reset_after_ns.map(|ns| it.began_at + ns);
            let reset = it.reset_to_shard.map(|(due, _)| due);
            let pipes = [it.to_shard.next_due(now, &it.plan), it.to_peer.next_due(now, &it.plan)];
            [phase, lost, reset, it.reset_to_peer, pipes[0], pipes[1]]
                .into_iter()
                .flatten()
                .filter(|at| *at > now)
                .min()
        };
        self.alive.iter().filter_map(|id| due(&self.links[id.0])).min()
    }

    /// Reports misuse by the shard.
    pub(crate) fn violation(&mut self, what: String) {
        let now = self.now;
        self.trace.note(now, format_args!("VIOLATION {what}"));
        self.violations.push(what);
    }
}
