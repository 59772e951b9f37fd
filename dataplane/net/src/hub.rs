//! An ethernet segment in memory, for tests, benchmarks and the simulator: ports that are devices, a clock
//! that somebody else moves, and faults drawn from a seed.
//!
//! Ports that share an ethernet address are the queues of one port and spread as their `DeviceInfo` says.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::{Deref, DerefMut};

use shard::{Burst, Device, DeviceInfo, Instant, Steering};

/// Bytes of an ethernet header.
const ETHERNET: usize = 14;

/// Virtual time, shared by all who look at it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// The time.
    pub fn now(&self) -> Instant {
        Instant(self.0.get())
    }

    /// Moves it.
    pub fn set(&self, now: Instant) {
        self.0.set(now.0);
    }
}

/// What happens to frames on their way, each drawn from the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Frames that are lost.
    pub loss_permille: u64,
    /// Frames that come twice.
    pub duplicate_permille: u64,
    /// IP packets of which a bit is flipped.
    pub corrupt_permille: u64,
    /// Frames that are held back by up to `reorder_ns`.
    pub reorder_permille: u64,
    /// See `reorder_permille`.
    pub reorder_ns: u64,
    /// What every frame takes.
    pub delay_ns: u64,
}

/// Frame buffers of a port.
#[derive(Debug)]
struct Frames {
    free: RefCell<Vec<Vec<u8>>>,
    live: Cell<usize>,
    max: usize,
}

impl Frames {
    fn take(self: &Rc<Self>, len: usize) -> Option<Frame> {
        if self.live.get() >= self.max {
            return None;
        }
        self.live.set(self.live.get() + 1);
        let mut bytes = self.free.borrow_mut().pop().unwrap_or_default();
        bytes.resize(len, 0);
        Some(Frame { bytes, home: Rc::clone(self) })
    }
}

/// An ethernet frame and its buffer.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    home: Rc<Frames>,
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.home.live.set(self.home.live.get() - 1);
        self.home.free.borrow_mut().push(core::mem::take(&mut self.bytes));
    }
}

#[derive(Debug)]
struct Socket {
    info: DeviceInfo,
    frames: Rc<Frames>,
    /// By arrival, then by number: frames with one delay keep their order.
    arriving: BTreeMap<(u64, u64), Frame>,
    lost: u64,
}

#[derive(Debug)]
struct Segment {
    clock: Clock,
    faults: Faults,
    state: u64,
    numbers: u64,
    is_up: bool,
    sockets: Vec<Socket>,
    record: Option<Vec<Vec<u8>>>,
}

/// The segment. Cloning gives another handle to it.
#[derive(Clone, Debug)]
pub struct Hub(Rc<RefCell<Segment>>);

impl Hub {
    /// A segment without ports.
    pub fn new(clock: Clock, faults: Faults, seed: u64) -> Self {
        let segment = Segment {
            clock,
            faults,
            state: seed,
            numbers: 0,
            is_up: true,
            sockets: Vec::new(),
            record: None,
        };
        Self(Rc::new(RefCell::new(segment)))
    }

    /// Plugs in a port with so many buffers, for received and sent frames together.
    pub fn port(&self, info: DeviceInfo, frames_max: usize) -> Port {
        let frames = Rc::new(Frames { free: RefCell::new(Vec::new()), live: Cell::new(0), max: frames_max });
        let mut segment = self.0.borrow_mut();
        let arriving = BTreeMap::new();
        segment.sockets.push(Socket { info: info.clone(), frames: Rc::clone(&frames), arriving, lost: 0 });
        let at = segment.sockets.len() - 1;
        Port { hub: self.clone(), at, info, clock: segment.clock.clone(), frames, tx_room: usize::MAX }
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Pulls the plug, or puts it back. Frames on their way are lost.
    pub fn set_up(&self, is_up: bool) {
        let mut segment = self.0.borrow_mut();
        segment.is_up = is_up;
        segment.sockets.iter_mut().for_each(|socket| socket.arriving.clear());
    }

    /// When the next frame arrives anywhere.
    pub fn next_due(&self) -> Option<Instant> {
        let segment = self.0.borrow();
        let firsts = segment.sockets.iter().filter_map(|socket| socket.arriving.keys().next());
        firsts.min().map(|(due, _)| Instant(*due))
    }

    /// What has been sent since the last call; the first call begins.
    pub fn record(&self) -> Vec<Vec<u8>> {
        self.0.borrow_mut().record.replace(Vec::new()).unwrap_or_default()
    }

    /// Puts a frame on the segment that none of its ports has sent.
    pub fn send(&self, frame: &[u8]) {
        self.0.borrow_mut().send(usize::MAX, frame);
    }
}

impl Segment {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.random() % 1000 < permille
    }

    fn send(&mut self, from: usize, frame: &[u8]) {
        if !self.is_up || frame.len() < ETHERNET {
            return;
        }
        if let Some(record) = &mut self.record {
            record.push(frame.to_vec());
        }
        for at in 0..self.sockets.len() {
            let is_own = self.sockets.get(from).is_some_and(|own| own.info.mac == self.sockets[at].info.mac);
            if at == from || is_own || !self.sockets[at].wants(frame) {
                continue;
            }
            let copies = if self.chance(self.faults.duplicate_permille) { 2 } else { 1 };
            for _ in 0..copies {
                self.deliver(at, frame);
            }
        }
    }

    fn deliver(&mut self, at: usize, frame: &[u8]) {
        if self.chance(self.faults.loss_permille) {
            return;
        }
        let mut due = self.clock.now().0 + self.faults.delay_ns;
        if self.chance(self.faults.reorder_permille) {
            due += self.random() % self.faults.reorder_ns.max(1);
        }
        let is_ip = matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]);
        let flip = (is_ip && self.chance(self.faults.corrupt_permille)).then(|| self.random());
        let number = self.numbers;
        self.numbers += 1;
        let socket = &mut self.sockets[at];
        let Some(mut copy) = socket.frames.take(frame.len()) else {
            socket.lost += 1;
            return;
        };
        copy.copy_from_slice(frame);
        if let Some(flip) = flip {
            let bits = (frame.len() - ETHERNET) as u64 * 8;
            let bit = usize::try_from(flip % bits.max(1)).unwrap_or(0);
            if let Some(byte) = copy.get_mut(ETHERNET + bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        socket.arriving.insert((due, number), copy);
    }
}

impl Socket {
    fn wants(&self, frame: &[u8]) -> bool {
        if frame[0] & 1 == 0 && frame[..6] != self.info.mac {
            return false;
        }
        match &self.info.steering {
            Steering::Single => true,
            Steering::Hash { queue, spread } => {
                let ends = ends(frame);
                ends.and_then(|(from, to)| spread.queue(from, to)).unwrap_or(0) == *queue
            }
        }
    }
}

type End = (IpAddr, u16);

/// Sender and receiver as a NIC finds them: of a TCP segment with their ports, of other IP packets without.
fn ends(frame: &[u8]) -> Option<(End, End)> {
    let be16 = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let v4 = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
    match (be16(12)?, frame.get(23)?, frame.get(20)?) {
        (0x0800, 6, _) => {
            let tcp = ETHERNET + usize::from(frame.get(14)? & 15) * 4;
            Some(((v4(26)?.into(), be16(tcp)?), (v4(30)?.into(), be16(tcp + 2)?)))
        }
        (0x86dd, _, 6) => Some(((v6(22)?.into(), be16(54)?), (v6(38)?.into(), be16(56)?))),
        (0x0800, ..) => Some(((v4(26)?.into(), 0), (v4(30)?.into(), 0))),
        (0x86dd, ..) => Some(((v6(22)?.into(), 0), (v6(38)?.into(), 0))),
        _ => None,
    }
}

/// One port, or one queue of a port.
#[derive(Debug)]
pub struct Port {
    hub: Hub,
    at: usize,
    info: DeviceInfo,
    clock: Clock,
    frames: Rc<Frames>,
    /// Frames `tx_burst` still takes; tests lower it.
    pub tx_room: usize,
}

impl Port {
    /// Buffers that are somewhere else than in the pool.
    pub fn frames_live(&self) -> usize {
        self.frames.live.get()
    }

    /// Frames that did not fit because there was no buffer.
    pub fn frames_lost(&self) -> u64 {
        self.hub.0.borrow().sockets[self.at].lost
    }
}

impl Device for Port {
    type Frame = Frame;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut Burst<Frame>) {
        let mut segment = self.hub.0.borrow_mut();
        let now = self.clock.now().0;
        let arriving = &mut segment.sockets[self.at].arriving;
        while out.room() > 0
            && let Some(first) = arriving.first_entry()
            && first.key().0 <= now
        {
            let _ = out.push(first.remove());
        }
    }

    fn frame(&mut self, len: usize) -> Option<Frame> {
        if len > ETHERNET + self.info.mtu { None } else { self.frames.take(len) }
    }

    fn tx_burst(&mut self, frames: &mut Burst<Frame>) {
        let count = frames.len().min(self.tx_room);
        if count < frames.len() {
            // A full queue: what it has no room for stays, in order.
            let all: Vec<Frame> = frames.drain().collect();
            for (place, frame) in all.into_iter().enumerate() {
                if place < count {
                    self.hub.0.borrow_mut().send(self.at, &frame);
                } else {
                    let _ = frames.push(frame);
                }
            }
        } else {
            frames.drain().for_each(|frame| self.hub.0.borrow_mut().send(self.at, &frame));
        }
        self.tx_room -= count;
    }

    fn link_up(&mut self, _: Instant) -> bool {
        self.hub.0.borrow().is_up
    }

    /// Nothing: time passes when the clock is moved.
    fn wait(&mut self, _until: Option<Instant>) {}

    fn now(&self) -> Instant {
        self.clock.now()
    }
}
