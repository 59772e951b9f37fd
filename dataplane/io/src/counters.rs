//! What a shard's sockets have done, readable from any thread.

use core::sync::atomic::{AtomicU64, Ordering};

/// Defines counters once: as atomics, as a copy of one moment, and as names for whoever exports them.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since it was opened. One writer; reads are relaxed.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: core::sync::atomic::AtomicU64,)*
        }

        /// [`Counters`] at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them all, each by itself.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(core::sync::atomic::Ordering::Relaxed),)* }
            }
        }

        impl Snapshot {
            /// Name and value of each, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}
#[cfg(feature = "dpdk")]
pub(crate) use counters;

counters! {
    /// Connections accepted here or handed over to this shard.
    accepts,
    /// Accepts that failed (out of descriptors, mostly).
    accept_errors,
    /// Accepted connections closed at once because `conns_max` was reached.
    accepts_refused,
    /// Accepted connections handed over to another shard.
    handed_over,
    /// Connects begun.
    connects,
    /// Connects that failed.
    connect_errors,
    /// Connections open now.
    conns_open,
    /// Bytes received.
    rx_bytes,
    /// Bytes taken by the kernel.
    tx_bytes,
    /// Times `tx` took fewer bytes than it was given.
    tx_cut,
    /// Times a receive found no buffer.
    rx_no_buffer,
    /// System calls that wait for or collect events: io_uring_enter or epoll_pwait2.
    enters,
    /// Read system calls (epoll only).
    reads,
    /// Write system calls (epoll only).
    writes,
    /// Waits that blocked.
    blocks,
    /// Waits that began by spinning.
    spins,
    /// Spins that saw an event.
    spins_paid,
    /// Completions the kernel could not post for want of room (io_uring only).
    overflows,
}

impl Snapshot {
    /// System calls on the data path: what "system calls per call" divides.
    pub fn syscalls(&self) -> u64 {
        self.enters + self.reads + self.writes
    }
}

/// Adds to a counter with one writer.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
