//! The encoder's dynamic table: found by value, not by place.
//!
//! Names are known by a small key here (the policy admits a fixed list of them), so only values are stored.
//! A lookup walks the entries of one bucket from the newest; evicted entries need no removal, since a walk
//! ends at the first that is older than the oldest live one.
//!
//! A value enters only when it has been asked for twice within the last [`RECENT_COUNT`] values that were
//! not there: one caller's ever-changing paths do not push out what the others repeat, and a connection of
//! one call holds no table.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::store::Store;
use super::table::ENTRY_OVERHEAD;

const BUCKET_COUNT: usize = 64;
const RECENT_COUNT: usize = 32;

/// A name the policy admits: the static table's index, or [`Key::OTHER`] and more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(pub(super) u8);

impl Key {
    /// The first key of names that are not in the static table.
    pub(super) const OTHER: u8 = 64;
    /// How many such names there may be.
    const OTHER_COUNT: usize = 8;
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    value_len: u32,
    /// Which entry came before in the same bucket.
    older: u32,
    key: Key,
    name_len: u8,
}

impl Entry {
    fn size(&self) -> usize {
        usize::from(self.name_len) + self.value_len as usize + ENTRY_OVERHEAD
    }
}

/// Where values are looked up. Entries are known by their number, counted from 1, wrapping.
#[derive(Debug)]
struct Lookup {
    /// The newest entry of each bucket.
    buckets: [u32; BUCKET_COUNT],
    /// The newest entry of each name that is not in the static table.
    names: [u32; Key::OTHER_COUNT],
    /// Hashes of the last values that were not there.
    recent: [u32; RECENT_COUNT],
    recent_at: usize,
}

/// What is known of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is in the table: its HPACK index within the dynamic table, from 0.
    At(usize),
    /// It is not, and should not be yet.
    No,
    /// It is not, and has been asked for before.
    Repeated,
}

/// The table.
#[derive(Debug)]
pub(super) struct Index {
    store: Store,
    /// The newest first.
    entries: VecDeque<Entry>,
    /// The number of the newest entry.
    newest: u32,
    size: usize,
    size_max: usize,
    generation: u64,
    lookup: Option<Box<Lookup>>,
}

impl Index {
    /// An empty table; allocates nothing.
    pub(super) const fn new(size_max: usize) -> Self {
        Self {
            store: Store::new(),
            entries: VecDeque::new(),
            newest: 0,
            size: 0,
            size_max,
            generation: 0,
            lookup: None,
        }
    }

    /// Changes whenever the table does.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The maximum size now in force.
    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    /// Looks a value up, and notes that it was asked for.
    #[inline]
    pub(super) fn find(&mut self, key: Key, value: &[u8]) -> Found {
        let hash = hash(key, value);
        let lookup = self.lookup.get_or_insert_with(Lookup::new);
        let mut number = lookup.buckets[bucket(hash)];
        let mut age_before = None;
        loop {
            // Numbers wrap, so a number may mean a later entry than it did: only ever walk to older ones.
            let age = self.newest.wrapping_sub(number) as usize;
            let Some(entry) = self.entries.get(age).filter(|_| age_before.is_none_or(|b| b < age)) else {
                break;
            };
            if entry.key == key
                && entry.value_len as usize == value.len()
                && self.store.bytes(entry.at, value.len()) == value
            {
                return Found::At(age);
            }
            age_before = Some(age);
            number = entry.older;
        }
        if lookup.is_recent(hash) { Found::Repeated } else { Found::No }
    }

    /// The newest entry with this name, if it is one that the static table has not.
    #[inline]
    pub(super) fn find_name(&self, key: Key) -> Option<usize> {
        let at = usize::from(key.0.checked_sub(Key::OTHER)?);
        let number = *self.lookup.as_ref()?.names.get(at)?;
        let age = self.newest.wrapping_sub(number) as usize;
        self.entries.get(age).filter(|e| e.key == key).map(|_| age)
    }

    /// True if a field of this size may enter: one that would push out half of the table may not.
    #[inline]
    pub(super) fn admits(&self, name_len: usize, value_len: usize) -> bool {
        name_len + value_len + ENTRY_OVERHEAD <= self.size_max / 2
    }

    /// Puts a field in, evicting what must go (RFC 7541 section 4.4). It must be admitted.
    pub(super) fn insert(&mut self, key: Key, name_len: u8, value: &[u8]) {
        let size = usize::from(name_len) + value.len() + ENTRY_OVERHEAD;
        assert!(size <= self.size_max, "the encoder inserts what the table admits");
        self.generation += 1;
        self.evict_to(self.size_max - size);
        let at = self.store.push(value, self.size_max);
        let lookup = self.lookup.get_or_insert_with(Lookup::new);
        self.newest = self.newest.wrapping_add(1);
        let bucket = &mut lookup.buckets[bucket(hash(key, value))];
        let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.entries.push_front(Entry { at, value_len, older: *bucket, key, name_len });
        *bucket = self.newest;
        if let Some(name) = key.0.checked_sub(Key::OTHER).and_then(|k| lookup.names.get_mut(usize::from(k))) {
            *name = self.newest;
        }
        self.size += size;
    }

    /// Changes the maximum size (RFC 7541 section 4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.generation += 1;
        self.size_max = size_max;
        self.evict_to(size_max);
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.size();
            self.store.release(entry.value_len as usize);
        }
    }

    /// Gives back the memory that no entry needs.
    pub(super) fn trim(&mut self) {
        self.store.trim();
        self.entries.shrink_to_fit();
        if self.entries.is_empty() {
            self.lookup = None;
        }
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        let lookup = self.lookup.as_ref().map_or(0, |_| size_of::<Lookup>());
        lookup + self.store.capacity_bytes() + self.entries.capacity() * size_of::<Entry>()
    }
}

impl Lookup {
    fn new() -> Box<Self> {
        Box::new(Self {
            buckets: [0; BUCKET_COUNT],
            names: [0; Key::OTHER_COUNT],
            recent: [0; RECENT_COUNT],
            recent_at: 0,
        })
    }

    /// True if this value was asked for before; if not, it has been now.
    fn is_recent(&mut self, hash: u64) -> bool {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        let mark = u32::from_le_bytes([a, b, c, d]) | 1;
        let is_there = self.recent.iter().fold(false, |seen, r| seen | (*r == mark));
        if !is_there {
            self.recent[self.recent_at] = mark;
            self.recent_at = (self.recent_at + 1) % RECENT_COUNT;
        }
        is_there
    }
}

fn bucket(hash: u64) -> usize {
    (hash >> 58) as usize
}

/// Mixes eight bytes a step. Not made to resist an adversary: a bucket of all entries is a walk of at most
/// 128 comparisons.
#[inline]
fn hash(key: Key, value: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (u64::from(key.0) << 32 | value.len() as u64).wrapping_mul(K);
    let mut rest = value;
    while let Some((eight, more)) = rest.split_first_chunk::<8>() {
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(*eight)).wrapping_mul(K);
        rest = more;
    }
    if let Some((four, more)) = rest.split_first_chunk::<4>() {
        hash = (hash.rotate_left(23) ^ u64::from(u32::from_le_bytes(*four))).wrapping_mul(K);
        rest = more;
    }
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    hash = (hash.rotate_left(23) ^ tail).wrapping_mul(K);
    hash ^ hash >> 32
}
