//! Who listens, and the backlog: connections whose handshake has begun.
//!
//! There are no SYN cookies: a SYN takes a socket. So there are at most `half_open_max` of them, at most
//! `half_open_source_max` from one source, and when they are all taken a new SYN takes the place of the one
//! that has waited longest, once that has had time for an honest round trip.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use shard::{ConnId, Instant, ListenerId};

use crate::{Limits, Listener};

/// How long a handshake may take undisturbed.
const GRACE_NS: u64 = 250_000_000;

/// Listeners and the backlog they share.
#[derive(Debug)]
pub(crate) struct Backlog {
    listeners: Vec<Listener>,
    /// In order of arrival; entries whose handshake is over stay until they are met.
    queue: VecDeque<(Instant, ConnId)>,
    sources: HashMap<u128, u32>,
    count: u32,
    max: u32,
    source_max: u32,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// There is room.
    Yes,
    /// There is room once this one, which may be over already, has gone; then ask again.
    Instead(ConnId),
    /// The backlog is full.
    Full,
    /// Its source has had its share.
    SourceFull,
}

/// A source as it is counted: an IPv4 address, or an IPv6 network of 64 bits, which one host can fill.
fn source(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip) >> 64 | 1 << 127,
    }
}

impl Backlog {
    pub(crate) fn new(listeners: Vec<Listener>, limits: &Limits) -> Self {
        Self {
            listeners,
            queue: VecDeque::new(),
            sources: HashMap::new(),
            count: 0,
            max: limits.half_open_max,
            source_max: limits.half_open_source_max,
        }
    }

    /// Who listens at an address: the listener of exactly this address before one of all.
    pub(crate) fn listener(&self, ip: IpAddr, port: u16) -> Option<ListenerId> {
        let at = |address: IpAddr| self.listeners.iter().find(|l| l.port == port && l.address == address);
        let any = match ip {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        at(ip).or_else(|| at(any)).map(|listener| listener.id)
    }

    /// Nobody listens any more.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether a SYN from `ip` may have a socket.
    pub(crate) fn admit(&mut self, ip: IpAddr, now: Instant) -> Admission {
        if self.sources.get(&source(ip)).is_some_and(|count| *count >= self.source_max) {
            return Admission::SourceFull;
        }
        if self.count < self.max {
            return Admission::Yes;
        }
        match self.queue.front() {
            Some((since, conn)) if now.since_ns(*since) >= GRACE_NS => {
                let conn = *conn;
                self.queue.pop_front();
                Admission::Instead(conn)
            }
            _ => Admission::Full,
        }
    }

    /// A handshake begins.
    pub(crate) fn enter(&mut self, ip: IpAddr, conn: ConnId, now: Instant) {
        self.count += 1;
        *self.sources.entry(source(ip)).or_insert(0) += 1;
        self.queue.push_back((now, conn));
    }

    /// A handshake is over, one way or another.
    pub(crate) fn leave(&mut self, ip: IpAddr) {
        self.count = self.count.saturating_sub(1);
        let key = source(ip);
        if let Some(count) = self.sources.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&key);
            }
        }
    }

    /// Forgets entries whose handshake is over, when they have become many.
    pub(crate) fn tidy(&mut self, mut is_half_open: impl FnMut(ConnId) -> bool) {
        if self.queue.len() > 2 * self.max as usize {
            self.queue.retain(|(_, conn)| is_half_open(*conn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn a_source_has_its_share_and_the_longest_waiting_gives_way() {
        let limits = Limits { half_open_max: 4, half_open_source_max: 2, ..Limits::default() };
        let mut backlog = Backlog::new(Vec::new(), &limits);
        let ip = |last: u8| IpAddr::from([10, 7, 0, last]);
        for at in 0..4 {
            let from = ip(1 + at / 2);
            assert_eq!(backlog.admit(from, Instant(0)), Admission::Yes);
            backlog.enter(from, conn(u32::from(at)), Instant(0));
        }
        assert_eq!(backlog.admit(ip(1), Instant(0)), Admission::SourceFull);
        assert_eq!(backlog.admit(ip(3), Instant(0)), Admission::Full);
        assert_eq!(backlog.admit(ip(3), Instant(GRACE_NS)), Admission::Instead(conn(0)));
        backlog.leave(ip(1));
        assert_eq!(backlog.admit(ip(3), Instant(GRACE_NS)), Admission::Yes);
        assert_eq!(backlog.admit(ip(1), Instant(GRACE_NS)), Admission::Yes);
        // One host has a whole /64.
        let v6 = |host: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]);
        backlog.enter(v6(1), conn(9), Instant(0));
        backlog.enter(v6(2), conn(10), Instant(0));
        assert_eq!(backlog.admit(v6(3), Instant(0)), Admission::SourceFull);
    }

    #[test]
    fn the_exact_address_comes_before_all_addresses() {
        let listener = |id, address: &str, port| Listener {
            id: ListenerId(id),
            address: address.parse().unwrap(),
            port,
        };
        let all = alloc::vec![listener(1, "0.0.0.0", 80), listener(2, "10.7.0.2", 80), listener(3, "::", 80)];
        let mut backlog = Backlog::new(all, &Limits::default());
        let find = |backlog: &Backlog, ip: &str| backlog.listener(ip.parse().unwrap(), 80);
        assert_eq!(find(&backlog, "10.7.0.2"), Some(ListenerId(2)));
        assert_eq!(find(&backlog, "10.7.0.3"), Some(ListenerId(1)));
        assert_eq!(find(&backlog, "fd00::1"), Some(ListenerId(3)));
        assert_eq!(backlog.listener("10.7.0.2".parse().unwrap(), 81), None);
        backlog.close();
        assert_eq!(find(&backlog, "10.7.0.2"), None);
    }
}
