//! Descriptors and memory, counted over a life: alone in its process, because it counts what the process has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod rig;

use std::io::Write;
use std::net::TcpStream;

use shard::{Transport, Via};
use towpath_io::Backend;

use rig::{Rig, config, pattern, skip};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Connections in every state, then everything dropped at once.
fn life(backend: Backend, force_baseline: bool) {
    let mut rig = Rig::new(&config(backend, force_baseline));
    let addr = abi::Addr::Ip(rig.addr());
    let mut kept = Vec::new();
    for round in 0..40 {
        let (mut client, id) = rig.accept();
        client.write_all(&pattern(1000)).unwrap();
        match round % 8 {
            0 => rig.io.close(id),
            1 => rig.io.reset(id),
            2 => rig.io.half_close(id),
            3 => rig.io.pause_rx(id),
            4 => assert_eq!(rig.io.tx(id, &[&pattern(200_000)]), 200_000),
            5 => {
                let both = rig.accepted.len() + 1;
                rig.io.connect(&addr, Via::Route);
                rig.until("its accept", |rig| rig.accepted.len() == both);
            }
            6 => rig.until("the bytes", |rig| !rig.log(id).data.is_empty()),
            _ => rig.hold = round > 20,
        }
        if round % 3 == 0 {
            kept.push(client);
        }
    }
    // Accepts the transport never gets to see.
    let _waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(rig.addr()).unwrap()).collect();
    let held = core::mem::take(&mut rig.held);
    drop(rig);
    // A handle may outlive its transport.
    assert!(held.iter().all(|rx| !rx.is_empty()));
}

#[test]
fn no_descriptor_outlives_its_transport() {
    for (backend, baseline) in [(Backend::Epoll, false), (Backend::Uring, false), (Backend::Uring, true)] {
        if skip(backend) {
            continue;
        }
        life(backend, baseline);
        let before = descriptors();
        for _ in 0..5 {
            life(backend, baseline);
        }
        // io_uring closes the last references a moment later.
        let after = (0..200)
            .map(|_| {
                std::thread::park_timeout(core::time::Duration::from_millis(10));
                descriptors()
            })
            .find(|&after| after <= before);
        assert!(after.is_some(), "{backend:?} {baseline}: {before} before, {} after", descriptors());
    }
}
