//! Where new connections go: the shard with least in flight.
//!
//! Whichever shard accepts a socket places it; if the place is another shard, the socket travels through that
//! shard's bounded queue and its waker is rung. Once per connection, never per call.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use shard::{ListenerId, Peer};

use crate::Waker;

/// Accepted sockets that may wait for a shard to take them.
const QUEUED_MAX: usize = 1024;

/// What the shards of a node know of each other: loads, and a queue each for accepted sockets.
#[derive(Debug)]
pub struct Placement {
    seats: Box<[Seat]>,
}

#[derive(Debug)]
struct Seat {
    /// Calls in flight, as last published.
    calls: AtomicU32,
    /// Accepted connections: open, or on their way here.
    conns: AtomicU32,
    /// A shard sits here and takes connections.
    open: AtomicBool,
    queue: ArrayQueue<Handed>,
    waker: OnceLock<Waker>,
}

/// An accepted socket on its way to its shard.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) fd: OwnedFd,
    pub(crate) listener: ListenerId,
    pub(crate) peer: Peer,
}

impl Placement {
    /// For this many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        let seat = || Seat {
            calls: AtomicU32::new(0),
            conns: AtomicU32::new(0),
            open: AtomicBool::new(false),
            queue: ArrayQueue::new(QUEUED_MAX),
            waker: OnceLock::new(),
        };
        Arc::new(Self { seats: core::iter::repeat_with(seat).take(shards).collect() })
    }

    /// How many shards.
    pub fn shards(&self) -> usize {
        self.seats.len()
    }

    /// A shard takes its seat. False if the seat does not exist or has been taken before.
    pub(crate) fn sit(&self, shard: usize, waker: Waker) -> bool {
        let Some(seat) = self.seats.get(shard) else { return false };
        let fresh = seat.waker.set(waker).is_ok();
        if fresh {
            seat.open.store(true, Ordering::Release);
        }
        fresh
    }

    /// A shard takes no more connections from others; what is queued already is still its own to take.
    pub(crate) fn leave(&self, shard: usize) {
        if let Some(seat) = self.seats.get(shard) {
            seat.open.store(false, Ordering::Release);
        }
    }

    /// Calls in flight on a shard.
    pub(crate) fn publish(&self, shard: usize, calls: u32) {
        if let Some(seat) = self.seats.get(shard)
            && seat.calls.load(Ordering::Relaxed) != calls
        {
            seat.calls.store(calls, Ordering::Relaxed);
        }
    }

    /// Where a connection accepted by `here` should live: least calls in flight, then fewest connections,
    /// then here.
    fn choose(&self, here: usize) -> usize {
        let cost = |index: usize, seat: &Seat| {
            (seat.calls.load(Ordering::Relaxed), seat.conns.load(Ordering::Relaxed), index != here)
        };
        self.seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| seat.open.load(Ordering::Acquire))
            .min_by_key(|&(index, seat)| cost(index, seat))
            .map_or(here, |(index, _)| index)
    }

    /// Places an accepted socket; gives it back if it stays here. Either way it is counted where it lives,
    /// until [`Placement::closed`].
    pub(crate) fn place(&self, here: usize, handed: Handed) -> Option<Handed> {
        let target = self.choose(here);
        let stays = if target == here {
            Some(handed)
        } else if let Some(seat) = self.seats.get(target) {
            match seat.queue.push(handed) {
                Ok(()) => {
                    seat.conns.fetch_add(1, Ordering::Relaxed);
                    if let Some(waker) = seat.waker.get() {
                        waker.wake();
                    }
                    None
                }
                Err(handed) => Some(handed),
            }
        } else {
            Some(handed)
        };
        if stays.is_some()
            && let Some(seat) = self.seats.get(here)
        {
            seat.conns.fetch_add(1, Ordering::Relaxed);
        }
        stays
    }

    /// The next socket handed over to a shard.
    pub(crate) fn take(&self, shard: usize) -> Option<Handed> {
        self.seats.get(shard)?.queue.pop()
    }

    /// An accepted connection of a shard is gone.
    pub(crate) fn closed(&self, shard: usize) {
        if let Some(seat) = self.seats.get(shard) {
            seat.conns.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed() -> Handed {
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        Handed { fd, listener: ListenerId(0), peer: Peer::default() }
    }

    fn seated(shards: usize) -> Arc<Placement> {
        let placement = Placement::new(shards);
        for shard in 0..shards {
            assert!(placement.sit(shard, Waker::new().unwrap()));
        }
        placement
    }

    #[test]
    fn connections_spread_when_nobody_has_calls() {
        let placement = seated(3);
        let stays = (0..9).filter(|_| placement.place(0, handed()).is_some()).count();
        assert_eq!(stays, 3);
        let queued = |shard| core::iter::from_fn(|| placement.take(shard)).count();
        assert_eq!((queued(1), queued(2)), (3, 3));
    }

    #[test]
    fn the_shard_with_least_calls_gets_it() {
        let placement = seated(2);
        placement.publish(0, 10);
        placement.publish(1, 2);
        assert!(placement.place(0, handed()).is_none());
        assert!(placement.take(1).is_some());
        placement.publish(1, 11);
        assert!(placement.place(0, handed()).is_some());
    }

    #[test]
    fn nothing_goes_to_a_shard_that_is_not_there() {
        let placement = Placement::new(2);
        assert!(placement.sit(0, Waker::new().unwrap()));
        assert!(!placement.sit(0, Waker::new().unwrap()), "one shard a seat");
        placement.publish(0, 10);
        assert!(placement.place(0, handed()).is_some());
        assert!(placement.sit(1, Waker::new().unwrap()));
        assert!(placement.place(0, handed()).is_none());
        placement.leave(1);
        assert!(placement.place(0, handed()).is_some());
    }
}
