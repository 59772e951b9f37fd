//! What can be said of the machine and of an interface before a port is opened: for `towpath doctor`.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::interface::Interface;

/// Whether the kernel gives AF_XDP sockets to this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// It does.
    Works,
    /// It has them, and this process lacks the capability.
    Refused,
    /// It has none.
    Missing,
}

/// A network interface, as its driver describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// The driver, of virtual interfaces too.
    pub driver: String,
    /// The offloads that are on, by ethtool's short names.
    pub offloads: Vec<&'static str>,
}

/// Tries to make a socket.
pub fn support() -> Support {
    match socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Support::Works,
        Err(Errno::PERM | Errno::ACCESS) => Support::Refused,
        Err(_) => Support::Missing,
    }
}

/// Asks an interface's driver; `None` if there is no such interface.
pub fn nic(name: &str) -> Option<Nic> {
    let interface = Interface::named(name).ok()?;
    Some(Nic { driver: interface.driver().unwrap_or_default(), offloads: interface.offloads() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_segments_and_nothing_is_no_interface() {
        assert!(nic("lo").unwrap().offloads.contains(&"tso"));
        assert_eq!(nic("no such"), None);
    }
}
