//! What one shard's queue of a port receives for all: ARP, neighbour discovery, ICMP errors.
//!
//! A port that spreads flows brings a frame without ports to one queue, as the NIC likes: queue 0, or one by a
//! hash of the addresses. The shard there copies it into the others' boxes; few come, so a box may allocate.

use std::sync::OnceLock;

use crossbeam_queue::ArrayQueue;

use crate::Waker;

/// Frames that wait in a box; the next is dropped, and asked for again by whoever misses it.
const BOX_MAX: usize = 64;

/// The boxes of a port's shards.
#[derive(Debug)]
pub(crate) struct Post {
    boxes: Vec<Box>,
}

#[derive(Debug)]
struct Box {
    frames: ArrayQueue<Vec<u8>>,
    waker: OnceLock<Waker>,
}

impl Post {
    pub(super) fn new(shards: usize) -> Self {
        let one = || Box { frames: ArrayQueue::new(BOX_MAX), waker: OnceLock::new() };
        Self { boxes: (0..shards).map(|_| one()).collect() }
    }

    pub(super) fn shards(&self) -> usize {
        self.boxes.len()
    }

    /// A shard's thread has begun.
    pub(super) fn sit(&self, shard: usize, waker: Waker) {
        if let Some(one) = self.boxes.get(shard) {
            // A shard begins once.
            let _ = one.waker.set(waker);
        }
    }

    /// Copies a frame for every other shard.
    pub(super) fn send(&self, from: usize, frame: &[u8]) {
        for (_, one) in self.boxes.iter().enumerate().filter(|(shard, _)| *shard != from) {
            // Nothing is copied that would be dropped.
            if !one.frames.is_full()
                && one.frames.push(frame.to_vec()).is_ok()
                && let Some(waker) = one.waker.get()
            {
                waker.wake();
            }
        }
    }

    /// The next frame for this shard.
    pub(super) fn take(&self, shard: usize) -> Option<Vec<u8>> {
        self.boxes.get(shard)?.frames.pop()
    }

    /// True if there is one.
    pub(super) fn has_any(&self, shard: usize) -> bool {
        self.boxes.get(shard).is_some_and(|one| !one.frames.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_shard_gets_a_copy_and_is_woken() {
        let post = Post::new(3);
        let waker = Waker::new().unwrap();
        post.sit(2, waker.clone());
        post.send(0, b"arp");
        assert!(!post.has_any(0) && post.has_any(1));
        assert_eq!(post.take(1).as_deref(), Some(&b"arp"[..]));
        assert_eq!(post.take(2).as_deref(), Some(&b"arp"[..]));
        assert!(waker.is_pending());
        (0..BOX_MAX + 5).for_each(|_| post.send(0, b"x"));
        assert_eq!(std::iter::from_fn(|| post.take(1)).count(), BOX_MAX, "bounded");
    }
}
