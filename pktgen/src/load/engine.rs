//! The load itself: links, calls, phases.
//!
//! ```text
//! Connecting ──links up──▶ WarmUp ──▶ Measuring ──time, count, stop──▶ Draining ──▶ Done
//!     └───────────── no target can be reached ──────────────────────────────────────▲
//! ```
//!
//! A *link* is a connection that ought to be: when it fails it is opened again after a pause, its calls
//! having ended with UNAVAILABLE. A link whose peer goes away (GOAWAY) ends its calls first and is then
//! opened again at once; calls the peer says it never saw are sent again and keep the time they were due.

mod calls;
mod clock;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use abi::Status;
use shard::{ConnId, Event, Transport, Via, Why};
use wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Reason, ResetBy, Role, StreamKey};
use wire::{Headers, Instant, Token, grpc};

use super::config::{ConfigError, Hold, LoadConfig, Pace};
use super::request::{frame_of, request_of};
use super::sample;
use super::trouble::{Trouble, Troubles};
use crate::conns::{Conn, Conns, h2_config};
use crate::slab::Slab;
use crate::stats::{Histogram, Live, Phase};
use crate::summary::{Sample, Summary};

/// Connects under way at once: a listener's backlog is small.
const CONNECTING_MAX: usize = 64;
/// With some links up, the others are waited for this long.
const LINKS_WAIT: Duration = Duration::from_secs(2);
const MESSAGE_CHARS_MAX: usize = 200;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A stalled reader's streams are opened within this time.
const STALL_AFTER: Duration = Duration::from_millis(500);
/// Calls under way in an open loop; beyond that, due ones wait unsent.
const CALLS_MAX: usize = 1 << 20;
const SAMPLES: u64 = 300;
const SAMPLE_MIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Call {
    conn: ConnId,
    stream: StreamKey,
    due: Instant,
    body_at: usize,
    status: Option<Status>,
    has_message: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkState {
    Down,
    Connecting,
    Up,
}

#[derive(Debug)]
struct Link {
    target: usize,
    state: LinkState,
    retry_at: Instant,
    failures: u32,
}

/// What each connection keeps besides HTTP/2.
#[derive(Debug)]
struct OfLink {
    link: usize,
    active: u32,
    /// Calls whose body did not go out whole yet.
    waiting: Vec<u32>,
    is_draining: bool,
    has_spoken: bool,
}

/// The load, without its transport.
#[derive(Debug)]
pub(super) struct Engine {
    config: LoadConfig,
    h2_config: Config,
    live: Arc<Live>,
    phase: Phase,
    links: Vec<Link>,
    /// Link by the transport's connection index, while it connects.
    link_of: Vec<usize>,
    links_idle: usize,
    links_connecting: usize,
    link_look: Instant,
    conns: Conns<OfLink>,
    /// Connections that are up, in turn for the open loop.
    round: Vec<ConnId>,
    round_at: usize,
    calls: Slab<Call>,
    again: VecDeque<Instant>,
    expiries: VecDeque<(Instant, u32, StreamKey)>,
    /// Request headers by target.
    requests: Vec<Headers>,
    /// The request message with its prefix.
    frame: Vec<u8>,
    created: Option<Instant>,
    begun: Instant,
    measure_from: Instant,
    measure_to: Instant,
    drain_to: Instant,
    issued: u64,
    counted: u64,
    failed: u64,
    is_blocked: bool,
    is_stalled: bool,
    sample_every: Duration,
    sample_at: Instant,
    sampled: (Instant, u64, u64, Histogram),
    samples: Vec<Sample>,
    troubles: Troubles,
    /// The first `grpc-message` of each status.
    messages: [Option<String>; Status::COUNT],
}

fn grpc_status(list: &Headers) -> Option<Status> {
    let text = core::str::from_utf8(list.get(Token::GrpcStatus)?).ok()?;
    Some(text.parse().map_or(Status::UNKNOWN, Status::from_code))
}

/// The decoded `grpc-message`, cut to a line's length.
fn grpc_message(list: &Headers) -> String {
    let mut text = Vec::new();
    grpc::decode_message(list.get(Token::GrpcMessage).unwrap_or(b""), &mut text);
    String::from_utf8_lossy(&text).chars().take(MESSAGE_CHARS_MAX).collect()
}

impl Engine {
    pub(super) fn new(config: LoadConfig, live: Arc<Live>) -> Result<Self, ConfigError> {
        config.check()?;
        let window = if config.hold == Hold::Stall { 1 << 30 } else { 4 << 20 };
        let h2_config = h2_config(window, if config.hold == Hold::Stall { window } else { 64 << 20 });
        let targets = config.to.len();
        let links = (0..config.conns as usize)
            .map(|i| Link {
                target: i % targets,
                state: LinkState::Down,
                retry_at: Instant::default(),
                failures: 0,
            })
            .collect();
        let every = config.run.checked_div(u32::try_from(SAMPLES).unwrap_or(1)).unwrap_or_default();
        let end_of_time = Instant(u64::MAX);
        Ok(Self {
            requests: config.to.iter().map(|t| request_of(&config, &t.authority)).collect(),
            frame: frame_of(config.message_bytes),
            links_idle: config.conns as usize,
            h2_config,
            live,
            phase: Phase::Connecting,
            links,
            link_of: Vec::new(),
            links_connecting: 0,
            link_look: Instant::default(),
            conns: Conns::new(),
            round: Vec::new(),
            round_at: 0,
            calls: Slab::new(),
            again: VecDeque::new(),
            expiries: VecDeque::new(),
            created: None,
            begun: end_of_time,
            measure_from: end_of_time,
            measure_to: end_of_time,
            drain_to: end_of_time,
            issued: 0,
            counted: 0,
            failed: 0,
            is_blocked: false,
            is_stalled: false,
            sample_every: every.max(SAMPLE_MIN),
            sample_at: end_of_time,
            sampled: (Instant::default(), 0, 0, Histogram::default()),
            samples: Vec::new(),
            troubles: Troubles::default(),
            messages: Default::default(),
            config,
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            config: self.config.clone(),
            seen: self.live.snapshot(),
            samples: self.samples.clone(),
            troubles: self.troubles.list(),
            messages: self.messages(),
        }
    }

    fn messages(&self) -> Vec<(Status, String)> {
        let named = Status::all().zip(&self.messages);
        named
            .filter_map(|(status, text)| text.clone().filter(|t| !t.is_empty()).map(|t| (status, t)))
            .collect()
    }

    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.live.set_phase(phase);
    }

    /// No new calls from now on.
    pub(super) fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting => self.set_phase(Phase::Done),
            Phase::WarmUp | Phase::Measuring => self.begin_drain(now),
            Phase::Draining | Phase::Done => {}
        }
    }

    pub(super) fn close<T: Transport>(&mut self, transport: &mut T) {
        self.conns.close(transport);
    }

    // Events of the transport.

    pub(super) fn on_event<T: Transport>(&mut self, transport: &mut T, event: Event<T::Rx>, now: Instant) {
        match event {
            Event::Connected(id) => self.on_connected(id, now),
            Event::Failed(id, why) => self.on_failed(id, why, now),
            Event::Data(id, rx) => {
                let bytes = transport.bytes(&rx);
                let outcome = self.on_bytes(id, bytes, now);
                if self.phase == Phase::Measuring {
                    self.live.add_bytes(0, bytes.len());
                }
                drop(rx);
                if let Err(trouble) = outcome {
                    if let Some(conn) = self.conns.get(id) {
                        transport.tx(id, &[conn.h2.tx()]);
                    }
                    transport.close(id);
                    self.on_lost(id, Some(trouble), now);
                } else {
                    self.end_if_drained(transport, id, now);
                }
            }
            Event::Eof(id) => {
                if let Some(conn) = self.conns.get(id) {
                    let trouble = (!conn.user.is_draining).then_some(Trouble::Closed(conn.user.has_spoken));
                    transport.close(id);
                    self.on_lost(id, trouble, now);
                }
            }
            Event::Reset(id, why) => self.on_lost(id, Some(Trouble::Lost(why)), now),
            Event::Writable(id) => self.conns.writable(id),
            Event::Accepted(id, ..) => transport.close(id),
        }
    }

    fn on_connected(&mut self, id: ConnId, now: Instant) {
        let Some(&at) = self.link_of.get(id.index as usize) else { return };
        let Some(link) = self.links.get_mut(at) else { return };
        link.state = LinkState::Up;
        link.failures = 0;
        self.links_connecting -= 1;
        self.link_look = now;
        let of_link =
            OfLink { link: at, active: 0, waiting: Vec::new(), is_draining: false, has_spoken: false };
        self.conns.insert(id, H2Conn::new(Role::Client, &self.h2_config, now), of_link);
        self.round.push(id);
        self.is_blocked = false;
        if matches!(self.phase, Phase::WarmUp | Phase::Measuring) {
            self.fill(id, now);
        }
    }

    fn on_failed(&mut self, id: ConnId, why: Why, now: Instant) {
        if self.conns.get(id).is_some() {
            return self.on_lost(id, Some(Trouble::Lost(why)), now);
        }
        let Some(&at) = self.link_of.get(id.index as usize) else { return };
        self.links_connecting -= 1;
        self.link_down(at, now);
        self.note(at, Trouble::Connect(why));
    }

    fn note(&mut self, link: usize, trouble: Trouble) {
        let target = self.links.get(link).and_then(|l| self.config.to.get(l.target));
        if let Some(target) = target {
            self.troubles.note(&target.addr, trouble);
        }
    }

    fn link_down(&mut self, at: usize, now: Instant) {
        let Some(link) = self.links.get_mut(at) else { return };
        let pause = RETRY_FIRST.saturating_mul(1 << link.failures.min(8)).min(RETRY_MAX);
        link.state = LinkState::Down;
        link.failures += 1;
        link.retry_at = now.after(pause);
        self.links_idle += 1;
        self.link_look = self.link_look.min(link.retry_at);
    }

    /// A connection is gone, and with it its calls.
    fn on_lost(&mut self, id: ConnId, trouble: Option<Trouble>, now: Instant) {
        let Some(conn) = self.conns.remove(id) else { return };
        self.round.retain(|c| *c != id);
        self.link_down(conn.user.link, now);
        match trouble {
            Some(trouble) => self.note(conn.user.link, trouble),
            None => {
                // The peer said goodbye first: no reason to wait.
                if let Some(link) = self.links.get_mut(conn.user.link) {
                    link.failures = 0;
                    link.retry_at = now;
                    self.link_look = now;
                }
            }
        }
        for key in self.calls.keys_where(|c| c.conn == id) {
            if let Some(call) = self.calls.remove(key) {
                self.count(&call, Status::UNAVAILABLE, now);
            }
        }
    }

    fn end_if_drained<T: Transport>(&mut self, transport: &mut T, id: ConnId, now: Instant) {
        if self.conns.get(id).is_some_and(|c| c.user.is_draining && c.user.active == 0) {
            transport.close(id);
            self.on_lost(id, None, now);
        }
    }

    fn on_bytes(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Result<(), Trouble> {
        self.conns.mark(id);
        let Some(conn) = self.conns.get(id) else { return Ok(()) };
        if !conn.user.has_spoken {
            conn.user.has_spoken = true;
            if let Some(trouble) = Trouble::of_first_bytes(bytes) {
                return Err(trouble);
            }
        }
        let mut input = Input { bytes, at: 0 };
        loop {
            let Some(conn) = self.conns.get(id) else { return Ok(()) };
            let event = match conn.h2.next(now, &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(e) => return Err(Trouble::Protocol(e.fault.name())),
            };
            match event {
                H2Event::Headers { tag, kind, end_stream, .. } => {
                    if kind != HeadersKind::Informational {
                        let status = grpc_status(conn.h2.headers());
                        if let Some(status) = status
                            && let Some(place) = self.messages.get_mut(usize::from(status.code()))
                            && status != Status::OK
                            && place.is_none()
                        {
                            *place = Some(grpc_message(conn.h2.headers()));
                        }
                        let http = if kind == HeadersKind::Response { http_status(conn) } else { 200 };
                        self.on_headers(tag, status, http, end_stream, now);
                    }
                }
                H2Event::Data { stream, tag, range, end_stream } => {
                    if let Some(call) = self.calls.get(tag) {
                        call.has_message |= !range.is_empty();
                    }
                    if end_stream {
                        self.finish(tag, None, now);
                    } else {
                        conn.h2.release(stream, range.len());
                    }
                }
                H2Event::Reset { tag, reason, by, .. } => self.on_reset(tag, reason, by, now),
                H2Event::Writable { tag, .. } => self.offer_body(tag),
                H2Event::Capacity => self.is_blocked = false,
                H2Event::Goaway { .. } => {
                    conn.user.is_draining = true;
                    self.round.retain(|c| *c != id);
                }
                H2Event::Pong => {}
            }
        }
        self.fill(id, now);
        Ok(())
    }

    fn on_headers(&mut self, tag: u32, status: Option<Status>, http: u16, end_stream: bool, now: Instant) {
        let Some(call) = self.calls.get(tag) else { return };
        let status = if http == 200 { status } else { Some(Status::from_code(grpc::status_of_http(http))) };
        if end_stream {
            self.finish(tag, status, now);
        } else if http != 200 {
            call.status = status;
        }
    }

    fn on_reset(&mut self, tag: u32, reason: Reason, by: ResetBy, now: Instant) {
        match by {
            ResetBy::Goaway => {
                if let Some(call) = self.calls.remove(tag) {
                    self.leave(call.conn);
                    self.live.record_requeued();
                    self.again.push_back(call.due);
                }
            }
            ResetBy::Fault(_) => self.finish(tag, Some(Status::INTERNAL), now),
            ResetBy::Peer => {
                self.finish(tag, Some(Status::from_code(grpc::status_of_reason(reason.0))), now);
            }
        }
    }

    fn leave(&mut self, id: ConnId) {
        self.is_blocked = false;
        if let Some(conn) = self.conns.get(id) {
            conn.user.active -= 1;
        }
    }

    /// A call has its answer. Without a `grpc-status` it is UNKNOWN; OK without a message is INTERNAL, as
    /// in gRPC's own clients.
    fn finish(&mut self, tag: u32, status: Option<Status>, now: Instant) {
        let Some(call) = self.calls.remove(tag) else { return };
        self.leave(call.conn);
        if call.body_at < self.frame.len()
            && let Some(conn) = self.conns.get(call.conn)
        {
            conn.h2.reset(call.stream, Reason::CANCEL);
        }
        let status = call.status.or(status).unwrap_or(Status::UNKNOWN);
        let is_short = status == Status::OK && !call.has_message;
        self.count(&call, if is_short { Status::INTERNAL } else { status }, now);
    }

    fn is_counted(&self, due: Instant, ended: Instant) -> bool {
        let when = if matches!(self.config.pace, Pace::Open { .. }) { due } else { ended };
        when >= self.measure_from && when < self.measure_to
    }

    fn count(&mut self, call: &Call, status: Status, now: Instant) {
        if !self.is_counted(call.due, now) {
            self.live.record_uncounted();
            return;
        }
        self.live.record_call(status, now.since_ns(call.due));
        self.counted += 1;
        self.failed += u64::from(status != Status::OK);
    }
}

fn http_status(conn: &Conn<OfLink>) -> u16 {
    let value = conn.h2.headers().get(Token::Status).unwrap_or(b"");
    core::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).unwrap_or(0)
}
