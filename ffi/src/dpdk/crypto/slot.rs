//! One operation of a queue pair, and the job it is for.

use core::ptr::{self, NonNull};

use super::super::accel::OpPool;
use super::super::raw;
use super::super::segments::{Chain, Segment, store};
use super::SessionId;

/// An operation, and the job it is for. Invariant: unless it is idle, nobody reads or writes `output` beyond its length,
/// or changes or frees either vector: the device may have their addresses.
pub(super) struct Slot<T> {
    pub(super) op: Op,
    /// In the operation: nonce, tag, associated data.
    pub(super) own: NonNull<raw::towpath_aead_private>,
    /// What a job of one segment each is read from and written to, where the device can be pointed at both. They are
    /// the operation's, unless a job has `chains`.
    pub(super) pair: Option<Pair>,
    pub(super) at: At,
    pub(super) seals: bool,
    pub(super) session: SessionId,
    pub(super) text_len: usize,
    /// Empty while it is idle.
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// Comes back with the job. None: it is idle, or the job was given up.
    pub(super) with: Option<T>,
    pub(super) chains: Option<Chains>,
}

/// Where an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Idle,
    Staged,
    Device,
}

/// Segments of their own.
pub(super) struct Pair {
    pub(super) from: Segment,
    pub(super) to: Segment,
}

/// What a job has that is longer than that, or copied, or done in place.
pub(super) struct Chains {
    pub(super) from: Chain,
    /// None: in place.
    pub(super) to: Option<Chain>,
}

impl<T> Slot<T> {
    /// A fresh operation of the pool's. `None`: it has no more.
    pub(super) fn new(pool: &OpPool, number: u32, pair: Option<Pair>) -> Option<Self> {
        let symmetric = raw::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC;
        // SAFETY: a pool of such operations.
        let op = NonNull::new(unsafe { raw::rte_crypto_op_alloc(pool.as_raw(), symmetric) })?;
        // SAFETY: fresh from that pool, with room for our own words.
        let own = NonNull::new(unsafe { raw::towpath_aead_init(op.as_ptr(), number) })?;
        let (at, seals, session, text_len) = (At::Idle, false, SessionId(0), 0);
        let (op, input, output, with, chains) = (Op(op), Vec::new(), Vec::new(), None, None);
        let slot = Self { op, own, pair, at, seals, session, text_len, input, output, with, chains };
        slot.rest();
        Some(slot)
    }

    /// Gives the operation chains, for the next job.
    ///
    /// # Safety
    /// As [`Op::set_ends`].
    pub(super) unsafe fn attach(&mut self, chains: Chains) {
        let to = chains.to.as_ref().map_or(ptr::null_mut(), Chain::as_raw);
        // SAFETY: the caller vouches for it; and they stay in the slot.
        unsafe { self.op.set_ends(chains.from.as_raw(), to) };
        self.chains = Some(chains);
    }

    /// Takes them from it; it is idle.
    #[cold]
    pub(super) fn detach(&mut self) -> Option<Chains> {
        self.rest();
        self.chains.take()
    }

    /// Gives the operation the pair, or nothing: as it is between jobs.
    fn rest(&self) {
        let ends = |pair: &Pair| (pair.from.as_raw(), pair.to.as_raw());
        let (from, to) = self.pair.as_ref().map_or((ptr::null_mut(), ptr::null_mut()), ends);
        // SAFETY: idle segments of this slot's, or none.
        unsafe { self.op.set_ends(from, to) };
    }
}

/// An operation.
pub(super) struct Op(NonNull<raw::rte_crypto_op>);

impl Op {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut raw::rte_crypto_op {
        self.0.as_ptr()
    }

    /// What it reads from and writes to; nothing to write to: in place.
    ///
    /// # Safety
    /// The operation is idle. Segments that stay until it is back, or other ends are set.
    #[inline]
    pub(super) unsafe fn set_ends(&self, from: *mut raw::rte_mbuf, to: *mut raw::rte_mbuf) {
        // SAFETY: a field of the struct, at its offset: `struct rte_mbuf *`.
        unsafe { store(self.0, raw::K_OP_SRC, from) };
        // SAFETY: as above.
        unsafe { store(self.0, raw::K_OP_DST, to) };
    }

    /// Makes it ready to be handed over.
    ///
    /// # Safety
    /// The operation is idle. Its ends hold `len` bytes of text, and the session lives until it is back.
    #[inline]
    pub(super) unsafe fn set_job(&self, session: NonNull<core::ffi::c_void>, len: u32) {
        // SAFETY: a field of the struct, at its offset: `uint8_t`.
        unsafe { store(self.0, raw::K_OP_STATUS, raw::K_NOT_PROCESSED) };
        // SAFETY: as above: `void *`.
        unsafe { store(self.0, raw::K_OP_SESSION, session.as_ptr()) };
        // SAFETY: as above: `uint32_t`.
        unsafe { store(self.0, raw::K_OP_AEAD_LEN, len) };
    }
}
