//! What a sealed message looks like, and what is authenticated with it.
//!
//! ```text
//!  0        1       2        6         14      30       32
//!  | version | flags | key id | counter | boot  | shard  | ciphertext … | tag (16) |
//! ```
//!
//! All numbers are big-endian. Flags: bit 0 final, bits 1 to 3 how the sealed bytes are compressed, the rest 0.
//! The key is derived from the named key `key id` for the sealer's `boot` and `shard`; the nonce is the
//! counter. Associated data: the header, then the direction, the call's tag and the message's index, which
//! the opener must know by itself.

use abi::Encoding;
use shard::{CallTag, JobError, Seal};

/// The header's length, bytes.
pub(crate) const HEADER_BYTES: usize = 32;
/// The length of the authentication tag, bytes.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes an envelope has more than the message in it.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
// What the shard counts on.
const _: () = assert!(OVERHEAD_BYTES == Seal::GROWTH && HEADER_BYTES == Seal::HEAD);
/// Length of the associated data, bytes.
pub(crate) const AAD_BYTES: usize = HEADER_BYTES + 1 + CallTag::LEN + 16 + 4;
/// The only version there is.
const VERSION: u8 = 1;
const FINAL: u8 = 1;

/// Who seals: a process's life and one of its threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sender {
    /// Random for each process.
    pub(crate) boot: [u8; 16],
    /// Which sealer of it.
    pub(crate) shard: u16,
}

/// Which derived key: the named key's id, the boot and the shard, as they stand in a header of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stamp {
    /// The first half, without flags and counter.
    first: u64,
    second: u64,
    tail: [u8; 16],
}

/// Where parts are in the first 8 bytes of a header; the counter is their end and all but the end of the next 8.
const VERSION_AT: u32 = 56;
const FLAGS_AT: u32 = 48;
const KEY_AT: u32 = 16;
const COUNTER_BITS_FIRST: u32 = 16;
const COUNTER_AT_SECOND: u32 = 16;

impl Stamp {
    pub(crate) fn new(key: u32, sender: Sender) -> Self {
        let boot = u128::from_be_bytes(sender.boot);
        let first = (u64::from(VERSION) << VERSION_AT) | (u64::from(key) << KEY_AT);
        let second = u64::from(u16::from_be_bytes([sender.boot[0], sender.boot[1]]));
        let tail = (boot << 16) | u128::from(sender.shard);
        Self { first, second, tail: tail.to_be_bytes() }
    }

    /// The named key's id.
    pub(crate) fn key(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "32 bits of it")]
        let key = (self.first >> KEY_AT) as u32;
        key
    }

    pub(crate) fn sender(&self) -> Sender {
        let tail = u128::from_be_bytes(self.tail);
        #[expect(clippy::cast_possible_truncation, reason = "16 bits of it")]
        let shard = tail as u16;
        Sender { boot: ((u128::from(self.second) << 112) | (tail >> 16)).to_be_bytes(), shard }
    }

    /// The header of the message `counter`.
    #[inline]
    pub(crate) fn header(&self, counter: u64, seal: &Seal) -> Header {
        let encoding = match seal.encoding {
            None => 0,
            Some(Encoding::Gzip) => 1,
            Some(Encoding::Deflate) => 2,
            Some(Encoding::Zstd) => 3,
        };
        let flags = (u8::from(seal.is_final) * FINAL) | (encoding << 1);
        let first = self.first | (u64::from(flags) << FLAGS_AT) | (counter >> (64 - COUNTER_BITS_FIRST));
        Header { first, second: self.second | (counter << COUNTER_AT_SECOND), tail: self.tail }
    }
}

/// What stands before the ciphertext: its bytes, in parts that are read as they were written, for a processor waits long for
/// bytes that were just written in other pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    first: u64,
    second: u64,
    tail: [u8; 16],
}

impl Header {
    /// The header of an envelope.
    #[inline]
    pub(crate) fn parse(envelope: &[u8]) -> Result<Self, JobError> {
        if envelope.len() < OVERHEAD_BYTES {
            return Err(JobError::Corrupt);
        }
        Self::read(envelope)
    }

    /// The same of one that has been opened.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, JobError> {
        let (first, rest) = bytes.split_first_chunk().ok_or(JobError::Corrupt)?;
        let (second, rest) = rest.split_first_chunk().ok_or(JobError::Corrupt)?;
        let tail = *rest.first_chunk().ok_or(JobError::Corrupt)?;
        let header = Self { first: u64::from_be_bytes(*first), second: u64::from_be_bytes(*second), tail };
        let is_known = header.first >> VERSION_AT == u64::from(VERSION) && header.flags().0 >> 1 <= 3;
        is_known.then_some(header).ok_or(JobError::Corrupt)
    }

    #[inline]
    pub(crate) fn emit_to(&self, out: &mut [u8; HEADER_BYTES]) {
        out[..8].copy_from_slice(&self.first.to_be_bytes());
        out[8..16].copy_from_slice(&self.second.to_be_bytes());
        out[16..].copy_from_slice(&self.tail);
    }

    /// Which key it was sealed with.
    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        let flags = u64::from(u8::MAX) << FLAGS_AT;
        let first = self.first & !flags & !((1 << COUNTER_BITS_FIRST) - 1);
        Stamp { first, second: self.second & ((1 << COUNTER_AT_SECOND) - 1), tail: self.tail }
    }

    pub(crate) fn flags(&self) -> Flags {
        #[expect(clippy::cast_possible_truncation, reason = "8 bits of it")]
        let flags = (self.first >> FLAGS_AT) as u8;
        Flags(flags)
    }
}

/// What of a header only the sealer knew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(u8);

impl Flags {
    /// Those of a header that has been read before.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.get(1).copied().unwrap_or_default())
    }

    pub(crate) fn is_final(self) -> bool {
        self.0 & FINAL != 0
    }

    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self.0 >> 1 {
            1 => Some(Encoding::Gzip),
            2 => Some(Encoding::Deflate),
            3 => Some(Encoding::Zstd),
            _ => None,
        }
    }
}

/// A call's tag, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TagParts {
    pub(crate) sender: Sender,
    pub(crate) call: u64,
    /// Since 1970.
    pub(crate) second: u32,
}

impl TagParts {
    pub(crate) fn emit(&self) -> CallTag {
        let mut out = [0; CallTag::LEN];
        out[..16].copy_from_slice(&self.sender.boot);
        out[16..18].copy_from_slice(&self.sender.shard.to_be_bytes());
        out[18..26].copy_from_slice(&self.call.to_be_bytes());
        out[26..].copy_from_slice(&self.second.to_be_bytes());
        CallTag(out)
    }

    pub(crate) fn parse(tag: &CallTag) -> Self {
        Self {
            sender: Sender { boot: part(&tag.0, 0), shard: u16::from_be_bytes(part(&tag.0, 16)) },
            call: u64::from_be_bytes(part(&tag.0, 18)),
            second: u32::from_be_bytes(part(&tag.0, 26)),
        }
    }
}

/// `N` bytes from `at`; zeros where there are none, which no caller here asks for.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// What is authenticated besides the ciphertext.
pub(crate) fn associated(header: &[u8; HEADER_BYTES], seal: &Seal) -> [u8; AAD_BYTES] {
    let mut out = [0; AAD_BYTES];
    out[..HEADER_BYTES].copy_from_slice(header);
    associate(seal, &mut out);
    out
}

/// The nonce of a header: never twice with one derived key.
#[inline]
pub(crate) fn nonce(header: &[u8; HEADER_BYTES]) -> [u8; 12] {
    let mut out = [0; 12];
    out[4..].copy_from_slice(&header[6..14]);
    out
}

/// Writes what is authenticated behind the header.
#[inline]
pub(crate) fn associate(seal: &Seal, out: &mut [u8; AAD_BYTES]) {
    out[HEADER_BYTES] = u8::from(seal.is_request);
    out[HEADER_BYTES + 1..AAD_BYTES - 20].copy_from_slice(&seal.tag.0);
    out[AAD_BYTES - 20..AAD_BYTES - 4].copy_from_slice(&seal.purpose);
    out[AAD_BYTES - 4..].copy_from_slice(&seal.index.to_be_bytes());
}
