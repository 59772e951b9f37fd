//! One stream's state (RFC 9113 section 5.1), in one cache line.
//!
//! The RFC's states are two independent halves here, each with its flags:
//!
//! ```text
//!            send half                                receive half
//!   (idle) --SENT_HEADERS--> open          (idle) --RECV_HEADERS--> open
//!      open --SENT_END--> closed              open --RECV_END--> closed
//!
//!   idle                 neither SENT_HEADERS nor RECV_HEADERS (client: between `open` and `send_headers`)
//!   open                 neither end
//!   half-closed (local)  SENT_END          half-closed (remote)  RECV_END
//!   closed               both ends, or RST_STREAM either way: the slot is free, `closed.rs` remembers how
//! ```
//!
//! Receive window: `window = initial + recv_rel`, where `recv_rel` is all WINDOW_UPDATE sent less all bytes
//! received. So a change of our initial window touches no stream.
//! Invariant: bytes received on the stream = forgotten by `release` + `recv_held`.

use crate::Instant;

/// No slot: the end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// `body_left` of a body without `content-length`.
pub(crate) const LEN_UNKNOWN: u64 = u64::MAX;

/// Flags of [`Stream::flags`].
pub(crate) mod is {
    /// We sent a header block.
    pub(crate) const SENT_HEADERS: u8 = 1;
    /// We sent END_STREAM.
    pub(crate) const SENT_END: u8 = 2;
    /// The peer's request, or its final response, is here.
    pub(crate) const RECV_HEADERS: u8 = 4;
    /// The peer sent END_STREAM.
    pub(crate) const RECV_END: u8 = 8;
    /// Our request was HEAD: `content-length` of the answer counts nothing.
    pub(crate) const HEAD: u8 = 16;
    /// `send_data` took less than it was given, and no `Writable` has followed.
    pub(crate) const WANTS: u8 = 32;
    /// In the list of those who wait for the connection: WANTS and a stream window above 0.
    pub(crate) const QUEUED: u8 = 64;
}

/// A stream in its slot. A free slot has id 0.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) tag: u32,
    pub(crate) flags: u8,
    /// Interim responses so far.
    pub(crate) informational: u8,
    /// What we may send, bytes; below 0 after the peer lowered its initial window (section 6.9.2).
    pub(crate) send_window: i32,
    /// See the module's header.
    pub(crate) recv_rel: i32,
    /// Released and not yet announced, bytes.
    pub(crate) recv_pending: u32,
    /// Given to the caller and not yet released, bytes.
    pub(crate) recv_held: u32,
    /// What `extend_window` added, bytes.
    pub(crate) extended: u32,
    /// Neighbours in the list of waiting streams; `next` also links free slots.
    pub(crate) next: u32,
    pub(crate) prev: u32,
    /// What `content-length` promised and has not come, bytes; or [`LEN_UNKNOWN`].
    pub(crate) body_left: u64,
    pub(crate) opened_at: Instant,
}

impl Stream {
    pub(crate) const fn new(id: u32, tag: u32, send_window: i32, opened_at: Instant) -> Self {
        Self {
            id,
            tag,
            flags: 0,
            informational: 0,
            send_window,
            recv_rel: 0,
            recv_pending: 0,
            recv_held: 0,
            extended: 0,
            next: NIL,
            prev: NIL,
            body_left: LEN_UNKNOWN,
            opened_at,
        }
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Counts body bytes against `content-length`; false if there are more than promised, or fewer at the
    /// end (section 8.1.1).
    pub(crate) fn body_arrived(&mut self, bytes: u32, end: bool) -> bool {
        if self.body_left == LEN_UNKNOWN {
            return true;
        }
        match self.body_left.checked_sub(u64::from(bytes)) {
            Some(left) => {
                self.body_left = left;
                !end || left == 0
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_one_cache_line() {
        assert!(size_of::<Stream>() <= 64, "{}", size_of::<Stream>());
    }

    #[test]
    fn section_8_1_1_body_length() {
        let mut s = Stream::new(1, 0, 0, Instant(0));
        assert!(s.body_arrived(5, true));
        s.body_left = 5;
        assert!(s.body_arrived(3, false));
        assert!(!s.clone().body_arrived(1, true));
        assert!(!s.clone().body_arrived(3, false));
        assert!(s.body_arrived(2, true));
    }
}
