//! AES-GCM by a cryptodev: `crypto_aesni_gcm0`, `crypto_openssl0`, QAT.
//!
//! A job gives its two vectors to the queue pair, which has them until the device is done: what the device is pointed
//! at can be neither freed nor touched meanwhile. What comes out takes the text's place in the input. Drivers that work on
//! the calling core do that in place (`prompt`); of all others the input is only read until the device is done, and a
//! job that fails comes back with it as it was (`ops`). A session is a key for one direction; it belongs to a queue pair
//! and lives as long, or until it is ended with no job under way.

mod ops;
mod prompt;
mod queue;
mod slot;

use core::ffi::c_void;
use core::fmt;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::accel::{self, AcceleratorOptions, Buffers, OpPool, check};
use super::segments::Reach;
use super::{Eal, Error, raw};

pub use queue::CryptoQueue;

/// Bytes of a nonce.
pub const IV_LEN: usize = raw::K_AEAD_IV_LEN;
/// Bytes of a tag, which follows the text.
pub const TAG_LEN: usize = raw::K_AEAD_TAG_LEN;
/// The most associated data.
pub const AAD_MAX: usize = raw::K_AEAD_AAD_MAX;

/// A key of a queue pair's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(u32);

/// What comes back with a job, and knows what its text is bound to.
pub trait Bound: Buffers {
    /// How many bytes of associated data there are.
    fn aad_len(&self) -> usize;

    /// Writes the nonce, never the same twice with one key, and the associated data where the device reads them. Asked
    /// once, any time before the device works on the job.
    fn bind(&self, nonce: &mut [u8; IV_LEN], aad: &mut [u8; AAD_MAX]);
}

/// Bytes to encrypt or decrypt, as the session says.
#[derive(Debug)]
pub struct SealJob<T> {
    /// With which key.
    pub session: SessionId,
    /// Where in the input the text begins; to decrypt, the tag is at its end.
    pub start: usize,
    /// Comes back with it. What comes out takes the text's place in its input: text and tag; decrypted, the text alone.
    /// Its output is room for the queue pair to work in.
    pub with: T,
}

/// A job that came back.
#[derive(Debug)]
pub struct Sealed<T> {
    /// With its vectors: the input with the result, if all went well; what is before the text is as it was.
    pub with: T,
    /// How it went.
    pub outcome: SealOutcome,
}

/// How a job went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealOutcome {
    /// Well.
    Done,
    /// The tag is wrong: this is not what was encrypted. The text may be gone.
    Forged,
    /// The device refused or failed; the input is as it was.
    Failed {
        /// Its own number for it.
        status: u8,
    },
    /// The device refused or failed, and the text may be gone.
    Lost {
        /// Its own number for it, an errno.
        status: u8,
    },
    /// It was given up ([`CryptoQueue::abandon`]); the input is as it was.
    Abandoned,
}

/// An open device.
#[derive(Debug)]
pub struct Cipher<T: Bound> {
    queues: Vec<Option<CryptoQueue<T>>>,
}

/// What of chains the device takes.
#[derive(Clone, Copy, Debug)]
struct Ways {
    /// One segment in, another out.
    apart: bool,
    /// Chains in, others out.
    apart_chained: bool,
    /// A chain in place.
    within_chained: bool,
    /// At once, on the calling core.
    prompt: bool,
}

struct Device {
    id: u8,
    name: String,
    /// Made once the device is known; dropped after it is closed.
    sessions: Option<OpPool>,
}

/// What sessions have room for at least: crypto_scheduler writes its table of workers without having asked for it.
const SESSION_BYTES_MIN: u32 = 256;

impl<T: Bound> Cipher<T> {
    /// Opens a device for at most `sessions_max` keys in all.
    pub fn open(
        eal: Eal,
        device: &str,
        options: AcceleratorOptions,
        sessions_max: u32,
    ) -> Result<Self, Error> {
        let workers = accel::workers(device);
        let mut own = Device::attach(eal, device, &workers)?;
        let id = own.id;
        let mut config =
            raw::rte_cryptodev_config { socket_id: -1, nb_queue_pairs: options.queues, ff_disable: 0 };
        // SAFETY: the device exists and is stopped; the configuration is read during the call.
        let result = unsafe { raw::rte_cryptodev_configure(id, &raw mut config) };
        check(device, "configure the device", result).map_err(|error| with_workers(error, &workers))?;
        // SAFETY: the device exists.
        let size = unsafe { raw::rte_cryptodev_sym_get_private_session_size(id) }.max(SESSION_BYTES_MIN);
        // A scheduler's session has one for each of its workers.
        let sessions = sessions_max.saturating_mul(1 + u32::try_from(workers.len()).unwrap_or(0));
        let pool = OpPool::make(device, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_cryptodev_sym_session_pool_create(name, sessions, size, 0, 0, -1) }
        })?;
        let pair = raw::rte_cryptodev_qp_conf {
            nb_descriptors: u32::from(options.depth),
            mp_session: pool.as_raw(),
        };
        own.sessions = Some(pool);
        for index in 0..options.queues {
            // SAFETY: configured and stopped; the pool outlives the device's being open.
            let result = unsafe { raw::rte_cryptodev_queue_pair_setup(id, index, &raw const pair, -1) };
            check(device, "set up a queue pair", result)?;
        }
        // SAFETY: configured, every queue pair set up.
        let started = check(device, "start the device", unsafe { raw::rte_cryptodev_start(id) });
        started.map_err(|error| with_workers(error, &workers))?;
        let (flags, is_software) = abilities(id, &workers);
        let reach = if is_software && !options.copies { Reach::Pointed } else { Reach::Copied };
        let mut ways = Ways::of(flags);
        // A scheduler says so, and cannot.
        ways.prompt &= workers.is_empty() && own.is_prompt();
        let shared = Arc::new(own);
        let queue = |index| CryptoQueue::new(eal, Arc::clone(&shared), (index, options.depth), reach, ways);
        let queues: Result<Vec<_>, Error> = (0..options.queues).map(|index| queue(index).map(Some)).collect();
        Ok(Self { queues: queues? })
    }

    /// A queue pair; each can be taken once.
    pub fn queue(&mut self, index: u16) -> Option<CryptoQueue<T>> {
        self.queues.get_mut(usize::from(index))?.take()
    }
}

/// What a scheduler needs, for one that was given nothing.
fn with_workers(error: Error, workers: &[&str]) -> Error {
    if workers.is_empty() && error.device.starts_with(accel::SCHEDULER) {
        return error.with_hint(
            "a scheduler needs workers and a mode, as in \
             crypto_scheduler0,worker=crypto_aesni_gcm0,worker=crypto_aesni_gcm1,mode=round-robin",
        );
    }
    if error.device.starts_with(accel::SCHEDULER) && !error.device.contains("mode=") {
        return error.with_hint("a scheduler needs a mode: round-robin, packet-size-distr or fail-over");
    }
    error
}

/// What the device can do, and whether it is software. A scheduler says what any of its workers can: we want what they
/// all can, and it is what they all are.
fn abilities(id: u8, workers: &[&str]) -> (u64, bool) {
    let of = |id| {
        let mut info = raw::rte_cryptodev_info::default();
        // SAFETY: the device exists; the struct is filled in.
        unsafe { raw::rte_cryptodev_info_get(id, &raw mut info) };
        let is_hardware = info.feature_flags & raw::K_RTE_CRYPTODEV_FF_HW_ACCELERATED != 0;
        // SAFETY: filled in by the device's driver.
        (info.feature_flags, !is_hardware && unsafe { accel::is_software(info.driver_name) })
    };
    workers
        .iter()
        .filter_map(|name| accel::number(name, find))
        .map(of)
        .fold(of(id), |all, one| (all.0 & one.0, all.1 && one.1))
}

fn find(name: *const core::ffi::c_char) -> i32 {
    // SAFETY: a terminated string, read during the call only.
    unsafe { raw::rte_cryptodev_get_dev_id(name) }
}

impl Ways {
    fn of(flags: u64) -> Self {
        let has = |flag| flags & flag != 0;
        Self {
            apart: has(raw::K_RTE_CRYPTODEV_FF_OOP_LB_IN_LB_OUT),
            apart_chained: has(raw::K_RTE_CRYPTODEV_FF_OOP_SGL_IN_SGL_OUT),
            within_chained: has(raw::K_RTE_CRYPTODEV_FF_IN_PLACE_SGL),
            prompt: has(raw::K_RTE_CRYPTODEV_FF_SYM_CPU_CRYPTO),
        }
    }
}

impl Device {
    fn attach(_: Eal, device: &str, workers: &[&str]) -> Result<Self, Error> {
        let id = accel::attach(device, workers, "cryptography", find)?;
        Ok(Self { id, name: device.to_owned(), sessions: None })
    }

    /// A session for a key of 16 or 32 bytes. `None`: refused, and the library's error number says why.
    fn session(&self, key: &[u8], seals: bool, aad_len: usize) -> Option<NonNull<c_void>> {
        let pool = self.sessions.as_ref().map_or(ptr::null_mut(), OpPool::as_raw);
        let [key_len, aad_len] = [key.len(), aad_len].map(|len| u16::try_from(len).unwrap_or(0));
        let (seals, key) = (seals.into(), key.as_ptr());
        // SAFETY: the device is started; the key is copied; the pool is the one the device was set up with.
        NonNull::new(unsafe { raw::towpath_aead_session(self.id, seals, key, key_len, aad_len, pool) })
    }

    /// Ends a session.
    ///
    /// # Safety
    /// It is the device's, no job uses it, and none will.
    unsafe fn end(&self, session: NonNull<c_void>) {
        // SAFETY: the caller vouches for it.
        let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.id, session.as_ptr()) };
    }

    /// True if it does a job at once, whatever it says of itself.
    fn is_prompt(&self) -> bool {
        let Some(session) = self.session(&[0; 16], true, 0) else { return false };
        // SAFETY: such a session, fresh.
        let is_prompt = unsafe { prompt::is_prompt(self.id, session) };
        // SAFETY: of this device, and used by nobody else.
        unsafe { self.end(session) };
        is_prompt
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no queue pair is left.
        unsafe { raw::rte_cryptodev_stop(self.id) };
        accel::detach(&self.name);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}
