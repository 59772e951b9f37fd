//! One deadline per connection: a binary heap that knows where each connection stands in it.

use alloc::vec::Vec;

use shard::Instant;

const NOWHERE: u32 = u32::MAX;

/// Invariant: `place[index]` is where `index` stands in `heap`, and no entry is due before its parent.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, u32)>,
    place: Vec<u32>,
}

impl Timers {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Sets the deadline of `index`, or moves it.
    pub(crate) fn set(&mut self, index: u32, at: Instant) {
        if self.place.len() <= index as usize {
            self.place.resize(index as usize + 1, NOWHERE);
        }
        let place = self.place[index as usize];
        if place == NOWHERE {
            self.heap.push((at, index));
            self.rise(self.heap.len() - 1);
            return;
        }
        let place = place as usize;
        let earlier = at < self.heap[place].0;
        self.heap[place].0 = at;
        if earlier { self.rise(place) } else { self.sink(place) }
    }

    /// Forgets the deadline of `index`.
    pub(crate) fn clear(&mut self, index: u32) {
        let Some(&place) = self.place.get(index as usize) else { return };
        if place == NOWHERE {
            return;
        }
        let place = place as usize;
        self.heap.swap_remove(place);
        self.place[index as usize] = NOWHERE;
        if place < self.heap.len() {
            self.note(place);
            self.rise(place);
            self.sink(place);
        }
    }

    /// Takes one that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u32> {
        let (at, index) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.clear(index);
        Some(index)
    }

    fn note(&mut self, place: usize) {
        let (_, index) = self.heap[place];
        self.place[index as usize] = u32::try_from(place).unwrap_or(NOWHERE);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.heap.swap(parent, place);
            self.note(place);
            place = parent;
        }
        self.note(place);
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut least = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == place {
                break;
            }
            self.heap.swap(least, place);
            self.note(place);
            place = least;
        }
        self.note(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_sorted_list_under_sets_moves_and_clears() {
        let mut timers = Timers::default();
        let mut model: Vec<Option<u64>> = alloc::vec![None; 50];
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut now = 0;
        for _ in 0..20_000 {
            let index = u32::try_from(random(50)).unwrap();
            match random(4) {
                0 => {
                    timers.clear(index);
                    model[index as usize] = None;
                }
                1 => {
                    now += random(40);
                    while let Some(due) = timers.due(Instant(now)) {
                        let at = model[due as usize].take().expect("was set");
                        assert!(at <= now);
                        assert!(model.iter().flatten().all(|other| *other >= at), "in order");
                    }
                    assert!(model.iter().flatten().all(|at| *at > now), "none forgotten");
                }
                _ => {
                    let at = now + 1 + random(500);
                    timers.set(index, Instant(at));
                    model[index as usize] = Some(at);
                }
            }
            assert_eq!(timers.next().map(|at| at.0), model.iter().flatten().min().copied());
        }
    }
}
