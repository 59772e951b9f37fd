//! What has no ports: ARP, neighbour discovery, echo, and errors about segments of ours.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;

use shard::{Device, Instant, Steering, Why};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, Icmpv4Packet, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use crate::conn::Stage;
use crate::emit::ND_HOP_LIMIT;
use crate::neighbours::Word;
use crate::parse::{Bad, ETHERNET, Flow, Mac, be32, mac_at, v4_at, v6_at};
use crate::stack::Stack;

/// Copies kept for other shards.
const SHARED_MAX: usize = 64;

/// Copies of frames that other queues of the port never see.
#[derive(Debug)]
pub(crate) struct Shared {
    is_on: bool,
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Shared {
    /// On at every queue of a port that spreads: NICs hash what has no ports by its addresses, or not at all.
    pub(crate) fn new(steering: &Steering) -> Self {
        let is_on = match steering {
            Steering::Single => false,
            Steering::Hash { queue, spread } => spread.table.iter().any(|other| other != queue),
        };
        Self { is_on, frames: VecDeque::new(), spare: Vec::new() }
    }

    /// Keeps a copy; true if an older one had to go.
    fn keep(&mut self, frame: &[u8]) -> bool {
        let is_full = self.frames.len() >= SHARED_MAX;
        let oldest = if is_full { self.frames.pop_front() } else { self.spare.pop() };
        let mut copy = oldest.unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        self.frames.push_back(copy);
        is_full
    }
}

/// Who gets an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It came to this queue: whatever it calls for is done.
    Wire,
    /// Another shard has answered it: only what it says is taken note of.
    Copy,
}

impl<D: Device> Stack<D> {
    /// Hands over copies of the frames that carry no ports (ARP, neighbour discovery, ICMP errors). A port
    /// that spreads brings each to one queue, whoever asked for it, but every shard has to know what it says:
    /// give it to the other shards' [`Stack::inject`], which never shares it again. At most 64 are kept
    /// between calls.
    pub fn shared_frames(&mut self, mut give: impl FnMut(&[u8])) {
        while let Some(frame) = self.shared.frames.pop_front() {
            give(&frame);
            self.shared.spare.push(frame);
        }
    }

    /// Takes note of a frame another shard of the port has received and answered.
    pub fn inject(&mut self, frame: &[u8]) {
        let now = self.out.device.now();
        let parsed = self.rules.parse(frame);
        self.take_other(frame, parsed, Origin::Copy, now);
    }

    pub(crate) fn take_arp(&mut self, frame: &[u8], origin: Origin, now: Instant) -> Result<(), Bad> {
        let packet = ArpPacket::new_checked(&frame[ETHERNET..]).map_err(|_| Bad::Neighbour)?;
        let repr = ArpRepr::parse(&packet).map_err(|_| Bad::Neighbour)?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: theirs,
            target_protocol_addr: target,
            ..
        } = repr
        else {
            return Err(Bad::Neighbour);
        };
        let (mac, sender) = (source_hardware_addr.0, IpAddr::V4(theirs));
        let is_ours = self.rules.routes.local(IpAddr::V4(target)).is_some();
        // RFC 5227 section 1.1: who probes an address does not have one yet.
        let is_probe = theirs.is_unspecified() && operation == ArpOperation::Request;
        if !is_probe && (self.rules.routes.is_martian(sender) || !self.rules.routes.is_near(sender)) {
            return Err(Bad::Neighbour);
        }
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Bad::Neighbour);
        }
        let is_announced = theirs == target;
        if !is_ours && !is_announced {
            return Err(Bad::NotForUs);
        }
        let is_request = operation == ArpOperation::Request && is_ours;
        if is_request && origin == Origin::Wire {
            self.counters.neighbour_answers += 1;
            self.pen().answer_arp(target, mac, theirs);
        }
        if !is_probe {
            // A gratuitous answer goes to everybody, one to us to our address.
            let word = Word { is_solicited: operation == ArpOperation::Reply && is_ours, overrides: true };
            self.learn(sender, mac, is_request, word, now);
        }
        self.share_news(frame, origin, now);
        Ok(())
    }

    pub(crate) fn take_icmp(
        &mut self,
        frame: &[u8],
        (from, to, hop_limit): (IpAddr, IpAddr, u8),
        message: Range<usize>,
        origin: Origin,
        now: Instant,
    ) -> Result<(), Bad> {
        let message = frame.get(message).unwrap_or_default();
        let mac = mac_at(frame, 6);
        let kind = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => v4_kind(message)?,
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let packet = Icmpv6Packet::new_checked(message).map_err(|_| Bad::Icmp)?;
                let repr = Icmpv6Repr::parse(&from, &to, &packet, &ChecksumCapabilities::default());
                match repr.map_err(|_| Bad::Icmp)? {
                    Icmpv6Repr::Ndisc(repr) => {
                        if hop_limit != ND_HOP_LIMIT {
                            return Err(Bad::Neighbour);
                        }
                        return self.take_discovery(frame, from.into(), mac, &repr, origin, now);
                    }
                    _ => v6_kind(message),
                }
            }
            _ => return Err(Bad::Icmp),
        };
        match kind {
            Kind::Echo if origin == Origin::Wire && self.rules.routes.local(to).is_some() => {
                if self.echoes.take(now) {
                    self.counters.echoes += 1;
                    self.pen().echo(mac, to, from, message);
                } else {
                    self.counters.echoes_suppressed += 1;
                }
            }
            Kind::Unreachable(why) => {
                let heeded = self.take_unreachable(message.get(8..).unwrap_or_default(), why);
                match (heeded, origin) {
                    (Heeded::Yes, _) => self.counters.icmp_unreachable += 1,
                    (Heeded::Elsewhere, Origin::Wire) if self.errors.take(now) => self.share(frame, origin),
                    (_, Origin::Wire) => self.counters.icmp_ignored += 1,
                    (_, Origin::Copy) => {}
                }
            }
            Kind::TooBig => self.counters.icmp_too_big += 1,
            Kind::Echo | Kind::Other => self.counters.icmp_ignored += 1,
        }
        Ok(())
    }

    fn take_discovery(
        &mut self,
        frame: &[u8],
        from: IpAddr,
        mac: Mac,
        repr: &NdiscRepr<'_>,
        origin: Origin,
        now: Instant,
    ) -> Result<(), Bad> {
        let given = |option: &Option<RawHardwareAddress>| {
            let mac: Option<Mac> = option.as_ref().and_then(|raw| raw.as_bytes().try_into().ok());
            mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        };
        match repr {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                let target = IpAddr::V6(*target_addr);
                if self.rules.routes.local(target).is_none() {
                    return Err(Bad::NotForUs);
                }
                if let (Origin::Wire, IpAddr::V6(theirs)) = (origin, from) {
                    self.counters.neighbour_answers += 1;
                    self.pen().answer_solicit(*target_addr, mac, theirs);
                }
                if let Some(mac) = given(lladdr) {
                    // RFC 4861 section 7.2.3.
                    let word = Word { is_solicited: false, overrides: true };
                    self.learn(from, mac, true, word, now);
                }
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                // An answer to a question put to one neighbour need not repeat its address.
                let mac = given(lladdr).unwrap_or(mac);
                if self.rules.routes.is_martian(IpAddr::V6(*target_addr)) {
                    return Err(Bad::Neighbour);
                }
                let word = Word {
                    is_solicited: flags.contains(NdiscNeighborFlags::SOLICITED),
                    overrides: flags.contains(NdiscNeighborFlags::OVERRIDE),
                };
                // RFC 4861 section 7.1.2: an answer goes to who has asked.
                if word.is_solicited && frame[0] & 1 != 0 {
                    return Err(Bad::Neighbour);
                }
                self.learn(IpAddr::V6(*target_addr), mac, false, word, now);
            }
            _ => {
                self.counters.icmp_ignored += 1;
                return Ok(());
            }
        }
        self.share_news(frame, origin, now);
        Ok(())
    }

    /// `ip` is at `mac`. News only of neighbours that matter: those in the table, and those that `ask` for
    /// us and so are about to speak to us.
    fn learn(&mut self, ip: IpAddr, mac: Mac, asks: bool, word: Word, now: Instant) {
        let is_welcome = self.neighbours.knows(ip) || (asks && self.rules.routes.is_near(ip));
        if !is_welcome {
            return;
        }
        let mut freed = core::mem::take(&mut self.freed);
        if self.neighbours.learn(ip, mac, word, now, &mut freed).is_err() {
            self.counters.neighbours_refused += 1;
        }
        for index in freed.drain(..) {
            if self.slots.slot_mut(index).is_some_and(|conn| conn.waited_for(ip)) {
                self.mark_dirty(index);
            }
        }
        self.freed = freed;
    }

    /// What was heard of neighbours goes to the other shards, too: each frame costs every one of them something.
    fn share_news(&mut self, frame: &[u8], origin: Origin, now: Instant) {
        if origin == Origin::Wire && self.shared.is_on && !self.news.take(now) {
            self.counters.shared_dropped += 1;
        } else {
            self.share(frame, origin);
        }
    }

    fn share(&mut self, frame: &[u8], origin: Origin) {
        if origin == Origin::Wire && self.shared.is_on {
            self.counters.shared += 1;
            self.counters.shared_dropped += u64::from(self.shared.keep(frame));
        }
    }

    /// Somebody on the way says that a packet of ours, which begins with `quoted`, goes nowhere. Only a
    /// connect heeds it, and only if the quoted segment is the one it sent: RFC 5927 section 4.
    fn take_unreachable(&mut self, quoted: &[u8], why: Why) -> Heeded {
        let Some((local, remote, tcp)) = quoted_ends(quoted) else { return Heeded::No };
        let port = |at: usize| tcp.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let Some(place) = self.rules.routes.local(local) else { return Heeded::No };
        let flow = Flow { remote, remote_port: port(2), local: place, local_port: port(0) };
        let Some(index) = self.flows.get(&flow).copied() else {
            let is_elsewhere = self.ports.has(flow.local_port)
                && match &self.steering {
                    Steering::Single => false,
                    Steering::Hash { queue, spread } => {
                        spread.queue((remote, flow.remote_port), (local, flow.local_port)) != Some(*queue)
                    }
                };
            return if is_elsewhere { Heeded::Elsewhere } else { Heeded::No };
        };
        let Some(conn) = self.slots.slot_mut(index) else { return Heeded::No };
        if conn.stage != Stage::Connecting || conn.sent.seq != be32(tcp, 4) || conn.end.is_some() {
            return Heeded::No;
        }
        conn.end = Some(why);
        self.mark_ready(index);
        Heeded::Yes
    }
}

/// Whether an error has ended a connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heeded {
    Yes,
    No,
    /// It may be about one of another shard.
    Elsewhere,
}

/// What an ICMP message is to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Echo,
    Unreachable(Why),
    TooBig,
    Other,
}

fn v4_kind(message: &[u8]) -> Result<Kind, Bad> {
    let packet = Icmpv4Packet::new_checked(message).map_err(|_| Bad::Icmp)?;
    if !packet.verify_checksum() {
        return Err(Bad::Icmp);
    }
    Ok(match (message[0], message[1]) {
        (8, 0) => Kind::Echo,
        (3, 4) => Kind::TooBig,
        (3, 3) => Kind::Unreachable(Why::Refused),
        (3, _) => Kind::Unreachable(Why::Unreachable),
        _ => Kind::Other,
    })
}

fn v6_kind(message: &[u8]) -> Kind {
    match (message.first(), message.get(1)) {
        (Some(128), Some(0)) => Kind::Echo,
        (Some(2), _) => Kind::TooBig,
        (Some(1), Some(4)) => Kind::Unreachable(Why::Refused),
        (Some(1), _) => Kind::Unreachable(Why::Unreachable),
        _ => Kind::Other,
    }
}

/// Sender, receiver and TCP header of a quoted packet; at least 8 bytes of TCP are there.
fn quoted_ends(quoted: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (local, remote, header_len) = match quoted.first()? >> 4 {
        4 if quoted.get(9) == Some(&6) => {
            let header_len = usize::from(quoted[0] & 15) * 4;
            (IpAddr::V4(v4_at(quoted, 12)), IpAddr::V4(v4_at(quoted, 16)), header_len)
        }
        6 if quoted.get(6) == Some(&6) => (IpAddr::V6(v6_at(quoted, 8)), IpAddr::V6(v6_at(quoted, 24)), 40),
        _ => return None,
    };
    let tcp = quoted.get(header_len..)?;
    (tcp.len() >= 8 && header_len >= 20).then_some((local, remote, tcp))
}
