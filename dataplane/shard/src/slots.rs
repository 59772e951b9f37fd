//! Connections by id: a slab whose ids carry a generation.
//!
//! A slot has two ends. `retire` makes the id invalid for the shard at once; `release` lets the slot be used
//! again, which must wait until nothing is in flight for it: in the kernel, or as segments still to be sent.

use alloc::vec::Vec;

use crate::ConnId;

/// A slab of connections.
#[derive(Debug)]
pub struct Slots<S> {
    entries: Vec<Entry<S>>,
    free: Vec<u32>,
    live: u32,
}

#[derive(Debug)]
struct Entry<S> {
    generation: u32,
    state: Option<S>,
}

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Slots<S> {
    /// Empty.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// Slots in use, retired ones included.
    pub const fn len(&self) -> u32 {
        self.live
    }

    /// True if no slot is in use.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Puts a connection into a free slot.
    ///
    /// # Panics
    /// If there are 2^32 of them, which no memory holds.
    pub fn insert(&mut self, state: S) -> ConnId {
        self.live += 1;
        if let Some(index) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            entry.state = Some(state);
            return ConnId { index, generation: entry.generation };
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        assert!(index != u32::MAX, "more slots than a u32 can number");
        self.entries.push(Entry { generation: 0, state: Some(state) });
        ConnId { index, generation: 0 }
    }

    /// The connection, unless the id is stale.
    pub fn conn_mut(&mut self, id: ConnId) -> Option<&mut S> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.state.as_mut() } else { None }
    }

    /// True if the id still means a connection.
    pub fn is_current(&self, id: ConnId) -> bool {
        self.entries
            .get(id.index as usize)
            .is_some_and(|e| e.generation == id.generation && e.state.is_some())
    }

    /// Whoever is in the slot, retired or not.
    pub fn slot(&self, index: u32) -> Option<&S> {
        self.entries.get(index as usize)?.state.as_ref()
    }

    /// Whoever is in the slot, retired or not.
    pub fn slot_mut(&mut self, index: u32) -> Option<&mut S> {
        self.entries.get_mut(index as usize)?.state.as_mut()
    }

    /// The id the slot's present or last owner has.
    pub fn id(&self, index: u32) -> ConnId {
        let generation = self.entries.get(index as usize).map_or(0, |entry| entry.generation);
        ConnId { index, generation }
    }

    /// Makes the id stale; the slot stays occupied.
    pub fn retire(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.generation = entry.generation.wrapping_add(1);
        }
    }

    /// Empties a slot for its next owner. Moves the generation on again, so that nothing that knew the
    /// retired slot by its last id mistakes the next owner for it.
    pub fn release(&mut self, index: u32) -> Option<S> {
        self.retire(index);
        let state = self.entries.get_mut(index as usize)?.state.take()?;
        self.live -= 1;
        self.free.push(index);
        Some(state)
    }

    /// All occupied slots.
    pub fn occupied(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.entries).filter(|(_, e)| e.state.is_some()).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing_and_a_reused_slot_has_a_new_one() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        slots.retire(first.index);
        assert_eq!(slots.conn_mut(first), None);
        assert_eq!(slots.slot_mut(first.index), Some(&mut 'a'), "occupied until released");
        let second = slots.insert('b');
        assert_ne!(second.index, first.index, "a retired slot is not reused");
        assert_eq!(slots.release(first.index), Some('a'));
        let third = slots.insert('c');
        assert_eq!(third.index, first.index);
        assert_ne!(third, first);
        assert!(!slots.is_current(first) && slots.is_current(third));
        assert_eq!(slots.len(), 2);
    }
}
