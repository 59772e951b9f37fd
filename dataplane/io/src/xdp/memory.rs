//! Memory shared with the kernel: rings and umem.
#![expect(unsafe_code, reason = "memory maps are raw pointers")]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A readable and writable map, zero at first, unmapped when dropped. Says nothing about who may touch what:
/// that is for [`super::ring`] and [`super::umem`].
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a map belongs to the process, not to a thread; `Mapping` itself only gives its address away.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes anything.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private memory, page-aligned.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without an address asked for, the kernel picks one that nothing else uses.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
        Self::of(base?, len)
    }

    /// What a descriptor offers at `offset`.
    pub(super) fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: without an address asked for, the kernel picks one that nothing else uses.
        let base =
            unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, offset) };
        Self::of(base?, len)
    }

    fn of(base: *mut c_void, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A pointer to `count` values at `offset`, which must lie inside and be aligned for them: a layout that
    /// does not fit is a bug here or in the kernel.
    pub(super) fn at<T>(&self, offset: usize, count: usize) -> NonNull<T> {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{count} values at {offset} of a map of {}",
            self.len
        );
        // SAFETY: `offset` is inside the map, just checked.
        let at = unsafe { self.base.add(offset) }.cast::<T>();
        assert!(at.is_aligned(), "values at {offset} of a map are not aligned");
        at
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what mmap gave, and every pointer handed out is used only by those that
        // hold this map (rings and pools keep it in an `Arc` or `Rc` beside their pointers).
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
