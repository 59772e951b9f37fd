//! Which calls have been opened on this node: each at most once.
//!
//! A call is known by its tag, which its first message authenticates: the sender, the sender's number for the
//! call, and the second it began. Calls whose second is too far from ours are refused, so nothing needs to be
//! remembered longer than that; within that time, every call of a sender is a bit in its window.
//!
//! A window is a ring of words of 32 calls, each with the round of the ring it belongs to:
//!
//! ```text
//! call = round · 2^20 + word · 32 + bit      word = | round (32) | bits (32) |
//! ```
//!
//! Recording a call is one compare-and-swap, from any shard. A call whose word belongs to a later round is
//! too old to tell, and refused. Words come in pages that are made when their first call comes.
//!
//! Invariant: a window is given up only when its time alone refuses every call in it.

#[expect(clippy::disallowed_types, reason = "taken when a thread meets a sender for the first time")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use hashbrown::HashMap;
use shard::JobError;

use super::envelope::{Sender, TagParts};

/// Calls of a sender that are told apart.
pub(crate) const WINDOW_CALLS: u64 = 1 << 20;
const CALLS_PER_WORD: u64 = 32;
const WORDS_PER_PAGE: usize = 512;
const PAGES: usize = (WINDOW_CALLS / CALLS_PER_WORD) as usize / WORDS_PER_PAGE;

/// The calls of one sender.
pub(crate) struct Window {
    pages: [OnceLock<Box<[AtomicU64; WORDS_PER_PAGE]>>; PAGES],
    /// When a call was last recorded.
    used: AtomicU32,
    /// Nobody finds it any more.
    is_gone: AtomicBool,
}

impl Window {
    fn new() -> Self {
        Self {
            pages: [const { OnceLock::new() }; PAGES],
            used: AtomicU32::new(0),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Records a call.
    fn record(&self, call: u64) -> Result<(), JobError> {
        let round = u32::try_from(call / WINDOW_CALLS).map_err(|_| JobError::Expired)?;
        let at = usize::try_from(call % WINDOW_CALLS / CALLS_PER_WORD).map_err(|_| JobError::Expired)?;
        let bit = 1_u64 << (call % CALLS_PER_WORD);
        let page = self.pages.get(at / WORDS_PER_PAGE).ok_or(JobError::Expired)?;
        let page = page.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS_PER_PAGE]));
        let word = page.get(at % WORDS_PER_PAGE).ok_or(JobError::Expired)?;
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let its_round = u64::from(round);
            let next = match (seen >> 32).cmp(&its_round) {
                core::cmp::Ordering::Greater => return Err(JobError::Expired),
                core::cmp::Ordering::Equal if seen & bit != 0 => return Err(JobError::Replayed),
                core::cmp::Ordering::Equal => seen | bit,
                core::cmp::Ordering::Less => (its_round << 32) | bit,
            };
            // The bit alone decides who was first; nothing else is published with it.
            match word.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }
}

/// The windows of a node.
pub(crate) struct Replay {
    #[expect(clippy::disallowed_types, reason = "taken when a thread meets a sender for the first time")]
    windows: Mutex<HashMap<Sender, Arc<Window>>>,
    age_max_s: u32,
    senders_max: usize,
}

/// Windows a thread has met.
#[derive(Default)]
pub(crate) struct Met(HashMap<Sender, Arc<Window>>);

impl Replay {
    /// Remembers at most `senders_max` senders; a call may be `age_max_s` seconds from our clock.
    #[expect(clippy::disallowed_types, reason = "taken when a thread meets a sender for the first time")]
    pub(crate) fn new(age_max_s: u32, senders_max: usize) -> Self {
        Self { windows: Mutex::new(HashMap::new()), age_max_s, senders_max }
    }

    /// Records a call that has just proved to be its sender's; `now_s` is our clock, since 1970.
    pub(crate) fn record(&self, met: &mut Met, tag: &TagParts, now_s: u32) -> Result<(), JobError> {
        if now_s.abs_diff(tag.second) > self.age_max_s {
            return Err(JobError::Expired);
        }
        let mut window = match met.0.get(&tag.sender) {
            Some(known) => known.clone(),
            None => self.meet(met, tag.sender, now_s)?,
        };
        loop {
            if window.used.load(Ordering::Relaxed) != now_s {
                window.used.store(now_s, Ordering::SeqCst);
            }
            let result = window.record(tag.call);
            // Whoever gives a window up says so and then looks at its time; we have set the time and look now.
            // One of the two sees the other.
            if !window.is_gone.load(Ordering::SeqCst) {
                return result;
            }
            let again = self.meet(met, tag.sender, now_s)?;
            if Arc::ptr_eq(&again, &window) {
                return result;
            }
            window = again;
        }
    }

    /// The window of a sender this thread has not met, or whose window has been given up.
    fn meet(&self, met: &mut Met, sender: Sender, now_s: u32) -> Result<Arc<Window>, JobError> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = match windows.get(&sender) {
            Some(known) => known.clone(),
            None => {
                if windows.len() >= self.senders_max && !self.make_room(&mut windows, now_s) {
                    return Err(JobError::Expired);
                }
                let new = Arc::new(Window::new());
                new.used.store(now_s, Ordering::SeqCst);
                windows.insert(sender, new.clone());
                new
            }
        };
        drop(windows);
        if met.0.len() >= self.senders_max {
            met.0.clear();
        }
        met.0.insert(sender, window.clone());
        Ok(window)
    }

    /// Gives up the window that has been idle longest, if its time alone refuses all its calls: one that was
    /// recorded at `used` was at most `age_max_s` ahead of it.
    fn make_room(&self, windows: &mut HashMap<Sender, Arc<Window>>, now_s: u32) -> bool {
        let is_over = |used: u32| now_s.saturating_sub(used) > self.age_max_s.saturating_mul(2);
        let used = |window: &Window| window.used.load(Ordering::SeqCst);
        let Some((sender, oldest)) = windows.iter().min_by_key(|(_, window)| used(window)) else {
            return false;
        };
        if !is_over(used(oldest)) {
            return false;
        }
        oldest.is_gone.store(true, Ordering::SeqCst);
        if !is_over(used(oldest)) {
            oldest.is_gone.store(false, Ordering::SeqCst);
            return false;
        }
        let sender = *sender;
        windows.remove(&sender);
        true
    }

    /// Senders remembered.
    pub(crate) fn senders(&self) -> usize {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(sender: u16, call: u64, second: u32) -> TagParts {
        TagParts { sender: Sender { boot: [7; 16], shard: sender }, call, second }
    }

    #[test]
    fn each_call_once_within_its_time() {
        let replay = Replay::new(60, 4);
        let mut met = Met::default();
        let mut record = |t: TagParts, now| replay.record(&mut met, &t, now);
        assert_eq!(record(tag(1, 5, 1000), 1060), Ok(()));
        assert_eq!(record(tag(1, 5, 1000), 1060), Err(JobError::Replayed));
        assert_eq!(record(tag(2, 5, 1000), 940), Ok(()), "another sender's fifth");
        assert_eq!(record(tag(1, 6, 1000), 1061), Err(JobError::Expired));
        assert_eq!(record(tag(1, 6, 1000), 939), Err(JobError::Expired));
        assert_eq!(record(tag(1, 6, 1000), 1000), Ok(()), "what was refused is not remembered");
        // Out of order, across words and pages.
        for call in [40_000, 7, 33, 32, 31, WINDOW_CALLS - 1] {
            assert_eq!(record(tag(1, call, 1000), 1000), Ok(()), "{call}");
            assert_eq!(record(tag(1, call, 1000), 1000), Err(JobError::Replayed), "{call}");
        }
    }

    #[test]
    fn a_call_behind_the_window_is_expired_not_forgotten() {
        let replay = Replay::new(60, 4);
        let mut met = Met::default();
        let mut record = |call| replay.record(&mut met, &tag(1, call, 10), 10);
        assert_eq!(record(3), Ok(()));
        assert_eq!(record(WINDOW_CALLS + 4), Ok(()));
        assert_eq!(record(3), Err(JobError::Expired));
        assert_eq!(record(5), Err(JobError::Expired));
        assert_eq!(record(WINDOW_CALLS + 3), Ok(()), "the same word, this round");
        assert_eq!(record(WINDOW_CALLS + 4), Err(JobError::Replayed));
        assert_eq!(record(u64::MAX), Err(JobError::Expired));
    }

    #[test]
    fn only_senders_whose_calls_have_all_expired_make_room() {
        let replay = Replay::new(60, 2);
        let (mut met, mut other) = (Met::default(), Met::default());
        assert_eq!(replay.record(&mut met, &tag(1, 1, 100), 100), Ok(()));
        assert_eq!(replay.record(&mut met, &tag(2, 1, 150), 150), Ok(()));
        assert_eq!(replay.record(&mut other, &tag(1, 2, 150), 100), Ok(()));
        assert_eq!(replay.record(&mut met, &tag(3, 1, 220), 220), Err(JobError::Expired), "no room yet");
        assert_eq!(replay.record(&mut met, &tag(3, 1, 221), 221), Ok(()));
        assert_eq!(replay.senders(), 2);
        // A thread that kept the old window takes the new one; what the old one held is expired.
        assert_eq!(replay.record(&mut other, &tag(1, 2, 150), 221), Err(JobError::Expired));
        assert_eq!(replay.record(&mut other, &tag(1, 2, 300), 300), Ok(()));
        assert_eq!(replay.record(&mut met, &tag(1, 2, 300), 300), Err(JobError::Replayed));
    }

    #[test]
    fn of_many_threads_one_opens_a_call() {
        const CALLS: u64 = 20_000;
        let replay = Replay::new(60, 8);
        let opened: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let replay = &replay;
                    scope.spawn(move || {
                        let mut met = Met::default();
                        // From the last round of words into the next, in the same order: they collide.
                        let calls = WINDOW_CALLS - CALLS / 2..WINDOW_CALLS + CALLS / 2;
                        calls.filter(|call| replay.record(&mut met, &tag(1, *call, 9), 9).is_ok()).count()
                            as u64
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(opened, CALLS, "each exactly once");
    }
}
