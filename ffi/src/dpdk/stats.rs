//! What a port has done, and whether its cable is in.

use core::ffi::CStr;

use super::{Port, raw};

/// A port's own totals since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_missed: u64,
    /// Frames received broken.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Receptions that found no buffer.
    pub rx_no_buffer: u64,
}

/// The state of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// It carries frames.
    pub up: bool,
    /// Mbit/s; `u32::MAX` if the port does not know.
    pub mbps: u32,
}

/// Asks the driver, without waiting. For one thread at a time, unless the port reports its link.
pub(super) fn link(port: u16) -> Link {
    let (mut up, mut mbps) = (0, 0);
    // SAFETY: fills in both numbers; a port that cannot say leaves them zero.
    let result = unsafe { raw::towpath_link(port, &raw mut up, &raw mut mbps) };
    Link { up: result >= 0 && up != 0, mbps }
}

/// A port's totals; zeros from a driver that keeps none.
pub(super) fn stats(port: u16) -> Stats {
    let mut all = raw::rte_eth_stats::default();
    // SAFETY: fills in the struct; a driver without totals refuses.
    let _ = unsafe { raw::rte_eth_stats_get(port, &raw mut all) };
    Stats {
        rx_frames: all.ipackets,
        rx_bytes: all.ibytes,
        tx_frames: all.opackets,
        tx_bytes: all.obytes,
        rx_missed: all.imissed,
        rx_errors: all.ierrors,
        tx_errors: all.oerrors,
        rx_no_buffer: all.rx_nombuf,
    }
}

impl Port {
    /// Its totals; zeros from a driver that keeps none.
    pub fn stats(&self) -> Stats {
        stats(self.id())
    }

    /// Its driver's own counters by name.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        // SAFETY: without room it only says how many there are.
        let count = unsafe { raw::rte_eth_xstats_get_names(self.id(), core::ptr::null_mut(), 0) };
        let Ok(room) = u32::try_from(count) else { return Vec::new() };
        let mut names = vec![raw::rte_eth_xstat_name::default(); room as usize];
        // SAFETY: room for as many.
        let named = unsafe { raw::rte_eth_xstats_get_names(self.id(), names.as_mut_ptr(), room) };
        let mut values = vec![raw::rte_eth_xstat::default(); room as usize];
        // SAFETY: room for as many.
        let valued = unsafe { raw::rte_eth_xstats_get(self.id(), values.as_mut_ptr(), room) };
        if named != count || valued != count {
            return Vec::new();
        }
        let value = |x: &raw::rte_eth_xstat| {
            let name = names.get(usize::try_from(x.id).ok()?)?;
            // SAFETY: names are terminated within their 64 bytes.
            let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
            Some((name.to_string_lossy().into_owned(), x.value))
        };
        values.iter().filter_map(value).collect()
    }

    /// The link's state, without waiting.
    pub fn link(&self) -> Link {
        self.shared().link()
    }

    /// Takes the link up or down, where the driver can; false if it cannot.
    pub fn set_link(&self, up: bool) -> bool {
        let _control = super::port::CONTROL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let set = if up { raw::rte_eth_dev_set_link_up } else { raw::rte_eth_dev_set_link_down };
        // SAFETY: the port exists.
        unsafe { set(self.id()) == 0 }
    }

    /// Takes frames for other ethernet addresses too, or no longer; false if the driver cannot.
    pub fn set_promiscuous(&self, on: bool) -> bool {
        let _control = super::port::CONTROL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let set = if on { raw::rte_eth_promiscuous_enable } else { raw::rte_eth_promiscuous_disable };
        // SAFETY: the port exists.
        unsafe { set(self.id()) == 0 }
    }
}
