//! Slots that are reused in place, so that what a slot has allocated serves its next user.

use alloc::vec::Vec;

/// A slot and which user of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    is_used: bool,
    value: T,
}

/// Invariant: a key whose generation is not its slot's finds nothing.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    used: usize,
}

impl<T: Default> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), used: 0 }
    }

    /// A slot for a new user; its value is what the last one left, or the default.
    pub(crate) fn insert(&mut self) -> Key {
        self.used += 1;
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.is_used = true;
            return Key { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 1, is_used: true, value: T::default() });
        Key { index, generation: 1 }
    }

    /// Ends a use. The value stays for the next user: the caller has cleared it.
    pub(crate) fn remove(&mut self, key: Key) {
        if self.retire(key) {
            self.release(key.index);
        }
    }

    /// Ends a use, and keeps the slot from others until [`Self::release`]. False if it had ended before.
    pub(crate) fn retire(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return false };
        let is_live = slot.is_used && slot.generation == key.generation;
        if is_live {
            slot.is_used = false;
            slot.generation = slot.generation.wrapping_add(1);
            self.used -= 1;
        }
        is_live
    }

    /// The value of a retired slot.
    pub(crate) fn retired(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize).filter(|slot| !slot.is_used).map(|slot| &mut slot.value)
    }

    /// A retired slot is free for its next user. Once only.
    pub(crate) fn release(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        (slot.is_used && slot.generation == key.generation).then_some(&slot.value)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.is_used && slot.generation == key.generation).then_some(&mut slot.value)
    }

    /// The key of the slot's present user.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.is_used.then_some(Key { index, generation: slot.generation })
    }

    /// Users now.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// One more than the largest index ever used.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_and_the_slot_keeps_its_memory() {
        let mut slab: Slab<Vec<u8>> = Slab::new();
        let first = slab.insert();
        slab.get_mut(first).unwrap().reserve(100);
        slab.remove(first);
        slab.remove(first);
        assert_eq!(slab.len(), 0);
        let second = slab.insert();
        assert_eq!(second.index, first.index);
        assert!(slab.get(first).is_none());
        assert!(slab.get(second).unwrap().capacity() >= 100);
    }
}
