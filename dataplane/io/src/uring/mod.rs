//! `uring`: a shard's sockets over io_uring.
//!
//! One ring per shard (SINGLE_ISSUER, DEFER_TASKRUN), multishot accept and receive into a ring of provided
//! buffers, at most one send in flight per connection, one enter per turn that both submits and collects.
//!
//! Invariants: the memory of a send does not move before its completion; a slot is not reused, and its
//! descriptor not closed, before all its completions are in.
//!
//! Descriptors are blocking: io_uring waits for a blocking socket by itself, and fails at once on others.

mod buffers;
mod ops;
mod probe;
mod ring;

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use abi::Addr;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use rustix::io::Errno;
use shard::{Burst, ConnId, Event, Instant, ListenerId, Peer, Transport, Via, Why};

pub(crate) use self::buffers::Filled;
use self::buffers::RxRing;
use self::ops::{Op, unpack, user_data};
pub(crate) use self::probe::probe;
use self::ring::Ring;
use crate::base::{Base, Due, Stage, subject};
use crate::counters::add;
use crate::outgoing::Outgoing;
use crate::placement::Handed;
use crate::slots::Slots;
use crate::wait::Plan;
use crate::{Config, Listeners, Placement, Rx, Waker, os};

/// Completions looked at in one go.
const REAP: usize = Burst::<()>::MAX;
/// Enters that `Drop` makes while the kernel gives everything back.
const DRAIN_ENTERS: usize = 100;
/// How long each of them waits.
const DRAIN_WAIT_NS: u64 = 10_000_000;

/// Kernel sockets of one shard over io_uring.
pub struct UringTransport {
    /// Before `rx`: the kernel must be done with the buffers first.
    ring: Ring,
    rx: RxRing,
    slots: Slots<Conn>,
    base: Base,
    /// Connections with something to send, shut down or close at the next flush.
    dirty: Vec<u32>,
    /// Connections whose receive has ended and must be armed again.
    rearm: Vec<u32>,
    /// Which listeners have an accept armed.
    accepts: Vec<bool>,
    wake_armed: bool,
}

/// A connection.
struct Conn {
    /// `None` if there never was one: the connect failed before it began.
    fd: Option<OwnedFd>,
    out: Outgoing,
    stage: Stage,
    /// Completions to come.
    ops: u8,
    recv: Recv,
    sending: bool,
    paused: bool,
    eof: bool,
    /// A FIN is to follow what is pending, or has.
    fin: bool,
    fin_sent: bool,
    /// `tx` was cut: a `Writable` is owed.
    cut: bool,
    dirty: bool,
    /// Waits in `rearm`.
    rearm: bool,
    accepted: bool,
    /// A send failed; what was received before is still being told.
    broken: Option<Why>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recv {
    Off,
    Armed,
    Cancelling,
}

impl Conn {
    fn new(fd: Option<OwnedFd>, stage: Stage, accepted: bool) -> Self {
        Self {
            fd,
            out: Outgoing::default(),
            stage,
            ops: 0,
            recv: Recv::Off,
            sending: false,
            paused: false,
            eof: false,
            fin: false,
            fin_sent: false,
            cut: false,
            dirty: false,
            rearm: false,
            accepted,
            broken: None,
        }
    }

    /// What the ring calls it.
    fn raw(&self) -> Fd {
        Fd(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
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

    fn wants_recv(&self) -> bool {
        self.stage == Stage::Open && self.recv == Recv::Off && !self.paused && !self.eof
    }
}

impl UringTransport {
    pub(crate) fn open(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
        waker: Waker,
    ) -> io::Result<Self> {
        let ring = Ring::new()?;
        let limits = &config.limits;
        let rx = RxRing::register(&ring.submitter(), limits.rx_buffers, limits.rx_buffer_bytes)?;
        let base = Base::new(config, listeners, shard, placement, waker);
        for door in &base.doors {
            rustix::io::ioctl_fionbio(&door.fd, false)?;
        }
        let accepts = vec![false; base.doors.len()];
        let mut this = Self {
            ring,
            rx,
            slots: Slots::new(),
            base,
            dirty: Vec::new(),
            rearm: Vec::new(),
            accepts,
            wake_armed: false,
        };
        this.arm_wake();
        this.arm_accepts();
        this.ring.enter(&this.base.counters);
        Ok(this)
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// Queues an operation that points to no memory of ours.
    #[expect(unsafe_code, reason = "an entry without pointers")]
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the callers build accepts, polls, cancels and buffer-ring receives, which carry no pointer.
        unsafe { self.ring.push(entry, &self.base.counters) };
    }

    fn arm_wake(&mut self) {
        let fd = Fd(self.base.waker.event().as_raw_fd());
        let events = u32::from(libc::POLLIN.unsigned_abs());
        let entry = opcode::PollAdd::new(fd, events).multi(true).build().user_data(user_data(Op::Wake, 0));
        self.push(&entry);
        self.wake_armed = true;
    }

    fn arm_accepts(&mut self) {
        if !self.base.accepting || self.base.deadlines.accept_paused() {
            return;
        }
        for at in 0..self.base.doors.len() {
            let (Some(door), Some(armed)) = (self.base.doors.get(at), self.accepts.get_mut(at)) else {
                break;
            };
            if core::mem::replace(armed, true) {
                continue;
            }
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let entry = opcode::AcceptMulti::new(Fd(door.fd.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(user_data(Op::Accept, index));
            self.push(&entry);
        }
    }

    fn arm_recv(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if !conn.wants_recv() {
            return;
        }
        conn.recv = Recv::Armed;
        conn.ops += 1;
        let fd = conn.raw();
        let entry = opcode::RecvMulti::new(fd, buffers::GROUP).build().user_data(user_data(Op::Recv, index));
        self.push(&entry);
    }

    fn cancel_recv(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.recv != Recv::Armed {
            return;
        }
        conn.recv = Recv::Cancelling;
        self.cancel(CancelBuilder::user_data(user_data(Op::Recv, index)));
    }

    fn cancel(&mut self, what: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(what)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Op::Cancel, 0));
        self.push(&entry);
    }

    fn mark_dirty(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    fn mark_rearm(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.rearm, true)
        {
            self.rearm.push(index);
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

    /// Takes a connection from the shard and gives its slot back as soon as the kernel lets go.
    fn bury(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.stage == Stage::Dead {
            return;
        }
        let retired = conn.stage == Stage::Closing;
        conn.stage = Stage::Dead;
        conn.out.clear_next(&mut self.base.pool);
        let (ops, fd) = (conn.ops, conn.raw());
        if !retired {
            self.slots.retire(index);
        }
        if ops > 0 {
            self.cancel(CancelBuilder::fd(fd).all());
        } else {
            self.free(index);
        }
    }

    /// The slot's next owner may come.
    fn free(&mut self, index: u32) {
        if let Some(mut conn) = self.slots.release(index) {
            conn.out.clear(&mut self.base.pool);
            if conn.accepted {
                self.base.accepted_gone();
            }
            self.base.count_open(self.slots.len());
        }
    }

    /// One operation of a slot has completed for good. True if it was a dead slot's, which needs no more.
    fn completed(&mut self, index: u32) -> bool {
        let Some(conn) = self.slots.slot_mut(index) else { return true };
        conn.ops -= 1;
        let (dead, ops) = (conn.stage == Stage::Dead, conn.ops);
        if dead && ops == 0 {
            self.free(index);
        }
        dead
    }

    fn on_completion(&mut self, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
        let unpacked = unpack(entry.user_data());
        let Some((op, index)) = unpacked else { return };
        match op {
            Op::Cancel => {}
            Op::Wake => {
                if !cqueue::more(entry.flags()) {
                    self.wake_armed = false;
                }
            }
            Op::Accept => self.on_accept(index, entry, out),
            Op::Recv => self.on_recv(index, entry, out),
            Op::Send => self.on_send(index, entry.result(), out),
            Op::Connect => self.on_connect(index, out),
            Op::Watch => self.on_watch(index, entry),
        }
    }

    fn on_accept(&mut self, at: u32, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
        if !cqueue::more(entry.flags())
            && let Some(armed) = self.accepts.get_mut(at as usize)
        {
            *armed = false;
        }
        let Ok(fd) = result(entry.result()) else {
            let cancelled = entry.result() == -libc::ECANCELED;
            if self.base.accepting && !cancelled {
                add(&self.base.counters.accept_errors, 1);
                self.base.deadlines.pause_accept();
            }
            return;
        };
        let fd = own(fd);
        self.base.deadlines.accept_works();
        let Some(door) = self.base.doors.get(at as usize) else { return };
        let handed = Handed { listener: door.id, peer: os::peer(&fd, door.unix), fd };
        if let Some(handed) = self.base.place(handed) {
            self.adopt(handed.fd, handed.listener, handed.peer, out);
        }
    }

    /// An accepted socket becomes a connection of this shard.
    fn adopt(&mut self, fd: OwnedFd, listener: ListenerId, peer: Peer, out: &mut Burst<Event<Rx>>) {
        if self.slots.len() >= self.base.limits.conns_max as usize {
            add(&self.base.counters.accepts_refused, 1);
            self.base.accepted_gone();
            return;
        }
        add(&self.base.counters.accepts, 1);
        let id = self.slots.insert(Conn::new(Some(fd), Stage::Open, true));
        self.base.count_open(self.slots.len());
        self.base.tell(Event::Accepted(id, listener, peer), out);
        self.arm_recv(id.index);
    }

    fn on_recv(&mut self, index: u32, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
        let outcome = result(entry.result());
        // Taken first, so that it goes back to the ring whatever follows.
        let filled = cqueue::buffer_select(entry.flags())
            .map(|buffer| self.rx.filled(buffer, outcome.as_ref().map_or(0, |&n| n)));
        let last = !cqueue::more(entry.flags());
        if last {
            if let Some(conn) = self.slots.slot_mut(index) {
                conn.recv = Recv::Off;
            }
            if self.completed(index) {
                return;
            }
        }
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.stage != Stage::Open {
            return;
        }
        match outcome {
            Ok(0) => {
                conn.eof = true;
                match conn.broken {
                    Some(why) => self.end(index, why),
                    None => {
                        self.watch(index);
                        self.base.tell(Event::Eof(id), out);
                    }
                }
                return;
            }
            Ok(n) => {
                add(&self.base.counters.rx_bytes, u64::from(n));
                if let Some(filled) = filled {
                    self.base.tell(Event::Data(id, Rx::uring(filled)), out);
                }
            }
            Err(Errno::NOBUFS) => {
                add(&self.base.counters.rx_no_buffer, 1);
                self.rx.deepen();
            }
            Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                let why = conn.broken.unwrap_or(os::why(errno));
                return self.end(index, why);
            }
        }
        if last {
            self.mark_rearm(index);
        }
    }

    /// After the end of the peer's stream only a poll notices that it is reset. Multishot, because io_uring
    /// always polls for RDHUP, too, and that is already there.
    fn watch(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.ops += 1;
        let fd = conn.raw();
        let events = u32::from(libc::POLLERR.unsigned_abs());
        let entry =
            opcode::PollAdd::new(fd, events).multi(true).build().user_data(user_data(Op::Watch, index));
        self.push(&entry);
    }

    fn on_watch(&mut self, index: u32, entry: &cqueue::Entry) {
        if !cqueue::more(entry.flags()) && self.completed(index) {
            return;
        }
        let res = entry.result();
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if res > 0 && res & i32::from(libc::POLLERR) != 0 {
            let why = conn.outcome().err().unwrap_or(Why::Reset);
            self.end(index, why);
        }
    }

    fn on_send(&mut self, index: u32, res: i32, out: &mut Burst<Event<Rx>>) {
        if let Some(conn) = self.slots.slot_mut(index) {
            conn.sending = false;
        }
        if self.completed(index) {
            return;
        }
        let id = self.slots.id(index);
        let max = self.base.limits.tx_bytes_max;
        let Some(conn) = self.slots.slot_mut(index) else { return };
        match result(res) {
            Ok(n) => {
                add(&self.base.counters.tx_bytes, u64::from(n));
                conn.out.took(n as usize, &mut self.base.pool);
                let more = !conn.out.is_empty() || conn.fin || conn.stage == Stage::Closing;
                let writable = conn.cut && conn.stage == Stage::Open && conn.out.len() <= max / 2;
                if writable {
                    conn.cut = false;
                    self.base.tell(Event::Writable(id), out);
                }
                if more {
                    self.mark_dirty(index);
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => self.mark_dirty(index),
            Err(errno) => {
                let why = os::why(errno);
                conn.out.clear(&mut self.base.pool);
                // What the peer sent before it went is still to be told: the receive ends by itself.
                if conn.stage == Stage::Open && !conn.paused && !conn.eof {
                    conn.broken = Some(why);
                } else {
                    self.end(index, why);
                }
            }
        }
    }

    fn on_connect(&mut self, index: u32, out: &mut Burst<Event<Rx>>) {
        if self.completed(index) {
            return;
        }
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.stage != Stage::Connecting {
            return;
        }
        match conn.outcome() {
            Ok(()) => self.connected(index, out),
            Err(why) => self.end(index, why),
        }
    }

    fn connected(&mut self, index: u32, out: &mut Burst<Event<Rx>>) {
        let id = self.slots.id(index);
        if let Some(conn) = self.slots.slot_mut(index) {
            conn.stage = Stage::Open;
        }
        self.base.tell(Event::Connected(id), out);
        self.arm_recv(index);
        self.mark_dirty(index);
    }

    /// Queues what a dirty connection has to do.
    #[expect(unsafe_code, reason = "the kernel reads the send buffer")]
    fn settle(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.dirty = false;
        if conn.sending || !matches!(conn.stage, Stage::Open | Stage::Closing) {
            return;
        }
        if conn.out.is_empty() {
            if conn.fin && !conn.fin_sent {
                conn.fin_sent = true;
                if let Some(fd) = &conn.fd {
                    os::shutdown_write(fd);
                }
            }
            if conn.stage == Stage::Closing {
                self.bury(index);
            }
            return;
        }
        conn.sending = true;
        conn.ops += 1;
        let fd = conn.raw();
        let flight = conn.out.flight(&mut self.base.pool);
        let len = u32::try_from(flight.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(fd, flight.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Op::Send, index));
        // SAFETY: `flight` stays in place until `took` or `clear`, and neither is called before this send's
        // completion: `on_send` is the one to call them, and `free` waits until `ops` is zero. `Drop` waits
        // for all completions, or leaks the buffers.
        unsafe { self.ring.push(&entry, &self.base.counters) };
    }

    /// Everything that must be queued before an enter.
    fn prepare(&mut self) {
        // Settling marks nobody dirty, so the list can be walked in place and kept for its memory.
        let mut dirty = core::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.settle(index);
        }
        self.dirty = dirty;
        self.rx.refill();
        if !self.rearm.is_empty() && self.rx.has_any() {
            let mut rearm = core::mem::take(&mut self.rearm);
            for index in rearm.drain(..) {
                if let Some(conn) = self.slots.slot_mut(index) {
                    conn.rearm = false;
                }
                self.arm_recv(index);
            }
            self.rearm = rearm;
        }
        if !self.wake_armed {
            self.arm_wake();
        }
        if self.base.deadlines.next().is_some() {
            self.meet_deadlines();
        }
        if self.accepts.contains(&false) {
            self.arm_accepts();
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

    fn take_handed(&mut self, out: &mut Burst<Event<Rx>>) {
        while out.room() > 0
            && let Some((fd, listener, peer)) = self.base.take_handed()
        {
            self.adopt(fd, listener, peer, out);
        }
    }

    /// Spins while it may pay; true if there is something to look at.
    fn spin(&mut self, from: Instant, until: Option<Instant>, for_ns: Option<u64>) -> bool {
        let limit = for_ns.map(|ns| from.after_ns(ns));
        loop {
            for _ in 0..16 {
                if self.ring.has_completions() || self.base.waker.is_pending() {
                    return true;
                }
                if self.ring.has_deferred() {
                    self.ring.enter(&self.base.counters);
                    if self.ring.has_completions() {
                        return true;
                    }
                }
                core::hint::spin_loop();
            }
            let now = os::now();
            if until.is_some_and(|until| until <= now) {
                return true;
            }
            if limit.is_some_and(|limit| limit <= now) {
                return false;
            }
        }
    }
}

impl Transport for UringTransport {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        self.tell_waiting(out);
        self.take_handed(out);
        let mut scratch = [const { MaybeUninit::uninit() }; REAP];
        if out.room() > 0 && !self.ring.has_completions() && self.ring.has_deferred() {
            self.ring.enter(&self.base.counters);
        }
        while out.room() > 0 && self.base.events.is_empty() {
            let Some(space) = scratch.get_mut(..out.room()) else { break };
            let entries = self.ring.completions(space);
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                self.on_completion(entry, out);
            }
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
                return self.end(conn.index, why);
            }
            self.cancel_recv(conn.index);
        }
    }

    fn resume_rx(&mut self, conn: ConnId) {
        if let Some(state) = self.slots.conn_mut(conn) {
            state.paused = false;
            self.mark_rearm(conn.index);
        }
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        // Raw ports are other transports; here everything leaves by the kernel.
        let _ = via;
        add(&self.base.counters.connects, 1);
        let full = self.slots.len() >= self.base.limits.conns_max as usize;
        let begun = if full { Err(Errno::MFILE) } else { os::connect(to) };
        let begun = match begun {
            Ok(begun) => begun,
            Err(errno) => {
                let id = self.slots.insert(Conn::new(None, Stage::Connecting, false));
                self.end(id.index, os::why(errno));
                return id;
            }
        };
        // Only the connect itself must not wait; see the head of this file.
        let _ = rustix::io::ioctl_fionbio(&begun.fd, false);
        let stage = if begun.done { Stage::Open } else { Stage::Connecting };
        let mut conn = Conn::new(Some(begun.fd), stage, false);
        let fd = conn.raw();
        conn.ops = u8::from(!begun.done);
        let id = self.slots.insert(conn);
        self.base.count_open(self.slots.len());
        if begun.done {
            self.base.events.push_back(Event::Connected(id));
            self.arm_recv(id.index);
        } else {
            let entry = opcode::PollAdd::new(fd, u32::from(libc::POLLOUT.unsigned_abs()))
                .build()
                .user_data(user_data(Op::Connect, id.index));
            self.push(&entry);
            self.base.deadlines.connect(id, self.base.limits.connect_timeout);
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
        if state.stage != Stage::Open || (state.out.is_empty() && !state.sending) {
            return self.bury(conn.index);
        }
        state.stage = Stage::Closing;
        self.slots.retire(conn.index);
        self.cancel_recv(conn.index);
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
        self.prepare();
        if self.ring.has_submissions() {
            self.ring.enter(&self.base.counters);
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.prepare();
        if self.base.has_news() || self.ring.has_completions() {
            return;
        }
        let until = self.base.until(until);
        let from = os::now();
        let limit = match self.base.policy.plan() {
            Plan::Block => None,
            Plan::Spin(ns) => Some(Some(ns)),
            Plan::SpinForEver => Some(None),
        };
        let mut blocks = true;
        if let Some(limit) = limit {
            if self.ring.has_submissions() {
                self.ring.enter(&self.base.counters);
            }
            add(&self.base.counters.spins, 1);
            blocks = !self.spin(from, until, limit);
        }
        if blocks {
            let now = if limit.is_some() { os::now() } else { from };
            let timeout = until.map(|until| until.since_ns(now));
            add(&self.base.counters.blocks, 1);
            self.ring.enter_and_wait(timeout, &self.base.counters);
        }
        let event = self.ring.has_completions();
        self.base.waited(from, blocks, event);
        self.base.counters.overflows.store(self.ring.overflows(), core::sync::atomic::Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        os::now()
    }

    fn publish_load(&mut self, calls: u32) {
        self.base.publish(calls);
    }

    fn stop_accepting(&mut self) {
        if self.base.stop_accepting() {
            for at in 0..self.accepts.len() {
                let index = u32::try_from(at).unwrap_or(u32::MAX);
                self.cancel(CancelBuilder::user_data(user_data(Op::Accept, index)));
            }
        }
    }
}

impl Drop for UringTransport {
    fn drop(&mut self) {
        self.stop_accepting();
        let mut out = Burst::new();
        for _ in 0..DRAIN_ENTERS {
            let left: Vec<u32> = self.slots.occupied().collect();
            for &index in &left {
                self.bury(index);
            }
            if self.slots.len() == 0 && !self.accepts.contains(&true) {
                return;
            }
            self.ring.enter_and_wait(Some(DRAIN_WAIT_NS), &self.base.counters);
            self.rx_burst(&mut out);
            drop(out.drain());
        }
        // The kernel has not let go. Its memory must not be reused, so it is never given back.
        self.rx.leak();
        let left: Vec<u32> = self.slots.occupied().collect();
        for index in left {
            if let Some(conn) = self.slots.slot_mut(index) {
                core::mem::forget(core::mem::take(&mut conn.out));
            }
        }
    }
}

fn result(res: i32) -> Result<u32, Errno> {
    u32::try_from(res).map_err(|_| Errno::from_raw_os_error(res.wrapping_neg()))
}

/// A descriptor the kernel has just made for us.
#[expect(unsafe_code, reason = "the kernel hands over descriptors as numbers")]
fn own(fd: u32) -> OwnedFd {
    // SAFETY: a successful accept's result is a new descriptor that nobody else knows of.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) }
}
