//! What `doctor` looks at. Whatever is a file is read below a root, so that tests give a tree of their own; the
//! rest is asked of the kernel once, and is plain values here.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, geteuid, getrlimit};
use rustix::thread::CapabilitySet;

/// How much AF_XDP the kernel gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sockets {
    Work,
    Refused,
    Missing,
}

/// What a driver says of its interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) offloads: Vec<&'static str>,
}

/// A machine and this process on it.
pub(super) struct Facts {
    root: PathBuf,
    pub(super) probe: io::Report,
    pub(super) cores: io::Cores,
    pub(super) is_root: bool,
    pub(super) capabilities: CapabilitySet,
    /// Bytes; `None` is unlimited.
    pub(super) memlock: Option<u64>,
    /// Descriptors, the hard limit; `None` is unlimited.
    pub(super) files: Option<u64>,
    pub(super) xdp_sockets: Sockets,
    pub(super) has_dpdk: bool,
    pub(super) driver: fn(&str) -> Driver,
}

impl Facts {
    /// This machine.
    pub(super) fn live() -> Self {
        Self {
            root: PathBuf::from("/"),
            probe: io::probe(),
            cores: io::available_cores(),
            is_root: geteuid().is_root(),
            capabilities: io::privileges::capabilities_held(),
            memlock: getrlimit(Resource::Memlock).current,
            files: getrlimit(Resource::Nofile).maximum,
            xdp_sockets: xdp_sockets(),
            has_dpdk: io::HAS_DPDK,
            driver,
        }
    }

    /// A machine that works out of a folder.
    #[cfg(test)]
    pub(super) fn fake(root: &std::path::Path) -> Self {
        Self {
            root: root.to_owned(),
            probe: io::Report { kernel: "6.1.0-18-amd64".into(), features: Vec::new(), refusal: None },
            cores: io::Cores { ids: vec![0, 1], quota: None },
            is_root: false,
            capabilities: CapabilitySet::empty(),
            memlock: Some(64 << 10),
            files: Some(1024),
            xdp_sockets: Sockets::Refused,
            has_dpdk: false,
            driver: |_| Driver::default(),
        }
    }

    /// A file's text, trimmed.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file's number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a folder, sorted.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let Ok(folder) = fs::read_dir(self.root.join(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of what a link points at.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether there is such a file or folder.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The kernel's release, as far as it can be compared.
    pub(super) fn is_before(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.probe.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(a)), Some(Ok(b))) => (a, b) < (major, minor),
            _ => false,
        }
    }
}

fn xdp_sockets() -> Sockets {
    match io::xdp::support() {
        io::xdp::Support::Works => Sockets::Work,
        io::xdp::Support::Refused => Sockets::Refused,
        io::xdp::Support::Missing => Sockets::Missing,
    }
}

fn driver(name: &str) -> Driver {
    io::xdp::nic(name).map(|nic| Driver { name: nic.driver, offloads: nic.offloads }).unwrap_or_default()
}
