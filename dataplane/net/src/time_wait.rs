//! Flows that are over but whose stragglers may still come (RFC 9293 section 3.6.1), without their sockets.
//!
//! smoltcp would keep a socket and its rings for each; here it is an entry of some eighty bytes, for a fixed time,
//! in a ring whose oldest entry goes first.

use alloc::collections::VecDeque;

use hashbrown::HashMap;
use shard::Instant;

use crate::outbox::Sent;
use crate::parse::{ACK, FIN, Flow, RST, SYN, Segment};

/// How long a flow is remembered: several times what a segment lives in a data centre.
const KEPT_NS: u64 = 10_000_000_000;

#[derive(Debug)]
struct Entry {
    flow: Flow,
    until: Instant,
    last: Sent,
    /// A new connection has taken the flow over.
    is_over: bool,
}

/// What a segment of a remembered flow calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Straggler {
    /// The flow is not remembered, or a new connection may have it now.
    None,
    /// Nothing.
    Ignore,
    /// Our last acknowledgement again.
    Acknowledge(Sent),
}

/// The ring.
#[derive(Debug)]
pub(crate) struct TimeWait {
    ring: VecDeque<Entry>,
    /// The number of an entry: its place in the ring, plus all that have left the front.
    numbers: HashMap<Flow, u64>,
    gone: u64,
    max: usize,
}

impl TimeWait {
    pub(crate) fn new(max: u32) -> Self {
        Self { ring: VecDeque::new(), numbers: HashMap::new(), gone: 0, max: max as usize }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn has(&self, flow: &Flow) -> bool {
        self.numbers.contains_key(flow)
    }

    /// Remembers a flow by the last segment sent on it; true if another had to be forgotten for it.
    pub(crate) fn insert(&mut self, flow: Flow, last: Sent, now: Instant) -> bool {
        self.expire(now);
        let evicts = self.ring.len() >= self.max;
        if evicts {
            self.pop();
        }
        let number = self.gone + self.ring.len() as u64;
        if let Some(old) = self.numbers.insert(flow, number) {
            self.end(old);
        }
        self.ring.push_back(Entry { flow, until: now.after_ns(KEPT_NS), last, is_over: false });
        evicts
    }

    /// A segment has come for a flow without a connection.
    pub(crate) fn meet(&mut self, segment: &Segment, now: Instant) -> Straggler {
        self.expire(now);
        let Some(&number) = self.numbers.get(&segment.flow) else { return Straggler::None };
        let place = usize::try_from(number - self.gone).unwrap_or(usize::MAX);
        let Some(entry) = self.ring.get(place) else { return Straggler::None };
        let last = entry.last;
        let control = segment.flags & (SYN | FIN | RST | ACK);
        if control == SYN && segment.seq.wrapping_sub(last.ack).cast_signed() > 0 {
            // RFC 1122 section 4.2.2.13: a SYN beyond all we have seen begins a new connection.
            self.numbers.remove(&segment.flow);
            self.end(number);
            return Straggler::None;
        }
        // RFC 1337: a RST does not end time-wait. Bare acknowledgements are not answered, or two ends in
        // time-wait would talk for ever.
        if control & RST != 0 || (control & (SYN | FIN) == 0 && segment.payload_len == 0) {
            return Straggler::Ignore;
        }
        Straggler::Acknowledge(last)
    }

    fn end(&mut self, number: u64) {
        let place = number.checked_sub(self.gone).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.ring.get_mut(place)) {
            entry.is_over = true;
        }
    }

    /// Forgets flows whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.ring.front().is_some_and(|entry| entry.until <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.ring.pop_front() {
            self.gone += 1;
            if !entry.is_over {
                self.numbers.remove(&entry.flow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn last() -> Sent {
        Sent::test(1000, 5000)
    }

    fn flow(port: u16) -> Flow {
        Flow { remote: IpAddr::from([10, 7, 0, 1]), remote_port: port, local: 0, local_port: 80 }
    }

    fn segment(port: u16, flags: u8, seq: u32, payload_len: usize) -> Segment {
        Segment { flow: flow(port), flags, seq, ack: 0, window: 0, at: 34, payload_len }
    }

    #[test]
    fn stragglers_are_answered_and_a_new_connection_may_take_over() {
        let mut table = TimeWait::new(10);
        table.insert(flow(1), last(), Instant(0));
        let mut meet = |flags, seq, len| table.meet(&segment(1, flags, seq, len), Instant(1));
        assert_eq!(meet(FIN | ACK, 4999, 0), Straggler::Acknowledge(last()));
        assert_eq!(meet(ACK, 4900, 99), Straggler::Acknowledge(last()));
        assert_eq!(meet(SYN, 4000, 0), Straggler::Acknowledge(last()), "an old SYN");
        assert_eq!(meet(ACK, 5000, 0), Straggler::Ignore);
        assert_eq!(meet(RST, 5000, 0), Straggler::Ignore);
        assert_eq!(meet(SYN, 5001, 0), Straggler::None);
        assert_eq!(table.len(), 0);
        table.insert(flow(1), last(), Instant(2));
        assert!(table.has(&flow(1)));
        assert_eq!(table.meet(&segment(1, FIN, 0, 0), Instant(KEPT_NS + 2)), Straggler::None, "expired");
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_none_is_left_behind() {
        let mut table = TimeWait::new(4);
        let evicted =
            (0..10).filter(|port| table.insert(flow(*port), last(), Instant(u64::from(*port)))).count();
        assert_eq!((evicted, table.len()), (6, 4));
        // The same flow again takes a second place in the ring, and only the later one counts.
        table.insert(flow(9), last(), Instant(20));
        assert!(table.has(&flow(9)) && !table.has(&flow(6)));
        assert_eq!(table.meet(&segment(9, FIN, 0, 0), Instant(KEPT_NS + 10)), Straggler::Acknowledge(last()));
        assert_eq!(table.meet(&segment(9, FIN, 0, 0), Instant(KEPT_NS + 20)), Straggler::None);
        assert_eq!((table.len(), table.ring.len()), (0, 0));
    }
}
