//! Deflate (RFC 1951, no header, no checksum) by a compressdev: `compress_isal0`, `compress_zlib0`, QAT, BlueField.
//!
//! A job gives its two vectors to the queue pair, which has them until the device is done: what the device is pointed
//! at can be neither freed nor touched meanwhile. The input is only read and the output only written beyond its
//! length, so a job that fails comes back as it was.

mod queue;

use core::ops::Range;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::accel::{self, AcceleratorOptions, Buffers, check};
use super::segments::{Reach, SEGMENT_BYTES};
use super::{Eal, Error, raw};

pub use queue::CompressQueue;
use queue::Transform;

/// What to do with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Deflate.
    Compress,
    /// Inflate.
    Decompress,
}

/// Bytes to compress or decompress.
#[derive(Debug)]
pub struct CompressJob<T> {
    /// What to do.
    pub direction: Direction,
    /// Where in the input the bytes are; not empty.
    pub body: Range<usize>,
    /// The most that is appended to the output.
    pub room: usize,
    /// Comes back with it.
    pub with: T,
}

/// A job that came back.
#[derive(Debug)]
pub struct Compressed<T> {
    /// With its vectors: the input as it was, the output longer by the result if all went well, else as it was.
    pub with: T,
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
    /// It was given up ([`CompressQueue::abandon`]).
    Abandoned,
}

/// An open device.
#[derive(Debug)]
pub struct Compressor<T: Buffers> {
    queues: Vec<Option<CompressQueue<T>>>,
}

/// Which ends may be chains.
#[derive(Clone, Copy, Debug)]
struct Ways {
    from: bool,
    to: bool,
    both: bool,
}

impl Ways {
    fn of(flags: u64) -> Self {
        let has = |flag| flags & flag != 0;
        Self {
            from: has(raw::K_RTE_COMP_FF_OOP_SGL_IN_LB_OUT),
            to: has(raw::K_RTE_COMP_FF_OOP_LB_IN_SGL_OUT),
            both: has(raw::K_RTE_COMP_FF_OOP_SGL_IN_SGL_OUT),
        }
    }

    fn take(self, given: usize, room: usize) -> bool {
        match (given > SEGMENT_BYTES, room > SEGMENT_BYTES) {
            (false, false) => true,
            (true, false) => self.from,
            (false, true) => self.to,
            (true, true) => self.both,
        }
    }
}

#[derive(Debug)]
struct Device {
    id: u8,
    name: String,
}

/// Log2 of deflate's window.
const WINDOW: u8 = 15;

impl<T: Buffers> Compressor<T> {
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
        let queue = |index| CompressQueue::new(eal, Arc::clone(&shared), index, options, level, features);
        let queues: Result<Vec<_>, Error> = (0..options.queues).map(|index| queue(index).map(Some)).collect();
        Ok(Self { queues: queues? })
    }

    /// A queue pair; each can be taken once.
    pub fn queue(&mut self, index: u16) -> Option<CompressQueue<T>> {
        self.queues.get_mut(usize::from(index))?.take()
    }
}

/// How the device gets at bytes, and which ends of a job may be chains.
fn reach(device: &Device, copies: bool, features: u64) -> (Reach, [Ways; 2]) {
    let mut info = raw::rte_compressdev_info::default();
    // SAFETY: the device exists; the struct is filled in.
    unsafe { raw::rte_compressdev_info_get(device.id, &raw mut info) };
    let is_hardware = info.feature_flags & raw::K_RTE_COMPDEV_FF_HW_ACCELERATED != 0;
    // SAFETY: filled in by the device's driver.
    let is_software = !is_hardware && unsafe { accel::is_software(info.driver_name) };
    let reach = if is_software && !copies { Reach::Pointed } else { Reach::Copied };
    // compress_isal (22.11 to 26.11 at least) inflates a chain in a loop that never ends if the stream is cut short.
    // SAFETY: as above.
    let inflates_chains = unsafe { accel::driver(info.driver_name) } != c"compress_isal";
    let ways = Ways::of(features);
    (reach, [ways, if inflates_chains { ways } else { Ways::of(0) }])
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
        Ok(Self { id: accel::attach(device, &[], "compression", find)?, name: device.to_owned() })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no queue pair is left.
        unsafe { raw::rte_compressdev_stop(self.id) };
        accel::detach(&self.name);
    }
}

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
