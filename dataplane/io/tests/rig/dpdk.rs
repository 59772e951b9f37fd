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

/// The kernel's side of a tap port.
pub(crate) struct Tap {
    pub(crate) name: String,
}

const OUR_V4: [u8; 4] = [10, 214, 7, 1];
const THEIR_V4: [u8; 4] = [10, 214, 7, 2];
const OUR_V6: [u8; 16] = [0xfd, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const THEIR_V6: [u8; 16] = [0xfd, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// The kernel's port that is closed.
const CLOSED: u16 = 9;

impl Tap {
    /// `None`, with a line that says why, where there can be none.
    pub(crate) fn new() -> Option<Self> {
        let usable = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
        if let Err(error) = usable {
            eprintln!("skipped: /dev/net/tun: {error}");
            return None;
        }
        Some(Self { name: format!("twt{}", std::process::id()) })
    }

    /// Gives the kernel its addresses, and ours as neighbours.
    pub(crate) fn configure(&self) {
        let ours = "02:00:00:00:00:0c";
        for arguments in [
            ["addr", "add", "10.214.7.2/24", "dev", &self.name].as_slice(),
            &["addr", "add", "fd0d::2/64", "dev", &self.name, "nodad"],
            &["link", "set", &self.name, "up"],
            &["neigh", "replace", "10.214.7.1", "lladdr", ours, "dev", &self.name],
            &["neigh", "replace", "fd0d::1", "lladdr", ours, "dev", &self.name],
        ] {
            assert!(ip(arguments), "ip {arguments:?}");
        }
    }

    /// A SYN to a closed port, its checksums zero.
    pub(crate) fn syn(&self, kernel: [u8; 6], version: u8) -> Vec<u8> {
        let (ethertype, header) = if version == 4 {
            let fixed = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            (0x0800, [&fixed[..], &OUR_V4, &THEIR_V4].concat())
        } else {
            (0x86dd, [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &OUR_V6, &THEIR_V6].concat())
        };
        // The tap's two ends have one ethernet address.
        let mut frame = ethernet(kernel, [2, 0, 0, 0, 0, 0x0c], ethertype);
        frame.extend(header);
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(CLOSED.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 0x02, 0x20, 0, 0, 0, 0, 0]);
        frame
    }

    /// Where `send_bad_checksum` sends to.
    pub(crate) fn bad_port(&self) -> u16 {
        4321
    }

    /// UDP by a raw socket of the kernel's side, with a checksum that is wrong.
    pub(crate) fn send_bad_checksum(&self) {
        let script = "import socket, struct\n\
                      s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)\n\
                      for _ in range(5): s.sendto(struct.pack('!4H', 1234, 4321, 12, 0x1234) + b'abcd', \
                      ('10.214.7.1', 0))";
        let done = Command::new("python3").args(["-c", script]).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

/// True for a TCP segment with RST from the closed port.
pub(crate) fn is_reset(frame: &[u8]) -> bool {
    let l4 = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.get(23) == Some(&6) => 34,
        Some([0x86, 0xdd]) if frame.get(20) == Some(&6) => 54,
        _ => return false,
    };
    frame.get(l4..l4 + 2) == Some(&CLOSED.to_be_bytes()[..]) && frame.get(l4 + 13).is_some_and(|f| f & 4 != 0)
}

/// True for a UDP packet over IPv4 to this port.
pub(crate) fn is_for_port(frame: &[u8], port: u16) -> bool {
    frame.get(12..14) == Some(&[8, 0][..])
        && frame.get(23) == Some(&17)
        && frame.get(36..38) == Some(&port.to_be_bytes()[..])
}

/// `dpdk-testpmd` in a process of its own; ended when dropped.
pub(crate) struct Testpmd {
    child: Child,
}

impl Testpmd {
    /// Returns each frame with its ethernet addresses swapped. `None`, with a line, where there is no testpmd.
    pub(crate) fn macswap(socket: &str, role: &str) -> Option<Self> {
        let device = format!("--vdev=net_memif0,role={role},socket={socket},socket-abstract=no");
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
