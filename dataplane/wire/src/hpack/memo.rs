//! The last few blocks that changed nothing in the table, with their lists.
//!
//! On a warm connection the next call's header block is, byte for byte, an earlier one; what is left of
//! HPACK then is one comparison and one copy. A block means the same list as long as the table is the same,
//! and the table's generation says so.
//!
//! Invariant: a connection that has carried no call holds nothing here, and any other at most
//! [`SLOTS_MAX`] blocks of [`BLOCK_BYTES_MAX`] with lists of [`LIST_BYTES_MAX`] and [`LIST_COUNT_MAX`].

use alloc::vec::Vec;

use crate::Headers;

const SLOTS_MAX: usize = 4;
const BLOCK_BYTES_MAX: usize = 256;
const LIST_BYTES_MAX: usize = 1024;
const LIST_COUNT_MAX: usize = 32;
/// After so many misses in a row only every [`SPARSE_EVERY`]th block is remembered: blocks that are never
/// seen twice should not pay for it.
const MISSES_MAX: u32 = 16;
const SPARSE_EVERY: u32 = 16;

/// One block and its list.
#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: u64,
    /// What the decoder's owner noted of the list.
    pub(super) note: u8,
    /// The block.
    pub(super) block: Vec<u8>,
    /// The list.
    pub(super) list: Headers,
}

/// The slots.
#[derive(Debug)]
pub(super) struct Memo {
    slots: Vec<Slot>,
    /// The slot that the next block takes.
    next: u8,
    /// How many times in a row nothing was found.
    misses: u32,
}

impl Memo {
    /// No slots; allocates nothing.
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), next: 0, misses: 0 }
    }

    /// The slot of a block.
    #[inline]
    pub(super) fn find_block(&mut self, generation: u64, block: &[u8]) -> Option<usize> {
        let at = self.slots.iter().position(|s| s.generation == generation && s.block == block);
        self.misses = if at.is_some() { 0 } else { self.misses.wrapping_add(1) };
        at
    }

    /// The slot of a list.
    #[inline]
    pub(super) fn find_list(&mut self, generation: u64, list: &Headers) -> Option<usize> {
        let at = self.slots.iter().position(|s| s.generation == generation && s.list.is_same(list));
        self.misses = if at.is_some() { 0 } else { self.misses.wrapping_add(1) };
        at
    }

    /// A slot that was found.
    #[inline]
    pub(super) fn slot(&self, at: usize) -> Option<&Slot> {
        self.slots.get(at)
    }

    /// The same, to note something in it.
    pub(super) fn slot_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)
    }

    /// Remembers a block and its list, unless they are too large or this does not pay. Gives the slot.
    pub(super) fn remember(&mut self, generation: u64, block: &[u8], list: &Headers) -> Option<usize> {
        if block.is_empty()
            || block.len() > BLOCK_BYTES_MAX
            || list.bytes_len() > LIST_BYTES_MAX
            || list.len() > LIST_COUNT_MAX
        {
            return None;
        }
        if self.misses > MISSES_MAX && !self.misses.is_multiple_of(SPARSE_EVERY) {
            return None;
        }
        let at = usize::from(self.next);
        if at == self.slots.len() {
            self.slots.reserve_exact(1);
            self.slots.push(Slot::default());
        }
        self.next = if at + 1 < SLOTS_MAX { self.next + 1 } else { 0 };
        let slot = self.slots.get_mut(at)?;
        slot.generation = generation;
        slot.note = 0;
        slot.block.clear();
        slot.block.reserve_exact(block.len());
        slot.block.extend_from_slice(block);
        slot.list.copy_from_exact(list);
        Some(at)
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn trim(&mut self) {
        *self = Self::new();
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<Slot>();
        slots + self.slots.iter().map(|s| s.block.capacity() + s.list.capacity_bytes()).sum::<usize>()
    }
}
