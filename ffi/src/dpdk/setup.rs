//! From a device that has just been made to a port that is configured and started.

use core::ffi::{CStr, c_char};
use core::ptr;
use core::time::Duration;

use super::port::Started;
use super::{Eal, Error, Offloads, Pool, Port, PortInfo, PortOptions, Shape, is_pci, memif, raw, rss, stats};

const RX_CHECKSUM: u64 = raw::K_RTE_ETH_RX_OFFLOAD_IPV4_CKSUM
    | raw::K_RTE_ETH_RX_OFFLOAD_TCP_CKSUM
    | raw::K_RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
const TX_CHECKSUM: u64 = raw::K_RTE_ETH_TX_OFFLOAD_IPV4_CKSUM
    | raw::K_RTE_ETH_TX_OFFLOAD_TCP_CKSUM
    | raw::K_RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
/// An ethernet header with one tag, and the frame's own check sequence if a port leaves it there.
pub(super) const ETHER_OVERHEAD: u16 = 14 + 4 + VLAN;
/// The tag.
const VLAN: u16 = 4;
/// A port that does not say otherwise gets buffers of this many bytes.
const BUFFER_MIN: u16 = 2048;
/// How long a NIC may take to find its link; after that it is taken to have none.
const LINK_WAIT: Duration = Duration::from_secs(4);
const LINK_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn info(id: u16) -> Result<raw::rte_eth_dev_info, i32> {
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
        // Many virtual devices limit the frame only: without a tag, as ethdev reads it.
        let frame_max = u16::try_from(self.info.max_rx_pktlen).unwrap_or(u16::MAX);
        let named = [self.info.max_mtu, frame_max.saturating_sub(ETHER_OVERHEAD - VLAN)];
        let (least, most) = (self.info.min_mtu, named.into_iter().filter(|most| *most > 0).min());
        let most = if memif::is(self.device) { memif::MTU_MAX } else { most.unwrap_or(u16::MAX) };
        match options.mtu {
            Some(asked) if asked < least || asked > most => {
                let range = format!("{asked} B, and this device takes from {least} to {most}");
                Err(Error::new(self.device, "set the MTU", libc::EINVAL, range))
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
        conf.intr_conf.set_lsc(u32::from(self.reports_link()));
        // Where a memif would refuse, it needs not know.
        let told = if memif::is(self.device) { mtu.min(memif::MTU_DEFAULT) } else { mtu };
        conf.rxmode.mtu = u32::from(told);
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

    /// True for a NIC whose driver can follow the link by interrupt. To ask instead takes some NICs a good part of a
    /// millisecond each time.
    fn reports_link(&self) -> bool {
        // SAFETY: null or the driver's static flags.
        let flags = unsafe { self.info.dev_flags.as_ref() }.copied().unwrap_or(0);
        is_pci(self.device) && u64::from(flags) & raw::K_RTE_ETH_DEV_INTR_LSC != 0
    }

    /// Waits for a NIC's link, which takes seconds to come up again after a start: a node that calls itself ready
    /// should be.
    #[expect(clippy::disallowed_methods, reason = "while a port opens, before there is a shard")]
    fn await_link(&self) {
        let mut left = LINK_WAIT;
        while is_pci(self.device) && !stats::link(self.id).up && left > LINK_PAUSE {
            std::thread::sleep(LINK_PAUSE);
            left -= LINK_PAUSE;
        }
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
        // Rings have none, and take whatever is sent to one.
        Ok(if address.addr_bytes == [0; 6] { self.made_mac() } else { address.addr_bytes })
    }

    /// An address of this process's own making (the second bit says so), for this port alone.
    fn made_mac(&self) -> [u8; 6] {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let [high, low] = self.id.to_be_bytes();
        [0x02, a, b, c, high, low]
    }

    /// Starts the port; false if it has to wait for its peer.
    fn start(&self, promiscuous: bool) -> Result<bool, Error> {
        // SAFETY: configured, with all its queues set up.
        let result = unsafe { raw::rte_eth_dev_start(self.id) };
        if result < 0 && memif::is_client(self.device) {
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

/// Configures and starts a port that has just been made.
pub(super) fn configure(eal: Eal, id: u16, device: &str, options: &PortOptions) -> Result<Port, Error> {
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
    let rss = steers.then(|| rss::apply(device, id, &info, queues));
    if let Some(Err(_)) = rss {
        // What it does with flows cannot be known: one queue.
        // SAFETY: started above, and no queue of it has been handed out.
        let _ = unsafe { raw::rte_eth_dev_stop(id) };
        return configure(eal, id, device, &PortOptions { queues: 1, ..options.clone() });
    }
    let rss = rss.and_then(Result::ok);
    setup.await_link();
    let started = Started { id, running, reports_link: setup.reports_link() };
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
    Ok(Port::new(eal, started, info, pools))
}

fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: a driver's name: static and terminated.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}
