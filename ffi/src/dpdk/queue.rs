//! One receive and one transmit queue of a port, used by one thread at a time.

use core::fmt;
use core::ptr::NonNull;
use std::sync::Arc;

use super::port::Shared;
use super::{Mbuf, Pool, PortInfo, raw};

/// A queue pair and the pool its receive ring is filled from. Keeps its port open.
pub struct Queue {
    // Dropped before the pool is put back on its shelf.
    port: Arc<Shared>,
    index: u16,
    pool: Pool,
}

/// What one receive burst brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Frames appended.
    pub frames: usize,
    /// Frames in several segments that do not fit in one, freed.
    pub dropped: usize,
}

impl Queue {
    /// The most one burst moves.
    pub const BURST_MAX: usize = 32;

    pub(crate) fn new(port: Arc<Shared>, index: u16, pool: Pool) -> Self {
        Self { port, index, pool }
    }

    /// Its port.
    pub fn port(&self) -> &PortInfo {
        &self.port.info
    }

    /// Its number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Appends at most `max` frames (and at most [`Self::BURST_MAX`]) that have come. Never blocks.
    pub fn rx_burst(&mut self, out: &mut Vec<Mbuf>, max: usize) -> Received {
        if !self.port.is_running() {
            return Received::default();
        }
        // SAFETY: this is the port's only handle to the queue, borrowed exclusively, and the port is started.
        unsafe { receive(self.port.id, self.index, out, max) }
    }

    /// Sends at most `max` from the front of `frames`; what the ring has no room for stays, in order. Gives
    /// how many it has sent.
    pub fn tx_burst(&mut self, frames: &mut Vec<Mbuf>, max: usize) -> usize {
        if !self.port.is_running() {
            return 0;
        }
        let count = u16::try_from(frames.len().min(max)).unwrap_or(u16::MAX);
        let raw: *mut *mut raw::rte_mbuf = frames.as_mut_ptr().cast();
        // SAFETY: `Mbuf` is transparent over a pointer, so `raw` is `count` of them, each owned by us. The
        // queue is borrowed exclusively and its port is started.
        let sent = unsafe { raw::rte_eth_tx_burst(self.port.id, self.index, raw, count) };
        // The first `sent` belong to the port now.
        let sent = usize::from(sent.min(count));
        let left = frames.len() - sent;
        // SAFETY: no element is dropped or read until the length is set again below.
        unsafe { frames.set_len(0) };
        // SAFETY: `sent + left` elements are initialised in the allocation.
        let rest = unsafe { raw.add(sent) };
        // SAFETY: moves the `left` unsent ones to the front, within the allocation.
        unsafe { core::ptr::copy(rest, raw, left) };
        // SAFETY: those are initialised and owned once.
        unsafe { frames.set_len(left) };
        sent
    }

    /// Has the driver look at frames that ask for checksums and write what it needs into them. Gives how many
    /// it would take; the next one it never would.
    pub fn tx_prepare(&mut self, frames: &mut [Mbuf]) -> usize {
        let count = u16::try_from(frames.len()).unwrap_or(u16::MAX);
        let raw = frames.as_mut_ptr().cast();
        // SAFETY: `count` pointers, owned and borrowed exclusively; ownership does not change.
        usize::from(unsafe { raw::rte_eth_tx_prepare(self.port.id, self.index, raw, count) })
    }

    /// True if a link that stays down needs [`Self::revive`].
    pub fn needs_revival(&self) -> bool {
        self.port.needs_revival()
    }

    /// Looks for the peer of a link that is down, if the driver does not do so by itself. Takes milliseconds; the
    /// link comes up later.
    pub fn revive(&mut self) {
        if self.port.needs_revival() {
            // SAFETY: a port that needs it has one queue, and this is it, borrowed exclusively.
            unsafe { self.port.revive() };
        }
    }

    /// The link's state, without waiting.
    pub fn link(&self) -> super::Link {
        self.port.link()
    }

    /// The totals of its port, all queues together; zeros from a driver that keeps none.
    pub fn port_stats(&self) -> super::Stats {
        super::stats::stats(self.port.id)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} of {}, {:?})", self.index, self.port.info.device, self.pool)
    }
}

/// Receives into spare room of `out`.
///
/// # Safety
/// Nobody else uses the receive side of this queue meanwhile, and its port is started.
pub(crate) unsafe fn receive(port: u16, queue: u16, out: &mut Vec<Mbuf>, max: usize) -> Received {
    let max = max.min(Queue::BURST_MAX);
    out.reserve(max);
    let (before, burst) = (out.len(), u16::try_from(max).unwrap_or(0));
    let spare: *mut *mut raw::rte_mbuf = out.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: `Mbuf` is transparent over a non-null pointer and there is room for `burst` of them; the caller
    // vouches for the queue.
    let count = unsafe { raw::rte_eth_rx_burst(port, queue, spare, burst) };
    let mut kept = 0;
    for at in 0..usize::from(count.min(burst)) {
        // SAFETY: the port has written `count` buffers.
        let slot = unsafe { spare.add(at) };
        // SAFETY: initialised by the port.
        let raw = unsafe { slot.read() };
        // SAFETY: a received buffer, owned by us.
        if !unsafe { linear(raw) } {
            continue;
        }
        // SAFETY: `kept <= at`, so this slot has been read.
        let to = unsafe { spare.add(kept) };
        // SAFETY: inside the spare room.
        unsafe { to.write(raw) };
        kept += 1;
    }
    // SAFETY: `kept` linear buffers with one owner each have been written behind `before`.
    unsafe { out.set_len(before + kept) };
    Received { frames: kept, dropped: usize::from(count) - kept }
}

/// True for a buffer of one segment, made so if it can be; else it is freed.
///
/// # Safety
/// The caller owns `raw`, and gives it up if the answer is false.
unsafe fn linear(raw: *mut raw::rte_mbuf) -> bool {
    let Some(mbuf) = NonNull::new(raw) else { return false };
    // SAFETY: the offset is the field's.
    let segments = unsafe { mbuf.as_ptr().byte_add(raw::K_MBUF_NB_SEGS) };
    // SAFETY: `nb_segs` is a `uint16_t`, initialised.
    if unsafe { segments.cast::<u16>().read() } == 1 {
        return true;
    }
    // SAFETY: owned; copies the other segments behind the first if there is room, and frees them.
    if unsafe { raw::rte_pktmbuf_linearize(raw) } == 0 {
        return true;
    }
    // SAFETY: owned, and not used again.
    unsafe { raw::rte_pktmbuf_free(raw) };
    false
}
