//! `map<K, V>[max N, …]`: a table of fixed size that any number of shards read and change at once.
//!
//! Open addressing over atomics, four slots for each entry it may hold. A key is 62 bits of a keyed hash; its
//! entry is in one of the [`REACH`] slots behind the place the hash says. A slot's key word says what it is:
//!
//! ```text
//! NEVER ──► pending key ──► key ──► FREED ──► pending key …
//!                  └──► ENDED ──────► FREED
//! ```
//!
//! Two shards that enter one key at once would make two entries of it: so a key is pending until the one who
//! enters it has looked at all slots the key may be in, and has ended whoever else was entering it, who then
//! begins anew. Of two shards at least one sees the other, so one entry is left.
//!
//! Each entry has a stamp, the time of its last use. Who takes an entry away first takes its stamp, and only
//! if nobody has used it since it was chosen; a shard that has just found an entry can lose it only by an
//! explicit removal at that very moment. Such a shard works on an entry that is gone, or, within the few
//! nanoseconds that remain, that is another's: maps are last-wins, and nothing in them is a secret.

use std::sync::atomic::{AtomicU64, Ordering};

use super::words::zeroed;

/// Slots a key may be in.
const REACH: usize = 64;
/// Slots for each entry.
const SPREAD: usize = 4;
/// Maps of at most this many entries evict exactly the least recently used.
const EXACT_MAX: usize = 64;
/// Entries looked at to find one that has not been used for long.
const SAMPLE: usize = 16;
/// Slots looked at for that.
const SAMPLE_SLOTS: usize = 256;
/// Slots looked at for entries past their time, when a new one comes.
const SWEEP: usize = 8;
/// Tries of an operation that others disturb.
const TRIES: usize = 8;

/// A slot never used: no key's entry is behind it.
const NEVER: u64 = 0;
/// A slot whose entry is gone.
const FREED: u64 = 1;
/// A slot whose pending key somebody else has ended: the one who was entering it frees it.
const ENDED: u64 = 0b101;
/// The mark of a key, and of one that is being entered.
const KEY: u64 = 0b10;
const PENDING: u64 = 0b11;
/// The stamp of an entry that is being taken away.
const TAKEN: u64 = u64::MAX;

/// What happens to further keys when a map is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The least recently used entry goes.
    Evict,
    /// They get none.
    Refuse,
    /// They share one.
    Share,
}

/// Where a key's value is, and whether it had to be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// In this slot.
    Own(usize),
    /// In the slot that further keys share.
    Shared(usize),
    /// Nowhere: the map is full.
    Nowhere,
}

/// A map of words.
#[derive(Debug)]
pub(crate) struct Map {
    max: usize,
    full: Full,
    /// Words of one value.
    width: usize,
    /// Slots, a power of two.
    slots: usize,
    keys: Box<[AtomicU64]>,
    stamps: Box<[AtomicU64]>,
    values: Box<[AtomicU64]>,
    len: AtomicU64,
    /// Where the next sweep begins.
    hand: AtomicU64,
    /// The latest stamp of a small map, whose order of use is exact.
    latest: AtomicU64,
}

impl Map {
    /// A map of at most `max` values of `width` words. It takes memory as it is filled.
    pub(crate) fn new(max: usize, full: Full, width: usize) -> Self {
        let max = max.max(1);
        let slots = (max * SPREAD).max(REACH).next_power_of_two();
        Self {
            max,
            full,
            width,
            slots,
            keys: zeroed(slots + 1),
            stamps: zeroed(slots + 1),
            // The last is the one that further keys share.
            values: zeroed((slots + 1) * width),
            len: AtomicU64::new(0),
            hand: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }

    /// How many entries there are, those past their time included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.len.load(Ordering::SeqCst)).unwrap_or(usize::MAX)
    }

    fn key(&self, slot: usize) -> &AtomicU64 {
        word(&self.keys, slot)
    }

    fn stamp(&self, slot: usize) -> &AtomicU64 {
        word(&self.stamps, slot)
    }

    /// The words of a slot's value.
    pub(crate) fn value(&self, slot: usize) -> &[AtomicU64] {
        self.values.get(slot * self.width..(slot + 1) * self.width).unwrap_or(&[])
    }

    fn reach(&self, key: u64) -> impl Iterator<Item = usize> {
        let (first, mask) = (usize::try_from(key >> 2).unwrap_or(0), self.slots - 1);
        (0..REACH).map(move |step| first.wrapping_add(step) & mask)
    }

    fn locate(&self, key: u64) -> Option<usize> {
        for slot in self.reach(key) {
            match self.key(slot).load(Ordering::SeqCst) {
                NEVER => return None,
                other if other == key => return Some(slot),
                _ => {}
            }
        }
        None
    }

    /// Marks an entry as used now; false if it is past its time or being taken away.
    fn touch(&self, slot: usize, now_ns: u64, ttl_ns: u64) -> bool {
        let used = self.stamp(slot).load(Ordering::SeqCst);
        if used == TAKEN || is_past(used, now_ns, ttl_ns) {
            return false;
        }
        let now = self.now(now_ns);
        // Another shard's use at the same time is as good; a taker's is not.
        now == used
            || match self.stamp(slot).compare_exchange(used, now, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => true,
                Err(other) => other != TAKEN,
            }
    }

    /// The stamp of a use now. In small maps each use has its own.
    fn now(&self, now_ns: u64) -> u64 {
        if self.max > EXACT_MAX || self.full != Full::Evict {
            return now_ns.max(1);
        }
        let latest = self.latest.load(Ordering::Relaxed);
        let now = now_ns.max(latest + 1);
        self.latest.store(now, Ordering::Relaxed);
        now
    }

    /// The slot of a key that is there, used now.
    pub(crate) fn find(&self, hash: u64, now_ns: u64, ttl_ns: u64) -> Option<usize> {
        let slot = self.locate(key_of(hash))?;
        self.touch(slot, now_ns, ttl_ns).then_some(slot)
    }

    /// The slot shared by further keys, if the map is full and one of them has written it.
    pub(crate) fn find_shared(&self) -> Option<usize> {
        let is_written = || self.key(self.slots).load(Ordering::SeqCst) != NEVER;
        (self.full == Full::Share && self.is_full() && is_written()).then_some(self.slots)
    }

    fn is_full(&self) -> bool {
        self.len.load(Ordering::SeqCst) >= self.max as u64
    }

    /// The slot of a key, entered if it is not there. `fresh` is told that its words are of nobody.
    pub(crate) fn enter(&self, hash: u64, now_ns: u64, ttl_ns: u64, fresh: impl Fn(&[AtomicU64])) -> Found {
        let key = key_of(hash);
        for _ in 0..TRIES {
            if let Some(slot) = self.locate(key) {
                if self.touch(slot, now_ns, ttl_ns) {
                    return Found::Own(slot);
                }
                self.expire(slot, now_ns, ttl_ns);
                continue;
            }
            self.sweep(now_ns, ttl_ns);
            if !self.reserve(hash, now_ns, ttl_ns) {
                break;
            }
            match self.claim(key, now_ns, &fresh) {
                Claim::Made(slot) => return Found::Own(slot),
                Claim::Disturbed => self.release(),
                Claim::NoRoom => {
                    self.release();
                    if self.full != Full::Evict || !self.evict(self.reach(key), usize::MAX) {
                        break;
                    }
                }
            }
        }
        if self.full != Full::Share {
            return Found::Nowhere;
        }
        self.key(self.slots).store(KEY, Ordering::SeqCst);
        Found::Shared(self.slots)
    }

    /// Makes room for one more. False if the map is full and nothing may go.
    fn reserve(&self, hash: u64, now_ns: u64, ttl_ns: u64) -> bool {
        for _ in 0..TRIES {
            let more = |len| (len < self.max as u64).then_some(len + 1);
            if self.len.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok() {
                return true;
            }
            match self.full {
                Full::Evict if self.max <= EXACT_MAX => self.evict(0..self.slots, usize::MAX),
                Full::Evict => {
                    let first = usize::try_from(hash.rotate_left(32) ^ now_ns).unwrap_or(0);
                    let mask = self.slots - 1;
                    self.evict((0..SAMPLE_SLOTS).map(|step| first.wrapping_add(step) & mask), SAMPLE)
                }
                _ => (0..TRIES).any(|_| self.sweep(now_ns, ttl_ns)),
            };
            if self.full != Full::Evict && self.is_full() {
                return false;
            }
        }
        false
    }

    fn release(&self) {
        self.len.fetch_sub(1, Ordering::SeqCst);
    }

    /// Enters a key for which there is room.
    fn claim(&self, key: u64, now_ns: u64, fresh: &impl Fn(&[AtomicU64])) -> Claim {
        let pending = key | PENDING;
        let free = self.reach(key).find(|slot| self.key(*slot).load(Ordering::SeqCst) <= FREED);
        let Some(slot) = free else { return Claim::NoRoom };
        let was = self.key(slot).load(Ordering::SeqCst);
        if was > FREED || !swap(self.key(slot), was, pending) {
            return Claim::Disturbed;
        }
        fresh(self.value(slot));
        self.stamp(slot).store(self.now(now_ns), Ordering::SeqCst);
        let mut is_behind = false;
        for other in self.reach(key) {
            if other == slot {
                is_behind = true;
                continue;
            }
            match self.key(other).load(Ordering::SeqCst) {
                // One who is still entering it begins anew; one who has entered it was first.
                found if found == pending && swap(self.key(other), pending, ENDED) => {}
                found if found == pending || found == key => return self.withdraw(slot),
                NEVER if is_behind => break,
                _ => {}
            }
        }
        if swap(self.key(slot), pending, key) { Claim::Made(slot) } else { self.withdraw(slot) }
    }

    /// Frees a slot whose pending key is this shard's, ended by another or not.
    fn withdraw(&self, slot: usize) -> Claim {
        self.key(slot).store(FREED, Ordering::SeqCst);
        Claim::Disturbed
    }

    /// Takes away an entry that was last used at `used` and not since.
    fn take_away(&self, slot: usize, used: u64) -> bool {
        let key = self.key(slot).load(Ordering::SeqCst);
        let is_entry = key & PENDING == KEY;
        if used == TAKEN || !is_entry || !swap(self.stamp(slot), used, TAKEN) {
            return false;
        }
        let is_gone = swap(self.key(slot), key, FREED);
        if is_gone {
            self.release();
        } else {
            // It became another key's, used at the very same time.
            swap(self.stamp(slot), TAKEN, used);
        }
        is_gone
    }

    fn expire(&self, slot: usize, now_ns: u64, ttl_ns: u64) -> bool {
        let used = self.stamp(slot).load(Ordering::SeqCst);
        is_past(used, now_ns, ttl_ns) && self.take_away(slot, used)
    }

    /// Looks at a few slots for entries past their time.
    fn sweep(&self, now_ns: u64, ttl_ns: u64) -> bool {
        if ttl_ns == u64::MAX {
            return false;
        }
        let first = self.hand.fetch_add(SWEEP as u64, Ordering::Relaxed);
        let first = usize::try_from(first).unwrap_or(0);
        let mut any = false;
        for step in 0..SWEEP {
            let slot = first.wrapping_add(step) & (self.slots - 1);
            if self.key(slot).load(Ordering::SeqCst) & PENDING == KEY {
                any |= self.expire(slot, now_ns, ttl_ns);
            }
        }
        any
    }

    /// Takes away the least recently used of the first `sample` entries among these slots.
    fn evict(&self, slots: impl Iterator<Item = usize>, sample: usize) -> bool {
        let entries = slots.filter(|slot| self.key(*slot).load(Ordering::SeqCst) & PENDING == KEY);
        let used = |slot: usize| (self.stamp(slot).load(Ordering::SeqCst), slot);
        let oldest = entries.take(sample).map(used).filter(|(used, _)| *used != TAKEN).min();
        oldest.is_some_and(|(used, slot)| self.take_away(slot, used))
    }

    /// Removes a key.
    pub(crate) fn remove(&self, hash: u64) {
        let key = key_of(hash);
        for _ in 0..TRIES {
            let Some(slot) = self.locate(key) else { return };
            if self.take_away(slot, self.stamp(slot).load(Ordering::SeqCst)) {
                return;
            }
        }
    }
}

/// What came of entering a key.
enum Claim {
    Made(usize),
    /// Another shard did something to the same slots.
    Disturbed,
    /// All slots the key may be in are taken.
    NoRoom,
}

/// The key word of a hash.
fn key_of(hash: u64) -> u64 {
    hash & !PENDING | KEY
}

fn is_past(used: u64, now_ns: u64, ttl_ns: u64) -> bool {
    now_ns.saturating_sub(used) > ttl_ns
}

fn swap(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// A word that is there: slots are made within the table.
fn word(words: &[AtomicU64], at: usize) -> &AtomicU64 {
    static NONE: AtomicU64 = AtomicU64::new(FREED);
    words.get(at).unwrap_or(&NONE)
}
