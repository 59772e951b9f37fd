//! Tells systemd where the node is, as sd_notify(3) does (`Type=notify`). Without systemd it does nothing.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Every port is open.
pub(crate) const READY: &str = "READY=1";
/// It drains and will end.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Sends one state. That nobody listens is no reason to end.
pub(crate) fn notify(state: &str) {
    let socket: Option<OsString> = std::env::var_os("NOTIFY_SOCKET");
    let Some(to) = socket.as_deref().and_then(addr) else { return };
    let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(state.as_bytes(), &to));
}

/// A path, or with `@` in front a name in the kernel's own namespace.
fn addr(socket: &OsStr) -> Option<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        _ => SocketAddr::from_pathname(socket).ok(),
    }
}
