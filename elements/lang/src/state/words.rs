//! Words of state: shared between shards, or of one call alone. What cells do is written once for both.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that a cell lives in.
pub(crate) trait Words {
    /// The word at a place; 0 where there is none.
    fn load(&self, at: usize) -> u64;
    /// Replaces the word at a place.
    fn store(&self, at: usize, value: u64);
    /// Replaces it if it is still `old`; else says what it is.
    fn swap(&self, at: usize, old: u64, new: u64) -> Result<(), u64>;

    /// Replaces it by what `change` makes of it, whatever others do meanwhile; `None` leaves it. What it was.
    fn update(&self, at: usize, mut change: impl FnMut(u64) -> Option<u64>) -> u64 {
        let mut old = self.load(at);
        while let Some(new) = change(old) {
            match self.swap(at, old, new) {
                Ok(()) => break,
                Err(now) => old = now,
            }
        }
        old
    }
}

impl Words for [AtomicU64] {
    fn load(&self, at: usize) -> u64 {
        self.get(at).map_or(0, |w| w.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.get(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        let Some(word) = self.get(at) else { return Ok(()) };
        word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

impl Words for [Cell<u64>] {
    fn load(&self, at: usize) -> u64 {
        self.get(at).map_or(0, Cell::get)
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.get(at) {
            word.set(value);
        }
    }

    fn swap(&self, at: usize, _old: u64, new: u64) -> Result<(), u64> {
        self.store(at, new);
        Ok(())
    }
}

/// Words that are 0 and take no memory before they are used.
pub(crate) fn zeroed(len: usize) -> Box<[AtomicU64]> {
    bytemuck::zeroed_slice_box(len)
}
