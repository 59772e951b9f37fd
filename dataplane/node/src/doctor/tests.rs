use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use super::facts::{Driver, Facts, Sockets};
use super::*;

/// A machine in a folder, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("towpath-doctor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.0.join(to), path).unwrap();
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.0.join(path)).unwrap();
    }

    /// A PCI NIC with a number of queues.
    fn nic(&self, name: &str, address: &str, driver: &str, queues: usize) {
        let device = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{device}/class"), "0x020000\n");
        self.file(&format!("{device}/numa_node"), "1\n");
        self.link(&format!("{device}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        self.folder(&format!("sys/bus/pci/drivers/{driver}"));
        if !name.is_empty() {
            self.link(&format!("sys/class/net/{name}/device"), &device);
            for queue in 0..queues {
                self.folder(&format!("sys/class/net/{name}/queues/rx-{queue}"));
                self.folder(&format!("sys/class/net/{name}/queues/tx-{queue}"));
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The line that is about `what`, and what mends it, as text.
fn line(report: &Report, what: &str) -> (Mark, String) {
    let lines = report.sections.iter().flat_map(|section| &section.lines);
    let mut found =
        lines.filter(|line| line.what.trim() == what).map(|l| (l.mark, format!("{} → {}", l.found, l.mend)));
    found.next_back().unwrap_or_else(|| panic!("no line on {what}"))
}

/// A server as one would rent it: two ports of a NIC, one for the machine in a bond, one to spare.
fn server() -> Tree {
    let tree = Tree::new("server");
    tree.nic("eth0", "0000:3b:00.0", "ice", 4);
    tree.nic("eth1", "0000:3b:00.1", "ice", 4);
    tree.nic("", "0000:5e:00.0", "vfio-pci", 0);
    tree.file("sys/bus/pci/devices/0000:3b:00.1/sriov_totalvfs", "128\n");
    tree.file("sys/bus/pci/devices/0000:3b:00.1/sriov_numvfs", "2\n");
    tree.link("sys/class/net/bond0/lower_eth0", "sys/class/net/eth0");
    tree.file("proc/net/route", "Iface\tDestination\nbond0\t00000000\t01\t3\t0\t0\t0\t00000000\t0\t0\t0\n");
    tree.file("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    tree.file("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "500\n");
    tree.file("proc/mounts", "none /dev/hugepages hugetlbfs rw 0 0\n");
    tree.folder("sys/kernel/iommu_groups/7");
    tree.file("usr/lib/x86_64-linux-gnu/pkgconfig/libdpdk.pc", "Name: DPDK\nVersion: 22.11.5\n");
    for driver in
        ["net_ice.so", "net_memif.so", "net_memif.so.23", "compress_isal.so", "crypto_qat.so", "bus_pci.so"]
    {
        tree.file(&format!("usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_{driver}"), "");
    }
    tree
}

#[test]
fn a_server_that_is_ready_has_nothing_to_mend() {
    let tree = server();
    let mut facts = Facts::fake(&tree.0);
    facts.is_root = true;
    facts.capabilities = CapabilitySet::all();
    facts.xdp_sockets = Sockets::Work;
    facts.has_dpdk = true;
    facts.files = None;
    facts.driver = |_| Driver { name: "ice".into(), offloads: vec!["rx", "tx"] };
    let report = Report::of(&facts);
    for what in ["xdp", "dpdk", "hugepages", "drivers", "IOMMU", "permissions"] {
        assert_eq!(line(&report, what).0, Mark::Good, "{what}: {}", line(&report, what).1);
    }
    for (kind, names) in [("NIC drivers", "ice, memif"), ("compressdevs", "isal"), ("cryptodevs", "qat")] {
        assert_eq!(line(&report, kind), (Mark::Good, format!("{names} → ")));
    }
    assert_eq!(line(&report, "hugepages").1, "512 × 2 MiB on node1 (500 free) → ");

    let nics: Vec<_> = report.nics.iter().map(|n| (n.name.as_str(), n.is_default, n.is_spare())).collect();
    assert_eq!(
        nics,
        [("bond0", true, false), ("eth0", true, false), ("eth1", false, true), ("", false, false)]
    );
    let text = report.text();
    assert!(
        text.lines().any(|l| l
            .split_whitespace()
            .eq("eth1 ice 0000:3b:00.1 1 4/4 rx tx drv, zero copy 2 of 128".split_whitespace())),
        "{text}"
    );
    assert!(
        text.contains("sudo scripts/nic.sh bind eth1") && text.contains("sudo scripts/sriov.sh create eth1")
    );
    assert!(text.lines().all(|l| l.chars().count() <= 120), "{text}");
}

#[test]
fn whatever_is_missing_comes_with_the_command_that_mends_it() {
    let tree = Tree::new("bare");
    tree.folder("sys/kernel/mm/hugepages/hugepages-2048kB");
    tree.folder("lib/modules/6.1.0-18-amd64");
    tree.nic("eth0", "0000:00:03.0", "virtio-pci", 1);
    tree.file("proc/net/ipv6_route", &format!("{0} 00 {0} 00 {0} 00000400 1 0 3 eth0\n", "0".repeat(32)));
    let mut facts = Facts::fake(&tree.0);
    let expect = |facts: &Facts, what: &str, mark: Mark, parts: &[&str]| {
        let (found, text) = line(&Report::of(facts), what);
        assert_eq!(found, mark, "{what}: {text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "{part} is not in {text}"));
    };
    expect(&facts, "xdp", Mark::Note, &["cap_net_admin", "setcap"]);
    expect(&facts, "dpdk", Mark::Note, &["not installed", "apt-get install", "--features dpdk"]);
    expect(&facts, "hugepages", Mark::Note, &["none reserved", "scripts/hugepages.sh reserve"]);
    expect(&facts, "drivers", Mark::Note, &["modprobe vfio-pci"]);
    expect(&facts, "IOMMU", Mark::Note, &["intel_iommu=on", "TOWPATH_NOIOMMU=1"]);
    expect(&facts, "permissions", Mark::Note, &["not root"]);
    expect(&facts, "locked memory", Mark::Note, &["ulimit -l unlimited"]);
    expect(&facts, "open files", Mark::Note, &["LimitNOFILE"]);
    expect(&facts, "capabilities", Mark::Note, &["none"]);

    facts.capabilities = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::BPF;
    expect(&facts, "xdp", Mark::Bad, &["seccomp"]);
    facts.xdp_sockets = Sockets::Work;
    expect(&facts, "xdp", Mark::Bad, &["64.0 KiB", "ulimit -l"]);
    facts.capabilities |= CapabilitySet::IPC_LOCK;
    expect(&facts, "xdp", Mark::Good, &["works"]);
    tree.file("proc/sys/net/core/bpf_jit_enable", "0\n");
    expect(&facts, "program", Mark::Note, &["bpf_jit_enable=1"]);
    facts.probe.kernel = "5.4.0".into();
    expect(&facts, "xdp", Mark::Bad, &["Linux 5.10"]);

    tree.file("usr/lib64/pkgconfig/libdpdk.pc", "Version: 20.11.3\n");
    expect(&facts, "dpdk", Mark::Bad, &["20.11.3", "too old", "22.11"]);
    expect(&facts, "cryptodevs", Mark::Note, &["librte-meta-all"]);
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
    expect(&facts, "hugepages", Mark::Note, &["64 × 2 MiB", "not mounted", "mount -t hugetlbfs"]);

    // The only NIC carries the default route: nothing invites to take it away.
    let text = Report::of(&facts).text();
    assert!(
        text.contains("eth0 *") && text.contains("scripts/lab.sh up") && !text.contains("nic.sh bind eth0"),
        "{text}"
    );
}

#[test]
fn the_json_has_all_of_it() {
    let tree = server();
    let report = Report::of(&Facts::fake(&tree.0));
    let json = report.json();
    assert!(json.starts_with('{') && json.ends_with("}\n") && json.lines().count() == 1);
    for part in [
        "\"what\":\"hugepages\",\"state\":\"ok\",\"found\":\"512 × 2 MiB on node1 (500 free)\"}",
        "\"interface\":\"eth1\",\"driver\":\"ice\",\"address\":\"0000:3b:00.1\",\"numa_node\":1,\"rx_queues\":4",
        "\"vfs\":{\"count\":2,\"max\":128},\"default_route\":false}",
        "\"driver\":\"vfio-pci\",\"address\":\"0000:5e:00.0\"",
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
}

#[test]
fn this_machine_fits_two_screens() {
    let text = Report::of(&Facts::live()).text();
    assert!(text.lines().count() <= 60, "{text}");
}
