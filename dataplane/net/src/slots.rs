//! Connections by id: a slab whose ids carry a generation.
//!
//! A slot has two ends: `retire` makes the id mean nothing to the shard, while what was accepted still goes
//! out; `release` lets the slot be used again.

use alloc::vec::Vec;

use shard::ConnId;

/// A slab of connections.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    entries: Vec<Entry<S>>,
    free: Vec<u32>,
    live: u32,
}

#[derive(Debug)]
struct Entry<S> {
    generation: u32,
    state: Option<S>,
}

impl<S> Slots<S> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// Slots in use, retired ones included.
    pub(crate) fn len(&self) -> u32 {
        self.live
    }

    pub(crate) fn insert(&mut self, state: S) -> ConnId {
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
    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut S> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.state.as_mut() } else { None }
    }

    /// Whoever is in the slot, retired or not.
    pub(crate) fn slot(&self, index: u32) -> Option<&S> {
        self.entries.get(index as usize)?.state.as_ref()
    }

    /// Whoever is in the slot, retired or not.
    pub(crate) fn slot_mut(&mut self, index: u32) -> Option<&mut S> {
        self.entries.get_mut(index as usize)?.state.as_mut()
    }

    /// The id of the slot's present owner.
    pub(crate) fn id(&self, index: u32) -> ConnId {
        let generation = self.entries.get(index as usize).map_or(0, |entry| entry.generation);
        ConnId { index, generation }
    }

    /// Makes the id stale; the slot stays occupied.
    pub(crate) fn retire(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.generation = entry.generation.wrapping_add(1);
        }
    }

    /// Empties a slot for its next owner, whose id is a new one.
    pub(crate) fn release(&mut self, index: u32) -> Option<S> {
        let state = self.entries.get_mut(index as usize)?.state.take()?;
        self.retire(index);
        self.live -= 1;
        self.free.push(index);
        Some(state)
    }

    /// All occupied slots.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.entries).filter(|(_, entry)| entry.state.is_some()).map(|(index, _)| index)
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
        assert_eq!(slots.slot(first.index), Some(&'a'), "occupied until released");
        assert_ne!(slots.insert('b').index, first.index);
        assert_eq!(slots.release(first.index), Some('a'));
        let third = slots.insert('c');
        assert_eq!(third.index, first.index);
        assert_ne!(third, first);
        assert_eq!(slots.len(), 2);
    }
}
