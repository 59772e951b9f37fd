//! The frames: how ours are made, and how any is read.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// Marks our frames, in front of their number.
const MARK: [u8; 4] = *b"twpg";
/// Where a frame of ours carries mark and number.
const MARK_AT: usize = ETHERNET + IPV4 + UDP;

/// What tells flows apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// Sender.
    pub from: IpAddr,
    /// Receiver.
    pub to: IpAddr,
    /// Sender's port.
    pub from_port: u16,
    /// Receiver's port.
    pub to_port: u16,
    /// TCP or UDP, by its protocol number.
    pub protocol: u8,
}

/// The flow of a frame; `None` for anything but a whole TCP or UDP packet, also for fragments.
pub fn flow_key(frame: &[u8]) -> Option<FlowKey> {
    let packet = frame.get(ETHERNET..)?;
    let (from, to, protocol, header, len) = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let fixed = packet.first_chunk::<IPV4>()?;
            let fragment = be16(fixed, 6) & 0x3fff != 0;
            if fixed[0] >> 4 != 4 || fragment {
                return None;
            }
            let from = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]);
            let to = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
            let header = usize::from(fixed[0] & 0xf) * 4;
            (from.into(), to.into(), fixed[9], header, usize::from(be16(fixed, 2)))
        }
        [0x86, 0xdd] => {
            let fixed = packet.first_chunk::<IPV6>()?;
            if fixed[0] >> 4 != 6 {
                return None;
            }
            let from = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
            let to = Ipv6Addr::from(*fixed[24..].first_chunk::<16>()?);
            (from.into(), to.into(), fixed[6], IPV6, IPV6 + usize::from(be16(fixed, 4)))
        }
        _ => return None,
    };
    let least = match protocol {
        PROTOCOL_TCP => 20,
        PROTOCOL_UDP => UDP,
        _ => return None,
    };
    if header < IPV4 || len < header + least || len > packet.len() {
        return None;
    }
    let ports = packet.get(header..)?.first_chunk::<4>()?;
    Some(FlowKey { from, to, from_port: be16(ports, 0), to_port: be16(ports, 2), protocol })
}

/// Sends a frame back where it came from.
pub fn swap_macs(frame: &mut [u8]) {
    if let Some((to, rest)) = frame.split_at_mut_checked(6)
        && let Some(from) = rest.get_mut(..6)
    {
        to.swap_with_slice(from);
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// UDP packets of one size, alike but for the source port and the number they carry.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    flows: u16,
}

impl Template {
    /// The shortest frame that has room for the number.
    pub const SIZE_MIN: usize = 60;
    /// The first source port; each flow has its own.
    const PORT_FIRST: u16 = 10_000;

    /// Frames of `size` bytes (at least [`Self::SIZE_MIN`]), without check sequence.
    pub fn new(size: usize, from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr), flows: u16) -> Self {
        let size = size.clamp(Self::SIZE_MIN, usize::from(u16::MAX));
        let mut bytes = vec![0; size];
        let ip_len = u16::try_from(size - ETHERNET).unwrap_or(u16::MAX);
        let udp_len = ip_len - 20;
        bytes[..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&from.0);
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        bytes[16..18].copy_from_slice(&ip_len.to_be_bytes());
        bytes[20] = 0x40;
        bytes[22..24].copy_from_slice(&[64, PROTOCOL_UDP]);
        bytes[26..30].copy_from_slice(&from.1.octets());
        bytes[30..34].copy_from_slice(&to.1.octets());
        let sum = header_checksum(&bytes[ETHERNET..ETHERNET + IPV4]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        // The discard service. No UDP checksum: RFC 768 lets IPv4 do without.
        bytes[36..38].copy_from_slice(&9_u16.to_be_bytes());
        bytes[38..40].copy_from_slice(&udp_len.to_be_bytes());
        bytes[MARK_AT..MARK_AT + 4].copy_from_slice(&MARK);
        Self { bytes, flows: flows.max(1) }
    }

    /// Bytes of a frame.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Fills a frame of [`Self::size`] bytes.
    pub fn write(&self, frame: &mut [u8], number: u64) {
        frame.copy_from_slice(&self.bytes);
        #[expect(clippy::cast_possible_truncation, reason = "below the number of flows")]
        let flow = (number % u64::from(self.flows)) as u16;
        frame[34..36].copy_from_slice(&Self::PORT_FIRST.wrapping_add(flow).to_be_bytes());
        frame[MARK_AT + 4..MARK_AT + 12].copy_from_slice(&number.to_be_bytes());
    }

    /// The number of a frame of ours.
    pub fn number(frame: &[u8]) -> Option<u64> {
        let marked = frame.get(MARK_AT..)?.first_chunk::<12>()?;
        let number = marked.strip_prefix(&MARK)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*number))
    }
}

/// RFC 1071, over a header whose checksum is zero.
fn header_checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|two| u32::from(be16(two, 0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(size: usize) -> Template {
        let (a, b) = (Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 0, 2));
        Template::new(size, ([2, 0, 0, 0, 0, 1], a), ([2, 0, 0, 0, 0, 2], b), 3)
    }

    #[test]
    fn frames_are_numbered_and_spread_over_flows() {
        for size in [60, 64, 1514] {
            let template = template(size);
            let mut ports = Vec::new();
            for number in 0..6 {
                let mut frame = vec![0xff; size];
                template.write(&mut frame, number);
                assert_eq!(Template::number(&frame), Some(number));
                let key = flow_key(&frame).unwrap();
                assert_eq!((key.from, key.to_port), (IpAddr::from([10, 7, 0, 1]), 9));
                assert_eq!(header_checksum(&frame[14..34]), 0, "a sum that includes itself is zero");
                ports.push(key.from_port);
            }
            assert_eq!(ports, [10_000, 10_001, 10_002, 10_000, 10_001, 10_002]);
        }
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        let mut frame = vec![0; 60];
        template(60).write(&mut frame, 7);
        let before = frame.clone();
        swap_macs(&mut frame);
        assert_eq!((&frame[..6], &frame[6..12]), (&before[6..12], &before[..6]));
        swap_macs(&mut frame);
        assert_eq!(frame, before);
        swap_macs(&mut [0; 11]);
    }

    #[test]
    fn what_is_not_whole_has_no_flow() {
        let mut whole = vec![0; 60];
        template(60).write(&mut whole, 0);
        for len in 0..60 {
            assert_eq!(flow_key(&whole[..len]), None, "cut to {len}");
        }
        for (at, value) in [(12, 0), (14, 0x65), (14, 0x44), (16, 0xff), (20, 0x20), (21, 1), (23, 1)] {
            let mut frame = whole.clone();
            frame[at] = value;
            assert_eq!(flow_key(&frame), None, "byte {at} = {value:#x}");
        }
        let mut six = vec![0; 14 + 40 + 8];
        six[12..14].copy_from_slice(&[0x86, 0xdd]);
        six[14] = 0x60;
        six[19] = 8;
        six[20] = PROTOCOL_UDP;
        six[54..58].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(flow_key(&six).map(|key| (key.from_port, key.to_port)), Some((0x102, 0x304)));
        six[19] = 9;
        assert_eq!(flow_key(&six), None, "longer than the frame");
    }
}
