//! AF_XDP ports on a veth pair, by effect: what the kernel at the other end sees.
//!
//! Needs root, `ip` and `ethtool`; skips with a line otherwise.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod lab;

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shard::{Burst, Device, Steering};
use towpath_io::xdp::{Chunks, Frame, Mode, OpenError, Port, PortConfig, Queue};

use lab::{FAR, FAR_IF, Lab, NEAR, NEAR_IF, OURS, config, reflect, run, serve, undisturbed};

/// A datagram of each of these lengths comes back as it was sent.
fn ping_pong(lab: &Lab, queue: &mut Queue, to: IpAddr, lengths: Vec<usize>) {
    let far = lab.at_far(move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buffer = [0; 2048];
        for (len, seed) in lengths.into_iter().zip(0_u8..) {
            let start = seed.wrapping_mul(31);
            let sent: Vec<u8> = (start..=255).chain(0..=255).cycle().take(len).collect();
            socket.send_to(&sent, (to, 7)).unwrap();
            let (len, from) = undisturbed(|| socket.recv_from(&mut buffer)).unwrap();
            assert_eq!((&buffer[..len], from.ip()), (&sent[..], to));
        }
    });
    serve(queue, "echoes", reflect, || far.is_finished());
    far.join().unwrap();
}

fn conserved(chunks: Chunks) {
    assert_eq!(chunks.free + chunks.held + chunks.rx + chunks.tx, chunks.total, "{chunks:?}");
}

/// All chunks but those the kernel receives into are free again: sent frames are given back.
fn returned(queue: &mut Queue) {
    for _ in 0..100 {
        let chunks = queue.chunks();
        conserved(chunks);
        if chunks.held == 0 && chunks.tx == 0 {
            return;
        }
        queue.wait(Some(queue.now().after_ns(10_000_000)));
    }
    panic!("chunks are gone: {:?}", queue.chunks());
}

#[test]
fn frames_come_and_go_whole_in_every_mode() {
    for mode in [Mode::Skb, Mode::Drv, Mode::Auto] {
        let Some(lab) = Lab::new(1) else { return };
        let mut queue = lab.open(&config(mode));
        assert_eq!((queue.info().mtu, &queue.info().steering), (1500, &Steering::Single));
        assert!(queue.link_up(queue.now()));
        ping_pong(&lab, &mut queue, OURS.into(), vec![0, 1, 17, 18, 19, 100, 600, 1471, 1472]);
        let counters = queue.counters();
        assert_eq!((counters.rx_frames, counters.tx_frames), (9, 9), "{counters:?}");
        assert_eq!(counters.rx_bytes, counters.tx_bytes);
        returned(&mut queue);
    }
}

/// Whether the near kernel answers a datagram to a port nobody has, as kernels do: by refusing it.
fn kernel_answers(to: IpAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect((to, 9)).unwrap();
    socket.send(b"anyone?").unwrap();
    let answer = undisturbed(|| socket.recv(&mut [0; 8]));
    answer.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused
}

#[test]
fn what_is_not_ours_stays_with_the_kernel() {
    let Some(lab) = Lab::new(1) else { return };
    for mode in [Mode::Skb, Mode::Drv] {
        let mut queue = lab.open(&config(mode));
        for (to, answers) in [(NEAR.into(), true), ("fd77::254".parse().unwrap(), true), (OURS.into(), false)]
        {
            assert_eq!(lab.at_far(move || kernel_answers(to)).join().unwrap(), answers, "{mode}: {to}");
        }
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        let frames: Vec<_> = burst.drain().collect();
        assert_eq!(frames.len(), 1, "the datagram to us, and neither ARP nor those to others");
        assert_eq!(frames[0][30..34], OURS.octets());
    }
}

#[test]
fn a_request_for_our_address_comes_to_us_alone() {
    let Some(lab) = Lab::new(1) else { return };
    let addresses = [IpAddr::from([10, 77, 0, 3]), "fd77::3".parse().unwrap()];
    let mut queue = lab.open(&PortConfig::new(NEAR_IF, &addresses));
    for (to, about) in addresses.into_iter().zip([38..42, 62..78]) {
        let far = lab.at_far(move || kernel_answers(to));
        let mut asked = false;
        let octets = match to {
            IpAddr::V4(to) => to.octets().to_vec(),
            IpAddr::V6(to) => to.octets().to_vec(),
        };
        let heard = |_: &mut Queue, frame: Frame| asked |= frame.get(about.clone()) == Some(&octets[..]);
        serve(&mut queue, "a request", heard, || far.is_finished());
        assert!(asked, "no ARP or neighbour solicitation for {to}");
        assert!(!far.join().unwrap());
    }
}

#[test]
fn a_shared_address_is_ours_for_our_ports_only_and_answers_to_arp_reach_both() {
    let Some(lab) = Lab::new(1) else { return };
    Lab::enter(&lab.near);
    let ours = PortConfig::new(NEAR_IF, &[IpAddr::V4(NEAR)]);
    let refused = Port::open(&ours).unwrap_err();
    assert!(matches!(refused, OpenError::KernelsAddress { .. }), "{refused}");
    let mut queue = lab.open(&PortConfig { ports: vec![15_000..=15_999], ..ours });
    // The kernel refuses one port; the other is ours, and silent.
    let connect = |port: u16| {
        lab.at_far(move || std::net::TcpStream::connect_timeout(&(NEAR, port).into(), Duration::from_secs(1)))
    };
    let (mut syns, there) = (Vec::new(), connect(14_999));
    let other = connect(15_001);
    serve(
        &mut queue,
        "connects",
        |_, frame| syns.push(frame[36..38].to_vec()),
        || there.is_finished() && other.is_finished(),
    );
    assert_eq!(there.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(other.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(!syns.is_empty() && syns.iter().all(|port| port[..] == 15_001_u16.to_be_bytes()), "{syns:?}");
    // We ask who has the far address; the far kernel answers, the near one does not see the question.
    let mac = queue.info().mac;
    let mut request = queue.frame(42).unwrap();
    request.fill(0);
    request[..6].fill(0xff);
    request[6..12].copy_from_slice(&mac);
    request[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request[22..28].copy_from_slice(&mac);
    request[28..32].copy_from_slice(&NEAR.octets());
    request[38..42].copy_from_slice(&FAR.octets());
    let mut burst = Burst::new();
    assert!(burst.push(request).is_ok());
    queue.tx_burst(&mut burst);
    let answered = AtomicBool::new(false);
    let heard = |_: &mut Queue, frame: Frame| {
        if frame[12..14] == [8, 0] {
            // The far kernel sends its SYN again just when its connect gives up.
            return assert_eq!(frame[36..38], 15_001_u16.to_be_bytes());
        }
        assert_eq!(
            (&frame[12..14], &frame[20..22], &frame[28..32]),
            (&[8, 6][..], &[0, 2][..], &FAR.octets()[..])
        );
        answered.store(true, Ordering::Relaxed);
    };
    serve(&mut queue, "an answer", heard, || answered.load(Ordering::Relaxed));
    // And all but TCP is the kernel's business.
    assert!(lab.at_far(|| kernel_answers(NEAR.into())).join().unwrap());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no shard is running here")]
fn an_advertisement_for_a_shared_ipv6_address_reaches_both_too() {
    let Some(lab) = Lab::new(1) else { return };
    let (ours, far): (Ipv6Addr, Ipv6Addr) = ("fd77::254".parse().unwrap(), "fd77::1".parse().unwrap());
    let mut queue =
        lab.open(&PortConfig { ports: vec![15_000..=15_999], ..PortConfig::new(NEAR_IF, &[ours.into()]) });
    let (mac, group) = (queue.info().mac, "ff02::1:ff00:1".parse::<Ipv6Addr>().unwrap());
    let mut solicitation = queue.frame(86).unwrap();
    solicitation.fill(0);
    solicitation[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1]);
    solicitation[6..12].copy_from_slice(&mac);
    solicitation[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    solicitation[22..38].copy_from_slice(&ours.octets());
    solicitation[38..54].copy_from_slice(&group.octets());
    solicitation[54] = 135;
    solicitation[62..78].copy_from_slice(&far.octets());
    solicitation[78..80].copy_from_slice(&[1, 1]);
    solicitation[80..86].copy_from_slice(&mac);
    // The sum of addresses, length, protocol and message, in ones' complement.
    let words = solicitation[22..86].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>() + 32 + 58;
    let sum = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    solicitation[56..58].copy_from_slice(&(!folded).to_be_bytes());
    // As a resolver does: the far end may not listen to the group yet.
    for _ in 0..10 {
        let mut again = queue.frame(86).unwrap();
        again.copy_from_slice(&solicitation);
        let mut burst = Burst::new();
        assert!(burst.push(again).is_ok());
        queue.tx_burst(&mut burst);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(solicitation);
    let answered = Cell::new(false);
    let heard = |_: &mut Queue, frame: Frame| {
        assert_eq!((frame[20], frame[54], &frame[62..78]), (58, 136, &far.octets()[..]));
        answered.set(true);
    };
    serve(&mut queue, "an advertisement", heard, || answered.get());
}

/// Holds a port until it is killed: run by the test below, in a process of its own.
#[test]
#[ignore = "the child of another test"]
#[expect(clippy::disallowed_methods, reason = "the parent says where")]
fn hold() {
    let Ok(space) = std::env::var("TOWPATH_TEST_NETNS") else { return };
    Lab::enter(&space);
    let port = Port::open(&config(Mode::Auto)).unwrap();
    println!("open");
    std::thread::park();
    drop(port);
}

#[test]
fn a_killed_process_leaves_nothing_at_the_interface() {
    let Some(lab) = Lab::new(1) else { return };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["hold", "--exact", "--ignored", "--nocapture"])
        .env("TOWPATH_TEST_NETNS", &lab.near)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("open")), "the child did not open the port");
    assert!(lab.link().contains("prog/xdp"), "{}", lab.link());
    Lab::enter(&lab.near);
    let taken = Port::open(&config(Mode::Auto)).unwrap_err();
    assert!(matches!(taken, OpenError::ProgramTaken { .. }), "{taken}");
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel takes a dead process's descriptors down a little later.
    let gone = (0..100).any(|_| {
        std::thread::park_timeout(Duration::from_millis(20));
        !lab.link().contains("prog/xdp")
    });
    assert!(gone, "{}", lab.link());
    drop(lab.open(&config(Mode::Auto)));
    assert!(!lab.link().contains("prog/xdp"), "a port that is closed leaves its program");
}

#[test]
fn an_interface_that_goes_down_comes_back() {
    for mode in [Mode::Skb, Mode::Drv] {
        let Some(lab) = Lab::new(1) else { return };
        let mut queue = lab.open(&config(mode));
        ping_pong(&lab, &mut queue, OURS.into(), vec![100]);
        lab.ip(&format!("link set {NEAR_IF} down"));
        queue.wait(Some(queue.now().after_ns(20_000_000)));
        assert!(!queue.link_up(queue.now()));
        // Sending meanwhile neither fails nor loses chunks: frames stay with the ring or the caller.
        let mut burst = Burst::new();
        for _ in 0..200 {
            while burst.room() > 0
                && let Some(mut frame) = queue.frame(60)
            {
                frame.fill(0);
                assert!(burst.push(frame).is_ok());
            }
            queue.tx_burst(&mut burst);
            conserved(queue.chunks());
        }
        drop(burst);
        lab.ip(&format!("link set {NEAR_IF} up"));
        // A carrier takes the kernel up to a second.
        let up = (0..100).any(|_| {
            queue.wait(Some(queue.now().after_ns(20_000_000)));
            queue.link_up(queue.now())
        });
        assert!(up, "the link did not come back");
        // The far kernel forgot its static neighbour when its carrier went.
        let mac = lab.mac(&lab.near, NEAR_IF);
        run(&format!("ip -n {} neighbour replace {OURS} lladdr {mac} dev {FAR_IF}", lab.far));
        ping_pong(&lab, &mut queue, OURS.into(), vec![100, 1000]);
        returned(&mut queue);
    }
}

#[test]
fn frames_too_short_or_too_long_harm_nobody() {
    let Some(lab) = Lab::new(1) else { return };
    let mut queue = lab.open(&config(Mode::Drv));
    assert!(queue.frame(1514).is_some() && queue.frame(1515).is_none());
    let mut short = queue.frame(13).unwrap();
    short.fill(0);
    let mut burst = Burst::new();
    assert!(burst.push(short).is_ok());
    queue.tx_burst(&mut burst);
    let counters = queue.counters();
    assert_eq!((counters.tx_refused, counters.frames_refused, counters.tx_frames), (1, 1, 0));
    // Frames of every length up to one the near interface still lets in, from a port at the far end.
    run(&format!("ip -n {} link set {FAR_IF} mtu 1504", lab.far));
    let mac = queue.info().mac;
    let far = lab.at_far(move || {
        let far = PortConfig::new(FAR_IF, &[Ipv4Addr::new(10, 77, 0, 9).into()]);
        let mut far = Port::open(&far).unwrap().into_queues().pop().unwrap().start();
        let mut burst = Burst::new();
        for len in 14..=1518 {
            let mut frame = far.frame(len).unwrap();
            frame.fill(0x5a);
            frame[..6].copy_from_slice(&mac);
            if len >= 34 {
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[30..34].copy_from_slice(&OURS.octets());
            }
            assert!(burst.push(frame).is_ok());
            far.tx_burst(&mut burst);
            assert!(burst.is_empty());
        }
        returned(&mut far);
    });
    // Those shorter than an IPv4 header are the kernel's.
    let (mut next, taken) = (34, Cell::new(0));
    let count = |_: &mut Queue, frame: Frame| {
        assert_eq!(
            (frame.len(), frame[frame.len() - 1]),
            (next, if next == 34 { OURS.octets()[3] } else { 0x5a })
        );
        next += 1;
        taken.set(taken.get() + 1);
    };
    serve(&mut queue, "all lengths", count, || taken.get() == 1518 - 33);
    far.join().unwrap();
    returned(&mut queue);
}

#[test]
fn one_shard_serves_all_receive_queues() {
    for mode in [Mode::Skb, Mode::Drv] {
        let Some(lab) = Lab::new(4) else { return };
        let several = PortConfig { shards: 4, ..config(mode) };
        Lab::enter(&lab.near);
        let port = Port::open(&several).unwrap();
        assert!(port.description().contains("4 receive queues, 1 shard (the driver does not tell"));
        let mut queues = port.into_queues();
        assert_eq!((queues.len(), &queues[0].info().steering), (1, &Steering::Single));
        let mut queue = queues.pop().unwrap().start();
        // Many flows: the veth spreads them by a hash nobody knows, and by the sender's CPU.
        for _ in 0..20 {
            ping_pong(&lab, &mut queue, OURS.into(), vec![10, 20]);
        }
        assert_eq!(queue.counters().rx_frames, 40);
        returned(&mut queue);
    }
}

/// Sends a copy of a received datagram back in a frame of its own, as a stack does: the received one is dropped.
fn answer(queue: &mut Queue, received: Frame) {
    let mut frame = queue.frame(received.len()).expect("a chunk to send from");
    frame.copy_from_slice(&received);
    drop(received);
    reflect(queue, frame);
}

#[test]
fn a_shard_with_many_receive_queues_hears_each_and_can_send() {
    for mode in [Mode::Skb, Mode::Drv] {
        let Some(lab) = Lab::new(8) else { return };
        let mut queue = lab.open(&config(mode));
        // Its first frames are its own: announcements and ARP.
        let first: Vec<Frame> = (0..2048).map_while(|_| queue.frame(60)).collect();
        assert_eq!(first.len(), 2048, "{:?}", queue.chunks());
        drop(first);
        // Flows enough for each receive queue to have some; what they bring is answered out of free chunks.
        let far = lab.at_far(|| {
            let sockets: Vec<_> = (0..64).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
            let mut unanswered = 0;
            for socket in &sockets {
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                socket.send_to(&[1; 100], (OURS, 7)).unwrap();
            }
            for socket in &sockets {
                unanswered += u32::from(undisturbed(|| socket.recv(&mut [0; 100])).is_err());
            }
            unanswered
        });
        serve(&mut queue, "answers", answer, || far.is_finished());
        assert_eq!(far.join().unwrap(), 0, "{mode}: {:?}", queue.chunks());
        // More than the kernel has chunks of: what it is given again leaves enough to send from.
        let flood = lab.at_far(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            // A full queue on the way is no matter here.
            (0..20_000).for_each(|_| drop(socket.send_to(&[0; 10], (OURS, 9))));
        });
        serve(&mut queue, "a flood", answer, || flood.is_finished());
        flood.join().unwrap();
        assert_eq!(queue.counters().frames_refused, 0);
        returned(&mut queue);
    }
}

#[test]
fn no_chunk_is_lost_when_they_run_out() {
    let Some(lab) = Lab::new(1) else { return };
    let mut queue = lab.open(&PortConfig { chunks: 8192, ..config(Mode::Drv) });
    let mut held = Vec::new();
    while let Some(frame) = queue.frame(100) {
        held.push(frame);
    }
    assert_eq!(held.len(), 8192 - 4096, "those the kernel does not have");
    assert_eq!(queue.counters().frames_refused, 1);
    conserved(queue.chunks());
    held.truncate(10);
    ping_pong(&lab, &mut queue, OURS.into(), vec![100; 50]);
    assert_eq!(queue.chunks().held, 10);
    drop(held);
    // Received frames kept until the kernel has no chunk either: it counts, and goes on afterwards.
    let mut kept = Vec::new();
    let flood = lab.at_far(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..20_000 {
            // A full queue on the way is no matter here.
            let _ = socket.send_to(&[0; 10], (OURS, 9));
        }
    });
    serve(&mut queue, "a flood", |_, frame| kept.push(frame), || flood.is_finished());
    let counters = queue.counters();
    assert!(kept.len() > 4096 && counters.rx_no_chunk > 0, "kept {}, {counters:?}", kept.len());
    assert!(queue.chunks().free >= 2048, "none is left to send from: {:?}", queue.chunks());
    conserved(queue.chunks());
    kept.clear();
    // A turn, in which the kernel gets its chunks back: a datagram before it would find none either.
    let mut turns = 0..2;
    serve(&mut queue, "a turn", |_, _| {}, || turns.next().is_none());
    ping_pong(&lab, &mut queue, OURS.into(), vec![100; 5]);
    returned(&mut queue);
    // A frame outlives its queue.
    let mut frame = queue.frame(64).unwrap();
    drop(queue);
    frame.fill(1);
    assert_eq!(frame.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 64);
}

#[test]
fn a_waker_ends_a_wait_and_a_frame_does() {
    let Some(lab) = Lab::new(1) else { return };
    let mut queue = lab.open(&config(Mode::Auto));
    let waker = queue.waker();
    let before = queue.now();
    let ringer = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(30));
        waker.wake();
    });
    queue.wait(Some(before.after_ns(5_000_000_000)));
    assert!((20_000_000..1_000_000_000).contains(&queue.now().since_ns(before)));
    ringer.join().unwrap();
    // Used up: the next wait lasts.
    let before = queue.now();
    queue.wait(Some(before.after_ns(30_000_000)));
    assert!(queue.now().since_ns(before) >= 30_000_000);
    let far = lab.at_far(|| {
        std::thread::park_timeout(Duration::from_millis(30));
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (OURS, 9)).unwrap()
    });
    let before = queue.now();
    queue.wait(Some(before.after_ns(5_000_000_000)));
    assert!(queue.now().since_ns(before) < 1_000_000_000);
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    assert_eq!(burst.len(), 1);
    far.join().unwrap();
}

#[test]
fn what_cannot_be_opened_says_what_mends_it() {
    let Some(lab) = Lab::new(1) else { return };
    Lab::enter(&lab.near);
    let refusal = |config: PortConfig| Port::open(&config).unwrap_err().to_string();
    let base = config(Mode::Auto);
    let missing = refusal(PortConfig { interface: "eth9".to_owned(), ..base.clone() });
    assert!(missing.contains("no interface `eth9`") && missing.contains(NEAR_IF), "{missing}");
    let loopback = refusal(PortConfig { interface: "lo".to_owned(), ..base.clone() });
    assert!(loopback.contains("carries no ethernet"), "{loopback}");
    let zero_copy = refusal(PortConfig { mode: Mode::ZeroCopy, ..base.clone() });
    assert!(zero_copy.contains("(driver veth) refuses mode zerocopy"), "{zero_copy}");
    assert!(zero_copy.contains("mode = \"drv\""), "{zero_copy}");
    assert!(!lab.link().contains("prog/xdp"), "a refused port leaves no program");
    let none = refusal(PortConfig { addresses: Vec::new(), ..base.clone() });
    assert!(none.contains("at least one address"), "{none}");
    lab.ip(&format!("link set {NEAR_IF} mtu 9000"));
    run(&format!("ip -n {} link set {FAR_IF} mtu 9000", lab.far));
    let large = refusal(PortConfig { mode: Mode::Drv, ..base.clone() });
    assert!(large.contains(&format!("ip link set dev {NEAR_IF} mtu 1500")), "{large}");
    // Auto falls back, and tells peers what it can take.
    let port = Port::open(&base).unwrap();
    assert!(port.description().contains("skb mode"), "{}", port.description());
    assert_eq!(port.into_queues()[0].info().mtu, 3822);
}
