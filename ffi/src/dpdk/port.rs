//! One ethernet port, opened from a device string or a PCI address, configured and started.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use super::eal::no_such_device;
use super::setup::{configure, info};
use super::{Eal, Error, Lcore, Link, Pool, Queue, Rss, drivers, log, memif, raw, stats};

/// How a port is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// Queue pairs wanted. A port that cannot steer flows to queues gets one.
    pub queues: u16,
    /// Buffers each queue pair may have out beyond those its rings hold.
    pub buffers: u32,
    /// Descriptors of a receive ring and of a transmit ring; the port may want others.
    pub descriptors: u16,
    /// The largest IP packet; `None`: the port's own.
    pub mtu: Option<u16>,
    /// Its ethernet address; `None`: the port's own.
    pub mac: Option<[u8; 6]>,
    /// Take frames for other addresses too.
    pub promiscuous: bool,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self { queues: 1, buffers: 4096, descriptors: 1024, mtu: None, mac: None, promiscuous: false }
    }
}

/// What an open port is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// The device string it was opened with.
    pub device: String,
    /// Its driver's name.
    pub driver: String,
    /// The memory socket it is nearest to, if it says so.
    pub socket: Option<u16>,
    /// Its ethernet address: the one it was given, its own, or one made up if it has none.
    pub mac: [u8; 6],
    /// The largest IP packet.
    pub mtu: u16,
    /// Queue pairs it has.
    pub queues: u16,
    /// What it does to frames by itself.
    pub offloads: Offloads,
    /// How it spreads flows over its queues; `None` with one queue.
    pub rss: Option<Rss>,
}

/// Work the port takes over; each is on if the driver has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// Looks at IPv4, TCP and UDP checksums of received frames.
    pub rx_checksum: bool,
    /// Fills in IPv4, TCP and UDP checksums where a frame asks for it.
    pub tx_checksum: bool,
    /// Cuts up long TCP frames.
    pub tx_segmentation: bool,
}

/// An open port. Its queues keep it open too.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    queues: Vec<Option<Queue>>,
}

/// The device itself: closed when the port and its queues are gone.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: u16,
    pub(crate) info: PortInfo,
    /// Started: only then may bursts reach the driver. Changed by whoever has the only queue, or before there is
    /// one.
    running: AtomicBool,
    /// Its driver follows the link by itself and only has to be read.
    reports_link: bool,
    /// What the driver said last of a link it does not report: up, and Mbit/s below.
    last_link: AtomicU64,
    eal: Eal,
}

/// How a port's device came out of its configuration.
pub(super) struct Started {
    pub(super) id: u16,
    /// False for one that has to wait for its peer.
    pub(super) running: bool,
    pub(super) reports_link: bool,
}

/// DPDK's control functions are for one thread at a time.
#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
pub(crate) static CONTROL: Mutex<()> = Mutex::new(());

impl Port {
    /// Makes (or takes) the device, configures and starts it.
    pub fn open(eal: Eal, device: &str, options: &PortOptions) -> Result<Self, Error> {
        let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        log::begin();
        let id = attach(&memif::sized(device, options.mtu))?;
        configure(eal, id, device, options).inspect_err(|_| detach(id))
    }

    /// A port that has been configured, with a pool for each queue.
    pub(super) fn new(eal: Eal, started: Started, info: PortInfo, pools: Vec<Pool>) -> Self {
        let Started { id, running, reports_link } = started;
        let running = AtomicBool::new(running);
        let shared = Shared { id, info, running, reports_link, last_link: AtomicU64::new(0), eal };
        let shared = Arc::new(shared);
        let queue = |(index, pool)| Some(Queue::new(Arc::clone(&shared), index, pool));
        Self { queues: (0..).zip(pools).map(queue).collect(), shared }
    }

    /// What it is.
    pub fn info(&self) -> &PortInfo {
        &self.shared.info
    }

    /// A queue pair; each can be taken once.
    pub fn queue(&mut self, index: u16) -> Option<Queue> {
        self.queues.get_mut(usize::from(index))?.take()
    }

    pub(crate) fn id(&self) -> u16 {
        self.shared.id
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// The link's state, without waiting. Some drivers ask the hardware over a slow bus, which two threads must not
    /// do at once: one that finds another at it takes what was last known.
    pub(crate) fn link(&self) -> Link {
        if self.reports_link {
            return stats::link(self.id);
        }
        if let Ok(_control) = CONTROL.try_lock() {
            let link = stats::link(self.id);
            self.last_link.store(u64::from(link.up) << 32 | u64::from(link.mbps), Ordering::Relaxed);
            return link;
        }
        let last = self.last_link.load(Ordering::Relaxed);
        Link { up: last >> 32 != 0, mbps: u32::try_from(last & u64::from(u32::MAX)).unwrap_or(u32::MAX) }
    }

    /// True for a port that has to be started again after its peer has gone: nobody else looks for the peer.
    pub(crate) fn needs_revival(&self) -> bool {
        self.info.queues == 1 && memif::is_client(&self.info.device)
    }

    /// Stops the port and starts it again, which looks for the peer. No effect while another port opens.
    ///
    /// # Safety
    /// The caller has the port's only queue, and no burst is under way.
    pub(crate) unsafe fn revive(&self) {
        let Ok(_control) = CONTROL.try_lock() else { return };
        if self.running.swap(false, Ordering::Relaxed) {
            // SAFETY: the port is started, and nobody receives or sends.
            let _ = unsafe { raw::rte_eth_dev_stop(self.id) };
        }
        // SAFETY: stopped, with its queues still set up.
        let result = unsafe { raw::rte_eth_dev_start(self.id) };
        self.running.store(result == 0, Ordering::Relaxed);
    }

    /// Frames still in rings would be lost with the device: they go back to their pools first.
    fn drain(&self) {
        const BURSTS_MAX: usize = 256;
        if !self.is_running() {
            return;
        }
        // Only a registered thread's caches are used, but any thread may receive.
        let _lcore = Lcore::enter(self.eal);
        let mut frames = Vec::with_capacity(Queue::BURST_MAX);
        for queue in 0..self.info.queues {
            for _ in 0..BURSTS_MAX {
                // SAFETY: no `Queue` of this port is left, so nobody else receives from it.
                let received =
                    unsafe { super::queue::receive(self.id, queue, &mut frames, Queue::BURST_MAX) };
                frames.clear();
                if received.frames + received.dropped == 0 {
                    break;
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain();
        detach(self.id);
    }
}

/// Stops, closes and removes; each may refuse (a device that is gone), and the next is tried all the same.
fn detach(id: u16) {
    let device = info(id).map(|info| info.device);
    // SAFETY: a port that exists. One that was never started refuses.
    let _ = unsafe { raw::rte_eth_dev_stop(id) };
    // SAFETY: stopped, and no queue of it is in use.
    let _ = unsafe { raw::rte_eth_dev_close(id) };
    if let Ok(device) = device
        && !device.is_null()
    {
        // SAFETY: the port's device, which lives until it is removed here.
        let _ = unsafe { raw::rte_dev_remove(device) };
    }
}

/// The port of a device string, made if need be.
fn attach(device: &str) -> Result<u16, Error> {
    let name = device.split(',').next().unwrap_or(device);
    let text = CString::new(device)
        .map_err(|_| Error::new(device, "open the device", libc::EINVAL, "it contains a NUL".into()))?;
    if memif::lends_pools(device) {
        let hint = "leave out zero-copy=yes: the peer could write to buffers that are being read here";
        return Err(Error::new(device, "open the device", libc::ENOTSUP, hint.to_owned()));
    }
    if let Some(id) = port_of(&text) {
        if !drivers::is_pci(name) {
            return Err(Error::new(
                device,
                "open the device",
                libc::EEXIST,
                format!("{name} is open already"),
            ));
        }
        // Named when the EAL started, which has probed it.
        return Ok(id);
    }
    remove_stale_socket(device);
    // SAFETY: the EAL runs; the string is read during the call only.
    let result = unsafe { raw::rte_dev_probe(text.as_ptr()) };
    if result < 0 {
        let mut error =
            Error::from_result(device, "open the device", result).with_hint(no_such_device(device));
        if error.errno == libc::EFAULT {
            // What the EAL says where no bus knows the name.
            error.errno = libc::ENODEV;
        }
        return Err(error);
    }
    port_of(&text).ok_or_else(|| {
        if let Ok(name) = CString::new(name) {
            // SAFETY: both strings are terminated; what was just made is nobody's.
            let _ = unsafe { raw::rte_eal_hotplug_remove(c"vdev".as_ptr(), name.as_ptr()) };
        }
        Error::new(device, "open the device", libc::ENODEV, "it is not a network device".to_owned())
    })
}

fn port_of(device: &CStr) -> Option<u16> {
    let mut iterator = raw::rte_dev_iterator::default();
    // SAFETY: both live during the call; what it allocates is released by `cleanup`.
    if unsafe { raw::rte_eth_iterator_init(&raw mut iterator, device.as_ptr()) } != 0 {
        return None;
    }
    // SAFETY: initialised above.
    let id = unsafe { raw::rte_eth_iterator_next(&raw mut iterator) };
    let none = u16::try_from(raw::RTE_MAX_ETHPORTS).unwrap_or(u16::MAX);
    if id == none {
        // The iterator has cleaned up after itself.
        return None;
    }
    // SAFETY: initialised above, and not at its end.
    unsafe { raw::rte_eth_iterator_cleanup(&raw mut iterator) };
    Some(id)
}

/// The socket of a memif or vhost server that died is in the way of the next one.
fn remove_stale_socket(device: &str) {
    let value = |key: &str| device.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let path = if memif::is(device) && value("role") == Some("server") {
        value("socket").filter(|_| value("socket-abstract") == Some("no"))
    } else if device.starts_with("net_vhost") && value("client").is_none_or(|client| client == "0") {
        value("iface")
    } else {
        None
    };
    // A socket somebody listens on accepts, or refuses because it is of another type.
    let is_stale = |path: &&str| {
        UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    if let Some(path) = path.filter(is_stale) {
        // If it cannot be removed the driver says so.
        let _ = std::fs::remove_file(path);
    }
}
