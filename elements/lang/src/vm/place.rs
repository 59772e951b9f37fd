//! The words of texts and lists: where they are, in 64 bits.

/// Bit 63 of a text or list: it is in the constants.
const IN_CONSTS: u64 = 1 << 63;
/// Bits of a list that is not stored: every endpoint, the healthy ones.
const VIRTUAL: u64 = 1 << 62;

/// The word of a text or list: `len` items from `at`.
pub fn slice_word(at: usize, len: usize, in_consts: bool) -> u64 {
    let flag = if in_consts { IN_CONSTS } else { 0 };
    flag | ((at as u64 & 0x3fff_ffff) << 32) | (len as u64 & 0xffff_ffff)
}

/// The word of a constant text: its place among [`super::code::Shared::texts`], and how many bytes it has.
pub fn const_text(at: usize, len: usize) -> u64 {
    slice_word(at, len, true)
}

/// The word of the empty text.
pub const EMPTY_TEXT: u64 = IN_CONSTS | 0x3fff_ffff << 32;

/// The word of a constant list: its place among [`super::code::Shared::lists`], and how many items it has.
pub fn const_list(at: usize, len: usize) -> u64 {
    slice_word(at, len, true) | VIRTUAL
}

/// A constant list's word, as against a constant text's.
pub fn is_const_list(word: u64) -> bool {
    word & IN_CONSTS != 0 && word & VIRTUAL != 0
}

/// The word of the list of every endpoint.
pub const ALL_ENDPOINTS: u64 = VIRTUAL;
/// The word of the list of every healthy endpoint, of which there is one.
pub const HEALTHY_ENDPOINTS: u64 = VIRTUAL | 1;

/// Where a text or list is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Among the chain's constants.
    Consts,
    /// In the call's own memory.
    Scratch,
    /// Not stored: every endpoint of the destination.
    AllEndpoints,
    /// Not stored: the healthy ones.
    HealthyEndpoints,
}

/// How many items, or bytes, a text or stored list has.
#[inline]
pub(super) fn slice_len(word: u64) -> usize {
    usize::try_from(word & 0xffff_ffff).unwrap_or(0)
}

/// True if every text or list of these words, joined by `&`, is constant.
#[inline]
pub(super) fn is_constant(words: u64) -> bool {
    words & IN_CONSTS != 0
}

/// Which of the constant texts or lists a word is.
#[inline]
pub(super) fn constant_place(word: u64) -> usize {
    usize::try_from((word >> 32) & 0x3fff_ffff).unwrap_or(0)
}

/// Where the items of a stored list or the bytes of a text are: among the constants, where texts and lists
/// are numbered, if `true` comes with it; else in the call's memory.
#[inline]
pub(super) fn slice_range(word: u64) -> (bool, std::ops::Range<usize>) {
    let at = constant_place(word);
    (is_constant(word), at..at + slice_len(word))
}

/// Takes a text's or list's word apart: where, from which item, how many.
#[inline]
pub fn slice_parts(word: u64) -> (Where, usize, usize) {
    let at = usize::try_from((word >> 32) & 0x3fff_ffff).unwrap_or(0);
    let len = slice_len(word);
    let place = match (word & IN_CONSTS != 0, word & VIRTUAL != 0) {
        (true, _) => Where::Consts,
        (false, false) => Where::Scratch,
        (false, true) if len == 0 => Where::AllEndpoints,
        (false, true) => Where::HealthyEndpoints,
    };
    (place, at, len)
}
