//! Calls whose messages are sealed between two nodes: their keys, their tag, and how a breach ends them.
//!
//! The caller's node draws a tag for each call and puts it into `towpath-call`; the callee's node takes it out
//! again, and seals the answer under it. Another attempt sends the same bytes under the same tag: it goes only
//! to an endpoint that has processed nothing of the call.
//!
//! Not here: the sealing itself (an offload job), and its place among a message's other jobs (`messages`).
//! Invariant: `towpath-call` from a caller never reaches an element or an endpoint.

use abi::{Flag, KeyIdx, Status};
use sha2::{Digest, Sha256};
use wire::{Headers, Token};

use crate::body::Way;
use crate::messages::{Breach, Terms, Unfit};
use crate::slab::Key;
use crate::state::Core;
use crate::{CallTag, Offload, Seal};

const NAME: &[u8] = b"towpath-call";
/// The tag's length in base64.
const TEXT_LEN: usize = CallTag::LEN / 3 * 4;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Takes the tag out of a request's metadata.
pub(crate) fn take_tag(list: &mut Headers) -> Option<CallTag> {
    let tag = decode(list.get(Token::TowpathCall)?);
    list.retain(|field, _, _| field.token != Token::TowpathCall);
    tag
}

/// The first half of the path's SHA-256.
fn purpose(path: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(path).into();
    core::array::from_fn(|at| digest[at])
}

fn encode(tag: CallTag) -> [u8; TEXT_LEN] {
    let mut out = [0; TEXT_LEN];
    for (text, three) in out.chunks_exact_mut(4).zip(tag.0.chunks_exact(3)) {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for (at, letter) in text.iter_mut().enumerate() {
            *letter = LETTERS[bits >> (18 - 6 * at) & 63];
        }
    }
    out
}

/// `None` if it is no tag; several of them are none.
fn decode(text: &[u8]) -> Option<CallTag> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut tag = CallTag([0; CallTag::LEN]);
    for (three, text) in tag.0.chunks_exact_mut(3).zip(text.chunks_exact(4)) {
        let mut bits = 0_u32;
        for letter in text {
            let place = LETTERS.iter().position(|l| l == letter)?;
            bits = bits << 6 | u32::try_from(place).ok()?;
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        three.copy_from_slice(&bytes);
    }
    Some(tag)
}

impl Core {
    /// The terms of a direction, with the seals its chain wants.
    pub(crate) fn with_seals(&self, key: Key, way: Way, terms: Terms) -> Result<Terms, Breach> {
        let (Some(plan), Some(call)) = (self.plan_of(key), self.calls.get(key)) else { return Ok(terms) };
        if !(plan.request_boundary.is_any() || plan.response_boundary.is_any()) {
            return Ok(terms);
        }
        if !call.is_grpc {
            return Err(Breach::NotGrpc);
        }
        let generation = self.generations.get(usize::from(call.program)).and_then(Option::as_ref);
        let is_request = way == Way::ToEndpoint;
        let purpose = purpose(call.request.get(Token::Path).unwrap_or_default());
        let seal = |named: Option<KeyIdx>, tag: Option<CallTag>| {
            let Some(named) = named else { return Ok(None) };
            let rings = generation.map_or(&[][..], |g| &g.rings);
            let ring = rings.get(usize::from(named.0)).copied().flatten().ok_or(Breach::UnknownKey)?;
            let tag = tag.ok_or(Breach::Unsealed)?;
            Ok(Some(Seal { ring, tag, purpose, is_request, index: 0, is_final: false, encoding: None }))
        };
        // The caller's node names the call in both directions; its own name is drawn before it is sent.
        let own = Some(call.own_tag.unwrap_or(CallTag([0; CallTag::LEN])));
        Ok(if is_request {
            if plan.request_boundary.opens.is_some() && call.is_bodiless {
                return Err(Breach::Cut);
            }
            let boundary = plan.request_boundary;
            Terms { opens: seal(boundary.opens, call.tag)?, seals: seal(boundary.seals, own)?, ..terms }
        } else {
            let boundary = plan.response_boundary;
            Terms { opens: seal(boundary.opens, own)?, seals: seal(boundary.seals, call.tag)?, ..terms }
        })
    }

    /// Calls that were let through and will be sealed get their tags.
    pub(crate) fn tag_fresh(&mut self, offload: &mut impl Offload) {
        if !self.seals_requests {
            return;
        }
        for at in 0..self.fresh.len() {
            let Some(key) = self.fresh.get(at).copied() else { break };
            let wants = self.plan_of(key).is_some_and(|p| p.request_boundary.seals.is_some());
            if let Some(call) = self.calls.get_mut(key).filter(|c| wants && c.own_tag.is_none()) {
                let tag = offload.tag();
                call.own_tag = Some(tag);
                call.request.push_field(Token::TowpathCall, NAME, &encode(tag), false);
                if let Some(messages) = call.to_endpoint.messages.as_mut()
                    && let Some(seal) = messages.terms.seals.as_mut()
                {
                    seal.tag = tag;
                }
            }
        }
    }

    /// A message cannot go on: the call ends, and says why.
    pub(crate) fn fail_unfit(&mut self, key: Key, why: Unfit) {
        match why {
            Unfit::Unreadable(why) => self.fail_unreadable(key, why),
            Unfit::Sealed(why) => self.fail_breach(key, why),
        }
    }

    /// A seal is missing or broken. No key and no byte of the message is told.
    pub(crate) fn fail_breach(&mut self, key: Key, why: Breach) {
        let counters = &mut self.counters;
        let (count, text) = match why {
            Breach::UnknownKey => {
                (&mut counters.calls_seal_unknown_key, "a message is sealed with a key that is not here")
            }
            Breach::Forged => (&mut counters.calls_seal_forged, "a sealed message does not open"),
            Breach::Replayed => (&mut counters.calls_seal_replayed, "the sealed call has been here before"),
            Breach::Expired => (&mut counters.calls_seal_expired, "the sealed call is too old"),
            Breach::Malformed => {
                (&mut counters.calls_seal_malformed, "a message is not sealed as it should be")
            }
            Breach::Cut => {
                (&mut counters.calls_seal_cut, "sealed messages end without the last: some may be missing")
            }
            Breach::Unsealed => (&mut counters.calls_unsealed, "the call is not sealed"),
            Breach::NotGrpc => (&mut counters.calls_seal_not_grpc, "only calls of gRPC can be sealed"),
            Breach::Lost => {
                (&mut counters.calls_seal_lost, "a message was lost while it was sealed or opened")
            }
        };
        *count += 1;
        let (status, flag) = match why {
            Breach::NotGrpc => (Status::UNIMPLEMENTED, Flag::Denied),
            Breach::Lost => (Status::INTERNAL, Flag::None),
            _ => (Status::UNAUTHENTICATED, Flag::Denied),
        };
        self.fail(key, status, flag, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_travels_as_text_and_is_taken_out() {
        let tag = CallTag(core::array::from_fn(|at| u8::try_from(at * 9 % 256).unwrap()));
        let mut list = Headers::new();
        list.push(b"a", b"1");
        list.push(NAME, &encode(tag));
        assert_eq!(take_tag(&mut list), Some(tag));
        assert_eq!((list.len(), take_tag(&mut list)), (1, None));
        // Whatever is no tag is taken out, too.
        for text in [&b""[..], b"AAAA", &[b'!'; TEXT_LEN], &[b'A'; TEXT_LEN + 1]] {
            list.push(NAME, text);
            assert_eq!((take_tag(&mut list), list.len()), (None, 1), "{text:?}");
        }
        // Two names are none, and neither stays.
        list.push(NAME, &encode(tag));
        list.push(NAME, &encode(tag));
        take_tag(&mut list);
        assert_eq!(list.len(), 1);
    }
}
