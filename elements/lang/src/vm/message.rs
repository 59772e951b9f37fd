//! Reading a message: one pass over its bytes for everything an entry's code asks of it.
//!
//! A [`Reading`] is made when a chain is compiled: a tree of the message types that can occur, with what is
//! to be done where at a field's place in the tree. The pass checks the whole message, read or not, as
//! protobuf parsers do, so that what passes here is a message to its receiver too: the last value wins,
//! messages merge, packed and unpacked lists are the same, unknown fields and values of another layout are
//! skipped, strings of proto3 are UTF-8.
//!
//! What is found goes to *slots*: words at the beginning of the call's scratch. A slot is a [`tag`] and a
//! value; a list's is a tag, a count and as many items as it may have: a message with more is refused. Texts and messages stay where they are,
//! as a [`view`], until somebody wants them.

use wire::proto::{DEPTH_MAX, Malformed, Reader, Wire};

/// Items a list may have, unless the program says how many.
pub const ITEMS_MAX: u16 = 64;

/// What the first word of a slot says.
pub mod tag {
    /// Nothing there.
    pub const ABSENT: u64 = 0;
    /// The value, or a text's or list's word.
    pub const READY: u64 = 1;
    /// A view of the message, or a list of them.
    pub const VIEW: u64 = 2;
    /// A message in several parts: an index into the pass's merged messages.
    pub const MERGED: u64 = 3;
}

/// What a value is, which says how it is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "protobuf's own names")]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    /// A text that must be UTF-8.
    String,
    /// Bytes, or a text of proto2.
    Bytes,
    Message,
    Group,
}

impl Kind {
    /// The layout of one value.
    #[inline]
    pub fn wire(self) -> Wire {
        match self {
            Self::Bool
            | Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64 => Wire::Varint,
            Self::Fixed32 | Self::Sfixed32 | Self::Float => Wire::Fixed32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => Wire::Fixed64,
            Self::String | Self::Bytes | Self::Message => Wire::Len,
            Self::Group => Wire::Group,
        }
    }

    /// Its values are words; several may stand in one field.
    #[inline]
    pub fn is_scalar(self) -> bool {
        !matches!(self, Self::String | Self::Bytes | Self::Message | Self::Group)
    }

    /// A number of this kind can be this word.
    pub(crate) fn holds(self, word: u64) -> bool {
        match self {
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => i32::try_from(word.cast_signed()).is_ok(),
            Self::Uint32 | Self::Fixed32 => u32::try_from(word).is_ok(),
            _ => true,
        }
    }

    /// A varint as a word of the language.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "numbers of 32 bits are the lower ones, as parsers read them"
    )]
    fn of_varint(self, raw: u64) -> u64 {
        let low = raw as u32;
        match self {
            Self::Bool => u64::from(raw != 0),
            Self::Int32 => i64::from(low.cast_signed()).cast_unsigned(),
            Self::Uint32 => u64::from(low),
            Self::Sint32 => i64::from((low >> 1).cast_signed() ^ -((low & 1).cast_signed())).cast_unsigned(),
            Self::Sint64 => ((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())).cast_unsigned(),
            _ => raw,
        }
    }

    /// One value that is a word.
    #[inline]
    pub fn read(self, reader: &mut Reader<'_>) -> Result<u64, Malformed> {
        Ok(match self.wire() {
            Wire::Varint => self.of_varint(reader.varint()?),
            Wire::Fixed32 => {
                let raw = reader.fixed32()?;
                match self {
                    Self::Sfixed32 => i64::from(raw.cast_signed()).cast_unsigned(),
                    Self::Float => f64::from(f32::from_bits(raw)).to_bits(),
                    _ => u64::from(raw),
                }
            }
            Wire::Fixed64 => reader.fixed64()?,
            _ => return Err(Malformed),
        })
    }
}

/// What is done with a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Another member of a oneof has come: this slot is as at first.
    Reset(u16),
    /// The slot at this word has it, whatever it had.
    Set(u32),
    /// The slot at this word has it; a message that came before is merged with it.
    Join(u32),
    /// The list at this word has one more, if it does not have so many already.
    Push(u32, u16),
    /// The entry of a map with this key is read by this node; an earlier one is forgotten.
    Entry {
        /// Which.
        key: Key,
        /// How.
        node: u16,
        /// What an earlier one left.
        slot: u16,
    },
}

/// A key of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A number or truth value of this kind.
    Word(Kind, u64),
    /// A text.
    Text(String),
}

impl Key {
    /// The entry has this key. One that is cut off has none.
    fn is_of(&self, entry: &[u8]) -> bool {
        match self {
            Self::Word(kind, word) => KeyRef::Word(*kind, *word),
            Self::Text(text) => KeyRef::Text(text.as_bytes()),
        }
        .is_of(entry)
    }
}

/// A key that is known when the call is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyRef<'k> {
    Word(Kind, u64),
    Text(&'k [u8]),
}

impl<'k> KeyRef<'k> {
    /// A key of this kind, if it is one: `word` where that is a number, else `text`.
    pub(crate) fn new(kind: Kind, word: u64, text: &'k [u8]) -> Option<Self> {
        if !kind.is_scalar() {
            return Some(Self::Text(text));
        }
        kind.holds(word).then_some(Self::Word(kind, word))
    }

    /// The entry has this key. One that is cut off has none.
    pub(crate) fn is_of(self, entry: &[u8]) -> bool {
        let mut reader = Reader::new(entry);
        let (mut word, mut text): (u64, &[u8]) = (0, &[]);
        while !reader.is_done() {
            let Ok((number, wire)) = reader.key() else { return false };
            let read = match self {
                Self::Word(kind, _) if number == 1 && kind.wire() == wire => {
                    kind.read(&mut reader).map(|value| word = value)
                }
                Self::Text(_) if number == 1 && wire == Wire::Len => {
                    reader.slice().map(|(_, value)| text = value)
                }
                _ => reader.skip(number, wire, DEPTH_MAX),
            };
            if read.is_err() {
                return false;
            }
        }
        match self {
            Self::Word(_, key) => key == word,
            Self::Text(key) => key == text,
        }
    }
}

/// A field of a message type at its place in the tree.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// What its values are.
    pub kind: Kind,
    /// It may come more than once.
    pub repeated: bool,
    /// How its messages are read.
    pub node: u16,
    /// What is done with it.
    pub acts: Vec<Act>,
}

/// A message type at its place in the tree.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// By number: the place of fields 0 to 63, from 1; 0 is none.
    pub near: Vec<u8>,
    /// By number.
    pub fields: Vec<Field>,
    /// Slots, by word, that have this default as soon as the message is there.
    pub defaults: Vec<(u32, u64)>,
}

impl Node {
    /// A node of these fields.
    pub(crate) fn new(mut fields: Vec<Field>, defaults: Vec<(u32, u64)>) -> Self {
        fields.sort_by_key(|f| f.number);
        let mut near = vec![0; 64];
        for (at, field) in fields.iter().enumerate().take(255) {
            if let (Some(slot), Ok(at)) = (near.get_mut(field.number as usize), u8::try_from(at + 1)) {
                *slot = at;
            }
        }
        Self { near, fields, defaults }
    }

    #[inline]
    fn field(&self, number: u32) -> Option<&Field> {
        match self.near.get(number as usize) {
            Some(0) => None,
            Some(at) => self.fields.get(usize::from(*at) - 1),
            None => {
                let at = self.fields.binary_search_by_key(&number, |f| f.number).ok()?;
                self.fields.get(at)
            }
        }
    }
}

/// A slot, and what it is before anything has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its first word.
    pub at: u32,
    /// A list's, with room for its items.
    pub is_list: bool,
    /// How many those may be.
    pub items_max: u16,
    /// Its texts are not known to be UTF-8.
    pub is_lossy: bool,
}

/// How one entry's messages are read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Service, method, and the node its message begins with; None where nothing is read of it. In order.
    pub roots: Vec<(String, String, Option<u16>)>,
    /// Only calls of the one root come here.
    pub is_exact: bool,
    /// A method that is not among the roots is an error; else nothing is read of it.
    pub is_strict: bool,
    /// Message types at their places.
    pub nodes: Vec<Node>,
    /// By number.
    pub slots: Vec<Slot>,
    /// Words of all slots.
    pub words: u32,
    /// The entry writes the message too, and reads it anew each time.
    pub is_written: bool,
}

impl Reading {
    /// The root of every call there is, where they are all of one method.
    #[inline]
    pub(crate) fn only_root(&self) -> Option<Option<u16>> {
        match (self.is_exact, self.roots.as_slice()) {
            (true, [(.., node)]) => Some(*node),
            _ => None,
        }
    }

    /// The root of a method: none if it is not known and should be.
    pub(crate) fn root(&self, service: &str, method: &str) -> Option<Option<u16>> {
        match self.roots.binary_search_by(|(s, m, _)| (s.as_str(), m.as_str()).cmp(&(service, method))) {
            Ok(at) => self.roots.get(at).map(|(.., node)| *node),
            Err(_) => (!self.is_strict).then_some(None),
        }
    }

    /// Puts all slots as they are before anything has come.
    pub(crate) fn clear(&self, words: &mut [u64]) {
        for slot in &self.slots {
            self.reset(words, slot);
        }
    }

    fn reset(&self, words: &mut [u64], slot: &Slot) {
        let tag = if slot.is_list { tag::READY } else { tag::ABSENT };
        put(words, slot.at, tag, 0);
    }
}

/// Where a part of a message is.
pub(crate) fn view(at: usize, len: usize) -> u64 {
    (at as u64) << 32 | (len as u64 & 0xffff_ffff)
}

/// Takes a view apart.
pub(crate) fn view_parts(view: u64) -> std::ops::Range<usize> {
    let at = usize::try_from(view >> 32).unwrap_or(0);
    at..at + usize::try_from(view & 0xffff_ffff).unwrap_or(0)
}

#[inline]
fn put(words: &mut [u64], at: u32, tag: u64, value: u64) {
    if let Some([first, second]) = words.get_mut(at as usize..).and_then(<[u64]>::first_chunk_mut) {
        *first = tag;
        *second = value;
    }
}

#[inline]
fn word(words: &[u64], at: u32) -> u64 {
    words.get(at as usize).copied().unwrap_or(0)
}

/// Most texts are ASCII, as many bytes at once are seen to be.
#[inline(never)]
fn is_utf8(bytes: &[u8]) -> bool {
    const BLOCK: usize = 64;
    let is_ascii = match bytes.len().checked_sub(BLOCK) {
        None => bytes.is_ascii(),
        // What is no whole block would be looked at byte by byte: rather some bytes twice.
        Some(last) => {
            let blocks = bytes.len() - bytes.len() % BLOCK;
            bytes.split_at(blocks).0.is_ascii() && bytes.split_at(last).1.is_ascii()
        }
    };
    is_ascii || std::str::from_utf8(bytes).is_ok()
}

/// One pass.
pub(crate) struct Scan<'a> {
    reading: &'a Reading,
    whole: &'a [u8],
    words: &'a mut [u64],
    /// Messages that came in several parts, and the word of their slot.
    pub(crate) merged: Vec<Vec<u8>>,
    /// A list had more items than it may have.
    pub(crate) is_cut: bool,
}

impl<'a> Scan<'a> {
    /// A pass over `whole`; what it finds goes to `words`.
    pub(crate) fn new(reading: &'a Reading, whole: &'a [u8], words: &'a mut [u64]) -> Self {
        Self { reading, whole, words, merged: Vec::new(), is_cut: false }
    }

    /// Reads all of it as what `root` says.
    pub(crate) fn run(&mut self, root: u16) -> Result<(), Malformed> {
        self.reading.clear(self.words);
        self.fields(root, Reader::new(self.whole), 0, DEPTH_MAX, None).map(|_| ())
    }

    /// The fields of one message. `base` is where the reader's bytes begin, `group` the number that ends
    /// it if it is a group. Returns the reader behind it: by value, so that it stays in registers.
    fn fields(
        &mut self,
        node: u16,
        mut reader: Reader<'a>,
        base: usize,
        depth: u32,
        group: Option<u32>,
    ) -> Result<Reader<'a>, Malformed> {
        let Some(node) = self.reading.nodes.get(usize::from(node)) else { return Err(Malformed) };
        for (at, value) in &node.defaults {
            if word(self.words, *at) == tag::ABSENT {
                put(self.words, *at, tag::READY, *value);
            }
        }
        while !reader.is_done() {
            let (number, wire) = reader.key()?;
            if wire == Wire::EndGroup {
                return if group == Some(number) { Ok(reader) } else { Err(Malformed) };
            }
            match node.field(number) {
                Some(field) if field.kind.wire() == wire => {
                    reader = self.field(field, reader, base, depth)?;
                }
                Some(field) if wire == Wire::Len && field.repeated && field.kind.is_scalar() => {
                    let (_, packed) = reader.slice()?;
                    self.packed(field, packed)?;
                }
                _ => reader.skip(number, wire, depth)?,
            }
        }
        if group.is_some() { Err(Malformed) } else { Ok(reader) }
    }

    /// Values in one field.
    #[inline(never)]
    fn packed(&mut self, field: &Field, values: &[u8]) -> Result<(), Malformed> {
        // Where no byte says that more follow, each is a varint; if nobody wants them, that is all.
        if field.acts.is_empty() && field.kind.wire() == Wire::Varint && values.is_ascii() {
            return Ok(());
        }
        let mut packed = Reader::new(values);
        while !packed.is_done() {
            let value = field.kind.read(&mut packed)?;
            self.act(&field.acts, value, tag::READY);
        }
        Ok(())
    }

    /// One value, in a field of its own. Returns the reader behind it.
    #[inline]
    fn field(
        &mut self,
        field: &Field,
        mut reader: Reader<'a>,
        base: usize,
        depth: u32,
    ) -> Result<Reader<'a>, Malformed> {
        match field.kind {
            Kind::String | Kind::Bytes => {
                let (at, bytes) = reader.slice()?;
                if field.kind == Kind::String && !is_utf8(bytes) {
                    return Err(Malformed);
                }
                if !field.acts.is_empty() {
                    self.act(&field.acts, view(base + at, bytes.len()), tag::VIEW);
                }
                Ok(reader)
            }
            Kind::Message => {
                let (at, bytes) = reader.slice()?;
                self.message(field, bytes, base + at, depth)?;
                Ok(reader)
            }
            Kind::Group => {
                let depth = depth.checked_sub(1).ok_or(Malformed)?;
                self.fields(field.node, reader, base, depth, Some(field.number))
            }
            _ => self.scalar(field, reader),
        }
    }

    #[inline(never)]
    fn scalar(&mut self, field: &Field, mut reader: Reader<'a>) -> Result<Reader<'a>, Malformed> {
        let value = field.kind.read(&mut reader)?;
        self.act(&field.acts, value, tag::READY);
        Ok(reader)
    }

    #[inline(never)]
    fn message(&mut self, field: &Field, bytes: &'a [u8], at: usize, depth: u32) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let mut node = field.node;
        for act in &field.acts {
            match act {
                Act::Entry { key, node: of, slot } if key.is_of(bytes) => {
                    self.reset(*slot);
                    node = *of;
                }
                _ => self.one(act, view(at, bytes.len()), tag::VIEW),
            }
        }
        self.fields(node, Reader::new(bytes), at, depth, None).map(|_| ())
    }

    #[inline]
    fn act(&mut self, acts: &[Act], value: u64, tag: u64) {
        for act in acts {
            self.one(act, value, tag);
        }
    }

    #[inline]
    fn one(&mut self, act: &Act, value: u64, mark: u64) {
        match act {
            Act::Reset(slot) => self.reset(*slot),
            Act::Set(at) => put(self.words, *at, mark, value),
            Act::Join(at) => self.join(*at, value),
            Act::Push(at, max) => {
                let count = word(self.words, at + 1);
                if count < u64::from(*max) {
                    put(self.words, *at, mark, count + 1);
                    let place = *at as usize + 2 + usize::try_from(count).unwrap_or(0);
                    if let Some(slot) = self.words.get_mut(place) {
                        *slot = value;
                    }
                } else {
                    self.is_cut = true;
                }
            }
            Act::Entry { .. } => {}
        }
    }

    /// Messages in several parts are one message: that of all their bytes, one after the other.
    fn join(&mut self, at: u32, value: u64) {
        let part = self.whole.get(view_parts(value)).unwrap_or(&[]);
        let before = word(self.words, at + 1);
        match word(self.words, at) {
            tag::VIEW => {
                let mut joined = self.whole.get(view_parts(before)).unwrap_or(&[]).to_vec();
                joined.extend_from_slice(part);
                self.merged.push(joined);
                put(self.words, at, tag::MERGED, self.merged.len() as u64 - 1);
            }
            tag::MERGED => {
                if let Some(joined) = usize::try_from(before).ok().and_then(|at| self.merged.get_mut(at)) {
                    joined.extend_from_slice(part);
                }
            }
            _ => put(self.words, at, tag::VIEW, value),
        }
    }

    fn reset(&mut self, slot: u16) {
        if let Some(slot) = self.reading.slots.get(usize::from(slot)) {
            self.reading.reset(self.words, slot);
        }
    }
}
