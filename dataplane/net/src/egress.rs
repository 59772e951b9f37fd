//! Segments out: what connections have to send, when their timers are due, and who their neighbours are.

use core::net::IpAddr;

use shard::{Device, Instant, Why};
use smoltcp::iface::PollResult;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, IpRepr, TcpPacket};

use crate::conn::{Conn, Stage};
use crate::neighbours::{Due, Neighbours, SEARCH_NS};
use crate::outbox::{Gate, Link};
use crate::parse::Mac;
use crate::stack::{Stack, shard_instant, tcp_instant};

/// Segments of one connection in one turn; what is left goes with the next.
const SEGMENTS_MAX: usize = 64;
/// How often a connection whose neighbour is not known looks at its own timers.
const WAITING_NS: u64 = 1_000_000_000;
/// smoltcp would act at once but has not: the least time until it is asked again.
const AGAIN_NS: u64 = 1_000_000;
/// Between looks at neighbours to be asked, while the link is down.
const LINK_NS: u64 = 200_000_000;
/// A time-wait socket with less than this to go still has something to acknowledge.
const TIME_WAIT_QUIET_NS: u64 = 1_000_000_000;

impl Conn {
    /// The ethernet address its packets go to, if there is one; asks for it if need be.
    pub(crate) fn way(&mut self, neighbours: &mut Neighbours, index: u32, now: Instant) -> Option<Mac> {
        let known = match self.stage {
            Stage::HalfOpen(_) => neighbours.peek(self.hop, now).or(self.way_back),
            _ => neighbours.mac(self.hop, &mut self.hop_place, now),
        };
        if known.is_none() && !self.waits {
            self.waits = neighbours.wait(self.hop, index, true, now);
        }
        known
    }

    /// A handshake is done by the way its SYN came: true if that is where its neighbour is, false if it is not, and
    /// `None` as long as the neighbour has not been heard of. Else anybody on our network could speak in another's
    /// name without one ARP packet, past a switch that watches over those.
    fn is_proved(&mut self, neighbours: &mut Neighbours, index: u32, now: Instant) -> Option<bool> {
        let Some(way_back) = self.way_back else { return Some(true) };
        let known = neighbours.peek(self.hop, now);
        if known.is_none() && !self.waits {
            self.waits = neighbours.wait(self.hop, index, false, now);
        }
        known.map(|mac| mac == way_back)
    }

    /// Its handshake is done, but it is not accepted yet.
    fn is_held(&self) -> bool {
        matches!(self.stage, Stage::HalfOpen(_)) && self.state() != State::SynReceived
    }
}

impl<D: Device> Stack<D> {
    /// The end of a turn that began `now`: timers, then every connection with something to send, then one burst.
    pub fn send_all(&mut self, now: Instant) {
        // What was left behind goes first: without room for that there is none for more.
        self.out.is_stuck = !self.out.flush();
        let looks = self.backoff.looks(now);
        self.expire(now);
        self.time_wait.expire(now);
        // Before those whose segments may fill the port.
        self.ask_neighbours(now);
        let mut dirty = core::mem::take(&mut self.dirty);
        let mut done = 0;
        for index in &dirty {
            if self.out.is_stuck && !looks {
                break;
            }
            self.send(*index, now);
            done += 1;
        }
        // Whoever had no turn comes first in the next, and then who is dirty again; the list keeps its memory.
        dirty.drain(..done);
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.ask_neighbours(now);
        self.out.is_stuck |= !self.out.flush();
        if self.out.is_stuck {
            let taken = self.counters.tx_frames.saturating_sub(self.out.pending() as u64);
            self.backoff.note(taken, now);
        } else {
            self.backoff.end();
        }
        if !self.is_up {
            self.neighbours.put_off(now.after_ns(LINK_NS));
        }
    }

    /// Sends what one connection has to send now, and sets its timer.
    fn send(&mut self, index: u32, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.dirty = false;
        if conn.tcp.is_none() {
            if conn.stage == Stage::Closing {
                self.free(index, now);
            }
            return;
        }
        let mac = conn.way(&mut self.neighbours, index, now);
        let before = conn.state();
        let link = mac.map(|mac| Link::of(mac, conn.flow.remote));
        conn.sent.probes = conn.window == 0;
        let is_due = link.is_some() && conn.again_at().is_some_and(|at| at <= now);
        // What smoltcp cannot send at once it forgets to send again.
        if is_due && !self.out.is_stuck && self.out.has_room() {
            self.send_again(index, link, now);
        }
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.ends_later {
            conn.end_stream();
        }
        let Some(tcp) = &mut conn.tcp else { return };
        let mut gate = Gate {
            out: &mut self.out,
            counters: &mut self.counters,
            packet: None,
            to: link,
            sent: &mut conn.sent,
        };
        let mut segments = 0;
        while segments < SEGMENTS_MAX
            && self.iface.poll_egress(tcp_instant(now), &mut gate, &mut tcp.set)
                == PollResult::SocketStateChanged
        {
            segments += 1;
        }
        let at = self.iface.poll_at(tcp_instant(now), &tcp.set).map(shard_instant);
        conn.note(before, false);
        conn.recovery.sent(&conn.sent, now);
        let again_at = conn.again_at();
        // The table was full.
        let prove_at = (conn.is_held() && !conn.waits).then(|| now.after_ns(SEARCH_NS));
        if conn.end.is_some() || conn.is_held() {
            self.mark_ready(index);
        }
        if self.settle(index, at, mac.is_some(), now) {
            return;
        }
        let is_stuck = self.out.is_stuck && mac.is_some();
        let has_more = at.is_some_and(|at| at <= now) && (segments == SEGMENTS_MAX || is_stuck);
        if has_more {
            self.mark_dirty(index);
        }
        self.set_timer(index, [at, again_at, prove_at].into_iter().flatten().min(), mac.is_some(), now);
    }

    /// Has a connection's socket send its first unacknowledged segment again.
    ///
    /// smoltcp does that after the third acknowledgement in a row that says the same; so it is told three times. Two
    /// with another window before make it forget what it has counted.
    fn send_again(&mut self, index: u32, link: Option<Link>, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let Some(local) = self.rules.routes.address(conn.flow.local) else { return };
        // It may have taken an acknowledgement for true that seemed too odd.
        if let Some(una) = conn.unacknowledged() {
            conn.recovery.acknowledged(una, &mut conn.sent, now);
        }
        if conn.again_at().is_none_or(|at| at > now) {
            return;
        }
        conn.recovery.tried(&conn.sent, now);
        let (Some(mut tcp), Some(socket)) = (conn.repetition(), &mut conn.tcp) else { return };
        let (from, to) = (conn.flow.remote.into(), local.into());
        let window = tcp.window_len;
        for window in [if window > 1 { window - 1 } else { 2 }, window, window, window, window] {
            tcp.window_len = window;
            let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
            let mut packet = [0; 60];
            let caps = ChecksumCapabilities::ignored();
            let (header, segment) = packet.split_at_mut(ip.header_len());
            ip.emit(&mut *header, &caps);
            tcp.emit(&mut TcpPacket::new_unchecked(&mut *segment), &from, &to, &caps);
            let mut gate = Gate {
                out: &mut self.out,
                counters: &mut self.counters,
                packet: packet.get(..ip.header_len() + tcp.buffer_len()),
                to: link,
                sent: &mut conn.sent,
            };
            self.iface.poll_ingress_single(tcp_instant(now), &mut gate, &mut socket.set);
        }
    }

    /// Lets go of a socket that has nothing left to do; true if it has.
    fn settle(&mut self, index: u32, at: Option<Instant>, can_send: bool, now: Instant) -> bool {
        let Some(conn) = self.slots.slot_mut(index) else { return true };
        let Some(tcp) = &conn.tcp else { return true };
        let is_over = match tcp.state() {
            // Until the RST is out there is still somebody to send it to.
            State::Closed => tcp.get().remote_endpoint().is_none() || !can_send,
            State::TimeWait => at.is_none_or(|at| at.since_ns(now) >= TIME_WAIT_QUIET_NS),
            _ => false,
        };
        let is_read = tcp.get().recv_queue() == 0 || conn.stage == Stage::Closing;
        if !is_over || !is_read {
            return false;
        }
        match conn.stage {
            Stage::Closing | Stage::HalfOpen(_) => self.free(index, now),
            Stage::Connecting | Stage::Open => self.end_flow(index, now),
        }
        true
    }

    /// Sees to it that the connection is looked at when it next has to be.
    fn set_timer(&mut self, index: u32, at: Option<Instant>, can_send: bool, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let least_ns = match (can_send, conn.waits) {
            (true, _) => AGAIN_NS,
            (false, true) => WAITING_NS,
            // The table is full.
            (false, false) => SEARCH_NS,
        };
        let at = at.map(|at| at.max(now.after_ns(least_ns)));
        conn.due = [at, conn.deadline].into_iter().flatten().min();
        if let Some(due) = conn.due
            && conn.alarm.is_none_or(|alarm| due < alarm)
        {
            conn.alarm = Some(due);
            self.timers.set(index, due);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(index) = self.timers.due(now) {
            let Some(conn) = self.slots.slot_mut(index) else { continue };
            conn.alarm = conn.due.filter(|due| *due > now);
            if let Some(alarm) = conn.alarm {
                // Put off meanwhile; its socket, which is out of the cache by now, need not be asked.
                self.timers.set(index, alarm);
                continue;
            }
            if conn.deadline.is_some_and(|at| at <= now) {
                conn.deadline = None;
                self.miss_deadline(index, now);
            }
            self.mark_dirty(index);
        }
    }

    fn miss_deadline(&mut self, index: u32, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let can_send = !conn.is_mute();
        match conn.stage {
            Stage::HalfOpen(_) => {
                self.counters.half_open_expired += 1;
                self.free(index, now);
            }
            Stage::Connecting => {
                let why = if conn.is_mute() { Why::Unreachable } else { Why::TimedOut };
                conn.end.get_or_insert(why);
                self.mark_ready(index);
            }
            Stage::Closing => match &mut conn.tcp {
                // All that was accepted has arrived; the peer may keep its own end open without us.
                Some(tcp) if tcp.state() != State::FinWait2 && can_send => tcp.get_mut().abort(),
                _ => self.free(index, now),
            },
            Stage::Open => {}
        }
    }

    fn ask_neighbours(&mut self, now: Instant) {
        // A question that does not leave must not count as one without an answer.
        while !self.out.is_stuck
            && self.is_up
            && let Some(due) = self.neighbours.poll(now)
        {
            match due {
                Due::Ask(ip, known) => {
                    if let Some(source) = self.rules.routes.source(ip) {
                        self.pen().ask(source, ip, known);
                    }
                    if self.out.is_stuck {
                        self.neighbours.take_back(ip);
                    }
                }
                Due::Gone(ip, waiting) => {
                    self.counters.neighbours_failed += 1;
                    waiting.into_iter().for_each(|index| self.lose_neighbour(index, ip, now));
                }
            }
        }
    }

    /// A handshake is done: true if the connection is to be accepted now. It may be gone otherwise.
    pub(crate) fn may_accept(&mut self, index: u32, now: Instant) -> bool {
        let Some(conn) = self.slots.slot_mut(index) else { return false };
        let is_proved = conn.is_proved(&mut self.neighbours, index, now);
        if is_proved == Some(false) {
            self.counters.accepts_unproved += 1;
            self.free(index, now);
        }
        is_proved == Some(true)
    }

    fn lose_neighbour(&mut self, index: u32, ip: IpAddr, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if !conn.waited_for(ip) {
            return;
        }
        match conn.stage {
            Stage::HalfOpen(_) => {
                self.counters.accepts_unproved += u64::from(conn.is_held());
                self.free(index, now);
            }
            Stage::Closing => self.free(index, now),
            Stage::Connecting => {
                conn.end.get_or_insert(Why::Unreachable);
                self.mark_ready(index);
            }
            // It may come back: asked again, until the connection itself gives up.
            Stage::Open => self.mark_dirty(index),
        }
    }
}
