//! The tap against a device of this test's own; filters and files against tcpdump and capinfos.

use std::collections::VecDeque;
use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use shard::{Checksums, Steering};

use super::pcapng::{Block, Writer, first_block};
use super::*;

/// Gives what it is told to give, and takes a number of frames a burst.
struct Wire {
    info: DeviceInfo,
    comes: VecDeque<Vec<u8>>,
    takes: usize,
    went: Vec<Vec<u8>>,
    now: u64,
}

impl Device for Wire {
    type Frame = Vec<u8>;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut Burst<Vec<u8>>) {
        self.now += 1000;
        while out.room() > 0
            && let Some(frame) = self.comes.pop_front()
        {
            out.push(frame).unwrap();
        }
    }

    fn frame(&mut self, len: usize) -> Option<Vec<u8>> {
        Some(vec![0; len])
    }

    fn tx_burst(&mut self, frames: &mut Burst<Vec<u8>>) {
        self.now += 1000;
        self.went.extend(frames.drain_front(self.takes));
    }

    fn link_up(&mut self, _: Instant) -> bool {
        true
    }

    fn wait(&mut self, _: Option<Instant>) {}

    fn now(&self) -> Instant {
        Instant(self.now)
    }
}

fn tap() -> (Tap<Wire>, TapHandle) {
    let (mac, checksums) = ([2, 0, 0, 0, 0, 1], Checksums::default());
    let info = DeviceInfo { mac, mtu: 1500, checksums, steering: Steering::Single };
    let handle = TapHandle::default();
    let wire = Wire { info, comes: VecDeque::new(), takes: usize::MAX, went: Vec::new(), now: 0 };
    (Tap::new(wire, &handle), handle)
}

fn receive(tap: &mut Tap<Wire>, frames: impl IntoIterator<Item = Vec<u8>>) {
    tap.inner_mut().comes.extend(frames);
    let mut burst = Burst::new();
    while !tap.inner().comes.is_empty() {
        tap.rx_burst(&mut burst);
        burst.drain();
    }
}

fn spec(filter: &str, snaplen: usize, buffers: usize) -> CaptureSpec {
    CaptureSpec { filter: Filter::parse(filter).unwrap(), snaplen, buffers }
}

/// TCP over IPv4 to this port, so many bytes in all.
fn to_port(port: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[23] = 6;
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame
}

fn drained(capture: &mut Capture) -> Vec<(Direction, usize, usize)> {
    let mut records = Vec::new();
    capture.drain(|record| records.push((record.direction, record.bytes.len(), record.len)));
    records
}

#[test]
fn a_capture_has_both_directions_its_filter_and_its_snaplen() {
    let (mut tap, handle) = tap();
    receive(&mut tap, [to_port(80, 60)]);
    let mut capture = Capture::arm(&[handle], &spec("port 80", 64, 8)).unwrap();
    receive(&mut tap, [to_port(80, 60), to_port(81, 60), to_port(80, 100)]);
    let mut burst = Burst::new();
    burst.push(to_port(80, 70)).unwrap();
    tap.tx_burst(&mut burst);
    assert_eq!(tap.inner().went, [to_port(80, 70)]);
    let (rx, tx) = (Direction::In, Direction::Out);
    assert_eq!(drained(&mut capture), [(rx, 60, 60), (rx, 64, 100), (tx, 64, 70)]);
    assert_eq!((capture.missed(), drained(&mut capture).len()), (0, 0));
}

#[test]
fn a_frame_the_port_did_not_take_is_captured_when_it_does() {
    let (mut tap, handle) = tap();
    let mut capture = Capture::arm(&[handle], &spec("", 64, 8)).unwrap();
    tap.inner_mut().takes = 2;
    let mut burst = Burst::new();
    for len in 60..65 {
        burst.push(to_port(80, len)).unwrap();
    }
    let mut seen = Vec::new();
    for taken in [2, 4, 5, 5] {
        tap.tx_burst(&mut burst);
        seen.extend(drained(&mut capture).into_iter().map(|(_, _, len)| len));
        assert_eq!(seen, (60..60 + taken).collect::<Vec<_>>());
    }
    assert_eq!(tap.inner().went.len(), 5);
}

#[test]
fn frames_beyond_the_buffers_are_counted_as_missed_and_pass_all_the_same() {
    let (mut tap, handle) = tap();
    let mut capture = Capture::arm(&[handle], &spec("port 80", 64, 4)).unwrap();
    receive(&mut tap, (0..10).map(|at| to_port(if at % 2 == 0 { 80 } else { 81 }, 60)));
    assert_eq!((drained(&mut capture).len(), capture.missed()), (4, 1));
    receive(&mut tap, (0..4).map(|_| to_port(80, 60)));
    assert_eq!((drained(&mut capture).len(), capture.missed()), (4, 1), "buffers come back");
    tap.inner_mut().takes = 0;
    let mut burst = Burst::new();
    for _ in 0..9 {
        burst.push(to_port(80, 60)).unwrap();
    }
    tap.tx_burst(&mut burst);
    assert_eq!((drained(&mut capture).len(), capture.missed()), (0, 1), "not sent is not missed");
}

#[test]
fn one_capture_at_a_time_and_none_leaves_anything_behind() {
    let (mut tap, handle) = tap();
    let handles = [handle];
    for round in 0..5 {
        let mut capture = Capture::arm(&handles, &spec("", 64, 8)).unwrap();
        assert!(Capture::arm(&handles, &spec("", 64, 8)).is_none());
        if round % 2 == 0 {
            receive(&mut tap, [to_port(80, 60)]);
            assert_eq!(drained(&mut capture).len(), 1);
        }
    }
    receive(&mut tap, [to_port(80, 60)]);
    assert!(tap.session.is_none(), "buffers are kept after the capture");
}

#[test]
fn a_shard_sees_every_capture_and_never_two() {
    let (mut tap, handle) = tap();
    let stop = Arc::new(AtomicBool::new(false));
    let shard = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                receive(&mut tap, [to_port(80, 60)]);
                std::thread::yield_now();
            }
        })
    };
    for _ in 0..500 {
        let mut capture = Capture::arm(std::slice::from_ref(&handle), &spec("", 64, 8)).unwrap();
        while capture.drain(|_| {}) == 0 {
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    shard.join().unwrap();
}

#[test]
fn a_filter_that_cannot_be_read_says_where_and_what_was_expected() {
    for (text, at, expected) in [
        ("tpc", 0, "tcp, udp,"),
        ("tcp and", 7, "found the end"),
        ("tcp port 80", 4, "`and`, `or` or the end, found `port`"),
        ("port http", 5, "a port, 0 to 65535, found `http`"),
        ("port 65536", 5, "a port"),
        ("host 10.7.0", 5, "an address"),
        ("net 10.7.0.0/33", 4, "a network, as 10.7.0.0/24"),
        ("(tcp or udp", 11, "`)`, found the end"),
        ("tcp) or udp", 3, "found `)`"),
        ("src tcp", 4, "host, net or port, found `tcp`"),
    ] {
        let error = Filter::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
    let deep = "not ".repeat(100);
    assert!(Filter::parse(&deep).unwrap_err().expected.contains("at most 32"));
    assert!(Filter::parse(&"tcp or ".repeat(200)).is_err());
    assert!(Filter::parse("  ").unwrap().matches(&[]));
}

proptest! {
    #[test]
    fn any_text_and_any_frame_are_safe(text in "[a-z0-9 ()/.:é]{0,80}", frame in any::<Vec<u8>>()) {
        if let Ok(filter) = Filter::parse(&text) {
            filter.matches(&frame);
        }
        for test in ["tcp", "port 80", "host 10.0.0.1 or net fd00::/8", "not icmp6"] {
            Filter::parse(test).unwrap().matches(&frame);
        }
    }
}

/// A well-formed frame: each protocol, few addresses and ports.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let transport = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(132), Just(44)];
    let fragment = prop_oneof![4 => Just(0_u16), 1 => Just(0x2000), 1 => Just(0x2010)];
    (0..3_u8, transport, fragment, [1..4_u8, 1..4_u8], [79..82_u16, 79..82_u16], 0..60_usize).prop_map(
        |(network, transport, fragment, [from, to], [source, target], more)| {
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            let ports = [source.to_be_bytes(), target.to_be_bytes()].concat();
            match network {
                0 => {
                    frame.extend([8, 0, 0x45, 0, 0, 40]);
                    let [high, low] = fragment.to_be_bytes();
                    frame.extend([0, 0, high, low, 64, transport, 0, 0]);
                    frame.extend([10, 7, 0, from, 10, 7, 1, to]);
                    frame.extend(ports);
                }
                1 => {
                    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, transport, 64]);
                    for end in [from, to] {
                        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
                    }
                    frame.extend(if transport == 44 { vec![6, 0, 0, 0, 0, 0, 0, 1] } else { ports });
                }
                _ => {
                    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 7, 0, from]);
                    frame.extend([0, 0, 0, 0, 0, 0, 10, 7, 1, to]);
                }
            }
            frame.resize(frame.len() + 20 + more, 0x77);
            frame
        },
    )
}

fn filters() -> impl Strategy<Value = String> {
    let side = prop_oneof![Just(""), Just("src "), Just("dst ")];
    let words = ["tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "tcp"];
    let test = prop_oneof![
        (0..words.len()).prop_map(move |at| words[at].to_owned()),
        (side.clone(), 79..82).prop_map(|(side, port)| format!("{side}port {port}")),
        (side.clone(), 0..2, 1..4).prop_map(|(side, net, end)| format!("{side}host 10.7.{net}.{end}")),
        (side.clone(), 1..4).prop_map(|(side, end)| format!("{side}host fd00::{end}")),
        (side, 22..=24).prop_map(|(side, bits)| format!("{side}net 10.7.0.0/{bits}")),
    ];
    test.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|test| format!("not {test}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a} or {b})")),
        ]
    })
}

/// A file with these frames, the even ones received, a second and a nanosecond apart.
fn file(frames: &[Vec<u8>], snaplen: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = Writer::begin(&mut bytes, "fabric", "tcp and port 80", snaplen, 1_700_000_000_000_000_000);
    let mut record = Record { at: Instant(0), direction: Direction::In, bytes: Vec::new(), len: 0 };
    for (frame, at) in frames.iter().zip(0_u64..) {
        let direction = if at % 2 == 0 { Direction::In } else { Direction::Out };
        record.fill(Instant(at * 1_000_000_001), direction, frame, snaplen);
        writer.frame(&mut bytes, &record);
    }
    writer.end(&mut bytes, 9_000_000_000, frames.len() as u64 + 7, 7);
    bytes
}

/// Runs a program on a file; `None`, after saying so, where it is not installed.
fn read_by(program: &str, bytes: &[u8], args: &[&str]) -> Option<String> {
    let name = format!("towpath-{}-{:?}.pcapng", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).unwrap();
    let args: Vec<&str> =
        args.iter().map(|arg| if *arg == "FILE" { path.to_str().unwrap() } else { arg }).collect();
    let out = Command::new(program).args(args).output();
    std::fs::remove_file(&path).unwrap();
    let Ok(out) = out else {
        #[expect(clippy::disallowed_methods, reason = "how CI says that it is CI")]
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
        // Wireshark's programs are large; CI has tcpdump.
        assert!(program != "tcpdump" || !is_ci, "this test needs tcpdump");
        println!("SKIPPED: {program} is not installed");
        return None;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn filters_choose_what_tcpdump_chooses() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut some = |_| frames().new_tree(&mut runner).unwrap().current();
    let frames: Vec<Vec<u8>> = (0..300).map(&mut some).collect();
    let bytes = file(&frames, 65_535);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut partial = 0;
    for _ in 0..120 {
        let text = filters().new_tree(&mut runner).unwrap().current();
        let filter = Filter::parse(&text).unwrap();
        let ours: Vec<u64> =
            frames.iter().zip(0..).filter(|(f, _)| filter.matches(f)).map(|(_, at)| at).collect();
        let Some(out) = read_by("tcpdump", &bytes, &["-O", "-nn", "-tt", "-r", "FILE", &text]) else {
            return;
        };
        let theirs: Vec<u64> = out
            .lines()
            .filter_map(|line| line.split('.').next()?.parse::<u64>().ok())
            .map(|second| second - 1_700_000_000)
            .collect();
        assert_eq!(ours, theirs, "{text}");
        partial += u32::from(!ours.is_empty() && ours.len() < frames.len());
    }
    assert!(partial > 60, "only {partial} filters chose some frames and not others");
}

#[test]
fn others_read_times_directions_lengths_and_losses() {
    let frames = [to_port(80, 60), to_port(80, 100)];
    let bytes = file(&frames, 64);
    let fields = "frame.time_epoch frame.len frame.cap_len frame.interface_name frame.packet_flags_direction";
    let mut args = vec!["-r", "FILE", "-T", "fields"];
    args.extend(fields.split(' ').flat_map(|field| ["-e", field]));
    if let Some(out) = read_by("tshark", &bytes, &args) {
        let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines[0][..4], ["1700000000.000000000", "60", "60", "fabric"]);
        assert_eq!(lines[1][..4], ["1700000001.000000001", "100", "64", "fabric"]);
        let direction =
            |line: usize| lines[line][4].trim_start_matches("0x").trim_start_matches('0').to_owned();
        assert_eq!((direction(0), direction(1)), ("1".to_owned(), "2".to_owned()));
    }
    if let Some(out) = read_by("capinfos", &bytes, &["FILE"]) {
        assert!(out.contains("Number of packets:   2"), "{out}");
        assert!(out.contains("Capture filter = tcp and port 80") || out.contains("tcp and port 80"), "{out}");
    }
}

#[test]
fn a_stream_of_blocks_is_followed_whatever_it_is_cut_into() {
    let bytes = file(&[to_port(80, 61), to_port(80, 62)], 64);
    let (mut at, mut blocks) = (0, Vec::new());
    while at < bytes.len() {
        let whole = (0..).find(|&len| first_block(&bytes[at..bytes.len().min(at + len)]).unwrap().is_some());
        let (block, len) = first_block(&bytes[at..]).unwrap().unwrap();
        assert_eq!(whole, Some(len), "a block is taken when its last byte has come");
        blocks.push(block);
        at += len;
    }
    assert_eq!(blocks, [Block::Other, Block::Other, Block::Frame, Block::Frame, Block::End { missed: 7 }]);
    assert!(first_block(b"HTTP/1.1 200 OK").is_err());
}
