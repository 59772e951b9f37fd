//! Events of callers' connections, and a call's way from its headers to the verdict on its request.

use abi::{Encoding, Entry, Flag, Leaving, Status, Suspend, Verdict};
use alloc::boxed::Box;
use wire::h2::{H2Event, HeadersKind, Reason, ResetBy, StreamKey};
use wire::{Headers, Token};

use crate::body::Way;
use crate::call::{Leg, Phase};
use crate::conn::{Drain, Kind};
use crate::endpoint::names_encoding;
use crate::generation::RouteMiss;
use crate::pool::Level;
use crate::sealed::take_tag;
use crate::slab::Key;
use crate::state::{Core, Timer};

/// Metadata of this size is part of a call's slot, bytes.
const METADATA_FREE: usize = 4 << 10;

impl Core {
    pub(crate) fn on_downstream(&mut self, conn: Key, event: H2Event, bytes: &[u8]) {
        match event {
            H2Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                self.begin(conn, stream, end_stream);
            }
            H2Event::Headers { stream, tag, .. } => {
                let Some(key) = self.call_at(conn, stream, tag) else { return };
                let mut trailers = self.last_headers(conn).cloned();
                if let Some(trailers) = &mut trailers {
                    take_tag(trailers);
                }
                if let Some(call) = self.calls.get_mut(key) {
                    call.request_trailers = trailers.map(Box::new);
                }
                self.body_ended(key, Way::ToEndpoint);
            }
            H2Event::Data { stream, tag, range, end_stream } => {
                let Some(key) = self.call_at(conn, stream, tag) else { return };
                self.body_bytes(key, Way::ToEndpoint, bytes.get(range).unwrap_or(&[]), end_stream);
            }
            H2Event::Reset { stream, tag, by, .. } => {
                let Some(key) = self.call_at(conn, stream, tag) else {
                    if let ResetBy::Fault(fault) = by {
                        self.count_fault_down(fault);
                    }
                    return;
                };
                if let ResetBy::Fault(fault) = by {
                    self.count_fault_down(fault);
                    if let Some(call) = self.calls.get_mut(key) {
                        call.flag = Flag::DownstreamProtocolError;
                    }
                }
                self.cancel(key);
            }
            H2Event::Writable { stream, tag } => {
                if let Some(key) = self.call_at(conn, stream, tag) {
                    self.send_waiting(key, Way::ToCaller);
                }
            }
            H2Event::Pong => self.on_drain_pong(conn),
            H2Event::Capacity | H2Event::Goaway { .. } => {}
        }
    }

    fn count_fault_down(&mut self, fault: wire::h2::Fault) {
        if let Some(count) = self.faults_down.get_mut(fault.index()) {
            *count += 1;
        }
    }

    /// The call whose stream on this connection it is, whichever side.
    pub(crate) fn call_at(&self, conn: Key, stream: StreamKey, tag: u32) -> Option<Key> {
        let key = self.calls.key_at(tag)?;
        let call = self.calls.get(key)?;
        let is_leg = |leg: &Option<Leg>| leg.is_some_and(|l| l.conn == conn && l.stream == stream);
        (is_leg(&call.down) || is_leg(&call.up)).then_some(key)
    }

    /// A request's headers are here: a slot, a caller's share, a route, the chain's verdict.
    fn begin(&mut self, conn_key: Key, stream: StreamKey, end_stream: bool) {
        self.refresh_source(conn_key);
        let level = self.pool.level();
        let Some(conn) = self.conns.get_mut(conn_key) else { return };
        let (Kind::Down(down), Some(h2)) = (&mut conn.kind, conn.h2.as_mut()) else { return };
        let caller_id = down.caller;
        let caller = self.callers.get_mut(caller_id);
        if self.calls.len() >= self.limits.calls_max as usize || caller.calls >= self.limits.caller_calls_max
        {
            self.counters.calls_limit += 1;
            h2.reset(stream, Reason::REFUSED_STREAM);
            return;
        }
        // Half of the node's pool or of the caller's share is used: later streams begin with a small window.
        // SETTINGS_INITIAL_WINDOW_SIZE also applies to running streams (RFC 9113 section 6.9.2); they get
        // back by WINDOW_UPDATE what it takes from them, and it is only raised again when there are none.
        let level = level.max(caller.pool.level());
        let lost = self.limits.stream_window_bytes.saturating_sub(self.limits.small_window_bytes);
        if level != Level::Ample && !down.has_small_window {
            down.has_small_window = true;
            self.counters.windows_made_small += 1;
            h2.set_stream_window(self.limits.small_window_bytes);
            for index in &conn.calls {
                let call = self.calls.key_at(*index).and_then(|k| self.calls.get(k));
                if let Some(leg) = call.filter(|c| !c.to_endpoint.has_ended).and_then(|c| c.down) {
                    h2.extend_window(leg.stream, lost);
                }
            }
        } else if level == Level::Ample && down.has_small_window && conn.calls.is_empty() {
            down.has_small_window = false;
            h2.set_stream_window(self.limits.stream_window_bytes);
        }
        let window = if down.has_small_window {
            self.limits.small_window_bytes
        } else {
            self.limits.stream_window_bytes
        };

        let key = self.calls.insert();
        let place = u32::try_from(conn.calls.len()).unwrap_or(u32::MAX);
        conn.calls.push(key.index);
        caller.calls += 1;
        h2.set_tag(stream, key.index);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.phase = Phase::Arriving;
        call.id = self.next_call;
        self.next_call += 1;
        self.counters.calls_started += 1;
        call.caller = caller_id;
        call.started = self.now;
        call.last_moved = self.now;
        call.program = self.current;
        call.source = down.source;
        call.listener = down.listener;
        call.peer_ip = down.peer.addr.map(|(ip, _)| match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        });
        call.down = Some(Leg { conn: conn_key, stream, place });
        // Bytes kept for a retry come on top of the windows: only while there is plenty.
        call.is_retryable = level == Level::Ample;
        call.request.copy_from(h2.headers());
        call.tag = take_tag(&mut call.request);
        call.to_endpoint.window = window;
        call.to_endpoint.has_ended = end_stream;
        call.to_endpoint.grown_at = self.now;
        call.is_bodiless = end_stream;
        call.is_grpc = is_grpc(&call.request);
        if let Some(generation) = self.generations[usize::from(self.current)].as_mut() {
            generation.calls += 1;
        }
        // What the endpoint may send, and metadata beyond what every slot holds, count as well.
        let metadata = call.request.bytes_len().saturating_sub(METADATA_FREE);
        let charge = u64::from(window) + u64::from(self.limits.stream_window_bytes) + metadata as u64;
        if !self.charge(key, charge) {
            self.counters.calls_pool_exhausted += 1;
            self.fail(
                key,
                Status::RESOURCE_EXHAUSTED,
                Flag::Overflow,
                "the byte pool of this node or caller is used up",
            );
            return;
        }
        if self.read_timeout(key) && self.route(key) {
            self.enter_chain(key);
        }
    }

    /// A reload may have changed who this peer is.
    fn refresh_source(&mut self, conn: Key) {
        let adopted = self.adopted;
        let Some(Kind::Down(down)) = self.conns.get_mut(conn).map(|c| &mut c.kind) else { return };
        if down.source_program != adopted {
            let generation = self.generations[usize::from(self.current)].as_ref();
            let listener = self.listeners.get(usize::from(down.listener));
            down.source = generation.zip(listener).and_then(|(g, l)| g.source_of(l, &down.peer));
            down.source_program = adopted;
        }
    }

    /// `grpc-timeout` becomes a deadline. False if the call ended over it.
    fn read_timeout(&mut self, key: Key) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let Some(value) = call.request.get(Token::GrpcTimeout) else { return true };
        let Some(ns) = wire::grpc::parse_timeout_ns(value) else {
            self.counters.calls_bad_timeout += 1;
            self.fail(key, Status::INTERNAL, Flag::DownstreamProtocolError, "grpc-timeout is malformed");
            return false;
        };
        let at = self.now.after_ns(ns);
        call.deadline = Some(at);
        if ns == 0 {
            self.counters.calls_deadline_exceeded += 1;
            self.fail(key, Status::DEADLINE_EXCEEDED, Flag::Timeout, "grpc-timeout was already past");
            return false;
        }
        call.deadline_timer = Some(self.wheel.insert(at, Timer::Deadline(key)));
        true
    }

    /// Finds destination and chain. False if there are none.
    fn route(&mut self, key: Key) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let Some(generation) = self.generations[usize::from(call.program)].as_mut() else { return false };
        let authority = call.request.get(Token::Authority).or_else(|| call.request.get(Token::Host));
        let path = call.request.get(Token::Path).unwrap_or(b"");
        match generation.route(call.source, call.listener, authority.unwrap_or(b""), path) {
            Ok(hit) => {
                call.routed_to = Some(hit.destination);
                call.destination = Some(hit.destination);
                call.chain = hit.chain;
                call.method = hit.method;
                let Some(chain_at) = hit.chain.map(|c| c as usize) else { return true };
                if let Some(chain) = generation.program.chains.get(chain_at) {
                    call.words.clear();
                    call.words.resize(chain.plan().call_words, 0);
                }
                if let Some(stats) = generation.chains.get_mut(chain_at) {
                    stats.entered += 1;
                }
                true
            }
            Err(RouteMiss::NoService) => {
                let known = generation.known_services();
                let asked = alloc::string::String::from_utf8_lossy(authority.unwrap_or(b"")).into_owned();
                self.counters.calls_no_service += 1;
                let text = alloc::format!("no service for authority '{asked}' (known: {known})");
                self.fail(key, Status::UNIMPLEMENTED, Flag::NoRoute, &text);
                false
            }
            Err(RouteMiss::NoRule(destination)) => {
                let source = generation.service_name(call.source);
                let source = if source.is_empty() { "an unrecognised caller" } else { source };
                let to = generation.service_name(Some(destination));
                let path = alloc::string::String::from_utf8_lossy(path);
                let text = alloc::format!("no rule for {source} -> {to}{path}");
                self.counters.calls_no_rule += 1;
                self.fail(key, Status::UNIMPLEMENTED, Flag::NoRoute, &text);
                false
            }
        }
    }

    /// Runs the request side from a segment; lets the call through, ends it or lets it wait.
    pub(crate) fn judge_request(&mut self, key: Key, segment: u16) {
        let has_request = self.plan_of(key).is_some_and(|p| p.request);
        let grown_before = self.growth(key, Way::ToEndpoint);
        let verdict =
            if has_request { self.run_chain(key, Entry::Request, segment) } else { Verdict::Forward };
        if !self.charge_growth(key, Way::ToEndpoint, grown_before) {
            return;
        }
        self.follow_deadline(key);
        let elements = self.plan_of(key).map_or(0, |p| u16::try_from(p.elements.len()).unwrap_or(u16::MAX));
        let Some(call) = self.calls.get_mut(key) else { return };
        match verdict {
            Verdict::Forward => {
                call.passed = elements;
                call.phase = Phase::Queued;
                if let Leaving::Packed(how) = call.leaving {
                    let accept = call.request.get(Token::GrpcAcceptEncoding).unwrap_or(b"");
                    call.caller_accepts = Encoding::ALL.map(|e| names_encoding(accept, e));
                    let accept: &[u8] = match how.encoding {
                        Encoding::Gzip => b"gzip,deflate,identity",
                        Encoding::Deflate => b"deflate,gzip,identity",
                        Encoding::Zstd => b"zstd,gzip,deflate,identity",
                    };
                    if call.is_grpc {
                        call.request.set(Token::GrpcAcceptEncoding, b"grpc-accept-encoding", accept);
                    }
                }
                self.fresh.push(key);
            }
            Verdict::Reject(reject) => self.reject(key, reject),
            Verdict::Unreadable(why) => self.fail_unreadable(key, why),
            Verdict::Suspend(Suspend::Timer { ns, segment, element }) => {
                call.resume_segment = segment;
                call.wait_timer = Some(self.wheel.insert(self.now.after_ns(ns), Timer::Wait(key)));
                self.count_delay(key, element);
            }
            Verdict::Suspend(Suspend::Job { .. }) => {
                self.fail_no_job(key);
            }
        }
    }

    /// The caller cancelled or left.
    pub(crate) fn cancel(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        self.counters.calls_cancelled += 1;
        if call.up.is_none() && call.attempts == 0 {
            self.counters.calls_unsent += 1;
        }
        self.leave_endpoint(key, Some(Reason::CANCEL));
        let Some(call) = self.calls.get_mut(key) else { return };
        if !call.is_judged {
            // What has not been judged will not be; a handler that waits keeps its message.
            self.drop_messages(key, Way::ToEndpoint);
            self.drop_messages(key, Way::ToCaller);
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        if !call.is_judged {
            call.status = Status::CANCELLED;
            if call.flag == Flag::None {
                call.flag = Flag::DownstreamClosed;
            }
            call.message.clear();
        }
        self.judge_response_now(key);
        self.end_call(key);
    }

    // ---- drain ---------------------------------------------------------------------------------------

    /// Begins to drain: callers are told, and what is in flight finishes.
    pub(crate) fn drain(&mut self) {
        if self.is_draining {
            return;
        }
        self.is_draining = true;
        self.wheel.insert(self.now.after_ns(self.limits.drain_ns), Timer::Drain);
        for index in 0..self.conns.slots() {
            let Some(key) = self.conns.key_at(index) else { continue };
            self.announce_drain(key);
        }
    }

    /// Asks a caller for no new calls. One whose first bytes are still on their way is asked as soon as they
    /// are here (or left by the sweep): closing it now would cost it the calls it has sent with them.
    pub(crate) fn announce_drain(&mut self, key: Key) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let (Kind::Down(down), Some(h2)) = (&mut conn.kind, conn.h2.as_mut()) {
            down.drain = Drain::Announced(now);
            h2.drain_start();
            h2.ping();
            self.mark_dirty(key);
        }
    }

    /// The caller has seen our GOAWAY, or does not say so in time: nothing new is taken.
    pub(crate) fn on_drain_pong(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let (Kind::Down(down), Some(h2)) = (&mut conn.kind, conn.h2.as_mut())
            && matches!(down.drain, Drain::Announced(_))
        {
            down.drain = Drain::Finishing;
            h2.drain_finish();
            self.mark_dirty(key);
            self.close_if_drained(key);
        }
    }

    /// A draining connection without calls is closed.
    pub(crate) fn close_if_drained(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if let Kind::Down(down) = &conn.kind
            && down.drain == Drain::Finishing
            && conn.calls.is_empty()
            && !conn.is_closing
        {
            self.close_after_flush(key);
        }
    }

    /// Headers of a connection's last event, for whoever needs a copy.
    pub(crate) fn last_headers(&self, key: Key) -> Option<&Headers> {
        self.conns.get(key).and_then(|c| c.h2.as_ref()).map(|h2| h2.headers())
    }
}

/// `application/grpc`, `application/grpc+proto`, …; not gRPC-Web, whose trailers travel in its body.
pub(crate) fn is_grpc(list: &Headers) -> bool {
    let rest = list.get(Token::ContentType).and_then(|t| t.strip_prefix(b"application/grpc"));
    rest.is_some_and(|r| matches!(r.first(), None | Some(b'+' | b';')))
}
