//! What happens where io_uring, or a late addition to epoll, is forbidden: a seccomp filter, as containers
//! have one, on one thread.

#![cfg(feature = "uring")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test keeps its own time")]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use abi::Addr;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use shard::{Burst, Event, ListenerId, Transport};
use towpath_io::{Backend, Config, ListenerSpec, Listeners, Placement, Sockets, probe};

/// Forbids a system call to the calling thread.
fn forbid(call: i64, errno: i32) {
    let blocked = [(call, Vec::new())].into_iter().collect();
    let errno = u32::try_from(errno).unwrap();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new(blocked, SeccompAction::Allow, SeccompAction::Errno(errno), arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

fn falls_back(errno: i32, named: &'static str) {
    std::thread::spawn(move || {
        forbid(libc::SYS_io_uring_setup, errno);
        let report = probe();
        let line = report.line(Backend::Auto);
        println!("{line}");
        assert_eq!(report.choice(), Backend::Epoll);
        assert!(
            line.starts_with(&format!("backend epoll: io_uring is blocked by seccomp ({named})")),
            "{line}"
        );

        let open = |backend| {
            let config = Config { backend, ..Config::default() };
            Sockets::open(&config, &Listeners::none(), 0, Placement::new(1))
        };
        assert_eq!(open(Backend::Auto).unwrap().backend(), Backend::Epoll);
        let refused = open(Backend::Uring).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(errno));
    })
    .join()
    .unwrap();
}

#[test]
fn a_profile_that_answers_eperm_falls_back_by_itself() {
    falls_back(libc::EPERM, "EPERM");
}

#[test]
fn a_profile_that_answers_enosys_falls_back_by_itself() {
    falls_back(libc::ENOSYS, "ENOSYS");
}

/// How long a wait of 2 ms takes, and whether one without end is ended by a connection that comes.
fn waits(is_old: bool) -> Duration {
    std::thread::spawn(move || {
        if is_old {
            forbid(libc::SYS_epoll_pwait2, libc::ENOSYS);
        }
        let name = format!("@towpath-waits-{}-{is_old}", std::process::id());
        let spec = ListenerSpec { id: ListenerId(0), addr: Addr::Unix(name.clone()) };
        let listeners = Listeners::bind(&[spec]).unwrap();
        let config = Config { backend: Backend::Epoll, poll: towpath_io::Poll::Block, ..Config::default() };
        let mut sockets = Sockets::open(&config, &listeners, 0, Placement::new(1)).unwrap();
        let mut events = Burst::new();
        sockets.rx_burst(&mut events);
        let began = Instant::now();
        sockets.wait(Some(sockets.now().after(Duration::from_millis(2))));
        let took = began.elapsed();

        let name = name.trim_start_matches('@').to_owned();
        let caller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let addr = SocketAddr::from_abstract_name(name).unwrap();
            UnixStream::connect_addr(&addr).unwrap()
        });
        sockets.wait(None);
        sockets.rx_burst(&mut events);
        assert!(events.drain().any(|event| matches!(event, Event::Accepted(..))));
        drop(caller.join().unwrap());
        took
    })
    .join()
    .unwrap()
}

#[test]
fn epoll_waits_as_long_as_it_is_told_on_old_kernels_too() {
    for is_old in [false, true] {
        let took = waits(is_old);
        assert!((2..500).contains(&took.as_millis()), "{took:?}");
    }
}
