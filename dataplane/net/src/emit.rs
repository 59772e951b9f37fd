//! Packets written by hand: ARP, neighbour discovery, echo replies, and what time-wait answers.

use core::net::{IpAddr, Ipv6Addr};

use shard::Device;
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    checksum,
};

use crate::Counters;
use crate::outbox::{ARP, IPV6, Link, Outbox};
use crate::parse::Mac;

const BROADCAST: Mac = [0xff; 6];
/// RFC 4861 section 7.1: neighbour discovery from further away is somebody else's.
pub(crate) const ND_HOP_LIMIT: u8 = 255;

/// The port and its counters, for as long as something is written.
pub(crate) struct Pen<'a, D: Device> {
    pub(crate) out: &'a mut Outbox<D>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) mac: Mac,
}

impl<D: Device> Pen<'_, D> {
    /// Asks who has `ip`: everybody, or the neighbour that is known to have had it.
    pub(crate) fn ask(&mut self, source: IpAddr, ip: IpAddr, known: Option<Mac>) {
        self.counters.neighbours_asked += 1;
        match (source, ip) {
            (IpAddr::V4(source), IpAddr::V4(ip)) => {
                let repr = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Request,
                    source_hardware_addr: EthernetAddress(self.mac),
                    source_protocol_addr: source,
                    target_hardware_addr: EthernetAddress([0; 6]),
                    target_protocol_addr: ip,
                };
                self.arp(known.unwrap_or(BROADCAST), &repr);
            }
            (IpAddr::V6(source), IpAddr::V6(ip)) => {
                let group = solicited_group(ip);
                let (to, mac) = known.map_or((group, group_mac(group)), |mac| (ip, mac));
                let solicit = NdiscRepr::NeighborSolicit {
                    target_addr: ip,
                    lladdr: Some(EthernetAddress(self.mac).into()),
                };
                self.discovery(mac, source, to, solicit);
            }
            _ => {}
        }
    }

    /// Answers an ARP request for `ours`.
    pub(crate) fn answer_arp(&mut self, ours: core::net::Ipv4Addr, mac: Mac, theirs: core::net::Ipv4Addr) {
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(self.mac),
            source_protocol_addr: ours,
            target_hardware_addr: EthernetAddress(mac),
            target_protocol_addr: theirs,
        };
        self.arp(mac, &repr);
    }

    /// Answers a neighbour solicitation for `ours`.
    pub(crate) fn answer_solicit(&mut self, ours: Ipv6Addr, mac: Mac, theirs: Ipv6Addr) {
        let advert = NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
            target_addr: ours,
            lladdr: Some(EthernetAddress(self.mac).into()),
        };
        self.discovery(mac, ours, theirs, advert);
    }

    /// Tells everybody on the wire that `ip` is here: an ARP announcement (RFC 5227 section 3) or an
    /// unsolicited advertisement (RFC 4861 section 7.2.6).
    pub(crate) fn announce(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                let repr = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Request,
                    source_hardware_addr: EthernetAddress(self.mac),
                    source_protocol_addr: ip,
                    target_hardware_addr: EthernetAddress([0; 6]),
                    target_protocol_addr: ip,
                };
                self.arp(BROADCAST, &repr);
            }
            IpAddr::V6(ip) => {
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let advert = NdiscRepr::NeighborAdvert {
                    flags: NdiscNeighborFlags::OVERRIDE,
                    target_addr: ip,
                    lladdr: Some(EthernetAddress(self.mac).into()),
                };
                self.discovery(group_mac(all_nodes), ip, all_nodes, advert);
            }
        }
    }

    fn arp(&mut self, to: Mac, repr: &ArpRepr) {
        let link = Link { mac: to, ethertype: ARP };
        self.out.send(self.counters, link, repr.buffer_len(), |packet| {
            repr.emit(&mut ArpPacket::new_unchecked(packet));
        });
    }

    fn discovery(&mut self, mac: Mac, from: Ipv6Addr, to: Ipv6Addr, repr: NdiscRepr<'_>) {
        let message = Icmpv6Repr::Ndisc(repr);
        let ip = Ipv6Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: ND_HOP_LIMIT,
        };
        let link = Link { mac, ethertype: IPV6 };
        let len = ip.buffer_len() + message.buffer_len();
        self.out.send(self.counters, link, len, |packet| {
            let mut packet = Ipv6Packet::new_unchecked(packet);
            ip.emit(&mut packet);
            // Ports do not compute ICMP checksums.
            let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
            message.emit(&from, &to, &mut icmp, &ChecksumCapabilities::default());
        });
    }

    /// An echo reply: the request's message with another type.
    pub(crate) fn echo(&mut self, mac: Mac, from: IpAddr, to: IpAddr, request: &[u8]) {
        let protocol = if from.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
        let ip = IpRepr::new(from.into(), to.into(), protocol, request.len(), 64);
        let header_len = ip.header_len();
        let caps = self.ip_checksums();
        self.out.send(self.counters, Link::of(mac, to), header_len + request.len(), |packet| {
            ip.emit(&mut *packet, &caps);
            let Some(message) = packet.get_mut(header_len..) else { return };
            message.copy_from_slice(request);
            message[0] = if to.is_ipv4() { 0 } else { 129 };
            message[2..4].fill(0);
            let sum = if to.is_ipv4() {
                !checksum::data(message)
            } else {
                let len = u32::try_from(message.len()).unwrap_or(0);
                let pseudo = checksum::pseudo_header(&from.into(), &to.into(), IpProtocol::Icmpv6, len);
                !checksum::combine(&[pseudo, checksum::data(message)])
            };
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        });
    }

    /// A bare acknowledgement.
    pub(crate) fn acknowledge(
        &mut self,
        mac: Mac,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        seq: u32,
        ack: u32,
        window: u16,
    ) {
        let tcp = acknowledgement((from.1, to.1), seq, ack, window);
        let ip = IpRepr::new(from.0.into(), to.0.into(), IpProtocol::Tcp, tcp.buffer_len(), 64);
        let caps = self.ip_checksums();
        let header_len = ip.header_len();
        self.out.send(self.counters, Link::of(mac, to.0), header_len + tcp.buffer_len(), |packet| {
            ip.emit(&mut *packet, &caps);
            let Some(segment) = packet.get_mut(header_len..) else { return };
            tcp.emit(&mut TcpPacket::new_unchecked(segment), &from.0.into(), &to.0.into(), &caps);
        });
    }

    fn ip_checksums(&self) -> ChecksumCapabilities {
        let mut caps = ChecksumCapabilities::default();
        if self.out.fills_checksums() {
            (caps.ipv4, caps.tcp) = (Checksum::None, Checksum::None);
        }
        caps
    }
}

/// A bare acknowledgement between these ports.
pub(crate) fn acknowledgement(
    (src_port, dst_port): (u16, u16),
    seq: u32,
    ack: u32,
    window_len: u16,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port,
        dst_port,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(seq.cast_signed()),
        ack_number: Some(TcpSeqNumber(ack.cast_signed())),
        window_len,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// RFC 4291 section 2.7.1.
fn solicited_group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// RFC 2464 section 7.
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}
