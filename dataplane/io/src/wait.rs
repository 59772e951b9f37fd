//! How long to spin before blocking. No clock and no system call here: both backends share it.
//!
//! A block costs a wake-up across cores (some 12 µs later, some 3 µs of CPU); a spin costs all the time it
//! takes. So spin only where it has paid off: the last gaps were mostly shorter than the spin, and few calls
//! are in flight. With many in flight spinning would hand over each event as it comes, and a longer sleep
//! brings larger bursts for the same system call.
//!
//! What a shard itself holds back, and for how long, is `shard`'s to decide (its `pace.rs`).

use crate::Poll;

/// The longest spin after the last event.
pub(crate) const SPIN_NS: u64 = 20_000;
/// With more calls in flight than this a wait blocks at once.
const CALLS_LIGHT_MAX: u32 = 4;
/// From this many calls in flight on, sends are put off while more is being received.
const CALLS_HEAVY_MIN: u32 = 16;
/// If there are at least so many of them.
const PUT_OFF_SENDS_MIN: usize = 4;
/// For at most so many turns.
const PUT_OFF_TURNS_MAX: u32 = 4;
/// A gap as long as this or shorter, seen by a wait that blocked, would have been short enough for a spin:
/// the wake-up itself is in it.
const BLOCKED_GAP_NS: u64 = SPIN_NS + 10_000;
/// The weight of one gap in the average: 1/8.
const SHIFT: u32 = 3;
/// The average's scale: what it tends to when every gap is short.
const FULL: u32 = 1 << 10;
/// Above this share of short gaps spinning pays.
const PAYS: u32 = FULL * 6 / 10;

/// One shard's memory of its waits.
#[derive(Debug)]
pub(crate) struct WaitPolicy {
    mode: Poll,
    /// Moving average of "the gap was short".
    short: u32,
    calls: u32,
    /// Turns since sends have been put off.
    put_off: u32,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// Spin for at most this long, then block.
    Spin(u64),
    /// Block at once.
    Block,
    /// Spin until there is something.
    SpinForEver,
}

impl WaitPolicy {
    pub(crate) fn new(mode: Poll) -> Self {
        Self { mode, short: 0, calls: 0, put_off: 0 }
    }

    /// Calls in flight on this shard.
    pub(crate) fn calls(&mut self, calls: u32) {
        self.calls = calls;
    }

    pub(crate) fn plan(&self) -> Plan {
        match self.mode {
            Poll::Busy => Plan::SpinForEver,
            Poll::Block => Plan::Block,
            Poll::Adaptive if self.calls <= CALLS_LIGHT_MAX && self.short >= PAYS => Plan::Spin(SPIN_NS),
            Poll::Adaptive => Plan::Block,
        }
    }

    /// Whether a flush should see if there is more to receive, rather than send to this many connections now.
    /// A send costs much the same for one call as for ten, so under load, where each connection gets a few at
    /// a time, they should share it. With few connections the sends are large already, and holding them back
    /// would only let the peers run dry.
    pub(crate) fn may_put_off(&self, sends: usize) -> bool {
        self.calls >= CALLS_HEAVY_MIN && sends >= PUT_OFF_SENDS_MIN && self.put_off < PUT_OFF_TURNS_MAX
    }

    /// A flush sends, or puts it off because there is more to receive: nothing idles meanwhile.
    pub(crate) fn flushed(&mut self, puts_off: bool) {
        self.put_off = if puts_off { self.put_off + 1 } else { 0 };
    }

    /// A wait has ended after this long, blocked or not.
    pub(crate) fn ended(&mut self, gap_ns: u64, blocked: bool) {
        let short = gap_ns <= if blocked { BLOCKED_GAP_NS } else { SPIN_NS };
        let target = if short { FULL } else { 0 };
        self.short = (self.short * ((1 << SHIFT) - 1) + target) >> SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: &[u64]) -> WaitPolicy {
        let mut policy = WaitPolicy::new(Poll::Adaptive);
        for &gap in gaps {
            policy.ended(gap, policy.plan() == Plan::Block);
        }
        policy
    }

    #[test]
    fn an_idle_shard_blocks() {
        assert_eq!(WaitPolicy::new(Poll::Adaptive).plan(), Plan::Block);
        assert_eq!(after(&[1_000_000; 20]).plan(), Plan::Block);
    }

    #[test]
    fn short_gaps_make_it_spin_and_long_ones_stop_it() {
        let mut policy = after(&[15_000; 20]);
        assert_eq!(policy.plan(), Plan::Spin(SPIN_NS));
        let mut waits = 0;
        while policy.plan() != Plan::Block {
            policy.ended(500_000, true);
            waits += 1;
        }
        assert!(waits <= 5, "wasted {waits} spins after the load went");
    }

    #[test]
    fn one_short_gap_in_three_is_not_enough() {
        let gaps: Vec<u64> = (0..60).map(|at| if at % 3 == 0 { 5_000 } else { 200_000 }).collect();
        assert_eq!(after(&gaps).plan(), Plan::Block);
    }

    #[test]
    fn many_calls_in_flight_block_for_larger_bursts() {
        let mut policy = after(&[5_000; 20]);
        policy.calls(CALLS_LIGHT_MAX + 1);
        assert_eq!(policy.plan(), Plan::Block);
        policy.calls(1);
        assert_eq!(policy.plan(), Plan::Spin(SPIN_NS));
    }

    #[test]
    fn sends_wait_for_more_under_load_but_not_for_ever() {
        let mut policy = WaitPolicy::new(Poll::Block);
        assert!(!policy.may_put_off(100), "no load");
        policy.calls(CALLS_HEAVY_MIN);
        assert!(!policy.may_put_off(PUT_OFF_SENDS_MIN - 1), "few sends");
        let mut turns = 0;
        while policy.may_put_off(PUT_OFF_SENDS_MIN) {
            policy.flushed(true);
            turns += 1;
        }
        assert_eq!(turns, PUT_OFF_TURNS_MAX);
        policy.flushed(false);
        assert!(policy.may_put_off(PUT_OFF_SENDS_MIN), "and again after a flush");
    }

    #[test]
    fn the_other_modes_do_not_learn() {
        let mut busy = WaitPolicy::new(Poll::Busy);
        busy.ended(1_000_000_000, true);
        assert_eq!(busy.plan(), Plan::SpinForEver);
        let mut block = WaitPolicy::new(Poll::Block);
        for _ in 0..20 {
            block.ended(1, false);
        }
        assert_eq!(block.plan(), Plan::Block);
    }
}
