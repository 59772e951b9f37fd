//! `epoll`: a shard's sockets over epoll.
//!
//! Every socket is registered once, edge-triggered, for both directions, and never again. Readiness is kept
//! per connection; a short read clears it without a second read that would say EAGAIN, because whatever
//! arrives later is a new edge. Each connection with bytes pending gets one write per turn.
//!
//! Invariant: what the kernel reports is turned into per-connection flags at once, before the shard can close
//! anything, so no report is ever taken for a slot's next owner.

mod buffers;
mod conn;
mod poller;
mod transport;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, accept_with};
use shard::{Burst, Event, ListenerId, Peer, Slots, Why};

pub(crate) use self::buffers::Filled;
use self::buffers::Pool;
use self::conn::{Conn, Ready};
use self::poller::{Poller, Report};
use crate::base::{Base, Stage};
use crate::conns::Conns;
use crate::counters::add;
use crate::placement::Handed;
use crate::{Config, Listeners, Placement, Rx, Waker, os};

/// Bursts served from what is known before the kernel is asked again.
const BURSTS_PER_POLL: u32 = 8;
/// Pauses between two looks at the kernel while spinning: about half a microsecond.
const SPINS_PER_POLL: u32 = 16;
/// A read's buffer is this many of the configured size: one read takes many calls.
const BUFFERS_PER_READ: u32 = 8;
/// Tokens below are slots.
const TOKEN_DOORS: u64 = 1 << 40;
const TOKEN_WAKE: u64 = u64::MAX;

/// Kernel sockets of one shard over epoll.
pub struct EpollTransport {
    poller: Poller,
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
impl Conns for EpollTransport {
    type Own = Ready;

    fn parts(&mut self) -> (&mut Base, &mut Slots<Conn>, &mut Vec<u32>) {
        (&mut self.base, &mut self.slots, &mut self.dirty)
    }

    /// Closes the descriptor, which also takes it out of the epoll set.
    fn bury(&mut self, index: u32) {
        self.free(index);
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
        let poller = Poller::new()?;
        let limits = &config.limits;
        let count = u32::from(limits.rx_buffers) / BUFFERS_PER_READ;
        let pool = Pool::new(count.max(1), (limits.rx_buffer_bytes * BUFFERS_PER_READ) as usize);
        poller.add_source(waker.event(), TOKEN_WAKE)?;
        let base = Base::new(config, listeners, shard, placement, waker);
        for (token, door) in (TOKEN_DOORS..).zip(&base.doors) {
            rustix::io::ioctl_fionbio(&door.fd, true)?;
            poller.add_source(&door.fd, token)?;
        }
        Ok(Self {
            poller,
            pool,
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

    fn mark_ready(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && conn.wants_read()
            && !core::mem::replace(&mut conn.own.queued, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Asks the kernel what is ready, and waits for it at most this long; true if anything is.
    fn poll(&mut self, timeout_ns: Option<u64>) -> bool {
        self.bursts_since_poll = 0;
        add(&self.base.counters.enters, 1);
        // An interrupted wait has nothing to report.
        let count = self.poller.wait(timeout_ns).unwrap_or(0);
        for at in 0..count {
            let Some(report) = self.poller.report(at) else { break };
            match report.token {
                TOKEN_WAKE => {}
                token if token >= TOKEN_DOORS => {
                    let door = usize::try_from(token - TOKEN_DOORS).unwrap_or(usize::MAX);
                    if let Some(ready) = self.doors_ready.get_mut(door) {
                        *ready = true;
                    }
                }
                token => self.on_report(u32::try_from(token).unwrap_or(u32::MAX), report),
            }
        }
        count > 0
    }

    fn on_report(&mut self, index: u32, report: Report) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        match conn.stage {
            Stage::Connecting => {
                if report.is_writable() || report.is_ending() {
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
        conn.own.ending |= report.is_ending();
        conn.own.readable |= report.is_readable() || conn.own.ending;
        if report.is_writable() && !core::mem::replace(&mut conn.own.writable, true) {
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
                conn.own.writable = true;
                // Its report may have carried data's readiness, too.
                conn.own.readable = true;
                self.base.events.push_back(Event::Connected(id));
                self.mark_dirty(index);
                self.mark_ready(index);
            }
            Err(why) => self.end(index, why),
        }
    }

    /// An accepted socket becomes a connection of this shard.
    fn adopt(&mut self, fd: OwnedFd, listener: ListenerId, peer: Peer, out: &mut Burst<Event<Rx>>) {
        if self.refuses_accepted() {
            return;
        }
        let ready = Ready { writable: true, ..Ready::default() };
        let id = self.slots.insert(Conn::new(None, Stage::Open, true, ready));
        if self.poller.add_socket(&fd, u64::from(id.index)).is_err() {
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
        conn.own.queued = false;
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
        let filled = Filled::new(&self.pool, buffer);
        match outcome {
            Ok((0, _)) => {
                conn.eof = true;
                match conn.broken {
                    Some(why) => self.end(index, why),
                    None => self.base.tell(Event::Eof(id), out),
                }
            }
            Ok((n, _)) => {
                if !full && !conn.own.ending {
                    conn.own.readable = false;
                }
                add(&self.base.counters.rx_bytes, u64::try_from(n).unwrap_or(0));
                self.base.tell(Event::Data(id, Rx::epoll(filled)), out);
                self.mark_ready(index);
            }
            Err(Errno::AGAIN) => {
                conn.own.readable = false;
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
}
