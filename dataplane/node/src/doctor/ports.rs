//! What raw ports need: AF_XDP, DPDK, hugepages, drivers, permissions.

use rustix::thread::CapabilitySet;

use super::facts::{Facts, Sockets};
use super::{Mark, Section};
use crate::value::show_bytes;

/// What an AF_XDP port needs, by the name the kernel's documentation has.
const XDP_CAPABILITIES: [(&str, CapabilitySet); 3] = [
    ("cap_net_admin", CapabilitySet::NET_ADMIN),
    ("cap_net_raw", CapabilitySet::NET_RAW),
    ("cap_bpf", CapabilitySet::BPF),
];
/// Locked memory of a shard's AF_XDP queues: at most 65,536 chunks of 2 KiB, and their rings.
const XDP_QUEUE_BYTES: u64 = 136 << 20;
/// Where distributions put what pkg-config reads.
const PKG_CONFIG: [&str; 6] = [
    "usr/lib/x86_64-linux-gnu/pkgconfig",
    "usr/lib/aarch64-linux-gnu/pkgconfig",
    "usr/lib64/pkgconfig",
    "usr/lib/pkgconfig",
    "usr/local/lib/x86_64-linux-gnu/pkgconfig",
    "usr/local/lib64/pkgconfig",
];
/// The oldest DPDK the bindings are for.
const DPDK_SINCE: (u32, u32) = (22, 11);

/// The line of the `xdp` backend.
pub(super) fn xdp(facts: &Facts, s: &mut Section) {
    if facts.xdp_sockets == Sockets::Missing || facts.is_before(5, 10) {
        let mend =
            "Linux 5.10 or later with CONFIG_XDP_SOCKETS=y: zgrep XDP_SOCKETS /proc/config.gz /boot/config-*";
        return s.line(Mark::Bad, "xdp", "this kernel has no AF_XDP sockets", mend);
    }
    let missing: Vec<&str> = XDP_CAPABILITIES
        .iter()
        .filter(|(_, bit)| {
            !facts.capabilities.contains(*bit) && !facts.capabilities.contains(CapabilitySet::SYS_ADMIN)
        })
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        let mend = "run it as root, or: sudo setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep $(command -v towpath)";
        return s.line(
            Mark::Note,
            "xdp",
            &format!("the kernel has it; this process lacks {}", missing.join(", ")),
            mend,
        );
    }
    if facts.xdp_sockets == Sockets::Refused {
        let mend = "the container's seccomp profile must allow bpf and socket(AF_XDP)";
        return s.line(Mark::Bad, "xdp", "refused to this process though it has the capabilities", mend);
    }
    let is_locked = facts.memlock.is_some_and(|bytes| bytes < XDP_QUEUE_BYTES);
    if is_locked && !facts.capabilities.contains(CapabilitySet::IPC_LOCK) {
        let found = format!(
            "{} of locked memory; the queues of a shard take up to {}",
            show_bytes(facts.memlock.unwrap_or(0)),
            show_bytes(XDP_QUEUE_BYTES)
        );
        return s.line(Mark::Bad, "xdp", &found, "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit");
    }
    s.line(Mark::Good, "xdp", "works", "");
    if facts.number("proc/sys/net/core/bpf_jit_enable") == Some(0) {
        s.line(Mark::Note, "  program", "interpreted", "sudo sysctl net.core.bpf_jit_enable=1");
    }
}

/// The line of the `dpdk` backend.
pub(super) fn dpdk(facts: &Facts, s: &mut Section) {
    const INSTALL: &str = "sudo apt-get install dpdk libdpdk-dev pkg-config libclang-dev";
    let version = dpdk_version(facts);
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let is_old = version.as_deref().is_some_and(|version| {
        let mut parts = version.split('.').map(number);
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < DPDK_SINCE
    });
    let installed = match &version {
        Some(version) => format!("DPDK {version} is installed"),
        None => "DPDK is not installed".to_owned(),
    };
    match (facts.has_dpdk, version.is_some()) {
        (_, true) if is_old => s.line(
            Mark::Bad,
            "dpdk",
            &format!("{installed}: too old"),
            "DPDK 22.11 or later: Debian 12's, Ubuntu 23.04's, or https://core.dpdk.org/download",
        ),
        (true, _) => s.line(Mark::Good, "dpdk", &format!("in this build; {installed}"), ""),
        (false, true) => {
            let mend = "cargo build --release --features dpdk";
            s.line(Mark::Note, "dpdk", &format!("not in this build; {installed}"), mend);
        }
        (false, false) => {
            let mend = format!("{INSTALL}; cargo build --release --features dpdk");
            s.line(Mark::Note, "dpdk", &format!("not in this build; {installed}"), &mend);
        }
    }
}

/// Which drivers DPDK has: what device strings may begin with, and what `[offload]` may name.
fn drivers(facts: &Facts, s: &mut Section) {
    let has_it = |folder: &&&str| facts.has(&format!("{folder}/libdpdk.pc"));
    let Some(place) = PKG_CONFIG.iter().find(has_it).and_then(|folder| folder.strip_suffix("/pkgconfig"))
    else {
        return;
    };
    let folders = facts.list(&format!("{place}/dpdk"));
    let files: Vec<_> = folders.iter().flat_map(|one| facts.list(&format!("{place}/dpdk/{one}"))).collect();
    let of = |kind: &str| {
        let name = |file: &'_ String| {
            Some(file.strip_prefix("librte_")?.strip_prefix(kind)?.strip_suffix(".so")?.to_owned())
        };
        let names: Vec<String> = files.iter().filter_map(name).collect();
        names.join(", ")
    };
    for (what, kind) in [("NIC drivers", "net_"), ("compressdevs", "compress_"), ("cryptodevs", "crypto_")] {
        match of(kind) {
            names if names.is_empty() => {
                s.line(Mark::Note, what, "none of DPDK's", "sudo apt-get install librte-meta-all");
            }
            // One driver may have several kinds of devices.
            names => {
                s.line(Mark::Good, what, &names.replace("ipsec_mb", "ipsec_mb (aesni_gcm, aesni_mb)"), "")
            }
        }
    }
}

/// The version that pkg-config would find.
fn dpdk_version(facts: &Facts) -> Option<String> {
    let text = PKG_CONFIG.iter().find_map(|folder| facts.read(&format!("{folder}/libdpdk.pc")))?;
    text.lines().find_map(|line| line.strip_prefix("Version:")).map(|version| version.trim().to_owned())
}

/// What DPDK's drivers need of the machine.
pub(super) fn section(facts: &Facts) -> Section {
    let mut s = Section::new("for DPDK ports (virtual devices such as net_memif0 need none of this)");
    hugepages(facts, &mut s);
    let loaded: Vec<&str> = ["vfio-pci", "igb_uio", "uio_pci_generic"]
        .into_iter()
        .filter(|driver| facts.has(&format!("sys/bus/pci/drivers/{driver}")))
        .collect();
    if loaded.contains(&"vfio-pci") {
        s.line(Mark::Good, "drivers", &loaded.join(", "), "");
    } else {
        let found = if loaded.is_empty() { "none loaded".to_owned() } else { loaded.join(", ") };
        if facts.has(&format!("lib/modules/{}", facts.probe.kernel)) {
            s.line(Mark::Note, "drivers", &format!("{found}; no vfio-pci"), "sudo modprobe vfio-pci");
        } else {
            s.line(
                Mark::Note,
                "drivers",
                &format!("{found}; no vfio-pci, and no modules for this kernel"),
                "a kernel with CONFIG_VFIO_PCI, or its package of modules; backend = \"xdp\" needs none",
            );
        }
    }
    let groups = facts.list("sys/kernel/iommu_groups").len();
    if groups > 0 {
        s.line(Mark::Good, "IOMMU", &format!("{groups} groups"), "");
    } else if facts.read("sys/module/vfio/parameters/enable_unsafe_noiommu_mode").as_deref() == Some("Y") {
        s.line(Mark::Note, "IOMMU", "none; vfio goes without: a device's owner can read all memory", "");
    } else {
        let mend = "intel_iommu=on iommu=pt (or amd_iommu=on) on the kernel's command line, VT-d or AMD-Vi in the \
                    firmware; without: TOWPATH_NOIOMMU=1 scripts/nic.sh bind";
        s.line(Mark::Note, "IOMMU", "none", mend);
    }
    let needs = CapabilitySet::IPC_LOCK | CapabilitySet::NET_RAW;
    if facts.is_root || facts.capabilities.contains(needs) {
        s.line(Mark::Good, "permissions", if facts.is_root { "root" } else { "by capabilities" }, "");
    } else {
        let mend = "run it as root (it gives privileges up once ports are open), or as a user who owns /dev/vfio and \
                    /dev/hugepages, with LimitMEMLOCK=infinity";
        s.line(Mark::Note, "permissions", "not root", mend);
    }
    drivers(facts, &mut s);
    s
}

fn hugepages(facts: &Facts, s: &mut Section) {
    let nodes: Vec<String> =
        facts.list("sys/devices/system/node").into_iter().filter(|name| name.starts_with("node")).collect();
    let mut found = Vec::new();
    for (size, folder) in [("2 MiB", "hugepages-2048kB"), ("1 GiB", "hugepages-1048576kB")] {
        let pool = |at: &str| {
            let count =
                facts.number(&format!("{at}/hugepages/{folder}/nr_hugepages")).filter(|count| *count > 0)?;
            Some((count, facts.number(&format!("{at}/hugepages/{folder}/free_hugepages")).unwrap_or(0)))
        };
        for node in &nodes {
            if let Some((count, free)) = pool(&format!("sys/devices/system/node/{node}")) {
                found.push(format!("{count} × {size} on {node} ({free} free)"));
            }
        }
        if let (true, Some((count, free))) = (nodes.is_empty(), pool("sys/kernel/mm")) {
            found.push(format!("{count} × {size} ({free} free)"));
        }
    }
    let mounts = facts.read("proc/mounts").unwrap_or_default();
    let is_mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs"));
    const RESERVE: &str = "sudo scripts/hugepages.sh reserve 1024";
    match (found.is_empty(), is_mounted) {
        (true, _) if !facts.has("sys/kernel/mm/hugepages") => {
            s.line(Mark::Note, "hugepages", "not offered by this kernel; DPDK goes without, slower", "");
        }
        (true, _) => s.line(Mark::Note, "hugepages", "none reserved; DPDK goes without, slower", RESERVE),
        (false, false) => {
            let mend = "sudo mkdir -p /dev/hugepages && sudo mount -t hugetlbfs none /dev/hugepages";
            s.line(Mark::Note, "hugepages", &format!("{}, not mounted", found.join(", ")), mend);
        }
        (false, true) => s.line(Mark::Good, "hugepages", &found.join(", "), ""),
    }
}
