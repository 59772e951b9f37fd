//! Types, and the tables of names that come with them.

use std::fmt;

use prost_reflect::{EnumDescriptor, MessageDescriptor};

/// A type of the language.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ty {
    /// Something is wrong and has been told: agrees with everything.
    Error,
    /// An expression that never has a value: `reject(…)`.
    Never,
    Unit,
    Bool,
    Int,
    Uint,
    /// An integer literal, until its neighbours say what it is.
    Num,
    Float,
    Str,
    Bytes,
    Duration,
    Instant,
    Rate,
    Status,
    Endpoint,
    Service,
    Enum(EnumId),
    /// An enumeration of a proto. Its numbers are open: others may come.
    ProtoEnum(EnumDescriptor),
    /// A message of a proto.
    Message(MessageDescriptor),
    /// A message whose type is another in each method, or, of a parameter, in each link.
    AnyMessage,
    /// `call.payload`, until a field of it is named.
    Payload,
    List(Box<Ty>),
    Map(Box<Ty>, Box<Ty>),
    Opt(Box<Ty>),
    Cell(Cell),
    /// `None` before it is known of what.
    NoneLit,
    /// `call`.
    Call,
    /// `call.peer`.
    Peer,
    /// `call.request` in `response`.
    CallRequest,
    /// `call.metadata` and its like.
    Headers(HeaderSide),
}

/// What `metadata` means where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderSide {
    Request,
    /// Another handler's: may be read, not written.
    KeptRequest,
    Response,
    Trailers,
}

impl HeaderSide {
    /// The list of the call it is.
    pub(crate) fn side(self) -> abi::Side {
        match self {
            Self::Request | Self::KeptRequest => abi::Side::Request,
            Self::Response => abi::Side::Response,
            Self::Trailers => abi::Side::Trailers,
        }
    }
}

/// State that is operated on, not assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cell {
    Counter,
    Bucket,
    Window,
}

/// One of [`ENUMS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EnumId(pub(crate) u8);

/// An enumeration of the language itself.
#[derive(Debug)]
pub(crate) struct EnumDef {
    pub(crate) name: &'static str,
    pub(crate) variants: &'static [&'static str],
}

/// Every enumeration; a variant's number is its place.
pub(crate) const ENUMS: [EnumDef; 3] = [
    EnumDef {
        name: "Policy",
        variants: &["p2c", "round_robin", "least_request", "random", "ring_hash", "maglev", "weighted"],
    },
    EnumDef { name: "Encoding", variants: &["gzip", "deflate", "zstd"] },
    EnumDef { name: "Level", variants: &["debug", "info", "warn", "error"] },
];

/// `Encoding`.
pub(crate) const ENCODING: EnumId = EnumId(1);
/// `Level`.
pub(crate) const LEVEL: EnumId = EnumId(2);

impl EnumId {
    /// Its definition.
    pub(crate) fn def(self) -> &'static EnumDef {
        ENUMS.get(usize::from(self.0)).unwrap_or(&ENUMS[0])
    }
}

impl Ty {
    /// `T?`; absent twice is absent once.
    pub(crate) fn opt(self) -> Self {
        match self {
            Self::Opt(_) | Self::Error => self,
            other => Self::Opt(Box::new(other)),
        }
    }

    /// The `T` of `T?`, else the type itself.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Opt(inner) => inner,
            other => other,
        }
    }

    pub(crate) fn is_opt(&self) -> bool {
        matches!(self, Self::Opt(_) | Self::NoneLit)
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error)
    }

    /// Always absent, whatever it would be: `payload?.x` where no method has an `x`.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Opt(inner) if inner.is_error())
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Float | Self::Num)
    }

    /// Its values are one 64-bit word that means the same everywhere.
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Bool
                | Self::Int
                | Self::Uint
                | Self::Num
                | Self::Float
                | Self::Duration
                | Self::Instant
                | Self::Rate
                | Self::Status
                | Self::Endpoint
                | Self::Service
                | Self::Enum(_)
                | Self::ProtoEnum(_)
        )
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Error => "?",
            Self::Never | Self::Unit => "nothing",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Num => "a number",
            Self::Float => "float",
            Self::Str => "string",
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::Instant => "instant",
            Self::Rate => "rate",
            Self::Status => "Status",
            Self::Endpoint => "Endpoint",
            Self::Service => "Service",
            Self::Enum(id) => id.def().name,
            Self::ProtoEnum(of) => return f.write_str(of.full_name()),
            Self::Message(of) => return f.write_str(of.full_name()),
            Self::AnyMessage => "message",
            Self::Payload => "the payload",
            Self::List(item) => return write!(f, "list<{item}>"),
            Self::Map(key, value) => return write!(f, "map<{key}, {value}>"),
            Self::Opt(inner) if inner.is_error() => "a value that is always absent",
            Self::Opt(inner) => return write!(f, "{inner}?"),
            Self::Cell(Cell::Counter) => "counter",
            Self::Cell(Cell::Bucket) => "bucket",
            Self::Cell(Cell::Window) => "window",
            Self::NoneLit => "None",
            Self::Call => "the call",
            Self::Peer => "the peer",
            Self::CallRequest => "the call's request",
            Self::Headers(_) => "metadata",
        };
        f.write_str(name)
    }
}
