//! Beginning calls: when the loop asks for one, on a connection that takes it.

use super::*;
use crate::summary::whole;

impl Engine {
    /// Begins a call; false if the connection takes none now.
    pub(super) fn begin_call(&mut self, id: ConnId, due: Instant, now: Instant) -> bool {
        let key = self.calls.next_key();
        let Some(conn) = self.conns.get(id) else { return false };
        let target = self.links.get(conn.user.link).map_or(0, |l| l.target);
        let Some(request) = self.requests.get(target) else { return false };
        let Some(stream) = conn.h2.open(key) else { return false };
        conn.h2.send_headers(stream, request, false);
        let body_at = conn.h2.send_data(stream, &self.frame, true);
        conn.user.active += 1;
        if body_at < self.frame.len() {
            conn.user.waiting.push(key);
        }
        self.calls.insert(Call { conn: id, stream, due, body_at, status: None, has_message: false });
        self.conns.mark(id);
        if let Some(timeout) = self.config.timeout {
            self.expiries.push_back((now.after(timeout), key, stream));
        }
        true
    }

    pub(super) fn offer_body(&mut self, key: u32) {
        let Some(call) = self.calls.get(key) else { return };
        let Some(conn) = self.conns.get(call.conn) else { return };
        let rest = self.frame.get(call.body_at..).unwrap_or(&[]);
        if !rest.is_empty() {
            call.body_at += conn.h2.send_data(call.stream, rest, true);
        }
    }

    /// Closed loop: as many calls on this connection as there ought to be.
    pub(super) fn fill(&mut self, id: ConnId, now: Instant) {
        let Pace::Closed { streams } = self.config.pace else { return };
        if !matches!(self.phase, Phase::WarmUp | Phase::Measuring) || self.is_stalled {
            return;
        }
        if self.config.hold == Hold::Idle {
            return;
        }
        while let Some(conn) = self.conns.get(id)
            && conn.user.active < streams
            && !conn.user.is_draining
        {
            let due = self.again.pop_front().unwrap_or(now);
            if !self.begin_call(id, due, now) {
                if due < now {
                    self.again.push_front(due);
                }
                break;
            }
        }
    }

    /// When the open loop's next call is due.
    pub(super) fn next_due(&self) -> Instant {
        let Pace::Open { calls_per_s } = self.config.pace else { return Instant(u64::MAX) };
        if self.config.hold != Hold::No {
            return Instant(u64::MAX);
        }
        let offset = self.issued as f64 * 1e9 / calls_per_s;
        self.begun.after(Duration::from_nanos(whole(offset)))
    }

    /// Open loop: every call that is due, as far as the connections take them.
    pub(super) fn issue_due(&mut self, now: Instant) -> bool {
        let mut did = false;
        while !self.is_blocked {
            let from_again = self.again.front().copied();
            let due = from_again.unwrap_or_else(|| self.next_due());
            if due > now || due >= self.measure_to || self.calls.count() >= CALLS_MAX {
                break;
            }
            if !self.issue_one(due, now) {
                self.is_blocked = true;
                break;
            }
            did = true;
            if from_again.is_some() {
                self.again.pop_front();
                continue;
            }
            self.issued += 1;
            if due >= self.measure_from {
                self.live.record_lateness(now.since_ns(due));
            }
        }
        did
    }

    /// On the next connection in turn that takes it.
    pub(super) fn issue_one(&mut self, due: Instant, now: Instant) -> bool {
        for _ in 0..self.round.len() {
            self.round_at = if self.round_at + 1 < self.round.len() { self.round_at + 1 } else { 0 };
            if let Some(&id) = self.round.get(self.round_at)
                && self.begin_call(id, due, now)
            {
                return true;
            }
        }
        false
    }

    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut did = false;
        while let Some((at, key, stream)) = self.expiries.front().copied()
            && at <= now
        {
            self.expiries.pop_front();
            let Some(call) = self.calls.get(key) else { continue };
            if call.stream != stream {
                continue;
            }
            did = true;
            let id = call.conn;
            // Its body counts as sent, so that `finish` does not reset the stream a second time.
            call.body_at = usize::MAX;
            if let Some(conn) = self.conns.get(id) {
                conn.h2.reset(stream, Reason::CANCEL);
            }
            self.finish(key, Some(Status::DEADLINE_EXCEEDED), now);
            self.fill(id, now);
            self.conns.mark(id);
        }
        did
    }
}
