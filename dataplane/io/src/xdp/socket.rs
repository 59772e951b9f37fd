//! One AF_XDP socket: a receive queue of the interface, with its four rings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets, XdpOptionsFlags, XdpRingOffset,
    XdpStatistics, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::memory::Mapping;
use super::ring::{Consumer, Desc, Entry, Layout, Producer};
use super::umem::{Frame, Pool, TX_RESERVE};

/// Entries of the fill and receive rings: a burst of the kernel's that comes while we are off the core.
pub(super) const RX_RING: u32 = 4096;
/// Entries of the transmit and completion rings.
pub(super) const TX_RING: u32 = 2048;
/// Chunks are given to the kernel this many at a time.
pub(super) const FILL_MIN: u32 = 32;
/// Calls of the kernel for one transmit burst: in copy mode each sends at most 32 frames.
const KICKS_MAX: usize = 4;

/// A bound socket. One thread at a time.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<Desc>,
    tx: Producer<Desc>,
    /// Chunks the kernel has for receiving: in the fill ring, in its hands, or in the receive ring.
    rx_chunks: u32,
    /// Its share of the umem: more than that the kernel never has for receiving.
    rx_chunks_max: u32,
    /// Chunks the kernel has for sending.
    tx_chunks: u32,
    /// The last call of the kernel left frames unsent.
    stuck: bool,
}

/// The umem a socket is opened with.
pub(super) enum Umem<'a> {
    /// It registers this memory, in chunks of so many bytes.
    Own(&'a Mapping, u32),
    /// It shares another socket's.
    Of(&'a Socket),
}

impl Socket {
    /// A socket with its rings, not bound, that receives into so many chunks at a time.
    pub(super) fn open(umem: &Umem<'_>, rx_chunks_max: u32) -> io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        if let Umem::Own(memory, chunk_size) = umem {
            let registration = XdpUmemReg {
                addr: memory.at::<u8>(0, memory.len()).as_ptr().expose_provenance() as u64,
                len: memory.len() as u64,
                chunk_size: *chunk_size,
                headroom: 0,
                flags: XdpUmemRegFlags::empty(),
                tx_metadata_len: 0,
            };
            sockopt::set_xdp_umem_reg(&fd, registration)?;
        }
        sockopt::set_xdp_umem_fill_ring_size(&fd, RX_RING)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, TX_RING)?;
        sockopt::set_xdp_rx_ring_size(&fd, RX_RING)?;
        sockopt::set_xdp_tx_ring_size(&fd, TX_RING)?;
        let XdpMmapOffsets { rx, tx, fr, cr } = sockopt::xdp_mmap_offsets(&fd)?;
        let (fill_map, fill) = ring::<u64>(fd.as_fd(), fr, RX_RING, XDP_UMEM_PGOFF_FILL_RING)?;
        let (completion_map, completion) =
            ring::<u64>(fd.as_fd(), cr, TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING)?;
        let (rx_map, rx) = ring::<Desc>(fd.as_fd(), rx, RX_RING, XDP_PGOFF_RX_RING)?;
        let (tx_map, tx) = ring::<Desc>(fd.as_fd(), tx, TX_RING, XDP_PGOFF_TX_RING)?;
        Ok(Self {
            fd,
            fill: Producer::new(fill_map, &fill),
            completion: Consumer::new(completion_map, &completion),
            rx: Consumer::new(rx_map, &rx),
            tx: Producer::new(tx_map, &tx),
            rx_chunks: 0,
            rx_chunks_max,
            tx_chunks: 0,
            stuck: false,
        })
    }

    /// Binds it to a queue. `mode` says copy or zero copy; with another's umem it is as that is.
    pub(super) fn bind(
        &self,
        umem: &Umem<'_>,
        interface: u32,
        queue: u32,
        mode: SocketAddrXdpFlags,
    ) -> io::Result<()> {
        match umem {
            Umem::Own(..) => {
                let flags = mode | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
                rustix::net::bind(&self.fd, &SocketAddrXdp::new(flags, interface, queue))?;
            }
            Umem::Of(other) => {
                let addr = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_SHARED_UMEM, interface, queue);
                let shared = SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: other.fd.as_fd() };
                rustix::net::bind(&self.fd, &shared)?;
            }
        }
        Ok(())
    }

    /// The NIC reads and writes the umem itself.
    pub(super) fn is_zero_copy(&self) -> bool {
        sockopt::xdp_options(&self.fd).is_ok_and(|o| o.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// What the kernel has counted.
    pub(super) fn statistics(&self) -> Option<XdpStatistics> {
        sockopt::xdp_statistics(&self.fd).ok()
    }

    /// Gives the kernel chunks to receive into: this socket's share, but none of those kept for sending.
    pub(super) fn refill(&mut self, pool: &Pool) {
        let missing = self.rx_chunks_max.saturating_sub(self.rx_chunks);
        if missing < FILL_MIN {
            return;
        }
        let room = self.fill.room(missing).min(missing);
        if room < FILL_MIN {
            return;
        }
        for _ in 0..room.min(pool.free().saturating_sub(TX_RESERVE)) {
            let Some(addr) = pool.take() else { break };
            self.fill.push(addr);
            self.rx_chunks += 1;
        }
        self.fill.publish();
    }

    /// Calls the kernel if it sleeps over an empty fill ring that has been filled since.
    pub(super) fn wake_rx(&self) {
        if self.fill.needs_wakeup() {
            // The outcome says nothing that the rings do not.
            let _ = rustix::net::recv(&self.fd, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// Frames to be received, up to `wanted`.
    pub(super) fn rx_ready(&mut self, wanted: u32) -> u32 {
        self.rx.ready(wanted).min(wanted)
    }

    /// Takes one; there must be one.
    pub(super) fn rx_pop(&mut self, pool: &Rc<Pool>) -> Frame {
        self.rx_chunks -= 1;
        Frame::from_desc(pool, self.rx.pop())
    }

    /// What was popped has been taken: the ring has room again.
    pub(super) fn rx_done(&mut self) {
        self.rx.release();
    }

    /// How many frames can be sent, up to `wanted`.
    pub(super) fn tx_room(&mut self, wanted: u32) -> u32 {
        self.tx.room(wanted).min(wanted)
    }

    /// Puts one into the ring; there must be room.
    pub(super) fn tx_push(&mut self, frame: Frame) {
        self.tx.push(frame.into_desc());
        self.tx_chunks += 1;
    }

    /// Shows the kernel what was pushed, and calls it where it has to be called.
    pub(super) fn tx_publish(&mut self) {
        self.tx.publish();
        self.wake_tx();
    }

    /// Calls the kernel while that gets frames out. What stays is `stuck`: the interface is down or its queue
    /// is full.
    pub(super) fn wake_tx(&mut self) {
        self.stuck = false;
        for _ in 0..KICKS_MAX {
            if !self.tx.needs_wakeup() {
                return;
            }
            let before = self.tx.pending();
            if before == 0 {
                return;
            }
            match rustix::net::send(&self.fd, &[], SendFlags::DONTWAIT) {
                Err(Errno::AGAIN) if self.tx.pending() != before => {}
                _ => break,
            }
        }
        self.stuck = self.tx.pending() > 0;
    }

    /// True if frames wait for the interface, and the kernel has to be called again.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Puts the chunks of sent frames back.
    pub(super) fn reap(&mut self, pool: &Pool) {
        for _ in 0..self.completion.ready(1) {
            pool.put(self.completion.pop());
            self.tx_chunks -= 1;
        }
        self.completion.release();
    }

    /// Chunks the kernel has, for receiving and for sending.
    pub(super) fn chunks(&self) -> (u32, u32) {
        (self.rx_chunks, self.tx_chunks)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Maps a ring.
fn ring<T: Entry>(
    fd: BorrowedFd<'_>,
    offsets: XdpRingOffset,
    count: u32,
    at: u64,
) -> io::Result<(Arc<Mapping>, Layout)> {
    let layout = Layout::new(offsets, count).ok_or(Errno::AFNOSUPPORT)?;
    let map = Mapping::shared(fd, layout.len::<T>(), at)?;
    Ok((Arc::new(map), layout))
}
