//! One ethernet port, opened from a device string or a PCI address, configured and started.

use core::ffi::{CStr, c_char};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use super::eal::no_such_device;
use super::{Eal, Error, Lcore, Pool, Queue, Rss, Shape, drivers, log, raw, rss};

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
    /// Its ethernet address.
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
    eal: Eal,
}

/// DPDK's control functions are for one thread at a time.
#[expect(clippy::disallowed_types, reason = "taken when a port opens or closes, never on the datapath")]
pub(crate) static CONTROL: Mutex<()> = Mutex::new(());

const RX_CHECKSUM: u64 = raw::K_RTE_ETH_RX_OFFLOAD_IPV4_CKSUM
    | raw::K_RTE_ETH_RX_OFFLOAD_TCP_CKSUM
    | raw::K_RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
const TX_CHECKSUM: u64 = raw::K_RTE_ETH_TX_OFFLOAD_IPV4_CKSUM
    | raw::K_RTE_ETH_TX_OFFLOAD_TCP_CKSUM
    | raw::K_RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
/// An ethernet header with one tag, and the frame's own check sequence if a port leaves it there.
const ETHER_OVERHEAD: u16 = 14 + 4 + 4;
/// A port that does not say otherwise gets buffers of this many bytes.
const BUFFER_MIN: u16 = 2048;

impl Port {
    /// Makes (or takes) the device, configures and starts it.
    pub fn open(eal: Eal, device: &str, options: &PortOptions) -> Result<Self, Error> {
        let _control = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        log::begin();
        let id = attach(device)?;
        configure(eal, id, device, options).inspect_err(|_| detach(id))
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

    /// True for a port that has to be started again after its peer has gone: nobody else looks for the peer.
    pub(crate) fn needs_revival(&self) -> bool {
        self.info.queues == 1 && is_memif_client(&self.info.device)
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

fn info(id: u16) -> Result<raw::rte_eth_dev_info, i32> {
    let mut info = raw::rte_eth_dev_info::default();
    // SAFETY: fills in the struct; refuses a port that does not exist.
    let result = unsafe { raw::rte_eth_dev_info_get(id, &raw mut info) };
    if result < 0 { Err(result) } else { Ok(info) }
}

/// One port while it is being set up: what every step needs to name in its error.
struct Setup<'a> {
    id: u16,
    device: &'a str,
    info: raw::rte_eth_dev_info,
}

impl Setup<'_> {
    fn check(&self, doing: &'static str, result: i32) -> Result<(), Error> {
        if result < 0 { Err(Error::from_result(self.device, doing, result)) } else { Ok(()) }
    }

    fn offloads(&self) -> Offloads {
        let (rx, tx) = (self.info.rx_offload_capa, self.info.tx_offload_capa);
        Offloads {
            rx_checksum: rx & RX_CHECKSUM == RX_CHECKSUM,
            tx_checksum: tx & TX_CHECKSUM == TX_CHECKSUM,
            tx_segmentation: tx & TX_CHECKSUM == TX_CHECKSUM && tx & raw::K_RTE_ETH_TX_OFFLOAD_TCP_TSO != 0,
        }
    }

    fn mtu(&self, options: &PortOptions) -> Result<u16, Error> {
        let mut mtu = 0;
        // SAFETY: fills in the number.
        let result = unsafe { raw::rte_eth_dev_get_mtu(self.id, &raw mut mtu) };
        self.check("read the MTU", result)?;
        let (least, most) = (self.info.min_mtu, self.info.max_mtu);
        match options.mtu {
            Some(asked) if asked < least || (most != 0 && asked > most) => {
                Err(Error::new(self.device, "set the MTU", libc::EINVAL, format!("from {least} to {most}")))
            }
            Some(asked) => Ok(asked),
            None => Ok(mtu),
        }
    }

    fn configure(
        &self,
        queues: u16,
        mtu: u16,
        offloads: Offloads,
        rss: Option<&mut [u8]>,
    ) -> Result<(), Error> {
        let mut conf = raw::rte_eth_conf::default();
        conf.rxmode.mtu = u32::from(mtu);
        if offloads.rx_checksum {
            conf.rxmode.offloads |= RX_CHECKSUM;
        }
        if offloads.tx_checksum {
            conf.txmode.offloads |= TX_CHECKSUM;
        }
        if offloads.tx_segmentation {
            conf.txmode.offloads |= raw::K_RTE_ETH_TX_OFFLOAD_TCP_TSO;
        }
        if let Some(key) = rss {
            conf.rxmode.mq_mode = raw::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf = rss::wanted(&self.info, key);
        }
        // SAFETY: the port exists and is stopped; the configuration, and the key it points to, live during the
        // call, which copies both.
        let result = unsafe { raw::rte_eth_dev_configure(self.id, queues, queues, &raw const conf) };
        self.check("configure the port", result)
    }

    /// Descriptors as the port wants them: receive and transmit.
    fn descriptors(&self, wanted: u16) -> Result<(u16, u16), Error> {
        let (mut rx, mut tx) = (wanted, wanted);
        // SAFETY: the port is configured; both numbers are changed in place.
        let result = unsafe { raw::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx, &raw mut tx) };
        self.check("size the rings", result)?;
        Ok((rx, tx))
    }

    fn queue(&self, index: u16, (rx, tx): (u16, u16), socket: u32, pool: &Pool) -> Result<(), Error> {
        // SAFETY: the port is configured and stopped; the pool lives as long as the process; no configuration
        // means the port's default one.
        let result =
            unsafe { raw::rte_eth_rx_queue_setup(self.id, index, rx, socket, ptr::null(), pool.as_raw()) };
        self.check("set up a receive queue", result)?;
        // SAFETY: as above.
        let result = unsafe { raw::rte_eth_tx_queue_setup(self.id, index, tx, socket, ptr::null()) };
        self.check("set up a transmit queue", result)
    }

    fn mac(&self, wanted: Option<[u8; 6]>) -> Result<[u8; 6], Error> {
        let mut address = raw::rte_ether_addr { addr_bytes: wanted.unwrap_or_default() };
        if wanted.is_some() {
            // SAFETY: the port is configured; the address is copied.
            let result = unsafe { raw::rte_eth_dev_default_mac_addr_set(self.id, &raw mut address) };
            self.check("set the ethernet address", result)?;
        }
        // SAFETY: fills in the address.
        let result = unsafe { raw::rte_eth_macaddr_get(self.id, &raw mut address) };
        self.check("read the ethernet address", result)?;
        Ok(address.addr_bytes)
    }

    /// Starts the port; false if it has to wait for its peer.
    fn start(&self, promiscuous: bool) -> Result<bool, Error> {
        // SAFETY: configured, with all its queues set up.
        let result = unsafe { raw::rte_eth_dev_start(self.id) };
        if result < 0 && is_memif_client(self.device) {
            return Ok(false);
        }
        self.check("start the port", result)?;
        if promiscuous {
            // SAFETY: the port is started.
            let result = unsafe { raw::rte_eth_promiscuous_enable(self.id) };
            // A driver without the switch does not filter.
            if result != -libc::ENOTSUP {
                self.check("make the port promiscuous", result)?;
            }
        }
        // Neighbour discovery comes by multicast. A port that does not filter refuses.
        // SAFETY: the port is started.
        let _ = unsafe { raw::rte_eth_allmulticast_enable(self.id) };
        Ok(true)
    }
}

fn configure(eal: Eal, id: u16, device: &str, options: &PortOptions) -> Result<Port, Error> {
    let info = info(id).map_err(|result| Error::from_result(device, "read what the port can do", result))?;
    let setup = Setup { id, device, info };
    let offloads = setup.offloads();
    let mtu = setup.mtu(options)?;
    let steers = options.queues > 1 && rss::offered(&info);
    let queues = if steers { options.queues.min(info.max_rx_queues).min(info.max_tx_queues) } else { 1 };
    let mut key = rss::key(&info);
    setup.configure(queues, mtu, offloads, steers.then_some(&mut key[..]))?;
    let descriptors = setup.descriptors(options.descriptors)?;
    // SAFETY: the port exists; -1 stands for any socket.
    let socket = unsafe { raw::rte_eth_dev_socket_id(id) };
    let shape = Shape {
        count: u32::from(descriptors.0) + u32::from(descriptors.1) + options.buffers,
        frame_len_max: mtu.saturating_add(ETHER_OVERHEAD).max(BUFFER_MIN),
        socket: u16::try_from(socket).ok(),
    };
    let mut pools = Vec::new();
    for index in 0..queues {
        let pool = Pool::take(eal, shape)?;
        setup.queue(index, descriptors, socket.cast_unsigned(), &pool)?;
        pools.push(pool);
    }
    let mac = setup.mac(options.mac)?;
    let running = setup.start(options.promiscuous)?;
    let rss = if steers { Some(rss::apply(device, id, &info, queues)?) } else { None };
    let info = PortInfo {
        device: device.to_owned(),
        driver: text(info.driver_name),
        socket: shape.socket,
        mac,
        mtu,
        queues,
        offloads,
        rss,
    };
    let shared = Arc::new(Shared { id, info, running: AtomicBool::new(running), eal });
    let queues =
        pools.into_iter().zip(0..).map(|(pool, index)| Some(Queue::new(Arc::clone(&shared), index, pool)));
    Ok(Port { queues: queues.collect(), shared })
}

/// The socket of a memif or vhost server that died is in the way of the next one.
fn remove_stale_socket(device: &str) {
    let value = |key: &str| device.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let path = if device.starts_with("net_memif") && value("role") == Some("server") {
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

/// A memif's client looks for its server when it is started, and never again.
fn is_memif_client(device: &str) -> bool {
    // The driver's own default is the client.
    device.starts_with("net_memif") && !device.contains("role=server")
}

fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: a driver's name: static and terminated.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}
