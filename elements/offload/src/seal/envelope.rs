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
const _: () = assert!(OVERHEAD_BYTES == Seal::GROWTH);
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

/// What stands before the ciphertext.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) is_final: bool,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) key: u32,
    pub(crate) counter: u64,
    pub(crate) sender: Sender,
}

impl Header {
    pub(crate) fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        self.emit_to(&mut out);
        out
    }

    /// The same where it is to be: a processor waits long for bytes that were just written in other pieces.
    #[inline]
    pub(crate) fn emit_to(&self, out: &mut [u8; HEADER_BYTES]) {
        let encoding: u8 = match self.encoding {
            None => 0,
            Some(Encoding::Gzip) => 1,
            Some(Encoding::Deflate) => 2,
            Some(Encoding::Zstd) => 3,
        };
        out[0] = VERSION;
        out[1] = (u8::from(self.is_final) * FINAL) | (encoding << 1);
        out[2..6].copy_from_slice(&self.key.to_be_bytes());
        out[6..14].copy_from_slice(&self.counter.to_be_bytes());
        out[14..30].copy_from_slice(&self.sender.boot);
        out[30..].copy_from_slice(&self.sender.shard.to_be_bytes());
    }

    /// The header of an envelope, and its bytes.
    pub(crate) fn parse(envelope: &[u8]) -> Result<(Self, &[u8; HEADER_BYTES]), JobError> {
        let header = envelope.first_chunk::<HEADER_BYTES>().ok_or(JobError::Corrupt)?;
        if header[0] != VERSION || envelope.len() < OVERHEAD_BYTES {
            return Err(JobError::Corrupt);
        }
        let encoding = match header[1] >> 1 {
            0 => None,
            1 => Some(Encoding::Gzip),
            2 => Some(Encoding::Deflate),
            3 => Some(Encoding::Zstd),
            _ => return Err(JobError::Corrupt),
        };
        let parsed = Self {
            is_final: header[1] & FINAL != 0,
            encoding,
            key: u32::from_be_bytes(part(header, 2)),
            counter: u64::from_be_bytes(part(header, 6)),
            sender: Sender { boot: part(header, 14), shard: u16::from_be_bytes(part(header, 30)) },
        };
        Ok((parsed, header))
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

/// Writes what is authenticated behind the header.
#[inline]
pub(crate) fn associate(seal: &Seal, out: &mut [u8; AAD_BYTES]) {
    out[HEADER_BYTES] = u8::from(seal.is_request);
    out[HEADER_BYTES + 1..AAD_BYTES - 20].copy_from_slice(&seal.tag.0);
    out[AAD_BYTES - 20..AAD_BYTES - 4].copy_from_slice(&seal.purpose);
    out[AAD_BYTES - 4..].copy_from_slice(&seal.index.to_be_bytes());
}

/// The nonce of a counter: never twice with one derived key.
pub(crate) fn nonce(counter: u64) -> [u8; 12] {
    let mut out = [0; 12];
    out[4..].copy_from_slice(&counter.to_be_bytes());
    out
}
