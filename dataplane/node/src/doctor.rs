//! `towpath doctor`: what this machine offers each backend, and the command that mends what is missing.

mod facts;
mod nics;
mod ports;

use std::fmt::Write as _;

use facts::Facts;
use nics::Nic;
use rustix::thread::CapabilitySet;

use crate::machine::show_cores;
use crate::status::quoted;
use crate::value::{show_bytes, show_count};

/// Open files below this are few for a node: a connection each way for every caller.
const FILES_MIN: u64 = 65_536;
/// The capabilities that anything here needs: low ports, raw ports, XDP programs, locked memory.
const CAPABILITIES: [(&str, CapabilitySet); 5] = [
    ("cap_net_bind_service", CapabilitySet::NET_BIND_SERVICE),
    ("cap_net_admin", CapabilitySet::NET_ADMIN),
    ("cap_net_raw", CapabilitySet::NET_RAW),
    ("cap_bpf", CapabilitySet::BPF),
    ("cap_ipc_lock", CapabilitySet::IPC_LOCK),
];
/// Columns of a terminal: longer lines are broken.
const WIDTH: usize = 110;

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

/// One thing that was looked at.
struct Line {
    mark: Mark,
    what: String,
    found: String,
    /// What mends it; empty if there is nothing to.
    mend: String,
}

/// Lines that belong together.
struct Section {
    title: String,
    lines: Vec<Line>,
}

impl Section {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lines: Vec::new() }
    }

    fn line(&mut self, mark: Mark, what: &str, found: &str, mend: &str) {
        let (what, found, mend) = (what.to_owned(), found.to_owned(), mend.to_owned());
        self.lines.push(Line { mark, what, found, mend });
    }
}

/// All there is to say.
struct Report {
    kernel: String,
    sections: Vec<Section>,
    nics: Vec<Nic>,
}

/// Writes the report to standard output.
pub(crate) fn doctor(is_json: bool) {
    let report = Report::of(&Facts::live());
    crate::failure::print(&if is_json { report.json() } else { report.text() });
}

impl Report {
    fn of(facts: &Facts) -> Self {
        let sections = vec![backends(facts), ports::section(facts), limits(facts), cores(facts)];
        Self { kernel: facts.probe.kernel.clone(), sections, nics: nics::nics(facts) }
    }

    /// For people: what is missing has the command that mends it below.
    fn text(&self) -> String {
        // Writing to a String does not fail, here and below.
        let mut out = format!("towpath {} on Linux {}\n", env!("CARGO_PKG_VERSION"), self.kernel);
        for section in &self.sections {
            let _ = writeln!(out, "\n{}", section.title);
            for line in &section.lines {
                let mark = match line.mark {
                    Mark::Good => "ok",
                    Mark::Note => "--",
                    Mark::Bad => "!!",
                };
                folded(&mut out, &format!("  {mark}  {:<16} ", line.what), &line.found);
                if !line.mend.is_empty() {
                    folded(&mut out, &format!("      {:<16} → ", ""), &line.mend);
                }
            }
        }
        let (table, more) = nics::table(&self.nics);
        if !table.is_empty() {
            let _ = write!(
                out,
                "\nNICs (* carries the default route: leave it to the kernel)\n{}",
                table.text("  ")
            );
        }
        if more > 0 {
            let _ = writeln!(out, "  … and {more} more");
        }
        let spare: Vec<&Nic> = self.nics.iter().filter(|nic| nic.is_spare()).collect();
        if let Some(nic) = spare.first() {
            let _ =
                writeln!(out, "  to DPDK, and back   sudo scripts/nic.sh bind {0}; … restore {0}", nic.name);
        }
        if let Some(nic) = spare.iter().find(|nic| nic.vfs.is_some()) {
            let _ = writeln!(out, "  virtual functions   sudo scripts/sriov.sh create {} 2", nic.name);
        }
        if spare.is_empty() {
            out.push_str("  none to spare: raw ports can be tried in namespaces, sudo scripts/lab.sh up\n");
        }
        out
    }

    /// The same for programs.
    fn json(&self) -> String {
        let sections = self.sections.iter().map(|section| {
            let lines = section.lines.iter().map(|line| {
                let mark = match line.mark {
                    Mark::Good => "ok",
                    Mark::Note => "note",
                    Mark::Bad => "bad",
                };
                let mend = if line.mend.is_empty() {
                    String::new()
                } else {
                    format!(",\"mend\":{}", quoted(&line.mend))
                };
                let what = quoted(line.what.trim());
                format!("{{\"what\":{what},\"state\":\"{mark}\",\"found\":{}{mend}}}", quoted(&line.found))
            });
            format!("{{\"title\":{},\"lines\":[{}]}}", quoted(&section.title), joined(lines))
        });
        let nics = self.nics.iter().map(|nic| {
            let vfs = nic.vfs.map_or("null".to_owned(), |(have, may)| format!("{{\"count\":{have},\"max\":{may}}}"));
            format!(
                "{{\"interface\":{},\"driver\":{},\"address\":{},\"numa_node\":{},\"rx_queues\":{},\"tx_queues\":{},\
                 \"offloads\":[{}],\"af_xdp\":{},\"vfs\":{vfs},\"default_route\":{}}}",
                quoted(&nic.name),
                quoted(&nic.driver),
                quoted(&nic.address),
                nic.numa_node.map_or("null".to_owned(), |node| node.to_string()),
                nic.rx_queues,
                nic.tx_queues,
                joined(nic.offloads.iter().map(|name| quoted(name))),
                quoted(nic.xdp()),
                nic.is_default,
            )
        });
        format!(
            "{{\"version\":{},\"kernel\":{},\"sections\":[{}],\"nics\":[{}]}}\n",
            quoted(env!("CARGO_PKG_VERSION")),
            quoted(&self.kernel),
            joined(sections),
            joined(nics)
        )
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Writes a text behind its heading; what is too long goes on below.
fn folded(out: &mut String, heading: &str, text: &str) {
    let indent = heading.chars().count();
    let mut line = heading.to_owned();
    let mut room = WIDTH.saturating_sub(indent);
    for word in text.split(' ') {
        let len = word.chars().count() + 1;
        if room < len {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            room = WIDTH.saturating_sub(indent);
        }
        line.push_str(word);
        line.push(' ');
        room = room.saturating_sub(len);
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn backends(facts: &Facts) -> Section {
    let probe = &facts.probe;
    let choice = if probe.choice() == io::Backend::Uring { "uring" } else { "epoll" };
    let mut s = Section::new(format!("backends: `--backend auto` takes {choice}"));
    let names = |works: bool| {
        let those = probe.features.iter().filter(move |feature| feature.works == works);
        let text = move |f: &io::Feature| {
            if works { f.name.to_owned() } else { format!("{} (Linux {})", f.name, f.since) }
        };
        those.map(text).collect::<Vec<_>>().join(", ")
    };
    match &probe.refusal {
        None => s.line(Mark::Good, "uring", &format!("works: {}", names(true)), ""),
        Some(refusal) => s.line(Mark::Bad, "uring", &refusal.reason, &refusal.hint),
    }
    if probe.features.iter().any(|feature| !feature.works) {
        s.line(
            Mark::Note,
            "  missing",
            &names(false),
            "a kernel of that release; until then it goes without",
        );
    }
    s.line(Mark::Good, "epoll", "works", "");
    ports::xdp(facts, &mut s);
    ports::dpdk(facts, &mut s);
    s
}

fn limits(facts: &Facts) -> Section {
    let mut r = Section::new("limits of this process");
    let status = facts.read("proc/self/status").unwrap_or_default();
    let seccomp = field(&status, "Seccomp:").unwrap_or("?");
    match seccomp {
        "0" => r.line(Mark::Good, "seccomp", "no filter", ""),
        "2" => {
            let mend = "if uring is refused: allow io_uring_setup, io_uring_enter and io_uring_register in the profile";
            r.line(Mark::Note, "seccomp", "a filter is installed (container)", mend);
        }
        other => r.line(Mark::Note, "seccomp", other, ""),
    }
    let held: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, bit)| facts.capabilities.contains(*bit))
        .map(|(name, _)| *name)
        .collect();
    match held.len() {
        0 => {
            r.line(Mark::Note, "capabilities", "none: enough for the kernel's sockets from port 1024 up", "")
        }
        _ => r.line(Mark::Good, "capabilities", &held.join(", "), ""),
    }
    match facts.memlock {
        None => r.line(Mark::Good, "locked memory", "unlimited", ""),
        Some(bytes) if bytes >= 8 << 20 => r.line(Mark::Good, "locked memory", &show_bytes(bytes), ""),
        Some(bytes) => {
            let mend = "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit";
            r.line(Mark::Note, "locked memory", &show_bytes(bytes), mend);
        }
    }
    // Towpath raises its soft limit to the hard one by itself.
    match facts.files {
        None => r.line(Mark::Good, "open files", "unlimited", ""),
        Some(files) if files >= FILES_MIN => r.line(Mark::Good, "open files", &show_count(files), ""),
        Some(files) => {
            let mend = "ulimit -Hn 1048576 (as root), or LimitNOFILE=1048576 in the unit";
            r.line(Mark::Note, "open files", &format!("{}: few for a node", show_count(files)), mend);
        }
    }
    match facts.number("proc/sys/net/core/somaxconn") {
        Some(backlog) if backlog < 1024 => {
            r.line(Mark::Note, "listen backlog", &backlog.to_string(), "sysctl -w net.core.somaxconn=4096");
        }
        Some(backlog) => r.line(Mark::Good, "listen backlog", &backlog.to_string(), ""),
        None => {}
    }
    r
}

fn cores(facts: &Facts) -> Section {
    let cores = &facts.cores;
    let mut r = Section::new("cores");
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
    let governor = facts.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    match governor.as_deref() {
        None => r.line(Mark::Note, "governor", "none to be seen (virtual machine)", ""),
        Some("performance") => r.line(Mark::Good, "governor", "performance", ""),
        Some(other) => r.line(Mark::Note, "governor", other, "cpupower frequency-set -g performance"),
    }
    if let Some(isolated) = facts.read("sys/devices/system/cpu/isolated").filter(|i| !i.is_empty()) {
        r.line(Mark::Good, "isolated cores", &isolated, "");
    }
    r
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests;
