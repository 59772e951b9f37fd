//! What shards and chains share: the compiled program, the view of one call, the verdict.
//!
//! `lang` produces a [`Program`] (services, routes and one [`Chain`] per rule); `shard` runs it knowing
//! nothing of the language. The interpreter and, later, the JIT both implement [`Chain`].
//!
//! Not here: HTTP/2 (that is `wire`), the values of the language (those are `lang`'s).
//! Invariant: nothing in this crate does I/O, reads a clock or draws a random number by itself.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod chain;
mod program;
mod routes;
mod status;
mod view;

pub use chain::{Boundary, Chain, Entry, Plan, Reject, Suspend, Unreadable, Verdict};
pub use program::{
    Addr, ElementInfo, Endpoint, EndpointIdx, KeyIdx, MethodMatch, Program, Route, Service, ServiceIdx,
    SinkIdx, Source,
};
pub use routes::Routes;
pub use status::{Flag, Status};
pub use view::{
    CallView, Compress, Encoding, EndpointStat, Leaving, Level, LogValue, Note, Num, Side, Spill, Text,
};
