//! What TCP/IP in user space sees of any raw port: DPDK, AF_XDP, or the simulator's wire.
//!
//! A device is one receive and one transmit queue of a port, owned by one shard. Frames are ethernet frames
//! without checksum sequence, linear, and move by value: whoever holds a frame owns its buffer.
//!
//! Invariant: a device never calls back, never blocks outside [`Device::wait`], and never loses a buffer: a
//! frame that is dropped goes back to its pool, also when it outlives its device.

use core::net::IpAddr;
use core::ops::DerefMut;

use wire::Instant;

use crate::Burst;

/// One queue pair of a raw port.
pub trait Device {
    /// An ethernet frame and its buffer. Dropping it gives the buffer back.
    type Frame: DerefMut<Target = [u8]>;

    /// What this queue pair is, fixed when it was opened.
    fn info(&self) -> &DeviceInfo;

    /// Appends at most `out.room()` received frames; never blocks. Frames whose checksums the port has
    /// found wrong are dropped and counted here, if `info().checksums.rx`.
    fn rx_burst(&mut self, out: &mut Burst<Self::Frame>);

    /// A frame of `len` bytes to fill and send, content unspecified; `None` (counted) when buffers have run
    /// out or `len` is above `info().mtu` and the ethernet header.
    fn frame(&mut self, len: usize) -> Option<Self::Frame>;

    /// Sends from the front of `frames`; what the port has no room for stays there, in order.
    fn tx_burst(&mut self, frames: &mut Burst<Self::Frame>);

    /// True while the port can carry frames, as last seen; `now` is the turn's time. Cheap enough for once a turn.
    fn link_up(&mut self, now: Instant) -> bool;

    /// Waits until a frame may have come, the waker was rung or `until` has passed. A port without a
    /// descriptor sleeps for a time and looks again.
    fn wait(&mut self, until: Option<Instant>);

    /// The monotonic clock (virtual in the simulator).
    fn now(&self) -> Instant;
}

/// What a queue pair is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet, bytes.
    pub mtu: usize,
    /// Checksums the port takes over.
    pub checksums: Checksums,
    /// Which frames come to this queue.
    pub steering: Steering,
}

/// IP, TCP and UDP checksums a port takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checksums {
    /// Received frames have been checked: those that were wrong never come up.
    pub rx: bool,
    /// `tx_burst` fills them in; the sender leaves them zero.
    pub tx: bool,
}

/// How a port spreads received frames over its queues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Steering {
    /// One queue has them all.
    Single,
    /// By a hash of addresses and ports; frames without ports (ARP, neighbour discovery) come to any one.
    Hash {
        /// This queue.
        queue: u16,
        /// The port's spreading.
        spread: Spread,
    },
}

/// Receive-side scaling as NICs do it: Toeplitz over source and destination, then a table of queues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spread {
    /// The hash key: 40 or 52 bytes.
    pub key: alloc::vec::Vec<u8>,
    /// Hash modulo length gives the entry, the entry the queue. The length is a power of two.
    pub table: alloc::vec::Vec<u16>,
}

impl Spread {
    /// The queue of a TCP or UDP packet as it arrives: `from` is its sender. `None` for mixed families.
    pub fn queue(&self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Option<u16> {
        let hash = match (from.0, to.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                self.toeplitz(&[&a.octets(), &b.octets(), &from.1.to_be_bytes(), &to.1.to_be_bytes()])
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                self.toeplitz(&[&a.octets(), &b.octets(), &from.1.to_be_bytes(), &to.1.to_be_bytes()])
            }
            _ => return None,
        };
        let entry = hash as usize & self.table.len().checked_sub(1)?;
        self.table.get(entry).copied()
    }

    /// For each set bit of the input, the 32 key bits that begin there, all XORed.
    fn toeplitz(&self, parts: &[&[u8]]) -> u32 {
        let mut key = self.key.iter().copied();
        let mut window = (0..4).fold(0_u32, |word, _| word << 8 | u32::from(key.next().unwrap_or(0)));
        let mut hash = 0;
        for byte in parts.iter().flat_map(|part| part.iter()) {
            let mut next = key.next().unwrap_or(0);
            for bit in (0..8).rev() {
                if byte >> bit & 1 == 1 {
                    hash ^= window;
                }
                window = window << 1 | u32::from(next >> 7);
                next <<= 1;
            }
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, Ipv6Addr};

    /// The key of Microsoft's "Verifying the RSS hash calculation", and two of its vectors.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn spread(queues: u16) -> Spread {
        Spread { key: KEY.to_vec(), table: (0..128).map(|i| i % queues).collect::<Vec<_>>() }
    }

    #[test]
    fn agrees_with_the_published_vectors() {
        let spread = spread(4);
        let v4 = |a: [u8; 4]| Ipv4Addr::from(a).octets();
        let hash = spread.toeplitz(&[
            &v4([66, 9, 149, 187]),
            &v4([161, 142, 100, 80]),
            &2794_u16.to_be_bytes(),
            &1766_u16.to_be_bytes(),
        ]);
        assert_eq!(hash, 0x51cc_c178);
        let from = Ipv6Addr::new(0x3ffe, 0x2501, 0x200, 0x1fff, 0, 0, 0, 7);
        let to = Ipv6Addr::new(0x3ffe, 0x2501, 0x200, 3, 0, 0, 0, 1);
        let hash = spread.toeplitz(&[
            &from.octets(),
            &to.octets(),
            &2794_u16.to_be_bytes(),
            &1766_u16.to_be_bytes(),
        ]);
        assert_eq!(hash, 0x4020_7d3d);
    }

    #[test]
    fn a_symmetric_key_gives_both_directions_one_queue() {
        let spread = Spread { key: [0x6d, 0x5a].repeat(20), ..spread(4) };
        let a = (IpAddr::V4(Ipv4Addr::new(10, 7, 0, 1)), 40_001);
        let b = (IpAddr::V4(Ipv4Addr::new(10, 7, 0, 2)), 15_001);
        assert_eq!(spread.queue(a, b), spread.queue(b, a));
        assert_eq!(spread.queue(a, (IpAddr::V6(Ipv6Addr::LOCALHOST), 1)), None);
        let used: hashbrown::HashSet<_> =
            (0..200).filter_map(|port| spread.queue((a.0, 40_000 + port), b)).collect();
        assert_eq!(used.len(), 4, "flows reach every queue");
    }
}
