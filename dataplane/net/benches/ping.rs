//! What the stack costs: a message there and back between two stacks in memory, with 20 and with 2,000
//! connections in use, and a transfer.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark, and criterion's macros")]

use std::net::{IpAddr, SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use net::hub::{Clock, Faults, Hub, Port};
use net::{Config, Listener, Rx, Stack};
use shard::{
    Burst, Checksums, ConnId, Device, DeviceInfo, Event, Instant, ListenerId, Steering, Transport, Via,
};

const PORT: u16 = 15_001;
/// Messages in flight, whatever the number of connections: a turn finds as many frames with few as with many.
const IN_FLIGHT: usize = 20;

/// Two stacks, connections between them, and time that passes by the microsecond.
struct Rig {
    clock: Clock,
    ends: [Stack<Port>; 2],
    burst: Burst<Event<Rx>>,
    conns: Vec<ConnId>,
    next: usize,
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 7, 0, last])
}

fn stack(hub: &Hub, last: u8) -> Stack<Port> {
    let info = DeviceInfo {
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
        checksums: Checksums::default(),
        steering: Steering::Single,
    };
    let mut config = Config::new(ip(last), 24, u64::from(last));
    config.listeners = vec![Listener { id: ListenerId(0), address: ip(last), port: PORT }];
    Stack::open(hub.port(info, 1 << 16), config).unwrap()
}

impl Rig {
    fn new(conns: usize) -> Self {
        let clock = Clock::default();
        clock.set(Instant(1_000_000_000));
        let hub = Hub::new(clock.clone(), Faults::default(), 1);
        let ends = [stack(&hub, 1), stack(&hub, 2)];
        let mut rig = Self { clock, ends, burst: Burst::new(), conns: Vec::new(), next: 0 };
        let to = abi::Addr::Ip(SocketAddr::new(ip(2), PORT));
        while rig.conns.len() < conns {
            let id = rig.ends[0].connect(&to, Via::Route);
            let mut is_up = false;
            while !is_up {
                rig.ends[0].flush();
                rig.turn(1);
                rig.ends[0].rx_burst(&mut rig.burst);
                is_up = rig.burst.drain().any(|event| matches!(event, Event::Connected(_)));
                rig.ends[0].flush();
            }
            rig.turn(1);
            rig.conns.push(id);
        }
        rig
    }

    fn pass(&self, ns: u64) {
        self.clock.set(self.clock.now().after_ns(ns));
    }

    /// One end's turn, in which it sends back what it gets.
    fn turn(&mut self, end: usize) {
        self.pass(1000);
        self.ends[end].rx_burst(&mut self.burst);
        for event in self.burst.drain() {
            if let Event::Data(id, rx) = event {
                self.ends[end].tx(id, &[&rx]);
            }
        }
        self.ends[end].flush();
    }

    /// A message on each of the next connections, there and back.
    fn pings(&mut self) {
        for _ in 0..IN_FLIGHT {
            let id = self.conns[self.next];
            self.next = (self.next + 1) % self.conns.len();
            self.ends[0].tx(id, &[&[7; 64]]);
        }
        self.ends[0].flush();
        self.turn(1);
        self.pass(20_000);
        self.ends[0].rx_burst(&mut self.burst);
        let lens = self.burst.drain().map(|event| if let Event::Data(_, rx) = event { rx.len() } else { 0 });
        assert_eq!(lens.sum::<usize>(), 64 * IN_FLIGHT);
    }

    /// So many bytes from one end to the other.
    fn transfer(&mut self, bytes: usize) {
        let chunk = [7; 16 << 10];
        let (mut sent, mut got) = (0, 0);
        while got < bytes {
            if sent < bytes {
                sent += self.ends[0].tx(self.conns[0], &[&chunk[..chunk.len().min(bytes - sent)]]);
            }
            self.ends[0].flush();
            self.pass(1000);
            self.ends[1].rx_burst(&mut self.burst);
            for event in self.burst.drain() {
                if let Event::Data(_, rx) = event {
                    got += rx.len();
                }
            }
            self.ends[1].flush();
            self.ends[0].rx_burst(&mut self.burst);
            self.burst.drain();
        }
    }
}

/// The wire alone: what of a ping is not the stacks'.
fn wire(c: &mut Criterion) {
    let clock = Clock::default();
    let hub = Hub::new(clock, Faults::default(), 1);
    let info = |last| DeviceInfo {
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
        checksums: Checksums::default(),
        steering: Steering::Single,
    };
    let mut ports = [hub.port(info(1), 64), hub.port(info(2), 64)];
    let mut burst = Burst::new();
    c.bench_function("wire/two_frames", |b| {
        b.iter(|| {
            for from in 0..2 {
                let mut frame = ports[from].frame(118).unwrap();
                frame.fill(0);
                frame[5] = if from == 0 { 2 } else { 1 };
                frame[0] = 2;
                burst.push(frame).unwrap();
                ports[from].tx_burst(&mut burst);
                ports[1 - from].rx_burst(&mut burst);
                assert_eq!(burst.drain().count(), 1);
            }
        });
    });
}

fn ping(c: &mut Criterion) {
    let mut group = c.benchmark_group("pings");
    group.throughput(Throughput::Elements(IN_FLIGHT as u64));
    for conns in [20, 2000] {
        let mut rig = Rig::new(conns);
        group.bench_function(format!("{conns}_conns"), |b| b.iter(|| rig.pings()));
    }
    group.finish();
}

fn transfer(c: &mut Criterion) {
    const BYTES: usize = 1 << 20;
    let mut rig = Rig::new(1);
    let mut group = c.benchmark_group("transfer");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("one_way", |b| b.iter(|| rig.transfer(BYTES)));
    group.finish();
}

criterion_group!(benches, wire, ping, transfer);
criterion_main!(benches);
