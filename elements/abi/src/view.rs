//! The view of one call: everything an element may read or do, in the shard's terms.

use alloc::vec::Vec;

use crate::{EndpointIdx, Flag, ServiceIdx, SinkIdx, Status};

/// Which header list is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// What the caller sent.
    Request,
    /// The upstream's initial metadata. Written after it left, it travels as trailers.
    Response,
    /// The upstream's trailers.
    Trailers,
}

/// Numeric fields of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Num {
    /// Its number on this shard; unique for the shard's life.
    Id,
    /// Which attempt, from 1.
    Attempt,
    /// Bytes of the message at hand, plain; 0 where none is.
    Size,
    /// Nanoseconds since it arrived.
    LatencyNs,
    /// The turn's instant, nanoseconds of the monotonic clock.
    NowNs,
    /// The status as a number; meaningful in response entries.
    Status,
}

/// Text fields of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Text {
    /// The calling service's name; empty when not known.
    Source,
    /// `pkg.Service`.
    Service,
    /// `Method`.
    Method,
    /// `:authority`.
    Authority,
    /// The caller's identity by `from`; empty when not known.
    PeerIdentity,
    /// `grpc-message`, decoded.
    Message,
    /// The response flag.
    Flag,
}

/// What is known of an endpoint now, on this shard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EndpointStat {
    /// Connected or not yet tried; false while it refuses, is ejected or drains.
    pub healthy: bool,
    /// Calls sent to it and not answered.
    pub inflight: u32,
    /// Peak EWMA of its answer time, nanoseconds; 0 before the first answer.
    pub latency_ns: u64,
    /// Its weight.
    pub weight: u32,
    /// A hash of its address, stable over reloads: its place on a ring.
    pub hash: u64,
}

/// What a chain met that is worth counting, though the call goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A handler's atomic step met other shards' eight times; its writes of state are dropped.
    StateConflict,
    /// A map that refuses further keys was full: the write is dropped.
    MapFull,
    /// A map shares one entry among further keys, and this call's was one.
    MapShared,
    /// The texts of an answer were longer than a chain holds: its outcome is RESOURCE_EXHAUSTED.
    TextCut,
}

/// How messages of both directions leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Leaving {
    /// In the encoding they came in.
    #[default]
    AsCame,
    /// Plain: `decompress()`.
    Plain,
    /// Compressed, where the receiver can undo it: `compress(…)`.
    Packed(Compress),
}

/// What `compress(…)` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compress {
    /// Which algorithm.
    pub encoding: Encoding,
    /// Smaller messages go as they are, bytes.
    pub min_bytes: u32,
}

/// Message encodings with gRPC names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950 (zlib).
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Every encoding, at its number.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Deflate, Self::Zstd];

    /// The encoding `grpc-encoding` names.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name().as_bytes() == name)
    }

    /// As `grpc-encoding` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// How grave a line of `log(…)` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// For developers.
    Debug,
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Broken.
    Error,
}

/// A value of `log(…)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LogValue<'a> {
    /// No value.
    None,
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A real number.
    Float(f64),
    /// Text.
    Text(&'a str),
}

/// What a chain keeps of a call: live values over a suspension, and the texts of call-parameters from
/// `Request` to `Response`. The shard clears it when the slot gets another call, and not before.
#[derive(Clone, Debug, Default)]
pub struct Spill {
    /// Live values, in the chain's own layout.
    pub words: Vec<u64>,
    /// What live views point into.
    pub bytes: Vec<u8>,
}

impl Spill {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.bytes.clear();
    }
}

/// One call as a chain sees it. Implemented by the shard; every method is bounded and does not block.
pub trait CallView {
    /// A numeric field.
    fn num(&self, field: Num) -> u64;
    /// A text field; bytes that are not UTF-8 read as empty.
    fn text(&self, field: Text) -> &str;
    /// Which shard this is, from 0: state per shard is found by it.
    fn shard(&self) -> u16;
    /// The peer's address, as 16 bytes (IPv4 mapped); `None` on a unix socket.
    fn peer_ip(&self) -> Option<[u8; 16]>;

    /// The `nth` value (from 0) of a header; `-bin` values as they travel (base64).
    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]>;
    /// Replaces all values of a header; `None` removes it. A name or value that may not travel is refused
    /// (false) and counted.
    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool;

    /// The plain message at hand: in `Request` and `Response` the one message of that unary side, in message
    /// entries the message that came. `None` where none is held.
    fn payload(&self) -> Option<&[u8]>;
    /// Replaces it, plain. False if it may not be (none is held, or it is longer than `message_bytes_max`).
    fn set_payload(&mut self, bytes: &[u8]) -> bool;

    /// When the call must be done, nanoseconds of the monotonic clock.
    fn deadline_ns(&self) -> Option<u64>;
    /// Brings the deadline nearer; a later one changes nothing.
    fn set_deadline_ns(&mut self, at: u64);

    /// The destination.
    fn destination(&self) -> ServiceIdx;
    /// Sends it to another service's endpoints; the chain stays.
    fn set_destination(&mut self, to: ServiceIdx);
    /// The chosen endpoint of the destination.
    fn endpoint(&self) -> Option<EndpointIdx>;
    /// Chooses one; `None` leaves it to what comes after.
    fn set_endpoint(&mut self, to: Option<EndpointIdx>);
    /// How many endpoints the destination has.
    fn endpoint_count(&self) -> usize;
    /// One of them; `None` past the end.
    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat>;
    /// The endpoint of the destination whose [`EndpointStat::hash`] this is.
    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx>;
    /// The latest load an endpoint has reported of this name (ORCA: `cpu_utilization`, `rps`, …, or a name of
    /// its `named_metrics`, `utilization` or `request_cost`).
    fn endpoint_report(&self, at: EndpointIdx, name: &str) -> Option<f64>;
    /// The number of this pick at the destination, from 0: what round robin counts with.
    fn pick_number(&mut self) -> u64;

    /// hash(seed, element instance, call number, draw index): the same call draws the same numbers.
    fn draw(&self, element: u32, index: u32) -> u64;

    /// How messages of both directions leave.
    fn set_leaving(&mut self, how: Leaving);
    /// Writes the call's access-log line to this sink when the call has ended.
    fn access_log(&mut self, sink: SinkIdx);
    /// A line of the element's own.
    fn log(&mut self, level: Level, element: u16, fields: &[(&str, LogValue<'_>)]);
    /// Adds to a metric, an index into `Program::metrics`, under these labels.
    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]);
    /// Something that only a counter tells.
    fn note(&mut self, what: Note);
    /// Observes a value of a metric.
    fn observe(&mut self, metric: u16, value: f64);

    /// In response entries: changes the status and, if given, the message.
    fn set_status(&mut self, status: Status, message: Option<&str>);
    /// The flag an element gives the call without ending it (DI).
    fn set_flag(&mut self, flag: Flag);
    /// The text of the [`crate::Reject`] that follows; cut at 1 KiB.
    fn set_reject_text(&mut self, text: &str);

    /// How many elements, from the left, have let the request through.
    fn passed(&self) -> u16;
    /// Says so. Called by the chain as each element is done.
    fn set_passed(&mut self, elements: u16);
    /// True for the sampled calls whose elements are timed.
    fn is_sampled(&self) -> bool;
    /// On sampled calls: this element has just run.
    fn mark(&mut self, element: u16);

    /// `state call` and call-parameters: [`crate::Plan::call_words`] words, zero at the start.
    fn words(&mut self) -> &mut [u64];
    /// Where a chain keeps its live values over a suspension.
    fn spill(&mut self) -> &mut Spill;
}
