//! The network as `shard::Transport`.
//!
//! Every freedom the trait's documentation leaves to a backend is used: bursts end anywhere, `Data` comes in
//! any size, `tx` takes any prefix, what was received before a pause may still be delivered, an end may be
//! seen or not while paused. What the trait forbids the shard is noted as a violation.

use std::cell::Cell;
use std::rc::Rc;

use abi::Addr;
use shard::{Burst, ConnId, Event, Transport, Via};
use wire::Instant;

use crate::net::{LinkId, Net, Phase};
use crate::trace::digest;

/// Received bytes. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct SimRx {
    bytes: Box<[u8]>,
    live: Rc<Cell<usize>>,
}

impl Drop for SimRx {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}

/// What a link has for the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ready {
    Accepted,
    Connected,
    Failed,
    Data,
    Eof,
    Reset,
    Writable,
}

impl Net {
    /// True if a node's burst would not be empty.
    pub(crate) fn has_events(&self, node: usize) -> bool {
        self.alive.iter().any(|id| self.links[id.0].node == node && !self.ready(*id).is_empty())
    }

    fn ready(&self, link: LinkId) -> Vec<Ready> {
        let it = &self.links[link.0];
        let now = self.now;
        match it.phase {
            Phase::Arriving(due, ..) if due <= now && self.is_accepting[it.node] => {
                return vec![Ready::Accepted];
            }
            Phase::Arriving(..) => return Vec::new(),
            _ if it.slot.is_none() => return Vec::new(),
            Phase::Connecting(Some((due, Err(_)))) if due <= now => return vec![Ready::Failed],
            Phase::Connecting(_) => return Vec::new(),
            Phase::Pending => return vec![Ready::Connected],
            Phase::Open => {}
        }
        let mut out = Vec::new();
        let may_end = !it.is_paused || it.plan.sees_end_paused;
        let may_read = !it.is_paused || it.grace > 0;
        if it.to_shard.readable() > 0 && may_read && self.rx_live.get() < self.plan.rx_buffers {
            out.push(Ready::Data);
        }
        if may_end && it.reset_to_shard.is_some_and(|(due, _)| due <= now) {
            // A reset may overtake what was received, or wait for it to be read.
            out.push(Ready::Reset);
            return out;
        }
        if may_end && !it.eof_told && it.to_shard.at_end(now) {
            out.push(Ready::Eof);
        }
        if !it.shard_finished && it.to_peer.wants_writer(now, &it.plan) {
            out.push(Ready::Writable);
        }
        out
    }

    fn emit(&mut self, link: LinkId, what: Ready) -> Option<Event<SimRx>> {
        let now = self.now;
        let it = &mut self.links[link.0];
        if what == Ready::Accepted {
            let Phase::Arriving(_, listener, peer) = it.phase else { return None };
            it.phase = Phase::Open;
            let conn = self.occupy(link);
            self.trace.note(now, format_args!("accepted link {} as {} via {}", link.0, Id(conn), listener.0));
            return Some(Event::Accepted(conn, listener, peer));
        }
        let conn = it.slot?;
        let event = match what {
            Ready::Accepted => return None,
            Ready::Connected => {
                it.phase = Phase::Open;
                Event::Connected(conn)
            }
            Ready::Failed => {
                let Phase::Connecting(Some((_, Err(why)))) = it.phase else { return None };
                it.peer_gone = true;
                self.vacate(link);
                Event::Failed(conn, why)
            }
            Ready::Data => {
                let most = self.plan.chunk_bytes_max.min(it.to_shard.readable());
                let len = if self.rng.chance(700) { most } else { self.rng.size(1, most) };
                let bytes = it.to_shard.read(len).into_boxed_slice();
                it.grace = it.grace.saturating_sub(len);
                it.peer_news |= it.to_shard.is_blocked;
                self.rx_live.set(self.rx_live.get() + 1);
                let hash = digest(0, &bytes);
                self.trace.note(now, format_args!("rx {} data {len} {hash:x}", Id(conn)));
                return Some(Event::Data(conn, SimRx { bytes, live: Rc::clone(&self.rx_live) }));
            }
            Ready::Eof => {
                it.eof_told = true;
                Event::Eof(conn)
            }
            Ready::Reset => {
                let (_, why) = it.reset_to_shard?;
                it.to_shard.drop_all();
                it.to_peer.drop_flight();
                self.vacate(link);
                Event::Reset(conn, why)
            }
            Ready::Writable => {
                it.to_peer.is_blocked = false;
                Event::Writable(conn)
            }
        };
        self.trace.note(now, format_args!("rx {} {what:?}", Id(conn)));
        Some(event)
    }

    /// The shard let go of its end: what the peer will see.
    fn let_go(&mut self, link: LinkId, is_abrupt: bool) {
        let lag = self.lag(link);
        let now = self.now;
        let it = &mut self.links[link.0];
        if matches!(it.phase, Phase::Connecting(_)) {
            it.peer_gone = true;
        } else if is_abrupt || (it.to_shard.held() > 0 && it.plan.harsh_close) {
            it.to_peer.drop_flight();
            it.reset_to_peer.get_or_insert(lag);
        } else if !it.to_peer.is_finished() {
            it.to_peer.finish(now, &it.plan, &mut self.rng);
        }
        // Nobody reads this direction any more; more bytes from the peer draw a RST.
        let it = &mut self.links[link.0];
        it.to_shard.drop_all();
        it.peer_news = true;
        self.vacate(link);
    }
}

impl Transport for Net {
    type Rx = SimRx;

    fn rx_burst(&mut self, out: &mut Burst<Event<SimRx>>) {
        self.turn.bursts += 1;
        let most = if self.plan.burst_max == 0 { self.rng.size(1, 32) } else { self.plan.burst_max };
        let mut room = most.min(out.room());
        let clumps = self.rng.chance(self.plan.clump_permille);
        let own = self.alive.iter().copied().filter(|id| self.links[id.0].node == self.node);
        let mut candidates: Vec<LinkId> = own.filter(|id| !self.ready(*id).is_empty()).collect();
        while room > 0 && !candidates.is_empty() {
            let at = self.rng.size(0, candidates.len() - 1);
            let link = candidates[at];
            loop {
                let ready = self.ready(link);
                if ready.is_empty() {
                    candidates.swap_remove(at);
                    break;
                }
                let what = self.rng.pick(&ready);
                let Some(event) = self.emit(link, what) else { break };
                room -= 1;
                self.turn.events += 1;
                if out.push(event).is_err() {
                    self.violation("a burst took fewer events than its room".into());
                }
                if room == 0 || !clumps {
                    break;
                }
            }
        }
    }

    fn bytes<'a>(&'a self, rx: &'a SimRx) -> &'a [u8] {
        &rx.bytes
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        self.turn.actions += 1;
        self.turn.tx_calls += 1;
        let given: usize = slices.iter().map(|s| s.len()).sum();
        let Some(link) = self.of(conn) else { return given };
        let now = self.now;
        if self.links[link.0].shard_finished {
            self.violation(format!("tx on {} after half_close", Id(conn)));
        }
        if !matches!(self.links[link.0].phase, Phase::Open) {
            self.violation(format!("tx on {} before Connected", Id(conn)));
        }
        let lag = self.lag(link);
        let rng = &mut self.rng;
        let it = &mut self.links[link.0];
        if it.peer_gone || it.reset_to_peer.is_some() {
            // Into the void: the peer's end answers with a RST.
            it.reset_to_shard.get_or_insert((lag, shard::Why::Reset));
            self.trace.note(now, format_args!("tx {} {given} into the void", Id(conn)));
            return given;
        }
        it.to_peer.is_blocked = false;
        let mut taken = 0;
        let mut hash = 0;
        for slice in slices {
            let some = it.to_peer.write(now, &it.plan, rng, slice);
            hash = digest(hash, &slice[..some]);
            taken += some;
            if some < slice.len() {
                break;
            }
        }
        self.trace.note(now, format_args!("tx {} {taken}/{given} {hash:x}", Id(conn)));
        taken
    }

    fn pause_rx(&mut self, conn: ConnId) {
        self.turn.actions += 1;
        let Some(link) = self.of(conn) else { return };
        let grace = self.rng.chance(300);
        let it = &mut self.links[link.0];
        it.is_paused = true;
        it.grace = if grace { self.rng.size(0, it.to_shard.readable()) } else { 0 };
        let now = self.now;
        self.trace.note(now, format_args!("pause {}", Id(conn)));
    }

    fn resume_rx(&mut self, conn: ConnId) {
        self.turn.actions += 1;
        let Some(link) = self.of(conn) else { return };
        self.links[link.0].is_paused = false;
        let now = self.now;
        self.trace.note(now, format_args!("resume {}", Id(conn)));
    }

    fn connect(&mut self, to: &Addr, _via: Via) -> ConnId {
        self.turn.actions += 1;
        let (link, conn) = self.begin(to);
        let now = self.now;
        self.trace.note(now, format_args!("connect {to} link {} as {}", link.0, Id(conn)));
        conn
    }

    fn half_close(&mut self, conn: ConnId) {
        self.turn.actions += 1;
        let Some(link) = self.of(conn) else { return };
        let now = self.now;
        self.trace.note(now, format_args!("half_close {}", Id(conn)));
        if !matches!(self.links[link.0].phase, Phase::Open) {
            self.violation(format!("half_close of {} before Connected", Id(conn)));
        }
        let it = &mut self.links[link.0];
        it.shard_finished = true;
        it.to_peer.finish(now, &it.plan, &mut self.rng);
    }

    fn close(&mut self, conn: ConnId) {
        self.turn.actions += 1;
        let Some(link) = self.of(conn) else { return };
        let now = self.now;
        self.trace.note(now, format_args!("close {}", Id(conn)));
        self.let_go(link, false);
    }

    fn reset(&mut self, conn: ConnId) {
        self.turn.actions += 1;
        let Some(link) = self.of(conn) else { return };
        let now = self.now;
        self.trace.note(now, format_args!("reset {}", Id(conn)));
        self.let_go(link, true);
    }

    fn flush(&mut self) {
        self.turn.flushes += 1;
    }

    fn wait(&mut self, _until: Option<Instant>) {
        self.violation("the shard waits by itself".into());
    }

    fn now(&self) -> Instant {
        Instant(self.now)
    }

    fn publish_load(&mut self, calls: u32) {
        self.load = calls;
    }

    fn stop_accepting(&mut self) {
        self.turn.actions += 1;
        self.is_accepting[self.node] = false;
        for id in self.alive.clone() {
            let it = &self.links[id.0];
            if it.node == self.node && matches!(it.phase, Phase::Arriving(..)) {
                self.turn_away(id);
            }
        }
    }
}

/// A handle as it is written in traces.
struct Id(ConnId);

impl core::fmt::Display for Id {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "c{}.{}", self.0.index, self.0.generation)
    }
}
