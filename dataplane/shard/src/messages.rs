//! One direction's messages, taken one at a time on their way: unpacked for whoever reads them, judged or
//! held by their owner, packed for a receiver that can unpack. Bytes that come meanwhile wait.
//!
//! ```text
//!   Gathering ──its size is enough───────────────┐        ┌──> Passing (the body flows) ──┐
//!      │ whole            ┌──> Unpacking (job) ──> AtHand ──> Leaving ──> emitted ────────┴──> Gathering
//!      └──> Opening (job) ┴──────────────────────┘        └──> Packing (job) ─> Sealing (job) ─> emitted
//! ```
//! Each job only where the terms ask for it. What is sealed is packed already, and says so inside the seal.
//!
//! Where messages are sealed, the end of their direction is, too: the last message is sealed as the last if
//! its end is known when it leaves; otherwise a record follows that is no message. A request whose first
//! message is not here when it is sent begins with such a record: the far node lets nothing of a call pass
//! before it has opened one, and remembers calls by their first. Records that are no message are sealed as
//! packed, and empty: no message is, as an empty one is never packed.
//!
//! Not here: what a chain says of a message, windows and pools (those are `gate`'s).
//! Invariants: nothing leaves before its owner has called [`Messages::let_go`], where it judges or holds;
//! nothing follows an end that was sealed.

mod sealing;

use alloc::vec::Vec;

use abi::{Encoding, Spill, Unreadable};
use wire::grpc::{PREFIX_LEN, Prefix};

use crate::wheel::TimerKey;
use crate::{JobError, Seal, Work};
pub(crate) use sealing::{Breach, Unfit};
use sealing::{NO_MESSAGE, Progress, unsealed};

/// Buffers larger than this are given back to the allocator when their call ends.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What the owner has to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing until more bytes come or the job is done.
    Wait,
    /// Nothing until the receiver has taken some of what was written.
    Behind,
    /// Submit this; hand the result to [`Messages::finish_job`].
    Job(Work, Vec<u8>),
    /// A message is at hand: judge it, hold it, or let it go.
    Message,
}

/// In which encoding messages leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Leave {
    /// As they came; what a chain has changed is packed again if it came packed.
    #[default]
    AsCame,
    /// The receiver cannot unpack them.
    Plain,
    /// Packed, from this size on.
    Packed { encoding: Encoding, min_bytes: u32 },
}

/// What is done with the messages of a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Terms {
    /// How messages with flag 1 come; `None` if that is not known here.
    pub(crate) decode: Option<Encoding>,
    pub(crate) leave: Leave,
    /// Each is judged by the chain.
    pub(crate) judges: bool,
    /// Judging needs the message itself, not its size alone.
    pub(crate) reads: bool,
    /// There is one message, and it stays until the whole side is known.
    pub(crate) holds: bool,
    /// They come sealed with this; index and end are counted here.
    pub(crate) opens: Option<Seal>,
    /// They leave sealed with this.
    pub(crate) seals: Option<Seal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Prefix and, if the message is wanted whole, body gather in `input`.
    #[default]
    Gathering,
    Opening,
    /// What was opened, in `packed`, is to be unpacked.
    ToUnpack,
    Unpacking,
    /// Waits for its owner's word.
    AtHand,
    Leaving,
    Packing,
    /// What was packed, in `packed`, is to be sealed.
    ToSeal(Option<Encoding>),
    Sealing,
    /// So many bytes of a message that may leave are still to come.
    Passing(usize),
}

/// Where the plain bytes of the message at hand are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Body {
    /// Not gathered: only its size is known.
    #[default]
    Coming,
    /// In `input`, behind its prefix.
    Input,
    /// In `plain`: opened, unpacked, or rewritten.
    Plain,
    /// In `packed`, whole: nobody here needs it plain.
    Packed,
}

#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) terms: Terms,
    message_bytes_max: usize,
    state: State,
    /// Bytes that came; the message at hand, if its body is `Coming` or in `Input`, begins at `at`.
    input: Vec<u8>,
    at: usize,

    /// Of the message at hand: its plain size, and what it took on the wire once that has left `input`.
    len: usize,
    taken: usize,
    body: Body,
    /// How it came packed.
    came: Option<Encoding>,
    is_rewritten: bool,
    is_judged: bool,
    plain: Vec<u8>,
    /// Where in `plain` it begins.
    plain_at: usize,
    packed: Vec<u8>,
    progress: Progress,
    /// Bytes of records that were no message: nothing leaves for them, so they are credited by themselves.
    pub(crate) swallowed: usize,

    /// `Entry::Request` has been entered with the message that is held.
    pub(crate) has_entered: bool,
    /// The chain waits: until when, where it goes on, and its live values meanwhile.
    pub(crate) timer: Option<TimerKey>,
    pub(crate) segment: u16,
    pub(crate) spill: Spill,
    pub(crate) stats: PackStats,
}

/// What was packed and unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PackStats {
    pub(crate) compressed: u64,
    pub(crate) decompressed: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
    pub(crate) opened: u64,
    pub(crate) sealed: u64,
}

impl Messages {
    /// For a new direction of a new call.
    pub(crate) fn begin(&mut self, terms: Terms, message_bytes_max: u32) {
        self.terms = terms;
        self.message_bytes_max = message_bytes_max as usize;
    }

    /// Ready for the next user: ordinary buffers stay, large ones go.
    pub(crate) fn clear(&mut self) {
        let keep = |mut buffer: Vec<u8>| {
            buffer.clear();
            if buffer.capacity() > KEPT_BYTES_MAX { Vec::new() } else { buffer }
        };
        let mut old = core::mem::take(self);
        old.spill.clear();
        self.spill = old.spill;
        self.input = keep(old.input);
        self.plain = keep(old.plain);
        self.packed = keep(old.packed);
    }

    /// Bytes that came and have not left, as they came.
    pub(crate) fn held(&self) -> usize {
        self.input.len() - self.at + self.taken
    }

    /// The window that the message which gathers needs, if it is wanted whole. Where it must be the only
    /// one there is room for the prefix of a second: it could else not be told from one that never ends.
    pub(crate) fn wanted_window(&self) -> Option<usize> {
        let second = match (self.terms.holds, self.terms.opens) {
            (false, _) => 0,
            (true, None) => PREFIX_LEN,
            // Its sealed end may be a record of its own.
            (true, Some(_)) => PREFIX_LEN + Seal::GROWTH,
        };
        match (self.state, self.prefix()) {
            (State::Gathering, Some(prefix)) if self.wants_whole(prefix) => {
                Some(self.taken + PREFIX_LEN + prefix.len as usize + second)
            }
            // It has come, at once perhaps and to the last byte of the window; what follows it has not.
            (State::Gathering, None) if self.progress.awaits_end => Some(self.taken + second),
            (State::AtHand, _) if self.terms.holds && self.terms.opens.is_none() => {
                Some(self.held() + second)
            }
            _ => None,
        }
    }

    /// True if the sender may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.state == State::Gathering && self.held() == 0
    }

    /// True if only more bytes could go on, and the bytes at hand are part of a message.
    pub(crate) fn is_cut(&self) -> bool {
        match self.state {
            State::Gathering => self.has_input(),
            State::Passing(left) => left > 0,
            _ => false,
        }
    }

    fn has_input(&self) -> bool {
        self.input.len() > self.at
    }

    /// Its one message is here, whole and judged, and waits for the rest of its side.
    pub(crate) fn is_holding(&self) -> bool {
        self.terms.holds && self.is_at_hand() && (self.is_judged || !self.terms.judges)
    }

    pub(crate) fn is_at_hand(&self) -> bool {
        self.state == State::AtHand
    }

    /// Bytes beyond the one message at hand.
    pub(crate) fn has_more(&self) -> bool {
        let own = if self.body == Body::Input { PREFIX_LEN + self.len } else { 0 };
        self.input.len() - self.at > own
    }

    /// So many bytes may go straight on: they are the next of a body that flows.
    pub(crate) fn may_pass(&self, bytes: usize, is_end: bool) -> bool {
        let State::Passing(left) = self.state else { return false };
        self.held() == 0 && (bytes == left || bytes < left && !is_end)
    }

    /// They have.
    pub(crate) fn pass(&mut self, bytes: usize) {
        if let State::Passing(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Gathering;
            }
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    // ---- the message at hand -------------------------------------------------------------------------

    /// Its plain bytes, if it is here and whole.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        if !self.is_at_hand() {
            return None;
        }
        match self.body {
            Body::Coming | Body::Packed => None,
            Body::Input => {
                let start = self.at + PREFIX_LEN;
                self.input.get(start..start + self.len)
            }
            Body::Plain => self.plain.get(self.plain_at..),
        }
    }

    /// Its plain size; 0 where none is.
    pub(crate) fn size(&self) -> usize {
        if self.is_at_hand() { self.len } else { 0 }
    }

    /// Replaces it, plain. False if it is not here and whole, or would be too long.
    pub(crate) fn set_payload(&mut self, bytes: &[u8]) -> bool {
        let is_whole = self.is_at_hand() && !matches!(self.body, Body::Coming | Body::Packed);
        if !is_whole || bytes.len() > self.message_bytes_max {
            return false;
        }
        if self.body == Body::Input {
            self.taken = PREFIX_LEN + self.len;
            self.at += self.taken;
        }
        self.body = Body::Plain;
        self.plain.clear();
        self.plain.extend_from_slice(bytes);
        self.plain_at = 0;
        self.len = bytes.len();
        self.is_rewritten = true;
        true
    }

    /// Bytes it has beyond those it had on the wire.
    pub(crate) fn growth(&self) -> usize {
        if self.body == Body::Plain { self.plain.len().saturating_sub(self.taken) } else { 0 }
    }

    pub(crate) fn is_judged(&self) -> bool {
        self.is_judged
    }

    pub(crate) fn set_judged(&mut self) {
        self.is_judged = true;
    }

    /// The owner has nothing against it: with the next step it leaves.
    pub(crate) fn let_go(&mut self) {
        if self.is_at_hand() {
            self.state = State::Leaving;
        }
    }

    // ---- steps ---------------------------------------------------------------------------------------

    /// Works on until bytes, a job or the owner's word are needed, or `out` is longer than `room`. `spare`
    /// serves a job as its input.
    pub(crate) fn step(
        &mut self,
        spare: &mut Vec<u8>,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Step, Unfit> {
        loop {
            let waits = matches!(
                self.state,
                State::Gathering | State::Opening | State::ToUnpack | State::Unpacking | State::AtHand
            );
            if out.len() > room && !waits {
                return Ok(Step::Behind);
            }
            match self.state {
                State::Opening | State::Unpacking | State::Packing | State::Sealing => return Ok(Step::Wait),
                State::AtHand => return Ok(Step::Message),
                State::Gathering => {
                    if let Some(step) = self.gather(spare)? {
                        return Ok(step);
                    }
                }
                State::ToUnpack => {
                    let encoding = self.came.ok_or(Unreadable::UnknownEncoding)?;
                    let mut input = core::mem::take(spare);
                    core::mem::swap(&mut input, &mut self.packed);
                    self.state = State::Unpacking;
                    return Ok(Step::Job(Work::Decompress(encoding, self.message_bytes_max), input));
                }
                State::ToSeal(encoding) => {
                    let input = unsealed(spare, &self.packed);
                    return Ok(self.seal(encoding, input));
                }
                // How messages leave may have been decided after this one was opened.
                State::Leaving if self.body == Body::Packed && self.must_unpack(self.came) => {
                    self.state = State::ToUnpack;
                }
                State::Leaving => {
                    if let Some(step) = self.leave(spare, out) {
                        return Ok(step);
                    }
                }
                State::Passing(left) => {
                    let from = self.input.get(self.at..).unwrap_or(&[]);
                    let bytes = from.get(..left).unwrap_or(from);
                    out.extend_from_slice(bytes);
                    let count = bytes.len();
                    self.at += count;
                    if count < left {
                        self.compact();
                        self.state = State::Passing(left - count);
                        return Ok(Step::Wait);
                    }
                    self.state = State::Gathering;
                }
            }
        }
    }

    fn prefix(&self) -> Option<Prefix> {
        let head = self.input.get(self.at..self.at + PREFIX_LEN)?;
        Prefix::parse(head.try_into().ok()?)
    }

    /// It must be read, so it must be unpacked; or the receiver cannot, or wants another encoding, or would
    /// not know this one.
    fn must_unpack(&self, came: Option<Encoding>) -> bool {
        let Terms { judges, holds, leave, decode, .. } = self.terms;
        judges
            || holds
            || came != decode
            || match leave {
                Leave::AsCame => false,
                Leave::Plain => true,
                Leave::Packed { encoding, .. } => decode != Some(encoding),
            }
    }

    fn wants_whole(&self, prefix: Prefix) -> bool {
        let Terms { decode, judges, reads, holds, leave, opens, seals } = self.terms;
        if opens.is_some() || seals.is_some() {
            return true;
        }
        if prefix.is_compressed {
            return self.must_unpack(decode);
        }
        let is_packed =
            matches!(leave, Leave::Packed { min_bytes, .. } if prefix.len >= min_bytes && prefix.len > 0);
        holds || judges && reads || is_packed
    }

    /// Takes the next message, or its prefix where that is enough. `None`: step on.
    fn gather(&mut self, spare: &mut Vec<u8>) -> Result<Option<Step>, Unfit> {
        if self.progress.has_opened_end && self.has_input() {
            return Err(Breach::Forged.into());
        }
        if self.owes_end() {
            return Ok(Some(self.seal(NO_MESSAGE, unsealed(spare, &[]))));
        }
        let Some(head) = self.input.get(self.at..self.at + PREFIX_LEN) else {
            return Ok(Some(self.wait(spare)));
        };
        let head: [u8; PREFIX_LEN] = head.try_into().unwrap_or_default();
        let prefix = Prefix::parse(head).ok_or(Unreadable::BadFlag)?;
        if let Some(seal) = self.terms.opens {
            return self.gather_sealed(prefix, seal, spare);
        }
        let is_whole = self.wants_whole(prefix);
        let len = prefix.len as usize;
        if is_whole && len > self.message_bytes_max {
            return Err(Unreadable::TooLarge.into());
        }
        let start = self.at + PREFIX_LEN;
        let body = self.input.get(start..start + len);
        (self.len, self.body, self.is_judged, self.is_rewritten) = (len, Body::Coming, false, false);
        self.came = self.terms.decode.filter(|_| prefix.is_compressed);
        if is_whole {
            if prefix.is_compressed && self.came.is_none() {
                return Err(Unreadable::UnknownEncoding.into());
            }
            let Some(body) = body else {
                self.body = Body::Coming;
                return Ok(Some(self.wait(spare)));
            };
            self.body = Body::Input;
            if let Some(encoding) = self.came {
                self.taken = PREFIX_LEN + len;
                self.at += self.taken;
                if self.must_unpack(self.came) {
                    let mut input = core::mem::take(spare);
                    input.extend_from_slice(body);
                    self.state = State::Unpacking;
                    return Ok(Some(Step::Job(Work::Decompress(encoding, self.message_bytes_max), input)));
                }
                // Packed and empty would be taken for the end.
                if body.is_empty() {
                    return Err(Unreadable::Corrupt.into());
                }
                self.packed.extend_from_slice(body);
                self.body = Body::Packed;
            }
        }
        self.state = self.after_gathering();
        Ok(None)
    }

    const fn after_gathering(&self) -> State {
        if self.terms.judges || self.terms.holds { State::AtHand } else { State::Leaving }
    }

    /// Writes the message, or has it packed first. `None`: step on.
    fn leave(&mut self, spare: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<Step> {
        if self.body == Body::Coming {
            out.extend_from_slice(self.input.get(self.at..self.at + PREFIX_LEN).unwrap_or(&[]));
            self.at += PREFIX_LEN;
            self.state = State::Passing(self.len);
            return None;
        }
        let is_as_it_came = self.came.is_some() && self.came == self.terms.decode && !self.is_rewritten;
        let encoding = match self.terms.leave {
            Leave::AsCame if self.came.is_some() && self.is_rewritten => self.terms.decode,
            Leave::Packed { encoding, min_bytes }
                if self.len > 0
                    && self.len >= min_bytes as usize
                    && !(is_as_it_came && self.terms.decode == Some(encoding)) =>
            {
                Some(encoding)
            }
            _ => None,
        };
        let plain = match self.body {
            Body::Input => {
                let start = self.at + PREFIX_LEN;
                self.input.get(start..start + self.len).unwrap_or(&[])
            }
            _ => self.plain.get(self.plain_at..).unwrap_or(&[]),
        };
        if let Some(encoding) = encoding {
            let mut input = core::mem::take(spare);
            input.extend_from_slice(plain);
            self.take_from_input();
            self.state = State::Packing;
            return Some(Step::Job(Work::Compress(encoding), input));
        }
        let keeps_packing = match self.terms.leave {
            Leave::AsCame => true,
            Leave::Plain => false,
            Leave::Packed { encoding, .. } => self.terms.decode == Some(encoding),
        };
        let is_packed = is_as_it_came && keeps_packing;
        let body = if is_packed { &self.packed } else { plain };
        if self.terms.seals.is_some() {
            let input = unsealed(spare, body);
            self.take_from_input();
            return Some(self.seal(self.came.filter(|_| is_packed), input));
        }
        emit(is_packed, body, out);
        self.take_from_input();
        self.finish();
        None
    }

    /// The message at hand no longer needs its place in `input`.
    fn take_from_input(&mut self) {
        if self.body == Body::Input {
            self.taken = PREFIX_LEN + self.len;
            self.at += self.taken;
        }
    }

    /// The message at hand has been written.
    fn finish(&mut self) {
        self.taken = 0;
        self.body = Body::Coming;
        self.plain.clear();
        self.packed.clear();
        self.state = State::Gathering;
    }

    /// A job is done. `input` and `output` are the job's; the caller keeps what memory is left in them.
    pub(crate) fn finish_job(
        &mut self,
        result: Result<(), JobError>,
        work: &Work,
        input: &mut Vec<u8>,
        output: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        match (self.state, work) {
            (State::Opening, Work::Open(seal)) => {
                result.map_err(|e| match e {
                    JobError::Corrupt => Breach::Malformed.into(),
                    e => Unfit::from(e),
                })?;
                self.opened(seal, input)?;
            }
            (State::Unpacking, _) => {
                result?;
                self.stats.decompressed += 1;
                core::mem::swap(&mut self.packed, input);
                core::mem::swap(&mut self.plain, output);
                (self.plain_at, self.len, self.body) = (0, self.plain.len(), Body::Plain);
                self.state = self.after_gathering();
            }
            (State::Packing, Work::Compress(encoding)) => {
                result?;
                let shrank = output.len() < input.len();
                if shrank {
                    self.stats.compressed += 1;
                    self.stats.in_bytes += input.len() as u64;
                    self.stats.out_bytes += output.len() as u64;
                }
                let body = if shrank { output } else { input };
                if self.terms.seals.is_some() {
                    core::mem::swap(&mut self.packed, body);
                    self.state = State::ToSeal(shrank.then_some(*encoding));
                } else {
                    emit(shrank, body, out);
                    self.finish();
                }
            }
            (State::Sealing, Work::Seal(seal)) => {
                result?;
                self.progress.sealed = self.progress.sealed.checked_add(1).ok_or(Breach::Malformed)?;
                self.progress.has_sealed_end = seal.is_final;
                self.stats.sealed += u64::from(seal.encoding.is_none() || input.len() > Seal::GROWTH);
                emit(false, input, out);
                self.finish();
            }
            // Of a message that was dropped meanwhile.
            _ => {}
        }
        Ok(())
    }

    fn compact(&mut self) {
        if self.at == self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..self.at);
        }
        self.at = 0;
    }
}

fn emit(is_compressed: bool, body: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&Prefix { is_compressed, len }.emit());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests;
