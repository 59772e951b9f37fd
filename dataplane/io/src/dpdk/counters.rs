//! What a queue pair has done, readable from any thread.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the queue was opened. One writer; reads are relaxed.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// [`Counters`] at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them all, each by itself.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
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

counters! {
    /// Frames received.
    rx_frames,
    /// Bytes received.
    rx_bytes,
    /// Receive bursts that brought something.
    rx_bursts,
    /// Received frames dropped: a checksum was wrong.
    rx_bad_checksum,
    /// Received frames dropped: in several segments, too long for one buffer.
    rx_oversize,
    /// Frames taken by the port.
    tx_frames,
    /// Bytes taken by the port.
    tx_bytes,
    /// Transmit bursts of which the port did not take all.
    tx_cut,
    /// Frames the driver refused to send.
    tx_refused,
    /// Frames asked for when there was no buffer.
    no_buffer,
    /// Frames asked for above the MTU.
    frame_oversize,
    /// Waits that slept.
    sleeps,
    /// Waits ended by a frame while spinning.
    spins_paid,
}
