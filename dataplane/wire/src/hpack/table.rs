//! The decoder's dynamic table, RFC 7541 sections 2.3.2 and 4.
//!
//! Invariant: the sum of the entries' sizes is at most `size_max`; an entry knows its name's token, so that
//! a field taken from the table is never compared with a name again.

use alloc::collections::VecDeque;

use super::store::Store;
use crate::Token;

/// What an entry costs beyond its bytes (section 4.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name_len: u32,
    value_len: u32,
    token: Token,
}

impl Entry {
    fn len(&self) -> usize {
        self.name_len as usize + self.value_len as usize
    }
}

/// A field of a table: name and value one after the other, where the value begins, and the name's token.
pub(super) type Found<'a> = (Token, &'a [u8], usize);

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    store: Store,
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
    generation: u64,
}

impl Table {
    /// An empty table; allocates nothing.
    pub(super) const fn new(size_max: usize) -> Self {
        Self { store: Store::new(), entries: VecDeque::new(), size: 0, size_max, generation: 0 }
    }

    /// Changes whenever the table does.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes what was remembered of the table void.
    pub(super) fn touch(&mut self) {
        self.generation += 1;
    }

    /// The maximum size now in force.
    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    /// The field at `nth`, 0 being the newest.
    #[inline]
    pub(super) fn field(&self, nth: usize) -> Option<Found<'_>> {
        let entry = self.entries.get(nth)?;
        Some((entry.token, self.store.bytes(entry.at, entry.len()), entry.name_len as usize))
    }

    /// Puts a field in, evicting what must go (section 4.4). One that is larger than the table empties it.
    pub(super) fn insert(&mut self, token: Token, joined: &[u8], name_len: usize) {
        let size = joined.len() + ENTRY_OVERHEAD;
        if size > self.size_max {
            return self.clear();
        }
        self.generation += 1;
        self.evict_to(self.size_max - size);
        let at = self.store.push(joined, self.size_max);
        let value_len = u32::try_from(joined.len() - name_len).unwrap_or(u32::MAX);
        let name_len = u32::try_from(name_len).unwrap_or(u32::MAX);
        self.entries.push_front(Entry { at, name_len, value_len, token });
        self.size += size;
    }

    /// Empties it: what a field larger than the table does.
    pub(super) fn clear(&mut self) {
        self.generation += 1;
        self.evict_to(0);
    }

    /// Changes the maximum size (section 4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.generation += 1;
        self.size_max = size_max;
        self.evict_to(size_max);
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.len() + ENTRY_OVERHEAD;
            self.store.release(entry.len());
        }
    }

    /// Gives back the memory that no entry needs.
    pub(super) fn trim(&mut self) {
        self.store.trim();
        self.entries.shrink_to_fit();
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.store.capacity_bytes() + self.entries.capacity() * size_of::<Entry>()
    }
}
