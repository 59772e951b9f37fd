//! SETTINGS (RFC 9113 section 6.5): what we announce and when it holds, what the peer announced.
//!
//! Invariant: until the peer has acknowledged, it may still act on what held before, so the wider of both
//! values is enforced.

use super::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, MAX_31, flag, kind};
use super::limits::{SETTINGS_TIMEOUT_NS, STREAMS_ASSUMED, WINDOW_BYTES_MAX};
use super::{Config, Fault, H2Conn, H2Event, Role, flow};
use crate::Instant;

mod id {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 8441.
    pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    /// RFC 9218.
    pub(super) const NO_RFC7540_PRIORITIES: u16 = 9;
}

/// Ours.
#[derive(Debug)]
pub(crate) struct Ours {
    pub(crate) streams_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) header_list_bytes_max: u32,
    pub(crate) header_table_bytes_max: u32,
    /// The initial window announced last, bytes.
    pub(crate) window_announced: u32,
    /// The widest initial window the peer may believe in, bytes.
    pub(crate) window_enforced: u32,
    /// SETTINGS sent and not acknowledged.
    unacked: u32,
    /// Has the peer acknowledged any? Before, it may not know our stream limit.
    pub(crate) was_acked: bool,
    deadline: Option<Instant>,
}

impl Ours {
    pub(crate) fn new(role: Role, config: &Config, now: Instant) -> Self {
        let window = config.stream_window_bytes.min(WINDOW_BYTES_MAX);
        Self {
            streams_max: if role == Role::Server { config.streams_max } else { 0 },
            frame_bytes_max: config.frame_bytes_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX),
            header_list_bytes_max: config.header_list_bytes_max,
            header_table_bytes_max: config.header_table_bytes_max,
            window_announced: window,
            window_enforced: window.max(flow::WINDOW_INITIAL.unsigned_abs()),
            unacked: 0,
            was_acked: false,
            deadline: Some(now.after_ns(SETTINGS_TIMEOUT_NS)),
        }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The server's clock begins to run for the acknowledgement.
    pub(crate) const fn preface_arrived(&mut self, now: Instant) {
        self.deadline = Some(now.after_ns(SETTINGS_TIMEOUT_NS));
    }

    const fn sent(&mut self, now: Instant) {
        if self.unacked == 0 {
            self.deadline = Some(now.after_ns(SETTINGS_TIMEOUT_NS));
        }
        self.unacked += 1;
    }

    fn acked(&mut self, now: Instant) -> Result<(), Fault> {
        self.unacked = self.unacked.checked_sub(1).ok_or(Fault::SettingsAckUnexpected)?;
        self.was_acked = true;
        if self.unacked == 0 {
            self.deadline = None;
            self.window_enforced = self.window_announced;
        } else {
            self.deadline = Some(now.after_ns(SETTINGS_TIMEOUT_NS));
        }
        Ok(())
    }
}

/// The peer's.
#[derive(Debug)]
pub(crate) struct Theirs {
    pub(crate) streams_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) window_bytes: i32,
    /// Its first SETTINGS have come.
    arrived: bool,
}

impl Theirs {
    pub(crate) const fn new() -> Self {
        Self {
            streams_max: STREAMS_ASSUMED,
            frame_bytes_max: FRAME_BYTES_MIN,
            window_bytes: flow::WINDOW_INITIAL,
            arrived: false,
        }
    }
}

impl H2Conn {
    /// Our first SETTINGS, and the connection's window beyond the 65 535 bytes it begins with.
    pub(super) fn send_settings(&mut self) {
        let ours = &self.ours;
        let last = match self.role {
            Role::Client => (id::ENABLE_PUSH, 0),
            Role::Server => (id::MAX_CONCURRENT_STREAMS, ours.streams_max),
        };
        let all = [
            (id::INITIAL_WINDOW_SIZE, ours.window_announced),
            (id::MAX_FRAME_SIZE, ours.frame_bytes_max),
            (id::MAX_HEADER_LIST_SIZE, ours.header_list_bytes_max),
            (id::HEADER_TABLE_SIZE, ours.header_table_bytes_max),
            last,
        ];
        let mut payload = [[0; 6]; 5];
        for (place, (id, value)) in payload.iter_mut().zip(all) {
            *place = setting(id, value);
        }
        self.tx.push(kind::SETTINGS, 0, 0, payload.as_flattened());
        self.ours.sent(self.now);
        self.open_conn_window();
    }

    /// Announces another SETTINGS_INITIAL_WINDOW_SIZE, bytes; at most 2^30. Smaller windows hold once the
    /// peer has acknowledged.
    pub fn set_stream_window(&mut self, bytes: u32) {
        let bytes = bytes.min(WINDOW_BYTES_MAX);
        if bytes == self.ours.window_announced || self.dead.is_some() {
            return;
        }
        self.ours.window_announced = bytes;
        self.ours.window_enforced = self.ours.window_enforced.max(bytes);
        // A server that has not seen the preface has announced nothing yet.
        if self.settings_sent() {
            self.tx.push(kind::SETTINGS, 0, 0, &setting(id::INITIAL_WINDOW_SIZE, bytes));
            self.ours.sent(self.now);
        }
    }

    /// SETTINGS arrived: all values or none, then the acknowledgement.
    pub(super) fn recv_settings(&mut self, flags: u8, payload: &[u8]) -> Result<Option<H2Event>, Fault> {
        if flags & flag::ACK != 0 {
            if !payload.is_empty() {
                return Err(Fault::FrameLength);
            }
            let first = !self.ours.was_acked;
            self.ours.acked(self.now)?;
            if first {
                self.decoder.set_table_bytes_max(self.ours.header_table_bytes_max as usize);
            }
            return Ok(None);
        }
        let (values, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault::FrameLength);
        }
        // A change of window visits every stream: SETTINGS cost more the more they hold.
        let cost = 1 + u32::try_from(values.len() / 8).unwrap_or(u32::MAX);
        self.floods.cheap(cost, self.now, Fault::FloodSettings)?;
        let (streams_before, first) = (self.theirs.streams_max, !self.theirs.arrived);
        if first {
            // Without the setting there is no limit (section 6.5.2).
            self.theirs.streams_max = u32::MAX;
            self.theirs.arrived = true;
        }
        let mut window = self.theirs.window_bytes;
        for &[a, b, c, d, e, f] in values {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                id::HEADER_TABLE_SIZE => self.encoder.set_table_bytes_max(value as usize),
                // A server may only say 0 (section 6.5.2); we never push, so a client's wish is noted by
                // doing nothing.
                id::ENABLE_PUSH if value > u32::from(self.role == Role::Server) => {
                    return Err(Fault::SettingValue);
                }
                id::MAX_CONCURRENT_STREAMS => self.theirs.streams_max = value,
                id::INITIAL_WINDOW_SIZE => {
                    window = i32::try_from(value).map_err(|_| Fault::SettingWindow)?;
                }
                id::MAX_FRAME_SIZE if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&value) => {
                    return Err(Fault::SettingValue);
                }
                id::MAX_FRAME_SIZE => self.theirs.frame_bytes_max = value,
                id::ENABLE_CONNECT_PROTOCOL | id::NO_RFC7540_PRIORITIES if value > 1 => {
                    return Err(Fault::SettingValue);
                }
                // MAX_HEADER_LIST_SIZE is advice, and unknown settings are ignored.
                _ => {}
            }
        }
        self.send_windows_change(window)?;
        self.tx.push(kind::SETTINGS, flag::ACK, 0, &[]);
        self.floods.control_queued()?;
        if self.role == Role::Client && (first || self.theirs.streams_max > streams_before) {
            self.capacity_due = true;
        }
        Ok(None)
    }

    /// Have our first SETTINGS gone into `tx()`?
    pub(super) const fn settings_sent(&self) -> bool {
        self.ours.unacked > 0 || self.ours.was_acked
    }
}

fn setting(id: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (id.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

const _: () = assert!(WINDOW_BYTES_MAX < MAX_31);
