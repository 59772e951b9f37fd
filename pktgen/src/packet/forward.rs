//! The port layer alone: what a call would cost if there were nothing above ethernet.

use hashbrown::HashMap;
use shard::{Burst, Device, Instant};

use super::frame::{FlowKey, flow_key, swap_macs};

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

/// What timed bursts have spent on a stage.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct StageCost {
    /// Nanoseconds, the clock's own cost taken off.
    pub ns: f64,
    /// Frames.
    pub frames: u64,
}

impl StageCost {
    /// Nanoseconds a frame.
    pub fn per_frame(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure")]
        let frames = self.frames.max(1) as f64;
        self.ns / frames
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
    /// By [`Stage::ALL`].
    pub stages: [StageCost; 4],
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
    clock_ns: f64,
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
            clock_ns,
        }
    }

    /// Its port.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// What it has done.
    pub fn done(&self) -> Forwarded {
        Forwarded { flows: self.flows.len(), ..self.done }
    }

    /// One burst; false if nothing came and nothing was left to send.
    pub fn turn(&mut self) -> bool {
        if !self.going.is_empty() {
            // The port is full: what would be received now could only be dropped.
            self.send();
            return true;
        }
        let timed = self.done.bursts % TIMED_EVERY == 0;
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
            for (stage, pair) in self.done.stages.iter_mut().zip(marks.windows(2)) {
                #[expect(clippy::cast_precision_loss, reason = "a burst takes far less than 2^53 ns")]
                let spent = pair[1].since_ns(pair[0]) as f64;
                stage.ns += (spent - self.clock_ns).max(0.0);
                stage.frames += count;
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
fn clock_cost<D: Device>(device: &D) -> f64 {
    const READS: u64 = 100;
    let batch = || {
        let began = device.now();
        let ended = (1..READS).fold(began, |_, _| device.now());
        ended.since_ns(began)
    };
    let least = (0..20).map(|_| batch()).min().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "microseconds")]
    let cost = least as f64 / (READS - 1) as f64;
    cost
}
