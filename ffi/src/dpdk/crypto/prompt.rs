//! Jobs done at once and in place, by drivers whose device is the calling core (`crypto_aesni_gcm`, `crypto_aesni_mb`):
//! no operation, no segment, no ring, and the text is in the cache once.
//!
//! The work is done in `poll`, at most [`TURN_BYTES`] of it or one job, so that who polls is not kept long. Until then a
//! job is as it came. Between the two nothing is the device's: it cannot die with a job. A job it fails at is lost only if
//! its text has been touched.

use core::ffi::c_void;
use core::ptr::NonNull;

use super::super::accel::{BURST_MAX, Refusal, TURN_BYTES};
use super::super::raw;
use super::queue::Session;
use super::{AAD_MAX, Bound, IV_LEN, SealOutcome, Sealed, SessionId, TAG_LEN};

/// The most of one job: who polls would wait too long for more.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// What the driver says of a tag that is wrong.
const FORGED: i32 = libc::EBADMSG;
/// Bytes by which a text is known to be as it was: a cipher's block. A cipher begins at the front.
const FRONT: usize = 16;

/// Jobs staged: the first one's place is at `first`, the others' follow in order, around the end.
pub(super) struct Prompt<T> {
    device: u8,
    places: Vec<Place<T>>,
    first: usize,
    count: usize,
    /// What a call is given. Its pointers mean something only during the call.
    desk: Box<raw::towpath_aead_desk>,
    /// What the texts there are bound to.
    bonds: Box<[Bond; raw::K_DESK]>,
    /// Where the text of a job is whose vector is not what it was: of no length, and with room for a tag.
    nowhere: Box<[u8; TAG_LEN]>,
}

#[derive(Clone, Copy)]
struct Bond {
    nonce: [u8; IV_LEN],
    aad: [u8; AAD_MAX],
    /// The text's first bytes, as they were; none of a text that has fewer.
    front: Option<[u8; FRONT]>,
}

/// A job's place. Written field by field, not moved: a processor waits for bytes that were just written in other pieces
/// than they are read.
struct Place<T> {
    /// None: no job is here.
    with: Option<T>,
    session: NonNull<c_void>,
    id: SessionId,
    seals: bool,
    start: usize,
    text_len: u32,
}

impl<T> Place<T> {
    /// Where the text ends.
    #[inline]
    fn end(&self) -> usize {
        self.start + self.text_len as usize
    }
}

// SAFETY: the desk's pieces point at bytes only while `poll` runs; sessions are the queue pair's.
unsafe impl<T: Send> Send for Prompt<T> {}

impl<T: Bound> Prompt<T> {
    pub(super) fn new(device: u8, depth: usize) -> Self {
        let (session, id) = (NonNull::dangling(), SessionId(0));
        let place = || Place { with: None, session, id, seals: false, start: 0, text_len: 0 };
        let bond = Bond { nonce: [0; IV_LEN], aad: [0; AAD_MAX], front: None };
        let places = core::iter::repeat_with(place).take(depth.next_power_of_two()).collect();
        Self {
            device,
            places,
            first: 0,
            count: 0,
            desk: Box::default(),
            bonds: Box::new([bond; raw::K_DESK]),
            nowhere: Box::new([0; TAG_LEN]),
        }
    }

    /// See [`CryptoQueue::stage`](super::CryptoQueue::stage); the text is `text_len` bytes of the input from `start` on.
    #[inline]
    pub(super) fn stage(
        &mut self,
        (id, session): (SessionId, &Session),
        (start, text_len): (usize, usize),
        mut with: T,
    ) -> Result<(), (Refusal, T)> {
        if text_len > TEXT_BYTES_MAX {
            return Err((Refusal::Unfit, with));
        }
        let at = (self.first + self.count) & (self.places.len() - 1);
        let Some(place) = self.places.get_mut(at).filter(|place| place.with.is_none()) else {
            return Err((Refusal::Full, with));
        };
        if session.seals {
            with.buffers().0.reserve(TAG_LEN);
        }
        place.with = Some(with);
        (place.session, place.id, place.seals) = (session.raw, id, session.seals);
        #[expect(clippy::cast_possible_truncation, reason = "at most TEXT_BYTES_MAX")]
        let short = text_len as u32;
        (place.start, place.text_len) = (start, short);
        self.count += 1;
        Ok(())
    }

    /// See [`CryptoQueue::poll`](super::CryptoQueue::poll).
    #[inline]
    pub(super) fn poll(&mut self, mut each: impl FnMut(Sealed<T>)) -> usize {
        let (mut done, mut bytes, mut has_lost) = (0, 0, false);
        // What loses one job may not have another.
        while done < BURST_MAX && !has_lost {
            let (count, more) = self.run(BURST_MAX - done, bytes);
            if count == 0 {
                break;
            }
            let places = self.places.get_mut(self.first..self.first + count).unwrap_or_default();
            let desk = self.desk.text.iter().zip(&self.desk.status).zip(&*self.bonds);
            for (place, ((text, status), bond)) in places.iter_mut().zip(desk) {
                if let Some(with) = place.with.take() {
                    let one = finish(with, place, text.base.cast(), *status, bond.front.as_ref());
                    has_lost |= matches!(one.outcome, SealOutcome::Lost { .. });
                    each(one);
                }
            }
            self.first += count;
            self.count -= count;
            // The same places again, while they are in the cache.
            if self.count == 0 || self.first == self.places.len() {
                self.first = 0;
            }
            done += count;
            bytes += more;
        }
        done
    }

    /// Has the next jobs done: of one session, in places that follow each other, no more than the desk has room for, and
    /// with no more bytes than a call may have after `bytes` of it. How many, and of how many bytes.
    fn run(&mut self, most: usize, bytes: usize) -> (usize, usize) {
        let places = self.places.get_mut(self.first..).unwrap_or_default();
        let Some(session) = places.first().map(|place| place.session) else { return (0, 0) };
        let desk = &mut *self.desk;
        let room = desk.text.iter_mut().zip(&mut desk.iv).zip(&mut desk.tag).zip(&mut desk.aad);
        let room = room.zip(&mut *self.bonds);
        let (mut count, mut all) = (0, bytes);
        for (place, ((((text, iv), tag), aad), bond)) in
            places.iter_mut().take(most.min(self.count)).zip(room)
        {
            if place.session != session || all > 0 && all + place.text_len as usize > TURN_BYTES {
                break;
            }
            let end = place.end();
            let Some(with) = &mut place.with else { break };
            with.bind(&mut bond.nonce, &mut bond.aad);
            let input = with.buffers().0;
            bond.front = input.get(place.start..end).and_then(|text| text.first_chunk()).copied();
            let (at, len) = if holds(input, end) {
                (input.as_mut_ptr().wrapping_add(place.start), place.text_len)
            } else {
                (self.nowhere.as_mut_ptr(), 0)
            };
            (text.base, text.len) = (at.cast(), len);
            tag.va = at.wrapping_add(len as usize).cast();
            (iv.va, aad.va) = (bond.nonce.as_mut_ptr().cast(), bond.aad.as_mut_ptr().cast());
            all += place.text_len as usize;
            count += 1;
        }
        if count > 0 {
            // SAFETY: so many jobs are on the desk. Each one's text is bytes of a vector that nobody else has meanwhile, and
            // its tag the bytes behind, which it has room for; or nowhere's; the rest are bonds. The session lives as
            // long as there are jobs with it.
            unsafe { raw::towpath_aead_now(self.device, session.as_ptr(), desk, count) };
        }
        (usize::from(count), all - bytes)
    }

    /// See [`CryptoQueue::abandon`](super::CryptoQueue::abandon).
    pub(super) fn abandon(&mut self, mut each: impl FnMut(Sealed<T>)) {
        let (behind, from) = self.places.split_at_mut(self.first);
        for with in from.iter_mut().chain(behind).filter_map(|place| place.with.take()) {
            each(Sealed { with, outcome: SealOutcome::Abandoned });
        }
        (self.first, self.count) = (0, 0);
    }

    /// Jobs taken and not given back.
    pub(super) fn jobs(&self) -> usize {
        self.count
    }

    /// A job is for this session.
    pub(super) fn uses(&self, id: SessionId) -> bool {
        self.places.iter().any(|place| place.with.is_some() && place.id == id)
    }
}

/// The text ends there, and behind it is room for a tag.
#[inline]
fn holds(input: &Vec<u8>, end: usize) -> bool {
    input.len() >= end && input.capacity() - end >= TAG_LEN
}

/// The device has been at the job, whose text was at `text`.
#[inline]
fn finish<T: Bound>(
    mut with: T,
    place: &Place<T>,
    text: *const u8,
    status: i32,
    front: Option<&[u8; FRONT]>,
) -> Sealed<T> {
    let end = place.end();
    let input = with.buffers().0;
    // Whoever lends us another vector than before gets nothing, not even another's bytes.
    if !holds(input, end) || input.as_ptr().wrapping_add(place.start) != text {
        return Sealed { with, outcome: SealOutcome::Lost { status: u8::MAX } };
    }
    let outcome = match status {
        0 if place.seals => {
            // SAFETY: in the vector's memory, where the device says that it has written text and tag.
            unsafe { input.set_len(end + TAG_LEN) };
            SealOutcome::Done
        }
        0 => {
            input.truncate(end);
            SealOutcome::Done
        }
        FORGED if !place.seals => SealOutcome::Forged,
        _ => {
            let status = u8::try_from(status).unwrap_or(u8::MAX);
            let now = input.get(place.start..end).and_then(|text| text.first_chunk());
            if front.is_some() && now == front {
                SealOutcome::Failed { status }
            } else {
                SealOutcome::Lost { status }
            }
        }
    };
    Sealed { with, outcome }
}

/// True if the device does this, and well: whatever its flags say, McGrew and Viega's second test case is tried ("The
/// Galois/Counter Mode of Operation", appendix B).
///
/// # Safety
/// A session of the device's for sealing, with a key of 16 zeros and no associated data.
pub(super) unsafe fn is_prompt(device: u8, session: NonNull<c_void>) -> bool {
    const SEALED: [u8; 32] = [
        0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78, 0xab,
        0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
    ];
    let (mut text, mut iv) = ([0; 32], [0; IV_LEN]);
    let mut desk = raw::towpath_aead_desk::default();
    (desk.text[0].base, desk.text[0].len) = (text.as_mut_ptr().cast(), 16);
    desk.tag[0].va = text.as_mut_ptr().wrapping_add(16).cast();
    desk.iv[0].va = iv.as_mut_ptr().cast();
    desk.aad[0].va = iv.as_mut_ptr().cast();
    // SAFETY: one job, with room for text and tag; the caller vouches for the session.
    unsafe { raw::towpath_aead_now(device, session.as_ptr(), &raw mut desk, 1) };
    desk.status[0] == 0 && text == SEALED
}

#[cfg(test)]
mod tests {
    use super::super::Buffers;
    use super::*;

    /// Its vector, another, and how often it has been asked for one before it gives the other.
    struct Job(Vec<u8>, Vec<u8>, usize);

    impl Buffers for Job {
        fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
            if self.2 == 0 {
                return (&mut self.1, &mut self.0);
            }
            self.2 -= 1;
            (&mut self.0, &mut self.1)
        }
    }

    impl Bound for Job {
        fn aad_len(&self) -> usize {
            0
        }

        fn bind(&self, _: &mut [u8; IV_LEN], _: &mut [u8; AAD_MAX]) {}
    }

    #[test]
    fn a_device_that_fails_has_lost_what_it_may_have_touched() {
        // There is no such device: the library says so of each job.
        let mut prompt = Prompt::new(u8::MAX, 64);
        let session = Session { raw: NonNull::dangling(), seals: true, aad_len: 0 };
        let status = u8::try_from(libc::EINVAL).unwrap();
        let texts = [&b"sixteen bytes, or"[..], b"too short to say"].map(<[u8]>::to_vec);
        for (text, len, outcome) in [
            (&texts[0], 17, SealOutcome::Failed { status }),
            (&texts[1], 16, SealOutcome::Failed { status }),
            (&texts[1], 15, SealOutcome::Lost { status }),
        ] {
            for _ in 0..40 {
                let job = Job(text.clone(), Vec::new(), 9);
                assert!(prompt.stage((SessionId(3), &session), (0, len), job).is_ok());
            }
            assert!(prompt.uses(SessionId(3)) && !prompt.uses(SessionId(2)));
            let mut seen = Vec::new();
            // What loses a job may not have the next ones.
            let worked_on = if matches!(outcome, SealOutcome::Lost { .. }) { raw::K_DESK } else { BURST_MAX };
            assert_eq!(prompt.poll(|one| seen.push((one.outcome, one.with.0))), worked_on);
            assert_eq!(seen, vec![(outcome, text.clone()); worked_on], "and nothing is claimed to be sealed");
            assert_eq!(prompt.jobs(), 40 - worked_on);
            prompt.abandon(|one| assert_eq!(one.outcome, SealOutcome::Abandoned));
        }
    }

    #[test]
    fn a_spoilt_text_is_told_from_one_that_is_as_it_was() {
        let place = |seals| Place::<Job> {
            with: None,
            session: NonNull::dangling(),
            id: SessionId(0),
            seals,
            start: 2,
            text_len: 16,
        };
        for seals in [true, false] {
            let mut text = Vec::with_capacity(64);
            text.extend_from_slice(&[5; 40]);
            let at = text.as_ptr().wrapping_add(2);
            let spoilt =
                finish(Job(text, Vec::new(), 9), &place(seals), at, FORGED, Some(&[4; FRONT])).outcome;
            let lost = SealOutcome::Lost { status: u8::try_from(FORGED).unwrap() };
            assert_eq!(
                spoilt,
                if seals { lost } else { SealOutcome::Forged },
                "a seal has no tag to be wrong"
            );
        }
    }

    #[test]
    fn a_job_that_gives_other_vectors_than_before_gets_nothing() {
        let mut prompt = Prompt::new(u8::MAX, 4);
        let session = Session { raw: NonNull::dangling(), seals: true, aad_len: 0 };
        // Asked by `stage`, before the work, and after.
        for asked in [1, 2] {
            let job = Job(vec![7; 100], vec![1, 2], asked);
            assert!(prompt.stage((SessionId(0), &session), (0, 100), job).is_ok());
            let mut seen = Vec::new();
            prompt.poll(|one| seen.push((one.outcome, one.with.1)));
            assert_eq!(seen, [(SealOutcome::Lost { status: u8::MAX }, vec![1, 2])], "{asked}");
        }
    }
}
