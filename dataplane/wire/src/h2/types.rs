//! The words of the connection's API: roles, keys, events, configuration.
//!
//! Plain data without behaviour; what it means is said on [`crate::h2::H2Conn`].

use core::ops::Range;

use super::Fault;

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

impl<'a> Input<'a> {
    /// Unread bytes. An empty one makes `next` give what is pending without new bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }
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

/// The tag of a stream that was never announced by a `Request` event, or not named by `set_tag` since.
pub const UNTAGGED: u32 = u32::MAX;

/// What happened. `tag` is what `open` or `set_tag` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum H2Event {
    /// A header block is complete and valid; its fields are in [`crate::h2::H2Conn::headers`] until the
    /// next `next`.
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
    /// The stream is over; its key is stale now. A request that is malformed or above the stream limit is
    /// told by this alone, with the tag [`UNTAGGED`]: there is nothing to do but count the fault.
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
    /// A stream whose `send_data` took less than it was given would take some now. Comes exactly once for
    /// each such refusal, in the order of the refusals.
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
    /// SETTINGS_INITIAL_WINDOW_SIZE we announce, bytes; at most 2^30.
    pub stream_window_bytes: u32,
    /// The connection window we hold open, bytes; at least 65 535, because RFC 9113 section 6.9.2 begins
    /// with that and nothing can lower it.
    pub conn_window_bytes: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS we announce (server role).
    pub streams_max: u32,
    /// SETTINGS_MAX_FRAME_SIZE we announce; clamped to 2^14..2^24-1.
    pub frame_bytes_max: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE we announce and enforce.
    pub header_list_bytes_max: u32,
    /// SETTINGS_HEADER_TABLE_SIZE we announce.
    pub header_table_bytes_max: u32,
    /// Bytes `send_data` may leave unwritten in `tx()`; beyond that it takes nothing. Frames that must go
    /// (SETTINGS acks, RST_STREAM, headers) are not held back by it but by the flood limits.
    pub tx_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window_bytes: 64 * 1024,
            conn_window_bytes: 1024 * 1024,
            streams_max: 1024,
            frame_bytes_max: super::frame::FRAME_BYTES_MIN,
            header_list_bytes_max: 96 * 1024,
            header_table_bytes_max: 4096,
            tx_bytes_max: 64 * 1024,
        }
    }
}
