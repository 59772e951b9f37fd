//! A shard-like loop round a transport that keeps a log of everything it was told.

#![allow(dead_code, reason = "each test binary uses a part")]

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use abi::Addr;
use shard::{Burst, ConnId, Event, ListenerId, Peer, Transport, Via, Why};
use towpath_io::{Backend, Config, ListenerSpec, Listeners, Placement, Rx, Snapshot, Sockets, probe};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a connection has been through.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) data: Vec<u8>,
    pub(crate) eof: bool,
    pub(crate) reset: Option<Why>,
    pub(crate) connected: bool,
    pub(crate) failed: Option<Why>,
    pub(crate) writable: usize,
}

/// A transport, its listeners and the log.
pub(crate) struct Rig {
    /// Before the listeners, as in the node.
    pub(crate) io: Sockets,
    pub(crate) listeners: Listeners,
    pub(crate) accepted: Vec<(ConnId, ListenerId, Peer)>,
    logs: BTreeMap<(u32, u32), Log>,
    /// Calls in flight, as published each turn.
    pub(crate) load: u32,
    /// Send back what arrives.
    pub(crate) echo: bool,
    unsent: BTreeMap<(u32, u32), Vec<u8>>,
    /// Keep receive handles instead of dropping them.
    pub(crate) hold: bool,
    pub(crate) held: Vec<Rx>,
    burst: Burst<Event<Rx>>,
}

/// A configuration for tests: nothing of the machine's is taken more than needed.
pub(crate) fn config(backend: Backend, force_baseline: bool) -> Config {
    Config { backend, force_baseline, ..Config::default() }
}

/// True, after saying so, if this kernel does not let io_uring be tested.
pub(crate) fn skip(backend: Backend) -> bool {
    let Some(refusal) = (backend == Backend::Uring).then(|| probe().refusal).flatten() else { return false };
    println!("SKIPPED: {}", refusal.reason);
    true
}

pub(crate) fn loopback() -> Addr {
    Addr::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))
}

impl Rig {
    /// One shard listening on the loopback.
    pub(crate) fn new(config: &Config) -> Self {
        Self::listening(config, loopback())
    }

    pub(crate) fn listening(config: &Config, addr: Addr) -> Self {
        let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(7), addr }]).unwrap();
        let io = Sockets::open(config, &listeners, 0, Placement::new(1)).unwrap();
        assert_eq!(io.backend(), config.backend);
        Self::with(io, listeners)
    }

    pub(crate) fn shard(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
    ) -> Self {
        let io = Sockets::open(config, listeners, shard, placement).unwrap();
        Self::with(io, Listeners::none())
    }

    fn with(io: Sockets, listeners: Listeners) -> Self {
        Self {
            io,
            listeners,
            accepted: Vec::new(),
            logs: BTreeMap::new(),
            load: 0,
            echo: false,
            unsent: BTreeMap::new(),
            hold: false,
            held: Vec::new(),
            burst: Burst::new(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self.listeners.local_addrs()[0].1 {
            Addr::Ip(addr) => addr,
            Addr::Unix(_) => panic!("a unix listener"),
        }
    }

    pub(crate) fn log(&mut self, id: ConnId) -> &mut Log {
        self.logs.entry((id.index, id.generation)).or_default()
    }

    pub(crate) fn counters(&self) -> Snapshot {
        self.io.counters().snapshot()
    }

    fn send_back(&mut self, id: ConnId) {
        let key = (id.index, id.generation);
        let Some(bytes) = self.unsent.get_mut(&key) else { return };
        let sent = self.io.tx(id, &[bytes]);
        bytes.drain(..sent);
    }

    fn on_event(&mut self, event: Event<Rx>) {
        match event {
            Event::Accepted(id, listener, peer) => self.accepted.push((id, listener, peer)),
            Event::Data(id, rx) => {
                let bytes = self.io.bytes(&rx).to_vec();
                assert!(!bytes.is_empty());
                let log = self.log(id);
                assert!(!log.eof && log.reset.is_none(), "data after the end");
                log.data.extend_from_slice(&bytes);
                if self.echo {
                    self.unsent.entry((id.index, id.generation)).or_default().extend_from_slice(&bytes);
                    self.send_back(id);
                }
                if self.hold {
                    self.held.push(rx);
                }
            }
            Event::Eof(id) => {
                let log = self.log(id);
                assert!(!log.eof, "told twice");
                log.eof = true;
            }
            Event::Reset(id, why) => {
                let log = self.log(id);
                assert!(log.reset.is_none(), "told twice");
                log.reset = Some(why);
            }
            Event::Connected(id) => self.log(id).connected = true,
            Event::Failed(id, why) => self.log(id).failed = Some(why),
            Event::Writable(id) => {
                self.log(id).writable += 1;
                self.send_back(id);
            }
        }
    }

    /// One turn, as the shard does it; true if anything happened.
    pub(crate) fn turn(&mut self) -> bool {
        let mut burst = core::mem::take(&mut self.burst);
        self.io.rx_burst(&mut burst);
        let any = !burst.is_empty();
        for event in burst.drain() {
            self.on_event(event);
        }
        self.burst = burst;
        self.io.publish_load(self.load);
        self.io.flush();
        any
    }

    /// Turns until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut met: impl FnMut(&mut Self) -> bool) {
        let end = self.io.now().after(PATIENCE);
        while !met(self) {
            assert!(self.io.now() < end, "waited too long for: {what}; {:?}", self.counters());
            if !self.turn() {
                let soon = self.io.now().after(Duration::from_millis(5));
                self.io.wait(Some(soon));
            }
        }
    }

    /// Turns for a while, whatever happens.
    pub(crate) fn idle(&mut self, time: Duration) {
        let end = self.io.now().after(time);
        self.until("the time to pass", |rig| rig.io.now() >= end);
    }

    /// A client from outside, and its accepted end.
    pub(crate) fn accept(&mut self) -> (TcpStream, ConnId) {
        let client = TcpStream::connect(self.addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        let before = self.accepted.len();
        self.until("an accept", |rig| rig.accepted.len() > before);
        (client, self.accepted[before].0)
    }

    /// A connection of the transport's own, up.
    pub(crate) fn connect(&mut self, to: &Addr) -> ConnId {
        let id = self.io.connect(to, Via::Route);
        self.until("a connect", |rig| rig.log(id).connected);
        id
    }
}

/// Bytes that show when they are lost, doubled or swapped.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        })
        .collect()
}
