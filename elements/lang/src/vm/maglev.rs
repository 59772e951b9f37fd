//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): which endpoint of a service each of 65,537 slots
//! has. Each endpoint goes through all slots in an order of its own and takes the next free one when it is
//! its turn; with weights, as Envoy has them: the heaviest takes one each round, others now and then.
//!
//! A table says nothing of health: who reads it goes on to the next slot. So an endpoint that is ill for a
//! while loses its keys and nobody else loses any, and a table is made once for each set of endpoints, by
//! the thread that compiles.

use super::text::xxh64_seeded;

/// A prime, far more than there are endpoints: shares are right to a percent.
pub(crate) const SLOTS: usize = 65_537;
/// Slots that are looked at for one that will do.
pub(crate) const PROBES_MAX: usize = 64;
/// Nobody's yet.
const FREE: u16 = u16::MAX;

/// The endpoints of a service by slot.
#[derive(Clone)]
pub struct Table(Box<[u16]>);

/// An endpoint while the table is made.
struct Taker<'e> {
    place: u16,
    name: &'e str,
    weight: u64,
    /// It waits until the rounds have brought it so much weight.
    due: u64,
    slot: usize,
    skip: usize,
}

impl Table {
    /// The table of endpoints by address and weight. The order they come in does not matter; `None` if there
    /// is no choice. Those without weight have no share, unless none has any.
    pub(crate) fn new<'e>(endpoints: impl Iterator<Item = (&'e str, u32)>) -> Option<Self> {
        let mut takers: Vec<Taker<'e>> =
            (0..FREE).zip(endpoints).map(|(place, (name, weight))| Taker::new(place, name, weight)).collect();
        if takers.iter().any(|t| t.weight > 0) {
            takers.retain(|t| t.weight > 0);
        } else {
            takers.iter_mut().for_each(|t| t.weight = 1);
        }
        if takers.len() < 2 {
            return None;
        }
        takers.sort_by_key(|t| t.name);
        Some(Self(fill(&mut takers)))
    }

    /// The endpoints from a key's slot on, as far as anybody looks.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = u16> {
        let first = usize::try_from(key % SLOTS as u64).unwrap_or(0);
        let (before, after) = self.0.split_at_checked(first).unwrap_or((&[], &self.0));
        after.iter().chain(before).copied().take(PROBES_MAX)
    }
}

impl<'e> Taker<'e> {
    fn new(place: u16, name: &'e str, weight: u32) -> Self {
        let hash =
            |seed, n: usize| usize::try_from(xxh64_seeded(name.as_bytes(), seed) % n as u64).unwrap_or(0);
        Self {
            place,
            name,
            weight: weight.into(),
            due: 0,
            slot: hash(0, SLOTS),
            skip: hash(1, SLOTS - 1) + 1,
        }
    }

    /// Takes the next slot of its order that is free.
    fn take(&mut self, slots: &mut [u16]) {
        loop {
            let slot = slots.get_mut(self.slot);
            self.slot = (self.slot + self.skip) % SLOTS;
            if let Some(slot) = slot.filter(|s| **s == FREE) {
                *slot = self.place;
                return;
            }
        }
    }
}

fn fill(takers: &mut [Taker<'_>]) -> Box<[u16]> {
    let mut slots = vec![FREE; SLOTS];
    let heaviest = takers.iter().map(|t| t.weight).max().unwrap_or(1);
    let (mut left, mut round) = (SLOTS, 0);
    while left > 0 {
        round += 1;
        for taker in &mut *takers {
            if left == 0 || round * taker.weight < taker.due {
                continue;
            }
            taker.due += heaviest;
            taker.take(&mut slots);
            left -= 1;
        }
    }
    slots.into()
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}:50051")).collect()
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Table {
        Table::new(names.iter().enumerate().map(|(i, n)| (n.as_str(), weight(i)))).unwrap()
    }

    fn share(table: &Table, place: u16) -> usize {
        table.0.iter().filter(|p| **p == place).count()
    }

    #[test]
    fn equal_endpoints_have_equally_many_slots() {
        for n in [2, 3, 100, 1000] {
            let table = table(&names(n), |_| 1);
            for place in 0..u16::try_from(n).unwrap() {
                let share = share(&table, place);
                assert!(share == SLOTS / n || share == SLOTS / n + 1, "{n}: {share}");
            }
        }
    }

    #[test]
    fn shares_follow_weights() {
        let table = table(&names(4), |i| [1, 2, 3, 0][i]);
        for (place, parts) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            let (share, due) = (share(&table, place), SLOTS * parts / 6);
            assert!(share.abs_diff(due) <= 3, "{place}: {share}, not {due}");
        }
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter() {
        let names = names(7);
        let there = table(&names, |_| 1);
        let back = Table::new(names.iter().rev().map(|n| (n.as_str(), 1))).unwrap();
        assert!(there.0.iter().zip(&back.0).all(|(a, b)| *a == 6 - *b));
    }

    #[test]
    fn when_one_goes_nearly_only_its_slots_move() {
        let names = names(20);
        let (all, fewer) = (table(&names, |_| 1), table(&names[..19], |_| 1));
        let moved = all.0.iter().zip(&fewer.0).filter(|(a, b)| **a != 19 && a != b).count();
        assert!(moved < SLOTS / 20, "{moved} slots of others moved");
    }

    #[test]
    fn no_choice_needs_no_table() {
        assert!(Table::new(std::iter::empty()).is_none());
        assert!(Table::new([("a", 1)].into_iter()).is_none());
        assert!(Table::new([("a", 0), ("b", 5)].into_iter()).is_none());
        assert!(Table::new([("a", 0), ("b", 0)].into_iter()).is_some());
    }
}
