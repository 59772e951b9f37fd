//! Raw ports: opened once by the node, before its threads start; each shard takes its queue of each.
//!
//! Every shard of a node has a queue of every port: a node has as many shards as the port with the fewest
//! queues can serve, see [`Ports::shards`].

mod post;
mod raw;
mod spec;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use crate::tap::TapHandle;
use crate::{Poll, Waker};
use post::Post;
pub use raw::PortSnapshot;
pub(crate) use raw::{AnyStack, Raw, Seat, any};
pub use spec::{DeviceSpec, DpdkMemory, PortError, PortSpec, SHARED_SOURCE_PORTS, XdpMode, network};

/// The most ports of a node; more are a mistake.
pub const PORTS_MAX: usize = 8;

/// How ports are opened.
#[derive(Clone, Copy, Debug)]
pub struct PortOptions {
    /// Shards that want a queue of each.
    pub shards: u16,
    /// How queues wait.
    pub poll: Poll,
    /// Where DPDK's buffers live.
    pub memory: DpdkMemory,
    /// Ceilings of each shard's stack.
    pub limits: net::Limits,
    /// Makes ports differ in what they draw.
    pub seed: u64,
}

/// The node's raw ports.
#[derive(Debug, Default)]
pub struct Ports {
    open: Vec<OpenPort>,
}

#[derive(Debug)]
struct OpenPort {
    spec: PortSpec,
    line: String,
    config: net::Config,
    /// By shard; each is taken once.
    seats: Vec<Option<Seat>>,
    /// By shard.
    taps: Vec<TapHandle>,
    post: Arc<Post>,
    /// What the queues need to stay open.
    _owner: raw::Owner,
}

impl Ports {
    /// No ports.
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens them all.
    ///
    /// # Errors
    /// The first that cannot be opened, and what to do about it.
    pub fn open(specs: &[PortSpec], options: &PortOptions) -> Result<Self, PortError> {
        if let Some(one) = specs.get(PORTS_MAX) {
            let why = format!("a node has at most {PORTS_MAX} raw ports");
            return Err(PortError { port: one.name.clone(), why });
        }
        raw::start(specs, options)?;
        let mut open = Vec::new();
        for spec in specs {
            open.push(OpenPort::open(spec, options)?);
        }
        Ok(Self { open })
    }

    /// Shards that every port can serve; `None` without ports.
    pub fn shards(&self) -> Option<usize> {
        self.open.iter().map(OpenPort::shards).min()
    }

    /// The ports that serve fewer shards than were wanted.
    pub fn narrow(&self, wanted: usize) -> impl Iterator<Item = &str> {
        self.open.iter().filter(move |port| port.shards() < wanted).map(|port| port.spec.name.as_str())
    }

    /// Name and description of each: what it is, how it is driven, whom it serves.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.open.iter().map(|port| (port.spec.name.as_str(), port.line.as_str()))
    }

    /// Name and taps of each: one tap for each shard's queue.
    pub fn taps(&self) -> impl Iterator<Item = (&str, &[TapHandle])> {
        self.open.iter().map(|port| (port.spec.name.as_str(), &port.taps[..]))
    }

    /// A shard's queue of each port, to be handed to its thread; each shard's can be taken once.
    pub fn take(&mut self, shard: usize) -> PortSeats {
        PortSeats(self.open.iter_mut().filter_map(|port| port.take(shard)).collect())
    }
}

/// A shard's queue of each port, on the way to its thread.
#[derive(Debug, Default)]
pub struct PortSeats(Vec<PortSeat>);

#[derive(Debug)]
struct PortSeat {
    name: String,
    seat: Seat,
    config: net::Config,
    post: Arc<Post>,
    shard: usize,
    tap: TapHandle,
}

impl PortSeats {
    /// No ports.
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens the queues on the calling thread. `waker` ends the thread's waits.
    pub(crate) fn open(self, waker: &Waker) -> Result<Vec<Raw>, PortError> {
        let open = |one: PortSeat| {
            one.post.sit(one.shard, waker.clone());
            one.seat.open(&one.name, one.config, one.post, one.shard, &one.tap)
        };
        self.0.into_iter().map(open).collect()
    }
}

/// The system's random bytes, for one port: whoever learns what another port or a program draws learns nothing of them.
fn secret(spec: &PortSpec) -> Result<net::Secret, PortError> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    let failed =
        |e| PortError { port: spec.name.clone(), why: format!("no random numbers from /dev/urandom: {e}") };
    read.map(|()| net::Secret::new(bytes)).map_err(failed)
}

impl OpenPort {
    fn open(spec: &PortSpec, options: &PortOptions) -> Result<Self, PortError> {
        let (owner, seats, line) = raw::open(spec, options)?;
        let config = net::Config {
            addresses: spec.addresses.clone(),
            routes: spec.routes.clone(),
            listeners: spec.listeners.clone(),
            ports: spec.shared.clone().unwrap_or(32_768..=60_999),
            limits: options.limits,
            seed: options.seed,
            secret: secret(spec)?,
        };
        let post = Arc::new(Post::new(seats.len()));
        Ok(Self {
            spec: spec.clone(),
            line,
            config,
            taps: seats.iter().map(|_| TapHandle::default()).collect(),
            seats: seats.into_iter().map(Some).collect(),
            post,
            _owner: owner,
        })
    }

    fn shards(&self) -> usize {
        self.post.shards()
    }

    fn take(&mut self, shard: usize) -> Option<PortSeat> {
        let (seat, tap) = (self.seats.get_mut(shard)?.take()?, self.taps.get(shard)?.clone());
        // No two shards begin with the same source ports.
        let seed = self.config.seed ^ (shard as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let config = net::Config { seed, ..self.config.clone() };
        Some(PortSeat {
            name: self.spec.name.clone(),
            seat,
            config,
            post: Arc::clone(&self.post),
            shard,
            tap,
        })
    }
}
