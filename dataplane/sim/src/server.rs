//! A gRPC server: one connection, every call answered as planned.

use std::collections::{BTreeMap, VecDeque};

use abi::Encoding;
use wire::h2::{Config, H2Conn, H2Event, HeadersKind, Reason, Role, StreamKey};
use wire::{Headers, Instant, Token, grpc};

use crate::body::{Inbox, Outbox, Way, frame, message};
use crate::client::{custom, send};
use crate::gate::REPORT;
use crate::h2_io::H2Io;
use crate::ledger::{Attempt, AttemptEnd, Ledger};
use crate::peer::{End, Peer, PeerIo, Wake};
use crate::plan::{MS, SECOND};
use crate::plan_call::{CallPlan, Kind, fields};
use crate::rng::Rng;

/// How a server leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    Never,
    /// GOAWAY(2^31-1), then GOAWAY(last), after so many calls; open ones are answered.
    Drain(usize),
    /// GOAWAY with an error, and the connection closed.
    Away(usize),
    /// A RST.
    Reset(usize),
}

/// How a server behaves as a whole.
#[derive(Clone, Debug)]
pub(crate) struct ServerManner {
    pub(crate) leave: Leave,
    pub(crate) read_bytes_max: usize,
    pub(crate) read_gap_ns: u64,
    pub(crate) config: Config,
    /// Says that it reads gzip and deflate.
    pub(crate) advertises: bool,
    /// Takes no call at all.
    pub(crate) refuses: bool,
    /// Leaves with ENHANCE_YOUR_CALM at so many resets within a second, as servers do that protect themselves.
    pub(crate) resets_max: usize,
}

impl ServerManner {
    pub(crate) fn draw(rng: &mut Rng, leaves: &[Leave], advertises: bool, streams_max: u32) -> Self {
        Self {
            leave: rng.pick(leaves),
            read_bytes_max: rng.pick(&[100, 4096, usize::MAX, usize::MAX]),
            read_gap_ns: rng.pick(&[0, 0, 0, 10_000, MS]),
            config: Config {
                stream_window_bytes: rng.pick(&[64, 1000, 16_384, 65_535, 1 << 20]),
                conn_window_bytes: rng.pick(&[65_535, 1 << 20]),
                streams_max,
                frame_bytes_max: rng.pick(&[16_384, 100_000]),
                header_table_bytes_max: rng.pick(&[0, 100, 4096, 65_536]),
                tx_bytes_max: rng.pick(&[100, 16_384, 65_536]),
                ..Config::default()
            },
            advertises,
            refuses: false,
            resets_max: usize::MAX,
        }
    }
}

#[derive(Debug)]
struct Serving {
    call: usize,
    attempt: usize,
    stream: StreamKey,
    inbox: Inbox,
    outbox: Outbox,
    encoding: Option<Encoding>,
    answer_at: Option<u64>,
    sent_headers: bool,
    pushed: usize,
    saw_end: bool,
    /// Its answer is out: what still comes is read and forgotten.
    is_over: bool,
}

/// One connection to a backend.
#[derive(Debug)]
pub(crate) struct Server {
    h2: Option<H2Io>,
    manner: ServerManner,
    serving: BTreeMap<u32, Serving>,
    next_tag: u32,
    seen: usize,
    credits: VecDeque<(u64, StreamKey, usize)>,
    next_read: u64,
    drain_finish_at: Option<u64>,
    is_draining: bool,
    resets: VecDeque<u64>,
}

impl Server {
    pub(crate) fn new(manner: ServerManner) -> Self {
        Self {
            h2: None,
            manner,
            serving: BTreeMap::new(),
            next_tag: 1,
            seen: 0,
            credits: VecDeque::new(),
            next_read: 0,
            drain_finish_at: None,
            is_draining: false,
            resets: VecDeque::new(),
        }
    }

    fn receive(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger, max: usize) {
        let Self { h2, serving, next_tag, seen, credits, manner, resets, .. } = self;
        let Some(h2) = h2 else { return };
        h2.receive(io, max, |conn, io, event, data| {
            let now = io.now();
            match event {
                H2Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                    let list = conn.headers().clone();
                    *seen += 1;
                    if manner.refuses {
                        return conn.reset(stream, Reason::REFUSED_STREAM);
                    }
                    let Some(mut it) = arrive(&list, stream, io, ledger) else {
                        let mut list = Headers::new();
                        list.push(b":status", b"200");
                        list.push(b"content-type", b"application/grpc");
                        list.push(b"grpc-status", b"12");
                        conn.send_headers(stream, &list, true);
                        return;
                    };
                    let plan = &ledger.calls[it.call].plan;
                    if ledger.calls[it.call].attempts.len() <= plan.refusals {
                        io.note(format_args!("call {} is refused", it.call));
                        conn.reset(stream, Reason::REFUSED_STREAM);
                        ended(ledger, &it, now, AttemptEnd::Refused);
                        return;
                    }
                    it.saw_end = end_stream;
                    ledger.calls[it.call].attempts[it.attempt].saw_end = end_stream;
                    conn.set_tag(stream, *next_tag);
                    serving.insert(*next_tag, it);
                    *next_tag += 1;
                }
                H2Event::Headers { tag, .. } => {
                    if let Some(it) = serving.get_mut(&tag) {
                        it.saw_end = true;
                        ledger.calls[it.call].attempts[it.attempt].saw_end = true;
                    }
                }
                H2Event::Data { stream, tag, end_stream, .. } => {
                    let Some(it) = serving.get_mut(&tag) else {
                        return conn.release(stream, data.len());
                    };
                    if let Err(what) = it.inbox.push(data)
                        && !ledger.calls[it.call].is_abuse
                    {
                        ledger.problem(format!("at its server: {what}"));
                    }
                    it.saw_end |= end_stream;
                    let (count, partial, compressed) =
                        (it.inbox.count, it.inbox.partial(), it.inbox.compressed);
                    let seen = &mut ledger.calls[it.call];
                    seen.attempts[it.attempt].messages = count;
                    seen.attempts[it.attempt].saw_end = it.saw_end;
                    let lag = seen.plan.server_lag_ns;
                    let may_compress = manner.advertises || seen.plan.sends.is_some();
                    if compressed > 0 && !may_compress {
                        ledger.problem(format!(
                            "call {}: compressed for a server that never said it can",
                            it.call
                        ));
                    }
                    if end_stream && partial > 0 && !ledger.calls[it.call].is_abuse {
                        ledger.problem(format!("call {}: the request ends inside a message", it.call));
                    }
                    if lag == 0 {
                        conn.release(stream, data.len());
                    } else {
                        credits.push_back((now + lag, stream, data.len()));
                    }
                }
                H2Event::Reset { tag, reason, .. } => {
                    resets.push_back(now);
                    if let Some(it) = serving.remove(&tag) {
                        io.note(format_args!("call {} is reset: {reason:?}", it.call));
                        ended(ledger, &it, now, AttemptEnd::Reset(reason));
                    }
                }
                H2Event::Goaway { .. } | H2Event::Writable { .. } | H2Event::Capacity | H2Event::Pong => {}
            }
        });
    }

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
        let advertises = self.manner.advertises;
        self.serving.retain(|_, it| {
            answer(&mut h2.conn, io, ledger, it, advertises);
            !(it.is_over && it.saw_end)
        });
    }

    fn lose_all(&mut self, now: u64, ledger: &mut Ledger) {
        for it in core::mem::take(&mut self.serving).into_values() {
            ended(ledger, &it, now, AttemptEnd::ConnLost);
        }
    }

    /// Leaves, if it is time. True if the connection is gone.
    fn leave(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> bool {
        let now = io.now();
        let Some(h2) = &mut self.h2 else { return false };
        while self.resets.front().is_some_and(|at| at + SECOND < now) {
            self.resets.pop_front();
        }
        if self.resets.len() > self.manner.resets_max {
            io.note(format_args!("has had enough resets"));
            h2.conn.goaway(Reason::ENHANCE_YOUR_CALM);
            h2.transmit(io);
            self.lose_all(now, ledger);
            io.close();
            return true;
        }
        match self.manner.leave {
            Leave::Drain(after) if self.seen >= after && !self.is_draining => {
                io.note(format_args!("drains"));
                self.is_draining = true;
                ledger.backend_faults += 1;
                h2.conn.drain_start();
                self.drain_finish_at = Some(now + io.rng().below(3 * MS));
            }
            Leave::Away(after) if self.seen >= after => {
                io.note(format_args!("goes away"));
                ledger.backend_faults += 1;
                h2.conn.goaway(Reason::INTERNAL_ERROR);
                h2.transmit(io);
                self.lose_all(now, ledger);
                io.close();
                return true;
            }
            Leave::Reset(after) if self.seen >= after => {
                io.note(format_args!("resets"));
                ledger.backend_faults += 1;
                self.lose_all(now, ledger);
                io.reset();
                return true;
            }
            _ => {}
        }
        if self.drain_finish_at.is_some_and(|at| at <= now) {
            self.drain_finish_at = None;
            h2.conn.drain_finish();
        }
        if self.is_draining && self.drain_finish_at.is_none() && self.serving.is_empty() {
            h2.transmit(io);
            if h2.conn.tx().is_empty() && h2.conn.streams_open() == 0 {
                io.note(format_args!("has drained"));
                io.close();
                return true;
            }
        }
        false
    }

    fn next_wake(&self, now: u64) -> Option<u64> {
        let credit = self.credits.front().map(|(at, ..)| *at);
        let read = (self.next_read > now).then_some(self.next_read);
        let calls = self.serving.values().filter(|it| !it.is_over);
        let calls = calls.filter_map(|it| {
            [it.answer_at, it.outbox.next_due()].into_iter().flatten().filter(|at| *at > now).min()
        });
        let settings = self.h2.as_ref().and_then(|h2| h2.conn.poll_timeout()).map(|at| at.0);
        let fixed = [credit, read, self.drain_finish_at, settings];
        fixed.into_iter().flatten().chain(calls).filter(|at| *at > now).min()
    }
}

fn ended(ledger: &mut Ledger, it: &Serving, now: u64, end: AttemptEnd) {
    ledger.calls[it.call].attempts[it.attempt].end.get_or_insert((now, end));
}

/// A call's headers: whose it is, and whether they are what its caller sent.
fn arrive(list: &Headers, stream: StreamKey, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Option<Serving> {
    let number = list.get_name(b"x-sim", 0).and_then(|v| core::str::from_utf8(v).ok());
    let Some(call) = number.and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < ledger.calls.len()) else {
        io.note(format_args!("a call of nobody's"));
        return None;
    };
    io.note(format_args!("call {call} arrives"));
    let seen = &mut ledger.calls[call];
    let attempt = seen.attempts.len();
    seen.attempts.push(Attempt { link: io.link(), messages: 0, saw_end: false, answered: 0, end: None });
    let plan = seen.plan.clone();
    let path = format!("/sim.S/C{call}");
    if list.get(Token::Path) != Some(path.as_bytes()) || list.get(Token::Te) != Some(b"trailers") {
        ledger.problem(format!("call {call}: its path or te changed on its way"));
    }
    if custom(list, "q") != fields(call, "q", plan.metadata) {
        ledger.problem(format!("call {call}: request metadata changed on its way"));
    }
    if list.get_name(b"towpath-call", 0).is_some() {
        ledger.problem(format!("call {call}: its server is told the tag of a node"));
    }
    if list.get_name(b"user-agent", 0) != Some(b"sim/1") {
        ledger.problem(format!("call {call}: its user-agent changed on its way"));
    }
    let timeout = list.get(Token::GrpcTimeout).and_then(grpc::parse_timeout_ns);
    let is_right = match (plan.deadline_ns, timeout) {
        (None, None) => true,
        (Some(whole), Some(left)) => left <= whole,
        _ => false,
    };
    if !is_right {
        ledger.problem(format!("call {call}: grpc-timeout {timeout:?} of {:?}", plan.deadline_ns));
    }
    let accepts = list.get(Token::GrpcAcceptEncoding).unwrap_or(b"");
    let encoding = [Encoding::Gzip, Encoding::Deflate]
        .into_iter()
        .find(|e| accepts.split(|b| *b == b',').any(|a| a.trim_ascii() == e.name().as_bytes()));
    let suffix = ledger.suffix(&plan, Way::Request);
    let mut inbox = Inbox::new(call, Way::Request, &plan.request, suffix);
    inbox.encoding = list.get(Token::GrpcEncoding).and_then(Encoding::from_name);
    Some(Serving {
        call,
        attempt,
        stream,
        inbox,
        outbox: Outbox::default(),
        encoding: encoding.filter(|_| plan.server_sends),
        answer_at: None,
        sent_headers: false,
        pushed: 0,
        saw_end: false,
        is_over: false,
    })
}

fn push_status(call: usize, plan: &CallPlan, list: &mut Headers) {
    list.push(b"grpc-status", plan.status.code().to_string().as_bytes());
    if let Some(text) = plan.message {
        let mut value = Vec::new();
        grpc::encode_message(text.as_bytes(), &mut value);
        list.push(b"grpc-message", &value);
    }
    list.push(b"x-srv-end", b"1");
    list.push(b"endpoint-load-metrics", format!("TEXT named_metrics.sim={REPORT}").as_bytes());
    for (name, value) in fields(call, "t", plan.trailers) {
        list.push(name.as_bytes(), &value);
    }
}

/// Takes one call's answer as far as it goes now.
fn answer(conn: &mut H2Conn, io: &mut PeerIo<'_>, ledger: &mut Ledger, it: &mut Serving, advertises: bool) {
    let now = io.now();
    if it.is_over {
        return;
    }
    let plan = ledger.calls[it.call].plan.clone();
    let is_early = plan.early.is_some_and(|count| it.inbox.count >= count);
    let may_begin = it.saw_end || is_early || plan.kind == Kind::Bidi;
    if it.answer_at.is_none() && may_begin {
        it.answer_at = Some(now + plan.server_delay_ns);
    }
    if it.answer_at.is_none_or(|at| at > now) {
        return;
    }
    if break_off(conn, io, ledger, it, &plan) {
        return;
    }
    if !it.sent_headers {
        it.sent_headers = true;
        let mut list = Headers::new();
        list.push(b":status", b"200");
        list.push(b"content-type", b"application/grpc");
        if advertises {
            list.push(b"grpc-accept-encoding", b"identity,deflate,gzip");
        }
        if let Some(encoding) = it.encoding {
            list.push(b"grpc-encoding", encoding.name().as_bytes());
        }
        if plan.trailers_only {
            push_status(it.call, &plan, &mut list);
            conn.send_headers(it.stream, &list, true);
            return over(conn, ledger, it, now, &plan);
        }
        list.push(b"x-srv", b"1");
        for (name, value) in fields(it.call, "r", plan.metadata) {
            list.push(name.as_bytes(), &value);
        }
        conn.send_headers(it.stream, &list, false);
    }
    let is_free = plan.kind != Kind::Bidi || it.saw_end || is_early;
    let all = plan.server_reset.map_or(plan.response.len(), |(after, _)| after.min(plan.response.len()));
    let may = if is_free { all } else { it.inbox.count.min(all) };
    while it.pushed < may {
        let mut framed = Vec::new();
        frame(
            &message(it.call, Way::Response, it.pushed, plan.response[it.pushed]),
            it.encoding,
            &mut framed,
        );
        it.outbox.push(now + it.pushed as u64 * plan.gap_ns, framed);
        it.pushed += 1;
    }
    send(conn, io, it.stream, &mut it.outbox, false);
    ledger.calls[it.call].attempts[it.attempt].answered = it.outbox.begun;
    if break_off(conn, io, ledger, it, &plan) {
        return;
    }
    if is_free && plan.server_reset.is_none() && it.pushed == plan.response.len() && it.outbox.is_empty() {
        let mut list = Headers::new();
        push_status(it.call, &plan, &mut list);
        conn.send_headers(it.stream, &list, true);
        over(conn, ledger, it, now, &plan);
    }
}

/// Resets the stream, if that is planned and its time has come.
fn break_off(
    conn: &mut H2Conn,
    io: &mut PeerIo<'_>,
    ledger: &mut Ledger,
    it: &mut Serving,
    plan: &CallPlan,
) -> bool {
    let Some((after, reason)) = plan.server_reset else { return false };
    if it.outbox.begun < after || !it.outbox.is_empty() {
        return false;
    }
    io.note(format_args!("call {} is broken off: {reason:?}", it.call));
    conn.reset(it.stream, reason);
    it.is_over = true;
    it.saw_end = true;
    ended(ledger, it, io.now(), AttemptEnd::Broke);
    true
}

fn over(conn: &mut H2Conn, ledger: &mut Ledger, it: &mut Serving, now: u64, plan: &CallPlan) {
    it.is_over = true;
    if !it.saw_end && plan.early_reset {
        // RFC 9113 section 8.1: the rest of the request is not needed.
        conn.reset(it.stream, Reason::NO_ERROR);
        it.saw_end = true;
    }
    ended(ledger, it, now, AttemptEnd::Answered);
}

impl Peer for Server {
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake {
        let now = io.now();
        if self.h2.is_none() {
            self.h2 = Some(H2Io::new(H2Conn::new(Role::Server, &self.manner.config, Instant(now))));
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
            ledger.problem(format!("the proxy broke HTTP/2 towards a backend: {}", error.fault.name()));
            self.lose_all(now, ledger);
            io.reset();
            return Wake::Done;
        }
        if io.end() != End::Open {
            io.note(format_args!("end {:?}", io.end()));
            self.lose_all(now, ledger);
            return Wake::Done;
        }
        self.go_on(io, ledger);
        if self.leave(io, ledger) {
            return Wake::Done;
        }
        while self.h2.as_mut().is_some_and(|h2| h2.transmit(io)) {
            self.receive(io, ledger, 0);
            self.go_on(io, ledger);
        }
        self.next_wake(now).map_or(Wake::OnNews, Wake::At)
    }
}
