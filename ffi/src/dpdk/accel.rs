//! What compression and cryptography devices have in common: how they come and go, and their operations.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::ffi::{CStr, CString};
#[expect(
    clippy::disallowed_types,
    reason = "taken when a device opens or closes, never on the datapath"
)]
use std::sync::Mutex;
use std::sync::PoisonError;

use super::eal::no_such_device;
use super::port::CONTROL;
use super::{Error, drivers, log, raw};

/// How an accelerator is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceleratorOptions {
    /// Queue pairs: one for each thread that uses it.
    pub queues: u16,
    /// Operations a queue pair may have under way.
    pub depth: u16,
    /// Copies bytes into DPDK's memory and back, as hardware needs it, where the device is software too.
    pub copies: bool,
}

/// What comes back with a job, and has the job's vectors. A queue pair takes them out while the job is under way, and
/// puts them back.
pub trait Buffers {
    /// Input and output.
    fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>);
}

/// Why a job was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No room now.
    Full,
    /// The device cannot do this one.
    Unfit,
}

impl Default for AcceleratorOptions {
    fn default() -> Self {
        Self { queues: 1, depth: 256, copies: false }
    }
}

/// The most jobs one call moves.
pub const BURST_MAX: usize = 32;
/// Bytes of text that software works on at a time, unless one job alone has more: it does so on the calling core.
pub(super) const TURN_BYTES: usize = 64 << 10;
/// How often a queue that is dropped asks for jobs under way.
const DRAIN_POLLS_MAX: u32 = 1_000_000;
/// The driver whose devices are made of others.
pub(super) const SCHEDULER: &str = "crypto_scheduler";

/// Names of devices that are open. A device once made stays, stopped, for the next to open it: DPDK 22.11 cannot
/// make a compression device again after one was removed.
#[expect(clippy::disallowed_types, reason = "taken when a device opens or closes, never on the datapath")]
static OPEN: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// The devices that a scheduler's device string names.
pub(super) fn workers(device: &str) -> Vec<&str> {
    if !device.starts_with(SCHEDULER) {
        return Vec::new();
    }
    device.split(',').filter_map(|part| part.strip_prefix("worker=")).collect()
}

/// Drivers that work with this process's own memory, wherever it is. Any other is taken for hardware's: not all of
/// those say so.
const SOFTWARE: [&CStr; 6] = [
    c"compress_isal",
    c"compress_zlib",
    c"crypto_aesni_gcm",
    c"crypto_aesni_mb",
    c"crypto_openssl",
    c"crypto_scheduler",
];

/// A driver's name.
///
/// # Safety
/// Null or as a driver has it: terminated, for ever.
pub(super) unsafe fn driver(name: *const core::ffi::c_char) -> &'static CStr {
    // SAFETY: not null, and as the caller says.
    if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } }
}

/// True if a driver of this name may be pointed at any memory of ours.
///
/// # Safety
/// As [`driver`].
pub(super) unsafe fn is_software(name: *const core::ffi::c_char) -> bool {
    // SAFETY: the caller vouches for it.
    SOFTWARE.contains(&unsafe { driver(name) })
}

/// A device's number by its name: `find` asks the library for it, and answers below zero if there is none.
pub(super) fn number(device: &str, find: impl Fn(*const core::ffi::c_char) -> i32) -> Option<u8> {
    u8::try_from(find(name_of(device).as_ptr())).ok()
}

/// The device's number, after its workers, if it has some, have been made too.
pub(super) fn attach(
    device: &str,
    workers: &[&str],
    kind: &str,
    find: impl Fn(*const core::ffi::c_char) -> i32,
) -> Result<u8, Error> {
    let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    log::begin();
    for device in workers.iter().copied().chain([device]) {
        let refused = |errno, hint: &str| Error::new(device, "open the device", errno, hint.to_owned());
        let text = CString::new(device).map_err(|_| refused(libc::EINVAL, "it contains a NUL"))?;
        if open.contains(&name_of(device)) {
            return Err(refused(libc::EEXIST, "it is open already"));
        }
        if number(device, &find).is_none() {
            probe(device, &text)?;
        }
        if number(device, &find).is_none() {
            if !drivers::is_pci(device) {
                // SAFETY: both strings are terminated; what was just made is nobody's.
                let _ = unsafe { raw::rte_eal_hotplug_remove(c"vdev".as_ptr(), name_of(device).as_ptr()) };
            }
            return Err(refused(libc::ENODEV, &format!("it is not a {kind} device")));
        }
    }
    open.extend(workers.iter().copied().chain([device]).map(name_of));
    number(device, &find)
        .ok_or_else(|| Error::new(device, "open the device", libc::ENODEV, "it went away".to_owned()))
}

fn probe(device: &str, text: &CStr) -> Result<(), Error> {
    // SAFETY: the EAL runs (the caller holds an `Eal`); the string is read during the call only.
    let result = unsafe { raw::rte_dev_probe(text.as_ptr()) };
    if result < 0 {
        let error = Error::from_result(device, "open the device", result);
        return Err(error.with_hint(no_such_device(device)));
    }
    Ok(())
}

/// Lets somebody else open the device, which is stopped, and its workers.
pub(super) fn detach(device: &str) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in workers(device).into_iter().chain([device]) {
        let name = name_of(device);
        open.retain(|other| *other != name);
    }
}

/// The name of a device string, terminated.
fn name_of(device: &str) -> CString {
    CString::new(device.split(',').next().unwrap_or(device)).unwrap_or_default()
}

/// A pool of operations or sessions, freed with its owner.
pub(super) struct OpPool(NonNull<raw::rte_mempool>);

// SAFETY: a pool may be used from any thread.
unsafe impl Send for OpPool {}
// SAFETY: as above.
unsafe impl Sync for OpPool {}

impl OpPool {
    /// From what a `pool_create` function gave for the name.
    pub(super) fn make(
        device: &str,
        create: impl FnOnce(*const core::ffi::c_char) -> *mut raw::rte_mempool,
    ) -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("towpath-ops-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap_or_default();
        NonNull::new(create(name.as_ptr())).map(Self).ok_or_else(|| {
            Error::last(device, "make a pool of operations")
                .with_hint("give DPDK more memory or a smaller depth")
        })
    }

    pub(super) fn as_raw(&self) -> *mut raw::rte_mempool {
        self.0.as_ptr()
    }
}

impl Drop for OpPool {
    fn drop(&mut self) {
        // SAFETY: a pool lives until here.
        let size = unsafe { raw::towpath_pool_size(self.0.as_ptr()) };
        // SAFETY: as above.
        let home = unsafe { raw::rte_mempool_avail_count(self.0.as_ptr()) };
        // What hardware has not given back keeps its memory.
        if home == size {
            // SAFETY: everything is back, and nobody else has the pool.
            unsafe { raw::rte_mempool_free(self.0.as_ptr()) };
        }
    }
}

/// Polls a queue pair that is dropped until nothing is under way; `poll` says how much is. False if some of it will
/// not come back: hardware that has died keeps its device open, the operations, and the memory it may still write.
pub(super) fn drains(mut poll: impl FnMut() -> usize) -> bool {
    (0..DRAIN_POLLS_MAX).any(|_| poll() == 0)
}

/// Checks a result of a device's.
pub(super) fn check(device: &str, doing: &'static str, result: i32) -> Result<(), Error> {
    if result < 0 { Err(Error::from_result(device, doing, result)) } else { Ok(()) }
}
