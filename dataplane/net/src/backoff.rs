//! A port that takes no frames, because its queue is full or its buffers are all under way: when it is tried
//! again. A full queue drains in microseconds; a port whose link is down may stay as it is for minutes.

use shard::Instant;

/// The first pause; each in vain is followed by one twice as long.
const FIRST_NS: u64 = 50_000;
/// The longest.
const LAST_NS: u64 = 10_000_000;
/// So often sockets are asked although nothing can be sent: they have peers to give up.
const LOOK_NS: u64 = 1_000_000_000;

/// When to try again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// The present pause and its end; none if the port took everything.
    pause: Option<(u64, Instant)>,
    looked: Instant,
    /// Frames the port had taken by then.
    taken: u64,
}

impl Backoff {
    /// The end of the pause; of a first one if there is none.
    pub(crate) fn until(&self, now: Instant) -> Instant {
        self.pause.map_or(now.after_ns(FIRST_NS), |(_, until)| until)
    }

    /// True once in a while, as long as the port is stuck.
    pub(crate) fn looks(&mut self, now: Instant) -> bool {
        let is_due = self.pause.is_some() && now.since_ns(self.looked) >= LOOK_NS;
        if is_due {
            self.looked = now;
        }
        is_due
    }

    /// The port has taken everything.
    pub(crate) fn end(&mut self) {
        self.pause = None;
    }

    /// The port is stuck, and has taken so many frames since it was opened.
    pub(crate) fn note(&mut self, taken: u64, now: Instant) {
        let has_moved = core::mem::replace(&mut self.taken, taken) != taken;
        let pause_ns = match self.pause {
            None => {
                self.looked = now;
                FIRST_NS
            }
            Some(_) if has_moved => FIRST_NS,
            Some((pause_ns, until)) if until <= now => (2 * pause_ns).min(LAST_NS),
            Some(_) => return,
        };
        self.pause = Some((pause_ns, now.after_ns(pause_ns)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_moves_and_begin_anew_when_something_does() {
        let mut backoff = Backoff::default();
        let mut now = Instant(0);
        let mut pauses = [0; 10];
        for pause in &mut pauses {
            backoff.note(7, now);
            // Looking more often changes nothing.
            backoff.note(7, now);
            *pause = backoff.until(now).since_ns(now) / 1000;
            now = backoff.until(now);
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.note(8, now);
        assert_eq!(backoff.until(now).since_ns(now), FIRST_NS);
        let looks = (1..=350).filter(|at| backoff.looks(Instant(at * LAST_NS))).count();
        assert_eq!(looks, 3);
        backoff.end();
        assert!(!backoff.looks(Instant(9 * LOOK_NS)));
    }
}
