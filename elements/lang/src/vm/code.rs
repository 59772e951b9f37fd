//! The byte code: what one chain is for one entry, and what stands beside it.
//!
//! Every value is one 64-bit word in a register; a `T?` is two registers, presence first. Texts and lists
//! are a word that says where they are: in the chain's constants or in the scratch of the call.
//!
//! This is also what machine code is made of, instruction by instruction.
#![allow(missing_docs, reason = "instructions are documented where their name does not say it all")]

use abi::{Num, Side, Text};

use crate::state::{Bucket, Window};

use super::message::Kind;

pub use super::shared::{Code, EndpointText, LogField, LogSite, RejectSite, Segment, ServiceText, Shared};

pub use super::place::{
    ALL_ENDPOINTS, EMPTY_TEXT, HEALTHY_ENDPOINTS, Where, const_list, const_text, is_const_list, slice_parts,
    slice_word,
};

/// A register.
pub type Reg = u8;

/// Two-operand functions of words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bin {
    AddI,
    SubI,
    MulI,
    DivI,
    RemI,
    LtI,
    LeI,
    MinI,
    MaxI,
    AddU,
    SubU,
    MulU,
    DivU,
    RemU,
    LtU,
    LeU,
    MinU,
    MaxU,
    AddF,
    SubF,
    MulF,
    DivF,
    RemF,
    LtF,
    LeF,
    EqF,
    MinF,
    MaxF,
    /// Words that are the same.
    Eq,
    /// Duration by float.
    MulDF,
    DivDF,
    /// Duration by duration, a float.
    DivDD,
    /// Rate by duration, a float.
    MulRD,
    /// Instant and duration.
    AddTD,
    SubTD,
    /// Instants, a duration.
    SubTT,
}

/// One-operand functions of words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Un {
    Not,
    NegI,
    NegF,
    AbsI,
    AbsF,
    IntToFloat,
    UintToFloat,
    /// Float to int, down.
    Floor,
}

/// Two-operand functions of texts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StrBin {
    Eq,
    Lt,
    Le,
    Contains,
    StartsWith,
    EndsWith,
    InCidr,
}

/// Text to text; `b` is a number where one is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StrFn {
    Lower,
    Trim,
    Prefix,
    Mask,
    Base64,
    /// SHA-256, in hexadecimal.
    Digest,
}

impl StrFn {
    /// It needs the number.
    pub fn counts(self) -> bool {
        matches!(self, Self::Prefix | Self::Mask)
    }
}

/// How a word reads as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fmt {
    Str,
    Bool,
    Int,
    Uint,
    Float,
    Duration,
    Instant,
    Rate,
    Status,
    Endpoint,
    Service,
    Enum(u8),
    /// An enumeration of a proto, by its place in [`Shared::enums`].
    Named(u16),
}

/// Numbers of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EpNum {
    Healthy,
    Inflight,
    Latency,
    Weight,
}

/// What cells do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CellOp {
    Take,
    Reserve,
    Drain,
    /// Adds an int to a counter.
    AddInt,
    AddUint,
    Value,
    /// Adds a float to a window.
    Add,
    Count,
    Sum,
    Mean,
    Max,
    Quantile,
    Clear,
}

impl CellOp {
    /// It works with a value.
    pub fn takes(self) -> bool {
        use CellOp::{Add, AddInt, AddUint, Quantile, Reserve, Take};
        matches!(self, Take | Reserve | AddInt | AddUint | Add | Quantile)
    }

    /// It has a result.
    pub fn gives(self) -> bool {
        !matches!(self, Self::Drain | Self::AddInt | Self::AddUint | Self::Add | Self::Clear)
    }
}

/// What a cell is, with what the program says of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum CellKind {
    Bucket(Bucket),
    Counter,
    Window(Window),
}

/// Where a cell is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellPlace {
    /// From this word of the call on, so many.
    Call { word: u16, words: u16 },
    /// At this place of the chain's state.
    State(u16),
}

/// A cell.
#[derive(Clone, Copy, Debug)]
pub struct CellSite {
    pub place: CellPlace,
    pub kind: CellKind,
}

/// What makes two keys of a map the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    Text,
    Word,
    /// Its address.
    Endpoint,
    /// Its name.
    Service,
}

/// What a map keeps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ValueKind {
    Word,
    /// By the hash of its address; one that is gone is absent.
    Endpoint,
    /// By the hash of its name; one that is gone is absent.
    Service,
    Text,
    Cell(CellKind),
}

/// A map.
#[derive(Clone, Copy, Debug)]
pub struct MapSite {
    /// Its place in the chain's state.
    pub at: u16,
    pub key: KeyKind,
    pub value: ValueKind,
    /// How long an entry stays unused.
    pub ttl_ns: u64,
}

/// One instruction. `d` is where the result goes; where that is a `T?`, `d` and `d + 1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    Const {
        d: Reg,
        k: u16,
    },
    /// A small constant.
    Small {
        d: Reg,
        n: u32,
    },
    Move {
        d: Reg,
        a: Reg,
    },
    Bin {
        op: Bin,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// The same with a small constant on the right.
    BinSmall {
        op: Bin,
        d: Reg,
        a: Reg,
        n: u32,
    },
    Un {
        op: Un,
        d: Reg,
        a: Reg,
    },
    Jump {
        to: u32,
    },
    JumpIf {
        a: Reg,
        to: u32,
    },
    JumpUnless {
        a: Reg,
        to: u32,
    },

    Num {
        d: Reg,
        field: Num,
    },
    Text {
        d: Reg,
        field: Text,
    },
    Source {
        d: Reg,
    },
    PeerIp {
        d: Reg,
    },
    Deadline {
        d: Reg,
    },
    Destination {
        d: Reg,
    },
    Endpoint {
        d: Reg,
    },
    /// A header's values, joined. Keys are lower case, here and below: the builder sees to it.
    Meta {
        side: Side,
        d: Reg,
        key: Reg,
    },
    /// The list of a header's values, of which there may be `max`.
    MetaAll {
        side: Side,
        d: Reg,
        key: Reg,
        max: u16,
        is_bin: bool,
    },
    /// Whether a header reads as the text `b`, or as one of a list; an absent one does not.
    MetaIs {
        side: Side,
        d: Reg,
        key: Reg,
        b: Reg,
    },
    MetaIn {
        side: Side,
        d: Reg,
        key: Reg,
        list: Reg,
    },
    /// The same of a text field.
    TextIs {
        field: Text,
        d: Reg,
        b: Reg,
    },
    TextIn {
        field: Text,
        d: Reg,
        list: Reg,
    },
    EpNum {
        field: EpNum,
        d: Reg,
        a: Reg,
    },
    EpZone {
        d: Reg,
        a: Reg,
    },
    EpLabel {
        d: Reg,
        a: Reg,
        key: Reg,
    },

    /// What an endpoint has reported; a `T?`.
    EpReport {
        d: Reg,
        a: Reg,
        key: Reg,
    },
    /// The item of a stored list of floats below which a share `b` lies; sorts the list.
    Quantile {
        d: Reg,
        a: Reg,
        b: Reg,
    },

    /// Every endpoint of the destination.
    Endpoints {
        d: Reg,
    },
    /// The healthy ones of a list, or all if none is.
    Healthy {
        d: Reg,
        a: Reg,
    },
    /// `b` of a list, by chance.
    Sample {
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// By turns.
    Turn {
        d: Reg,
        a: Reg,
    },
    /// By key, stable under change of the list.
    Ring {
        d: Reg,
        a: Reg,
        key: Reg,
    },
    /// By key, by the destination's table.
    Maglev {
        d: Reg,
        a: Reg,
        key: Reg,
    },
    /// By weight; `key` is a `T?`.
    ByWeight {
        d: Reg,
        a: Reg,
        key: Reg,
    },
    /// Puts a value under a key into a stored map: a list of keys and values by turns.
    PutPair {
        map: Reg,
        key: Reg,
        a: Reg,
        of_texts: bool,
    },
    /// What such a map has for a key.
    FindPair {
        d: Reg,
        map: Reg,
        key: Reg,
        of_texts: bool,
    },
    /// The keys of such a map.
    Keys {
        d: Reg,
        a: Reg,
    },
    /// One of the weights of table `table`, by draw or key; `d` is its place.
    ByTable {
        d: Reg,
        key: Reg,
        table: u16,
    },
    List {
        d: Reg,
    },
    Push {
        list: Reg,
        a: Reg,
    },
    /// A list's items, each once.
    Distinct {
        d: Reg,
        a: Reg,
        of_texts: bool,
    },
    Len {
        d: Reg,
        a: Reg,
    },
    StrLen {
        d: Reg,
        a: Reg,
    },
    Nth {
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// The item at `i`, which grows; past the end jumps.
    Next {
        d: Reg,
        list: Reg,
        i: Reg,
        to: u32,
    },

    Random {
        d: Reg,
    },
    Hash {
        d: Reg,
        a: Reg,
    },
    /// The share of a hash: 0 to 1.
    Share {
        d: Reg,
        a: Reg,
    },
    StrBin {
        op: StrBin,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// Whether a text is one of a list.
    StrIn {
        d: Reg,
        a: Reg,
        list: Reg,
    },
    StrFn {
        op: StrFn,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    ParseInt {
        d: Reg,
        a: Reg,
    },
    /// The parts of a text between those that are `b`.
    Split {
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Matches {
        d: Reg,
        a: Reg,
        pattern: u16,
    },
    /// Begins, continues and ends a text.
    TextStart,
    TextPart {
        fmt: Fmt,
        a: Reg,
    },
    TextEnd {
        d: Reg,
    },

    /// The two words of an element's `node` scalars, of one moment, to `d` and `d + 1`.
    LoadScalars {
        d: Reg,
        at: u16,
    },
    /// An atomic step begins: it is tried again from behind this.
    StepStart,
    /// Ends the step: the words that were `old` and `old + 1` become `new` and `new + 1`; if they are not
    /// what they were, again from `to`.
    SwapScalars {
        old: Reg,
        new: Reg,
        at: u16,
        to: u32,
    },
    /// One byte of a word.
    Byte {
        d: Reg,
        a: Reg,
        shift: u8,
    },
    /// Puts a byte into the word `d`.
    SetByte {
        d: Reg,
        a: Reg,
        shift: u8,
    },
    /// A word of this shard's state.
    LoadState {
        d: Reg,
        at: u16,
        word: u8,
    },
    StoreState {
        a: Reg,
        at: u16,
        word: u8,
    },
    /// An operation of a cell; `a` is its value and `d` its result, where it has one.
    Cell {
        op: CellOp,
        d: Reg,
        a: Reg,
        site: u16,
    },
    /// The same of the cell a map has for this key.
    MapCell {
        op: CellOp,
        d: Reg,
        a: Reg,
        key: Reg,
        site: u16,
    },
    MapGet {
        d: Reg,
        key: Reg,
        site: u16,
    },
    /// `a` is a `T?`: absent removes.
    MapSet {
        key: Reg,
        a: Reg,
        site: u16,
    },
    /// Changes a map's value by `op`, in one step; one that is absent is 0 before.
    MapChange {
        op: Bin,
        key: Reg,
        a: Reg,
        site: u16,
    },

    LoadWord {
        d: Reg,
        word: u16,
    },
    StoreWord {
        a: Reg,
        word: u16,
    },
    /// What texts there are stay for the whole passage.
    Keep,
    /// A list as bytes, which can be kept, and back.
    PackList {
        d: Reg,
        a: Reg,
    },
    UnpackList {
        d: Reg,
        a: Reg,
    },
    /// A list of the request for `response`, as [`Op::KeepSlot`] keeps other fields.
    KeepList {
        word: u16,
        a: Reg,
    },
    /// A text of `state call`, in words of the call from this one on.
    LoadText {
        d: Reg,
        word: u16,
    },
    StoreText {
        a: Reg,
        word: u16,
    },

    /// Reads the message at hand as reading `site` says; what cannot be read ends the call.
    Decode {
        site: u16,
    },
    /// What it has found for a slot.
    Slot {
        d: Reg,
        site: u16,
        slot: u16,
    },
    /// The same of a list, which may be empty and is never absent.
    SlotList {
        d: Reg,
        site: u16,
        slot: u16,
    },
    /// A field of the message that `a` is.
    Inside {
        d: Reg,
        a: Reg,
        site: u16,
    },
    /// The same of a list.
    InsideList {
        d: Reg,
        a: Reg,
        site: u16,
    },
    /// One more message has come: its draws are its own.
    CountMessage {
        word: u16,
    },
    /// The message at hand, whole.
    Payload {
        d: Reg,
    },
    /// A message is made, field by field: begins.
    MessageStart,
    /// A field of it; `a` is a list, or else a `T?`.
    MessageField {
        a: Reg,
        site: u16,
    },
    /// An entry of a map of it.
    MessageEntry {
        key: Reg,
        a: Reg,
        site: u16,
    },
    MessageEnd {
        d: Reg,
    },
    /// Writes a field of the message at hand; `a` is a `T?`, and nothing takes the field away. The registers
    /// from `picks` on say which items and entries are meant on the way.
    SetField {
        site: u16,
        a: Reg,
        picks: Reg,
        count: u8,
    },
    /// The last of a list of a map's entries that has this key; a `T?`.
    FindEntry {
        d: Reg,
        list: Reg,
        key: Reg,
        kind: Kind,
    },
    /// Writes the message at hand, and reads it anew as reading `site` says, if there is one.
    SetPayload {
        a: Reg,
        site: Option<u16>,
    },
    /// The first value of a header that holds bytes.
    MetaBin {
        side: Side,
        d: Reg,
        key: Reg,
    },
    /// Keeps a slot for `response` in two words of the call.
    KeepSlot {
        site: u16,
        slot: u16,
        word: u16,
        is_text: bool,
    },

    /// Draws of `element` begin anew.
    Begin {
        element: u32,
    },
    Passed {
        elements: u16,
    },
    /// Jumps if this element has not let the request through.
    UnlessPassed {
        element: u16,
        to: u32,
    },
    Mark {
        element: u16,
    },
    Reject {
        status: Reg,
        text: Reg,
        site: u16,
    },
    /// A reject that only says so.
    Would {
        site: u16,
    },
    Delay {
        a: Reg,
        segment: u16,
    },
    AccessLog {
        sink: u16,
    },
    Compress {
        encoding: abi::Encoding,
        min: Reg,
    },
    Decompress,
    Log {
        site: u16,
    },
    Count {
        metric: u16,
        a: Reg,
    },
    /// With labels, which are written like the values of a `log`.
    CountLabels {
        metric: u16,
        a: Reg,
        site: u16,
    },
    Observe {
        metric: u16,
        a: Reg,
    },
    SetMeta {
        side: Side,
        key: Reg,
        a: Reg,
    },
    SetEndpoint {
        a: Reg,
    },
    SetDestination {
        a: Reg,
    },
    SetDeadline {
        a: Reg,
    },
    /// `text` is a `T?`.
    SetStatus {
        status: Reg,
        text: Reg,
    },
    SetFlag {
        site: u16,
    },
    End,
}
