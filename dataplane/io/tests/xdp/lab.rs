//! Two network namespaces with a veth pair between them, gone when dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shard::{Burst, Device};
use towpath_io::xdp::{Frame, Mode, Port, PortConfig, Queue};

/// The far end's addresses; its kernel's.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The near kernel's.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// The port's.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The interface in the near namespace.
pub(crate) const NEAR_IF: &str = "near0";
/// The interface in the far namespace.
pub(crate) const FAR_IF: &str = "far0";

pub(crate) struct Lab {
    pub(crate) near: String,
    pub(crate) far: String,
}

/// Runs a command to its end.
pub(crate) fn run(line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn must(line: &str) {
    let out = run(line);
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Lab {
    /// With so many queues at each end; `None`, after saying so, without root, `ip` or `ethtool`. A failure in CI.
    pub(crate) fn new(queues: u32) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        #[expect(clippy::disallowed_methods, reason = "how CI says that it is CI")]
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
        let can = rustix::process::geteuid().is_root() && there("ip") && there("ethtool");
        assert!(can || !is_ci, "this test needs root, ip and ethtool");
        if !can {
            println!("SKIPPED: needs root, ip and ethtool");
            return None;
        }
        let stem = format!("tpx{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { near: format!("{stem}n"), far: format!("{stem}f") };
        let (near, far) = (&lab.near, &lab.far);
        for line in [
            format!("ip netns add {near}"),
            format!("ip netns add {far}"),
            format!(
                "ip link add {NEAR_IF} netns {near} numtxqueues {queues} numrxqueues {queues} type veth \
                 peer name {FAR_IF} netns {far} numtxqueues {queues} numrxqueues {queues}"
            ),
            format!("ip -n {near} address add {NEAR}/24 dev {NEAR_IF}"),
            format!("ip -n {far} address add {FAR}/24 dev {FAR_IF}"),
            format!("ip -n {near} address add fd77::254/64 dev {NEAR_IF} nodad"),
            format!("ip -n {far} address add fd77::1/64 dev {FAR_IF} nodad"),
            format!("ip -n {near} link set {NEAR_IF} up"),
            format!("ip -n {far} link set {FAR_IF} up"),
            // A veth passes checksums on uncomputed.
            format!("ip netns exec {far} ethtool -K {FAR_IF} tx off tso off gso off"),
            format!("ip netns exec {near} ethtool -K {NEAR_IF} tx off tso off gso off"),
        ] {
            must(&line);
        }
        // Nobody answers ARP for us in these tests unless they say so.
        let mac = lab.mac(near, NEAR_IF);
        must(&format!("ip -n {far} neighbour add {OURS} lladdr {mac} dev {FAR_IF}"));
        Some(lab)
    }

    pub(crate) fn mac(&self, space: &str, interface: &str) -> String {
        let line = format!("ip netns exec {space} cat /sys/class/net/{interface}/address");
        String::from_utf8(run(&line).stdout).unwrap().trim().to_owned()
    }

    /// Runs `ip` in the near namespace.
    pub(crate) fn ip(&self, what: &str) {
        must(&format!("ip -n {} {what}", self.near));
    }

    /// The near interface as `ip` prints it.
    pub(crate) fn link(&self) -> String {
        let line = format!("ip -n {} -d link show {NEAR_IF}", self.near);
        String::from_utf8(run(&line).stdout).unwrap()
    }

    /// Moves the calling thread into a namespace.
    pub(crate) fn enter(space: &str) {
        let file = std::fs::File::open(format!("/run/netns/{space}")).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), network).unwrap();
    }

    /// A port on the near interface, opened by a thread that is in its namespace from then on.
    pub(crate) fn open(&self, config: &PortConfig) -> Queue {
        Self::enter(&self.near);
        let port = Port::open(config).unwrap_or_else(|error| panic!("{error}"));
        println!("{}", port.description());
        port.into_queues().pop().unwrap().start()
    }

    /// What a thread in the far namespace does.
    pub(crate) fn at_far<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let far = self.far.clone();
        std::thread::spawn(move || {
            Self::enter(&far);
            work()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in [&self.near, &self.far] {
            run(&format!("ip netns delete {space}"));
        }
    }
}

/// A socket call with a time limit, which a machine that is put to sleep for a moment ends early.
pub(crate) fn undisturbed<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(crate) fn config(mode: Mode) -> PortConfig {
    PortConfig { mode, ..PortConfig::new(NEAR_IF, &[IpAddr::V4(OURS)]) }
}

/// Turns with the device until `done`, handing over each frame; panics after five seconds.
#[expect(clippy::disallowed_methods, reason = "a test needs a deadline")]
pub(crate) fn serve(
    queue: &mut Queue,
    what: &str,
    mut on_frame: impl FnMut(&mut Queue, Frame),
    mut done: impl FnMut() -> bool,
) {
    let (mut burst, start) = (Burst::new(), Instant::now());
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "waited in vain for {what}: {:?}",
            queue.counters()
        );
        queue.rx_burst(&mut burst);
        let idle = burst.is_empty();
        let frames: Vec<Frame> = burst.drain().collect();
        frames.into_iter().for_each(|frame| on_frame(queue, frame));
        if idle {
            let until = queue.now().after_ns(10_000_000);
            queue.wait(Some(until));
        }
    }
}

/// Sends an IPv4 packet back where it came from, checksums as they are: all sums are of the same words.
pub(crate) fn reflect(queue: &mut Queue, mut frame: Frame) {
    if frame.len() < 42 || frame[12..14] != [8, 0] {
        return;
    }
    swap(&mut frame, 0, 6, 6);
    swap(&mut frame, 26, 30, 4);
    swap(&mut frame, 34, 36, 2);
    let mut burst = Burst::new();
    assert!(burst.push(frame).is_ok());
    queue.tx_burst(&mut burst);
    assert!(burst.is_empty());
}

fn swap(frame: &mut [u8], a: usize, b: usize, len: usize) {
    (0..len).for_each(|at| frame.swap(a + at, b + at));
}
