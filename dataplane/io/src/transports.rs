//! A shard's whole transport: the kernel's sockets, and its queue of each raw port.
//!
//! Connections are numbered so that the number says whose they are and stays small: with `n` sources, source
//! `s` has the numbers `s`, `s + n`, `s + 2n`, ….
//!
//! A raw port may have no descriptor to wait on. A shard with ports therefore looks at them all for a moment,
//! then sleeps on the descriptors there are, and, if a port has none, for a quarter of the silence so far, at
//! most a millisecond. Where the last look brought a small part of what is in flight it sleeps at once: nobody
//! waits for a single frame then, and looking at an empty queue costs as much as working.

use core::cell::Cell;
use core::num::NonZeroU64;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use abi::Addr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shard::{Burst, ConnId, Event, Instant, Transport, Via};

use crate::base::subject;
use crate::ports::{PORTS_MAX, PortSeats, PortSnapshot, Raw, any};
use crate::share::Share;
use crate::wait::SPIN_NS;
use crate::{Backend, Config, Counters, Listeners, Placement, Poll, Rx, Sockets, Waker, os};

/// The shortest sleep: below this the sleep itself costs more than it spares.
const NAP_MIN_NS: u64 = 20_000;
/// The shortest with calls in flight beyond [`CALLS_LIGHT_MAX`]: a longer sleep brings a larger burst.
const NAP_BUSY_MIN_NS: u64 = 30_000;
/// With more calls in flight than this nobody waits for a single frame.
const CALLS_LIGHT_MAX: u32 = 4;
/// The last look brought little if that many calls are in flight for each event of it.
const CALLS_PER_EVENT: u32 = 4;
/// The longest: what a frame after a long silence may wait at a port without a descriptor.
const NAP_MAX_NS: u64 = 1_000_000;
/// Looks at the ports between two at the clock.
const LOOKS_PER_CLOCK: u32 = 4;
/// How often a transport that winds up looks whether it is done.
const LOOK: Duration = Duration::from_millis(1);
/// A sleep is this part of the silence so far.
const NAP_SHARE: u64 = 4;

/// Kernel sockets and raw ports of one shard. Opened on the shard's own thread and never moved from it.
pub struct Transports {
    sockets: Sockets,
    ports: Vec<Raw>,
    poll: Poll,
    /// Calls in flight.
    calls: u32,
    /// Events not yet told; only with ports.
    pending: VecDeque<Event<Rx>>,
    from_sockets: Burst<Event<Rx>>,
    from_ports: Burst<Event<net::Rx>>,
    /// Whose turn it is to tell first.
    first: usize,
    /// When something last happened.
    last_event: Instant,
    /// Events told since the last wait.
    told: u32,
    /// A port has no descriptor to wait on.
    is_blind: bool,
    /// What a turn takes, if every port bypasses the kernel.
    share: Option<Share>,
    /// The time of this turn, or of what comes before it; all ports take this one, as each look at a clock waits for all
    /// that the processor has under way.
    now: Cell<Instant>,
    /// Nobody has waited since, and no burst was taken.
    is_fresh: Cell<bool>,
}

impl Transports {
    /// Opens the sockets of a shard, see [`Sockets::open`], and its queue of each port.
    pub fn open(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
        ports: PortSeats,
    ) -> io::Result<Self> {
        let mut sockets = Sockets::open(config, listeners, shard, placement)?;
        let ports = ports.open(&sockets.waker()).map_err(io::Error::other)?;
        if !ports.is_empty() {
            // By default a sleep may be 50 µs late. A refusal leaves it at that.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        if !ports.is_empty() {
            sockets.lend()?;
        }
        let share = ports.iter().all(|port| !port.is_over_kernel).then(Share::default);
        let is_blind = ports.iter().any(|port| port.descriptor().is_none());
        Ok(Self {
            sockets,
            ports,
            is_blind,
            poll: config.poll,
            calls: 0,
            pending: VecDeque::new(),
            from_sockets: Burst::new(),
            from_ports: Burst::new(),
            first: 0,
            last_event: os::now(),
            told: 0,
            share,
            now: Cell::new(os::now()),
            is_fresh: Cell::new(false),
        })
    }

    /// What the sockets became: `Uring` or `Epoll`.
    pub fn backend(&self) -> Backend {
        self.sockets.backend()
    }

    /// Ends this shard's `wait` from any thread.
    pub fn waker(&self) -> Waker {
        self.sockets.waker()
    }

    /// What the sockets have done; lives on after them.
    pub fn counters(&self) -> Arc<Counters> {
        self.sockets.counters()
    }

    /// Ports whose link has come up or gone down since this was last asked.
    pub fn link_changes(&mut self) -> impl Iterator<Item = (&str, bool)> {
        self.ports.iter_mut().filter_map(Raw::link_change)
    }

    /// What each raw port counts.
    pub fn ports(&self) -> Vec<PortSnapshot> {
        self.ports.iter().map(Raw::snapshot).collect()
    }

    /// Connections open, closed ones that still send included.
    pub fn conns_open(&self) -> u64 {
        let raw = |port: &Raw| any!(&port.stack, stack => stack.snapshot().conns_open);
        self.counters().snapshot().conns_open + self.ports.iter().map(raw).sum::<u64>()
    }

    /// Sends what closed connections still have to say, until their peers have all of it or the time is over. What comes
    /// meanwhile is nobody's.
    pub fn wind_up(&mut self, at_most: Duration) {
        let end = os::now().after(at_most);
        let mut burst = Burst::new();
        loop {
            self.flush();
            let now = os::now();
            if self.conns_open() == 0 || now >= end {
                return;
            }
            self.wait(Some(end.min(now.after(LOOK))));
            self.rx_burst(&mut burst);
            burst.drain();
        }
    }

    fn sources(&self) -> u32 {
        u32::try_from(self.ports.len()).unwrap_or(0) + 1
    }

    /// Whose connection it is, and its number there.
    fn inner(&self, conn: ConnId) -> (usize, ConnId) {
        let sources = self.sources();
        ((conn.index % sources) as usize, ConnId { index: conn.index / sources, ..conn })
    }

    fn outer(&self, source: usize, conn: ConnId) -> ConnId {
        let source = u32::try_from(source).unwrap_or(0);
        ConnId { index: conn.index * self.sources() + source, ..conn }
    }

    /// Takes one source's events, of ports until `bytes` have been told.
    fn collect(&mut self, source: usize, bytes: &mut usize, now: Instant) {
        let sources = self.sources();
        let number = u32::try_from(source).unwrap_or(0);
        let rename = |conn: ConnId| ConnId { index: conn.index * sources + number, ..conn };
        match source.checked_sub(1).and_then(|place| self.ports.get_mut(place)) {
            None => {
                self.sockets.rx_burst(&mut self.from_sockets);
                if self.from_sockets.is_empty() {
                    return;
                }
                let events = self.from_sockets.drain();
                self.pending.extend(events.map(|event| renamed(event, rename, |rx| rx)));
            }
            Some(port) => {
                any!(&mut port.stack, stack => stack.tell(&mut self.from_ports, bytes, now));
                if self.from_ports.is_empty() {
                    return;
                }
                let events = self.from_ports.drain();
                self.pending.extend(events.map(|event| renamed(event, rename, Rx::raw)));
            }
        }
    }

    /// The source an address is reached by: the port with the longest prefix for it, else the kernel. A port's
    /// default route does not count: the kernel has one as well, and `via` says which is meant.
    fn route(&self, to: &Addr, via: Via) -> usize {
        let Addr::Ip(to) = to else { return 0 };
        if let Via::Port(place) = via {
            return usize::from(place) + 1;
        }
        if to.ip().is_loopback() {
            return 0;
        }
        let prefix = |port: &Raw| any!(&port.stack, stack => stack.route_to(to.ip()));
        let reached = self.ports.iter().zip(1..).filter_map(|(port, source)| Some((prefix(port)?, source)));
        reached.filter(|(len, _)| *len > 0).max_by_key(|(len, _)| *len).map_or(0, |(_, source)| source)
    }

    /// The connection's source is told to forget it: so is whatever waits to be told of it.
    fn forget(&mut self, conn: ConnId) {
        self.pending.retain(|event| subject(event) != conn);
    }

    fn has_news(&mut self) -> bool {
        !self.pending.is_empty() || self.ports.iter_mut().any(Raw::is_ready)
    }

    /// Looks at the ports until something has come, the time is over or the waker was rung.
    fn spin(&mut self, from: Instant, until: Option<Instant>, waker: &Waker) -> bool {
        let mut now = from;
        while now.since_ns(from) < SPIN_NS && until.is_none_or(|until| now < until) && !waker.is_pending() {
            core::hint::spin_loop();
            for _ in 0..LOOKS_PER_CLOCK {
                if self.has_news() {
                    return true;
                }
            }
            now = os::now();
        }
        false
    }

    /// True if it is worth looking again at once, after a turn in which so many events were told.
    fn looks_on(&self, told: u32) -> bool {
        match self.poll {
            Poll::Busy => true,
            Poll::Block => false,
            Poll::Adaptive if self.is_blind => told.saturating_mul(CALLS_PER_EVENT) > self.calls,
            Poll::Adaptive => true,
        }
    }

    /// Sleeps until a descriptor is readable, the time is over, or a port without one must be looked at.
    fn sleep(&mut self, now: Instant, until: Option<Instant>, waker: &Waker) {
        waker.clear_event();
        self.sockets.forget_signals();
        // What has come since the last look is not signalled again.
        if waker.is_pending() || self.sockets.begin_wait() {
            return;
        }
        let silence = now.since_ns(self.last_event);
        let nap_min = if self.calls > CALLS_LIGHT_MAX { NAP_BUSY_MIN_NS } else { NAP_MIN_NS };
        let nap = self.is_blind.then(|| (silence / NAP_SHARE).clamp(nap_min, NAP_MAX_NS));
        let timeout = [until.map(|until| until.since_ns(now)), nap].into_iter().flatten().min();
        let timeout = timeout.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        // The sockets look after the waker too; but the kernel may lose io_uring's signal about one eventfd to
        // another, as signalling from within a signal is put off.
        let (sockets, waker) = (self.sockets.as_fd(), waker.event().as_fd());
        let mut all = [sockets, waker].into_iter().chain(self.ports.iter().filter_map(Raw::descriptor));
        let mut count = 0;
        let mut fds: [_; PORTS_MAX + 2] = core::array::from_fn(|_| {
            let next = all.next();
            count += usize::from(next.is_some());
            PollFd::from_borrowed_fd(next.unwrap_or(sockets), PollFlags::IN)
        });
        // A signal ends it early, which a wait may.
        let _ = poll(fds.get_mut(..count).unwrap_or_default(), timeout.as_ref());
    }

    fn wait_with_ports(&mut self, until: Option<Instant>) {
        let now = os::now();
        let told = core::mem::take(&mut self.told);
        let due = self.ports.iter().filter_map(|port| port.next_due(now)).min();
        let until = [until, due, self.sockets.next_due()].into_iter().flatten().min();
        if self.has_news() || self.sockets.begin_wait() {
            return;
        }
        let waker = self.sockets.waker();
        if !self.looks_on(told) || !self.spin(now, until, &waker) {
            let now = os::now();
            if self.poll != Poll::Busy && until.is_none_or(|until| now < until) {
                self.sleep(now, until, &waker);
            }
        }
        self.sockets.end_wait();
    }
}

fn renamed<A, B>(event: Event<A>, conn: impl Fn(ConnId) -> ConnId, bytes: impl Fn(A) -> B) -> Event<B> {
    match event {
        Event::Accepted(id, listener, peer) => Event::Accepted(conn(id), listener, peer),
        Event::Data(id, rx) => Event::Data(conn(id), bytes(rx)),
        Event::Eof(id) => Event::Eof(conn(id)),
        Event::Reset(id, why) => Event::Reset(conn(id), why),
        Event::Connected(id) => Event::Connected(conn(id)),
        Event::Failed(id, why) => Event::Failed(conn(id), why),
        Event::Writable(id) => Event::Writable(conn(id)),
    }
}

/// Calls a connection's method at its source.
macro_rules! at_source {
    ($self:ident, $conn:ident, $inner:ident, $id:ident => $body:expr) => {{
        let (source, $id) = $self.inner($conn);
        match source.checked_sub(1).and_then(|place| $self.ports.get_mut(place)) {
            None => {
                let $inner = &mut $self.sockets;
                $body
            }
            Some(port) => any!(&mut port.stack, $inner => $body),
        }
    }};
}

impl Transport for Transports {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        if self.ports.is_empty() {
            return self.sockets.rx_burst(out);
        }
        if !self.is_fresh.take() {
            self.now.set(os::now());
        }
        let now = self.now.get();
        for port in &mut self.ports {
            port.exchange();
            any!(&mut port.stack, stack => stack.take_in(now));
        }
        let untold = |port: &Raw| any!(&port.stack, stack => stack.untold());
        let share = self.share.as_mut().map(|share| share.of(self.ports.iter().map(untold).sum()));
        let mut bytes = share.unwrap_or(usize::MAX);
        let sources = self.ports.len() + 1;
        for step in 0..sources {
            if self.pending.len() >= out.room() {
                break;
            }
            self.collect((self.first + step) % sources, &mut bytes, now);
        }
        self.first = (self.first + 1) % sources;
        if !self.pending.is_empty() {
            self.last_event = now;
        }
        while out.room() > 0
            && let Some(event) = self.pending.pop_front()
        {
            // There is room: asked above.
            let _ = out.push(event);
            self.told += 1;
        }
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        at_source!(self, conn, inner, id => inner.tx(id, slices))
    }

    fn pause_rx(&mut self, conn: ConnId) {
        at_source!(self, conn, inner, id => inner.pause_rx(id));
    }

    fn resume_rx(&mut self, conn: ConnId) {
        at_source!(self, conn, inner, id => inner.resume_rx(id));
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        let source = if self.ports.is_empty() { 0 } else { self.route(to, via) };
        let id = match source.checked_sub(1).and_then(|place| self.ports.get_mut(place)) {
            None => self.sockets.connect(to, via),
            Some(port) => any!(&mut port.stack, stack => stack.connect(to, via)),
        };
        self.outer(source, id)
    }

    fn half_close(&mut self, conn: ConnId) {
        at_source!(self, conn, inner, id => inner.half_close(id));
    }

    fn close(&mut self, conn: ConnId) {
        self.forget(conn);
        at_source!(self, conn, inner, id => inner.close(id));
    }

    fn reset(&mut self, conn: ConnId) {
        self.forget(conn);
        at_source!(self, conn, inner, id => inner.reset(id));
    }

    fn flush(&mut self) {
        // First those whose peers are the nearest.
        for port in &mut self.ports {
            any!(&mut port.stack, stack => stack.send_all(self.now.get()));
        }
        self.sockets.flush();
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.is_fresh.set(false);
        if self.ports.is_empty() { self.sockets.wait(until) } else { self.wait_with_ports(until) }
    }

    fn now(&self) -> Instant {
        self.now.set(os::now());
        self.is_fresh.set(true);
        self.now.get()
    }

    fn burst_at(&self) -> Instant {
        if self.ports.is_empty() { os::now() } else { self.now.get() }
    }

    fn publish_load(&mut self, calls: u32) {
        self.calls = calls;
        self.sockets.publish_load(calls);
    }

    fn stop_accepting(&mut self) {
        self.sockets.stop_accepting();
        for port in &mut self.ports {
            any!(&mut port.stack, stack => stack.stop_accepting());
        }
    }
}
