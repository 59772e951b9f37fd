//! Memory in which fields and messages are encoded: each thread keeps its own from one write to the next, so
//! that a shard allocates none once it has written a message of the usual length.

use std::cell::Cell;

/// What a thread keeps of each of the two; more goes back after the message that needed it.
const KEPT_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static KEPT: Cell<Work> = const { Cell::new(Work { part: Vec::new(), whole: Vec::new() }) };
}

/// What one write needs; both are empty at first.
#[derive(Default)]
pub(super) struct Work {
    /// A field, or what is within it.
    pub(super) part: Vec<u8>,
    /// The message with it.
    pub(super) whole: Vec<u8>,
}

impl Work {
    /// The thread's memory, until it is put back.
    pub(super) fn take() -> Self {
        KEPT.take()
    }

    pub(super) fn put_back(mut self) {
        for memory in [&mut self.part, &mut self.whole] {
            memory.clear();
            memory.shrink_to(KEPT_BYTES_MAX);
        }
        KEPT.set(self);
    }
}
