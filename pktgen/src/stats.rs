//! What a load has seen so far: counters and a latency histogram that another thread may read at any time.
//!
//! One thread writes ([`Live`] has a single writer), any number read. Each number is an atomic that is
//! stored, never added to, so recording a call costs a few plain moves; a reader sees every counter at some
//! recent value, not all of them at the same instant.
//!
//! The histogram is log-linear as HdrHistogram's is: 256 steps per octave, so a value is known to 0.4 %.
//! It reaches from 1 ns to 18 minutes; longer ones count as 18 minutes. Minimum and maximum are exact.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abi::Status;

/// Steps per octave, as a power of two.
const STEP_BITS: u32 = 8;
const STEPS: u64 = 1 << STEP_BITS;
/// Values are cut to less than this power of two, nanoseconds.
const VALUE_BITS: u32 = 40;
const BUCKETS: usize = ((VALUE_BITS - STEP_BITS + 1) as usize) << STEP_BITS;

fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    let shift = (63 - (value | STEPS).leading_zeros()) - STEP_BITS;
    let index = u64::from(shift) * STEPS + (value >> shift);
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The largest value of a bucket.
fn bucket_max(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / STEPS).saturating_sub(1);
    ((index - shift * STEPS + 1) << shift) - 1
}

/// Adds to a counter that only this thread writes.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// A histogram of nanoseconds with one writer and any number of readers.
#[derive(Debug)]
pub struct LiveHistogram {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl LiveHistogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }

    /// Counts one value. Only the one writing thread may call this.
    pub(crate) fn record(&self, ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bump(bucket, 1);
        }
        bump(&self.count, 1);
        bump(&self.sum, ns);
        if ns < self.min.load(Relaxed) {
            self.min.store(ns, Relaxed);
        }
        if ns > self.max.load(Relaxed) {
            self.max.store(ns, Relaxed);
        }
    }

    /// A copy of it as it stands.
    pub fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: self.buckets.iter().map(|b| b.load(Relaxed)).collect(),
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

/// A histogram of nanoseconds that nobody writes any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Histogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value, ns; 0 when there is none.
    pub fn min_ns(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The largest value, ns; 0 when there is none.
    pub fn max_ns(&self) -> u64 {
        self.max
    }

    /// The mean, ns; 0 when there is no value.
    pub fn mean_ns(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// The value that a share `q` (0..=1) of all values does not exceed, ns; 0 when there is none.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        let wanted = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0);
        let mut seen = 0u64;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen as f64 >= wanted {
                return bucket_max(index).clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// Adds another histogram's values to this one's.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// What was recorded after `earlier`, an older snapshot of the same histogram. Minimum and maximum are
    /// those of the buckets.
    pub fn since(&self, earlier: &Self) -> Self {
        let old = |i: usize| earlier.buckets.get(i).copied().unwrap_or(0);
        let buckets: Vec<u64> =
            self.buckets.iter().enumerate().map(|(i, n)| n.saturating_sub(old(i))).collect();
        let used = |n: &u64| *n > 0;
        let min = buckets.iter().position(used).map_or(0, |i| if i == 0 { 0 } else { bucket_max(i - 1) + 1 });
        let max = buckets.iter().rposition(used).map_or(0, bucket_max);
        Self {
            buckets,
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum.wrapping_sub(earlier.sum),
            min,
            max,
        }
    }
}

/// Where a load stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No connection is up yet.
    Connecting,
    /// Calls are made and not counted.
    WarmUp,
    /// Calls are made and counted.
    Measuring,
    /// No new calls; waiting for the last answers.
    Draining,
    /// Over.
    Done,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Connecting, Self::WarmUp, Self::Measuring, Self::Draining, Self::Done];
}

/// The figures of a running load.
#[derive(Debug)]
pub struct Live {
    phase: AtomicU64,
    elapsed_ns: AtomicU64,
    in_flight: AtomicU64,
    uncounted_calls: AtomicU64,
    statuses: [AtomicU64; Status::COUNT],
    unanswered: AtomicU64,
    unsent: AtomicU64,
    requeued: AtomicU64,
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    latency: LiveHistogram,
    lateness: LiveHistogram,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// All zero.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            phase: zero(),
            elapsed_ns: zero(),
            in_flight: zero(),
            uncounted_calls: zero(),
            statuses: std::array::from_fn(|_| zero()),
            unanswered: zero(),
            unsent: zero(),
            requeued: zero(),
            tx_bytes: zero(),
            rx_bytes: zero(),
            latency: LiveHistogram::new(),
            lateness: LiveHistogram::new(),
        }
    }

    /// Where the load stands.
    pub fn phase(&self) -> Phase {
        let at = usize::try_from(self.phase.load(Relaxed)).unwrap_or(0);
        Phase::ALL.get(at).copied().unwrap_or(Phase::Done)
    }

    /// Counted calls that have ended with a status, so far.
    pub fn calls(&self) -> u64 {
        self.statuses.iter().map(|s| s.load(Relaxed)).sum()
    }

    /// Counted calls that ended with this status, so far.
    pub fn calls_with(&self, status: Status) -> u64 {
        self.statuses.get(usize::from(status.code())).map_or(0, |s| s.load(Relaxed))
    }

    /// Calls under way now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// The histogram of latencies of counted calls, ns.
    pub fn latency(&self) -> &LiveHistogram {
        &self.latency
    }

    /// A copy of all figures as they stand.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            phase: self.phase(),
            elapsed_ns: self.elapsed_ns.load(Relaxed),
            in_flight: self.in_flight(),
            uncounted_calls: self.uncounted_calls.load(Relaxed),
            statuses: std::array::from_fn(|i| self.statuses.get(i).map_or(0, |s| s.load(Relaxed))),
            unanswered: self.unanswered.load(Relaxed),
            unsent: self.unsent.load(Relaxed),
            requeued: self.requeued.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            latency: self.latency.snapshot(),
            lateness: self.lateness.snapshot(),
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        let at = Phase::ALL.iter().position(|p| *p == phase).unwrap_or(0);
        self.phase.store(at as u64, Relaxed);
    }

    pub(crate) fn set_elapsed_ns(&self, ns: u64) {
        self.elapsed_ns.store(ns, Relaxed);
    }

    pub(crate) fn set_in_flight(&self, calls: usize) {
        self.in_flight.store(calls as u64, Relaxed);
    }

    pub(crate) fn record_call(&self, status: Status, latency_ns: u64) {
        if let Some(counter) = self.statuses.get(usize::from(status.code())) {
            bump(counter, 1);
        }
        self.latency.record(latency_ns);
    }

    pub(crate) fn record_uncounted(&self) {
        bump(&self.uncounted_calls, 1);
    }

    /// A counted call that was sent and had no answer when the load ended; its latency is at least this.
    pub(crate) fn record_unanswered(&self, at_least_ns: u64) {
        bump(&self.unanswered, 1);
        self.latency.record(at_least_ns);
    }

    /// A counted call that was due and could not even be sent; its latency is at least this.
    pub(crate) fn record_unsent(&self, at_least_ns: u64) {
        bump(&self.unsent, 1);
        self.latency.record(at_least_ns);
    }

    pub(crate) fn record_requeued(&self) {
        bump(&self.requeued, 1);
    }

    /// How long after its intended time a call was sent.
    pub(crate) fn record_lateness(&self, ns: u64) {
        self.lateness.record(ns);
    }

    pub(crate) fn add_bytes(&self, tx: usize, rx: usize) {
        bump(&self.tx_bytes, tx as u64);
        bump(&self.rx_bytes, rx as u64);
    }
}

/// A copy of a [`Live`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where the load stands.
    pub phase: Phase,
    /// Time measured so far, without warm-up, ns.
    pub elapsed_ns: u64,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls that ended in the warm-up or after the end, and so were not counted.
    pub uncounted_calls: u64,
    /// Counted calls by status code.
    pub statuses: [u64; Status::COUNT],
    /// Counted calls that had no answer when the load ended.
    pub unanswered: u64,
    /// Counted calls that were due and never sent, because the target took no more (open loop).
    pub unsent: u64,
    /// Calls that the peer's GOAWAY said it never saw, and that were sent again.
    pub requeued: u64,
    /// Bytes of everything written to connections in the measured time.
    pub tx_bytes: u64,
    /// Bytes of everything read from connections in the measured time.
    pub rx_bytes: u64,
    /// Latencies of counted calls, ns; unanswered and unsent ones with what they had waited at the end.
    pub latency: Histogram,
    /// How long after its intended time each counted call was sent (open loop), ns.
    pub lateness: Histogram,
}

impl Snapshot {
    /// Counted calls that ended with a status.
    pub fn calls(&self) -> u64 {
        self.statuses.iter().sum()
    }

    /// Counted calls that ended with OK.
    pub fn ok(&self) -> u64 {
        let [ok, ..] = self.statuses;
        ok
    }

    /// Counted calls that did not end with OK, whatever became of them.
    pub fn failed(&self) -> u64 {
        self.calls() - self.ok() + self.unanswered + self.unsent
    }

    /// Counted calls that ended, a second.
    pub fn calls_per_s(&self) -> f64 {
        if self.elapsed_ns == 0 { 0.0 } else { self.calls() as f64 * 1e9 / self.elapsed_ns as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_within_half_a_percent() {
        let mut last = 0;
        for value in (0..5000u64).chain((13..40).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + 77])) {
            let bucket = bucket_of(value);
            assert!(bucket >= last && bucket < BUCKETS, "{value} is in {bucket} after {last}");
            last = bucket;
            let max = bucket_max(bucket);
            assert!(max >= value && (max - value) as f64 <= value as f64 / 255.0, "{value} reads as {max}");
            assert_eq!(bucket_of(max), bucket);
            assert_eq!(bucket_of(max + 1), bucket + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_follow_the_values() {
        let live = LiveHistogram::new();
        for us in 1..=1000u64 {
            live.record(us * 1000);
        }
        let all = live.snapshot();
        assert_eq!((all.count(), all.min_ns(), all.max_ns()), (1000, 1000, 1_000_000));
        for (q, us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0)] {
            let read = all.quantile_ns(q) as f64 / 1000.0;
            assert!((read - us).abs() <= us * 0.005, "p{q}: {read} µs");
        }
        assert_eq!(all.quantile_ns(1.0), 1_000_000);
        assert_eq!(all.quantile_ns(0.0), 1001, "the first bucket's upper end");
        assert_eq!(Histogram::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn a_difference_holds_only_what_came_after() {
        let live = LiveHistogram::new();
        live.record(100);
        let first = live.snapshot();
        live.record(1_000_000);
        let later = live.snapshot().since(&first);
        assert_eq!(later.count(), 1);
        assert!(later.quantile_ns(0.5).abs_diff(1_000_000) < 4000);
        let mut both = first.clone();
        both.merge(&later);
        assert_eq!((both.count(), both.min_ns()), (2, 100));
    }

    #[test]
    fn failures_are_everything_but_ok() {
        let live = Live::new();
        live.record_call(Status::OK, 10);
        live.record_call(Status::UNAVAILABLE, 20);
        live.record_unanswered(30);
        live.record_unsent(40);
        let seen = live.snapshot();
        assert_eq!((seen.calls(), seen.ok(), seen.failed()), (2, 1, 3));
        assert_eq!(seen.latency.count(), 4);
        assert_eq!(live.calls_with(Status::UNAVAILABLE), 1);
    }
}
