//! The queue that runs on the CPU: small jobs at once, large ones on a helper thread.
//!
//! A job of at most [`INLINE_INPUT_BYTES`] runs inside `submit`, until [`INLINE_TURN_BYTES`] of input and
//! output have been worked on since the last `poll`; everything else goes through a bounded channel to one
//! helper thread, which wakes the shard when a job is done. A turn therefore stays bounded, whatever a
//! message claims to be.
//!
//! Invariant: buffers travel with their job and come back; nothing is allocated per job once its buffers
//! are as large as its messages.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;

use shard::{Burst, CallTag, Done, Job, JobError, Offload, Ring, Work};

use crate::codec::Codec;
use crate::seal::{Keys, SealCounters, Sealer};

/// The largest input that is worked on inside a turn.
pub const INLINE_INPUT_BYTES: usize = 16 << 10;
/// Input and output bytes that are worked on inside one turn.
pub const INLINE_TURN_BYTES: usize = 64 << 10;
/// Jobs that wait for the helper, and results that wait for the shard.
const QUEUE_JOBS: usize = 64;

/// Compression and seals on the CPU, for one shard.
pub struct Cpu {
    bench: Bench,
    /// Done inside `submit`, not yet polled.
    ready: VecDeque<Done>,
    turn_bytes: usize,
    to_helper: SyncSender<Box<Job>>,
    from_helper: Receiver<Done>,
    at_helper: usize,
}

impl Cpu {
    /// A queue with its helper thread. `wake` is called on that thread after each job it finishes, so that
    /// a shard that waits comes back to poll. Call this on a thread that is not pinned: the helper inherits
    /// its affinity.
    ///
    /// # Errors
    /// The system's, when no thread can be made; another after 2^15 queues of one process.
    pub fn new(keys: &Arc<Keys>, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let counters = keys.count();
        let (bench, mut helper) = (Bench::new(keys, &counters)?, Bench::new(keys, &counters)?);
        let (to_helper, jobs) = sync_channel::<Box<Job>>(QUEUE_JOBS);
        // Room for every job that can be under way, so that the helper never waits for the shard.
        let (results, from_helper) = sync_channel::<Done>(2 * QUEUE_JOBS);
        thread::Builder::new().name("offload".into()).stack_size(256 << 10).spawn(move || {
            while let Ok(mut job) = jobs.recv() {
                helper.sealer.refresh();
                let result = helper.run(&mut job, usize::MAX);
                if results.send(Done { job, result }).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self {
            bench,
            ready: VecDeque::with_capacity(QUEUE_JOBS),
            turn_bytes: 0,
            to_helper,
            from_helper,
            at_helper: 0,
        })
    }

    /// What comes before the jobs of a burst.
    pub(crate) fn begin(&mut self) {
        if self.pending() == 0 {
            self.turn_bytes = 0;
        }
        self.bench.sealer.refresh();
    }

    /// What seals on this thread.
    #[cfg(feature = "dpdk")]
    pub(crate) fn sealer(&mut self) -> &mut Sealer {
        &mut self.bench.sealer
    }

    /// Runs or queues one job, or gives it back.
    pub(crate) fn take(&mut self, mut job: Box<Job>) -> Result<(), Box<Job>> {
        let is_small = job.work.text_len(job.input.len()) <= INLINE_INPUT_BYTES;
        if is_small && self.turn_bytes + job.input.len() <= INLINE_TURN_BYTES && self.ready.len() < QUEUE_JOBS
        {
            // Before it is run: of what does not open nothing is left to be counted.
            let (input, start) = (job.input.len(), job.output.len());
            let result = self.bench.run(&mut job, INLINE_TURN_BYTES);
            self.turn_bytes += input + job.output.len() - start;
            let is_cut_short = matches!(job.work, Work::Decompress(_, max) if max > INLINE_TURN_BYTES);
            if !(result == Err(JobError::TooLarge) && is_cut_short) {
                self.ready.push_back(Done { job, result });
                return Ok(());
            }
            // More output than a turn may make: it has cost one, and begins again on the helper.
            self.turn_bytes = INLINE_TURN_BYTES;
        }
        if self.at_helper >= QUEUE_JOBS {
            return Err(job);
        }
        match self.to_helper.try_send(job) {
            Ok(()) => {
                self.at_helper += 1;
                Ok(())
            }
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Err(job),
        }
    }
}

impl Offload for Cpu {
    fn submit(&mut self, jobs: &mut Burst<Box<Job>>) -> usize {
        self.begin();
        jobs.give(|job| self.take(job))
    }

    fn poll(&mut self, done: &mut Burst<Done>) {
        self.turn_bytes = 0;
        while done.room() > 0 {
            let Some(one) = self.ready.pop_front() else { break };
            let is_in = done.push(one).is_ok();
            debug_assert!(is_in);
        }
        while done.room() > 0 && self.at_helper > 0 {
            match self.from_helper.try_recv() {
                Ok(one) => {
                    self.at_helper -= 1;
                    let is_in = done.push(one).is_ok();
                    debug_assert!(is_in);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    fn pending(&self) -> usize {
        self.ready.len() + self.at_helper
    }

    fn ring(&self, name: &str) -> Option<Ring> {
        self.bench.sealer.ring(name)
    }

    fn tag(&mut self) -> CallTag {
        self.bench.sealer.tag()
    }
}

/// What one thread works with.
pub(crate) struct Bench {
    codec: Codec,
    pub(crate) sealer: Sealer,
}

impl Bench {
    pub(crate) fn new(keys: &Arc<Keys>, counters: &Arc<SealCounters>) -> io::Result<Self> {
        let sealer = Sealer::new(keys.clone(), counters.clone());
        let sealer = sealer.ok_or_else(|| io::Error::other("more offload queues than a process may have"))?;
        Ok(Self { codec: Codec::new(), sealer })
    }

    pub(crate) fn run(&mut self, job: &mut Job, output_bytes_max: usize) -> Result<(), JobError> {
        let Job { work, input, output, .. } = job;
        match work {
            Work::Compress(how) => self.codec.compress(*how, input, output),
            Work::Decompress(how, max) => {
                self.codec.decompress(*how, (*max).min(output_bytes_max), input, output)
            }
            Work::Seal(seal) => self.sealer.seal(seal, input),
            Work::Open(seal) => self.sealer.open(seal, input),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
