//! Wakes a shard that waits, from any thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Ends a shard's `wait`, now or the next one. Many wakes before the shard looks are one.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new(Shared { event, pending: AtomicBool::new(false) }) })
    }

    /// Wakes the shard. What was stored before this is visible to it afterwards.
    pub fn wake(&self) {
        if !self.shared.pending.swap(true, Ordering::AcqRel) {
            // Only a full counter can refuse, and then the shard is being woken anyway.
            let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
        }
    }

    /// The shard's side: true if somebody woke it since it last asked.
    pub(crate) fn take(&self) -> bool {
        self.shared.pending.load(Ordering::Relaxed) && self.shared.pending.swap(false, Ordering::AcqRel)
    }

    /// True if somebody woke it; leaves it so.
    pub(crate) fn is_pending(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire)
    }

    /// Makes [`Self::event`] unreadable until the next wake. For those that poll it: before they look at
    /// [`Self::is_pending`], so that no wake is lost between the two.
    pub(crate) fn clear_event(&self) {
        // Fails if it is unreadable already.
        let _ = rustix::io::read(&self.shared.event, &mut [0_u8; 8]);
    }

    /// Readable once somebody woke it.
    pub(crate) fn event(&self) -> &OwnedFd {
        &self.shared.event
    }
}
