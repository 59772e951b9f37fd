//! The environment abstraction layer: memory, drivers and lcores of this process, started once.

use core::ffi::{CStr, c_char, c_int};
use core::fmt::Write as _;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use super::{Error, drivers, log, raw};

/// Proof that the EAL runs. It does so until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

/// Where buffers live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Memory {
    /// Hugepages if at least [`Memory::HUGE_FREE_MIN_MIB`] of them are free, else ordinary pages.
    #[default]
    Auto,
    /// 2 MiB or 1 GiB pages; what hardware ports need.
    Huge,
    /// Ordinary pages, at most so many MiB, taken as they are touched. Virtual ports only.
    Ordinary {
        /// The most all pools may take together.
        mib: u32,
    },
}

impl Memory {
    /// What [`Memory::Auto`] wants free before it takes hugepages.
    pub const HUGE_FREE_MIN_MIB: u64 = 128;
    /// What [`Memory::Auto`] takes at most of ordinary pages.
    pub const ORDINARY_MIB: u32 = 1024;

    fn settle(self) -> Self {
        match self {
            Self::Auto if huge_free_mib() >= Self::HUGE_FREE_MIN_MIB => Self::Huge,
            Self::Auto => Self::Ordinary { mib: Self::ORDINARY_MIB },
            other => other,
        }
    }
}

/// How the EAL starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Where buffers live.
    pub memory: Memory,
    /// PCI addresses it may take; no other NIC is touched, and with none PCI is not looked at.
    pub pci: Vec<String>,
}

static STARTED: OnceLock<Result<Eal, Error>> = OnceLock::new();
/// DPDK keeps pointers to its arguments: they are never freed. Named here, so that no leak checker takes them for lost.
#[used]
static ARGUMENTS: AtomicPtr<*mut c_char> = AtomicPtr::new(ptr::null_mut());

impl Eal {
    /// Starts it; later calls give the first one's outcome, whatever they ask for.
    pub fn start(options: &Options) -> Result<Self, Error> {
        STARTED
            .get_or_init(|| {
                // The thread that starts the EAL becomes lcore 0 and is pinned: not a caller's.
                let options = options.clone();
                let thread = std::thread::Builder::new().name("eal".into()).spawn(move || init(&options));
                let joined = thread.map(std::thread::JoinHandle::join);
                match joined {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err(Error::new("EAL", "start", 0, "its thread panicked".to_owned())),
                    Err(error) => {
                        Err(Error::new("EAL", "start", error.raw_os_error().unwrap_or(0), String::new()))
                    }
                }
            })
            .clone()
    }

    /// If it has been started.
    pub fn running() -> Option<Self> {
        STARTED.get().and_then(|outcome| outcome.as_ref().ok()).copied()
    }
}

fn init(options: &Options) -> Result<Eal, Error> {
    log::capture();
    log::begin();
    let memory = options.memory.settle();
    let arguments = arguments(memory, &options.pci);
    let mut argv: Vec<*mut c_char> =
        arguments.iter().filter_map(|text| CString::new(text.as_str()).ok()).map(CString::into_raw).collect();
    let count = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(ptr::null_mut());
    // DPDK reorders the list; what follows it stays.
    argv.extend_from_within(..);
    let argv = argv.leak().as_mut_ptr();
    ARGUMENTS.store(argv, Ordering::Relaxed);
    // SAFETY: `argv` holds `count` strings that live for ever and a null. Called once, by the OnceLock.
    let result = unsafe { raw::rte_eal_init(count, argv) };
    if result >= 0 {
        leave_no_folder();
        return Ok(Eal(()));
    }
    let hint = match memory {
        Memory::Huge => {
            "reserve hugepages (echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages) \
             or use ordinary memory"
        }
        _ => "raise the memory limit of this process (ulimit -v, the container's memory)",
    };
    Err(Error::last("EAL", "start").with_hint(hint))
}

/// The EAL makes a folder in /run/dpdk for files it shares; we have it share none.
fn leave_no_folder() {
    // SAFETY: the EAL has started; a terminated string that lives as long as the process.
    let path = unsafe { raw::rte_eal_get_runtime_dir() };
    if !path.is_null() {
        // SAFETY: as above.
        let path = unsafe { CStr::from_ptr(path) };
        // Not empty only if a driver keeps something there.
        let _ = std::fs::remove_dir(OsStr::from_bytes(path.to_bytes()));
    }
}

fn arguments(memory: Memory, pci: &[String]) -> Vec<String> {
    let mut all: Vec<String> = vec!["towpath".into(), "--no-telemetry".into()];
    all.push(format!("--log-level={}", log::LEVEL));
    all.push(format!("--file-prefix=towpath-{}", std::process::id()));
    // Lcore 0 is nobody's; shards register as further ones and stay where they were pinned.
    all.push(format!("--lcores=0@({})", cpus()));
    match memory {
        Memory::Ordinary { mib } => {
            all.extend(["--no-huge".into(), "--no-shconf".into(), "-m".into(), mib.to_string()]);
        }
        // One file per segment would be too many for a vhost peer to map.
        _ => all.extend(["--in-memory".into(), "--single-file-segments".into()]),
    }
    if pci.is_empty() {
        all.push("--no-pci".into());
    }
    for address in pci {
        all.extend(["-a".into(), address.clone()]);
    }
    all
}

/// The CPUs this process may use, as a list EAL reads.
fn cpus() -> String {
    let mut list = String::new();
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        for cpu in (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)) {
            let comma = if list.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(list, "{comma}{cpu}");
        }
    }
    if list.is_empty() { "0".to_owned() } else { list }
}

/// Free hugepages of every size, in MiB.
fn huge_free_mib() -> u64 {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    let free = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 =
            std::fs::read_to_string(entry.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some(kib * count / 1024)
    };
    sizes.flatten().filter_map(free).sum()
}

/// The line for a device string no driver took.
pub(crate) fn no_such_device(device: &str) -> String {
    let name = device.split(',').next().unwrap_or(device);
    if drivers::is_pci(name) {
        return "is the address right (lspci), bound to vfio-pci (dpdk-devbind.py --status), and was it \
                given when the EAL started?"
            .to_owned();
    }
    let all = drivers::drivers();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if let Some(driver) = all.iter().find(|driver| driver.name == stem) {
        return match driver.parameters.as_str() {
            "" => format!("{} takes no parameters", driver.name),
            parameters => format!("{} takes: {parameters}", driver.name),
        };
    }
    let class = ["crypto_", "compress_"].into_iter().find(|class| stem.starts_with(class)).unwrap_or("net_");
    let of_class = all.iter().filter(|driver| !driver.pci && driver.name.starts_with(class));
    let names: Vec<&str> = of_class.map(|driver| driver.name.as_str()).collect();
    format!("no driver is named {stem}; there are: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_pci_devices_are_touched() {
        let none = arguments(Memory::Ordinary { mib: 64 }, &[]);
        assert!(none.iter().any(|a| a == "--no-pci"));
        assert!(none.windows(2).any(|w| w[0] == "-m" && w[1] == "64"));
        let one = arguments(Memory::Huge, &["0000:3b:00.1".to_owned()]);
        assert!(one.windows(2).any(|w| w[0] == "-a" && w[1] == "0000:3b:00.1"));
        assert!(!one.iter().any(|a| a == "--no-pci" || a == "--no-huge"));
    }
}
