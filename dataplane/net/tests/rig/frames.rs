//! Frames written by hand, and their checksums.

use std::net::IpAddr;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Host 2 says to host 1 that nobody listens where the quoted packet was to go.
pub(crate) fn unreachable(quote: &[u8]) -> Vec<u8> {
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], quote].concat();
    let sum = checksum(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let total = (20 + message.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0, 10, 7, 0, 2, 10, 7, 0, 1];
    let sum = checksum(&[&ip]).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&super::mac(1)[..], &super::mac(2), &[8, 0], &ip, &message].concat()
}

/// Neighbour discovery: a message of `kind` from one address to another, about `target`, with the ethernet
/// address of host `mac`.
pub(crate) fn discovery(kind: u8, flags: u8, from: IpAddr, to: IpAddr, target: IpAddr, mac: u8) -> Vec<u8> {
    let octets = |ip: IpAddr| if let IpAddr::V6(ip) = ip { ip.octets() } else { panic!("no IPv6 address") };
    let (from, to, target) = (octets(from), octets(to), octets(target));
    let option = if kind == 135 { 1 } else { 2 };
    let lladdr = super::mac(mac);
    let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, &[option, 1], &lladdr].concat();
    let len = message.len() as u8;
    let sum = checksum(&[&from, &to, &[0, 0, 0, len, 0, 0, 0, 58], &message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let header = [0x60, 0, 0, 0, 0, len, 58, 255];
    [&super::mac(to[15])[..], &lladdr, &[0x86, 0xdd], &header, &from, &to, &message].concat()
}

/// A neighbour solicitation of host 9's, sent to the one it asks for.
pub(crate) fn solicit(from: IpAddr, target: IpAddr) -> Vec<u8> {
    discovery(135, 0, from, target, target, 9)
}

/// A TCP segment in all its headers, checksums right.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    /// What a recorded frame is, if it is TCP.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let be16 = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let be32 = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
        let (from, to, tcp, end) = match be16(12)? {
            0x0800 if *frame.get(23)? == 6 => (v4(26)?, v4(30)?, 34, 14 + usize::from(be16(16)?)),
            0x86dd if *frame.get(20)? == 6 => (v6(22)?, v6(38)?, 54, 54 + usize::from(be16(18)?)),
            _ => return None,
        };
        let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        Some(Self {
            macs: [frame[..6].try_into().ok()?, frame[6..12].try_into().ok()?],
            from: (from, be16(tcp)?),
            to: (to, be16(tcp + 2)?),
            seq: be32(tcp + 4)?,
            ack: be32(tcp + 8)?,
            flags: *frame.get(tcp + 13)?,
            window: be16(tcp + 14)?,
            options: frame.get(tcp + 20..data)?.to_vec(),
            payload: frame.get(data..end)?.to_vec(),
        })
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().min(40).next_multiple_of(4), 0);
        let mut tcp = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        tcp.extend([self.seq.to_be_bytes(), self.ack.to_be_bytes()].concat());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let len = tcp.len();
        let mut frame = [self.macs[0], self.macs[1]].concat();
        let (from, to) = match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = ((20 + len) as u16).to_be_bytes();
                let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
                ip.extend([from.octets(), to.octets()].concat());
                let sum = checksum(&[&ip]).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                frame.extend([8, 0]);
                frame.extend(ip);
                (from.octets().to_vec(), to.octets().to_vec())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((len as u16).to_be_bytes());
                frame.extend([6, 64]);
                frame.extend([from.octets(), to.octets()].concat());
                (from.octets().to_vec(), to.octets().to_vec())
            }
            _ => panic!("mixed families"),
        };
        let sum = checksum(&[&from, &to, &[0, 6], &(len as u16).to_be_bytes(), &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        frame.extend(tcp);
        frame
    }
}
