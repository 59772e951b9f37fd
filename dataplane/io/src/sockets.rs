//! One shard's sockets, whichever backend carries them.

use core::ops::Deref;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use abi::Addr;
use shard::{Burst, ConnId, Event, Instant, Transport, Via};

use crate::base::Base;
use crate::epoll::{self, EpollTransport};
#[cfg(feature = "uring")]
use crate::uring::{self, UringTransport};
use crate::{Backend, Config, Counters, Listeners, Placement, Waker};

/// A linear handle to received bytes; dropping it gives the buffer back. May outlive its transport.
#[derive(Debug)]
pub struct Rx(From);

#[derive(Debug)]
enum From {
    #[cfg(feature = "uring")]
    Uring(uring::Filled),
    Epoll(epoll::Filled),
    Raw(net::Rx),
}

impl Rx {
    #[cfg(feature = "uring")]
    pub(crate) fn uring(filled: uring::Filled) -> Self {
        Self(From::Uring(filled))
    }

    pub(crate) fn epoll(filled: epoll::Filled) -> Self {
        Self(From::Epoll(filled))
    }

    pub(crate) fn raw(bytes: net::Rx) -> Self {
        Self(From::Raw(bytes))
    }
}

impl Deref for Rx {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            #[cfg(feature = "uring")]
            From::Uring(filled) => filled.bytes(),
            From::Epoll(filled) => filled.bytes(),
            From::Raw(bytes) => bytes,
        }
    }
}

/// Kernel sockets of one shard. Opened on the shard's own thread and never moved from it.
///
/// After `wait` returns, look at what [`Waker::wake`] may have announced: rings before that are one.
#[cfg_attr(feature = "uring", expect(clippy::large_enum_variant, reason = "one per shard, never moved"))]
pub enum Sockets {
    /// Over io_uring.
    #[cfg(feature = "uring")]
    Uring(UringTransport),
    /// Over epoll.
    Epoll(EpollTransport),
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($self:ident, $inner:ident => $body:expr) => {
        match $self {
            #[cfg(feature = "uring")]
            Sockets::Uring($inner) => $body,
            Sockets::Epoll($inner) => $body,
        }
    };
}

impl Sockets {
    /// Opens the sockets of shard number `shard` on the calling thread, which must be the one that uses
    /// them. `Backend::Auto` falls back to epoll; an explicit backend fails if the kernel refuses it, and so
    /// does a shard number that `placement` does not have or that is taken.
    pub fn open(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
    ) -> io::Result<Self> {
        check(config)?;
        let waker = Waker::new()?;
        let open = || Arc::clone(&placement);
        let this = match config.backend {
            Backend::Epoll => {
                Self::Epoll(EpollTransport::open(config, listeners, shard, open(), waker.clone())?)
            }
            #[cfg(feature = "uring")]
            Backend::Uring => {
                Self::Uring(UringTransport::open(config, listeners, shard, open(), waker.clone())?)
            }
            #[cfg(feature = "uring")]
            Backend::Auto => match UringTransport::open(config, listeners, shard, open(), waker.clone()) {
                Ok(uring) => Self::Uring(uring),
                Err(_) => Self::Epoll(EpollTransport::open(config, listeners, shard, open(), waker.clone())?),
            },
            #[cfg(not(feature = "uring"))]
            Backend::Auto => {
                Self::Epoll(EpollTransport::open(config, listeners, shard, open(), waker.clone())?)
            }
            #[cfg(not(feature = "uring"))]
            Backend::Uring => return Err(io::Error::other("built without the feature `uring`")),
        };
        if !placement.sit(shard, waker) {
            let what =
                format!("shard {shard} has no seat among {}, or has taken it before", placement.shards());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(this)
    }

    fn base(&self) -> &Base {
        either!(self, inner => inner.base())
    }

    /// When a wait must end for these sockets' own timers.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.base().until(None)
    }

    /// Readies [`AsFd`]'s descriptor: before the first sleep on it, and then for good.
    pub(crate) fn lend(&mut self) -> io::Result<()> {
        either!(self, inner => inner.lend())
    }

    /// Does all that must be done before the thread sleeps on [`AsFd`]'s descriptor; true if it must not, as
    /// there is something to tell. [`Self::end_wait`] follows.
    pub(crate) fn begin_wait(&mut self) -> bool {
        either!(self, inner => inner.begin_wait())
    }

    /// Forgets what was signalled so far on [`AsFd`]'s descriptor: before [`Self::begin_wait`], which finds what it was
    /// for, if a sleep is to follow.
    pub(crate) fn forget_signals(&self) {
        match self {
            #[cfg(feature = "uring")]
            Self::Uring(inner) => inner.forget_signals(),
            // Readable as long as there is something to tell.
            Self::Epoll(_) => {}
        }
    }

    /// The thread has slept, or has decided not to.
    pub(crate) fn end_wait(&mut self) {
        either!(self, inner => inner.end_wait());
    }

    /// What it became: `Uring` or `Epoll`.
    pub fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "uring")]
            Self::Uring(_) => Backend::Uring,
            Self::Epoll(_) => Backend::Epoll,
        }
    }

    /// Ends this shard's `wait` from any thread.
    pub fn waker(&self) -> Waker {
        self.base().waker.clone()
    }

    /// What these sockets have done; lives on after them.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.base().counters)
    }
}

impl AsFd for Sockets {
    /// Once lent, readable when a burst would find something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, inner => inner.as_fd())
    }
}

/// Refuses limits no backend can work with.
fn check(config: &Config) -> io::Result<()> {
    let limits = &config.limits;
    let what = if !limits.rx_buffers.is_power_of_two() || limits.rx_buffers > 1 << 15 {
        "rx_buffers must be a power of two of at most 32768"
    } else if limits.rx_buffer_bytes < 64 || limits.rx_buffer_bytes > 1 << 20 {
        "rx_buffer_bytes must be between 64 and 1048576"
    } else if limits.tx_bytes_max == 0 || limits.tx_bytes_max > 1 << 30 {
        "tx_bytes_max must be between 1 and 1073741824"
    } else if limits.conns_max == 0 {
        "conns_max must not be zero"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

impl Transport for Sockets {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        either!(self, inner => inner.rx_burst(out));
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        either!(self, inner => inner.tx(conn, slices))
    }

    fn pause_rx(&mut self, conn: ConnId) {
        either!(self, inner => inner.pause_rx(conn));
    }

    fn resume_rx(&mut self, conn: ConnId) {
        either!(self, inner => inner.resume_rx(conn));
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        either!(self, inner => inner.connect(to, via))
    }

    fn half_close(&mut self, conn: ConnId) {
        either!(self, inner => inner.half_close(conn));
    }

    fn close(&mut self, conn: ConnId) {
        either!(self, inner => inner.close(conn));
    }

    fn reset(&mut self, conn: ConnId) {
        either!(self, inner => inner.reset(conn));
    }

    fn flush(&mut self) {
        either!(self, inner => inner.flush());
    }

    fn wait(&mut self, until: Option<Instant>) {
        either!(self, inner => inner.wait(until));
    }

    fn now(&self) -> Instant {
        either!(self, inner => inner.now())
    }

    fn publish_load(&mut self, calls: u32) {
        either!(self, inner => inner.publish_load(calls));
    }

    fn stop_accepting(&mut self) {
        either!(self, inner => inner.stop_accepting());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ListenerSpec;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use shard::ListenerId;
    use std::net::TcpStream;

    /// Sleeps on the descriptor as a thread with raw ports does; how long, in milliseconds.
    fn sleep(io: &mut Sockets, rouse: impl FnOnce() + Send) -> u64 {
        let mut burst = Burst::new();
        io.forget_signals();
        while io.begin_wait() {
            io.end_wait();
            io.rx_burst(&mut burst);
            burst.drain();
            io.forget_signals();
        }
        let from = crate::os::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::park_timeout(core::time::Duration::from_millis(20));
                rouse();
            });
            let mut fds = [PollFd::from_borrowed_fd(io.as_fd(), PollFlags::IN)];
            let slept = poll(&mut fds, Some(&Timespec { tv_sec: 2, tv_nsec: 0 }));
            assert!(slept.is_ok());
            io.end_wait();
        });
        crate::os::now().since_ns(from) / 1_000_000
    }

    #[test]
    fn a_thread_that_sleeps_on_the_descriptor_is_woken_again_and_again() {
        for backend in [Backend::Uring, Backend::Epoll] {
            let loopback = Addr::Ip(([127, 0, 0, 1], 0).into());
            let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(0), addr: loopback }]).unwrap();
            let Addr::Ip(addr) = listeners.local_addrs()[0].1.clone() else {
                panic!("not a socket's address")
            };
            let config = Config { backend, ..Config::default() };
            let Ok(mut io) = Sockets::open(&config, &listeners, 0, Placement::new(1)) else {
                println!("SKIPPED: no {backend:?} here");
                continue;
            };
            io.lend().unwrap();
            for round in 0..5 {
                let slept = sleep(&mut io, || drop(TcpStream::connect(addr).unwrap()));
                assert!(slept < 1500, "{backend:?}: connection {round} was slept through");
            }
        }
    }
}
