//! The envelopes a node makes, and what somebody between the nodes does to them: it is done where they are made.

use std::collections::{BTreeMap, BTreeSet};

use shard::{CallTag, Seal};

use crate::rng::Rng;
use crate::seals::{self, Keys};

/// What a call is for, as its seals name it.
pub(crate) type Purpose = [u8; 16];
type Tag = [u8; CallTag::LEN];

/// Somebody between the nodes, seen from one of them.
#[derive(Debug, Default)]
pub(crate) struct Meddler {
    /// Of envelopes, and of calls that are sent under the tag of another, per mille.
    pub(crate) permille: u64,
    /// Calls of which an envelope was harmed, towards their servers or back.
    pub(crate) harmed: BTreeSet<(Purpose, bool)>,
    /// Which calls were sealed under a tag.
    pub(crate) tagged: BTreeMap<Tag, BTreeSet<Purpose>>,
    /// Messages that were sealed in the place of another of their call.
    pub(crate) twice: usize,
    places: BTreeSet<(Tag, Purpose, bool, u32)>,
    last: Vec<u8>,
}

impl Meddler {
    /// An envelope of `plain` leaves.
    pub(crate) fn pass(
        &mut self,
        rng: &mut Rng,
        keys: &Keys,
        seal: &Seal,
        plain: &[u8],
        envelope: &mut Vec<u8>,
    ) {
        let is_new = self.places.insert((seal.tag.0, seal.purpose, seal.is_request, seal.index));
        self.twice += usize::from(!is_new);
        if seal.is_request {
            self.tagged.entry(seal.tag.0).or_default().insert(seal.purpose);
        }
        let made = envelope.clone();
        if rng.chance(self.permille) {
            self.harm(rng, keys, seal, plain, envelope);
            self.harmed.insert((seal.purpose, seal.is_request));
        }
        self.last = made;
    }

    fn harm(&self, rng: &mut Rng, keys: &Keys, seal: &Seal, plain: &[u8], envelope: &mut Vec<u8>) {
        match rng.below(4) {
            0 => envelope.clear(),
            1 if !self.last.is_empty() => envelope.clone_from(&self.last),
            // As if the last message, or the record that follows it, had not come.
            2 if seal.is_final => {
                envelope.truncate(Seal::HEAD);
                envelope.extend_from_slice(plain);
                seals::seal(keys, &Seal { is_final: false, ..*seal }, envelope);
            }
            _ => {
                let at = rng.size(0, envelope.len().saturating_sub(1));
                envelope[at] ^= 1 << rng.below(8);
            }
        }
    }
}
