//! DPDK ports as the shard sees them, against peers that are not ours: the kernel behind a veth pair, testpmd
//! behind a memif. What needs root or testpmd says so and is skipped.
#![cfg(feature = "dpdk")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests"
)]

#[path = "rig/dpdk.rs"]
mod rig;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rig::{
    Tap, Testpmd, Veth, arp_request, echo_request, is_arp_reply, is_echo_reply, is_for_port, is_reset, udp,
};
use shard::{Burst, Device, Steering};
use towpath_io::Poll;
use towpath_io::dpdk::{Config, Memory, Port, Queue, pools, start};

/// Pools are counted over the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    start(&[], Memory::Ordinary { mib: 512 }).unwrap();
    guard
}

fn in_use() -> u32 {
    pools().iter().map(|pool| pool.in_use).sum()
}

fn open(device: &str, config: &Config) -> (Port, Queue) {
    let mut port = Port::open(device, config).unwrap_or_else(|error| panic!("{error}"));
    let queue = port.seat(0).unwrap().open().unwrap();
    (port, queue)
}

/// Sends one frame of these bytes.
fn send(queue: &mut Queue, bytes: &[u8]) {
    let mut frame = queue.frame(bytes.len()).unwrap();
    frame.copy_from_slice(bytes);
    let mut burst = Burst::new();
    burst.push(frame).unwrap();
    queue.tx_burst(&mut burst);
}

/// Waits for a frame that satisfies `wanted`, as a shard waits; others are passed over.
fn receive(queue: &mut Queue, for_ms: u64, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let deadline = queue.now().after(Duration::from_millis(for_ms));
    let mut burst = Burst::new();
    while queue.now() < deadline {
        queue.wait(Some(deadline));
        queue.rx_burst(&mut burst);
        if burst.drain().any(|frame| wanted(&frame)) {
            return true;
        }
    }
    false
}

fn link_becomes(queue: &mut Queue, up: bool) -> bool {
    let deadline = queue.now().after(Duration::from_secs(30));
    while queue.link_up(queue.now()) != up && queue.now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    queue.link_up(queue.now()) == up
}

#[test]
fn a_ring_carries_bursts_and_wakes_its_waiter() {
    let _alone = alone();
    let (port, mut queue) = open("net_ring10", &Config::default());
    assert_eq!(queue.info().steering, Steering::Single);
    let mac = queue.info().mac;
    assert_eq!(mac[0] & 3, 2, "a ring has no address of its own, so one of ours: {mac:02x?}");
    assert!(port.line().contains("1 queue: it does not steer flows"), "{}", port.line());
    let began = queue.now();
    assert!(!receive(&mut queue, 30, |_| true), "nothing was sent");
    assert!(queue.now().since_ns(began) >= 30_000_000, "waits until the time given");
    for n in 0..200_u8 {
        send(&mut queue, &[n; 60]);
        assert!(receive(&mut queue, 1000, |frame| frame == [n; 60]));
    }
    let waker = queue.waker();
    let ringer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        waker.wake();
    });
    let began = queue.now();
    queue.wait(Some(began.after(Duration::from_secs(20))));
    assert!(queue.now().since_ns(began) < 10_000_000_000, "the waker ends a wait");
    ringer.join().unwrap();
    let counters = queue.counters().snapshot();
    assert_eq!((counters.rx_frames, counters.tx_frames), (200, 200));
    assert_eq!((counters.rx_bytes, counters.tx_bytes), (12_000, 12_000));
    assert!(counters.sleeps > 0);
    assert!(queue.frame(queue.info().mtu + 15).is_none());
    assert_eq!(queue.counters().snapshot().frame_oversize, 1);
    drop((port, queue));
    assert_eq!(in_use(), 0);
}

#[test]
fn a_port_carries_jumbo_frames_if_told_to() {
    let _alone = alone();
    let (port, mut queue) = open("net_ring12", &Config { mtu: Some(9000), ..Config::default() });
    assert_eq!(queue.info().mtu, 9000);
    assert!(port.line().contains("mtu 9000"), "{}", port.line());
    let frame: Vec<u8> = (0..9014_u32).map(|at| (at % 251) as u8).collect();
    send(&mut queue, &frame);
    assert!(receive(&mut queue, 1000, |received| received == frame));
    assert!(queue.frame(9015).is_none());
    drop((port, queue));
    assert_eq!(in_use(), 0);
}

#[test]
fn what_the_ring_has_no_room_for_stays_and_empty_pools_are_counted() {
    let _alone = alone();
    let (port, mut queue) = open("net_ring11", &Config { buffers: 64, ..Config::default() });
    // Nobody receives: the ring fills, then frames stay with us, then buffers run out.
    let mut sent = Burst::new();
    let mut numbered = 0_u32;
    loop {
        while sent.room() > 0 {
            let Some(mut frame) = queue.frame(60) else { break };
            frame[..4].copy_from_slice(&numbered.to_be_bytes());
            numbered += 1;
            sent.push(frame).unwrap();
        }
        let before = sent.len();
        queue.tx_burst(&mut sent);
        if sent.len() == before {
            break;
        }
    }
    let kept = sent.len();
    assert!(kept > 0 && queue.counters().snapshot().tx_cut > 0);
    let mut hoard: Vec<_> = core::iter::from_fn(|| queue.frame(60)).collect();
    assert!(queue.frame(60).is_none());
    let missing = queue.counters().snapshot().no_buffer;
    assert!(missing >= 2, "counted: {missing}");
    hoard.clear();
    // All come, in order, once there is room.
    let (mut next, mut got) = (0_u32, Burst::new());
    while next < numbered {
        queue.rx_burst(&mut got);
        for frame in got.drain() {
            assert_eq!(frame[..4], next.to_be_bytes());
            next += 1;
        }
        queue.tx_burst(&mut sent);
    }
    assert!(queue.frame(60).is_some());
    drop((port, queue));
    assert_eq!(in_use(), 0);
}

#[test]
fn a_port_that_steers_gives_each_shard_a_queue() {
    let _alone = alone();
    let config = Config { queues: 3, poll: Poll::Block, ..Config::default() };
    let mut port = Port::open("net_null10,copy=1", &config).unwrap();
    assert_eq!(port.queues(), 3);
    assert!(port.line().contains("3 queues by hash"), "{}", port.line());
    let threads: Vec<_> = (0..3)
        .map(|index| {
            let seat = port.seat(index).unwrap();
            std::thread::spawn(move || {
                let mut queue = seat.open().unwrap();
                let Steering::Hash { queue: own, spread } = queue.info().steering.clone() else {
                    panic!("no spread")
                };
                assert_eq!(own, index);
                let (a, b) = (([10, 7, 0, 1].into(), 4000), ([10, 7, 0, 2].into(), 80));
                assert_eq!(spread.queue(a, b), spread.queue(b, a), "symmetric");
                let mut burst = Burst::new();
                for _ in 0..1000 {
                    queue.rx_burst(&mut burst);
                    queue.tx_burst(&mut burst);
                }
                queue.counters().snapshot().tx_frames
            })
        })
        .collect();
    assert!(port.seat(0).is_none() && port.seat(3).is_none());
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 32_000);
    }
    drop(port);
    assert_eq!(in_use(), 0);
}

#[test]
fn the_kernel_answers_over_af_packet_also_after_the_link_was_down() {
    let _alone = alone();
    let Some(veth) = Veth::new() else { return };
    let (port, mut queue) = open(&format!("net_af_packet10,iface={}", veth.ours), &Config::default());
    let mac = queue.info().mac;
    assert_ne!(mac, [0; 6]);
    let mut asked = false;
    for _ in 0..20 {
        send(&mut queue, &arp_request(mac, veth.our_ip, veth.their_ip));
        asked |= receive(&mut queue, 250, |frame| is_arp_reply(frame, veth.their_ip));
        if asked {
            break;
        }
    }
    assert!(asked, "the kernel answers ARP");
    let ping = echo_request(mac, veth.their_mac, veth.our_ip, veth.their_ip, 1);
    send(&mut queue, &ping);
    assert!(receive(&mut queue, 2000, |frame| is_echo_reply(frame, 1)), "the kernel answers an echo");

    veth.set_up(false);
    let ping = echo_request(mac, veth.their_mac, veth.our_ip, veth.their_ip, 2);
    for _ in 0..100 {
        send(&mut queue, &ping);
    }
    assert!(!receive(&mut queue, 50, |frame| is_echo_reply(frame, 2)), "no link, no answer");
    veth.set_up(true);
    let mut answered = false;
    for number in 3..40 {
        // Its neighbour table was emptied with the link.
        send(&mut queue, &arp_request(mac, veth.our_ip, veth.their_ip));
        send(&mut queue, &echo_request(mac, veth.their_mac, veth.our_ip, veth.their_ip, number));
        answered |= receive(&mut queue, 250, |frame| is_echo_reply(frame, number));
        if answered {
            break;
        }
    }
    assert!(answered, "it works again when the link is back");
    drop((port, queue));
    assert_eq!(in_use(), 0);
}

#[test]
fn a_memif_peer_comes_and_goes() {
    let _alone = alone();
    for (ours, theirs) in [("server", "client"), ("client", "server")] {
        let socket = format!("/tmp/towpath-test-{}-{ours}.sock", std::process::id());
        let device = format!("net_memif10,role={ours},socket={socket},socket-abstract=no");
        if ours == "server" {
            // Left by one that died: nobody listens.
            drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        }
        let (port, mut queue) = open(&device, &Config::default());
        assert!(!queue.link_up(queue.now()), "nobody there yet");
        for round in 0..2 {
            let Some(mut peer) = Testpmd::macswap(&socket, theirs) else { return };
            assert!(link_becomes(&mut queue, true), "{ours} {round}: {}", peer.output());
            assert!(comes_back(&mut queue, round), "{ours} {round}: {}", peer.output());
            peer.end();
            if theirs == "server" {
                // testpmd does not take over the socket of one that was killed.
                std::fs::remove_file(&socket).unwrap();
            }
            assert!(link_becomes(&mut queue, false), "{ours} {round}: the peer has gone");
            // Without a peer frames stay with us.
            let mut burst = Burst::new();
            burst.push(queue.frame(60).unwrap()).unwrap();
            queue.tx_burst(&mut burst);
            assert_eq!(burst.len(), 1);
        }
        drop((port, queue));
        let _ = std::fs::remove_file(socket);
        assert_eq!(in_use(), 0);
    }
}

/// Sends until testpmd, which forwards a moment after it has connected, returns a frame with its addresses swapped
/// and the rest intact.
fn comes_back(queue: &mut Queue, number: u8) -> bool {
    let frame = udp([2; 6], [4; 6], number);
    (0..600).any(|_| {
        send(queue, &frame);
        receive(queue, 50, |got| got[..6] == [2; 6] && got[6..12] == [4; 6] && got[12..] == frame[12..])
    })
}

/// The tap driver takes checksums over: what we leave zero has to be right when the kernel looks, and what the
/// kernel's side gets wrong must not come up.
#[test]
fn checksums_are_the_ports_where_it_takes_them() {
    let _alone = alone();
    let Some(tap) = Tap::new() else { return };
    let (port, mut queue) = open(&format!("net_tap10,iface={}", tap.name), &Config::default());
    assert!(queue.info().checksums.rx && queue.info().checksums.tx, "{:?}", queue.info());
    tap.configure();
    let mac = queue.info().mac;
    for (syn, what) in [(tap.syn(mac, 4), "IPv4"), (tap.syn(mac, 6), "IPv6")] {
        let mut answered = false;
        for _ in 0..40 {
            send(&mut queue, &syn);
            // Port 9 is closed: a segment whose checksums are right draws a reset, any other nothing.
            answered |= receive(&mut queue, 100, is_reset);
            if answered {
                break;
            }
        }
        assert!(answered, "the kernel accepted our {what} checksums");
    }
    assert_eq!(queue.counters().snapshot().rx_bad_checksum, 0);
    tap.send_bad_checksum();
    let deadline = queue.now().after(Duration::from_secs(5));
    while queue.counters().snapshot().rx_bad_checksum == 0 && queue.now() < deadline {
        receive(&mut queue, 20, |frame| {
            assert!(!is_for_port(frame, tap.bad_port()), "a wrong checksum came up");
            false
        });
    }
    assert!(queue.counters().snapshot().rx_bad_checksum > 0, "dropped and counted");
    drop((port, queue));
    assert_eq!(in_use(), 0);
}
