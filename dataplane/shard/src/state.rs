//! The shard without its transport: all state, and the dispatch of what the transport reports.
//!
//! What the transport is to do in return stands in `ops`; bytes to send stand in the connections.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use abi::{Addr, Program};
use hashbrown::HashMap;
use wire::Instant;
use wire::h2::{Config, ConnError, Fault, H2Conn, H2Event, Input, Role};

use crate::body::Way;
use crate::call::Call;
use crate::callers::{Callers, Who};
use crate::conn::{Conn, Down, Drain, Kind};
use crate::counters::Counters;
use crate::endpoint::Endpoint;
use crate::generation::Generation;
use crate::limits::Limits;
use crate::messages::Messages;
use crate::metric::Metrics;
use crate::pool::{Buffers, Ledger, Level};
use crate::slab::{Key, Slab};
use crate::stats::Methods;
use crate::wheel::Wheel;
use crate::{
    AccessWhen, ConnId, Job, Listener, ListenerId, Log, Notice, Peer, Protocol, Ring, Setup, Via, Why,
};

/// The client preface, RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The connection window we hold open. It is credited on receipt, so it bounds a burst, not memory.
const CONN_WINDOW_BYTES: u32 = 4 << 20;

/// Programs alive at once; the next reload ends the calls of the oldest.
pub const GENERATIONS_MAX: usize = 16;

/// What fires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// A call's deadline.
    Deadline(Key),
    /// A call's delay is over, or it has waited long enough for its endpoint.
    Wait(Key),
    /// The delay of a message handler is over.
    Message(Key, Way),
    /// A connection attempt takes too long.
    Connect(Key),
    /// An endpoint's pause between attempts is over.
    Backoff(u32),
    /// A drain's time is up.
    Drain,
}

/// What the transport is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Close(ConnId),
    Reset(ConnId),
    HalfClose(ConnId),
    Pause(ConnId),
    Resume(ConnId),
}

/// Jobs in a list: their boxes are what is handed on.
pub(crate) type Jobs = Vec<Box<Job>>;

pub(crate) struct Core {
    pub(crate) now: Instant,
    pub(crate) turn: u64,
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
    pub(crate) shard: u16,
    pub(crate) random: u64,
    pub(crate) clock: fn() -> Instant,
    pub(crate) access: AccessWhen,
    pub(crate) listeners: Vec<Listener>,
    /// Names of the raw ports.
    ports: Vec<String>,

    /// Programs with calls, by the place that calls name; the newest is `current`.
    pub(crate) generations: Vec<Option<Generation>>,
    pub(crate) current: u8,
    pub(crate) adopted: u64,

    pub(crate) conns: Slab<Conn>,
    /// By the transport's slot: which of its users, and our connection.
    by_id: Vec<(u32, Key)>,
    pub(crate) calls: Slab<Call>,
    /// Slots of calls that have ended in this turn and whose books are still open.
    pub(crate) over: Vec<u32>,
    pub(crate) next_call: u64,
    pub(crate) callers: Callers,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) by_addr: HashMap<(Addr, Via), u32>,

    pub(crate) wheel: Wheel<Timer>,
    pub(crate) pool: Ledger,
    pub(crate) buffers: Buffers,
    #[expect(clippy::vec_box, reason = "a call takes the box, not what is in it")]
    pub(crate) spare_messages: Vec<Box<Messages>>,
    pub(crate) counters: Counters,
    pub(crate) faults_down: Vec<u64>,
    pub(crate) faults_up: Vec<u64>,
    pub(crate) methods: Methods,
    pub(crate) metrics: Metrics,
    /// Some chain of the current program reads what endpoints report.
    pub(crate) reads_reports: bool,
    /// Some chain of a program so far seals requests.
    pub(crate) seals_requests: bool,
    pub(crate) log: Box<dyn Log>,

    pub(crate) ops: Vec<Op>,
    /// Connections to begin, and the endpoints they go to.
    pub(crate) connects: Vec<(Key, u32)>,
    /// Connections with bytes to send.
    pub(crate) dirty: Vec<Key>,
    /// Of these, those whose answers wait for others, and until when the first does.
    pub(crate) held: Vec<Key>,
    pub(crate) held_until: Option<Instant>,
    /// Calls let through in this burst, to be sent when it has been parsed.
    pub(crate) fresh: Vec<Key>,
    pub(crate) jobs: Jobs,
    pub(crate) large_jobs: Jobs,
    /// Empty between calls of `take_jobs`.
    pub(crate) later_jobs: Jobs,
    /// Boxes without a job.
    pub(crate) spare_jobs: Jobs,
    pub(crate) is_draining: bool,
    pub(crate) sweep: crate::sweep::Sweep,
}

impl Core {
    pub(crate) fn new(setup: Setup, rings: Vec<Option<Ring>>, log: Box<dyn Log>) -> Self {
        let limits = setup.limits;
        let mut core = Self {
            now: Instant(0),
            turn: 0,
            seed: setup.seed,
            shard: setup.shard,
            random: setup.seed | 1,
            clock: setup.clock,
            access: setup.access,
            listeners: setup.listeners,
            ports: setup.ports,
            generations: Vec::new(),
            current: 0,
            adopted: 0,
            conns: Slab::new(),
            by_id: Vec::new(),
            calls: Slab::new(),
            over: Vec::new(),
            next_call: 0,
            callers: Callers::new(&limits),
            endpoints: Vec::new(),
            by_addr: HashMap::new(),
            wheel: Wheel::new((setup.clock)()),
            pool: Ledger::new(limits.pool_bytes),
            buffers: Buffers::default(),
            spare_messages: Vec::new(),
            counters: Counters::default(),
            faults_down: alloc::vec![0; Fault::ALL.len()],
            faults_up: alloc::vec![0; Fault::ALL.len()],
            methods: Methods::new(limits.methods_max),
            metrics: Metrics::default(),
            reads_reports: false,
            seals_requests: false,
            log,
            ops: Vec::new(),
            connects: Vec::new(),
            dirty: Vec::new(),
            held: Vec::new(),
            held_until: None,
            fresh: Vec::new(),
            jobs: Vec::new(),
            large_jobs: Vec::new(),
            later_jobs: Vec::new(),
            spare_jobs: Vec::new(),
            is_draining: false,
            sweep: crate::sweep::Sweep::default(),
            limits,
        };
        core.adopt(setup.program, setup.sinks, rings);
        core
    }

    /// Takes a new program; endpoints that both name keep their connections.
    pub(crate) fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>, rings: Vec<Option<Ring>>) {
        while self.generations_alive() >= GENERATIONS_MAX {
            self.end_oldest_generation();
        }
        let mut places = Vec::with_capacity(program.services.len());
        for service in &program.services {
            let mut of_service = Vec::with_capacity(service.endpoints.len());
            let via = self.via(service.via.as_deref());
            for endpoint in &service.endpoints {
                let place = self.endpoint_of(&endpoint.addr, via);
                self.endpoints[place as usize].generations += 1;
                of_service.push(place);
            }
            places.push(of_service);
        }
        let metrics = self.metrics.places(&program.metrics);
        self.reads_reports = program.chains.iter().any(|c| c.plan().endpoint_reports);
        self.seals_requests |= program.chains.iter().any(|c| c.plan().request_boundary.seals.is_some());
        self.adopted += 1;
        let generation =
            Generation::new(self.adopted, program, sinks, &self.listeners, places, metrics, rings);
        let previous = self.current;
        let place = self.generations.iter().position(Option::is_none).unwrap_or(self.generations.len());
        if place == self.generations.len() {
            self.generations.push(None);
        }
        self.generations[place] = Some(generation);
        self.current = u8::try_from(place).unwrap_or(u8::MAX);
        if self.adopted > 1 {
            self.retire_if_idle(previous);
        }
    }

    /// Too many reloads for the calls that outlive them: those of the oldest program end.
    fn end_oldest_generation(&mut self) {
        let oldest = (0u8..)
            .zip(&self.generations)
            .filter(|(place, _)| *place != self.current)
            .filter_map(|(place, g)| g.as_ref().map(|g| (g.number, place)))
            .min();
        let Some((_, place)) = oldest else { return };
        for index in 0..self.calls.slots() {
            let key = self.calls.key_at(index);
            if let Some(key) = key.filter(|k| self.calls.get(*k).is_some_and(|c| c.program == place)) {
                self.counters.calls_outlived += 1;
                self.end_now(key, "a newer application has replaced the one this call was in");
            }
        }
        self.retire_if_idle(place);
    }

    /// How many programs calls are in, the current one included.
    pub(crate) fn generations_alive(&self) -> usize {
        self.generations.iter().flatten().count()
    }

    /// Forgets a program that is no longer current and has no calls.
    pub(crate) fn retire_if_idle(&mut self, place: u8) {
        let slot = &mut self.generations[usize::from(place)];
        if place != self.current && slot.as_ref().is_some_and(|g| g.calls == 0) {
            let old = slot.take();
            for endpoint in old.iter().flat_map(|g| g.endpoints.iter().flatten()) {
                self.endpoints[*endpoint as usize].generations -= 1;
            }
        }
    }

    /// The port of that name. The node has refused programs that name others.
    fn via(&self, port: Option<&str>) -> Via {
        let place = port.and_then(|port| self.ports.iter().position(|known| known == port));
        place.and_then(|place| u16::try_from(place).ok()).map_or(Via::Route, Via::Port)
    }

    fn endpoint_of(&mut self, addr: &Addr, via: Via) -> u32 {
        if let Some(place) = self.by_addr.get(&(addr.clone(), via)) {
            return *place;
        }
        let place = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        self.endpoints.push(Endpoint::new(addr.clone(), via, addr.ring_place()));
        self.by_addr.insert((addr.clone(), via), place);
        place
    }

    /// The next number of the shard's own generator.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::view::mix(self.random)
    }

    // ---- connections -------------------------------------------------------------------------------

    pub(crate) fn bind(&mut self, id: ConnId, key: Key) {
        let index = id.index as usize;
        if self.by_id.len() <= index {
            self.by_id.resize(index + 1, (0, Key::default()));
        }
        self.by_id[index] = (id.generation, key);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.id = Some(id);
        }
    }

    pub(crate) fn conn_of(&self, id: ConnId) -> Option<Key> {
        let (generation, key) = *self.by_id.get(id.index as usize)?;
        let conn = self.conns.get(key)?;
        (generation == id.generation && conn.id == Some(id)).then_some(key)
    }

    /// There is something to send; at the end of the turn it goes.
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.is_dirty
        {
            conn.is_dirty = true;
            self.dirty.push(key);
        }
    }

    pub(crate) fn h2_config(&self) -> Config {
        Config {
            stream_window_bytes: self.limits.stream_window_bytes,
            conn_window_bytes: CONN_WINDOW_BYTES,
            streams_max: self.limits.streams_max,
            header_list_bytes_max: self.limits.header_bytes_max,
            tx_bytes_max: self.limits.tx_bytes_max as usize,
            ..Config::default()
        }
    }

    pub(crate) fn on_accepted(&mut self, id: ConnId, listener: ListenerId, peer: Peer) {
        if self.is_draining {
            self.ops.push(Op::Reset(id));
            return;
        }
        if self.conns.len() >= self.limits.connections_max as usize {
            self.counters.connections_refused_limit += 1;
            self.ops.push(Op::Reset(id));
            return;
        }
        if self.pool.level() == Level::Critical {
            self.counters.connections_refused_memory += 1;
            self.ops.push(Op::Reset(id));
            return;
        }
        let Some(settings) = self.listeners.get(usize::from(listener.0)) else {
            self.ops.push(Op::Reset(id));
            return;
        };
        let protocol = settings.protocol;
        let generation = self.generations[usize::from(self.current)].as_ref();
        let source = generation.and_then(|g| g.source_of(settings, &peer));
        let is_named = generation
            .and_then(|g| g.program.services.get(usize::from(source?.0)))
            .is_some_and(|s| !s.from.is_empty());
        let who = match (source, peer.addr, peer.uid) {
            (Some(source), _, _) if is_named => {
                let name = generation.map_or("", |g| g.service_name(Some(source)));
                Who::Service(name.bytes().fold(0, |h, b| crate::view::mix(h ^ u64::from(b))))
            }
            (_, Some((ip, _)), _) => Who::Ip(ip),
            (_, None, Some(uid)) => Who::Uid(uid),
            (_, None, None) => Who::Listener(listener.0),
        };
        let caller = self.callers.connect(who);
        if self.callers.get(caller).connections > self.limits.caller_connections_max {
            self.callers.disconnect(caller);
            self.counters.connections_refused_limit += 1;
            self.ops.push(Op::Reset(id));
            return;
        }
        self.counters.connections_accepted += 1;
        let down = Down {
            listener: listener.0,
            caller,
            peer,
            source,
            source_program: self.adopted,
            has_small_window: false,
            drain: Drain::No,
        };
        let key = self.conns.insert();
        let now = self.now;
        let config = self.h2_config();
        if let Some(conn) = self.conns.get_mut(key) {
            conn.last_rx = now;
            conn.idle_since = now;
            match protocol {
                Protocol::H2 => {
                    conn.kind = Kind::Down(down);
                    conn.h2 = Some(Box::new(H2Conn::new(Role::Server, &config, now)));
                }
                Protocol::Auto => conn.kind = Kind::Sniffing(down, Vec::new()),
                Protocol::Tcp => conn.kind = Kind::Sniffing(down, Vec::new()),
            }
        }
        self.bind(id, key);
        match protocol {
            Protocol::H2 => self.mark_dirty(key),
            Protocol::Tcp => self.relay_begin(key),
            Protocol::Auto => {}
        }
    }

    pub(crate) fn on_data(&mut self, key: Key, bytes: &[u8]) {
        self.counters.rx_bytes += bytes.len() as u64;
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.last_rx = now;
        conn.is_trimmed = false;
        conn.ping_at = None;
        if conn.is_closing {
            return;
        }
        match &mut conn.kind {
            Kind::Down(_) | Kind::Up(_) => self.feed(key, bytes),
            Kind::Relay(_) => self.relay_data(key, bytes),
            Kind::Sniffing(_, seen) => {
                seen.extend_from_slice(bytes);
                self.sniff(key);
            }
            Kind::Free => {}
        }
    }

    /// `protocol = "auto"`: HTTP/2 when the bytes are its preface, a relay as soon as they cannot be.
    fn sniff(&mut self, key: Key) {
        let config = self.h2_config();
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Kind::Sniffing(_, seen) = &mut conn.kind else { return };
        let len = seen.len().min(PREFACE.len());
        if seen.get(..len) != PREFACE.get(..len) {
            self.relay_begin(key);
            return;
        }
        if len < PREFACE.len() {
            return;
        }
        let seen = core::mem::take(seen);
        if let Kind::Sniffing(down, _) = core::mem::take(&mut conn.kind) {
            conn.kind = Kind::Down(down);
        }
        conn.h2 = Some(Box::new(H2Conn::new(Role::Server, &config, now)));
        self.mark_dirty(key);
        if self.is_draining {
            self.announce_drain(key);
        }
        self.feed(key, &seen);
    }

    /// Pulls every event out of received bytes.
    pub(crate) fn feed(&mut self, key: Key, bytes: &[u8]) {
        let mut input = Input { bytes, at: 0 };
        loop {
            let now = self.now;
            let Some(h2) = self.conns.get_mut(key).filter(|c| !c.is_closing).and_then(|c| c.h2.as_mut())
            else {
                return;
            };
            match h2.next(now, &mut input) {
                Ok(Some(event)) => self.on_h2(key, event, bytes),
                Ok(None) => break,
                Err(error) => {
                    self.on_conn_error(key, error);
                    break;
                }
            }
        }
        let has_tx = self.conns.get(key).and_then(|c| c.h2.as_ref()).is_some_and(|h2| !h2.tx().is_empty());
        if has_tx {
            self.mark_dirty(key);
        }
    }

    fn on_h2(&mut self, key: Key, event: H2Event, bytes: &[u8]) {
        match self.conns.get(key).map(|c| &c.kind) {
            Some(Kind::Down(_)) => self.on_downstream(key, event, bytes),
            Some(Kind::Up(_)) => self.on_upstream(key, event, bytes),
            _ => {}
        }
    }

    /// The peer broke HTTP/2: GOAWAY is on its way, its calls end now.
    pub(crate) fn on_conn_error(&mut self, key: Key, error: ConnError) {
        let Some(conn) = self.conns.get(key) else { return };
        let is_up = matches!(conn.kind, Kind::Up(_));
        let coming_to = match &conn.kind {
            Kind::Up(up) if up.state.is_coming() => Some(up.endpoint),
            _ => None,
        };
        let subject = match &conn.kind {
            Kind::Up(up) => alloc::format!("{}", self.endpoints[up.endpoint as usize].addr),
            Kind::Down(down) => self
                .listeners
                .get(usize::from(down.listener))
                .map_or_else(Default::default, |l| l.name.clone()),
            _ => Default::default(),
        };
        let faults = if is_up { &mut self.faults_up } else { &mut self.faults_down };
        if let Some(count) = faults.get_mut(error.fault.index()) {
            *count += 1;
        }
        self.log.notice(&Notice {
            at: self.now,
            what: error.fault.name(),
            subject: &subject,
            text: if is_up { "an endpoint broke HTTP/2" } else { "a caller broke HTTP/2" },
        });
        if let Some(place) = coming_to {
            self.endpoints[place as usize].last_fault = Some(error.fault);
            self.connect_failed(key, Why::Other);
        } else if is_up {
            self.upstream_gone(key, Gone::Broke(error.fault));
        } else {
            self.downstream_gone(key);
        }
        self.close_after_flush(key);
    }

    /// Its last bytes go out, then it is closed.
    pub(crate) fn close_after_flush(&mut self, key: Key) {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.is_closing = true;
            conn.idle_since = now;
            self.mark_dirty(key);
        }
    }

    pub(crate) fn on_eof(&mut self, key: Key) {
        match self.conns.get(key).map(|c| &c.kind) {
            Some(Kind::Relay(_)) => self.relay_eof(key),
            Some(Kind::Down(_)) => self.caller_ended(key),
            Some(_) => self.drop_conn(key, Some(Why::Other), Some(Op::Close)),
            None => {}
        }
    }

    /// A caller sends no more, and may still read: its calls are over, but not the answers on their way.
    fn caller_ended(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let has_unsent = !conn.has_said_end && conn.h2.as_ref().is_some_and(|h2| !h2.tx().is_empty());
        if !has_unsent {
            self.drop_conn(key, Some(Why::Other), Some(Op::Close));
            return;
        }
        conn.has_heard_end = true;
        let is_closing = conn.is_closing;
        self.downstream_gone(key);
        // Who does not read them is left by the sweep.
        if !is_closing {
            self.close_after_flush(key);
        }
    }

    /// The transport says it is gone.
    pub(crate) fn on_lost(&mut self, key: Key, why: Why) {
        self.drop_conn(key, Some(why), None);
    }

    /// Ends a connection and all on it; `op` says what to tell the transport, if it still knows the id.
    pub(crate) fn drop_conn(&mut self, key: Key, why: Option<Why>, op: Option<fn(ConnId) -> Op>) {
        match self.conns.get(key).map(|c| &c.kind) {
            Some(Kind::Up(up)) if up.state.is_coming() => {
                self.connect_failed(key, why.unwrap_or(Why::Other));
            }
            Some(Kind::Up(_)) => self.upstream_gone(key, Gone::Lost),
            Some(Kind::Down(_)) => self.downstream_gone(key),
            Some(Kind::Relay(_)) => self.relay_gone(key),
            _ => {}
        }
        self.free_conn(key, op);
    }

    /// Gives the slot back. Its calls are gone already.
    pub(crate) fn free_conn(&mut self, key: Key, op: Option<fn(ConnId) -> Op>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let (Some(op), Some(id)) = (op, conn.id) {
            self.ops.push(op(id));
        }
        if let Some(mut h2) = conn.h2.take() {
            let sent = h2.tx().len();
            h2.tx_advance(sent);
            let mut buffer = Vec::new();
            h2.tx_swap(&mut buffer);
            self.buffers.give(buffer);
        }
        let kind = core::mem::take(&mut conn.kind);
        conn.clear();
        self.conns.remove(key);
        match kind {
            Kind::Down(down) | Kind::Sniffing(down, _) => self.callers.disconnect(down.caller),
            Kind::Relay(relay) => {
                if let Some(down) = relay.down {
                    self.callers.disconnect(down.caller);
                }
            }
            Kind::Up(up) => self.endpoints[up.endpoint as usize].conns.retain(|k| *k != key),
            Kind::Free => {}
        }
    }

    /// A caller is gone: its calls are cancelled.
    fn downstream_gone(&mut self, key: Key) {
        while let Some(index) = self.conns.get(key).and_then(|c| c.calls.last().copied()) {
            let Some(call) = self.calls.key_at(index) else { break };
            self.cancel(call);
        }
    }
}

/// How a connection to an endpoint ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gone {
    Lost,
    Broke(Fault),
}
