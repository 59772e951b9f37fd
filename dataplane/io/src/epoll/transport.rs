//! The transport's side towards the shard: what is asked of it, its turn and its waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use abi::Addr;
use rustix::io::Errno;
use rustix::net::SendFlags;
use shard::{Burst, ConnId, Event, Instant, Transport, Via};

use super::conn::{Conn, Ready};
use super::{BURSTS_PER_POLL, EpollTransport, SPINS_PER_POLL};
use crate::base::Stage;
use crate::conns::Conns;
use crate::counters::add;
use crate::wait::Plan;
use crate::{Rx, os};

impl EpollTransport {
    /// Does what a dirty connection has to do.
    fn settle(&mut self, index: u32) {
        let id = self.slots.id(index);
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.dirty = false;
        if !matches!(conn.stage, Stage::Open | Stage::Closing) {
            return;
        }
        while conn.own.writable && !conn.out.is_empty() {
            let Some(fd) = &conn.fd else { break };
            add(&self.base.counters.writes, 1);
            match rustix::net::send(fd, conn.out.flight(&mut self.base.pool), SendFlags::NOSIGNAL) {
                Ok(n) => {
                    add(&self.base.counters.tx_bytes, u64::try_from(n).unwrap_or(0));
                    conn.out.took(n, &mut self.base.pool);
                }
                Err(Errno::AGAIN) => conn.own.writable = false,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let why = os::why(errno);
                    conn.out.clear(&mut self.base.pool);
                    conn.broken = Some(why);
                    // What the peer sent before it went is still to be told.
                    if conn.stage == Stage::Open && !conn.paused && !conn.eof {
                        conn.own.readable = true;
                        self.mark_ready(index);
                    } else {
                        self.end(index, why);
                    }
                    return;
                }
            }
        }
        if conn.take_writable(self.base.limits.tx_bytes_max) {
            self.base.events.push_back(Event::Writable(id));
        }
        if !conn.out.is_empty() {
            return;
        }
        conn.send_fin();
        if conn.stage == Stage::Closing {
            self.bury(index);
        }
    }

    /// Does what all dirty connections have to do, and what has become due.
    fn settle_all(&mut self) {
        // Settling marks nobody dirty, so the list can be walked in place and kept for its memory.
        let mut dirty = core::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.settle(index);
        }
        self.dirty = dirty;
        self.meet_deadlines();
    }

    /// True if a burst would find something without asking the kernel.
    fn has_work(&self) -> bool {
        let reads = !self.ready.is_empty() && self.pool.has_any();
        let accepts =
            self.base.accepting && !self.base.deadlines.accept_paused() && self.doors_ready.contains(&true);
        reads || accepts
    }
}

impl EpollTransport {
    /// See [`crate::Sockets::lend`]. The set's own descriptor needs nothing.
    pub(crate) fn lend(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// See [`crate::Sockets::begin_wait`].
    pub(crate) fn begin_wait(&mut self) -> bool {
        self.settle_all();
        self.base.has_news() || self.has_work()
    }

    /// See [`crate::Sockets::end_wait`].
    pub(crate) fn end_wait(&mut self) {
        self.poll(Some(0));
        self.base.has_news();
    }
}

impl AsFd for EpollTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl Transport for EpollTransport {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        self.tell_waiting(out);
        self.take_handed(out);
        // After a burst that used up what was known comes one that finds nothing, and then `wait`, which asks
        // the kernel anyway; only a shard that stays busy otherwise has to be given a fresh look.
        let stale = self.bursts_since_poll >= if self.has_work() { BURSTS_PER_POLL } else { 2 };
        if out.room() > 0 && stale {
            self.poll(Some(0));
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
        self.accept_bytes(conn, slices)
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
        let full = self.slots.len() >= self.base.limits.conns_max;
        let begun = if full { Err(Errno::MFILE) } else { os::connect(to) };
        let id = self.slots.insert(Conn::new(None, Stage::Connecting, false, Ready::default()));
        self.base.count_open(self.slots.len());
        let begun = begun.and_then(|begun| {
            let registered = self.poller.add_socket(&begun.fd, u64::from(id.index));
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
        self.finish(conn);
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
        self.abort(conn);
    }

    fn flush(&mut self) {
        // Asking costs a system call, but each write that is saved costs ten times as much.
        let puts_off =
            self.base.policy.may_put_off(self.dirty.len()) && (self.has_work() || self.poll(Some(0)));
        self.base.policy.flushed(puts_off);
        if !puts_off {
            self.settle_all();
        }
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.settle_all();
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
        let (mut event, mut blocks, mut now) = (false, false, from);
        if limit != Some(from) {
            add(&self.base.counters.spins, 1);
        }
        while !event && !self.base.waker.is_pending() && until.is_none_or(|until| now < until) {
            blocks = limit.is_some_and(|limit| limit <= now);
            if blocks {
                add(&self.base.counters.blocks, 1);
                event = self.poll(until.map(|until| until.since_ns(now)));
                break;
            }
            event = self.poll(Some(0));
            for _ in 0..SPINS_PER_POLL {
                core::hint::spin_loop();
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
