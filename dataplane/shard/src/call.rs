//! A call's slot: everything that outlives the step in which it was learnt.
//!
//! ```text
//!   Arriving ──forward──> Queued ──stream──> Open ──outcome known──> Ending ──last byte──> freed
//!      │ suspend: a timer runs           │  ^                            ^
//!      │                                 └──┘ retry                      │
//!      └──────────────── reject, deadline, cancel, reset ────────────────┘
//! ```

use alloc::{boxed::Box, vec::Vec};

use abi::{EndpointIdx, Flag, Leaving, ServiceIdx, Spill, Status};
use wire::{Headers, Instant, Token, h2::StreamKey};

use crate::CallTag;
use crate::callers::CallerId;
use crate::messages::Messages;
use crate::slab::Key;
use crate::wheel::TimerKey;

/// Header lists larger than this give their memory back when a call ends.
const KEPT_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    #[default]
    Free,
    /// Its request side has not let it through yet.
    Arriving,
    /// Let through; waits for the end of the burst, or for a stream of its endpoint.
    Queued,
    /// Has a stream to an endpoint.
    Open,
    /// The outcome is known; the answer's last bytes wait for the caller's window.
    Ending,
}

/// A stream of one of our connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leg {
    pub(crate) conn: Key,
    pub(crate) stream: StreamKey,
    /// Its place in the connection's list of calls.
    pub(crate) place: u32,
}

/// One direction of a call's body.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Bytes for the receiver; those before `head` have gone and are kept for a retry.
    pub(crate) buf: Vec<u8>,
    pub(crate) head: usize,
    /// The furthest `head` has been: bytes before it have been credited to the sender.
    pub(crate) credited: usize,
    /// Bytes received whose window has not been given back yet, where messages are taken one at a time.
    pub(crate) uncredited: usize,
    /// The sender has finished.
    pub(crate) has_ended: bool,
    /// The receiver has been told so.
    pub(crate) end_sent: bool,
    /// Body bytes that came.
    pub(crate) received: u64,
    /// The window the sender has, beyond bytes in flight.
    pub(crate) window: u32,
    /// Bytes given back since the window last grew, and when that was.
    pub(crate) since_growth: u32,
    pub(crate) grown_at: Instant,
    /// Bytes of the pools held beyond windows: messages that grew when they were unpacked or rewritten.
    pub(crate) inflated: u64,
    /// Messages are taken one at a time: read, judged, packed.
    pub(crate) messages: Option<Box<Messages>>,
}

impl Pipe {
    fn clear(&mut self) {
        let mut buf = core::mem::take(&mut self.buf);
        buf.clear();
        if buf.capacity() > KEPT_BYTES_MAX {
            buf = Vec::new();
        }
        *self = Self { buf, ..Self::default() };
    }

    /// Bytes that wait for the receiver.
    pub(crate) fn waiting(&self) -> usize {
        self.buf.len() - self.head
    }

    /// Forgets what has gone: all at once, or when it is half of the buffer, so that a receiver that takes a
    /// byte at a time does not have the rest moved for each.
    pub(crate) fn forget_sent(&mut self) {
        if self.head == self.buf.len() {
            self.buf.clear();
        } else if self.head * 2 >= self.buf.len() {
            self.buf.drain(..self.head);
        } else {
            return;
        }
        self.credited = self.credited.saturating_sub(self.head);
        self.head = 0;
    }
}

/// Who decided a call's outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decider {
    pub(crate) element: u16,
    pub(crate) line: u32,
}

/// A call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) phase: Phase,
    /// Its number on this shard, from 0.
    pub(crate) id: u64,
    pub(crate) caller: CallerId,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) deadline_timer: Option<TimerKey>,
    /// An element brought the deadline nearer: the timer is to follow.
    pub(crate) is_deadline_moved: bool,
    /// A delay of an element, or how long it may wait for its endpoint.
    pub(crate) wait_timer: Option<TimerKey>,
    /// Which program judges it: a place in the shard's generations.
    pub(crate) program: u8,
    /// Its chain, once routed.
    pub(crate) chain: Option<u32>,
    /// The method's statistics, once they exist.
    pub(crate) method: Option<u16>,
    pub(crate) source: Option<ServiceIdx>,
    /// Where the rule sends it; names the chain and the metrics.
    pub(crate) routed_to: Option<ServiceIdx>,
    /// Whose endpoints serve it.
    pub(crate) destination: Option<ServiceIdx>,
    pub(crate) endpoint: Option<EndpointIdx>,
    /// An element chose the endpoint: `Pick` does not choose again.
    pub(crate) is_pinned: bool,
    pub(crate) is_grpc: bool,
    /// The caller's header block ended its stream. An empty body is something else: grpc-go waits for it.
    pub(crate) is_bodiless: bool,
    pub(crate) listener: u16,
    pub(crate) peer_ip: Option<[u8; 16]>,

    pub(crate) down: Option<Leg>,
    pub(crate) up: Option<Leg>,
    /// The endpoint (shard-wide number) that counts it as in flight or has it queued.
    pub(crate) at_endpoint: Option<u32>,
    /// The endpoint (shard-wide number) of its last attempt.
    pub(crate) served_by: Option<u32>,
    pub(crate) sent_at: Instant,
    pub(crate) opened_turn: u64,
    pub(crate) attempts: u32,
    /// Endpoints chosen so far, reached or not.
    pub(crate) picks: u32,
    /// A processed-or-not attempt may be repeated once.
    pub(crate) was_repeated: bool,

    pub(crate) request: Headers,
    pub(crate) response: Headers,
    pub(crate) trailers: Headers,
    pub(crate) request_trailers: Option<Box<Headers>>,
    pub(crate) to_endpoint: Pipe,
    pub(crate) to_caller: Pipe,
    /// Request bytes that have gone are kept: no answer has come yet.
    pub(crate) is_retryable: bool,
    pub(crate) response_headers_seen: bool,
    pub(crate) response_headers_sent: bool,
    /// The endpoint has said all; messages of its answer are still to be judged before it counts.
    pub(crate) has_outcome: bool,
    /// The endpoint's answer was one header block that ended the stream.
    pub(crate) is_trailers_only: bool,
    /// The outcome was decided here, not by the endpoint's answer.
    pub(crate) is_own_outcome: bool,
    /// The HTTP status of the answer, for calls that are not gRPC.
    pub(crate) http_status: u16,

    /// Under which name the caller's node has sealed it.
    pub(crate) tag: Option<CallTag>,
    /// Under which name this node seals it.
    pub(crate) own_tag: Option<CallTag>,
    /// How messages of both directions leave.
    pub(crate) leaving: Leaving,
    /// What the caller's own accept list had, by `Encoding`.
    pub(crate) caller_accepts: [bool; abi::Encoding::ALL.len()],
    /// How we compress the request, decided at the first attempt.
    pub(crate) request_encoding: Option<abi::Encoding>,
    /// Bytes of the pools held by this call: windows and kept bytes.
    pub(crate) charged: u64,
    /// Of these, what its windows have grown by.
    pub(crate) grown: u64,
    pub(crate) last_moved: Instant,

    pub(crate) status: Status,
    /// An element changed status or message: the endpoint's own words no longer hold.
    pub(crate) is_status_rewritten: bool,
    pub(crate) flag: Flag,
    /// `grpc-message`, decoded.
    pub(crate) message: Vec<u8>,
    pub(crate) decider: Option<Decider>,
    pub(crate) passed: u16,
    /// `Entry::Response` has run.
    pub(crate) is_judged: bool,
    pub(crate) resume_segment: u16,
    /// `Entry::Response` waits for a timer.
    pub(crate) is_response_waiting: bool,
    pub(crate) words: Vec<u64>,
    pub(crate) spill: Spill,
    pub(crate) sinks: [u16; 4],
    pub(crate) sinks_len: u8,
    pub(crate) mark: Instant,
}

impl Call {
    /// `pkg.Service` and `Method`; empty where its path is none.
    pub(crate) fn path_halves(&self) -> (&str, &str) {
        let path = self.request.get(Token::Path).unwrap_or(b"");
        let (service, method) = wire::grpc::split_path(path).unwrap_or((b"", b""));
        (core::str::from_utf8(service).unwrap_or(""), core::str::from_utf8(method).unwrap_or(""))
    }

    /// Ready for the slot's next user: ordinary buffers stay, large ones go.
    pub(crate) fn clear(&mut self) {
        use core::mem::take;
        let keep = |mut list: Headers| {
            list.clear();
            if list.capacity_bytes() > KEPT_BYTES_MAX { Headers::new() } else { list }
        };
        self.to_endpoint.clear();
        self.to_caller.clear();
        self.message.clear();
        self.words.clear();
        self.spill.clear();
        if self.message.capacity() > KEPT_BYTES_MAX {
            self.message = Vec::new();
        }
        *self = Self {
            request: keep(take(&mut self.request)),
            response: keep(take(&mut self.response)),
            trailers: keep(take(&mut self.trailers)),
            to_endpoint: take(&mut self.to_endpoint),
            to_caller: take(&mut self.to_caller),
            message: take(&mut self.message),
            words: take(&mut self.words),
            spill: take(&mut self.spill),
            ..Self::default()
        };
    }

    /// One of `sinks`, each at most once; more than four are not kept.
    pub(crate) fn add_sink(&mut self, sink: u16) {
        let len = usize::from(self.sinks_len);
        if len < self.sinks.len() && !self.sinks[..len].contains(&sink) {
            self.sinks[len] = sink;
            self.sinks_len += 1;
        }
    }
}
