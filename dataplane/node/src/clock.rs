//! The clocks of the node, in one place.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shard::Instant;

/// The monotonic clock that `Transport::now` reads.
pub(crate) fn monotonic() -> Instant {
    let at = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    Instant(seconds * 1_000_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> i128 {
    let at = clock_gettime(ClockId::Realtime);
    i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec)
}

/// Seconds since 1970.
pub(crate) fn wall_s() -> u32 {
    u32::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// The second it is, UTC: `2026-11-21T12:00:00Z`.
pub(crate) fn utc() -> String {
    let second = u64::try_from(wall_ns() / 1_000_000_000).unwrap_or(0);
    let text = crate::log::date(second);
    format!("{}Z", String::from_utf8_lossy(&text).trim_end_matches('.'))
}

/// Sleeps; never on a shard's thread.
pub(crate) fn sleep(how_long: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the demo's and the tests' threads may sleep, shards do not"
    )]
    std::thread::sleep(how_long);
}
