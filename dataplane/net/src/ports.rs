//! Source ports of connections we open, chosen so that the answers come to this shard's queue.

use core::net::IpAddr;
use core::ops::RangeInclusive;

use shard::Steering;

use crate::Secret;

/// The range, and a generator to begin anywhere in it that nobody else can run (RFC 6056 section 3.3.1).
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    secret: Secret,
    state: u64,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, secret: Secret, seed: u64) -> Self {
        Self { range, secret, state: seed }
    }

    /// True if connections of ours may come from `port`.
    pub(crate) fn has(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// A port for a connection from `local` to `remote` that `is_free`; `None` if there is none.
    pub(crate) fn choose(
        &mut self,
        steering: &Steering,
        local: IpAddr,
        remote: (IpAddr, u16),
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let count = last - first + 1;
        let from = u32::try_from(self.random() % u64::from(count)).unwrap_or(0);
        let ports = (0..count).filter_map(|at| u16::try_from(first + (from + at) % count).ok());
        let comes_here = |port: u16| match steering {
            Steering::Single => true,
            Steering::Hash { queue, spread } => spread.queue(remote, (local, port)) == Some(*queue),
        };
        ports.into_iter().find(|port| is_free(*port) && comes_here(*port))
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        self.secret.hash(&self.state.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use hashbrown::HashSet;
    use shard::Spread;

    #[test]
    fn answers_to_a_chosen_port_come_to_the_queue_that_chose_it() {
        let key = (0..40_u8).map(|at| at.wrapping_mul(37) ^ 0x6d).collect::<Vec<_>>();
        let spread = Spread { key, table: (0..128).map(|at| at % 4).collect() };
        let local = IpAddr::from([10, 7, 0, 2]);
        let remote = (IpAddr::from([10, 7, 0, 9]), 50_051);
        for queue in 0..4 {
            let steering = Steering::Hash { queue, spread: spread.clone() };
            let mut ports = Ports::new(40_000..=41_999, Secret::from_seed(1), u64::from(queue));
            let mut taken = HashSet::new();
            while let Some(port) = ports.choose(&steering, local, remote, |port| !taken.contains(&port)) {
                assert_eq!(spread.queue(remote, (local, port)), Some(queue));
                assert!((40_000..=41_999).contains(&port) && taken.insert(port));
            }
            // All that hash here were found before it gave up.
            let all =
                (40_000..=41_999).filter(|port| spread.queue(remote, (local, *port)) == Some(queue)).count();
            assert_eq!(taken.len(), all);
            assert!(all > 300, "queue {queue}: {all}");
        }
    }
}
