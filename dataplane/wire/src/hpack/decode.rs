//! Header blocks to header lists, RFC 7541 sections 3, 4.2 and 6.

use alloc::vec::Vec;

use super::memo::Memo;
use super::static_table::{self, STATIC_COUNT};
use super::table::{ENTRY_OVERHEAD, Found, Table};
use super::{HpackError, TABLE_BYTES_DEFAULT, huffman, integer};
use crate::{Headers, Token};

/// How many bytes of names the fields beyond an over-long list's limit may copy within the table. Two bytes
/// of a block can ask for a copy of the longest name there: without a bound, a block of 64 KiB could ask for
/// a hundred megabytes of them.
const EXCESS_COPY_BYTES_MAX: usize = 256 * 1024;

/// A table no peer may ask to exceed, whatever was announced, bytes.
const TABLE_BYTES_CEILING: usize = 1 << 24;

/// Decodes header blocks of one connection's direction.
///
/// A block that equals one of the last few is not decoded again as long as the table is what it was: its
/// list is copied. Memory is taken as it is needed: none before the first field that enters the table.
#[derive(Debug)]
pub struct HpackDecoder {
    table: Table,
    memo: Memo,
    /// The memo's slot of the last block.
    last: Option<usize>,
    /// What a size update may ask for.
    limit: usize,
    /// The least `limit` since the last block: a table that is larger must shrink to it first.
    limit_least: usize,
}

impl Default for HpackDecoder {
    fn default() -> Self {
        Self::new(TABLE_BYTES_DEFAULT)
    }
}

impl HpackDecoder {
    /// `table_bytes_max`: the SETTINGS_HEADER_TABLE_SIZE we announced. Until the peer has acknowledged it
    /// ([`HpackDecoder::set_table_bytes_max`]) it may also use the protocol's initial 4096 bytes.
    pub const fn new(table_bytes_max: usize) -> Self {
        let limit = if table_bytes_max < TABLE_BYTES_DEFAULT {
            TABLE_BYTES_DEFAULT
        } else if table_bytes_max > TABLE_BYTES_CEILING {
            TABLE_BYTES_CEILING
        } else {
            table_bytes_max
        };
        Self {
            table: Table::new(TABLE_BYTES_DEFAULT),
            memo: Memo::new(),
            last: None,
            limit,
            limit_least: usize::MAX,
        }
    }

    /// The peer has acknowledged this SETTINGS_HEADER_TABLE_SIZE. If its table is larger, its next block
    /// must begin with a size update (section 4.2).
    pub fn set_table_bytes_max(&mut self, table_bytes_max: usize) {
        self.limit = table_bytes_max.min(TABLE_BYTES_CEILING);
        self.limit_least = self.limit_least.min(self.limit);
        // The next block must be looked at, even if it is one we remember.
        self.table.touch();
    }

    /// Replaces `out` by the block's list; `list_bytes_max` bounds [`Headers::list_size`]. After an error
    /// `out` is empty.
    ///
    /// # Errors
    /// [`HpackError::TooLarge`] leaves the decoder usable: the block was decoded to its end and the tables
    /// still agree. After any other, they do not: the connection is over.
    #[inline]
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        out: &mut Headers,
    ) -> Result<(), HpackError> {
        self.last = self.memo.find_block(self.table.generation(), block);
        if let Some(slot) = self.last.and_then(|at| self.memo.slot(at)) {
            if slot.list.list_size() <= list_bytes_max {
                out.copy_from(&slot.list);
                return Ok(());
            }
            self.last = None;
        }
        out.clear();
        self.decode_fresh(block, list_bytes_max, out).inspect_err(|_| out.clear())
    }

    /// What [`HpackDecoder::set_note`] said of the last block when it was decoded first; 0 if it is fresh.
    #[inline]
    pub fn note(&self) -> u8 {
        self.last.and_then(|at| self.memo.slot(at)).map_or(0, |slot| slot.note)
    }

    /// Notes something of the last block's list, for the next time the same block comes: that it is valid,
    /// say. Forgotten with the block.
    pub fn set_note(&mut self, note: u8) {
        if let Some(slot) = self.last.and_then(|at| self.memo.slot_mut(at)) {
            slot.note = note;
        }
    }

    /// Gives back the memory that only makes the next block quicker: for a connection that has gone idle.
    pub fn trim(&mut self) {
        self.memo.trim();
        self.last = None;
        self.table.trim();
    }

    /// Bytes of memory held.
    pub fn capacity_bytes(&self) -> usize {
        self.table.capacity_bytes() + self.memo.capacity_bytes()
    }

    fn decode_fresh(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        out: &mut Headers,
    ) -> Result<(), HpackError> {
        let generation = self.table.generation();
        let mut input = block;
        self.decode_size_updates(&mut input)?;
        let mut list = List { out, room: list_bytes_max, is_over: false, excess: EXCESS_COPY_BYTES_MAX };
        while let Some((&first, rest)) = input.split_first() {
            input = rest;
            match first {
                0x80.. => {
                    let index = integer::parse(first, 0x7f, &mut input)?;
                    list.push_indexed(field(&self.table, index)?);
                }
                0x40.. => self.decode_literal::<true>(first, 0x3f, &mut input, &mut list)?,
                0x20.. => return Err(HpackError::TableSize),
                _ => self.decode_literal::<false>(first, 0x0f, &mut input, &mut list)?,
            }
        }
        if list.is_over {
            return Err(HpackError::TooLarge);
        }
        if self.table.generation() == generation {
            self.last = self.memo.remember(generation, block, out);
        }
        Ok(())
    }

    /// Section 4.2: only at a block's beginning, and if our limit went below the table's size, at least one,
    /// the first to the least limit.
    fn decode_size_updates(&mut self, input: &mut &[u8]) -> Result<(), HpackError> {
        while let Some((&first, rest)) = input.split_first()
            && first & 0xe0 == 0x20
        {
            *input = rest;
            let size = integer::parse(first, 0x1f, input)? as usize;
            if size > self.limit {
                return Err(HpackError::TableSize);
            }
            if size <= self.limit_least {
                self.limit_least = usize::MAX;
            }
            self.table.resize(size);
        }
        if self.table.size_max() > self.limit_least {
            return Err(HpackError::TableSize);
        }
        self.limit_least = usize::MAX;
        Ok(())
    }

    /// Section 6.2. `INDEXES`: with incremental indexing.
    #[inline]
    fn decode_literal<const INDEXES: bool>(
        &mut self,
        first: u8,
        mask: u8,
        input: &mut &[u8],
        list: &mut List<'_>,
    ) -> Result<(), HpackError> {
        let name_index = integer::parse(first, mask, input)?;
        // What neither the list nor the table has room for is decoded, and not kept.
        let table_room = if INDEXES { self.table.size_max().saturating_sub(ENTRY_OVERHEAD) } else { 0 };
        let keep = list.room_for_bytes().max(table_room);
        let at = list.out.bytes_len();
        let buf = list.out.buf_mut();
        let (token, name_len) = if name_index == 0 {
            let name_len = parse_string(input, keep, buf)?;
            (Token::of(buf.get(at..).unwrap_or(&[])), name_len)
        } else {
            let (token, joined, name_len) = field(&self.table, name_index)?;
            if list.is_over && INDEXES {
                list.excess = list.excess.checked_sub(name_len).ok_or(HpackError::Work)?;
            }
            buf.extend_from_slice(joined.get(..name_len.min(keep)).unwrap_or(&[]));
            (token, name_len)
        };
        let value_len = parse_string(input, keep.saturating_sub(name_len), buf)?;
        let len = name_len + value_len;
        if INDEXES {
            if len > table_room {
                self.table.clear();
            } else {
                self.table.insert(token, buf.get(at..).unwrap_or(&[]), name_len);
            }
        }
        list.push_literal(token, at, name_len, value_len, first & 0xf0 == 0x10);
        Ok(())
    }
}

/// The list being built, and how much more it may hold.
struct List<'a> {
    out: &'a mut Headers,
    /// What is left of the limit, bytes of [`Headers::list_size`].
    room: usize,
    /// The limit was passed: nothing is kept any more.
    is_over: bool,
    /// What is left of [`EXCESS_COPY_BYTES_MAX`].
    excess: usize,
}

impl List<'_> {
    /// The longest name and value that fit.
    fn room_for_bytes(&self) -> usize {
        self.room.saturating_sub(ENTRY_OVERHEAD)
    }

    /// True if a field of this length fits; then its room is taken.
    #[inline]
    fn take_room(&mut self, len: usize) -> bool {
        match self.room.checked_sub(len + ENTRY_OVERHEAD) {
            Some(left) if !self.is_over => {
                self.room = left;
                true
            }
            _ => {
                self.room = 0;
                self.is_over = true;
                self.out.clear();
                false
            }
        }
    }

    #[inline]
    fn push_indexed(&mut self, (token, joined, name_len): Found<'_>) {
        if self.take_room(joined.len()) {
            self.out.push_joined(token, joined, name_len);
        }
    }

    /// The literal whose bytes are the buffer's from `at`.
    #[inline]
    fn push_literal(&mut self, token: Token, at: usize, name_len: usize, value_len: usize, is_never: bool) {
        if self.take_room(name_len + value_len) {
            self.out.push_stored(token, at, name_len, value_len, is_never);
        }
    }
}

/// Section 2.3.3: the static table first, then the dynamic one. Index 0 is none (section 6.1).
#[inline]
fn field(table: &Table, index: u32) -> Result<Found<'_>, HpackError> {
    let index = index as usize;
    match static_table::field(index) {
        Some(field) => Ok((field.token, field.joined, field.name_len)),
        None => table.field(index.wrapping_sub(STATIC_COUNT + 1)).ok_or(HpackError::Index),
    }
}

/// Section 5.2. Appends at most `keep` bytes to `buf` and gives the whole length.
#[inline]
fn parse_string(input: &mut &[u8], keep: usize, buf: &mut Vec<u8>) -> Result<usize, HpackError> {
    let (&first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let len = integer::parse(first, 0x7f, &mut rest)? as usize;
    let (text, rest) = rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
    *input = rest;
    if first & 0x80 != 0 {
        return huffman::decode(text, keep, buf);
    }
    buf.extend_from_slice(text.get(..len.min(keep)).unwrap_or(&[]));
    Ok(len)
}
