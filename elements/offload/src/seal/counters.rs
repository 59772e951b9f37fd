//! What a queue has sealed and opened, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Totals of one queue: its shard's thread and its helper write.
        #[derive(Debug, Default)]
        pub(crate) struct SealCounters {
            $(#[doc = $doc] pub(crate) $name: AtomicU64,)*
        }

        /// What a node has sealed and opened, at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SealSnapshot {
            $(#[doc = $doc] pub $name: u64,)*
            /// Senders whose calls are remembered.
            pub senders: u64,
        }

        impl SealCounters {
            pub(crate) fn snapshot(&self) -> SealSnapshot {
                SealSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* senders: 0 }
            }
        }

        impl SealSnapshot {
            /// Both together.
            pub(crate) fn and(self, other: &Self) -> Self {
                Self { $($name: self.$name + other.$name,)* senders: self.senders.max(other.senders) }
            }

            /// Name, meaning and value of each total, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc.trim_ascii_start(), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Messages sealed.
    sealed,
    /// Messages opened.
    opened,
    /// Envelopes sealed with a key that is not here.
    unknown_key,
    /// Envelopes that do not open.
    forged,
    /// Calls that came a second time.
    replayed,
    /// Calls older than what is remembered.
    expired,
    /// What is no envelope.
    malformed,
    /// Keys of other nodes derived.
    derived,
    /// Of these, given up for others.
    evicted,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
