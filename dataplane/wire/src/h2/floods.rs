//! Who sends more than honest peers do, and by which rule. The numbers are in `limits.rs`.
//!
//! Every rule answers before work is done for the frame, and costs an addition and a compare: refilling by
//! time happens only when a bucket is empty.

use super::Fault;
use super::limits::*;
use crate::Instant;

/// Begins full; takes one each; refilled by time when empty, and by `give`.
#[derive(Debug)]
struct Bucket {
    left: u32,
    max: u32,
    per_second: u32,
    refilled_at: Instant,
}

impl Bucket {
    const fn new(max: u32, per_second: u32, now: Instant) -> Self {
        Self { left: max, max, per_second, refilled_at: now }
    }

    fn take(&mut self, n: u32, now: Instant) -> bool {
        if self.left < n {
            let earned =
                u128::from(now.since_ns(self.refilled_at)) * u128::from(self.per_second) / 1_000_000_000;
            if earned > 0 {
                self.refilled_at = now;
                self.give(u32::try_from(earned).unwrap_or(u32::MAX));
            }
        }
        match self.left.checked_sub(n) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn give(&mut self, n: u32) {
        self.left = self.left.saturating_add(n).min(self.max);
    }
}

/// The budgets of one connection.
#[derive(Debug)]
pub(crate) struct Floods {
    cheap: Bucket,
    resets: Bucket,
    window_updates: u32,
    priorities: u32,
    control_queued: u32,
    empty_run: u8,
}

impl Floods {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            cheap: Bucket::new(CHEAP_FRAMES_MAX, CHEAP_FRAMES_PER_SECOND, now),
            resets: Bucket::new(RESETS_MAX, RESETS_PER_SECOND, now),
            window_updates: WINDOW_UPDATES_MAX,
            priorities: PRIORITY_PER_STREAM,
            control_queued: 0,
            empty_run: 0,
        }
    }

    /// A frame that costs the peer nothing; `fault` names its kind.
    pub(crate) fn cheap(&mut self, n: u32, now: Instant, fault: Fault) -> Result<(), Fault> {
        if self.cheap.take(n, now) { Ok(()) } else { Err(fault) }
    }

    /// A stream of the peer's, or of ours, began.
    pub(crate) fn stream_opened(&mut self) {
        self.cheap.give(1);
        self.priorities = self.priorities.saturating_add(PRIORITY_PER_STREAM).min(PRIORITY_PER_STREAM * 100);
        self.window_updates =
            self.window_updates.saturating_add(WINDOW_UPDATES_PER_STREAM).min(WINDOW_UPDATES_MAX);
    }

    /// A stream ended as it should.
    pub(crate) fn stream_completed(&mut self) {
        self.resets.give(1);
    }

    /// We reset a stream by our own will: up to four frames of its may be on their way.
    pub(crate) fn we_reset(&mut self) {
        self.cheap.give(4);
    }

    /// The peer reset a stream of this age.
    pub(crate) fn peer_reset(&mut self, age_ns: u64, now: Instant) -> Result<(), Fault> {
        if age_ns < RESET_YOUNG_NS && !self.resets.take(1, now) {
            return Err(Fault::FloodRapidReset);
        }
        Ok(())
    }

    /// The peer broke a stream, and we are about to reset it.
    pub(crate) fn made_reset(&mut self, now: Instant) -> Result<(), Fault> {
        if self.resets.take(1, now) { Ok(()) } else { Err(Fault::FloodMadeReset) }
    }

    /// DATA arrived with so many bytes of body, on any stream.
    pub(crate) fn data_received(&mut self, bytes: u32, end: bool) -> Result<(), Fault> {
        if bytes > 0 || end {
            self.empty_run = 0;
            return Ok(());
        }
        self.empty_frame()
    }

    /// Bytes of a body were of use.
    pub(crate) fn data_taken(&mut self) {
        self.cheap.give(1);
    }

    /// A frame arrived with an empty payload and without END_STREAM.
    pub(crate) fn empty_frame(&mut self) -> Result<(), Fault> {
        self.empty_run += 1;
        if self.empty_run > EMPTY_RUN_MAX { Err(Fault::FloodEmpty) } else { Ok(()) }
    }

    /// A header block with something in it arrived.
    pub(crate) fn headers_received(&mut self) {
        self.empty_run = 0;
    }

    /// We sent a DATA frame of so many bytes.
    pub(crate) fn data_sent(&mut self, bytes: usize) {
        self.cheap.give(1);
        let by_bytes = u32::try_from(bytes).unwrap_or(u32::MAX) / WINDOW_UPDATE_PER_BYTES;
        let more = WINDOW_UPDATES_PER_DATA + by_bytes;
        self.window_updates = self.window_updates.saturating_add(more).min(WINDOW_UPDATES_MAX);
    }

    pub(crate) fn window_update(&mut self) -> Result<(), Fault> {
        self.window_updates = self.window_updates.checked_sub(1).ok_or(Fault::FloodWindowUpdate)?;
        Ok(())
    }

    pub(crate) fn priority(&mut self) -> Result<(), Fault> {
        self.priorities = self.priorities.checked_sub(1).ok_or(Fault::FloodPriority)?;
        Ok(())
    }

    /// An answer the peer made us queue.
    pub(crate) fn control_queued(&mut self) -> Result<(), Fault> {
        self.control_queued += 1;
        if self.control_queued > CONTROL_FRAMES_MAX { Err(Fault::FloodControl) } else { Ok(()) }
    }

    /// The peer took bytes.
    pub(crate) const fn tx_progress(&mut self) {
        self.control_queued = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_refills_with_time_up_to_its_size() {
        let mut b = Bucket::new(10, 5, Instant(0));
        assert!((0..10).all(|_| b.take(1, Instant(0))));
        assert!(!b.take(1, Instant(S / 10)));
        assert!(b.take(1, Instant(S / 5)));
        assert!(!b.take(1, Instant(S / 5)));
        assert!(b.take(10, Instant(100 * S)));
        assert!(!b.take(1, Instant(100 * S)));
    }

    #[test]
    fn rapid_reset_trips_and_cancels_by_a_deadline_do_not() {
        let mut f = Floods::new(Instant(0));
        let trips = (0..9000).position(|_| f.peer_reset(0, Instant(0)).is_err());
        assert_eq!(trips, Some(RESETS_MAX as usize));
        let mut f = Floods::new(Instant(0));
        assert!((0..100_000).all(|i| f.peer_reset(10_000_000, Instant(i * 100_000)).is_ok()));
        // Young resets are no harm while as many calls complete.
        assert!((0..100_000).all(|_| {
            f.stream_completed();
            f.peer_reset(0, Instant(0)).is_ok()
        }));
    }

    #[test]
    fn window_updates_are_earned_by_data() {
        let mut f = Floods::new(Instant(0));
        assert!((0..100_000).all(|_| {
            f.data_sent(100);
            (0..WINDOW_UPDATES_PER_DATA).all(|_| f.window_update().is_ok())
        }));
        assert_eq!((0..20_000).position(|_| f.window_update().is_err()), Some(9990));
    }
}
