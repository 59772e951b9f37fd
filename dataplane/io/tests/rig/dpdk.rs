//! Peers of a DPDK port under test: a veth pair into a network namespace, testpmd; and frames for them.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// A veth pair: one end here, the other with an address in a namespace of its own. Gone when dropped.
pub(crate) struct Veth {
    pub(crate) ours: String,
    pub(crate) our_ip: [u8; 4],
    pub(crate) their_ip: [u8; 4],
    pub(crate) their_mac: [u8; 6],
    namespace: String,
}

impl Veth {
    /// `None`, with a line that says why, where it cannot be made.
    pub(crate) fn new() -> Option<Self> {
        let id = std::process::id();
        let (ours, theirs, namespace) =
            (format!("twa{id}"), format!("twb{id}"), format!("towpath-dpdk-{id}"));
        if !ip(&["netns", "add", &namespace]) {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            eprintln!("skipped: network namespaces need root and iproute2");
            return None;
        }
        let their_mac = [2, 0, 0, 0, 0, 0x0b];
        let veth = Self { ours, our_ip: [10, 213, 7, 1], their_ip: [10, 213, 7, 2], their_mac, namespace };
        assert!(ip(&[
            "link",
            "add",
            &veth.ours,
            "type",
            "veth",
            "peer",
            "name",
            &theirs,
            "address",
            "02:00:00:00:00:0b",
            "netns",
            &veth.namespace,
        ]));
        assert!(ip(&["-n", &veth.namespace, "addr", "add", "10.213.7.2/24", "dev", &theirs]));
        assert!(ip(&["-n", &veth.namespace, "link", "set", &theirs, "up"]));
        veth.set_up(true);
        Some(veth)
    }

    pub(crate) fn set_up(&self, up: bool) {
        assert!(ip(&["link", "set", &self.ours, if up { "up" } else { "down" }]));
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        ip(&["link", "del", &self.ours]);
        ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let run = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// `dpdk-testpmd` in a process of its own; ended when dropped.
pub(crate) struct Testpmd {
    child: Child,
}

impl Testpmd {
    /// Returns each frame with its ethernet addresses swapped. `None`, with a line, where there is no testpmd.
    pub(crate) fn macswap(socket: &str) -> Option<Self> {
        let device = format!("--vdev=net_memif0,role=client,socket={socket},socket-abstract=no");
        let prefix = format!("--file-prefix=towpath-peer-{}", std::process::id());
        let spawned = Command::new("dpdk-testpmd")
            .args(["--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry", "--lcores=0@0,1@0"])
            .args([prefix, device])
            .args(["--", "--forward-mode=macswap", "--auto-start", "--total-num-mbufs=4096"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => Some(Self { child }),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "CI installs testpmd: {error}");
                eprintln!("skipped: dpdk-testpmd: {error} (apt-get install dpdk)");
                None
            }
        }
    }

    /// Ends it without farewell, as a peer dies.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it; what it has said.
    pub(crate) fn output(&mut self) -> String {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        self.end();
        let mut said = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            let _ = stdout.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        self.end();
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    [&to[..], &from[..], &ethertype.to_be_bytes()].concat()
}

pub(crate) fn arp_request(mac: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(from);
    frame.extend([0; 6]);
    frame.extend(to);
    frame.resize(60, 0);
    frame
}

pub(crate) fn is_arp_reply(frame: &[u8], from: [u8; 4]) -> bool {
    frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == from
}

/// An ICMP echo request.
pub(crate) fn echo_request(
    mac: [u8; 6],
    to: [u8; 6],
    from_ip: [u8; 4],
    to_ip: [u8; 4],
    number: u16,
) -> Vec<u8> {
    let mut frame = ethernet(to, mac, 0x0800);
    let mut header = vec![0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 1, 0, 0];
    header.extend(from_ip);
    header.extend(to_ip);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    frame.extend(header);
    let mut message = vec![8, 0, 0, 0, 0x77, 0x77];
    message.extend(number.to_be_bytes());
    message.resize(40, 0x5a);
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    frame.extend(message);
    frame
}

pub(crate) fn is_echo_reply(frame: &[u8], number: u16) -> bool {
    frame.len() >= 74
        && frame[12..14] == [8, 0]
        && frame[23] == 1
        && frame[34] == 0
        && frame[38..42] == [&[0x77, 0x77][..], &number.to_be_bytes()].concat()
}

/// A UDP packet over IPv4, 64 bytes with the frame's check sequence.
pub(crate) fn udp(to: [u8; 6], from: [u8; 6], number: u8) -> Vec<u8> {
    let mut frame = ethernet(from, to, 0x0800);
    let mut header = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2];
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    frame.extend(header);
    frame.extend([0x0f, 0xa0, 0, 53, 0, 26, 0, 0]);
    frame.resize(60, number);
    frame
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |&b| b.into())).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
