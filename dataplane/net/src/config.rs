//! What a stack is opened with.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use shard::{DeviceInfo, ListenerId, Steering};

use crate::Secret;
use crate::routes::{is_unicast, prefix_holds};

/// The smallest MTU: IPv6's (RFC 8200 section 5).
const MTU_MIN: usize = 1280;
/// The largest: an IP packet's length field.
const MTU_MAX: usize = 65_535;

/// Addresses, routes and listeners of one port, and its ceilings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Our addresses, each with its network's prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Networks behind gateways; the longest prefix wins.
    pub routes: Vec<Route>,
    /// Where connections are accepted.
    pub listeners: Vec<Listener>,
    /// Source ports of connections we open.
    pub ports: RangeInclusive<u16>,
    /// Ceilings.
    pub limits: Limits,
    /// Makes source ports differ from those of another stack with the same secret.
    pub seed: u64,
    /// Hides sequence numbers and source ports from whoever is to guess them.
    pub secret: Secret,
}

/// A network and the gateway to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The network; `0.0.0.0` and `::` with prefix length 0 are the default routes.
    pub network: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// The gateway, on one of our own networks.
    pub via: IpAddr,
}

/// A listening port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// What its connections are told by.
    pub id: ListenerId,
    /// One of our addresses, or unspecified for all of its family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// Ceilings of one stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections, both directions together, half-open and lingering ones included; a SYN over it is
    /// answered by RST.
    pub conns_max: u32,
    /// Connections that wait for the handshake's last segment (the SYN backlog); a SYN over it takes the
    /// place of one that has waited for a while, else is dropped.
    pub half_open_max: u32,
    /// Of these, those of one source address (IPv6: of one /64).
    pub half_open_source_max: u32,
    /// How long a connection may stay half-open.
    pub half_open_timeout: Duration,
    /// What all connections' receive and send rings should stay below; the more connections there are, the
    /// smaller the rings of a new one.
    pub ring_budget_bytes: usize,
    /// The largest ring; a power of two.
    pub ring_bytes_max: usize,
    /// The smallest ring, given also beyond the budget; a power of two. At least two packets fit.
    pub ring_bytes_min: usize,
    /// Buffers that carry received bytes to the shard. Touched on demand.
    pub rx_buffers: u32,
    /// Bytes of each.
    pub rx_buffer_bytes: usize,
    /// A connect without an answer fails after this.
    pub connect_timeout: Duration,
    /// Between probes of an idle connection's peer.
    pub keepalive: Duration,
    /// A connection whose peer says nothing for so long, probes notwithstanding, is given up.
    pub peer_timeout: Duration,
    /// How long an acknowledgement may wait for data to travel with.
    pub ack_delay: Duration,
    /// Neighbours known at a time.
    pub neighbours_max: u32,
    /// Closed flows remembered, so that their stragglers are not taken for news; the oldest goes first.
    pub time_wait_max: u32,
    /// RSTs a second to segments of unknown flows.
    pub rsts_per_second: u32,
    /// ICMP echo answers a second.
    pub echoes_per_second: u32,
    /// ARP packets and neighbour discovery a second that are handed to other shards.
    pub neighbour_news_per_second: u32,
    /// ICMP errors a second that are handed to other shards.
    pub icmp_errors_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            conns_max: 65_536,
            half_open_max: 1024,
            half_open_source_max: 256,
            half_open_timeout: Duration::from_secs(5),
            ring_budget_bytes: 64 << 20,
            ring_bytes_max: 64 << 10,
            ring_bytes_min: 8 << 10,
            rx_buffers: 512,
            rx_buffer_bytes: 16 << 10,
            connect_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(20),
            peer_timeout: Duration::from_secs(60),
            ack_delay: Duration::from_millis(20),
            neighbours_max: 1024,
            time_wait_max: 16_384,
            rsts_per_second: 1000,
            echoes_per_second: 1000,
            neighbour_news_per_second: 1000,
            icmp_errors_per_second: 1000,
        }
    }
}

/// Why a stack does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// There is no address.
    NoAddress,
    /// More addresses than 65,535.
    TooManyAddresses,
    /// An address or gateway that no host can have.
    NotUnicast(IpAddr),
    /// A prefix length its family does not have.
    Prefix(IpAddr, u8),
    /// The same address twice.
    Doubled(IpAddr),
    /// A gateway on none of our networks.
    Gateway(IpAddr),
    /// A listener on an address that is not ours.
    ListenAddress(IpAddr),
    /// A listener on port 0, or on the address and port of another.
    ListenPort(u16),
    /// No source ports, or port 0 among them.
    SourcePorts,
    /// An MTU below 1280 or above 65,535.
    Mtu(usize),
    /// The port's ethernet address is a group's, or zero.
    Mac([u8; 6]),
    /// The port's table of queues is empty, not a power of two long, or never names this queue.
    Steering,
    /// A limit that is zero or contradicts another: its name.
    Limit(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => write!(f, "a raw port needs an address, such as 10.7.0.2/24"),
            Self::TooManyAddresses => write!(f, "more than 65535 addresses on one port"),
            Self::NotUnicast(ip) => write!(f, "{ip} is no host's address"),
            Self::Prefix(ip, len) => write!(f, "{ip}/{len}: no such prefix length"),
            Self::Doubled(ip) => write!(f, "{ip} is given twice"),
            Self::Gateway(ip) => write!(f, "gateway {ip} is on none of the port's networks"),
            Self::ListenAddress(ip) => write!(f, "cannot listen on {ip}: not an address of the port"),
            Self::ListenPort(port) => write!(f, "cannot listen on port {port}: zero, or given twice"),
            Self::SourcePorts => write!(f, "the range of source ports is empty or begins with 0"),
            Self::Mtu(mtu) => write!(f, "MTU {mtu}: expected {MTU_MIN} to {MTU_MAX}"),
            Self::Mac(mac) => write!(f, "{mac:02x?} is no port's ethernet address"),
            Self::Steering => write!(f, "the port's table of queues does not name this queue"),
            Self::Limit(name) => write!(f, "limit {name} is zero or contradicts another"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// An address on a network of this prefix length, nothing else. All it draws follows from the seed: who is on a wire
    /// with others gives it a secret.
    pub fn new(address: IpAddr, prefix_len: u8, seed: u64) -> Self {
        Self {
            addresses: alloc::vec![(address, prefix_len)],
            routes: Vec::new(),
            listeners: Vec::new(),
            ports: 32_768..=60_999,
            limits: Limits::default(),
            seed,
            secret: Secret::from_seed(seed),
        }
    }

    pub(crate) fn check(&self, info: &DeviceInfo) -> Result<(), ConfigError> {
        if self.addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        if self.addresses.len() > usize::from(u16::MAX) {
            return Err(ConfigError::TooManyAddresses);
        }
        for (at, (ip, prefix_len)) in self.addresses.iter().enumerate() {
            check_prefix(*ip, *prefix_len)?;
            if !is_unicast(*ip) {
                return Err(ConfigError::NotUnicast(*ip));
            }
            if self.addresses.iter().take(at).any(|(other, _)| other == ip) {
                return Err(ConfigError::Doubled(*ip));
            }
        }
        for route in &self.routes {
            check_prefix(route.network, route.prefix_len)?;
            if !is_unicast(route.via) {
                return Err(ConfigError::NotUnicast(route.via));
            }
            let is_near = self.addresses.iter().any(|(ip, len)| prefix_holds(*ip, *len, route.via));
            if !is_near || route.network.is_ipv4() != route.via.is_ipv4() {
                return Err(ConfigError::Gateway(route.via));
            }
        }
        self.check_listeners()?;
        if self.ports.is_empty() || *self.ports.start() == 0 {
            return Err(ConfigError::SourcePorts);
        }
        check_device(info)?;
        self.limits.check()
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        for (at, listener) in self.listeners.iter().enumerate() {
            let is_ours = self.addresses.iter().any(|(ip, _)| *ip == listener.address);
            if !is_ours && !listener.address.is_unspecified() {
                return Err(ConfigError::ListenAddress(listener.address));
            }
            let is_taken = self
                .listeners
                .iter()
                .take(at)
                .any(|other| (other.address, other.port) == (listener.address, listener.port));
            if listener.port == 0 || is_taken {
                return Err(ConfigError::ListenPort(listener.port));
            }
        }
        Ok(())
    }
}

fn check_prefix(ip: IpAddr, len: u8) -> Result<(), ConfigError> {
    let max = if ip.is_ipv4() { 32 } else { 128 };
    if len > max { Err(ConfigError::Prefix(ip, len)) } else { Ok(()) }
}

fn check_device(info: &DeviceInfo) -> Result<(), ConfigError> {
    if !(MTU_MIN..=MTU_MAX).contains(&info.mtu) {
        return Err(ConfigError::Mtu(info.mtu));
    }
    if info.mac[0] & 1 != 0 || info.mac == [0; 6] {
        return Err(ConfigError::Mac(info.mac));
    }
    match &info.steering {
        Steering::Single => Ok(()),
        Steering::Hash { queue, spread }
            if spread.table.len().is_power_of_two() && spread.table.contains(queue) =>
        {
            Ok(())
        }
        Steering::Hash { .. } => Err(ConfigError::Steering),
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let rings_fit = self.ring_bytes_min.is_power_of_two()
            && self.ring_bytes_max.is_power_of_two()
            && (1024..=self.ring_bytes_max).contains(&self.ring_bytes_min)
            && self.ring_bytes_max <= 1 << 24;
        let wrong = [
            (self.conns_max == 0, "conns_max"),
            (self.half_open_max == 0, "half_open_max"),
            (self.half_open_source_max == 0, "half_open_source_max"),
            (self.half_open_timeout.is_zero(), "half_open_timeout"),
            (!rings_fit, "ring_bytes_min"),
            (self.rx_buffers == 0, "rx_buffers"),
            (self.rx_buffer_bytes == 0, "rx_buffer_bytes"),
            (self.connect_timeout.is_zero(), "connect_timeout"),
            (self.keepalive.is_zero(), "keepalive"),
            // Else a connection would be given up before its peer is asked.
            (self.peer_timeout <= self.keepalive, "peer_timeout"),
            (self.neighbours_max == 0, "neighbours_max"),
            (self.time_wait_max == 0, "time_wait_max"),
        ];
        wrong.iter().find(|(is_wrong, _)| *is_wrong).map_or(Ok(()), |(_, name)| Err(ConfigError::Limit(name)))
    }
}
