//! Events of endpoints' connections: the answer on its way back.

use abi::{Encoding, Entry, Flag, Leaving, Status, Unreadable, Verdict};
use wire::Token;
use wire::h2::{H2Event, HeadersKind, Reason, ResetBy};

use crate::body::Way;
use crate::call::Phase;
use crate::conn::{Kind, UpState};
use crate::downstream::is_grpc;
use crate::gate::encoding_of;
use crate::limits::MS;
use crate::messages::{Breach, Leave};
use crate::slab::Key;
use crate::state::Core;
use crate::upstream::broke_text;

/// An endpoint's RST_STREAM(CANCEL) this close to the deadline is the deadline's doing.
const DEADLINE_SLACK_NS: u64 = 5 * MS;

impl Core {
    pub(crate) fn on_upstream(&mut self, conn: Key, event: H2Event, bytes: &[u8]) {
        match event {
            H2Event::Headers { stream, tag, kind, end_stream } => {
                let Some(key) = self.call_at(conn, stream, tag) else { return };
                match kind {
                    HeadersKind::Informational => self.forward_interim(conn, key),
                    HeadersKind::Response => self.on_response(conn, key, end_stream),
                    HeadersKind::Trailers | HeadersKind::Request => self.on_trailers(conn, key),
                }
            }
            H2Event::Data { stream, tag, range, end_stream } => {
                let Some(key) = self.call_at(conn, stream, tag) else { return };
                let bytes = bytes.get(range).unwrap_or(&[]);
                if !bytes.is_empty() {
                    self.body_bytes(key, Way::ToCaller, bytes, false);
                }
                if end_stream && self.calls.get(key).is_some_and(|c| c.phase == Phase::Open) {
                    self.on_outcome(key);
                }
            }
            H2Event::Reset { stream, tag, reason, by } => {
                if let ResetBy::Fault(fault) = by
                    && let Some(count) = self.faults_up.get_mut(fault.index())
                {
                    *count += 1;
                }
                if let Some(key) = self.call_at(conn, stream, tag) {
                    self.on_upstream_reset(key, reason, by);
                }
            }
            H2Event::Writable { stream, tag } => {
                if let Some(key) = self.call_at(conn, stream, tag) {
                    self.send_waiting(key, Way::ToEndpoint);
                }
            }
            H2Event::Capacity => self.on_capacity(conn),
            H2Event::Goaway { .. } => {
                self.counters.upstream_goaways += 1;
                if let Some(Kind::Up(up)) = self.conns.get_mut(conn).map(|c| &mut c.kind) {
                    up.state = UpState::Leaving;
                    let place = up.endpoint;
                    self.release_queue(place);
                }
                if self.conns.get(conn).is_some_and(|c| c.calls.is_empty()) {
                    self.close_after_flush(conn);
                }
            }
            H2Event::Pong => {}
        }
    }

    fn forward_interim(&mut self, conn: Key, key: Key) {
        let Some(down) = self.calls.get(key).filter(|c| !c.response_headers_sent).and_then(|c| c.down) else {
            return;
        };
        let Some(list) = self.last_headers(conn).cloned() else { return };
        if let Some(h2) = self.conns.get_mut(down.conn).and_then(|c| c.h2.as_mut()) {
            h2.send_headers(down.stream, &list, false);
            self.mark_dirty(down.conn);
        }
    }

    fn on_response(&mut self, conn: Key, key: Key, end_stream: bool) {
        let now = self.now;
        let Some(h2) = self.conns.get(conn).and_then(|c| c.h2.as_ref()) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        call.response.copy_from(h2.headers());
        call.response_headers_seen = true;
        call.last_moved = now;
        if call.is_retryable {
            // An answer has begun: nothing is repeated any more.
            call.is_retryable = false;
            call.to_endpoint.forget_sent();
        }
        if let Some(endpoint) = call.at_endpoint.and_then(|p| self.endpoints.get_mut(p as usize)) {
            endpoint.observe(now.since_ns(call.sent_at), now);
            if matches!(call.leaving, Leaving::Packed(_))
                && let Some(list) = call.response.get(Token::GrpcAcceptEncoding)
            {
                endpoint.learn_accepts(list);
            }
        }
        let http = call.response.get(Token::Status).and_then(wire::decimal);
        call.http_status = http.and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
        let is_plain = call.http_status != 200 || !is_grpc(&call.response);
        if call.is_grpc && is_plain && call.response.get(Token::GrpcStatus).is_none() {
            self.fail_plain_http(key);
            return;
        }
        if end_stream {
            call.is_trailers_only = true;
            if !self.end_with_body(key) {
                self.on_outcome(key);
            }
            return;
        }
        if self.plan_of(key).is_some_and(|p| p.response_headers)
            && let Verdict::Reject(reject) = self.run_chain(key, Entry::ResponseHeaders, 0)
        {
            self.reject(key, reject);
            return;
        }
        if self.gate_answer(key) == Some(false) {
            self.choose_response_encoding(key);
            self.send_response_headers(key);
        }
    }

    /// An answer of one header block says OK, and its end must be sealed: that needs a body, so the block is
    /// taken as headers and trailers. False if none of this is so.
    fn end_with_body(&mut self, key: Key) -> bool {
        let is_sealed = self.plan_of(key).is_some_and(|p| p.response_boundary.seals.is_some());
        let Some(call) = self.calls.get_mut(key) else { return false };
        if !is_sealed || call.response.get(Token::GrpcStatus) != Some(b"0") {
            return false;
        }
        call.is_trailers_only = false;
        let is_first = |token: Token| matches!(token, Token::Status | Token::ContentType);
        call.trailers.copy_from(&call.response);
        call.trailers.retain(|field, _, _| !is_first(field.token));
        call.response.retain(|field, _, _| is_first(field.token));
        if self.gate_answer(key).is_some() {
            self.on_outcome(key);
        }
        true
    }

    fn fail_plain_http(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let status = Status::from_code(wire::grpc::status_of_http(call.http_status));
        let addr =
            call.served_by.and_then(|p| self.endpoints.get(p as usize)).map(|e| alloc::format!("{}", e.addr));
        let text = alloc::format!(
            "{} answered in plain HTTP, status {}",
            addr.unwrap_or_default(),
            call.http_status
        );
        self.counters.calls_upstream_http += 1;
        self.fail(key, status, Flag::UpstreamProtocolError, &text);
    }

    /// DESIGN "Compression on the wire": what the caller reads decides how the answer leaves.
    fn choose_response_encoding(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if !call.is_grpc {
            return;
        }
        let came = encoding_of(&call.response);
        let how = match call.leaving {
            Leaving::AsCame => return,
            Leaving::Packed(how) => how,
            Leaving::Plain => {
                if came.is_some() {
                    call.response.remove(Token::GrpcEncoding);
                    self.set_leave(key, Way::ToCaller, came, Leave::Plain);
                }
                return;
            }
        };
        let is_identity = matches!(call.response.get(Token::GrpcEncoding), None | Some(b"identity"));
        if came.is_none() && !is_identity {
            // Not ours to undo: the caller asked for it, or will say so.
            return;
        }
        let reads = |e: Encoding| call.caller_accepts[e as usize];
        let (decode, encode) = match came {
            Some(e) if reads(e) => return,
            Some(e) => (Some(e), reads(how.encoding).then_some(how.encoding)),
            None if reads(how.encoding) => (None, Some(how.encoding)),
            None => return,
        };
        match encode {
            Some(e) => call.response.set(Token::GrpcEncoding, b"grpc-encoding", e.name().as_bytes()),
            None => call.response.remove(Token::GrpcEncoding),
        }
        let leave = match encode {
            Some(encoding) => Leave::Packed { encoding, min_bytes: how.min_bytes },
            None => Leave::Plain,
        };
        self.set_leave(key, Way::ToCaller, decode, leave);
    }

    fn send_response_headers(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(down) = call.down else { return };
        call.response_headers_sent = true;
        if let Some(h2) = self.conns.get_mut(down.conn).and_then(|c| c.h2.as_mut()) {
            h2.send_headers(down.stream, &call.response, false);
            self.mark_dirty(down.conn);
        }
    }

    fn on_trailers(&mut self, conn: Key, key: Key) {
        let Some(h2) = self.conns.get(conn).and_then(|c| c.h2.as_ref()) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        call.trailers.append(h2.headers());
        self.on_outcome(key);
    }

    /// The endpoint has said all: status and trailers are known.
    fn on_outcome(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.last_moved = self.now;
        let said = if call.is_trailers_only { &call.response } else { &call.trailers };
        let code = said.get(Token::GrpcStatus).map(|text| u8::try_from(wire::decimal(text)?).ok());
        if self.reads_reports
            && let Some(endpoint) = call.served_by.and_then(|p| self.endpoints.get_mut(p as usize))
        {
            let mut spare = self.buffers.take();
            endpoint.reports.get_or_insert_default().take(said, self.now, &mut spare);
            self.buffers.give(spare);
        }
        let text = said.get(Token::GrpcMessage);
        call.message.clear();
        if let Some(text) = text {
            wire::grpc::decode_message(text, &mut call.message);
        }
        match code {
            Some(code) => call.status = Status::from_code(code.unwrap_or(u8::MAX)),
            None if call.is_grpc => {
                self.counters.calls_upstream_malformed += 1;
                self.fail(
                    key,
                    Status::INTERNAL,
                    Flag::UpstreamProtocolError,
                    "the endpoint ended the stream without a grpc-status",
                );
                return;
            }
            None if (200..400).contains(&call.http_status) => call.status = Status::OK,
            None => call.status = Status::from_code(wire::grpc::status_of_http(call.http_status)),
        }
        if call.status == Status::UNAVAILABLE
            && let Some(endpoint) = call.served_by.and_then(|p| self.endpoints.get_mut(p as usize))
        {
            endpoint.failures += 1;
        }
        call.to_caller.has_ended = true;
        // The endpoint has heard enough if the caller is still talking.
        let reason = if call.to_endpoint.end_sent { None } else { Some(Reason::CANCEL) };
        self.leave_endpoint(key, reason);
        self.drop_messages(key, Way::ToEndpoint);
        let Some(call) = self.calls.get_mut(key) else { return };
        let terms = call.to_caller.messages.as_ref().map(|m| m.terms);
        let is_gated = terms.is_some_and(|t| t.judges || t.holds || t.opens.is_some());
        if terms.is_none() && call.status == Status::OK && self.opens_answers(key) {
            self.fail_breach(key, Breach::Cut);
        } else if is_gated {
            // A message that is still to be opened or judged may end the call otherwise.
            if let Some(call) = self.calls.get_mut(key) {
                call.has_outcome = true;
            }
            self.run_messages(key, Way::ToCaller);
        } else {
            self.settle(key);
        }
    }

    fn opens_answers(&self, key: Key) -> bool {
        self.plan_of(key).is_some_and(|p| p.response_boundary.opens.is_some())
    }

    /// The outcome stands: the response side has its say, then the caller gets the rest.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let messages = call.to_caller.messages.as_ref();
        if messages.is_some_and(|m| m.terms.holds && !m.is_holding()) && call.status == Status::OK {
            self.fail_unreadable(key, Unreadable::NotOne);
            return;
        }
        call.phase = Phase::Ending;
        if self.judge_response(key, None) {
            self.answer_on(key);
        }
    }

    /// The response side has had its say: an answer that was held and what still waits goes out, then the
    /// trailers.
    pub(crate) fn answer_on(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        if !call.response_headers_sent && !call.is_trailers_only && !call.is_own_outcome {
            self.choose_response_encoding(key);
            self.send_response_headers(key);
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(messages) = call.to_caller.messages.as_mut() {
            messages.let_go();
            self.run_messages(key, Way::ToCaller);
        } else if self.calls.get(key).is_some_and(|c| c.to_caller.waiting() > 0) {
            self.send_waiting(key, Way::ToCaller);
        } else {
            self.finish_answer(key);
        }
    }

    fn on_upstream_reset(&mut self, key: Key, reason: Reason, by: ResetBy) {
        let Some(call) = self.calls.get(key) else { return };
        let place = call.served_by;
        let is_late = call.deadline.is_some_and(|at| self.now.after_ns(DEADLINE_SLACK_NS) >= at);
        if let Some(endpoint) = place.and_then(|p| self.endpoints.get_mut(p as usize)) {
            endpoint.failures += 1;
        }
        let is_unprocessed =
            by == ResetBy::Goaway || (by == ResetBy::Peer && reason == Reason::REFUSED_STREAM);
        if is_unprocessed && self.try_again(key, false) {
            return;
        }
        // A server resets at the deadline we told it, a moment before our own timer fires.
        if by == ResetBy::Peer && reason == Reason::CANCEL && is_late {
            self.counters.calls_deadline_exceeded += 1;
            self.leave_endpoint(key, None);
            self.fail(key, Status::DEADLINE_EXCEEDED, Flag::Timeout, "the deadline has passed");
            return;
        }
        let addr = place.and_then(|p| self.endpoints.get(p as usize)).map(|e| alloc::format!("{}", e.addr));
        let addr = addr.unwrap_or_default();
        self.leave_endpoint(key, None);
        match by {
            ResetBy::Fault(fault) => {
                self.counters.calls_upstream_malformed += 1;
                let text = broke_text(&addr, fault);
                self.fail(key, Status::INTERNAL, Flag::UpstreamProtocolError, &text);
            }
            ResetBy::Goaway => {
                self.counters.calls_connection_lost += 1;
                let text = alloc::format!("{addr} went away before it saw the call");
                self.fail(key, Status::UNAVAILABLE, Flag::UpstreamClosed, &text);
            }
            ResetBy::Peer => {
                self.counters.calls_reset_by_endpoint += 1;
                let status = Status::from_code(wire::grpc::status_of_reason(reason.0));
                let text = alloc::format!("{addr} reset the stream (code {})", reason.0);
                self.fail(key, status, Flag::UpstreamReset, &text);
            }
        }
    }
}
