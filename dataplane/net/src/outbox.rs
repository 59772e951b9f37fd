//! The way out: frames from the device's pool, gathered into a burst; and smoltcp's view of it.

use alloc::vec::Vec;
use core::net::IpAddr;

use shard::{Burst, Device};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{IpAddress, TcpPacket, TcpSeqNumber};

use crate::Counters;
use crate::parse::{ACK, ETHERNET, FIN, Mac, RST, SYN, be32, v4_at, v6_at};
use crate::recovery::Options;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;

/// What an ethernet header says besides who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) mac: Mac,
    pub(crate) ethertype: u16,
}

impl Link {
    /// Towards `mac`, with a packet of the family of `ip`.
    pub(crate) fn of(mac: Mac, ip: IpAddr) -> Self {
        Self { mac, ethertype: if ip.is_ipv4() { IPV4 } else { IPV6 } }
    }
}

/// A device and what is on its way out.
#[derive(Debug)]
pub(crate) struct Outbox<D: Device> {
    pub(crate) device: D,
    burst: Burst<D::Frame>,
    /// Where a packet goes that the port has no buffer for: smoltcp cannot take a token back.
    nowhere: Vec<u8>,
    mac: Mac,
    mtu: usize,
    fills_checksums: bool,
    /// The port had no buffer or no room: nothing more until the next turn.
    pub(crate) is_stuck: bool,
}

impl<D: Device> Outbox<D> {
    pub(crate) fn new(device: D) -> Self {
        let info = device.info();
        let (mac, mtu, fills_checksums) = (info.mac, info.mtu, info.checksums.tx);
        Self {
            device,
            burst: Burst::new(),
            nowhere: alloc::vec![0; mtu],
            mac,
            mtu,
            fills_checksums,
            is_stuck: false,
        }
    }

    /// True if the port computes IP and TCP checksums itself.
    pub(crate) fn fills_checksums(&self) -> bool {
        self.fills_checksums
    }

    /// True if a frame can be added to the burst.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.burst.room() == 0 {
            self.device.tx_burst(&mut self.burst);
        }
        self.burst.room() > 0
    }

    /// Sends what has been gathered; true if all of it went.
    pub(crate) fn flush(&mut self) -> bool {
        if !self.burst.is_empty() {
            self.device.tx_burst(&mut self.burst);
        }
        self.burst.is_empty()
    }

    /// Frames in the burst.
    pub(crate) fn pending(&self) -> usize {
        self.burst.len()
    }

    /// A frame of `len` bytes behind its ethernet header, written by `write`; lost and counted if the port
    /// has no buffer or no room.
    pub(crate) fn send<R>(
        &mut self,
        counters: &mut Counters,
        to: Link,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let room = self.has_room();
        let frame = if room { self.device.frame(ETHERNET + len) } else { None };
        let Some(mut frame) = frame else {
            *(if room { &mut counters.tx_no_buffer } else { &mut counters.tx_full }) += 1;
            self.is_stuck = true;
            let len = len.min(self.nowhere.len());
            return write(&mut self.nowhere[..len]);
        };
        let (header, packet) = frame.split_at_mut(ETHERNET);
        header[..6].copy_from_slice(&to.mac);
        header[6..12].copy_from_slice(&self.mac);
        header[12..].copy_from_slice(&to.ethertype.to_be_bytes());
        let out = write(packet);
        counters.tx_frames += 1;
        // There is room: asked above.
        let _ = self.burst.push(frame);
        out
    }
}

/// The last segment a socket sent, as far as time-wait, ICMP errors and the next segment need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// The number of the first byte, once the SYN before it was sent.
    pub(crate) first: Option<u32>,
    /// SND.NXT of RFC 9293: the end of all that was ever sent, from then on.
    next: Option<u32>,
    /// The end of what was sent again and is not acknowledged.
    again: Option<u32>,
    /// Where the newest segment begins.
    newest: u32,
    /// The peer's window is closed: a new byte that goes alone is a probe.
    pub(crate) probes: bool,
    /// Where the receive window ends as smoltcp knows it, and the scale it is told in.
    pub(crate) limit: u32,
    pub(crate) scale: u8,
    /// The last window that smoltcp remembers was told in a SYN: see [`crate::conn::Conn::greet`].
    pub(crate) has_syn_window: bool,
}

impl Sent {
    #[cfg(test)]
    pub(crate) fn test(seq: u32, ack: u32) -> Self {
        Self { seq, ack, ..Self::default() }
    }

    /// SND.NXT, once there is one.
    pub(crate) fn next(&self) -> Option<u32> {
        self.next
    }

    /// True if the byte at `seq` was sent again.
    pub(crate) fn has_again(&self, seq: u32) -> bool {
        self.again.is_some_and(|end| end.wrapping_sub(seq).cast_signed() > 0)
    }

    /// True if nothing before `seq` was sent, not even as a probe.
    pub(crate) fn is_after_next(&self, seq: u32) -> bool {
        self.next.is_none_or(|next| seq.wrapping_sub(next).cast_signed() > i32::from(self.probes))
    }

    /// True if more than one segment is under way.
    pub(crate) fn has_several(&self, una: u32) -> bool {
        self.newest.wrapping_sub(una).cast_signed() > 0
    }

    /// True if what was sent again ends here.
    pub(crate) fn again_ends(&self, seq: u32) -> bool {
        self.again == Some(seq)
    }

    /// All bytes before `una` have arrived.
    pub(crate) fn acknowledged(&mut self, una: u32) {
        if !self.has_again(una) {
            self.again = None;
        }
        // A probe's byte has.
        if self.next.is_some_and(|next| una.wrapping_sub(next).cast_signed() > 0) {
            self.next = Some(una);
        }
    }

    /// New bytes go.
    #[cfg(test)]
    pub(crate) fn test_new(&mut self, seq: u32, len: u32) {
        (self.newest, self.next) = (seq, Some(seq.wrapping_add(len)));
    }

    /// Bytes go again.
    #[cfg(test)]
    pub(crate) fn test_again(&mut self, seq: u32, len: u32) {
        self.again = Some(seq.wrapping_add(len));
    }

    /// Takes note of a segment on its way out and mends it. True if some of it was sent before.
    ///
    /// After a retransmission timeout smoltcp 0.14 numbers segments without payload from where it
    /// retransmits (`remote_last_seq`), not from SND.NXT as RFC 9293 section 3.10.7.4 has it. If the peer has
    /// received more than that, such an acknowledgement is out of its window and ignored; and if both ends
    /// have lost something, each ignores the other's acknowledgements until both give up.
    fn note(
        &mut self,
        segment: &mut TcpPacket<&mut [u8]>,
        is_reply: bool,
        ends: impl Fn() -> Option<(IpAddress, IpAddress)>,
    ) -> bool {
        let flags = segment.as_ref().get(13).copied().unwrap_or(0);
        // The connection goes on, and the number is the offender's (RFC 9293 section 3.5.2).
        if is_reply && flags & RST != 0 {
            return false;
        }
        self.flags = flags;
        self.seq = be32(segment.as_ref(), 4);
        self.ack = be32(segment.as_ref(), 8);
        let len = u32::try_from(segment.segment_len()).unwrap_or(0);
        let end = self.seq.wrapping_add(len);
        // A single byte may be a probe of a closed window, or of an idle peer by an old byte: these do not count.
        let is_new_byte = self.next == Some(self.seq) && !self.probes;
        let counts = len > 1 || is_new_byte || self.flags & (SYN | FIN) != 0;
        // What it says in a probe smoltcp forgets. One of a closed window may also have no byte or a FIN, but is never an
        // answer.
        let is_told = if self.probes { len > 1 + u32::from(self.flags & FIN) } else { counts || len == 0 };
        if self.flags & SYN != 0 {
            self.scale = Options::of(segment.as_ref(), 0).scale.unwrap_or(0);
            self.has_syn_window = self.flags & ACK != 0;
        } else if self.flags & RST == 0 && (is_reply || is_told) {
            self.has_syn_window = false;
        }
        if counts || len == 0 {
            let window = u32::from(segment.window_len()) << self.scale;
            self.limit = self.ack.wrapping_add(window);
        }
        let is_again = counts && self.next.is_some_and(|next| next.wrapping_sub(self.seq).cast_signed() > 0);
        match self.next {
            Some(next) if len == 0 && next.wrapping_sub(self.seq).cast_signed() > 0 => {
                self.seq = next;
                segment.set_seq_number(TcpSeqNumber(next.cast_signed()));
                if let Some((from, to)) = ends() {
                    segment.fill_checksum(&from, &to);
                }
            }
            Some(next) if counts && end.wrapping_sub(next).cast_signed() > 0 => {
                (self.newest, self.next) = (self.seq, Some(end))
            }
            None if self.flags & SYN != 0 => (self.first, self.next) = (Some(end), Some(end)),
            _ => {}
        }
        if is_again && self.again.is_none_or(|again| end.wrapping_sub(again).cast_signed() > 0) {
            self.again = Some(end);
        }
        is_again
    }
}

/// What smoltcp takes for its device during one call: at most one packet in, to one neighbour out.
pub(crate) struct Gate<'a, D: Device> {
    pub(crate) out: &'a mut Outbox<D>,
    pub(crate) counters: &'a mut Counters,
    /// The IP packet to be taken in.
    pub(crate) packet: Option<&'a [u8]>,
    /// Where packets go. `None`: nothing can be sent, but timers run.
    pub(crate) to: Option<Link>,
    pub(crate) sent: &'a mut Sent,
}

/// A packet coming in.
pub(crate) struct Incoming<'a>(&'a [u8]);

/// A packet going out.
pub(crate) struct Outgoing<'a, D: Device> {
    out: &'a mut Outbox<D>,
    counters: &'a mut Counters,
    to: Link,
    sent: &'a mut Sent,
    /// It answers the packet that has just come in.
    is_reply: bool,
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<D: Device> TxToken for Outgoing<'_, D> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { out, counters, to, sent, is_reply } = self;
        let is_v6 = to.ethertype == IPV6;
        let computes = !out.fills_checksums;
        let mut is_again = false;
        let result = out.send(counters, to, len, |packet| {
            let result = f(packet);
            if let Some((header, segment)) = packet.split_at_mut_checked(if is_v6 { 40 } else { 20 }) {
                let ends = || match is_v6 {
                    _ if !computes => None,
                    true => Some((v6_at(header, 8).into(), v6_at(header, 24).into())),
                    false => Some((v4_at(header, 12).into(), v4_at(header, 16).into())),
                };
                is_again = sent.note(&mut TcpPacket::new_unchecked(segment), is_reply, ends);
            }
            result
        });
        counters.retransmits += u64::from(is_again);
        result
    }
}

impl<D: Device> phy::Device for Gate<'_, D> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b, D>
    where
        Self: 'b;

    fn receive(&mut self, _: TcpInstant) -> Option<(Incoming<'_>, Outgoing<'_, D>)> {
        let packet = self.packet.take()?;
        let to = self.to?;
        let outgoing =
            Outgoing { out: self.out, counters: self.counters, to, sent: self.sent, is_reply: true };
        Some((Incoming(packet), outgoing))
    }

    fn transmit(&mut self, _: TcpInstant) -> Option<Outgoing<'_, D>> {
        let to = self.to?;
        if self.out.is_stuck || !self.out.has_room() {
            self.out.is_stuck = true;
            return None;
        }
        Some(Outgoing { out: self.out, counters: self.counters, to, sent: self.sent, is_reply: false })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.out.mtu;
        // Received ones have been verified by the port or by `parse`.
        let checksum = if self.out.fills_checksums { Checksum::None } else { Checksum::Tx };
        let mut checksums = ChecksumCapabilities::ignored();
        (checksums.ipv4, checksums.tcp) = (checksum, checksum);
        caps.checksum = checksums;
        caps
    }
}
