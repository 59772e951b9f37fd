//! Monotonic time, passed in by whoever owns a clock.

use core::time::Duration;

/// Nanoseconds of a monotonic clock whose zero means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// `self + d`, saturating.
    pub const fn after(self, d: Duration) -> Self {
        let ns = d.as_secs().saturating_mul(1_000_000_000).saturating_add(d.subsec_nanos() as u64);
        Self(self.0.saturating_add(ns))
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
