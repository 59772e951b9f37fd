//! The checked tree: every name resolved, every expression typed. Parameters are still open; the byte code
//! of a chain is made from it once per link, with that link's arguments in their place.

use std::rc::Rc;

use abi::{Num, Side, Text};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::ast::{HandlerKind, Scope};
use crate::schema::{Direction, Method};
use crate::source::Span;
use crate::state::Full;
use crate::ty::Ty;
use crate::vm::code::CellOp;

/// A value known when compiling. Its type stands beside it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Const {
    /// A scalar: integers as they are, floats by their bits, enums by number.
    Word(u64),
    Str(Rc<str>),
    List(Vec<Const>),
    Map(Vec<(Const, Const)>),
    None,
}

/// A typed expression.
#[derive(Clone, Debug)]
pub(crate) struct HExpr {
    pub(crate) kind: HKind,
    pub(crate) ty: Ty,
    pub(crate) span: Span,
}

/// A local of one handler.
pub(crate) type LocalId = u16;

/// What a typed expression is.
#[derive(Clone, Debug)]
pub(crate) enum HKind {
    /// Already complained about.
    Error,
    Const(Const),
    Local(LocalId),
    Param(u16),
    CallParam(u16),
    State(u16),
    /// What a map of state has for a key; its type is `V?`, or the cell.
    MapAt {
        map: u16,
        key: Box<HExpr>,
    },
    /// An operation of a cell, which is a state or what a map has.
    Cell {
        of: Box<HExpr>,
        op: CellOp,
        arg: Option<Box<HExpr>>,
    },
    Num(Num),
    Text(Text),
    Source,
    PeerIp,
    Deadline,
    Destination,
    Endpoint,
    Endpoints,
    Flag,
    /// A part of `call` that is no value by itself.
    Place,
    /// A field of a message.
    Payload(Box<Path>),
    /// The bytes of the message at hand.
    WholePayload,
    /// A message made here.
    Made(Vec<(FieldDescriptor, Made)>),
    /// A map of a message, to be written: its field's number, the type of its entries, and they.
    Entries(u32, MessageDescriptor, Pairs),
    Meta {
        side: Side,
        key: Box<HExpr>,
    },
    MetaAll {
        side: Side,
        key: Box<HExpr>,
        /// How many there may be.
        max: u16,
        /// They are bytes.
        is_bin: bool,
    },
    /// The bytes of a header whose name ends in `-bin`.
    MetaBin {
        side: Side,
        key: Box<HExpr>,
    },
    EndpointField(EndpointField, Box<HExpr>),
    EndpointLabel(Box<HExpr>, Box<HExpr>),
    EndpointReport(Box<HExpr>, Box<HExpr>),
    /// Integer to float.
    Widen(Box<HExpr>),
    /// `T` to `T?`.
    Wrap(Box<HExpr>),
    Not(Box<HExpr>),
    Neg(Box<HExpr>),
    Bin(HBin, Box<HExpr>, Box<HExpr>),
    And(Box<HExpr>, Box<HExpr>),
    Or(Box<HExpr>, Box<HExpr>),
    /// `==` or, negated, `!=`; the type is that of the left side, and both may be absent.
    Equal {
        left: Box<HExpr>,
        right: Box<HExpr>,
        negate: bool,
    },
    Coalesce(Box<HExpr>, Box<HExpr>),
    In(Box<HExpr>, Box<HExpr>),
    If {
        cond: Box<HExpr>,
        then: HBlock,
        or_else: HBlock,
    },
    Match {
        of: Box<HExpr>,
        arms: Vec<HArm>,
    },
    List(Vec<HExpr>),
    Map(Vec<(HExpr, HExpr)>),
    Index(Box<HExpr>, Box<HExpr>),
    Interp(Vec<HExpr>),
    Call(Func, Vec<HExpr>),
    /// The value of the item of a rank, a share of all.
    Quantile {
        list: Box<HExpr>,
        q: Box<HExpr>,
        param: LocalId,
        body: Box<HExpr>,
    },
    Each {
        what: Each,
        list: Box<HExpr>,
        param: LocalId,
        body: Box<HExpr>,
    },
    Effect(Effect),
}

/// A field of a message made here.
#[derive(Clone, Debug)]
pub(crate) enum Made {
    /// Of a list, or a `T?`.
    Value(HExpr),
    /// Of a map.
    Entries(Pairs),
}

/// What a map of a message gets.
#[derive(Clone, Debug)]
pub(crate) enum Pairs {
    /// What is written there.
    Listed(Vec<(HExpr, HExpr)>),
    /// A map that is a value.
    Of(Box<HExpr>),
}

/// A way into a message, in every method of the chain.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) root: Root,
    /// It means the one message of a unary side.
    pub(crate) needs_unary: bool,
    /// `payload?.x`: absent in methods that do not have it.
    pub(crate) is_lenient: bool,
    /// Names of fields.
    pub(crate) steps: Vec<Rc<str>>,
    /// Of the map that the last field is.
    pub(crate) key: Option<HExpr>,
    /// Where it leads, by method; no method where the root is a value.
    pub(crate) ends: Vec<(Option<Rc<Method>>, End)>,
    pub(crate) is_optional: bool,
    /// How many items the list at its end may have.
    pub(crate) items_max: u16,
}

/// A place within the message at hand.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// From the message on, up to the first list or map of which one is picked.
    pub(crate) path: Path,
    /// What follows.
    pub(crate) legs: Vec<Leg>,
}

/// A step behind a list or map.
#[derive(Clone, Debug)]
pub(crate) enum Leg {
    /// A field of what was picked.
    Field(Rc<str>),
    /// The item at this place of a list, or the entry of a map with this key.
    Pick(HExpr),
}

/// Where a path begins.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// The message at hand.
    Call(Direction),
    /// The request's, in `response`.
    Kept,
    /// A message that an expression is.
    Value(Box<HExpr>),
}

/// Where a path leads in one method.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Nowhere.
    Nothing,
    Message(MessageDescriptor),
    /// A scalar, a text, a list or a map.
    Field(FieldDescriptor),
}

impl Written {
    /// What it picks on the way.
    pub(crate) fn picks(&self) -> impl Iterator<Item = &HExpr> {
        self.legs.iter().filter_map(|leg| match leg {
            Leg::Pick(pick) => Some(pick),
            Leg::Field(_) => None,
        })
    }
}

impl Path {
    /// The map at its end: its number, which is the same in all methods, and the type of its entries.
    pub(crate) fn map_entry(&self) -> Option<(u32, MessageDescriptor)> {
        let mut maps = self.maps();
        let first = maps.next()?;
        maps.all(|other| other.0 == first.0).then_some(first)
    }

    /// The map at its end in each method: its number and the type of its entries.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (u32, MessageDescriptor)> {
        self.ends.iter().filter_map(|(_, end)| match end {
            End::Field(field) if field.is_map() => Some((field.number(), field.kind().as_message()?.clone())),
            _ => None,
        })
    }

    /// What tells it from every other of its root.
    pub(crate) fn name(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("{:?}", key.kind)).unwrap_or_default();
        format!("{}[{key}]", self.text())
    }

    /// As it is written.
    pub(crate) fn text(&self) -> String {
        let mut text = match self.root {
            Root::Call(_) => "call.payload",
            Root::Kept => "call.request.payload",
            Root::Value(_) => "",
        }
        .to_owned();
        for (at, step) in self.steps.iter().enumerate() {
            text.push_str(if at == 0 && self.is_lenient { "?." } else { "." });
            text.push_str(step);
        }
        text
    }
}

/// Fields of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndpointField {
    Healthy,
    Inflight,
    Latency,
    Weight,
    Zone,
}

/// Arithmetic and order; operands have one type, named in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HBin {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Functions over a list with a lambda.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Each {
    Least,
    Filter,
    Any,
    All,
}

/// Functions of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Func {
    Now,
    Random,
    Chance,
    Hash,
    Min,
    Max,
    Abs,
    Clamp,
    Floor,
    Len,
    Lower,
    Trim,
    Prefix,
    Contains,
    StartsWith,
    EndsWith,
    ParseInt,
    /// The status of a number.
    Status,
    Split,
    Matches,
    Mask,
    InCidr,
    Base64,
    Sample,
    Ring,
    Maglev,
    Healthy,
    Next,
    WeightedEndpoint,
    WeightedMap,
    PerSecond,
    /// SHA-256 in hexadecimal.
    Digest,
    /// A list's items, each once.
    Distinct,
    /// The keys of a map.
    Keys,
}

/// What a handler does to the world.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Reject {
        status: Box<HExpr>,
        text: Box<HExpr>,
    },
    Delay(Box<HExpr>),
    Log {
        level: Box<HExpr>,
        fields: Vec<(String, HExpr)>,
    },
    Count {
        name: String,
        by: Box<HExpr>,
        labels: Vec<(String, HExpr)>,
    },
    Observe {
        name: String,
        value: Box<HExpr>,
    },
    AccessLog(Box<HExpr>),
    Compress {
        encoding: Box<HExpr>,
        min: Box<HExpr>,
    },
    Decompress,
    /// `encrypt(key)`, `decrypt(key)`: nothing at run time; they become the plan's boundaries.
    Boundary {
        opens: bool,
        key: Box<HExpr>,
    },
}

/// `encrypt` or `decrypt`.
pub(crate) const fn boundary_name(opens: bool) -> &'static str {
    if opens { "decrypt" } else { "encrypt" }
}

/// A checked block; its value is that of its last expression.
#[derive(Clone, Debug, Default)]
pub(crate) struct HBlock {
    pub(crate) stmts: Vec<HStmt>,
    pub(crate) value: Option<Box<HExpr>>,
    /// Its end is never reached.
    pub(crate) diverges: bool,
}

/// A checked statement.
#[derive(Clone, Debug)]
pub(crate) enum HStmt {
    Let(LocalId, HExpr),
    LetElse(LocalId, HExpr, HBlock),
    Assign(HPlace, HExpr),
    For { local: LocalId, list: HExpr, body: HBlock },
    Return,
    Expr(HExpr),
}

/// What may be assigned.
#[derive(Clone, Debug)]
pub(crate) enum HPlace {
    Local(LocalId),
    State(u16),
    Map {
        map: u16,
        key: HExpr,
    },
    /// The value a map has is changed by an operator on values of this type.
    MapBy {
        map: u16,
        key: HExpr,
        op: HBin,
        ty: Ty,
    },
    Meta {
        side: Side,
        key: HExpr,
    },
    Endpoint,
    Destination,
    Deadline,
    Status,
    Message,
    /// A field of the message at hand, an item or an entry within it, and its type.
    Payload(Box<Written>, Ty),
    /// The message at hand.
    WholePayload,
}

/// An arm of a match.
#[derive(Clone, Debug)]
pub(crate) struct HArm {
    pub(crate) pattern: HPattern,
    pub(crate) body: HBlock,
}

/// A checked pattern.
#[derive(Clone, Debug)]
pub(crate) enum HPattern {
    Some(LocalId),
    None,
    Any,
    Value(HExpr),
}

/// A checked element.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) is_std: bool,
    pub(crate) params: Vec<Param>,
    pub(crate) states: Vec<State>,
    pub(crate) handlers: Vec<Handler>,
    /// Something in it is wrong: chains with it are not compiled.
    pub(crate) broken: bool,
    /// What it means depends on the methods of its chain.
    pub(crate) uses_payload: bool,
}

/// A checked parameter.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) ty: Ty,
    pub(crate) is_call: bool,
    /// A `set`: its items are different.
    pub(crate) is_set: bool,
    pub(crate) default: Option<HExpr>,
    /// `random()` is held against it: 0 to 1.
    pub(crate) is_share: bool,
}

/// A checked state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) ty: Ty,
    pub(crate) init: Init,
    /// Of a map.
    pub(crate) options: MapOptions,
    pub(crate) span: Span,
}

impl State {
    /// The first value, of what has one.
    pub(crate) fn value(&self) -> Option<&HExpr> {
        match &self.init {
            Init::Value(value) => Some(value),
            Init::Map(_) | Init::Cell(_) => None,
        }
    }

    /// A value that all shards read and change.
    pub(crate) fn is_node_scalar(&self) -> bool {
        self.scope == Scope::Node && matches!(self.init, Init::Value(_))
    }
}

/// How state begins.
#[derive(Clone, Debug)]
pub(crate) enum Init {
    /// With this value.
    Value(HExpr),
    /// As a map without entries; of a map of cells, each begins so.
    Map(Option<CellInit>),
    Cell(CellInit),
}

/// What a cell is made with.
#[derive(Clone, Debug)]
pub(crate) enum CellInit {
    Counter,
    Bucket {
        rate: HExpr,
        /// The rate's number a second, unless written.
        burst: Option<HExpr>,
    },
    Window {
        over: HExpr,
    },
}

/// The options of a map.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapOptions {
    pub(crate) max: Option<HExpr>,
    /// `max` is a size in bytes.
    pub(crate) is_bytes: bool,
    pub(crate) full: Option<Full>,
    pub(crate) ttl: Option<HExpr>,
}

/// A checked handler.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) kind: HandlerKind,
    pub(crate) body: HBlock,
}
