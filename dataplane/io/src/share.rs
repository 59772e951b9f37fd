//! How much of what the ports have received a turn takes.
//!
//! Behind a port the peers are a microsecond away, and what a turn has received is often all there is: every call in
//! flight. A turn that took it all would leave the peers without work until its flush, and then have none itself
//! until they are done: node and peers would work by turns, each waiting for the other. A turn that takes a part
//! gives the peers that part's answers to work on while it does the rest. With 128 calls in flight over memif that
//! is 780,000 calls a second instead of 440,000, and a quarter less CPU a call, most of which went into waiting.
//!
//! Only where the kernel is bypassed: where a burst is a system call (`xdp`, `net_af_packet`), the kernel does much of
//! the peers' work in it, and two bursts cost up to a tenth more a call than one.
//!
//! The part is one of the most that lately waited at once, not of what waits now: parts of parts would soon be
//! single calls, and a turn and its flush cost about as much as one.

/// What is no more than this is taken whole, bytes: some eight small calls.
const WHOLE_MAX: usize = 512;
/// The memory of the most loses one part in `1 << FADE` with each turn.
const FADE: u32 = 8;

/// One shard's memory of what waited, bytes.
#[derive(Debug, Default)]
pub(crate) struct Share {
    most: usize,
}

impl Share {
    /// Bytes that a turn takes which finds so many: two thirds of the most.
    pub(crate) fn of(&mut self, waiting: usize) -> usize {
        self.most = waiting.max(self.most - (self.most >> FADE));
        (self.most / 3 * 2).max(WHOLE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of a node whose peers answer what a flush brought them by the next turn: what each took.
    fn turns(share: &mut Share, in_flight: usize, count: usize) -> Vec<usize> {
        let (mut here, mut away) = (in_flight, 0);
        let turn = |_| {
            let taken = share.of(here).min(here);
            (here, away) = (here - taken + away, taken);
            taken
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn node_and_peers_have_work_at_the_same_time() {
        for in_flight in [2_000, 8_000, 100_000, 4 << 20] {
            let taken = turns(&mut Share::default(), in_flight, 1000);
            for &bytes in &taken {
                assert!((in_flight / 8..=in_flight * 3 / 4).contains(&bytes), "{bytes} of {in_flight}");
            }
        }
    }

    #[test]
    fn a_little_is_taken_whole_and_a_large_burst_is_forgotten() {
        let mut share = Share::default();
        assert_eq!(turns(&mut share, 65, 3), [65, 0, 65]);
        assert!(share.of(0) >= WHOLE_MAX, "a turn that takes nothing would never end");
        share.of(1 << 20);
        let turns = (0..4000).take_while(|_| share.of(600) > WHOLE_MAX).count();
        assert!((100..3000).contains(&turns), "forgotten after {turns} turns");
    }
}
