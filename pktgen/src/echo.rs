//! A gRPC backend as cheap as it can be: what comes in goes out again.
//!
//! Message bytes are returned as they arrive, prefix and all, without being looked at, so unary calls and
//! streams of every kind are one case. Headers go out before the first byte, trailers after the caller's
//! last. A stream's window is credited only for bytes that have gone out, so a caller that does not read
//! its answers is stopped by its own flow control, and at most one window per stream is held here.
//!
//! It is not a model gRPC server: it neither checks content types nor honours deadlines; a proxy under
//! test must not lean on its backend's manners.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use abi::Status;
use shard::{Burst, ConnId, Event, Transport};
use wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Role, StreamKey};
use wire::{Headers, Instant, Token, grpc};

use crate::conns::{Conns, h2_config};
use crate::slab::Slab;

/// Methods counted by name; calls of further ones are counted together.
const METHODS_MAX: usize = 1024;
const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
/// The longest `run` stays blind to its stop flag.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// How an [`Echo`] answers.
#[derive(Clone, Debug, Default)]
pub struct EchoOptions {
    /// Every answer is held back by this much.
    pub latency: Duration,
    /// The status of every answer; anything but OK comes without a message.
    pub status: Status,
    /// `grpc-message` beside it.
    pub message: String,
    /// Instead of the caller's own message: one of this many zero bytes, after the caller's last.
    pub answer_bytes: Option<u32>,
    /// Only calls of this `:path` are answered so; `None` is all of them.
    pub answer_method: Option<String>,
    /// The `grpc-accept-encoding` advertised in every answer.
    pub accept_encoding: Option<String>,
}

/// The figures of a running [`Echo`], for another thread to read.
#[derive(Debug, Default)]
pub struct EchoLive {
    calls: AtomicU64,
    conns: AtomicU64,
    body_bytes: AtomicU64,
    conn_errors: AtomicU64,
}

impl EchoLive {
    /// Calls that have begun.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Connections open now.
    pub fn conns(&self) -> u64 {
        self.conns.load(Relaxed)
    }

    /// Bytes of request bodies received.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Relaxed)
    }

    /// Connections that were ended because the peer broke HTTP/2.
    pub fn conn_errors(&self) -> u64 {
        self.conn_errors.load(Relaxed)
    }
}

#[derive(Debug)]
struct Call {
    conn: ConnId,
    stream: StreamKey,
    /// Echoed bytes that could not go out yet; the stream's window is still charged for them.
    pending: Vec<u8>,
    pending_at: usize,
    zeros_left: u64,
    answer_bytes: Option<u32>,
    encoding: usize,
    is_held: bool,
    has_ended: bool,
    headers_sent: bool,
    is_waiting: bool,
}

#[derive(Debug)]
struct Method {
    path: Vec<u8>,
    calls: u64,
    answer_bytes: Option<u32>,
}

/// What each connection needs besides HTTP/2: its calls that have bytes to offer again.
type Waiting = Vec<u32>;

#[derive(Debug)]
struct Core {
    options: EchoOptions,
    config: Config,
    conns: Conns<Waiting>,
    calls: Slab<Call>,
    held: VecDeque<(Instant, u32, ConnId, StreamKey)>,
    /// Response headers by the request's `grpc-encoding`.
    headers: [(&'static [u8], Headers); 3],
    trailers: Headers,
    trailers_only: Headers,
    methods: Vec<Method>,
    method_last: usize,
    calls_total: u64,
    body_bytes: u64,
    conn_errors: u64,
}

/// A backend on one transport. `T` decides where it listens.
#[derive(Debug)]
pub struct Echo<T: Transport> {
    transport: T,
    burst: Burst<Event<T::Rx>>,
    roomy: Vec<ConnId>,
    core: Core,
}

impl<T: Transport> Echo<T> {
    /// A backend on a transport that listens already.
    pub fn new(transport: T, options: EchoOptions) -> Self {
        Self { transport, burst: Burst::new(), roomy: Vec::new(), core: Core::new(options) }
    }

    /// Takes what has arrived and answers it; false if nothing had.
    pub fn turn(&mut self) -> bool {
        self.transport.rx_burst(&mut self.burst);
        let now = self.transport.burst_at();
        let had_events = !self.burst.is_empty();
        for event in self.burst.drain() {
            self.core.on_event(&mut self.transport, event, now);
        }
        let had_due = self.core.release_held(now);
        self.core.conns.flush(&mut self.transport, &mut self.roomy);
        while let Some(id) = self.roomy.pop() {
            self.core.offer_again(id);
            if self.roomy.is_empty() {
                self.core.conns.flush(&mut self.transport, &mut self.roomy);
            }
        }
        self.transport.flush();
        had_events || had_due
    }

    /// Serves until the flag is set; `live` is kept up to date.
    pub fn run(&mut self, stop: &AtomicBool, live: &EchoLive) {
        while !stop.load(Relaxed) {
            if !self.turn() {
                let now = self.transport.now();
                let look = now.after(STOP_LOOK);
                self.transport.wait(Some(self.core.held.front().map_or(look, |h| h.0.min(look))));
            }
            live.calls.store(self.core.calls_total, Relaxed);
            live.conns.store(self.core.conns.count() as u64, Relaxed);
            live.body_bytes.store(self.core.body_bytes, Relaxed);
            live.conn_errors.store(self.core.conn_errors, Relaxed);
        }
    }

    /// Closes all connections. The transport is still to send that: a raw port's peer learns it in no other way.
    pub fn close(&mut self) -> &mut T {
        self.core.conns.close(&mut self.transport);
        &mut self.transport
    }

    /// Calls by method since the beginning, as they first came; those beyond the first 1024 methods stand
    /// under `(other)`.
    pub fn methods(&self) -> Vec<(String, u64)> {
        let named: u64 = self.core.methods.iter().map(|m| m.calls).sum();
        let mut list: Vec<(String, u64)> = self
            .core
            .methods
            .iter()
            .map(|m| (String::from_utf8_lossy(&m.path).into_owned(), m.calls))
            .collect();
        if self.core.calls_total > named {
            list.push(("(other)".to_owned(), self.core.calls_total - named));
        }
        list
    }
}

impl Core {
    fn new(options: EchoOptions) -> Self {
        let answer = |encoding: &'static [u8]| {
            let mut list = Headers::new();
            list.push(b":status", b"200");
            list.push(b"content-type", b"application/grpc");
            if let Some(accept) = &options.accept_encoding {
                list.push(b"grpc-accept-encoding", accept.as_bytes());
            }
            if !encoding.is_empty() {
                list.push(b"grpc-encoding", encoding);
            }
            (encoding, list)
        };
        let headers = [answer(b""), answer(b"gzip"), answer(b"deflate")];
        let mut trailers = Headers::new();
        trailers.push(b"grpc-status", options.status.code().to_string().as_bytes());
        if !options.message.is_empty() {
            let mut text = Vec::new();
            grpc::encode_message(options.message.as_bytes(), &mut text);
            trailers.push(b"grpc-message", &text);
        }
        let [(_, first), ..] = &headers;
        let mut trailers_only = first.clone();
        trailers_only.append(&trailers);
        Self {
            options,
            config: h2_config(1 << 20, 16 << 20),
            conns: Conns::new(),
            calls: Slab::new(),
            held: VecDeque::new(),
            headers,
            trailers,
            trailers_only,
            methods: Vec::new(),
            method_last: 0,
            calls_total: 0,
            body_bytes: 0,
            conn_errors: 0,
        }
    }

    fn on_event<T: Transport>(&mut self, transport: &mut T, event: Event<T::Rx>, now: Instant) {
        match event {
            Event::Accepted(id, ..) => {
                self.conns.insert(id, H2Conn::new(Role::Server, &self.config, now), Waiting::new());
            }
            Event::Data(id, rx) => {
                let is_sound = self.on_bytes(id, transport.bytes(&rx), now);
                drop(rx);
                if !is_sound {
                    if let Some(conn) = self.conns.get(id) {
                        transport.tx(id, &[conn.h2.tx()]);
                    }
                    transport.close(id);
                    self.conn_errors += 1;
                    self.forget(id);
                }
            }
            Event::Eof(id) => {
                if self.conns.get(id).is_some() {
                    transport.close(id);
                    self.forget(id);
                }
            }
            Event::Reset(id, _) | Event::Failed(id, _) => self.forget(id),
            Event::Writable(id) => self.conns.writable(id),
            Event::Connected(_) => {}
        }
    }

    fn forget(&mut self, id: ConnId) {
        if self.conns.remove(id).is_some() {
            for key in self.calls.keys_where(|c| c.conn == id) {
                self.calls.remove(key);
            }
        }
    }

    /// False if the peer broke HTTP/2.
    fn on_bytes(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> bool {
        self.conns.mark(id);
        let mut input = Input { bytes, at: 0 };
        loop {
            let Some(conn) = self.conns.get(id) else { return true };
            let event = match conn.h2.next(now, &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return true,
                Err(_) => return false,
            };
            match event {
                H2Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                    self.begin(id, stream, end_stream, now);
                }
                H2Event::Headers { tag, end_stream, .. } => {
                    if end_stream {
                        self.end(tag);
                    }
                }
                H2Event::Data { tag, range, end_stream, .. } => {
                    let body = bytes.get(range).unwrap_or(&[]);
                    self.body_bytes += body.len() as u64;
                    self.echo(tag, body);
                    if end_stream {
                        self.end(tag);
                    }
                }
                H2Event::Writable { tag, .. } => self.drive(tag),
                H2Event::Reset { tag, .. } => {
                    self.calls.remove(tag);
                }
                H2Event::Capacity | H2Event::Goaway { .. } | H2Event::Pong => {}
            }
        }
    }

    fn begin(&mut self, id: ConnId, stream: StreamKey, end_stream: bool, now: Instant) {
        let Some(conn) = self.conns.get(id) else { return };
        self.calls_total += 1;
        let request = conn.h2.headers();
        let path = request.get(Token::Path).unwrap_or(b"");
        if self.methods.get(self.method_last).is_none_or(|known| known.path != path) {
            let place = self.methods.iter().position(|known| known.path == path);
            if place.is_none() && self.methods.len() < METHODS_MAX {
                let is_meant = self.options.answer_method.as_ref().is_none_or(|m| m.as_bytes() == path);
                let answer_bytes = self.options.answer_bytes.filter(|_| is_meant);
                self.methods.push(Method { path: path.to_vec(), calls: 0, answer_bytes });
            }
            self.method_last = place.unwrap_or(self.methods.len() - 1);
        }
        let mut answer_bytes = None;
        if let Some(known) = self.methods.get_mut(self.method_last)
            && known.path == path
        {
            known.calls += 1;
            answer_bytes = known.answer_bytes;
        }
        let encoding = request.get(Token::GrpcEncoding).unwrap_or(b"");
        let encoding = self.headers.iter().position(|(name, _)| *name == encoding).unwrap_or(0);
        let key = self.calls.next_key();
        conn.h2.set_tag(stream, key);
        let is_held = !self.options.latency.is_zero();
        self.calls.insert(Call {
            conn: id,
            stream,
            pending: Vec::new(),
            pending_at: 0,
            zeros_left: 0,
            answer_bytes,
            encoding,
            is_held,
            has_ended: false,
            headers_sent: false,
            is_waiting: false,
        });
        if is_held {
            self.held.push_back((now.after(self.options.latency), key, id, stream));
        }
        if end_stream {
            self.end(key);
        }
    }

    /// The caller's next bytes: out at once if they may, else kept.
    fn echo(&mut self, key: u32, bytes: &[u8]) {
        let Some(call) = self.calls.get(key) else { return };
        let Some(conn) = self.conns.get(call.conn) else { return };
        if self.options.status != Status::OK || call.answer_bytes.is_some() {
            conn.h2.release(call.stream, bytes.len());
            return;
        }
        let mut taken = 0;
        if !call.is_held && call.pending.is_empty() && !bytes.is_empty() {
            if !call.headers_sent {
                let [(_, plain), ..] = &self.headers;
                let list = self.headers.get(call.encoding).map_or(plain, |(_, list)| list);
                conn.h2.send_headers(call.stream, list, false);
                call.headers_sent = true;
            }
            taken = conn.h2.send_data(call.stream, bytes, false);
            conn.h2.release(call.stream, taken);
        }
        if let Some(rest) = bytes.get(taken..)
            && !rest.is_empty()
        {
            call.pending.extend_from_slice(rest);
            if !call.is_held && !call.is_waiting {
                call.is_waiting = true;
                conn.user.push(key);
            }
        }
    }

    /// The caller has sent its last.
    fn end(&mut self, key: u32) {
        let Some(call) = self.calls.get(key) else { return };
        call.has_ended = true;
        if let Some(bytes) = call.answer_bytes
            && self.options.status == Status::OK
        {
            call.pending.extend_from_slice(&grpc::Prefix { is_compressed: false, len: bytes }.emit());
            call.zeros_left = u64::from(bytes);
        }
        self.drive(key);
    }

    /// Sends what a call has to say, as far as that goes.
    fn drive(&mut self, key: u32) {
        let Some(call) = self.calls.get(key) else { return };
        if call.is_held {
            return;
        }
        let Some(conn) = self.conns.get(call.conn) else { return };
        if self.options.status != Status::OK {
            if call.has_ended {
                conn.h2.send_headers(call.stream, &self.trailers_only, true);
                self.calls.remove(key);
            }
            return;
        }
        if !call.headers_sent && (call.has_ended || !call.pending.is_empty()) {
            let [(_, plain), ..] = &self.headers;
            let list = self.headers.get(call.encoding).map_or(plain, |(_, list)| list);
            conn.h2.send_headers(call.stream, list, false);
            call.headers_sent = true;
        }
        if let Some(rest) = call.pending.get(call.pending_at..)
            && !rest.is_empty()
        {
            let taken = conn.h2.send_data(call.stream, rest, false);
            if call.answer_bytes.is_none() {
                conn.h2.release(call.stream, taken);
            }
            call.pending_at += taken;
            if call.pending_at == call.pending.len() {
                call.pending.clear();
                call.pending_at = 0;
            }
        }
        while call.zeros_left > 0 && call.pending.is_empty() {
            let len = usize::try_from(call.zeros_left).unwrap_or(usize::MAX).min(ZEROS.len());
            let taken = conn.h2.send_data(call.stream, ZEROS.get(..len).unwrap_or(&ZEROS), false);
            call.zeros_left -= taken as u64;
            if taken < len {
                break;
            }
        }
        if !call.pending.is_empty() || call.zeros_left > 0 {
            if !call.is_waiting {
                call.is_waiting = true;
                conn.user.push(key);
            }
        } else if call.has_ended {
            conn.h2.send_headers(call.stream, &self.trailers, true);
            self.calls.remove(key);
        }
    }

    /// There is room on a connection: its waiting calls, in turn.
    fn offer_again(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let mut waiting = std::mem::take(&mut conn.user);
        if !waiting.is_empty() {
            waiting.rotate_left(1);
        }
        for key in waiting {
            if let Some(call) = self.calls.get(key)
                && call.conn == id
            {
                call.is_waiting = false;
                self.drive(key);
            }
        }
        self.conns.mark(id);
    }

    /// Answers the calls whose delay is over; false if there were none.
    fn release_held(&mut self, now: Instant) -> bool {
        let mut had = false;
        while let Some((due, key, conn, stream)) = self.held.front().copied()
            && due <= now
        {
            self.held.pop_front();
            had = true;
            if let Some(call) = self.calls.get(key)
                && call.conn == conn
                && call.stream == stream
            {
                call.is_held = false;
                self.drive(key);
                self.conns.mark(conn);
            }
        }
        had
    }
}
