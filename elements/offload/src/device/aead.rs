//! Seals by a cryptodev: the cipher is the device's; envelopes, keys and the replay window are `seal`'s.

use dpdk_sys::{CryptoQueue, SealJob, SealOutcome, Sealed, SessionId};
use hashbrown::HashMap;
use shard::{Job, JobError, JobKey, Work};

use super::{Outbox, Refusal, SESSIONS_MAX, Watch, take_out};
use crate::seal::{AAD_BYTES, FarName, HEADER_BYTES, Header, Sealer, TAG_BYTES, associate, nonce};

/// The queue pair of a shard.
pub(super) struct AeadLane {
    // Jobs under way are here, with their bytes.
    queue: CryptoQueue<Pending>,
    sessions: HashMap<Session, Held>,
    /// The session used last: seals go on with theirs.
    last: Option<(Session, SessionId)>,
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

/// What of a job the device has no use for.
pub(super) struct Pending {
    key: JobKey,
    work: Work,
}

impl AeadLane {
    pub(super) fn new(queue: CryptoQueue<Pending>) -> Self {
        Self {
            queue,
            sessions: HashMap::new(),
            last: None,
            stale: Vec::new(),
            version: 0,
            tick: 0,
            watch: Watch::default(),
        }
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        job: &mut Job,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        if self.watch.is_dead {
            return Err(Refusal::Dead);
        }
        if sealer.version() != self.version {
            self.version = sealer.version();
            self.forget();
        }
        let header = match &job.work {
            _ if job.input.is_empty() => return Err(Refusal::Unfit),
            // No text: the tag alone. Some devices refuse that.
            Work::Open(_) if job.input.len() == HEADER_BYTES + TAG_BYTES => return Err(Refusal::Unfit),
            Work::Compress(_) | Work::Decompress(..) => return Err(Refusal::Unfit),
            Work::Seal(seal) => sealer.next_header(seal),
            Work::Open(seal) => {
                let begun = sealer.begin_open(seal, &job.input).map(|(header, _)| header);
                begun.inspect_err(|error| sealer.count_open(Err(*error)))
            }
        };
        match header {
            Ok(header) => self.stage(job, &header, sealer),
            Err(error) => {
                out.done(take_out(job), Err(error));
                Ok(())
            }
        }
    }

    /// Gives the job to the queue pair, with all that goes with it.
    #[inline]
    fn stage(&mut self, job: &mut Job, header: &Header, sealer: &Sealer) -> Result<(), Refusal> {
        let Job { key, work, input, output } = job;
        let work = &*work;
        let (Work::Seal(seal) | Work::Open(seal)) = work else { return Err(Refusal::Unfit) };
        let seals = matches!(work, Work::Seal(_));
        let wanted = Session { key: FarName::of(seal, header), seals };
        let last = self.last.filter(|(session, _)| *session == wanted).map(|(_, id)| id);
        let session = last.or_else(|| self.session(wanted, sealer)).ok_or(Refusal::Unfit)?;
        let (mut start, begin) = (HEADER_BYTES, output.len());
        // What is authenticated is what came, not what it was taken for.
        let came = input.first_chunk::<HEADER_BYTES>().filter(|_| !seals).copied();
        if seals {
            start = 0;
            output.reserve(HEADER_BYTES + input.len() + TAG_BYTES);
            output.extend_from_slice(&[0; HEADER_BYTES]);
            if let Some(room) = output.get_mut(begin..).and_then(<[u8]>::first_chunk_mut) {
                header.emit_to(room);
            }
        }
        let with = Pending { key: *key, work: *work };
        let staged = self.queue.stage(
            SealJob { session, input, start, output, with },
            |iv, aad: &mut [u8; AAD_BYTES]| {
                *iv = nonce(header.counter);
                if let Some(room) = aad.first_chunk_mut() {
                    match came {
                        Some(bytes) => *room = bytes,
                        None => header.emit_to(room),
                    }
                }
                associate(seal, aad);
            },
        );
        staged.map_err(|refusal| {
            job.output.truncate(begin);
            refusal.into()
        })
    }

    /// The session of a key; a new one only for a sender that has proved itself: its first message is the CPU's.
    fn session(&mut self, wanted: Session, sealer: &Sealer) -> Option<SessionId> {
        self.tick += 1;
        // While it was the last, its uses were not noted.
        if let Some(held) = self.last.and_then(|(last, _)| self.sessions.get_mut(&last)) {
            held.used = self.tick;
        }
        self.last = None;
        if let Some(held) = self.sessions.get_mut(&wanted) {
            held.used = self.tick;
            self.last = Some((wanted, held.id));
            return Some(held.id);
        }
        if !wanted.seals && !sealer.knows(&wanted.key) {
            return None;
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
        self.last = Some((wanted, id));
        Some(id)
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
        let (mut count, mut sealed, mut opened) = (0, 0, 0);
        loop {
            let came = self.queue.poll(|one| match finish(one, sealer, out) {
                Some(Work::Seal(_)) => sealed += 1,
                Some(Work::Open(_)) => opened += 1,
                _ => {}
            });
            count += came;
            if came == 0 || !out.has_room() {
                break;
            }
        }
        sealer.count_device(sealed, opened);
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
        self.stale.extend(self.sessions.drain().map(|(_, held)| held.id));
        self.stale.retain(|id| !self.queue.end_session(*id));
    }

    /// Gives copies of all jobs back; the device may keep what it was pointed at.
    pub(super) fn die(&mut self, out: &mut Outbox) {
        self.queue.abandon(|one| out.again.push_back(as_it_was(one)));
    }
}

/// What was done, if it was done well.
#[inline]
fn finish(one: Sealed<'_, Pending>, sealer: &mut Sealer, out: &mut Outbox) -> Option<Work> {
    let result = match (&mut one.with.work, one.outcome) {
        (Work::Seal(_), SealOutcome::Done) => Ok(()),
        (Work::Open(seal), SealOutcome::Done) => {
            let text_len = one.input.len() - HEADER_BYTES - TAG_BYTES;
            let opened = Header::parse(one.input).and_then(|(header, _)| sealer.finish_open(seal, &header));
            if let Err(error) = opened {
                sealer.count_open(Err(error));
                one.output.truncate(one.output.len() - text_len);
            }
            opened
        }
        (Work::Open(_), SealOutcome::Forged) => {
            sealer.count_open(Err(JobError::Forged));
            Err(JobError::Forged)
        }
        _ => {
            out.failed += u64::from(one.outcome != SealOutcome::Abandoned);
            out.again.push_back(as_it_was(one));
            return None;
        }
    };
    out.done_with((one.with.key, one.with.work, result), one.input, one.output);
    result.ok().map(|()| one.with.work)
}

/// The job, to be done elsewhere: without the header put before what was not to come.
fn as_it_was(one: Sealed<'_, Pending>) -> Job {
    let Pending { key, work } = *one.with;
    if matches!(work, Work::Seal(_)) {
        one.output.truncate(one.output.len() - HEADER_BYTES);
    }
    Job { key, work, input: core::mem::take(one.input), output: core::mem::take(one.output) }
}
