//! The access log as the shard sees it: a record of borrowed fields handed to whoever formats and writes.

use abi::{Addr, ElementInfo, Flag, Level, LogValue, Status};
use wire::Instant;

/// One finished call.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When it ended.
    pub at: Instant,
    /// Its number on this shard.
    pub id: u64,
    /// The calling service; empty when not known.
    pub source: &'a str,
    /// The destination; empty when it has none.
    pub destination: &'a str,
    /// `:path`, as it came.
    pub path: &'a [u8],
    /// `:authority`, as it came.
    pub authority: &'a [u8],
    /// What the caller saw.
    pub status: Status,
    /// The message that went with it, decoded; empty for most.
    pub message: &'a [u8],
    /// Why.
    pub flag: Flag,
    /// From the arrival of the request's headers to its end.
    pub latency_ns: u64,
    /// Body bytes from the caller.
    pub request_bytes: u64,
    /// Body bytes to the caller.
    pub response_bytes: u64,
    /// Where it went, if anywhere.
    pub endpoint: Option<&'a Addr>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The element that decided, if one did, and the line in its own file.
    pub element: Option<(&'a ElementInfo, u32)>,
}

/// A line of an element's `log(…)`.
#[derive(Clone, Copy, Debug)]
pub struct ElementRecord<'a> {
    /// When.
    pub at: Instant,
    /// The call.
    pub id: u64,
    /// The element.
    pub element: &'a ElementInfo,
    /// How grave.
    pub level: Level,
    /// What.
    pub fields: &'a [(&'a str, LogValue<'a>)],
}

/// Something about a peer that an operator should read: one line, rate limited by whoever writes it.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// When.
    pub at: Instant,
    /// Its counter's name, `client_speaks_tls`.
    pub what: &'static str,
    /// The listener or endpoint it concerns.
    pub subject: &'a str,
    /// What to do about it.
    pub text: &'a str,
}

/// Takes records without blocking; what it has no room for it drops and counts.
pub trait Log {
    /// A call has ended; `sink` 0 is the node's own log, others are as [`crate::Setup::sinks`] says.
    fn access(&mut self, sink: u16, record: &AccessRecord<'_>);
    /// An element's line.
    fn element(&mut self, record: &ElementRecord<'_>);
    /// A notice.
    fn notice(&mut self, notice: &Notice<'_>);
    /// The end of a turn: hand over what has gathered.
    fn flush(&mut self, now: Instant);
}
