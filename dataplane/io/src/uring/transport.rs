//! The transport's side towards the shard: what is asked of it, its turn and its waits.

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use abi::Addr;
use io_uring::opcode;
use io_uring::types::CancelBuilder;
use rustix::io::Errno;
use shard::{Burst, ConnId, Event, Instant, Transport, Via};

use super::UringTransport;
use super::conn::{Conn, Ops};
use super::ops::{Op, user_data};
use crate::base::Stage;
use crate::conns::Conns;
use crate::counters::add;
use crate::wait::Plan;
use crate::{Rx, os};

/// Completions looked at in one go.
const REAP: usize = Burst::<()>::MAX;
/// Enters that `Drop` makes while the kernel gives everything back.
const DRAIN_ENTERS: usize = 100;
/// How long each of them waits.
const DRAIN_WAIT_NS: u64 = 10_000_000;

impl UringTransport {
    /// Queues what a dirty connection has to do.
    #[expect(unsafe_code, reason = "the kernel reads the send buffer")]
    fn settle(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.dirty = false;
        if conn.own.sending || !matches!(conn.stage, Stage::Open | Stage::Closing) {
            return;
        }
        if conn.out.is_empty() {
            conn.send_fin();
            if conn.stage == Stage::Closing {
                self.bury(index);
            }
            return;
        }
        conn.own.sending = true;
        conn.own.count += 1;
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
        self.provide();
        if !self.wake_armed {
            self.arm_wake();
        }
        self.meet_deadlines();
        if self.accepts.contains(&false) {
            self.arm_accepts();
        }
    }

    /// Gives the kernel buffers, and receives that want them.
    fn provide(&mut self) {
        self.rx.refill();
        if !self.rearm.is_empty() && self.rx.has_any() {
            let mut rearm = core::mem::take(&mut self.rearm);
            for index in rearm.drain(..) {
                if let Some(conn) = self.slots.slot_mut(index) {
                    conn.own.rearm = false;
                }
                self.arm_recv(index);
            }
            self.rearm = rearm;
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
                    self.enter();
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

impl UringTransport {
    /// See [`crate::Sockets::begin_wait`].
    pub(crate) fn begin_wait(&mut self) -> bool {
        self.prepare();
        if self.ring.has_submissions() {
            self.enter();
        }
        self.base.has_news() || self.ring.has_completions() || self.ring.has_deferred()
    }

    /// See [`crate::Sockets::forget_signals`].
    pub(crate) fn forget_signals(&self) {
        self.ring.forget_signals();
    }

    /// See [`crate::Sockets::lend`].
    pub(crate) fn lend(&mut self) -> io::Result<()> {
        self.ring.watch()
    }

    /// See [`crate::Sockets::end_wait`]. The next burst runs what the kernel has deferred.
    pub(crate) fn end_wait(&mut self) {
        self.base.has_news();
    }
}

impl AsFd for UringTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Transport for UringTransport {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        self.tell_waiting(out);
        self.take_handed(out);
        let mut scratch = [const { MaybeUninit::uninit() }; REAP];
        if out.room() > 0 && !self.ring.has_completions() && self.ring.has_deferred() {
            self.enter();
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
        self.accept_bytes(conn, slices)
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
        let full = self.slots.len() >= self.base.limits.conns_max;
        let begun = if full { Err(Errno::MFILE) } else { os::connect(to) };
        let begun = match begun {
            Ok(begun) => begun,
            Err(errno) => {
                let id = self.slots.insert(Conn::new(None, Stage::Connecting, false, Ops::default()));
                self.end(id.index, os::why(errno));
                return id;
            }
        };
        // Only the connect itself must not wait; see the head of this file.
        let _ = rustix::io::ioctl_fionbio(&begun.fd, false);
        let stage = if begun.done { Stage::Open } else { Stage::Connecting };
        let mut conn = Conn::new(Some(begun.fd), stage, false, Ops::default());
        let fd = conn.raw();
        conn.own.count = u8::from(!begun.done);
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
        self.finish(conn);
    }

    fn close(&mut self, conn: ConnId) {
        let Some(state) = self.slots.conn_mut(conn) else { return };
        if state.stage != Stage::Open || (state.out.is_empty() && !state.own.sending) {
            return self.bury(conn.index);
        }
        state.stage = Stage::Closing;
        self.slots.retire(conn.index);
        self.cancel_recv(conn.index);
        self.mark_dirty(conn.index);
        self.base.deadlines.linger(self.slots.id(conn.index));
    }

    fn reset(&mut self, conn: ConnId) {
        self.abort(conn);
    }

    fn flush(&mut self) {
        let puts_off = self.base.policy.may_put_off(self.dirty.len())
            && (self.ring.has_completions() || self.ring.has_deferred());
        self.base.policy.flushed(puts_off);
        if puts_off {
            self.provide();
        } else {
            self.prepare();
        }
        if self.ring.has_submissions() {
            self.enter();
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.prepare();
        if self.base.has_news() || self.ring.has_completions() {
            return;
        }
        let until = self.base.until(until);
        let from = os::now();
        let spins = match self.base.policy.plan() {
            Plan::Block => None,
            Plan::Spin(ns) => Some(Some(ns)),
            Plan::SpinForEver => Some(None),
        };
        let mut blocks = true;
        if let Some(limit) = spins {
            if self.ring.has_submissions() {
                self.enter();
            }
            add(&self.base.counters.spins, 1);
            blocks = !self.spin(from, until, limit);
        }
        if blocks {
            let now = if spins.is_some() { os::now() } else { from };
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
            if self.slots.is_empty() && !self.accepts.contains(&true) {
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
