//! Raw ports over DPDK: any device string (`net_memif0,role=client`, `net_af_packet0,iface=eth1`, …) or PCI
//! address.
//!
//! The node opens a [`Port`] once, before its threads start; each shard opens one of its [`Seat`]s on its own
//! thread, which registers the thread as an lcore and gives a [`Queue`]: a [`shard::Device`]. A port that can
//! steer flows by hash has as many queue pairs as were asked for; any other has one.
//!
//! A raw port has no descriptor to wait on. [`Device::wait`] looks for frames all along for 20 µs, then sleeps
//! and looks again, a quarter of the silence so far each time, at most a millisecond: a frame after a silence
//! is late by at most a quarter of that silence.
//!
//! Not here: what is above ethernet, beyond the checksums a port takes over.
//!
//! [`Device::wait`]: shard::Device::wait

mod checksum;
mod counters;
mod port;
mod queue;

pub use counters::{Counters, Snapshot};
pub use dpdk_sys::{Driver, Error, Link, Mbuf, Memory, PoolCount, Stats, drivers, pools};
pub use port::{Config, Port, Seat, start};
pub use queue::Queue;
