//! Monotonic time, passed in by whoever owns a clock.

use core::time::Duration;

/// Nanoseconds of a monotonic clock whose zero means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// `self + d`, saturating.
    pub const fn after(self, d: Duration) -> Self {
        let ns = d.as_nanos();
        Self(self.0.saturating_add(if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }))
    }

    /// `self + ns`, saturating.
    pub const fn after_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// `self - earlier`, zero if `earlier` is later.
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
