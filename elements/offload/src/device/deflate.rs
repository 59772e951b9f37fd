//! gzip and zlib by a compressdev: the stream is the device's, the wrapper ours.

use core::ops::Range;

use abi::Encoding;
use dpdk_sys::{CompressJob, CompressOutcome, CompressQueue, Compressed, Direction};
use shard::{Job, JobError, JobKey, Work};

use super::{Outbox, Refusal, Watch, take_out};
use crate::codec::{ends_with_checksum, size_hint};
use crate::wrapper;

/// The queue pair of a shard.
pub(super) struct DeflateLane {
    // Jobs under way are here, with their bytes.
    queue: CompressQueue<Pending>,
    /// To be tried again with more room, and the job's own share of that.
    retries: Vec<(Job, Pending)>,
    pub(super) watch: Watch,
}

/// What of a job the device has no use for.
pub(super) struct Pending {
    key: JobKey,
    work: Work,
    /// The stream in the input.
    body: Range<usize>,
    /// Where its output begins.
    start: usize,
    /// More room than this attempt has is not to be had here.
    is_last: bool,
}

/// Where no deflate stream of so many bytes is longer: codes of fixed length take 9 bits a byte at most.
fn bound(len: usize) -> usize {
    len + len / 8 + 64
}

impl DeflateLane {
    pub(super) fn new(queue: CompressQueue<Pending>) -> Self {
        Self { queue, retries: Vec::new(), watch: Watch::default() }
    }

    pub(super) fn take(&mut self, job: &mut Job, out: &mut Outbox) -> Result<(), Refusal> {
        if self.watch.is_dead {
            return Err(Refusal::Dead);
        }
        let (key, work, start) = (job.key, job.work, job.output.len());
        match work {
            Work::Compress(how @ (Encoding::Gzip | Encoding::Deflate)) if !job.input.is_empty() => {
                let (header, len) = (wrapper::header(how), job.input.len());
                job.output.reserve(header.len() + bound(len) + wrapper::END_BYTES_MAX);
                job.output.extend_from_slice(header);
                let pending = Pending { key, work, body: 0..len, start, is_last: true };
                self.stage(job, pending, Direction::Compress, bound(len))
            }
            Work::Decompress(how @ (Encoding::Gzip | Encoding::Deflate), max) => {
                let body = wrapper::body(how, &job.input);
                let (body, hint) = match body.and_then(|body| Ok((body, size_hint(how, &job.input)?))) {
                    Ok(found) => found,
                    Err(error) => {
                        out.done(take_out(job), Err(error));
                        return Ok(());
                    }
                };
                let limit = self.limit(max);
                let room = hint.saturating_add(SLACK_BYTES).clamp(SLACK_BYTES, limit);
                let pending = Pending { key, work, body, start, is_last: room == limit };
                self.stage(job, pending, Direction::Decompress, room)
            }
            _ => Err(Refusal::Unfit),
        }
    }

    /// The most room a job gets.
    fn limit(&self, max: usize) -> usize {
        max.saturating_add(SLACK_BYTES).min(self.queue.room_max(Direction::Decompress))
    }

    fn stage(
        &mut self,
        job: &mut Job,
        with: Pending,
        direction: Direction,
        room: usize,
    ) -> Result<(), Refusal> {
        let Job { input, output, .. } = job;
        let (body, start) = (with.body.clone(), with.start);
        let staged = self.queue.stage(CompressJob { direction, input, body, output, room, with });
        staged.map_err(|refusal| {
            job.output.truncate(start);
            refusal.into()
        })
    }

    pub(super) fn flush(&mut self) {
        if self.watch.hears() {
            self.queue.flush();
        }
    }

    /// Jobs that came back.
    pub(super) fn poll(&mut self, out: &mut Outbox) -> usize {
        if !self.watch.hears() {
            return 0;
        }
        let (mut count, mut retries) = (0, core::mem::take(&mut self.retries));
        let room_max = self.queue.room_max(Direction::Decompress);
        loop {
            let came = self.queue.poll(|one| retries.extend(finish(one, room_max, out)));
            count += came;
            if came == 0 || !out.has_room() {
                break;
            }
        }
        for (mut job, pending) in retries.drain(..) {
            let room = match pending.work {
                Work::Decompress(_, max) => self.limit(max),
                _ => 0,
            };
            if self.stage(&mut job, pending, Direction::Decompress, room).is_err() {
                out.again.push_back(job);
            }
        }
        self.retries = retries;
        count
    }

    pub(super) fn under_way(&self) -> usize {
        self.queue.jobs()
    }

    /// Gives copies of all jobs back; the device may keep what it was pointed at.
    pub(super) fn die(&mut self, out: &mut Outbox) {
        self.queue.abandon(|one| out.again.push_back(as_it_was(one.input, one.output, &one.with)));
    }
}

/// Judges what came back; gives what is to be tried once more with all the room there is.
fn finish(one: Compressed<Pending>, room_max: usize, out: &mut Outbox) -> Option<(Job, Pending)> {
    let Compressed { input, mut output, with: mut pending, outcome } = one;
    let result = match (pending.work, outcome) {
        (Work::Compress(how), CompressOutcome::Done { .. }) => {
            wrapper::end(how, &input, &mut output);
            Ok(())
        }
        (Work::Decompress(how, max), CompressOutcome::Done { consumed }) => {
            // What follows the stream must be the trailer, and nothing else. (isal fails where anything follows, and the
            // CPU tells what is wrong. It does not miss a last block that says it is the last: all bytes are there.)
            let is_whole = consumed == pending.body.len();
            let plain = output.get(pending.start..).unwrap_or_default();
            if plain.len() > max {
                Err(JobError::TooLarge)
            } else if is_whole && ends_with_checksum(how, &input, plain) {
                Ok(())
            } else {
                Err(JobError::Corrupt)
            }
        }
        (Work::Decompress(..), CompressOutcome::OutOfSpace) if !pending.is_last => {
            pending.is_last = true;
            return Some((as_it_was(input, output, &pending), pending));
        }
        (Work::Decompress(_, max), CompressOutcome::OutOfSpace)
            if max.saturating_add(SLACK_BYTES) <= room_max =>
        {
            Err(JobError::TooLarge)
        }
        // Larger than the device has room for, or nothing it can do; the CPU tells what is wrong, if anything is.
        _ => {
            out.failed += u64::from(matches!(outcome, CompressOutcome::Failed { .. }));
            out.again.push_back(as_it_was(input, output, &pending));
            return None;
        }
    };
    if result.is_err() {
        output.truncate(pending.start);
    }
    out.done(Job { key: pending.key, work: pending.work, input, output }, result);
    None
}

/// The job, to be done elsewhere: without the header of what was not to come.
fn as_it_was(input: Vec<u8>, mut output: Vec<u8>, pending: &Pending) -> Job {
    output.truncate(pending.start);
    Job { key: pending.key, work: pending.work, input, output }
}

/// Room beyond what a message may have, so that one that is just as large as it may be is told from a larger one.
const SLACK_BYTES: usize = 64;
