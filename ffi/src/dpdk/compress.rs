//! Deflate (RFC 1951, no header, no checksum) by a compressdev: `compress_isal0`, `compress_zlib0`, QAT, BlueField.
//!
//! A job owns its two buffers; so does the device while it works on them, and what comes out owns them again.

use core::ffi::c_void;
use core::fmt;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::accel::{self, AcceleratorOptions, BURST_MAX, OpPool, check};
use super::{Eal, Error, Mbuf, raw};

/// What to do with a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Deflate.
    Compress,
    /// Inflate.
    Decompress,
}

/// One buffer to compress or decompress.
#[derive(Debug)]
pub struct CompressJob {
    /// What to do.
    pub direction: Direction,
    /// The input, whole.
    pub from: Mbuf,
    /// Where the output goes; its length is the room there is.
    pub to: Mbuf,
    /// Comes out with the result.
    pub token: u64,
}

/// A job that is done.
#[derive(Debug)]
pub struct Compressed {
    /// The job's own.
    pub token: u64,
    /// The input, as it was.
    pub from: Mbuf,
    /// The output, as long as it has become.
    pub to: Mbuf,
    /// How it went.
    pub outcome: CompressOutcome,
}

/// How a job went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressOutcome {
    /// The output is whole; so many bytes of the input belonged to it.
    Done {
        /// Bytes read; fewer than given if something follows the end of a deflate stream.
        consumed: usize,
    },
    /// The output did not fit.
    OutOfSpace,
    /// The input is no deflate stream, or the device failed.
    Failed {
        /// The device's own number for it.
        status: u8,
    },
}

/// An open device.
#[derive(Debug)]
pub struct Compressor {
    queues: Vec<Option<CompressQueue>>,
}

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CompressQueue {
    transforms: [Transform; 2],
    ops: OpPool,
    index: u16,
    depth: usize,
    // Last: the rest is given back to it.
    device: Arc<Device>,
}

/// A direction's settings in the device's own form.
struct Transform {
    raw: NonNull<c_void>,
    /// Jobs of this direction under way.
    under_way: usize,
    /// How many there may be.
    most: usize,
}

// SAFETY: a transform belongs to its queue pair, which is used by one thread at a time.
unsafe impl Send for Transform {}

#[derive(Debug)]
struct Device {
    id: u8,
    name: String,
}

/// Log2 of deflate's window.
const WINDOW: u8 = 15;

impl Compressor {
    /// Opens a device; `level` from 1 to 9 as in zlib, `None` for the driver's own.
    pub fn open(
        eal: Eal,
        device: &str,
        options: AcceleratorOptions,
        level: Option<u8>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Device::attach(eal, device)?);
        let id = shared.id;
        let features = features(&shared)?;
        let mut config = raw::rte_compressdev_config {
            socket_id: -1,
            nb_queue_pairs: options.queues,
            max_nb_priv_xforms: options.queues.saturating_mul(2),
            max_nb_streams: 0,
        };
        // SAFETY: the device exists and is stopped; the configuration is read during the call.
        let result = unsafe { raw::rte_compressdev_configure(id, &raw mut config) };
        check(device, "configure the device", result)?;
        for index in 0..options.queues {
            // SAFETY: configured and stopped.
            let result =
                unsafe { raw::rte_compressdev_queue_pair_setup(id, index, u32::from(options.depth), -1) };
            check(device, "set up a queue pair", result)?;
        }
        // SAFETY: configured, every queue pair set up.
        check(device, "start the device", unsafe { raw::rte_compressdev_start(id) })?;
        let queue = |index| CompressQueue::new(Arc::clone(&shared), index, options.depth, level, features);
        let queues: Result<Vec<_>, Error> = (0..options.queues).map(|index| queue(index).map(Some)).collect();
        Ok(Self { queues: queues? })
    }

    /// A queue pair; each can be taken once.
    pub fn queue(&mut self, index: u16) -> Option<CompressQueue> {
        self.queues.get_mut(usize::from(index))?.take()
    }
}

/// What the device can do with deflate.
fn features(device: &Device) -> Result<u64, Error> {
    let deflate = raw::rte_comp_algorithm::RTE_COMP_ALGO_DEFLATE;
    // SAFETY: the device exists; the answer is a table of the driver's that lives as long.
    let found = unsafe { raw::rte_compressdev_capability_get(device.id, deflate) };
    match NonNull::new(found.cast_mut()) {
        // SAFETY: not null, and initialised by the driver.
        Some(found) => Ok(unsafe { found.as_ref() }.comp_feature_flags),
        None => {
            Err(Error::new(&device.name, "use the device", libc::ENOTSUP, "it has no deflate".to_owned()))
        }
    }
}

impl Device {
    fn attach(_: Eal, device: &str) -> Result<Self, Error> {
        // SAFETY: the EAL runs; the name is terminated.
        let find = |name| unsafe { raw::rte_compressdev_get_dev_id(name) };
        Ok(Self { id: accel::attach(device, "compression", find)?, name: device.to_owned() })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no queue pair is left.
        unsafe { raw::rte_compressdev_stop(self.id) };
        accel::detach(&self.name);
    }
}

impl CompressQueue {
    fn new(
        device: Arc<Device>,
        index: u16,
        depth: u16,
        level: Option<u8>,
        features: u64,
    ) -> Result<Self, Error> {
        let private = u16::try_from(raw::K_COMP_OP_PRIVATE).unwrap_or(u16::MAX);
        let ops = OpPool::make(&device.name, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_comp_op_pool_create(name, u32::from(depth), 0, private, -1) }
        })?;
        // A transform that may not be shared serves one job at a time.
        let shared = features & raw::K_RTE_COMP_FF_SHAREABLE_PRIV_XFORM != 0;
        let most = if shared { usize::from(depth) } else { 1 };
        let dynamic = features & raw::K_RTE_COMP_FF_HUFFMAN_DYNAMIC != 0;
        let compress = transform(&device, most, &compressing(level, dynamic))?;
        let decompress = transform(&device, most, &decompressing()).inspect_err(|_| {
            // SAFETY: just made, not in use.
            let _ = unsafe { raw::rte_compressdev_private_xform_free(device.id, compress.raw.as_ptr()) };
        })?;
        Ok(Self { transforms: [compress, decompress], ops, index, depth: usize::from(depth), device })
    }

    /// Gives at most [`BURST_MAX`] jobs to the device, from the front; what it has no room for stays, in order.
    pub fn enqueue(&mut self, jobs: &mut Vec<CompressJob>) -> usize {
        let mut ops = [ptr::null_mut::<raw::rte_comp_op>(); BURST_MAX];
        let mut room = self.transforms.each_ref().map(|transform| transform.most - transform.under_way);
        let mut filled = 0;
        for (op, job) in ops.iter_mut().zip(jobs.iter()) {
            let room = &mut room[job.direction as usize];
            let Some(made) = (*room > 0).then(|| self.fill(job)).flatten() else { break };
            *op = made.as_ptr();
            *room -= 1;
            filled += 1;
        }
        let count = u16::try_from(filled).unwrap_or(0);
        // SAFETY: `count` filled operations of ours; this is the only handle to the queue pair, and the device is
        // started.
        let taken = unsafe {
            raw::rte_compressdev_enqueue_burst(self.device.id, self.index, ops.as_mut_ptr(), count)
        };
        let taken = usize::from(taken);
        for &op in ops.iter().take(filled).skip(taken) {
            // SAFETY: not taken: still ours, and its job still owns the buffers.
            unsafe { raw::rte_comp_op_free(op) };
        }
        for job in jobs.drain(..taken) {
            self.transforms[job.direction as usize].under_way += 1;
            // The device has them now.
            let _ = (job.from.into_raw(), job.to.into_raw());
        }
        taken
    }

    /// An operation for the job, which keeps its buffers; `None` if they have run out.
    fn fill(&self, job: &CompressJob) -> Option<NonNull<raw::rte_comp_op>> {
        // SAFETY: a pool of such operations.
        let op = NonNull::new(unsafe { raw::rte_comp_op_alloc(self.ops.as_raw()) })?;
        let transform = self.transforms[job.direction as usize].raw.as_ptr();
        let own = raw::towpath_comp_private { token: job.token, transform: job.direction as u32 };
        let (from, to) = (job.from.as_raw(), job.to.as_raw());
        // SAFETY: the operation is ours, the buffers are the job's, and the transform lives as long as the queue.
        unsafe { raw::towpath_comp_op_fill(op.as_ptr(), transform, from, to, own) };
        Some(op)
    }

    /// Appends jobs that are done, at most [`BURST_MAX`].
    pub fn dequeue(&mut self, done: &mut Vec<Compressed>) -> usize {
        let mut ops = [ptr::null_mut::<raw::rte_comp_op>(); BURST_MAX];
        let (room, into) = (u16::try_from(ops.len()).unwrap_or(0), ops.as_mut_ptr());
        // SAFETY: as much room as said; the queue pair is used by nobody else.
        let count = unsafe { raw::rte_compressdev_dequeue_burst(self.device.id, self.index, into, room) };
        let before = done.len();
        done.extend(ops.iter().take(usize::from(count)).filter_map(|&op| NonNull::new(op)).map(|op| {
            // SAFETY: given back by the device: one of ours.
            let (transform, finished) = unsafe { finish(op) };
            self.transforms[transform].under_way -= 1;
            finished
        }));
        done.len() - before
    }

    /// Jobs under way.
    pub fn under_way(&self) -> usize {
        self.transforms.iter().map(|transform| transform.under_way).sum()
    }

    /// Jobs there may be under way.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

/// Takes a finished operation apart and frees it.
///
/// # Safety
/// `op` was made by `fill` and has been dequeued.
unsafe fn finish(op: NonNull<raw::rte_comp_op>) -> (usize, Compressed) {
    // SAFETY: ours again; initialised by us, its results by the device.
    let seen = unsafe { op.as_ref() };
    // SAFETY: as above.
    let own = unsafe { raw::towpath_comp_op_own(op.as_ptr()) };
    // SAFETY: a buffer that `enqueue` gave away, owned by nobody else since.
    let from = unsafe { Mbuf::from_raw(seen.m_src) };
    // SAFETY: as above.
    let mut to = unsafe { Mbuf::from_raw(seen.m_dst) };
    let outcome = match u32::from(seen.status) {
        SUCCESS if to.set_len(seen.produced as usize) => {
            CompressOutcome::Done { consumed: seen.consumed as usize }
        }
        OUT_OF_SPACE => CompressOutcome::OutOfSpace,
        _ => CompressOutcome::Failed { status: seen.status },
    };
    // SAFETY: taken apart; not used again.
    unsafe { raw::rte_comp_op_free(op.as_ptr()) };
    (own.transform as usize, Compressed { token: own.token, from, to, outcome })
}

const SUCCESS: u32 = raw::rte_comp_op_status::RTE_COMP_OP_STATUS_SUCCESS;
const OUT_OF_SPACE: u32 = raw::rte_comp_op_status::RTE_COMP_OP_STATUS_OUT_OF_SPACE_TERMINATED;

fn compressing(level: Option<u8>, dynamic: bool) -> raw::rte_comp_xform {
    use raw::rte_comp_huffman::{RTE_COMP_HUFFMAN_DYNAMIC, RTE_COMP_HUFFMAN_FIXED};
    let mut xform = raw::rte_comp_xform {
        type_: raw::rte_comp_xform_type::RTE_COMP_COMPRESS,
        ..raw::rte_comp_xform::default()
    };
    let mut own = raw::rte_comp_compress_xform {
        algo: raw::rte_comp_algorithm::RTE_COMP_ALGO_DEFLATE,
        // -1: the driver's own.
        level: level.map_or(-1, i32::from),
        window_size: WINDOW,
        chksum: raw::rte_comp_checksum_type::RTE_COMP_CHECKSUM_NONE,
        hash_algo: raw::rte_comp_hash_algorithm::RTE_COMP_HASH_ALGO_NONE,
        ..raw::rte_comp_compress_xform::default()
    };
    own.__bindgen_anon_1.deflate.huffman =
        if dynamic { RTE_COMP_HUFFMAN_DYNAMIC } else { RTE_COMP_HUFFMAN_FIXED };
    xform.__bindgen_anon_1.compress = own;
    xform
}

fn decompressing() -> raw::rte_comp_xform {
    let mut xform = raw::rte_comp_xform {
        type_: raw::rte_comp_xform_type::RTE_COMP_DECOMPRESS,
        ..raw::rte_comp_xform::default()
    };
    xform.__bindgen_anon_1.decompress = raw::rte_comp_decompress_xform {
        algo: raw::rte_comp_algorithm::RTE_COMP_ALGO_DEFLATE,
        chksum: raw::rte_comp_checksum_type::RTE_COMP_CHECKSUM_NONE,
        window_size: WINDOW,
        hash_algo: raw::rte_comp_hash_algorithm::RTE_COMP_HASH_ALGO_NONE,
    };
    xform
}

fn transform(device: &Device, most: usize, what: &raw::rte_comp_xform) -> Result<Transform, Error> {
    let mut made = ptr::null_mut();
    // SAFETY: the device is configured; the description is read during the call only.
    let result = unsafe { raw::rte_compressdev_private_xform_create(device.id, what, &raw mut made) };
    check(&device.name, "set up deflate", result)?;
    let raw = NonNull::new(made).ok_or_else(|| Error::from_result(&device.name, "set up deflate", -1))?;
    Ok(Transform { raw, under_way: 0, most })
}

impl Drop for CompressQueue {
    fn drop(&mut self) {
        // Buffers under way come back first. Hardware that has died keeps them, and what they need.
        let mut done = Vec::new();
        for _ in 0..DRAIN_POLLS_MAX {
            if self.under_way() == 0 {
                break;
            }
            self.dequeue(&mut done);
            done.clear();
        }
        if self.under_way() > 0 {
            core::mem::forget(Arc::clone(&self.device));
            return;
        }
        for transform in &self.transforms {
            // SAFETY: no job uses it any more.
            let _ =
                unsafe { raw::rte_compressdev_private_xform_free(self.device.id, transform.raw.as_ptr()) };
        }
    }
}

/// How often a queue that is dropped asks for jobs under way.
const DRAIN_POLLS_MAX: u32 = 1_000_000;

impl fmt::Debug for CompressQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressQueue({} of {}, {} under way)", self.index, self.device.name, self.under_way())
    }
}
