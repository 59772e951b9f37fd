//! What we send on streams: `open`, header blocks, DATA, RST_STREAM.
//!
//! Headers and resets always go; DATA is bounded by the stream's window, the connection's window, the
//! peer's frame size and `tx_bytes_max`. A stream that was given less than it offered waits: for its own
//! window, or in line for what all share; it is told once by `Writable`.
//! Invariant: a waiting list that is not empty means the connection cannot send, or `next` is about to say
//! `Writable`.

use super::closed::How;
use super::frame::{HEAD_LEN, Head, MAX_31, flag, kind};
use super::stream::{Stream, is};
use super::{H2Conn, Reason, Role, StreamKey};
use crate::{Headers, Token};

impl H2Conn {
    /// Client: opens a stream for `send_headers`; `None` at the peer's limit, after GOAWAY, or when ids
    /// have run out. Streams send their first headers in the order of `open`; one that is passed over is
    /// gone (section 5.1.1: its id can never be used).
    pub fn open(&mut self, tag: u32) -> Option<StreamKey> {
        if self.open_room() == 0 {
            return None;
        }
        let stream = Stream::new(self.id_next, tag, self.theirs.window_bytes, self.now);
        self.id_next += 2;
        Some(self.streams.insert(stream))
    }

    /// Client: how many times `open` would succeed now.
    pub fn open_room(&self) -> usize {
        if self.role == Role::Server || self.goaway_received.is_some() || self.goaway_sent.is_some() {
            return 0;
        }
        if self.dead.is_some() {
            return 0;
        }
        let ids = (MAX_31 + 2).saturating_sub(self.id_next) / 2;
        self.theirs.streams_max.saturating_sub(self.streams.count()).min(ids) as usize
    }

    /// Sends a header block (request, response, trailers). False if the stream is gone, or we have ended
    /// it. The list must be valid; it is not checked again.
    pub fn send_headers(&mut self, stream: StreamKey, list: &Headers, end_stream: bool) -> bool {
        if self.dead.is_some() {
            return false;
        }
        let (id_max, is_client) = (self.id_max, self.role == Role::Client);
        let Some(s) = self.streams.get_mut(stream) else { return false };
        if s.has(is::SENT_END) {
            return false;
        }
        let is_first = !s.has(is::SENT_HEADERS);
        if is_first {
            if is_client && stream.id < id_max {
                self.streams.remove(stream, None);
                return false;
            }
            s.flags |= is::SENT_HEADERS;
            if is_client {
                if list.get(Token::Method) == Some(b"HEAD") {
                    s.flags |= is::HEAD;
                }
                self.id_max = stream.id;
                self.floods.stream_opened();
            }
        }
        self.push_block(stream.id, list, end_stream);
        if is_first && is_client {
            // `extend_window` before the stream was on the wire.
            self.credit_now(stream);
        }
        if end_stream {
            self.we_ended(stream);
        }
        true
    }

    /// Encodes straight into `tx()`; splits what is longer than the peer's frames.
    fn push_block(&mut self, id: u32, list: &Headers, end_stream: bool) {
        let at = self.tx.buf.len();
        self.tx.buf.extend_from_slice(&[0; HEAD_LEN]);
        self.encoder.encode(list, &mut self.tx.buf);
        let len = u32::try_from(self.tx.buf.len() - at - HEAD_LEN).unwrap_or(u32::MAX);
        let end = if end_stream { flag::END_STREAM } else { 0 };
        let max = self.theirs.frame_bytes_max;
        if len <= max {
            let head = Head { len, kind: kind::HEADERS, flags: end | flag::END_HEADERS, id };
            if let Some(place) = self.tx.buf.get_mut(at..at + HEAD_LEN) {
                place.copy_from_slice(&head.emit());
            }
            self.tx.pushed(1);
            return;
        }
        let block = self.tx.buf.split_off(at + HEAD_LEN);
        self.tx.buf.truncate(at);
        let count = block.chunks(max as usize).len();
        for (i, chunk) in block.chunks(max as usize).enumerate() {
            let (kind, first) = if i == 0 { (kind::HEADERS, end) } else { (kind::CONTINUATION, 0) };
            let last = if i + 1 == count { flag::END_HEADERS } else { 0 };
            self.tx.push(kind, first | last, id, chunk);
        }
    }

    /// Could a stream with an open window send a fair piece now? Below half of `tx_bytes_max`, so that a
    /// slow peer does not cause a `Writable` per packet.
    pub(super) fn could_send(&self) -> bool {
        self.send_window > 0 && self.tx.len() <= self.tx_bytes_max / 2
    }

    /// Sends body bytes; returns how many were taken, bounded by both windows and `tx_bytes_max`. If all
    /// were, `end_stream` has been sent with them; else `Writable` follows. A stale stream, and one whose
    /// headers have not been sent, takes all.
    pub fn send_data(&mut self, stream: StreamKey, bytes: &[u8], end_stream: bool) -> usize {
        let room = i32::try_from(self.tx_bytes_max.saturating_sub(self.tx.len())).unwrap_or(i32::MAX);
        let shared = room.min(self.send_window);
        let Some(s) = self.streams.get_mut(stream) else { return bytes.len() };
        if self.dead.is_some() || !s.has(is::SENT_HEADERS) || s.has(is::SENT_END) {
            return bytes.len();
        }
        let allowed = usize::try_from(s.send_window.min(shared)).unwrap_or(0);
        let taken = bytes.len().min(allowed);
        #[expect(clippy::cast_possible_truncation, reason = "at most a window, below 2^31")]
        let debit = taken as u32;
        s.send_window = s.send_window.saturating_sub_unsigned(debit);
        let is_all = taken == bytes.len();
        if !is_all {
            s.flags |= is::WANTS;
            if s.send_window > 0 {
                self.streams.enqueue(stream.index);
            }
        }
        self.send_window = self.send_window.saturating_sub_unsigned(debit);
        let end = end_stream && is_all;
        self.push_data(stream.id, bytes.get(..taken).unwrap_or(bytes), end);
        if end {
            self.we_ended(stream);
        }
        taken
    }

    fn push_data(&mut self, id: u32, bytes: &[u8], end: bool) {
        let max = self.theirs.frame_bytes_max as usize;
        let mut rest = bytes;
        while rest.len() > max {
            let (chunk, more) = rest.split_at(max);
            self.tx.push(kind::DATA, 0, id, chunk);
            self.floods.data_sent(max);
            rest = more;
        }
        if !rest.is_empty() || end {
            self.tx.push(kind::DATA, if end { flag::END_STREAM } else { 0 }, id, rest);
            self.floods.data_sent(rest.len());
        }
    }

    /// Ends a stream with RST_STREAM, if it is not over yet. One that was opened and sent nothing leaves no
    /// trace.
    pub fn reset(&mut self, stream: StreamKey, reason: Reason) {
        let Some(s) = self.streams.get(stream) else { return };
        if self.role == Role::Client && !s.has(is::SENT_HEADERS) {
            self.streams.remove(stream, None);
            self.capacity_due = true;
            return;
        }
        if self.dead.is_none() {
            self.floods.we_reset();
            self.rst_stream(stream, reason);
        }
    }

    /// Our END_STREAM has gone: the stream is over if the peer's has come.
    fn we_ended(&mut self, key: StreamKey) {
        let Some(s) = self.streams.get_mut(key) else { return };
        s.flags |= is::SENT_END;
        if s.has(is::RECV_END) {
            self.floods.stream_completed();
            self.close(key, How::Ended);
        }
    }

    /// A stream that was on the wire is over.
    pub(super) fn close(&mut self, key: StreamKey, how: How) {
        self.streams.remove(key, Some(how));
        // `open` was refused only if this was the last place.
        if self.role == Role::Client && self.streams.count() + 1 >= self.theirs.streams_max {
            self.capacity_due = true;
        }
    }
}
