//! What only the kernel gets although we need it too, and multicast groups the NIC has to let through.
//!
//! Where an address is shared, answers to our ARP requests and neighbour solicitations pass to the kernel. A
//! packet socket gets a copy of them; its filter takes answers only, so that the kernel alone answers requests.
#![expect(unsafe_code, reason = "packet sockets are not in rustix")]

use core::ffi::c_int;
use core::net::Ipv6Addr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::umem::{Frame, Pool};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// An answer is below this; longer ones are cut, and then no answers.
const ANSWER_LEN_MAX: usize = 256;

/// Loads a byte or half word at an offset, accepts the frame or skips to the next test if it equals a value.
const fn load(code: u32, at: u32) -> libc::sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "class, size and mode are one byte")]
    let code = (libc::BPF_LD | libc::BPF_ABS | code) as u16;
    libc::sock_filter { code, jt: 0, jf: 0, k: at }
}

/// Skips `else_skip` tests if what was loaded is another value.
const fn expect(value: u32, else_skip: u8) -> libc::sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "class and operation are one byte")]
    let code = (libc::BPF_JMP | libc::BPF_JEQ) as u16;
    libc::sock_filter { code, jt: 0, jf: else_skip, k: value }
}

/// Ends with so many bytes of the frame accepted.
const fn accept(bytes: u32) -> libc::sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "a class is one byte")]
    let code = libc::BPF_RET as u16;
    libc::sock_filter { code, jt: 0, jf: 0, k: bytes }
}

/// ARP replies.
const REPLIES: [libc::sock_filter; 4] = [load(libc::BPF_H, 20), expect(2, 1), accept(0xffff), accept(0)];
/// ICMPv6 neighbour advertisements.
const ADVERTISEMENTS: [libc::sock_filter; 6] =
    [load(libc::BPF_B, 20), expect(58, 3), load(libc::BPF_B, 54), expect(136, 1), accept(0xffff), accept(0)];

/// The packet sockets of one interface.
#[derive(Debug)]
pub(super) struct Neighbours {
    sockets: Vec<OwnedFd>,
}

impl Neighbours {
    /// Begins to listen, for IPv4, IPv6 or both.
    pub(super) fn listen(interface: u32, v4: bool, v6: bool) -> io::Result<Self> {
        let mut sockets = Vec::new();
        if v4 {
            sockets.push(open(interface, ETHERTYPE_ARP, &REPLIES)?);
        }
        if v6 {
            sockets.push(open(interface, ETHERTYPE_IPV6, &ADVERTISEMENTS)?);
        }
        Ok(Self { sockets })
    }

    /// To wait on.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// The next answer, if there is one and a chunk for it.
    pub(super) fn take(&self, pool: &Rc<Pool>) -> Option<Frame> {
        let mut frame = Frame::new(pool, ANSWER_LEN_MAX)?;
        for socket in &self.sockets {
            if let Ok((len, _)) = recv(socket, &mut frame[..], RecvFlags::DONTWAIT) {
                frame.truncate(len);
                return Some(frame);
            }
        }
        None
    }
}

/// A packet socket with a filter from its first frame on.
fn open(interface: u32, ethertype: u16, filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let socket = packet_socket()?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    // SAFETY: numbers and bytes; zeros are a value.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface.cast_signed();
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `address` is readable for `len` bytes.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// One that receives nothing yet.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

fn set_option<T>(socket: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is readable for `len` bytes, and what it points to lives as long; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, core::ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets solicitations for these addresses through the NIC's multicast filter, until the socket is dropped.
pub(super) fn join_groups(interface: u32, addresses: &[Ipv6Addr]) -> io::Result<OwnedFd> {
    let socket = packet_socket()?;
    for address in addresses {
        let [.., x, y, z] = address.octets();
        let membership = libc::packet_mreq {
            mr_ifindex: interface.cast_signed(),
            mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).map_err(io::Error::other)?,
            mr_alen: 6,
            mr_address: [0x33, 0x33, 0xff, x, y, z, 0, 0],
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    }
    Ok(socket)
}
