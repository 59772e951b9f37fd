//! What is to be written: one buffer, appended to at the end and taken from the front.
//!
//! Invariant: `frames` is the number of frames that have not gone out whole, whatever the chunks in which
//! bytes go; the outbound flood limit counts on it.

use alloc::vec::Vec;

use super::frame::{self, HEAD_LEN, Head};
use super::limits::BUFFER_KEPT_BYTES;

/// Bytes to write and how far they have gone.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) buf: Vec<u8>,
    at: usize,
    /// Where the first frame that has not gone out whole begins in `buf`; not above `at` but for a preface.
    boundary: usize,
    frames: u32,
}

impl Tx {
    pub(crate) const fn new() -> Self {
        Self { buf: Vec::new(), at: 0, boundary: 0, frames: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.buf.get(self.at..).unwrap_or(&[])
    }

    pub(crate) const fn len(&self) -> usize {
        self.buf.len() - self.at
    }

    pub(crate) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes that are no frame: the client's preface.
    pub(crate) fn preface(&mut self) {
        self.buf.extend_from_slice(frame::PREFACE);
        self.boundary = self.buf.len();
    }

    /// A short frame.
    pub(crate) fn push(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        frame::push(&mut self.buf, kind, flags, id, payload);
        self.frames += 1;
    }

    /// Counts frames whose bytes the caller has appended to `buf`.
    pub(crate) const fn pushed(&mut self, frames: u32) {
        self.frames += frames;
    }

    /// The first `n` bytes have gone.
    pub(crate) fn advance(&mut self, n: usize) {
        self.at = (self.at + n).min(self.buf.len());
        if self.at == self.buf.len() {
            self.clear();
            return;
        }
        while self.boundary <= self.at {
            let Some(head) = self.buf.get(self.boundary..).and_then(|b| b.first_chunk()) else { break };
            let end = self.boundary + HEAD_LEN + Head::parse(head).len as usize;
            if end > self.at {
                break;
            }
            self.boundary = end;
            self.frames = self.frames.saturating_sub(1);
        }
        // Moving what is left pays once as much has gone. The frame that is half gone moves whole: the count
        // needs its head.
        let from = self.boundary.min(self.at);
        if from >= BUFFER_KEPT_BYTES && from * 2 >= self.buf.len() {
            self.buf.copy_within(from.., 0);
            self.buf.truncate(self.buf.len() - from);
            self.boundary -= from;
            self.at -= from;
        }
    }

    /// Forgets everything, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.buf.clear();
        self.at = 0;
        self.boundary = 0;
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_whatever_goes_at_once() {
        for step in [1, 2, 7, 9, 10, 100, 4096, 5000, 20_000] {
            let mut tx = Tx::new();
            tx.preface();
            let sizes = [0, 1, 8, 16_384, 100, 0, 5000, 16_384, 3];
            let mut expected = Vec::from(frame::PREFACE);
            for round in 0..4 {
                for (i, size) in sizes.iter().enumerate() {
                    let payload = alloc::vec![i as u8 + round; *size];
                    tx.push(0, 0, 1, &payload);
                    frame::push(&mut expected, 0, 0, 1, &payload);
                }
            }
            let mut went = 0;
            while tx.len() > 0 {
                assert_eq!(tx.bytes(), &expected[went..]);
                let n = step.min(tx.len());
                tx.advance(n);
                went += n;
                // What the frames still there are, counted from the end.
                let mut at = frame::PREFACE.len();
                let mut left = 0;
                while let Some(head) = expected.get(at..).and_then(|b| b.first_chunk()) {
                    at += HEAD_LEN + Head::parse(head).len as usize;
                    left += u32::from(at > went);
                }
                assert_eq!(tx.frames(), left, "step {step} at {went}");
                // At most as much again as is left, one half-gone frame and what is too little to move.
                assert!(tx.buf.len() <= 2 * tx.len() + 2 * 16_393 + BUFFER_KEPT_BYTES);
                if step < 10 && went > 3000 {
                    break;
                }
            }
        }
    }
}
