//! Contents of messages: each follows from its call, direction and number, so that whoever receives it
//! knows what it must be.

use std::collections::VecDeque;

use abi::Encoding;
use wire::grpc::{PREFIX_LEN, Prefix};

use crate::offload::{compress, decompress};
use crate::rng::mix;

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Request,
    Response,
}

/// The plain bytes of one message. Two of three shrink well.
pub(crate) fn message(call: usize, way: Way, number: usize, len: usize) -> Vec<u8> {
    let tag = mix((call as u64) << 24 ^ (number as u64) << 1 ^ u64::from(way == Way::Response));
    let mut out = Vec::with_capacity(len + 8);
    let shrinks = !tag.is_multiple_of(3);
    let mut at = 0_u64;
    while out.len() < len {
        let word = if shrinks { tag ^ (at >> 4) } else { mix(tag ^ at) };
        out.extend_from_slice(&word.to_le_bytes());
        at += 1;
    }
    out.truncate(len);
    out
}

/// A message as it travels.
pub(crate) fn frame(plain: &[u8], encoding: Option<Encoding>, out: &mut Vec<u8>) {
    let packed = encoding.map(|e| compress(e, plain));
    let body = packed.as_deref().unwrap_or(plain);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&Prefix { is_compressed: packed.is_some(), len }.emit());
    out.extend_from_slice(body);
}

/// What one side still has to send of a body: messages with the time before which they do not go.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    later: VecDeque<(u64, Vec<u8>)>,
    bytes: Vec<u8>,
    at: usize,
    /// Messages handed over, whole.
    pub(crate) begun: usize,
    /// Nothing will be added.
    pub(crate) is_last: bool,
    pub(crate) is_done: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, not_before: u64, framed: Vec<u8>) {
        self.later.push_back((not_before, framed));
    }

    /// Moves what is due to the front; true if there is something to offer (bytes, or the end).
    pub(crate) fn ready(&mut self, now: u64) -> bool {
        while self.later.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, framed)) = self.later.pop_front() else { break };
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.extend_from_slice(&framed);
            self.begun += 1;
        }
        !self.is_done && (self.at < self.bytes.len() || self.is_last && self.later.is_empty())
    }

    /// Bytes to offer, and whether the end goes with them.
    pub(crate) fn front(&self) -> (&[u8], bool) {
        (&self.bytes[self.at..], self.is_last && self.later.is_empty())
    }

    /// So many went.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Everything given so far has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.later.is_empty() && self.at == self.bytes.len()
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.later.front().map(|(at, _)| *at)
    }
}

/// What one side has received of a body.
#[derive(Debug)]
pub(crate) struct Inbox {
    call: usize,
    way: Way,
    lens: Vec<usize>,
    /// What a chain has appended to each.
    suffix: Vec<u8>,
    bytes: Vec<u8>,
    pub(crate) encoding: Option<Encoding>,
    /// Whole messages, each equal to what was sent.
    pub(crate) count: usize,
    /// Of these, compressed ones.
    pub(crate) compressed: usize,
}

impl Inbox {
    pub(crate) fn new(call: usize, way: Way, lens: &[usize], suffix: Vec<u8>) -> Self {
        let lens = lens.to_vec();
        Self { call, way, lens, suffix, bytes: Vec::new(), encoding: None, count: 0, compressed: 0 }
    }

    /// Bytes of a message that is not whole yet.
    pub(crate) fn partial(&self) -> usize {
        self.bytes.len()
    }

    /// Takes bytes; says what is wrong with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.bytes.get(at..at + PREFIX_LEN) {
            let head = <[u8; PREFIX_LEN]>::try_from(head).unwrap_or_default();
            let Some(prefix) = Prefix::parse(head) else {
                return Err(self.wrong(&format!("prefix {head:?}")));
            };
            let start = at + PREFIX_LEN;
            let Some(body) = self.bytes.get(start..start + prefix.len as usize) else { break };
            let Some(len) = self.lens.get(self.count).copied() else {
                return Err(self.wrong("one message too many"));
            };
            let wanted = [message(self.call, self.way, self.count, len), self.suffix.clone()].concat();
            let is_equal = match (prefix.is_compressed, self.encoding) {
                (false, _) => body == wanted,
                (true, None) => return Err(self.wrong("compressed without an encoding it was told")),
                (true, Some(encoding)) => {
                    decompress(encoding, body, wanted.len()).is_ok_and(|plain| plain == wanted)
                }
            };
            if !is_equal {
                return Err(
                    self.wrong(&format!("message of {} bytes instead of {len}, or other ones", body.len()))
                );
            }
            self.count += 1;
            self.compressed += usize::from(prefix.is_compressed);
            at = start + prefix.len as usize;
        }
        self.bytes.drain(..at);
        Ok(())
    }

    fn wrong(&self, what: &str) -> String {
        format!("call {} {:?} message {}: {what}", self.call, self.way, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_takes_any_cut_and_refuses_another_byte() {
        let lens = [0, 7, 300];
        let mut all = Vec::new();
        for (number, len) in lens.iter().enumerate() {
            let encoding = (number == 2).then_some(Encoding::Gzip);
            frame(&message(9, Way::Request, number, *len), encoding, &mut all);
        }
        for cut in 0..all.len() {
            let mut inbox = Inbox::new(9, Way::Request, &lens, Vec::new());
            inbox.encoding = Some(Encoding::Gzip);
            inbox.push(&all[..cut]).unwrap();
            inbox.push(&all[cut..]).unwrap();
            assert_eq!((inbox.count, inbox.compressed, inbox.partial()), (3, 1, 0));
        }
        all[12] ^= 1;
        assert!(Inbox::new(9, Way::Request, &lens, Vec::new()).push(&all).is_err());
    }
}
