//! Opaque connections: two ends, bytes copied from each to the other, ends and backpressure passed on.

use alloc::vec::Vec;

use crate::conn::{Conn, Kind, Relay};
use crate::endpoint::Health;
use crate::slab::Key;
use crate::state::{Core, Op, Timer};

/// A sender is paused when this much waits for the other end, bytes.
const PAUSE_ABOVE: usize = 256 << 10;
/// It goes on when no more than this waits.
const RESUME_BELOW: usize = 64 << 10;

impl Core {
    /// A caller's connection becomes a relay; what it has sent already waits for the endpoint.
    pub(crate) fn relay_begin(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Kind::Sniffing(down, seen) = core::mem::take(&mut conn.kind) else { return };
        conn.kind = Kind::Relay(Relay {
            other: None,
            pending: Vec::new(),
            head: 0,
            is_connected: true,
            has_ended: false,
            end_sent: false,
            is_paused: false,
            down: Some(down),
            endpoint: None,
        });
        self.counters.relay_connections += 1;
        self.relay_connect(key, seen);
    }

    /// Chooses an endpoint for a relay and begins to connect; resets the caller if there is none.
    fn relay_connect(&mut self, key: Key, pending: Vec<u8>) {
        let listener = match self.conns.get(key).map(|c| &c.kind) {
            Some(Kind::Relay(Relay { down: Some(down), .. })) => down.listener,
            _ => return,
        };
        let generation = self.generations[usize::from(self.current)].as_ref();
        let places = generation
            .zip(generation.and_then(|g| g.relay_destination(listener)))
            .and_then(|(g, d)| g.endpoints.get(usize::from(d.0)))
            .map_or(&[][..], |p| p.as_slice());
        let chosen = self
            .two_choices(places, self.random)
            .and_then(|e| places.get(usize::from(e.0)).copied())
            .filter(|p| {
                let endpoint = &self.endpoints[*p as usize];
                endpoint.is_healthy() || endpoint.may_be_asked_again(self.now)
            });
        self.random();
        let Some(place) = chosen else {
            self.counters.calls_no_endpoint += 1;
            self.free_conn(key, Some(Op::Reset));
            return;
        };
        let other = self.conns.insert();
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(other) {
            conn.last_rx = now;
            conn.idle_since = now;
            conn.kind = Kind::Relay(Relay {
                other: Some(key),
                pending,
                head: 0,
                is_connected: false,
                has_ended: false,
                end_sent: false,
                is_paused: false,
                down: None,
                endpoint: Some(place),
            });
        }
        if let Some(relay) = self.conns.get_mut(key).and_then(relay_of) {
            relay.other = Some(other);
        }
        let endpoint = &mut self.endpoints[place as usize];
        endpoint.attempted_at = now;
        endpoint.inflight += 1;
        endpoint.calls += 1;
        self.counters.upstream_connects += 1;
        self.connects.push((other, place));
        self.wheel.insert(now.after_ns(self.limits.connect_timeout_ns), Timer::Connect(other));
    }

    pub(crate) fn relay_connected(&mut self, key: Key) {
        let Some(relay) = self.conns.get_mut(key).and_then(relay_of) else { return };
        relay.is_connected = true;
        if let Some(place) = relay.endpoint {
            self.endpoints[place as usize].health = Health::Up;
        }
        self.mark_dirty(key);
    }

    pub(crate) fn relay_data(&mut self, key: Key, bytes: &[u8]) {
        self.counters.relay_bytes += bytes.len() as u64;
        let Some(relay) = self.conns.get_mut(key).and_then(relay_of) else { return };
        let Some(other) = relay.other else { return };
        let Some(to) = self.conns.get_mut(other).and_then(relay_of) else { return };
        if to.pending.capacity() == 0 {
            to.pending = self.buffers.take();
        }
        to.pending.extend_from_slice(bytes);
        let is_full = to.pending.len() - to.head > PAUSE_ABOVE;
        self.mark_dirty(other);
        if is_full
            && let Some(conn) = self.conns.get_mut(key)
            && let Some(id) = conn.id
            && let Some(relay) = relay_of(conn)
            && !relay.is_paused
        {
            relay.is_paused = true;
            self.ops.push(Op::Pause(id));
        }
    }

    /// One end has finished: the other is told once all has gone.
    pub(crate) fn relay_eof(&mut self, key: Key) {
        let Some(relay) = self.conns.get_mut(key).and_then(relay_of) else { return };
        relay.has_ended = true;
        if let Some(other) = relay.other {
            self.mark_dirty(other);
        }
    }

    /// Bytes for this end, when it may be sent to.
    pub(crate) fn relay_waiting(&self, key: Key) -> &[u8] {
        match self.conns.get(key).map(|c| &c.kind) {
            Some(Kind::Relay(relay)) if relay.is_connected => relay.pending.get(relay.head..).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The transport took some of them: the sender may go on, or its end is passed on.
    pub(crate) fn relay_sent(&mut self, key: Key, sent: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let id = conn.id;
        let Some(relay) = relay_of(conn) else { return };
        relay.head += sent;
        let waiting = relay.pending.len() - relay.head;
        let is_connected = relay.is_connected;
        if waiting == 0 {
            relay.head = 0;
            let buffer = core::mem::take(&mut relay.pending);
            self.buffers.give(buffer);
        } else if relay.head >= PAUSE_ABOVE {
            relay.pending.drain(..relay.head);
            relay.head = 0;
        }
        let Some(other) = self.conns.get(key).and_then(|c| match &c.kind {
            Kind::Relay(relay) => relay.other,
            _ => None,
        }) else {
            return;
        };
        let Some(from) = self.conns.get_mut(other) else { return };
        let from_id = from.id;
        let Some(from) = relay_of(from) else { return };
        if waiting <= RESUME_BELOW && from.is_paused {
            from.is_paused = false;
            self.ops.extend(from_id.map(Op::Resume));
        }
        let from_ended = from.has_ended;
        let from_end_sent = from.end_sent;
        let Some(relay) = self.conns.get_mut(key).and_then(relay_of) else { return };
        if from_ended && waiting == 0 && is_connected && !relay.end_sent {
            relay.end_sent = true;
            if from_end_sent {
                // Both ways have ended.
                self.unlink_relay(key);
                self.unlink_relay(other);
                self.free_conn(key, Some(Op::Close));
                self.free_conn(other, Some(Op::Close));
            } else {
                self.ops.extend(id.map(Op::HalfClose));
            }
        }
    }

    /// An end is gone or never came: the other goes too, or tries another endpoint.
    pub(crate) fn relay_gone(&mut self, key: Key) {
        let (other, pending, failed) = match self.conns.get_mut(key).and_then(relay_of) {
            Some(relay) => {
                let failed = relay.endpoint.filter(|_| !relay.is_connected);
                (relay.other, core::mem::take(&mut relay.pending), failed)
            }
            None => return,
        };
        self.unlink_relay(key);
        if let Some(place) = failed {
            self.counters.upstream_connect_failures += 1;
            let endpoint = &mut self.endpoints[place as usize];
            endpoint.health = Health::Down;
            if let Some(other) = other {
                self.relay_connect(other, pending);
            }
            return;
        }
        if let Some(other) = other {
            self.unlink_relay(other);
            self.free_conn(other, Some(Op::Reset));
        }
    }

    fn unlink_relay(&mut self, key: Key) {
        if let Some(relay) = self.conns.get_mut(key).and_then(relay_of) {
            relay.other = None;
            if let Some(place) = relay.endpoint.take() {
                let endpoint = &mut self.endpoints[place as usize];
                endpoint.inflight = endpoint.inflight.saturating_sub(1);
            }
        }
    }
}

const fn relay_of(conn: &mut Conn) -> Option<&mut Relay> {
    match &mut conn.kind {
        Kind::Relay(relay) => Some(relay),
        _ => None,
    }
}
