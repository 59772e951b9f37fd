//! The shard and its turn: the one place where state and transport meet.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use abi::Program;
use wire::Instant;

use crate::conn::Kind;
use crate::offload::{Done, Job, Offload, Ring};
use crate::pace::Load;
use crate::slab::Key;
use crate::state::{Core, Op, Timer};
use crate::{Burst, Event, Log, Setup, Snapshot, Transport};

/// Timers fired in one turn.
const TIMERS_A_TURN: usize = 256;
/// Rounds of jobs submitted and completed in one turn.
const OFFLOAD_ROUNDS_A_TURN: usize = 8;
/// No further round after so many bytes of them: other calls wait, and the work may have been this core's.
const OFFLOAD_BYTES_A_TURN: usize = 64 << 10;
/// Connections whose answers wait at the same time.
const HELD_MAX: usize = 64;
/// How soon to look again for a job that runs elsewhere, nanoseconds.
const JOB_POLL_NS: u64 = 50_000;

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Something was received, completed or expired: do not wait, turn again.
    pub did_work: bool,
    /// When the next timer is due.
    pub until: Option<Instant>,
}

/// One core's share of the node: connections, calls, upstreams, timers, counters. Owns no I/O.
pub struct Shard<T: Transport, O: Offload> {
    core: Core,
    offload: O,
    rx: Burst<Event<T::Rx>>,
    jobs: Burst<Box<Job>>,
    large_jobs: Burst<Box<Job>>,
    done: Burst<Done>,
    expired: Vec<Timer>,
}

impl<T: Transport, O: Offload> core::fmt::Debug for Shard<T, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shard").field("calls", &self.core.calls.len()).finish_non_exhaustive()
    }
}

impl<T: Transport, O: Offload> Shard<T, O> {
    /// A shard that has no connection yet.
    pub fn new(setup: Setup, offload: O, log: Box<dyn Log>) -> Self {
        let rings = rings(&offload, &setup.program);
        Self {
            core: Core::new(setup, rings, log),
            offload,
            rx: Burst::new(),
            jobs: Burst::new(),
            large_jobs: Burst::new(),
            done: Burst::new(),
            expired: Vec::new(),
        }
    }

    /// One turn: rx burst, events, timers, chains and jobs, tx flushed once.
    pub fn turn(&mut self, now: Instant, transport: &mut T) -> Turn {
        self.core.now = now;
        self.core.turn += 1;
        self.core.counters.turns += 1;
        transport.rx_burst(&mut self.rx);
        let mut did_work = !self.rx.is_empty();
        self.core.counters.rx_events += self.rx.len() as u64;
        for event in self.rx.drain() {
            handle(&mut self.core, transport, event);
            run_ops(&mut self.core, transport);
        }
        begin_connects(&mut self.core, transport);
        let more = self.core.wheel.expire(now, TIMERS_A_TURN, &mut self.expired);
        did_work |= more || !self.expired.is_empty();
        for timer in self.expired.drain(..) {
            self.core.on_timer(timer);
        }
        self.core.sweep();
        self.dispatch();
        did_work |= self.run_jobs();
        self.flush(transport);
        let core = &mut self.core;
        transport.publish_load(u32::try_from(core.calls.len()).unwrap_or(u32::MAX));
        transport.flush();
        core.close_books();
        core.log.flush(now);
        let mut until = core.wheel.next();
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |u| u.min(at)));
        if let Some(at) = core.held_until {
            sooner(at);
        }
        if let Some(at) = core.sweep_due() {
            sooner(at);
        }
        if self.offload.pending() > 0 || !self.jobs.is_empty() || !self.large_jobs.is_empty() {
            sooner(now.after_ns(JOB_POLL_NS));
        }
        Turn { did_work, until }
    }

    /// Every call that was let through gets an endpoint, and first its name if it is sealed.
    fn dispatch(&mut self) {
        self.core.tag_fresh(&mut self.offload);
        self.core.dispatch_fresh();
    }

    /// Submits what chains asked for and takes what is done. True if anything was.
    fn run_jobs(&mut self) -> bool {
        let (mut did_work, mut bytes) = (false, 0);
        for _ in 0..OFFLOAD_ROUNDS_A_TURN {
            self.core.take_jobs(false, &mut self.jobs);
            self.core.take_jobs(true, &mut self.large_jobs);
            if self.jobs.is_empty() && self.large_jobs.is_empty() && self.offload.pending() == 0 {
                break;
            }
            self.offload.submit(&mut self.jobs);
            self.offload.submit(&mut self.large_jobs);
            self.offload.poll(&mut self.done);
            if self.done.is_empty() {
                break;
            }
            did_work = true;
            for done in self.done.drain() {
                bytes += done.job.input.len().max(done.job.output.len());
                self.core.on_done(done);
            }
            self.dispatch();
            if bytes >= OFFLOAD_BYTES_A_TURN {
                break;
            }
        }
        did_work
    }

    /// Writes every connection that has something to say.
    fn flush(&mut self, transport: &mut T) {
        self.core.held_until = None;
        self.core.dirty.append(&mut self.core.held);
        while let Some(key) = self.core.dirty.pop() {
            if !hold(&mut self.core, key)
                && let Some(conn) = self.core.conns.get_mut(key)
            {
                conn.is_dirty = false;
                if matches!(conn.kind, Kind::Relay(_)) {
                    flush_relay(&mut self.core, transport, key);
                } else {
                    flush_h2(&mut self.core, transport, key);
                }
            }
            if self.core.dirty.is_empty() {
                self.dispatch();
            }
            run_ops(&mut self.core, transport);
        }
        run_ops(&mut self.core, transport);
        begin_connects(&mut self.core, transport);
    }

    /// Takes a new program at a turn boundary; calls in flight finish on the old one. Returns how many calls
    /// of the oldest one were ended for it.
    pub fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>) -> u64 {
        let before = self.core.counters.calls_outlived;
        let rings = rings(&self.offload, &program);
        self.core.adopt(program, sinks, rings);
        self.core.counters.calls_outlived - before
    }

    /// Which program it runs: how many it has adopted, the first included.
    pub fn generation(&self) -> u64 {
        self.core.adopted
    }

    /// How many programs calls are in, the current one included: at most [`crate::GENERATIONS_MAX`].
    pub fn generations_alive(&self) -> usize {
        self.core.generations_alive()
    }

    /// Begins to drain: no new connections, GOAWAY to callers, calls in flight finish.
    pub fn drain(&mut self, now: Instant, transport: &mut T) {
        self.core.now = now;
        transport.stop_accepting();
        self.core.drain();
        self.flush(transport);
        transport.flush();
        self.core.close_books();
    }

    /// A drain is over: no call and no caller's connection is left.
    pub fn is_drained(&self) -> bool {
        self.core.is_draining && self.core.calls.len() == 0 && self.core.callers.connections == 0
    }

    /// Connections it holds, of both sides. What a transport has beyond them is closed and still sending.
    pub fn connections(&self) -> u64 {
        self.core.conns.len() as u64
    }

    /// A copy of all it counts.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }
}

/// The program's keys, as the queue numbers them.
fn rings<O: Offload>(offload: &O, program: &Program) -> Vec<Option<Ring>> {
    program.keys.iter().map(|name| offload.ring(name)).collect()
}

fn handle<T: Transport>(core: &mut Core, transport: &T, event: Event<T::Rx>) {
    match event {
        Event::Accepted(id, listener, peer) => core.on_accepted(id, listener, peer),
        Event::Data(id, rx) => {
            if let Some(key) = core.conn_of(id) {
                core.on_data(key, transport.bytes(&rx));
            }
        }
        Event::Eof(id) => {
            if let Some(key) = core.conn_of(id) {
                core.on_eof(key);
            }
        }
        Event::Reset(id, why) | Event::Failed(id, why) => {
            if let Some(key) = core.conn_of(id) {
                core.on_lost(key, why);
            }
        }
        Event::Connected(id) => {
            if let Some(key) = core.conn_of(id) {
                core.on_connected(key);
            }
        }
        Event::Writable(id) => {
            if let Some(key) = core.conn_of(id) {
                core.mark_dirty(key);
            }
        }
    }
}

fn run_ops<T: Transport>(core: &mut Core, transport: &mut T) {
    for op in core.ops.drain(..) {
        match op {
            Op::Close(id) => transport.close(id),
            Op::Reset(id) => transport.reset(id),
            Op::HalfClose(id) => transport.half_close(id),
            Op::Pause(id) => transport.pause_rx(id),
            Op::Resume(id) => transport.resume_rx(id),
        }
    }
}

/// Only after a whole burst: a backend may reuse the slot of a connection whose last events are in it.
fn begin_connects<T: Transport>(core: &mut Core, transport: &mut T) {
    while let Some((conn, endpoint)) = core.connects.pop() {
        if core.conns.get(conn).is_some() {
            let endpoint = &core.endpoints[endpoint as usize];
            let id = transport.connect(&endpoint.addr, endpoint.via);
            core.bind(id, conn);
        }
    }
}

/// True if a connection's answers wait for others.
fn hold(core: &mut Core, key: Key) -> bool {
    let (now, calls_of_all) = (core.now, core.calls.len());
    let may = !core.is_draining && core.held.len() < HELD_MAX;
    let Some(conn) = core.conns.get_mut(key) else { return false };
    if !may || conn.is_closing || !matches!(conn.kind, Kind::Down(_)) {
        conn.pace.written();
        return false;
    }
    let bytes = conn.h2.as_ref().map_or(0, |h2| h2.tx().len());
    let load = Load { bytes, calls: conn.calls.len(), calls_of_all };
    let Some(until) = conn.pace.hold(now, load) else { return false };
    core.held.push(key);
    core.held_until = Some(core.held_until.map_or(until, |first| first.min(until)));
    true
}

fn flush_h2<T: Transport>(core: &mut Core, transport: &mut T, key: Key) {
    let tx_bytes_max = core.limits.tx_bytes_max as usize;
    let Some(conn) = core.conns.get_mut(key) else { return };
    let (Some(id), Some(h2)) = (conn.id, conn.h2.as_mut()) else { return };
    let len = h2.tx().len();
    let mut has_room = false;
    if len > 0 {
        let sent = transport.tx(id, &[h2.tx()]);
        core.counters.tx_bytes += sent as u64;
        has_room = h2.tx_advance(sent);
    }
    if h2.tx().is_empty() && conn.is_closing {
        // Closing a socket with unread bytes makes the kernel send a RST, which may destroy what the peer has
        // not read yet: the last answers of a drain, or the GOAWAY that says why. So: FIN, and wait for its.
        if matches!(conn.kind, Kind::Down(_)) && !conn.has_said_end && !conn.has_heard_end {
            conn.has_said_end = true;
            conn.idle_since = core.now;
            core.ops.push(Op::HalfClose(id));
        } else if !conn.has_said_end {
            core.drop_conn(key, None, Some(Op::Close));
        }
        return;
    }
    let has_drained = len > tx_bytes_max && h2.tx().len() <= tx_bytes_max;
    if has_room {
        core.feed(key, &[]);
    }
    if has_drained {
        core.on_tx_room(key);
    }
}

fn flush_relay<T: Transport>(core: &mut Core, transport: &mut T, key: Key) {
    let Some(id) = core.conns.get(key).and_then(|c| c.id) else { return };
    let waiting = core.relay_waiting(key);
    let sent = if waiting.is_empty() { 0 } else { transport.tx(id, &[waiting]) };
    core.counters.tx_bytes += sent as u64;
    core.relay_sent(key, sent);
}
