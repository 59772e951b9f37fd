//! Where a frame's headers are, for ports that take checksums over; and the sums, for frames they left.
//!
//! Invariant: whatever a frame contains, nothing here reads or writes outside it.

use dpdk_sys::{L4, TxChecksum};

const ETHERNET: usize = 14;
const IPV4_MIN: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const TCP_MIN: usize = 20;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// The headers of an IP packet that is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layers {
    ipv4: bool,
    l3_len: usize,
    l4: L4,
    /// Where the packet ends; padding may follow.
    end: usize,
}

/// The headers of a frame; `None` for anything but a whole IP packet right behind an ethernet header.
pub(super) fn layers(frame: &[u8]) -> Option<Layers> {
    let ethertype = be16(frame, ETHERNET - 2)?;
    let (ipv4, l3_len, protocol, packet_len) = match ethertype {
        ETHERTYPE_IPV4 => {
            let first = *frame.get(ETHERNET)?;
            let header = usize::from(first & 0xf) * 4;
            let fragment = be16(frame, ETHERNET + 6)? & 0x3fff != 0;
            let protocol = if fragment { 0 } else { *frame.get(ETHERNET + 9)? };
            (true, header, protocol, usize::from(be16(frame, ETHERNET + 2)?))
        }
        ETHERTYPE_IPV6 => {
            let payload = usize::from(be16(frame, ETHERNET + 4)?);
            (false, IPV6, *frame.get(ETHERNET + 6)?, IPV6 + payload)
        }
        _ => return None,
    };
    let end = ETHERNET + packet_len;
    if l3_len < IPV4_MIN || packet_len < l3_len || end > frame.len() {
        return None;
    }
    let l4 = match protocol {
        PROTOCOL_TCP if packet_len - l3_len >= TCP_MIN => L4::Tcp,
        PROTOCOL_UDP if packet_len - l3_len >= UDP => L4::Udp,
        _ => L4::Other,
    };
    Some(Layers { ipv4, l3_len, l4, end })
}

impl Layers {
    /// Where the checksum of the layer above IP is.
    fn l4_field(&self) -> Option<usize> {
        let l4 = ETHERNET + self.l3_len;
        match self.l4 {
            L4::Tcp => Some(l4 + 16),
            L4::Udp => Some(l4 + 6),
            L4::Other => None,
        }
    }

    /// The pseudo header's sum, folded, not inverted.
    fn pseudo(&self, frame: &[u8]) -> u16 {
        let addresses = if self.ipv4 { ETHERNET + 12..ETHERNET + 20 } else { ETHERNET + 8..ETHERNET + 40 };
        let protocol = if self.l4 == L4::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let len = self.end - ETHERNET - self.l3_len;
        let sum = sum(frame.get(addresses).unwrap_or(&[]));
        fold(sum + u64::from(protocol) + len as u64)
    }

    /// True if every checksum in the frame is right, or there is none.
    pub(super) fn verify(&self, frame: &[u8]) -> bool {
        let l4 = ETHERNET + self.l3_len;
        if self.ipv4 && fold(sum(&frame[ETHERNET..l4])) != 0xffff {
            return false;
        }
        let Some(field) = self.l4_field() else { return true };
        if self.l4 == L4::Udp && self.ipv4 && be16(frame, field) == Some(0) {
            // RFC 768: zero is "none was made".
            return true;
        }
        fold(sum(&frame[l4..self.end]) + u64::from(self.pseudo(frame))) == 0xffff
    }

    /// Writes what DPDK wants in the checksum fields, and says what it has to be told.
    pub(super) fn request(&self, frame: &mut [u8]) -> Option<TxChecksum> {
        if self.ipv4 {
            put16(frame, ETHERNET + 10, 0);
        }
        let pseudo = self.pseudo(frame);
        match self.l4_field() {
            Some(field) => put16(frame, field, pseudo),
            None if !self.ipv4 => return None,
            None => {}
        }
        let tcp_len = frame.get(ETHERNET + self.l3_len + 12).map_or(0, |byte| byte >> 4 << 2);
        Some(TxChecksum {
            l2_len: 14,
            l3_len: u16::try_from(self.l3_len).ok()?,
            l4_len: if self.l4 == L4::Tcp { tcp_len } else { 0 },
            ipv4: self.ipv4,
            l4: self.l4,
            segment: 0,
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// RFC 1071: the sum of 16-bit words, an odd byte padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&byte| u64::from(byte) << 8);
    words.fold(odd, |sum, word| sum + u64::from(u16::from_be_bytes([word[0], word[1]])))
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP packet with checksums from another implementation: scapy's
    /// `Ether()/IP(src="10.7.0.1",dst="10.7.0.2")/UDP(sport=4000,dport=53)/b"abc"`.
    const UDP4: [u8; 45] = [
        0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 6, 8, 0, 0x45, 0, 0, 31, 0, 1, 0, 0, 64, 17, 0x66, 0xbd, 10, 7, 0,
        1, 10, 7, 0, 2, 0x0f, 0xa0, 0, 53, 0, 11, 0, 0, 0x61, 0x62, 0x63,
    ];

    fn ipv6_tcp() -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + IPV6 + TCP_MIN + 5];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
        frame[ETHERNET] = 0x60;
        frame[ETHERNET + 5] = 25;
        frame[ETHERNET + 6] = PROTOCOL_TCP;
        frame[ETHERNET + 8..ETHERNET + 40].copy_from_slice(&[7; 32]);
        frame[ETHERNET + IPV6 + 12] = 5 << 4;
        frame[ETHERNET + IPV6 + TCP_MIN..].copy_from_slice(b"hello");
        frame
    }

    /// What the port would do: complete the sum it was given and invert it.
    fn complete(frame: &mut [u8]) {
        let layers = layers(frame).unwrap();
        let asked = layers.request(frame).unwrap();
        let l4 = usize::from(asked.l2_len) + usize::from(asked.l3_len);
        if asked.ipv4 {
            let ip = !fold(sum(&frame[ETHERNET..l4]));
            put16(frame, ETHERNET + 10, ip);
        }
        let whole = !fold(sum(&frame[l4..layers.end]));
        put16(frame, layers.l4_field().unwrap(), whole);
    }

    #[test]
    fn what_the_port_completes_verifies() {
        for mut frame in [UDP4.to_vec(), ipv6_tcp()] {
            complete(&mut frame);
            frame.extend([0; 6]);
            let found = layers(&frame).unwrap();
            assert!(found.verify(&frame), "padding is no part of the packet");
            for at in ETHERNET..frame.len() - 6 {
                let mut wrong = frame.clone();
                wrong[at] ^= 0x10;
                let accepted = layers(&wrong).is_some_and(|layers| {
                    // A version, length or protocol changed makes it another packet.
                    layers == found && layers.verify(&wrong)
                });
                let unsummed = !found.ipv4 && (at < ETHERNET + 8) && at != ETHERNET + 6;
                assert!(!accepted || unsummed, "byte {at} of {frame:?}");
            }
        }
        assert_eq!(fold(sum(&UDP4[ETHERNET..ETHERNET + IPV4_MIN])), 0xffff, "as scapy has it");
    }

    #[test]
    fn tells_the_port_where_headers_are() {
        let mut frame = ipv6_tcp();
        let asked = layers(&frame).unwrap().request(&mut frame).unwrap();
        assert_eq!((asked.l2_len, asked.l3_len, asked.l4_len), (14, 40, 20));
        assert_eq!((asked.ipv4, asked.l4), (false, L4::Tcp));
    }

    #[test]
    fn cut_and_mangled_frames_are_left_alone() {
        for whole in [UDP4.to_vec(), ipv6_tcp()] {
            for len in 0..whole.len() {
                assert_eq!(layers(&whole[..len]), None, "cut to {len}");
            }
            for at in 0..whole.len() {
                for value in [0, 1, 0x45, 0x4f, 0x7f, 0xff] {
                    let mut frame = whole.clone();
                    frame[at] = value;
                    if let Some(layers) = layers(&frame) {
                        layers.verify(&frame);
                        layers.request(&mut frame);
                    }
                }
            }
        }
        let mut fragment = UDP4;
        fragment[ETHERNET + 6] = 0x20;
        assert_eq!(layers(&fragment).unwrap().l4, L4::Other);
    }
}
