//! Read buffers, handed out as linear handles.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Read buffers, the last used on top.
#[derive(Debug)]
pub(super) struct Pool {
    free: RefCell<Vec<Vec<u8>>>,
    /// How many more may be made.
    unmade: Cell<u32>,
    bytes: usize,
}

impl Pool {
    /// At most `count` buffers of `bytes` each, made when they are needed.
    pub(super) fn new(count: u32, bytes: usize) -> Rc<Self> {
        Rc::new(Self { free: RefCell::new(Vec::new()), unmade: Cell::new(count), bytes })
    }

    pub(super) fn take(&self) -> Option<Vec<u8>> {
        if let Some(buffer) = self.free.borrow_mut().pop() {
            return Some(buffer);
        }
        self.unmade.set(self.unmade.get().checked_sub(1)?);
        Some(Vec::with_capacity(self.bytes))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.free.borrow_mut().push(buffer);
    }

    pub(super) fn has_any(&self) -> bool {
        self.unmade.get() > 0 || !self.free.borrow().is_empty()
    }
}

/// Bytes that were read. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct Filled {
    pool: Rc<Pool>,
    buffer: Vec<u8>,
}

impl Filled {
    pub(super) fn new(pool: &Rc<Pool>, buffer: Vec<u8>) -> Self {
        Self { pool: Rc::clone(pool), buffer }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.pool.give(core::mem::take(&mut self.buffer));
    }
}
