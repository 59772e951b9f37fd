//! The few bpf(2) commands an AF_XDP port needs: a map of sockets, a program, a link.
//!
//! Everything lives as long as its descriptor, and a process's descriptors end with it, however it ends: so the
//! interface is never left with a program nobody serves.
#![expect(unsafe_code, reason = "bpf(2) is reachable by its number only")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One instruction, as the kernel reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// Source in the upper half, destination in the lower.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) imm: i32,
}

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const FLAG_SKB_MODE: u32 = 1 << 1;
const FLAG_DRV_MODE: u32 = 1 << 2;
/// None of the functions the program calls is reserved to programs under the GPL.
const LICENSE: &core::ffi::CStr = c"Apache-2.0";

/// The part of `union bpf_attr` one command reads. The kernel takes what follows as zeros.
///
/// # Safety
/// No padding; pointers in it are valid for the call.
unsafe trait Attr {}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: four numbers of four bytes.
unsafe impl Attr for MapCreate {}
// SAFETY: the padding is named; the pointers are of locals in `set_socket`.
unsafe impl Attr for MapUpdate {}
// SAFETY: every field is where C puts it, without gaps; the pointers are of locals in `load`.
unsafe impl Attr for ProgLoad {}
// SAFETY: four numbers of four bytes.
unsafe impl Attr for LinkCreate {}

fn bpf<A: Attr>(command: i32, attr: &A) -> io::Result<RawFd> {
    let size = size_of::<A>();
    // SAFETY: `attr` is readable for `size` bytes, and what it points to is valid (`Attr`). The commands used
    // here write nothing but the log buffer.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attr), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// For commands that give a descriptor; it is close-on-exec.
fn bpf_open<A: Attr>(command: i32, attr: &A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: impl AsFd) -> u32 {
    // A descriptor that is open is not negative.
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// The sockets by receive queue.
#[derive(Debug)]
pub(super) struct SocketMap(OwnedFd);

impl SocketMap {
    /// For so many queues.
    pub(super) fn new(queues: u32) -> io::Result<Self> {
        let attr = MapCreate { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues };
        bpf_open(MAP_CREATE, &attr).map(Self)
    }

    /// Frames of this queue go to this socket; it leaves the map when it is closed.
    pub(super) fn set_socket(&self, queue: u32, socket: impl AsFd) -> io::Result<()> {
        let value = number(socket);
        let attr = MapUpdate {
            map_fd: number(&self.0),
            padding: 0,
            key: (&raw const queue).addr() as u64,
            value: (&raw const value).addr() as u64,
            flags: 0,
        };
        // The kernel reads through the addresses, so the values must be where they are.
        core::hint::black_box((&queue, &value));
        bpf(MAP_UPDATE_ELEM, &attr).map(drop)
    }

    /// For [`super::filter::Rules::assemble`].
    pub(super) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Loads an XDP program. If the verifier refuses it, the error ends with what it said.
pub(super) fn load(insns: &[Insn]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: u32::try_from(insns.len()).unwrap_or(u32::MAX),
        insns: insns.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let error = match bpf_open(PROG_LOAD, &attr) {
        Ok(program) => return Ok(program),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => return Err(error),
        Err(error) => error,
    };
    let mut log = vec![0_u8; 64 << 10];
    attr.log_level = 1;
    attr.log_size = 64 << 10;
    attr.log_buf = log.as_mut_ptr().expose_provenance() as u64;
    let again = bpf_open(PROG_LOAD, &attr);
    let said = core::ffi::CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    again.map_err(|_| io::Error::new(error.kind(), format!("{error}; the verifier: {}", last.join(" < "))))
}

/// Attaches a program to an interface until the link is dropped.
pub(super) fn attach(program: &OwnedFd, interface: u32, in_driver: bool) -> io::Result<OwnedFd> {
    let flags = if in_driver { FLAG_DRV_MODE } else { FLAG_SKB_MODE };
    let attr =
        LinkCreate { prog_fd: number(program), target_ifindex: interface, attach_type: ATTACH_XDP, flags };
    bpf_open(LINK_CREATE, &attr)
}

/// What a loaded program returns for a frame.
#[cfg(test)]
pub(super) fn verdict(program: &OwnedFd, frame: &[u8]) -> io::Result<u32> {
    const PROG_TEST_RUN: i32 = 10;
    #[repr(C)]
    struct TestRun {
        prog_fd: u32,
        retval: core::cell::Cell<u32>,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: core::cell::Cell<u32>,
    }
    // SAFETY: no padding; `data_in` is of `frame`. The kernel writes to the cells only.
    unsafe impl Attr for TestRun {}
    let attr = TestRun {
        prog_fd: number(program),
        retval: 0.into(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_size_out: 0,
        data_in: frame.as_ptr().expose_provenance() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0.into(),
    };
    bpf(PROG_TEST_RUN, &attr)?;
    Ok(attr.retval.get())
}
