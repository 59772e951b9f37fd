//! Header lists to header blocks, RFC 7541 sections 4.2 and 6, and the policy of what may be indexed.
//!
//! Upstream connections are shared between callers, so what a caller sends must not show in, or spoil, what
//! others send: only names that gRPC repeats from call to call enter the dynamic table, and everything else
//! is a literal without indexing.

use alloc::vec::Vec;

use super::index::{Found, Index, Key};
use super::memo::Memo;
use super::static_table::{self, STATIC_COUNT, index};
use super::{TABLE_BYTES_DEFAULT, huffman, integer};
use crate::{Field, Headers, Token};

/// The largest table used, whatever the peer allows, bytes.
const TABLE_BYTES_MAX: usize = TABLE_BYTES_DEFAULT;

/// Cookies shorter than this are never indexed: short enough to be guessed (RFC 7541 section 7.1.3).
const COOKIE_GUESSABLE_BYTES: usize = 20;

/// Encodes header lists for one connection's direction. Only a fixed list of names enters the dynamic
/// table; never-indexed fields stay so.
///
/// A list that equals one of the last few is not encoded again as long as the table is what it was. Memory
/// is taken as it is needed: none before the first list.
#[derive(Debug)]
pub struct HpackEncoder {
    index: Index,
    memo: Memo,
    /// Set by `set_table_bytes_max`, announced by the next block.
    resize: Option<Resize>,
}

/// A change of the table's maximum size to be announced.
#[derive(Clone, Copy, Debug)]
struct Resize {
    /// The least maximum since the last block.
    least: usize,
    /// The one in force now.
    last: usize,
}

/// How a literal is sent, RFC 7541 section 6.2: its first byte and what is left of it for the name's index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    Indexed,
    Plain,
    Never,
}

/// What the policy says of a field.
enum Policy {
    /// Its value is worth remembering.
    Value(Key),
    /// Its value changes from call to call; an entry with its name is worth having.
    Name(Key),
    /// Neither.
    None,
}

impl Default for HpackEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl HpackEncoder {
    /// A table of at most 4096 bytes until told otherwise.
    pub const fn new() -> Self {
        Self { index: Index::new(TABLE_BYTES_MAX), memo: Memo::new(), resize: None }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE; the next block announces the change.
    pub fn set_table_bytes_max(&mut self, bytes: usize) {
        let last = bytes.min(TABLE_BYTES_MAX);
        let least = self.resize.map_or(self.index.size_max(), |r| r.least).min(last);
        let is_change = least != self.index.size_max() || last != self.index.size_max();
        self.resize = is_change.then_some(Resize { least, last });
    }

    /// Appends the block for `list` to `out`.
    #[inline]
    pub fn encode(&mut self, list: &Headers, out: &mut Vec<u8>) {
        if self.resize.is_none()
            && let Some(at) = self.memo.find_list(self.index.generation(), list)
            && let Some(slot) = self.memo.slot(at)
        {
            out.extend_from_slice(&slot.block);
            return;
        }
        self.encode_fresh(list, out);
    }

    /// Gives back the memory that only makes the next block quicker: for a connection that has gone idle.
    pub fn trim(&mut self) {
        self.memo.trim();
        self.index.trim();
    }

    /// Bytes of memory held.
    pub fn capacity_bytes(&self) -> usize {
        self.index.capacity_bytes() + self.memo.capacity_bytes()
    }

    fn encode_fresh(&mut self, list: &Headers, out: &mut Vec<u8>) {
        // Section 4.2: the least maximum first, then the one in force.
        let is_resized = self.resize.is_some();
        if let Some(Resize { least, last }) = self.resize.take() {
            for size in [least, last] {
                if size != self.index.size_max() {
                    integer::emit(size, 0x20, 0x1f, out);
                    self.index.resize(size);
                }
            }
        }
        let generation = self.index.generation();
        let from = out.len();
        let mut is_settled = true;
        for (field, name, value) in list {
            is_settled &= self.encode_field(*field, name, value, out);
        }
        if is_settled && self.index.generation() == generation && !is_resized {
            let block = out.get(from..).unwrap_or(&[]);
            let _ = self.memo.remember(generation, block, list);
        }
    }

    /// False if the field would be sent otherwise the next time.
    #[inline]
    fn encode_field(&mut self, field: Field, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
        let name_index = static_table::name_index(field.token, name);
        if field.never_indexed || is_sensitive(name_index, value) {
            self.emit_literal(Literal::Never, name_index, None, name, value, out);
            return true;
        }
        let exact = static_table::exact_index(name_index, value);
        if exact != 0 {
            out.push(0x80 | exact);
            return true;
        }
        let policy = policy(field.token, name_index, value);
        let (Policy::Value(key) | Policy::Name(key)) = policy else {
            self.emit_literal(Literal::Plain, name_index, None, name, value, out);
            return true;
        };
        if !self.index.admits(name.len(), value.len()) {
            self.emit_literal(Literal::Plain, name_index, Some(key), name, value, out);
            return true;
        }
        let (form, is_settled) = match policy {
            Policy::Value(_) => match self.index.find(key, value) {
                Found::At(at) => {
                    integer::emit(at + STATIC_COUNT + 1, 0x80, 0x7f, out);
                    return true;
                }
                Found::Repeated => (Literal::Indexed, false),
                Found::No => (Literal::Plain, false),
            },
            _ if self.index.find_name(key).is_some() => (Literal::Plain, true),
            _ => (Literal::Indexed, false),
        };
        self.emit_literal(form, name_index, Some(key), name, value, out);
        if form == Literal::Indexed
            && let Ok(name_len) = u8::try_from(name.len())
        {
            self.index.insert(key, name_len, value);
        }
        is_settled
    }

    /// Section 6.2.
    fn emit_literal(
        &self,
        form: Literal,
        name_index: u8,
        key: Option<Key>,
        name: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        let (flags, mask) = match form {
            Literal::Indexed => (0x40, 0x3f),
            Literal::Plain => (0x00, 0x0f),
            Literal::Never => (0x10, 0x0f),
        };
        if name_index != 0 {
            integer::emit(usize::from(name_index), flags, mask, out);
        } else if let Some(at) = key.and_then(|k| self.index.find_name(k)) {
            integer::emit(at + STATIC_COUNT + 1, flags, mask, out);
        } else {
            out.push(flags);
            emit_string(name, out);
        }
        emit_string(value, out);
    }
}

/// Section 5.2: in Huffman's code if that is shorter.
fn emit_string(text: &[u8], out: &mut Vec<u8>) {
    let len = huffman::encoded_len(text);
    if len < text.len() {
        integer::emit(len, 0x80, 0x7f, out);
        huffman::encode(text, out);
    } else {
        integer::emit(text.len(), 0, 0x7f, out);
        out.extend_from_slice(text);
    }
}

/// Credentials that a peer should not index either (RFC 7541 section 7.1.3).
#[inline]
fn is_sensitive(name_index: u8, value: &[u8]) -> bool {
    match name_index {
        index::AUTHORIZATION | index::PROXY_AUTHORIZATION => true,
        index::COOKIE | index::SET_COOKIE => value.len() < COOKIE_GUESSABLE_BYTES,
        _ => false,
    }
}

/// What may enter the dynamic table.
#[inline]
fn policy(token: Token, name_index: u8, value: &[u8]) -> Policy {
    match token {
        // A gRPC path has no query; what has one is not repeated, and may hold a secret.
        Token::Path if value.contains(&b'?') => Policy::None,
        Token::Path | Token::Authority | Token::UserAgent | Token::ContentType | Token::Status => {
            Policy::Value(Key(name_index))
        }
        Token::Other if name_index == index::ACCEPT_ENCODING => Policy::Value(Key(name_index)),
        Token::Te => Policy::Value(Key(Key::OTHER)),
        Token::GrpcEncoding => Policy::Value(Key(Key::OTHER + 1)),
        Token::GrpcAcceptEncoding => Policy::Value(Key(Key::OTHER + 2)),
        // The codes; anything else is no status.
        Token::GrpcStatus if value.len() <= 2 => Policy::Value(Key(Key::OTHER + 3)),
        // Some servers send it empty with every answer.
        Token::GrpcMessage if value.is_empty() => Policy::Value(Key(Key::OTHER + 4)),
        Token::GrpcTimeout => Policy::Name(Key(Key::OTHER + 5)),
        _ => Policy::None,
    }
}
