//! A hierarchical timer wheel: insert and cancel in constant time, never early, at most two ticks late.
//!
//! Four levels of 64 slots; a tick is 2^20 ns (1.05 ms), so the wheel spans 4.9 hours; later timers wait
//! in its last slot and are put again.

use alloc::vec::Vec;

use wire::Instant;

const TICK_SHIFT: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 4;
const NIL: u32 = u32::MAX;

/// A timer that may be cancelled; stale keys do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node<E> {
    due_tick: u64,
    event: Option<E>,
    generation: u32,
    next: u32,
    prev: u32,
    /// Level and slot, to unlink a list's head.
    place: u16,
}

#[derive(Debug)]
pub(crate) struct Wheel<E> {
    nodes: Vec<Node<E>>,
    free: Vec<u32>,
    heads: [[u32; SLOTS]; LEVELS],
    used: [u64; LEVELS],
    /// Every tick up to and including this one has been expired.
    tick: u64,
    len: usize,
}

impl<E: Copy> Wheel<E> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            heads: [[NIL; SLOTS]; LEVELS],
            used: [0; LEVELS],
            tick: now.0 >> TICK_SHIFT,
            len: 0,
        }
    }

    /// Fires `event` at `at` or up to two ticks later.
    pub(crate) fn insert(&mut self, at: Instant, event: E) -> TimerKey {
        let due_tick = ((at.0 >> TICK_SHIFT) + 1).max(self.tick + 1);
        let node = Node { due_tick, event: Some(event), generation: 0, next: NIL, prev: NIL, place: 0 };
        let index = if let Some(index) = self.free.pop() {
            let slot = &mut self.nodes[index as usize];
            *slot = Node { generation: slot.generation, ..node };
            index
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap_or(NIL)
        };
        self.len += 1;
        self.link(index);
        TimerKey { index, generation: self.nodes[index as usize].generation }
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        let is_live = self
            .nodes
            .get(key.index as usize)
            .is_some_and(|n| n.generation == key.generation && n.event.is_some());
        if is_live {
            self.unlink(key.index);
            self.release(key.index);
        }
    }

    /// Gives at most `max` due events to `out`; true if there may be more.
    pub(crate) fn expire(&mut self, now: Instant, max: usize, out: &mut Vec<E>) -> bool {
        let target = now.0 >> TICK_SHIFT;
        let mut room = max;
        while self.tick < target {
            if self.len == 0 {
                self.tick = target;
                break;
            }
            // Skip what is empty: up to the next boundary of the lowest level that has anything.
            let level = self.used.iter().position(|bits| *bits != 0).unwrap_or(LEVELS - 1);
            if level > 0 {
                let span = SLOT_BITS * u32::try_from(level).unwrap_or(0);
                let boundary = ((self.tick >> span) + 1) << span;
                if boundary > target {
                    self.tick = target;
                    break;
                }
                self.tick = boundary - 1;
            }
            let next = self.tick + 1;
            self.cascade(next);
            let slot = slot_of(next, 0);
            while self.heads[0][slot] != NIL {
                if room == 0 {
                    return true;
                }
                room -= 1;
                let index = self.heads[0][slot];
                self.unlink(index);
                if let Some(event) = self.nodes[index as usize].event {
                    out.push(event);
                }
                self.release(index);
            }
            self.tick = next;
        }
        false
    }

    /// When `expire` may next have something; a lower bound for far timers.
    pub(crate) fn next(&self) -> Option<Instant> {
        let mut best: Option<u64> = None;
        for (level, bits) in self.used.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            let span = SLOT_BITS * u32::try_from(level).unwrap_or(0);
            let here = self.tick >> span;
            let turned = bits.rotate_right(u32::try_from((here + 1) % 64).unwrap_or(0));
            let at = (here + 1 + u64::from(turned.trailing_zeros())) << span;
            best = Some(best.map_or(at, |b| b.min(at)));
        }
        best.map(|tick| Instant(tick << TICK_SHIFT))
    }

    /// Entering `tick`: the slots of higher levels that begin here come down.
    fn cascade(&mut self, tick: u64) {
        for level in (1..LEVELS).rev() {
            let span = SLOT_BITS * u32::try_from(level).unwrap_or(0);
            if tick & ((1 << span) - 1) != 0 {
                continue;
            }
            let slot = slot_of(tick, level);
            let mut index = self.heads[level][slot];
            self.heads[level][slot] = NIL;
            self.used[level] &= !(1 << slot);
            while index != NIL {
                let next = self.nodes[index as usize].next;
                self.link_from(index, tick);
                index = next;
            }
        }
    }

    fn link(&mut self, index: u32) {
        self.link_from(index, self.tick);
    }

    fn link_from(&mut self, index: u32, tick: u64) {
        let due = self.nodes[index as usize].due_tick;
        let distance = due.saturating_sub(tick);
        let mut level = 0;
        while level + 1 < LEVELS && distance >= 1 << (SLOT_BITS * (u32::try_from(level).unwrap_or(0) + 1)) {
            level += 1;
        }
        let furthest = tick + (1 << (SLOT_BITS * u32::try_from(LEVELS).unwrap_or(4))) - 1;
        let slot = slot_of(due.max(tick).min(furthest), level);
        let head = self.heads[level][slot];
        if head != NIL {
            self.nodes[head as usize].prev = index;
        }
        let node = &mut self.nodes[index as usize];
        node.next = head;
        node.prev = NIL;
        node.place = u16::try_from(level * SLOTS + slot).unwrap_or(0);
        self.heads[level][slot] = index;
        self.used[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Node { next, prev, place, .. } = self.nodes[index as usize];
        let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        if next != NIL {
            self.nodes[next as usize].prev = prev;
        }
        if prev != NIL {
            self.nodes[prev as usize].next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NIL {
                self.used[level] &= !(1 << slot);
            }
        }
    }

    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.event = None;
        node.generation = node.generation.wrapping_add(1);
        self.free.push(index);
        self.len -= 1;
    }
}

fn slot_of(tick: u64, level: usize) -> usize {
    let turned = tick >> (SLOT_BITS * u32::try_from(level).unwrap_or(0));
    usize::try_from(turned % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    /// A small generator: the wheel against a sorted list.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn fires_everything_once_never_early_and_at_most_two_ticks_late() {
        let mut seed = 0x9E37_79B9_7F4A_7C15;
        for span in [10 * TICK, 300 * TICK, 100_000 * TICK, 40_000_000 * TICK] {
            let mut wheel = Wheel::new(Instant(0));
            let mut due = Vec::new();
            let mut cancelled = Vec::new();
            for id in 0..500usize {
                let at = random(&mut seed) % span;
                let key = wheel.insert(Instant(at), id);
                due.push(at);
                if id % 5 == 0 {
                    wheel.cancel(key);
                    wheel.cancel(key);
                    cancelled.push(id);
                }
            }
            let mut now = 0;
            let mut fired = alloc::vec![0; 500];
            let mut out = Vec::new();
            while let Some(next) = wheel.next() {
                assert!(next.0 > now, "next() must move on");
                now = next.0 + random(&mut seed) % TICK;
                while wheel.expire(Instant(now), 7, &mut out) {}
                for id in out.drain(..) {
                    fired[id] += 1;
                    assert!(due[id] <= now, "early: {} > {now}", due[id]);
                    assert!(now - due[id] <= 2 * TICK, "late by {} ticks", (now - due[id]) / TICK);
                }
            }
            for (id, count) in fired.iter().enumerate() {
                assert_eq!(*count, usize::from(!cancelled.contains(&id)), "timer {id} of span {span}");
            }
        }
    }

    #[test]
    fn a_long_sleep_expires_all_in_one_go() {
        let mut wheel = Wheel::new(Instant(0));
        for s in 0..10_000u64 {
            wheel.insert(Instant(s * 1_000_000_000), s);
        }
        let mut out = Vec::new();
        assert!(!wheel.expire(Instant(20_000 * 1_000_000_000), usize::MAX, &mut out));
        assert_eq!(out.len(), 10_000);
        assert!(wheel.next().is_none());
    }
}
