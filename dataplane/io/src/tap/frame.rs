//! What a filter asks of an ethernet frame: protocols, addresses, ports. Anything malformed has fewer of them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const FRAGMENT: u8 = 44;
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Layer 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Network {
    Ipv4,
    Ipv6,
    Arp,
    Other,
}

/// A frame's fields, as far as it has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fields {
    pub(super) network: Network,
    /// Of the packet; of ARP the sender's and the target's.
    pub(super) from: Option<IpAddr>,
    pub(super) to: Option<IpAddr>,
    /// What is in the packet.
    pub(super) transport: Option<u8>,
    /// Source and destination port; only the first of a packet's fragments has them.
    pub(super) ports: Option<(u16, u16)>,
}

impl Fields {
    /// Reads a frame, with at most one VLAN tag.
    pub(super) fn of(frame: &[u8]) -> Self {
        let (ethertype, packet) = match half(frame, 12) {
            Some(ETHERTYPE_VLAN) => (half(frame, 16), frame.get(18..)),
            ethertype => (ethertype, frame.get(14..)),
        };
        let packet = packet.unwrap_or_default();
        match ethertype {
            Some(ETHERTYPE_IPV4) => Self::ipv4(packet),
            Some(ETHERTYPE_IPV6) => Self::ipv6(packet),
            Some(ETHERTYPE_ARP) => Self::new(Network::Arp, v4(packet, 14), v4(packet, 24)),
            _ => Self::new(Network::Other, None, None),
        }
    }

    fn new(network: Network, from: Option<IpAddr>, to: Option<IpAddr>) -> Self {
        Self { network, from, to, transport: None, ports: None }
    }

    fn ipv4(packet: &[u8]) -> Self {
        let header = usize::from(packet.first().map_or(0, |first| first & 15)) * 4;
        let transport = packet.get(9).copied();
        let is_first = half(packet, 6).is_some_and(|fragment| fragment & 0x1fff == 0);
        let rest = packet.get(header..).filter(|_| is_first && header >= 20);
        let ports = rest.and_then(|rest| ports(transport, rest));
        Self { transport, ports, ..Self::new(Network::Ipv4, v4(packet, 12), v4(packet, 16)) }
    }

    /// Looks through a fragment header for the protocol, not for ports, as tcpdump does.
    fn ipv6(packet: &[u8]) -> Self {
        let next = packet.get(6).copied();
        let transport = if next == Some(FRAGMENT) { packet.get(40).copied() } else { next };
        let ports = packet.get(40..).and_then(|rest| ports(next, rest));
        Self { transport, ports, ..Self::new(Network::Ipv6, v6(packet, 8), v6(packet, 24)) }
    }
}

fn ports(transport: Option<u8>, rest: &[u8]) -> Option<(u16, u16)> {
    matches!(transport, Some(TCP | UDP | SCTP)).then_some(())?;
    Some((half(rest, 0)?, half(rest, 2)?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into())
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into())
}
