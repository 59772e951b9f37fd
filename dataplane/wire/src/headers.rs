//! A header list: one flat buffer and a table of fields, so that copying, comparing and clearing it are
//! memory moves and a reused list allocates nothing.
//!
//! Invariant: the buffer is the fields' names and values in their order and nothing else, whatever was
//! removed or replaced: equal lists have equal buffers, and `list_size` is exact.

mod token;

use alloc::vec::Vec;

pub use token::Token;

/// One field of a list: where it is and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    at: u32,
    name_len: u32,
    value_len: u32,
    /// Which name it is.
    pub token: Token,
    /// Sent as never-indexed (RFC 7541 section 6.2.3); re-emitted as such.
    pub never_indexed: bool,
}

/// An ordered header list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    buf: Vec<u8>,
    fields: Vec<Field>,
    /// A bit for each token that a field has.
    tokens: u32,
}

impl Headers {
    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        Self { buf: Vec::new(), fields: Vec::new(), tokens: 0 }
    }

    /// Forgets the fields, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.fields.clear();
        self.tokens = 0;
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of names and values.
    pub fn bytes_len(&self) -> usize {
        self.buf.len()
    }

    /// Bytes of memory held, used or not.
    pub fn capacity_bytes(&self) -> usize {
        self.buf.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// The size RFC 9113 section 10.5.1 limits: names, values and 32 bytes a field.
    pub fn list_size(&self) -> usize {
        self.buf.len() + 32 * self.fields.len()
    }

    /// Appends a field whose token is known.
    pub fn push_field(&mut self, token: Token, name: &[u8], value: &[u8], never_indexed: bool) {
        let at = u32::try_from(self.buf.len()).unwrap_or(u32::MAX);
        self.buf.extend_from_slice(name);
        self.buf.extend_from_slice(value);
        self.tokens |= token.bit();
        self.fields.push(Field {
            at,
            name_len: u32::try_from(name.len()).unwrap_or(u32::MAX),
            value_len: u32::try_from(value.len()).unwrap_or(u32::MAX),
            token,
            never_indexed,
        });
    }

    /// Appends a field; the name must be lower case.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Token::of(name), name, value, false);
    }

    /// Replaces this list by a copy of another: two memory moves.
    pub fn copy_from(&mut self, other: &Self) {
        self.buf.clear();
        self.buf.extend_from_slice(&other.buf);
        self.fields.clear();
        self.fields.extend_from_slice(&other.fields);
        self.tokens = other.tokens;
    }

    /// The same into memory of just that size, for a copy that is kept.
    pub(crate) fn copy_from_exact(&mut self, other: &Self) {
        self.clear();
        self.buf.reserve_exact(other.buf.len());
        self.fields.reserve_exact(other.fields.len());
        self.copy_from(other);
    }

    /// Equality, made to be quick on lists that are equal: no branch per field.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // Where fields begin follows from their lengths.
        self.fields.len() == other.fields.len()
            && self.buf == other.buf
            && self.fields.iter().zip(&other.fields).fold(true, |is_same, (a, b)| {
                is_same
                    & (a.name_len == b.name_len)
                    & (a.value_len == b.value_len)
                    & (a.token == b.token)
                    & (a.never_indexed == b.never_indexed)
            })
    }

    /// Appends a field given as its name and value in one piece.
    #[inline]
    pub(crate) fn push_joined(&mut self, token: Token, joined: &[u8], name_len: usize) {
        let at = self.buf.len();
        self.buf.extend_from_slice(joined);
        self.push_stored(token, at, name_len, joined.len().saturating_sub(name_len), false);
    }

    /// Appends a field whose name and value are the buffer's bytes from `at` on.
    #[inline]
    pub(crate) fn push_stored(
        &mut self,
        token: Token,
        at: usize,
        name_len: usize,
        value_len: usize,
        never_indexed: bool,
    ) {
        self.tokens |= token.bit();
        self.fields.push(Field {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            name_len: u32::try_from(name_len).unwrap_or(u32::MAX),
            value_len: u32::try_from(value_len).unwrap_or(u32::MAX),
            token,
            never_indexed,
        });
    }

    /// The bytes of names and values, for `push_stored`.
    #[inline]
    pub(crate) fn buf_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Appends all fields of another list.
    pub fn append(&mut self, other: &Self) {
        let shift = u32::try_from(self.buf.len()).unwrap_or(u32::MAX);
        self.buf.extend_from_slice(&other.buf);
        self.fields.extend(other.fields.iter().map(|f| Field { at: f.at.saturating_add(shift), ..*f }));
        self.tokens |= other.tokens;
    }

    /// Name of a field of this list.
    pub fn name(&self, field: &Field) -> &[u8] {
        let at = field.at as usize;
        self.buf.get(at..at + field.name_len as usize).unwrap_or(&[])
    }

    /// Value of a field of this list.
    pub fn value(&self, field: &Field) -> &[u8] {
        let at = field.at as usize + field.name_len as usize;
        self.buf.get(at..at + field.value_len as usize).unwrap_or(&[])
    }

    /// The fields in order, with names and values.
    pub fn iter(&self) -> Iter<'_> {
        Iter { headers: self, fields: self.fields.iter() }
    }

    /// The first value of a well-known name. A missing header is `None`, an empty one is `Some(b"")`.
    #[inline]
    pub fn get(&self, token: Token) -> Option<&[u8]> {
        if !self.has(token) {
            return None;
        }
        self.fields.iter().find(|f| f.token == token).map(|f| self.value(f))
    }

    /// True if a field has this well-known name.
    #[inline]
    pub fn has(&self, token: Token) -> bool {
        self.tokens & token.bit() != 0
    }

    /// The `nth` value (from 0) of a name.
    pub fn get_name(&self, name: &[u8], nth: usize) -> Option<&[u8]> {
        self.fields.iter().filter(|f| self.name(f) == name).nth(nth).map(|f| self.value(f))
    }

    /// Removes every field the predicate refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&Field, &[u8], &[u8]) -> bool) {
        let buf = &mut self.buf;
        let mut kept = 0;
        self.tokens = 0;
        self.fields.retain_mut(|f| {
            let from = f.at as usize;
            let len = f.bytes_len();
            let (name, value) = buf
                .get(from..from + len)
                .unwrap_or(&[])
                .split_at_checked(f.name_len as usize)
                .unwrap_or_default();
            if !keep(f, name, value) {
                return false;
            }
            if from != kept {
                buf.copy_within(from..from + len, kept);
                f.at = u32::try_from(kept).unwrap_or(u32::MAX);
            }
            kept += len;
            self.tokens |= f.token.bit();
            true
        });
        self.buf.truncate(kept);
    }

    /// Removes every field of a well-known name.
    pub fn remove(&mut self, token: Token) {
        if self.has(token) {
            self.retain(|f, _, _| f.token != token);
        }
    }

    /// Gives a well-known name exactly one value: in the place of its first field, or at the end.
    pub fn set(&mut self, token: Token, name: &[u8], value: &[u8]) {
        let Some(place) = self.fields.iter().position(|f| f.token == token) else {
            return self.push_field(token, name, value, false);
        };
        if self.fields.iter().skip(place + 1).any(|f| f.token == token) {
            let mut seen = 0;
            self.retain(|f, _, _| {
                seen += usize::from(f.token == token);
                f.token != token || seen == 1
            });
        }
        self.replace(place, name, value);
    }

    /// Gives the field at `place` another name and value; what follows moves.
    fn replace(&mut self, place: usize, name: &[u8], value: &[u8]) {
        let Some(field) = self.fields.get_mut(place) else { return };
        let from = field.at as usize;
        let (old, new) = (field.bytes_len(), name.len() + value.len());
        field.name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        field.value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let end = self.buf.len();
        if new > old {
            self.buf.resize(end + new - old, 0);
        }
        self.buf.copy_within(from + old..end, from + new);
        self.buf.truncate(end + new - old);
        if let Some((to_name, to_value)) =
            self.buf.get_mut(from..from + new).and_then(|b| b.split_at_mut_checked(name.len()))
        {
            to_name.copy_from_slice(name);
            to_value.copy_from_slice(value);
        }
        let mut at = from + new;
        for field in self.fields.iter_mut().skip(place + 1) {
            field.at = u32::try_from(at).unwrap_or(u32::MAX);
            at += field.bytes_len();
        }
    }
}

impl Field {
    fn bytes_len(&self) -> usize {
        self.name_len as usize + self.value_len as usize
    }
}

/// The fields of a list with their names and values.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    headers: &'a Headers,
    fields: core::slice::Iter<'a, Field>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Field, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some((field, self.headers.name(field), self.headers.value(field)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a Field, &'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A value that is a number: 1 to 18 digits and nothing else.
#[inline]
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests;
