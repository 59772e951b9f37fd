//! The load generator: gRPC calls at a pace ([`Load`]), a backend that returns them ([`Echo`]), and what
//! was seen ([`Live`] while it runs, [`Summary`] after, [`report`] as a page).
//!
//! Both ends are generic over [`shard::Transport`], own no thread and read no clock but the transport's, so
//! that they run over every backend, inside `towpath demo` and in a simulation. One thread drives each
//! (`run`); any other may read its figures all along.
//!
//! It is built to be cheap, since in the side-by-side runs it shares a core with the backend: requests are
//! encoded from a list made once, calls live in numbered places, and one turn costs one write a connection.
//!
//! Not here: protobuf of any schema, TLS, calls that stream.
#![forbid(unsafe_code)]

mod conns;
pub mod echo;
pub mod load;
pub mod packet;
pub mod report;
mod slab;
pub mod stats;
pub mod summary;
#[cfg(test)]
mod testing;

pub use echo::{Echo, EchoLive, EchoOptions};
pub use load::{Hold, Load, LoadConfig, Pace, Target};
pub use stats::{Live, Phase};
pub use summary::Summary;
