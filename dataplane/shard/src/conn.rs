//! A connection of either side, whatever it carries.

use alloc::{boxed::Box, vec::Vec};

use abi::ServiceIdx;
use wire::{Instant, h2::H2Conn};

use crate::callers::CallerId;
use crate::pace::Pace;
use crate::slab::Key;
use crate::{ConnId, Peer};

/// How far a caller's connection has been drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Drain {
    #[default]
    No,
    /// GOAWAY(2^31-1) and a PING are out, since then; its answer says the caller has seen both.
    Announced(Instant),
    /// GOAWAY(last) is out: closed when its last call has ended.
    Finishing,
}

/// A caller's side.
#[derive(Debug, Default)]
pub(crate) struct Down {
    pub(crate) listener: u16,
    pub(crate) caller: CallerId,
    pub(crate) peer: Peer,
    /// Which service calls, as of `source_program`.
    pub(crate) source: Option<ServiceIdx>,
    pub(crate) source_program: u64,
    pub(crate) has_small_window: bool,
    pub(crate) drain: Drain,
}

/// How far a connection to an endpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UpState {
    /// The transport connects.
    Connecting,
    /// Connected; its SETTINGS have not come: it may speak something else, or allow few streams.
    Greeting,
    Ready,
    /// It said GOAWAY, or ran out of ids: no new streams.
    Leaving,
}

impl UpState {
    /// Calls may wait for it.
    pub(crate) const fn is_coming(self) -> bool {
        matches!(self, Self::Connecting | Self::Greeting)
    }
}

/// An endpoint's side.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) endpoint: u32,
    /// Only this caller's calls travel here.
    pub(crate) private_to: Option<CallerId>,
    pub(crate) state: UpState,
}

/// One end of a relayed pair.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The other end; none while the endpoint is still to be chosen or after it went.
    pub(crate) other: Option<Key>,
    /// Bytes for this end that its socket has not taken yet.
    pub(crate) pending: Vec<u8>,
    pub(crate) head: usize,
    pub(crate) is_connected: bool,
    /// This end will send no more.
    pub(crate) has_ended: bool,
    /// This end has been told that the other will send no more.
    pub(crate) end_sent: bool,
    pub(crate) is_paused: bool,
    /// Set on the caller's end.
    pub(crate) down: Option<Down>,
    /// Set on the endpoint's end.
    pub(crate) endpoint: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Free,
    /// `protocol = "auto"`: the first bytes decide.
    Sniffing(Down, Vec<u8>),
    Down(Down),
    Up(Up),
    Relay(Relay),
}

/// A connection's slot.
#[derive(Debug, Default)]
pub(crate) struct Conn {
    pub(crate) id: Option<ConnId>,
    pub(crate) kind: Kind,
    pub(crate) h2: Option<Box<H2Conn>>,
    /// Calls with a stream here, by slot; a call knows its place in this list.
    pub(crate) calls: Vec<u32>,
    pub(crate) is_dirty: bool,
    /// Its last bytes are on their way: closed as soon as they are out.
    pub(crate) is_closing: bool,
    /// They are out, and so is a FIN: it goes when the peer's comes.
    pub(crate) has_said_end: bool,
    /// The peer will send no more: closed as soon as our last bytes are out.
    pub(crate) has_heard_end: bool,
    /// It holds no more memory than an idle connection needs.
    pub(crate) is_trimmed: bool,
    pub(crate) last_rx: Instant,
    /// When the last stream ended, or it began.
    pub(crate) idle_since: Instant,
    pub(crate) ping_at: Option<Instant>,
    /// Answers that wait for others.
    pub(crate) pace: Pace,
}

impl Conn {
    /// Ready for the slot's next user; small lists keep their memory.
    pub(crate) fn clear(&mut self) {
        let mut calls = core::mem::take(&mut self.calls);
        calls.clear();
        calls.shrink_to(64);
        *self = Self { calls, ..Self::default() };
    }
}
