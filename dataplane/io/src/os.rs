//! The few system calls both backends share: sockets, peers, errors, the clock.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use abi::Addr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::time::{ClockId, clock_gettime};
use shard::{Instant, Peer, Why};

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    let t = clock_gettime(ClockId::Monotonic);
    let (secs, nanos) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
    Instant(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Errors of a connection, in the shard's words.
pub(crate) fn why(errno: Errno) -> Why {
    match errno {
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Why::Reset,
        Errno::CONNREFUSED => Why::Refused,
        Errno::TIMEDOUT => Why::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::NOENT => {
            Why::Unreachable
        }
        Errno::MFILE
        | Errno::NFILE
        | Errno::NOBUFS
        | Errno::NOMEM
        | Errno::ADDRNOTAVAIL
        | Errno::AGAIN
        | Errno::MLINK => Why::Exhausted,
        _ => Why::Other,
    }
}

/// A connect that has been begun.
pub(crate) struct Begun {
    /// Non-blocking; close-on-exec.
    pub(crate) fd: OwnedFd,
    /// The connection stands already (unix sockets, mostly).
    pub(crate) done: bool,
}

/// Begins a connect without waiting for it.
pub(crate) fn connect(to: &Addr) -> Result<Begun, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, outcome) = match to {
        Addr::Ip(addr) => {
            let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = socket_with(family, SocketType::STREAM, flags, None)?;
            // Latency only: a socket without it works too.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
            let outcome = rustix::net::connect(&fd, addr);
            (fd, outcome)
        }
        Addr::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let outcome = rustix::net::connect(&fd, &crate::listen::unix_addr(path)?);
            (fd, outcome)
        }
    };
    match outcome {
        Ok(()) => Ok(Begun { fd, done: true }),
        Err(Errno::INPROGRESS) => Ok(Begun { fd, done: false }),
        Err(errno) => Err(errno),
    }
}

/// How a connect that was begun has ended.
pub(crate) fn connect_outcome(fd: &OwnedFd) -> Result<(), Errno> {
    match sockopt::socket_error(fd) {
        Ok(outcome) => outcome,
        Err(errno) => Err(errno),
    }
}

/// Who is at the other end of an accepted socket.
pub(crate) fn peer(fd: &OwnedFd, unix: bool) -> Peer {
    if unix {
        return Peer { addr: None, uid: peer_uid(fd) };
    }
    let addr = rustix::net::getpeername(fd)
        .ok()
        .flatten()
        .and_then(|any| SocketAddr::try_from(any).ok())
        .map(|addr| (addr.ip().to_canonical(), addr.port()));
    Peer { addr, uid: None }
}

/// The uid of a unix socket's peer at the time it connected. Not through rustix: its `UCred` has no room for
/// pid 0, which is what a peer of another pid namespace has.
#[expect(unsafe_code, reason = "rustix cannot represent a peer without a pid")]
fn peer_uid(fd: &OwnedFd) -> Option<u32> {
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = core::mem::size_of::<libc::ucred>();
    let mut len = libc::socklen_t::try_from(size).ok()?;
    // SAFETY: `cred` and `len` are live for the call and `len` says how large `cred` is; the kernel writes no
    // more than that and keeps neither pointer.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    };
    (rc == 0 && usize::try_from(len) == Ok(size)).then_some(cred.uid)
}

/// Makes the coming close send a RST instead of what is still queued.
pub(crate) fn abort_on_close(fd: impl AsFd) {
    // Fails on unix sockets only, where there is no RST.
    let _ = sockopt::set_socket_linger(fd, Some(core::time::Duration::ZERO));
}

/// Sends a FIN after what the kernel has queued.
pub(crate) fn shutdown_write(fd: impl AsFd) {
    // Fails if the connection is gone, which the receiving side reports.
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}
