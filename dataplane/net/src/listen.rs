//! Who listens, and the backlog: connections whose handshake has begun.
//!
//! There are no SYN cookies: a SYN takes a socket. So there are at most `half_open_max` of them, at most
//! `half_open_source_max` from one source, and when they are all taken a new SYN takes the place of the one
//! that has waited longest, once that has had time for an honest round trip. A quarter of the places is kept
//! for those who are more likely honest, who only make way for each other: see `familiar`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use shard::{ConnId, Instant, ListenerId};

use crate::familiar::Familiar;
use crate::parse::Flow;
use crate::{Limits, Listener};

/// How long a handshake may take undisturbed.
const GRACE_NS: u64 = 250_000_000;
/// Of the kept places one source has at most this part of what it may have in all.
const KEPT_SHARE: u32 = 16;

/// Listeners and the backlog they share.
#[derive(Debug)]
pub(crate) struct Backlog {
    listeners: Vec<Listener>,
    /// The places for all, and those kept.
    places: [Places; 2],
    sources: HashMap<u128, u32>,
    familiar: Familiar,
    source_max: u32,
}

/// Places of one kind.
#[derive(Debug)]
struct Places {
    /// In order of arrival; entries whose handshake is over stay until they are met.
    queue: VecDeque<(Instant, ConnId)>,
    count: u32,
    max: u32,
}

impl Places {
    fn new(max: u32) -> Self {
        Self { queue: VecDeque::new(), count: 0, max }
    }
}

/// Which kind of place a handshake has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Anybody's.
    Common,
    /// Of a source that is more likely honest.
    Kept,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// There is room of this kind.
    Yes(Kind),
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
    pub(crate) fn new(listeners: Vec<Listener>, limits: &Limits, seed: u64) -> Self {
        Self {
            listeners,
            places: [limits.half_open_max - limits.half_open_max / 4, limits.half_open_max / 4]
                .map(Places::new),
            sources: HashMap::new(),
            familiar: Familiar::new(seed),
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
        self.places.iter().map(|places| places.count).sum()
    }

    /// Whether a SYN may have a socket.
    pub(crate) fn admit(&mut self, flow: &Flow, seq: u32, now: Instant) -> Admission {
        let source = source(flow.remote);
        let has = self.sources.get(&source).copied().unwrap_or(0);
        if has >= self.source_max {
            return Admission::SourceFull;
        }
        let [common, kept] = &self.places;
        if common.count < common.max {
            return Admission::Yes(Kind::Common);
        }
        let is_favoured = has < self.source_max.div_ceil(KEPT_SHARE)
            && (self.familiar.knows(source) || self.familiar.has_seen(flow, seq, now));
        if is_favoured && kept.count < kept.max {
            return Admission::Yes(Kind::Kept);
        }
        let kinds = self.places.iter_mut().take(if is_favoured { 2 } else { 1 });
        let is_old = |places: &&mut Places| {
            places.queue.front().is_some_and(|(since, _)| now.since_ns(*since) >= GRACE_NS)
        };
        let oldest = kinds.rev().find(is_old).and_then(|places| places.queue.pop_front());
        if let Some((_, conn)) = oldest {
            return Admission::Instead(conn);
        }
        self.familiar.note(flow, seq);
        Admission::Full
    }

    /// A handshake begins.
    pub(crate) fn enter(&mut self, ip: IpAddr, kind: Kind, conn: ConnId, now: Instant) {
        *self.sources.entry(source(ip)).or_insert(0) += 1;
        let places = &mut self.places[kind as usize];
        places.count += 1;
        places.queue.push_back((now, conn));
    }

    /// A handshake is complete.
    pub(crate) fn accept(&mut self, ip: IpAddr, kind: Kind) {
        self.familiar.remember(source(ip));
        self.leave(ip, kind);
    }

    /// A handshake is over, one way or another.
    pub(crate) fn leave(&mut self, ip: IpAddr, kind: Kind) {
        let places = &mut self.places[kind as usize];
        places.count = places.count.saturating_sub(1);
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
        for places in &mut self.places {
            if places.queue.len() > 2 * places.max as usize {
                places.queue.retain(|(_, conn)| is_half_open(*conn));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    fn flow(remote: IpAddr) -> Flow {
        Flow { remote, remote_port: 4000, local: 0, local_port: 80 }
    }

    fn admit(backlog: &mut Backlog, ip: IpAddr, at: u64) -> Admission {
        backlog.admit(&flow(ip), 1, Instant(at))
    }

    #[test]
    fn a_source_has_its_share_and_the_longest_waiting_gives_way() {
        // One of the five is kept.
        let limits = Limits { half_open_max: 5, half_open_source_max: 2, ..Limits::default() };
        let mut backlog = Backlog::new(Vec::new(), &limits, 0);
        let ip = |last: u8| IpAddr::from([10, 7, 0, last]);
        for at in 0..4 {
            let from = ip(1 + at / 2);
            assert_eq!(admit(&mut backlog, from, 0), Admission::Yes(Kind::Common));
            backlog.enter(from, Kind::Common, conn(u32::from(at)), Instant(0));
        }
        assert_eq!(admit(&mut backlog, ip(1), 0), Admission::SourceFull);
        assert_eq!(admit(&mut backlog, ip(3), 0), Admission::Full);
        assert_eq!(admit(&mut backlog, ip(3), GRACE_NS), Admission::Instead(conn(0)));
        backlog.leave(ip(1), Kind::Common);
        assert_eq!(admit(&mut backlog, ip(3), GRACE_NS), Admission::Yes(Kind::Common));
        assert_eq!(admit(&mut backlog, ip(1), GRACE_NS), Admission::Yes(Kind::Common));
        // One host has a whole /64.
        let v6 = |host: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]);
        backlog.enter(v6(1), Kind::Common, conn(9), Instant(0));
        backlog.enter(v6(2), Kind::Common, conn(10), Instant(0));
        assert_eq!(admit(&mut backlog, v6(3), 0), Admission::SourceFull);
    }

    #[test]
    fn who_was_here_or_comes_again_has_kept_places_but_not_all_of_them() {
        const SECOND: u64 = 1_000_000_000;
        let limits = Limits { half_open_max: 16, half_open_source_max: 32, ..Limits::default() };
        let mut backlog = Backlog::new(Vec::new(), &limits, 0);
        let ip = |last: u8| IpAddr::from([10, 7, 0, last]);
        backlog.enter(ip(200), Kind::Common, conn(200), Instant(0));
        backlog.accept(ip(200), Kind::Common);
        let now = SECOND;
        for last in 1..=12 {
            assert_eq!(admit(&mut backlog, ip(last), now), Admission::Yes(Kind::Common));
            backlog.enter(ip(last), Kind::Common, conn(last.into()), Instant(2 * SECOND));
        }
        assert_eq!(admit(&mut backlog, ip(100), now), Admission::Instead(conn(200)), "which is over");
        assert_eq!(admit(&mut backlog, ip(100), now), Admission::Full);
        assert_eq!(admit(&mut backlog, ip(100), now), Admission::Full, "a duplicate is not a second SYN");
        assert_eq!(admit(&mut backlog, ip(100), now + SECOND), Admission::Yes(Kind::Kept));
        assert_eq!(admit(&mut backlog, ip(101), now + SECOND), Admission::Full);
        for _ in 0..2 {
            assert_eq!(admit(&mut backlog, ip(200), now), Admission::Yes(Kind::Kept));
            backlog.enter(ip(200), Kind::Kept, conn(201), Instant(2 * SECOND));
        }
        assert_eq!(admit(&mut backlog, ip(200), now), Admission::Full, "no more for one source");
        assert_eq!(admit(&mut backlog, ip(100), now + SECOND), Admission::Yes(Kind::Kept));
    }

    #[test]
    fn one_syn_of_a_stranger_ends_no_handshakes_in_kept_places() {
        let limits = Limits { half_open_max: 16, half_open_source_max: 32, ..Limits::default() };
        let mut backlog = Backlog::new(Vec::new(), &limits, 0);
        let ip = |last: u8| IpAddr::from([10, 7, 0, last]);
        for last in 201..=203 {
            backlog.enter(ip(last), Kind::Common, conn(1000), Instant(0));
            backlog.accept(ip(last), Kind::Common);
        }
        for last in 1..=12 {
            backlog.enter(ip(last), Kind::Common, conn(last.into()), Instant(0));
        }
        for last in 201..=203 {
            assert_eq!(admit(&mut backlog, ip(last), 0), Admission::Yes(Kind::Kept));
            backlog.enter(ip(last), Kind::Kept, conn(last.into()), Instant(0));
        }
        let mut evicted = 0;
        while let Admission::Instead(ConnId { index, .. }) = admit(&mut backlog, ip(100), GRACE_NS) {
            // What was accepted is over.
            if index < 1000 {
                backlog.leave(ip(u8::try_from(index).unwrap()), Kind::Common);
                evicted += 1;
            }
        }
        assert_eq!(evicted, 1, "a place for a place");
        backlog.enter(ip(1), Kind::Common, conn(13), Instant(GRACE_NS));
        backlog.enter(ip(204), Kind::Kept, conn(204), Instant(GRACE_NS));
        let favoured = admit(&mut backlog, ip(203), GRACE_NS);
        assert_eq!(favoured, Admission::Instead(conn(201)), "they make way for each other");
    }

    #[test]
    fn the_exact_address_comes_before_all_addresses() {
        let listener = |id, address: &str, port| Listener {
            id: ListenerId(id),
            address: address.parse().unwrap(),
            port,
        };
        let all = alloc::vec![listener(1, "0.0.0.0", 80), listener(2, "10.7.0.2", 80), listener(3, "::", 80)];
        let mut backlog = Backlog::new(all, &Limits::default(), 0);
        let find = |backlog: &Backlog, ip: &str| backlog.listener(ip.parse().unwrap(), 80);
        assert_eq!(find(&backlog, "10.7.0.2"), Some(ListenerId(2)));
        assert_eq!(find(&backlog, "10.7.0.3"), Some(ListenerId(1)));
        assert_eq!(find(&backlog, "fd00::1"), Some(ListenerId(3)));
        assert_eq!(backlog.listener("10.7.0.2".parse().unwrap(), 81), None);
        backlog.close();
        assert_eq!(find(&backlog, "10.7.0.2"), None);
    }
}
