//! Where jobs of chains run: the named keys, the devices that `[offload]` names, and what they cost here.
//!
//! Opened once, before raw ports (DPDK learns of all its PCI devices at one time) and before any shard; each
//! shard then takes its part.

use std::sync::Arc;

use offload::{Cpu, Keys, Placement, Queue, QueueCounters, QueueSnapshot, SealSnapshot};

use crate::config::Offload;
use crate::failure::{Failure, Outcome};

#[cfg(feature = "dpdk")]
use offload::Devices;
#[cfg(not(feature = "dpdk"))]
type Devices = ();

/// The node's part.
pub(crate) struct Jobs {
    keys: Arc<Keys>,
    placement: Arc<Placement>,
    counters: Vec<Arc<QueueCounters>>,
    #[cfg_attr(not(feature = "dpdk"), expect(dead_code, reason = "there are none"))]
    devices: Devices,
}

/// A shard's part.
pub(crate) struct JobSeat {
    keys: Arc<Keys>,
    counters: Arc<QueueCounters>,
    #[cfg(feature = "dpdk")]
    placement: Arc<Placement>,
    #[cfg(feature = "dpdk")]
    lanes: Option<offload::Lanes>,
}

impl Jobs {
    /// Reads the keys, opens the devices for so many shards, and times them.
    ///
    /// # Errors
    /// One line about the key file or the device that cannot be used.
    pub(crate) fn open(
        wanted: &Offload,
        memory: io::DpdkMemory,
        ports: &[io::PortSpec],
        shards: usize,
    ) -> Outcome<Self> {
        let keys = wanted.open_keys()?;
        let (devices, placement) = open_devices(wanted, memory, ports, shards)?;
        Ok(Self { keys, placement: Arc::new(placement), counters: Vec::new(), devices })
    }

    /// What jobs cost on the CPU and on the devices, measured now.
    ///
    /// # Errors
    /// One line about the device that cannot be used.
    pub(crate) fn measured(wanted: &Offload, memory: io::DpdkMemory) -> Outcome<Placement> {
        let (_devices, placement) = open_devices(wanted, memory, &[], 1)?;
        Ok(placement)
    }

    /// The next shard's part.
    pub(crate) fn seat(&mut self) -> JobSeat {
        #[cfg(feature = "dpdk")]
        let lanes = self.devices.take(self.counters.len());
        let counters = Arc::new(QueueCounters::default());
        self.counters.push(counters.clone());
        JobSeat {
            keys: self.keys.clone(),
            counters,
            #[cfg(feature = "dpdk")]
            placement: self.placement.clone(),
            #[cfg(feature = "dpdk")]
            lanes,
        }
    }

    /// The named keys.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What jobs cost, as a table; empty without a device.
    pub(crate) fn placement_text(&self) -> String {
        self.placement.text()
    }

    /// What each shard's queue counts.
    pub(crate) fn queues(&self) -> Vec<QueueSnapshot> {
        self.counters.iter().map(|counters| counters.snapshot()).collect()
    }

    /// What the node has sealed and opened; `None` without a named key.
    pub(crate) fn seals(&self) -> Option<SealSnapshot> {
        self.keys.names().next().map(|_| self.keys.snapshot())
    }
}

impl JobSeat {
    /// The shard's queue; on a thread that is not pinned, for the helper inherits its cores.
    ///
    /// # Errors
    /// One line when no thread can be made.
    pub(crate) fn queue(self, wake: impl Fn() + Send + 'static) -> Result<Queue, String> {
        let cpu = Cpu::new(&self.keys, wake).map_err(|e| format!("cannot start the offload thread: {e}"))?;
        let queue = Queue::new(cpu, self.counters);
        #[cfg(feature = "dpdk")]
        let queue = queue.beside(self.lanes, self.placement, |line| eprintln!("towpath: [offload]: {line}"));
        Ok(queue)
    }
}

#[cfg(feature = "dpdk")]
fn open_devices(
    wanted: &Offload,
    memory: io::DpdkMemory,
    ports: &[io::PortSpec],
    shards: usize,
) -> Outcome<(Devices, Placement)> {
    use offload::{DeviceMemory, DeviceOptions};

    let [compression, crypto] = wanted.devices().map(|device| device.map(str::to_owned));
    let of_dpdk = |port: &io::PortSpec| match &port.device {
        io::DeviceSpec::Dpdk { device, .. } => Some(device.clone()),
        io::DeviceSpec::Xdp { .. } => None,
    };
    let options = DeviceOptions {
        compression,
        crypto,
        memory: match memory {
            io::DpdkMemory::Auto => DeviceMemory::Auto,
            io::DpdkMemory::Huge => DeviceMemory::Huge,
            io::DpdkMemory::Ordinary(mib) => DeviceMemory::Ordinary(mib),
        },
        others: ports.iter().filter_map(of_dpdk).collect(),
        copies: false,
    };
    let shards = u16::try_from(shards).map_err(|_| Failure::line("too many cores"))?;
    let opened = Devices::open(&options, shards);
    let mut devices = opened.map_err(|error| Failure::line(format!("[offload]: {error}")))?;
    let measured = offload::measure(&mut devices, wanted.choice);
    let placement = measured.map_err(|error| Failure::line(format!("[offload]: {error}")))?;
    Ok((devices, placement))
}

/// None there are.
#[cfg(not(feature = "dpdk"))]
fn open_devices(
    wanted: &Offload,
    _: io::DpdkMemory,
    _: &[io::PortSpec],
    _: usize,
) -> Outcome<(Devices, Placement)> {
    if let Some(device) = wanted.devices().into_iter().flatten().next() {
        return Err(Failure::line(format!(
            "[offload]: {device}: this build has no DPDK; install it (apt-get install libdpdk-dev dpdk-dev \
             libclang-dev pkg-config) and build with `--features dpdk`, or use \"cpu\""
        )));
    }
    Ok(((), Placement { choice: wanted.choice, costs: None }))
}
