//! Segments that somebody who sees nothing of a connection may have sent in its peer's name (RFC 5961): they change
//! nothing, and the peer is asked by an acknowledgement. It has nothing to add, or says what it meant so that it counts.

use core::net::IpAddr;

use shard::{Device, Instant};
use smoltcp::socket::tcp::State;

use crate::conn::Conn;
use crate::parse::{ACK, Mac, RST, SYN, Segment};
use crate::stack::Stack;

/// Between two challenges of one connection. A rate of all together would tell an attacker of the others (CVE-2016-5696).
const CHALLENGE_NS: u64 = 1_000_000_000;

/// What to do with such a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// Nothing.
    Ignore,
    /// Ask.
    Challenge,
}

impl Conn {
    /// RFC 5961 section 3.2: a RST ends a connection if it has the number of the next byte. smoltcp 0.14 is content with
    /// any in its window, which are thousands.
    pub(crate) fn doubts_rst(&self, segment: &Segment) -> Option<Doubt> {
        let is_known = !matches!(self.state(), State::Closed | State::Listen | State::SynSent);
        if segment.flags & RST == 0 || !is_known || segment.seq == self.expected() {
            return None;
        }
        Some(if self.is_within(segment) { Doubt::Challenge } else { Doubt::Ignore })
    }

    /// RFC 5961 section 4.2: a SYN for a connection that is there ends nothing. Its peer may have forgotten all about it,
    /// and resets it once it is asked; smoltcp 0.14 drops such a SYN without a word.
    pub(crate) fn doubts_syn(&self, segment: &Segment) -> bool {
        let is_known = !matches!(
            self.state(),
            State::Closed | State::Listen | State::SynSent | State::SynReceived | State::TimeWait
        );
        is_known && segment.flags & (SYN | ACK | RST) == SYN
    }

    /// RFC 5961 section 5.2: an acknowledgement is at most as old as the largest window. Ours to send in is never larger than
    /// the ring, whatever the peer said.
    pub(crate) fn doubts_ack(&self, segment: &Segment, una: Option<u32>) -> bool {
        let (Some(una), Some(tcp)) = (una, &self.tcp) else { return false };
        let age = una.wrapping_sub(segment.ack).cast_signed();
        let window = i32::try_from(tcp.get().send_capacity()).unwrap_or(i32::MAX);
        segment.flags & (ACK | RST) == ACK && age > window
    }
}

impl<D: Device> Stack<D> {
    /// Asks the peer of a connection whether it has sent what has just come from there.
    pub(crate) fn challenge(&mut self, index: u32, mac: Mac, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let Some(local) = self.rules.routes.address(conn.flow.local) else { return };
        let Some(seq) = conn.sent.next().filter(|_| conn.challenge_at <= now) else { return };
        conn.challenge_at = now.after_ns(CHALLENGE_NS);
        let (ack, window) = (conn.expected(), conn.window_left());
        let ends: [(IpAddr, u16); 2] =
            [(local, conn.flow.local_port), (conn.flow.remote, conn.flow.remote_port)];
        self.counters.challenges += 1;
        self.pen().acknowledge(mac, ends[0], ends[1], seq, ack, window);
    }
}
