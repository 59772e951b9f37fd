//! The shard on TCP/IP: its transport is a stack on one port of a wire, and at the wire's other port a
//! gateway, a stack of its own, carries the peers' bytes between the wire and the simulated network.
//!
//! ```text
//!   peers ── Net ── gateway ── far stack ══ wire: loss, disorder ══ near stack ── shard
//! ```
//!
//! What a peer does at its end (bytes, end of stream, reset) the gateway does on the wire and the other way
//! round, so the peers, the ledger and all checks are those of the other scenarios.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use abi::{Addr, Program};
use net::hub::{Clock, Faults, Hub, Port};
use net::{Config, Stack};
use shard::{
    Burst, Checksums, ConnId, DeviceInfo, Event, Instant, ListenerId, Log, Setup, Shard, Snapshot, Steering,
    Transport, Turn, Via, Why,
};

use crate::net::Net;
use crate::offload::SimOffload;
use crate::plan::{MS, SECOND, US, Weather};
use crate::rng::Rng;
use crate::world::Core;

/// The shard's address, and its first listener's port.
const NEAR: ([u8; 4], u16) = ([10, 200, 0, 1], 15_001);
/// The gateway has the address of every caller and backend: 10.1.0.1 to 10.16.0.1.
const FAR_NETS: u8 = 16;
/// Where backends listen: see `relay::backend_addr`.
const BACKENDS: ([u8; 4], u16, u16) = ([10, 9, 0, 1], 50_000, 64);
/// How long the gateway waits for a backend, which on the wire has been accepted already.
const CONNECT_NS: u64 = 2 * SECOND;
/// The largest piece the gateway takes.
const CHUNK_BYTES_MAX: usize = 4 << 10;
/// What the gateway holds of one direction before it stops its reader.
const HELD_BYTES_MAX: usize = 8 << 10;

/// One direction of a connection through the gateway.
#[derive(Debug, Default)]
struct Half {
    held: Vec<u8>,
    /// Its reader is stopped.
    is_stopped: bool,
    /// The end of the stream has come in, and has gone out.
    ended: bool,
    end_sent: bool,
}

/// A connection through the gateway.
#[derive(Debug)]
struct Joint {
    peer: ConnId,
    wire: ConnId,
    /// The side that is being connected to has answered.
    peer_is_up: bool,
    wire_is_up: bool,
    began: u64,
    to_wire: Half,
    to_peer: Half,
}

/// The shard, both stacks and the gateway.
pub(crate) struct Wired {
    shard: Shard<Stack<Port>, SimOffload>,
    near: Stack<Port>,
    far: Stack<Port>,
    hub: Hub,
    clock: Clock,
    rng: Rng,
    has_weather: bool,
    joints: Vec<Joint>,
    by_peer: BTreeMap<(u32, u32), usize>,
    by_wire: BTreeMap<(u32, u32), usize>,
    frames: u64,
}

/// As [`crate::world::real`], on TCP/IP.
pub(crate) fn wired(setup: Setup, offload: SimOffload, log: Box<dyn Log>) -> Box<dyn Core> {
    let clock = Clock::default();
    clock.set(Instant(1_000_000_000));
    let mut rng = Rng::new(setup.seed ^ 0x57a7);
    let hub = Hub::new(clock.clone(), Faults::default(), rng.word());
    let info = |last: u8, offloads: bool| DeviceInfo {
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
        checksums: Checksums { rx: offloads, tx: false },
        steering: Steering::Single,
    };
    let mut near = Config::new(IpAddr::from(NEAR.0), 8, rng.word());
    near.listeners = (0..setup.listeners.len())
        .filter_map(|at| u16::try_from(at).ok())
        .map(|at| net::Listener { id: ListenerId(at), address: IpAddr::from(NEAR.0), port: NEAR.1 + at })
        .collect();
    near.limits.ring_bytes_max = rng.pick(&[4 << 10, 8 << 10, 16 << 10]);
    near.limits.ring_bytes_min = 4 << 10;
    near.limits.rx_buffers = rng.pick(&[64, 512]);
    near.limits.rx_buffer_bytes = rng.pick(&[100, 4096, 16_384]);
    let mut far = Config::new(IpAddr::from([10, 1, 0, 1]), 8, rng.word());
    far.addresses = (1..=FAR_NETS).map(|net| (IpAddr::from([10, net, 0, 1]), 8)).collect();
    far.listeners = (0..BACKENDS.2)
        .map(|at| net::Listener {
            id: ListenerId(at),
            address: IpAddr::from(BACKENDS.0),
            port: BACKENDS.1 + at,
        })
        .collect();
    far.limits.ring_bytes_max = 8 << 10;
    let open = |info, config| Stack::open(hub.port(info, 1 << 16), config);
    // Both are made here, above.
    let (Ok(near), Ok(far)) = (open(info(1, false), near), open(info(2, false), far)) else {
        unreachable!("the simulator's own configuration is refused")
    };
    Box::new(Wired {
        shard: Shard::new(setup, offload, log),
        near,
        far,
        hub,
        clock,
        rng,
        has_weather: false,
        joints: Vec::new(),
        by_peer: BTreeMap::new(),
        by_wire: BTreeMap::new(),
        frames: 0,
    })
}

fn key(id: ConnId) -> (u32, u32) {
    (id.index, id.generation)
}

/// What the wire does to frames. In fair weather it delays, doubles and reorders; in foul it loses as well,
/// which costs whole seconds of retransmission each time.
fn faults(weather: Weather, rng: &mut Rng) -> Faults {
    let foul = weather == Weather::Foul;
    Faults {
        loss_permille: if foul { rng.pick(&[0, 0, 1, 3, 5]) } else { 0 },
        corrupt_permille: if foul { rng.pick(&[0, 0, 3]) } else { 0 },
        duplicate_permille: rng.pick(&[0, 0, 10, 100]),
        reorder_permille: rng.pick(&[0, 0, 10, 100]),
        reorder_ns: rng.pick(&[10 * US, 300 * US]),
        delay_ns: rng.pick(&[0, US, 20 * US, MS]),
    }
}

impl Wired {
    /// Events of the simulated network, on to the wire.
    fn pump_peers(&mut self, net: &mut Net) -> bool {
        let mut burst = Burst::new();
        net.rx_burst(&mut burst);
        let has_news = !burst.is_empty();
        for event in burst.drain() {
            match event {
                Event::Accepted(peer, listener, from) => self.enter(net, peer, listener, from.addr),
                Event::Connected(peer) => {
                    if let Some(joint) = self.joint_of_peer(peer) {
                        joint.peer_is_up = true;
                    }
                }
                Event::Failed(peer, _) | Event::Reset(peer, _) => {
                    if let Some(at) = self.by_peer.get(&key(peer)).copied() {
                        self.far.reset(self.joints[at].wire);
                        self.leave(at);
                    }
                }
                Event::Data(peer, rx) => {
                    let bytes = net.bytes(&rx).to_vec();
                    if let Some(joint) = self.joint_of_peer(peer) {
                        joint.to_wire.held.extend(bytes);
                    }
                }
                Event::Eof(peer) => {
                    if let Some(joint) = self.joint_of_peer(peer) {
                        joint.to_wire.ended = true;
                    }
                }
                Event::Writable(_) => {}
            }
        }
        has_news
    }

    /// Events of the wire, on to the simulated network.
    fn pump_wire(&mut self, net: &mut Net) -> bool {
        let mut burst = Burst::new();
        self.far.rx_burst(&mut burst);
        let has_news = !burst.is_empty();
        for event in burst.drain() {
            match event {
                Event::Accepted(wire, listener, _) => {
                    let to = SocketAddr::from((BACKENDS.0, BACKENDS.1 + listener.0));
                    let peer = net.connect(&Addr::Ip(to), Via::Route);
                    self.join(peer, wire, false, true, net.now);
                }
                Event::Connected(wire) => {
                    if let Some(joint) = self.joint_of_wire(wire) {
                        joint.wire_is_up = true;
                    }
                }
                Event::Failed(wire, why) | Event::Reset(wire, why) => self.break_off(net, wire, why),
                Event::Data(wire, rx) => {
                    if let Some(joint) = self.joint_of_wire(wire) {
                        joint.to_peer.held.extend_from_slice(&rx);
                    }
                }
                Event::Eof(wire) => {
                    if let Some(joint) = self.joint_of_wire(wire) {
                        joint.to_peer.ended = true;
                    }
                }
                Event::Writable(_) => {}
            }
        }
        has_news
    }

    /// A caller has come: the same on the wire, from its address.
    fn enter(&mut self, net: &mut Net, peer: ConnId, listener: ListenerId, from: Option<(IpAddr, u16)>) {
        let to = SocketAddr::from((NEAR.0, NEAR.1 + listener.0));
        match from {
            Some(from) => {
                let wire = self.far.connect_from(from, to);
                self.join(peer, wire, true, false, net.now);
            }
            None => net.reset(peer),
        }
    }

    /// The wire's end of a connection is gone: the peer sees a reset that neither it nor its partner asked
    /// for, if it was the wire's doing.
    fn break_off(&mut self, net: &mut Net, wire: ConnId, why: Why) {
        let Some(at) = self.by_wire.get(&key(wire)).copied() else { return };
        let peer = self.joints[at].peer;
        if let Some(link) = net.of(peer)
            && (why != Why::Reset || !net.is_accepting[net.node])
        {
            net.links[link.0].is_faulted = true;
        }
        net.reset(peer);
        self.leave(at);
    }

    fn join(&mut self, peer: ConnId, wire: ConnId, peer_is_up: bool, wire_is_up: bool, began: u64) {
        let (to_wire, to_peer) = (Half::default(), Half::default());
        self.by_peer.insert(key(peer), self.joints.len());
        self.by_wire.insert(key(wire), self.joints.len());
        self.joints.push(Joint { peer, wire, peer_is_up, wire_is_up, began, to_wire, to_peer });
    }

    fn leave(&mut self, at: usize) {
        let joint = self.joints.swap_remove(at);
        self.by_peer.remove(&key(joint.peer));
        self.by_wire.remove(&key(joint.wire));
        if let Some(moved) = self.joints.get(at) {
            self.by_peer.insert(key(moved.peer), at);
            self.by_wire.insert(key(moved.wire), at);
        }
    }

    fn joint_of_peer(&mut self, peer: ConnId) -> Option<&mut Joint> {
        let at = *self.by_peer.get(&key(peer))?;
        self.joints.get_mut(at)
    }

    fn joint_of_wire(&mut self, wire: ConnId) -> Option<&mut Joint> {
        let at = *self.by_wire.get(&key(wire))?;
        self.joints.get_mut(at)
    }

    /// Moves what is held as far as it goes.
    fn carry(&mut self, net: &mut Net) {
        let mut at = 0;
        while at < self.joints.len() {
            let joint = &mut self.joints[at];
            let (peer, wire) = (joint.peer, joint.wire);
            joint.to_wire.pass(joint.wire_is_up, (&mut self.far, wire), (net, peer));
            joint.to_peer.pass(joint.peer_is_up, (net, peer), (&mut self.far, wire));
            if !joint.peer_is_up && net.now >= joint.began + CONNECT_NS {
                net.close(peer);
                self.far.reset(wire);
                self.leave(at);
            } else if joint.to_wire.end_sent && joint.to_peer.end_sent {
                net.close(peer);
                self.far.close(wire);
                self.leave(at);
            } else {
                at += 1;
            }
        }
    }

    fn frames(&self) -> u64 {
        let count = |stack: &Stack<Port>| {
            let counters = stack.snapshot().counters;
            counters.rx_frames + counters.tx_frames
        };
        count(&self.near) + count(&self.far)
    }
}

/// A TCP segment over IPv4 as it is shown in traces.
fn line(frame: &[u8]) -> Option<String> {
    let be16 = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let be32 = |at: usize| frame.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let is_tcp = be16(12)? == 0x0800 && *frame.get(23)? == 6;
    let flags = *frame.get(47)?;
    let named = [(2, 'S'), (1, 'F'), (4, 'R'), (8, 'P'), (16, '.')];
    let flags: String = named.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    let len = u32::from(be16(16)?).checked_sub(20 + u32::from(frame.get(46)? >> 4) * 4)?;
    let (from, to, seq, ack, window) = (be16(34)?, be16(36)?, be32(38)?, be32(42)?, be16(48)?);
    let indent = "";
    is_tcp.then(|| format!("{indent:>17} frame {from} > {to} {flags} seq {seq}+{len} ack {ack} win {window}"))
}

impl Half {
    /// Hands on what is held, if the connection it goes to `is_up`; stops the reader of the other while that
    /// is too much.
    fn pass<A: Transport, B: Transport>(
        &mut self,
        is_up: bool,
        (to, writes): (&mut A, ConnId),
        (from, reads): (&mut B, ConnId),
    ) {
        if is_up && !self.held.is_empty() {
            let taken = to.tx(writes, &[&self.held]);
            self.held.drain(..taken);
        }
        let stops = self.held.len() > HELD_BYTES_MAX;
        if stops != self.is_stopped {
            self.is_stopped = stops;
            if stops { from.pause_rx(reads) } else { from.resume_rx(reads) }
        }
        if is_up && self.ended && self.held.is_empty() && !self.end_sent {
            self.end_sent = true;
            to.half_close(writes);
        }
    }
}

impl Core for Wired {
    fn turn(&mut self, now: Instant, net: &mut Net) -> Turn {
        self.clock.set(now);
        if !core::mem::replace(&mut self.has_weather, true) {
            self.hub.set_faults(faults(net.plan.weather, &mut self.rng));
            // The gateway takes a whole burst before it can stop its reader.
            net.plan.chunk_bytes_max = net.plan.chunk_bytes_max.min(CHUNK_BYTES_MAX);
        }
        let peers = self.pump_peers(net);
        let wire = self.pump_wire(net);
        self.carry(net);
        self.far.flush();
        net.flush();
        let turn = self.shard.turn(now, &mut self.near);
        if net.trace.prints() {
            self.hub.record().iter().filter_map(|frame| line(frame)).for_each(|line| eprintln!("{line}"));
        }
        let frames = self.frames();
        // Frames are progress, too: the world would take their turns for a livelock.
        let has_moved = core::mem::replace(&mut self.frames, frames) != frames;
        net.turn.actions += usize::from(has_moved);
        net.trace.note(now.0, format_args!("wire {frames}"));
        let waiting = self.joints.iter().filter(|joint| !joint.peer_is_up);
        let gives_up = waiting.map(|joint| Instant(joint.began + CONNECT_NS)).min();
        let dues = [turn.until, self.near.next_due(), self.far.next_due(), self.hub.next_due(), gives_up];
        Turn {
            did_work: turn.did_work || peers || wire || self.near.has_work() || self.far.has_work(),
            until: dues.into_iter().flatten().min(),
        }
    }

    fn drain(&mut self, now: Instant, net: &mut Net) {
        self.clock.set(now);
        self.shard.drain(now, &mut self.near);
        net.stop_accepting();
    }

    fn is_drained(&self) -> bool {
        self.shard.is_drained()
    }

    fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>) {
        self.shard.adopt(program, sinks);
    }

    fn snapshot(&self) -> Snapshot {
        self.shard.snapshot()
    }
}
