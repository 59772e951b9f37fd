//! Peers of the relay: each sends a byte pattern of its own and checks the one it receives.
//!
//! A stream begins with 8 bytes that number its flow; every later byte follows from flow and offset, so a
//! lost, doubled, swapped or foreign byte shows where it arrives.

use crate::ledger::Ledger;
use crate::net::LinkId;
use crate::peer::{End, Peer, PeerIo, Wake};
use crate::plan::{MS, SECOND, Weather};
use crate::rng::{Rng, mix};

/// How a peer breaks a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Abort {
    Never,
    AfterBytes(u64, bool),
    AfterNs(u64, bool),
}

/// One scripted end.
#[derive(Debug)]
pub(crate) struct OpaquePeer {
    flow: usize,
    head: Vec<u8>,
    send_bytes: u64,
    write_bytes_max: usize,
    write_gap_ns: u64,
    read_bytes_max: usize,
    read_gap_ns: u64,
    finishes_after_eof: bool,
    abort: Abort,
    next_write: u64,
    next_read: u64,
    give_up_at: Option<u64>,
}

/// The byte of a flow's stream at `offset`.
fn pattern(flow: usize, offset: u64, out: &mut Vec<u8>, len: usize) {
    let head = (flow as u64).to_le_bytes();
    let mut at = offset;
    while out.len() < len {
        if at < 8 {
            out.extend_from_slice(&head[(at % 8) as usize..]);
            at = 8;
            continue;
        }
        let word = mix(((flow as u64) << 40) ^ (at / 8)).to_le_bytes();
        out.extend_from_slice(&word[(at % 8) as usize..]);
        at += 8 - at % 8;
    }
    out.truncate(len);
}

impl OpaquePeer {
    /// A caller or a backend with a random script.
    pub(crate) fn new(
        rng: &mut Rng,
        ledger: &mut Ledger,
        link: LinkId,
        is_client: bool,
        size: &Size,
    ) -> Self {
        let foul = size.weather == Weather::Foul;
        let abort = match rng.below(if foul { 8 } else { 40 }) {
            0 => Abort::AfterBytes(rng.skewed(size.bytes_max) as u64, rng.chance(700)),
            1 => Abort::AfterNs(rng.skewed(100_000_000) as u64, rng.chance(700)),
            _ => Abort::Never,
        };
        let is_silent = rng.chance(50);
        Self {
            flow: ledger.flow(link, is_client),
            head: Vec::new(),
            send_bytes: if is_silent { 0 } else { 7 + rng.skewed(size.bytes_max) as u64 },
            write_bytes_max: rng.pick(&[1, 100, 4096, 65_536]).max(size.bytes_max / 200),
            write_gap_ns: rng.pick(&[0, 0, 10_000, MS]),
            read_bytes_max: rng.pick(&[1, 64, 4096, usize::MAX, usize::MAX]).max(size.bytes_max / 200),
            read_gap_ns: rng.pick(&[0, 0, 0, 10_000, 5 * MS]),
            finishes_after_eof: !is_client && rng.chance(500),
            abort,
            next_write: 0,
            next_read: 0,
            give_up_at: None,
        }
    }

    fn check(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let received = ledger.flows[self.flow].received;
        ledger.flows[self.flow].received += bytes.len() as u64;
        let need = 8_usize.saturating_sub(self.head.len());
        let (head, rest) = bytes.split_at(need.min(bytes.len()));
        self.head.extend_from_slice(head);
        let Ok(number) = <[u8; 8]>::try_from(self.head.as_slice()) else { return };
        let partner = usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX);
        let is_client = ledger.flows[self.flow].is_client;
        if ledger.flows.get(partner).is_none_or(|p| p.is_client == is_client) {
            return ledger.problem(format!("flow {}: its peer says it is {partner}", self.flow));
        }
        let known = ledger.flows[self.flow].partner.replace(partner);
        let other = ledger.flows[partner].partner;
        if known.is_some_and(|k| k != partner) || other.is_some_and(|o| o != self.flow) {
            return ledger.problem(format!("flow {} and {partner} are crossed with another", self.flow));
        }
        let mut wanted = Vec::new();
        pattern(partner, received + head.len() as u64, &mut wanted, rest.len());
        if wanted != rest {
            let at = wanted.iter().zip(rest).position(|(a, b)| a != b).unwrap_or(0);
            let offset = received + (head.len() + at) as u64;
            ledger.problem(format!("flow {}: wrong byte at offset {offset} from flow {partner}", self.flow));
        }
    }
}

/// How large the flows of a run may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) bytes_max: usize,
    pub(crate) weather: Weather,
}

impl Peer for OpaquePeer {
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake {
        let now = io.now();
        let born = *self.give_up_at.get_or_insert(now + 60 * SECOND) - 60 * SECOND;
        while io.readable() > 0 && self.next_read <= now {
            let bytes = io.read(self.read_bytes_max);
            self.check(&bytes, ledger);
            if self.read_gap_ns > 0 {
                self.next_read = now + 1 + io.rng().below(self.read_gap_ns);
            }
        }
        let end = io.end();
        let moved = ledger.flows[self.flow].sent + ledger.flows[self.flow].received;
        let abort = match self.abort {
            Abort::AfterBytes(bytes, hard) if moved >= bytes => Some(hard),
            Abort::AfterNs(ns, hard) if now >= born + ns => Some(hard),
            _ => None,
        };
        let flow = &mut ledger.flows[self.flow];
        if end == End::Reset {
            io.note(format_args!("flow {} saw a reset", self.flow));
            flow.saw_reset = true;
            flow.done = true;
            return Wake::Done;
        }
        if let Some(hard) = abort {
            io.note(format_args!("flow {} aborts, hard {hard}", self.flow));
            flow.aborted = true;
            flow.done = true;
            if hard {
                io.reset();
            }
            return Wake::Done;
        }
        if end == End::Eof && !flow.saw_eof {
            io.note(format_args!("flow {} saw the end after {}", self.flow, flow.received));
            flow.saw_eof = true;
        }
        let mut is_blocked = false;
        while !flow.finished && flow.sent < self.send_bytes && self.next_write <= now && !is_blocked {
            let left = self.send_bytes - flow.sent;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(io.rng().skewed(self.write_bytes_max));
            let mut bytes = Vec::new();
            pattern(self.flow, flow.sent, &mut bytes, len);
            let taken = io.write(&bytes);
            flow.sent += taken as u64;
            is_blocked = taken < len;
            if self.write_gap_ns > 0 {
                self.next_write = now + 1 + io.rng().below(self.write_gap_ns);
            }
        }
        if !flow.finished && flow.sent == self.send_bytes && (flow.saw_eof || !self.finishes_after_eof) {
            io.note(format_args!("flow {} finishes after {}", self.flow, flow.sent));
            flow.finished = true;
            io.finish();
        }
        if flow.finished && flow.saw_eof {
            flow.done = true;
            return Wake::Done;
        }
        let give_up_at = born + 60 * SECOND;
        if now >= give_up_at {
            ledger.problem(format!("flow {}: neither bytes nor an end for a minute", self.flow));
            io.reset();
            return Wake::Done;
        }
        let mut at = give_up_at;
        if self.next_read > now {
            at = at.min(self.next_read);
        }
        if self.next_write > now && !flow.finished && flow.sent < self.send_bytes {
            at = at.min(self.next_write);
        }
        if let Abort::AfterNs(ns, _) = self.abort {
            at = at.min(born + ns);
        }
        Wake::At(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let mut whole = Vec::new();
        pattern(7, 0, &mut whole, 100);
        for at in 0..100 {
            let mut rest = Vec::new();
            pattern(7, at, &mut rest, 100 - usize::try_from(at).unwrap());
            assert_eq!(rest, whole[usize::try_from(at).unwrap()..]);
        }
    }
}
