//! The admin addresses: reads on TCP, everything on a unix socket of mode 0600.
//!
//! A small HTTP/1.1 server of our own over `httparse`: one request a connection, bounded bytes, time and
//! connections, because a hostile local user can reach it. What is asked goes to the control thread, which
//! alone knows the shards. Not here: what the answers say (`control`).

mod capture;
mod client;
mod http;
mod query;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

pub(crate) use capture::{Captures, Request as CaptureRequest};
pub(crate) use client::{ask, begin};

/// Connections served at once; more are closed.
const CONNECTIONS_MAX: usize = 16;
/// How long the control thread may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take: it compiles, resolves names, waits for shards and for old generations.
pub(crate) const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What the socket is called.
const SOCKET_NAME: &str = "towpath.sock";

/// What can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// `/metrics`.
    Metrics,
    /// `/ready`.
    Ready,
    /// `/config`.
    Config,
    /// `/explain`.
    Explain,
    /// `/status`, on the socket only.
    Status,
    /// `/status?json`, on the socket only.
    StatusJson,
    /// `POST /reload`, on the socket only.
    Reload,
}

/// A question and where its answer goes.
pub(crate) struct Question {
    /// What.
    pub(crate) ask: Ask,
    /// Takes one answer; never blocks.
    pub(crate) reply: SyncSender<Answer>,
}

/// An answer: HTTP status and text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) code: u16,
    /// The text.
    pub(crate) body: String,
}

impl Answer {
    /// 200.
    pub(crate) fn ok(body: String) -> Self {
        Self { code: 200, body }
    }
}

/// Hands a question to the control thread; false if it has ended.
pub(crate) type Forward = Arc<dyn Fn(Question) -> bool + Send + Sync>;

/// Binds the TCP address.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn bind_tcp(addr: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(addr).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "admin address {addr} is in use; choose another with --admin or [admin] address, or \"off\""
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("admin address {addr} needs a permission; choose a port from 1024 up")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("admin address {addr}: no interface of this machine has it")
        }
        _ => format!("admin address {addr}: {e}"),
    })
}

/// Where the socket is when nobody says: `/run` for root, the user's runtime folder, else a folder of the
/// user's own under `/tmp`.
pub(crate) fn socket_default() -> PathBuf {
    let uid = geteuid().as_raw();
    if uid == 0 {
        return Path::new("/run").join(SOCKET_NAME);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|dir| dir.is_absolute() && is_own_folder(dir)) {
        Some(dir) => dir.join(SOCKET_NAME),
        None => PathBuf::from(format!("/tmp/towpath-{uid}")).join(SOCKET_NAME),
    }
}

fn is_own_folder(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw() && m.mode() & 0o022 == 0)
}

/// Binds the unix socket with mode 0600. With `may_move`, a socket that another node listens on is left to
/// it, and this one gets the process's number in its name.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn bind_unix(path: &Path, may_move: bool) -> Result<(UnixListener, PathBuf), String> {
    let mut path = path.to_owned();
    if let Some(folder) = path.parent().filter(|f| f.starts_with("/tmp/") && may_move) {
        let _ = fs::DirBuilder::new().mode(0o700).create(folder);
        if !is_own_folder(folder) {
            return Err(format!("{} belongs to somebody else; say --admin unix:PATH", folder.display()));
        }
    }
    if let Ok(found) = fs::symlink_metadata(&path) {
        if !found.file_type().is_socket() {
            return Err(format!("{} exists and is no socket; say --admin unix:PATH", path.display()));
        }
        if UnixStream::connect(&path).is_err() {
            // Left behind by a node that ended without a word.
            let _ = fs::remove_file(&path);
        } else if may_move {
            path.set_file_name(format!("towpath-{}.sock", std::process::id()));
            let _ = fs::remove_file(&path);
        } else {
            return Err(format!("a node listens on {} already; say --admin unix:PATH", path.display()));
        }
    }
    // The mode counts from the first moment, so the mask is narrowed before the socket exists.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&path);
    umask(before);
    match bound {
        Ok(listener) => Ok((listener, path)),
        Err(e) => {
            Err(format!("admin socket {}: {e}; say --admin unix:PATH, or socket = \"off\"", path.display()))
        }
    }
}

/// Serves TCP from its own thread.
///
/// # Errors
/// The system's, when no thread can be made.
pub(crate) fn serve_tcp(listener: TcpListener, forward: Forward) -> io::Result<()> {
    let busy = Arc::new(AtomicUsize::new(0));
    spawn("admin-tcp", move || {
        for stream in listener.incoming() {
            let Some(stream) = accepted(stream) else { continue };
            let forward = forward.clone();
            let _ = stream.set_read_timeout(Some(http::IO_TIMEOUT));
            let _ = stream.set_write_timeout(Some(http::IO_TIMEOUT));
            connection(&busy, move || {
                http::serve(stream, |method, path| Some(answer(method, path, false, &forward)));
            });
        }
    })
}

/// Serves the unix socket from its own thread: root and the node's own user only.
///
/// # Errors
/// The system's, when no thread can be made.
pub(crate) fn serve_unix(listener: UnixListener, forward: Forward, captures: Captures) -> io::Result<()> {
    let busy = Arc::new(AtomicUsize::new(0));
    spawn("admin-unix", move || {
        for stream in listener.incoming() {
            let Some(stream) = accepted(stream) else { continue };
            let is_known = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.uid.is_root() || peer.uid == geteuid());
            if !is_known {
                continue;
            }
            let (forward, captures) = (forward.clone(), captures.clone());
            let _ = stream.set_read_timeout(Some(http::IO_TIMEOUT));
            let _ = stream.set_write_timeout(Some(http::IO_TIMEOUT));
            connection(&busy, move || {
                let whole = |method: &str, path: &str| {
                    let streams = (method, path.split('?').next()) == ("POST", Some("/capture"));
                    (!streams).then(|| answer(method, path, true, &forward))
                };
                if let Some((stream, path)) = http::serve(stream, whole) {
                    captures.serve(stream, &path);
                }
            });
        }
    })
}

/// Out of descriptors, mostly: trying again at once would only burn a core.
fn accepted<S>(stream: io::Result<S>) -> Option<S> {
    if stream.is_err() {
        crate::clock::sleep(ACCEPT_PAUSE);
    }
    stream.ok()
}

/// Runs a connection on a thread of its own, if there are not too many.
fn connection(busy: &Arc<AtomicUsize>, serve: impl FnOnce() + Send + 'static) {
    if busy.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
        busy.fetch_sub(1, Ordering::AcqRel);
        return;
    }
    let in_thread = busy.clone();
    let run = move || {
        serve();
        in_thread.fetch_sub(1, Ordering::AcqRel);
    };
    if spawn("admin-conn", run).is_err() {
        busy.fetch_sub(1, Ordering::AcqRel);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(128 << 10).spawn(run).map(drop)
}

fn answer(method: &str, path: &str, is_trusted: bool, forward: &Forward) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let ask = match (method, path) {
        ("GET" | "HEAD", "/metrics") => Ask::Metrics,
        ("GET" | "HEAD", "/ready") => Ask::Ready,
        ("GET" | "HEAD", "/config") => Ask::Config,
        ("GET" | "HEAD", "/explain") => Ask::Explain,
        ("GET" | "HEAD", "/status") if is_trusted && query == "json" => Ask::StatusJson,
        ("GET" | "HEAD", "/status") if is_trusted => Ask::Status,
        ("POST", "/reload") if is_trusted => Ask::Reload,
        (_, "/status" | "/reload" | "/capture") if !is_trusted => {
            return Answer { code: 403, body: "only on the admin socket\n".into() };
        }
        (_, "/metrics" | "/ready" | "/config" | "/explain" | "/status" | "/reload" | "/capture") => {
            return Answer {
                code: 405,
                body: "reload and capture are POST, everything else is GET\n".into(),
            };
        }
        _ => return Answer { code: 404, body: "known: /metrics /ready /config /explain\n".into() },
    };
    let (reply, answer) = sync_channel(1);
    let unready = || Answer { code: 503, body: "the node does not answer\n".into() };
    if !forward(Question { ask, reply }) {
        return unready();
    }
    let wait = if ask == Ask::Reload { RELOAD_TIMEOUT } else { ANSWER_TIMEOUT };
    answer.recv_timeout(wait).unwrap_or_else(|_| unready())
}

#[cfg(test)]
mod tests;
