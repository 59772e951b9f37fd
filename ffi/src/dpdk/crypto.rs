//! AES-GCM in place by a cryptodev: `crypto_aesni_gcm0`, `crypto_openssl0`, QAT.
//!
//! A job owns its buffer; so does the device while it works on it, and what comes out owns it again. A session is
//! a key for one direction; it belongs to a queue pair and lives as long, or until it is ended with no job under way.

use core::ffi::c_void;
use core::fmt;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::accel::{self, AcceleratorOptions, BURST_MAX, OpPool, check};
use super::{Eal, Error, Mbuf, raw};

/// Bytes of a nonce.
pub const IV_LEN: usize = raw::K_AEAD_IV_LEN;
/// Bytes of a tag, which follows the text.
pub const TAG_LEN: usize = raw::K_AEAD_TAG_LEN;
/// The most associated data.
pub const AAD_MAX: usize = raw::K_AEAD_AAD_MAX;

/// A key of a queue pair's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(u32);

/// One buffer to encrypt or decrypt, as the session says.
#[derive(Debug)]
pub struct SealJob {
    /// With which key.
    pub session: SessionId,
    /// The text; to decrypt, with its tag at the end. To encrypt it needs room for [`TAG_LEN`] more bytes.
    pub buffer: Mbuf,
    /// The nonce: never twice with one key.
    pub iv: [u8; IV_LEN],
    /// Associated data, as much as the session was made for.
    pub aad: [u8; AAD_MAX],
    /// Comes out with the result.
    pub token: u64,
}

/// A job that is done.
#[derive(Debug)]
pub struct Sealed {
    /// The job's own.
    pub token: u64,
    /// Encrypted: text and tag. Decrypted: the text. Anything if it failed.
    pub buffer: Mbuf,
    /// How it went.
    pub outcome: SealOutcome,
}

/// How a job went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealOutcome {
    /// Well.
    Done,
    /// The tag is wrong: this is not what was encrypted.
    Forged,
    /// The device refused or failed.
    Failed {
        /// Its own number for it.
        status: u8,
    },
}

/// An open device.
#[derive(Debug)]
pub struct Cipher {
    queues: Vec<Option<CryptoQueue>>,
}

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CryptoQueue {
    sessions: Vec<Option<Session>>,
    under_way: usize,
    ops: OpPool,
    index: u16,
    device: Arc<Device>,
}

struct Session {
    raw: NonNull<c_void>,
    seals: bool,
    aad_len: usize,
    under_way: usize,
}

// SAFETY: a session belongs to its queue pair, which is used by one thread at a time.
unsafe impl Send for Session {}

struct Device {
    id: u8,
    name: String,
    /// Made once the device is known; dropped after it is closed.
    sessions: Option<OpPool>,
}

const SUCCESS: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_SUCCESS;
const FORGED: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_AUTH_FAILED;
/// How often a queue that is dropped asks for jobs under way.
const DRAIN_POLLS_MAX: u32 = 1_000_000;

impl Cipher {
    /// Opens a device for at most `sessions_max` keys in all.
    pub fn open(
        eal: Eal,
        device: &str,
        options: AcceleratorOptions,
        sessions_max: u32,
    ) -> Result<Self, Error> {
        let mut own = Device::attach(eal, device)?;
        let id = own.id;
        let mut config =
            raw::rte_cryptodev_config { socket_id: -1, nb_queue_pairs: options.queues, ff_disable: 0 };
        // SAFETY: the device exists and is stopped; the configuration is read during the call.
        let result = unsafe { raw::rte_cryptodev_configure(id, &raw mut config) };
        check(device, "configure the device", result)?;
        // SAFETY: the device exists.
        let size = unsafe { raw::rte_cryptodev_sym_get_private_session_size(id) };
        let pool = OpPool::make(device, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_cryptodev_sym_session_pool_create(name, sessions_max, size, 0, 0, -1) }
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
        check(device, "start the device", unsafe { raw::rte_cryptodev_start(id) })?;
        let shared = Arc::new(own);
        let queue = |index| CryptoQueue::new(Arc::clone(&shared), index, options.depth);
        let queues: Result<Vec<_>, Error> = (0..options.queues).map(|index| queue(index).map(Some)).collect();
        Ok(Self { queues: queues? })
    }

    /// A queue pair; each can be taken once.
    pub fn queue(&mut self, index: u16) -> Option<CryptoQueue> {
        self.queues.get_mut(usize::from(index))?.take()
    }
}

impl Device {
    fn attach(_: Eal, device: &str) -> Result<Self, Error> {
        // SAFETY: the EAL runs; the name is terminated.
        let find = |name| unsafe { raw::rte_cryptodev_get_dev_id(name) };
        Ok(Self { id: accel::attach(device, "cryptography", find)?, name: device.to_owned(), sessions: None })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no queue pair is left.
        unsafe { raw::rte_cryptodev_stop(self.id) };
        accel::detach(&self.name);
    }
}

impl CryptoQueue {
    fn new(device: Arc<Device>, index: u16, depth: u16) -> Result<Self, Error> {
        let private = u16::try_from(raw::K_AEAD_PRIVATE).unwrap_or(u16::MAX);
        let symmetric = raw::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC;
        let ops = OpPool::make(&device.name, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_crypto_op_pool_create(name, symmetric, u32::from(depth), 0, private, -1) }
        })?;
        Ok(Self { sessions: Vec::new(), under_way: 0, ops, index, device })
    }

    /// A key of 16 or 32 bytes to encrypt (`seals`) or decrypt with `aad_len` bytes of associated data.
    pub fn session(&mut self, key: &[u8], seals: bool, aad_len: usize) -> Result<SessionId, Error> {
        let doing = "make a session";
        if !matches!(key.len(), 16 | 32) || aad_len > AAD_MAX {
            let what = format!("a key of 16 or 32 bytes, at most {AAD_MAX} of associated data");
            return Err(Error::new(&self.device.name, doing, libc::EINVAL, what));
        }
        let pool = self.device.sessions.as_ref().map_or(ptr::null_mut(), OpPool::as_raw);
        let [key_len, aad_short] = [key.len(), aad_len].map(|len| u16::try_from(len).unwrap_or(0));
        // SAFETY: the device is started; the key is copied; the pool is the one the device was set up with.
        let raw = unsafe {
            raw::towpath_aead_session(self.device.id, seals.into(), key.as_ptr(), key_len, aad_short, pool)
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::last(&self.device.name, doing).with_hint("end sessions that are not used any more")
        })?;
        let session = Session { raw, seals, aad_len, under_way: 0 };
        let free = self.sessions.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.sessions[at] = Some(session);
        Ok(SessionId(u32::try_from(at).unwrap_or(u32::MAX)))
    }

    /// Forgets a key. False, and no effect, while jobs with it are under way.
    pub fn end_session(&mut self, id: SessionId) -> bool {
        let Some(slot) = self.sessions.get_mut(id.0 as usize) else { return false };
        if slot.as_ref().is_none_or(|session| session.under_way > 0) {
            return false;
        }
        if let Some(session) = slot.take() {
            // SAFETY: no job uses it, and it cannot be named any more.
            let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.device.id, session.raw.as_ptr()) };
        }
        true
    }

    /// Gives at most [`BURST_MAX`] jobs to the device, from the front; what it has no room for stays, in order. A
    /// job at the front that can never be done (no such session, no room for the tag, too short for one) goes to
    /// `refused`.
    pub fn enqueue(&mut self, jobs: &mut Vec<SealJob>, refused: &mut Vec<SealJob>) -> usize {
        let mut ops = [ptr::null_mut::<raw::rte_crypto_op>(); BURST_MAX];
        let mut filled = 0;
        for (op, job) in ops.iter_mut().zip(jobs.iter()) {
            let Some(made) = self.text_len(job).and_then(|len| self.fill(job, len)) else { break };
            *op = made.as_ptr();
            filled += 1;
        }
        let count = u16::try_from(filled).unwrap_or(0);
        // SAFETY: `count` filled operations of ours; this is the only handle to the queue pair, and the device is
        // started.
        let taken =
            unsafe { raw::rte_cryptodev_enqueue_burst(self.device.id, self.index, ops.as_mut_ptr(), count) };
        let taken = usize::from(taken);
        for &op in ops.iter().take(filled).skip(taken) {
            // SAFETY: not taken: still ours, and its job still owns the buffer.
            unsafe { raw::rte_crypto_op_free(op) };
        }
        for job in jobs.drain(..taken) {
            if let Some(Some(session)) = self.sessions.get_mut(job.session.0 as usize) {
                session.under_way += 1;
            }
            self.under_way += 1;
            // The device has it now.
            let _ = job.buffer.into_raw();
        }
        if jobs.first().is_some_and(|job| self.text_len(job).is_none()) {
            refused.push(jobs.remove(0));
        }
        taken
    }

    /// The text's length, or `None` if the job makes no sense.
    fn text_len(&self, job: &SealJob) -> Option<usize> {
        let session = self.sessions.get(job.session.0 as usize)?.as_ref()?;
        let len = job.buffer.len();
        if session.seals {
            (len + TAG_LEN <= job.buffer.capacity()).then_some(len)
        } else {
            len.checked_sub(TAG_LEN)
        }
    }

    /// An operation for the job, which keeps its buffer; `None` if they have run out.
    fn fill(&self, job: &SealJob, text_len: usize) -> Option<NonNull<raw::rte_crypto_op>> {
        let symmetric = raw::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC;
        let session = self.sessions.get(job.session.0 as usize)?.as_ref()?;
        // SAFETY: a pool of such operations.
        let op = NonNull::new(unsafe { raw::rte_crypto_op_alloc(self.ops.as_raw(), symmetric) })?;
        let own = raw::towpath_aead_own { token: job.token, session: job.session.0 };
        let (buffer, len) = (job.buffer.as_raw(), u32::try_from(text_len).unwrap_or(0));
        let (key, iv, aad) = (session.raw.as_ptr(), job.iv.as_ptr(), job.aad.as_ptr());
        // SAFETY: the operation is ours with room for what is copied into it: a nonce, and at most `AAD_MAX` bytes
        // of associated data; the buffer has room for text and tag; the session lives as long as jobs with it.
        unsafe { raw::towpath_aead_fill(op.as_ptr(), key, buffer, len, iv, aad, session.aad_len, own) };
        Some(op)
    }

    /// Appends jobs that are done, at most [`BURST_MAX`].
    pub fn dequeue(&mut self, done: &mut Vec<Sealed>) -> usize {
        let mut ops = [ptr::null_mut::<raw::rte_crypto_op>(); BURST_MAX];
        let (room, into) = (u16::try_from(ops.len()).unwrap_or(0), ops.as_mut_ptr());
        // SAFETY: as much room as said; the queue pair is used by nobody else.
        let count = unsafe { raw::rte_cryptodev_dequeue_burst(self.device.id, self.index, into, room) };
        for &op in ops.iter().take(usize::from(count)) {
            // SAFETY: given back by the device: one of ours, with its own words as `fill` wrote them.
            let own = unsafe { raw::towpath_aead_own_of(op) };
            self.under_way -= 1;
            let session = self.sessions.get_mut(own.session as usize).and_then(Option::as_mut);
            let seals = session.is_some_and(|session| {
                session.under_way -= 1;
                session.seals
            });
            // SAFETY: as above.
            done.push(unsafe { finish(op, own.token, seals) });
        }
        usize::from(count)
    }

    /// Jobs under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
}

/// Takes a finished operation apart and frees it.
///
/// # Safety
/// `op` was made by `fill` and has been dequeued.
unsafe fn finish(op: *mut raw::rte_crypto_op, token: u64, seals: bool) -> Sealed {
    // SAFETY: ours again.
    let status = unsafe { raw::towpath_crypto_status(op) };
    // SAFETY: as above.
    let text_len = unsafe { raw::towpath_aead_len(op) } as usize;
    // SAFETY: as above.
    let buffer = unsafe { raw::towpath_aead_buffer(op) };
    // SAFETY: the buffer that `enqueue` gave away, owned by nobody else since.
    let mut buffer = unsafe { Mbuf::from_raw(buffer) };
    let outcome = match u32::from(status) {
        SUCCESS if buffer.set_len(if seals { text_len + TAG_LEN } else { text_len }) => SealOutcome::Done,
        FORGED => SealOutcome::Forged,
        _ => SealOutcome::Failed { status },
    };
    // SAFETY: taken apart; not used again.
    unsafe { raw::rte_crypto_op_free(op) };
    Sealed { token, buffer, outcome }
}

impl Drop for CryptoQueue {
    fn drop(&mut self) {
        // Buffers under way come back first. Hardware that has died keeps them, and what they need.
        let mut done = Vec::new();
        for _ in 0..DRAIN_POLLS_MAX {
            if self.under_way == 0 {
                break;
            }
            self.dequeue(&mut done);
            done.clear();
        }
        if self.under_way > 0 {
            core::mem::forget(Arc::clone(&self.device));
            return;
        }
        for session in self.sessions.drain(..).flatten() {
            // SAFETY: no job uses it any more.
            let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.device.id, session.raw.as_ptr()) };
        }
    }
}

impl fmt::Debug for CryptoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoQueue({} of {}, {} under way)", self.index, self.device.name, self.under_way)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}
