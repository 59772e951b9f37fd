//! The backends: kernel sockets behind [`shard::Transport`] (`uring`, `epoll`) and raw ports behind
//! [`shard::Device`] (`xdp`).
//!
//! The node binds [`Listeners`] once, before its threads start; each shard then opens its own [`Sockets`] on
//! its own thread and hands it to its `Shard`. Nothing here knows what the bytes mean.
//!
//! What shards share: the listening sockets, [`Placement`] (loads, and hand-over of accepted sockets), and
//! [`Waker`]s. Everything else belongs to one thread and is not `Send`.
//!
//! Not here: TLS, TCP/IP in user space.

mod base;
mod config;
mod conns;
mod counters;
mod cpu;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod epoll;
mod listen;
mod os;
mod outgoing;
mod placement;
mod port_owner;
mod probe;
mod slots;
mod sockets;
#[cfg(feature = "uring")]
mod uring;
mod wait;
mod waker;
#[cfg(feature = "xdp")]
pub mod xdp;

pub use config::{Backend, Config, Limits, Poll};
pub use counters::{Counters, Snapshot};
pub use cpu::{Cores, available_cores, pin};
pub use listen::{BindError, BindErrorKind, ListenerSpec, Listeners};
pub use placement::Placement;
pub use probe::{Feature, Refusal, Report, probe};
pub use sockets::{Rx, Sockets};
pub use waker::Waker;
