//! The rings an AF_XDP socket shares with the kernel: one side fills, the other takes.
//!
//! Both indices only grow, modulo 2³². The producer's is stored with release after the entries it covers were
//! written, and loaded with acquire before they are read; the consumer's likewise, before entries are used
//! again. Each side keeps its own index to itself and looks at the other's only when it has to.
//!
//! Invariant: of one ring, a process has one side, once. The kernel has the other.
#![expect(unsafe_code, reason = "rings are memory shared with the kernel")]

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use rustix::net::xdp::XdpRingOffset;

use super::memory::Mapping;

/// The kernel sleeps: it looks at the ring only after a system call.
const NEED_WAKEUP: u32 = 1;

/// An entry of the receive and transmit rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Desc {
    /// Bytes from the start of the umem.
    pub(super) addr: u64,
    /// Bytes of the frame.
    pub(super) len: u32,
    /// Always zero: no frame is spread over chunks.
    pub(super) options: u32,
}

/// What may be an entry: any bit pattern is a value.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for Desc {}

/// Where a ring lies in its map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    /// How many entries: a power of two.
    count: u32,
}

impl Layout {
    /// As the kernel tells it; `None` from kernels without `need_wakeup` (before 5.4).
    pub(super) fn new(offsets: XdpRingOffset, count: u32) -> Option<Self> {
        let place = |offset: u64| usize::try_from(offset).ok();
        Some(Self {
            producer: place(offsets.producer)?,
            consumer: place(offsets.consumer)?,
            flags: place(offsets.flags?)?,
            entries: place(offsets.desc)?,
            count,
        })
    }

    /// Bytes to map.
    pub(super) fn len<T: Entry>(&self) -> usize {
        self.entries + self.count as usize * size_of::<T>()
    }
}

/// What both sides need.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    count: u32,
    /// Keeps the pointers valid.
    _map: Arc<Mapping>,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers lead into `_map`, which any thread may hold; entries are plain numbers; one side of a
// ring is used through `&mut self` only.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn new(map: Arc<Mapping>, layout: &Layout) -> Self {
        assert!(layout.count.is_power_of_two());
        Self {
            producer: map.at(layout.producer, 1),
            consumer: map.at(layout.consumer, 1),
            flags: map.at(layout.flags, 1),
            entries: map.at(layout.entries, layout.count as usize),
            count: layout.count,
            _map: map,
            _entries: PhantomData,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: `Mapping::at` has checked place and alignment, `_map` keeps it mapped, and both sides touch
        // it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let at = (index & (self.count - 1)) as usize;
        // SAFETY: `at` is below `count`, and `count` entries lie in the map.
        unsafe { self.entries.add(at) }
    }
}

/// The side that fills a ring.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write; published up to `published`.
    next: u32,
    published: u32,
    /// The consumer's index when last looked at.
    taken: u32,
}

impl<T: Entry> Producer<T> {
    /// The side of a ring nobody has used yet.
    pub(super) fn new(map: Arc<Mapping>, layout: &Layout) -> Self {
        Self { ring: Ring::new(map, layout), next: 0, published: 0, taken: 0 }
    }

    /// How many entries can be pushed, looking at the other side only if fewer than `wanted` are known.
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        let known = self.ring.count - self.next.wrapping_sub(self.taken);
        if known >= wanted {
            return known;
        }
        self.taken = self.ring.consumer().load(Ordering::Acquire);
        self.ring.count - self.next.wrapping_sub(self.taken)
    }

    /// Appends one entry; `room` must have said that there is room. Not visible before `publish`.
    pub(super) fn push(&mut self, value: T) {
        assert!(self.next.wrapping_sub(self.taken) < self.ring.count, "pushed into a full ring");
        let entry = self.ring.entry(self.next);
        // SAFETY: the entry is in the map, and the consumer does not look at it between `taken` and the next
        // `publish`.
        unsafe { entry.write(value) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the other side what was pushed.
    pub(super) fn publish(&mut self) {
        if self.next != self.published {
            self.ring.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    /// Entries published and not taken yet.
    pub(super) fn pending(&mut self) -> u32 {
        self.taken = self.ring.consumer().load(Ordering::Acquire);
        self.published.wrapping_sub(self.taken)
    }

    /// The kernel has to be called before it looks.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The side that empties a ring.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read; given back up to `released`.
    next: u32,
    released: u32,
    /// The producer's index when last looked at.
    filled: u32,
}

impl<T: Entry> Consumer<T> {
    /// The side of a ring nobody has used yet.
    pub(super) fn new(map: Arc<Mapping>, layout: &Layout) -> Self {
        Self { ring: Ring::new(map, layout), next: 0, released: 0, filled: 0 }
    }

    /// How many entries can be popped, looking at the other side only if fewer than `wanted` are known.
    pub(super) fn ready(&mut self, wanted: u32) -> u32 {
        let known = self.filled.wrapping_sub(self.next);
        if known >= wanted {
            return known;
        }
        self.filled = self.ring.producer().load(Ordering::Acquire);
        self.filled.wrapping_sub(self.next)
    }

    /// Takes one entry; `ready` must have said that there is one.
    pub(super) fn pop(&mut self) -> T {
        assert!(self.filled != self.next, "popped from an empty ring");
        let entry = self.ring.entry(self.next);
        // SAFETY: the entry is in the map, was written before the index we loaded with acquire, and is not
        // written again before `release`.
        let value = unsafe { entry.read() };
        self.next = self.next.wrapping_add(1);
        value
    }

    /// Gives what was popped back to the other side.
    pub(super) fn release(&mut self) {
        if self.next != self.released {
            self.ring.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Both sides of one ring, as no process has them outside this test.
    fn pair(count: u32) -> (Producer<u64>, Consumer<u64>) {
        let layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192, count };
        let map = Arc::new(Mapping::anonymous(layout.len::<u64>()).unwrap());
        (Producer::new(Arc::clone(&map), &layout), Consumer::new(map, &layout))
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(steps in proptest::collection::vec((0_u32..20, 0_u32..20), 1..200)) {
            let (mut producer, mut consumer) = pair(16);
            let (mut sent, mut seen) = (0_u64, 0_u64);
            for (push, pop) in steps {
                let room = producer.room(push).min(push);
                for _ in 0..room {
                    producer.push(sent);
                    sent += 1;
                }
                producer.publish();
                prop_assert_eq!(u64::from(producer.pending()), sent - seen);
                let ready = consumer.ready(pop).min(pop);
                for _ in 0..ready {
                    prop_assert_eq!(consumer.pop(), seen);
                    seen += 1;
                }
                consumer.release();
                prop_assert!(sent - seen <= 16);
            }
        }
    }

    #[test]
    fn two_threads_pass_a_million_entries() {
        let (mut producer, mut consumer) = pair(64);
        let taker = std::thread::spawn(move || {
            let mut next = 0;
            while next < 1_000_000 {
                for _ in 0..consumer.ready(1) {
                    assert_eq!(consumer.pop(), next);
                    next += 1;
                }
                consumer.release();
                std::thread::yield_now();
            }
        });
        let mut next = 0;
        while next < 1_000_000 {
            for _ in 0..producer.room(1).min(32) {
                producer.push(next);
                next += 1;
            }
            producer.publish();
            std::thread::yield_now();
        }
        taker.join().unwrap();
    }
}
