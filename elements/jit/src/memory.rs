//! Executable memory: written once, then only read and executed.
//!
//! Invariant: no page is writable and executable at once. A [`CodeMemory`] is mapped readable and writable,
//! filled, and turned to readable and executable before anyone sees it; nothing makes it writable again.
#![allow(unsafe_code, reason = "the code memory: STYLE.md, Unsafe")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use abi::Entry;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::cache::Shape;

/// A page of the machines there is code for (x86-64).
const PAGE_BYTES: usize = 4096;

/// Machine code in memory of its own; freed with the value.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    at: NonNull<c_void>,
    len: usize,
}

// SAFETY: after `new` nobody writes to the pages until `drop`, which has the only owner.
unsafe impl Send for CodeMemory {}
// SAFETY: as above: shared access is reading and executing.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// Copies `code` to where it can be executed.
    ///
    /// # Errors
    /// What the kernel says; some forbid executable memory (`EACCES`, `EPERM`).
    pub(crate) fn new(code: &[u8]) -> Result<Self, Errno> {
        let len = code.len().max(1).next_multiple_of(PAGE_BYTES);
        // SAFETY: a mapping at an address of the kernel's choice touches no memory there is.
        let at = unsafe {
            mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        // From here on the value frees it, also on errors.
        let memory = Self { at: NonNull::new(at).ok_or(Errno::NOMEM)?, len };
        // SAFETY: `at` is the start of `len` >= `code.len()` fresh bytes that only we know of.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), memory.at.as_ptr().cast::<u8>(), code.len()) };
        // SAFETY: the pages are ours, no reference to them exists, and they lose the right to be written.
        unsafe { mprotect(memory.at.as_ptr(), len, MprotectFlags::READ | MprotectFlags::EXEC) }?;
        Ok(memory)
    }

    /// The address of the code at `offset`; it stays the code's as long as `self` lives.
    pub(crate) fn at(&self, offset: usize) -> *const c_void {
        assert!(offset < self.len, "an entry lies in its code");
        self.at.as_ptr().cast::<u8>().wrapping_add(offset).cast_const().cast()
    }

    /// Bytes of memory held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole, and whoever calls into it keeps a reference to `self`.
        let freed = unsafe { munmap(self.at.as_ptr(), self.len) };
        debug_assert!(freed.is_ok(), "a mapping of ours can be unmapped: {freed:?}");
    }
}

/// The machine code of all entries of a chain.
#[derive(Debug)]
pub(crate) struct ChainCode {
    memory: CodeMemory,
    /// Where each entry begins, in the order of [`crate::cache::ENTRIES`].
    entries: [Option<usize>; 5],
    shape: Arc<Shape>,
}

impl ChainCode {
    /// What was compiled from an image of this shape.
    pub(crate) fn new(memory: CodeMemory, entries: [Option<usize>; 5], shape: Arc<Shape>) -> Self {
        Self { memory, entries, shape }
    }

    /// The shape of images that it may run.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Where the code of an entry begins, if it has any.
    pub(crate) fn entry(&self, entry: Entry) -> Option<*const c_void> {
        let [request, pick, request_message, response_message, response] = self.entries;
        let at = match entry {
            Entry::Request => request,
            Entry::Pick => pick,
            Entry::RequestMessage => request_message,
            Entry::ResponseMessage => response_message,
            Entry::Response => response,
            Entry::ResponseHeaders => None,
        };
        at.map(|at| self.memory.at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions_at(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
            range.contains(&address).then(|| rest.chars().take(4).collect())
        })
    }

    #[test]
    fn code_is_executable_and_not_writable() {
        let memory = CodeMemory::new(&[0xc3; 5000]).unwrap();
        assert!(memory.len() >= 5000);
        for offset in [0, 4999] {
            assert_eq!(permissions_at(memory.at(offset) as usize).as_deref(), Some("r-xp"));
        }
    }
}
