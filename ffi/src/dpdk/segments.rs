//! What accelerators are given of a job's bytes: chains of mbufs.
//!
//! Software devices read and write memory of this process wherever it is, so a chain is pointed at the job's own
//! bytes and nothing is copied. Hardware reaches only memory that DPDK has mapped for it: there the bytes are copied
//! into buffers of a pool's, and back.
//!
//! Invariant: an idle segment has no next one and holds nothing of a job's; every segment is idle or in one chain.

use core::ptr::NonNull;

use super::accel::OpPool;
use super::{Eal, Error, Pool, Shape, raw};

/// The most bytes of one segment: a mbuf's length has 16 bits. A multiple of 64, as caches and ciphers like it.
pub const SEGMENT_BYTES: usize = 65_024;
/// Segments a chain may have on software: 256 KiB and what deflate may add to them. The calling core does the work, and
/// would be kept by more of it.
const POINTED_MAX: usize = 6;
/// On hardware. QAT takes 16.
const COPIED_MAX: usize = 16;
/// Segments beyond one for each end of each job, for chains. A job that gets none goes elsewhere.
const SPARE: usize = 384;

/// How a device gets at a job's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Where they are: a device in software.
    Pointed,
    /// In a pool's buffers.
    Copied,
}

/// The segments of a queue pair.
pub(super) struct Segments {
    /// Idle ones, the last used last.
    idle: Vec<NonNull<raw::rte_mbuf>>,
    reach: Reach,
    // Last: the segments go back to it.
    _home: Home,
}

/// Where segments are from. Held, so that it outlives them.
enum Home {
    /// Pointers only.
    Pointers { _pool: OpPool },
    /// Buffers.
    Buffers { _pool: Pool },
}

/// Segments in use, in order.
pub(super) struct Chain {
    head: NonNull<raw::rte_mbuf>,
    /// Bytes it holds or has room for.
    len: usize,
}

/// A segment by itself, for good: it is pointed at one job's bytes after the other's.
pub(super) struct Segment(NonNull<raw::rte_mbuf>);

impl Segment {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut raw::rte_mbuf {
        self.0.as_ptr()
    }

    /// Points it at bytes.
    ///
    /// # Safety
    /// As [`Segments::point`]; at most [`SEGMENT_BYTES`].
    #[inline]
    pub(super) unsafe fn aim(&self, at: *mut u8, len: u32) {
        // SAFETY: a pointer's segment; the caller vouches for the rest.
        unsafe { aim(self.0, at, len) };
    }
}

impl Chain {
    pub(super) fn as_raw(&self) -> *mut raw::rte_mbuf {
        self.head.as_ptr()
    }
}

impl Segments {
    /// For a queue pair with so many operations of `ends` chains each.
    pub(super) fn new(eal: Eal, device: &str, reach: Reach, depth: u16, ends: usize) -> Result<Self, Error> {
        let own = usize::from(depth) * ends;
        match reach {
            Reach::Pointed => {
                let count = own + SPARE;
                let pool = OpPool::make(device, |name| {
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    // SAFETY: the EAL runs; the name is read during the call only.
                    unsafe { raw::towpath_pointer_pool(name, count) }
                })?;
                let (raw, mut idle) = (pool.as_raw(), Vec::with_capacity(count));
                for _ in 0..count {
                    // SAFETY: a pool of mbufs.
                    let Some(mbuf) = NonNull::new(unsafe { raw::rte_pktmbuf_alloc(raw) }) else { break };
                    // SAFETY: fresh from that pool, with room for what makes it a pointer.
                    unsafe { raw::towpath_pointer_init(mbuf.as_ptr()) };
                    idle.push(mbuf);
                }
                Ok(Self { idle, reach, _home: Home::Pointers { _pool: pool } })
            }
            Reach::Copied => {
                let frame_len_max = u16::try_from(SEGMENT_BYTES).unwrap_or(u16::MAX);
                let count = u32::try_from(own).unwrap_or(u32::MAX);
                let pool = Pool::take(eal, Shape { count, frame_len_max, socket: None })?;
                let idle = (0..own).map_while(|_| pool.alloc(0)).map(|mbuf| mbuf.into_raw());
                let idle = idle.filter_map(NonNull::new).collect();
                Ok(Self { idle, reach, _home: Home::Buffers { _pool: pool } })
            }
        }
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// The most bytes of a chain with more than one segment.
    pub(super) fn bytes_max(reach: Reach) -> usize {
        match reach {
            Reach::Pointed => POINTED_MAX * SEGMENT_BYTES,
            Reach::Copied => COPIED_MAX * SEGMENT_BYTES,
        }
    }

    /// A segment for good. `None`: none is left, or what is here are buffers.
    pub(super) fn single(&mut self) -> Option<Segment> {
        self.idle.pop_if(|_| self.reach == Reach::Pointed).map(Segment)
    }

    /// Takes one back; no operation has it any more.
    pub(super) fn put(&mut self, segment: Segment) {
        self.idle.push(segment.0);
    }

    /// True if chains of these lengths can be had now.
    #[inline]
    pub(super) fn has(&self, lengths: &[usize]) -> bool {
        lengths.iter().map(|len| segments(*len)).sum::<usize>() <= self.idle.len()
    }

    /// A chain over `len` bytes: those at `at`, or of its own segments if that is null. `None`: too few segments.
    #[inline]
    fn chain(&mut self, at: *mut u8, len: usize) -> Option<Chain> {
        let count = segments(len);
        let rest = self.idle.len().checked_sub(count)?;
        let bytes = u32::try_from(len).ok()?;
        let taken = self.idle.get(rest..)?;
        let head = *taken.first()?;
        if count == 1 && !at.is_null() {
            // SAFETY: an idle segment of ours; as it is made it has its data at the front and no next one.
            unsafe { aim(head, at, bytes) };
            self.idle.truncate(rest);
            return Some(Chain { head, len });
        }
        let (most, count) = (u16::try_from(SEGMENT_BYTES).ok()?, u16::try_from(count).ok()?);
        // SAFETY: `count` idle segments, at least one, and each has room for `most` bytes: it is pointed at the job's,
        // or a buffer of that size. A `NonNull` is laid out as a pointer.
        unsafe { raw::towpath_chain(taken.as_ptr().cast(), count, at, bytes, most) };
        self.idle.truncate(rest);
        Some(Chain { head, len })
    }

    /// Points a chain at bytes. `None`: too few segments.
    ///
    /// # Safety
    /// Software only. The bytes stay where they are, and nobody touches them (if the device only reads them: writes
    /// them), until the chain has been given back.
    #[inline]
    pub(super) unsafe fn point(&mut self, at: *mut u8, len: usize) -> Option<Chain> {
        debug_assert_eq!(self.reach, Reach::Pointed);
        self.chain(at, len)
    }

    /// A chain of buffers with room for so many bytes, of any content. `None`: too few segments.
    pub(super) fn room(&mut self, len: usize) -> Option<Chain> {
        debug_assert_eq!(self.reach, Reach::Copied);
        self.chain(core::ptr::null_mut(), len)
    }

    /// A chain of buffers with a copy of `bytes`. `None`: too few segments.
    pub(super) fn copy_in(&mut self, bytes: &[u8]) -> Option<Chain> {
        let chain = self.room(bytes.len())?;
        // SAFETY: buffers of ours that hold as many bytes as there are.
        unsafe { raw::towpath_copy_in(chain.as_raw(), bytes.as_ptr()) };
        Some(chain)
    }

    /// Appends the first `len` bytes of a chain made by `room` or `copy_in`, or as many as it has room for.
    #[cold]
    pub(super) fn copy_out(&self, chain: &Chain, len: usize, to: &mut Vec<u8>) {
        debug_assert_eq!(self.reach, Reach::Copied);
        let len = len.min(chain.len);
        to.reserve(len);
        let room = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        let short = u32::try_from(len).unwrap_or(0);
        // SAFETY: the device has given the chain back, which holds no fewer bytes, and as many are reserved.
        unsafe { raw::towpath_copy_out(chain.as_raw(), room, short) };
        // SAFETY: reserved, and written by the copy.
        unsafe { to.set_len(to.len() + len) };
    }

    /// The device has given the chain back.
    #[inline]
    pub(super) fn give_back(&mut self, chain: Chain) {
        if chain.len <= SEGMENT_BYTES {
            self.idle.push(chain.head);
            return;
        }
        let mut next = Some(chain.head);
        while let Some(segment) = next {
            // SAFETY: a segment of ours, in no device's hands.
            next = NonNull::new(unsafe { raw::towpath_unchain(segment.as_ptr()) });
            self.idle.push(segment);
        }
    }
}

/// Points one idle segment at bytes: what `towpath_chain` does with one, without the call.
///
/// # Safety
/// It is a pointer's segment, idle, and `len` is at most [`SEGMENT_BYTES`].
#[inline]
unsafe fn aim(segment: NonNull<raw::rte_mbuf>, at: *mut u8, len: u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the caller vouches for it")]
    let short = len as u16;
    // SAFETY: a field of the struct, at its offset: `void *`.
    unsafe { store(segment, raw::K_MBUF_BUF_ADDR, at) };
    // SAFETY: as above: `uint16_t`.
    unsafe { store(segment, raw::K_MBUF_BUF_LEN, short) };
    // SAFETY: as above: `uint16_t`.
    unsafe { store(segment, raw::K_MBUF_DATA_LEN, short) };
    // SAFETY: as above: `uint32_t`.
    unsafe { store(segment, raw::K_MBUF_PKT_LEN, len) };
}

/// Writes a field.
///
/// # Safety
/// A struct of ours, the offset of a field of it, and the field's type.
#[inline]
pub(super) unsafe fn store<S, T: Copy>(whole: NonNull<S>, offset: usize, value: T) {
    // SAFETY: the offset is one of a field, inside the struct.
    let at = unsafe { whole.byte_add(offset) };
    // SAFETY: ours alone; the caller vouches for the type.
    unsafe { at.cast::<T>().write(value) };
}

/// Segments that so many bytes need.
#[inline]
fn segments(len: usize) -> usize {
    if len <= SEGMENT_BYTES { 1 } else { len.div_ceil(SEGMENT_BYTES) }
}

impl Drop for Segments {
    fn drop(&mut self) {
        for mbuf in self.idle.drain(..) {
            // SAFETY: idle, one segment, ours; what a device has not given back is not here.
            unsafe { raw::rte_pktmbuf_free(mbuf.as_ptr()) };
        }
    }
}
