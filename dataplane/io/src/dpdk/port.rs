//! A port as the node sees it: opened once, its queue pairs given to shards.

use core::fmt::Write as _;
use std::io;
use std::sync::Arc;

use dpdk_sys::{Eal, Error, Lcore, Link, Memory, Options, PortInfo, PortOptions, Stats, is_pci};
use shard::{Checksums, DeviceInfo, Spread, Steering};

use super::{Counters, Queue};
use crate::{Poll, Waker};

/// How a port is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Queue pairs wanted: one for each shard that is to use the port.
    pub queues: u16,
    /// How a queue waits.
    pub poll: Poll,
    /// Buffers each queue pair may have out beyond those its rings hold.
    pub buffers: u32,
    /// The largest IP packet; `None`: the port's own.
    pub mtu: Option<u16>,
    /// Its ethernet address; `None`: the port's own.
    pub mac: Option<[u8; 6]>,
    /// Take frames for other ethernet addresses too.
    pub promiscuous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { queues: 1, poll: Poll::Adaptive, buffers: 4096, mtu: None, mac: None, promiscuous: false }
    }
}

/// An open port.
#[derive(Debug)]
pub struct Port {
    eal: Eal,
    port: dpdk_sys::Port,
    poll: Poll,
    wakers: Vec<Waker>,
    counters: Vec<Arc<Counters>>,
}

/// Drivers whose frames go through the kernel: a burst is a system call.
const OVER_KERNEL: [&str; 4] = ["net_af_packet", "net_af_xdp", "net_pcap", "net_tap"];

/// One queue pair on its way to the thread that will use it.
#[derive(Debug)]
pub struct Seat {
    eal: Eal,
    pub(super) queue: dpdk_sys::Queue,
    pub(super) info: DeviceInfo,
    pub(super) poll: Poll,
    pub(super) waker: Waker,
    pub(super) counters: Arc<Counters>,
    is_over_kernel: bool,
}

/// Starts DPDK for all ports the node will open: only the PCI devices among `devices` are touched. Without this
/// the first [`Port::open`] starts it for its own device, and no PCI device can be added later.
pub fn start(devices: &[&str], memory: Memory) -> Result<(), Error> {
    let address = |device: &&str| device.split(',').next().is_some_and(is_pci);
    let pci = devices.iter().copied().filter(address).map(str::to_owned).collect();
    Eal::start(&Options { memory, pci }).map(drop)
}

impl Port {
    /// Opens, configures and starts a port.
    pub fn open(device: &str, config: &Config) -> Result<Self, Error> {
        start(&[device], Memory::Auto)?;
        let eal = Eal::start(&Options::default())?;
        let options = PortOptions {
            queues: config.queues.max(1),
            buffers: config.buffers,
            mtu: config.mtu,
            mac: config.mac,
            promiscuous: config.promiscuous,
            ..PortOptions::default()
        };
        let port = dpdk_sys::Port::open(eal, device, &options)?;
        let wakers = (0..port.info().queues).map(|_| Waker::new()).collect::<Result<_, _>>();
        let wakers = wakers.map_err(|error| refused(device, &error))?;
        let counters = (0..port.info().queues).map(|_| Arc::default()).collect();
        Ok(Self { eal, port, poll: config.poll, wakers, counters })
    }

    /// A queue pair; each can be taken once. `None` above the port's [`Self::queues`].
    pub fn seat(&mut self, queue: u16) -> Option<Seat> {
        let info = device_info(self.port.info(), queue);
        let counters = Arc::clone(self.counters.get(usize::from(queue))?);
        let waker = self.wakers.get(usize::from(queue))?.clone();
        let is_over_kernel = OVER_KERNEL.contains(&self.port.info().driver.as_str());
        let (eal, queue, poll) = (self.eal, self.port.queue(queue)?, self.poll);
        Some(Seat { eal, queue, info, poll, waker, counters, is_over_kernel })
    }

    /// Queue pairs it has: how many shards can use it.
    pub fn queues(&self) -> u16 {
        self.port.info().queues
    }

    /// What it is and can do.
    pub fn info(&self) -> &PortInfo {
        self.port.info()
    }

    /// Each queue's counters, readable from any thread.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// The driver's own totals.
    pub fn stats(&self) -> Stats {
        self.port.stats()
    }

    /// The driver's own counters, by name.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        self.port.xstats()
    }

    /// The link's state.
    pub fn link(&self) -> Link {
        self.port.link()
    }

    /// Takes the link up or down; false if the driver cannot.
    pub fn set_link(&self, up: bool) -> bool {
        self.port.set_link(up)
    }

    /// One line for the log: what the port is, how many shards it serves and why, what it takes over.
    pub fn line(&self) -> String {
        let info = self.port.info();
        let mut line = format!("port {} ({}), mac ", info.device, info.driver);
        for (at, byte) in info.mac.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}{byte:02x}", if at == 0 { "" } else { ":" });
        }
        let queues = match (info.queues, &info.rss) {
            (1, None) => "1 queue: it does not steer flows, one shard serves it".to_owned(),
            (count, _) => format!("{count} queues by hash of the flow, symmetric key"),
        };
        let checksums = match (info.offloads.rx_checksum, info.offloads.tx_checksum) {
            (true, true) => "by the port",
            (true, false) => "received ones by the port",
            (false, true) => "sent ones by the port",
            (false, false) => "in software",
        };
        let _ = write!(line, ", mtu {}, {queues}; checksums {checksums}", info.mtu);
        if !self.link().up {
            line += "; the link is down";
        }
        line
    }
}

impl Seat {
    /// The queue pair, on the thread that will use it: registers the thread as an lcore.
    pub fn open(self) -> Result<Queue, Error> {
        let lcore = Lcore::enter(self.eal)?;
        Ok(Queue::new(self, lcore))
    }

    /// Ends the queue's waits, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// True if its frames go through the kernel, and a burst is a system call.
    pub fn is_over_kernel(&self) -> bool {
        self.is_over_kernel
    }

    /// What the queue pair will be.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }
}

fn device_info(port: &PortInfo, queue: u16) -> DeviceInfo {
    let steering = match &port.rss {
        Some(rss) => {
            Steering::Hash { queue, spread: Spread { key: rss.key.clone(), table: rss.table.clone() } }
        }
        None => Steering::Single,
    };
    DeviceInfo {
        mac: port.mac,
        mtu: usize::from(port.mtu),
        checksums: Checksums { rx: port.offloads.rx_checksum, tx: port.offloads.tx_checksum },
        steering,
    }
}

fn refused(device: &str, error: &io::Error) -> Error {
    Error {
        device: device.to_owned(),
        doing: "make its waker",
        errno: error.raw_os_error().unwrap_or(0),
        hint: "raise the limit of open files (ulimit -n)".to_owned(),
        said: Vec::new(),
    }
}
