//! Pools of buffers. They live as long as the process: a pool that is given up waits on a shelf for the next
//! port of its shape, so that a buffer can never outlive the memory it is in.

use core::fmt;
use core::ptr::NonNull;
use std::ffi::CString;
#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
use std::sync::Mutex;
use std::sync::PoisonError;

use super::{Eal, Error, Mbuf, log, raw};

/// What a pool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Buffers.
    pub count: u32,
    /// The longest frame a buffer takes, bytes.
    pub frame_len_max: u16,
    /// The memory's socket; `None`: any.
    pub socket: Option<u16>,
}

/// Buffers for one queue pair. Allocation is cheapest from the thread that frees, registered as an lcore.
pub struct Pool {
    raw: Handle,
    shape: Shape,
}

/// How many buffers of a pool are out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolCount {
    /// Buffers in all.
    pub size: u32,
    /// Of these, held by ports, queues or owners of an [`Mbuf`].
    pub in_use: u32,
}

/// A pool's address.
#[derive(Clone, Copy)]
struct Handle(NonNull<raw::rte_mempool>);

// SAFETY: every operation on a pool may be called from any thread at once (its ring is multi-producer and
// multi-consumer), and a pool is never freed.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// A pool that has been made.
struct Made {
    raw: Handle,
    shape: Shape,
    taken: bool,
}

#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());

/// Buffers each lcore keeps of a pool without asking the others.
const CACHE: u32 = 256;

impl Pool {
    /// A pool of this shape: one that was given up, or a new one.
    pub fn take(_: Eal, shape: Shape) -> Result<Self, Error> {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = made.iter_mut().find(|pool| !pool.taken && pool.shape == shape) {
            free.taken = true;
            return Ok(Self { raw: free.raw, shape });
        }
        log::begin();
        let raw = create(made.len(), shape)?;
        made.push(Made { raw, shape, taken: true });
        Ok(Self { raw, shape })
    }

    /// A buffer of `len` bytes, content unspecified; `None` when they have run out or `len` is too long.
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        // SAFETY: a pool of packet buffers.
        let raw = unsafe { raw::rte_pktmbuf_alloc(self.raw.0.as_ptr()) };
        if raw.is_null() {
            return None;
        }
        // SAFETY: fresh from the pool: ours alone, one segment, counted once.
        let mut mbuf = unsafe { Mbuf::from_raw(raw) };
        mbuf.set_len(len).then_some(mbuf)
    }

    /// What it holds.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many buffers are out.
    pub fn count(&self) -> PoolCount {
        count(self.raw)
    }

    pub(crate) fn as_raw(&self) -> *mut raw::rte_mempool {
        self.raw.0.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = made.iter_mut().find(|pool| pool.raw.0 == self.raw.0) {
            own.taken = false;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?}, {:?})", self.shape, self.count())
    }
}

/// Every pool of the process: what a leak test and the metrics look at.
pub fn pools() -> Vec<PoolCount> {
    let made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.iter().map(|pool| count(pool.raw)).collect()
}

fn count(pool: Handle) -> PoolCount {
    // SAFETY: a pool lives for ever.
    let size = unsafe { raw::towpath_pool_size(pool.0.as_ptr()) };
    // SAFETY: as above; with other threads at work the number is of one moment or another.
    let available = unsafe { raw::rte_mempool_avail_count(pool.0.as_ptr()) };
    PoolCount { size, in_use: size.saturating_sub(available) }
}

fn create(number: usize, shape: Shape) -> Result<Handle, Error> {
    let headroom = u16::try_from(raw::K_RTE_PKTMBUF_HEADROOM).unwrap_or(u16::MAX);
    let room = shape.frame_len_max.checked_next_multiple_of(64).and_then(|len| len.checked_add(headroom));
    let Some(room) = room else {
        return Err(Error::new("EAL", "make a pool", libc::EINVAL, "frames of at most 65,280 bytes".into()));
    };
    // A count of zero caches is slower, not wrong: pools smaller than two caches have none.
    let cache = if shape.count >= 4 * CACHE { CACHE } else { 0 };
    let socket = shape.socket.map_or(-1, i32::from);
    let name = CString::new(format!("towpath-{number}")).unwrap_or_default();
    // SAFETY: the EAL runs (every caller holds an `Eal`); the name is read during the call only.
    let raw = unsafe { raw::rte_pktmbuf_pool_create(name.as_ptr(), shape.count, cache, 0, room, socket) };
    NonNull::new(raw).map(Handle).ok_or_else(|| {
        let mib = u64::from(shape.count) * (u64::from(room) + 192) / (1 << 20);
        Error::last("EAL", "make a pool").with_hint(format!(
            "{} buffers of {room} bytes need {mib} MiB: give DPDK more memory or ports fewer buffers",
            shape.count
        ))
    })
}
