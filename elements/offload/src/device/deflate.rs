//! gzip and zlib by a compressdev: the stream is the device's, the wrapper ours.

use core::ops::Range;

use abi::Encoding;
use dpdk_sys::{CompressJob, CompressOutcome, CompressQueue, Compressed, Direction};
use shard::{Job, JobError, Work};

use super::{Carried, Outbox, Refusal, Watch};
use crate::codec::{ends_with_checksum, size_hint};
use crate::wrapper;

/// The queue pair of a shard.
pub(super) struct DeflateLane {
    // Jobs under way are here, with their bytes.
    queue: CompressQueue<Pending>,
    /// To be tried again with more room.
    retries: Vec<Pending>,
    pub(super) watch: Watch,
}

type Pending = Carried<Attempt>;

/// Where a job's stream is.
pub(super) struct Attempt {
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

    pub(super) fn take(&mut self, mut job: Box<Job>, out: &mut Outbox) -> Result<(), (Refusal, Box<Job>)> {
        if self.watch.is_dead {
            return Err((Refusal::Dead, job));
        }
        let start = job.output.len();
        match job.work {
            Work::Compress(how @ (Encoding::Gzip | Encoding::Deflate)) if !job.input.is_empty() => {
                let (header, len) = (wrapper::header(how), job.input.len());
                job.output.reserve(header.len() + bound(len) + wrapper::END_BYTES_MAX);
                job.output.extend_from_slice(header);
                let mark = Attempt { body: 0..len, start, is_last: true };
                self.stage(Carried { job, mark }, Direction::Compress, bound(len))
            }
            Work::Decompress(how @ (Encoding::Gzip | Encoding::Deflate), max) => {
                let body = wrapper::body(how, &job.input);
                let (body, hint) = match body.and_then(|body| Ok((body, size_hint(how, &job.input)?))) {
                    Ok(found) => found,
                    Err(error) => {
                        out.done(job, Err(error));
                        return Ok(());
                    }
                };
                let limit = self.limit(max);
                let room = hint.saturating_add(SLACK_BYTES).clamp(SLACK_BYTES, limit);
                let mark = Attempt { body, start, is_last: room == limit };
                self.stage(Carried { job, mark }, Direction::Decompress, room)
            }
            _ => Err((Refusal::Unfit, job)),
        }
    }

    /// The most room a job gets.
    fn limit(&self, max: usize) -> usize {
        max.saturating_add(SLACK_BYTES).min(self.queue.room_max(Direction::Decompress))
    }

    fn stage(&mut self, with: Pending, direction: Direction, room: usize) -> Result<(), (Refusal, Box<Job>)> {
        let body = with.mark.body.clone();
        let staged = self.queue.stage(CompressJob { direction, body, room, with });
        staged.map_err(|(refusal, with)| (refusal.into(), as_it_was(with)))
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
        for pending in retries.drain(..) {
            let room = match pending.job.work {
                Work::Decompress(_, max) => self.limit(max),
                _ => 0,
            };
            if let Err((_, job)) = self.stage(pending, Direction::Decompress, room) {
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
        self.queue.abandon(|one| out.again.push_back(as_it_was(one.with)));
    }
}

/// Judges what came back; gives what is to be tried once more with all the room there is.
fn finish(one: Compressed<Pending>, room_max: usize, out: &mut Outbox) -> Option<Pending> {
    let Compressed { with: Carried { mut job, mut mark }, outcome } = one;
    let result = match (job.work, outcome) {
        (Work::Compress(how), CompressOutcome::Done { .. }) => {
            wrapper::end(how, &job.input, &mut job.output);
            Ok(())
        }
        (Work::Decompress(how, max), CompressOutcome::Done { consumed }) => {
            // What follows the stream must be the trailer, and nothing else. (isal fails where anything follows, and the
            // CPU tells what is wrong. It does not miss a last block that says it is the last: all bytes are there.)
            let is_whole = consumed == mark.body.len();
            let plain = job.output.get(mark.start..).unwrap_or_default();
            if plain.len() > max {
                Err(JobError::TooLarge)
            } else if is_whole && ends_with_checksum(how, &job.input, plain) {
                Ok(())
            } else {
                Err(JobError::Corrupt)
            }
        }
        (Work::Decompress(..), CompressOutcome::OutOfSpace) if !mark.is_last => {
            mark.is_last = true;
            job.output.truncate(mark.start);
            return Some(Carried { job, mark });
        }
        (Work::Decompress(_, max), CompressOutcome::OutOfSpace)
            if max.saturating_add(SLACK_BYTES) <= room_max =>
        {
            Err(JobError::TooLarge)
        }
        // Larger than the device has room for, or nothing it can do; the CPU tells what is wrong, if anything is.
        _ => {
            out.failed += u64::from(matches!(outcome, CompressOutcome::Failed { .. }));
            out.again.push_back(as_it_was(Carried { job, mark }));
            return None;
        }
    };
    if result.is_err() {
        job.output.truncate(mark.start);
    }
    out.done(job, result);
    None
}

/// The job, to be done elsewhere: without the header of what was not to come.
fn as_it_was(with: Pending) -> Box<Job> {
    let Carried { mut job, mark } = with;
    job.output.truncate(mark.start);
    job
}

/// Room beyond what a message may have, so that one that is just as large as it may be is told from a larger one.
const SLACK_BYTES: usize = 64;
