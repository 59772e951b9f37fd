//! Why a port could not be opened, and the command that mends it.

use core::fmt;
use core::net::IpAddr;
use std::io;

use super::port::Mode;

/// Why an AF_XDP port could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is no such interface.
    NoInterface {
        /// Its name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The interface carries no ethernet frames.
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// No address, no queue, a port range without ports, or chunks that are no power of two.
    Config {
        /// What is wrong and what is expected.
        what: String,
    },
    /// The address is the kernel's too, and no port range says who gets what.
    KernelsAddress {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// The process may not do this.
    Permission {
        /// What it may not.
        what: &'static str,
    },
    /// The memory of a shard's queue is more than the process may lock.
    Memlock {
        /// Bytes of one shard's umem.
        bytes: usize,
    },
    /// The kernel has no AF_XDP.
    NoSupport,
    /// Another XDP program is attached.
    ProgramTaken {
        /// The interface.
        name: String,
    },
    /// Another process has a socket on this queue.
    QueueTaken {
        /// The interface.
        name: String,
        /// The receive queue.
        queue: u32,
    },
    /// The driver refuses this mode.
    ModeRefused {
        /// The interface.
        name: String,
        /// The driver.
        driver: String,
        /// What was asked for.
        mode: Mode,
        /// What the kernel said.
        error: io::Error,
    },
    /// Anything else.
    System {
        /// What failed.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl OpenError {
    /// What this error of a system call means.
    pub(super) fn of(what: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { what },
            Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT | libc::ENOSYS) => Self::NoSupport,
            _ => Self::System { what, error },
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::NoInterface { known, .. } if known.is_empty() => "ip -br link".to_owned(),
            Self::NoInterface { known, .. } => format!("there are {}", known.join(", ")),
            Self::NotEthernet { .. } => "take an ethernet interface: ip -br link".to_owned(),
            Self::Config { .. } => "see [[port]] in node.toml".to_owned(),
            Self::KernelsAddress { name, address } => format!(
                "share it by shared = true in [[port]] (source_ports = \"61000-65535\" are then for its own \
                 connections), or take it from the kernel: ip address delete {address} dev {name}"
            ),
            Self::Permission { .. } => "run it as root, or: setcap \
                 cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep $(command -v towpath)"
                .to_owned(),
            Self::Memlock { .. } => {
                "ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, or: setcap \
                 cap_ipc_lock+ep $(command -v towpath)"
                    .to_owned()
            }
            Self::NoSupport => "it needs Linux 5.10 or later with CONFIG_XDP_SOCKETS=y: zgrep XDP_SOCKETS \
                 /proc/config.gz /boot/config-$(uname -r)"
                .to_owned(),
            Self::ProgramTaken { name } => format!(
                "end the process it belongs to (ip -d link show {name} shows its id, bpftool link which), or if \
                 it belongs to none: ip link set dev {name} xdp off; ip link set dev {name} xdpgeneric off"
            ),
            Self::QueueTaken { .. } => "end that process: ss --xdp -p".to_owned(),
            Self::ModeRefused { name, mode, error, .. } => match (mode, error.raw_os_error()) {
                (Mode::ZeroCopy, Some(libc::EOPNOTSUPP)) => "mode = \"drv\"".to_owned(),
                (_, Some(libc::EOPNOTSUPP)) => "mode = \"skb\"".to_owned(),
                // Frames of a large MTU do not fit one page.
                _ => format!("mode = \"skb\", or: ip link set dev {name} mtu 1500"),
            },
            Self::System { .. } => "dmesg | tail may say more".to_owned(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { name, .. } => write!(f, "no interface `{name}`")?,
            Self::NotEthernet { name } => write!(f, "`{name}` carries no ethernet frames")?,
            Self::Config { what } => f.write_str(what)?,
            Self::KernelsAddress { name, address } => {
                write!(f, "{address} is the kernel's address too, so `{name}` cannot have all its frames")?;
            }
            Self::Permission { what } => write!(f, "no permission for {what}")?,
            Self::Memlock { bytes } => {
                write!(f, "{} MiB of locked memory a shard are above the limit", bytes >> 20)?;
            }
            Self::NoSupport => f.write_str("this kernel has no AF_XDP sockets")?,
            Self::ProgramTaken { name } => write!(f, "another XDP program is attached to `{name}`")?,
            Self::QueueTaken { name, queue } => {
                write!(f, "another process has an AF_XDP socket on queue {queue} of `{name}`")?;
            }
            Self::ModeRefused { name, driver, mode, error } => {
                write!(f, "`{name}` (driver {driver}) refuses mode {mode}: {error}")?;
            }
            Self::System { what, error } => write!(f, "{what}: {error}")?,
        }
        write!(f, "; {}", self.hint())
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_keys_that_a_port_has() {
        let kernels =
            OpenError::KernelsAddress { name: "eth1".to_owned(), address: IpAddr::from([10, 7, 0, 2]) };
        let refused = OpenError::ModeRefused {
            name: "eth1".to_owned(),
            driver: "veth".to_owned(),
            mode: Mode::ZeroCopy,
            error: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
        };
        // The keys of `[[port]]` for `xdp`: node's `config/port.rs`.
        let known =
            ["name", "backend", "device", "address", "gateway", "route", "mode", "shared", "source_ports"];
        for hint in [kernels.hint(), refused.hint()] {
            let keys: Vec<&str> =
                hint.split(" = ").map(|part| part.rsplit([' ', '(']).next().unwrap_or(part)).collect();
            let (_, keys) = keys.split_last().unwrap();
            assert!(!keys.is_empty() && keys.iter().all(|key| known.contains(key)), "{keys:?} of {hint}");
        }
        assert!(kernels.hint().contains("shared = true"), "{}", kernels.hint());
    }
}
