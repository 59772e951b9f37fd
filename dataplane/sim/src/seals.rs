//! A toy seal: a keystream and a checksum over all that a message is bound to. It keeps honest code honest.

use std::collections::BTreeSet;

use abi::Encoding;
use shard::{CallTag, JobError, Seal};

use crate::rng::mix;

/// Names of keys.
pub(crate) const KEYS: [&str; 2] = ["k", "other"];

/// The keys of a node: which it seals with, and which it opens with.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) seals: u8,
    pub(crate) opens: Vec<u8>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { seals: 1, opens: vec![1] }
    }
}

const SUM: usize = 8;
const HEADER: usize = Seal::GROWTH - SUM;

fn header(seal: &Seal, key: u8) -> [u8; HEADER] {
    let mut out = [0x53; HEADER];
    out[0] = u8::from(seal.is_final);
    out[1] = seal.encoding.map_or(0, |e| e as u8 + 1);
    out[2] = key;
    out
}

/// A number that any change of the message or its place changes.
fn sum(seal: &Seal, key: u8, text: &[u8]) -> u64 {
    let place = u64::from(seal.index) << 1 | u64::from(seal.is_request);
    let bound =
        header(seal, key).into_iter().chain(seal.tag.0).chain(seal.purpose).chain(place.to_be_bytes());
    bound.chain(text.iter().copied()).fold(secret(seal, key), |sum, byte| mix(sum ^ u64::from(byte)))
}

fn secret(seal: &Seal, key: u8) -> u64 {
    mix(u64::from(seal.ring.0) << 8 | u64::from(key))
}

fn stream(seal: &Seal, key: u8, text: &mut [u8]) {
    let place = secret(seal, key) ^ u64::from(seal.index) << 1 ^ u64::from(seal.is_request);
    let start = seal.tag.0.iter().fold(place, |start, byte| mix(start ^ u64::from(*byte)));
    for (at, byte) in (0_u64..).zip(text) {
        *byte ^= mix(start ^ at).to_be_bytes()[0];
    }
}

/// Appends the envelope of `plain`.
pub(crate) fn seal(keys: &Keys, seal: &Seal, plain: &[u8], out: &mut Vec<u8>) {
    let key = keys.seals;
    out.extend_from_slice(&header(seal, key));
    let start = out.len();
    out.extend_from_slice(plain);
    stream(seal, key, &mut out[start..]);
    let sum = sum(seal, key, &out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Appends what was sealed, and says what its sealer knew.
pub(crate) fn open(
    keys: &Keys,
    seal: &mut Seal,
    envelope: &[u8],
    seen: &mut BTreeSet<[u8; CallTag::LEN]>,
    out: &mut Vec<u8>,
) -> Result<(), JobError> {
    let (said, rest) = envelope.split_first_chunk::<HEADER>().ok_or(JobError::Corrupt)?;
    let (text, told) = rest.split_last_chunk::<SUM>().ok_or(JobError::Corrupt)?;
    let key = said[2];
    if !keys.opens.contains(&key) {
        return Err(JobError::UnknownKey);
    }
    seal.is_final = said[0] == 1;
    seal.encoding = said[1].checked_sub(1).and_then(|at| Encoding::ALL.get(usize::from(at)).copied());
    if header(seal, key) != *said || sum(seal, key, text).to_be_bytes() != *told {
        return Err(JobError::Forged);
    }
    if seal.is_request && seal.index == 0 && !seen.insert(seal.tag.0) {
        return Err(JobError::Replayed);
    }
    let start = out.len();
    out.extend_from_slice(text);
    stream(seal, key, &mut out[start..]);
    Ok(())
}
