//! What nobody waits for to the millisecond: idle connections and streams, keepalive, overdue SETTINGS
//! acks, the end of a drain. Once a second over all, a bounded piece a turn.

use abi::{Flag, Status};
use wire::Instant;

use crate::call::Pipe;
use crate::conn::{Drain, Kind};
use crate::limits::SECOND;
use crate::slab::Key;
use crate::state::{Core, Op};

/// Connections looked at in one turn.
const CONNS_A_TURN: u32 = 512;
/// Calls looked at in one turn.
const CALLS_A_TURN: u32 = 1024;
/// A peer that does not take our last bytes, or does not close after them, is left after this.
const CLOSING_NS: u64 = 2 * SECOND;
/// A caller that does not answer the PING behind a drain's first GOAWAY is not waited for longer than this, as in
/// grpc-go's GracefulStop: it may be gone without a word.
const DRAIN_PING_NS: u64 = 5 * SECOND;
/// gRPC servers permit one ping per five minutes (grpc-go's and grpc-core's enforcement policy); a peer
/// that pings more is told ENHANCE_YOUR_CALM.
const UPSTREAM_KEEPALIVE_MIN_NS: u64 = 310 * SECOND;

/// Where the sweep stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sweep {
    due: Instant,
    conn: u32,
    call: u32,
    is_running: bool,
}

impl Core {
    /// When the sweep wants a turn.
    pub(crate) fn sweep_due(&self) -> Option<Instant> {
        let is_needed = self.conns.len() > 0 || self.calls.len() > 0 || self.callers.len() > 0;
        is_needed.then_some(if self.sweep.is_running { self.now } else { self.sweep.due })
    }

    pub(crate) fn sweep(&mut self) {
        if !self.sweep.is_running {
            if self.now < self.sweep.due {
                return;
            }
            self.callers.refresh(self.now);
            self.sweep = Sweep { due: self.now.after_ns(SECOND), conn: 0, call: 0, is_running: true };
        }
        let (conn_end, call_end) = (self.conns.slots(), self.calls.slots());
        let to = self.sweep.conn.saturating_add(CONNS_A_TURN).min(conn_end);
        for index in self.sweep.conn..to {
            if let Some(key) = self.conns.key_at(index) {
                self.sweep_conn(key);
            }
        }
        self.sweep.conn = to;
        let to = self.sweep.call.saturating_add(CALLS_A_TURN).min(call_end);
        for index in self.sweep.call..to {
            if let Some(key) = self.calls.key_at(index) {
                self.sweep_call(key);
            }
        }
        self.sweep.call = to;
        self.sweep.is_running = self.sweep.conn < conn_end || self.sweep.call < call_end;
    }

    fn sweep_call(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let waits = |pipe: &Pipe| pipe.messages.as_ref().is_some_and(|m| m.timer.is_some());
        let is_delayed = call.wait_timer.is_some() || waits(&call.to_endpoint) || waits(&call.to_caller);
        if self.now.since_ns(call.last_moved) > self.limits.stream_idle_ns && !is_delayed {
            self.counters.calls_stream_idle += 1;
            if call.phase == crate::call::Phase::Ending {
                // The outcome has been judged; its reader has stopped reading.
                self.cut_off(key);
            } else if call.phase == crate::call::Phase::Queued {
                self.fail(
                    key,
                    Status::UNAVAILABLE,
                    Flag::Overflow,
                    "no stream of the endpoint became free in time",
                );
            } else {
                self.fail(
                    key,
                    Status::DEADLINE_EXCEEDED,
                    Flag::Timeout,
                    "nothing moved on this stream for too long",
                );
            }
        }
    }

    fn sweep_conn(&mut self, key: Key) {
        let now = self.now;
        let limits = self.limits;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.is_closing {
            if now.since_ns(conn.idle_since) > CLOSING_NS {
                self.drop_conn(key, None, Some(Op::Reset));
            }
            return;
        }
        let is_idle = conn.calls.is_empty() && now.since_ns(conn.idle_since) > limits.conn_idle_ns;
        let mut keepalive_ns = limits.keepalive_ns;
        match &conn.kind {
            Kind::Sniffing(..) => {
                if now.since_ns(conn.idle_since) > limits.preface_timeout_ns {
                    self.counters.connections_preface_timeout += 1;
                    self.drop_conn(key, None, Some(Op::Reset));
                }
                return;
            }
            Kind::Relay(_) => {
                if now.since_ns(conn.last_rx) > limits.conn_idle_ns {
                    self.counters.connections_idle_closed += 1;
                    self.drop_conn(key, None, Some(Op::Reset));
                }
                return;
            }
            Kind::Up(up) => {
                let is_orphan = self.endpoints[up.endpoint as usize].generations == 0;
                let is_leaving = up.state == crate::conn::UpState::Leaving;
                // One caller's own goes when it has not been needed for a while.
                let is_spare = up.private_to.is_some()
                    && up.state == crate::conn::UpState::Ready
                    && now.since_ns(conn.idle_since) > SECOND;
                if conn.calls.is_empty() && conn.h2.is_some() && (is_orphan || is_leaving || is_spare) {
                    self.close_after_flush(key);
                    return;
                }
                keepalive_ns = keepalive_ns.max(UPSTREAM_KEEPALIVE_MIN_NS);
            }
            Kind::Down(down) => {
                if let Drain::Announced(at) = down.drain
                    && now.since_ns(at) > DRAIN_PING_NS
                {
                    self.on_drain_pong(key);
                    return;
                }
            }
            Kind::Free => {}
        }
        let Some(h2) = conn.h2.as_mut() else { return };
        // Idle from one sweep to the next: what its last calls needed is given back.
        if conn.calls.is_empty() && !conn.is_trimmed && now.since_ns(conn.last_rx) > SECOND {
            conn.is_trimmed = true;
            h2.trim();
        }
        if is_idle {
            self.counters.connections_idle_closed += 1;
            h2.goaway(wire::h2::Reason::NO_ERROR);
            self.close_after_flush(key);
            return;
        }
        if h2.poll_timeout().is_some_and(|at| at <= now)
            && let Err(error) = h2.handle_timeout(now)
        {
            self.on_conn_error(key, error);
            return;
        }
        // A peer that has gone without a word is found by a ping, while calls depend on it.
        match conn.ping_at {
            Some(at) if now.since_ns(at) > limits.keepalive_timeout_ns => {
                self.counters.connections_keepalive_timeout += 1;
                self.drop_conn(key, None, Some(Op::Reset));
            }
            None if !conn.calls.is_empty() && now.since_ns(conn.last_rx) > keepalive_ns => {
                conn.ping_at = Some(now);
                h2.ping();
                self.mark_dirty(key);
            }
            _ => {}
        }
    }

    /// Ends a call with UNAVAILABLE, whether its reader takes that or not.
    pub(crate) fn end_now(&mut self, key: Key, text: &str) {
        self.fail(key, Status::UNAVAILABLE, Flag::Overflow, text);
        if self.calls.get(key).is_some() {
            self.judge_response_now(key);
            self.cut_off(key);
        }
    }

    /// Ends a call whose reader does not take its answer's end: its stream is reset.
    fn cut_off(&mut self, key: Key) {
        if let Some(down) = self.calls.get(key).and_then(|c| c.down)
            && let Some(h2) = self.conns.get_mut(down.conn).and_then(|c| c.h2.as_mut())
        {
            h2.reset(down.stream, wire::h2::Reason::CANCEL);
        }
        self.end_call(key);
    }

    /// The drain's time is up: what is left ends now.
    pub(crate) fn on_drain_over(&mut self) {
        for index in 0..self.calls.slots() {
            if let Some(key) = self.calls.key_at(index) {
                self.counters.calls_drained += 1;
                self.end_now(key, "this node is shutting down");
            }
        }
        for index in 0..self.conns.slots() {
            let Some(key) = self.conns.key_at(index) else { continue };
            match self.conns.get_mut(key).map(|c| &mut c.kind) {
                Some(Kind::Down(down)) => {
                    down.drain = Drain::Finishing;
                    self.close_if_drained(key);
                }
                Some(Kind::Relay(_) | Kind::Sniffing(..)) => self.drop_conn(key, None, Some(Op::Close)),
                _ => {}
            }
        }
    }
}
