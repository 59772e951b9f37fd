//! A queue pair of a compressdev: jobs in, bursts to the device, jobs out.
//!
//! Each operation has a slot for ever, which holds the job while the operation is staged or at the device.

use core::ffi::c_void;
use core::fmt;
use core::mem;
use core::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::accel::{AcceleratorOptions, BURST_MAX, Buffers, OpPool, Refusal, TURN_BYTES, drains};
use super::super::segments::{Chain, Reach, SEGMENT_BYTES, Segments};
use super::super::{Eal, Error, raw};
use super::{
    CompressJob, CompressOutcome, Compressed, Device, Direction, Ways, compressing, decompressing, reach,
    transform,
};

const SUCCESS: u32 = raw::rte_comp_op_status::RTE_COMP_OP_STATUS_SUCCESS;
const OUT_OF_SPACE: u32 = raw::rte_comp_op_status::RTE_COMP_OP_STATUS_OUT_OF_SPACE_TERMINATED;
const OUT_OF_SPACE_BUT_MORE: u32 = raw::rte_comp_op_status::RTE_COMP_OP_STATUS_OUT_OF_SPACE_RECOVERABLE;

/// One queue pair of a device, for one thread. Keeps the device open.
pub struct CompressQueue<T: Buffers> {
    transforms: [Transform; 2],
    slots: Vec<Slot<T>>,
    /// Slots without a job; the last used last.
    free: Vec<u32>,
    /// Slots filled in, not yet handed over, in order.
    staged: Vec<u32>,
    /// Slots of operations that the driver would not take.
    refused: Vec<u32>,
    /// Jobs of the caller's that are here.
    jobs: usize,
    /// Operations at the device.
    under_way: usize,
    /// What these work on.
    bytes_under_way: usize,
    segments: Segments,
    ways: [Ways; 2],
    ops: OpPool,
    index: u16,
    // Last: the rest is given back to it.
    device: Arc<Device>,
}

// SAFETY: transforms, operations and segments belong to the queue pair, and whoever has it is the one thread that
// uses them; vectors under way are the queue's own.
unsafe impl<T: Buffers + Send> Send for CompressQueue<T> {}

/// A direction's settings in the device's own form.
pub(super) struct Transform {
    pub(super) raw: NonNull<c_void>,
    /// Jobs of this direction under way.
    pub(super) under_way: usize,
    /// How many there may be.
    pub(super) most: usize,
}

/// An operation, and the job it is for.
struct Slot<T> {
    op: NonNull<raw::rte_comp_op>,
    held: Option<Held<T>>,
}

/// A job that is staged or at the device. Invariant: until the operation is back, nobody reads or writes `output`
/// beyond its length, or changes or frees either vector: the device may have their addresses.
struct Held<T> {
    direction: Direction,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of input.
    given: usize,
    /// Taken when the job is given up.
    with: Option<T>,
    from: Chain,
    to: Chain,
    room: usize,
    is_at_device: bool,
}

impl Segments {
    /// Chains over an input and over so much room behind an output.
    fn both(&mut self, input: &[u8], output: &mut Vec<u8>, room: usize) -> Option<(Chain, Chain)> {
        if self.reach() == Reach::Copied {
            return self.copy_in(input).zip(self.room(room));
        }
        output.reserve(room);
        let behind = output.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: bytes of a vector's memory, which the slot holds until the operation is back; the device reads them.
        // That the vector itself moves does not move them.
        let from = unsafe { self.point(input.as_ptr().cast_mut(), input.len()) }?;
        // SAFETY: as above; as many bytes as were reserved, which the device writes.
        let to = unsafe { self.point(behind, room) }?;
        Some((from, to))
    }
}

impl<T> Held<T> {
    /// Bytes of text, as far as they are known: what is to be packed, or the room of what is unpacked.
    fn bytes(&self) -> usize {
        if self.direction == Direction::Compress { self.given } else { self.room }
    }
}

impl<T: Buffers> CompressQueue<T> {
    pub(super) fn new(
        eal: Eal,
        device: Arc<Device>,
        index: u16,
        options: AcceleratorOptions,
        level: Option<u8>,
        features: u64,
    ) -> Result<Self, Error> {
        let private = u16::try_from(raw::K_COMP_OP_PRIVATE).unwrap_or(u16::MAX);
        let (depth, count) = (options.depth, usize::from(options.depth));
        let ops = OpPool::make(&device.name, |name| {
            // SAFETY: the EAL runs; the name is read during the call only.
            unsafe { raw::rte_comp_op_pool_create(name, u32::from(depth), 0, private, -1) }
        })?;
        let (reach, ways) = reach(&device, options.copies, features);
        let segments = Segments::new(eal, &device.name, reach, depth, 2)?;
        // A transform that may not be shared serves one job at a time.
        let shared = features & raw::K_RTE_COMP_FF_SHAREABLE_PRIV_XFORM != 0;
        let most = if shared { count } else { 1 };
        let dynamic = features & raw::K_RTE_COMP_FF_HUFFMAN_DYNAMIC != 0;
        let compress = transform(&device, most, &compressing(level, dynamic))?;
        let decompress = transform(&device, most, &decompressing()).inspect_err(|_| {
            // SAFETY: just made, not in use.
            let _ = unsafe { raw::rte_compressdev_private_xform_free(device.id, compress.raw.as_ptr()) };
        })?;
        let mut own = Self {
            transforms: [compress, decompress],
            slots: Vec::with_capacity(count),
            free: Vec::with_capacity(count),
            staged: Vec::with_capacity(count),
            refused: Vec::with_capacity(count),
            jobs: 0,
            under_way: 0,
            bytes_under_way: 0,
            segments,
            ways,
            ops,
            index,
            device,
        };
        for slot in 0..u32::from(depth) {
            // SAFETY: a pool of such operations.
            let op = NonNull::new(unsafe { raw::rte_comp_op_alloc(own.ops.as_raw()) });
            let Some(op) = op else { break };
            // SAFETY: fresh from that pool, with room for our own word.
            unsafe { raw::towpath_comp_init(op.as_ptr(), slot) };
            own.slots.push(Slot { op, held: None });
            own.free.push(slot);
        }
        Ok(own)
    }

    /// Takes a job, to be handed over by [`Self::flush`]; or leaves it as it was.
    ///
    /// # Errors
    /// [`Refusal::Unfit`] if it can never be done: nothing to do, no room, or more than the device takes.
    pub fn stage(&mut self, job: CompressJob<T>) -> Result<(), (Refusal, T)> {
        let CompressJob { direction, body, room, mut with } = job;
        let (input, output) = with.buffers();
        let body = input.get(body).unwrap_or_default();
        let given = body.len();
        let is_takable = self.ways[direction as usize].take(given, room);
        let bytes_max = Segments::bytes_max(self.segments.reach());
        if given == 0 || room == 0 || !is_takable || given.max(room) > bytes_max {
            return Err((Refusal::Unfit, with));
        }
        let has_segments = self.segments.has(&[given, room]);
        let Some(at) = self.free.last().copied().filter(|_| has_segments) else {
            return Err((Refusal::Full, with));
        };
        let Some((from, to)) = self.segments.both(body, output, room) else {
            return Err((Refusal::Full, with));
        };
        self.free.pop();
        let slot = &mut self.slots[at as usize];
        let transform = self.transforms[direction as usize].raw.as_ptr();
        // SAFETY: the operation is idle, and the transform lives as long as the queue. What the chains are pointed at
        // belongs to the slot from here on, and stays untouched until the operation is back.
        unsafe { raw::towpath_comp_fill(slot.op.as_ptr(), transform, from.as_raw(), to.as_raw()) };
        let (input, output) = (mem::take(input), mem::take(output));
        let (with, is_at_device) = (Some(with), false);
        slot.held = Some(Held { direction, input, output, given, with, from, to, room, is_at_device });
        self.staged.push(at);
        self.jobs += 1;
        Ok(())
    }

    /// Hands over what is staged, in bursts of at most [`BURST_MAX`]. What the device has no room for stays staged.
    /// How many it took.
    pub fn flush(&mut self) -> usize {
        let mut taken_all = 0;
        loop {
            let mut ops = [ptr::null_mut::<raw::rte_comp_op>(); BURST_MAX];
            let mut room = self.transforms.each_ref().map(|transform| transform.most - transform.under_way);
            let (mut filled, mut bytes) = (0, self.bytes_under_way);
            for (op, &at) in ops.iter_mut().zip(self.staged.iter().skip(taken_all)) {
                let slot = &self.slots[at as usize];
                let Some(held) = &slot.held else { break };
                let room = &mut room[held.direction as usize];
                if *room == 0 || !self.may_have(bytes, held.bytes()) {
                    break;
                }
                bytes += held.bytes();
                *op = slot.op.as_ptr();
                *room -= 1;
                filled += 1;
            }
            let count = u16::try_from(filled).unwrap_or(0);
            if count == 0 {
                break;
            }
            // SAFETY: `count` filled operations of ours; this is the only handle to the queue pair, and the device is
            // started.
            let taken = unsafe {
                raw::rte_compressdev_enqueue_burst(self.device.id, self.index, ops.as_mut_ptr(), count)
            };
            for &at in self.staged.iter().skip(taken_all).take(taken.into()) {
                if let Some(held) = self.slots.get_mut(at as usize).and_then(|slot| slot.held.as_mut()) {
                    held.is_at_device = true;
                    self.bytes_under_way += held.bytes();
                    self.transforms[held.direction as usize].under_way += 1;
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

    /// The device may be given so many bytes beside those. Software does the work on this core, which has other work.
    fn may_have(&self, others: usize, bytes: usize) -> bool {
        self.segments.reach() == Reach::Copied || others == 0 || others + bytes <= TURN_BYTES
    }

    /// The driver has not taken the staged operation at `at`. If it has touched it, it will have none of it: that job
    /// is not tried a second time. One or none.
    fn refuse(&mut self, at: usize) -> usize {
        let Some(&slot) = self.staged.get(at) else { return 0 };
        // SAFETY: not taken: ours.
        if unsafe { raw::towpath_comp_is_untouched(self.slots[slot as usize].op.as_ptr()) } != 0 {
            return 0;
        }
        self.refused.push(slot);
        1
    }

    /// Gives what is done to `each`, at most [`BURST_MAX`] jobs. How many operations came back.
    pub fn poll(&mut self, mut each: impl FnMut(Compressed<T>)) -> usize {
        while let Some(slot) = self.refused.pop() {
            self.finish(raw::towpath_done { slot, status: u8::MAX, ..Default::default() }, &mut each);
        }
        if self.under_way == 0 {
            return 0;
        }
        let mut done = [raw::towpath_done::default(); BURST_MAX];
        // SAFETY: room for a burst; the queue pair is used by nobody else; operations that come back are ours.
        let count = unsafe { raw::towpath_comp_dequeue(self.device.id, self.index, done.as_mut_ptr()) };
        for one in done.into_iter().take(count.into()) {
            let slot = self.slots.get(one.slot as usize);
            // A driver that gives an operation back twice gets nowhere.
            if slot.and_then(|slot| slot.held.as_ref()).is_some_and(|held| held.is_at_device) {
                self.finish(one, &mut each);
            }
        }
        count.into()
    }

    /// An operation is ours again.
    fn finish(&mut self, done: raw::towpath_done, each: &mut impl FnMut(Compressed<T>)) {
        let Some(slot) = self.slots.get_mut(done.slot as usize) else { return };
        let Some(held) = slot.held.take() else { return };
        if held.is_at_device {
            self.bytes_under_way -= held.bytes();
        }
        let Held { direction, input, mut output, given, with, from, to, room, is_at_device } = held;
        if is_at_device {
            self.under_way -= 1;
            self.transforms[direction as usize].under_way -= 1;
        }
        let (consumed, produced) = (done.consumed as usize, done.produced as usize);
        // What was compressed is all of it: compress_isal has been seen to end early.
        let is_whole = direction == Direction::Decompress || consumed == given;
        let outcome = match u32::from(done.status) {
            SUCCESS if produced <= room && is_whole => CompressOutcome::Done { consumed },
            OUT_OF_SPACE | OUT_OF_SPACE_BUT_MORE => CompressOutcome::OutOfSpace,
            _ => CompressOutcome::Failed { status: done.status },
        };
        // Without: it was given up, and what was kept for the device goes now.
        let with = with.map(|mut with| {
            if matches!(outcome, CompressOutcome::Done { .. }) {
                match self.segments.reach() {
                    // SAFETY: reserved by `stage`, and since then nobody had the vector; the device says that it has
                    // written so much of it.
                    Reach::Pointed => unsafe { output.set_len(output.len() + produced) },
                    Reach::Copied => self.segments.copy_out(&to, produced, &mut output),
                }
            }
            let buffers = with.buffers();
            (*buffers.0, *buffers.1) = (input, output);
            with
        });
        self.segments.give_back(from);
        self.segments.give_back(to);
        self.free.push(done.slot);
        if let Some(with) = with {
            self.jobs -= 1;
            each(Compressed { with, outcome });
        }
    }

    /// Gives every job up, whatever the device may still do with it: what it may still read or write stays here, and
    /// the jobs that come out have copies. Then no job is under way for the caller.
    pub fn abandon(&mut self, mut each: impl FnMut(Compressed<T>)) {
        self.staged.clear();
        self.refused.clear();
        for at in 0..self.slots.len() {
            let Some(held) = self.slots[at].held.as_mut() else { continue };
            let is_at_device = held.is_at_device;
            if let Some(mut with) = held.with.take() {
                let (input, output) = with.buffers();
                (*input, *output) = (held.input.clone(), held.output.clone());
                self.jobs -= 1;
                each(Compressed { with, outcome: CompressOutcome::Abandoned });
            }
            if !is_at_device {
                let slot = u32::try_from(at).unwrap_or(u32::MAX);
                self.finish(raw::towpath_done { slot, status: u8::MAX, ..Default::default() }, &mut each);
            }
        }
    }

    /// The most room a job of one direction may have.
    pub fn room_max(&self, direction: Direction) -> usize {
        if self.ways[direction as usize].to {
            Segments::bytes_max(self.segments.reach())
        } else {
            SEGMENT_BYTES
        }
    }

    /// Jobs taken and not given back.
    pub fn jobs(&self) -> usize {
        self.jobs
    }
}

impl<T: Buffers> Drop for CompressQueue<T> {
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
            unsafe { raw::rte_comp_op_free(slot.op.as_ptr()) };
        }
        for transform in &self.transforms {
            // SAFETY: no job uses it any more.
            let _ =
                unsafe { raw::rte_compressdev_private_xform_free(self.device.id, transform.raw.as_ptr()) };
        }
    }
}

impl<T: Buffers> fmt::Debug for CompressQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressQueue({} of {}, {} under way)", self.index, self.device.name, self.jobs)
    }
}
