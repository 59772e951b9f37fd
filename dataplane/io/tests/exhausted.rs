//! When descriptors run out: alone in its process, because it takes them from all of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod rig;

use core::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath_io::Backend;

use rig::{Rig, config, skip};

const CLIENTS: usize = 10;
/// So many there are for a while.
const DESCRIPTORS: u64 = 200;

#[test]
fn accepts_pause_and_go_on_without_spinning() {
    for (backend, baseline) in [(Backend::Epoll, false), (Backend::Uring, false), (Backend::Uring, true)] {
        if skip(backend) {
            continue;
        }
        // Before the accept is armed: io_uring keeps the limit it saw then.
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), ..before }).unwrap();
        let mut rig = Rig::new(&config(backend, baseline));
        rig.idle(Duration::from_millis(5));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap())
            .collect();
        let taken: Vec<_> =
            core::iter::from_fn(|| rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok())
                .collect();
        for client in &clients {
            rustix::net::connect(client, &rig.addr()).unwrap();
        }
        rig.until("a failed accept", |rig| rig.counters().accept_errors > 0);
        let enters = rig.counters().enters;
        let quiet = Duration::from_millis(300);
        rig.idle(quiet);
        let counters = rig.counters();
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(counters.accepts, 0);
        assert!(counters.accept_errors < 20, "{counters:?}");
        // The rig itself looks every 5 ms.
        assert!(counters.enters - enters < 300, "{counters:?}");
        rig.until("the accepts", |rig| rig.accepted.len() == CLIENTS);
    }
}
