//! Seals by a cryptodev: the cipher is the device's; envelopes, keys and the replay window are `seal`'s.

use dpdk_sys::{AAD_MAX, BURST_MAX, Bound, CryptoQueue, IV_LEN, SealJob, SealOutcome, Sealed, SessionId};
use hashbrown::HashMap;
use shard::{Job, JobError, Work};

use super::{Carried, Outbox, Refusal, SESSIONS_MAX, Watch};
use crate::seal::{
    AAD_BYTES, FarName, Flags, HEADER_BYTES, Header, OVERHEAD_BYTES, Sealer, associate, nonce,
};

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
        mut job: Box<Job>,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Refusal, Box<Job>)> {
        if self.watch.is_dead {
            return Err((Refusal::Dead, job));
        }
        let begun = match job.work {
            Work::Seal(_) if job.input.len() > HEADER_BYTES => self.begin_seal(&mut job, sealer),
            // No text: the tag alone. Some devices refuse that.
            Work::Open(_) if !matches!(job.input.len(), 0 | OVERHEAD_BYTES) => self.begin_open(&job, sealer),
            _ => Ok(None),
        };
        let session = match begun {
            Ok(Some(session)) => session,
            Ok(None) => return Err((Refusal::Unfit, job)),
            Err(error) => {
                refuse(job, error, out);
                return Ok(());
            }
        };
        let with = Carried { job, mark: () };
        let staged = self.queue.stage(SealJob { session, start: HEADER_BYTES, with });
        staged.map_err(|(why, with)| (why.into(), with.job))
    }

    /// Writes the header of what is to be sealed. With which session; `None`: there can be none.
    #[inline]
    fn begin_seal(&mut self, job: &mut Job, sealer: &mut Sealer) -> Result<Option<SessionId>, JobError> {
        let Work::Seal(seal) = &job.work else { return Ok(None) };
        let header = sealer.next_header(seal)?;
        // Now, for that was perhaps the first one of another key.
        self.follow(sealer);
        if let Some(room) = job.input.first_chunk_mut() {
            header.emit_to(room);
        }
        let session = self.sealing.get(usize::from(seal.ring.0)).copied().flatten();
        Ok(session.or_else(|| self.begin_sealing(&FarName::of(seal, &header), sealer)))
    }

    /// With which session to open; `None`: there can be none, or not yet.
    #[inline]
    fn begin_open(&mut self, job: &Job, sealer: &Sealer) -> Result<Option<SessionId>, JobError> {
        let Work::Open(seal) = &job.work else { return Ok(None) };
        self.follow(sealer);
        let parsed = Header::parse(&job.input);
        let name = parsed.map(|header| FarName::of(seal, &header));
        if let Some((_, id)) = self.last.filter(|(last, _)| Ok(*last) == name) {
            return Ok(Some(id));
        }
        let begun = sealer.begin_open(seal, &job.input);
        let header = begun.inspect_err(|error| sealer.count_open(Err(*error)))?;
        Ok(self.begin_opening(FarName::of(seal, &header), sealer))
    }

    /// Forgets keys that may have become others.
    #[inline]
    fn follow(&mut self, sealer: &Sealer) {
        if sealer.epoch() != self.epoch {
            self.epoch = sealer.epoch();
            self.forget();
        }
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
            // What works here and now does not work twice in a turn.
            if came < BURST_MAX || !out.has_room() || self.queue.works_in_poll() {
                break;
            }
        }
        sealer.count_device(well.sealed, well.opened);
        self.watch.is_broken |= well.is_broken;
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
        self.queue.abandon(|one| out.again.push_back(one.with.job));
    }
}

/// What is authenticated is what came, not what it was taken for.
impl Bound for Carried<()> {
    #[inline]
    fn aad_len(&self) -> usize {
        AAD_BYTES
    }

    #[inline]
    fn bind(&self, iv: &mut [u8; IV_LEN], aad: &mut [u8; AAD_MAX]) {
        let (header, aad) = (self.job.input.first_chunk(), aad.first_chunk_mut());
        if let (Work::Seal(seal) | Work::Open(seal), Some(header), Some(aad)) = (&self.job.work, header, aad)
        {
            *iv = nonce(header);
            aad[..HEADER_BYTES].copy_from_slice(header);
            associate(seal, aad);
        }
    }
}

/// How it went.
#[derive(Default)]
struct Tally {
    sealed: u64,
    opened: u64,
    /// A text is gone: no other is to be.
    is_broken: bool,
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
            let opened = sealer.finish_open(seal, Flags::of(&job.input));
            match opened {
                Ok(()) => well.opened += 1,
                Err(error) => sealer.count_open(Err(error)),
            }
            opened
        }
        (Work::Open(_), SealOutcome::Forged) => {
            sealer.count_open(Err(JobError::Forged));
            Err(JobError::Forged)
        }
        (_, SealOutcome::Lost { .. }) => {
            out.failed += 1;
            well.is_broken = true;
            Err(JobError::Lost)
        }
        _ => {
            out.failed += 1;
            out.again.push_back(job);
            return;
        }
    };
    match result {
        Ok(()) => out.done(job, result),
        Err(error) => refuse(job, error, out),
    }
}

/// Nothing is shown of what does not open.
#[cold]
fn refuse(mut job: Box<Job>, why: JobError, out: &mut Outbox) {
    job.input.truncate(HEADER_BYTES);
    out.done(job, Err(why));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shard::{JobKey, Ring, Seal};

    use super::*;
    use crate::seal::Keys;

    #[test]
    fn what_a_device_has_lost_ends_its_call_and_the_use_of_the_device() {
        let keys = Arc::new(Keys::for_timing().unwrap());
        let mut sealer = Sealer::new(keys.clone(), keys.count()).unwrap();
        let tag = sealer.tag();
        let (is_request, is_final, encoding) = (true, false, None);
        let seal = Seal { ring: Ring(0), tag, purpose: [0; 16], is_request, index: 0, is_final, encoding };
        let key = JobKey { call: 1, generation: 1, is_request };
        let (mut out, mut well) = (Outbox::default(), Tally::default());
        let job = Job { key, work: Work::Seal(seal), input: vec![7; 100], output: Vec::new() };
        let with = Carried { job: Box::new(job), mark: () };
        let outcome = SealOutcome::Lost { status: 5 };
        finish(Sealed { with, outcome }, &mut sealer, &mut out, &mut well);
        let done = out.ready.drain().next().unwrap();
        assert_eq!((done.result, done.job.input.len()), (Err(JobError::Lost), HEADER_BYTES));
        assert_eq!((out.failed, out.again.len()), (1, 0), "nobody does it again with what is left");
        let mut watch = Watch { is_broken: well.is_broken, ..Watch::default() };
        assert!(watch.is_dead(true, &sealer) && !watch.hears());
    }
}
