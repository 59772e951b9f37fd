//! One HTTP/2 connection, either role, without I/O.
//!
//! Call order: bytes arrive: `next` until it gives `None`, acting on each event before the next call.
//! Then whatever `send_*`, `open`, `reset`, `release` the events led to. Then `tx()` is written out and
//! `tx_advance` says how much went. `poll_timeout` / `handle_timeout` in between.

use alloc::vec::Vec;
use core::ops::Range;

use crate::{Headers, Instant};

/// Which end we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We open streams.
    Client,
    /// The peer opens streams.
    Server,
}

/// An error code of RFC 9113 section 7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reason(pub u32);

#[expect(missing_docs, reason = "the RFC's names")]
impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const CONNECT_ERROR: Self = Self(10);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    pub const INADEQUATE_SECURITY: Self = Self(12);
    pub const HTTP_1_1_REQUIRED: Self = Self(13);
}

/// What exactly the peer did wrong: one counter each, by [`Fault::name`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The client preface is not one (TLS and HTTP/1 have their own).
    Preface,
}

impl Fault {
    /// Every fault, in counter order.
    pub const ALL: &'static [Self] = &[Self::Preface];

    /// Its place in [`Fault::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// A metric label, snake case.
    pub fn name(self) -> &'static str {
        unimplemented!()
    }
}

/// An error that ends the connection. GOAWAY is already in `tx()`: write it, then close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnError {
    /// What GOAWAY says.
    pub reason: Reason,
    /// What the peer did.
    pub fault: Fault,
}

/// A stream of this connection. A stale key does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey {
    /// Its slot.
    pub index: u32,
    /// Its HTTP/2 id, which also tells a reused slot from its predecessor.
    pub id: u32,
}

/// Received bytes and how far they have been read.
#[derive(Debug)]
pub struct Input<'a> {
    /// All of them.
    pub bytes: &'a [u8],
    /// The first unread one.
    pub at: usize,
}

/// Which header block it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadersKind {
    /// A request (server role): a new stream; call `set_tag`.
    Request,
    /// An interim response, 1xx (client role).
    Informational,
    /// The response (client role).
    Response,
    /// Trailers, either role.
    Trailers,
}

/// Why a stream ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetBy {
    /// The peer sent RST_STREAM.
    Peer,
    /// The peer broke a rule on this stream; our RST_STREAM is in `tx()`.
    Fault(Fault),
    /// The peer's GOAWAY says it never saw it: safe to try elsewhere.
    Goaway,
}

/// What happened. `tag` is what `open` or `set_tag` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum H2Event {
    /// A header block is complete and valid; its fields are in [`H2Conn::headers`] until the next `next`.
    Headers {
        /// Of this stream.
        stream: StreamKey,
        /// Its tag; 0 for `Request`.
        tag: u32,
        /// Which block.
        kind: HeadersKind,
        /// Nothing follows from the peer.
        end_stream: bool,
    },
    /// Bytes of a body: `input.bytes[range]`. The connection window has been credited already; credit the
    /// stream's with `release` once they have gone on.
    Data {
        /// Of this stream.
        stream: StreamKey,
        /// Its tag.
        tag: u32,
        /// Where in `input.bytes`; may be empty with `end_stream`.
        range: Range<usize>,
        /// Nothing follows from the peer.
        end_stream: bool,
    },
    /// The stream is over; its key is stale now.
    Reset {
        /// This stream.
        stream: StreamKey,
        /// Its tag.
        tag: u32,
        /// The code.
        reason: Reason,
        /// Whose doing.
        by: ResetBy,
    },
    /// A stream whose `send_data` took less than it was given would take some now.
    Writable {
        /// This stream.
        stream: StreamKey,
        /// Its tag.
        tag: u32,
    },
    /// `open` may give more than before: SETTINGS arrived, or a stream of ours ended.
    Capacity,
    /// The peer goes away: no new streams. Those it did not see are `Reset` with [`ResetBy::Goaway`].
    Goaway {
        /// Why.
        reason: Reason,
    },
    /// The answer to our `ping`.
    Pong,
}

/// What a connection is told at its beginning. `Default` is what CONVENTIONS.md says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// SETTINGS_INITIAL_WINDOW_SIZE we announce, bytes.
    pub stream_window_bytes: u32,
    /// The connection window we hold open, bytes.
    pub conn_window_bytes: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS we announce (server role).
    pub streams_max: u32,
    /// SETTINGS_MAX_FRAME_SIZE we announce.
    pub frame_bytes_max: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE we announce and enforce.
    pub header_list_bytes_max: u32,
    /// SETTINGS_HEADER_TABLE_SIZE we announce.
    pub header_table_bytes_max: u32,
    /// Bytes `send_data` may leave unwritten in `tx()`; beyond that it takes nothing. Frames that must go
    /// (SETTINGS acks, RST_STREAM, headers) are not held back by it but by the flood limits.
    pub tx_bytes_max: usize,
}

/// A connection.
#[derive(Debug)]
pub struct H2Conn {}

impl H2Conn {
    /// A new connection; our preface and SETTINGS are in `tx()`.
    pub fn new(role: Role, config: &Config, now: Instant) -> Self {
        let _ = (role, config, now);
        unimplemented!()
    }

    /// The next event in `input`, or `None` when it is used up.
    pub fn next(&mut self, now: Instant, input: &mut Input<'_>) -> Result<Option<H2Event>, ConnError> {
        let _ = (now, input);
        unimplemented!()
    }

    /// The fields of the last `Headers` event.
    pub fn headers(&self) -> &Headers {
        unimplemented!()
    }

    /// Client: opens a stream for `send_headers`; `None` at the peer's limit, after GOAWAY, or when ids
    /// have run out.
    pub fn open(&mut self, tag: u32) -> Option<StreamKey> {
        let _ = tag;
        unimplemented!()
    }

    /// Client: how many times `open` would succeed now.
    pub fn open_room(&self) -> usize {
        unimplemented!()
    }

    /// Names a stream for later events.
    pub fn set_tag(&mut self, stream: StreamKey, tag: u32) {
        let _ = (stream, tag);
        unimplemented!()
    }

    /// Sends a header block (request, response, trailers). False if the stream is gone.
    pub fn send_headers(&mut self, stream: StreamKey, list: &Headers, end_stream: bool) -> bool {
        let _ = (stream, list, end_stream);
        unimplemented!()
    }

    /// Sends body bytes; returns how many were taken, bounded by both windows and `tx_bytes_max`. If all
    /// were, `end_stream` has been sent with them. A stale stream takes all.
    pub fn send_data(&mut self, stream: StreamKey, bytes: &[u8], end_stream: bool) -> usize {
        let _ = (stream, bytes, end_stream);
        unimplemented!()
    }

    /// Ends a stream with RST_STREAM, if it is not over yet.
    pub fn reset(&mut self, stream: StreamKey, reason: Reason) {
        let _ = (stream, reason);
        unimplemented!()
    }

    /// Received bytes of a stream have gone on: WINDOW_UPDATE, when it is worth one.
    pub fn release(&mut self, stream: StreamKey, bytes: usize) {
        let _ = (stream, bytes);
        unimplemented!()
    }

    /// Raises a stream's receive window by this many bytes beyond what was announced.
    pub fn extend_window(&mut self, stream: StreamKey, bytes: u32) {
        let _ = (stream, bytes);
        unimplemented!()
    }

    /// Announces another SETTINGS_INITIAL_WINDOW_SIZE.
    pub fn set_stream_window(&mut self, bytes: u32) {
        let _ = bytes;
        unimplemented!()
    }

    /// Bytes to write.
    pub fn tx(&self) -> &[u8] {
        unimplemented!()
    }

    /// The first `n` of them went. Returns true if `send_data` was refused for want of room before and
    /// there is room now: offer every waiting stream's bytes again.
    pub fn tx_advance(&mut self, n: usize) -> bool {
        let _ = n;
        unimplemented!()
    }

    /// Takes the empty buffer behind `tx()` away (for a pool), or gives one (`tx()` must be empty).
    pub fn tx_swap(&mut self, buffer: &mut Vec<u8>) {
        let _ = buffer;
        unimplemented!()
    }

    /// Sends a PING; `Pong` follows.
    pub fn ping(&mut self) {
        unimplemented!()
    }

    /// Server: GOAWAY(2^31-1): please open no more. `drain_finish` after a round trip.
    pub fn drain_start(&mut self) {
        unimplemented!()
    }

    /// Server: GOAWAY(last stream): later streams are refused.
    pub fn drain_finish(&mut self) {
        unimplemented!()
    }

    /// GOAWAY with a reason; the caller then writes `tx()` and closes.
    pub fn goaway(&mut self, reason: Reason) {
        let _ = reason;
        unimplemented!()
    }

    /// Streams neither side has finished.
    pub fn streams_open(&self) -> usize {
        unimplemented!()
    }

    /// When `handle_timeout` wants to be called (SETTINGS ack overdue).
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnError> {
        let _ = now;
        unimplemented!()
    }

    /// Bytes of memory held beyond the struct itself.
    pub fn capacity_bytes(&self) -> usize {
        unimplemented!()
    }
}
