//! A queue pair of a cryptodev: jobs in, bursts to the device, jobs out.
//!
//! Each operation has a slot for ever, which holds the job while the operation is staged or at the device.

use core::ffi::c_void;
use core::fmt;
use core::mem;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::accel::{BURST_MAX, OpPool, Refusal, drains};
use super::super::segments::{Chain, Reach, SEGMENT_BYTES, Segments};
use super::super::{Eal, Error, raw};
use super::{AAD_MAX, Device, IV_LEN, SealJob, SealOutcome, Sealed, SessionId, TAG_LEN, Ways};

const SUCCESS: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_SUCCESS;
const FORGED: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_AUTH_FAILED;
const NO_STATUS: u8 = u8::MAX;

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CryptoQueue<T> {
    sessions: Vec<Option<Session>>,
    slots: Vec<Slot<T>>,
    /// Slots without a job; the last used last.
    free: Vec<u32>,
    /// Operations filled in, not yet handed over, in order, and their slots.
    staged: Vec<NonNull<raw::rte_crypto_op>>,
    staged_slots: Vec<u32>,
    /// Slots of operations that the driver would not take.
    refused: Vec<u32>,
    /// Jobs of the caller's that are here.
    jobs: usize,
    /// Operations at the device.
    under_way: usize,
    segments: Segments,
    ways: Ways,
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

// SAFETY: sessions, operations and segments belong to the queue pair, and whoever has it is the one thread that uses
// them; vectors under way are the queue's own.
unsafe impl<T: Send> Send for CryptoQueue<T> {}

/// An operation, and the job it is for. Invariant: unless it is idle, nobody reads or writes `output` beyond its length,
/// or changes or frees either vector: the device may have their addresses.
struct Slot<T> {
    op: NonNull<raw::rte_crypto_op>,
    /// In the operation: nonce, tag, associated data.
    own: NonNull<raw::towpath_aead_private>,
    at: At,
    input: Vec<u8>,
    output: Vec<u8>,
    /// None once the job was given up.
    with: Option<T>,
    from: Option<Chain>,
    /// None: in place.
    to: Option<Chain>,
    session: SessionId,
    text_len: usize,
}

/// Where an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Idle,
    Staged,
    Device,
}

impl<T> CryptoQueue<T> {
    pub(super) fn new(
        eal: Eal,
        device: Arc<Device>,
        index: u16,
        depth: u16,
        reach: Reach,
        ways: Ways,
    ) -> Result<Self, Error> {
        let private = u16::try_from(raw::K_AEAD_PRIVATE).unwrap_or(u16::MAX);
        let symmetric = raw::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC;
        let ops = OpPool::make(&device.name, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_crypto_op_pool_create(name, symmetric, u32::from(depth), 0, private, -1) }
        })?;
        // In place in a copy, or from one vector to the other.
        let ends = if reach == Reach::Copied { 1 } else { 2 };
        let segments = Segments::new(eal, &device.name, reach, depth, ends)?;
        let count = usize::from(depth);
        let mut own = Self {
            sessions: Vec::new(),
            slots: Vec::with_capacity(count),
            free: Vec::with_capacity(count),
            staged: Vec::with_capacity(count),
            staged_slots: Vec::with_capacity(count),
            refused: Vec::with_capacity(count),
            jobs: 0,
            under_way: 0,
            segments,
            ways,
            ops,
            index,
            device,
        };
        for slot in 0..u32::from(depth) {
            // SAFETY: a pool of such operations.
            let op = NonNull::new(unsafe { raw::rte_crypto_op_alloc(own.ops.as_raw(), symmetric) });
            let Some(op) = op else { break };
            // SAFETY: fresh from that pool, with room for our own words.
            let words = unsafe { raw::towpath_aead_init(op.as_ptr(), slot) };
            let Some(words) = NonNull::new(words) else { break };
            let (input, output, with) = (Vec::new(), Vec::new(), None);
            let (at, session, text_len) = (At::Idle, SessionId(0), 0);
            own.slots.push(Slot {
                op,
                own: words,
                at,
                input,
                output,
                with,
                from: None,
                to: None,
                session,
                text_len,
            });
            own.free.push(slot);
        }
        Ok(own)
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

    /// Takes a job, to be handed over by [`Self::flush`]; or leaves it as it was. `fill` writes the nonce, never the
    /// same twice with one key, and the associated data, where the device will read them.
    ///
    /// # Errors
    /// [`Refusal::Unfit`] if it can never be done: no such session, another length of associated data, no text or tag
    /// in the input, more than the device takes.
    #[inline]
    pub fn stage<const N: usize>(
        &mut self,
        mut job: SealJob<'_, T>,
        fill: impl FnOnce(&mut [u8; IV_LEN], &mut [u8; N]),
    ) -> Result<(), Refusal> {
        let session = self.sessions.get_mut(job.session.0 as usize).and_then(Option::as_mut);
        let session = session.filter(|session| session.aad_len == N && N <= AAD_MAX).ok_or(Refusal::Unfit)?;
        let (raw, seals) = (session.raw, session.seals);
        let tag_len = if seals { 0 } else { TAG_LEN };
        let text_len = job.input.len().checked_sub(job.start).and_then(|len| len.checked_sub(tag_len));
        let text_len = text_len.ok_or(Refusal::Unfit)?;
        let at = *self.free.last().ok_or(Refusal::Full)?;
        let (from, to) = self.segments.ends(self.ways, &mut job, text_len)?;
        let slot = &mut self.slots[at as usize];
        // SAFETY: the slot's operation is idle, so these words of it are nobody else's.
        let own = unsafe { slot.own.as_mut() };
        if let Some(aad) = own.aad.first_chunk_mut() {
            fill(&mut own.iv, aad);
        }
        if !seals && let Some(tag) = job.input.last_chunk::<TAG_LEN>() {
            own.tag = *tag;
        }
        let ends = (from.as_raw(), to.as_ref().map_or(ptr::null_mut(), Chain::as_raw));
        let len = u32::try_from(text_len).unwrap_or(0);
        // SAFETY: the operation is idle, and the session lives as long as jobs with it. What the chains are pointed at
        // belongs to the slot from here on, and stays untouched until the operation is back.
        unsafe { raw::towpath_aead_fill(slot.op.as_ptr(), raw.as_ptr(), ends.0, ends.1, len) };
        (slot.from, slot.to) = (Some(from), to);
        (slot.input, slot.output) = (mem::take(job.input), mem::take(job.output));
        (slot.with, slot.session, slot.text_len, slot.at) =
            (Some(job.with), job.session, text_len, At::Staged);
        session.under_way += 1;
        self.staged.push(slot.op);
        self.staged_slots.push(at);
        self.free.pop();
        self.jobs += 1;
        Ok(())
    }

    /// Hands over what is staged, in bursts of at most [`BURST_MAX`]. What the device has no room for stays staged.
    /// How many it took.
    #[inline]
    pub fn flush(&mut self) -> usize {
        let mut taken_all = 0;
        while taken_all < self.staged.len() {
            let burst = &mut self.staged[taken_all..];
            let count = u16::try_from(burst.len().min(BURST_MAX)).unwrap_or(0);
            let ops = burst.as_mut_ptr().cast::<*mut raw::rte_crypto_op>();
            // SAFETY: `count` filled operations of ours, as pointers; this is the only handle to the queue pair, and
            // the device is started.
            let taken = unsafe { raw::rte_cryptodev_enqueue_burst(self.device.id, self.index, ops, count) };
            for &at in self.staged_slots.iter().skip(taken_all).take(taken.into()) {
                if let Some(slot) = self.slots.get_mut(at as usize) {
                    slot.at = At::Device;
                }
            }
            taken_all += usize::from(taken);
            self.under_way += usize::from(taken);
            if taken < count {
                taken_all += self.refuse(taken_all);
                break;
            }
        }
        self.staged.drain(..taken_all);
        self.staged_slots.drain(..taken_all);
        taken_all
    }

    /// The driver has not taken the staged operation at `at`. If it has touched it, it will have none of it, and some
    /// have even done it: that job must not be tried a second time. One or none.
    fn refuse(&mut self, at: usize) -> usize {
        let (Some(op), Some(&slot)) = (self.staged.get(at), self.staged_slots.get(at)) else { return 0 };
        // SAFETY: not taken: ours.
        if unsafe { raw::towpath_aead_is_untouched(op.as_ptr()) } != 0 {
            return 0;
        }
        self.refused.push(slot);
        1
    }

    /// Gives what is done to `each`, at most [`BURST_MAX`] jobs. How many operations came back.
    #[inline]
    pub fn poll(&mut self, mut each: impl FnMut(Sealed<'_, T>)) -> usize {
        while let Some(slot) = self.refused.pop() {
            let outcome = self.settle(slot, NO_STATUS, At::Staged);
            self.hand_out(slot, outcome, &mut each);
        }
        if self.under_way == 0 {
            return 0;
        }
        let mut done = [raw::towpath_done::default(); BURST_MAX];
        let into = done.as_mut_ptr();
        // SAFETY: room for a burst; the queue pair is used by nobody else; operations that come back are ours.
        let count = unsafe { raw::towpath_aead_dequeue(self.device.id, self.index, into) };
        // First all lengths, then all moves: a processor waits long to read what it has just written in part.
        let mut outcomes = [None; BURST_MAX];
        for (one, outcome) in done.iter().zip(&mut outcomes).take(count.into()) {
            *outcome = self.settle(one.slot, one.status, At::Device);
        }
        for (one, outcome) in done.iter().zip(outcomes).take(count.into()) {
            self.hand_out(one.slot, outcome, &mut each);
        }
        count.into()
    }

    /// The operation of a slot, which `was` there, is ours again: completes the output, and gives back all but the
    /// job. `None`, and no effect, if it was not there: a driver that gives an operation back twice gets nowhere.
    #[inline]
    fn settle(&mut self, slot: u32, status: u8, was: At) -> Option<SealOutcome> {
        let outcome = match u32::from(status) {
            SUCCESS => SealOutcome::Done,
            FORGED => SealOutcome::Forged,
            _ => SealOutcome::Failed { status },
        };
        let slot = self.slots.get_mut(slot as usize).filter(|slot| slot.at == was)?;
        self.under_way -= usize::from(slot.at == At::Device);
        slot.at = At::Idle;
        let session = self.sessions.get_mut(slot.session.0 as usize).and_then(Option::as_mut);
        let seals = session.is_some_and(|session| {
            session.under_way -= 1;
            session.seals
        });
        let (to, from) = (slot.to.take(), slot.from.take());
        if outcome == SealOutcome::Done && slot.with.is_some() {
            match (self.segments.reach(), &from) {
                (Reach::Pointed, _) => {
                    let len = slot.output.len() + slot.text_len;
                    // SAFETY: reserved by `stage`, and since then nobody had the vector; the device says that it has
                    // written all of the text there.
                    unsafe { slot.output.set_len(len) };
                }
                (Reach::Copied, Some(chain)) => {
                    self.segments.copy_out(chain, slot.text_len, &mut slot.output);
                }
                (Reach::Copied, None) => {}
            }
            if seals {
                // SAFETY: the operation is back, and its tag written.
                let own = unsafe { slot.own.as_ref() };
                slot.output.extend_from_slice(&own.tag);
            }
        }
        if let Some(chain) = to {
            self.segments.give_back(chain);
        }
        if let Some(chain) = from {
            self.segments.give_back(chain);
        }
        Some(outcome)
    }

    /// Gives a settled job to `each`. One that was given up is nobody's: what was kept for the device goes now.
    #[inline]
    fn hand_out(&mut self, at: u32, outcome: Option<SealOutcome>, each: &mut impl FnMut(Sealed<'_, T>)) {
        let Some((slot, outcome)) = self.slots.get_mut(at as usize).zip(outcome) else { return };
        if let Some(with) = &mut slot.with {
            each(Sealed { input: &mut slot.input, output: &mut slot.output, with, outcome });
            self.jobs -= 1;
            slot.with = None;
        }
        for vector in [&mut slot.input, &mut slot.output] {
            if vector.capacity() > 0 {
                *vector = Vec::new();
            }
        }
        self.free.push(at);
    }

    /// Gives every job up, whatever the device may still do with it: what it may still read or write stays here, and
    /// the jobs that come out have copies. Then no job is under way for the caller.
    pub fn abandon(&mut self, mut each: impl FnMut(Sealed<'_, T>)) {
        self.staged.clear();
        self.staged_slots.clear();
        self.refused.clear();
        let mut staged = Vec::new();
        for (slot, at) in self.slots.iter_mut().zip(0..) {
            if let Some(mut with) = slot.with.take() {
                let (mut input, mut output) = (slot.input.clone(), slot.output.clone());
                let (input, output, with) = (&mut input, &mut output, &mut with);
                each(Sealed { input, output, with, outcome: SealOutcome::Abandoned });
                self.jobs -= 1;
            }
            if slot.at == At::Staged {
                staged.push(at);
            }
        }
        for at in staged {
            let outcome = self.settle(at, NO_STATUS, At::Staged);
            self.hand_out(at, outcome, &mut each);
        }
    }

    /// Jobs taken and not given back.
    pub fn jobs(&self) -> usize {
        self.jobs
    }
}

impl Segments {
    /// Chains over the text and what it becomes; one alone if that is in place.
    #[inline]
    fn ends<T>(
        &mut self,
        ways: Ways,
        job: &mut SealJob<'_, T>,
        text_len: usize,
    ) -> Result<(Chain, Option<Chain>), Refusal> {
        let is_chained = text_len > SEGMENT_BYTES;
        let reach = self.reach();
        let is_apart = if is_chained { ways.apart_chained } else { ways.apart };
        let can_chain = ways.within_chained || is_apart && reach == Reach::Pointed;
        if is_chained && (!can_chain || text_len > Segments::bytes_max(reach)) {
            return Err(Refusal::Unfit);
        }
        let end = job.start + text_len;
        if reach == Reach::Copied {
            let text = job.input.get(job.start..end).ok_or(Refusal::Unfit)?;
            return self.copy_in(text).map(|chain| (chain, None)).ok_or(Refusal::Full);
        }
        let lengths = [text_len, text_len];
        if !self.has(&lengths) {
            return Err(Refusal::Full);
        }
        job.output.reserve(text_len + TAG_LEN);
        let text = job.input.get(job.start..end).ok_or(Refusal::Unfit)?.as_ptr().cast_mut();
        let room = job.output.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        let from = if is_apart { text } else { room };
        if !is_apart {
            // SAFETY: as many bytes as were reserved, of another vector.
            unsafe { ptr::copy_nonoverlapping(text, room, text_len) };
        }
        // SAFETY: bytes of a vector's memory, which the slot holds until the operation is back; a device reads what is
        // in, and writes what is out. That the vectors themselves move does not move them.
        let first = unsafe { self.point(from, text_len) }.ok_or(Refusal::Full)?;
        // SAFETY: as above.
        let second = is_apart.then(|| unsafe { self.point(room, text_len) }.ok_or(Refusal::Full));
        Ok((first, second.transpose()?))
    }
}

impl<T> Drop for CryptoQueue<T> {
    fn drop(&mut self) {
        self.abandon(|_| ());
        let is_drained = drains(|| {
            self.poll(|_| ());
            self.under_way
        });
        if !is_drained {
            mem::forget(Arc::clone(&self.device));
            mem::forget(mem::take(&mut self.slots));
            return;
        }
        for slot in &self.slots {
            // SAFETY: ours, idle, and not used again.
            unsafe { raw::rte_crypto_op_free(slot.op.as_ptr()) };
        }
        for session in self.sessions.drain(..).flatten() {
            // SAFETY: no job uses it any more.
            let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.device.id, session.raw.as_ptr()) };
        }
    }
}

impl<T> fmt::Debug for CryptoQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoQueue({} of {}, {} under way)", self.index, self.device.name, self.jobs)
    }
}
