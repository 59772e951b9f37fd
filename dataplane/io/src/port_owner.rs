//! Who listens on an address, as far as /proc lets this user see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The process listening on a TCP port: pid and command.
pub(crate) fn of_tcp(addr: SocketAddr) -> Option<(u32, String)> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let table = std::fs::read_to_string(path).ok()?;
        table.lines().skip(1).find_map(|line| tcp_listener(line, addr))
    })?;
    of_inode(inode)
}

/// The process listening on a unix socket's path.
pub(crate) fn of_unix(path: &str) -> Option<(u32, String)> {
    let table = std::fs::read_to_string("/proc/net/unix").ok()?;
    let inode = table.lines().skip(1).find_map(|line| unix_listener(line, path))?;
    of_inode(inode)
}

/// The inode in a line of /proc/net/tcp or tcp6 if it is a listener in the way of `addr`.
fn tcp_listener(line: &str, addr: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    if state != LISTEN || u16::from_str_radix(port, 16).ok()? != addr.port() {
        return None;
    }
    let ip = hex_ip(ip)?.to_canonical();
    let clash = ip == addr.ip().to_canonical() || ip.is_unspecified() || addr.ip().is_unspecified();
    // After local, remote and state: queues, timer, retransmits, uid, timeout, inode.
    if clash { fields.nth(5)?.parse().ok() } else { None }
}

/// An address as the kernel prints it: 32-bit words in host order.
fn hex_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    match text.len() {
        8 => Some(IpAddr::from(Ipv4Addr::from(word(0)?.to_ne_bytes()))),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            Some(IpAddr::from(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// The inode in a line of /proc/net/unix if it is a listener on `path`.
fn unix_listener(line: &str, path: &str) -> Option<u64> {
    const ACCEPTS: u32 = 0x0001_0000;
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    let inode = fields.get(6)?.parse().ok()?;
    (flags & ACCEPTS != 0 && fields.get(7) == Some(&path)).then_some(inode)
}

/// The process holding a socket, found through its descriptors.
fn of_inode(inode: u64) -> Option<(u32, String)> {
    let target = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |fd: &std::fs::DirEntry| {
            std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        };
        if fds.flatten().any(|fd| holds(&fd)) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, command.trim_end().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_in_proc_net_tcp() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  \
                    0 12345 1 0000000000000000 100 0 0 10 0";
        let at = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        assert_eq!(tcp_listener(line, at([127, 0, 0, 1], 8080)), Some(12345));
        assert_eq!(tcp_listener(line, at([0, 0, 0, 0], 8080)), Some(12345));
        assert_eq!(tcp_listener(line, at([10, 0, 0, 1], 8080)), None);
        assert_eq!(tcp_listener(line, at([127, 0, 0, 1], 8081)), None);
        let established = line.replace(" 0A ", " 01 ");
        assert_eq!(tcp_listener(&established, at([127, 0, 0, 1], 8080)), None);
        assert_eq!(tcp_listener("nonsense", at([127, 0, 0, 1], 8080)), None);
    }

    #[test]
    fn listeners_in_proc_net_unix() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 777 /run/x.sock";
        assert_eq!(unix_listener(line, "/run/x.sock"), Some(777));
        assert_eq!(unix_listener(line, "/run/y.sock"), None);
        assert_eq!(unix_listener(&line.replace("00010000", "00000000"), "/run/x.sock"), None);
    }
}
