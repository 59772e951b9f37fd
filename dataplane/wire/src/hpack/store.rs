//! The bytes of a dynamic table: appended at one end, released at the other, each entry in one piece.

use alloc::vec::Vec;

/// A queue of bytes. Positions count bytes from the first one ever, wrapping, and stay valid until released.
#[derive(Debug)]
pub(super) struct Store {
    buf: Vec<u8>,
    /// How many bytes at the front of `buf` are released.
    dead: usize,
    /// The position of `buf`'s first byte.
    base: u32,
}

/// The least that is allocated, bytes.
const ALLOC_MIN: usize = 128;

impl Store {
    /// An empty one; allocates nothing.
    pub(super) const fn new() -> Self {
        Self { buf: Vec::new(), dead: 0, base: 0 }
    }

    /// Appends an entry and returns its position. `live_bytes_max` is what live bytes never exceed: the
    /// memory held stays below one and a half of it.
    pub(super) fn push(&mut self, entry: &[u8], live_bytes_max: usize) -> u32 {
        if self.buf.len() + entry.len() > self.buf.capacity() {
            self.make_room(entry.len(), live_bytes_max);
        }
        let at = self.position(self.buf.len());
        self.buf.extend_from_slice(entry);
        at
    }

    /// Releases the oldest `len` bytes.
    pub(super) fn release(&mut self, len: usize) {
        self.dead += len;
        if self.dead >= self.buf.len() {
            self.compact();
        }
    }

    /// The `len` bytes at a position.
    #[inline]
    pub(super) fn bytes(&self, at: u32, len: usize) -> &[u8] {
        let from = at.wrapping_sub(self.base) as usize;
        self.buf.get(from..from + len).unwrap_or(&[])
    }

    /// Gives back the memory that no live byte needs.
    pub(super) fn trim(&mut self) {
        self.compact();
        self.buf.shrink_to_fit();
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.buf.capacity()
    }

    #[expect(clippy::cast_possible_truncation, reason = "positions wrap")]
    fn position(&self, offset: usize) -> u32 {
        self.base.wrapping_add(offset as u32)
    }

    fn make_room(&mut self, len: usize, live_bytes_max: usize) {
        let is_worth_moving = self.dead > 0 && self.dead * 4 >= self.buf.capacity();
        self.compact();
        if is_worth_moving && self.buf.len() + len <= self.buf.capacity() {
            return;
        }
        let live = self.buf.len();
        let ceiling = live_bytes_max + live_bytes_max / 2;
        let wanted = live.max(ALLOC_MIN).min(ceiling.saturating_sub(live)).max(len);
        self.buf.reserve_exact(wanted);
    }

    fn compact(&mut self) {
        self.base = self.position(self.dead);
        self.buf.copy_within(self.dead.., 0);
        self.buf.truncate(self.buf.len() - self.dead);
        self.dead = 0;
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::vec;

    use super::*;

    #[test]
    fn entries_stay_whole_while_others_come_and_go() {
        let mut store = Store { base: u32::MAX - 100, ..Store::new() };
        let mut live = VecDeque::new();
        let mut live_bytes = 0;
        for round in 0..10_000_usize {
            let len = round * 7 % 90;
            let entry = vec![u8::try_from(round % 251).unwrap(); len];
            while live_bytes + len > 1000 {
                let (at, old): (u32, Vec<u8>) = live.pop_front().unwrap();
                assert_eq!(store.bytes(at, old.len()), old);
                store.release(old.len());
                live_bytes -= old.len();
            }
            let at = store.push(&entry, 1000);
            live_bytes += len;
            live.push_back((at, entry));
            assert!(store.capacity_bytes() <= 1500, "{}", store.capacity_bytes());
        }
        for (at, entry) in live {
            assert_eq!(store.bytes(at, entry.len()), entry);
        }
    }
}
