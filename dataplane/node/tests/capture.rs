//! `towpath capture` on a raw port of a running node, read by tcpdump.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Folder, Towpath};

const APP: &str = "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: LoadBalancing\n";
const OURS: &str = "10.79.0.2:15001";

/// Two namespaces with a veth pair between them, gone when dropped.
struct Spaces {
    near: String,
    far: String,
}

fn must(line: &str) {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Spaces {
    /// `None`, after saying so, where they cannot be made; a failure in CI.
    fn new() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "how CI says that it is CI")]
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        let can = rustix::process::geteuid().is_root() && there("ip") && there("ethtool") && there("tcpdump");
        assert!(can || !is_ci, "this test needs root, ip, ethtool and tcpdump");
        if !can {
            println!("skipped: needs root, ip, ethtool and tcpdump");
            return None;
        }
        let stem = format!("tpcap{}", std::process::id());
        let spaces = Self { near: format!("{stem}n"), far: format!("{stem}f") };
        let (near, far) = (&spaces.near, &spaces.far);
        must(&format!("ip netns add {near}"));
        must(&format!("ip netns add {far}"));
        must(&format!("ip link add near0 netns {near} type veth peer name far0 netns {far}"));
        must(&format!("ip -n {far} address add 10.79.0.1/24 dev far0"));
        must(&format!("ip -n {near} link set lo up"));
        must(&format!("ip -n {near} link set near0 up"));
        must(&format!("ip -n {far} link set far0 up"));
        must(&format!("ip netns exec {far} ethtool -K far0 tx off tso off gso off"));
        Some(spaces)
    }

    /// Moves the calling thread, and what it starts, into a namespace.
    fn enter(space: &str) {
        let file = std::fs::File::open(format!("/run/netns/{space}")).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), network).unwrap();
    }

    /// A client at the far end: what the node says to bytes that are no HTTP/2.
    fn visit(&self) -> Vec<u8> {
        let far = self.far.clone();
        let visit = move || {
            Self::enter(&far);
            let mut stream =
                TcpStream::connect_timeout(&OURS.parse().unwrap(), Duration::from_secs(5)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            said
        };
        std::thread::spawn(visit).join().unwrap()
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "delete", space]).status();
        }
    }
}

/// Starts a capture and waits until the port is tapped: then the file begins.
fn begin(node: &Towpath, file: &str, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command.args(["capture", "--port", "fabric", "--admin", &node.socket(), file]).args(more);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begun = (0..500).any(|_| {
        std::thread::park_timeout(Duration::from_millis(10));
        std::fs::metadata(file).is_ok_and(|found| found.len() > 0)
    });
    assert!(begun, "no capture begins");
    child
}

fn end(child: Child) -> String {
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{said}");
    said
}

/// A file as tcpdump shows it, a line for each frame.
fn shown(file: &str) -> Vec<String> {
    let out = Command::new("tcpdump").args(["-nnr", file]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_running_port_is_tapped_with_a_filter_and_no_restart() {
    let Some(spaces) = Spaces::new() else { return };
    Spaces::enter(&spaces.near);
    let folder = Folder::new("capture");
    let app = folder.write("app.adn", APP);
    let port =
        "[[port]]\nname = \"fabric\"\nbackend = \"xdp\"\ndevice = \"near0\"\naddress = \"10.79.0.2/24\"\n";
    let config = folder.write("node.toml", port);
    let more = ["--config", &config, "--backend", "xdp", "--cores", "0", "--listen", OURS];
    let node = Towpath::start(&folder, &app, &more);

    // Until a signal ends it; ARP is not asked for.
    let file = folder.path("tcp.pcapng");
    let capture = begin(&node, &file, &["--filter", "tcp and port 15001"]);
    let said = spaces.visit();
    must(&format!("kill -s INT {}", capture.id()));
    let summary = end(capture);
    let lines = shown(&file);
    assert_eq!(summary, format!("towpath: {} frames in {file}, 0 missed\n", lines.len()));
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(lines[0].contains("> 10.79.0.2.15001: Flags [S],"), "{lines:#?}");
    assert!(has("IP 10.79.0.2.15001 > 10.79.0.1.") && has("Flags [S.],"), "{lines:#?}");
    assert!(has(&format!("length {}", said.len())), "{said:?} is not in {lines:#?}");
    assert!(!has("ARP"), "{lines:#?}");

    // Until there are so many; everything, cut short.
    let file = folder.path("three.pcapng");
    let capture = begin(&node, &file, &["--count", "3", "--snaplen", "60"]);
    spaces.visit();
    assert_eq!(end(capture), format!("towpath: 3 frames in {file}, 0 missed\n"));
    assert_eq!(shown(&file).len(), 3);

    let args = ["capture", "--port", "eth0", "--admin", &node.socket(), &folder.path("none")];
    let done = Towpath::run(&args);
    assert_eq!((done.code, &done.stderr[..]), (1, "towpath: no port `eth0`; this node has fabric\n"));
    let done = Towpath::run(&["capture", "--port", "fabric", "--filter", "tcp or prot 80", "x"]);
    assert!(done.code == 1 && done.stderr.contains("found `prot`"), "{}", done.stderr);
    assert_eq!(node.stop(), Some(0));
}
