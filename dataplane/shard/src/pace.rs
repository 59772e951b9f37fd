//! When an answer waits for the others of its connection.
//!
//! A write costs much the same for one answer as for ten, and so does the caller's read of it. Calls of one
//! connection that came together mostly come back together, but for a few that a chain rejected or whose
//! endpoint was quick. Written at once each of these few is a write here and a read there, and since a busy
//! caller puts a new call in the place of an answered one, a small read here a moment later: the connection
//! falls apart into single calls. So, under load, they wait for the rest, if
//!
//! - at least [`CALLS_HEAVY_MIN`] calls are in flight, so that every write counts;
//! - more calls of the connection are out than answers wait: the rest will be the larger part of the write;
//! - the connection has at most a quarter of all calls: the others keep this core and its peers busy. A
//!   connection that has all of them fills its writes anyway, and holding them back would let peers run dry;
//! - waiting has paid off on this connection lately: where the rest does not come in time (slow endpoints,
//!   streams that stay open) it is given up, and tried again only now and then.
//!
//! Nothing waits longer than [`HOLD_NS`], nor if it is no answer: messages of open streams, resets, settings.

use wire::Instant;

/// From this many calls in flight on answers may wait.
const CALLS_HEAVY_MIN: usize = 16;
/// The longest an answer waits for others.
const HOLD_NS: u64 = 200_000;
/// A write of this many bytes is worth making.
const WORTH_BYTES: usize = 4 << 10;
/// Credit for waits that paid, at most.
const CREDIT_MAX: i8 = 16;
/// What one in vain costs.
const IN_VAIN: i8 = 4;
/// Without credit so many writes do not wait; then one does, to see whether it pays now.
const DEBT: i8 = -64;

/// One connection's answers that wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Answers complete since the last write.
    pub(crate) answers: u32,
    /// Since when they wait.
    since: Option<Instant>,
    /// Whether waiting has paid: no waiting below zero.
    credit: i8,
}

/// What a connection about to be written looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes to be written.
    pub(crate) bytes: usize,
    /// Calls of this connection still out.
    pub(crate) calls: usize,
    /// Of the whole shard.
    pub(crate) calls_of_all: usize,
}

impl Pace {
    /// Until when the answers wait; `None` if they are to be written now, which is taken as done.
    pub(crate) fn hold(&mut self, now: Instant, load: Load) -> Option<Instant> {
        let answers = self.answers as usize;
        let is_worth_it = answers > 0
            && load.calls_of_all >= CALLS_HEAVY_MIN
            && load.calls > answers
            && (load.calls + answers) * 4 <= load.calls_of_all
            && load.bytes < WORTH_BYTES;
        let until = self.since.unwrap_or(now).after_ns(HOLD_NS);
        if is_worth_it && self.credit < 0 {
            self.credit += 1;
        } else if is_worth_it && now < until {
            self.since = Some(now.min(self.since.unwrap_or(now)));
            return Some(until);
        } else if is_worth_it {
            self.credit -= IN_VAIN;
            if self.credit < 0 {
                self.credit = DEBT;
            }
        } else if self.since.is_some() {
            self.credit = (self.credit + 1).min(CREDIT_MAX);
        }
        self.written();
        None
    }

    /// All that waited is written.
    pub(crate) fn written(&mut self) {
        *self = Self { credit: self.credit, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of sixteen connections with eight calls each.
    const BUSY: Load = Load { bytes: 67, calls: 7, calls_of_all: 128 };

    fn at(ns: u64) -> Instant {
        Instant(1_000_000_000 + ns)
    }

    fn with_answers(answers: u32) -> Pace {
        Pace { answers, ..Pace::default() }
    }

    #[test]
    fn a_few_answers_wait_for_the_many_and_no_longer_than_agreed() {
        let mut pace = with_answers(1);
        assert_eq!(pace.hold(at(0), BUSY), Some(at(HOLD_NS)));
        pace.answers = 3;
        assert_eq!(pace.hold(at(50_000), Load { calls: 5, ..BUSY }), Some(at(HOLD_NS)), "from the first on");
        pace.answers = 4;
        assert_eq!(pace.hold(at(60_000), Load { calls: 4, ..BUSY }), None, "half are there");
        assert_eq!((pace.answers, pace.credit), (0, 1));
        pace.answers = 1;
        assert!(pace.hold(at(70_000), BUSY).is_some());
        assert_eq!(pace.hold(at(70_000 + HOLD_NS), BUSY), None, "too long");
    }

    #[test]
    fn nothing_waits_where_it_would_not_pay() {
        let cases = [
            ("an idle shard", 1, Load { calls: 3, calls_of_all: CALLS_HEAVY_MIN - 1, ..BUSY }),
            ("one connection with all calls", 1, Load { calls: 127, ..BUSY }),
            ("the last answer", 1, Load { calls: 0, ..BUSY }),
            ("many bytes", 1, Load { bytes: WORTH_BYTES, ..BUSY }),
            ("no answer: a message of an open stream", 0, BUSY),
        ];
        for (what, answers, load) in cases {
            assert_eq!(with_answers(answers).hold(at(0), load), None, "{what}");
        }
    }

    #[test]
    fn where_the_rest_does_not_come_waiting_is_given_up() {
        let mut pace = Pace::default();
        let (mut now, mut waits) = (at(0), 0);
        for _ in 0..1000 {
            pace.answers = 1;
            if let Some(until) = pace.hold(now, BUSY) {
                waits += 1;
                now = until;
                assert_eq!(pace.hold(now, BUSY), None);
            }
        }
        assert!((1..=20).contains(&waits), "{waits} of 1000 answers waited in vain");
        // And taken up again where it comes.
        let mut paid = 0;
        for _ in 0..1000 {
            pace.answers = 1;
            if pace.hold(now, BUSY).is_some() {
                pace.answers = 8;
                assert_eq!(pace.hold(now, Load { calls: 0, ..BUSY }), None);
                paid += 1;
            }
        }
        assert!(paid > 900, "{paid}");
    }
}
