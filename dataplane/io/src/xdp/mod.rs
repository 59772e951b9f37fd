//! `xdp`: ethernet frames from a NIC's receive queues without the kernel's TCP/IP, over AF_XDP.
//!
//! [`Port::open`] attaches a small program to the interface, which hands frames for our addresses to our sockets
//! and everything else to the kernel (`filter.rs` says which, exactly). Each shard has one [`Queue`]: a umem, and
//! a socket for each receive queue it serves. Pure Rust: the program is assembled here (`asm.rs`), no compiler
//! and no C library take part.
//!
//! ```text
//! NIC ── receive queue 0 ── program ──► socket ──► Queue of shard 0        Frame: an owned chunk of the umem
//!  ├──── receive queue 1 ── program ──► socket ──┘
//!  └──── not ours ────────────────────► kernel
//! ```
//!
//! Invariants: a chunk is in one place (free, in a ring, in a frame); the program leaves with the process; no
//! receive queue of the interface is without a socket.
//!
//! Not here: frames over several chunks (the port's MTU ends at 3822 bytes), VLAN tags, checksum offloads: on a
//! veth pair the other end must compute its own (`ethtool -K PEER tx off`). An interface that is deleted takes
//! the port with it; one that goes down and up again does not. Receive queues added to an open port's interface
//! (`ethtool -L`) are without sockets until the port is opened again: their frames go to the kernel.

mod asm;
mod bpf;
mod error;
mod filter;
mod interface;
mod memory;
mod neighbours;
mod nic;
mod port;
mod queue;
mod ring;
mod socket;
mod umem;

pub use error::OpenError;
pub use nic::{Nic, Support, nic, support};
pub use port::{BoundQueue, Mode, Port, PortConfig};
pub use queue::{Chunks, Counters, Queue};
pub use umem::Frame;
