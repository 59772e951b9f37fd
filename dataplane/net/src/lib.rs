//! TCP/IP in user space: a [`shard::Device`] below, a [`shard::Transport`] above.
//!
//! Ethernet, ARP, neighbour discovery, ICMP echo, flows, listeners, time-wait, timers, loss recovery and congestion
//! control are here; the TCP state machine is smoltcp's, which sees IP packets only. Why not its ethernet layer as
//! well: its neighbour cache asks for one address a second, all peers together, forgets a peer after a minute, and is
//! searched linearly; a shard that connects to twenty pods would wait twenty seconds. Why not its loss recovery:
//! `recovery` says so, and `tests/loss.rs` what a mebibyte took with it.
//!
//! ```text
//!   Device::rx_burst ─► parse ─► flow ─► its socket ─► ready ─► rx_burst's events
//!                         │        └─ none: a listener's SYN, time-wait, or one RST
//!                         └─ ARP, ND, ICMP: neighbours, echo
//!   tx ─► its socket ─► dirty ─► flush ─► neighbour's address ─► Device::tx_burst
//! ```
//!
//! Invariants:
//! - A frame costs the same however many connections there are: it finds its socket by a hash of its flow,
//!   and only connections with something to do are looked at (smoltcp's own poll visits all).
//! - Nothing is allocated for frames and events once connections, sockets and buffers have been used before.
//! - Whatever a frame contains, it ends in an event, an answer or a named counter.
//!
//! Not here: DHCP, address autoconfiguration, multicast listening, path MTU discovery (the path's MTU has to
//! be the port's), IP fragments and IP options (dropped, counted), VLAN tags, SYN cookies, TCP timestamps. Of several
//! segments lost at once one is sent again a round trip: selective acknowledgements are believed, not sent for.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod amend;
mod backoff;
mod challenge;
mod config;
mod conn;
mod counters;
mod egress;
mod emit;
mod familiar;
pub mod hub;
mod icmp;
mod ingress;
mod isn;
mod listen;
mod neighbours;
mod outbox;
mod parse;
mod pool;
mod ports;
mod rate;
mod recovery;
mod routes;
mod siphash;
mod sockets;
mod stack;
mod time_wait;
mod timers;
mod transport;

pub use config::{Config, ConfigError, Limits, Listener, Route};
pub use counters::{Counters, Snapshot};
pub use isn::Secret;
pub use pool::Rx;
pub use stack::Stack;
