//! `epoll`: a shard's sockets over epoll, through `mio`.
//!
//! Every socket is registered once, edge-triggered, for both directions, and never again. Readiness is kept
//! per connection; a short read clears it without a second read that would say EAGAIN, because whatever
//! arrives later is a new edge. Each connection with bytes pending gets one write per turn.
//!
//! Invariant: what `mio` reports is turned into per-connection flags at once, before the shard can close
//! anything, so no report is ever taken for a slot's next owner.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use abi::Addr;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with};
use shard::{Burst, ConnId, Event, Instant, ListenerId, Peer, Transport, Via, Why};

use crate::base::{Base, Due, Stage, subject};
use crate::counters::add;
use crate::outgoing::Outgoing;
use crate::placement::Handed;
use crate::slots::Slots;
use crate::wait::Plan;
use crate::{Config, Listeners, Placement, Rx, Waker, os};

/// Reports taken from the kernel at once.
const REPORTS: usize = 256;
/// Bursts served from what is known before the kernel is asked again.
const BURSTS_PER_POLL: u32 = 8;
/// A read's buffer is this many of the configured size: one read takes many calls.
const BUFFERS_PER_READ: u32 = 4;
/// Tokens below are slots.
const TOKEN_DOORS: usize = 1 << 40;
const TOKEN_WAKE: Token = Token(usize::MAX);

/// Read buffers, the last used on top.
#[derive(Debug)]
struct Pool {
    free: RefCell<Vec<Vec<u8>>>,
    /// How many more may be made.
    unmade: Cell<u32>,
    bytes: usize,
}

impl Pool {
    fn take(&self) -> Option<Vec<u8>> {
        if let Some(buffer) = self.free.borrow_mut().pop() {
            return Some(buffer);
        }
        self.unmade.set(self.unmade.get().checked_sub(1)?);
        Some(Vec::with_capacity(self.bytes))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.free.borrow_mut().push(buffer);
    }

    fn has_any(&self) -> bool {
        self.unmade.get() > 0 || !self.free.borrow().is_empty()
    }
}

/// Bytes that were read. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct Filled {
    pool: Rc<Pool>,
    buffer: Vec<u8>,
}

impl Filled {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.pool.give(core::mem::take(&mut self.buffer));
    }
}

/// Kernel sockets of one shard over epoll.
pub struct EpollTransport {
    poll: Poll,
    reports: Events,
    pool: Rc<Pool>,
    slots: Slots<Conn>,
    base: Base,
    /// Connections with something to send, shut down or close at the next flush.
    dirty: Vec<u32>,
    /// Connections to read from.
    ready: VecDeque<u32>,
    /// Listeners to accept from.
    doors_ready: Vec<bool>,
    bursts_since_poll: u32,
}

/// A connection.
struct Conn {
    /// `None` if there never was one: the connect failed before it began.
    fd: Option<OwnedFd>,
    out: Outgoing,
    stage: Stage,
    readable: bool,
    writable: bool,
    /// The kernel reported the end of the peer's stream or an error: read on until it shows.
    ending: bool,
    paused: bool,
    eof: bool,
    /// A FIN is to follow what is pending, or has.
    fin: bool,
    fin_sent: bool,
    /// `tx` was cut: a `Writable` is owed.
    cut: bool,
    dirty: bool,
    /// Waits in `ready`.
    queued: bool,
    accepted: bool,
    /// A write failed; what was received before is still being told.
    broken: Option<Why>,
}

impl Conn {
    fn new(fd: Option<OwnedFd>, stage: Stage, accepted: bool) -> Self {
        Self {
            fd,
            out: Outgoing::default(),
            stage,
            readable: false,
            writable: stage == Stage::Open,
            ending: false,
            paused: false,
            eof: false,
            fin: false,
            fin_sent: false,
            cut: false,
            dirty: false,
            queued: false,
            accepted,
            broken: None,
        }
    }

    /// The socket's pending error.
    fn outcome(&self) -> Result<(), Why> {
        self.fd.as_ref().map_or(Err(Why::Other), |fd| os::connect_outcome(fd).map_err(os::why))
    }

    /// A RST is to be sent when the descriptor closes.
    fn abort(&self) {
        if let Some(fd) = &self.fd {
            os::abort_on_close(fd);
        }
    }

    fn wants_read(&self) -> bool {
        self.stage == Stage::Open && self.readable && !self.paused && !self.eof
    }
}

impl EpollTransport {
    pub(crate) fn open(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
        waker: Waker,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let limits = &config.limits;
        let count = u32::from(limits.rx_buffers) / BUFFERS_PER_READ;
        let pool = Pool {
            free: RefCell::new(Vec::new()),
            unmade: Cell::new(count.max(1)),
            bytes: (limits.rx_buffer_bytes * BUFFERS_PER_READ) as usize,
        };
        poll.registry().register(
            &mut SourceFd(&waker.event().as_raw_fd()),
            TOKEN_WAKE,
            Interest::READABLE,
        )?;
        let base = Base::new(config, listeners, shard, placement, waker);
        for (at, door) in base.doors.iter().enumerate() {
            rustix::io::ioctl_fionbio(&door.fd, true)?;
            let token = Token(TOKEN_DOORS + at);
            poll.registry().register(&mut SourceFd(&door.fd.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            reports: Events::with_capacity(REPORTS),
            pool: Rc::new(pool),
            slots: Slots::new(),
            // Somebody may have connected before this shard was there.
            doors_ready: vec![true; base.doors.len()],
            base,
            dirty: Vec::new(),
            ready: VecDeque::new(),
            bursts_since_poll: 0,
        })
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    fn mark_dirty(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    fn mark_ready(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && conn.wants_read()
            && !core::mem::replace(&mut conn.queued, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Asks the kernel what is ready; true if anything is.
    fn poll(&mut self, timeout: Option<Duration>) -> bool {
        self.bursts_since_poll = 0;
        add(&self.base.counters.enters, 1);
        let mut reports = core::mem::replace(&mut self.reports, Events::with_capacity(0));
        if self.poll.poll(&mut reports, timeout).is_err() {
            // Interrupted.
            reports.clear();
        }
        for report in &reports {
            match report.token() {
                TOKEN_WAKE => {}
                Token(at) if at >= TOKEN_DOORS => {
                    if let Some(ready) = self.doors_ready.get_mut(at - TOKEN_DOORS) {
                        *ready = true;
                    }
                }
                Token(at) => self.on_report(u32::try_from(at).unwrap_or(u32::MAX), report),
            }
        }
        let any = !reports.is_empty();
        self.reports = reports;
        any
    }

    fn on_report(&mut self, index: u32, report: &mio::event::Event) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        match conn.stage {
            Stage::Connecting => {
                if report.is_writable() || report.is_error() || report.is_write_closed() {
                    self.on_connect(index);
                }
                return;
            }
            Stage::Open | Stage::Closing => {}
            Stage::Ended | Stage::Dead => return,
        }
        if report.is_error() && conn.eof {
            let why = conn.outcome().err().unwrap_or(Why::Reset);
            return self.end(index, why);
        }
        conn.ending |= report.is_read_closed() || report.is_error();
        conn.readable |= report.is_readable() || conn.ending;
        if report.is_writable() && !core::mem::replace(&mut conn.writable, true) {
            self.mark_dirty(index);
        }
        self.mark_ready(index);
    }

    fn on_connect(&mut self, index: u32) {
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        match conn.outcome() {
            Ok(()) => {
                conn.stage = Stage::Open;
                conn.writable = true;
                // Its report may have carried data's readiness, too.
                conn.readable = true;
                self.base.events.push_back(Event::Connected(id));
                self.mark_dirty(index);
                self.mark_ready(index);
            }
            Err(why) => self.end(index, why),
        }
    }

    /// Tells what waits, except to connections that are gone.
    fn tell_waiting(&mut self, out: &mut Burst<Event<Rx>>) {
        while out.room() > 0
            && let Some(event) = self.base.events.pop_front()
        {
            let id = subject(&event);
            if !self.slots.is_current(id) {
                continue;
            }
            if matches!(event, Event::Reset(..) | Event::Failed(..)) {
                self.bury(id.index);
            }
            // There is room: checked above.
            let _ = out.push(event);
        }
    }

    /// The peer or the kernel ended a connection: the shard is told, then it is gone.
    fn end(&mut self, index: u32, why: Why) {
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let event = match conn.stage {
            Stage::Connecting => Event::Failed(id, why),
            Stage::Open => Event::Reset(id, why),
            Stage::Closing => return self.bury(index),
            Stage::Ended | Stage::Dead => return,
        };
        conn.stage = Stage::Ended;
        if matches!(event, Event::Failed(..)) {
            add(&self.base.counters.connect_errors, 1);
        }
        self.base.events.push_back(event);
    }

    /// Closes the descriptor, which also takes it out of the epoll set, and gives the slot back.
    fn bury(&mut self, index: u32) {
        if let Some(mut conn) = self.slots.release(index) {
            conn.out.clear(&mut self.base.pool);
            if conn.accepted {
                self.base.accepted_gone();
            }
            self.base.count_open(self.slots.len());
        }
    }

    fn register(&mut self, fd: &OwnedFd, index: u32) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(index as usize), interest)
    }

    /// An accepted socket becomes a connection of this shard.
    fn adopt(&mut self, fd: OwnedFd, listener: ListenerId, peer: Peer, out: &mut Burst<Event<Rx>>) {
        if self.slots.len() >= self.base.limits.conns_max as usize {
            add(&self.base.counters.accepts_refused, 1);
            self.base.accepted_gone();
            return;
        }
        let id = self.slots.insert(Conn::new(None, Stage::Open, true));
        if self.register(&fd, id.index).is_err() {
            add(&self.base.counters.accept_errors, 1);
            return self.bury(id.index);
        }
        add(&self.base.counters.accepts, 1);
        if let Some(conn) = self.slots.slot_mut(id.index) {
            conn.fd = Some(fd);
        }
        self.base.count_open(self.slots.len());
        self.base.tell(Event::Accepted(id, listener, peer), out);
    }

    fn accept(&mut self, out: &mut Burst<Event<Rx>>) {
        for at in 0..self.doors_ready.len() {
            while out.room() > 0
                && self.base.accepting
                && !self.base.deadlines.accept_paused()
                && self.doors_ready.get(at) == Some(&true)
            {
                let Some(door) = self.base.doors.get(at) else { break };
                match accept_with(&door.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(fd) => {
                        let handed = Handed { listener: door.id, peer: os::peer(&fd, door.unix), fd };
                        self.base.deadlines.accept_works();
                        if let Some(handed) = self.base.place(handed) {
                            self.adopt(handed.fd, handed.listener, handed.peer, out);
                        }
                    }
                    Err(Errno::AGAIN) => {
                        if let Some(ready) = self.doors_ready.get_mut(at) {
                            *ready = false;
                        }
                    }
                    Err(Errno::INTR | Errno::CONNABORTED) => {}
                    Err(_) => {
                        add(&self.base.counters.accept_errors, 1);
                        self.base.deadlines.pause_accept();
                    }
                }
            }
        }
    }

    fn take_handed(&mut self, out: &mut Burst<Event<Rx>>) {
        while out.room() > 0
            && let Some((fd, listener, peer)) = self.base.take_handed()
        {
            // It may come from a shard of another backend.
            let _ = rustix::io::ioctl_fionbio(&fd, true);
            self.adopt(fd, listener, peer, out);
        }
    }

    /// One read from one connection.
    fn read(&mut self, index: u32, out: &mut Burst<Event<Rx>>) {
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.queued = false;
        if !conn.wants_read() {
            return;
        }
        let Some(fd) = &conn.fd else { return };
        let Some(mut buffer) = self.pool.take() else {
            add(&self.base.counters.rx_no_buffer, 1);
            return self.mark_ready(index);
        };
        add(&self.base.counters.reads, 1);
        let outcome = rustix::net::recv(fd, spare_capacity(&mut buffer), RecvFlags::empty());
        let full = buffer.len() == buffer.capacity();
        // From here on the buffer goes back by itself.
        let filled = Filled { pool: Rc::clone(&self.pool), buffer };
        match outcome {
            Ok((0, _)) => {
                conn.eof = true;
                match conn.broken {
                    Some(why) => self.end(index, why),
                    None => self.base.tell(Event::Eof(id), out),
                }
            }
            Ok((n, _)) => {
                if !full && !conn.ending {
                    conn.readable = false;
                }
                add(&self.base.counters.rx_bytes, u64::try_from(n).unwrap_or(0));
                self.base.tell(Event::Data(id, Rx::epoll(filled)), out);
                self.mark_ready(index);
            }
            Err(Errno::AGAIN) => {
                conn.readable = false;
                if let Some(why) = conn.broken {
                    self.end(index, why);
                }
            }
            Err(Errno::INTR) => self.mark_ready(index),
            Err(errno) => {
                let why = conn.broken.unwrap_or(os::why(errno));
                self.end(index, why);
            }
        }
    }

    /// Does what a dirty connection has to do.
    fn settle(&mut self, index: u32) {
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.dirty = false;
        if !matches!(conn.stage, Stage::Open | Stage::Closing) {
            return;
        }
        while conn.writable && !conn.out.is_empty() {
            let Some(fd) = &conn.fd else { break };
            add(&self.base.counters.writes, 1);
            match rustix::net::send(fd, conn.out.flight(&mut self.base.pool), SendFlags::NOSIGNAL) {
                Ok(n) => {
                    add(&self.base.counters.tx_bytes, u64::try_from(n).unwrap_or(0));
                    conn.out.took(n, &mut self.base.pool);
                }
                Err(Errno::AGAIN) => conn.writable = false,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let why = os::why(errno);
                    conn.out.clear(&mut self.base.pool);
                    conn.broken = Some(why);
                    // What the peer sent before it went is still to be told.
                    if conn.stage == Stage::Open && !conn.paused && !conn.eof {
                        conn.readable = true;
                        self.mark_ready(index);
                    } else {
                        self.end(index, why);
                    }
                    return;
                }
            }
        }
        if conn.cut && conn.stage == Stage::Open && conn.out.len() <= self.base.limits.tx_bytes_max / 2 {
            conn.cut = false;
            self.base.events.push_back(Event::Writable(id));
        }
        if !conn.out.is_empty() {
            return;
        }
        if conn.fin
            && !core::mem::replace(&mut conn.fin_sent, true)
            && let Some(fd) = &conn.fd
        {
            os::shutdown_write(fd);
        }
        if conn.stage == Stage::Closing {
            self.bury(index);
        }
    }

    fn meet_deadlines(&mut self) {
        let now = os::now();
        while let Some(due) = self.base.deadlines.due(now) {
            match due {
                Due::Accept => {}
                Due::Connect(id) => {
                    if self.slots.conn_mut(id).is_some_and(|conn| conn.stage == Stage::Connecting) {
                        self.end(id.index, Why::TimedOut);
                    }
                }
                Due::Linger(id) => {
                    if let Some(conn) = self.slots.conn_mut(id)
                        && conn.stage == Stage::Closing
                    {
                        conn.abort();
                        self.bury(id.index);
                    }
                }
            }
        }
    }

    /// True if a burst would find something without asking the kernel.
    fn has_work(&self) -> bool {
        let reads = !self.ready.is_empty() && self.pool.has_any();
        let accepts =
            self.base.accepting && !self.base.deadlines.accept_paused() && self.doors_ready.contains(&true);
        reads || accepts
    }
}

impl Transport for EpollTransport {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        self.tell_waiting(out);
        self.take_handed(out);
        // A turn that finds nothing is followed by `wait`, which asks the kernel anyway; only a shard that
        // stays busy otherwise has to be given a fresh look.
        let stale = self.bursts_since_poll >= if self.has_work() { BURSTS_PER_POLL } else { 1 };
        if out.room() > 0 && stale {
            self.poll(Some(Duration::ZERO));
        }
        self.bursts_since_poll += 1;
        self.tell_waiting(out);
        self.accept(out);
        // Each at most once, so that a long stream does not keep the others waiting.
        let mut turns = self.ready.len();
        while out.room() > 0
            && self.base.events.is_empty()
            && turns > 0
            && let Some(index) = self.ready.pop_front()
        {
            turns -= 1;
            self.read(index, out);
            self.tell_waiting(out);
        }
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        let max = self.base.limits.tx_bytes_max;
        let Some(state) = self.slots.conn_mut(conn) else { return 0 };
        if state.fin || state.broken.is_some() || !matches!(state.stage, Stage::Open | Stage::Connecting) {
            return 0;
        }
        let accepted = state.out.accept(slices, max, &mut self.base.pool);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if accepted < offered {
            state.cut = true;
            add(&self.base.counters.tx_cut, 1);
        }
        if accepted > 0 {
            self.mark_dirty(conn.index);
        }
        accepted
    }

    fn pause_rx(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.paused = true;
            if let Some(why) = state.broken {
                self.end(conn.index, why);
            }
        }
    }

    fn resume_rx(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.paused = false;
            self.mark_ready(conn.index);
        }
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        // Raw ports are other transports; here everything leaves by the kernel.
        let _ = via;
        add(&self.base.counters.connects, 1);
        let full = self.slots.len() >= self.base.limits.conns_max as usize;
        let begun = if full { Err(Errno::MFILE) } else { os::connect(to) };
        let id = self.slots.insert(Conn::new(None, Stage::Connecting, false));
        self.base.count_open(self.slots.len());
        let begun = begun.and_then(|begun| {
            let registered = self.register(&begun.fd, id.index);
            registered.map(|()| begun).map_err(|_| Errno::NOMEM)
        });
        match begun {
            Ok(begun) => {
                if let Some(conn) = self.slots.slot_mut(id.index) {
                    conn.fd = Some(begun.fd);
                }
                if begun.done {
                    self.on_connect(id.index);
                } else {
                    self.base.deadlines.connect(id, self.base.limits.connect_timeout);
                }
            }
            Err(errno) => self.end(id.index, os::why(errno)),
        }
        id
    }

    fn half_close(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.fin = true;
            self.mark_dirty(conn.index);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(state) = self.slots.conn_mut(conn) else { return };
        if state.stage != Stage::Open || state.out.is_empty() {
            return self.bury(conn.index);
        }
        state.stage = Stage::Closing;
        self.slots.retire(conn.index);
        self.mark_dirty(conn.index);
        self.base.deadlines.linger(self.slots.id(conn.index));
    }

    fn reset(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.abort();
            self.bury(conn.index);
        }
    }

    fn flush(&mut self) {
        // Settling marks nobody dirty, so the list can be walked in place and kept for its memory.
        let mut dirty = core::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.settle(index);
        }
        self.dirty = dirty;
        if self.base.deadlines.next().is_some() {
            self.meet_deadlines();
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.flush();
        if self.base.has_news() || self.has_work() {
            return;
        }
        let until = self.base.until(until);
        let from = os::now();
        let limit = match self.base.policy.plan() {
            Plan::Block => Some(from),
            Plan::Spin(ns) => Some(from.after_ns(ns)),
            Plan::SpinForEver => None,
        };
        let (mut event, mut blocks) = (false, false);
        let mut now = from;
        if limit != Some(from) {
            add(&self.base.counters.spins, 1);
        }
        while !event && !self.base.waker.is_pending() && until.is_none_or(|until| now < until) {
            blocks = limit.is_some_and(|limit| limit <= now);
            let timeout = if blocks {
                add(&self.base.counters.blocks, 1);
                until.map(|until| Duration::from_nanos(until.since_ns(now)))
            } else {
                Some(Duration::ZERO)
            };
            event = self.poll(timeout);
            if blocks {
                break;
            }
            now = os::now();
        }
        self.base.waited(from, blocks, event);
    }

    fn now(&self) -> Instant {
        os::now()
    }

    fn publish_load(&mut self, calls: u32) {
        self.base.publish(calls);
    }

    fn stop_accepting(&mut self) {
        self.base.stop_accepting();
    }
}
