//! How recent streams ended, so that a late frame is judged as RFC 9113 section 5.1 (closed) wants:
//! after our RST_STREAM it is discarded, after the peer's it is an error of the stream, after both ends an
//! error of the connection.
//!
//! Invariant: a stream we reset is never taken for one that ended, however long ago; when one falls out of
//! the ring, everything up to its id is treated as possibly reset by us.

use alloc::vec::Vec;

use super::limits::CLOSED_REMEMBERED;

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// END_STREAM both ways.
    Ended,
    /// The peer's RST_STREAM.
    PeerReset,
    /// Our RST_STREAM.
    WeReset,
    /// Long ago, perhaps by our RST_STREAM.
    Forgotten,
    /// Not among those remembered, and we did not reset it: ended long ago, or skipped by the peer.
    Unknown,
}

/// A ring of ids. Every stream that ends here has an odd id, so an entry is the id without its lowest bit
/// and two bits of [`How`].
#[derive(Debug)]
pub(crate) struct Closed {
    ring: Vec<u32>,
    at: usize,
    forgotten_max: u32,
}

impl Closed {
    pub(crate) const fn new() -> Self {
        Self { ring: Vec::new(), at: 0, forgotten_max: 0 }
    }

    pub(crate) fn push(&mut self, id: u32, how: How) {
        let entry = ((id >> 1) << 2) | how as u32;
        if self.ring.len() < CLOSED_REMEMBERED {
            if self.ring.capacity() == 0 {
                self.ring.reserve_exact(CLOSED_REMEMBERED);
            }
            self.ring.push(entry);
            return;
        }
        if let Some(oldest) = self.ring.get_mut(self.at) {
            if *oldest & 3 == How::WeReset as u32 {
                self.forgotten_max = self.forgotten_max.max(((*oldest >> 2) << 1) | 1);
            }
            *oldest = entry;
        }
        self.at = (self.at + 1) % CLOSED_REMEMBERED;
    }

    /// How a stream ended that is not idle and not open.
    pub(crate) fn how(&self, id: u32) -> How {
        match self.ring.iter().find(|e| **e >> 2 == id >> 1).map(|e| e & 3) {
            Some(0) => How::Ended,
            Some(1) => How::PeerReset,
            Some(_) => How::WeReset,
            None if id <= self.forgotten_max => How::Forgotten,
            None => How::Unknown,
        }
    }

    /// Gives the memory back. What is forgotten so counts as long ago.
    pub(crate) fn trim(&mut self) {
        for entry in core::mem::take(&mut self.ring) {
            if entry & 3 == How::WeReset as u32 {
                self.forgotten_max = self.forgotten_max.max(((entry >> 2) << 1) | 1);
            }
        }
        self.at = 0;
    }

    pub(crate) const fn capacity_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_5_1_closed_remembers_how_and_never_forgets_our_resets() {
        let mut c = Closed::new();
        c.push(1, How::WeReset);
        c.push(3, How::Ended);
        c.push(5, How::PeerReset);
        assert_eq!((c.how(1), c.how(3), c.how(5)), (How::WeReset, How::Ended, How::PeerReset));
        assert_eq!(c.how(7), How::Unknown);
        for i in 0..CLOSED_REMEMBERED as u32 {
            c.push(101 + 2 * i, How::Ended);
        }
        assert_eq!((c.how(1), c.how(3)), (How::Forgotten, How::Unknown));
        assert_eq!(c.how(101), How::Ended);
        c.push(1001, How::WeReset);
        c.trim();
        assert_eq!((c.how(1001), c.how(1003)), (How::Forgotten, How::Unknown));
    }
}
