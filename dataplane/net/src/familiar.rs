//! Who deserves a place in a backlog that a flood has filled: sources that have completed a handshake before,
//! and SYNs that come for the second time, as an honest caller's does after a second. Senders who forge their
//! address can do neither, unless they know whom to pretend to be, or send everything twice.
//!
//! Both are remembered by hash, in tables of fixed size: the newest source displaces another of its place, and
//! a SYN is forgotten after a second or two. Hashes are keyed, so nobody can aim at a place.

use alloc::vec::Vec;
use core::net::IpAddr;

use shard::Instant;

use crate::parse::Flow;

/// Sources remembered; a power of two.
const SOURCES: usize = 4096;
/// Words of a table of SYNs; a power of two. With 75,000 SYNs in each of two tables, which is 100,000 a second,
/// one in some hundreds is taken for a second one.
const WORDS: usize = 1 << 15;
/// Bits of its word that a SYN sets.
const BITS: u32 = 4;
/// For so long SYNs are noted in one table; the two before it say which have been seen. So a SYN counts as
/// seen from 0 to 750 ms after it came, and until 1500 to 2250 ms after.
const TABLE_NS: u64 = 750_000_000;

#[derive(Debug)]
pub(crate) struct Familiar {
    seed: u64,
    /// Hashes of sources.
    sources: Vec<u32>,
    tables: [Vec<u64>; 3],
    /// Which table is filled, and since when.
    table: usize,
    since: Instant,
}

/// SplitMix64's finalizer, chained.
fn mix(state: u64, word: u64) -> u64 {
    let mut x = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The lower half.
fn low(word: u128) -> u64 {
    u64::try_from(word & u128::from(u64::MAX)).unwrap_or(0)
}

impl Familiar {
    /// Of what a hash of the stack's secret seeds.
    pub(crate) fn new(seed: u64) -> Self {
        let table = || alloc::vec![0; WORDS];
        let tables = [table(), table(), table()];
        Self { seed, sources: alloc::vec![0; SOURCES], tables, table: 0, since: Instant(0) }
    }

    /// A source's place and tag.
    fn source(&self, source: u128) -> (usize, u32) {
        let hash = mix(mix(self.seed, low(source)), low(source >> 64));
        // Zero is nobody's.
        (low_bits(hash, SOURCES), u32::try_from(hash >> 32).unwrap_or(0) | 1)
    }

    /// This source has completed a handshake.
    pub(crate) fn remember(&mut self, source: u128) {
        let (place, tag) = self.source(source);
        self.sources[place] = tag;
    }

    /// True if it has, as far as is remembered.
    pub(crate) fn knows(&self, source: u128) -> bool {
        let (place, tag) = self.source(source);
        self.sources[place] == tag
    }

    /// A SYN's word, and its bits there.
    fn syn(&self, flow: &Flow, seq: u32) -> (usize, u64) {
        let remote = match flow.remote {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let ports =
            u64::from(flow.remote_port) << 32 | u64::from(flow.local) << 16 | u64::from(flow.local_port);
        let hash = [low(remote), low(remote >> 64), ports, seq.into()].into_iter().fold(self.seed, mix);
        let bits = (0..BITS).fold(0, |bits, at| bits | 1 << (hash >> (32 + 6 * at) & 63));
        (low_bits(hash, WORDS), bits)
    }

    /// True if a SYN like this was noted in an earlier table.
    pub(crate) fn has_seen(&mut self, flow: &Flow, seq: u32, now: Instant) -> bool {
        self.turn(now);
        let (word, bits) = self.syn(flow, seq);
        let others = (0..3).filter(|at| *at != self.table);
        others.into_iter().any(|at| self.tables[at][word] & bits == bits)
    }

    /// A SYN finds no place.
    pub(crate) fn note(&mut self, flow: &Flow, seq: u32) {
        let (word, bits) = self.syn(flow, seq);
        self.tables[self.table][word] |= bits;
    }

    /// Begins the next table when it is time.
    fn turn(&mut self, now: Instant) {
        let mut tables = now.since_ns(self.since) / TABLE_NS;
        if tables > 0 {
            self.since = now;
        }
        while tables > 0 {
            self.table = (self.table + 1) % 3;
            self.tables[self.table].fill(0);
            // Three are all.
            tables = tables.min(3) - 1;
        }
    }
}

/// `hash` below `len`, a power of two.
fn low_bits(hash: u64, len: usize) -> usize {
    usize::try_from(hash & (len as u64 - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn flow(at: u32) -> Flow {
        Flow { remote: IpAddr::from(at.to_be_bytes()), remote_port: 4000, local: 0, local_port: 80 }
    }

    #[test]
    fn a_syn_is_known_again_a_second_later_and_hardly_any_other_is() {
        let mut familiar = Familiar::new(5);
        let mut known = 0;
        // 100,000 a second for four seconds, each tenth again after a second; the same at once is no second one.
        for at in 0..400_000_u32 {
            let now = Instant(1000 * MS + u64::from(at) * 10_000);
            known += u32::from(familiar.has_seen(&flow(at), 1, now));
            familiar.note(&flow(at), 1);
            if at % 10 == 0 && at >= 100_000 {
                assert!(familiar.has_seen(&flow(at - 100_000), 1, now), "{at}");
            }
        }
        assert!(known < 1500, "{known} of 400,000");
        assert!(!familiar.has_seen(&flow(399_999), 2, Instant(6000 * MS)), "another number");
        assert!(!familiar.has_seen(&flow(399_999), 1, Instant(9000 * MS)), "too late");
    }

    #[test]
    fn a_source_is_known_until_others_take_its_place() {
        let mut familiar = Familiar::new(5);
        familiar.remember(7);
        assert!(familiar.knows(7) && !familiar.knows(8));
        let strangers = (1000..101_000).filter(|source| familiar.knows(*source)).count();
        assert_eq!(strangers, 0);
        (1000..101_000).for_each(|source| familiar.remember(source));
        assert!(!familiar.knows(7) && familiar.knows(100_999));
    }
}
