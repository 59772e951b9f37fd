//! What happens where io_uring is forbidden: a seccomp filter, as containers have one, on one thread.

#![cfg(feature = "uring")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use towpath_io::{Backend, Config, Listeners, Placement, Sockets, probe};

/// Forbids io_uring_setup to the calling thread.
fn forbid(errno: i32) {
    let blocked = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
    let errno = u32::try_from(errno).unwrap();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new(blocked, SeccompAction::Allow, SeccompAction::Errno(errno), arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

fn falls_back(errno: i32, named: &'static str) {
    std::thread::spawn(move || {
        forbid(errno);
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
