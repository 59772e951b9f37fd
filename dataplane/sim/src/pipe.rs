//! One direction of a simulated connection: bytes accepted from the writer, delivered later in pieces.

use std::collections::VecDeque;

use crate::plan::LinkPlan;
use crate::rng::Rng;

/// Bytes between a writer and a reader. Capacity counts what is in flight and what waits to be read, so a
/// reader that stops makes the writer wait.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    ready: usize,
    flight: VecDeque<(u64, usize)>,
    held_until: u64,
    fin_due: Option<u64>,
    /// A write was cut short; the writer is to be told when there is room.
    pub(crate) is_blocked: bool,
    unblock_at: u64,
    /// Bytes ever accepted, and ever read.
    pub(crate) written: u64,
    pub(crate) read: u64,
}

impl Pipe {
    /// Accepts a prefix of `bytes`: bounded by capacity, sometimes shorter.
    pub(crate) fn write(&mut self, now: u64, plan: &LinkPlan, rng: &mut Rng, bytes: &[u8]) -> usize {
        let room = plan.capacity_bytes.saturating_sub(self.bytes.len());
        let mut taken = room.min(bytes.len());
        if taken > 0 && rng.chance(plan.short_permille) {
            taken = rng.size(0, taken);
        }
        if taken < bytes.len() {
            self.is_blocked = true;
            self.unblock_at = now + 1 + rng.below(plan.delay_ns_max);
        }
        self.bytes.extend(bytes.iter().take(taken));
        self.written += taken as u64;
        if rng.chance(plan.stall_permille) {
            self.held_until = self.held_until.max(now + rng.below(plan.stall_ns_max));
        }
        let mut left = taken;
        while left > 0 {
            let len = rng.skewed(plan.segment_bytes_max).min(left);
            left -= len;
            let due = self.due(now, plan, rng);
            match self.flight.back_mut() {
                Some((at, more)) if *at == due => *more += len,
                _ => self.flight.push_back((due, len)),
            }
        }
        taken
    }

    /// No more bytes follow those accepted.
    pub(crate) fn finish(&mut self, now: u64, plan: &LinkPlan, rng: &mut Rng) {
        if self.fin_due.is_none() {
            self.fin_due = Some(self.due(now, plan, rng));
        }
    }

    /// A delivery time not before any earlier one: bytes do not overtake each other.
    fn due(&self, now: u64, plan: &LinkPlan, rng: &mut Rng) -> u64 {
        let earliest = self.flight.back().map_or(0, |(due, _)| *due).max(self.held_until);
        (now + 1 + plan.delay_ns_min + rng.below(plan.delay_ns_max - plan.delay_ns_min)).max(earliest)
    }

    /// Makes readable what is due.
    pub(crate) fn advance(&mut self, now: u64) {
        while let Some((due, len)) = self.flight.front().copied() {
            if due > now {
                break;
            }
            self.ready += len;
            self.flight.pop_front();
        }
    }

    /// Takes at most `max` readable bytes.
    pub(crate) fn read(&mut self, max: usize) -> Vec<u8> {
        let len = max.min(self.ready);
        self.ready -= len;
        self.read += len as u64;
        self.bytes.drain(..len).collect()
    }

    /// Bytes that may be read now.
    pub(crate) fn readable(&self) -> usize {
        self.ready
    }

    /// Bytes accepted and not read.
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The writer finished, and everything before that has been read.
    pub(crate) fn at_end(&self, now: u64) -> bool {
        self.bytes.is_empty() && self.fin_due.is_some_and(|due| due <= now)
    }

    /// `finish` was called.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_due.is_some()
    }

    /// A blocked writer may be told to go on.
    pub(crate) fn wants_writer(&self, now: u64, plan: &LinkPlan) -> bool {
        self.is_blocked && self.unblock_at <= now && self.bytes.len() < plan.capacity_bytes
    }

    /// Loses what has not arrived.
    pub(crate) fn drop_flight(&mut self) {
        self.flight.clear();
        self.bytes.truncate(self.ready);
    }

    /// Loses everything.
    pub(crate) fn drop_all(&mut self) {
        self.flight.clear();
        self.bytes = VecDeque::new();
        self.ready = 0;
    }

    /// When something changes by itself.
    pub(crate) fn next_due(&self, now: u64, plan: &LinkPlan) -> Option<u64> {
        let flight = self.flight.front().map(|(due, _)| *due);
        let fin = self.fin_due.filter(|due| *due > now);
        let unblock = (self.is_blocked && self.bytes.len() < plan.capacity_bytes && self.unblock_at > now)
            .then_some(self.unblock_at);
        [flight, fin, unblock].into_iter().flatten().min()
    }
}
