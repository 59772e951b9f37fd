//! Headers and text fields held against known texts where they are, without a copy.
//!
//! The same answers as reading the text first ([`super::Op::Meta`], [`super::Op::Text`]) and comparing then:
//! bytes that are no UTF-8 count as they would read.

use abi::{Side, Text};

use super::exec::Run;
use super::place::{constant_place, is_constant, slice_len};

/// The most values of one header that are looked at.
pub(super) const VALUES_MAX: usize = 64;

/// Bytes from outside read as `text`, though they are not its bytes.
#[cold]
fn reads_as(bytes: &[u8], text: &[u8]) -> bool {
    // What is not UTF-8 reads as three bytes or more for at most three: never shorter.
    bytes.len() <= text.len() && String::from_utf8_lossy(bytes).as_bytes() == text
}

impl Run<'_> {
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
    #[inline]
    pub fn meta_is(&self, side: Side, key: u64, b: u64) -> bool {
        let (key, text) = (self.text(key), self.bytes(b));
        let Some(value) = self.call.metadata(side, key, 0) else { return false };
        if self.call.metadata(side, key, 1).is_some() {
            return self.joined_is(side, key, text);
        }
        value == text || (self.shared.has_replaced || !is_constant(b)) && reads_as(value, text)
    }

    /// The header `key` is there and reads as one of the texts of `list`.
    #[inline]
    pub fn meta_in(&self, side: Side, key: u64, list: u64) -> bool {
        if !is_constant(key & list) || self.shared.has_replaced {
            return self.made_meta_in(side, key, list);
        }
        let name = self.shared.text(constant_place(key));
        let Some(value) = self.call.metadata(side, name, 0) else { return false };
        if self.call.metadata(side, name, 1).is_some() {
            return self.made_meta_in(side, key, list);
        }
        self.any_constant_is(list, value)
    }

    /// The same of any texts and any values.
    #[inline(never)]
    fn made_meta_in(&self, side: Side, key: u64, list: u64) -> bool {
        let key = self.text(key);
        let Some(value) = self.call.metadata(side, key, 0) else { return false };
        if self.call.metadata(side, key, 1).is_some() {
            return self.any(list, |text| self.joined_is(side, key, self.bytes(text)));
        }
        self.any_is(list, value)
            || std::str::from_utf8(value).is_err() && self.any(list, |text| reads_as(value, self.bytes(text)))
    }

    /// A text field is the text `b`.
    #[inline]
    pub fn text_is(&self, field: Text, b: u64) -> bool {
        self.call.text(field).as_bytes() == self.bytes(b)
    }

    /// A text field is one of the texts of `list`.
    #[inline]
    pub fn text_in(&self, field: Text, list: u64) -> bool {
        let value = self.call.text(field).as_bytes();
        self.any_is(list, value)
    }

    /// A text is one of the texts of `list`.
    #[inline]
    pub fn is_in(&self, text: u64, list: u64) -> bool {
        self.any_is(list, self.bytes(text))
    }

    /// A text of the list has these bytes.
    #[inline]
    fn any_is(&self, list: u64, bytes: &[u8]) -> bool {
        if is_constant(list) {
            return self.any_constant_is(list, bytes);
        }
        self.any(list, |text| self.bytes(text) == bytes)
    }

    /// The same of a constant list.
    #[inline]
    fn any_constant_is(&self, list: u64, bytes: &[u8]) -> bool {
        let texts = self.shared.list(constant_place(list));
        // A text's word tells its length: few are looked at.
        let same_len = texts.iter().filter(|text| slice_len(**text) == bytes.len());
        same_len.map(|text| self.shared.text(constant_place(*text))).any(|text| text.as_bytes() == bytes)
    }

    /// A text of the list is such a one.
    #[inline(never)]
    fn any(&self, list: u64, is: impl Fn(u64) -> bool) -> bool {
        let mut place = 0;
        while let Some(item) = self.next(list, &mut place) {
            if is(item) {
                return true;
            }
        }
        false
    }
}
