//! How a call ends: a status of our own, the answer's last frames, the books closed.

use abi::{Flag, Status};
use alloc::string::String;
use wire::h2::Reason;
use wire::{Headers, Token};

use crate::body::Way;
use crate::call::Phase;
use crate::slab::Key;
use crate::state::{Core, Timer};
use crate::stats::latency_bucket;
use crate::{AccessRecord, AccessWhen};

/// Calls whose books wait for the turn's flush: one caller's answer should not wait for a line of log. With more of them
/// their bytes would be out of the cache by then.
const OVER_MAX: usize = 4;

/// What becomes of the part of an answer that has come and not gone when its call ends otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// It helps nobody.
    CutOff,
    /// It was let through, message by message.
    Sent,
}

impl Core {
    /// Ends a call with a status of ours.
    pub(crate) fn fail(&mut self, key: Key, status: Status, flag: Flag, text: &str) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.status = status;
        call.flag = flag;
        call.message.clear();
        call.message.extend_from_slice(text.as_bytes());
        self.conclude(key);
    }

    /// The outcome was decided here: off the endpoint, through the response side, to the caller.
    pub(crate) fn conclude(&mut self, key: Key) {
        self.conclude_after(key, Rest::CutOff);
    }

    /// The same, with what becomes of the part of an answer that waits for the caller's window.
    pub(crate) fn conclude_after(&mut self, key: Key, rest: Rest) {
        self.leave_endpoint(key, Some(Reason::CANCEL));
        self.drop_messages(key, Way::ToEndpoint);
        self.drop_messages(key, Way::ToCaller);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.phase = Phase::Ending;
        call.is_own_outcome = true;
        call.to_caller.has_ended = true;
        if rest == Rest::CutOff {
            call.to_caller.buf.clear();
            call.to_caller.head = 0;
        }
        if call.is_response_waiting {
            // The response side knew another outcome and waits: it goes on from there, and then this one does.
            return;
        }
        if let Some(timer) = call.wait_timer.take() {
            self.wheel.cancel(timer);
        }
        if self.judge_response(key, None) {
            self.answer_on(key);
        }
    }

    /// All bytes have gone: trailers, or a trailers-only answer, and the call is over.
    pub(crate) fn finish_answer(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let is_waiting = call.is_response_waiting
            || call.to_caller.waiting() > 0
            || call.to_caller.messages.as_ref().is_some_and(|m| !m.is_complete());
        if call.phase != Phase::Ending || is_waiting {
            return;
        }
        if let Some(down) = call.down
            && let Some(h2) = self.conns.get_mut(down.conn).and_then(|c| c.h2.as_mut())
        {
            let (digits, len) = decimal(call.status.code());
            let code = digits.get(..len).unwrap_or(b"2");
            let has_own_words = call.is_own_outcome || call.is_status_rewritten;
            if !call.is_grpc {
                if call.is_own_outcome && !call.response_headers_sent {
                    send_plain_failure(h2, down.stream, call.status, &call.message);
                } else if call.is_own_outcome {
                    h2.reset(down.stream, Reason::INTERNAL_ERROR);
                } else if call.is_trailers_only {
                    h2.send_headers(down.stream, &call.response, true);
                } else if call.trailers.is_empty() {
                    h2.send_data(down.stream, &[], true);
                } else {
                    h2.send_headers(down.stream, &call.trailers, true);
                }
            } else {
                let mut text = self.buffers.take();
                if has_own_words {
                    wire::grpc::encode_message(&call.message, &mut text);
                }
                if call.is_own_outcome && !call.response_headers_sent {
                    call.response.clear();
                    call.response.push_field(Token::Status, b":status", b"200", false);
                    call.response.push_field(Token::ContentType, b"content-type", b"application/grpc", false);
                }
                let list = if call.response_headers_sent {
                    &mut call.trailers
                } else {
                    call.response.append(&call.trailers);
                    &mut call.response
                };
                if has_own_words {
                    // Details of another status would contradict it.
                    list.retain(|_, name, _| name != b"grpc-status-details-bin");
                    list.set(Token::GrpcStatus, b"grpc-status", code);
                    if text.is_empty() {
                        list.remove(Token::GrpcMessage);
                    } else {
                        list.set(Token::GrpcMessage, b"grpc-message", &text);
                    }
                }
                h2.send_headers(down.stream, list, true);
                self.buffers.give(text);
            }
            self.mark_dirty(down.conn);
        }
        self.end_call(key);
    }

    /// The call is over for its peers, pools and caller. Its books are closed after this turn's answers have gone out, or
    /// when a few more have ended.
    pub(crate) fn end_call(&mut self, key: Key) {
        self.leave_endpoint(key, Some(Reason::CANCEL));
        self.drop_messages(key, Way::ToEndpoint);
        self.drop_messages(key, Way::ToCaller);
        let Some(call) = self.calls.get_mut(key) else { return };
        for timer in [call.deadline_timer.take(), call.wait_timer.take()].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        let down = call.down.take();
        let request_ended = call.to_endpoint.has_ended;
        if let Some(down) = down {
            self.detach(down, Way::ToCaller);
            if let Some(conn) = self.conns.get_mut(down.conn) {
                conn.pace.answers = conn.pace.answers.saturating_add(1);
                if conn.calls.is_empty() {
                    conn.idle_since = self.now;
                }
                // RFC 9113 section 8.1: the answer is complete, the rest of the request is not wanted.
                if !request_ended && let Some(h2) = conn.h2.as_mut() {
                    h2.reset(down.stream, Reason::NO_ERROR);
                }
            }
            self.mark_dirty(down.conn);
            self.close_if_drained(down.conn);
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        self.counters.calls_ended += 1;
        self.pool.sub(call.charged);
        let caller = call.caller;
        self.callers.get_mut(caller).pool.sub(call.charged);
        self.callers.get_mut(caller).grown.sub(call.grown);
        self.calls.retire(key);
        self.callers.end_call(caller);
        if self.over.len() >= OVER_MAX {
            self.close_books();
        }
        self.over.push(key.index);
    }

    /// Closes the books of calls that have ended, in their order.
    pub(crate) fn close_books(&mut self) {
        let mut over = core::mem::take(&mut self.over);
        over.drain(..).for_each(|index| self.close_book(index));
        self.over = over;
    }

    /// Statistics, log, slot, program.
    fn close_book(&mut self, index: u32) {
        self.record(index);
        let Some(call) = self.calls.retired(index) else { return };
        let program = call.program;
        call.clear();
        self.calls.release(index);
        if let Some(generation) = self.generations.get_mut(usize::from(program)).and_then(Option::as_mut) {
            generation.calls -= 1;
        }
        self.retire_if_idle(program);
    }

    /// Statistics and log lines of a finished call.
    fn record(&mut self, index: u32) {
        let Some(call) = self.calls.retired(index) else { return };
        let Some(generation) = self.generations.get_mut(usize::from(call.program)).and_then(Option::as_mut)
        else {
            return;
        };
        let latency_ns = self.now.since_ns(call.started);
        let path = call.request.get(Token::Path).unwrap_or(b"");
        let authority =
            call.request.get(Token::Authority).or_else(|| call.request.get(Token::Host)).unwrap_or(b"");
        // A method gets statistics of its own once an endpoint has shown that it exists: nobody can fill
        // the table with invented names.
        if call.method.is_none()
            && call.routed_to.is_some()
            && call.response_headers_seen
            && call.status != Status::UNIMPLEMENTED
        {
            let name = String::from_utf8_lossy(path.strip_prefix(b"/").unwrap_or(path));
            let source = generation.service_name(call.source);
            let method = self.methods.intern(source, generation.service_name(call.routed_to), &name);
            call.method = Some(method);
            generation.set_method(call.source, call.listener, authority, path, method);
        }
        let stats = self.methods.at(call.method.unwrap_or(0));
        stats.started += 1;
        stats.attempts += u64::from(call.attempts);
        stats.request_bytes += call.to_endpoint.received;
        stats.response_bytes += call.to_caller.received;
        stats.latency_ns_sum += latency_ns;
        stats.latency[latency_bucket(latency_ns)] += 1;
        stats.by_status[usize::from(call.status.code())] += 1;

        // A call that an element has logged already is not logged twice.
        let node_log = call.sinks_len == 0
            && match self.access {
                AccessWhen::Never => false,
                AccessWhen::Failures => call.status != Status::OK,
                AccessWhen::Always => true,
            };
        if !node_log && call.sinks_len == 0 {
            return;
        }
        let element = call.decider.and_then(|d| {
            let chain = generation.program.chains.get(call.chain? as usize)?;
            chain.plan().elements.get(usize::from(d.element)).map(|info| (info, d.line))
        });
        let record = AccessRecord {
            at: self.now,
            id: call.id,
            source: generation.service_name(call.source),
            destination: generation.service_name(call.destination.or(call.routed_to)),
            path,
            authority,
            status: call.status,
            message: &call.message,
            flag: call.flag,
            latency_ns,
            request_bytes: call.to_endpoint.received,
            response_bytes: call.to_caller.received,
            endpoint: call.served_by.and_then(|p| self.endpoints.get(p as usize)).map(|e| &e.addr),
            attempts: call.attempts,
            element,
        };
        if node_log {
            self.log.access(0, &record);
        }
        for sink in call.sinks.iter().take(usize::from(call.sinks_len)) {
            self.log.access(*sink, &record);
        }
    }

    /// A timer has fired.
    pub(crate) fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Deadline(key) => {
                let Some(call) = self.calls.get_mut(key) else { return };
                call.deadline_timer = None;
                // An answer whose outcome is known is only waiting for a slow reader.
                if call.phase != Phase::Ending {
                    self.counters.calls_deadline_exceeded += 1;
                    self.fail(key, Status::DEADLINE_EXCEEDED, Flag::Timeout, "the deadline has passed");
                }
            }
            Timer::Wait(key) => self.on_wait_over(key),
            Timer::Message(key, way) => self.on_message_wait_over(key, way),
            Timer::Connect(key) => self.on_connect_timeout(key),
            Timer::Backoff(endpoint) => self.on_backoff_over(endpoint),
            Timer::Drain => self.on_drain_over(),
        }
    }

    fn on_wait_over(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.wait_timer = None;
        let segment = call.resume_segment;
        if call.is_response_waiting {
            call.is_response_waiting = false;
            if self.judge_response(key, Some(segment)) {
                self.answer_on(key);
            }
            return;
        }
        match call.phase {
            Phase::Arriving => self.judge_request(key, segment),
            Phase::Queued => self.on_queue_wait_over(key),
            Phase::Open | Phase::Ending | Phase::Free => {}
        }
    }
}

/// A status code, 0..=16, as decimal digits.
const fn decimal(code: u8) -> ([u8; 2], usize) {
    if code < 10 { ([b'0' + code, 0], 1) } else { ([b'0' + code / 10, b'0' + code % 10], 2) }
}

/// The answer to a caller that does not speak gRPC.
fn send_plain_failure(
    h2: &mut wire::h2::H2Conn,
    stream: wire::h2::StreamKey,
    status: Status,
    message: &[u8],
) {
    let http: &[u8] = match status {
        Status::PERMISSION_DENIED => b"403",
        Status::UNAUTHENTICATED => b"401",
        Status::UNIMPLEMENTED => b"404",
        Status::RESOURCE_EXHAUSTED => b"429",
        Status::DEADLINE_EXCEEDED => b"504",
        Status::UNAVAILABLE => b"503",
        _ => b"500",
    };
    let mut list = Headers::new();
    list.push_field(Token::Status, b":status", http, false);
    list.push_field(Token::ContentType, b"content-type", b"text/plain; charset=utf-8", false);
    h2.send_headers(stream, &list, false);
    if h2.send_data(stream, message, true) < message.len() {
        h2.reset(stream, Reason::CANCEL);
    }
}
