//! The memory frames live in, cut into chunks of one size.
//!
//! A chunk is in one place at a time: on the free list, in a ring, or in a [`Frame`]. The kernel pins the whole
//! umem when it is registered, so it is resident from then on; the free list is last in, first out, so that
//! the caches see few of the chunks.
#![expect(unsafe_code, reason = "frames are slices of memory shared with the kernel")]

use core::cell::Cell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;
use std::rc::Rc;

use super::memory::Mapping;
use super::ring::Desc;
use super::socket::{FILL_MIN, RX_RING, TX_RING};

/// Chunks that are never given away for receiving, so that there is one to send from.
pub(super) const TX_RESERVE: u32 = 2048;
/// The smallest umem: one socket's rings, and the reserve.
pub(super) const CHUNKS_MIN: u32 = RX_RING + TX_RING + TX_RESERVE;
/// A umem grows to this for its sockets to have full rings; with more of them each has less.
const CHUNKS_FULL: u32 = 65_536;
/// What a socket has at least, however many there are.
const RX_CHUNKS_MIN: u32 = 2 * FILL_MIN;

/// How the chunks of one queue are dealt out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    /// All of them.
    pub(super) chunks: u32,
    /// The most each socket receives into.
    pub(super) rx_chunks: u32,
}

impl Shares {
    /// For so many receive queues, with at least `chunks`. Every socket's share, a full transmit ring (all
    /// frames leave by one socket) and the reserve fit at once.
    pub(super) fn new(chunks: u32, sockets: u32) -> Self {
        let (sockets, others) = (sockets.max(1), TX_RING + TX_RESERVE);
        let dealt = chunks.max(CHUNKS_FULL) - others;
        let rx_chunks = (dealt / sockets).clamp(RX_CHUNKS_MIN, RX_RING);
        Self { chunks: chunks.max(sockets.saturating_mul(rx_chunks).saturating_add(others)), rx_chunks }
    }
}

/// Ends the free list.
const NONE: u32 = u32::MAX;

/// The chunks of one queue. One thread's; frames keep it alive after the queue is gone.
pub(super) struct Pool {
    memory: Mapping,
    chunk_len: usize,
    /// For each chunk the next free one.
    next: Box<[Cell<u32>]>,
    first: Cell<u32>,
    free: Cell<u32>,
    /// Chunks in frames.
    held: Cell<u32>,
}

impl Pool {
    /// All free; `chunk_len` is a power of two that divides the memory.
    pub(super) fn new(memory: Mapping, chunk_len: usize) -> Self {
        assert!(chunk_len.is_power_of_two() && memory.len().is_multiple_of(chunk_len));
        let count = u32::try_from(memory.len() / chunk_len).unwrap_or(NONE);
        assert!(count < NONE);
        let next = (1..=count).map(|next| Cell::new(if next == count { NONE } else { next })).collect();
        let first = Cell::new(if count == 0 { NONE } else { 0 });
        Self { memory, chunk_len, next, first, free: Cell::new(count), held: Cell::new(0) }
    }

    /// Takes a chunk off the free list, for a ring; its address.
    pub(super) fn take(&self) -> Option<u64> {
        let chunk = self.first.get();
        self.first.set(self.next.get(chunk as usize)?.get());
        self.free.set(self.free.get() - 1);
        Some(u64::from(chunk) * self.chunk_len as u64)
    }

    /// Puts back the chunk an address lies in, which came out of a ring.
    pub(super) fn put(&self, addr: u64) {
        let chunk = self.chunk(addr);
        self.next[chunk as usize].set(self.first.get());
        self.first.set(chunk);
        self.free.set(self.free.get() + 1);
    }

    fn chunk(&self, addr: u64) -> u32 {
        let chunk = u32::try_from(addr / self.chunk_len as u64).unwrap_or(NONE);
        assert!((chunk as usize) < self.next.len(), "address {addr} lies outside the umem");
        chunk
    }

    /// Chunks on the free list.
    pub(super) fn free(&self) -> u32 {
        self.free.get()
    }

    /// Chunks in frames.
    pub(super) fn held(&self) -> u32 {
        self.held.get()
    }

    /// All chunks.
    pub(super) fn count(&self) -> u32 {
        // Checked in `new`.
        u32::try_from(self.next.len()).unwrap_or(NONE)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} chunks, {} free, {} held)", self.count(), self.free(), self.held())
    }
}

/// An ethernet frame in a chunk of its own. Dropped, the chunk is free again; it may outlive its queue.
#[derive(Debug)]
pub struct Frame {
    pool: Rc<Pool>,
    /// From the start of the umem.
    addr: u64,
    bytes: NonNull<u8>,
    len: usize,
}

impl Frame {
    /// What a descriptor out of a ring names. The chunk is the frame's from now on.
    pub(super) fn from_desc(pool: &Rc<Pool>, desc: Desc) -> Self {
        let _ = pool.chunk(desc.addr);
        let (mask, len) = (pool.chunk_len as u64 - 1, desc.len as usize);
        let start = usize::try_from(desc.addr & mask).unwrap_or(usize::MAX);
        assert!(start.saturating_add(len) <= pool.chunk_len, "a frame leaves its chunk");
        let offset = usize::try_from(desc.addr).unwrap_or(usize::MAX);
        pool.held.set(pool.held.get() + 1);
        Self { pool: Rc::clone(pool), addr: desc.addr, bytes: pool.memory.at(offset, len), len }
    }

    /// A free chunk, content unspecified; `None` if there is none. `len` is at most a chunk's.
    pub(super) fn new(pool: &Rc<Pool>, len: usize) -> Option<Self> {
        let len = u32::try_from(len).ok().filter(|&len| len as usize <= pool.chunk_len)?;
        let addr = pool.take()?;
        Some(Self::from_desc(pool, Desc { addr, len, options: 0 }))
    }

    /// Gives the chunk to a ring.
    pub(super) fn into_desc(self) -> Desc {
        let this = core::mem::ManuallyDrop::new(self);
        this.pool.held.set(this.pool.held.get() - 1);
        // SAFETY: `this` is not used again and not dropped, so the reference count is taken over once.
        drop(unsafe { core::ptr::read(&raw const this.pool) });
        // Checked when the frame was made.
        Desc { addr: this.addr, len: u32::try_from(this.len).unwrap_or(0), options: 0 }
    }

    /// True if the frame's chunk is of this pool.
    pub(super) fn is_of(&self, pool: &Rc<Pool>) -> bool {
        Rc::ptr_eq(&self.pool, pool)
    }

    /// Shortens it from the end.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `from_desc` has checked that the bytes lie in one chunk of the pool's memory, which `pool`
        // keeps mapped; the chunk is in no ring and in no other frame, so nobody else writes it. Any bytes are
        // values of `u8`, and the map began as zeros.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

impl DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `&mut self` makes this the only slice.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.held.set(self.pool.held.get() - 1);
        self.pool.put(self.addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn pool(chunks: usize) -> Rc<Pool> {
        Rc::new(Pool::new(Mapping::anonymous(chunks * 2048).unwrap(), 2048))
    }

    #[test]
    fn every_socket_has_its_share_and_the_rest_is_for_sending() {
        let of = |sockets| {
            let Shares { chunks, rx_chunks } = Shares::new(16_384, sockets);
            assert!(sockets * rx_chunks + TX_RING + TX_RESERVE <= chunks, "{sockets}: {chunks}, {rx_chunks}");
            (chunks, rx_chunks)
        };
        assert_eq!([of(1), of(3), of(4)], [(16_384, 4096), (16_384, 4096), (20_480, 4096)]);
        assert_eq!([of(15), of(16), of(64)], [(65_536, 4096), (65_536, 3840), (65_536, 960)]);
        assert_eq!(of(2048), (135_168, 64), "no queue is deaf");
        assert_eq!(Shares::new(CHUNKS_MIN, 1), Shares { chunks: 8192, rx_chunks: 4096 });
    }

    #[test]
    fn each_chunk_is_in_one_frame_and_comes_back() {
        let pool = pool(8);
        let mut frames: Vec<Frame> = std::iter::from_fn(|| Frame::new(&pool, 100)).collect();
        assert_eq!((frames.len(), pool.free(), pool.held()), (8, 0, 8));
        let chunks: BTreeSet<u64> = frames.iter().map(|frame| frame.addr).collect();
        assert_eq!(chunks.len(), 8);
        for (at, frame) in (0_u8..).zip(&mut frames) {
            frame.fill(at);
        }
        for (at, frame) in (0_u8..).zip(&frames) {
            assert_eq!(**frame, [at; 100]);
        }
        drop(frames);
        assert_eq!((pool.free(), pool.held()), (8, 0));
    }

    #[test]
    fn a_frame_may_outlive_its_queue() {
        let pool = pool(1);
        let mut frame = Frame::new(&pool, 2048).unwrap();
        drop(pool);
        frame.fill(7);
        assert_eq!(frame[2047], 7);
    }

    #[test]
    fn a_frame_of_a_descriptor_keeps_its_chunk_until_it_is_a_descriptor_again() {
        let pool = pool(2);
        let addr = pool.take().unwrap();
        let desc = Desc { addr: addr + 256, len: 60, options: 0 };
        let frame = Frame::from_desc(&pool, desc);
        assert_eq!((frame.len(), pool.held()), (60, 1));
        assert_eq!(frame.into_desc(), desc);
        assert_eq!((pool.free(), pool.held()), (1, 0));
        pool.put(desc.addr);
        assert_eq!((pool.free(), pool.take()), (2, Some(addr)));
    }

    #[test]
    #[should_panic(expected = "leaves its chunk")]
    fn a_descriptor_over_a_chunks_end_is_a_bug() {
        let pool = pool(2);
        Frame::from_desc(&pool, Desc { addr: 2000, len: 100, options: 0 });
    }
}
