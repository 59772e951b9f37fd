//! Frames that carry no body and no headers: WINDOW_UPDATE, RST_STREAM, PING, GOAWAY and PRIORITY
//! (RFC 9113 sections 6.3 to 6.9). SETTINGS are in `settings.rs`.

use super::closed::How;
use super::frame::{Head, MAX_31, be32, flag, kind};
use super::recv::{Broken, Outcome};
use super::{Fault, H2Conn, H2Event, Reason, ResetBy};

impl H2Conn {
    /// Section 6.9.
    pub(super) fn recv_window_update(&mut self, id: u32, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(Fault::FrameLength.into());
        }
        self.floods.window_update()?;
        let by = (be32(payload) & MAX_31).cast_signed();
        if id == 0 {
            if by == 0 {
                return Err(Fault::WindowUpdateZero.into());
            }
            self.send_window = self.send_window.checked_add(by).ok_or(Fault::WindowOverflow)?;
            return Ok(None);
        }
        if self.is_idle(id) {
            return Err(Fault::StreamIdle.into());
        }
        // Section 5.1: may come for a while after a stream has ended.
        let Some(key) = self.streams.find(id) else { return Ok(None) };
        if by == 0 {
            return Err(Broken::Stream(key, Fault::WindowUpdateZero));
        }
        self.send_window_add(key, by).map_err(|fault| Broken::Stream(key, fault))?;
        Ok(None)
    }

    /// Section 6.4.
    pub(super) fn recv_rst_stream(&mut self, id: u32, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(Fault::FrameLength.into());
        }
        if self.is_idle(id) {
            return Err(Fault::StreamIdle.into());
        }
        let reason = Reason(be32(payload));
        let Some(stream) = self.streams.find(id) else {
            self.floods.cheap(1, self.now, Fault::FloodClosed)?;
            return Ok(None);
        };
        let Some(s) = self.streams.get(stream) else { return Ok(None) };
        let (tag, age_ns) = (s.tag, self.now.since_ns(s.opened_at));
        // A server's resets are answers; only a client can open and reset.
        if self.role == super::Role::Server {
            self.floods.peer_reset(age_ns, self.now)?;
        }
        self.close(stream, How::PeerReset);
        Ok(Some(H2Event::Reset { stream, tag, reason, by: ResetBy::Peer }))
    }

    /// Section 6.7.
    pub(super) fn recv_ping(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if payload.len() != 8 {
            return Err(Fault::FrameLength.into());
        }
        if head.has(flag::ACK) {
            if payload == PING_OPAQUE && self.pings_unanswered > 0 {
                self.pings_unanswered -= 1;
                return Ok(Some(H2Event::Pong));
            }
            self.floods.cheap(1, self.now, Fault::FloodPing)?;
            return Ok(None);
        }
        self.floods.cheap(1, self.now, Fault::FloodPing)?;
        self.tx.push(kind::PING, flag::ACK, 0, payload);
        self.floods.control_queued()?;
        Ok(None)
    }

    /// Section 6.3, deprecated: validated and ignored.
    pub(super) fn recv_priority(&mut self, id: u32, payload: &[u8]) -> Outcome {
        let fault = if payload.len() != 5 {
            Fault::FrameLength
        } else if be32(payload) & MAX_31 == id {
            Fault::PriorityOnItself
        } else {
            self.floods.priority()?;
            return Ok(None);
        };
        // An error of the stream; but RST_STREAM on one that is idle would be our error (section 6.4).
        match self.streams.find(id) {
            Some(key) if !self.is_idle(id) => Err(Broken::Stream(key, fault)),
            _ => Err(fault.into()),
        }
    }

    /// Sends a PING; `Pong` follows.
    pub fn ping(&mut self) {
        if self.settings_sent() && self.dead.is_none() {
            self.pings_unanswered += 1;
            self.tx.push(kind::PING, 0, 0, &PING_OPAQUE);
        }
    }
}

/// What our PINGs carry.
const PING_OPAQUE: [u8; 8] = *b"towpath\0";
