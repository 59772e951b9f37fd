//! Headers and text fields held against known texts where they are, without a copy.
//!
//! The same answers as reading the text first ([`super::Op::Meta`], [`super::Op::Text`]) and comparing then:
//! bytes that are no UTF-8 count as they would read.

use abi::{Side, Text};

use super::code::{Where, slice_parts};
use super::exec::Run;

/// The most values of one header that are looked at.
pub(super) const VALUES_MAX: usize = 64;

/// Bytes from outside read as `text`, though they are not its bytes.
fn reads_as(bytes: &[u8], text: &[u8]) -> bool {
    // What is not UTF-8 reads as three bytes or more for at most three: never shorter.
    bytes.len() <= text.len() && String::from_utf8_lossy(bytes).as_bytes() == text
}

/// A header with a value of its own, or with several.
enum Header<'c> {
    Absent,
    One(&'c [u8]),
    Many,
}

impl Run<'_> {
    fn header(&self, side: Side, key: &str) -> Header<'_> {
        let Some(first) = self.call.metadata(side, key, 0) else { return Header::Absent };
        match self.call.metadata(side, key, 1) {
            None => Header::One(first),
            Some(_) => Header::Many,
        }
    }

    /// The values of a header, joined by commas, read as `text`.
    fn joined_is(&self, side: Side, key: &str, text: &[u8]) -> bool {
        let mut rest = text;
        // As long as the text is, so many values are looked at: each takes a comma of it.
        for nth in 0.. {
            let Some(value) = self.call.metadata(side, key, nth) else { break };
            let value = String::from_utf8_lossy(value);
            let after = if nth > 0 { rest.strip_prefix(b",") } else { Some(rest) };
            let Some(after) = after.and_then(|r| r.strip_prefix(value.as_bytes())) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    /// The header `key` is there and reads as the text `b`.
    pub fn meta_is(&self, side: Side, key: u64, b: u64) -> bool {
        let (key, text) = (self.text(key), self.bytes(b));
        match self.header(side, key) {
            Header::Absent => false,
            Header::One(value) => value == text || !value.is_ascii() && reads_as(value, text),
            Header::Many => self.joined_is(side, key, text),
        }
    }

    /// The header `key` is there and reads as one of the texts of `list`.
    pub fn meta_in(&self, side: Side, key: u64, list: u64) -> bool {
        let key = self.text(key);
        match self.header(side, key) {
            Header::Absent => false,
            Header::One(value) => {
                self.any_text(list, |text| text == value)
                    || !value.is_ascii() && self.any_text(list, |text| reads_as(value, text))
            }
            Header::Many => self.any_text(list, |text| self.joined_is(side, key, text)),
        }
    }

    /// A text field is the text `b`.
    pub fn text_is(&self, field: Text, b: u64) -> bool {
        self.call.text(field).as_bytes() == self.bytes(b)
    }

    /// A text field is one of the texts of `list`.
    pub fn text_in(&self, field: Text, list: u64) -> bool {
        let value = self.call.text(field).as_bytes();
        self.any_text(list, |text| text == value)
    }

    #[inline]
    fn any_text(&self, list: u64, is: impl Fn(&[u8]) -> bool) -> bool {
        if let (Where::Consts, at, len) = slice_parts(list) {
            let items = self.shared.lists.get(at..at + len).unwrap_or(&[]);
            return items.iter().any(|item| is(self.bytes(*item)));
        }
        let mut place = 0;
        while let Some(item) = self.next(list, &mut place) {
            if is(self.bytes(item)) {
                return true;
            }
        }
        false
    }
}
