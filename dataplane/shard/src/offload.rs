//! The queue of jobs that may run elsewhere: compression and encryption.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::Encoding;

use crate::Burst;

/// Whose job it is; comes back unchanged in [`Done`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobKey {
    /// The call's slot.
    pub call: u32,
    /// Which user of the slot.
    pub generation: u32,
    /// True for messages towards the upstream.
    pub is_request: bool,
}

/// What to do with the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Compress the input.
    Compress(Encoding),
    /// Decompress the input; more than `max` bytes of output is [`JobError::TooLarge`].
    Decompress(Encoding, usize),
    /// Seal the input in place: [`Seal::HEAD`] bytes of room, then the text. It becomes the envelope.
    Seal(Seal),
    /// Open the input, one envelope, in place: behind its first [`Seal::HEAD`] bytes it becomes the text. The queue fills
    /// in what only the sealing side knew ([`Seal::is_final`], [`Seal::encoding`]); `ring`, `tag`, `is_request` and
    /// `index` are what the envelope must have been sealed with.
    Open(Seal),
}

impl Work {
    /// How many bytes of an input of this length are worked on; the rest is an envelope's.
    pub fn text_len(&self, input_len: usize) -> usize {
        match self {
            Self::Compress(_) | Self::Decompress(..) => input_len,
            Self::Seal(_) => input_len.saturating_sub(Seal::HEAD),
            Self::Open(_) => input_len.saturating_sub(Seal::GROWTH),
        }
    }
}

/// A named key of the node, as this queue numbers them ([`Offload::ring`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring(pub u16);

/// Which call of which sealing shard of which boot: what keeps the messages of two calls apart. Travels in
/// the call's headers; authenticated with each message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallTag(pub [u8; CallTag::LEN]);

impl CallTag {
    /// Boot (16), shard (2), call (8) and seconds since 1970 (4), each big-endian.
    pub const LEN: usize = 30;
}

/// What a message is sealed with besides its bytes: a change of any of it does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    /// The named key.
    pub ring: Ring,
    /// The call; the answer's messages carry the tag of their request.
    pub tag: CallTag,
    /// What the call is for: a digest of its path. Both sides know it, so it does not travel.
    pub purpose: [u8; 16],
    /// Towards the upstream.
    pub is_request: bool,
    /// Which message of this direction, from 0.
    pub index: u32,
    /// No message follows in this direction.
    pub is_final: bool,
    /// How the sealed bytes are compressed.
    pub encoding: Option<Encoding>,
}

impl Seal {
    /// Bytes by which the envelope is longer than what is sealed.
    pub const GROWTH: usize = 48;
    /// How many of them are before it.
    pub const HEAD: usize = 32;
}

/// One job. The buffers travel with it and come back. It goes from hand to hand in a box, for it is large, and the box
/// is used again.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub key: JobKey,
    /// What.
    pub work: Work,
    /// The bytes to work on. They stay as they are, except that seals are made and opened in place.
    pub input: Vec<u8>,
    /// Where the result is appended; of seals, room for the queue to work in.
    pub output: Vec<u8>,
}

/// Why a job failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobError {
    /// The input is not of that encoding, or is cut short.
    Corrupt,
    /// The output would exceed the limit.
    TooLarge,
    /// Sealed with a key that is not here.
    UnknownKey,
    /// Does not open: another key, place, call or byte than it was sealed with.
    Forged,
    /// The call has been opened here before.
    Replayed,
    /// The call is older than what the replay window remembers.
    Expired,
    /// Who did the job in place failed at it: the text is gone.
    Lost,
}

/// A completed job with its buffers.
#[derive(Debug)]
pub struct Done {
    /// The job, with the result on success. Nothing may be read of a text that was not sealed or opened.
    pub job: Box<Job>,
    /// How it went.
    pub result: Result<(), JobError>,
}

/// A queue of jobs.
pub trait Offload {
    /// Takes jobs from the front of the burst; what stays did not fit.
    fn submit(&mut self, jobs: &mut Burst<Box<Job>>) -> usize;

    /// Appends completed jobs, at most `done.room()`.
    fn poll(&mut self, done: &mut Burst<Done>);

    /// Jobs accepted and not yet polled.
    fn pending(&self) -> usize;

    /// The key of this name; `None` if this queue has none of that name.
    fn ring(&self, _name: &str) -> Option<Ring> {
        None
    }

    /// A tag that no other call of any node has. Asked for only by chains whose key [`Offload::ring`] knows.
    fn tag(&mut self) -> CallTag {
        CallTag([0; CallTag::LEN])
    }
}
