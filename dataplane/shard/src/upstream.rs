//! Endpoints and their connections: choosing, connecting, waiting, opening streams, trying again.

use abi::{EndpointIdx, Entry, Flag, Leaving, Status};
use alloc::{boxed::Box, string::String};
use wire::Token;
use wire::h2::{Fault, H2Conn, Reason, Role};

use crate::Why;
use crate::body::Way;
use crate::call::{Leg, Phase};
use crate::callers::CallerId;
use crate::conn::{Kind, Up, UpState};
use crate::endpoint::Health;
use crate::gate::encoding_of;
use crate::messages::Leave;
use crate::slab::Key;
use crate::state::{Core, Gone, Op, Timer};

/// How often a call may be sent to an endpoint that turns out to be down before it is given up.
const PICKS_MAX: u32 = 8;

impl Core {
    /// Every call that this burst let through gets an endpoint and, if there is one, a stream.
    pub(crate) fn dispatch_fresh(&mut self) {
        // A call that fails here may make others fresh (a retry); they are taken in the same sweep.
        let mut at = 0;
        while let Some(key) = self.fresh.get(at).copied() {
            at += 1;
            if self.calls.get(key).is_some_and(|c| c.phase == Phase::Queued && c.at_endpoint.is_none()) {
                self.dispatch(key);
            }
        }
        self.fresh.clear();
    }

    /// Finds an endpoint and a stream for a call, or a place in the endpoint's queue.
    fn dispatch(&mut self, key: Key) {
        let Some(place) = self.pick(key) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        call.picks += 1;
        if call.picks > PICKS_MAX {
            self.fail_unreachable(key, place);
            return;
        }
        let caller = call.caller;
        // What has been compressed already goes to an endpoint that reads it: the last one does.
        let reads =
            |place: u32| call.request_encoding.is_none_or(|e| self.endpoints[place as usize].accepts(e));
        let place = match call.served_by {
            Some(last) if !reads(place) => self.stay(key, last),
            _ => place,
        };
        let endpoint = &mut self.endpoints[place as usize];
        if !endpoint.is_healthy() {
            if endpoint.may_be_asked_again(self.now) {
                self.connect(place, None);
            }
            self.fail_unreachable(key, place);
            return;
        }
        if endpoint.queued() == 0
            && let Some(conn) = self.ready_conn(place, caller)
        {
            self.open(key, place, conn);
            return;
        }
        let endpoint = &mut self.endpoints[place as usize];
        if endpoint.queue().waiting(caller) >= self.limits.queue_max as usize {
            self.counters.calls_queue_full += 1;
            self.fail(key, Status::UNAVAILABLE, Flag::Overflow, "too many calls wait for this endpoint");
            return;
        }
        endpoint.queue().push(caller, key);
        let is_up = endpoint.health == Health::Up;
        let timer = if is_up {
            None
        } else {
            Some(self.wheel.insert(self.now.after_ns(self.limits.queue_wait_ns), Timer::Wait(key)))
        };
        let Some(call) = self.calls.get_mut(key) else { return };
        call.at_endpoint = Some(place);
        let old = core::mem::replace(&mut call.wait_timer, timer);
        if let Some(old) = old {
            self.wheel.cancel(old);
        }
        self.make_room(place, caller);
    }

    /// Whatever was picked, the call goes to the endpoint that had it last; elements are told so.
    fn stay(&mut self, key: Key, last: u32) -> u32 {
        if let Some(call) = self.calls.get_mut(key)
            && let Some(generation) = self.generations.get(usize::from(call.program)).and_then(Option::as_ref)
            && let Some(places) = call.destination.and_then(|d| generation.endpoints.get(usize::from(d.0)))
        {
            let at = places.iter().position(|place| *place == last);
            call.endpoint = at.and_then(|at| u16::try_from(at).ok()).map(EndpointIdx);
        }
        last
    }

    /// A call has waited long enough for its endpoint's first connection.
    pub(crate) fn on_queue_wait_over(&mut self, key: Key) {
        let Some(place) = self.calls.get(key).and_then(|c| c.at_endpoint) else { return };
        if self.endpoints[place as usize].health != Health::Up {
            self.endpoints[place as usize].last_why.get_or_insert(Why::TimedOut);
            self.leave_endpoint(key, None);
            if let Some(call) = self.calls.get_mut(key) {
                call.picks = call.picks.max(2);
            }
            self.fail_unreachable(key, place);
        }
    }

    /// `Pick`, or what an element has chosen, or P2C. `None` if the call ended over it.
    fn pick(&mut self, key: Key) -> Option<u32> {
        let has_pick = self.plan_of(key).is_some_and(|p| p.pick);
        let call = self.calls.get_mut(key)?;
        if !call.is_pinned {
            call.endpoint = None;
            if has_pick {
                self.run_chain(key, Entry::Pick, 0);
            }
        }
        let call = self.calls.get(key)?;
        let (program, destination, chosen, id) = (call.program, call.destination, call.endpoint, call.id);
        let generation = self.generations.get(usize::from(program)).and_then(Option::as_ref);
        let places = generation
            .zip(destination)
            .and_then(|(g, d)| g.endpoints.get(usize::from(d.0)))
            .map_or(&[][..], |p| p.as_slice());
        let chosen = chosen.or_else(|| self.two_choices(places, id));
        let place = chosen.and_then(|e| places.get(usize::from(e.0)).copied());
        let Some(place) = place else {
            self.counters.calls_no_endpoint += 1;
            let text =
                alloc::format!("{} has no endpoints", generation.map_or("", |g| g.service_name(destination)));
            self.fail(key, Status::UNAVAILABLE, Flag::NoHealthyUpstream, &text);
            return None;
        };
        if let Some(call) = self.calls.get_mut(key) {
            call.endpoint = chosen;
        }
        Some(place)
    }

    /// The better of two random healthy endpoints; of all, if none is healthy.
    pub(crate) fn two_choices(&self, places: &[u32], id: u64) -> Option<EndpointIdx> {
        let healthy = places.iter().filter(|p| self.endpoints[**p as usize].is_healthy()).count();
        let among = if healthy == 0 { places.len() } else { healthy };
        if among == 0 {
            return None;
        }
        let draw = crate::view::mix(self.seed ^ crate::view::mix(id));
        let nth = |n: u64| {
            let nth = usize::try_from(n % among as u64).unwrap_or(0);
            places
                .iter()
                .enumerate()
                .filter(|(_, p)| healthy == 0 || self.endpoints[**p as usize].is_healthy())
                .nth(nth)
        };
        let (a, b) = (nth(draw & 0xffff_ffff)?, nth(draw >> 32)?);
        let cost = |p: u32| {
            let e = &self.endpoints[p as usize];
            e.latency_ns(self.now).saturating_mul(u64::from(e.inflight) + 1)
        };
        let better = if cost(*b.1) < cost(*a.1) { b.0 } else { a.0 };
        u16::try_from(better).ok().map(EndpointIdx)
    }

    /// A connection of the endpoint on which this caller may open a stream now.
    fn ready_conn(&self, place: u32, caller: CallerId) -> Option<Key> {
        let is_secluded = self.callers.is_private(caller, self.now);
        let may_travel = |up: &Up| up.private_to.map_or(!is_secluded, |owner| owner == caller);
        self.endpoints[place as usize].conns.iter().copied().find(|key| {
            let Some(conn) = self.conns.get(*key) else { return false };
            matches!(&conn.kind, Kind::Up(up) if up.state == UpState::Ready && may_travel(up))
                && !conn.is_closing
                // One that does not read gets no more header blocks to hold.
                && conn.h2.as_ref().is_some_and(|h2| {
                    h2.open_room() > 0 && h2.tx().len() <= self.limits.tx_bytes_max as usize
                })
        })
    }

    /// Calls of this caller wait: a further connection, unless one is on its way or there are enough.
    ///
    /// Waiting callers take turns, but who holds a stream keeps it as long as its call lasts. So that a
    /// caller with many long calls does not shut the others out, one that waits with less than an equal
    /// share of the endpoint's streams gets a connection of its own, even beyond `endpoint_connections_max`.
    /// So does one that is kept by itself: the connections there are may not take its calls, however idle.
    fn make_room(&mut self, place: u32, caller: CallerId) {
        let private_to = self.callers.is_private(caller, self.now).then_some(caller);
        let endpoint = &self.endpoints[place as usize];
        let any = |wanted: &dyn Fn(&Up) -> bool| {
            endpoint.conns.iter().any(|key| {
                self.conns.get(*key).is_some_and(|c| matches!(&c.kind, Kind::Up(up) if wanted(up)))
            })
        };
        if any(&|up| up.state.is_coming() && up.private_to == private_to) {
            return;
        }
        if endpoint.conns.len() < self.limits.endpoint_connections_max as usize {
            self.connect(place, private_to);
        } else if (private_to.is_some() || endpoint.is_short(caller))
            && self.conns.len() < self.limits.connections_max as usize
            && !any(&|up| up.private_to == Some(caller))
        {
            self.counters.upstream_connects_fair += 1;
            self.connect(place, Some(caller));
        }
    }

    fn connect(&mut self, place: u32, private_to: Option<CallerId>) {
        let key = self.conns.insert();
        let now = self.now;
        self.counters.upstream_connects += 1;
        let endpoint = &mut self.endpoints[place as usize];
        endpoint.connecting += 1;
        endpoint.attempted_at = now;
        endpoint.conns.push(key);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.kind = Kind::Up(Up { endpoint: place, private_to, state: UpState::Connecting });
            conn.last_rx = now;
            conn.idle_since = now;
        }
        self.connects.push((key, place));
        self.wheel.insert(now.after_ns(self.limits.connect_timeout_ns), Timer::Connect(key));
    }

    pub(crate) fn on_connected(&mut self, key: Key) {
        let config = self.h2_config();
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        match &mut conn.kind {
            Kind::Up(up) => {
                up.state = UpState::Greeting;
                conn.h2 = Some(Box::new(H2Conn::new(Role::Client, &config, now)));
                conn.last_rx = now;
                self.mark_dirty(key);
            }
            Kind::Relay(_) => self.relay_connected(key),
            _ => {}
        }
    }

    /// Its SETTINGS are here, or a stream has ended: waiting calls may go.
    pub(crate) fn on_capacity(&mut self, key: Key) {
        let Some(Kind::Up(up)) = self.conns.get_mut(key).map(|c| &mut c.kind) else { return };
        let place = up.endpoint;
        let is_new = up.state == UpState::Greeting;
        if is_new {
            up.state = UpState::Ready;
            let endpoint = &mut self.endpoints[place as usize];
            endpoint.connecting = endpoint.connecting.saturating_sub(1);
            endpoint.health = Health::Up;
            endpoint.failures_in_row = 0;
            endpoint.last_why = None;
            endpoint.last_fault = None;
        }
        self.serve_queue(place);
        if is_new && self.endpoints[place as usize].queued() > 0 {
            self.make_more_room(place);
        }
    }

    /// It holds few enough unsent bytes again. Calls that `ready_conn` kept from it for these may go: where
    /// streams were free all along, nothing else would let them.
    pub(crate) fn on_tx_room(&mut self, key: Key) {
        if let Some(Kind::Up(up)) = self.conns.get(key).map(|c| &c.kind)
            && up.state == UpState::Ready
        {
            self.serve_queue(up.endpoint);
        }
    }

    /// A new connection was not enough for all that waited for it.
    fn make_more_room(&mut self, place: u32) {
        let mut line = 0;
        while let Some((caller, waits)) = self.endpoints[place as usize].queue().caller_at(line) {
            line += 1;
            if waits {
                self.make_room(place, caller);
            }
        }
    }

    pub(crate) fn on_connect_timeout(&mut self, key: Key) {
        let is_connecting = self.conns.get(key).is_some_and(|c| match &c.kind {
            Kind::Up(up) => up.state.is_coming(),
            Kind::Relay(relay) => relay.endpoint.is_some() && !relay.is_connected,
            _ => false,
        });
        if is_connecting {
            self.drop_conn(key, Some(Why::TimedOut), Some(Op::Reset));
        }
    }

    /// A connection did not come to be; the caller frees its slot.
    pub(crate) fn connect_failed(&mut self, key: Key, why: Why) {
        let Some(Kind::Up(up)) = self.conns.get_mut(key).map(|c| &mut c.kind) else { return };
        up.state = UpState::Leaving;
        let place = up.endpoint;
        self.counters.upstream_connect_failures += 1;
        let jitter = 800 + self.random() % 400;
        let endpoint = &mut self.endpoints[place as usize];
        endpoint.connecting = endpoint.connecting.saturating_sub(1);
        endpoint.conns.retain(|k| *k != key);
        endpoint.last_why = Some(why);
        let has_others = endpoint.conns.iter().any(
            |k| matches!(self.conns.get(*k).map(|c| &c.kind), Some(Kind::Up(u)) if u.state == UpState::Ready),
        );
        if has_others {
            return;
        }
        endpoint.health = Health::Down;
        endpoint.failures_in_row = endpoint.failures_in_row.saturating_add(1);
        if !endpoint.is_backing_off {
            endpoint.is_backing_off = true;
            let doublings = endpoint.failures_in_row.saturating_sub(1).min(20);
            let pause = (self.limits.backoff_min_ns << doublings).min(self.limits.backoff_max_ns);
            let at = self.now.after_ns(pause / 1000 * jitter);
            self.wheel.insert(at, Timer::Backoff(place));
        }
        self.release_queue(place);
    }

    /// Whoever waits for this endpoint chooses anew, at the end of the burst.
    pub(crate) fn release_queue(&mut self, place: u32) {
        while let Some(call) = self.endpoints[place as usize].queue().pop(|_| true) {
            if let Some(call) = self.calls.get_mut(call) {
                call.at_endpoint = None;
            }
            self.fresh.push(call);
        }
    }

    /// The pause is over: tried again in the background for as long as a program names it.
    pub(crate) fn on_backoff_over(&mut self, place: u32) {
        let endpoint = &mut self.endpoints[place as usize];
        endpoint.is_backing_off = false;
        if endpoint.health == Health::Down
            && endpoint.connecting == 0
            && endpoint.generations > 0
            && !self.is_draining
        {
            self.connect(place, None);
        }
    }

    /// Lets waiting calls go, callers in turn, as long as there are streams.
    pub(crate) fn serve_queue(&mut self, place: u32) {
        while self.endpoints[place as usize].queued() > 0 {
            let mut queue = core::mem::take(self.endpoints[place as usize].queue());
            let mut found = None;
            let call = queue.pop(|caller| {
                found = self.ready_conn(place, caller);
                found.is_some()
            });
            *self.endpoints[place as usize].queue() = queue;
            let (Some(key), Some(conn)) = (call, found) else { return };
            if let Some(call) = self.calls.get_mut(key) {
                call.at_endpoint = None;
            }
            self.open(key, place, conn);
        }
    }

    /// Opens a stream and sends what the caller has sent so far.
    fn open(&mut self, key: Key, place: u32, conn_key: Key) {
        let now = self.now;
        let window = self.limits.stream_window_bytes;
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(conn) = self.conns.get_mut(conn_key) else { return };
        let Some(h2) = conn.h2.as_mut() else { return };
        if call.request_encoding.is_some_and(|e| !self.endpoints[place as usize].accepts(e)) {
            // What has been compressed for another endpoint cannot be read here.
            self.fail(
                key,
                Status::UNAVAILABLE,
                Flag::UpstreamReset,
                "no other endpoint reads the request's encoding",
            );
            return;
        }
        let Some(stream) = h2.open(key.index) else {
            // Ids have run out: this connection takes no more, another is made.
            if let Kind::Up(up) = &mut conn.kind {
                up.state = UpState::Leaving;
            }
            self.fresh.push(key);
            return;
        };
        let endpoint = &mut self.endpoints[place as usize];
        endpoint.took_stream(call.caller);
        endpoint.calls += 1;
        if let Some(timer) = call.wait_timer.take() {
            self.wheel.cancel(timer);
        }
        let place_in_conn = u32::try_from(conn.calls.len()).unwrap_or(u32::MAX);
        conn.calls.push(key.index);
        call.up = Some(Leg { conn: conn_key, stream, place: place_in_conn });
        call.at_endpoint = Some(place);
        call.served_by = Some(place);
        call.phase = Phase::Open;
        call.attempts += 1;
        call.sent_at = now;
        call.opened_turn = self.turn;
        call.to_caller.window = window;
        if let Some(deadline) = call.deadline {
            let mut timeout = self.buffers.take();
            wire::grpc::emit_timeout(deadline.since_ns(now), &mut timeout);
            call.request.set(Token::GrpcTimeout, b"grpc-timeout", &timeout);
            self.buffers.give(timeout);
        }
        let mut leave = None;
        match call.leaving {
            Leaving::Packed(how)
                if call.is_grpc
                    && call.attempts == 1
                    && endpoint.accepts(how.encoding)
                    && call.request.get(Token::GrpcEncoding).is_none_or(|e| e == b"identity") =>
            {
                call.request.set(Token::GrpcEncoding, b"grpc-encoding", how.encoding.name().as_bytes());
                call.request_encoding = Some(how.encoding);
                let packed = Leave::Packed { encoding: how.encoding, min_bytes: how.min_bytes };
                leave = Some((None, packed));
            }
            Leaving::Plain if call.is_grpc && call.attempts == 1 => {
                let came = encoding_of(&call.request);
                if came.is_some() {
                    call.request.remove(Token::GrpcEncoding);
                    leave = Some((came, Leave::Plain));
                }
            }
            _ => {}
        }
        call.to_caller.grown_at = now;
        call.to_endpoint.end_sent = call.is_bodiless;
        h2.send_headers(stream, &call.request, call.is_bodiless);
        self.mark_dirty(conn_key);
        if let Some((came, leave)) = leave {
            self.set_leave(key, Way::ToEndpoint, came, leave);
        }
        self.send_waiting(key, Way::ToEndpoint);
    }

    /// A connection to an endpoint ended: what was on it is tried again or fails. The slot stays.
    pub(crate) fn upstream_gone(&mut self, key: Key, how: Gone) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Kind::Up(up) = &mut conn.kind else { return };
        up.state = UpState::Leaving;
        let place = up.endpoint;
        if !conn.calls.is_empty() {
            self.counters.upstream_connections_lost += 1;
        }
        while let Some(index) = self.conns.get(key).and_then(|c| c.calls.last().copied()) {
            let Some(call_key) = self.calls.key_at(index) else { break };
            let Some(call) = self.calls.get(call_key) else { break };
            let never_left = call.opened_turn == self.turn && how == Gone::Lost;
            self.endpoints[place as usize].failures += 1;
            if never_left && self.try_again(call_key, true) {
                continue;
            }
            let addr = alloc::format!("{}", self.endpoints[place as usize].addr);
            let (flag, text) = match how {
                Gone::Lost => {
                    self.counters.calls_connection_lost += 1;
                    (Flag::UpstreamClosed, alloc::format!("the connection to {addr} was lost"))
                }
                Gone::Broke(fault) => {
                    self.counters.calls_upstream_malformed += 1;
                    (Flag::UpstreamProtocolError, broke_text(&addr, fault))
                }
            };
            self.leave_endpoint(call_key, None);
            self.fail(call_key, Status::UNAVAILABLE, flag, &text);
        }
        self.release_queue(place);
    }

    /// gRPC's transparent retry: once, or as often as needed if nothing has left. False if it cannot be.
    pub(crate) fn try_again(&mut self, key: Key, never_left: bool) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let may = call.is_retryable
            && !call.response_headers_seen
            && call.phase == Phase::Open
            && (never_left || !call.was_repeated);
        if !may {
            return false;
        }
        self.leave_endpoint(key, Some(Reason::CANCEL));
        self.counters.calls_retried_transparently += 1;
        let Some(call) = self.calls.get_mut(key) else { return true };
        call.was_repeated |= !never_left;
        call.phase = Phase::Queued;
        call.to_endpoint.head = 0;
        call.to_endpoint.end_sent = false;
        self.fresh.push(key);
        true
    }

    /// No endpoint that could be asked.
    fn fail_unreachable(&mut self, key: Key, place: u32) {
        let endpoint = &self.endpoints[place as usize];
        let why = match endpoint.last_why {
            Some(Why::Other) if endpoint.last_fault.is_some() => match endpoint.last_fault {
                Some(Fault::ServerSpeaksTls) => "speaks TLS, and this connection is cleartext",
                Some(Fault::ServerSpeaksHttp1) => "speaks HTTP/1.1, not HTTP/2",
                _ => "does not speak HTTP/2",
            },
            Some(Why::Refused) => "refused the connection",
            Some(Why::TimedOut) => "did not answer",
            Some(Why::Unreachable) => "cannot be reached",
            Some(Why::Reset) => "reset the connection",
            Some(Why::Exhausted) => "could not be connected to: sockets or buffers ran out here",
            Some(Why::Other) | None => "failed",
        };
        let service = self.calls.get(key).and_then(|c| {
            let generation = self.generations.get(usize::from(c.program))?.as_ref()?;
            Some(String::from(generation.service_name(c.destination)))
        });
        let text =
            alloc::format!("no healthy endpoint of {}: {} {why}", service.unwrap_or_default(), endpoint.addr);
        if self.calls.get(key).is_some_and(|c| c.picks > 1) {
            self.counters.calls_connect_failed += 1;
            self.fail(key, Status::UNAVAILABLE, Flag::UpstreamConnectFailure, &text);
        } else {
            self.counters.calls_no_endpoint += 1;
            self.fail(key, Status::UNAVAILABLE, Flag::NoHealthyUpstream, &text);
        }
    }
}

/// What an endpoint did wrong, for the caller's `grpc-message`.
pub(crate) fn broke_text(addr: &str, fault: Fault) -> String {
    alloc::format!("{addr} broke HTTP/2 ({})", fault.name())
}
