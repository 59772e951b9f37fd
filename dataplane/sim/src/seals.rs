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

const SUM: usize = Seal::GROWTH - Seal::HEAD;

fn header(seal: &Seal, key: u8) -> [u8; Seal::HEAD] {
    let mut out = [0x53; Seal::HEAD];
    out[0] = u8::from(seal.is_final);
    out[1] = seal.encoding.map_or(0, |e| e as u8 + 1);
    out[2] = key;
    out
}

/// A number that any change of the message or its place changes.
fn sum(seal: &Seal, key: u8, text: &[u8]) -> [u8; SUM] {
    let place = u64::from(seal.index) << 1 | u64::from(seal.is_request);
    let bound =
        header(seal, key).into_iter().chain(seal.tag.0).chain(seal.purpose).chain(place.to_be_bytes());
    let sum =
        bound.chain(text.iter().copied()).fold(secret(seal, key), |sum, byte| mix(sum ^ u64::from(byte)));
    u128::from(sum).to_be_bytes()
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

/// Makes an envelope of the text behind the room for its head.
pub(crate) fn seal(keys: &Keys, seal: &Seal, bytes: &mut Vec<u8>) {
    let key = keys.seals;
    let (head, text) = bytes.split_at_mut(Seal::HEAD);
    head.copy_from_slice(&header(seal, key));
    stream(seal, key, text);
    let sum = sum(seal, key, text);
    bytes.extend_from_slice(&sum);
}

/// Makes what was sealed of its envelope, behind the head, and says what its sealer knew.
pub(crate) fn open(
    keys: &Keys,
    seal: &mut Seal,
    bytes: &mut Vec<u8>,
    seen: &mut BTreeSet<[u8; CallTag::LEN]>,
) -> Result<(), JobError> {
    let (said, rest) = bytes.split_first_chunk::<{ Seal::HEAD }>().ok_or(JobError::Corrupt)?;
    let (text, told) = rest.split_last_chunk::<SUM>().ok_or(JobError::Corrupt)?;
    let key = said[2];
    if !keys.opens.contains(&key) {
        return Err(JobError::UnknownKey);
    }
    seal.is_final = said[0] == 1;
    seal.encoding = said[1].checked_sub(1).and_then(|at| Encoding::ALL.get(usize::from(at)).copied());
    if header(seal, key) != *said || sum(seal, key, text) != *told {
        return Err(JobError::Forged);
    }
    if seal.is_request && seal.index == 0 && !seen.insert(seal.tag.0) {
        return Err(JobError::Replayed);
    }
    bytes.truncate(bytes.len() - SUM);
    stream(seal, key, &mut bytes[Seal::HEAD..]);
    Ok(())
}
