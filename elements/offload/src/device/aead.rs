//! Seals by a cryptodev: the cipher is the device's; envelopes, keys and the replay window are `seal`'s.

use dpdk_sys::{AAD_MAX, CryptoQueue, Pool, SealJob, SealOutcome, Sealed, SessionId};
use hashbrown::HashMap;
use shard::{Job, JobError, Seal, Work};

use super::slots::Slots;
use super::{BUFFER_BYTES, DEPTH, Outbox, Refusal, SESSIONS_MAX, Watch};
use crate::seal::{AAD_BYTES, FarName, HEADER_BYTES, Header, Sealer, TAG_BYTES, associated, nonce};

/// The queue pair of a shard.
pub(super) struct AeadLane {
    queue: CryptoQueue,
    pool: Pool,
    pending: Slots<Pending>,
    /// Taken, not yet handed over.
    staged: Vec<SealJob>,
    done: Vec<Sealed>,
    refused: Vec<SealJob>,
    sessions: HashMap<Session, Held>,
    /// Keys to be ended when their last job is.
    stale: Vec<SessionId>,
    /// Of the keys the sessions are from.
    version: u64,
    tick: u64,
    pub(super) watch: Watch,
}

/// A key for one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Session {
    key: FarName,
    seals: bool,
}

struct Held {
    id: SessionId,
    used: u64,
}

struct Pending {
    job: Job,
    header: Header,
}

impl AeadLane {
    pub(super) fn new(queue: CryptoQueue, pool: Pool) -> Self {
        let depth = usize::from(DEPTH);
        Self {
            queue,
            pool,
            pending: Slots::new(depth),
            staged: Vec::with_capacity(depth),
            done: Vec::with_capacity(depth),
            refused: Vec::new(),
            sessions: HashMap::new(),
            stale: Vec::new(),
            version: 0,
            tick: 0,
            watch: Watch::default(),
        }
    }

    pub(super) fn take(
        &mut self,
        job: Job,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Job, Refusal)> {
        if self.watch.is_dead {
            return Err((job, Refusal::Dead));
        }
        if job.input.is_empty() || job.input.len() + TAG_BYTES > BUFFER_BYTES {
            return Err((job, Refusal::Unfit));
        }
        if self.pending.is_full() {
            return Err((job, Refusal::Full));
        }
        if sealer.version() != self.version {
            self.version = sealer.version();
            self.forget();
        }
        match job.work {
            Work::Seal(seal) => match sealer.next_header(&seal) {
                Ok(header) => self.stage(job, &seal, header, &header.emit(), 0, sealer),
                Err(error) => {
                    out.done(job, Err(error));
                    Ok(())
                }
            },
            Work::Open(seal) => match sealer.begin_open(&seal, &job.input) {
                // The first message of a sender is the CPU's: only what has proved itself gets a session.
                Ok((header, _)) if !sealer.knows(&FarName::of(&seal, &header)) => Err((job, Refusal::Unfit)),
                // No text: the tag alone. Some devices refuse that.
                Ok(_) if job.input.len() == HEADER_BYTES + TAG_BYTES => Err((job, Refusal::Unfit)),
                Ok((header, bytes)) => {
                    let bytes = *bytes;
                    self.stage(job, &seal, header, &bytes, HEADER_BYTES, sealer)
                }
                Err(error) => {
                    sealer.count_open(Err(error));
                    out.done(job, Err(error));
                    Ok(())
                }
            },
            Work::Compress(_) | Work::Decompress(..) => Err((job, Refusal::Unfit)),
        }
    }

    /// Copies the input from `start` on into a buffer, with all that goes with it.
    fn stage(
        &mut self,
        job: Job,
        seal: &Seal,
        header: Header,
        bytes: &[u8; HEADER_BYTES],
        start: usize,
        sealer: &Sealer,
    ) -> Result<(), (Job, Refusal)> {
        let wanted = Session { key: FarName::of(seal, &header), seals: start == 0 };
        let Some(session) = self.session(wanted, sealer) else { return Err((job, Refusal::Unfit)) };
        let text = job.input.get(start..).unwrap_or_default();
        let Some(mut buffer) = self.pool.alloc(text.len()) else { return Err((job, Refusal::Full)) };
        buffer.copy_from_slice(text);
        let mut aad = [0; AAD_MAX];
        aad[..AAD_BYTES].copy_from_slice(&associated(bytes, seal));
        let iv = nonce(header.counter);
        let token = self.pending.insert(Pending { job, header }).map_err(|p| (p.job, Refusal::Full))?;
        self.staged.push(SealJob { session, buffer, iv, aad, token });
        Ok(())
    }

    fn session(&mut self, wanted: Session, sealer: &Sealer) -> Option<SessionId> {
        self.tick += 1;
        if let Some(held) = self.sessions.get_mut(&wanted) {
            held.used = self.tick;
            return Some(held.id);
        }
        if self.sessions.len() + self.stale.len() >= usize::from(SESSIONS_MAX) {
            let oldest = self.sessions.iter().min_by_key(|(_, held)| held.used).map(|(key, _)| *key)?;
            let held = self.sessions.remove(&oldest)?;
            if !self.queue.end_session(held.id) {
                self.stale.push(held.id);
                return None;
            }
        }
        let key = sealer.key(&wanted.key)?;
        let id = self.queue.session(key.bytes(), wanted.seals, AAD_BYTES).ok()?;
        self.sessions.insert(wanted, Held { id, used: self.tick });
        Some(id)
    }

    pub(super) fn flush(&mut self) {
        while !self.staged.is_empty() && self.watch.hears() {
            let refused = self.refused.len();
            if self.queue.enqueue(&mut self.staged, &mut self.refused) == 0 && self.refused.len() == refused {
                break;
            }
        }
    }

    /// Jobs that came back.
    pub(super) fn poll(&mut self, sealer: &mut Sealer, out: &mut Outbox) -> usize {
        if !self.watch.hears() {
            return 0;
        }
        let mut count = 0;
        while let Some(one) = self.refused.pop() {
            count += 1;
            if let Some(pending) = self.pending.remove(one.token) {
                out.failed += 1;
                out.again.push_back(pending.job);
            }
        }
        let mut done = core::mem::take(&mut self.done);
        while self.queue.dequeue(&mut done) > 0 {
            count += done.len();
            for one in done.drain(..) {
                self.finish(one, sealer, out);
            }
        }
        self.done = done;
        if !self.stale.is_empty() {
            self.stale.retain(|id| !self.queue.end_session(*id));
        }
        count
    }

    fn finish(&mut self, one: Sealed, sealer: &mut Sealer, out: &mut Outbox) {
        let Some(Pending { mut job, header }) = self.pending.remove(one.token) else { return };
        let Job { work, output, .. } = &mut job;
        let result = match (work, one.outcome) {
            (Work::Seal(_), SealOutcome::Done) => {
                output.extend_from_slice(&header.emit());
                output.extend_from_slice(&one.buffer);
                sealer.count_sealed();
                Ok(())
            }
            (Work::Open(seal), SealOutcome::Done) => {
                let result = sealer.finish_open(seal, &header);
                if result.is_ok() {
                    output.extend_from_slice(&one.buffer);
                }
                sealer.count_open(result);
                result
            }
            (Work::Open(_), SealOutcome::Forged) => {
                sealer.count_open(Err(JobError::Forged));
                Err(JobError::Forged)
            }
            _ => {
                out.failed += 1;
                out.again.push_back(job);
                return;
            }
        };
        out.done(job, result);
    }

    pub(super) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// No session is used for another job.
    pub(super) fn forget(&mut self) {
        self.stale.extend(self.sessions.drain().map(|(_, held)| held.id));
        self.stale.retain(|id| !self.queue.end_session(*id));
    }

    /// Gives all jobs back; the device may keep its buffers.
    pub(super) fn die(&mut self, out: &mut Outbox) {
        self.staged.clear();
        self.refused.clear();
        out.again.extend(self.pending.remove_all().map(|pending| pending.job));
    }
}
