//! What a shard's sockets are opened with: backend, waiting, ceilings.

use core::time::Duration;

/// Which kernel interface carries the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// `uring` where the kernel offers what is needed, else `epoll`.
    #[default]
    Auto,
    /// io_uring, Linux 6.1 or later.
    Uring,
    /// epoll, anywhere.
    Epoll,
}

/// How a shard with nothing to do waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Poll {
    /// Spins at most 20 µs where that has paid off lately, then blocks.
    #[default]
    Adaptive,
    /// Never blocks: the core is 100 % busy by choice.
    Busy,
    /// Never spins.
    Block,
}

/// How a shard's sockets work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// Which kernel interface.
    pub backend: Backend,
    /// How to wait.
    pub poll: Poll,
    /// Use nothing of io_uring that Linux 6.1 did not have.
    pub force_baseline: bool,
    /// Ceilings.
    pub limits: Limits,
}

/// Ceilings of one shard's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections, both directions together; an accepted one over it is closed at once.
    pub conns_max: u32,
    /// Receive buffers; a power of two, at most 32,768. Touched on demand.
    pub rx_buffers: u16,
    /// Bytes of a receive buffer.
    pub rx_buffer_bytes: u32,
    /// Bytes accepted by `tx` for one connection and not yet taken by the kernel.
    pub tx_bytes_max: usize,
    /// A connect without an answer fails after this.
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            conns_max: 65_536,
            rx_buffers: 512,
            rx_buffer_bytes: 16 * 1024,
            tx_bytes_max: 256 * 1024,
            connect_timeout: Duration::from_secs(2),
        }
    }
}
