//! The shard and its turn.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use abi::Program;
use wire::Instant;

use crate::{Log, Offload, Setup, Snapshot, Transport};

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Something was received, completed or expired: do not wait, turn again.
    pub did_work: bool,
    /// When the next timer is due.
    pub until: Option<Instant>,
}

/// One core's share of the node: connections, calls, upstreams, timers, counters. Owns no I/O.
pub struct Shard<T: Transport, O: Offload> {
    _t: core::marker::PhantomData<(T, O)>,
}

impl<T: Transport, O: Offload> Shard<T, O> {
    /// A shard that has no connection yet.
    pub fn new(setup: Setup, offload: O, log: Box<dyn Log>) -> Self {
        let _ = (setup, offload, log);
        unimplemented!()
    }

    /// One turn: rx burst, events, chain, tx flushed once, timers.
    pub fn turn(&mut self, now: Instant, transport: &mut T) -> Turn {
        let _ = (now, transport);
        unimplemented!()
    }

    /// Takes a new program at a turn boundary; calls in flight finish on the old one.
    pub fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>) {
        let _ = (program, sinks);
        unimplemented!()
    }

    /// Begins to drain: no new connections, GOAWAY to callers, calls in flight finish.
    pub fn drain(&mut self, now: Instant, transport: &mut T) {
        let _ = (now, transport);
        unimplemented!()
    }

    /// A drain is over: no call and no caller's connection is left, or its time is up.
    pub fn is_drained(&self) -> bool {
        unimplemented!()
    }

    /// A copy of all it counts.
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
}
