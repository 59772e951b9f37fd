//! Jobs by operations: bursts to the device, which gives them back when it likes.
//!
//! Each operation has a slot for ever, which holds the job while the operation is staged or at the device. What comes
//! out is written elsewhere than what is read, so whatever becomes of the device, the text is still there.

use core::mem;
use core::ptr;

use super::super::accel::{BURST_MAX, OpPool, Refusal, drains};
use super::super::segments::{Reach, SEGMENT_BYTES, Segments};
use super::super::{Eal, Error, raw};
use super::queue::Session;
use super::slot::{At, Chains, Pair, Slot};
use super::{Bound, SealOutcome, Sealed, SessionId, TAG_LEN, Ways};

const SUCCESS: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_SUCCESS;
const FORGED: u32 = raw::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_AUTH_FAILED;
const NO_STATUS: u8 = u8::MAX;

/// The operations of one queue pair.
pub(super) struct Ops<T: Bound> {
    device: u8,
    index: u16,
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
}

// SAFETY: operations and segments belong to the queue pair, and whoever has it is the one thread that uses them; vectors
// under way are its own.
unsafe impl<T: Bound + Send> Send for Ops<T> {}

impl<T: Bound> Ops<T> {
    pub(super) fn new(
        eal: Eal,
        (name, device): (&str, u8),
        (index, depth): (u16, u16),
        reach: Reach,
        ways: Ways,
    ) -> Result<Self, Error> {
        let private = u16::try_from(raw::K_AEAD_PRIVATE).unwrap_or(u16::MAX);
        let symmetric = raw::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC;
        let ops = OpPool::make(name, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_crypto_op_pool_create(name, symmetric, u32::from(depth), 0, private, -1) }
        })?;
        // In place in a copy, or from one vector to the other.
        let ends = if reach == Reach::Copied { 1 } else { 2 };
        let segments = Segments::new(eal, name, reach, depth, ends)?;
        let count = usize::from(depth);
        let mut own = Self {
            device,
            index,
            slots: Vec::with_capacity(count),
            free: Vec::with_capacity(count),
            staged: Vec::with_capacity(count),
            refused: Vec::with_capacity(count),
            jobs: 0,
            under_way: 0,
            segments,
            ways,
            ops,
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

    /// See [`CryptoQueue::stage`](super::CryptoQueue::stage); the text is `text_len` bytes of the input from `start` on.
    #[inline]
    pub(super) fn stage(
        &mut self,
        (id, session): (SessionId, &Session),
        (start, text_len): (usize, usize),
        mut with: T,
    ) -> Result<(), (Refusal, T)> {
        let Some((&at, slot)) = self.free.last().and_then(|at| Some((at, self.slots.get_mut(*at as usize)?)))
        else {
            return Err((Refusal::Full, with));
        };
        // SAFETY: the slot's operation is idle, so these words of it are nobody else's.
        let own = unsafe { slot.own.as_mut() };
        with.bind(&mut own.iv, &mut own.aad);
        let (input, output) = with.buffers();
        // Asked again, a job may lend another vector than before.
        let Some((head, text)) = input.split_at_checked(start).filter(|(_, text)| text.len() >= text_len)
        else {
            return Err((Refusal::Unfit, with));
        };
        output.clear();
        output.reserve(start + text_len + TAG_LEN);
        output.extend_from_slice(head);
        // Messages of a segment each are by far the most; the pair is the operation's already.
        if let Some(pair) = slot.pair.as_ref().filter(|_| text_len <= SEGMENT_BYTES) {
            let text = text.as_ptr().cast_mut();
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
        if !session.seals
            && let Some(tag) = input.last_chunk::<TAG_LEN>()
        {
            own.tag = *tag;
        }
        mem::swap(&mut slot.input, input);
        mem::swap(&mut slot.output, output);
        // SAFETY: the operation is idle, and the session lives as long as jobs with it.
        unsafe { slot.op.set_job(session.raw, u32::try_from(text_len).unwrap_or(0)) };
        (slot.session, slot.seals, slot.text_len, slot.at) = (id, session.seals, text_len, At::Staged);
        slot.with = Some(with);
        self.staged.push(at);
        self.free.pop();
        self.jobs += 1;
        Ok(())
    }

    /// See [`CryptoQueue::flush`](super::CryptoQueue::flush).
    #[inline]
    pub(super) fn flush(&mut self) -> usize {
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
            let taken = unsafe { raw::rte_cryptodev_enqueue_burst(self.device, self.index, into, count) };
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

    /// See [`CryptoQueue::poll`](super::CryptoQueue::poll).
    #[inline]
    pub(super) fn poll(&mut self, each: &mut dyn FnMut(Sealed<T>)) -> usize {
        while let Some(slot) = self.refused.pop() {
            self.settle(slot, NO_STATUS, At::Staged, each);
        }
        if self.under_way == 0 {
            return 0;
        }
        let mut done = [raw::towpath_done::default(); BURST_MAX];
        let into = done.as_mut_ptr();
        // SAFETY: room for a burst; the queue pair is used by nobody else; operations that come back are ours.
        let count = unsafe { raw::towpath_aead_dequeue(self.device, self.index, into) };
        for one in done.iter().take(count.into()) {
            self.settle(one.slot, one.status, At::Device, each);
        }
        count.into()
    }

    /// The operation of a slot, which `was` there, is ours again: gives the job back, with what came out as its input if
    /// all went well. No effect if the operation was not there: a driver that gives one back twice gets nowhere.
    #[inline]
    fn settle(&mut self, at: u32, status: u8, was: At, each: &mut dyn FnMut(Sealed<T>)) {
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
                mem::swap(input, output);
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

    /// See [`CryptoQueue::abandon`](super::CryptoQueue::abandon): what the device may still read or write stays here, and
    /// the jobs that come out have copies.
    pub(super) fn abandon(&mut self, mut each: impl FnMut(Sealed<T>)) {
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
    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    /// An operation that is not idle is for this session.
    pub(super) fn uses(&self, id: SessionId) -> bool {
        self.slots.iter().any(|slot| slot.at != At::Idle && slot.session == id)
    }

    /// Gives every job up and waits for the device. False: it will not give back what it has, which is kept for it.
    pub(super) fn close(&mut self) -> bool {
        self.abandon(|_| ());
        let is_drained = drains(|| {
            self.poll(&mut |_| ());
            self.under_way
        });
        if !is_drained {
            mem::forget(mem::take(&mut self.slots));
        }
        is_drained
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

impl<T: Bound> Drop for Ops<T> {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            // SAFETY: ours, idle, and not used again.
            unsafe { raw::rte_crypto_op_free(slot.op.as_raw()) };
            if let Some(Pair { from, to }) = slot.pair {
                self.segments.put(from);
                self.segments.put(to);
            }
        }
    }
}
