//! A warm connection allocates nothing: not per segment, not per transfer, with many connections or few.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};

use allocation_counter::{measure, opt_out};
use net::hub::{Clock, Faults, Frame, Hub, Port};
use net::{Config, Listener, Rx, Stack};
use shard::{
    Burst, Checksums, ConnId, Device, DeviceInfo, Event, Instant, ListenerId, Steering, Transport, Via,
};

const PORT: u16 = 15_001;

/// The cable's own memory is not what is counted.
struct Uncounted(Port);

impl Device for Uncounted {
    type Frame = Frame;

    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn rx_burst(&mut self, out: &mut Burst<Frame>) {
        opt_out(|| self.0.rx_burst(out));
    }

    fn frame(&mut self, len: usize) -> Option<Frame> {
        let mut frame = None;
        opt_out(|| frame = self.0.frame(len));
        frame
    }

    fn tx_burst(&mut self, frames: &mut Burst<Frame>) {
        opt_out(|| self.0.tx_burst(frames));
    }

    fn link_up(&mut self, now: Instant) -> bool {
        self.0.link_up(now)
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.0.wait(until);
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

struct Rig {
    clock: Clock,
    ends: [Stack<Uncounted>; 2],
    burst: Burst<Event<Rx>>,
    conns: Vec<ConnId>,
}

impl Rig {
    fn new(conns: usize) -> Self {
        let clock = Clock::default();
        clock.set(Instant(1_000_000_000));
        let hub = Hub::new(clock.clone(), Faults::default(), 1);
        let ip = |last| IpAddr::from([10, 7, 0, last]);
        let end = |last| {
            let info = DeviceInfo {
                mac: [2, 0, 0, 0, 0, last],
                mtu: 1500,
                checksums: Checksums::default(),
                steering: Steering::Single,
            };
            let mut config = Config::new(ip(last), 24, u64::from(last));
            config.listeners = vec![Listener { id: ListenerId(0), address: ip(last), port: PORT }];
            Stack::open(Uncounted(hub.port(info, 1 << 12)), config).unwrap()
        };
        let mut rig = Self { clock, ends: [end(1), end(2)], burst: Burst::new(), conns: Vec::new() };
        let to = abi::Addr::Ip(SocketAddr::new(ip(2), PORT));
        for _ in 0..conns {
            let id = rig.ends[0].connect(&to, Via::Route);
            rig.conns.push(id);
            let mut is_up = false;
            while !is_up {
                rig.turn(0, &mut |event| is_up |= matches!(event, Event::Connected(_)));
                rig.turn(1, &mut |_| {});
            }
        }
        rig
    }

    /// One end's turn: what it gets is told.
    fn turn(&mut self, end: usize, told: &mut dyn FnMut(&Event<Rx>)) {
        self.clock.set(self.clock.now().after_ns(1000));
        self.ends[end].rx_burst(&mut self.burst);
        self.burst.drain().for_each(|event| told(&event));
        self.ends[end].flush();
    }

    /// So many bytes on each connection, from the connecting end to the listening one.
    fn transfer(&mut self, bytes: usize) {
        let chunk = [7_u8; 4096];
        let mut got = 0;
        let mut left: [usize; 32] = [bytes; 32];
        while got < bytes * self.conns.len() {
            for (left, id) in left.iter_mut().zip(&self.conns) {
                *left -= self.ends[0].tx(*id, &[&chunk[..chunk.len().min(*left)]]);
            }
            self.ends[0].flush();
            self.turn(1, &mut |event| {
                if let Event::Data(_, rx) = event {
                    got += rx.len();
                }
            });
            self.turn(0, &mut |_| {});
        }
    }
}

#[test]
fn a_warm_stack_allocates_nothing() {
    let mut rig = None;
    let cold = measure(|| rig = Some(Rig::new(32)));
    assert!(cold.count_total > 0, "what a new stack allocates is seen");
    let mut rig = rig.unwrap();
    // Timers wander through their wheel once, rings reach their size.
    for _ in 0..200 {
        rig.transfer(100);
        rig.transfer(20_000);
    }
    let info = measure(|| {
        for _ in 0..200 {
            rig.transfer(100);
            rig.transfer(20_000);
        }
    });
    assert_eq!(info.count_total, 0, "{} bytes in {} allocations", info.bytes_total, info.count_total);
}
