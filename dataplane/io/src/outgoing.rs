//! Bytes on their way out of a connection, in buffers that come from a pool and go back when empty.
//!
//! Two buffers: `flight` is what the kernel is being given and does not move until it has been taken; `next`
//! collects what is accepted meanwhile. An idle connection has neither.

/// Bytes of a fresh buffer. It grows to what is needed and keeps that in the pool.
const FIRST_BYTES: usize = 1024;
/// A larger buffer is not kept. Between two nodes a turn's messages of many callers leave by one connection: what
/// it takes for them must come back, or each turn allocates anew.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Bytes the pool keeps in all.
const POOL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Empty buffers, the last used on top.
#[derive(Debug, Default)]
pub(crate) struct TxPool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl TxPool {
    fn take(&mut self) -> Vec<u8> {
        match self.free.pop() {
            Some(buffer) => {
                self.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(FIRST_BYTES),
        }
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || capacity > KEPT_BYTES_MAX || self.bytes + capacity > POOL_BYTES_MAX {
            return;
        }
        buffer.clear();
        self.bytes += capacity;
        self.free.push(buffer);
    }
}

/// What one connection has accepted and the kernel has not taken.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    flight: Vec<u8>,
    taken: usize,
    next: Vec<u8>,
}

impl Outgoing {
    /// Bytes accepted and not taken.
    pub(crate) fn len(&self) -> usize {
        self.flight.len() - self.taken + self.next.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies in as much as fits under `max`; returns how much that was.
    pub(crate) fn accept(&mut self, slices: &[&[u8]], max: usize, pool: &mut TxPool) -> usize {
        let mut room = max.saturating_sub(self.len());
        let mut accepted = 0;
        for slice in slices {
            let part = slice.get(..room).unwrap_or(slice);
            if part.is_empty() {
                continue;
            }
            if self.next.capacity() == 0 {
                self.next = pool.take();
            }
            self.next.extend_from_slice(part);
            room -= part.len();
            accepted += part.len();
            if part.len() < slice.len() {
                break;
            }
        }
        accepted
    }

    /// What to give the kernel now. Stays where it is until `took` has accounted for all of it or `clear` is
    /// called.
    pub(crate) fn flight(&mut self, pool: &mut TxPool) -> &[u8] {
        if self.taken == self.flight.len() {
            pool.give(core::mem::take(&mut self.flight));
            self.taken = 0;
            self.flight = core::mem::take(&mut self.next);
        }
        self.flight.get(self.taken..).unwrap_or(&[])
    }

    /// The kernel took this many bytes of `flight`.
    pub(crate) fn took(&mut self, bytes: usize, pool: &mut TxPool) {
        assert!(bytes <= self.flight.len() - self.taken, "the kernel took more than it was given");
        self.taken += bytes;
        if self.taken == self.flight.len() {
            pool.give(core::mem::take(&mut self.flight));
            self.taken = 0;
        }
    }

    /// Forgets everything. Only while the kernel has none of it in hand.
    pub(crate) fn clear(&mut self, pool: &mut TxPool) {
        pool.give(core::mem::take(&mut self.flight));
        pool.give(core::mem::take(&mut self.next));
        self.taken = 0;
    }

    /// Forgets what has not been given to the kernel.
    #[cfg(feature = "uring")]
    pub(crate) fn clear_next(&mut self, pool: &mut TxPool) {
        pool.give(core::mem::take(&mut self.next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_whatever_the_kernel_takes() {
        let mut pool = TxPool::default();
        let mut out = Outgoing::default();
        let mut seen = Vec::new();
        assert_eq!(out.accept(&[b"abc", b"", b"defgh"], 6, &mut pool), 6);
        let part = out.flight(&mut pool)[..2].to_vec();
        seen.extend(part);
        out.took(2, &mut pool);
        assert_eq!(out.accept(&[b"gh"], 100, &mut pool), 2);
        assert_eq!(out.len(), 6);
        while !out.is_empty() {
            let part = out.flight(&mut pool).to_vec();
            out.took(part.len(), &mut pool);
            seen.extend(part);
        }
        assert_eq!(seen, b"abcdefgh");
    }

    #[test]
    fn an_empty_connection_holds_no_buffer_and_the_pool_reuses_it() {
        let mut pool = TxPool::default();
        let mut out = Outgoing::default();
        out.accept(&[&[7; 100]], 1000, &mut pool);
        let n = out.flight(&mut pool).len();
        out.took(n, &mut pool);
        assert_eq!(out.flight.capacity() + out.next.capacity(), 0);
        assert_eq!(pool.free.len(), 1);
        out.accept(&[&[7; 100]], 1000, &mut pool);
        assert!(pool.free.is_empty());
    }

    #[test]
    fn the_ceiling_counts_what_is_in_flight() {
        let mut pool = TxPool::default();
        let mut out = Outgoing::default();
        assert_eq!(out.accept(&[&[1; 8]], 8, &mut pool), 8);
        let _ = out.flight(&mut pool);
        assert_eq!(out.accept(&[&[1; 8]], 8, &mut pool), 0);
        out.took(3, &mut pool);
        assert_eq!(out.accept(&[&[1; 8]], 8, &mut pool), 3);
    }

    #[test]
    fn large_buffers_are_not_kept() {
        let mut pool = TxPool::default();
        let mut out = Outgoing::default();
        out.accept(&[&vec![0; KEPT_BYTES_MAX + 1]], usize::MAX, &mut pool);
        let n = out.flight(&mut pool).len();
        out.took(n, &mut pool);
        assert_eq!(pool.bytes, 0);
    }
}
