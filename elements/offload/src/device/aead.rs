//! Seals by a cryptodev: the cipher is the device's; envelopes, keys and the replay window are `seal`'s.

use dpdk_sys::{CryptoQueue, SealJob, SealOutcome, Sealed, SessionId};
use hashbrown::HashMap;
use shard::{Job, JobError, Work};

use super::{Carried, Outbox, Refusal, SESSIONS_MAX, Watch};
use crate::seal::{AAD_BYTES, FarName, HEADER_BYTES, Header, OVERHEAD_BYTES, Sealer, associate};

/// The queue pair of a shard.
pub(super) struct AeadLane {
    // Jobs under way are here, with their bytes.
    queue: CryptoQueue<Carried<()>>,
    /// Of what this shard seals, by ring.
    sealing: Vec<Option<SessionId>>,
    /// Of what it opens.
    opening: HashMap<FarName, Held>,
    /// What was opened with last: most messages go on with it.
    last: Option<(FarName, SessionId)>,
    /// Keys to be ended when their last job is.
    stale: Vec<SessionId>,
    /// Of the keys the sessions are from.
    epoch: u64,
    tick: u64,
    pub(super) watch: Watch,
}

struct Held {
    id: SessionId,
    used: u64,
}

impl AeadLane {
    pub(super) fn new(queue: CryptoQueue<Carried<()>>) -> Self {
        Self {
            queue,
            sealing: Vec::new(),
            opening: HashMap::new(),
            last: None,
            stale: Vec::new(),
            epoch: 0,
            tick: 0,
            watch: Watch::default(),
        }
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        job: Box<Job>,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Refusal, Box<Job>)> {
        if self.watch.is_dead {
            return Err((Refusal::Dead, job));
        }
        match job.work {
            Work::Seal(_) if !job.input.is_empty() => self.take_to_seal(job, sealer, out),
            // No text: the tag alone. Some devices refuse that.
            Work::Open(_) if !matches!(job.input.len(), 0 | OVERHEAD_BYTES) => {
                self.take_to_open(job, sealer, out)
            }
            _ => Err((Refusal::Unfit, job)),
        }
    }

    #[inline]
    fn take_to_seal(
        &mut self,
        mut job: Box<Job>,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Refusal, Box<Job>)> {
        let Work::Seal(seal) = &job.work else { return Err((Refusal::Unfit, job)) };
        let header = match sealer.next_header(seal) {
            Ok(header) => header,
            Err(error) => {
                out.done(job, Err(error));
                return Ok(());
            }
        };
        // Now, for that was perhaps the first one of another key.
        self.follow(sealer);
        let session = self.sealing.get(usize::from(seal.ring.0)).copied().flatten();
        let session = session.or_else(|| self.begin_sealing(&FarName::of(seal, &header), sealer));
        let Some(session) = session else { return Err((Refusal::Unfit, job)) };
        job.output.reserve(OVERHEAD_BYTES + job.input.len());
        job.output.extend_from_slice(&header.emit());
        self.stage(session, 0, job, header).map_err(|(why, mut job)| {
            job.output.truncate(job.output.len() - HEADER_BYTES);
            (why, job)
        })
    }

    #[inline]
    fn take_to_open(
        &mut self,
        job: Box<Job>,
        sealer: &Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Refusal, Box<Job>)> {
        let Work::Open(seal) = &job.work else { return Err((Refusal::Unfit, job)) };
        self.follow(sealer);
        let parsed = Header::parse(&job.input);
        let name = parsed.map(|header| FarName::of(seal, &header));
        let last = self.last.filter(|(last, _)| Ok(*last) == name).map(|(_, id)| id);
        // The key of the last one is there.
        let begun = if last.is_some() { parsed } else { sealer.begin_open(seal, &job.input) };
        let header = match begun {
            Ok(header) => header,
            Err(error) => {
                sealer.count_open(Err(error));
                out.done(job, Err(error));
                return Ok(());
            }
        };
        let session = last.or_else(|| self.begin_opening(FarName::of(seal, &header), sealer));
        let Some(session) = session else { return Err((Refusal::Unfit, job)) };
        self.stage(session, HEADER_BYTES, job, header)
    }

    /// Forgets keys that may have become others.
    #[inline]
    fn follow(&mut self, sealer: &Sealer) {
        if sealer.epoch() != self.epoch {
            self.epoch = sealer.epoch();
            self.forget();
        }
    }

    /// Gives the job to the queue pair, with all that goes with it. What is authenticated is what came, not what it was
    /// taken for: a header is its bytes.
    #[inline]
    fn stage(
        &mut self,
        session: SessionId,
        start: usize,
        job: Box<Job>,
        header: Header,
    ) -> Result<(), (Refusal, Box<Job>)> {
        let with = Carried { job, mark: () };
        let fill = |with: &Carried<()>, iv: &mut [u8; 12], aad: &mut [u8; AAD_BYTES]| {
            *iv = header.nonce();
            if let Some(room) = aad.first_chunk_mut() {
                header.emit_to(room);
            }
            if let Work::Seal(seal) | Work::Open(seal) = &with.job.work {
                associate(seal, aad);
            }
        };
        let staged = self.queue.stage(SealJob { session, start, with }, fill);
        staged.map_err(|(why, with)| (why.into(), with.job))
    }

    /// A session of our own; it stays until keys change.
    #[cold]
    fn begin_sealing(&mut self, key: &FarName, sealer: &Sealer) -> Option<SessionId> {
        let id = self.session(key, true, sealer)?;
        let at = usize::from(key.ring);
        self.sealing.resize(self.sealing.len().max(at + 1), None);
        *self.sealing.get_mut(at)? = Some(id);
        Some(id)
    }

    /// The session of a sender; a new one only if it has proved itself: its first message is the CPU's.
    #[cold]
    fn begin_opening(&mut self, key: FarName, sealer: &Sealer) -> Option<SessionId> {
        self.tick += 1;
        // While it was the last, its uses were not noted.
        if let Some(held) = self.last.take().and_then(|(last, _)| self.opening.get_mut(&last)) {
            held.used = self.tick;
        }
        if let Some(held) = self.opening.get_mut(&key) {
            held.used = self.tick;
            self.last = Some((key, held.id));
            return Some(held.id);
        }
        if !sealer.knows(&key) {
            return None;
        }
        let id = self.session(&key, false, sealer)?;
        self.opening.insert(key, Held { id, used: self.tick });
        self.last = Some((key, id));
        Some(id)
    }

    /// A new session, for which the one unused the longest may have to go.
    fn session(&mut self, key: &FarName, seals: bool, sealer: &Sealer) -> Option<SessionId> {
        let count = self.sealing.iter().flatten().count() + self.opening.len() + self.stale.len();
        if count >= usize::from(SESSIONS_MAX) {
            let oldest = self.opening.iter().min_by_key(|(_, held)| held.used).map(|(key, _)| *key)?;
            let held = self.opening.remove(&oldest)?;
            self.last = self.last.filter(|(_, id)| *id != held.id);
            if !self.queue.end_session(held.id) {
                self.stale.push(held.id);
                return None;
            }
        }
        let key = sealer.key(key)?;
        self.queue.session(key.bytes(), seals, AAD_BYTES).ok()
    }

    pub(super) fn flush(&mut self) {
        if self.watch.hears() {
            self.queue.flush();
        }
    }

    /// Jobs that came back.
    #[inline]
    pub(super) fn poll(&mut self, sealer: &mut Sealer, out: &mut Outbox) -> usize {
        if !self.watch.hears() {
            return 0;
        }
        let (mut count, mut well) = (0, Tally::default());
        loop {
            let came = self.queue.poll(|one| finish(one, sealer, out, &mut well));
            count += came;
            if came == 0 || !out.has_room() {
                break;
            }
        }
        sealer.count_device(well.sealed, well.opened);
        if !self.stale.is_empty() {
            self.stale.retain(|id| !self.queue.end_session(*id));
        }
        count
    }

    pub(super) fn under_way(&self) -> usize {
        self.queue.jobs()
    }

    /// No session is used for another job.
    pub(super) fn forget(&mut self) {
        self.last = None;
        self.stale.extend(self.sealing.drain(..).flatten());
        self.stale.extend(self.opening.drain().map(|(_, held)| held.id));
        self.stale.retain(|id| !self.queue.end_session(*id));
    }

    /// Gives copies of all jobs back; the device may keep what it was pointed at.
    pub(super) fn die(&mut self, out: &mut Outbox) {
        self.queue.abandon(|one| out.again.push_back(as_it_was(one.with.job)));
    }
}

/// What went well.
#[derive(Default)]
struct Tally {
    sealed: u64,
    opened: u64,
}

/// Hands a job on.
#[inline]
fn finish(one: Sealed<Carried<()>>, sealer: &mut Sealer, out: &mut Outbox, well: &mut Tally) {
    let Sealed { with: Carried { mut job, .. }, outcome } = one;
    let result = match (&mut job.work, outcome) {
        (Work::Seal(_), SealOutcome::Done) => {
            well.sealed += 1;
            Ok(())
        }
        (Work::Open(seal), SealOutcome::Done) => {
            let opened = Header::parse(&job.input).and_then(|header| sealer.finish_open(seal, &header));
            match opened {
                Ok(()) => well.opened += 1,
                Err(error) => {
                    sealer.count_open(Err(error));
                    job.output.truncate(job.output.len() - (job.input.len() - OVERHEAD_BYTES));
                }
            }
            opened
        }
        (Work::Open(_), SealOutcome::Forged) => {
            sealer.count_open(Err(JobError::Forged));
            Err(JobError::Forged)
        }
        _ => {
            out.failed += 1;
            out.again.push_back(as_it_was(job));
            return;
        }
    };
    out.done(job, result);
}

/// The job, to be done elsewhere: without the header put before what was not to come.
fn as_it_was(mut job: Box<Job>) -> Box<Job> {
    if matches!(job.work, Work::Seal(_)) {
        job.output.truncate(job.output.len() - HEADER_BYTES);
    }
    job
}
