//! At most so many a second.

use shard::Instant;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A token bucket that holds a tenth of a second's worth.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    /// What has been earned, in billionths of a token.
    credit: u64,
    seen: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, credit: Self::most(per_second), seen: now }
    }

    fn most(per_second: u64) -> u64 {
        per_second.div_ceil(10) * SECOND
    }

    /// True if one more is allowed now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let earned = now.since_ns(self.seen).min(SECOND) * self.per_second;
        self.seen = now;
        self.credit = (self.credit + earned).min(Self::most(self.per_second));
        let allowed = self.credit >= SECOND;
        if allowed {
            self.credit -= SECOND;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_allows_as_many_as_it_says_and_no_burst_is_larger_than_a_tenth() {
        let mut rate = Rate::new(1000, Instant(0));
        let burst = (0..10_000).filter(|_| rate.take(Instant(0))).count();
        assert_eq!(burst, 100);
        let second = (1..=10_000_u64).filter(|at| rate.take(Instant(at * 100_000))).count();
        assert_eq!(second, 1000);
        let mut none = Rate::new(0, Instant(0));
        assert!(!none.take(Instant(SECOND)));
    }
}
