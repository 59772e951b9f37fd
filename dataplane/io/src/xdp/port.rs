//! Opening a port: sockets on every receive queue, the program, the link.

use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::xdp::SocketAddrXdpFlags;
use shard::{Checksums, DeviceInfo, Spread, Steering};

use super::bpf::{self, SocketMap};
use super::error::OpenError;
use super::filter::{Rules, XDP_PASS};
use super::interface::Interface;
use super::memory::Mapping;
use super::neighbours::{Neighbours, join_groups};
use super::queue::{Parts, Queue};
use super::socket::{Socket, Umem};
use super::umem::{CHUNKS_MIN, Shares};
use crate::{Poll, Waker};

/// Bytes before a received frame that the kernel keeps for programs.
const HEADROOM: usize = 256;
/// Chunks of the usual MTU, and the largest the kernel takes: a page.
const CHUNK_LENS: [usize; 2] = [2048, 4096];
/// An ethernet header with a VLAN tag.
const HEADER_MAX: usize = 18;
/// How long a NIC may take to find its link again; after that it is taken to have none.
const LINK_WAIT: Duration = Duration::from_secs(4);
const LINK_PAUSE: Duration = Duration::from_millis(20);

/// How the kernel hands frames over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The first that works of: in the driver (without copying if it can), generic.
    #[default]
    Auto,
    /// Generic: any interface, after the kernel has made its own buffer.
    Skb,
    /// In the driver, copied.
    Drv,
    /// In the driver, and the NIC reads and writes the umem itself.
    ZeroCopy,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Skb => "skb",
            Self::Drv => "drv",
            Self::ZeroCopy => "zerocopy",
        })
    }
}

/// What a port is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// The interface's name, in the calling thread's network namespace.
    pub interface: String,
    /// How the kernel hands frames over.
    pub mode: Mode,
    /// Shards to serve it. There may be fewer queues than that: never more than the interface has, and one
    /// where nobody tells how it spreads flows.
    pub shards: u16,
    /// The port's addresses.
    pub addresses: Vec<IpAddr>,
    /// TCP ports that are ours where the kernel has the addresses too: those listened on, and those upstream
    /// connections leave from. Empty: the addresses are ours alone.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Chunks of each shard's umem, a power of two. It has more if the shard serves more than three receive
    /// queues: 4096 for each and 4096 for sending, up to 65,536. The kernel pins the umem, 2 KiB a chunk up to
    /// an MTU of 1774, above that 4 KiB.
    pub chunks: u32,
    /// How a queue waits.
    pub poll: Poll,
}

impl PortConfig {
    /// An interface with addresses of its own, one shard, 16,384 chunks.
    pub fn new(interface: &str, addresses: &[IpAddr]) -> Self {
        Self {
            interface: interface.to_owned(),
            mode: Mode::Auto,
            shards: 1,
            addresses: addresses.to_vec(),
            ports: Vec::new(),
            chunks: 16_384,
            poll: Poll::Adaptive,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let config = |what: &str| Err(OpenError::Config { what: what.to_owned() });
        if self.shards == 0 {
            return config("a port needs at least one shard");
        }
        if self.addresses.is_empty() {
            return config("a port needs at least one address: address = \"10.7.0.2/24\"");
        }
        if self.ports.iter().any(RangeInclusive::is_empty) {
            return config("a range of ports is empty: first-last, as in \"61000-65535\"");
        }
        if !self.chunks.is_power_of_two() || self.chunks < CHUNKS_MIN {
            return config("chunks must be a power of two, 8192 or more");
        }
        if self.ports.is_empty()
            && let Some(address) = Interface::kernel_has(&self.addresses)
        {
            return Err(OpenError::KernelsAddress { name: self.interface.clone(), address });
        }
        Ok(())
    }
}

/// The program at the interface, gone when this is: shared by all queues.
#[derive(Debug)]
pub(super) struct Attachment {
    _link: OwnedFd,
    _map: SocketMap,
    /// Holds the multicast groups of our addresses.
    _groups: Option<OwnedFd>,
}

/// An open port, its queues not yet taken by their shards.
#[derive(Debug)]
pub struct Port {
    queues: Vec<BoundQueue>,
    description: String,
}

/// A queue on its way to its shard's thread. Frames wait in its rings.
#[derive(Debug)]
pub struct BoundQueue {
    parts: Parts,
}

impl BoundQueue {
    /// The device, for the calling thread.
    pub fn start(self) -> Queue {
        Queue::new(self.parts)
    }

    /// What the device will be.
    pub fn info(&self) -> &DeviceInfo {
        &self.parts.info
    }

    /// Ends the device's waits, from any thread.
    pub fn waker(&self) -> Waker {
        self.parts.waker.clone()
    }
}

impl Port {
    /// Opens sockets on all receive queues of an interface and attaches the program.
    ///
    /// A queue without a socket would fall silent for us, so each shard's [`Queue`] has one or more of them.
    /// Where the driver tells how it spreads flows (`ethtool -x`), up to `shards` queues are made and each
    /// knows what comes to it; where it does not, as veth, one queue has all receive queues. A program cannot
    /// mend that: it may hand a frame only to the socket of the receive queue the frame came by.
    pub fn open(config: &PortConfig) -> Result<Self, OpenError> {
        config.check()?;
        let interface = find(&config.interface)?;
        let name = interface.name().to_owned();
        let ask = |error| OpenError::of("asking for the interface's properties", error);
        let mac = interface.mac().map_err(ask)?.ok_or(OpenError::NotEthernet { name })?;
        let mtu = interface.mtu().map_err(ask)?;
        let rx_queues = interface.rx_queues();
        let rules = Rules::new(&config.addresses, (!config.ports.is_empty()).then_some(&config.ports[..]));

        let had_link = interface.is_running().map_err(ask)?;
        let map = SocketMap::new(rx_queues).map_err(|e| OpenError::of("making a BPF map", e))?;
        let (link, in_driver) = attach(config, &interface, &rules, &map)?;
        let spread = if config.shards > 1 && rx_queues > 1 { interface.spread() } else { None };
        let shards = match &spread {
            Some(_) => rx_queues.min(config.shards.into()),
            None => 1,
        };
        let groups = if rules.v6.is_empty() || rules.ports.is_some() {
            None
        } else {
            let joined = join_groups(interface.index(), &rules.v6);
            Some(joined.map_err(|e| OpenError::of("joining multicast groups", e))?)
        };

        let layout = Layout::of(config, mtu, in_driver);
        let mut sets = Vec::new();
        for shard in 0..shards {
            let queues: Vec<u32> = (shard..rx_queues).step_by(shards as usize).collect();
            sets.push(layout.sockets(&interface, &map, &queues)?);
        }
        if had_link {
            await_link(&interface);
        }
        let zero_copy = sets.iter().flat_map(|(_, sockets)| sockets).all(Socket::is_zero_copy);
        let description = describe(config, &interface, rx_queues, in_driver, zero_copy, shards);
        let attachment = Arc::new(Attachment { _link: link, _map: map, _groups: groups });
        let mut queues = Vec::new();
        for ((memory, sockets), shard) in sets.into_iter().zip(0..) {
            let info = DeviceInfo {
                mac,
                mtu: layout.mtu,
                checksums: Checksums::default(),
                steering: steering(spread.as_ref(), shard, shards),
            };
            let neighbours = if shard == 0 && rules.ports.is_some() {
                let listening =
                    Neighbours::listen(interface.index(), !rules.v4.is_empty(), !rules.v6.is_empty());
                Some(listening.map_err(|e| OpenError::of("listening to neighbours' answers", e))?)
            } else {
                None
            };
            queues.push(BoundQueue {
                parts: Parts {
                    info,
                    memory,
                    chunk_len: layout.chunk_len,
                    sockets,
                    neighbours,
                    interface: find(&config.interface)?,
                    waker: Waker::new().map_err(|e| OpenError::of("making a waker", e))?,
                    poll: config.poll,
                    attachment: Arc::clone(&attachment),
                },
            });
        }
        Ok(Self { queues, description })
    }

    /// One line for the log: interface, mode, queues, and who gets what.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The queues, one for each shard; queue 0 first.
    pub fn into_queues(self) -> Vec<BoundQueue> {
        self.queues
    }
}

/// Waits for a link that the program or a socket has taken down: many NICs start again to make room for them. A node
/// that calls itself ready should be.
#[expect(clippy::disallowed_methods, reason = "while a port opens, before there is a shard")]
fn await_link(interface: &Interface) {
    let mut left = LINK_WAIT;
    while left > LINK_PAUSE && interface.is_running().is_ok_and(|is_running| !is_running) {
        std::thread::sleep(LINK_PAUSE);
        left -= LINK_PAUSE;
    }
}

fn find(name: &str) -> Result<Interface, OpenError> {
    Interface::named(name).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => OpenError::NoInterface { name: name.to_owned(), known: Interface::names() },
        _ => OpenError::of("looking for the interface", error),
    })
}

/// Attaches the program in the mode asked for; with `Auto` in the driver if it can. True if so.
fn attach(
    config: &PortConfig,
    interface: &Interface,
    rules: &Rules,
    map: &SocketMap,
) -> Result<(OwnedFd, bool), OpenError> {
    let insns = rules.assemble(map.descriptor(), XDP_PASS).ok_or_else(|| OpenError::Config {
        what: format!("{} addresses are too many for one port", config.addresses.len()),
    })?;
    let program = bpf::load(&insns).map_err(|e| OpenError::of("loading an XDP program", e))?;
    let attempt = |in_driver| {
        bpf::attach(&program, interface.index(), in_driver).map(|link| (link, in_driver)).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => {
                    OpenError::ProgramTaken { name: interface.name().to_owned() }
                }
                Some(libc::EPERM | libc::EACCES) => OpenError::of("attaching an XDP program", error),
                _ => mode_refused(config, interface, error),
            }
        })
    };
    match config.mode {
        Mode::Skb => attempt(false),
        Mode::Drv | Mode::ZeroCopy => attempt(true),
        Mode::Auto => match attempt(true) {
            Err(OpenError::ModeRefused { .. }) => attempt(false),
            other => other,
        },
    }
}

fn mode_refused(config: &PortConfig, interface: &Interface, error: std::io::Error) -> OpenError {
    OpenError::ModeRefused {
        name: interface.name().to_owned(),
        driver: interface.driver().unwrap_or_else(|| "unknown".to_owned()),
        mode: config.mode,
        error,
    }
}

/// How the umem of each queue is laid out, and how its sockets are bound.
struct Layout<'a> {
    config: &'a PortConfig,
    chunk_len: usize,
    mtu: usize,
    mode: SocketAddrXdpFlags,
}

impl<'a> Layout<'a> {
    /// A chunk holds a frame of the interface's MTU; above a page the port's MTU is what a page holds, which
    /// TCP's peers are told.
    fn of(config: &'a PortConfig, mtu: usize, in_driver: bool) -> Self {
        let fits = |chunk: &usize| mtu + HEADER_MAX + HEADROOM <= *chunk;
        let chunk_len = CHUNK_LENS.into_iter().find(fits).unwrap_or(CHUNK_LENS[1]);
        let mode = match (config.mode, in_driver) {
            (Mode::ZeroCopy, _) => SocketAddrXdpFlags::XDP_ZEROCOPY,
            // The kernel takes zero copy if the driver has it.
            (Mode::Auto, true) => SocketAddrXdpFlags::empty(),
            _ => SocketAddrXdpFlags::XDP_COPY,
        };
        Self { config, chunk_len, mtu: mtu.min(chunk_len - HEADROOM - HEADER_MAX), mode }
    }

    /// One umem, and sockets on these receive queues that share it.
    fn sockets(
        &self,
        interface: &Interface,
        map: &SocketMap,
        queues: &[u32],
    ) -> Result<(Mapping, Vec<Socket>), OpenError> {
        let shares = Shares::new(self.config.chunks, u32::try_from(queues.len()).unwrap_or(u32::MAX));
        let bytes = shares.chunks as usize * self.chunk_len;
        let memory = Mapping::anonymous(bytes).map_err(|e| OpenError::of("mapping a umem", e))?;
        let chunk_size = u32::try_from(self.chunk_len).unwrap_or(u32::MAX);
        let mut sockets: Vec<Socket> = Vec::new();
        for &queue in queues {
            let umem = match sockets.first() {
                Some(first) => Umem::Of(first),
                None => Umem::Own(&memory, chunk_size),
            };
            let socket =
                Socket::open(&umem, shares.rx_chunks).map_err(|error| match error.raw_os_error() {
                    Some(libc::ENOBUFS) => OpenError::Memlock { bytes },
                    _ => OpenError::of("opening an AF_XDP socket", error),
                })?;
            socket.bind(&umem, interface.index(), queue, self.mode).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EBUSY) => OpenError::QueueTaken { name: interface.name().to_owned(), queue },
                    Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPROTONOSUPPORT) => {
                        mode_refused(self.config, interface, error)
                    }
                    _ => OpenError::of("binding an AF_XDP socket", error),
                }
            })?;
            map.set_socket(queue, &socket)
                .map_err(|e| OpenError::of("entering a socket in the BPF map", e))?;
            sockets.push(socket);
        }
        Ok((memory, sockets))
    }
}

/// What comes to the queue of this shard: receive queue `q` belongs to shard `q % shards`.
fn steering(spread: Option<&Spread>, shard: u16, shards: u32) -> Steering {
    match spread {
        Some(spread) if shards > 1 => {
            let shard_of = |queue: &u16| u16::try_from(u32::from(*queue) % shards).unwrap_or(0);
            let table = spread.table.iter().map(shard_of).collect();
            Steering::Hash { queue: shard, spread: Spread { key: spread.key.clone(), table } }
        }
        _ => Steering::Single,
    }
}

fn describe(
    config: &PortConfig,
    interface: &Interface,
    rx_queues: u32,
    in_driver: bool,
    zero_copy: bool,
    shards: u32,
) -> String {
    let driver = interface.driver().unwrap_or_else(|| "unknown".to_owned());
    let mode = match (in_driver, zero_copy) {
        (false, _) => "skb mode",
        (true, false) => "drv mode, copying",
        (true, true) => "drv mode, zero copy",
    };
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    let mut line = format!(
        "xdp on {} ({driver}): {mode}, {rx_queues} receive queue{}, {shards} shard{}",
        interface.name(),
        plural(rx_queues),
        plural(shards),
    );
    if shards < config.shards.into() {
        line.push_str(match (rx_queues, shards) {
            (1, _) => " (one receive queue serves one shard)",
            (_, 1) => " (the driver does not tell how it spreads flows over queues)",
            _ => " (as many as receive queues)",
        });
    }
    if driver == "veth" {
        // It hands on checksums that are still to be computed, and nothing says which.
        line.push_str(", whose peer needs `ethtool -K PEER tx off`");
    }
    let addresses: Vec<String> = config.addresses.iter().map(IpAddr::to_string).collect();
    line.push_str(&format!(", {}", addresses.join(" ")));
    if !config.ports.is_empty() {
        let ranges: Vec<String> =
            config.ports.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
        line.push_str(&format!(", TCP ports {} shared with the kernel", ranges.join(" ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_queues_beyond_the_shards_are_dealt_round() {
        let spread = Spread { key: vec![1; 40], table: vec![0, 1, 2, 3] };
        let Steering::Hash { queue, spread } = steering(Some(&spread), 1, 3) else {
            panic!("a known spread was not used")
        };
        assert_eq!((queue, spread.table), (1, vec![0, 1, 2, 0]));
        assert_eq!(steering(None, 0, 1), Steering::Single);
    }

    #[test]
    fn chunks_hold_the_mtu_or_the_mtu_shrinks() {
        let config = PortConfig::new("eth0", &[]);
        let of = |mtu| {
            let layout = Layout::of(&config, mtu, false);
            (layout.chunk_len, layout.mtu)
        };
        assert_eq!(of(1500), (2048, 1500));
        assert_eq!(of(1774), (2048, 1774));
        assert_eq!(of(1775), (4096, 1775));
        assert_eq!(of(9000), (4096, 3822));
    }
}
