//! An ethernet frame, looked at once: what it is, whose it is, and whether it may go on.
//!
//! Everything smoltcp's TCP would silently drop is found here first, so that it can be counted by name; what
//! passes is a whole TCP segment for one of our addresses.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use smoltcp::wire::{Ipv4Packet, TcpOption, TcpPacket};

use crate::Counters;
use crate::routes::Routes;

/// Bytes of an ethernet header.
pub(crate) const ETHERNET: usize = 14;
pub(crate) const IPV4: usize = 20;
pub(crate) const IPV6: usize = 40;
pub(crate) const TCP: usize = 20;
const ICMP: u8 = 1;
const TCP_PROTOCOL: u8 = 6;
const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// An ethernet address.
pub(crate) type Mac = [u8; 6];

/// Both ends of a connection, ours by the place of its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flow {
    pub(crate) remote: IpAddr,
    pub(crate) remote_port: u16,
    pub(crate) local: u16,
    pub(crate) local_port: u16,
}

/// A TCP segment for us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) flow: Flow,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// Where it begins in its frame.
    pub(crate) at: usize,
    /// Bytes of its payload.
    pub(crate) payload_len: usize,
}

/// What a frame is.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A segment, and where its IP packet ends in the frame.
    Tcp(Segment, usize),
    /// An ARP packet, to be read by `neighbours`.
    Arp,
    /// An ICMP message: sender, receiver, hop limit, and where the message is in the frame.
    Icmp { from: IpAddr, to: IpAddr, hop_limit: u8, message: Range<usize> },
}

/// Why a frame ends here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    Truncated,
    Oversize,
    Vlan,
    Ethertype,
    NotForUs,
    IpHeader,
    IpChecksum,
    IpOptions,
    Fragment,
    Source,
    Protocol,
    TcpHeader,
    TcpOptions,
    TcpChecksum,
    Icmp,
    Neighbour,
}

impl Counters {
    pub(crate) fn count_bad(&mut self, bad: Bad) {
        let counter = match bad {
            Bad::Truncated => &mut self.bad_truncated,
            Bad::Oversize => &mut self.bad_oversize,
            Bad::Vlan => &mut self.bad_vlan,
            Bad::Ethertype => &mut self.bad_ethertype,
            Bad::NotForUs => &mut self.not_for_us,
            Bad::IpHeader => &mut self.bad_ip_header,
            Bad::IpChecksum => &mut self.bad_ip_checksum,
            Bad::IpOptions => &mut self.bad_ip_options,
            Bad::Fragment => &mut self.bad_fragment,
            Bad::Source => &mut self.bad_source,
            Bad::Protocol => &mut self.bad_protocol,
            Bad::TcpHeader => &mut self.bad_tcp_header,
            Bad::TcpOptions => &mut self.bad_tcp_options,
            Bad::TcpChecksum => &mut self.bad_tcp_checksum,
            Bad::Icmp => &mut self.bad_icmp,
            Bad::Neighbour => &mut self.bad_neighbour,
        };
        *counter += 1;
    }
}

/// What a frame is held against.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) mac: Mac,
    pub(crate) mtu: usize,
    /// The port has verified IP and TCP checksums.
    pub(crate) checked: bool,
    pub(crate) routes: Routes,
}

/// Reads two bytes; callers have checked that they are there.
fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// Reads four bytes; callers have checked that they are there.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// The ethernet address at an offset; zero where there is none.
pub(crate) fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame.get(at..at + 6).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

pub(crate) fn v4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(be32(bytes, at))
}

pub(crate) fn v6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).unwrap_or_default();
    Ipv6Addr::from(octets)
}

impl Rules {
    pub(crate) fn parse(&self, frame: &[u8]) -> Result<Parsed, Bad> {
        if frame.len() < ETHERNET {
            return Err(Bad::Truncated);
        }
        let ethertype = be16(frame, 12);
        // Measured before the length: a tagged frame may be four bytes longer.
        if matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            return Err(Bad::Vlan);
        }
        if frame.len() > ETHERNET + self.mtu {
            return Err(Bad::Oversize);
        }
        let to = mac_at(frame, 0);
        let (is_ours, is_group) = (to == self.mac, to[0] & 1 != 0);
        if !is_ours && !is_group {
            return Err(Bad::NotForUs);
        }
        // A group never sends, nor do we receive what we have sent.
        if frame[6] & 1 != 0 || mac_at(frame, 6) == self.mac {
            return Err(Bad::Source);
        }
        match ethertype {
            0x0800 if is_ours => self.ipv4(frame),
            0x0806 => Ok(Parsed::Arp),
            // Neighbour solicitations come to a group.
            0x86dd => self.ipv6(frame, is_group),
            // RFC 1122 section 3.3.6: what comes by broadcast is nobody's connection.
            0x0800 => Err(Bad::NotForUs),
            _ => Err(Bad::Ethertype),
        }
    }

    fn ipv4(&self, frame: &[u8]) -> Result<Parsed, Bad> {
        let packet = &frame[ETHERNET..];
        if packet.len() < IPV4 {
            return Err(Bad::Truncated);
        }
        let header_len = usize::from(packet[0] & 15) * 4;
        let total_len = usize::from(be16(packet, 2));
        if packet[0] >> 4 != 4 || header_len < IPV4 || total_len < header_len {
            return Err(Bad::IpHeader);
        }
        if packet.len() < total_len {
            return Err(Bad::Truncated);
        }
        if !self.checked && !Ipv4Packet::new_unchecked(packet).verify_checksum() {
            return Err(Bad::IpChecksum);
        }
        let (from, to) = (IpAddr::V4(v4_at(packet, 12)), IpAddr::V4(v4_at(packet, 16)));
        let local = self.routes.local(to).ok_or(Bad::NotForUs)?;
        if self.routes.is_martian(from) {
            return Err(Bad::Source);
        }
        if header_len > IPV4 {
            return Err(Bad::IpOptions);
        }
        // More fragments to come, or not the first.
        if be16(packet, 6) & 0x3fff != 0 {
            return Err(Bad::Fragment);
        }
        let end = ETHERNET + total_len;
        match packet[9] {
            TCP_PROTOCOL => self.tcp(frame, ETHERNET + IPV4..end, from, to, local),
            ICMP => Ok(Parsed::Icmp { from, to, hop_limit: packet[8], message: ETHERNET + IPV4..end }),
            _ => Err(Bad::Protocol),
        }
    }

    fn ipv6(&self, frame: &[u8], is_group: bool) -> Result<Parsed, Bad> {
        let packet = &frame[ETHERNET..];
        if packet.len() < IPV6 {
            return Err(Bad::Truncated);
        }
        let total_len = IPV6 + usize::from(be16(packet, 4));
        if packet[0] >> 4 != 6 {
            return Err(Bad::IpHeader);
        }
        if packet.len() < total_len {
            return Err(Bad::Truncated);
        }
        let (from, to) = (v6_at(packet, 8), v6_at(packet, 24));
        let (next, hop_limit) = (packet[6], packet[7]);
        let (from, end) = (IpAddr::V6(from), ETHERNET + total_len);
        let local = self.routes.local(IpAddr::V6(to));
        let is_for_us = if is_group { self.is_solicited(to) } else { local.is_some() };
        if !is_for_us {
            return Err(Bad::NotForUs);
        }
        if self.routes.is_martian(from) {
            return Err(Bad::Source);
        }
        match (next, local) {
            (ICMPV6, _) => {
                Ok(Parsed::Icmp { from, to: IpAddr::V6(to), hop_limit, message: ETHERNET + IPV6..end })
            }
            (TCP_PROTOCOL, Some(local)) => self.tcp(frame, ETHERNET + IPV6..end, from, IpAddr::V6(to), local),
            (44, _) => Err(Bad::Fragment),
            // Hop-by-hop, routing, destination options, authentication, mobility, HIP, shim6.
            (0 | 43 | 60 | 51 | 135 | 139 | 140, _) => Err(Bad::IpOptions),
            _ => Err(Bad::Protocol),
        }
    }

    /// RFC 4291 section 2.7.1: the group that neighbours ask for one of our addresses.
    fn is_solicited(&self, group: Ipv6Addr) -> bool {
        let group = group.octets();
        let prefix = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
        group.starts_with(&prefix)
            && self.routes.addresses().any(|ip| match ip {
                IpAddr::V6(ip) => ip.octets()[13..] == group[13..],
                IpAddr::V4(_) => false,
            })
    }

    fn tcp(
        &self,
        frame: &[u8],
        at: Range<usize>,
        from: IpAddr,
        to: IpAddr,
        local: u16,
    ) -> Result<Parsed, Bad> {
        let Range { start, end } = at;
        let bytes = frame.get(start..end).unwrap_or_default();
        if bytes.len() < TCP {
            return Err(Bad::TcpHeader);
        }
        let header_len = usize::from(bytes[12] >> 4) * 4;
        let flow = Flow { remote: from, remote_port: be16(bytes, 0), local, local_port: be16(bytes, 2) };
        let flags = bytes[13];
        // SYN, FIN and RST exclude each other.
        let control = (flags & (SYN | FIN | RST)).count_ones();
        if header_len < TCP
            || header_len > bytes.len()
            || control > 1
            || flow.remote_port == 0
            || flow.local_port == 0
        {
            return Err(Bad::TcpHeader);
        }
        let packet = TcpPacket::new_unchecked(bytes);
        if !self.checked && !packet.verify_checksum(&from.into(), &to.into()) {
            return Err(Bad::TcpChecksum);
        }
        if !options_parse(&bytes[TCP..header_len]) {
            return Err(Bad::TcpOptions);
        }
        let payload_len = bytes.len() - header_len;
        let (seq, ack, window) = (be32(bytes, 4), be32(bytes, 8), be16(bytes, 14));
        let segment = Segment { flow, flags, seq, ack, window, at: start, payload_len };
        Ok(Parsed::Tcp(segment, end))
    }
}

/// True if smoltcp will read these options to their end.
fn options_parse(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        match TcpOption::parse(options) {
            Ok((_, TcpOption::EndOfList)) => return true,
            Ok((rest, _)) => options = rest,
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
