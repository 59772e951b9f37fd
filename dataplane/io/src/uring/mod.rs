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
mod completions;
mod conn;
mod ops;
mod probe;
mod ring;
mod transport;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};
use shard::Slots;

pub(crate) use self::buffers::Filled;
use self::buffers::RxRing;
use self::conn::{Conn, Ops, Recv};
use self::ops::{Op, user_data};
pub(crate) use self::probe::probe;
use self::ring::Ring;
use crate::base::{Base, Stage};
use crate::conns::Conns;
use crate::{Config, Listeners, Placement, Waker};

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
impl Conns for UringTransport {
    type Own = Ops;

    fn parts(&mut self) -> (&mut Base, &mut Slots<Conn>, &mut Vec<u32>) {
        (&mut self.base, &mut self.slots, &mut self.dirty)
    }

    fn bury(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.stage == Stage::Dead {
            return;
        }
        let retired = conn.stage == Stage::Closing;
        conn.stage = Stage::Dead;
        conn.out.clear_next(&mut self.base.pool);
        let (ops, fd) = (conn.own.count, conn.raw());
        if !retired {
            self.slots.retire(index);
        }
        if ops > 0 {
            self.cancel(CancelBuilder::fd(fd).all());
        } else {
            self.free(index);
        }
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
        let ring = Ring::new(config.force_baseline)?;
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
        this.enter();
        Ok(this)
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// Submits what is queued and collects what has completed, without waiting.
    fn enter(&mut self) {
        self.ring.enter(&self.base.counters);
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
        conn.own.recv = Recv::Armed;
        conn.own.count += 1;
        let fd = conn.raw();
        let entry = opcode::RecvMulti::new(fd, buffers::GROUP).build().user_data(user_data(Op::Recv, index));
        self.push(&entry);
    }

    fn cancel_recv(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        if conn.own.recv != Recv::Armed {
            return;
        }
        conn.own.recv = Recv::Cancelling;
        self.cancel(CancelBuilder::user_data(user_data(Op::Recv, index)));
    }

    fn cancel(&mut self, what: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(what)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Op::Cancel, 0));
        self.push(&entry);
    }

    fn mark_rearm(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.own.rearm, true)
        {
            self.rearm.push(index);
        }
    }
}
