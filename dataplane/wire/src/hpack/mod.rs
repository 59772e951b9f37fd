//! HPACK (RFC 7541): header blocks to header lists and back.
//!
//! One [`HpackDecoder`] and one [`HpackEncoder`] per connection, each with its own dynamic table. Both
//! remember the last few blocks (`memo`), since the next call's block is mostly an earlier one.
//!
//! Not here: what a list means and whether it is valid (RFC 9113 section 8), frames and CONTINUATION.
//! Invariants: memory is bounded by what the constructor was told and the constants beside each bound;
//! nothing is allocated before it is needed; no input panics.

mod decode;
mod encode;
mod huffman;
mod index;
mod integer;
mod memo;
mod static_table;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use decode::HpackDecoder;
pub use encode::HpackEncoder;

/// SETTINGS_HEADER_TABLE_SIZE before anybody says otherwise (RFC 9113 section 6.5.2), bytes.
const TABLE_BYTES_DEFAULT: usize = 4096;

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
    /// A table size update above the limit, missing, or not at the block's beginning.
    TableSize,
    /// The list is larger than allowed; the block was decoded to its end, so the tables still agree.
    TooLarge,
    /// A list larger than allowed that asks for more copying than its block can be worth.
    Work,
}
