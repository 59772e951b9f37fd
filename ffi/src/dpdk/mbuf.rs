//! An owned, linear packet buffer.

use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::raw;

/// One ethernet frame in one segment, owned: nobody else holds the buffer. Dropping it gives it back to its
/// pool.
///
/// Invariant: `data_off + data_len <= buf_len`, one segment, a reference count of one.
#[repr(transparent)]
pub struct Mbuf(NonNull<raw::rte_mbuf>);

// SAFETY: the buffer has one owner, and its pool takes it back from any thread.
unsafe impl Send for Mbuf {}
// SAFETY: through a shared reference the buffer is only read.
unsafe impl Sync for Mbuf {}

/// What the port found of a received frame's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxChecksum {
    /// Checked, or known to be right.
    Good,
    /// Wrong.
    Bad,
    /// Not looked at.
    Unknown,
}

/// Which checksums the port shall fill in, and where the headers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxChecksum {
    /// Bytes of the ethernet header, tags included.
    pub l2_len: u8,
    /// Bytes of the IP header.
    pub l3_len: u16,
    /// Bytes of the TCP header; 0 for UDP or neither.
    pub l4_len: u8,
    /// IPv4 (its header's checksum too) or IPv6.
    pub ipv4: bool,
    /// The layer above.
    pub l4: L4,
    /// For TCP: payload bytes per segment if the port shall cut the frame up, else 0.
    pub segment: u16,
}

/// What is above IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Anything else: the IP header's checksum only.
    Other,
}

impl Mbuf {
    /// Takes over a buffer.
    ///
    /// # Safety
    /// It is not null, the caller owns it, it is of one segment, and its reference count is one.
    pub(crate) unsafe fn from_raw(raw: *mut raw::rte_mbuf) -> Self {
        // SAFETY: the caller vouches for it.
        Self(unsafe { NonNull::new_unchecked(raw) })
    }

    /// The buffer; its owner is now who has the pointer.
    pub(crate) fn into_raw(self) -> *mut raw::rte_mbuf {
        let raw = self.0;
        mem::forget(self);
        raw.as_ptr()
    }

    /// A field at its offset.
    ///
    /// # Safety
    /// `T` is the field's type.
    unsafe fn load<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the offset is one of a field, inside the struct.
        let at = unsafe { self.0.as_ptr().byte_add(offset) };
        // SAFETY: the field is initialised and only the owner's reference leads to it; the caller vouches for
        // the type.
        unsafe { at.cast::<T>().read() }
    }

    /// Sets a field at its offset.
    ///
    /// # Safety
    /// `T` is the field's type, and the value keeps the invariant.
    unsafe fn store<T: Copy>(&mut self, offset: usize, value: T) {
        // SAFETY: the offset is one of a field, inside the struct.
        let at = unsafe { self.0.as_ptr().byte_add(offset) };
        // SAFETY: owned exclusively; the caller vouches for type and value.
        unsafe { at.cast::<T>().write(value) };
    }

    fn data(&self) -> (*mut u8, usize) {
        // SAFETY: `buf_addr` is a `void *`.
        let start: *mut u8 = unsafe { self.load(raw::K_MBUF_BUF_ADDR) };
        // SAFETY: `data_off` is a `uint16_t`.
        let offset: u16 = unsafe { self.load(raw::K_MBUF_DATA_OFF) };
        // SAFETY: `data_len` is a `uint16_t`.
        let len: u16 = unsafe { self.load(raw::K_MBUF_DATA_LEN) };
        // SAFETY: by the invariant the data begins inside the buffer.
        (unsafe { start.add(usize::from(offset)) }, usize::from(len))
    }

    /// The longest it can be made.
    pub fn capacity(&self) -> usize {
        // SAFETY: `buf_len` is a `uint16_t`.
        let room: u16 = unsafe { self.load(raw::K_MBUF_BUF_LEN) };
        // SAFETY: `data_off` is a `uint16_t`.
        let offset: u16 = unsafe { self.load(raw::K_MBUF_DATA_OFF) };
        usize::from(room.saturating_sub(offset))
    }

    /// Makes it `len` bytes long; what is new has any content. False, and no effect, above `capacity`.
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        let Ok(short) = u16::try_from(len) else { return false };
        if len > self.capacity() {
            return false;
        }
        // SAFETY: `data_len` is a `uint16_t`, and the buffer has room for it.
        unsafe { self.store(raw::K_MBUF_DATA_LEN, short) };
        // SAFETY: `pkt_len` is a `uint32_t`, equal to `data_len` with one segment.
        unsafe { self.store(raw::K_MBUF_PKT_LEN, u32::from(short)) };
        true
    }

    /// What the port said of the checksums, the worse of both layers.
    pub fn rx_checksum(&self) -> RxChecksum {
        // SAFETY: `ol_flags` is a `uint64_t`.
        let flags: u64 = unsafe { self.load(raw::K_MBUF_OL_FLAGS) };
        let ip = flags & raw::K_RTE_MBUF_F_RX_IP_CKSUM_MASK;
        let l4 = flags & raw::K_RTE_MBUF_F_RX_L4_CKSUM_MASK;
        if ip == raw::K_RTE_MBUF_F_RX_IP_CKSUM_BAD || l4 == raw::K_RTE_MBUF_F_RX_L4_CKSUM_BAD {
            return RxChecksum::Bad;
        }
        // NONE: the checksum field is not filled in, but the data is vouched for (a virtual peer).
        let known = l4 == raw::K_RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == raw::K_RTE_MBUF_F_RX_L4_CKSUM_NONE;
        if known { RxChecksum::Good } else { RxChecksum::Unknown }
    }

    /// Has the port fill in checksums, if it can. The checksum fields hold what DPDK wants there: zero in the
    /// IPv4 header, the pseudo header's sum in TCP's and UDP's.
    pub fn set_tx_checksum(&mut self, what: TxChecksum) {
        let mut flags = if what.ipv4 {
            raw::K_RTE_MBUF_F_TX_IPV4 | raw::K_RTE_MBUF_F_TX_IP_CKSUM
        } else {
            raw::K_RTE_MBUF_F_TX_IPV6
        };
        flags |= match what.l4 {
            L4::Tcp if what.segment > 0 => raw::K_RTE_MBUF_F_TX_TCP_SEG | raw::K_RTE_MBUF_F_TX_TCP_CKSUM,
            L4::Tcp => raw::K_RTE_MBUF_F_TX_TCP_CKSUM,
            L4::Udp => raw::K_RTE_MBUF_F_TX_UDP_CKSUM,
            L4::Other => 0,
        };
        let [l2, l3, l4, segment] =
            [what.l2_len.into(), what.l3_len.into(), what.l4_len.into(), what.segment.into()];
        // SAFETY: computes a word from four.
        let lengths = unsafe { raw::towpath_tx_offload(l2, l3, l4, segment) };
        // SAFETY: `tx_offload` is a `uint64_t` that only transmission reads.
        unsafe { self.store(raw::K_MBUF_TX_OFFLOAD, lengths) };
        // SAFETY: `ol_flags` is a `uint64_t`; receive flags mean nothing from here on.
        unsafe { self.store(raw::K_MBUF_OL_FLAGS, flags) };
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: owned, and not used again.
        unsafe { raw::rte_pktmbuf_free(self.0.as_ptr()) };
    }
}

impl Deref for Mbuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, len) = self.data();
        // SAFETY: by the invariant `len` bytes of the buffer, which lives as long as the process; pool memory
        // is initialised (mapped zeroed) whatever a device has written to it.
        unsafe { core::slice::from_raw_parts(start, len) }
    }
}

impl DerefMut for Mbuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.data();
        // SAFETY: as in `deref`, and owned exclusively.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes)", self.len())
    }
}
