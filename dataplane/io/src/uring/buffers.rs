//! Receive buffers that the kernel picks from: a ring of free buffers shared with it, and linear handles to
//! those it has filled.
//!
//! The ring is kept as deep as has been needed, not as deep as it could be: the kernel takes buffers in the
//! order they were given, so a deep ring would touch all its memory and stay in no cache. It doubles each
//! time a receive found nothing.
//!
//! Invariant: a buffer is in exactly one place: the free list, the ring (the kernel's), or one handle.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The buffer group: there is one.
pub(super) const GROUP: u16 = 0;
/// Buffers in the ring at first.
const DEPTH_MIN: usize = 32;

/// Anonymous memory, page aligned, zero, touched on demand.
#[derive(Debug)]
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

impl Pages {
    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    fn new(len: usize) -> io::Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { mmap_anonymous(core::ptr::null_mut(), len, prot, flags) }?;
        // A huge page would be touched whole by its first byte. Only a hint, so a refusal does not matter.
        // SAFETY: the range is the mapping just made, and this advice changes no contents.
        let _ = unsafe { madvise(base, len, Advice::LinuxNoHugepage) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }
}

impl Drop for Pages {
    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever could refer to it holds an `Rc` of its pool or is gone.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// All buffers, and the list of those in nobody's hands.
#[derive(Debug)]
struct Pool {
    pages: Pages,
    buffer_bytes: usize,
    free: RefCell<Vec<u16>>,
}

/// Bytes the kernel has put into a buffer. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct Filled {
    pool: Rc<Pool>,
    len: u32,
    buffer: u16,
}

impl Filled {
    #[expect(unsafe_code, reason = "the kernel wrote these bytes")]
    pub(crate) fn bytes(&self) -> &[u8] {
        let start = usize::from(self.buffer) * self.pool.buffer_bytes;
        // SAFETY: `buffer` is below the buffer count (checked in `RxRing::filled`), so the offset lies in the
        // mapping.
        let base = unsafe { self.pool.pages.base.as_ptr().add(start) };
        // SAFETY: `len` is at most `buffer_bytes` (checked in `RxRing::filled`); the mapping lives as long as
        // the pool this handle holds; the kernel does not write to a buffer that is not in the ring, and it
        // comes back there only through this handle's `Drop`.
        unsafe { core::slice::from_raw_parts(base, self.len as usize) }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().push(self.buffer);
    }
}

/// The ring of free buffers.
#[derive(Debug)]
pub(super) struct RxRing {
    pool: Rc<Pool>,
    ring: Pages,
    entries: u16,
    tail: u16,
    /// Given to the kernel and not seen back.
    in_ring: usize,
    depth: usize,
}

impl RxRing {
    /// Registers a ring of `entries` buffers, a power of two, as [`GROUP`].
    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    pub(super) fn register(submitter: &Submitter<'_>, entries: u16, buffer_bytes: u32) -> io::Result<Self> {
        let buffer_bytes = buffer_bytes as usize;
        let pages = Pages::new(usize::from(entries) * buffer_bytes)?;
        let ring = Pages::new(usize::from(entries) * core::mem::size_of::<BufRingEntry>())?;
        let free = RefCell::new((0..entries).rev().collect());
        // SAFETY: the ring's memory is page aligned, large enough, and lives until `unregister`, or until the
        // io_uring is gone: `UringTransport` drops the io_uring first.
        unsafe { submitter.register_buf_ring_with_flags(ring.base.as_ptr() as u64, entries, GROUP, 0) }?;
        let pool = Rc::new(Pool { pages, buffer_bytes, free });
        let mut this = Self { pool, ring, entries, tail: 0, in_ring: 0, depth: 0 };
        this.depth = DEPTH_MIN.min(usize::from(entries));
        this.refill();
        Ok(this)
    }

    /// Gives the kernel free buffers up to the present depth.
    pub(super) fn refill(&mut self) {
        if self.in_ring >= self.depth {
            return;
        }
        let before = self.tail;
        let pool = Rc::clone(&self.pool);
        let mut free = pool.free.borrow_mut();
        while self.in_ring < self.depth
            && let Some(buffer) = free.pop()
        {
            self.put(buffer);
        }
        if self.tail != before {
            self.publish();
        }
    }

    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    fn put(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.entries - 1));
        let start = usize::from(buffer) * self.pool.buffer_bytes;
        let base = self.ring.base.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `at` is below `entries`, so the entry lies in the ring's memory.
        let entry = unsafe { base.add(at) };
        // SAFETY: at most `entries` buffers exist and each is in the ring at most once, so the kernel has done
        // with this entry; it reads it only after the tail has been published.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.pool.pages.base.as_ptr() as u64 + start as u64);
        entry.set_len(u32::try_from(self.pool.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.in_ring += 1;
    }

    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    fn publish(&self) {
        let base = self.ring.base.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the page-aligned start of a registered ring.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: aligned and live as above; kernel and we access it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The kernel has put `len` bytes into `buffer`.
    pub(super) fn filled(&mut self, buffer: u16, len: u32) -> Filled {
        assert!(buffer < self.entries, "the kernel chose a buffer that does not exist");
        assert!(len as usize <= self.pool.buffer_bytes, "the kernel wrote past a buffer");
        self.in_ring -= 1;
        Filled { pool: Rc::clone(&self.pool), len, buffer }
    }

    /// A receive found no buffer: keep more in the ring from now on.
    pub(super) fn deepen(&mut self) {
        self.depth = (self.depth * 2).min(usize::from(self.entries));
    }

    /// Never gives the memory back: the kernel may still write to it.
    pub(super) fn leak(&self) {
        core::mem::forget(Rc::clone(&self.pool));
    }

    /// False if the kernel has none to fill.
    pub(super) fn has_any(&self) -> bool {
        self.in_ring > 0
    }
}

/// True if the kernel takes a ring whose buffers it fills bit by bit.
#[expect(unsafe_code, reason = "memory shared with the kernel")]
pub(super) fn incremental_works() -> bool {
    const INCREMENTAL: u16 = 2;
    let Ok(ring) = super::ring::build(1, 2, false) else { return false };
    let Ok(pages) = Pages::new(4 * core::mem::size_of::<BufRingEntry>()) else { return false };
    let submitter = ring.submitter();
    // SAFETY: page aligned and large enough; the io_uring is dropped before the pages are, below.
    let outcome =
        unsafe { submitter.register_buf_ring_with_flags(pages.base.as_ptr() as u64, 4, GROUP, INCREMENTAL) };
    drop(ring);
    drop(pages);
    outcome.is_ok()
}
