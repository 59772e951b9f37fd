//! A connection, and what both backends do alike with all of theirs.

use std::os::fd::OwnedFd;

use shard::{Burst, ConnId, Event, Slots, Why};

use crate::base::{Base, Due, Stage, subject};
use crate::counters::add;
use crate::outgoing::Outgoing;
use crate::{Rx, os};

/// A connection; `own` is what only one backend keeps of it.
pub(crate) struct Conn<Own> {
    /// `None` if there never was one: the connect failed before it began.
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) out: Outgoing,
    pub(crate) stage: Stage,
    pub(crate) paused: bool,
    pub(crate) eof: bool,
    /// A FIN is to follow what is pending, or has.
    pub(crate) fin: bool,
    pub(crate) fin_sent: bool,
    /// `tx` was cut: a `Writable` is owed.
    pub(crate) cut: bool,
    pub(crate) dirty: bool,
    pub(crate) accepted: bool,
    /// A send failed; what was received before is still being told.
    pub(crate) broken: Option<Why>,
    pub(crate) own: Own,
}

impl<Own> Conn<Own> {
    pub(crate) fn new(fd: Option<OwnedFd>, stage: Stage, accepted: bool, own: Own) -> Self {
        Self {
            fd,
            out: Outgoing::default(),
            stage,
            paused: false,
            eof: false,
            fin: false,
            fin_sent: false,
            cut: false,
            dirty: false,
            accepted,
            broken: None,
            own,
        }
    }

    /// The socket's pending error.
    pub(crate) fn outcome(&self) -> Result<(), Why> {
        self.fd.as_ref().map_or(Err(Why::Other), |fd| os::connect_outcome(fd).map_err(os::why))
    }

    /// A RST is to be sent when the descriptor closes.
    pub(crate) fn abort(&self) {
        if let Some(fd) = &self.fd {
            os::abort_on_close(fd);
        }
    }

    /// The shard wants what the peer sends.
    pub(crate) fn may_receive(&self) -> bool {
        self.stage == Stage::Open && !self.paused && !self.eof
    }

    /// `tx` was cut and there is room again: says so once.
    pub(crate) fn take_writable(&mut self, tx_bytes_max: usize) -> bool {
        let is_due = self.cut && self.stage == Stage::Open && self.out.len() <= tx_bytes_max / 2;
        self.cut &= !is_due;
        is_due
    }

    /// All bytes are out: the FIN follows, once, if one is to.
    pub(crate) fn send_fin(&mut self) {
        if self.fin
            && !core::mem::replace(&mut self.fin_sent, true)
            && let Some(fd) = &self.fd
        {
            os::shutdown_write(fd);
        }
    }
}

/// A transport's connections, their events and their ends.
pub(crate) trait Conns {
    /// What the backend keeps of each.
    type Own;

    /// The rest of the transport, the connections, and those with something to do at the next flush.
    fn parts(&mut self) -> (&mut Base, &mut Slots<Conn<Self::Own>>, &mut Vec<u32>);

    /// Takes a connection from the shard and gives its slot back as soon as the kernel lets go.
    fn bury(&mut self, index: u32);

    /// It has something to send, shut down or close.
    fn mark_dirty(&mut self, index: u32) {
        let (_, slots, dirty) = self.parts();
        if let Some(conn) = slots.slot_mut(index)
            && !core::mem::replace(&mut conn.dirty, true)
        {
            dirty.push(index);
        }
    }

    /// Tells what waits, except to connections that are gone.
    fn tell_waiting(&mut self, out: &mut Burst<Event<Rx>>) {
        while out.room() > 0
            && let Some(event) = self.parts().0.events.pop_front()
        {
            let id = subject(&event);
            if !self.parts().1.is_current(id) {
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
        let (base, slots, _) = self.parts();
        let id = slots.id(index);
        let Some(conn) = slots.slot_mut(index) else { return };
        let event = match conn.stage {
            Stage::Connecting => Event::Failed(id, why),
            Stage::Open => Event::Reset(id, why),
            Stage::Closing => return self.bury(index),
            Stage::Ended | Stage::Dead => return,
        };
        conn.stage = Stage::Ended;
        if matches!(event, Event::Failed(..)) {
            add(&base.counters.connect_errors, 1);
        }
        base.events.push_back(event);
    }

    /// The slot's next owner may come.
    fn free(&mut self, index: u32) {
        let (base, slots, _) = self.parts();
        if let Some(mut conn) = slots.release(index) {
            conn.out.clear(&mut base.pool);
            if conn.accepted {
                base.accepted_gone();
            }
            base.count_open(slots.len());
        }
    }

    /// Does what has become due.
    fn meet_deadlines(&mut self) {
        if self.parts().0.deadlines.next().is_none() {
            return;
        }
        let now = os::now();
        while let Some(due) = self.parts().0.deadlines.due(now) {
            match due {
                Due::Accept => {}
                Due::Connect(id) => {
                    if self.parts().1.conn_mut(id).is_some_and(|conn| conn.stage == Stage::Connecting) {
                        self.end(id.index, Why::TimedOut);
                    }
                }
                Due::Linger(id) => {
                    if let Some(conn) = self.parts().1.conn_mut(id)
                        && conn.stage == Stage::Closing
                    {
                        conn.abort();
                        self.bury(id.index);
                    }
                }
            }
        }
    }

    /// True if there is no room for an accepted connection, which is counted.
    fn refuses_accepted(&mut self) -> bool {
        let (base, slots, _) = self.parts();
        let is_full = slots.len() >= base.limits.conns_max;
        if is_full {
            add(&base.counters.accepts_refused, 1);
            base.accepted_gone();
        }
        is_full
    }

    /// `Transport::tx`.
    fn accept_bytes(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        let (base, slots, _) = self.parts();
        let Some(state) = slots.conn_mut(conn) else { return 0 };
        if state.fin || state.broken.is_some() || !matches!(state.stage, Stage::Open | Stage::Connecting) {
            return 0;
        }
        let accepted = state.out.accept(slices, base.limits.tx_bytes_max, &mut base.pool);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if accepted < offered {
            state.cut = true;
            add(&base.counters.tx_cut, 1);
        }
        if accepted > 0 {
            self.mark_dirty(conn.index);
        }
        accepted
    }

    /// `Transport::half_close`.
    fn finish(&mut self, conn: ConnId) {
        if let Some(state) = self.parts().1.conn_mut(conn) {
            state.fin = true;
            self.mark_dirty(conn.index);
        }
    }

    /// `Transport::reset`.
    fn abort(&mut self, conn: ConnId) {
        if let Some(state) = self.parts().1.conn_mut(conn) {
            state.abort();
            self.bury(conn.index);
        }
    }
}
