//! A toy seal: a keystream and a checksum over all that a message is bound to. It keeps honest code honest.

use std::collections::BTreeSet;

use abi::Encoding;
use shard::{CallTag, JobError, Seal};

use crate::rng::mix;

const SUM: usize = 8;
const HEADER: usize = Seal::GROWTH - SUM;

fn header(seal: &Seal) -> [u8; HEADER] {
    let mut out = [0x53; HEADER];
    out[0] = u8::from(seal.is_final);
    out[1] = seal.encoding.map_or(0, |e| e as u8 + 1);
    out
}

/// A number that any change of the message or its place changes.
fn sum(seal: &Seal, text: &[u8]) -> u64 {
    let place = u64::from(seal.index) << 1 | u64::from(seal.is_request);
    let bound = header(seal).into_iter().chain(seal.tag.0).chain(seal.purpose).chain(place.to_be_bytes());
    bound.chain(text.iter().copied()).fold(u64::from(seal.ring.0), |sum, byte| mix(sum ^ u64::from(byte)))
}

fn stream(seal: &Seal, text: &mut [u8]) {
    let start = seal.tag.0.iter().fold(u64::from(seal.index), |key, byte| mix(key ^ u64::from(*byte)));
    for (at, byte) in (0_u64..).zip(text) {
        *byte ^= mix(start ^ at).to_be_bytes()[0];
    }
}

/// Appends the envelope of `plain`.
pub(crate) fn seal(seal: &Seal, plain: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(seal));
    let start = out.len();
    out.extend_from_slice(plain);
    stream(seal, &mut out[start..]);
    let sum = sum(seal, &out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Appends what was sealed, and says what its sealer knew.
pub(crate) fn open(
    seal: &mut Seal,
    envelope: &[u8],
    seen: &mut BTreeSet<[u8; CallTag::LEN]>,
    out: &mut Vec<u8>,
) -> Result<(), JobError> {
    let (said, rest) = envelope.split_first_chunk::<HEADER>().ok_or(JobError::Corrupt)?;
    let (text, told) = rest.split_last_chunk::<SUM>().ok_or(JobError::Corrupt)?;
    seal.is_final = said[0] == 1;
    seal.encoding = said[1].checked_sub(1).and_then(|at| Encoding::ALL.get(usize::from(at)).copied());
    if header(seal) != *said || sum(seal, text).to_be_bytes() != *told {
        return Err(JobError::Forged);
    }
    if seal.is_request && seal.index == 0 && !seen.insert(seal.tag.0) {
        return Err(JobError::Replayed);
    }
    let start = out.len();
    out.extend_from_slice(text);
    stream(seal, &mut out[start..]);
    Ok(())
}
