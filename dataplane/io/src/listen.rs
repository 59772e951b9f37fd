//! Listening sockets: bound once by the node, before its threads start, and shared by all shards.
//!
//! One socket per address, not one per shard with `SO_REUSEPORT`: with that option a second Towpath would
//! silently take half of the connections instead of being told that the address is in use.
//!
//! A unix socket's path is unlinked first if nobody answers on it, and again at the end; a live one is never
//! stolen.

use core::time::Duration;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::Addr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use shard::ListenerId;

use crate::port_owner;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How often, and how many times, an address is tried that is in use by nobody.
const ORPHAN_LOOK: Duration = Duration::from_millis(10);
const ORPHAN_LOOKS: u32 = 20;

/// One address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerSpec {
    /// What `Accepted` will say.
    pub id: ListenerId,
    /// Where; port 0 lets the kernel choose.
    pub addr: Addr,
}

/// The listening sockets of a node. A socket closes when this and every shard's `Sockets` have let go of it;
/// it refuses connections from the moment every shard has stopped accepting. Paths of unix sockets are
/// removed when this is dropped.
#[derive(Debug)]
pub struct Listeners {
    addrs: Vec<(ListenerId, Addr)>,
    doors: Vec<Arc<Door>>,
    files: Vec<SocketFile>,
}

/// A unix socket's file, told from what somebody else may have put in its place since: a successor may have
/// bound the path while this process drained.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) id: ListenerId,
    pub(crate) fd: OwnedFd,
    pub(crate) unix: bool,
    /// Shards that accept here.
    open: AtomicUsize,
}

impl Door {
    /// A shard begins to accept here.
    pub(crate) fn enter(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// A shard stops. After the last one, connecting is refused although the descriptor is still open.
    pub(crate) fn leave(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nothing to do about a failure: the descriptor closes later anyway.
            let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
        }
    }
}

/// Why an address could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// Which.
    pub addr: Addr,
    /// Why.
    pub kind: BindErrorKind,
}

/// The reasons worth telling apart.
#[derive(Debug)]
pub enum BindErrorKind {
    /// Somebody listens there: the pid and command, where readable.
    InUse(Option<(u32, String)>),
    /// Ports below 1024, or a folder, that need a permission.
    Permission,
    /// No interface has the address.
    NotLocal,
    /// The path exists and is not a socket.
    NotASocket,
    /// The path is longer than a unix socket's may be, or contains a zero byte.
    BadPath,
    /// Anything else.
    Io(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = &self.addr;
        match (&self.kind, addr) {
            (BindErrorKind::InUse(Some((pid, command))), _) => {
                write!(f, "{addr} is in use by pid {pid} ({command}); stop it or choose another address")
            }
            (BindErrorKind::InUse(None), _) => {
                write!(f, "{addr} is in use by another process; choose another address, or see `ss -ltnp`")
            }
            (BindErrorKind::Permission, Addr::Ip(ip)) => write!(
                f,
                "no permission to listen on {addr}: ports below 1024 need CAP_NET_BIND_SERVICE; \
                 take one above, or `setcap cap_net_bind_service+ep` (port {})",
                ip.port()
            ),
            (BindErrorKind::Permission, Addr::Unix(_)) => {
                write!(f, "no permission to create {addr}: the folder must be writable by this user")
            }
            (BindErrorKind::NotLocal, _) => {
                write!(f, "{addr}: no interface of this machine has that address; see `ip addr`")
            }
            (BindErrorKind::NotASocket, _) => write!(f, "{addr}: the path exists and is not a socket"),
            (BindErrorKind::BadPath, _) => {
                write!(f, "{addr}: a unix socket's path has at most 107 bytes and no zero byte")
            }
            (BindErrorKind::Io(error), _) => write!(f, "cannot listen on {addr}: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

impl Listeners {
    /// Binds and listens on every address, or on none.
    pub fn bind(specs: &[ListenerSpec]) -> Result<Self, BindError> {
        let mut listeners = Self::none();
        for spec in specs {
            let bound = patiently(|| match &spec.addr {
                Addr::Ip(addr) => bind_tcp(*addr).map(|(fd, addr)| (fd, Addr::Ip(addr))),
                Addr::Unix(path) => bind_unix(path).map(|fd| (fd, spec.addr.clone())),
            });
            let (fd, addr) = bound.map_err(|kind| BindError { addr: spec.addr.clone(), kind })?;
            if let Addr::Unix(path) = &addr
                && !is_abstract(path)
            {
                listeners.files.extend(SocketFile::at(path));
            }
            let unix = matches!(addr, Addr::Unix(_));
            listeners.addrs.push((spec.id, addr));
            listeners.doors.push(Arc::new(Door { id: spec.id, fd, unix, open: AtomicUsize::new(0) }));
        }
        Ok(listeners)
    }

    /// No listeners: for a client.
    pub fn none() -> Self {
        Self { addrs: Vec::new(), doors: Vec::new(), files: Vec::new() }
    }

    /// Where each listens, with the ports the kernel chose.
    pub fn local_addrs(&self) -> &[(ListenerId, Addr)] {
        &self.addrs
    }

    pub(crate) fn doors(&self) -> &[Arc<Door>] {
        &self.doors
    }
}

impl SocketFile {
    fn at(path: &str) -> Option<Self> {
        let path = PathBuf::from(path);
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // Nothing is left to do about a failure.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Tries again for a while if the address is in use and nobody is there to use it: after a `kill -9` the
/// kernel needs some milliseconds to take a dead process's io_uring, and the sockets in it, apart.
fn patiently<T>(mut bind: impl FnMut() -> Result<T, BindErrorKind>) -> Result<T, BindErrorKind> {
    for _ in 0..ORPHAN_LOOKS {
        match bind() {
            Err(BindErrorKind::InUse(None)) => {
                #[expect(clippy::disallowed_methods, reason = "no shard runs yet")]
                std::thread::sleep(ORPHAN_LOOK);
            }
            outcome => return outcome,
        }
    }
    bind()
}

fn bind_tcp(addr: SocketAddr) -> Result<(OwnedFd, SocketAddr), BindErrorKind> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let attempt = || -> Result<(OwnedFd, SocketAddr), Errno> {
        let fd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A restart does not wait for old connections in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        // Accepted sockets inherit it, which saves a call each.
        sockopt::set_tcp_nodelay(&fd, true)?;
        rustix::net::bind(&fd, &addr)?;
        rustix::net::listen(&fd, BACKLOG)?;
        let local = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        Ok((fd, local))
    };
    attempt().map_err(|errno| match errno {
        Errno::ADDRINUSE => BindErrorKind::InUse(port_owner::of_tcp(addr)),
        Errno::ACCESS | Errno::PERM => BindErrorKind::Permission,
        Errno::ADDRNOTAVAIL => BindErrorKind::NotLocal,
        other => BindErrorKind::Io(other.into()),
    })
}

fn bind_unix(path: &str) -> Result<OwnedFd, BindErrorKind> {
    let io = |errno: Errno| match errno {
        Errno::ACCESS | Errno::PERM => BindErrorKind::Permission,
        Errno::ADDRINUSE => BindErrorKind::InUse(port_owner::of_unix(path)),
        other => BindErrorKind::Io(other.into()),
    };
    let addr = unix_addr(path).map_err(|_| BindErrorKind::BadPath)?;
    if !is_abstract(path) {
        unlink_if_stale(path, &addr)?;
    }
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io)?;
    rustix::net::bind(&fd, &addr).map_err(io)?;
    rustix::net::listen(&fd, BACKLOG).map_err(io)?;
    Ok(fd)
}

/// A leading `@` means the abstract namespace, which has no file.
fn is_abstract(path: &str) -> bool {
    path.starts_with('@')
}

/// The address of a path, or of an abstract name if it begins with `@`.
pub(crate) fn unix_addr(path: &str) -> Result<SocketAddrUnix, Errno> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(path),
    }
}

fn unlink_if_stale(path: &str, addr: &SocketAddrUnix) -> Result<(), BindErrorKind> {
    use std::os::unix::fs::FileTypeExt;
    let file: PathBuf = Path::new(path).into();
    let kind = match std::fs::symlink_metadata(&file) {
        Ok(meta) => meta.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(BindErrorKind::Permission);
        }
        Err(error) => return Err(BindErrorKind::Io(error)),
    };
    if !kind.is_socket() {
        return Err(BindErrorKind::NotASocket);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let outcome = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|probe| rustix::net::connect(&probe, addr));
    match outcome {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(&file).map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                BindErrorKind::Permission
            } else {
                BindErrorKind::Io(error)
            }
        }),
        // It went away meanwhile.
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => Err(BindErrorKind::Permission),
        // It answered, or its backlog is full: somebody is there.
        _ => Err(BindErrorKind::InUse(port_owner::of_unix(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(addr: Addr) -> ListenerSpec {
        ListenerSpec { id: ListenerId(3), addr }
    }

    fn loopback(port: u16) -> Addr {
        Addr::Ip(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn port_zero_resolves_and_an_address_in_use_names_its_owner() {
        let first = Listeners::bind(&[spec(loopback(0))]).unwrap();
        let (id, addr) = first.local_addrs()[0].clone();
        assert_eq!(id, ListenerId(3));
        let Addr::Ip(ip) = &addr else { panic!("{addr}") };
        assert_ne!(ip.port(), 0);
        let error = Listeners::bind(&[spec(addr)]).unwrap_err();
        let BindErrorKind::InUse(Some((pid, _))) = &error.kind else { panic!("{error:?}") };
        assert_eq!(*pid, std::process::id());
        assert!(error.to_string().contains("is in use by pid"), "{error}");
    }

    /// A listener that no process holds, as that of a killed one whose io_uring is being taken apart: its
    /// only descriptor is in a message that nobody has received.
    fn orphan() -> (Addr, (OwnedFd, OwnedFd)) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, socketpair};
        let listener = Listeners::bind(&[spec(loopback(0))]).unwrap();
        let addr = listener.local_addrs()[0].1.clone();
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let fds = [std::os::fd::AsFd::as_fd(&listener.doors[0].fd)];
        let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let byte = [std::io::IoSlice::new(b"x")];
        sendmsg(&pair.0, &byte, &mut control, SendFlags::empty()).unwrap();
        (addr, pair)
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test keeps its own time")]
    fn an_address_that_a_dead_process_still_has_is_waited_for() {
        let (addr, holder) = orphan();
        let freed = std::thread::spawn(move || {
            std::thread::sleep(ORPHAN_LOOK * 3);
            drop(holder);
        });
        Listeners::bind(&[spec(addr)]).unwrap();
        freed.join().unwrap();

        let (addr, holder) = orphan();
        let error = Listeners::bind(&[spec(addr)]).unwrap_err();
        assert!(matches!(error.kind, BindErrorKind::InUse(None)), "{error:?}");
        drop(holder);
    }

    #[test]
    fn an_address_of_nobody_is_not_local() {
        let addr = Addr::Ip(SocketAddr::from(([192, 0, 2, 1], 0)));
        let error = Listeners::bind(&[spec(addr)]).unwrap_err();
        assert!(matches!(error.kind, BindErrorKind::NotLocal), "{error:?}");
    }

    #[test]
    fn unix_paths_are_taken_over_when_stale_kept_when_live_and_removed_at_the_end() {
        let dir = std::env::temp_dir().join(format!("towpath-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.sock");
        let addr = Addr::Unix(path.to_str().unwrap().into());

        // A stale one: bound once, its listener gone without unlinking.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listeners::bind(&[spec(addr.clone())]).unwrap();

        let error = Listeners::bind(&[spec(addr.clone())]).unwrap_err();
        assert!(matches!(error.kind, BindErrorKind::InUse(_)), "{error:?}");
        assert!(path.exists(), "a live socket is not stolen");

        drop(live);
        assert!(!path.exists(), "removed at the end");

        // A successor binds while this one only drains: nobody answers, so the path counts as stale.
        let draining = Listeners::bind(&[spec(addr.clone())]).unwrap();
        rustix::net::shutdown(&draining.doors[0].fd, rustix::net::Shutdown::Both).unwrap();
        let successor = Listeners::bind(&[spec(addr.clone())]).unwrap();
        drop(draining);
        assert!(path.exists(), "the successor's file is not ours to remove");
        drop(successor);
        assert!(!path.exists());

        std::fs::write(&path, b"precious").unwrap();
        let error = Listeners::bind(&[spec(addr)]).unwrap_err();
        assert!(matches!(error.kind, BindErrorKind::NotASocket), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let long = Addr::Unix("/tmp/".repeat(40));
        let error = Listeners::bind(&[spec(long)]).unwrap_err();
        assert!(matches!(error.kind, BindErrorKind::BadPath), "{error:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
