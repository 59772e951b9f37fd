//! Bodies on their way: from one leg's received bytes to the other leg's connection, with the sender's
//! window given back as the receiver takes them.

use wire::h2::Reason;

use crate::call::{Leg, Phase, Pipe};
use crate::limits::MS;
use crate::pool::Level;
use crate::slab::Key;
use crate::state::Core;

/// A stream window grows up to this, bytes.
const GROWN_WINDOW_MAX: u32 = 1 << 20;
/// A stream is busy when it uses its window up within this time.
const BUSY_WITHIN_NS: u64 = 200 * MS;

/// A direction of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToEndpoint,
    ToCaller,
}

impl Core {
    pub(crate) fn pipe(&mut self, key: Key, way: Way) -> Option<&mut Pipe> {
        let call = self.calls.get_mut(key)?;
        Some(match way {
            Way::ToEndpoint => &mut call.to_endpoint,
            Way::ToCaller => &mut call.to_caller,
        })
    }

    pub(crate) fn sender(&self, key: Key, way: Way) -> Option<Leg> {
        let call = self.calls.get(key)?;
        if way == Way::ToEndpoint { call.down } else { call.up }
    }

    fn receiver(&self, key: Key, way: Way) -> Option<Leg> {
        let call = self.calls.get(key)?;
        match way {
            Way::ToEndpoint => call.up,
            Way::ToCaller if call.response_headers_sent => call.down,
            Way::ToCaller => None,
        }
    }

    /// Body bytes arrived.
    pub(crate) fn body_bytes(&mut self, key: Key, way: Way, bytes: &[u8], end: bool) {
        let now = self.now;
        let receiver = self.receiver(key, way);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.last_moved = now;
        let is_kept = way == Way::ToEndpoint && call.is_retryable;
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        pipe.received += bytes.len() as u64;
        pipe.has_ended |= end;
        // Nothing waits and nothing need be kept: straight into the other connection's frames.
        let is_direct = !is_kept && pipe.waiting() == 0;
        if let Some(messages) = pipe.messages.as_mut() {
            if !(is_direct && receiver.is_some() && messages.may_pass(bytes.len(), end)) {
                messages.push(bytes);
                pipe.uncredited += bytes.len();
                self.run_messages(key, way);
                return;
            }
            messages.pass(bytes.len());
        }
        if is_direct && let Some(leg) = receiver {
            let is_last = end && way == Way::ToEndpoint && call.request_trailers.is_none();
            let taken = self
                .conns
                .get_mut(leg.conn)
                .and_then(|c| c.h2.as_mut())
                .map_or(bytes.len(), |h2| h2.send_data(leg.stream, bytes, is_last));
            self.mark_dirty(leg.conn);
            let rest = bytes.get(taken..).unwrap_or(&[]);
            if let Some(pipe) = self.pipe(key, way) {
                pipe.buf.extend_from_slice(rest);
                if pipe.messages.is_some() {
                    pipe.uncredited += rest.len();
                }
                pipe.end_sent |= is_last && rest.is_empty();
            }
            self.credit(key, way, taken);
            return;
        }
        pipe.buf.extend_from_slice(bytes);
        self.send_waiting(key, way);
    }

    /// The sender has finished without further bytes (trailers came).
    pub(crate) fn body_ended(&mut self, key: Key, way: Way) {
        let Some(pipe) = self.pipe(key, way) else { return };
        pipe.has_ended = true;
        if pipe.messages.is_some() { self.run_messages(key, way) } else { self.send_waiting(key, way) }
    }

    /// Goes on with a direction whose receiver may take more.
    pub(crate) fn send_waiting(&mut self, key: Key, way: Way) {
        self.offer(key, way);
        if self.pipe(key, way).is_some_and(|p| p.messages.is_some()) {
            self.run_messages(key, way);
        }
    }

    /// Offers what waits to the receiver; ends its stream when all has gone and the sender has finished.
    pub(crate) fn offer(&mut self, key: Key, way: Way) {
        let Some(leg) = self.receiver(key, way) else { return };
        let retry_max = self.limits.retry_bytes_max as usize;
        let Some(call) = self.calls.get_mut(key) else { return };
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        if pipe.end_sent {
            return;
        }
        let is_done = pipe.has_ended && pipe.messages.as_ref().is_none_or(|m| m.is_complete());
        // The caller's stream ends with its trailers, which are not sent here.
        let is_last = is_done && way == Way::ToEndpoint && call.request_trailers.is_none();
        let bytes = pipe.buf.get(pipe.head..).unwrap_or(&[]);
        if bytes.is_empty() && !is_done {
            return;
        }
        let h2 = self.conns.get_mut(leg.conn).and_then(|c| c.h2.as_mut());
        let taken = match h2 {
            Some(h2) if !bytes.is_empty() || is_last => h2.send_data(leg.stream, bytes, is_last),
            _ => bytes.len(),
        };
        pipe.head += taken;
        if taken > 0 {
            call.last_moved = self.now;
        }
        let is_drained = pipe.waiting() == 0;
        pipe.end_sent |= is_last && is_drained;
        let held = pipe.messages.as_ref().map_or(0, |m| m.held());
        let inflated = if is_drained && held == 0 { core::mem::take(&mut pipe.inflated) } else { 0 };
        let mut freed = pipe.head - pipe.credited.min(pipe.head);
        pipe.credited = pipe.credited.max(pipe.head);
        if pipe.messages.is_some() {
            // What came is credited when what was made of it has gone.
            freed = 0;
            if is_drained {
                freed = pipe.uncredited.saturating_sub(held);
                pipe.uncredited -= freed;
            }
        }
        if way == Way::ToEndpoint && call.is_retryable && call.to_endpoint.buf.len() > retry_max {
            call.is_retryable = false;
        }
        if way == Way::ToCaller || !call.is_retryable {
            let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
            pipe.forget_sent();
        }
        let trailers = if is_done && is_drained && way == Way::ToEndpoint && !call.to_endpoint.end_sent {
            call.to_endpoint.end_sent = true;
            call.request_trailers.take()
        } else {
            None
        };
        if let Some(trailers) = trailers
            && let Some(h2) = self.conns.get_mut(leg.conn).and_then(|c| c.h2.as_mut())
        {
            h2.send_headers(leg.stream, &trailers, true);
        }
        self.mark_dirty(leg.conn);
        self.discharge(key, inflated);
        self.credit(key, way, freed);
        if way == Way::ToCaller && is_done && is_drained {
            self.finish_answer(key);
        }
    }

    /// Gives the sender back its window; a busy stream's grows.
    pub(crate) fn credit(&mut self, key: Key, way: Way, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let Some(leg) = self.sender(key, way) else { return };
        let now = self.now;
        let Some(caller) = self.calls.get(key).map(|c| c.caller) else { return };
        let may_grow = self.pool.level() == Level::Ample;
        let Some(pipe) = self.pipe(key, way) else { return };
        pipe.since_growth = pipe.since_growth.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let mut growth = 0;
        if pipe.since_growth >= pipe.window {
            let is_busy = now.since_ns(pipe.grown_at) < BUSY_WITHIN_NS;
            let is_taken = pipe.waiting() == 0;
            if is_busy && is_taken && may_grow && pipe.window > 0 && pipe.window < GROWN_WINDOW_MAX {
                growth = pipe.window;
            }
            pipe.since_growth = 0;
            pipe.grown_at = now;
        }
        let has_ended = pipe.has_ended;
        let has_share = self.callers.get(caller).grown.has_room(u64::from(growth));
        if growth > 0 && !has_ended && has_share && self.charge(key, u64::from(growth)) {
            self.callers.get_mut(caller).grown.add(u64::from(growth));
            if let Some(call) = self.calls.get_mut(key) {
                call.grown += u64::from(growth);
            }
            if let Some(pipe) = self.pipe(key, way) {
                pipe.window += growth;
            }
            self.counters.windows_grown += 1;
        } else {
            growth = 0;
        }
        if let Some(h2) = self.conns.get_mut(leg.conn).and_then(|c| c.h2.as_mut()) {
            if !has_ended {
                h2.release(leg.stream, bytes);
            }
            if growth > 0 {
                h2.extend_window(leg.stream, growth);
            }
            if !h2.tx().is_empty() {
                self.mark_dirty(leg.conn);
            }
        }
    }

    /// Takes bytes from the pools for a call; false if there is no room.
    pub(crate) fn charge(&mut self, key: Key, bytes: u64) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let caller = self.callers.get_mut(call.caller);
        if !self.pool.has_room(bytes) || !caller.pool.has_room(bytes) {
            return false;
        }
        self.pool.add(bytes);
        caller.pool.add(bytes);
        call.charged += bytes;
        true
    }

    /// Gives back what `charge` took.
    pub(crate) fn discharge(&mut self, key: Key, bytes: u64) {
        if bytes > 0
            && let Some(call) = self.calls.get_mut(key)
        {
            call.charged -= bytes;
            self.pool.sub(bytes);
            self.callers.get_mut(call.caller).pool.sub(bytes);
        }
    }

    /// Takes a call off its endpoint: out of the queue, or off its stream. `reason` resets a stream that
    /// is not over.
    pub(crate) fn leave_endpoint(&mut self, key: Key, reason: Option<Reason>) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if call.phase == Phase::Queued
            && let Some(place) = call.at_endpoint.take()
        {
            let caller = call.caller;
            self.endpoints[place as usize].queue().remove(caller, key);
            return;
        }
        let place = call.at_endpoint.take();
        let caller = call.caller;
        let Some(leg) = call.up.take() else { return };
        if let Some(place) = place {
            self.endpoints[place as usize].gave_stream(caller);
        }
        self.detach(leg, Way::ToEndpoint);
        if let Some(conn) = self.conns.get_mut(leg.conn) {
            if conn.calls.is_empty() {
                conn.idle_since = self.now;
            }
            if let (Some(reason), Some(h2)) = (reason, conn.h2.as_mut()) {
                let before = h2.tx().len();
                h2.reset(leg.stream, reason);
                // A reset that really leaves is on the caller's account, whatever led to it.
                if h2.tx().len() > before && self.callers.spend_reset(caller, self.now) {
                    self.counters.callers_made_private += 1;
                }
                self.mark_dirty(leg.conn);
            }
        }
        if let Some(place) = place {
            self.serve_queue(place);
        }
    }

    /// Removes a call from its connection's list; the last one takes its place there.
    pub(crate) fn detach(&mut self, leg: Leg, way: Way) {
        let Some(conn) = self.conns.get_mut(leg.conn) else { return };
        let place = leg.place as usize;
        if place >= conn.calls.len() {
            return;
        }
        conn.calls.swap_remove(place);
        let Some(moved) = conn.calls.get(place).copied() else { return };
        let Some(moved) = self.calls.key_at(moved).and_then(|k| self.calls.get_mut(k)) else { return };
        let moved_leg = if way == Way::ToEndpoint { &mut moved.up } else { &mut moved.down };
        if let Some(moved_leg) = moved_leg {
            moved_leg.place = leg.place;
        }
    }
}
