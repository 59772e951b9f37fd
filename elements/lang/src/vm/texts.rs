//! Texts of a run: where they are, and new ones.

use std::ops::Range;

use abi::Spill;

use super::code::{EMPTY_TEXT, Fmt, Shared, StrFn, Where, slice_parts, slice_word};
use super::exec::Run;
use super::place::slice_range;
use super::text::{base64, cut, digest, lower, mask, write_word};

/// Bytes of one interpolated text.
const INTERPOLATED_MAX: usize = 1024;

impl Run<'_> {
    pub(super) fn str_fn(&mut self, op: StrFn, a: u64, b: u64) -> u64 {
        let n = usize::try_from(b).unwrap_or(usize::MAX);
        let text = if matches!(op, StrFn::Base64 | StrFn::Digest) { "" } else { self.text(a) };
        let at = self.scratch.bytes.len();
        match op {
            // A part of a text is a text in the same place.
            StrFn::Trim => {
                let (skipped, len) = (text.len() - text.trim_start().len(), text.trim().len());
                return self.part(a, skipped, len);
            }
            StrFn::Prefix => {
                let end = text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
                return self.part(a, 0, end);
            }
            StrFn::Digest => {
                let hex = digest(self.bytes(a));
                return push_text(&mut self.scratch.bytes, &hex, self.text_max, &mut self.is_cut);
            }
            StrFn::Lower | StrFn::Mask | StrFn::Base64 => {}
        }
        let len = self.bytes(a).len();
        if at + 2 * len + 4 > self.text_max {
            self.is_cut = true;
            return EMPTY_TEXT;
        }
        // The result goes behind everything there is, so source and result do not overlap.
        let (place, from, _) = slice_parts(a);
        self.scratch.bytes.resize(at + 2 * len + 4, 0);
        let (source, out) = self.scratch.bytes.split_at_mut(at);
        let source = match place {
            Where::Consts => Some(self.shared.text(from).as_bytes()),
            _ => source.get(from..from + len),
        };
        let written = match op {
            StrFn::Lower => lower(source.unwrap_or(&[]), out),
            StrFn::Mask => mask(source.unwrap_or(&[]), n, out),
            _ => base64(source.unwrap_or(&[]), out),
        };
        self.scratch.bytes.truncate(at + written);
        slice_word(at, written, false)
    }

    /// `len` bytes of a text from `skipped`, in the same place where that is possible.
    pub(super) fn part(&mut self, word: u64, skipped: usize, len: usize) -> u64 {
        match slice_range(word) {
            (false, range) => slice_word(range.start + skipped, len, false),
            (true, range) => {
                let text = self.shared.text(range.start);
                if len == text.len() {
                    return word;
                }
                let part = text.as_bytes().get(skipped..skipped + len).unwrap_or(&[]);
                push_text(&mut self.scratch.bytes, part, self.text_max, &mut self.is_cut)
            }
        }
    }

    pub(super) fn text_part(&mut self, fmt: Fmt, word: u64) {
        if self.scratch.bytes.len() > self.text_max {
            self.is_cut = true;
            return;
        }
        match fmt {
            Fmt::Str => match slice_parts(word) {
                (Where::Scratch, at, len) if at + len <= self.scratch.bytes.len() => {
                    self.scratch.bytes.extend_from_within(at..at + len);
                }
                (Where::Consts, at, _) => {
                    self.scratch.bytes.extend_from_slice(self.shared.text(at).as_bytes());
                }
                _ => {}
            },
            Fmt::Endpoint => {
                let addr = self.endpoint_text(word).map_or("", |e| e.addr.as_str());
                self.scratch.bytes.extend_from_slice(addr.as_bytes());
            }
            Fmt::Service => {
                let at = usize::try_from(word).unwrap_or(usize::MAX);
                let name = self.shared.services.get(at).map_or("", |s| s.name.as_str());
                self.scratch.bytes.extend_from_slice(name.as_bytes());
            }
            Fmt::Named(at) => {
                let names = self.shared.enums.get(usize::from(at)).map_or(&[][..], |e| e);
                match names.iter().find(|(number, _)| *number == word) {
                    Some((_, name)) => self.scratch.bytes.extend_from_slice(name.as_bytes()),
                    None => write_word(&mut Utf8(&mut self.scratch.bytes), Fmt::Int, word),
                }
            }
            _ => write_word(&mut Utf8(&mut self.scratch.bytes), fmt, word),
        }
    }

    pub(super) fn text_end(&mut self) -> u64 {
        let at = self.text_at.min(self.scratch.bytes.len());
        let text = self.scratch.bytes.get(at..).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("");
        let len = cut(text, INTERPOLATED_MAX).len();
        self.scratch.bytes.truncate(at + len);
        slice_word(at, len, false)
    }
}

/// The text of a word.
#[inline]
pub(super) fn text_of<'t>(shared: &'t Shared, scratch: &'t Spill, word: u64) -> &'t str {
    match slice_range(word) {
        (true, range) => shared.text(range.start),
        (false, range) => made_text(scratch, range),
    }
}

/// A text of the call's memory.
fn made_text(scratch: &Spill, range: Range<usize>) -> &str {
    scratch.bytes.get(range).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
}

/// The bytes of a text, or of what is none.
#[inline]
pub(super) fn bytes_of<'t>(shared: &'t Shared, scratch: &'t Spill, word: u64) -> &'t [u8] {
    match slice_range(word) {
        (true, range) => shared.text(range.start).as_bytes(),
        (false, range) => scratch.bytes.get(range).unwrap_or(&[]),
    }
}

/// Copies bytes that came from outside: they become text.
pub(super) fn push_text(to: &mut Vec<u8>, bytes: &[u8], text_max: usize, is_cut: &mut bool) -> u64 {
    let at = to.len();
    let room = text_max.saturating_sub(at);
    *is_cut |= bytes.len() > room;
    match std::str::from_utf8(bytes) {
        Ok(text) => to.extend_from_slice(cut(text, room).as_bytes()),
        Err(_) => to.extend_from_slice(cut(&String::from_utf8_lossy(bytes), room).as_bytes()),
    }
    slice_word(at, to.len() - at, false)
}

/// Writes text to bytes.
struct Utf8<'v>(&'v mut Vec<u8>);

impl std::fmt::Write for Utf8<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

pub(super) fn write_bytes(to: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = std::fmt::Write::write_fmt(&mut Utf8(to), what);
}
