//! HPACK (RFC 7541): header blocks to header lists and back.

use alloc::vec::Vec;

use crate::Headers;

/// What a header block did wrong: COMPRESSION_ERROR, but for `TooLarge`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HpackError {
    /// Cut short.
    Truncated,
    /// An index beyond both tables, or 0.
    Index,
    /// An integer that does not fit.
    Integer,
    /// A Huffman string with a wrong padding or EOS.
    Huffman,
    /// A table size update above the limit, or not at the block's beginning.
    TableSize,
    /// The list is larger than allowed; the block was decoded to its end, so the tables still agree.
    TooLarge,
}

/// Decodes header blocks of one connection's direction.
#[derive(Debug, Default)]
pub struct HpackDecoder {}

impl HpackDecoder {
    /// `table_bytes_max`: the SETTINGS_HEADER_TABLE_SIZE we announced.
    pub fn new(table_bytes_max: usize) -> Self {
        let _ = table_bytes_max;
        unimplemented!()
    }

    /// Replaces `out` by the block's list; `list_bytes_max` bounds [`Headers::list_size`].
    pub fn decode(&mut self, block: &[u8], list_bytes_max: usize, out: &mut Headers) -> Result<(), HpackError> {
        let _ = (block, list_bytes_max, out);
        unimplemented!()
    }

    /// Bytes of memory held.
    pub fn capacity_bytes(&self) -> usize {
        unimplemented!()
    }
}

/// Encodes header lists for one connection's direction. Only a fixed list of names enters the dynamic
/// table; never-indexed fields stay so.
#[derive(Debug, Default)]
pub struct HpackEncoder {}

impl HpackEncoder {
    /// A table of at most 4096 bytes until told otherwise.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE; the next block announces the change.
    pub fn set_table_bytes_max(&mut self, bytes: usize) {
        let _ = bytes;
        unimplemented!()
    }

    /// Appends the block for `list` to `out`.
    pub fn encode(&mut self, list: &Headers, out: &mut Vec<u8>) {
        let _ = (list, out);
        unimplemented!()
    }

    /// Bytes of memory held.
    pub fn capacity_bytes(&self) -> usize {
        unimplemented!()
    }
}
