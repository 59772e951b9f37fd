//! The first sequence numbers of connections (RFC 6528): a clock, and a place on it for each pair of ends that nobody can
//! compute without the secret. Who can predict them can speak in the name of an address that is not his.
//!
//! smoltcp 0.14 draws them from one generator of 64 bits, which two numbers in a row give away. But that generator can be
//! run backwards, so each connection gets one of its own, which draws the number that is wanted here.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use shard::Instant;

use crate::siphash::siphash;

/// Nanoseconds to a number. With the 4 µs of RFC 6528 the clock would be behind whoever sends more than 250 kB/s, and a
/// new connection of the same ends below the old one's numbers; so it is as fast as Linux's.
const TICK_NS: u64 = 64;
/// smoltcp's generator (`rand.rs`): a state is the last one times this plus that.
const FACTOR: u64 = 0xbb2e_fcec_3c39_611d;
const ADDEND: u64 = 0x7590_ef39;
/// What undoes the factor, modulo 2^64.
const INVERSE: u64 = inverse(FACTOR);

/// 128 random bits that no peer may learn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u64; 2]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of the system's random bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        let word = |at: usize| {
            let (words, _) = bytes.as_chunks::<8>();
            words.get(at).map_or(0, |word| u64::from_le_bytes(*word))
        };
        Self([word(0), word(1)])
    }

    /// For simulations, which are to repeat themselves.
    pub fn from_seed(seed: u64) -> Self {
        Self([siphash([seed, 0], &[0]), siphash([seed, 0], &[1])])
    }

    /// A number that cannot be told from a random one.
    pub(crate) fn hash(self, bytes: &[u8]) -> u64 {
        siphash(self.0, bytes)
    }

    /// The first sequence number of a connection between these ends that begins now.
    pub(crate) fn isn(self, local: (IpAddr, u16), remote: (IpAddr, u16), now: Instant) -> u32 {
        let mut ends = [0; 36];
        for (place, (ip, port)) in ends.chunks_exact_mut(18).zip([local, remote]) {
            place[..16].copy_from_slice(&octets(ip));
            place[16..].copy_from_slice(&port.to_be_bytes());
        }
        let [a, b, c, d, ..] = self.hash(&ends).to_le_bytes();
        let [e, f, g, h, ..] = (now.0 / TICK_NS).to_le_bytes();
        u32::from_le_bytes([a, b, c, d]).wrapping_add(u32::from_le_bytes([e, f, g, h]))
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => Ipv6Addr::from(ip.octets()),
    }
    .octets()
}

/// The seed with which smoltcp chooses this first sequence number. Before that it draws an IPv4 identification
/// (`Interface::new`), and again if it is zero.
pub(crate) fn seed_of(isn: u32) -> u64 {
    let back = |state: u64| state.wrapping_sub(ADDEND).wrapping_mul(INVERSE);
    // The three bits at the top say how many to drop at the bottom: 29 for none of them.
    let before = |low: u64| back(u64::from(isn) << 29 | low);
    let has_id = |state: &u64| {
        let drawn = state >> (29 - (state >> 61));
        (drawn ^ drawn >> 16) & 0xffff != 0
    };
    back((0..4).map(before).find(has_id).unwrap_or(0))
}

/// Newton's method: each step doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut out = odd;
    let mut bits = 3;
    while bits < 64 {
        out = out.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(out)));
        bits *= 2;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Clock, Faults, Hub};
    use crate::parse::be32;
    use crate::{Config, Stack};
    use core::net::SocketAddr;
    use shard::{Checksums, DeviceInfo, Steering};

    const OURS: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 7, 0, 1));
    const THEIRS: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 7, 0, 2));

    #[test]
    fn smoltcp_begins_where_it_is_told_to() {
        let clock = Clock::default();
        let hub = Hub::new(clock.clone(), Faults::default(), 1);
        let info = |last| DeviceInfo {
            mac: [2, 0, 0, 0, 0, last],
            mtu: 1500,
            checksums: Checksums::default(),
            steering: Steering::Single,
        };
        let config = Config::new(OURS, 24, 7);
        let secret = config.secret;
        let Ok(mut near) = Stack::open(hub.port(info(1), 1 << 16), config) else { return assert_eq!(1, 2) };
        let Ok(mut far) = Stack::open(hub.port(info(2), 1 << 16), Config::new(THEIRS, 24, 8)) else {
            return assert_eq!(1, 2);
        };
        let mut seen = 0;
        for port in 1000..3000_u16 {
            let now = Instant(u64::from(port) * 1_000_003);
            clock.set(now);
            hub.record();
            near.connect_from((OURS, port), SocketAddr::new(THEIRS, 80));
            near.send_all(now);
            for stack in [&mut far, &mut near] {
                stack.take_in(now);
                stack.send_all(now);
            }
            for frame in hub.record() {
                if frame[12..14] == [8, 0] && frame[34..36] == port.to_be_bytes() && frame[47] == 2 {
                    assert_eq!(be32(&frame, 38), secret.isn((OURS, port), (THEIRS, 80), now));
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 2000);
    }

    /// Whatever is drawn first is not zero, or smoltcp would draw again.
    #[test]
    fn every_number_has_a_seed() {
        for isn in (0..1_000_000_u32).map(|at| at.wrapping_mul(0x9e37_79b9)) {
            let next = |state: u64| state.wrapping_mul(FACTOR).wrapping_add(ADDEND);
            let drawn = |state: u64| (state >> (29 - (state >> 61))).to_le_bytes();
            let first = next(seed_of(isn));
            let [a, b, c, d, ..] = drawn(first);
            assert_ne!([a ^ c, b ^ d], [0, 0]);
            let [a, b, c, d, ..] = drawn(next(first));
            assert_eq!(u32::from_le_bytes([a, b, c, d]), isn);
        }
    }

    #[test]
    fn the_same_ends_begin_later_and_others_elsewhere() {
        let secret = Secret::from_seed(1);
        let isn = |port, at| secret.isn((OURS, port), (THEIRS, 80), Instant(at));
        assert_eq!(isn(1, 64_000_000).wrapping_sub(isn(1, 0)), 1_000_000);
        assert_eq!(isn(1, 0).wrapping_sub(isn(1, 64 << 31)), 1 << 31);
        assert_ne!(
            secret.isn((OURS, 1), (THEIRS, 2), Instant(0)),
            secret.isn((OURS, 2), (THEIRS, 1), Instant(0))
        );
        // Of the numbers of neighbouring ports no bit is set more often than another.
        for bit in 0..32 {
            let set = (0..4096).filter(|port| isn(*port, 0) >> bit & 1 != 0).count();
            assert!((1850..2250).contains(&set), "bit {bit}: {set} of 4096");
        }
    }
}
