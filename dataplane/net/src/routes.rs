//! Which neighbour leads to an address, and which of our addresses to speak from.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::Config;

/// Our networks and those behind gateways.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Network, prefix length, gateway; `None` where the neighbour is the host itself.
    entries: Vec<(IpAddr, u8, Option<IpAddr>)>,
    addresses: Vec<(IpAddr, u8)>,
}

impl Routes {
    pub(crate) fn new(config: &Config) -> Self {
        let near = config.addresses.iter().map(|(ip, len)| (*ip, *len, None));
        let far = config.routes.iter().map(|route| (route.network, route.prefix_len, Some(route.via)));
        Self { entries: near.chain(far).collect(), addresses: config.addresses.clone() }
    }

    /// The neighbour to hand a packet for `to` to, and the prefix length of the route taken.
    pub(crate) fn hop(&self, to: IpAddr) -> Option<(IpAddr, u8)> {
        let holding = self.entries.iter().filter(|(network, len, _)| prefix_holds(*network, *len, to));
        // The first of the longest: `max_by_key` would take the last.
        let best = holding.fold(None, |best: Option<&(IpAddr, u8, Option<IpAddr>)>, entry| match best {
            Some(best) if best.1 >= entry.1 => Some(best),
            _ => Some(entry),
        });
        best.map(|(_, len, via)| (via.unwrap_or(to), *len))
    }

    /// Our address towards a neighbour: on its network if there is one, else the first of its family.
    pub(crate) fn source(&self, hop: IpAddr) -> Option<IpAddr> {
        let near = self.addresses.iter().find(|(ip, len)| prefix_holds(*ip, *len, hop));
        let any = || self.addresses.iter().find(|(ip, _)| ip.is_ipv4() == hop.is_ipv4());
        near.or_else(any).map(|(ip, _)| *ip)
    }

    /// The place of one of our addresses.
    pub(crate) fn local(&self, ip: IpAddr) -> Option<u16> {
        let at = self.addresses.iter().position(|(own, _)| *own == ip)?;
        u16::try_from(at).ok()
    }

    /// The address at a place.
    pub(crate) fn address(&self, at: u16) -> Option<IpAddr> {
        self.addresses.get(usize::from(at)).map(|(ip, _)| *ip)
    }

    /// All of our addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|(ip, _)| *ip)
    }

    /// True if `ip` is on a network of ours.
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(own, len)| prefix_holds(*own, *len, ip))
    }

    /// True if no host can be the sender `ip` of a packet to us: a group, a network's broadcast, ourselves.
    pub(crate) fn is_martian(&self, ip: IpAddr) -> bool {
        if !is_unicast(ip) || self.local(ip).is_some() {
            return true;
        }
        let IpAddr::V4(v4) = ip else { return false };
        self.addresses.iter().any(|(own, len)| match own {
            // RFC 3021: a /31 has no broadcast address.
            IpAddr::V4(own) if *len < 31 => {
                let host = u32::MAX.checked_shr(u32::from(*len)).unwrap_or(0);
                u32::from(*own) | host == u32::from(v4)
            }
            _ => false,
        })
    }
}

/// True if the network of `network` and this prefix length holds `ip`.
pub(crate) fn prefix_holds(network: IpAddr, len: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(len))).unwrap_or(0);
            (u32::from(a) ^ u32::from(b)) & mask == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(len))).unwrap_or(0);
            (u128::from(a) ^ u128::from(b)) & mask == 0
        }
        _ => false,
    }
}

/// True if a host may have this address on a wire.
pub(crate) fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0/8 and 240/4 are nobody's (RFC 1122 section 3.2.1.3, RFC 1112 section 4).
            let first = ip.octets()[0];
            first != 0 && first < 224 && !ip.is_loopback()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Route;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn routes() -> Routes {
        let mut config = Config::new(ip("10.7.0.2"), 24, 0);
        config.addresses.push((ip("10.8.0.2"), 16));
        config.addresses.push((ip("fd00::2"), 64));
        config.routes = alloc::vec![
            Route { network: ip("0.0.0.0"), prefix_len: 0, via: ip("10.7.0.1") },
            Route { network: ip("10.9.0.0"), prefix_len: 16, via: ip("10.8.0.1") },
        ];
        Routes::new(&config)
    }

    #[test]
    fn the_longest_prefix_leads() {
        let routes = routes();
        for (to, hop, len) in [
            ("10.7.0.9", "10.7.0.9", 24),
            ("10.8.44.9", "10.8.44.9", 16),
            ("10.9.1.1", "10.8.0.1", 16),
            ("192.0.2.1", "10.7.0.1", 0),
            ("fd00::77", "fd00::77", 64),
        ] {
            assert_eq!(routes.hop(ip(to)), Some((ip(hop), len)), "{to}");
        }
        assert_eq!(routes.hop(ip("2001:db8::1")), None);
        assert_eq!(routes.source(ip("10.8.0.1")), Some(ip("10.8.0.2")));
        assert_eq!(routes.source(ip("192.0.2.1")), Some(ip("10.7.0.2")));
        assert_eq!(routes.source(ip("fd00::1")), Some(ip("fd00::2")));
    }

    #[test]
    fn senders_that_cannot_be_are_martians() {
        let routes = routes();
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.7.0.255",
            "10.7.0.2",
            "::",
            "ff02::1",
        ] {
            assert!(routes.is_martian(ip(bad)), "{bad}");
        }
        for good in ["10.7.0.254", "192.0.2.255", "fd00::3", "fe80::1"] {
            assert!(!routes.is_martian(ip(good)), "{good}");
        }
    }
}
