//! Pulling events out of received bytes: frame by frame, in place where a frame is whole.
//!
//! ```text
//!   Preface --24 bytes (server)--> First --SETTINGS--> Frame <--> Data (DATA cut by the end of input)
//!                                                        ^-----> Skip (a payload nobody reads)
//! ```
//!
//! Invariant: `part` holds a frame's beginning only in First and Frame, and less than one whole frame
//! whenever `next` returns; a frame is copied at most once.

use super::frame::{HEAD_LEN, Head, flag, kind};
use super::limits::{BUFFER_KEPT_BYTES, LIST_KEPT_BYTES};
use super::preface::guess_server;
use super::recv_data::DataLeft;
use super::stream::is;
use super::{ConnError, Fault, H2Conn, H2Event, Input, Reason, ResetBy, Role, StreamKey};
use crate::{Headers, Instant};

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rx {
    /// The client's preface.
    Preface,
    /// The first frame: SETTINGS.
    First,
    /// A frame.
    Frame,
    /// More of a DATA frame.
    Data(DataLeft),
    /// So many bytes of no interest.
    Skip(u32),
}

/// A fault with the blast radius of its RFC section.
pub(super) enum Broken {
    /// The connection ends.
    Conn(Fault),
    /// The stream ends.
    Stream(StreamKey, Fault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Conn(fault)
    }
}

pub(super) type Outcome = Result<Option<H2Event>, Broken>;

impl H2Conn {
    /// The next event in `input`, or `None` when it is used up. With an empty input it gives what became
    /// due without bytes: `Writable` after `tx_advance` returned true, `Capacity` after a stream of ours
    /// ended.
    pub fn next(&mut self, now: Instant, input: &mut Input<'_>) -> Result<Option<H2Event>, ConnError> {
        self.now = now;
        loop {
            // Whatever the last frame made due comes before the next, and before `None`.
            if self.is_due()
                && let Some(event) = self.due(input)?
            {
                return Ok(Some(event));
            }
            if input.at >= input.bytes.len() {
                if self.fields.capacity_bytes() > LIST_KEPT_BYTES {
                    self.fields = Headers::new();
                }
                return Ok(None);
            }
            let outcome = match self.rx {
                Rx::Frame | Rx::First => self.recv_frame(input),
                Rx::Data(left) => Ok(self.recv_data_more(left, input)),
                Rx::Skip(left) => {
                    self.recv_skip(left, input);
                    Ok(None)
                }
                Rx::Preface => self.recv_preface(input).map(|()| None).map_err(Broken::Conn),
            };
            match outcome {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(broken) => return self.broke(broken, input),
            }
        }
    }

    /// Might [`H2Conn::due`] have something? Asked for every event, so it only looks.
    #[inline]
    fn is_due(&self) -> bool {
        self.streams.is_waiting()
            || self.capacity_due
            || self.sweep.is_some()
            || self.dead.is_some()
            || self.is_flooding_out()
    }

    /// What is due without further bytes.
    #[cold]
    fn due(&mut self, input: &mut Input<'_>) -> Result<Option<H2Event>, ConnError> {
        if self.dead.is_some() || self.is_flooding_out() {
            input.at = input.bytes.len();
            return Err(self.fail(Fault::FloodOutbound));
        }
        if self.could_send()
            && let Some((stream, tag)) = self.streams.pop_waiting()
        {
            return Ok(Some(H2Event::Writable { stream, tag }));
        }
        if let Some(event) = self.sweep_goaway() {
            return Ok(Some(event));
        }
        Ok(core::mem::take(&mut self.capacity_due).then_some(H2Event::Capacity))
    }

    /// The peer broke a rule.
    #[cold]
    fn broke(&mut self, broken: Broken, input: &mut Input<'_>) -> Result<Option<H2Event>, ConnError> {
        let fault = match broken {
            Broken::Stream(key, fault) => match self.break_stream(key, fault) {
                Ok(event) => return Ok(Some(event)),
                Err(fault) => fault,
            },
            Broken::Conn(fault) => fault,
        };
        input.at = input.bytes.len();
        Err(self.fail(fault))
    }

    /// Reads one frame: in place if all of it is there.
    fn recv_frame(&mut self, input: &mut Input<'_>) -> Outcome {
        if !self.part.is_empty() {
            return self.recv_cut_frame(input);
        }
        let rest = input.rest();
        let Some(head) = rest.first_chunk().map(Head::parse) else {
            self.part.extend_from_slice(rest);
            input.at = input.bytes.len();
            return Ok(None);
        };
        self.check_head(head, rest)?;
        if head.kind == kind::DATA {
            return self.recv_data(head, input);
        }
        if self.skip_unread(head)? {
            input.at += HEAD_LEN;
            return Ok(None);
        }
        match rest.get(HEAD_LEN..HEAD_LEN + head.len as usize) {
            Some(payload) => {
                input.at += HEAD_LEN + payload.len();
                self.recv_payload(head, payload)
            }
            None => {
                // Exactly what the frame needs, so that hostile lengths reserve no more than they send.
                self.part.extend_from_slice(rest);
                input.at = input.bytes.len();
                Ok(None)
            }
        }
    }

    /// Goes on with a frame whose beginning is in `part`.
    fn recv_cut_frame(&mut self, input: &mut Input<'_>) -> Outcome {
        let Some(head) = self.fill_part(HEAD_LEN, input) else { return Ok(None) };
        self.check_head(head, &self.part)?;
        if head.kind == kind::DATA {
            // DATA is never reassembled but for the length of its padding.
            let lead = usize::from(head.has(flag::PADDED) && head.len > 0);
            if self.fill_part(HEAD_LEN + lead, input).is_none() {
                return Ok(None);
            }
            let pad = if lead == 1 { self.part.get(HEAD_LEN).copied() } else { None };
            self.part.clear();
            return self.recv_data_head(head, pad, input);
        }
        if self.skip_unread(head)? {
            self.part.clear();
            return Ok(None);
        }
        let wanted = HEAD_LEN + head.len as usize;
        if self.fill_part(wanted, input).is_none() {
            return Ok(None);
        }
        let mut part = core::mem::take(&mut self.part);
        let outcome = self.recv_payload(head, part.get(HEAD_LEN..).unwrap_or(&[]));
        part.clear();
        if part.capacity() <= BUFFER_KEPT_BYTES {
            self.part = part;
        }
        outcome
    }

    /// Moves input to `part` until it holds so many bytes; then the head it begins with.
    fn fill_part(&mut self, wanted: usize, input: &mut Input<'_>) -> Option<Head> {
        let missing = wanted.saturating_sub(self.part.len());
        let fresh = input.rest();
        let fresh = fresh.get(..missing).unwrap_or(fresh);
        self.part.extend_from_slice(fresh);
        input.at += fresh.len();
        if self.part.len() < wanted { None } else { self.part.first_chunk().map(Head::parse) }
    }

    /// What can be said of a frame before its payload is here.
    fn check_head(&self, head: Head, bytes: &[u8]) -> Result<(), Fault> {
        if self.rx == Rx::First {
            if let Some(fault) = (self.role == Role::Client).then(|| guess_server(bytes)).flatten() {
                return Err(fault);
            }
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(Fault::FirstFrame);
            }
        }
        if head.len > self.ours.frame_bytes_max {
            return Err(Fault::FrameTooLarge);
        }
        match &self.continued {
            Some(c) if head.kind != kind::CONTINUATION || head.id != c.id => Err(Fault::ContinuationExpected),
            None if head.kind == kind::CONTINUATION => Err(Fault::ContinuationUnexpected),
            _ => Ok(()),
        }
    }

    /// Unknown frames are ignored (section 4.1), without copying them first.
    fn skip_unread(&mut self, head: Head) -> Result<bool, Fault> {
        if head.kind <= kind::CONTINUATION {
            return Ok(false);
        }
        self.floods.cheap(1, self.now, Fault::FloodUnknown)?;
        self.rx = Rx::Skip(head.len);
        Ok(true)
    }

    fn recv_skip(&mut self, left: u32, input: &mut Input<'_>) {
        let n = left.min(u32::try_from(input.rest().len()).unwrap_or(u32::MAX));
        input.at += n as usize;
        self.rx = if n == left { Rx::Frame } else { Rx::Skip(left - n) };
    }

    /// A whole frame other than DATA.
    fn recv_payload(&mut self, head: Head, payload: &[u8]) -> Outcome {
        let on_stream =
            !matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY | kind::WINDOW_UPDATE);
        if on_stream && head.id == 0 {
            return Err(Fault::StreamZero.into());
        }
        if !on_stream && head.kind != kind::WINDOW_UPDATE && head.id != 0 {
            return Err(Fault::StreamNotZero.into());
        }
        match head.kind {
            kind::HEADERS => self.recv_headers(head, payload),
            kind::CONTINUATION => self.recv_continuation(head, payload),
            kind::WINDOW_UPDATE => self.recv_window_update(head.id, payload),
            kind::RST_STREAM => self.recv_rst_stream(head.id, payload),
            kind::SETTINGS => {
                self.rx = Rx::Frame;
                Ok(self.recv_settings(head.flags, payload)?)
            }
            kind::PING => self.recv_ping(head, payload),
            kind::GOAWAY => self.recv_goaway(payload),
            kind::PRIORITY => self.recv_priority(head.id, payload),
            // Section 8.4: we forbid push as client, and a client cannot push.
            _ => Err(Fault::PushPromise.into()),
        }
    }

    /// Is a stream one that nobody has opened (section 5.1, idle)? False for those that are over.
    pub(super) fn is_idle(&mut self, id: u32) -> bool {
        match self.streams.find(id) {
            // Opened by us, but its headers have not been sent.
            Some(key) if self.role == Role::Client => {
                self.streams.get(key).is_some_and(|s| !s.has(is::SENT_HEADERS))
            }
            Some(_) => false,
            // Only clients open streams, with odd ids.
            None => id & 1 == 0 || id > self.id_max,
        }
    }

    /// Ends a stream by a fault of the peer's: RST_STREAM and the event that tells.
    fn break_stream(&mut self, key: StreamKey, fault: Fault) -> Result<H2Event, Fault> {
        let tag = self.streams.get(key).map_or(super::UNTAGGED, |s| s.tag);
        // Before it has heard of our limit, a client is right to open more.
        if fault != Fault::StreamsExceeded || self.ours.was_acked {
            self.floods.made_reset(self.now)?;
        } else {
            self.floods.cheap(1, self.now, Fault::FloodMadeReset)?;
        }
        self.rst_stream(key, fault.reason());
        self.floods.control_queued()?;
        Ok(H2Event::Reset { stream: key, tag, reason: fault.reason(), by: ResetBy::Fault(fault) })
    }

    /// RST_STREAM, and the stream is over if it was open.
    pub(super) fn rst_stream(&mut self, key: StreamKey, reason: Reason) {
        self.tx.push(kind::RST_STREAM, 0, key.id, &reason.0.to_be_bytes());
        if self.streams.get(key).is_some() {
            self.close(key, super::closed::How::WeReset);
        } else {
            self.streams.closed.push(key.id, super::closed::How::WeReset);
        }
    }
}
