//! `towpath doctor`: what this machine offers each backend, and the command that mends what is missing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::machine::show_cores;
use crate::value::{show_bytes, show_count};

/// Open files below this are few for a node: a connection each way for every caller.
const FILES_MIN: u64 = 65_536;
/// NICs listed.
const NICS_MAX: usize = 16;

/// How a line of the report stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// As it should be.
    Good,
    /// Worth knowing; Towpath works without.
    Note,
    /// In the way.
    Bad,
}

/// What is found, a line each.
#[derive(Default)]
struct Report(String);

impl Report {
    fn title(&mut self, text: &str) {
        let _ = writeln!(self.0, "\n{text}");
    }

    /// A line, and below it what to do.
    fn line(&mut self, mark: Mark, what: &str, found: &str, mend: &str) {
        let mark = match mark {
            Mark::Good => "ok",
            Mark::Note => "--",
            Mark::Bad => "!!",
        };
        let _ = writeln!(self.0, "  {mark}  {what:<26} {found}");
        if !mend.is_empty() {
            let _ = writeln!(self.0, "      {:<26} → {mend}", "");
        }
    }
}

/// Writes the report to standard output.
pub(crate) fn doctor() {
    let mut report = Report(format!("towpath {}: what this machine offers\n", env!("CARGO_PKG_VERSION")));
    backends(&mut report);
    limits(&mut report);
    cores(&mut report);
    devices(&mut report);
    crate::failure::print(&report.0);
}

fn backends(r: &mut Report) {
    let probe = io::probe();
    let choice = if probe.choice() == io::Backend::Uring { "uring" } else { "epoll" };
    r.title(&format!("backends (kernel {}): `--backend auto` takes {choice}", probe.kernel));
    match &probe.refusal {
        None => r.line(Mark::Good, "uring", "works", ""),
        Some(refusal) => r.line(Mark::Bad, "uring", &refusal.reason, &refusal.hint),
    }
    for feature in &probe.features {
        let (mark, found) = match (feature.works, feature.required) {
            (true, _) if feature.used => (Mark::Good, "works".to_owned()),
            (true, _) => (Mark::Good, "works (not used)".to_owned()),
            (false, true) => (Mark::Bad, format!("missing; Linux {} brings it", feature.since)),
            (false, false) => (Mark::Note, format!("missing; Linux {} brings it; optional", feature.since)),
        };
        r.line(mark, &format!("  {}", feature.name), &found, "");
    }
    r.line(Mark::Good, "epoll", "works", "");
    r.line(Mark::Note, "xdp, dpdk", "not supported yet", "");
}

fn limits(r: &mut Report) {
    r.title("limits of this process");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = field(&status, "Seccomp:").unwrap_or("?");
    match seccomp {
        "0" => r.line(Mark::Good, "seccomp", "no filter", ""),
        "2" => {
            let mend = "if uring is refused: allow io_uring_setup, io_uring_enter and io_uring_register in the profile";
            r.line(Mark::Note, "seccomp", "a filter is installed (container)", mend);
        }
        other => r.line(Mark::Note, "seccomp", other, ""),
    }
    match getrlimit(Resource::Memlock).current {
        None => r.line(Mark::Good, "locked memory", "unlimited", ""),
        Some(bytes) if bytes >= 8 << 20 => r.line(Mark::Good, "locked memory", &show_bytes(bytes), ""),
        Some(bytes) => {
            let mend = "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit";
            r.line(Mark::Note, "locked memory", &show_bytes(bytes), mend);
        }
    }
    // Towpath raises its soft limit to the hard one by itself.
    match getrlimit(Resource::Nofile).maximum {
        None => r.line(Mark::Good, "open files", "unlimited", ""),
        Some(files) if files >= FILES_MIN => r.line(Mark::Good, "open files", &show_count(files), ""),
        Some(files) => {
            let mend = "ulimit -Hn 1048576 (as root), or LimitNOFILE=1048576 in the unit";
            r.line(Mark::Note, "open files", &format!("{}: few for a node", show_count(files)), mend);
        }
    }
    match read_number("/proc/sys/net/core/somaxconn") {
        Some(backlog) if backlog < 1024 => {
            r.line(Mark::Note, "listen backlog", &backlog.to_string(), "sysctl -w net.core.somaxconn=4096");
        }
        Some(backlog) => r.line(Mark::Good, "listen backlog", &backlog.to_string(), ""),
        None => {}
    }
}

fn cores(r: &mut Report) {
    let cores = io::available_cores();
    r.title("cores");
    let found = format!(
        "{} usable ({}); one shard on each of {}",
        cores.ids.len(),
        show_cores(&cores.ids),
        cores.count()
    );
    r.line(Mark::Good, "cores", &found, "");
    match cores.quota {
        None => r.line(Mark::Good, "CPU quota", "none", ""),
        Some(quota) => {
            let mend = "poll = \"busy\" is refused under a quota; lift it with cpu.max of the cgroup";
            r.line(Mark::Note, "CPU quota", &format!("{quota:.2} cores"), mend);
        }
    }
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    match governor.as_deref() {
        None => r.line(Mark::Note, "frequency governor", "none to be seen (virtual machine)", ""),
        Some("performance") => r.line(Mark::Good, "frequency governor", "performance", ""),
        Some(other) => {
            r.line(Mark::Note, "frequency governor", other, "cpupower frequency-set -g performance")
        }
    }
    if let Some(isolated) = read("/sys/devices/system/cpu/isolated").filter(|i| !i.is_empty()) {
        r.line(Mark::Good, "isolated cores", &isolated, "");
    }
}

fn devices(r: &mut Report) {
    r.title("for the raw ports of later versions");
    let pages = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    match pages {
        Some(0) => {
            let mend = "echo 512 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
            r.line(Mark::Note, "hugepages (2 MiB)", "none reserved", mend);
        }
        Some(count) => r.line(Mark::Good, "hugepages (2 MiB)", &show_count(count), ""),
        None => r.line(Mark::Note, "hugepages (2 MiB)", "not offered by this kernel", ""),
    }
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .map(|dir| dir.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    for name in names.iter().filter(|n| *n != "lo").take(NICS_MAX) {
        let folder = Path::new("/sys/class/net").join(name);
        let driver = fs::read_link(folder.join("device/driver"))
            .ok()
            .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "virtual".to_owned());
        let address = fs::read_link(folder.join("device"))
            .ok()
            .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_default();
        let rx = queues(&folder, "rx-");
        let found = format!("{driver} {address} {rx} rx queue{}", if rx == 1 { "" } else { "s" });
        r.line(Mark::Note, &format!("interface {name}"), &found.replace("  ", " "), "");
    }
}

fn queues(folder: &Path, prefix: &str) -> usize {
    fs::read_dir(folder.join("queues"))
        .map(|dir| dir.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count())
        .unwrap_or(0)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

fn read_number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}
