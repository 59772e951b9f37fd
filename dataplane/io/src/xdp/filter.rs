//! Which frames a port takes from the kernel, as rules and as the eBPF program that follows them.
//!
//! | frame                                    | exclusive addresses | shared addresses          |
//! |------------------------------------------|---------------------|---------------------------|
//! | IPv4, IPv6 to one of our addresses       | taken               | TCP to our ports only     |
//! | ARP about one of our addresses           | taken               | kernel                    |
//! | neighbour solicitation for an address    | taken               | kernel                    |
//! | everything else                          | kernel              | kernel                    |
//!
//! A shared address is the kernel's too: it answers ARP, neighbour discovery and ping for both. The answers to
//! *our* ARP requests have to reach both; XDP cannot copy a frame, so the kernel gets them and
//! [`super::neighbours`] listens. ICMP errors about our connections stay with the kernel.
//!
//! Frames with VLAN tags pass. So do, where ports decide, IPv4 fragments and TCP behind IPv6 extension headers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

use super::asm::{Asm, If, Label, Reg, Size};
use super::bpf::Insn;

/// What the program returns for the kernel to go on as if it were not there.
pub(super) const XDP_PASS: u32 = 2;
/// The kernel function that hands a frame to a socket: `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;

const ETHERNET: i16 = 14;
const ETHERTYPE_AT: i16 = 12;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ARP_TARGET_AT: i16 = ETHERNET + 24;
const IPV4_FRAGMENT_AT: i16 = ETHERNET + 6;
const IPV4_PROTOCOL_AT: i16 = ETHERNET + 9;
const IPV4_TO_AT: i16 = ETHERNET + 16;
const IPV6_NEXT_AT: i16 = ETHERNET + 6;
const IPV6_TO_AT: i16 = ETHERNET + 24;
const IPV6_PAYLOAD_AT: i16 = ETHERNET + 40;
const ND_TARGET_AT: i16 = IPV6_PAYLOAD_AT + 8;
const TO_PORT: i16 = 2;
const TCP: u32 = 6;
const ICMPV6: u32 = 58;
const NEIGHBOUR_SOLICITATION: u32 = 135;

/// What a port takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rules {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
    /// Destination ports, where the addresses are shared with the kernel; `None` where they are ours alone.
    pub(super) ports: Option<Vec<RangeInclusive<u16>>>,
}

impl Rules {
    /// Of these addresses.
    pub(super) fn new(addresses: &[IpAddr], ports: Option<&[RangeInclusive<u16>]>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        Self { v4, v6, ports: ports.map(<[_]>::to_vec) }
    }

    /// The program. `map` is the sockets' by receive queue; a frame of a queue without a socket gets
    /// `otherwise` as its verdict. `None` if there are too many addresses for one program.
    pub(super) fn assemble(&self, map: i32, otherwise: u32) -> Option<Vec<Insn>> {
        let mut asm = Asm::default();
        let (take, pass) = (asm.label(), asm.label());
        let (v4, v6, arp) = (asm.label(), asm.label(), asm.label());
        // The context is a `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
        asm.copy(Reg::R6, Reg::R1);
        asm.load(Size::Word, Reg::R7, Reg::R6, 0);
        asm.load(Size::Word, Reg::R8, Reg::R6, 4);
        need(&mut asm, ETHERNET, pass);
        asm.load(Size::Half, Reg::R3, Reg::R7, ETHERTYPE_AT);
        asm.network_order(Reg::R3);
        asm.jump_if(If::Equal, Reg::R3, ETHERTYPE_IPV4.into(), v4);
        asm.jump_if(If::Equal, Reg::R3, ETHERTYPE_IPV6.into(), v6);
        asm.jump_if(If::Equal, Reg::R3, ETHERTYPE_ARP.into(), arp);
        asm.jump(pass);
        asm.bind(v4);
        self.ipv4(&mut asm, take, pass);
        asm.bind(v6);
        self.ipv6(&mut asm, take, pass);
        asm.bind(arp);
        if self.ports.is_none() {
            need(&mut asm, ARP_TARGET_AT + 4, pass);
            self.if_ours_v4(&mut asm, ARP_TARGET_AT, take);
        }
        asm.jump(pass);
        asm.bind(take);
        asm.load(Size::Word, Reg::R2, Reg::R6, 16);
        asm.load_map(Reg::R1, map);
        asm.set(Reg::R3, otherwise.cast_signed());
        asm.call(REDIRECT_MAP);
        asm.exit();
        asm.bind(pass);
        asm.set(Reg::R0, XDP_PASS.cast_signed());
        asm.exit();
        asm.finish()
    }

    fn ipv4(&self, asm: &mut Asm, take: Label, pass: Label) {
        // The verifier refuses code that nothing jumps to.
        if self.v4.is_empty() {
            return asm.jump(pass);
        }
        need(asm, ETHERNET + 20, pass);
        let ours = asm.label();
        self.if_ours_v4(asm, IPV4_TO_AT, ours);
        asm.jump(pass);
        asm.bind(ours);
        let Some(ports) = &self.ports else { return asm.jump(take) };
        asm.load(Size::Byte, Reg::R3, Reg::R7, IPV4_PROTOCOL_AT);
        asm.jump_if(If::NotEqual, Reg::R3, TCP, pass);
        asm.load(Size::Half, Reg::R3, Reg::R7, IPV4_FRAGMENT_AT);
        asm.network_order(Reg::R3);
        // Offset, and the flag that more follow.
        asm.and(Reg::R3, 0x3fff);
        asm.jump_if(If::NotEqual, Reg::R3, 0, pass);
        // The header's length: four times its lower half byte.
        asm.load(Size::Byte, Reg::R4, Reg::R7, ETHERNET);
        asm.and(Reg::R4, 0x0f);
        asm.jump_if(If::Below, Reg::R4, 5, pass);
        asm.shift_left(Reg::R4, 2);
        asm.copy(Reg::R5, Reg::R7);
        asm.add(Reg::R5, ETHERNET.into());
        asm.add_reg(Reg::R5, Reg::R4);
        if_in_ports(asm, ports, take, pass);
    }

    fn ipv6(&self, asm: &mut Asm, take: Label, pass: Label) {
        if self.v6.is_empty() {
            return asm.jump(pass);
        }
        need(asm, IPV6_PAYLOAD_AT, pass);
        let ours = asm.label();
        self.if_ours_v6(asm, IPV6_TO_AT, ours);
        if self.ports.is_none() {
            // A solicitation goes to a group that holds more addresses than ours: its target decides.
            asm.load(Size::Byte, Reg::R3, Reg::R7, IPV6_NEXT_AT);
            asm.jump_if(If::NotEqual, Reg::R3, ICMPV6, pass);
            need(asm, ND_TARGET_AT + 16, pass);
            asm.load(Size::Byte, Reg::R3, Reg::R7, IPV6_PAYLOAD_AT);
            asm.jump_if(If::NotEqual, Reg::R3, NEIGHBOUR_SOLICITATION, pass);
            self.if_ours_v6(asm, ND_TARGET_AT, take);
        }
        asm.jump(pass);
        asm.bind(ours);
        let Some(ports) = &self.ports else { return asm.jump(take) };
        asm.load(Size::Byte, Reg::R3, Reg::R7, IPV6_NEXT_AT);
        asm.jump_if(If::NotEqual, Reg::R3, TCP, pass);
        asm.copy(Reg::R5, Reg::R7);
        asm.add(Reg::R5, IPV6_PAYLOAD_AT.into());
        if_in_ports(asm, ports, take, pass);
    }

    /// Jumps if the address at this offset is one of ours; falls through otherwise.
    fn if_ours_v4(&self, asm: &mut Asm, at: i16, to: Label) {
        asm.load(Size::Word, Reg::R3, Reg::R7, at);
        for address in &self.v4 {
            asm.jump_if(If::Equal, Reg::R3, as_loaded(address.octets()), to);
        }
    }

    fn if_ours_v6(&self, asm: &mut Asm, at: i16, to: Label) {
        for address in &self.v6 {
            let other = asm.label();
            for (word, at) in address.octets().as_chunks().0.iter().zip((at..).step_by(4)) {
                asm.load(Size::Word, Reg::R3, Reg::R7, at);
                asm.jump_if(If::NotEqual, Reg::R3, as_loaded(*word), other);
            }
            asm.jump(to);
            asm.bind(other);
        }
    }
}

/// Passes frames shorter than `len`. The verifier allows loads below what has been checked.
fn need(asm: &mut Asm, len: i16, pass: Label) {
    asm.copy(Reg::R2, Reg::R7);
    asm.add(Reg::R2, len.into());
    asm.jump_if_reg(If::Above, Reg::R2, Reg::R8, pass);
}

/// Takes a TCP segment at `R5` if it is to one of these ports, else passes it.
fn if_in_ports(asm: &mut Asm, ports: &[RangeInclusive<u16>], take: Label, pass: Label) {
    asm.copy(Reg::R2, Reg::R5);
    asm.add(Reg::R2, 4);
    asm.jump_if_reg(If::Above, Reg::R2, Reg::R8, pass);
    asm.load(Size::Half, Reg::R3, Reg::R5, TO_PORT);
    asm.network_order(Reg::R3);
    for range in ports {
        let next = asm.label();
        asm.jump_if(If::Below, Reg::R3, (*range.start()).into(), next);
        asm.jump_if(If::Above, Reg::R3, (*range.end()).into(), next);
        asm.jump(take);
        asm.bind(next);
    }
    asm.jump(pass);
}

/// Four bytes of a frame as a load of a word sees them.
fn as_loaded(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
