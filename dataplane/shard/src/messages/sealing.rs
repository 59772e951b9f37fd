//! Where messages come or leave sealed: what has been opened and sealed of a direction, its begin and its end.
//!
//! Not here: the other jobs of a message, and their order (the parent's).

use abi::{Encoding, Unreadable};
use alloc::vec::Vec;
use wire::grpc::{PREFIX_LEN, Prefix};

use super::{Body, Messages, State, Step};
use crate::{JobError, Seal, Work};

/// How a record that is no message says that it is packed.
pub(super) const NO_MESSAGE: Option<Encoding> = Some(Encoding::Gzip);

/// Why a sealed message, or a call that should be sealed, does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Breach {
    /// Sealed with a key that is not here.
    UnknownKey,
    /// Does not open: another key, call, direction, place or byte than it was sealed with.
    Forged,
    /// Its call has been opened here before.
    Replayed,
    /// Its call is older than what the replay window remembers.
    Expired,
    /// No envelope.
    Malformed,
    /// The side has ended, and what came does not say so.
    Cut,
    /// The call does not say under which name it is sealed.
    Unsealed,
    /// The call has no messages that could be sealed.
    NotGrpc,
    /// A message was lost while it was sealed or opened here.
    Lost,
}

/// Why a message does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    Unreadable(Unreadable),
    Sealed(Breach),
}

impl From<Unreadable> for Unfit {
    fn from(why: Unreadable) -> Self {
        Self::Unreadable(why)
    }
}

impl From<Breach> for Unfit {
    fn from(why: Breach) -> Self {
        Self::Sealed(why)
    }
}

impl From<JobError> for Unfit {
    fn from(why: JobError) -> Self {
        match why {
            JobError::TooLarge => Unreadable::Inflates.into(),
            JobError::Corrupt => Unreadable::Corrupt.into(),
            JobError::UnknownKey => Breach::UnknownKey.into(),
            JobError::Forged => Breach::Forged.into(),
            JobError::Replayed => Breach::Replayed.into(),
            JobError::Expired => Breach::Expired.into(),
            JobError::Lost => Breach::Lost.into(),
        }
    }
}

/// How far a direction has come, where its messages are sealed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) opened: u32,
    pub(super) sealed: u32,
    /// What was opened said that it is the last.
    pub(super) has_opened_end: bool,
    /// What was sealed says so.
    pub(super) has_sealed_end: bool,
    /// There is a stream to send on, and a tag.
    pub(super) is_sent: bool,
    /// The owner knows that the side has ended.
    pub(super) is_over: bool,
    /// It has ended without success: nobody asks for a sealed end.
    pub(super) is_excused: bool,
    /// The only message is opened, and its end is not.
    pub(super) awaits_end: bool,
}

impl Messages {
    /// All has left that belongs to the side, its sealed end included.
    pub(crate) fn is_complete(&self) -> bool {
        let Progress { has_opened_end, has_sealed_end, is_excused, .. } = self.progress;
        let is_opened = self.terms.opens.is_none() || has_opened_end;
        let is_sealed = self.terms.seals.is_none() || has_sealed_end;
        self.is_between_messages() && (is_excused || is_opened && is_sealed)
    }

    /// Only bytes could go on, and nothing that was opened said that it is the last.
    pub(crate) fn lacks_end(&self) -> bool {
        let Progress { has_opened_end, is_excused, .. } = self.progress;
        let is_open = self.terms.opens.is_some() && !has_opened_end && !is_excused;
        is_open && self.state == State::Gathering
    }

    /// It has a stream: what leaves may be sealed.
    pub(crate) fn set_sent(&mut self) {
        self.progress.is_sent = true;
    }

    /// Sealed messages are expected, and none has been opened.
    pub(crate) fn awaits_first(&self) -> bool {
        self.terms.opens.is_some() && self.progress.opened == 0
    }

    /// The sender has ended, and well: what leaves from now on may be the last.
    pub(crate) fn set_over(&mut self) {
        self.progress.is_over = true;
    }

    /// The sender has ended without success: what came is what there is.
    pub(crate) fn excuse(&mut self) {
        self.progress.is_excused = true;
        if core::mem::take(&mut self.progress.awaits_end) && self.state == State::Gathering {
            self.state = self.after_opening();
        }
    }

    /// The same of a side that is opened: what has come of a further message is not waited for.
    pub(crate) fn give_up_rest(&mut self) {
        self.input.truncate(self.at);
        self.excuse();
    }

    /// The same of an envelope: what is in it is known when it has been opened.
    pub(super) fn gather_sealed(
        &mut self,
        prefix: Prefix,
        seal: Seal,
        spare: &mut Vec<u8>,
    ) -> Result<Option<Step>, Unfit> {
        if prefix.is_compressed {
            return Err(Breach::Malformed.into());
        }
        let len = prefix.len as usize;
        if len > self.message_bytes_max.saturating_add(Seal::GROWTH) {
            return Err(Unreadable::TooLarge.into());
        }
        let start = self.at + PREFIX_LEN;
        let Some(body) = self.input.get(start..start + len) else {
            return Ok(Some(self.wait(spare)));
        };
        let mut input = core::mem::take(spare);
        input.extend_from_slice(body);
        self.taken += PREFIX_LEN + len;
        self.at += PREFIX_LEN + len;
        self.state = State::Opening;
        let index = self.progress.opened;
        Ok(Some(Step::Job(Work::Open(Seal { index, is_final: false, encoding: None, ..seal }), input)))
    }

    /// Bytes are missing. The call is named meanwhile, if it is sealed and nothing has been yet.
    pub(super) fn wait(&mut self, spare: &mut Vec<u8>) -> Step {
        let Progress { sealed, is_sent, is_excused, awaits_end, .. } = self.progress;
        let begins = self.terms.seals.is_some_and(|s| s.is_request) && sealed == 0 && is_sent;
        if begins && !is_excused && !awaits_end {
            return self.seal(NO_MESSAGE, unsealed(spare, &[]));
        }
        self.compact();
        Step::Wait
    }

    /// An envelope has been opened; what was in it is in `input`, behind the head.
    pub(super) fn opened(&mut self, seal: &Seal, input: &mut Vec<u8>) -> Result<(), Unfit> {
        let progress = &mut self.progress;
        progress.opened = progress.opened.checked_add(1).ok_or(Breach::Malformed)?;
        progress.has_opened_end = seal.is_final;
        let text = input.get(Seal::HEAD..).unwrap_or_default();
        if seal.encoding.is_some() && text.is_empty() {
            if !seal.is_final && progress.opened > 1 {
                return Err(Breach::Malformed.into());
            }
            if core::mem::take(&mut progress.awaits_end) {
                self.state = self.after_opening();
            } else {
                self.swallowed += core::mem::take(&mut self.taken);
                self.state = State::Gathering;
            }
            return Ok(());
        }
        if progress.awaits_end {
            return Err(Unreadable::NotOne.into());
        }
        self.stats.opened += 1;
        (self.came, self.is_judged, self.is_rewritten) = (seal.encoding, false, false);
        self.len = text.len();
        if self.came.is_some() {
            // A job begins at the front; what is packed is short.
            self.packed.clear();
            self.packed.extend_from_slice(text);
            self.body = Body::Packed;
        } else {
            core::mem::swap(&mut self.plain, input);
            (self.plain_at, self.body) = (Seal::HEAD, Body::Plain);
        }
        self.progress.awaits_end = self.terms.holds && !seal.is_final && !self.progress.is_excused;
        self.state = if self.progress.awaits_end { State::Gathering } else { self.after_opening() };
        Ok(())
    }

    pub(super) fn after_opening(&self) -> State {
        if self.body == Body::Packed && self.must_unpack(self.came) {
            State::ToUnpack
        } else {
            self.after_gathering()
        }
    }

    /// The side is over, and what was sealed does not say so.
    pub(super) fn owes_end(&self) -> bool {
        let Progress { has_sealed_end, is_excused, is_sent, .. } = self.progress;
        self.terms.seals.is_some() && !has_sealed_end && !is_excused && is_sent && self.is_at_end()
    }

    /// Nothing more will leave than what is at hand.
    fn is_at_end(&self) -> bool {
        let Progress { is_over, has_opened_end, .. } = self.progress;
        is_over && !self.has_input() && (self.terms.opens.is_none() || has_opened_end)
    }

    /// `input` is as [`unsealed`] makes it.
    pub(super) fn seal(&mut self, encoding: Option<Encoding>, input: Vec<u8>) -> Step {
        self.state = State::Sealing;
        let (index, is_final) = (self.progress.sealed, self.is_at_end());
        match self.terms.seals {
            Some(seal) => Step::Job(Work::Seal(Seal { index, is_final, encoding, ..seal }), input),
            // Nobody comes here without one.
            None => Step::Wait,
        }
    }
}

/// What is to be sealed: room for the head, and the text.
pub(super) fn unsealed(spare: &mut Vec<u8>, text: &[u8]) -> Vec<u8> {
    let mut input = core::mem::take(spare);
    input.reserve(text.len() + Seal::GROWTH);
    input.extend_from_slice(&[0; Seal::HEAD]);
    input.extend_from_slice(text);
    input
}
