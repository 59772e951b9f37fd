//! What a queue pair has done, readable from any thread.

use crate::counters::counters;

counters! {
    /// Frames received.
    rx_frames,
    /// Bytes received.
    rx_bytes,
    /// Receive bursts that brought something.
    rx_bursts,
    /// Received frames dropped: a checksum was wrong.
    rx_bad_checksum,
    /// Received frames dropped: in several segments, too long for one buffer.
    rx_oversize,
    /// Frames taken by the port.
    tx_frames,
    /// Bytes taken by the port.
    tx_bytes,
    /// Transmit bursts of which the port did not take all.
    tx_cut,
    /// Frames the driver refused to send.
    tx_refused,
    /// Frames asked for when there was no buffer.
    no_buffer,
    /// Frames asked for above the MTU.
    frame_oversize,
    /// Waits that slept.
    sleeps,
    /// Waits ended by a frame while spinning.
    spins_paid,
}
