//! Stacks on one hub, the events they tell, and the loop that moves the clock.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod frames;
pub(crate) mod peer;

use hashbrown::HashMap;
use std::net::{IpAddr, SocketAddr};

use net::hub::{Clock, Faults, Hub, Port};
use net::{Config, Counters, Listener, Rx, Stack};
use shard::{
    Burst, Checksums, ConnId, DeviceInfo, Event, Instant, ListenerId, Peer, Steering, Transport, Via, Why,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
pub(crate) const PORT: u16 = 15_001;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// What a connection's events have said.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) data: Vec<u8>,
    pub(crate) connected: bool,
    pub(crate) failed: Option<Why>,
    pub(crate) reset: Option<Why>,
    pub(crate) eof: bool,
    pub(crate) writable: u32,
}

/// A stack and what it has told.
pub(crate) struct Host {
    pub(crate) stack: Stack<Port>,
    pub(crate) logs: HashMap<ConnId, Log>,
    pub(crate) accepted: Vec<(ConnId, ListenerId, Peer)>,
    /// Sends back what comes.
    pub(crate) echo: bool,
    /// Bytes it is told in a turn, at most.
    pub(crate) share: usize,
    /// Keeps received buffers.
    pub(crate) hold: bool,
    pub(crate) held: Vec<(ConnId, Rx)>,
    pub(crate) ip: IpAddr,
    owed: HashMap<ConnId, Vec<u8>>,
    burst: Burst<Event<Rx>>,
}

impl Host {
    pub(crate) fn log(&mut self, id: ConnId) -> &mut Log {
        self.logs.entry(id).or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.stack.snapshot().counters
    }

    pub(crate) fn connect(&mut self, to: IpAddr) -> ConnId {
        self.stack.connect(&abi::Addr::Ip(SocketAddr::new(to, PORT)), Via::Route)
    }

    /// What this turn is to send, in the background.
    pub(crate) fn send(&mut self, id: ConnId, bytes: &[u8]) {
        self.owed.entry(id).or_default().extend_from_slice(bytes);
        self.push(id);
    }

    /// Bytes of [`Self::send`] that the stack has not taken.
    pub(crate) fn owed(&self, id: ConnId) -> usize {
        self.owed.get(&id).map_or(0, Vec::len)
    }

    fn push(&mut self, id: ConnId) {
        if let Some(owed) = self.owed.get_mut(&id)
            && !owed.is_empty()
        {
            let taken = self.stack.tx(id, &[owed.as_slice()]);
            owed.drain(..taken);
        }
    }

    /// One turn; true if it had events.
    pub(crate) fn turn(&mut self) -> bool {
        let mut burst = std::mem::take(&mut self.burst);
        let mut share = self.share;
        let now = self.stack.now();
        self.stack.take_in(now);
        self.stack.tell(&mut burst, &mut share, now);
        let told = |event: &Event<Rx>| if let Event::Data(_, rx) = event { rx.len() } else { 0 };
        let told: usize = burst.as_slice().iter().map(told).sum();
        assert_eq!(told, self.share - share, "a turn is told no more than it asked for");
        let had_events = !burst.is_empty();
        for event in burst.drain() {
            match event {
                Event::Accepted(id, listener, peer) => {
                    self.log(id).connected = true;
                    self.accepted.push((id, listener, peer));
                }
                Event::Connected(id) => self.log(id).connected = true,
                Event::Failed(id, why) => self.log(id).failed = Some(why),
                Event::Reset(id, why) => self.log(id).reset = Some(why),
                Event::Eof(id) => self.log(id).eof = true,
                Event::Writable(id) => {
                    self.log(id).writable += 1;
                    self.push(id);
                }
                Event::Data(id, rx) => {
                    self.log(id).data.extend_from_slice(&rx);
                    if self.echo {
                        self.send(id, &rx);
                    }
                    if self.hold {
                        self.held.push((id, rx));
                    }
                }
            }
        }
        self.burst = burst;
        self.stack.flush();
        had_events
    }
}

/// Hosts on a hub.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) hub: Hub,
    pub(crate) hosts: Vec<Host>,
}

pub(crate) fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 7, 0, last])
}

pub(crate) fn v6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

pub(crate) fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

pub(crate) fn info(last: u8) -> DeviceInfo {
    DeviceInfo { mac: mac(last), mtu: 1500, checksums: Checksums::default(), steering: Steering::Single }
}

/// 10.7.0.`last`/24 and fd00::`last`/64, listening on [`PORT`] of both.
pub(crate) fn config(last: u8) -> Config {
    let mut config = Config::new(v4(last), 24, u64::from(last));
    config.addresses.push((v6(u16::from(last)), 64));
    config.listeners = vec![
        Listener { id: ListenerId(4), address: "0.0.0.0".parse().unwrap(), port: PORT },
        Listener { id: ListenerId(6), address: "::".parse().unwrap(), port: PORT },
    ];
    config
}

impl World {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        let clock = Clock::default();
        clock.set(Instant(3600 * SECOND));
        Self { hub: Hub::new(clock.clone(), faults, seed), clock, hosts: Vec::new() }
    }

    /// Two hosts, 1 and 2.
    pub(crate) fn pair(faults: Faults, seed: u64) -> Self {
        let mut world = Self::new(faults, seed);
        world.add(info(1), config(1));
        world.add(info(2), config(2));
        world
    }

    pub(crate) fn add(&mut self, info: DeviceInfo, config: Config) -> usize {
        let ip = config.addresses[0].0;
        let stack = Stack::open(self.hub.port(info, 1 << 16), config).unwrap();
        self.hosts.push(Host {
            stack,
            logs: HashMap::new(),
            accepted: Vec::new(),
            echo: false,
            share: usize::MAX,
            hold: false,
            held: Vec::new(),
            ip,
            owed: HashMap::new(),
            burst: Burst::new(),
        });
        self.hosts.len() - 1
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().0
    }

    /// A turn of each host, then time: to what comes next, at most to `end`. False if nothing can come.
    pub(crate) fn step(&mut self, end: u64) -> bool {
        let mut had_events = false;
        for host in &mut self.hosts {
            had_events |= host.turn();
        }
        let is_busy = had_events || self.hosts.iter().any(|host| host.stack.has_work());
        let due = self.hosts.iter().filter_map(|host| host.stack.next_due()).chain(self.hub.next_due()).min();
        let next = if is_busy { Some(self.now() + 1000) } else { due.map(|at| at.0.max(self.now() + 1000)) };
        let Some(next) = next else { return false };
        self.clock.set(Instant(next.min(end.max(self.now() + 1))));
        true
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, ns: u64) {
        let end = self.now() + ns;
        while self.now() < end {
            if !self.step(end) {
                self.clock.set(Instant(end));
            }
        }
    }

    /// Runs until `done`, for at most ten minutes of virtual time.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now() + 600 * SECOND;
        while !done(self) {
            assert!(self.step(end) && self.now() < end, "in vain for {what}: {}", self.report());
        }
    }

    /// A connection from host 0 to host 1: both ids.
    pub(crate) fn connection(&mut self, to: IpAddr) -> (ConnId, ConnId) {
        let before = self.hosts[1].accepted.len();
        let ours = self.hosts[0].connect(to);
        self.until("a connection", |world| {
            world.hosts[1].accepted.len() > before && world.hosts[0].log(ours).connected
        });
        (ours, self.hosts[1].accepted[before].0)
    }

    /// All counters that are not zero.
    pub(crate) fn report(&self) -> String {
        let mut out = String::new();
        for host in &self.hosts {
            let snapshot = host.stack.snapshot();
            let moved: Vec<_> = snapshot.counters.entries().filter(|(.., n)| *n > 0).collect();
            out += &format!("\n{}: {} open, {moved:?}", host.ip, snapshot.conns_open);
        }
        out
    }

    /// Nothing is left of any connection: no slot, socket or buffer.
    pub(crate) fn assert_empty(&mut self) {
        self.run(45 * SECOND);
        for host in &mut self.hosts {
            host.turn();
            host.held.clear();
            let s = host.stack.snapshot();
            assert_eq!(
                (s.conns_open, s.half_open, s.sockets_in_use, s.ring_bytes, s.rx_buffers_out),
                (0, 0, 0, 0, 0)
            );
            assert!(!host.stack.has_work());
            assert_eq!(host.stack.device().frames_live(), 0, "frames of {}", host.ip);
        }
    }
}

/// Bytes that say where they belong.
pub(crate) fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
