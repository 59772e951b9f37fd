//! Where new connections go: the shard with least in flight.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// What the shards of a node know of each other: loads, and a queue each for accepted sockets.
#[derive(Debug)]
pub struct Placement {
    seats: Box<[Seat]>,
}

#[derive(Debug)]
struct Seat {
    #[expect(dead_code, reason = "skeleton")]
    load: AtomicU32,
}

impl Placement {
    /// For this many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { seats: (0..shards).map(|_| Seat { load: AtomicU32::new(0) }).collect() })
    }

    /// How many shards.
    pub fn shards(&self) -> usize {
        self.seats.len()
    }
}
