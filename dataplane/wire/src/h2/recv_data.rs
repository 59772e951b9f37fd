//! DATA (RFC 9113 section 6.1): checked at its head, handed on in place, never copied.
//!
//! A frame cut by the end of the input gives one event per piece; what counts against windows and
//! `content-length` is counted once, at the head.

use super::closed::How;
use super::frame::{HEAD_LEN, Head, flag};
use super::recv::{Broken, Outcome, Rx};
use super::stream::is;
use super::{Fault, H2Conn, H2Event, Input, Role, StreamKey};

/// What is left of a DATA frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DataLeft {
    key: StreamKey,
    /// Bytes of body.
    body: u32,
    /// Bytes of padding after it.
    pad: u32,
    end: bool,
}

impl H2Conn {
    /// A DATA frame whose head is in the input.
    pub(super) fn recv_data(&mut self, head: Head, input: &mut Input<'_>) -> Outcome {
        let mut pad = None;
        if head.has(flag::PADDED) && head.len > 0 {
            let rest = input.rest();
            pad = rest.get(HEAD_LEN).copied();
            if pad.is_none() {
                self.part.extend_from_slice(rest);
                input.at = input.bytes.len();
                return Ok(None);
            }
        }
        input.at += HEAD_LEN + usize::from(pad.is_some());
        self.recv_data_head(head, pad, input)
    }

    /// A DATA frame's head has been read, and the length of its padding if it has one.
    pub(super) fn recv_data_head(&mut self, head: Head, pad: Option<u8>, input: &mut Input<'_>) -> Outcome {
        if head.id == 0 {
            return Err(Fault::StreamZero.into());
        }
        let padded = head.has(flag::PADDED);
        let overhead = u32::from(padded) + u32::from(pad.unwrap_or(0));
        // Also where the length of the padding itself did not fit.
        let body = head.len.checked_sub(overhead).ok_or(if head.len == 0 {
            Fault::FrameLength
        } else {
            Fault::PaddingTooLong
        })?;
        let unread = head.len - u32::from(pad.is_some());
        // From here on, whatever the stream's fate, the payload is passed over.
        self.rx = if unread == 0 { Rx::Frame } else { Rx::Skip(unread) };
        self.conn_data_arrived(head.len)?;
        let end = head.has(flag::END_STREAM);
        self.floods.data_received(body, end)?;

        let Some(key) = self.streams.find(head.id) else {
            return self.data_on_no_stream(head.id, body).map(|()| None);
        };
        let (enforced, is_client) = (self.ours.window_enforced, self.role == Role::Client);
        let Some(s) = self.streams.get_mut(key) else { return Ok(None) };
        if is_client && !s.has(is::SENT_HEADERS) {
            return Err(Fault::StreamIdle.into());
        }
        if s.has(is::RECV_END) {
            return Err(Broken::Stream(key, Fault::StreamClosed));
        }
        if !s.has(is::RECV_HEADERS) {
            return Err(Broken::Stream(key, Fault::DataBeforeHeaders));
        }
        s.recv_rel = s.recv_rel.saturating_sub_unsigned(head.len);
        if i64::from(enforced) + i64::from(s.recv_rel) < 0 {
            return Err(Broken::Stream(key, Fault::WindowExceeded));
        }
        if !s.body_arrived(body, end) {
            return Err(Broken::Stream(key, Fault::ContentLengthMismatch));
        }
        s.recv_held += body;
        if body > 0 {
            self.floods.data_taken();
        }
        if !end {
            if overhead > 0 {
                self.credit_stream(key, overhead);
            }
            self.credit_if_stalled(key);
        }
        let left = DataLeft { key, body, pad: u32::from(pad.unwrap_or(0)), end };
        Ok(self.recv_data_more(left, input))
    }

    /// The next piece of a DATA frame's body, or of its padding.
    pub(super) fn recv_data_more(&mut self, left: DataLeft, input: &mut Input<'_>) -> Option<H2Event> {
        let DataLeft { key, body, pad, end } = left;
        let Some(stream) = self.streams.get(key) else {
            // Reset since: the rest is of no interest.
            self.rx = Rx::Skip(body + pad);
            return None;
        };
        let tag = stream.tag;
        let here = input.rest().len();
        let n = body.min(u32::try_from(here).unwrap_or(u32::MAX));
        if n < body {
            self.rx = Rx::Data(DataLeft { key, body: body - n, pad, end });
            if n == 0 {
                return None;
            }
        } else {
            self.rx = if pad == 0 { Rx::Frame } else { Rx::Skip(pad) };
        }
        let range = input.at..input.at + n as usize;
        input.at = range.end;
        let end_stream = end && n == body;
        if n == 0 && !end_stream {
            return None;
        }
        if end_stream {
            self.peer_ended(key);
        }
        Some(H2Event::Data { stream: key, tag, range, end_stream })
    }

    /// DATA on a stream that is idle or over (section 5.1).
    fn data_on_no_stream(&mut self, id: u32, body: u32) -> Result<(), Broken> {
        if self.is_idle(id) {
            return Err(Fault::StreamIdle.into());
        }
        if self.is_beyond_goaway(id) {
            return Ok(());
        }
        match self.streams.closed.how(id) {
            // What was on its way when we reset: paid for by the connection's window, unless it is empty.
            How::WeReset if body > 0 => Ok(()),
            How::WeReset | How::Forgotten => Ok(self.floods.cheap(1, self.now, Fault::FloodClosed)?),
            How::PeerReset => Err(Broken::Stream(StreamKey { index: u32::MAX, id }, Fault::StreamClosed)),
            How::Ended | How::Unknown => Err(Fault::StreamClosed.into()),
        }
    }
}
