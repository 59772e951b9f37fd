//! Frames at a rate, or as many as the port takes, and how many of them come back.

use core::time::Duration;

use shard::{Burst, Device, Instant};

use super::frame::Template;

/// How long frames may be under way after the last was sent.
const DRAIN: Duration = Duration::from_millis(200);

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The frames.
    pub template: Template,
    /// Frames a second; `None`: as many as the port takes.
    pub rate: Option<f64>,
    /// For how long.
    pub run_for: Duration,
}

/// What was sent and seen.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Generated {
    /// Frames sent.
    pub tx: u64,
    /// Frames of ours received.
    pub rx: u64,
    /// Frames of ours received before the sending ended: what a rate is computed from.
    pub rx_meanwhile: u64,
    /// Frames received that are not ours.
    pub foreign: u64,
    /// Frames of ours that came after one with a higher number.
    pub reordered: u64,
    /// Turns in which the port did not take all, or had no buffers.
    pub tx_full: u64,
    /// Bytes of a frame.
    pub size: usize,
    /// How long was sent.
    pub elapsed_ns: u64,
}

impl Generated {
    /// Frames sent and not seen again.
    pub fn lost(&self) -> u64 {
        self.tx.saturating_sub(self.rx)
    }

    /// A count over the time sent, a second.
    pub fn per_s(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure")]
        let rate = count as f64 * 1e9 / self.elapsed_ns.max(1) as f64;
        rate
    }
}

/// Sends by one port and receives by the same or another.
#[derive(Debug)]
pub struct Generate<D: Device> {
    sender: D,
    receiver: Option<D>,
    plan: Plan,
    going: Burst<D::Frame>,
    coming: Burst<D::Frame>,
    seen: Generated,
    began: Instant,
    highest: u64,
    number: u64,
}

impl<D: Device> Generate<D> {
    /// Frames come back by `receiver`, or without one by `sender`.
    pub fn new(sender: D, receiver: Option<D>, plan: Plan) -> Self {
        let began = sender.now();
        let seen = Generated { size: plan.template.size(), ..Generated::default() };
        let (going, coming) = (Burst::new(), Burst::new());
        Self { sender, receiver, plan, going, coming, seen, began, highest: 0, number: 0 }
    }

    /// Its sending port.
    pub fn sender(&mut self) -> &mut D {
        &mut self.sender
    }

    /// Sends until the time is over or `stop` says so, then waits for the last ones.
    pub fn run(&mut self, stop: impl Fn() -> bool) -> Generated {
        self.began = self.sender.now();
        let end = self.began.after(self.plan.run_for);
        let mut now = self.began;
        while now < end && !stop() {
            self.send(now);
            self.receive();
            now = self.sender.now();
        }
        self.seen.elapsed_ns = now.since_ns(self.began);
        self.seen.rx_meanwhile = self.seen.rx;
        self.going.drain().for_each(drop);
        let end = now.after(DRAIN);
        while self.seen.lost() > 0 && self.sender.now() < end {
            self.receive();
        }
        self.seen
    }

    /// Frames that are due and not yet made.
    fn due(&self, now: Instant) -> u64 {
        let Some(rate) = self.plan.rate else { return u64::MAX };
        #[expect(clippy::cast_precision_loss, reason = "exact for a hundred days")]
        let due = now.since_ns(self.began) as f64 * rate / 1e9;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates"
        )]
        let due = due as u64;
        due.saturating_sub(self.number)
    }

    fn send(&mut self, now: Instant) {
        let mut due = self.due(now);
        while due > 0 && self.going.room() > 0 {
            let Some(mut frame) = self.sender.frame(self.plan.template.size()) else {
                self.seen.tx_full += 1;
                break;
            };
            self.plan.template.write(&mut frame, self.number);
            self.number += 1;
            due -= 1;
            // There is room.
            let _ = self.going.push(frame);
        }
        let before = self.going.len();
        self.sender.tx_burst(&mut self.going);
        self.seen.tx += (before - self.going.len()) as u64;
        if !self.going.is_empty() {
            self.seen.tx_full += 1;
        }
    }

    fn receive(&mut self) {
        self.receiver.as_mut().unwrap_or(&mut self.sender).rx_burst(&mut self.coming);
        for frame in self.coming.drain() {
            let Some(number) = Template::number(&frame) else {
                self.seen.foreign += 1;
                continue;
            };
            self.seen.rx += 1;
            self.seen.reordered += u64::from(number < self.highest);
            self.highest = self.highest.max(number);
        }
    }
}
