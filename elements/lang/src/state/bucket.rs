//! `bucket` and `counter`: cells of one word.
//!
//! A bucket is the generic cell rate algorithm (ATM Forum TM 4.0, annex A): the word is the instant at which
//! the bucket will be full again, so that a take is one compare-and-swap and the limit is exact over any
//! number of shards. Rate and burst belong to the program, not to the state: a reload may change them.

use super::words::Words;

/// Parts of a nanosecond an instant counts in: at 10 GiB/s a byte still takes 24 of them.
const TICKS_PER_NS: u32 = 8;
/// An instant farther ahead, 208 days, is one of long ago: instants wrap around after two years.
const AHEAD_MAX: u64 = 1 << 62;
/// The most a bucket holds: what cannot be had at all is ahead of it.
const FULL_MAX: u64 = AHEAD_MAX / 2;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bucket {
    /// Ticks in which one token comes back.
    ticks_per_token: f64,
    /// Ticks in which an empty bucket is full.
    ticks_to_full: u64,
}

/// A float as ticks: not below nothing, and never too far ahead.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, NaN is 0")]
fn ticks(x: f64) -> u64 {
    (x.round() as u64).min(AHEAD_MAX)
}

impl Bucket {
    /// A bucket of `per_second` tokens a second that holds `burst`, at least one. A rate of nothing gives
    /// nothing.
    pub(crate) fn new(per_second: f64, burst: f64) -> Self {
        let per_second = if per_second > 0.0 { per_second } else { 0.0 };
        let ticks_per_token = f64::from(1 << TICKS_PER_NS) * 1e9 / per_second;
        Self { ticks_per_token, ticks_to_full: ticks(burst.max(1.0) * ticks_per_token).min(FULL_MAX) }
    }

    fn cost(&self, n: f64) -> u64 {
        if n > 0.0 { ticks(n * self.ticks_per_token) } else { 0 }
    }

    /// The instant of fullness after `cost` more, and how far ahead of now it is.
    fn after(word: u64, now: u64, cost: u64) -> (u64, u64) {
        let ahead = word.wrapping_sub(now);
        // Never used, in the past, or of two years ago: full.
        let ahead = if word == 0 || ahead > AHEAD_MAX { 0 } else { ahead };
        let ahead = (ahead + cost).min(AHEAD_MAX);
        (now.wrapping_add(ahead).max(1), ahead)
    }

    /// Takes `n` tokens if they are there.
    pub(crate) fn take(&self, words: &(impl Words + ?Sized), now_ns: u64, n: f64) -> bool {
        let (now, cost) = (now_ns << TICKS_PER_NS, self.cost(n));
        let mut is_there = false;
        words.update(0, |word| {
            let (full, ahead) = Self::after(word, now, cost);
            is_there = ahead <= self.ticks_to_full;
            is_there.then_some(full)
        });
        is_there
    }

    /// Takes `n` tokens in advance; after how many nanoseconds they are there.
    pub(crate) fn reserve(&self, words: &(impl Words + ?Sized), now_ns: u64, n: f64) -> u64 {
        let (now, cost) = (now_ns << TICKS_PER_NS, self.cost(n));
        let mut wait = 0;
        words.update(0, |word| {
            let (full, ahead) = Self::after(word, now, cost);
            wait = ahead.saturating_sub(self.ticks_to_full);
            Some(full)
        });
        wait >> TICKS_PER_NS
    }

    /// Takes everything.
    pub(crate) fn drain(&self, words: &(impl Words + ?Sized), now_ns: u64) {
        let now = now_ns << TICKS_PER_NS;
        words.update(0, |word| {
            let (_, ahead) = Self::after(word, now, 0);
            (ahead < self.ticks_to_full).then(|| now.wrapping_add(self.ticks_to_full).max(1))
        });
    }
}

/// Adds to a counter, which saturates.
pub(crate) fn add(words: &(impl Words + ?Sized), n: i64) {
    words.update(0, |word| Some(word.cast_signed().saturating_add(n).cast_unsigned()));
}

/// What a counter says: never less than nothing.
pub(crate) fn value(words: &(impl Words + ?Sized)) -> u64 {
    words.load(0).cast_signed().max(0).cast_unsigned()
}
