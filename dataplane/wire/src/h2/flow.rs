//! Flow control, both directions (RFC 9113 sections 5.2 and 6.9).
//!
//! Receiving: the connection's window is credited when bytes arrive, because nothing is held here; a
//! stream's when the caller has passed them on (`release`). Sending: the smallest of stream window,
//! connection window and room in `tx()`; see `send.rs`.
//! Invariant: no window ever exceeds 2^31-1, ours nor theirs.

use super::frame::{MAX_31, kind};
use super::limits::WINDOW_BYTES_MAX;
use super::stream::is;
use super::{Fault, H2Conn, StreamKey};

/// What every window begins with (section 6.9.2), bytes.
pub(crate) const WINDOW_INITIAL: i32 = 65_535;

/// The connection's receive window.
#[derive(Debug)]
pub(crate) struct RecvConn {
    /// What the peer may still send, bytes.
    left: u32,
    /// Received and not yet credited, bytes.
    pending: u32,
    /// `left + pending`, always.
    target: u32,
}

impl RecvConn {
    pub(crate) fn new(bytes: u32) -> Self {
        let initial = WINDOW_INITIAL.unsigned_abs();
        Self { left: initial, pending: 0, target: bytes.clamp(initial, WINDOW_BYTES_MAX) }
    }

    /// Bytes arrived (section 6.9.1: the whole payload counts, padding included). Some: credit so many.
    fn arrived(&mut self, bytes: u32) -> Result<Option<u32>, Fault> {
        self.left = self.left.checked_sub(bytes).ok_or(Fault::WindowExceeded)?;
        self.pending += bytes;
        Ok((self.pending >= self.target / 2).then(|| self.credit()))
    }

    #[cfg(test)]
    pub(crate) const fn left(&self) -> u32 {
        self.left
    }

    fn credit(&mut self) -> u32 {
        self.left += self.pending;
        core::mem::take(&mut self.pending)
    }
}

impl H2Conn {
    /// Opens the connection's window to its target, once, after SETTINGS.
    pub(super) fn open_conn_window(&mut self) {
        let more = self.recv.target - self.recv.left - self.recv.pending;
        if more > 0 {
            self.recv.left += more;
            self.tx.push(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// DATA arrived on any stream, open or not.
    pub(super) fn conn_data_arrived(&mut self, bytes: u32) -> Result<(), Fault> {
        if let Some(credit) = self.recv.arrived(bytes)? {
            self.tx.push(kind::WINDOW_UPDATE, 0, 0, &credit.to_be_bytes());
        }
        Ok(())
    }

    /// Received bytes of a stream have gone on: WINDOW_UPDATE, when it is worth one. More than was received
    /// counts as all of it.
    pub fn release(&mut self, stream: StreamKey, bytes: usize) {
        if let Some(s) = self.streams.get_mut(stream) {
            let bytes = s.recv_held.min(u32::try_from(bytes).unwrap_or(u32::MAX));
            s.recv_held -= bytes;
            self.credit_stream(stream, bytes);
        }
    }

    /// Adds to what is pending; announces it when that is half the window, an eighth when the peer is
    /// about to stall, anything when it has.
    pub(super) fn credit_stream(&mut self, stream: StreamKey, bytes: u32) {
        let announced = i64::from(self.ours.window_announced);
        let Some(s) = self.streams.get_mut(stream) else { return };
        s.recv_pending += bytes;
        if s.has(is::RECV_END) || s.recv_pending == 0 {
            return;
        }
        let (pending, target) = (i64::from(s.recv_pending), announced + i64::from(s.extended));
        let left = announced + i64::from(s.recv_rel);
        if pending * 2 >= target || (left * 4 <= target && pending * 8 >= target) || left <= 0 {
            self.credit_now(stream);
        }
    }

    /// The peer has used its window up: whatever is pending is announced, however little. Whoever gathers a
    /// whole message before passing it on would else wait for bytes that may not be sent.
    pub(super) fn credit_if_stalled(&mut self, stream: StreamKey) {
        let announced = i64::from(self.ours.window_announced);
        let is_stalled = self
            .streams
            .get_mut(stream)
            .is_some_and(|s| announced + i64::from(s.recv_rel) <= 0 && !s.has(is::RECV_END));
        if is_stalled {
            self.credit_now(stream);
        }
    }

    /// Raises a stream's receive window by this many bytes beyond what was announced; up to 2^30 in all.
    pub fn extend_window(&mut self, stream: StreamKey, bytes: u32) {
        let Some(s) = self.streams.get_mut(stream) else { return };
        let bytes = bytes.min((MAX_31 - WINDOW_BYTES_MAX).saturating_sub(s.extended));
        if bytes == 0 || s.has(is::RECV_END) {
            return;
        }
        s.extended += bytes;
        s.recv_pending += bytes;
        // WINDOW_UPDATE on an idle stream would be an error (section 5.1): it follows the headers.
        if s.has(is::SENT_HEADERS | is::RECV_HEADERS) {
            self.credit_now(stream);
        }
    }

    /// Announces what is pending.
    pub(super) fn credit_now(&mut self, stream: StreamKey) {
        let Some(s) = self.streams.get_mut(stream).filter(|s| s.recv_pending > 0) else { return };
        let credit = core::mem::take(&mut s.recv_pending);
        s.recv_rel = s.recv_rel.saturating_add_unsigned(credit);
        self.tx.push(kind::WINDOW_UPDATE, 0, stream.id, &credit.to_be_bytes());
    }

    /// The peer's SETTINGS_INITIAL_WINDOW_SIZE applies to all streams (section 6.9.2); windows may fall
    /// below 0.
    pub(super) fn send_windows_change(&mut self, window: i32) -> Result<(), Fault> {
        let delta = window - self.theirs.window_bytes;
        self.theirs.window_bytes = window;
        if delta == 0 || self.streams.count() == 0 {
            return Ok(());
        }
        let mut at = 0;
        while let Some((key, next)) = self.streams.find_from(at, |_| true) {
            at = next;
            self.send_window_add(key, delta)?;
        }
        Ok(())
    }

    /// A stream's send window changes; if it opens, the stream gets in line.
    pub(super) fn send_window_add(&mut self, key: StreamKey, delta: i32) -> Result<(), Fault> {
        let Some(s) = self.streams.get_mut(key) else { return Ok(()) };
        s.send_window = s.send_window.checked_add(delta).ok_or(Fault::WindowOverflow)?;
        match (s.has(is::WANTS), s.send_window > 0, s.has(is::QUEUED)) {
            (true, true, _) => self.streams.enqueue(key.index),
            (_, false, true) => self.streams.unlink(key.index),
            _ => {}
        }
        Ok(())
    }
}
