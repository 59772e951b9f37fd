//! What the kernel knows of a network interface, asked by ioctl(2).
#![expect(unsafe_code, reason = "ioctl(2) takes a union")]

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use shard::Spread;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GET_DRIVER: u32 = 0x03;
/// Offloads that are one switch each, by ethtool's short names.
const OFFLOADS: [(&str, u32); 6] =
    [("rx", 0x14), ("tx", 0x16), ("sg", 0x18), ("tso", 0x1e), ("gso", 0x23), ("gro", 0x2b)];
const GET_HASH_FIELDS: u32 = 0x29;
const GET_CHANNELS: u32 = 0x3c;
const GET_RSS: u32 = 0x46;
/// In `ethtool_rxfh.hfunc`: Toeplitz.
const HASH_TOEPLITZ: u8 = 1;
const TCP_V4_FLOW: u32 = 0x01;
const TCP_V6_FLOW: u32 = 0x05;
/// In `ethtool_rxnfc.data`: both addresses and both ports.
const HASH_ADDRESSES_AND_PORTS: u64 = 0xf0;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

/// An ethernet interface.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    index: u32,
    /// To ask through; any socket does.
    socket: OwnedFd,
}

/// A request of ethtool's: a struct of the kernel's own layout, beginning with the command.
///
/// # Safety
/// `repr(C)`, any bit pattern is a value, and at least as long as the kernel writes for its command.
unsafe trait Request {}

#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    maxima: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

#[repr(C)]
struct Switch {
    command: u32,
    value: u32,
}

#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 32 + 32 + 32 + 32 + 12 + 20],
}

/// `struct ethtool_rxnfc`: the first sixteen bytes, and room for what the kernel may write behind them.
#[repr(C)]
struct HashFields {
    command: u32,
    flow: u32,
    fields: u64,
    rest: [u64; 24],
}

/// `struct ethtool_rxfh` with its table and its key behind.
#[repr(C)]
struct Rss {
    command: u32,
    context: u32,
    table_len: u32,
    key_len: u32,
    function: u8,
    reserved: [u8; 7],
    config: [u32; RSS_WORDS],
}

/// The largest table seen on a NIC has 4096 entries; a key has at most 256 bytes.
const RSS_WORDS: usize = 4096 + 64;

// SAFETY: nine numbers of four bytes, as `struct ethtool_channels`.
unsafe impl Request for Channels {}
// SAFETY: two numbers of four bytes, as `struct ethtool_value`.
unsafe impl Request for Switch {}
// SAFETY: 196 bytes, as `struct ethtool_drvinfo`.
unsafe impl Request for Driver {}
// SAFETY: 208 bytes; `struct ethtool_rxnfc` has 192.
unsafe impl Request for HashFields {}
// SAFETY: the kernel writes only as much of `config` as `table_len` and `key_len` ask for, which fits.
unsafe impl Request for Rss {}

impl Interface {
    /// By its name, in the calling thread's network namespace.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, name)?;
        Ok(Self { name: name.to_owned(), index, socket })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// By its present name: it may have been given another one, or be gone.
    fn request(&self) -> io::Result<libc::ifreq> {
        let name = rustix::net::netdevice::index_to_name_inlined(&self.socket, self.index)?;
        // SAFETY: `ifreq` is bytes and numbers; zeros are a value.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        // The last byte stays zero.
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes().take(15)) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        Ok(request)
    }

    fn ioctl(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // The type of the code differs between C libraries.
        let code = code as _;
        // SAFETY: `request` is an `ifreq` for the call, and `code` one of those that read and write an `ifreq`;
        // a pointer in it is valid for as much as the kernel writes (`ethtool`).
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code, core::ptr::from_mut(request)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn ethtool<R: Request>(&self, value: &mut R) -> io::Result<()> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = core::ptr::from_mut(value).cast();
        self.ioctl(SIOCETHTOOL, &mut request)
    }

    /// Its ethernet address; `None` if it is no ethernet interface.
    pub(super) fn mac(&self) -> io::Result<Option<[u8; 6]>> {
        let mut request = self.request()?;
        self.ioctl(libc::SIOCGIFHWADDR as _, &mut request)?;
        // SAFETY: this ioctl fills in this member, and any bytes are a value of it.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            [*to] = from.to_ne_bytes();
        }
        Ok((address.sa_family == ETHERNET).then_some(mac))
    }

    /// The largest packet, bytes.
    pub(super) fn mtu(&self) -> io::Result<usize> {
        let mut request = self.request()?;
        self.ioctl(libc::SIOCGIFMTU as _, &mut request)?;
        // SAFETY: as in `mac`.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(io::Error::other)
    }

    /// It is up and has a carrier.
    pub(super) fn is_running(&self) -> io::Result<bool> {
        let mut request = self.request()?;
        self.ioctl(libc::SIOCGIFFLAGS as _, &mut request)?;
        // SAFETY: as in `mac`.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let running = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(i32::from(flags) & running == running)
    }

    /// How many receive queues are in use. A driver that does not tell has one.
    pub(super) fn rx_queues(&self) -> u32 {
        let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
        match self.ethtool(&mut channels) {
            Ok(()) => channels.combined.saturating_add(channels.rx).max(1),
            Err(_) => 1,
        }
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> Option<String> {
        let mut driver = Driver { command: GET_DRIVER, name: [0; 32], rest: [0; 160] };
        self.ethtool(&mut driver).ok()?;
        let name = driver.name.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Which of its offloads are on.
    pub(super) fn offloads(&self) -> Vec<&'static str> {
        let is_on = |command| {
            let mut switch = Switch { command, value: 0 };
            self.ethtool(&mut switch).is_ok() && switch.value != 0
        };
        OFFLOADS.iter().filter(|(_, command)| is_on(*command)).map(|(name, _)| *name).collect()
    }

    /// How the NIC spreads TCP over its queues, if it tells, and if it does so by addresses and ports.
    pub(super) fn spread(&self) -> Option<Spread> {
        for flow in [TCP_V4_FLOW, TCP_V6_FLOW] {
            let mut fields = HashFields { command: GET_HASH_FIELDS, flow, fields: 0, rest: [0; 24] };
            self.ethtool(&mut fields).ok()?;
            if fields.fields != HASH_ADDRESSES_AND_PORTS {
                return None;
            }
        }
        let mut rss = Box::new(Rss {
            command: GET_RSS,
            context: 0,
            table_len: 0,
            key_len: 0,
            function: 0,
            reserved: [0; 7],
            config: [0; RSS_WORDS],
        });
        // First the lengths, then what is that long.
        self.ethtool(&mut *rss).ok()?;
        if rss.table_len as usize + (rss.key_len as usize).div_ceil(4) > RSS_WORDS {
            return None;
        }
        self.ethtool(&mut *rss).ok()?;
        spread_of(&rss)
    }

    /// The first of these addresses that is the kernel's own too, on any interface.
    pub(super) fn kernel_has(addresses: &[IpAddr]) -> Option<IpAddr> {
        // The route to an address of one's own begins at that very address.
        let is_local = |address: &IpAddr| {
            let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.connect((*address, 9))?;
            Ok::<bool, io::Error>(socket.local_addr()?.ip() == *address)
        };
        addresses.iter().copied().find(|address| is_local(address).unwrap_or(false))
    }

    /// The interfaces there are, for a message.
    pub(super) fn names() -> Vec<String> {
        let Ok(socket) = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        else {
            return Vec::new();
        };
        // Indices are small and nearly dense.
        (1..=64).filter_map(|index| rustix::net::netdevice::index_to_name(&socket, index).ok()).collect()
    }
}

/// What the driver said, if a [`Spread`] can say it.
fn spread_of(rss: &Rss) -> Option<Spread> {
    let (table_len, key_len) = (rss.table_len as usize, rss.key_len as usize);
    if rss.function != HASH_TOEPLITZ || !table_len.is_power_of_two() || key_len < 40 {
        return None;
    }
    let (table, key) = rss.config.split_at_checked(table_len)?;
    let table = table.iter().map(|&queue| u16::try_from(queue).ok()).collect::<Option<Vec<u16>>>()?;
    let key: Vec<u8> = key.iter().flat_map(|word| word.to_ne_bytes()).take(key_len).collect();
    (key.len() == key_len).then_some(Spread { key, table })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rss(table: &[u32], key: &[u8]) -> Rss {
        let mut rss = Rss {
            command: GET_RSS,
            context: 0,
            table_len: u32::try_from(table.len()).unwrap(),
            key_len: u32::try_from(key.len()).unwrap(),
            function: HASH_TOEPLITZ,
            reserved: [0; 7],
            config: [0; RSS_WORDS],
        };
        rss.config[..table.len()].copy_from_slice(table);
        for (word, bytes) in rss.config[table.len()..].iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        rss
    }

    #[test]
    fn a_drivers_key_and_table_are_a_spread() {
        let key: Vec<u8> = (0..40).collect();
        let spread = spread_of(&rss(&[0, 1, 2, 3], &key)).unwrap();
        assert_eq!((spread.key, spread.table), (key, vec![0, 1, 2, 3]));
    }

    #[test]
    fn what_a_spread_cannot_say_is_unknown() {
        let key = [1; 40];
        assert_eq!(spread_of(&rss(&[0, 1, 2], &key)), None, "not a power of two");
        assert_eq!(spread_of(&rss(&[], &key)), None, "no table");
        assert_eq!(spread_of(&rss(&[0, 1], &key[..16])), None, "a short key");
        assert_eq!(spread_of(&Rss { function: 2, ..rss(&[0, 1], &key) }), None, "not Toeplitz");
    }

    #[test]
    fn loopback_is_known_and_no_ethernet() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!(lo.rx_queues(), 1);
        assert_eq!(lo.spread(), None);
        assert!(lo.mtu().unwrap() >= 1500);
        assert_eq!(Interface::named("none0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(Interface::names().contains(&"lo".to_owned()));
        let ours = [IpAddr::from([192, 0, 2, 77]), IpAddr::from([127, 0, 0, 1])];
        assert_eq!(Interface::kernel_has(&ours), Some(ours[1]));
    }
}
