//! The machine's NICs: those the kernel has, and those that were given to DPDK.

use super::facts::Facts;
use crate::table::Table;

/// NICs listed.
const NICS_MAX: usize = 16;
/// Drivers that run XDP programs themselves; with others the kernel runs them later, on each frame's copy.
const XDP_DRIVERS: [&str; 24] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "ena",
    "fec",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "tun",
    "veth",
    "virtio_net",
];
/// Those that also let the NIC write straight into a socket's memory.
const ZERO_COPY_DRIVERS: [&str; 9] =
    ["gve", "i40e", "ice", "igb", "igc", "ixgbe", "mlx5_core", "nfp", "stmmac"];
/// Drivers by which DPDK takes a device.
const USER_DRIVERS: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// One NIC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Nic {
    /// The kernel's name; empty if it was given to DPDK.
    pub(super) name: String,
    pub(super) driver: String,
    /// The PCI address; empty for a virtual interface.
    pub(super) address: String,
    pub(super) numa_node: Option<u64>,
    pub(super) rx_queues: usize,
    pub(super) tx_queues: usize,
    pub(super) offloads: Vec<&'static str>,
    /// Virtual functions it has, and may have; `None` if it has none to offer.
    pub(super) vfs: Option<(u64, u64)>,
    /// It carries a default route.
    pub(super) is_default: bool,
}

impl Nic {
    /// How AF_XDP works on it.
    pub(super) fn xdp(&self) -> &'static str {
        let driver = self.driver.as_str();
        match () {
            () if self.name.is_empty() => "-",
            () if ZERO_COPY_DRIVERS.contains(&driver) => "drv, zero copy",
            () if XDP_DRIVERS.contains(&driver) => "drv",
            () => "skb",
        }
    }

    /// It can be given to DPDK: a NIC of its own that the machine does not need for itself.
    pub(super) fn is_spare(&self) -> bool {
        !self.name.is_empty() && !self.address.is_empty() && !self.is_default
    }
}

/// All of them: by the kernel's names first.
pub(super) fn nics(facts: &Facts) -> Vec<Nic> {
    let defaults = default_routes(facts);
    let names = facts.list("sys/class/net");
    let kernels = names.iter().filter(|name| *name != "lo").map(|name| kernels(facts, name, &defaults));
    let bound = facts.list("sys/bus/pci/devices").into_iter().filter_map(|address| users(facts, address));
    kernels.chain(bound).collect()
}

/// One the kernel has.
fn kernels(facts: &Facts, name: &str, defaults: &[String]) -> Nic {
    let folder = format!("sys/class/net/{name}");
    let said = (facts.driver)(name);
    let queues = facts.list(&format!("{folder}/queues"));
    let count = |prefix| queues.iter().filter(|queue| queue.starts_with(prefix)).count();
    // A virtio device stands between the interface and its PCI device.
    let address = |path: &str| facts.link(path).filter(|link| link.contains(':'));
    let device = format!("{folder}/device");
    let numbers =
        (facts.number(&format!("{device}/sriov_numvfs")), facts.number(&format!("{device}/sriov_totalvfs")));
    Nic {
        name: name.to_owned(),
        driver: match facts.link(&format!("{device}/driver")) {
            Some(driver) => driver,
            None if said.name.is_empty() => "virtual".to_owned(),
            None => said.name,
        },
        address: address(&device).or_else(|| pci_of_virtio(facts, &device)).unwrap_or_default(),
        numa_node: facts.number(&format!("{device}/numa_node")),
        rx_queues: count("rx-"),
        tx_queues: count("tx-"),
        offloads: said.offloads,
        vfs: match numbers {
            (Some(have), Some(may)) if may > 0 => Some((have, may)),
            _ => None,
        },
        is_default: defaults.iter().any(|below| below == name),
    }
}

/// The PCI device whose child a virtio device is.
fn pci_of_virtio(facts: &Facts, device: &str) -> Option<String> {
    let virtio = facts.link(device)?;
    facts
        .list("sys/bus/pci/devices")
        .into_iter()
        .find(|address| facts.has(&format!("sys/bus/pci/devices/{address}/{virtio}")))
}

/// One that was given to DPDK, if it is a NIC.
fn users(facts: &Facts, address: String) -> Option<Nic> {
    let folder = format!("sys/bus/pci/devices/{address}");
    let driver = facts.link(&format!("{folder}/driver")).filter(|d| USER_DRIVERS.contains(&d.as_str()))?;
    let is_nic = facts.read(&format!("{folder}/class")).is_some_and(|class| class.starts_with("0x02"));
    let numa_node = facts.number(&format!("{folder}/numa_node"));
    is_nic.then(|| Nic { driver, address, numa_node, ..Nic::default() })
}

/// The interfaces that carry a default route, those below a bond, bridge or VLAN included.
fn default_routes(facts: &Facts) -> Vec<String> {
    let v4 = facts.read("proc/net/route").unwrap_or_default();
    let v6 = facts.read("proc/net/ipv6_route").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for line in v4.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", _, _, _, _, _, "00000000", ..] = fields.as_slice() {
            found.push((*name).to_owned());
        }
    }
    for line in v6.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let ([to, "00", ..], Some(name)) = (fields.as_slice(), fields.last())
            && to.bytes().all(|b| b == b'0')
            && *name != "lo"
        {
            found.push((*name).to_owned());
        }
    }
    let mut at = 0;
    while let Some(name) = found.get(at) {
        let links = facts.list(&format!("sys/class/net/{name}"));
        let below = links.iter().filter_map(|link| link.strip_prefix("lower_")).map(str::to_owned);
        let fresh: Vec<String> = below.filter(|below| !found.contains(below)).collect();
        found.extend(fresh);
        at += 1;
    }
    found
}

/// The table, and how many were left out.
pub(super) fn table(nics: &[Nic]) -> (Table, usize) {
    let mut table =
        Table::new(&["interface", "driver", "address", ">node", ">rx/tx", "offloads on", "AF_XDP", "VFs"]);
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    for nic in nics.iter().take(NICS_MAX) {
        table.row(vec![
            format!("{}{}", or_dash(&nic.name), if nic.is_default { " *" } else { "" }),
            nic.driver.clone(),
            or_dash(&nic.address),
            nic.numa_node.map_or("-".to_owned(), |node| node.to_string()),
            if nic.name.is_empty() { "-".to_owned() } else { format!("{}/{}", nic.rx_queues, nic.tx_queues) },
            or_dash(&nic.offloads.join(" ")),
            nic.xdp().to_owned(),
            nic.vfs.map_or("-".to_owned(), |(have, may)| format!("{have} of {may}")),
        ]);
    }
    (table, nics.len().saturating_sub(NICS_MAX))
}
