//! Received segments that smoltcp 0.14 would take wrongly, put right or kept from it. What it sends wrongly
//! is put right in `outbox`.

use smoltcp::socket::tcp::State;

use crate::conn::Conn;
use crate::parse::{ACK, FIN, RST, SYN, Segment};

/// An acknowledgement older than this is none of this connection's: no peer has so large a window.
const STALE_MAX: u32 = 1 << 24;

impl Conn {
    /// True if a segment reaches beyond the receive ring while smoltcp does not see it.
    ///
    /// The window in a SYN is not scaled (RFC 7323 section 2.2), but smoltcp 0.14 remembers it as if it were
    /// (`remote_last_win` in its `dispatch`): until the first segment without SYN is out it notes bytes as
    /// received for which its ring has no room. It would hand over what it never had, or panic in
    /// `RingBuffer::enqueue_unallocated`; and anybody can make it do so.
    pub(crate) fn exceeds(&mut self, segment: &Segment) -> bool {
        let Some(tcp) = &self.tcp else { return false };
        if matches!(tcp.state(), State::Listen | State::SynSent) && segment.flags & SYN != 0 {
            let room = u32::try_from(tcp.get().recv_capacity()).unwrap_or(0).min(u32::from(u16::MAX));
            self.ring_end = Some(segment.seq.wrapping_add(1).wrapping_add(room));
            return false;
        }
        if self.ring_end.is_some() && self.sent.flags & (SYN | ACK) == ACK {
            self.ring_end = None;
        }
        let len = u32::try_from(segment.payload_len).unwrap_or(u32::MAX);
        let end = segment.seq.wrapping_add(len);
        self.ring_end.is_some_and(|ring_end| len > 0 && end.wrapping_sub(ring_end).cast_signed() > 0)
    }

    /// Brings a segment that was overtaken up to date: its acknowledgement and window become those of the
    /// newest segment from the peer.
    ///
    /// smoltcp drops a segment whose acknowledgement is older than what it knows, with all its data. RFC 9293
    /// section 3.10.7.4 has it ignore the acknowledgement only; without that, each reordered segment of a
    /// busy connection is a lost one. It does not look at checksums: `parse` has done so.
    pub(crate) fn refresh(&mut self, segment: &Segment, tcp: &mut [u8]) {
        let state = self.state();
        let is_synchronised =
            !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived);
        let (Some(una), true) = (self.unacknowledged(state), is_synchronised) else { return };
        if segment.flags & (ACK | SYN | RST) != ACK {
            return;
        }
        let age = una.wrapping_sub(segment.ack);
        let carries = segment.payload_len > 0 || segment.flags & FIN != 0;
        if age == 0 || age >= STALE_MAX {
            self.window = segment.window;
        } else if carries && let Some(fields) = tcp.get_mut(8..16) {
            fields[..4].copy_from_slice(&una.to_be_bytes());
            fields[6..].copy_from_slice(&self.window.to_be_bytes());
        }
    }

    /// SND.UNA: the first of our bytes that the peer has not acknowledged. smoltcp does not tell; but it
    /// begins after the SYN and has moved by all that was accepted and is not in the ring any more.
    fn unacknowledged(&self, state: State) -> Option<u32> {
        let queue = u32::try_from(self.tcp.as_ref()?.get().send_queue()).ok()?;
        let fin = u32::from(matches!(state, State::FinWait2 | State::TimeWait));
        Some(self.sent.first?.wrapping_add(self.accepted).wrapping_sub(queue).wrapping_add(fin))
    }
}
