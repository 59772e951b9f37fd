//! `epoll`: a shard's sockets over epoll, through `mio`.
//!
//! Every socket is registered once, edge-triggered, for both directions, and never again. Readiness is kept
//! per connection; a short read clears it without a second read that would say EAGAIN, because whatever
//! arrives later is a new edge. Each connection with bytes pending gets one write per turn.
//!
//! Invariant: what `mio` reports is turned into per-connection flags at once, before the shard can close
//! anything, so no report is ever taken for a slot's next owner.

mod buffers;
mod conn;
mod transport;

use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, accept_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use shard::{Burst, Event, ListenerId, Peer, Why};

pub(crate) use self::buffers::Filled;
use self::buffers::Pool;
use self::conn::Conn;
use crate::base::{Base, Stage, subject};
use crate::counters::add;
use crate::placement::Handed;
use crate::slots::Slots;
use crate::{Config, Listeners, Placement, Rx, Waker, os};

/// Reports taken from the kernel at once.
const REPORTS: usize = 256;
/// Bursts served from what is known before the kernel is asked again.
const BURSTS_PER_POLL: u32 = 8;
/// Pauses between two looks at the kernel while spinning: about half a microsecond.
const SPINS_PER_POLL: u32 = 16;
/// A read's buffer is this many of the configured size: one read takes many calls.
const BUFFERS_PER_READ: u32 = 4;
/// A wait shorter than this is timed by a timer.
const TIMER_BELOW_NS: u64 = 10_000_000;
/// Tokens below are slots.
const TOKEN_DOORS: usize = 1 << 40;
const TOKEN_TIMER: Token = Token(usize::MAX - 1);
const TOKEN_WAKE: Token = Token(usize::MAX);
/// Kernel sockets of one shard over epoll.
pub struct EpollTransport {
    poll: Poll,
    timer: OwnedFd,
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
        let pool = Pool::new(count.max(1), (limits.rx_buffer_bytes * BUFFERS_PER_READ) as usize);
        poll.registry().register(
            &mut SourceFd(&waker.event().as_raw_fd()),
            TOKEN_WAKE,
            Interest::READABLE,
        )?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TOKEN_TIMER, Interest::READABLE)?;
        let base = Base::new(config, listeners, shard, placement, waker);
        for (at, door) in base.doors.iter().enumerate() {
            rustix::io::ioctl_fionbio(&door.fd, true)?;
            let token = Token(TOKEN_DOORS + at);
            poll.registry().register(&mut SourceFd(&door.fd.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            timer,
            reports: Events::with_capacity(REPORTS),
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

    /// Waits until something is ready, and not much longer than `ns`; true if anything is. epoll counts in
    /// milliseconds, so a short wait has a timer's help.
    fn poll_for(&mut self, ns: u64) -> bool {
        if ns < TIMER_BELOW_NS {
            let value = Timespec { tv_sec: 0, tv_nsec: i64::try_from(ns.max(1)).unwrap_or(1) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            // A refusal makes the wait late, no more.
            let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        }
        self.poll(Some(Duration::from_nanos(ns)))
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
        let mut any = false;
        for report in &reports {
            any |= report.token() != TOKEN_TIMER;
            match report.token() {
                TOKEN_WAKE | TOKEN_TIMER => {}
                Token(at) if at >= TOKEN_DOORS => {
                    if let Some(ready) = self.doors_ready.get_mut(at - TOKEN_DOORS) {
                        *ready = true;
                    }
                }
                Token(at) => self.on_report(u32::try_from(at).unwrap_or(u32::MAX), report),
            }
        }
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
}
