//! A queue pair of a cryptodev: jobs in, bursts to the device, jobs out.
//!
//! Each operation has a slot for ever, which holds the job while the operation is staged or at the device.

use core::ffi::c_void;
use core::fmt;
use core::mem;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::accel::{BURST_MAX, Buffers, OpPool, Refusal, drains};
use super::super::segments::{Reach, SEGMENT_BYTES, Segments};
use super::super::{Eal, Error, raw};
use super::slot::{At, Chains, Pair, Slot};
use super::{AAD_MAX, Device, IV_LEN, SealJob, SealOutcome, Sealed, SessionId, TAG_LEN, Ways};

const SUCCESS: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_SUCCESS;
const FORGED: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_AUTH_FAILED;
const NO_STATUS: u8 = u8::MAX;

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CryptoQueue<T: Buffers> {
    sessions: Vec<Option<Session>>,
    slots: Vec<Slot<T>>,
    /// Slots without a job; the last used last.
    free: Vec<u32>,
    /// Slots of operations filled in, not yet handed over, in order.
    staged: Vec<u32>,
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
}

// SAFETY: sessions, operations and segments belong to the queue pair, and whoever has it is the one thread that uses
// them; vectors under way are the queue's own.
unsafe impl<T: Buffers + Send> Send for CryptoQueue<T> {}

impl<T: Buffers> CryptoQueue<T> {
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
            refused: Vec::with_capacity(count),
            jobs: 0,
            under_way: 0,
            segments,
            ways,
            ops,
            index,
            device,
        };
        for number in 0..u32::from(depth) {
            let pair = if ways.apart { own.segments.single().zip(own.segments.single()) } else { None };
            let pair = pair.map(|(from, to)| Pair { from, to });
            let Some(slot) = Slot::new(&own.ops, number, pair) else { break };
            own.slots.push(slot);
            own.free.push(number);
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
        let session = Session { raw, seals, aad_len };
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
        let is_used = |slot: &Slot<T>| slot.at != At::Idle && slot.session == id;
        let Some(session) = self.sessions.get_mut(id.0 as usize) else { return false };
        if session.is_none() || self.slots.iter().any(is_used) {
            return false;
        }
        if let Some(session) = session.take() {
            // SAFETY: no job uses it, and it cannot be named any more.
            let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.device.id, session.raw.as_ptr()) };
        }
        true
    }

    /// Takes a job, to be handed over by [`Self::flush`]; or gives it back as it was. `fill` sees what comes back with the
    /// job, and writes the nonce, never the same twice with one key, and the associated data where the device reads them.
    ///
    /// # Errors
    /// [`Refusal::Unfit`] if it can never be done: no such session, another length of associated data, no text or tag
    /// in the input, more than the device takes.
    #[inline]
    pub fn stage<const N: usize>(
        &mut self,
        job: SealJob<T>,
        fill: impl FnOnce(&T, &mut [u8; IV_LEN], &mut [u8; N]),
    ) -> Result<(), (Refusal, T)> {
        let SealJob { session: id, start, mut with } = job;
        let session = self.sessions.get(id.0 as usize).and_then(Option::as_ref);
        let Some(session) = session.filter(|session| session.aad_len == N && N <= AAD_MAX) else {
            return Err((Refusal::Unfit, with));
        };
        let tag_len = if session.seals { 0 } else { TAG_LEN };
        let (input, output) = with.buffers();
        let Some(text_len) = input.len().checked_sub(start).and_then(|len| len.checked_sub(tag_len)) else {
            return Err((Refusal::Unfit, with));
        };
        let Some((&at, slot)) = self.free.last().and_then(|at| Some((at, self.slots.get_mut(*at as usize)?)))
        else {
            return Err((Refusal::Full, with));
        };
        // Messages of a segment each are by far the most; the pair is the operation's already.
        if let Some(pair) = slot.pair.as_ref().filter(|_| text_len <= SEGMENT_BYTES) {
            output.reserve(text_len + TAG_LEN);
            let text = input.get(start..).unwrap_or_default().as_ptr().cast_mut();
            let room = output.spare_capacity_mut().as_mut_ptr().cast();
            #[expect(clippy::cast_possible_truncation, reason = "at most SEGMENT_BYTES")]
            let len = text_len as u32;
            // SAFETY: bytes of a vector's memory, which the slot holds until the operation is back; a device reads what
            // is in, and writes what is out. That the vectors themselves move does not move them.
            unsafe { pair.from.aim(text, len) };
            // SAFETY: as above; so many bytes were reserved.
            unsafe { pair.to.aim(room, len) };
        } else {
            match self.segments.ends(self.ways, (input, start), output, text_len) {
                // SAFETY: the operation is idle, and what the chains are pointed at the slot's from here on.
                Ok(chains) => unsafe { slot.attach(chains) },
                Err(refusal) => return Err((refusal, with)),
            }
        }
        // SAFETY: the slot's operation is idle, so these words of it are nobody else's.
        let own = unsafe { slot.own.as_mut() };
        if !session.seals
            && let Some(tag) = input.last_chunk::<TAG_LEN>()
        {
            own.tag = *tag;
        }
        mem::swap(&mut slot.input, input);
        mem::swap(&mut slot.output, output);
        if let Some(aad) = own.aad.first_chunk_mut() {
            fill(&with, &mut own.iv, aad);
        }
        // SAFETY: the operation is idle, and the session lives as long as jobs with it.
        unsafe { slot.op.set_job(session.raw, u32::try_from(text_len).unwrap_or(0)) };
        (slot.session, slot.seals, slot.text_len, slot.at) = (id, session.seals, text_len, At::Staged);
        slot.with = Some(with);
        self.staged.push(at);
        self.free.pop();
        self.jobs += 1;
        Ok(())
    }

    /// Hands over what is staged, in bursts of at most [`BURST_MAX`]. What the device has no room for stays staged.
    /// How many it took.
    #[inline]
    pub fn flush(&mut self) -> usize {
        let mut taken_all = 0;
        while let Some(burst) = self.staged.get(taken_all..).filter(|rest| !rest.is_empty()) {
            let mut ops = [ptr::null_mut(); BURST_MAX];
            let mut count = 0;
            for (op, &at) in ops.iter_mut().zip(burst) {
                let Some(slot) = self.slots.get_mut(at as usize) else { break };
                *op = slot.op.as_raw();
                slot.at = At::Device;
                count += 1;
            }
            let into = ops.as_mut_ptr();
            // SAFETY: `count` filled operations of ours; this is the only handle to the queue pair, and the device is
            // started.
            let taken = unsafe { raw::rte_cryptodev_enqueue_burst(self.device.id, self.index, into, count) };
            for &at in burst.iter().take(count.into()).skip(taken.into()) {
                if let Some(slot) = self.slots.get_mut(at as usize) {
                    slot.at = At::Staged;
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
        taken_all
    }

    /// The driver has not taken the staged operation at `at`. If it has touched it, it will have none of it, and some
    /// have even done it: that job must not be tried a second time. One or none.
    fn refuse(&mut self, at: usize) -> usize {
        let Some(&number) = self.staged.get(at) else { return 0 };
        let Some(slot) = self.slots.get(number as usize) else { return 0 };
        // SAFETY: not taken: ours.
        if unsafe { raw::towpath_aead_is_untouched(slot.op.as_raw()) } != 0 {
            return 0;
        }
        self.refused.push(number);
        1
    }

    /// Gives what is done to `each`, at most [`BURST_MAX`] jobs. How many operations came back.
    #[inline]
    pub fn poll(&mut self, mut each: impl FnMut(Sealed<T>)) -> usize {
        while let Some(slot) = self.refused.pop() {
            self.settle(slot, NO_STATUS, At::Staged, &mut each);
        }
        if self.under_way == 0 {
            return 0;
        }
        let mut done = [raw::towpath_done::default(); BURST_MAX];
        let into = done.as_mut_ptr();
        // SAFETY: room for a burst; the queue pair is used by nobody else; operations that come back are ours.
        let count = unsafe { raw::towpath_aead_dequeue(self.device.id, self.index, into) };
        for one in done.iter().take(count.into()) {
            self.settle(one.slot, one.status, At::Device, &mut each);
        }
        count.into()
    }

    /// The operation of a slot, which `was` there, is ours again: gives the job back with its output complete. No effect
    /// if the operation was not there: a driver that gives one back twice gets nowhere.
    #[inline]
    fn settle(&mut self, at: u32, status: u8, was: At, each: &mut impl FnMut(Sealed<T>)) {
        let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| slot.at == was) else { return };
        slot.at = At::Idle;
        self.under_way -= usize::from(was == At::Device);
        self.free.push(at);
        let outcome = match u32::from(status) {
            SUCCESS => SealOutcome::Done,
            FORGED => SealOutcome::Forged,
            _ => SealOutcome::Failed { status },
        };
        let chains = if slot.chains.is_some() { slot.detach() } else { None };
        if let Some(mut with) = slot.with.take() {
            let (input, output) = with.buffers();
            mem::swap(input, &mut slot.input);
            mem::swap(output, &mut slot.output);
            if outcome == SealOutcome::Done {
                match &chains {
                    Some(Chains { from, .. }) if self.segments.reach() == Reach::Copied => {
                        self.segments.copy_out(from, slot.text_len, output);
                    }
                    _ => {
                        let len = output.len() + slot.text_len;
                        // SAFETY: reserved by `stage`, and since then nobody had the vector; the device says that it
                        // has written all of the text there.
                        unsafe { output.set_len(len) };
                    }
                }
                if slot.seals {
                    // SAFETY: the operation is back, and its tag written.
                    let own = unsafe { slot.own.as_ref() };
                    output.extend_from_slice(&own.tag);
                }
            }
            self.jobs -= 1;
            each(Sealed { with, outcome });
        } else {
            // It was given up: what was kept for the device goes now.
            (slot.input, slot.output) = (Vec::new(), Vec::new());
        }
        if let Some(Chains { from, to }) = chains {
            for chain in to.into_iter().chain([from]) {
                self.segments.give_back(chain);
            }
        }
    }

    /// Gives every job up, whatever the device may still do with it: what it may still read or write stays here, and
    /// the jobs that come out have copies. Then no job is under way for the caller.
    pub fn abandon(&mut self, mut each: impl FnMut(Sealed<T>)) {
        self.staged.clear();
        self.refused.clear();
        let mut staged = Vec::new();
        for (slot, at) in self.slots.iter_mut().zip(0..) {
            if let Some(mut with) = slot.with.take() {
                let (input, output) = with.buffers();
                (*input, *output) = (slot.input.clone(), slot.output.clone());
                each(Sealed { with, outcome: SealOutcome::Abandoned });
                self.jobs -= 1;
            }
            if slot.at == At::Staged {
                staged.push(at);
            }
        }
        for at in staged {
            self.settle(at, NO_STATUS, At::Staged, &mut each);
        }
    }

    /// Jobs taken and not given back.
    pub fn jobs(&self) -> usize {
        self.jobs
    }
}

impl Segments {
    /// Chains over the text, from `start` of the input, and over what it becomes; one alone if that is in place.
    #[cold]
    fn ends(
        &mut self,
        ways: Ways,
        (input, start): (&[u8], usize),
        output: &mut Vec<u8>,
        text_len: usize,
    ) -> Result<Chains, Refusal> {
        let is_chained = text_len > SEGMENT_BYTES;
        let reach = self.reach();
        let is_apart = if is_chained { ways.apart_chained } else { ways.apart };
        let can_chain = ways.within_chained || is_apart && reach == Reach::Pointed;
        if is_chained && (!can_chain || text_len > Segments::bytes_max(reach)) {
            return Err(Refusal::Unfit);
        }
        let text = input.get(start..start + text_len).ok_or(Refusal::Unfit)?;
        if reach == Reach::Copied {
            return self.copy_in(text).map(|from| Chains { from, to: None }).ok_or(Refusal::Full);
        }
        let lengths = [text_len, text_len];
        if !self.has(&lengths) {
            return Err(Refusal::Full);
        }
        output.reserve(text_len + TAG_LEN);
        let text = text.as_ptr().cast_mut();
        let room = output.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        let from = if is_apart { text } else { room };
        if !is_apart {
            // SAFETY: as many bytes as were reserved, of another vector.
            unsafe { ptr::copy_nonoverlapping(text, room, text_len) };
        }
        // SAFETY: bytes of a vector's memory, which the slot holds until the operation is back; a device reads what is
        // in, and writes what is out. That the vectors themselves move does not move them.
        let from = unsafe { self.point(from, text_len) }.ok_or(Refusal::Full)?;
        // SAFETY: as above.
        let to = is_apart.then(|| unsafe { self.point(room, text_len) }.ok_or(Refusal::Full));
        Ok(Chains { from, to: to.transpose()? })
    }
}

impl<T: Buffers> Drop for CryptoQueue<T> {
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
        for slot in self.slots.drain(..) {
            // SAFETY: ours, idle, and not used again.
            unsafe { raw::rte_crypto_op_free(slot.op.as_raw()) };
            if let Some(Pair { from, to }) = slot.pair {
                self.segments.put(from);
                self.segments.put(to);
            }
        }
        for session in self.sessions.drain(..).flatten() {
            // SAFETY: no job uses it any more.
            let _ = unsafe { raw::rte_cryptodev_sym_session_free(self.device.id, session.raw.as_ptr()) };
        }
    }
}

impl<T: Buffers> fmt::Debug for CryptoQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoQueue({} of {}, {} under way)", self.index, self.device.name, self.jobs)
    }
}
