use super::*;
use crate::Config;
use alloc::vec::Vec;

const MAC: Mac = [2, 0, 0, 0, 0, 2];

fn rules() -> Rules {
    let mut config = Config::new("10.7.0.2".parse().unwrap(), 24, 0);
    config.addresses.push(("fd00::2".parse().unwrap(), 64));
    Rules { mac: MAC, mtu: 1500, checked: false, routes: Routes::new(&config) }
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// 10.7.0.1:40000 to 10.7.0.2:15001, an ACK with `payload` and these options, all checksums right.
fn segment(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let tcp_len = 20 + options.len();
    let mut tcp = alloc::vec![0x9c, 0x40, 0x3a, 0x99, 0, 0, 0, 7, 0, 0, 0, 9];
    tcp.extend([u8::try_from(tcp_len / 4).unwrap() << 4, 0x10, 1, 0, 0, 0, 0, 0]);
    tcp.extend_from_slice(options);
    tcp.extend_from_slice(payload);
    let len = u16::try_from(20 + tcp.len()).unwrap().to_be_bytes();
    let mut ip = alloc::vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, 6, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2];
    let check = sum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(u16::try_from(tcp.len()).unwrap().to_be_bytes());
    pseudo.extend_from_slice(&tcp);
    let check = sum(&pseudo).to_be_bytes();
    tcp[16..18].copy_from_slice(&check);
    let mut frame = MAC.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend(ip);
    frame.extend(tcp);
    frame
}

/// Changes bytes of the IP header and makes its checksum right again.
fn with_ip(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut frame = segment(&[], b"hello");
    change(&mut frame[14..34]);
    frame[24..26].fill(0);
    let check = sum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&check);
    frame
}

fn verdict(frame: &[u8]) -> Option<Bad> {
    rules().parse(frame).err()
}

#[test]
fn a_good_segment_is_read() {
    let mut frame = segment(&[2, 4, 5, 0xb4], b"hello");
    // Ethernet pads short frames.
    frame.extend([0; 9]);
    let Ok(Parsed::Tcp(segment, end)) = rules().parse(&frame) else { panic!("refused") };
    assert_eq!((segment.seq, segment.flags, segment.payload_len), (7, ACK, 5));
    assert_eq!((segment.flow.remote_port, segment.flow.local_port), (40_000, 15_001));
    assert_eq!(end, frame.len() - 9);
}

#[test]
fn every_fault_has_its_name() {
    let edit = |at: usize, byte: u8| {
        let mut frame = segment(&[], b"hello");
        frame[at] = byte;
        frame
    };
    let oversize = segment(&[], &[0; 1461]);
    for (frame, bad) in [
        (segment(&[], b"")[..13].to_vec(), Bad::Truncated),
        (segment(&[], b"")[..40].to_vec(), Bad::Truncated),
        (oversize, Bad::Oversize),
        (edit(5, 9), Bad::NotForUs),
        (edit(0, 0xff), Bad::NotForUs),
        (edit(6, 1), Bad::Source),
        (edit(11, 2), Bad::Source),
        (edit(12, 0x81), Bad::Vlan),
        (edit(13, 0x42), Bad::Ethertype),
        (edit(14, 0x55), Bad::IpHeader),
        (edit(14, 0x44), Bad::IpHeader),
        (edit(22, 63), Bad::IpChecksum),
        (with_ip(|ip| ip[19] = 3), Bad::NotForUs),
        (with_ip(|ip| ip[12] = 224), Bad::Source),
        (with_ip(|ip| ip[15] = 2), Bad::Source),
        (with_ip(|ip| ip[6] = 0x20), Bad::Fragment),
        (with_ip(|ip| ip[7] = 1), Bad::Fragment),
        (with_ip(|ip| ip[9] = 17), Bad::Protocol),
        (with_ip(|ip| ip[3] = 39), Bad::TcpHeader),
        (with_ip(|ip| ip[3] = 19), Bad::IpHeader),
        (edit(46, 0x40), Bad::TcpHeader),
        (edit(46, 0xf0), Bad::TcpHeader),
        (edit(47, SYN | FIN), Bad::TcpHeader),
        (edit(47, SYN | RST), Bad::TcpHeader),
        (edit(58, b'j'), Bad::TcpChecksum),
        // Options that end in the middle, and one of length zero.
        (segment(&[1, 1, 1, 2], b""), Bad::TcpOptions),
        (segment(&[8, 0, 1, 1], b""), Bad::TcpOptions),
    ] {
        assert_eq!(verdict(&frame), Some(bad), "{frame:02x?}");
    }
    // All the options there is room for, none of them known.
    assert_eq!(verdict(&segment(&[1; 40], b"")), None);
    let mut unknown = [254, 40].to_vec();
    unknown.resize(40, 7);
    assert_eq!(verdict(&segment(&unknown, b"")), None);
}

#[test]
fn ipv6_extension_headers_and_fragments_are_named() {
    let mut frame = MAC.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 0, 64]);
    frame.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend([0; 8]);
    for (next, bad) in [(0, Bad::IpOptions), (43, Bad::IpOptions), (44, Bad::Fragment), (17, Bad::Protocol)] {
        frame[20] = next;
        assert_eq!(verdict(&frame), Some(bad), "next header {next}");
    }
    frame[20] = 6;
    assert_eq!(verdict(&frame), Some(Bad::TcpHeader));
    frame[19] = 9;
    assert_eq!(verdict(&frame), Some(Bad::Truncated));
}
