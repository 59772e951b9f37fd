//! The queue of jobs that may run elsewhere: compression now, crypto later.

use alloc::vec::Vec;

use abi::Encoding;

use crate::Burst;

/// Whose job it is; comes back unchanged in [`Done`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobKey {
    /// The call's slot.
    pub call: u32,
    /// Which user of the slot.
    pub generation: u32,
    /// True for messages towards the upstream.
    pub is_request: bool,
}

/// What to do with the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Compress the input.
    Compress(Encoding),
    /// Decompress the input; more than `max` bytes of output is [`JobError::TooLarge`].
    Decompress(Encoding, usize),
}

/// One job. The buffers travel with it and come back.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub key: JobKey,
    /// What.
    pub work: Work,
    /// The bytes to work on.
    pub input: Vec<u8>,
    /// Where the result is appended.
    pub output: Vec<u8>,
}

/// Why a job failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobError {
    /// The input is not of that encoding, or is cut short.
    Corrupt,
    /// The output would exceed the limit.
    TooLarge,
}

/// A completed job with its buffers.
#[derive(Debug)]
pub struct Done {
    /// The job, `output` filled on success.
    pub job: Job,
    /// How it went.
    pub result: Result<(), JobError>,
}

/// A queue of jobs.
pub trait Offload {
    /// Takes jobs from the front of the burst; what stays did not fit.
    fn submit(&mut self, jobs: &mut Burst<Job>) -> usize;

    /// Appends completed jobs, at most `done.room()`.
    fn poll(&mut self, done: &mut Burst<Done>);

    /// Jobs accepted and not yet polled.
    fn pending(&self) -> usize;
}
