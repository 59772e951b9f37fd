//! The `node` scalars of one element: together at most 16 bytes, read and changed in one atomic step.

use std::sync::atomic::{AtomicU64, Ordering};

use portable_atomic::AtomicU128;

/// Bytes all scalars of an element may have together.
pub(crate) const BYTES_MAX: usize = 16;

/// One scalar among those of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type, as a user writes it.
    pub shape: String,
    /// Which of the two words it is in.
    pub word: u8,
    /// Where in the word it begins, bits.
    pub shift: u8,
    /// How many bits it has: 8, or 64 at the beginning of a word.
    pub bits: u8,
    /// Its first value.
    pub init: u64,
}

impl Field {
    /// Its value in these words.
    pub(crate) fn get(&self, words: [u64; 2]) -> u64 {
        let word = words.get(usize::from(self.word)).copied().unwrap_or(0);
        if self.bits == 64 { word } else { (word >> self.shift) & 0xff }
    }

    /// The words with another value of it.
    pub(crate) fn set(&self, mut words: [u64; 2], value: u64) -> [u64; 2] {
        if let Some(word) = words.get_mut(usize::from(self.word)) {
            *word = if self.bits == 64 { value } else { byte_set(*word, value, self.shift) };
        }
        words
    }
}

/// A word with another byte at `shift`.
pub(crate) fn byte_set(word: u64, value: u64, shift: u8) -> u64 {
    word & !(0xff << shift) | (value & 0xff) << shift
}

/// Two words, changed as one.
#[derive(Debug)]
pub(crate) enum Scalars {
    /// The second word is not used.
    One(AtomicU64),
    Two(AtomicU128),
}

fn wide(words: [u64; 2]) -> u128 {
    u128::from(words[1]) << 64 | u128::from(words[0])
}

impl Scalars {
    /// Words for these fields, each with the value given.
    pub(crate) fn new(fields: &[Field], value: impl Fn(&Field) -> u64) -> Self {
        let words = fields.iter().fold([0; 2], |words, field| field.set(words, value(field)));
        if fields.iter().any(|f| f.word > 0) {
            Self::Two(AtomicU128::new(wide(words)))
        } else {
            Self::One(AtomicU64::new(words[0]))
        }
    }

    /// Both words, of one moment.
    pub(crate) fn load(&self) -> [u64; 2] {
        match self {
            Self::One(word) => [word.load(Ordering::Acquire), 0],
            Self::Two(words) => {
                let both = words.load(Ordering::Acquire);
                [low(both), low(both >> 64)]
            }
        }
    }

    /// Replaces both words if they are still the old ones.
    pub(crate) fn swap(&self, old: [u64; 2], new: [u64; 2]) -> bool {
        let (ok, no) = (Ordering::AcqRel, Ordering::Acquire);
        match self {
            Self::One(word) => word.compare_exchange(old[0], new[0], ok, no).is_ok(),
            Self::Two(words) => words.compare_exchange(wide(old), wide(new), ok, no).is_ok(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low(both: u128) -> u64 {
    both as u64
}
