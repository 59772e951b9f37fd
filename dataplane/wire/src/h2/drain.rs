//! GOAWAY, both ways (RFC 9113 section 6.8).

use super::closed::How;
use super::frame::{MAX_31, be32, kind};
use super::recv::Outcome;
use super::stream::is;
use super::{Fault, H2Conn, H2Event, Reason, ResetBy, Role};

impl H2Conn {
    /// Server: GOAWAY(2^31-1): please open no more. `drain_finish` after a round trip (a `ping`).
    pub fn drain_start(&mut self) {
        if self.goaway_sent.is_none() {
            self.send_goaway(MAX_31, Reason::NO_ERROR);
        }
    }

    /// Server: GOAWAY(last stream): later streams are refused.
    pub fn drain_finish(&mut self) {
        self.goaway(Reason::NO_ERROR);
    }

    /// GOAWAY with a reason and the last stream seen; the caller then writes `tx()` and closes, or lets the
    /// streams finish.
    pub fn goaway(&mut self, reason: Reason) {
        let last = if self.role == Role::Server { self.id_max } else { 0 };
        self.send_goaway(last, reason);
    }

    fn send_goaway(&mut self, last: u32, reason: Reason) {
        if self.dead.is_some() {
            return;
        }
        if !self.settings_sent() {
            self.send_settings();
        }
        // Section 6.8: the last stream must not rise.
        let last = self.goaway_sent.map_or(last, |sent| sent.min(last));
        self.goaway_sent = Some(last);
        self.tx.push(kind::GOAWAY, 0, 0, [last.to_be_bytes(), reason.0.to_be_bytes()].as_flattened());
    }

    /// Server: is it a stream that our GOAWAY said we would not serve? Its frames are passed over.
    pub(super) fn is_beyond_goaway(&self, id: u32) -> bool {
        self.role == Role::Server && self.goaway_sent.is_some_and(|last| id > last)
    }

    /// The peer's GOAWAY: tells, and begins the search for streams it will not serve.
    pub(super) fn recv_goaway(&mut self, payload: &[u8]) -> Outcome {
        let Some(fields) = payload.first_chunk::<8>() else { return Err(Fault::FrameLength.into()) };
        self.floods.cheap(1, self.now, Fault::FloodControl)?;
        let (last, reason) = fields.split_at(4);
        let (last, reason) = (be32(last) & MAX_31, Reason(be32(reason)));
        let before = self.goaway_received;
        let last = before.map_or(last, |b| b.min(last));
        self.goaway_received = Some(last);
        if self.role == Role::Client && before != Some(last) {
            self.sweep = Some(0);
        }
        Ok(Some(H2Event::Goaway { reason }))
    }

    /// The next stream of ours that the peer's GOAWAY left out.
    pub(super) fn sweep_goaway(&mut self) -> Option<H2Event> {
        let (at, last) = (self.sweep?, self.goaway_received?);
        // One whose headers have not been sent can never be sent now.
        let Some((stream, next)) = self.streams.find_from(at, |s| s.id > last || !s.has(is::SENT_HEADERS))
        else {
            self.sweep = None;
            return None;
        };
        self.sweep = Some(next);
        let tag = self.streams.get(stream).map_or(super::UNTAGGED, |s| s.tag);
        self.close(stream, How::WeReset);
        Some(H2Event::Reset { stream, tag, reason: Reason::REFUSED_STREAM, by: ResetBy::Goaway })
    }
}
