//! gzip and zlib by a compressdev: the stream is the device's, the wrapper ours.

use core::ops::Range;

use abi::Encoding;
use dpdk_sys::{CompressJob, CompressOutcome, CompressQueue, Compressed, Direction, Mbuf, Pool};
use shard::{Job, JobError, Work};

use super::slots::Slots;
use super::{BUFFER_BYTES, DEPTH, Outbox, Refusal, Watch};
use crate::codec::{ends_with_checksum, size_hint};
use crate::wrapper;

/// The queue pair of a shard.
pub(super) struct DeflateLane {
    // Jobs on the device keep their buffers until the queue is dropped.
    queue: CompressQueue,
    pool: Pool,
    pending: Slots<Pending>,
    /// Taken, not yet handed over.
    staged: Vec<CompressJob>,
    done: Vec<Compressed>,
    pub(super) watch: Watch,
}

struct Pending {
    job: Job,
    /// The stream in the input.
    body: Range<usize>,
    /// More room than this attempt has is not to be had here.
    is_last: bool,
}

/// Where no deflate stream of so many bytes is longer: codes of fixed length take 9 bits a byte at most.
fn bound(len: usize) -> usize {
    len + len / 8 + 64
}

impl DeflateLane {
    pub(super) fn new(queue: CompressQueue, pool: Pool) -> Self {
        let depth = usize::from(DEPTH).min(queue.depth());
        Self {
            queue,
            pool,
            pending: Slots::new(depth),
            staged: Vec::with_capacity(depth),
            done: Vec::with_capacity(depth),
            watch: Watch::default(),
        }
    }

    pub(super) fn take(&mut self, job: Job, out: &mut Outbox) -> Result<(), (Job, Refusal)> {
        if self.watch.is_dead {
            return Err((job, Refusal::Dead));
        }
        let input = job.input.len();
        match job.work {
            Work::Compress(Encoding::Gzip | Encoding::Deflate)
                if input > 0 && bound(input) <= BUFFER_BYTES =>
            {
                let pending = Pending { job, body: 0..input, is_last: true };
                self.stage(pending, Direction::Compress, bound(input))
            }
            Work::Decompress(how @ (Encoding::Gzip | Encoding::Deflate), max) if input <= BUFFER_BYTES => {
                let body = wrapper::body(how, &job.input);
                let (body, hint) = match body.and_then(|body| Ok((body, size_hint(how, &job.input)?))) {
                    Ok(found) => found,
                    Err(error) => {
                        out.done(job, Err(error));
                        return Ok(());
                    }
                };
                let limit = limit(max);
                let room = hint.saturating_add(SLACK_BYTES).clamp(SLACK_BYTES, limit);
                let pending = Pending { job, body, is_last: room == limit };
                self.stage(pending, Direction::Decompress, room)
            }
            _ => Err((job, Refusal::Unfit)),
        }
    }

    fn stage(&mut self, pending: Pending, direction: Direction, room: usize) -> Result<(), (Job, Refusal)> {
        if self.pending.is_full() {
            return Err((pending.job, Refusal::Full));
        }
        let input = pending.job.input.get(pending.body.clone()).unwrap_or_default();
        let buffers = self.pool.alloc(input.len()).zip(self.pool.alloc(room));
        let Some((mut from, to)) = buffers else { return Err((pending.job, Refusal::Full)) };
        from.copy_from_slice(input);
        self.stage_with(pending, direction, from, to)
    }

    fn stage_with(
        &mut self,
        pending: Pending,
        direction: Direction,
        from: Mbuf,
        to: Mbuf,
    ) -> Result<(), (Job, Refusal)> {
        let token = self.pending.insert(pending).map_err(|pending| (pending.job, Refusal::Full))?;
        self.staged.push(CompressJob { direction, from, to, token });
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        while !self.staged.is_empty() && self.watch.hears() {
            if self.queue.enqueue(&mut self.staged) == 0 {
                break;
            }
        }
    }

    /// Jobs that came back.
    pub(super) fn poll(&mut self, out: &mut Outbox) -> usize {
        if !self.watch.hears() {
            return 0;
        }
        let mut done = core::mem::take(&mut self.done);
        let mut count = 0;
        while self.queue.dequeue(&mut done) > 0 {
            count += done.len();
            for one in done.drain(..) {
                self.finish(one, out);
            }
        }
        self.done = done;
        count
    }

    fn finish(&mut self, one: Compressed, out: &mut Outbox) {
        let Some(mut pending) = self.pending.remove(one.token) else { return };
        let job = &mut pending.job;
        match (job.work, one.outcome) {
            (Work::Compress(how), CompressOutcome::Done { .. }) => {
                job.output.extend_from_slice(wrapper::header(how));
                job.output.extend_from_slice(&one.to);
                wrapper::end(how, &job.input, &mut job.output);
                out.done(pending.job, Ok(()));
            }
            (Work::Decompress(how, max), CompressOutcome::Done { consumed }) => {
                // What follows the stream must be the trailer, and nothing else. (Of the software drivers, isal calls
                // everything read: two equal streams in a row pass for one with it.)
                let is_whole = consumed == pending.body.len();
                let result = if one.to.len() > max {
                    Err(JobError::TooLarge)
                } else if is_whole && ends_with_checksum(how, &job.input, &one.to) {
                    job.output.extend_from_slice(&one.to);
                    Ok(())
                } else {
                    Err(JobError::Corrupt)
                };
                out.done(pending.job, result);
            }
            (Work::Decompress(_, max), CompressOutcome::OutOfSpace) if !pending.is_last => {
                pending.is_last = true;
                match self.pool.alloc(limit(max)) {
                    Some(to) => {
                        if let Err((job, _)) = self.stage_with(pending, Direction::Decompress, one.from, to) {
                            out.again.push_back(job);
                        }
                    }
                    None => out.again.push_back(pending.job),
                }
            }
            (Work::Decompress(_, max), CompressOutcome::OutOfSpace) if max + SLACK_BYTES <= limit(max) => {
                out.done(pending.job, Err(JobError::TooLarge));
            }
            // Larger than a buffer, or nothing this device can do; the CPU tells what is wrong, if anything is.
            (_, CompressOutcome::OutOfSpace) => out.again.push_back(pending.job),
            (_, CompressOutcome::Failed { .. }) => {
                out.failed += 1;
                out.again.push_back(pending.job);
            }
            (Work::Seal(_) | Work::Open(_), _) => out.again.push_back(pending.job),
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// Gives all jobs back; the device may keep its buffers.
    pub(super) fn die(&mut self, out: &mut Outbox) {
        self.staged.clear();
        out.again.extend(self.pending.remove_all().map(|pending| pending.job));
    }
}

/// Room beyond what a message may have, so that one that is just as large as it may be is told from a larger one.
const SLACK_BYTES: usize = 64;

/// The most room a job gets.
fn limit(max: usize) -> usize {
    max.saturating_add(SLACK_BYTES).min(BUFFER_BYTES)
}
