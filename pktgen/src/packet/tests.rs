//! Both ends over a device in memory, whose clock moves a microsecond each time it is read.

use core::cell::Cell;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::VecDeque;

use shard::{Burst, Checksums, Device, DeviceInfo, Instant, Steering};

use super::{Forward, Generate, Plan, Template};

/// What is sent comes back, but for one frame in `lose`; at most `room` frames a burst.
struct Mirror {
    info: DeviceInfo,
    wire: VecDeque<Vec<u8>>,
    now: Cell<u64>,
    lose: u64,
    sent: u64,
    room: usize,
    mirrors: bool,
}

impl Mirror {
    fn new(room: usize, lose: u64, mirrors: bool) -> Self {
        let info = DeviceInfo {
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            checksums: Checksums::default(),
            steering: Steering::Single,
        };
        Self { info, wire: VecDeque::new(), now: Cell::new(0), lose, sent: 0, room, mirrors }
    }
}

impl Device for Mirror {
    type Frame = Vec<u8>;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut Burst<Vec<u8>>) {
        while out.room() > 0
            && let Some(frame) = self.wire.pop_front()
        {
            out.push(frame).unwrap();
        }
    }

    fn frame(&mut self, len: usize) -> Option<Vec<u8>> {
        Some(vec![0; len])
    }

    fn tx_burst(&mut self, frames: &mut Burst<Vec<u8>>) {
        for frame in frames.drain_front(self.room) {
            self.sent += 1;
            if self.mirrors && !self.sent.is_multiple_of(self.lose) {
                self.wire.push_back(frame);
            }
        }
    }

    fn link_up(&mut self, _: Instant) -> bool {
        true
    }

    fn wait(&mut self, _: Option<Instant>) {}

    fn now(&self) -> Instant {
        self.now.set(self.now.get() + 1_000);
        Instant(self.now.get())
    }
}

fn template() -> Template {
    let (a, b) = (Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 0, 2));
    Template::new(100, ([2, 0, 0, 0, 0, 1], a), ([2, 0, 0, 0, 0, 2], b), 5)
}

#[test]
fn a_rate_is_kept_and_losses_are_counted() {
    let plan = Plan { template: template(), rate: Some(2_000.0), run_for: Duration::from_secs(1) };
    let seen = Generate::new(Mirror::new(32, 10, true), None, plan).run(|| false);
    assert!((1_999..=2_000).contains(&seen.tx), "{seen:?}");
    assert_eq!(seen.lost(), seen.tx / 10);
    assert_eq!((seen.foreign, seen.reordered, seen.size), (0, 0, 100));
    assert!((seen.per_s(seen.tx) - 2_000.0).abs() < 5.0);
}

#[test]
fn a_full_port_is_counted_and_loses_nothing() {
    let plan = Plan { template: template(), rate: None, run_for: Duration::from_millis(1) };
    let seen = Generate::new(Mirror::new(7, u64::MAX, true), None, plan).run(|| false);
    assert!(seen.tx > 1_000 && seen.tx_full > 0, "{seen:?}");
    assert_eq!((seen.lost(), seen.reordered), (0, 0));
}

#[test]
fn the_forwarder_returns_packets_and_drops_the_rest() {
    let mut forward = Forward::new(Mirror::new(10, u64::MAX, false));
    for number in 0..64 {
        let mut frame = vec![0; 100];
        template().write(&mut frame, number);
        forward.device().wire.push_back(frame);
        forward.device().wire.push_back(vec![0; 60]);
    }
    let mut turns = 0;
    while forward.turn() {
        turns += 1;
    }
    assert!(turns > 4, "a port that takes 10 of 16 has the rest kept for the next turn");
    let done = forward.done();
    assert_eq!((done.rx, done.tx, done.unparsed, done.flows), (128, 64, 64, 5));
    assert_eq!(done.tx_bytes, 6_400);
    assert_eq!(forward.device().sent, 64);
    assert!(done.stage_ns.iter().all(|ns| *ns >= 0.0));
}
