//! Buffers that carry received bytes to the shard, handed out as linear handles.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Deref;

/// The buffers, the last used on top.
#[derive(Debug)]
pub(crate) struct Pool {
    free: RefCell<Vec<Vec<u8>>>,
    made: Cell<u32>,
    max: u32,
    bytes: usize,
}

impl Pool {
    /// At most `max` buffers of `bytes` each, made when they are needed.
    pub(crate) fn new(max: u32, bytes: usize) -> Rc<Self> {
        Rc::new(Self { free: RefCell::new(Vec::new()), made: Cell::new(0), max, bytes })
    }

    fn take(&self) -> Option<Vec<u8>> {
        if let Some(buffer) = self.free.borrow_mut().pop() {
            return Some(buffer);
        }
        if self.made.get() >= self.max {
            return None;
        }
        self.made.set(self.made.get() + 1);
        Some(alloc::vec![0; self.bytes])
    }

    pub(crate) fn has_any(&self) -> bool {
        self.made.get() < self.max || !self.free.borrow().is_empty()
    }

    pub(crate) fn made(&self) -> u64 {
        u64::from(self.made.get())
    }

    pub(crate) fn out(&self) -> u64 {
        self.made().saturating_sub(self.free.borrow().len() as u64)
    }

    /// Fills a buffer; `None` if there is none. `fill` says how many bytes it wrote.
    pub(crate) fn fill(self: &Rc<Self>, fill: impl FnOnce(&mut [u8]) -> usize) -> Option<Rx> {
        let mut buffer = self.take()?;
        let len = fill(&mut buffer).min(buffer.len());
        Some(Rx { pool: Rc::clone(self), buffer, len })
    }
}

/// Received bytes. Dropping it gives the buffer back, also when the stack has gone.
#[derive(Debug)]
pub struct Rx {
    pool: Rc<Pool>,
    buffer: Vec<u8>,
    len: usize,
}

impl Deref for Rx {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().push(core::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_bounded_and_come_back() {
        let pool = Pool::new(2, 8);
        let write = |buffer: &mut [u8]| {
            buffer[..3].copy_from_slice(b"abc");
            3
        };
        let first = pool.fill(write).unwrap();
        let second = pool.fill(write).unwrap();
        assert!(pool.fill(write).is_none() && !pool.has_any());
        assert_eq!((&*first, &*second), (&b"abc"[..], &b"abc"[..]));
        drop(first);
        assert_eq!((pool.out(), pool.made()), (1, 2));
        assert!(pool.fill(write).is_some());
    }
}
