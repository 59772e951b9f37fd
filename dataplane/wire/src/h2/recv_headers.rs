//! HEADERS and CONTINUATION (RFC 9113 sections 6.2 and 6.10): a block is gathered, decoded whatever becomes
//! of its stream (section 4.3: the tables are shared), then judged.
//!
//! A block that is whole in one frame is decoded where it lies.

use super::closed::How;
use super::frame::{FRAME_BYTES_MIN, Head, be32, flag};
use super::limits::{BUFFER_KEPT_BYTES, CONTINUATIONS_MAX, INFORMATIONAL_MAX};
use super::recv::{Broken, Outcome};
use super::stream::{LEN_UNKNOWN, Stream, is};
use super::validate::{self, BodyLen, Response};
use super::{Fault, H2Conn, H2Event, HeadersKind, Role, StreamKey, UNTAGGED};
use crate::hpack::HpackError;

/// A header block that is not whole yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Continued {
    pub(super) id: u32,
    end: bool,
    depends_on_itself: bool,
    frames: u32,
}

/// What a block remembered by the decoder was found to be.
mod note {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const TRAILERS: u8 = 3;
}

/// A stream that has no slot: the key of an event that only tells.
const fn no_slot(id: u32) -> StreamKey {
    StreamKey { index: u32::MAX, id }
}

impl H2Conn {
    pub(super) fn recv_headers(&mut self, head: Head, payload: &[u8]) -> Outcome {
        let mut block = payload;
        if head.has(flag::PADDED) {
            let (&pad, rest) = block.split_first().ok_or(Fault::FrameLength)?;
            let len = rest.len().checked_sub(usize::from(pad)).ok_or(Fault::PaddingTooLong)?;
            block = rest.get(..len).unwrap_or(&[]);
        }
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let fields = block.get(..5).ok_or(Fault::FrameLength)?;
            depends_on_itself = be32(fields) & super::frame::MAX_31 == head.id;
            block = block.get(5..).unwrap_or(&[]);
        }
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.recv_block(head.id, end, depends_on_itself, block);
        }
        if block.is_empty() && !end {
            self.floods.empty_frame()?;
        }
        self.continued = Some(Continued { id: head.id, end, depends_on_itself, frames: 0 });
        self.block.clear();
        self.gather(block)?;
        Ok(None)
    }

    pub(super) fn recv_continuation(&mut self, head: Head, payload: &[u8]) -> Outcome {
        let Some(c) = &mut self.continued else { return Err(Fault::ContinuationUnexpected.into()) };
        c.frames += 1;
        let c = *c;
        // A block as large as we take needs so many full frames, and a few more for odd cutting.
        if c.frames > CONTINUATIONS_MAX + self.ours.header_list_bytes_max / FRAME_BYTES_MIN {
            return Err(Fault::FloodContinuation.into());
        }
        if payload.is_empty() && !head.has(flag::END_HEADERS) {
            self.floods.empty_frame()?;
        }
        self.gather(payload)?;
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        self.continued = None;
        let mut block = core::mem::take(&mut self.block);
        let outcome = self.recv_block(c.id, c.end, c.depends_on_itself, &block);
        block.clear();
        if block.capacity() <= BUFFER_KEPT_BYTES {
            self.block = block;
        }
        outcome
    }

    fn gather(&mut self, fragment: &[u8]) -> Result<(), Fault> {
        // A field costs at least 32 bytes of list, more than any encoding adds to it; a block above twice
        // the list is refused undecoded.
        let max = (self.ours.header_list_bytes_max as usize).saturating_mul(2).max(FRAME_BYTES_MIN as usize);
        if self.block.len() + fragment.len() > max {
            return Err(Fault::HeaderBlockTooLarge);
        }
        self.block.extend_from_slice(fragment);
        Ok(())
    }

    /// A whole header block.
    fn recv_block(&mut self, id: u32, end: bool, depends_on_itself: bool, block: &[u8]) -> Outcome {
        if id & 1 == 0 {
            // Section 5.1.1: clients use odd ids; even ones are a server's pushes, and we forbid those.
            return Err(Fault::StreamId.into());
        }
        self.floods.headers_received();
        let found = self.streams.find(id);
        let is_new = self.role == Role::Server && found.is_none() && id > self.id_max;
        let list_max = self.ours.header_list_bytes_max as usize;
        let too_large = match self.decoder.decode(block, list_max, &mut self.fields) {
            Ok(()) => false,
            Err(HpackError::TooLarge) => true,
            Err(error) => return Err(fault_of(error).into()),
        };
        if is_new {
            self.id_max = id;
            if self.is_beyond_goaway(id) {
                return Ok(None);
            }
        }
        let key = found.unwrap_or(no_slot(id));
        if found.is_none() && !is_new {
            return self.block_on_no_stream(id).map(|()| None);
        }
        if depends_on_itself {
            return Err(Broken::Stream(key, Fault::PriorityOnItself));
        }
        if is_new {
            return self.recv_request(id, end, too_large);
        }
        let Some(s) = self.streams.get(key) else { return Ok(None) };
        if self.role == Role::Client && !s.has(is::SENT_HEADERS) {
            return Err(Fault::StreamIdle.into());
        }
        if s.has(is::RECV_END) {
            return Err(Broken::Stream(key, Fault::StreamClosed));
        }
        if too_large {
            return Err(Broken::Stream(key, Fault::HeaderListTooLarge));
        }
        let outcome =
            if s.has(is::RECV_HEADERS) { self.recv_trailers(key, end) } else { self.recv_response(key, end) };
        outcome.map_err(|fault| Broken::Stream(key, fault))
    }

    fn recv_request(&mut self, id: u32, end: bool, too_large: bool) -> Outcome {
        let refused = |fault| Broken::Stream(no_slot(id), fault);
        if self.streams.count() >= self.ours.streams_max {
            return Err(refused(Fault::StreamsExceeded));
        }
        if too_large {
            return Err(refused(Fault::HeaderListTooLarge));
        }
        let body_len = self.judge_request().map_err(refused)?;
        if end && body_len != LEN_UNKNOWN && body_len != 0 {
            return Err(refused(Fault::ContentLengthMismatch));
        }
        let mut stream = Stream::new(id, UNTAGGED, self.theirs.window_bytes, self.now);
        stream.flags = is::RECV_HEADERS | if end { is::RECV_END } else { 0 };
        stream.body_left = body_len;
        let stream = self.streams.insert(stream);
        self.floods.stream_opened();
        Ok(Some(H2Event::Headers { stream, tag: 0, kind: HeadersKind::Request, end_stream: end }))
    }

    /// `validate::request`, unless the same block was found valid before and promises no length.
    fn judge_request(&mut self) -> Result<BodyLen, Fault> {
        if self.decoder.note() == note::REQUEST {
            return Ok(LEN_UNKNOWN);
        }
        let body_len = validate::request(&self.fields)?;
        if body_len == LEN_UNKNOWN {
            self.decoder.set_note(note::REQUEST);
        }
        Ok(body_len)
    }

    /// `validate::response`, unless the same block was found valid before.
    fn judge_response(&mut self) -> Result<Response, Fault> {
        if self.decoder.note() == note::RESPONSE {
            return Ok(Response { is_informational: false, body_len: LEN_UNKNOWN });
        }
        let response = validate::response(&self.fields)?;
        if !response.is_informational && response.body_len == LEN_UNKNOWN {
            self.decoder.set_note(note::RESPONSE);
        }
        Ok(response)
    }

    /// `validate::trailers`, unless the same block was found valid before.
    fn judge_trailers(&mut self) -> Result<(), Fault> {
        if self.decoder.note() != note::TRAILERS {
            validate::trailers(&self.fields)?;
            self.decoder.set_note(note::TRAILERS);
        }
        Ok(())
    }

    fn recv_response(&mut self, stream: StreamKey, end: bool) -> Result<Option<H2Event>, Fault> {
        let response = self.judge_response()?;
        let Some(s) = self.streams.get_mut(stream) else { return Ok(None) };
        let tag = s.tag;
        if response.is_informational {
            if end {
                return Err(Fault::InformationalWithEnd);
            }
            s.informational += 1;
            if s.informational > INFORMATIONAL_MAX {
                return Err(Fault::FloodInformational);
            }
            let kind = HeadersKind::Informational;
            return Ok(Some(H2Event::Headers { stream, tag, kind, end_stream: false }));
        }
        s.flags |= is::RECV_HEADERS;
        if !s.has(is::HEAD) {
            s.body_left = response.body_len;
        }
        if end {
            if !s.body_arrived(0, true) {
                return Err(Fault::ContentLengthMismatch);
            }
            self.peer_ended(stream);
        }
        Ok(Some(H2Event::Headers { stream, tag, kind: HeadersKind::Response, end_stream: end }))
    }

    fn recv_trailers(&mut self, stream: StreamKey, end: bool) -> Result<Option<H2Event>, Fault> {
        if !end {
            return Err(Fault::TrailersWithoutEnd);
        }
        self.judge_trailers()?;
        let Some(s) = self.streams.get_mut(stream) else { return Ok(None) };
        let tag = s.tag;
        if !s.body_arrived(0, true) {
            return Err(Fault::ContentLengthMismatch);
        }
        self.peer_ended(stream);
        Ok(Some(H2Event::Headers { stream, tag, kind: HeadersKind::Trailers, end_stream: true }))
    }

    /// HEADERS on a stream that is idle or over (section 5.1).
    fn block_on_no_stream(&mut self, id: u32) -> Result<(), Broken> {
        if id > self.id_max {
            return Err(Fault::StreamIdle.into());
        }
        if self.is_beyond_goaway(id) {
            return Ok(());
        }
        match self.streams.closed.how(id) {
            How::WeReset | How::Forgotten => Ok(self.floods.cheap(1, self.now, Fault::FloodClosed)?),
            How::PeerReset => Err(Broken::Stream(no_slot(id), Fault::StreamClosed)),
            How::Ended => Err(Fault::StreamClosed.into()),
            // Section 5.1.1: a stream the peer passed over cannot be opened any more.
            How::Unknown => Err(Fault::StreamId.into()),
        }
    }

    /// The peer's END_STREAM: the stream is over if ours has gone too.
    pub(super) fn peer_ended(&mut self, key: StreamKey) {
        let Some(s) = self.streams.get_mut(key) else { return };
        s.flags |= is::RECV_END;
        if s.has(is::SENT_END) {
            self.floods.stream_completed();
            self.close(key, How::Ended);
        }
    }
}

const fn fault_of(error: HpackError) -> Fault {
    match error {
        HpackError::Truncated => Fault::HpackTruncated,
        HpackError::Index => Fault::HpackIndex,
        HpackError::Integer => Fault::HpackInteger,
        HpackError::Huffman => Fault::HpackHuffman,
        HpackError::TableSize => Fault::HpackTableSize,
        HpackError::TooLarge => Fault::HeaderListTooLarge,
        HpackError::Work => Fault::HeaderBlockTooLarge,
    }
}
