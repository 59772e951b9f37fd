//! The kernel's epoll set: what is ready, and waits that end to the microsecond.
//!
//! `epoll_wait` counts in milliseconds. `epoll_pwait2` (Linux 5.11) takes nanoseconds; where it is missing or
//! forbidden a wait ends up to a millisecond late, and nothing else changes.

use core::num::NonZeroU64;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Reports taken from the kernel at once.
const REPORTS: usize = 256;
/// What sockets are registered for: each change once, both directions.
const SOCKET: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);
/// What listeners and the waker are registered for.
const SOURCE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// One thing the kernel says about a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Report {
    /// What the descriptor was registered under.
    pub(super) token: u64,
    flags: epoll::EventFlags,
}

impl Report {
    pub(super) fn is_readable(self) -> bool {
        self.flags.contains(epoll::EventFlags::IN)
    }

    pub(super) fn is_writable(self) -> bool {
        self.flags.contains(epoll::EventFlags::OUT)
    }

    pub(super) fn is_error(self) -> bool {
        self.flags.contains(epoll::EventFlags::ERR)
    }

    /// The peer will send no more, or both sides are done.
    pub(super) fn is_ending(self) -> bool {
        self.flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR)
    }
}

/// An epoll set.
pub(super) struct Poller {
    epoll: OwnedFd,
    reports: Vec<epoll::Event>,
    has_pwait2: bool,
}

impl Poller {
    /// An empty set, for the calling thread, whose timers are made exact.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // By default a sleep may be 50 µs late. A refusal leaves it at that.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut this = Self { epoll, reports: Vec::with_capacity(REPORTS), has_pwait2: true };
        this.has_pwait2 = this.wait(Some(0)).is_ok();
        Ok(this)
    }

    /// Registers a socket for all that can happen to it.
    pub(super) fn add_socket(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), SOCKET)?)
    }

    /// Registers what only becomes readable.
    pub(super) fn add_source(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), SOURCE)?)
    }

    /// Waits until something is ready or so many nanoseconds have passed; how many reports there are then.
    pub(super) fn wait(&mut self, timeout_ns: Option<u64>) -> Result<usize, Errno> {
        self.reports.clear();
        let timeout = timeout_ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        });
        if self.has_pwait2 {
            self.pwait2(timeout.as_ref())?;
        } else {
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.reports), timeout.as_ref())?;
        }
        Ok(self.reports.len())
    }

    #[expect(unsafe_code, reason = "rustix offers epoll_pwait2 only to those who never run without it")]
    fn pwait2(&mut self, timeout: Option<&Timespec>) -> Result<(), Errno> {
        let timeout = timeout.map_or(core::ptr::null(), core::ptr::from_ref);
        let room = self.reports.capacity();
        // SAFETY: `reports` has room for `room` events of the kernel's own layout and `timeout` is null or
        // points to a live timespec of the kernel's layout; the kernel keeps neither. No signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.reports.as_mut_ptr(),
                room,
                timeout,
                core::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        };
        // SAFETY: the kernel has written that many events, at most `room`.
        unsafe { self.reports.set_len(count.min(room)) };
        Ok(())
    }

    /// Readable when a wait would report something.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// A report of the last wait.
    pub(super) fn report(&self, at: usize) -> Option<Report> {
        self.reports.get(at).map(|event| Report { token: event.data.u64(), flags: event.flags })
    }
}
