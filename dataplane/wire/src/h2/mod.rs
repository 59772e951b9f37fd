//! One HTTP/2 connection, either role, without I/O (RFC 9113).
//!
//! Call order: bytes arrive: `next` until it gives `None`, acting on each event before the next call.
//! Then whatever `send_*`, `open`, `reset`, `release` the events led to. Then `tx()` is written out and
//! `tx_advance` says how much went; if it returns true, `next` with an empty input yields the `Writable`
//! of every stream that waits. `poll_timeout` / `handle_timeout` in between.
//!
//! What it is not: it knows no gRPC, no routing and no policy, it has no clock, and it does not push.
//!
//! One file per concern: `frame` heads, `settings`, `stream` states in `streams` with `id_map` and
//! `closed`, `flow` control, `validate`, `floods` and `limits`, `recv*` for what comes in, `send` and `tx`
//! for what goes out, `drain` for GOAWAY, `preface`.
//!
//! Invariants: frames that are whole in the input are parsed in place; of a cut one at most
//! SETTINGS_MAX_FRAME_SIZE is copied, of DATA never more than its head. Nothing is allocated before it is
//! needed, nor again once it has been. After a `ConnError` nothing but `tx()` works.

mod closed;
mod drain;
mod fault;
mod floods;
mod flow;
mod frame;
mod id_map;
pub mod limits;
mod preface;
mod recv;
mod recv_control;
mod recv_data;
mod recv_headers;
mod send;
mod settings;
mod stream;
mod streams;
mod tx;
mod types;
mod validate;

use alloc::vec::Vec;

use crate::hpack::{HpackDecoder, HpackEncoder};
use crate::{Headers, Instant};

pub use fault::Fault;
pub use types::{Config, ConnError, H2Event, HeadersKind, Input, Reason, ResetBy, Role, StreamKey, UNTAGGED};
pub use validate::field_is_valid;

use floods::Floods;
use flow::RecvConn;
use recv::Rx;
use recv_headers::Continued;
use settings::{Ours, Theirs};
use streams::Streams;
use tx::Tx;

/// A connection.
#[derive(Debug)]
pub struct H2Conn {
    role: Role,
    rx: Rx,
    /// The time of the last `next` or `handle_timeout`.
    now: Instant,
    /// A frame that the end of the input cut.
    part: Vec<u8>,
    /// A header block whose CONTINUATION has not come, and whose it is.
    block: Vec<u8>,
    continued: Option<Continued>,
    /// The last header list, for the caller.
    fields: Headers,
    decoder: HpackDecoder,
    encoder: HpackEncoder,
    streams: Streams,
    tx: Tx,
    tx_bytes_max: usize,
    ours: Ours,
    theirs: Theirs,
    recv: RecvConn,
    /// What we may send on the connection, bytes.
    send_window: i32,
    floods: Floods,
    /// The highest stream id that was on the wire: the peer's as server, ours as client.
    id_max: u32,
    /// Client: the id `open` gives next; above 2^31-1 when they have run out.
    id_next: u32,
    /// The last stream our GOAWAY named.
    goaway_sent: Option<u32>,
    /// The last stream the peer's GOAWAY named.
    goaway_received: Option<u32>,
    /// Where the search for streams the peer's GOAWAY left out goes on.
    sweep: Option<u32>,
    /// `Capacity` is due.
    capacity_due: bool,
    pings_unanswered: u32,
    dead: Option<ConnError>,
}

impl H2Conn {
    /// A new connection. As client, our preface and SETTINGS are in `tx()`; as server SETTINGS follow when
    /// the client's preface has come, so that nobody else is sent any.
    pub fn new(role: Role, config: &Config, now: Instant) -> Self {
        let ours = Ours::new(role, config, now);
        let mut conn = Self {
            role,
            rx: Rx::Preface,
            now,
            part: Vec::new(),
            block: Vec::new(),
            continued: None,
            fields: Headers::new(),
            decoder: HpackDecoder::new(ours.header_table_bytes_max as usize),
            encoder: HpackEncoder::new(),
            // The low bits of a clock are what a remote peer knows least; a simulated clock repeats.
            streams: Streams::new(now.0),
            tx: Tx::new(),
            tx_bytes_max: config.tx_bytes_max.max(1),
            ours,
            theirs: Theirs::new(),
            recv: RecvConn::new(config.conn_window_bytes),
            send_window: flow::WINDOW_INITIAL,
            floods: Floods::new(now),
            id_max: 0,
            id_next: 1,
            goaway_sent: None,
            goaway_received: None,
            sweep: None,
            capacity_due: false,
            pings_unanswered: 0,
            dead: None,
        };
        if role == Role::Client {
            conn.tx.preface();
            conn.send_settings();
        }
        conn
    }

    /// The fields of the last `Headers` event.
    pub fn headers(&self) -> &Headers {
        &self.fields
    }

    /// Names a stream for later events.
    pub fn set_tag(&mut self, stream: StreamKey, tag: u32) {
        if let Some(s) = self.streams.get_mut(stream) {
            s.tag = tag;
        }
    }

    /// Bytes to write.
    pub fn tx(&self) -> &[u8] {
        self.tx.bytes()
    }

    /// The first `n` of them went. Returns true if streams wait that `send_data` refused and could send
    /// now: call `next` with an empty input until it gives `None`, and each gets its `Writable`.
    pub fn tx_advance(&mut self, n: usize) -> bool {
        if n > 0 {
            self.tx.advance(n);
            self.floods.tx_progress();
        }
        self.streams.is_waiting() && self.could_send()
    }

    /// Takes the empty buffer behind `tx()` away (for a pool), or gives one (`tx()` must be empty; else
    /// nothing happens). What was in a given buffer is forgotten.
    pub fn tx_swap(&mut self, buffer: &mut Vec<u8>) {
        if self.tx.len() == 0 {
            core::mem::swap(&mut self.tx.buf, buffer);
            self.tx.clear();
        }
    }

    /// Streams neither side has finished, and those `open` gave.
    pub fn streams_open(&self) -> usize {
        self.streams.count() as usize
    }

    /// When `handle_timeout` wants to be called (preface or SETTINGS ack overdue).
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.dead.is_some() {
            return None;
        }
        if self.is_flooding_out() {
            return Some(self.now);
        }
        self.ours.deadline()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnError> {
        self.now = now;
        if let Some(error) = self.dead {
            return Err(error);
        }
        if self.is_flooding_out() {
            return Err(self.fail(Fault::FloodOutbound));
        }
        match self.ours.deadline() {
            Some(deadline) if deadline <= now => Err(self.fail(match self.rx {
                Rx::Preface => Fault::PrefaceTimeout,
                _ => Fault::SettingsTimeout,
            })),
            _ => Ok(()),
        }
    }

    /// Bytes of memory held beyond the struct itself.
    pub fn capacity_bytes(&self) -> usize {
        self.part.capacity()
            + self.block.capacity()
            + self.tx.buf.capacity()
            + self.fields.capacity_bytes()
            + self.decoder.capacity_bytes()
            + self.encoder.capacity_bytes()
            + self.streams.capacity_bytes()
    }

    /// Gives back what a connection without streams does not need. For a sweep over idle connections, not
    /// after every call: the next call allocates it again.
    pub fn trim(&mut self) {
        if self.streams.count() == 0 && self.continued.is_none() {
            self.block = Vec::new();
            self.fields = Headers::new();
            self.streams.trim();
            self.decoder.trim();
            self.encoder.trim();
        }
        if self.part.is_empty() {
            self.part = Vec::new();
        }
        if self.tx.len() == 0 {
            self.tx.buf = Vec::new();
            self.tx.clear();
        }
    }

    /// Has more been queued than any peer that reads would leave unread?
    fn is_flooding_out(&self) -> bool {
        self.tx.frames() > limits::OUTBOUND_FRAMES_MAX
            || self.tx.len() > self.tx_bytes_max.saturating_add(limits::OUTBOUND_BYTES_MAX)
    }

    /// Ends the connection: GOAWAY with the fault's name as debug data, once.
    fn fail(&mut self, fault: Fault) -> ConnError {
        if let Some(error) = self.dead {
            return error;
        }
        let error = ConnError { reason: fault.reason(), fault };
        self.say_last_words(fault);
        self.dead = Some(error);
        error
    }
}

#[cfg(test)]
mod tests;
