//! What raw ports are opened with, as `node.toml` and the load generator's command line say it.

use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use shard::ListenerId;

/// Source ports of upstream connections where the kernel has the port's addresses as well: above those it
/// gives to its own connections.
pub const SHARED_SOURCE_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// A raw port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSpec {
    /// What `via: "NAME"` and `port = "NAME"` mean.
    pub name: String,
    /// What is opened.
    pub device: DeviceSpec,
    /// Its addresses, each with its network's prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Networks behind gateways.
    pub routes: Vec<net::Route>,
    /// The kernel has the addresses too: only these source ports, and the ports listened on, are ours.
    pub shared: Option<RangeInclusive<u16>>,
    /// Where connections are accepted.
    pub listeners: Vec<net::Listener>,
}

/// The device under a raw port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceSpec {
    /// An interface, by AF_XDP.
    Xdp {
        /// Its name.
        interface: String,
        /// How the kernel hands frames over.
        mode: XdpMode,
    },
    /// A PCI address, or any device string of DPDK's.
    Dpdk {
        /// That string.
        device: String,
        /// Take frames for other ethernet addresses too: for virtual ports whose address is not the one their
        /// peers know.
        promiscuous: bool,
        /// The largest IP packet, bytes; `None`: as the device has it.
        mtu: Option<u16>,
    },
}

/// How the kernel hands frames to AF_XDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// In the driver, without copying, if it can; else generic.
    #[default]
    Auto,
    /// Generic: any interface.
    Skb,
    /// In the driver, copied.
    Drv,
    /// In the driver, not copied.
    ZeroCopy,
}

/// Where DPDK's buffers live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DpdkMemory {
    /// Hugepages if enough of them are free, else ordinary pages.
    #[default]
    Auto,
    /// Hugepages; what hardware ports need.
    Huge,
    /// Ordinary pages, at most so many MiB.
    Ordinary(u32),
}

/// Why a port could not be opened: one line that says what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortError {
    /// Which port.
    pub port: String,
    /// Why, and what helps.
    pub why: String,
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}: {}", self.port, self.why)
    }
}

impl core::error::Error for PortError {}

/// `10.7.0.2/24`: an address and its network's prefix length.
///
/// # Errors
/// What was expected.
pub fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let bad = || format!("`{text}` is no address with a prefix length; expected, for example, 10.7.0.2/24");
    let (address, prefix_len) = text.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    match prefix_len.parse() {
        Ok(len) if len <= max => Ok((address, len)),
        _ => Err(format!("`{text}`: a prefix length is between 0 and {max}")),
    }
}

impl PortSpec {
    /// True if one of its addresses is this.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// Connections to this address and port are told as this listener's.
    pub fn listen(&mut self, id: ListenerId, address: IpAddr, port: u16) {
        self.listeners.push(net::Listener { id, address, port });
    }
}
