//! Memory for calls: a ledger that says who may hold how much, and the reused buffers themselves.

use alloc::vec::Vec;

/// Buffers larger than this are given back to the allocator.
const KEPT_CAPACITY_MAX: usize = 64 << 10;
/// At most this many spare buffers are kept.
const KEPT_COUNT_MAX: usize = 256;

/// Spare buffers.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// An empty buffer, with memory if there is a spare one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= KEPT_CAPACITY_MAX && self.spare.len() < KEPT_COUNT_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Spare memory, bytes.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.spare.iter().map(Vec::capacity).sum()
    }
}

/// The shard's byte pool: the sum of granted windows and held bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ledger {
    pub(crate) used: u64,
    pub(crate) max: u64,
}

/// How full a ledger is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    /// Below half.
    Ample,
    /// Below three quarters.
    Fair,
    /// New streams get a small window.
    Low,
    /// New connections are refused.
    Critical,
}

impl Ledger {
    pub(crate) const fn new(max: u64) -> Self {
        Self { used: 0, max }
    }

    pub(crate) const fn has_room(&self, bytes: u64) -> bool {
        self.used.saturating_add(bytes) <= self.max
    }

    pub(crate) const fn add(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
    }

    /// Panics if more is given back than was taken: a bug of ours.
    pub(crate) const fn sub(&mut self, bytes: u64) {
        assert!(self.used >= bytes, "more bytes given back than taken");
        self.used -= bytes;
    }

    pub(crate) const fn level(&self) -> Level {
        if self.used < self.max / 2 {
            Level::Ample
        } else if self.used < self.max / 4 * 3 {
            Level::Fair
        } else if self.used < self.max / 16 * 15 {
            Level::Low
        } else {
            Level::Critical
        }
    }
}
