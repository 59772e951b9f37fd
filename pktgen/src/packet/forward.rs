//! The port layer alone: what a call would cost if there were nothing above ethernet.

use hashbrown::HashMap;
use shard::{Burst, Device, Instant};

use super::frame::{FlowKey, flow_key, swap_macs};
use crate::stats::LiveHistogram;

/// One burst in so many is timed.
const TIMED_EVERY: u64 = 32;
/// Flows known at once; further ones are dropped, counted.
const FLOWS_MAX: usize = 65_536;

/// A step of a frame's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// From the port.
    Rx,
    /// Headers.
    Parse,
    /// The flow's entry.
    Lookup,
    /// Addresses swapped, to the port.
    Tx,
}

impl Stage {
    /// In order.
    pub const ALL: [Self; 4] = [Self::Rx, Self::Parse, Self::Lookup, Self::Tx];

    /// As figures call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Parse => "parse",
            Self::Lookup => "flow lookup",
            Self::Tx => "tx",
        }
    }
}

/// What a forwarder has done.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Forwarded {
    /// Frames received.
    pub rx: u64,
    /// Frames sent back.
    pub tx: u64,
    /// Bytes sent back.
    pub tx_bytes: u64,
    /// Bursts that brought something.
    pub bursts: u64,
    /// Frames dropped: no whole TCP or UDP packet.
    pub unparsed: u64,
    /// Frames dropped: too many flows.
    pub flows_full: u64,
    /// Flows seen.
    pub flows: usize,
    /// Nanoseconds a frame by [`Stage::ALL`]: the median over timed bursts, the clock's own cost taken off.
    pub stage_ns: [f64; 4],
}

/// Sends every TCP and UDP packet back with its ethernet addresses swapped.
#[derive(Debug)]
pub struct Forward<D: Device> {
    device: D,
    received: Burst<D::Frame>,
    /// On their way out; what the port had no room for is first in the next turn.
    going: Burst<D::Frame>,
    keys: Vec<Option<FlowKey>>,
    /// Frames of each flow.
    flows: HashMap<FlowKey, u64>,
    done: Forwarded,
    /// By [`Stage::ALL`], tenths of a nanosecond a frame.
    stages: [LiveHistogram; 4],
    clock_ns: u64,
}

impl<D: Device> Forward<D> {
    /// A forwarder over one queue of a port.
    pub fn new(device: D) -> Self {
        let clock_ns = clock_cost(&device);
        Self {
            device,
            received: Burst::new(),
            going: Burst::new(),
            keys: Vec::with_capacity(Burst::<D::Frame>::MAX),
            flows: HashMap::with_capacity(1024),
            done: Forwarded::default(),
            stages: core::array::from_fn(|_| LiveHistogram::new()),
            clock_ns,
        }
    }

    /// Its port.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// What it has done.
    pub fn done(&self) -> Forwarded {
        #[expect(clippy::cast_precision_loss, reason = "a figure")]
        let median = |stage: &LiveHistogram| stage.snapshot().quantile_ns(0.5) as f64 / 10.0;
        Forwarded { flows: self.flows.len(), stage_ns: self.stages.each_ref().map(median), ..self.done }
    }

    /// One burst; false if nothing came and nothing was left to send.
    pub fn turn(&mut self) -> bool {
        if !self.going.is_empty() {
            // The port is full: what would be received now could only be dropped.
            self.send();
            return true;
        }
        let timed = self.done.bursts.is_multiple_of(TIMED_EVERY);
        let began = self.look(timed);
        self.device.rx_burst(&mut self.received);
        let count = self.received.len() as u64;
        if count == 0 {
            return false;
        }
        self.done.rx += count;
        self.done.bursts += 1;
        let received = self.look(timed);
        self.keys.extend(self.received.iter_mut().map(|frame| flow_key(frame)));
        let parsed = self.look(timed);
        self.find_flows();
        let found = self.look(timed);
        self.send();
        let sent = self.look(timed);
        if timed {
            let marks = [began, received, parsed, found, sent];
            for (stage, pair) in self.stages.iter().zip(marks.windows(2)) {
                let spent = pair[1].since_ns(pair[0]).saturating_sub(self.clock_ns);
                stage.record(spent * 10 / count);
            }
        }
        true
    }

    fn look(&self, timed: bool) -> Instant {
        if timed { self.device.now() } else { Instant::default() }
    }

    /// Counts each frame with its flow; those without one end here.
    fn find_flows(&mut self) {
        for (mut frame, key) in self.received.drain().zip(self.keys.drain(..)) {
            let Some(key) = key else {
                self.done.unparsed += 1;
                continue;
            };
            if let Some(frames) = self.flows.get_mut(&key) {
                *frames += 1;
            } else if self.flows.len() < FLOWS_MAX {
                self.flows.insert(key, 1);
            } else {
                self.done.flows_full += 1;
                continue;
            }
            swap_macs(&mut frame);
            // `going` is empty before each burst, and has as much room as `received`.
            let _ = self.going.push(frame);
        }
    }

    fn send(&mut self) {
        let before = self.going.len();
        let bytes: usize = self.going.iter_mut().map(|frame| frame.len()).sum();
        self.device.tx_burst(&mut self.going);
        let kept: usize = self.going.iter_mut().map(|frame| frame.len()).sum();
        self.done.tx += (before - self.going.len()) as u64;
        self.done.tx_bytes += (bytes - kept) as u64;
    }
}

/// What reading the device's clock costs, ns: the least of many.
fn clock_cost<D: Device>(device: &D) -> u64 {
    const READS: u64 = 100;
    let batch = || {
        let began = device.now();
        let ended = (0..READS).fold(began, |_, _| device.now());
        ended.since_ns(began) / READS
    };
    (0..20).map(|_| batch()).min().unwrap_or(0)
}
