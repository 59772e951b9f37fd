//! The streams of a connection: a slab, the way from an id to a slot, and the list of those that wait to
//! send.
//!
//! Invariant: a slot in the waiting list is QUEUED and has WANTS; a free slot has id 0 and is in no list
//! but the free one. Nothing here visits all streams but `find_from`.

use alloc::vec::Vec;

use super::StreamKey;
use super::closed::{Closed, How};
use super::id_map::IdMap;
use super::stream::{NIL, Stream, is};

/// The store.
#[derive(Debug)]
pub(crate) struct Streams {
    slab: Vec<Stream>,
    free: u32,
    map: IdMap,
    count: u32,
    /// The slot found last: the next frame is often of the same stream.
    last: u32,
    wait_head: u32,
    wait_tail: u32,
    pub(crate) closed: Closed,
}

impl Streams {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            slab: Vec::new(),
            free: NIL,
            map: IdMap::new(seed),
            count: 0,
            last: 0,
            wait_head: NIL,
            wait_tail: NIL,
            closed: Closed::new(),
        }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        let index = self.free;
        let index = if let Some(slot) = self.slab.get_mut(index as usize) {
            self.free = slot.next;
            *slot = stream;
            index
        } else {
            // Stream limits are far below 2^32.
            let index = u32::try_from(self.slab.len()).unwrap_or(NIL);
            self.slab.push(stream);
            index
        };
        self.map.insert(id, index);
        self.count += 1;
        self.last = index;
        StreamKey { index, id }
    }

    /// The key of an open stream.
    pub(crate) fn find(&mut self, id: u32) -> Option<StreamKey> {
        if id == 0 {
            return None;
        }
        if self.slab.get(self.last as usize).is_some_and(|s| s.id == id) {
            return Some(StreamKey { index: self.last, id });
        }
        let index = self.map.get(id)?;
        self.last = index;
        Some(StreamKey { index, id })
    }

    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slab.get(key.index as usize).filter(|s| s.id == key.id && key.id != 0)
    }

    pub(crate) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slab.get_mut(key.index as usize).filter(|s| s.id == key.id && key.id != 0)
    }

    /// Frees a stream's slot and remembers how it ended (`None`: it never was on the wire).
    pub(crate) fn remove(&mut self, key: StreamKey, how: Option<How>) {
        let Some(stream) = self.get(key) else { return };
        if stream.has(is::QUEUED) {
            self.unlink(key.index);
        }
        self.map.remove(key.id);
        if let Some(slot) = self.slab.get_mut(key.index as usize) {
            slot.id = 0;
            slot.next = self.free;
            self.free = key.index;
        }
        self.count -= 1;
        if let Some(how) = how {
            self.closed.push(key.id, how);
        }
    }

    /// The first open stream at or after a slot for which `wanted` holds, and the slot to go on from.
    pub(crate) fn find_from(&self, at: u32, wanted: impl Fn(&Stream) -> bool) -> Option<(StreamKey, u32)> {
        let (index, stream) =
            (at..).zip(self.slab.iter().skip(at as usize)).find(|(_, s)| s.id != 0 && wanted(s))?;
        Some((StreamKey { index, id: stream.id }, index + 1))
    }

    /// True if a stream waits for the connection's window or for room in `tx()`.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.wait_head != NIL
    }

    /// Puts a stream that wants to send at the end of the list, once.
    pub(crate) fn enqueue(&mut self, index: u32) {
        let tail = self.wait_tail;
        let Some(s) = self.slab.get_mut(index as usize) else { return };
        if s.has(is::QUEUED) {
            return;
        }
        s.flags |= is::QUEUED;
        s.prev = tail;
        s.next = NIL;
        match self.slab.get_mut(tail as usize) {
            Some(t) => t.next = index,
            None => self.wait_head = index,
        }
        self.wait_tail = index;
    }

    /// Takes a stream out of the list.
    pub(crate) fn unlink(&mut self, index: u32) {
        let Some(s) = self.slab.get_mut(index as usize) else { return };
        s.flags &= !is::QUEUED;
        let (prev, next) = (s.prev, s.next);
        match self.slab.get_mut(prev as usize) {
            Some(p) => p.next = next,
            None => self.wait_head = next,
        }
        match self.slab.get_mut(next as usize) {
            Some(n) => n.prev = prev,
            None => self.wait_tail = prev,
        }
    }

    /// Takes the first of the list; it no longer wants.
    pub(crate) fn pop_waiting(&mut self) -> Option<(StreamKey, u32)> {
        let index = self.wait_head;
        self.slab.get(index as usize)?;
        self.unlink(index);
        let s = self.slab.get_mut(index as usize)?;
        s.flags &= !is::WANTS;
        Some((StreamKey { index, id: s.id }, s.tag))
    }

    /// Gives memory back if there are no streams.
    pub(crate) fn trim(&mut self) {
        if self.count == 0 {
            self.slab = Vec::new();
            self.free = NIL;
            self.map.trim();
            self.closed.trim();
        }
    }

    pub(crate) const fn capacity_bytes(&self) -> usize {
        self.slab.capacity() * size_of::<Stream>() + self.map.capacity_bytes() + self.closed.capacity_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instant;

    fn stream(id: u32) -> Stream {
        Stream::new(id, id * 10, 100, Instant(0))
    }

    #[test]
    fn a_reused_slot_is_not_its_predecessor() {
        let mut s = Streams::new(1);
        let a = s.insert(stream(1));
        s.remove(a, Some(How::Ended));
        let b = s.insert(stream(3));
        assert_eq!(a.index, b.index);
        assert!(s.get(a).is_none() && s.find(1).is_none());
        assert_eq!(s.find(3), Some(b));
        assert!(s.get(StreamKey { index: b.index, id: 0 }).is_none());
        s.remove(b, None);
        assert!(s.find(0).is_none());
        assert!(s.get(StreamKey { index: b.index, id: 0 }).is_none());
        assert_eq!(s.count(), 0);
    }

    #[test]
    fn the_waiting_list_is_first_come_first_served_and_survives_removal() {
        let mut s = Streams::new(1);
        let keys: alloc::vec::Vec<_> = (0..5).map(|i| s.insert(stream(2 * i + 1))).collect();
        for k in &keys {
            s.enqueue(k.index);
            s.enqueue(k.index);
        }
        s.remove(keys[2], None);
        s.remove(keys[0], None);
        s.remove(keys[4], None);
        assert_eq!(s.pop_waiting().map(|w| w.0), Some(keys[1]));
        s.enqueue(keys[1].index);
        assert_eq!(s.pop_waiting().map(|w| w.0), Some(keys[3]));
        assert_eq!(s.pop_waiting().map(|w| w.0), Some(keys[1]));
        assert_eq!(s.pop_waiting(), None);
        assert!(!s.is_waiting());
    }
}
