//! The backends: kernel sockets (`uring`, `epoll`) and raw ports (`xdp`, `dpdk`, with `net` on top), together
//! behind [`shard::Transport`].
//!
//! The node binds [`Listeners`] and opens [`Ports`] once, before its threads start; each shard then opens its
//! own [`Transports`] on its own thread and hands it to its `Shard`. Nothing here knows what the bytes mean.
//!
//! What shards share: the listening sockets, [`Placement`] (loads, and hand-over of accepted sockets), copies
//! of the frames only one of them receives (`ports/post.rs`), and [`Waker`]s. Everything else belongs to one
//! thread and is not `Send`.
//!
//! Not here: TLS, TCP/IP in user space (that is `net`).

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
mod ports;
pub mod privileges;
mod probe;
mod share;
mod sockets;
pub mod tap;
mod transports;
#[cfg(feature = "uring")]
mod uring;
mod wait;
mod waker;
pub mod xdp;

pub use config::{Backend, Config, Limits, Poll};
pub use counters::{Counters, Snapshot};
pub use cpu::{Cores, available_cores, pin};
pub use listen::{BindError, BindErrorKind, ListenerSpec, Listeners};
pub use net::{
    Counters as NetCounters, Limits as NetLimits, Listener as PortListener, Route, Snapshot as NetSnapshot,
};
pub use placement::Placement;
pub use ports::{
    DeviceSpec, DpdkMemory, PORTS_MAX, PortError, PortOptions, PortSeats, PortSnapshot, PortSpec, Ports,
    SHARED_SOURCE_PORTS, XdpMode, network,
};
pub use probe::{Feature, Refusal, Report, probe};
pub use sockets::{Rx, Sockets};
pub use transports::Transports;
pub use waker::Waker;

/// This build has DPDK ports.
pub const HAS_DPDK: bool = cfg!(feature = "dpdk");
