//! Frames in: each to the socket of its flow, to the backlog, or to its end.

use core::hint::black_box;

use shard::{Burst, Device, Instant};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use crate::challenge::Doubt;
use crate::conn::{Conn, Stage};
use crate::icmp::Origin;
use crate::listen::Admission;
use crate::outbox::{Gate, Link, Sent};
use crate::parse::{ACK, Bad, ETHERNET, FIN, IPV4, IPV6, Mac, Parsed, RST, SYN, Segment, TCP, mac_at};
use crate::stack::{Stack, tcp_instant};
use crate::time_wait::Straggler;

impl<D: Device> Stack<D> {
    /// Takes in at most one burst; true if it was a full one.
    pub(crate) fn receive(&mut self, now: Instant) -> bool {
        self.out.device.rx_burst(&mut self.rx);
        if self.rx.is_empty() {
            return false;
        }
        let is_full = self.rx.room() == 0;
        // Out of `self` while connections are worked on; it keeps its memory.
        let mut batch = core::mem::take(&mut self.batch);
        for frame in self.rx.drain() {
            let parsed = self.rules.parse(&frame);
            batch.push((frame, parsed));
        }
        self.look_ahead(&batch);
        for (mut frame, parsed) in batch.drain(..) {
            self.counters.rx_frames += 1;
            match parsed {
                Ok(Parsed::Tcp(segment, end)) => self.take_segment(&mut frame[..end], &segment, now),
                other => self.take_other(&frame, other, Origin::Wire, now),
            }
        }
        self.batch = batch;
        is_full
    }

    /// Reads what the segments of a burst will need before any of them needs it. With thousands of
    /// connections none of it is in the cache, and reads that do not wait for each other overlap; each loop
    /// goes one pointer further.
    fn look_ahead(&self, batch: &[(D::Frame, Result<Parsed, Bad>)]) {
        if batch.len() < 2 {
            return;
        }
        let mut found = [u32::MAX; Burst::<()>::MAX];
        for (index, (_, parsed)) in found.iter_mut().zip(batch) {
            if let Ok(Parsed::Tcp(segment, _)) = parsed {
                *index = self.flows.get(&segment.flow).copied().unwrap_or(u32::MAX);
            }
        }
        let conns = || found.iter().take(batch.len()).filter_map(|index| self.slots.slot(*index));
        let marks = conns().map(|conn| usize::from(conn.ready) + usize::from(conn.sent.flags));
        black_box(marks.sum::<usize>());
        let sockets = conns().filter_map(|conn| conn.tcp.as_ref());
        black_box(sockets.map(|tcp| tcp.look()).fold(0, usize::wrapping_add));
    }

    /// What is not TCP.
    pub(crate) fn take_other(
        &mut self,
        frame: &[u8],
        parsed: Result<Parsed, Bad>,
        origin: Origin,
        now: Instant,
    ) {
        let done = match parsed {
            Ok(Parsed::Tcp(..)) => Ok(()),
            Ok(Parsed::Arp) => self.take_arp(frame, origin, now),
            Ok(Parsed::Icmp { from, to, hop_limit, message }) => {
                self.take_icmp(frame, (from, to, hop_limit), message, origin, now)
            }
            Err(bad) => Err(bad),
        };
        if let Err(bad) = done {
            self.counters.count_bad(bad);
        }
    }

    fn take_segment(&mut self, frame: &mut [u8], segment: &Segment, now: Instant) {
        let mac = mac_at(frame, 6);
        if let Some(index) = self.flows.get(&segment.flow).copied() {
            return self.feed(index, frame, mac, segment, now);
        }
        match self.time_wait.meet(segment, now) {
            Straggler::None => {}
            Straggler::Ignore => return,
            Straggler::Acknowledge(last) => {
                let flow = segment.flow;
                if let Some(local) = self.rules.routes.address(flow.local) {
                    let (from, to) = ((local, flow.local_port), (flow.remote, flow.remote_port));
                    self.pen().acknowledge(mac, from, to, last.seq, last.ack, 0);
                }
                return;
            }
        }
        if segment.flags & (SYN | ACK | RST | FIN) == SYN {
            self.take_syn(frame, mac, segment, now);
        } else {
            self.refuse(frame, mac, segment, now);
        }
    }

    /// Gives a segment to its connection's socket, and nobody else's.
    fn feed(&mut self, index: u32, frame: &mut [u8], source: Mac, segment: &Segment, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        // Answers go to the neighbour, not to whoever speaks in its name; a SYN has none yet.
        let mac = match (conn.way(&mut self.neighbours, index, now), conn.stage) {
            (Some(way), _) => way,
            (None, Stage::HalfOpen(_)) if conn.state() != State::Listen => return,
            (None, _) => source,
        };
        let (_, tcp) = frame.split_at_mut_checked(segment.at).unwrap_or_default();
        let ip_len = if segment.flow.remote.is_ipv4() { IPV4 } else { IPV6 };
        conn.greet(segment, tcp, u32::try_from(self.rules.mtu - ip_len - TCP).unwrap_or(0));
        if conn.exceeds(segment) {
            self.counters.bad_tcp_window += 1;
            return;
        }
        if conn.follows_fin(segment) {
            self.counters.bad_tcp_after_fin += 1;
            return;
        }
        if let Some(doubt) = conn.doubts_rst(segment) {
            self.counters.resets_inexact += 1;
            if doubt == Doubt::Challenge {
                self.challenge(index, mac, now);
            }
            return;
        }
        if conn.doubts_syn(segment) {
            self.counters.bad_tcp_syn += 1;
            return self.challenge(index, mac, now);
        }
        let una = conn.unacknowledged();
        if conn.doubts_ack(segment, una) {
            self.counters.bad_tcp_ack += 1;
            return self.challenge(index, mac, now);
        }
        if conn.repeats(segment, una) {
            conn.repeat(segment, tcp, now);
            self.neighbours.confirm(conn.hop, conn.hop_place, source, now);
            return self.mark_dirty(index);
        }
        conn.refresh(segment, una, tcp, now);
        let Some(tcp) = &mut conn.tcp else { return };
        let before = tcp.state();
        let mut gate = Gate {
            out: &mut self.out,
            counters: &mut self.counters,
            packet: frame.get(ETHERNET..),
            to: Some(Link::of(mac, segment.flow.remote)),
            sent: &mut conn.sent,
        };
        self.iface.poll_ingress_single(tcp_instant(now), &mut gate, &mut tcp.set);
        conn.note(before, segment.flags & RST != 0);
        if una.is_none()
            && let Some(first) = conn.unacknowledged()
        {
            conn.recovery.acknowledged(first, &mut conn.sent, now);
        }
        self.neighbours.confirm(conn.hop, conn.hop_place, source, now);
        match (conn.stage, conn.state()) {
            // A RST sends a half-open socket back to listening.
            (Stage::HalfOpen(_), State::Listen | State::Closed) => return self.free(index, now),
            (Stage::HalfOpen(_), State::SynReceived) => {}
            (Stage::Closing, _) => {
                // RFC 2525 section 2.17: nobody will ever read this; the peer should know.
                if conn.unread() > 0
                    && let Some(tcp) = &mut conn.tcp
                {
                    tcp.get_mut().abort();
                }
            }
            _ => self.mark_ready(index),
        }
        self.mark_dirty(index);
    }

    /// The first segment of a connection that is not ours.
    fn take_syn(&mut self, frame: &mut [u8], mac: Mac, segment: &Segment, now: Instant) {
        let flow = segment.flow;
        let Some(local) = self.rules.routes.address(flow.local) else { return };
        let Some(listener) = self.backlog.listener(local, flow.local_port) else {
            self.counters.syns_refused += 1;
            return self.refuse(frame, mac, segment, now);
        };
        let Some((hop, _)) = self.rules.routes.hop(flow.remote) else {
            self.counters.syns_unroutable += 1;
            return;
        };
        if self.slots.len() >= self.limits.conns_max {
            self.counters.syns_over_conns_max += 1;
            return self.refuse(frame, mac, segment, now);
        }
        let kind = loop {
            match self.backlog.admit(&flow, segment.seq, now) {
                Admission::Yes(kind) => break kind,
                Admission::Instead(oldest) => {
                    let is_half_open = |conn: &mut Conn| matches!(conn.stage, Stage::HalfOpen(_));
                    if self.slots.conn_mut(oldest).is_some_and(is_half_open) {
                        self.counters.half_open_evicted += 1;
                        self.free(oldest.index, now);
                    }
                }
                Admission::Full => {
                    self.counters.syns_dropped += 1;
                    return;
                }
                Admission::SourceFull => {
                    self.counters.syns_dropped_source += 1;
                    return;
                }
            }
        };
        let mut tcp = self.sockets.take();
        let endpoint = IpListenEndpoint { addr: Some(IpAddress::from(local)), port: flow.local_port };
        if tcp.get_mut().listen(endpoint).is_err() {
            // Only an open socket or port 0 is refused, and neither comes here.
            return self.sockets.give(tcp);
        }
        let mut conn = Conn::new(Some(tcp), flow, hop, Stage::HalfOpen(listener));
        conn.deadline = Some(now.after(self.limits.half_open_timeout));
        conn.kind = kind;
        conn.way_back = (hop == flow.remote && self.neighbours.peek(hop, now).is_none()).then_some(mac);
        let id = self.insert(conn);
        self.begin_flow((local, flow.local_port), (flow.remote, flow.remote_port), now);
        self.backlog.enter(flow.remote, kind, id, now);
        let slots = &mut self.slots;
        self.backlog.tidy(|id| slots.conn_mut(id).is_some_and(|c| matches!(c.stage, Stage::HalfOpen(_))));
        self.feed(id.index, frame, mac, segment, now);
    }

    /// Answers a segment that belongs to nobody with one RST.
    fn refuse(&mut self, frame: &[u8], mac: Mac, segment: &Segment, now: Instant) {
        if segment.flags & RST != 0 {
            return;
        }
        if !self.rsts.take(now) {
            self.counters.rsts_suppressed += 1;
            return;
        }
        self.counters.rsts_sent += 1;
        let mut gate = Gate {
            out: &mut self.out,
            counters: &mut self.counters,
            packet: frame.get(ETHERNET..),
            to: Some(Link::of(mac, segment.flow.remote)),
            sent: &mut Sent::default(),
        };
        self.iface.poll_ingress_single(tcp_instant(now), &mut gate, &mut self.nobody);
    }
}
