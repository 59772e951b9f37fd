//! The stack as the shard sees it.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use abi::Addr;
use shard::{Burst, ConnId, Device, Event, Instant, Peer, Transport, Via, Why};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use crate::Rx;
use crate::conn::{Conn, Stage};
use crate::parse::Flow;
use crate::stack::Stack;

/// Bursts taken from the device in one of the shard's.
const BURSTS_MAX: usize = 4;
/// How long a closed connection may go on sending what was accepted: five of smoltcp's retransmissions.
const LINGER_NS: u64 = 32_000_000_000;

impl<D: Device> Stack<D> {
    /// As [`Transport::connect`], from an address and port of the caller's choice.
    pub fn connect_from(&mut self, from: (IpAddr, u16), to: SocketAddr) -> ConnId {
        self.connect_to(Some(from), Some(to))
    }

    fn connect_to(&mut self, from: Option<(IpAddr, u16)>, to: Option<SocketAddr>) -> ConnId {
        self.counters.connects += 1;
        let begun = to.ok_or(Why::Unreachable).and_then(|to| self.begin(from, to));
        let has_begun = begun.is_ok();
        let conn = begun.unwrap_or_else(|why| {
            let to = to.unwrap_or(SocketAddr::from(([0; 4], 0)));
            let flow = Flow { remote: to.ip(), remote_port: to.port(), local: 0, local_port: 0 };
            let mut conn = Conn::new(None, flow, to.ip(), Stage::Connecting);
            conn.end = Some(why);
            conn
        });
        let id = self.insert(conn);
        if has_begun {
            self.mark_dirty(id.index)
        } else {
            self.mark_ready(id.index)
        }
        id
    }

    fn begin(&mut self, from: Option<(IpAddr, u16)>, to: SocketAddr) -> Result<Conn, Why> {
        let remote = to.ip();
        if to.port() == 0 || self.rules.routes.is_martian(remote) {
            return Err(Why::Unreachable);
        }
        let (hop, _) = self.rules.routes.hop(remote).ok_or(Why::Unreachable)?;
        if self.slots.len() >= self.limits.conns_max {
            return Err(Why::Exhausted);
        }
        let source = from.map_or_else(|| self.rules.routes.source(hop), |(ip, _)| Some(ip));
        let source = source.ok_or(Why::Unreachable)?;
        let local = self.rules.routes.local(source).ok_or(Why::Unreachable)?;
        let flow = |local_port| Flow { remote, remote_port: to.port(), local, local_port };
        let (flows, time_wait) = (&self.flows, &self.time_wait);
        let is_free = |port| !flows.contains_key(&flow(port)) && !time_wait.has(&flow(port));
        let port = match from {
            Some((_, port)) => Some(port).filter(|port| is_free(*port)),
            None => self.ports.choose(&self.steering, source, (remote, to.port()), is_free),
        };
        let port = port.ok_or(Why::Exhausted)?;
        let mut tcp = self.sockets.take();
        let theirs = IpEndpoint { addr: IpAddress::from(remote), port: to.port() };
        let ours = IpListenEndpoint { addr: Some(IpAddress::from(source)), port };
        let now = self.out.device.now();
        self.begin_flow((source, port), (remote, to.port()), now);
        if tcp.get_mut().connect(self.iface.context(), theirs, ours).is_err() {
            self.sockets.give(tcp);
            return Err(Why::Unreachable);
        }
        let mut conn = Conn::new(Some(tcp), flow(port), hop, Stage::Connecting);
        conn.deadline = Some(now.after(self.limits.connect_timeout));
        Ok(conn)
    }

    /// Takes frames in; first half of [`Transport::rx_burst`].
    pub fn take_in(&mut self, now: Instant) {
        self.look_at_link(now);
        self.feed_starved();
        for _ in 0..BURSTS_MAX {
            // No more than is soon told: what waits in a socket is acknowledged late, and by itself.
            if !self.receive(now) || self.ready.len() >= 2 * Burst::<()>::MAX {
                break;
            }
        }
    }

    /// Received bytes that the next two bursts of events may tell.
    pub fn untold(&self) -> usize {
        let next = self.ready.iter().take(2 * Burst::<()>::MAX);
        let conns = next.filter_map(|index| self.slots.slot(*index)).filter(|conn| !conn.paused);
        conns.map(Conn::unread).sum()
    }

    /// Tells what connections have to tell, each in its turn, as long as there is room and until `bytes` have been
    /// told, which is lowered; second half of [`Transport::rx_burst`].
    pub fn tell(&mut self, out: &mut Burst<Event<Rx>>, bytes: &mut usize, now: Instant) {
        let mut turns = self.ready.len();
        while out.room() > 0 && turns > 0 && *bytes > 0 {
            turns -= 1;
            let Some(index) = self.ready.pop_front() else { return };
            if let Some(conn) = self.slots.slot_mut(index) {
                conn.ready = false;
                self.tell_one(index, out, bytes, now);
            }
        }
    }

    /// Tells what one connection has to tell; puts it back in the queue if room or bytes are used up before.
    fn tell_one(&mut self, index: u32, out: &mut Burst<Event<Rx>>, bytes: &mut usize, now: Instant) {
        let id = self.slots.id(index);
        loop {
            if out.room() == 0 || *bytes == 0 {
                return self.mark_ready(index);
            }
            let Some(conn) = self.slots.slot_mut(index) else { return };
            let event = match conn.stage {
                Stage::HalfOpen(_) | Stage::Connecting => self.tell_birth(id, now),
                Stage::Open => self.tell_life(id, bytes, now),
                Stage::Closing => None,
            };
            let Some(event) = event else { return };
            // There is room: asked above.
            let _ = out.push(event);
        }
    }

    /// How a handshake has ended, if it has.
    fn tell_birth(&mut self, id: ConnId, now: Instant) -> Option<Event<Rx>> {
        let conn = self.slots.slot_mut(id.index)?;
        let is_up = matches!(
            conn.state(),
            State::Established | State::CloseWait | State::FinWait1 | State::FinWait2 | State::Closing
        );
        match (conn.stage, conn.end) {
            (Stage::HalfOpen(listener), _) if is_up => {
                if !self.may_accept(id.index, now) {
                    return None;
                }
                let conn = self.slots.slot_mut(id.index)?;
                (conn.stage, conn.way_back, conn.deadline) = (Stage::Open, None, None);
                let (ip, port) = (conn.flow.remote, conn.flow.remote_port);
                self.backlog.accept(ip, conn.kind);
                self.counters.accepts += 1;
                Some(Event::Accepted(id, listener, Peer { addr: Some((ip, port)), uid: None }))
            }
            (Stage::Connecting, Some(why)) => {
                self.counters.connect_errors += 1;
                self.free(id.index, now);
                Some(Event::Failed(id, why))
            }
            (Stage::Connecting, None) if is_up => {
                conn.stage = Stage::Open;
                conn.deadline = None;
                Some(Event::Connected(id))
            }
            _ => None,
        }
    }

    /// What an open connection has to tell next: room, bytes, its end.
    fn tell_life(&mut self, id: ConnId, bytes: &mut usize, now: Instant) -> Option<Event<Rx>> {
        let conn = self.slots.slot_mut(id.index)?;
        if conn.take_writable() {
            return Some(Event::Writable(id));
        }
        if let Some(tcp) = &mut conn.tcp
            && tcp.get().can_recv()
            && !conn.paused
        {
            let socket = tcp.get_mut();
            let rx = self.pool.fill(|buffer| {
                let len = buffer.len().min(*bytes);
                socket.recv_slice(&mut buffer[..len]).unwrap_or(0)
            });
            let Some(rx) = rx else {
                self.counters.rx_no_buffer += 1;
                self.starved.push(id.index);
                return None;
            };
            self.counters.rx_bytes += rx.len() as u64;
            conn.unread_seq = conn.unread_seq.wrapping_add(u32::try_from(rx.len()).unwrap_or(0));
            *bytes -= rx.len();
            // The window has grown.
            self.mark_dirty(id.index);
            return Some(Event::Data(id, rx));
        }
        if let Some(why) = conn.end {
            match why {
                Why::TimedOut => self.counters.timeouts += 1,
                _ => self.counters.resets_received += 1,
            }
            self.free(id.index, now);
            return Some(Event::Reset(id, why));
        }
        if conn.peer_fin && !conn.eof_told && !conn.paused && conn.unread() == 0 {
            conn.eof_told = true;
            return Some(Event::Eof(id));
        }
        None
    }

    /// Looks at the link, and begins anew with the neighbours when it has come back.
    fn look_at_link(&mut self, now: Instant) {
        let is_up = self.out.device.link_up(now);
        let was_up = core::mem::replace(&mut self.is_up, is_up);
        if was_up && !is_up {
            self.counters.link_downs += 1;
        }
        if !was_up && is_up {
            self.neighbours.doubt_all();
            self.announce();
        }
    }

    /// Connections that waited for a buffer look again.
    fn feed_starved(&mut self) {
        if !self.starved.is_empty() && self.pool.has_any() {
            let mut starved = core::mem::take(&mut self.starved);
            starved.drain(..).for_each(|index| self.mark_ready(index));
            self.starved = starved;
        }
    }

    /// The shard lets go of a connection: politely, or with a RST.
    fn let_go(&mut self, id: ConnId, is_abrupt: bool) {
        let now = self.out.device.now();
        let Some(conn) = self.slots.conn_mut(id) else { return };
        let is_begun = conn.stage == Stage::Open && conn.state() != State::Closed;
        let Some(tcp) = conn.tcp.as_mut().filter(|_| is_begun) else {
            return self.free(id.index, now);
        };
        let socket = tcp.get_mut();
        // As the kernel does: bytes nobody will read are a RST, not an end of stream.
        if is_abrupt || socket.recv_queue() > 0 {
            socket.abort()
        } else {
            conn.end_stream()
        }
        conn.stage = Stage::Closing;
        let until = now.after_ns(LINGER_NS);
        conn.deadline = Some(until);
        self.slots.retire(id.index);
        self.mark_dirty(id.index);
    }
}

impl<D: Device> Transport for Stack<D> {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        let (now, mut bytes) = (self.out.device.now(), usize::MAX);
        self.take_in(now);
        self.tell(out, &mut bytes, now);
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        let Some(state) = self.slots.conn_mut(conn) else { return 0 };
        if state.fin {
            return 0;
        }
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        if let Some(tcp) = &mut state.tcp {
            let socket = tcp.get_mut();
            for slice in slices {
                // An error means that the connection is not up: yet, or any more.
                let len = socket.send_slice(slice).unwrap_or(0);
                taken += len;
                if len < slice.len() {
                    break;
                }
            }
        }
        state.accepted = state.accepted.wrapping_add(u32::try_from(taken).unwrap_or(0));
        self.counters.tx_bytes += taken as u64;
        if taken < given {
            state.cut = true;
            self.counters.tx_cut += 1;
        }
        if taken > 0 {
            self.mark_dirty(conn.index);
        }
        taken
    }

    fn pause_rx(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.paused = true;
        }
    }

    fn resume_rx(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.paused = false;
            self.mark_ready(conn.index);
        }
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        // Whoever holds several ports has chosen this one.
        let _ = via;
        match to {
            Addr::Ip(to) => self.connect_to(None, Some(*to)),
            // There are no unix sockets on a wire.
            Addr::Unix(_) => self.connect_to(None, None),
        }
    }

    fn half_close(&mut self, conn: ConnId) {
        let Some(state) = self.slots.conn_mut(conn) else { return };
        if state.stage != Stage::Open || core::mem::replace(&mut state.fin, true) {
            return;
        }
        if state.tcp.is_some() {
            state.end_stream();
            self.mark_dirty(conn.index);
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.let_go(conn, false);
    }

    fn reset(&mut self, conn: ConnId) {
        self.let_go(conn, true);
    }

    fn flush(&mut self) {
        self.send_all(self.out.device.now());
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.send_all(self.out.device.now());
        if self.has_work() {
            return;
        }
        let until = [until, self.next_due()].into_iter().flatten().min();
        self.out.device.wait(until);
    }

    fn now(&self) -> Instant {
        self.out.device.now()
    }

    fn stop_accepting(&mut self) {
        self.backlog.close();
        let now = self.out.device.now();
        let is_half_open = |index: &u32| {
            self.slots.slot(*index).is_some_and(|conn| matches!(conn.stage, Stage::HalfOpen(_)))
        };
        // Their peers learn it by the RST that their next segment draws.
        let half_open: Vec<u32> = self.slots.occupied().filter(is_half_open).collect();
        half_open.into_iter().for_each(|index| self.free(index, now));
    }
}
