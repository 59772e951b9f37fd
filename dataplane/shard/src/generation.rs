//! A program as this shard runs it: its endpoints' places, its routes' cache, its statistics.

use alloc::{boxed::Box, string::ToString, sync::Arc, vec::Vec};
use core::hash::BuildHasher;

use abi::{Program, ServiceIdx, Source};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::stats::ChainStats;
use crate::{Listener, Peer, Ring};

/// Routes remembered per program; when there are more, the memory starts afresh.
const CACHED_ROUTES_MAX: usize = 16_384;
/// Authority and path of a route that is remembered, bytes: a caller cannot fill the memory with long ones.
const CACHED_KEY_MAX: usize = 512;

/// Where a call goes: the answer to (source, listener's destination, authority, path).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RouteHit {
    pub(crate) destination: ServiceIdx,
    /// None for health checks and reflection that no rule names: balanced, and nothing else.
    pub(crate) chain: Option<u32>,
    /// The method's statistics, once an endpoint has shown that the method exists.
    pub(crate) method: Option<u16>,
}

/// Why there is nowhere to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RouteMiss {
    NoService,
    NoRule(ServiceIdx),
}

#[derive(Debug)]
struct Cached {
    source: u32,
    fixed: u32,
    authority_len: u32,
    /// Authority, then path.
    key: Box<[u8]>,
    hit: RouteHit,
}

#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts adoptions, from 1.
    pub(crate) number: u64,
    pub(crate) program: Arc<Program>,
    pub(crate) sinks: Vec<u16>,
    /// Service, endpoint: the shard-wide endpoint.
    pub(crate) endpoints: Vec<Vec<u32>>,
    /// The shard-wide places of the program's metrics.
    pub(crate) metrics: Vec<u16>,
    /// The program's keys, as the offload queue numbers them.
    pub(crate) rings: Vec<Option<Ring>>,
    /// Picks made, by service.
    pub(crate) picks: Vec<u64>,
    pub(crate) chains: Vec<ChainStats>,
    /// Calls that this program judges.
    pub(crate) calls: u32,
    /// By listener: the service its calls go to whatever they say.
    fixed: Vec<Option<ServiceIdx>>,
    /// Where a call with an unknown authority goes.
    only_destination: Option<ServiceIdx>,
    /// Who calls when nobody says who calls.
    only_source: Option<ServiceIdx>,
    cache: HashTable<Cached>,
    hasher: DefaultHashBuilder,
}

const NONE: u32 = u32::MAX;

impl Generation {
    pub(crate) fn new(
        number: u64,
        program: Arc<Program>,
        sinks: Vec<u16>,
        listeners: &[Listener],
        endpoints: Vec<Vec<u32>>,
        metrics: Vec<u16>,
        rings: Vec<Option<Ring>>,
    ) -> Self {
        let fixed =
            listeners.iter().map(|l| l.destination.as_ref().and_then(|name| program.service(name))).collect();
        let single = |mut of: Vec<ServiceIdx>| {
            of.sort_unstable();
            of.dedup();
            if of.len() == 1 { of.pop() } else { None }
        };
        let services = || (0u16..).map(ServiceIdx).zip(&program.services);
        let only_destination =
            single(services().filter(|(_, s)| s.is_destination).map(|(idx, _)| idx).collect());
        let only_source = single(program.routes.iter().filter_map(|r| r.source).collect())
            .filter(|s| program.services.get(usize::from(s.0)).is_some_and(|s| s.from.is_empty()));
        let chains = program.chains.iter().map(|c| ChainStats::new(c.plan().elements.len())).collect();
        let picks = alloc::vec![0; program.services.len()];
        Self {
            number,
            sinks,
            endpoints,
            metrics,
            rings,
            picks,
            chains,
            calls: 0,
            fixed,
            only_destination,
            only_source,
            cache: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            program,
        }
    }

    /// The service a peer is, by `from`.
    pub(crate) fn source_of(&self, listener: &Listener, peer: &Peer) -> Option<ServiceIdx> {
        let is = |source: &Source| match source {
            Source::Listener(name) => *name == listener.name,
            Source::Unix(path) => listener.unix_path.as_ref() == Some(path),
            Source::Uid(uid) => peer.uid == Some(*uid),
            Source::Cidr(net, bits) => peer.addr.is_some_and(|(ip, _)| in_cidr(ip, *net, *bits)),
        };
        (0u16..)
            .map(ServiceIdx)
            .zip(&self.program.services)
            .find(|(_, s)| s.from.iter().any(is))
            .map(|(idx, _)| idx)
            .or(self.only_source)
    }

    /// Where a listener's byte streams go.
    pub(crate) fn relay_destination(&self, listener: u16) -> Option<ServiceIdx> {
        self.fixed.get(usize::from(listener)).copied().flatten().or(self.only_destination)
    }

    /// Where a call goes; remembers the answer.
    pub(crate) fn route(
        &mut self,
        source: Option<ServiceIdx>,
        listener: u16,
        authority: &[u8],
        path: &[u8],
    ) -> Result<RouteHit, RouteMiss> {
        let fixed = self.fixed.get(usize::from(listener)).copied().flatten();
        let source_code = source.map_or(NONE, |s| u32::from(s.0));
        let fixed_code = fixed.map_or(NONE, |s| u32::from(s.0));
        let hash = self.hash(source_code, fixed_code, authority, path);
        let is_it = |c: &Cached| {
            c.source == source_code && c.fixed == fixed_code && {
                let (a, p) = c.key.split_at((c.authority_len as usize).min(c.key.len()));
                p == path && a == authority
            }
        };
        if let Some(found) = self.cache.find(hash, is_it) {
            return Ok(found.hit);
        }
        let hit = self.resolve(source, fixed, authority, path)?;
        if authority.len() + path.len() > CACHED_KEY_MAX {
            return Ok(hit);
        }
        if self.cache.len() >= CACHED_ROUTES_MAX {
            self.cache.clear();
        }
        let mut key = Vec::with_capacity(authority.len() + path.len());
        key.extend_from_slice(authority);
        key.extend_from_slice(path);
        let authority_len = u32::try_from(authority.len()).unwrap_or(NONE);
        let entry = Cached {
            source: source_code,
            fixed: fixed_code,
            authority_len,
            key: key.into_boxed_slice(),
            hit,
        };
        let hasher = self.hasher;
        self.cache.insert_unique(hash, entry, |c| {
            let (a, p) = c.key.split_at((c.authority_len as usize).min(c.key.len()));
            hash_key(&hasher, c.source, c.fixed, a, p)
        });
        Ok(hit)
    }

    /// From now on this method has statistics of its own.
    pub(crate) fn set_method(
        &mut self,
        source: Option<ServiceIdx>,
        listener: u16,
        authority: &[u8],
        path: &[u8],
        method: u16,
    ) {
        let fixed = self.fixed.get(usize::from(listener)).copied().flatten();
        let source_code = source.map_or(NONE, |s| u32::from(s.0));
        let fixed_code = fixed.map_or(NONE, |s| u32::from(s.0));
        let hash = self.hash(source_code, fixed_code, authority, path);
        let found = self.cache.find_mut(hash, |c| {
            let (a, p) = c.key.split_at((c.authority_len as usize).min(c.key.len()));
            c.source == source_code && c.fixed == fixed_code && p == path && a == authority
        });
        if let Some(found) = found {
            found.hit.method = Some(method);
        }
    }

    fn resolve(
        &self,
        source: Option<ServiceIdx>,
        fixed: Option<ServiceIdx>,
        authority: &[u8],
        path: &[u8],
    ) -> Result<RouteHit, RouteMiss> {
        let destination = fixed
            .or_else(|| self.by_authority(authority))
            .or(self.only_destination)
            .ok_or(RouteMiss::NoService)?;
        let (service, method) = wire::grpc::split_path(path).unwrap_or((b"", b""));
        let service = core::str::from_utf8(service).unwrap_or("");
        let method = core::str::from_utf8(method).unwrap_or("");
        let chain = match self.program.routes.find(source, destination, service, method) {
            Some(route) => Some(route.chain),
            None if Program::is_reserved(service)
                && self.program.routes.find(source, destination, "", "").is_some() =>
            {
                None
            }
            None => return Err(RouteMiss::NoRule(destination)),
        };
        Ok(RouteHit { destination, chain, method: None })
    }

    /// `catalog`, `catalog:443`, `CATALOG.shop.svc`: with or without port, in any case.
    fn by_authority(&self, authority: &[u8]) -> Option<ServiceIdx> {
        let whole = core::str::from_utf8(authority).ok()?;
        let host = match whole.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => whole,
        };
        let names = |name: &str| name.eq_ignore_ascii_case(whole) || name.eq_ignore_ascii_case(host);
        (0u16..)
            .map(ServiceIdx)
            .zip(&self.program.services)
            .find(|(_, s)| names(&s.name) || s.hosts.iter().any(|h| names(h)))
            .map(|(idx, _)| idx)
    }

    fn hash(&self, source: u32, fixed: u32, authority: &[u8], path: &[u8]) -> u64 {
        hash_key(&self.hasher, source, fixed, authority, path)
    }

    /// The names of all destinations, for the message that none of them was meant.
    pub(crate) fn known_services(&self) -> alloc::string::String {
        let names: Vec<_> =
            self.program.services.iter().filter(|s| s.is_destination).map(|s| s.name.to_string()).collect();
        names.join(", ")
    }

    pub(crate) fn service_name(&self, service: Option<ServiceIdx>) -> &str {
        self.program.service_name(service)
    }
}

fn hash_key(hasher: &DefaultHashBuilder, source: u32, fixed: u32, authority: &[u8], path: &[u8]) -> u64 {
    hasher.hash_one((source, fixed, authority, path))
}

/// True if `ip` is in `net/bits`; IPv4-mapped IPv6 addresses count as IPv4.
fn in_cidr(ip: core::net::IpAddr, net: core::net::IpAddr, bits: u8) -> bool {
    use core::net::IpAddr;
    let leading = |a: u128, b: u128, width: u32| {
        let bits = u32::from(bits).min(width);
        bits == 0 || (a ^ b) >> (width - bits) == 0
    };
    match (ip.to_canonical(), net.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => leading(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => leading(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::in_cidr;

    #[test]
    fn address_ranges() {
        let ip = |s: &str| s.parse().unwrap();
        assert!(in_cidr(ip("10.1.2.3"), ip("10.0.0.0"), 8));
        assert!(!in_cidr(ip("11.1.2.3"), ip("10.0.0.0"), 8));
        assert!(in_cidr(ip("::ffff:10.1.2.3"), ip("10.1.2.0"), 24));
        assert!(in_cidr(ip("192.0.2.1"), ip("0.0.0.0"), 0));
        assert!(in_cidr(ip("2001:db8::1"), ip("2001:db8::"), 32));
        assert!(!in_cidr(ip("2001:db9::1"), ip("2001:db8::"), 32));
        assert!(!in_cidr(ip("2001:db8::1"), ip("0.0.0.0"), 0));
    }
}
