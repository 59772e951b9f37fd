//! The safe layer over ports that need no hardware and no privilege: rings, the null device.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use dpdk_sys::{
    Eal, FlowAction, FlowMatch, L4, Lcore, Mbuf, Memory, Options, Pool, Port, PortOptions, Shape, pools,
};

fn eal() -> Eal {
    Eal::start(&Options { memory: Memory::Ordinary { mib: 256 }, pci: Vec::new() }).unwrap()
}

fn in_use() -> u32 {
    pools().iter().map(|pool| pool.in_use).sum()
}

fn small() -> PortOptions {
    PortOptions { buffers: 256, descriptors: 256, ..PortOptions::default() }
}

/// One process, one EAL, pools counted together: one test.
#[test]
fn ports_move_frames_and_give_every_buffer_back() {
    let eal = eal();
    let lcore = Lcore::enter(eal).unwrap();
    assert_ne!(lcore.id(), 0);
    a_ring_returns_what_was_sent(eal);
    assert_eq!(in_use(), 0, "after a ring with frames left in it");
    the_null_device_spreads(eal);
    assert_eq!(in_use(), 0, "after the null device");
    wrong_devices_are_explained(eal);
    assert_eq!(in_use(), 0, "after devices that do not exist");
    a_client_without_its_server_is_down(eal);
    assert_eq!(in_use(), 0, "after a link that was never up");
    a_memif_carries_jumbo_frames_whole(eal);
    assert_eq!(in_use(), 0, "after a memif");
    an_empty_pool_recovers(eal);
    a_frame_outlives_its_port(eal);
    assert_eq!(in_use(), 0, "at the end");
    drop(lcore);
}

fn a_ring_returns_what_was_sent(eal: Eal) {
    let mut port = Port::open(eal, "net_ring0", &small()).unwrap();
    assert_eq!(port.info().driver, "net_ring");
    let mut queue = port.queue(0).unwrap();
    assert!(port.queue(0).is_none(), "a queue has one owner");
    assert!(port.link().up);
    let mut frames: Vec<Mbuf> = (0..40_u8).map(|n| filled(queue.pool(), 60 + usize::from(n), n)).collect();
    assert_eq!(queue.tx_burst(&mut frames, usize::MAX), 40);
    assert!(frames.is_empty());
    let received = queue.rx_burst(&mut frames, 8);
    assert_eq!((received.frames, received.dropped), (8, 0));
    queue.rx_burst(&mut frames, 32);
    assert_eq!(frames.len(), 40);
    for (n, frame) in (0_u8..).zip(&frames) {
        assert_eq!(frame.len(), 60 + usize::from(n), "in order");
        assert!(frame.iter().all(|&byte| byte == n), "intact");
    }
    // Left in the ring: closing the port gives them back.
    queue.tx_burst(&mut frames, usize::MAX);
    assert_eq!(port.stats().tx_frames, 80);
    assert!(port.xstats().iter().any(|(name, _)| name == "tx_good_packets"));
    let again = Port::open(eal, "net_ring0", &small()).unwrap_err();
    assert!(again.to_string().contains("open already"), "{again}");
    drop(port);
    assert!(queue.link().up, "a queue keeps its port open");
}

fn the_null_device_spreads(eal: Eal) {
    let mut port = Port::open(eal, "net_null0,copy=1", &PortOptions { queues: 4, ..small() }).unwrap();
    assert_eq!(port.info().queues, 4);
    let rss = port.info().rss.clone().unwrap();
    assert!(rss.key.starts_with(&[0x6d, 0x5a, 0x6d, 0x5a]), "{:?}", rss.key);
    assert!(rss.table.len().is_power_of_two());
    assert_eq!(rss.table[..5], [0, 1, 2, 3, 0]);
    let to_us = FlowMatch { to: [10, 7, 0, 2].into(), l4: (L4::Tcp, 80) };
    let error = port.flow_rule(to_us, FlowAction::Queue(1)).unwrap_err().to_string();
    assert!(error.contains("cannot make a flow rule: "), "{error}");
    for index in 0..4 {
        let mut queue = port.queue(index).unwrap();
        let mut frames = Vec::new();
        assert_eq!(queue.rx_burst(&mut frames, 32).frames, 32);
        assert_eq!(queue.tx_burst(&mut frames, usize::MAX), 32);
    }
}

fn wrong_devices_are_explained(eal: Eal) {
    let error = Port::open(eal, "net_mmif0,role=client", &small()).unwrap_err().to_string();
    assert!(error.contains("net_mmif0"), "{error}");
    assert!(error.contains("no driver is named net_mmif") && error.contains("net_memif"), "{error}");
    let error = Port::open(eal, "net_null0,siz=64", &small()).unwrap_err().to_string();
    assert!(error.contains("net_null takes: ") && error.contains("size="), "{error}");
    let error = Port::open(eal, "net_af_packet0,iface=nosuchif0", &small()).unwrap_err().to_string();
    assert!(error.contains("DPDK: ") && error.contains("nosuchif0"), "{error}");
    let error = Port::open(eal, "0000:ff:1f.7", &small()).unwrap_err().to_string();
    assert!(error.contains("vfio-pci"), "{error}");
    let error = Port::open(eal, "crypto_openssl0", &small()).unwrap_err().to_string();
    assert!(error.contains("not a network device"), "{error}");
    let tiny = PortOptions { mtu: Some(10), ..small() };
    let error = Port::open(eal, "net_ring0", &tiny).unwrap_err().to_string();
    assert!(error.contains("cannot set the MTU") && error.contains("takes from "), "{error}");
    let huge = PortOptions { mtu: Some(10_000), ..small() };
    let open = "net_memif0,role=client,socket=/tmp/towpath-open.sock,socket-abstract=no,zero-copy=yes";
    for device in [open.to_owned(), format!("vdev:{open}")] {
        let error = Port::open(eal, &device, &small()).unwrap_err().to_string();
        assert!(error.contains("leave out zero-copy=yes"), "{error}");
    }
    assert!(Port::open(eal, &open.replace("=yes", "=no"), &small()).is_ok());
    let memif = "net_memif0,role=server,socket=/tmp/towpath-jumbo.sock,socket-abstract=no";
    let error = Port::open(eal, memif, &huge).unwrap_err().to_string();
    assert!(error.contains("10000 B") && error.contains(" to 9216"), "{error}");
    // A port that failed half-way is gone: its name is free.
    Port::open(eal, "net_ring0", &small()).unwrap();
}

fn a_client_without_its_server_is_down(eal: Eal) {
    let alone = "net_memif0,role=client,socket=/tmp/towpath-nobody.sock,socket-abstract=no";
    let mut port = Port::open(eal, alone, &small()).unwrap();
    let mut queue = port.queue(0).unwrap();
    assert!(!queue.link().up && queue.needs_revival());
    queue.revive();
    let mut frames = vec![filled(queue.pool(), 60, 1)];
    assert_eq!((queue.tx_burst(&mut frames, 1), frames.len()), (0, 1));
    assert_eq!(queue.rx_burst(&mut frames, 32).frames, 0);
}

#[expect(clippy::disallowed_methods, reason = "the two ends meet on a thread of the driver's")]
fn a_memif_carries_jumbo_frames_whole(eal: Eal) {
    let jumbo = PortOptions { mtu: Some(9000), ..small() };
    let socket = format!("/tmp/towpath-jumbo-{}.sock", std::process::id());
    let mut queues = [(1, "server"), (2, "client")].map(|(n, role)| {
        let device = format!("net_memif{n},role={role},socket={socket},socket-abstract=no");
        let mut port = Port::open(eal, &device, &jumbo).unwrap();
        assert_eq!((port.info().mtu, &port.info().device), (9000, &device));
        port.queue(0).unwrap()
    });
    for look in 1..1000 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        if queues.iter().all(|queue| queue.link().up) {
            break;
        }
        // Not sooner: a client that leaves while the server greets it takes the server's process along (DPDK 22.11).
        if look % 100 == 0 {
            queues.iter_mut().filter(|queue| queue.needs_revival()).for_each(|queue| queue.revive());
        }
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let mut frames = vec![filled(queues[from].pool(), 9014, 7), filled(queues[from].pool(), 60, 8)];
        let mut got = Vec::new();
        // A server has room to send once its client has looked for frames.
        for _ in 0..1000 {
            queues[from].tx_burst(&mut frames, usize::MAX);
            let received = queues[to].rx_burst(&mut got, 32);
            assert_eq!(received.dropped, 0, "a frame in several buffers");
        }
        assert_eq!(got.len(), 2, "{from} to {to}");
        for (frame, (len, byte)) in got.iter().zip([(9014, 7), (60, 8)]) {
            assert!(frame.len() == len && frame.iter().all(|&it| it == byte));
        }
    }
    let _ = std::fs::remove_file(socket);
}

fn an_empty_pool_recovers(eal: Eal) {
    let pool = Pool::take(eal, Shape { count: 63, frame_len_max: 1518, socket: None }).unwrap();
    assert!(pool.alloc(100_000).is_none(), "longer than a buffer");
    let mut all: Vec<Mbuf> = core::iter::from_fn(|| pool.alloc(60)).take(1000).collect();
    assert_eq!(all.len(), 63);
    assert_eq!(pool.count().in_use, 63);
    assert!(pool.alloc(60).is_none());
    all.pop();
    assert!(pool.alloc(60).is_some());
    // Buffers may be freed on another thread.
    std::thread::spawn(move || drop(all)).join().unwrap();
    assert_eq!(pool.count().in_use, 0);
}

fn a_frame_outlives_its_port(eal: Eal) {
    let mut port = Port::open(eal, "net_ring1", &small()).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut frames = vec![filled(queue.pool(), 64, 7)];
    queue.tx_burst(&mut frames, usize::MAX);
    queue.rx_burst(&mut frames, 32);
    drop((port, queue));
    assert_eq!(in_use(), 1);
    assert_eq!(frames[0][..], [7; 64]);
    frames.clear();
}

fn filled(pool: &Pool, len: usize, with: u8) -> Mbuf {
    let mut mbuf = pool.alloc(len).unwrap();
    mbuf.fill(with);
    mbuf
}
