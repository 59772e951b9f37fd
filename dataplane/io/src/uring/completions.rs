//! What completions come to: each operation's outcome becomes events, or more operations.

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode};
use rustix::io::Errno;
use shard::{Burst, Event, ListenerId, Peer, Why};

use super::UringTransport;
use super::conn::{Conn, Ops, Recv};
use super::ops::{Op, unpack, user_data};
use crate::base::Stage;
use crate::conns::Conns;
use crate::counters::add;
use crate::placement::Handed;
use crate::{Rx, os};

impl UringTransport {
    /// One operation of a slot has completed for good. True if it was a dead slot's, which needs no more.
    pub(super) fn completed(&mut self, index: u32) -> bool {
        let Some(conn) = self.slots.slot_mut(index) else { return true };
        conn.own.count -= 1;
        let (dead, ops) = (conn.stage == Stage::Dead, conn.own.count);
        if dead && ops == 0 {
            self.free(index);
        }
        dead
    }

    pub(super) fn on_completion(&mut self, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
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

    pub(super) fn on_accept(&mut self, at: u32, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
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
    pub(super) fn adopt(
        &mut self,
        fd: OwnedFd,
        listener: ListenerId,
        peer: Peer,
        out: &mut Burst<Event<Rx>>,
    ) {
        if self.refuses_accepted() {
            return;
        }
        add(&self.base.counters.accepts, 1);
        let id = self.slots.insert(Conn::new(Some(fd), Stage::Open, true, Ops::default()));
        self.base.count_open(self.slots.len());
        self.base.tell(Event::Accepted(id, listener, peer), out);
        self.arm_recv(id.index);
    }

    pub(super) fn on_recv(&mut self, index: u32, entry: &cqueue::Entry, out: &mut Burst<Event<Rx>>) {
        let outcome = result(entry.result());
        // Taken first, so that it goes back to the ring whatever follows.
        let filled = cqueue::buffer_select(entry.flags())
            .map(|buffer| self.rx.filled(buffer, outcome.as_ref().map_or(0, |&n| n)));
        let last = !cqueue::more(entry.flags());
        if last {
            if let Some(conn) = self.slots.slot_mut(index) {
                conn.own.recv = Recv::Off;
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
    pub(super) fn watch(&mut self, index: u32) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        conn.own.count += 1;
        let fd = conn.raw();
        let events = u32::from(libc::POLLERR.unsigned_abs());
        let entry =
            opcode::PollAdd::new(fd, events).multi(true).build().user_data(user_data(Op::Watch, index));
        self.push(&entry);
    }

    pub(super) fn on_watch(&mut self, index: u32, entry: &cqueue::Entry) {
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

    pub(super) fn on_send(&mut self, index: u32, res: i32, out: &mut Burst<Event<Rx>>) {
        if let Some(conn) = self.slots.slot_mut(index) {
            conn.own.sending = false;
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
                if conn.take_writable(max) {
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

    pub(super) fn on_connect(&mut self, index: u32, out: &mut Burst<Event<Rx>>) {
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

    pub(super) fn connected(&mut self, index: u32, out: &mut Burst<Event<Rx>>) {
        let id = self.slots.id(index);
        if let Some(conn) = self.slots.slot_mut(index) {
            conn.stage = Stage::Open;
        }
        self.base.tell(Event::Connected(id), out);
        self.arm_recv(index);
        self.mark_dirty(index);
    }
}

pub(super) fn result(res: i32) -> Result<u32, Errno> {
    u32::try_from(res).map_err(|_| Errno::from_raw_os_error(res.wrapping_neg()))
}

/// A descriptor the kernel has just made for us.
#[expect(unsafe_code, reason = "the kernel hands over descriptors as numbers")]
pub(super) fn own(fd: u32) -> OwnedFd {
    // SAFETY: a successful accept's result is a new descriptor that nobody else knows of.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) }
}
