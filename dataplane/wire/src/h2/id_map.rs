//! Stream id to slot: open addressing with linear probing, at most half full.
//!
//! The hash multiplies by an odd number the peer does not know (universal hashing), so that ids chosen to
//! collide do not. Nothing is allocated until the first stream.

use alloc::vec::Vec;

/// The map. An entry with id 0 is free.
#[derive(Debug)]
pub(crate) struct IdMap {
    entries: Vec<(u32, u32)>,
    count: u32,
    factor: u32,
}

impl IdMap {
    pub(crate) const fn new(seed: u64) -> Self {
        // splitmix64: every bit of the seed reaches every bit of the factor.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let factor = (z >> 32) as u32 | 1;
        Self { entries: Vec::new(), count: 0, factor }
    }

    /// Where an id belongs: the product's upper bits, as many as the table has. A table of 2^31 entries and
    /// more cannot be, so the shift is within 1..=29.
    fn home(&self, id: u32) -> usize {
        let bits = self.entries.len().trailing_zeros();
        ((id >> 1).wrapping_mul(self.factor) >> (32 - bits)) as usize
    }

    fn position(&self, id: u32) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let mask = self.entries.len() - 1;
        let mut at = self.home(id);
        loop {
            match self.entries.get(at & mask) {
                Some(&(found, _)) if found == id => return Some(at & mask),
                Some(&(0, _)) | None => return None,
                Some(_) => at += 1,
            }
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<u32> {
        self.position(id).and_then(|at| self.entries.get(at)).map(|e| e.1)
    }

    /// Adds an id that is not in the map.
    pub(crate) fn insert(&mut self, id: u32, slot: u32) {
        if (self.count as usize + 1) * 2 > self.entries.len() {
            let doubled = (self.entries.len() * 2).max(8);
            let old = core::mem::replace(&mut self.entries, alloc::vec![(0, 0); doubled]);
            for (id, slot) in old.into_iter().filter(|e| e.0 != 0) {
                self.place(id, slot);
            }
        }
        self.place(id, slot);
        self.count += 1;
    }

    fn place(&mut self, id: u32, slot: u32) {
        let mask = self.entries.len() - 1;
        let mut at = self.home(id);
        while let Some(entry) = self.entries.get_mut(at & mask) {
            if entry.0 == 0 {
                *entry = (id, slot);
                return;
            }
            at += 1;
        }
    }

    /// Takes an id out and closes the gap, so that there are no tombstones.
    pub(crate) fn remove(&mut self, id: u32) {
        let Some(mut gap) = self.position(id) else { return };
        self.count -= 1;
        let mask = self.entries.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let Some(&(other, slot)) = self.entries.get(at) else { return };
            if other == 0 {
                break;
            }
            // Movable if its home is not within (gap, at], going round.
            let home = self.home(other) & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                if let Some(e) = self.entries.get_mut(gap) {
                    *e = (other, slot);
                }
                gap = at;
            }
        }
        if let Some(e) = self.entries.get_mut(gap) {
            *e = (0, 0);
        }
    }

    /// Gives the table back; the map must be empty.
    pub(crate) fn trim(&mut self) {
        if self.count == 0 {
            self.entries = Vec::new();
        }
    }

    pub(crate) const fn capacity_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u32, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn agrees_with_a_btree_under_insert_and_remove() {
        for seed in 0..20 {
            let mut map = IdMap::new(seed);
            let mut model = BTreeMap::new();
            let mut x = seed.wrapping_mul(77) + 1;
            for step in 0..4000_u32 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let id = (x as u32 % 300) * 2 + 1;
                if model.remove(&id).is_some() {
                    map.remove(id);
                } else {
                    map.insert(id, step);
                    model.insert(id, step);
                }
                assert_eq!(map.count as usize, model.len());
            }
            for id in (1..601).step_by(2) {
                assert_eq!(map.get(id), model.get(&id).copied());
            }
        }
    }

    #[test]
    fn hostile_ids_do_not_collide() {
        // Ids that share their lower bits: all in one place for a table indexed by them.
        let mut map = IdMap::new(7);
        for i in 0..1000_u32 {
            map.insert(i * 0x0001_0000 * 2 + 1, i);
        }
        let worst = (0..1000_u32)
            .map(|i| {
                let id = i * 0x0002_0000 + 1;
                let mask = map.entries.len() - 1;
                map.position(id).unwrap().wrapping_sub(map.home(id)) & mask
            })
            .max();
        assert!(worst < Some(64), "{worst:?}");
    }
}
