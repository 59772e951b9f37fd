//! An offload queue in virtual time: some jobs are done at once, others a seeded while later and out of
//! order, and sometimes the queue is full.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Read;
use std::rc::Rc;

use abi::Encoding;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};
use shard::{Burst, CallTag, Done, Job, JobError, Offload, Ring, Seal, Work};

use crate::meddler::Meddler;
use crate::rng::Rng;
use crate::seals::{self, KEYS, Keys};

/// What the world reads of a queue that the shard owns.
#[derive(Clone, Debug, Default)]
pub(crate) struct OffloadView {
    /// The virtual clock, written by the world.
    pub(crate) now: Rc<Cell<u64>>,
    /// When the next late job completes; a real queue would wake its shard then.
    pub(crate) wake_at: Rc<Cell<Option<u64>>>,
    /// Jobs accepted and not polled.
    pub(crate) pending: Rc<Cell<usize>>,
    /// The node's keys; the world changes them.
    pub(crate) keys: Rc<RefCell<Keys>>,
    /// Who sees its envelopes first.
    pub(crate) meddler: Rc<RefCell<Meddler>>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct SimOffload {
    rng: Rng,
    jobs: Vec<(u64, Box<Job>)>,
    room: usize,
    late_permille: u64,
    view: OffloadView,
    /// Sealed calls opened so far, and named.
    opened: BTreeSet<[u8; CallTag::LEN]>,
    named: u64,
    /// Whose queue it is: no two nodes name a call alike.
    node: usize,
}

impl SimOffload {
    pub(crate) fn new(node: usize, mut rng: Rng, view: OffloadView) -> Self {
        let room = rng.pick(&[1, 4, 64]);
        let late_permille = rng.pick(&[0, 200, 1000]);
        Self { rng, jobs: Vec::new(), room, late_permille, view, opened: BTreeSet::new(), named: 0, node }
    }

    fn publish(&self) {
        let now = self.view.now.get();
        self.view.pending.set(self.jobs.len());
        self.view.wake_at.set(self.jobs.iter().map(|(due, _)| *due).filter(|due| *due > now).min());
    }
}

/// Compresses `input` as a whole message.
pub(crate) fn compress(encoding: Encoding, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = Compression::fast();
    let result = match encoding {
        Encoding::Gzip => GzEncoder::new(input, level).read_to_end(&mut out),
        Encoding::Deflate => ZlibEncoder::new(input, level).read_to_end(&mut out),
        Encoding::Zstd => {
            out.resize(zstd_safe::compress_bound(input.len()), 0);
            let result = zstd_safe::compress(&mut out[..], input, 1);
            out.truncate(result.unwrap_or(0));
            Ok(out.len())
        }
    };
    // Reading from memory cannot fail.
    debug_assert!(result.is_ok());
    out
}

/// Undoes `compress`, unless the result has more than `max` bytes.
pub(crate) fn decompress(encoding: Encoding, input: &[u8], max: usize) -> Result<Vec<u8>, JobError> {
    let mut out = Vec::new();
    let limit = max as u64 + 1;
    let result = match encoding {
        Encoding::Gzip => GzDecoder::new(input).take(limit).read_to_end(&mut out),
        Encoding::Deflate => ZlibDecoder::new(input).take(limit).read_to_end(&mut out),
        Encoding::Zstd => {
            out.resize(max + 1, 0);
            let result = zstd_safe::decompress(&mut out[..], input);
            out.truncate(result.unwrap_or(0));
            let declared = zstd_safe::get_frame_content_size(input);
            match (result, declared) {
                (Ok(len), _) => Ok(len),
                (Err(_), Ok(Some(size))) if size > max as u64 => return Err(JobError::TooLarge),
                (Err(_), _) => return Err(JobError::Corrupt),
            }
        }
    };
    if result.is_err() {
        return Err(JobError::Corrupt);
    }
    if out.len() > max { Err(JobError::TooLarge) } else { Ok(out) }
}

fn run(job: &mut Job, keys: &Keys, opened: &mut BTreeSet<[u8; CallTag::LEN]>) -> Result<(), JobError> {
    let Job { work, input, output, .. } = job;
    match work {
        Work::Compress(encoding) => output.extend_from_slice(&compress(*encoding, input)),
        Work::Decompress(encoding, max) => output.extend_from_slice(&decompress(*encoding, input, *max)?),
        Work::Seal(how) => seals::seal(keys, how, input),
        Work::Open(how) => seals::open(keys, how, input, opened)?,
    }
    Ok(())
}

impl Offload for SimOffload {
    fn submit(&mut self, jobs: &mut Burst<Box<Job>>) -> usize {
        let given: Vec<_> = jobs.drain().collect();
        let mut taken = 0;
        for job in given {
            if !jobs.is_empty() || self.jobs.len() >= self.room {
                // The burst held it a moment ago.
                let is_back = jobs.push(job).is_ok();
                debug_assert!(is_back);
                continue;
            }
            let late =
                if self.rng.chance(self.late_permille) { self.rng.skewed(3_000_000) as u64 } else { 0 };
            self.jobs.push((self.view.now.get() + late, job));
            taken += 1;
        }
        self.publish();
        taken
    }

    fn poll(&mut self, done: &mut Burst<Done>) {
        let now = self.view.now.get();
        while done.room() > 0 {
            let ready: Vec<usize> =
                self.jobs.iter().enumerate().filter(|(_, (due, _))| *due <= now).map(|(at, _)| at).collect();
            if ready.is_empty() {
                break;
            }
            let at = self.rng.pick(&ready);
            let (_, mut job) = self.jobs.swap_remove(at);
            let keys = self.view.keys.borrow();
            let plain = job.input.get(Seal::HEAD..).unwrap_or_default().to_vec();
            let result = run(&mut job, &keys, &mut self.opened);
            if let Work::Seal(seal) = &job.work {
                let mut meddler = self.view.meddler.borrow_mut();
                meddler.pass(&mut self.rng, &keys, seal, &plain, &mut job.input);
            }
            drop(keys);
            let is_in = done.push(Done { job, result }).is_ok();
            debug_assert!(is_in);
        }
        self.publish();
    }

    fn pending(&self) -> usize {
        self.jobs.len()
    }

    fn ring(&self, name: &str) -> Option<Ring> {
        KEYS.iter().zip(0..).find(|(key, _)| **key == name).map(|(_, at)| Ring(at))
    }

    fn tag(&mut self) -> CallTag {
        // Whoever records a call can send it again under its own tag.
        let repeats = self.named > 0 && self.rng.chance(self.view.meddler.borrow().permille);
        self.named += u64::from(!repeats);
        let mut tag = [0; CallTag::LEN];
        tag[..8].copy_from_slice(&self.named.to_be_bytes());
        tag[8] = u8::try_from(self.node).unwrap_or(u8::MAX);
        CallTag(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_encodings_undo_themselves_and_respect_the_limit() {
        let text = b"towpath towpath towpath towpath".repeat(10);
        for encoding in Encoding::ALL {
            let small = compress(encoding, &text);
            assert!(small.len() < text.len());
            assert_eq!(decompress(encoding, &small, text.len()), Ok(text.clone()));
            assert_eq!(decompress(encoding, &small, text.len() - 1), Err(JobError::TooLarge));
            assert_eq!(decompress(encoding, &small[..small.len() / 2], 1 << 20), Err(JobError::Corrupt));
        }
    }
}
