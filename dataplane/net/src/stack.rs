//! The stack: what it holds, how it opens, and the life of a connection's slot.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use shard::{Burst, ConnId, Device, Instant, Slots, Steering};
use smoltcp::iface::{Config as TcpConfig, Interface, SocketSet};
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::HardwareAddress;

use crate::backoff::Backoff;
use crate::conn::{Conn, Stage};
use crate::emit::Pen;
use crate::icmp::Shared;
use crate::listen::Backlog;
use crate::neighbours::Neighbours;
use crate::outbox::{Gate, Outbox, Sent};
use crate::parse::{Bad, Flow, Parsed, Rules};
use crate::pool::Pool;
use crate::ports::Ports;
use crate::rate::Rate;
use crate::routes::Routes;
use crate::sockets::Sockets;
use crate::time_wait::TimeWait;
use crate::timers::Timers;
use crate::{Config, ConfigError, Counters, Limits, Secret, Snapshot, isn};

/// TCP/IP over one queue pair of a port.
///
/// Called as [`shard::Transport`] says. A port that spreads by hash brings what has no ports (ARP, neighbour
/// discovery, ICMP errors) to some queue: the stack there keeps copies, see [`Stack::shared_frames`].
pub struct Stack<D: Device> {
    pub(crate) out: Outbox<D>,
    pub(crate) backoff: Backoff,
    pub(crate) iface: Interface,
    /// No socket at all: what is given this set draws a RST.
    pub(crate) nobody: SocketSet<'static>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) steering: Steering,
    pub(crate) slots: Slots<Conn>,
    pub(crate) flows: HashMap<Flow, u32>,
    pub(crate) sockets: Sockets,
    pub(crate) backlog: Backlog,
    pub(crate) time_wait: TimeWait,
    pub(crate) neighbours: Neighbours,
    pub(crate) ports: Ports,
    secret: Secret,
    pub(crate) timers: Timers,
    pub(crate) pool: Rc<Pool>,
    /// Received frames on their way through.
    pub(crate) rx: Burst<D::Frame>,
    /// The same, parsed.
    pub(crate) batch: Vec<(D::Frame, Result<Parsed, Bad>)>,
    /// Connections that may have events.
    pub(crate) ready: VecDeque<u32>,
    /// Connections with received bytes and no buffer to tell them in.
    pub(crate) starved: Vec<u32>,
    /// Connections to be sent for at the next flush.
    pub(crate) dirty: Vec<u32>,
    /// Connections whose neighbour has just been found.
    pub(crate) freed: Vec<u32>,
    pub(crate) shared: Shared,
    pub(crate) rsts: Rate,
    pub(crate) echoes: Rate,
    pub(crate) news: Rate,
    pub(crate) errors: Rate,
    pub(crate) counters: Counters,
    pub(crate) is_up: bool,
}

impl<D: Device> Stack<D> {
    /// Opens a stack on a device and says on the wire that it is there.
    ///
    /// # Errors
    /// What of the configuration cannot be, or does not fit the device.
    pub fn open(device: D, config: Config) -> Result<Self, ConfigError> {
        config.check(device.info())?;
        let now = device.now();
        let info = device.info();
        let rules =
            Rules { mac: info.mac, mtu: info.mtu, checked: info.checksums.rx, routes: Routes::new(&config) };
        let steering = info.steering.clone();
        let mut limits = config.limits;
        limits.ring_bytes_min = limits.ring_bytes_min.max((2 * info.mtu).next_power_of_two());
        limits.ring_bytes_max = limits.ring_bytes_max.max(limits.ring_bytes_min);
        let mut out = Outbox::new(device);
        let mut counters = Counters::default();
        let iface = interface(&mut out, &mut counters, 0, now);
        let mut stack = Self {
            out,
            backoff: Backoff::default(),
            iface,
            nobody: SocketSet::new(Vec::new()),
            rules,
            shared: Shared::new(&steering),
            steering,
            slots: Slots::new(),
            flows: HashMap::new(),
            sockets: Sockets::new(&limits),
            backlog: Backlog::new(config.listeners, &limits, config.secret.hash(b"familiar")),
            time_wait: TimeWait::new(limits.time_wait_max),
            neighbours: Neighbours::new(limits.neighbours_max),
            ports: Ports::new(config.ports, config.secret, config.seed),
            secret: config.secret,
            timers: Timers::default(),
            pool: Pool::new(limits.rx_buffers, limits.rx_buffer_bytes),
            rx: Burst::new(),
            batch: Vec::with_capacity(Burst::<D::Frame>::MAX),
            ready: VecDeque::new(),
            starved: Vec::new(),
            dirty: Vec::new(),
            freed: Vec::new(),
            rsts: Rate::new(limits.rsts_per_second, now),
            echoes: Rate::new(limits.echoes_per_second, now),
            news: Rate::new(limits.neighbour_news_per_second, now),
            errors: Rate::new(limits.icmp_errors_per_second, now),
            limits,
            counters,
            is_up: true,
        };
        stack.announce();
        stack.out.flush();
        Ok(stack)
    }

    /// The device below.
    pub fn device(&self) -> &D {
        &self.out.device
    }

    /// The device below.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.out.device
    }

    /// The prefix length of the route to `ip`: a node with several ports takes the longest. `None` if this
    /// port does not lead there.
    pub fn route_to(&self, ip: IpAddr) -> Option<u8> {
        self.rules.routes.hop(ip).map(|(_, prefix_len)| prefix_len)
    }

    /// Totals, and what is held now.
    pub fn snapshot(&self) -> Snapshot {
        let [sockets, sockets_in_use, ring_bytes, ring_bytes_spare] = self.sockets.count();
        Snapshot {
            counters: self.counters,
            conns_open: u64::from(self.slots.len()),
            half_open: u64::from(self.backlog.count()),
            time_wait: self.time_wait.len() as u64,
            neighbours: self.neighbours.len() as u64,
            sockets,
            sockets_in_use,
            ring_bytes,
            ring_bytes_spare,
            conn_bytes: (size_of::<Conn>() + size_of::<smoltcp::iface::SocketStorage<'static>>()) as u64,
            rx_buffers_out: self.pool.out(),
            rx_buffers_made: self.pool.made(),
            link_up: self.is_up.into(),
        }
    }

    /// As the device said when it was last looked at.
    pub fn is_link_up(&self) -> bool {
        self.is_up
    }

    /// When the stack must be called again although no frame has come: [`shard::Transport::wait`] ends then,
    /// and so must any other wait.
    pub fn next_due(&self) -> Option<Instant> {
        // Nobody can be asked for while nothing leaves.
        let next = match self.out.is_stuck {
            true => Some(self.backoff.until(self.out.device.now())),
            false => self.neighbours.next(),
        };
        [self.timers.next(), next].into_iter().flatten().min()
    }

    /// True if the next burst will have events or the next flush something to send: waiting would be wrong.
    pub fn has_work(&self) -> bool {
        let is_fed = !self.starved.is_empty() && self.pool.has_any();
        !self.ready.is_empty() || is_fed || (!self.dirty.is_empty() && !self.out.is_stuck)
    }

    pub(crate) fn pen(&mut self) -> Pen<'_, D> {
        Pen { out: &mut self.out, counters: &mut self.counters, mac: self.rules.mac }
    }

    pub(crate) fn announce(&mut self) {
        // Of several queues one is enough.
        if matches!(self.steering, Steering::Hash { queue, .. } if queue != 0) {
            return;
        }
        let mut pen = Pen { out: &mut self.out, counters: &mut self.counters, mac: self.rules.mac };
        self.rules.routes.addresses().for_each(|ip| pen.announce(ip));
    }

    /// It has something to send, or a timer to be set.
    pub(crate) fn mark_dirty(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// It may have something to tell.
    pub(crate) fn mark_ready(&mut self, index: u32) {
        if let Some(conn) = self.slots.slot_mut(index)
            && !core::mem::replace(&mut conn.ready, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Puts a new connection into a slot and under its flow.
    pub(crate) fn insert(&mut self, conn: Conn) -> ConnId {
        let flow = conn.flow;
        let has_socket = conn.tcp.is_some();
        let id = self.slots.insert(conn);
        if has_socket {
            self.flows.insert(flow, id.index);
        }
        id
    }

    /// The next connection that smoltcp begins is this one: it is to have the first sequence number of its own.
    pub(crate) fn begin_flow(&mut self, local: (IpAddr, u16), remote: (IpAddr, u16), now: Instant) {
        let isn = self.secret.isn(local, remote, now);
        self.iface = interface(&mut self.out, &mut self.counters, isn::seed_of(isn), now);
    }

    /// The connection's flow is over: its socket is free for another, its straggling segments are not its
    /// own any more. The slot stays.
    pub(crate) fn end_flow(&mut self, index: u32, now: Instant) {
        let Some(conn) = self.slots.slot_mut(index) else { return };
        let Some(tcp) = conn.tcp.take() else { return };
        let (flow, sent, is_waiting) = (conn.flow, conn.sent, tcp.state() == State::TimeWait);
        self.flows.remove(&flow);
        if is_waiting && self.time_wait.insert(flow, sent, now) {
            self.counters.time_wait_evicted += 1;
        }
        (conn.due, conn.alarm) = (None, None);
        self.sockets.give(tcp);
        self.timers.clear(index);
    }

    /// The connection is over: the slot's next owner may come.
    pub(crate) fn free(&mut self, index: u32, now: Instant) {
        self.end_flow(index, now);
        self.timers.clear(index);
        if let Some(conn) = self.slots.release(index)
            && let Stage::HalfOpen(_) = conn.stage
        {
            self.backlog.leave(conn.flow.remote, conn.kind);
        }
    }
}

/// What smoltcp knows besides its sockets: the device, and the state of its generator. Made anew for each connection.
fn interface<D: Device>(out: &mut Outbox<D>, counters: &mut Counters, seed: u64, now: Instant) -> Interface {
    let mut config = TcpConfig::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut sent = Sent::default();
    let mut gate = Gate { out, counters, packet: None, to: None, sent: &mut sent };
    let mut iface = Interface::new(config, &mut gate, tcp_instant(now));
    // `parse` lets only packets for our addresses through; smoltcp need not know them.
    iface.set_any_ip(true);
    iface
}

/// smoltcp counts microseconds.
pub(crate) fn tcp_instant(now: Instant) -> TcpInstant {
    TcpInstant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// And back, never earlier than smoltcp means.
pub(crate) fn shard_instant(at: TcpInstant) -> Instant {
    Instant(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
}
