//! Unary gRPC calls at a pace, and what became of them.
//!
//! *Closed loop* ([`Pace::Closed`]): each connection keeps so many calls under way; the next begins when
//! one ends. It finds the most a target can do, and its latencies are those of a full queue.
//! *Open loop* ([`Pace::Open`]): calls are due at fixed times whatever the target does. Latency runs from
//! the time a call was *due*, not from when it could be sent, so a target that stalls cannot hide the calls
//! it kept waiting (no coordinated omission). Calls that were due and found no answer, or could not even
//! be sent, stand in the histogram with what they had waited when the load ended: a lower bound.
//!
//! Time is read once a turn, as in the shard: a latency is exact to about one turn.
//!
//! Not here: server streaming and client streaming calls; clocks and sockets (that is the [`Transport`]).

mod config;
mod engine;
mod request;
#[cfg(test)]
mod tests;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use shard::{Burst, ConnId, Event, Transport};
use wire::Instant;

pub use config::{ConfigError, Hold, LoadConfig, Pace, Target};
use engine::Engine;
pub use trouble::Trouble;

use crate::Echo;
use crate::stats::{Live, Phase};
use crate::summary::{Sample, Summary};

/// The longest `run` stays blind to its stop flag.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// A load on one transport.
#[derive(Debug)]
pub struct Load<T: Transport> {
    transport: T,
    burst: Burst<Event<T::Rx>>,
    roomy: Vec<ConnId>,
    engine: Engine,
}

impl<T: Transport> Load<T> {
    /// A load that begins with the first [`Load::turn`]. Another thread may read `live` all along.
    pub fn new(transport: T, config: LoadConfig, live: Arc<Live>) -> Result<Self, ConfigError> {
        let engine = Engine::new(config, live)?;
        Ok(Self { transport, burst: Burst::new(), roomy: Vec::new(), engine })
    }

    /// Takes what has arrived, sends what is due; false if there was nothing of either.
    pub fn turn(&mut self) -> bool {
        self.transport.rx_burst(&mut self.burst);
        let now = self.transport.burst_at();
        let mut did = !self.burst.is_empty();
        for event in self.burst.drain() {
            self.engine.on_event(&mut self.transport, event, now);
        }
        did |= self.engine.advance(&mut self.transport, now);
        self.engine.flush(&mut self.transport, &mut self.roomy);
        self.transport.flush();
        did
    }

    /// True when all is over: the time is up and the last answers are in, or the load cannot go on.
    pub fn is_done(&self) -> bool {
        self.engine.phase() == Phase::Done
    }

    /// When something is next to be done unasked.
    pub fn poll_timeout(&self) -> Instant {
        self.engine.poll_timeout()
    }

    /// Runs to the end, or until the flag is set and the answers that come soon after are in.
    pub fn run(&mut self, stop: &AtomicBool) -> Summary {
        while !self.is_done() {
            if !self.turn() {
                let now = self.transport.now();
                let until = self.engine.poll_timeout().min(now.after(STOP_LOOK));
                if until > now {
                    self.transport.wait(Some(until));
                }
            }
            if stop.load(Relaxed) {
                self.engine.stop(self.transport.now());
            }
        }
        self.summary()
    }

    /// The same with a backend on the same thread, and without ever waiting: two threads on one core would
    /// take turns at the pace of the kernel's clock.
    pub fn run_with<U: Transport>(&mut self, echo: &mut Echo<U>, stop: &AtomicBool) -> Summary {
        while !self.is_done() {
            self.turn();
            echo.turn();
            if stop.load(Relaxed) {
                self.engine.stop(self.transport.now());
            }
        }
        self.summary()
    }

    /// Closes all connections. The transport is still to send that: a raw port's peer learns it in no other way.
    pub fn close(&mut self) -> &mut T {
        self.engine.close(&mut self.transport);
        &mut self.transport
    }

    /// What has been seen so far.
    pub fn summary(&self) -> Summary {
        self.engine.summary()
    }
}

/// Figures of one interval of the measured time.
fn sample(at_ns: u64, span_ns: u64, calls: u64, failed: u64, p50_ns: u64, p99_ns: u64) -> Sample {
    let per_s = |n: u64| if span_ns == 0 { 0.0 } else { n as f64 * 1e9 / span_ns as f64 };
    Sample {
        at_s: at_ns as f64 / 1e9,
        calls_per_s: per_s(calls),
        failed_per_s: per_s(failed),
        p50_ns,
        p99_ns,
    }
}
