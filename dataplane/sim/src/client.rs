//! A gRPC caller: one connection, a list of calls, each as planned.

use std::collections::{BTreeMap, VecDeque};

use abi::{Encoding, Status};
use wire::h2::{Config, H2Conn, H2Event, HeadersKind, Reason, ResetBy, Role, StreamKey};
use wire::{Headers, Instant, Token, grpc};

use crate::body::{Inbox, Outbox, Way, frame, message};
use crate::check_gate::explains;
use crate::h2_io::H2Io;
use crate::ledger::{self, Ledger};
use crate::peer::{End, Peer, PeerIo, Wake};
use crate::plan::SECOND;
use crate::plan_call::{Cancel, fields};
use crate::rng::Rng;

/// The proxy must have closed a finished connection by then.
const CLOSE_NS_MAX: u64 = 60 * SECOND;

/// How a caller behaves as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Breaks the connection so long after its beginning.
    pub(crate) abort_after_ns: Option<u64>,
    pub(crate) read_bytes_max: usize,
    pub(crate) read_gap_ns: u64,
    /// Never gives stream window back.
    pub(crate) hoards: bool,
    /// Limits are so small that its connection may be refused.
    pub(crate) may_be_refused: bool,
    /// Whatever it does is abuse: what the proxy answers is not judged.
    pub(crate) is_abuse: bool,
    /// It stays so long after its last call, and then sends no FIN but is served one.
    pub(crate) config: Config,
    /// What it calls its peers.
    pub(crate) authorities: Vec<String>,
}

impl Manner {
    pub(crate) fn draw(rng: &mut Rng, authorities: &[String]) -> Self {
        Self {
            abort_after_ns: None,
            read_bytes_max: rng.pick(&[100, 4096, usize::MAX, usize::MAX]),
            read_gap_ns: rng.pick(&[0, 0, 0, 10_000, 1_000_000]),
            hoards: false,
            may_be_refused: false,
            is_abuse: false,
            config: Config {
                stream_window_bytes: rng.pick(&[64, 1000, 16_384, 65_535, 1 << 20]),
                conn_window_bytes: rng.pick(&[65_535, 1 << 20]),
                frame_bytes_max: rng.pick(&[16_384, 100_000]),
                header_table_bytes_max: rng.pick(&[0, 100, 4096, 65_536]),
                tx_bytes_max: rng.pick(&[100, 16_384, 65_536]),
                ..Config::default()
            },
            authorities: authorities.to_vec(),
        }
    }
}

#[derive(Debug)]
struct Live {
    stream: StreamKey,
    outbox: Outbox,
    inbox: Inbox,
    late_end: bool,
    cancel_at: Option<u64>,
    cancel_after: Option<usize>,
}

/// One connection of a caller.
#[derive(Debug)]
pub(crate) struct Client {
    h2: Option<H2Io>,
    manner: Manner,
    /// When to begin which call.
    todo: VecDeque<(u64, usize)>,
    live: BTreeMap<u32, Live>,
    /// Window to give back: when, whose, how much.
    credits: VecDeque<(u64, StreamKey, usize)>,
    born_at: u64,
    next_read: u64,
    goes_away: bool,
    finished_at: Option<u64>,
}

impl Client {
    /// `todo` must be in the order of its times.
    pub(crate) fn new(manner: Manner, todo: Vec<(u64, usize)>) -> Self {
        Self {
            h2: None,
            manner,
            todo: todo.into(),
            live: BTreeMap::new(),
            credits: VecDeque::new(),
            born_at: 0,
            next_read: 0,
            goes_away: false,
            finished_at: None,
        }
    }

    fn receive(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger, max: usize) {
        let Self { h2, live, credits, goes_away, manner, .. } = self;
        let Some(h2) = h2 else { return };
        h2.receive(io, max, |conn, io, event, data| {
            let now = io.now();
            match event {
                H2Event::Headers { stream, tag, kind, end_stream } => {
                    let call = tag as usize;
                    let Some(it) = live.get_mut(&tag) else { return };
                    if kind == HeadersKind::Informational {
                        return;
                    }
                    let list = conn.headers().clone();
                    io.note(format_args!("call {call} gets {kind:?}, end {end_stream}"));
                    if kind == HeadersKind::Response {
                        response(call, it, &list, ledger);
                    }
                    if end_stream {
                        finish(call, it, &list, now, ledger);
                        if !it.outbox.is_done {
                            conn.reset(stream, Reason::CANCEL);
                        }
                        live.remove(&tag);
                    }
                }
                H2Event::Data { stream, tag, end_stream, .. } => {
                    let call = tag as usize;
                    let Some(it) = live.get_mut(&tag) else { return };
                    if let Err(what) = it.inbox.push(data)
                        && !manner.is_abuse
                    {
                        ledger.problem(what);
                    }
                    ledger.calls[call].messages = it.inbox.count;
                    ledger.calls[call].partial = it.inbox.partial();
                    let lag = ledger.calls[call].plan.client_lag_ns;
                    if !manner.hoards {
                        if lag == 0 {
                            conn.release(stream, data.len());
                        } else {
                            credits.push_back((now + lag, stream, data.len()));
                        }
                    }
                    if end_stream {
                        ledger.problem(format!("call {call}: the answer ended without trailers"));
                        ledger.end(call, now, ledger::End::ConnLost);
                        live.remove(&tag);
                    }
                }
                H2Event::Reset { tag, reason, by, .. } => {
                    if live.remove(&tag).is_none() {
                        return;
                    }
                    io.note(format_args!("call {tag} reset {reason:?} by {by:?}"));
                    let end = match by {
                        ResetBy::Peer => ledger::End::Reset(reason),
                        ResetBy::Goaway => ledger::End::ConnLost,
                        ResetBy::Fault(fault) => {
                            if !manner.is_abuse {
                                ledger.problem(format!("call {tag}: the proxy's answer: {}", fault.name()));
                            }
                            ledger::End::Reset(reason)
                        }
                    };
                    ledger.end(tag as usize, now, end);
                }
                H2Event::Goaway { reason } => {
                    io.note(format_args!("goaway {reason:?}"));
                    if reason != Reason::NO_ERROR && !manner.is_abuse {
                        ledger.problem(format!("an honest caller was sent away: {reason:?}"));
                    }
                    *goes_away = true;
                }
                H2Event::Writable { .. } | H2Event::Capacity | H2Event::Pong => {}
            }
        });
    }

    /// Begins calls that are due, as far as the proxy lets us.
    fn begin(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) {
        let now = io.now();
        while let Some((at, call)) = self.todo.front().copied() {
            if self.goes_away {
                self.todo.pop_front();
                ledger.end(call, now, ledger::End::NotSent);
                continue;
            }
            if at > now {
                break;
            }
            let Some(h2) = &mut self.h2 else { break };
            let tag = u32::try_from(call).unwrap_or(u32::MAX);
            let Some(stream) = h2.conn.open(tag) else { break };
            self.todo.pop_front();
            let plan = ledger.calls[call].plan.clone();
            io.note(format_args!("call {call} begins: {plan:?}"));
            let mut list = request_headers(call, &plan, &self.manner.authorities);
            if ledger.gates.is_some() {
                plan.gate.tell(&plan, &mut list);
            }
            let mut outbox = Outbox::default();
            for (number, len) in plan.request.iter().enumerate() {
                let mut framed = Vec::new();
                frame(&message(call, Way::Request, number, *len), plan.sends, &mut framed);
                if let Some(torn) = plan.gate.torn.filter(|_| number + 1 == plan.request.len()) {
                    torn.tear(&mut framed);
                }
                outbox.push(now + number as u64 * plan.gap_ns, framed);
            }
            outbox.is_last = !plan.late_end;
            let ends_at_once = plan.request.is_empty() && !plan.late_end;
            outbox.is_done = ends_at_once;
            h2.conn.send_headers(stream, &list, ends_at_once);
            let it = &mut ledger.calls[call];
            it.sent_at = Some(now);
            it.link = Some(io.link());
            it.request_done = ends_at_once;
            it.is_abuse = self.manner.is_abuse;
            if plan.cancel == Cancel::AtOnce {
                h2.conn.reset(stream, Reason::CANCEL);
                ledger.end(call, now, ledger::End::Cancelled);
                continue;
            }
            let (cancel_at, cancel_after) = match plan.cancel {
                Cancel::AfterNs(ns) => (Some(now + ns), None),
                Cancel::AfterMessages(count) => (None, Some(count)),
                Cancel::Never | Cancel::AtOnce => (None, None),
            };
            let inbox = Inbox::new(call, Way::Response, &plan.response, ledger.suffix(&plan, Way::Response));
            let late_end = plan.late_end;
            self.live.insert(tag, Live { stream, outbox, inbox, late_end, cancel_at, cancel_after });
        }
    }

    /// Bodies, cancels, credits.
    fn go_on(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) {
        let now = io.now();
        let Some(h2) = &mut self.h2 else { return };
        while let Some((at, stream, bytes)) = self.credits.front().copied() {
            if at > now {
                break;
            }
            self.credits.pop_front();
            h2.conn.release(stream, bytes);
        }
        self.live.retain(|tag, it| {
            let call = *tag as usize;
            let is_due = it.cancel_at.is_some_and(|at| at <= now)
                || it
                    .cancel_after
                    .is_some_and(|count| it.inbox.count >= count && ledger.calls[call].saw_headers);
            if is_due {
                io.note(format_args!("call {call} is cancelled"));
                h2.conn.reset(it.stream, Reason::CANCEL);
                ledger.end(call, now, ledger::End::Cancelled);
                return false;
            }
            let is_early = ledger.calls[call].plan.waits && !ledger.calls[call].saw_headers;
            if !is_early && send(&mut h2.conn, io, it.stream, &mut it.outbox, it.late_end) {
                ledger.calls[call].request_done = true;
            }
            true
        });
    }

    fn lose_all(&mut self, now: u64, ledger: &mut Ledger) {
        for tag in core::mem::take(&mut self.live).into_keys() {
            ledger.end(tag as usize, now, ledger::End::ConnLost);
        }
        for (_, call) in self.todo.drain(..) {
            ledger.end(call, now, ledger::End::NotSent);
        }
    }

    fn next_wake(&self, now: u64) -> Option<u64> {
        let begin = self.todo.front().map(|(at, _)| *at);
        let credit = self.credits.front().map(|(at, ..)| *at);
        let read = (self.next_read > now).then_some(self.next_read);
        let abort = self.manner.abort_after_ns.map(|ns| self.born_at + ns);
        let close = self.finished_at.map(|at| at + CLOSE_NS_MAX);
        let calls = self
            .live
            .values()
            .filter_map(|it| [it.cancel_at, it.outbox.next_due()].into_iter().flatten().min());
        let settings = self.h2.as_ref().and_then(|h2| h2.conn.poll_timeout()).map(|at| at.0);
        [begin, credit, read, abort, close, settings]
            .into_iter()
            .flatten()
            .chain(calls)
            .filter(|at| *at > now)
            .min()
    }
}

/// Offers what an outbox has; true when its end has gone.
pub(crate) fn send(
    conn: &mut H2Conn,
    io: &mut PeerIo<'_>,
    stream: StreamKey,
    outbox: &mut Outbox,
    late_end: bool,
) -> bool {
    let now = io.now();
    while outbox.ready(now) {
        let (bytes, ends) = outbox.front();
        let len = if io.rng().chance(200) { io.rng().size(0, bytes.len()) } else { bytes.len() };
        let ends_here = ends && len == bytes.len();
        if len == 0 && !ends_here {
            continue;
        }
        let taken = conn.send_data(stream, &bytes[..len], ends_here);
        outbox.took(taken);
        if taken < len {
            return false;
        }
        if ends_here {
            outbox.is_done = true;
            return true;
        }
    }
    if late_end && !outbox.is_last && outbox.is_empty() {
        outbox.is_last = true;
        return send(conn, io, stream, outbox, late_end);
    }
    false
}

fn request_headers(call: usize, plan: &crate::plan_call::CallPlan, authorities: &[String]) -> Headers {
    let mut list = Headers::new();
    list.push(b":method", b"POST");
    list.push(b":scheme", b"http");
    list.push(b":path", format!("/sim.S/C{call}").as_bytes());
    list.push(b":authority", authorities.get(plan.to).map_or(b"", |a| a.as_bytes()));
    list.push(b"te", b"trailers");
    list.push(b"content-type", b"application/grpc");
    list.push(b"user-agent", b"sim/1");
    if let Some(ns) = plan.deadline_ns {
        let mut value = Vec::new();
        grpc::emit_timeout(ns, &mut value);
        list.push(b"grpc-timeout", &value);
    }
    if let Some(encoding) = plan.sends {
        list.push(b"grpc-encoding", encoding.name().as_bytes());
    }
    if let Some(encoding) = plan.accepts {
        list.push(b"grpc-accept-encoding", format!("identity,{}", encoding.name()).as_bytes());
    }
    list.push(b"x-sim", call.to_string().as_bytes());
    if plan.names_itself {
        list.push(b"towpath-call", &[b'T'; 40]);
    }
    if let Some(status) = plan.reject {
        list.push(b"x-sim-reject", status.name().as_bytes());
    }
    if plan.chain_delay_ns > 0 {
        list.push(b"x-sim-delay", plan.chain_delay_ns.to_string().as_bytes());
    }
    for (name, value) in fields(call, "q", plan.metadata) {
        list.push(name.as_bytes(), &value);
    }
    list
}

/// The custom fields of a list, as `fields` makes them.
pub(crate) fn custom(list: &Headers, what: &str) -> Vec<(String, Vec<u8>)> {
    let prefix = format!("x-{what}-");
    let ours = list.iter().filter(|(_, name, _)| name.starts_with(prefix.as_bytes()));
    ours.map(|(_, name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}

fn response(call: usize, it: &mut Live, list: &Headers, ledger: &mut Ledger) {
    let seen = &mut ledger.calls[call];
    seen.saw_headers = true;
    if list.get(Token::Status) != Some(b"200") {
        let status = list.get(Token::Status).map(|s| String::from_utf8_lossy(s).into_owned());
        ledger.problem(format!("call {call}: a gRPC caller got HTTP {status:?}"));
        return;
    }
    let is_servers = list.get_name(b"x-srv", 0).is_some();
    let wanted = if seen.plan.trailers_only { Vec::new() } else { fields(call, "r", seen.plan.metadata) };
    if is_servers && custom(list, "r") != wanted {
        ledger.problem(format!("call {call}: initial metadata changed on its way"));
        return;
    }
    it.inbox.encoding = list.get(Token::GrpcEncoding).and_then(Encoding::from_name);
}

fn finish(call: usize, it: &mut Live, list: &Headers, now: u64, ledger: &mut Ledger) {
    let text = list.get(Token::GrpcStatus).and_then(|v| core::str::from_utf8(v).ok());
    let Some(code) = text.and_then(|t| t.parse::<u8>().ok()) else {
        if ledger.calls[call].is_abuse {
            return ledger.end(call, now, ledger::End::Status(Status::UNKNOWN));
        }
        ledger.problem(format!("call {call}: trailers without a grpc-status: {text:?}"));
        return ledger.end(call, now, ledger::End::Status(Status::UNKNOWN));
    };
    let status = Status::from_code(code);
    let mut text = Vec::new();
    grpc::decode_message(list.get(Token::GrpcMessage).unwrap_or(b""), &mut text);
    let seen = &mut ledger.calls[call];
    seen.message = String::from_utf8_lossy(&text).into_owned();
    let is_servers = list.get_name(b"x-srv-end", 0).is_some();
    let wanted = fields(call, "t", seen.plan.trailers);
    let (partial, compressed) = (it.inbox.partial(), it.inbox.compressed);
    let may_compress = seen.plan.accepts.is_some();
    let wanted_text = seen.plan.message.unwrap_or("").to_string();
    let got_text = seen.message.clone();
    let is_other = got_text.contains("message_bytes_max") || explains(&seen.plan, status, &got_text);
    let is_its_status = status == seen.plan.status && !is_other;
    let is_abuse = seen.is_abuse;
    ledger.end(call, now, ledger::End::Status(status));
    if is_abuse {
        return;
    }
    if status == Status::OK && !is_servers {
        ledger.problem(format!("call {call}: OK, but not from its server"));
    }
    if is_servers && custom(list, "t") != wanted {
        ledger.problem(format!("call {call}: trailing metadata changed on its way"));
    }
    if is_servers && is_its_status && got_text != wanted_text {
        ledger.problem(format!("call {call}: grpc-message {got_text:?} instead of {wanted_text:?}"));
    }
    if status == Status::OK && partial > 0 {
        ledger.problem(format!("call {call}: OK in the middle of a message"));
    }
    if compressed > 0 && !may_compress {
        ledger.problem(format!("call {call}: compressed, which its caller cannot read"));
    }
}

impl Peer for Client {
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake {
        let now = io.now();
        if self.h2.is_none() {
            self.born_at = now;
            self.h2 = Some(H2Io::new(H2Conn::new(Role::Client, &self.manner.config, Instant(now))));
        }
        while io.readable() > 0 && self.next_read <= now {
            self.receive(io, ledger, self.manner.read_bytes_max);
            if self.manner.read_gap_ns > 0 {
                self.next_read = now + 1 + io.rng().below(self.manner.read_gap_ns);
            }
        }
        if let Some(h2) = &mut self.h2 {
            h2.tick(io);
        }
        let error = self.h2.as_ref().and_then(|h2| h2.error);
        if let Some(error) = error {
            if !self.manner.is_abuse {
                ledger.problem(format!("the proxy broke HTTP/2 towards a caller: {}", error.fault.name()));
            }
            self.lose_all(now, ledger);
            io.reset();
            return Wake::Done;
        }
        let end = io.end();
        if end != End::Open {
            let is_expected = self.finished_at.is_some()
                || self.goes_away
                || self.manner.is_abuse
                || self.manner.may_be_refused
                || io.is_faulted();
            if !is_expected {
                ledger.problem(format!("an honest caller's connection ended: {end:?}"));
            }
            io.note(format_args!("end {end:?}"));
            self.lose_all(now, ledger);
            return Wake::Done;
        }
        if self.manner.abort_after_ns.is_some_and(|ns| now >= self.born_at + ns) {
            io.note(format_args!("aborts"));
            self.lose_all(now, ledger);
            io.reset();
            return Wake::Done;
        }
        self.begin(io, ledger);
        self.go_on(io, ledger);
        while self.h2.as_mut().is_some_and(|h2| h2.transmit(io)) {
            self.receive(io, ledger, 0);
            self.go_on(io, ledger);
        }
        if self.live.is_empty() && self.todo.is_empty() && self.finished_at.is_none() {
            let is_out = self.h2.as_ref().is_none_or(|h2| h2.conn.tx().is_empty());
            if is_out {
                io.note(format_args!("finishes"));
                io.finish();
                self.finished_at = Some(now);
            }
        }
        if self.finished_at.is_some_and(|at| now >= at + CLOSE_NS_MAX) {
            ledger.problem("a caller said FIN and was not closed for a minute".into());
            return Wake::Done;
        }
        // A cancel may have made room for a call that is due.
        let has_room = self.h2.as_ref().is_some_and(|h2| h2.conn.open_room() > 0);
        if has_room && self.todo.front().is_some_and(|(at, _)| *at <= now) {
            return Wake::At(now + 1);
        }
        self.next_wake(now).map_or(Wake::OnNews, Wake::At)
    }
}
