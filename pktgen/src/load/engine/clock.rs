//! What time brings: links to open, phases, samples, the end.

use super::*;

impl Engine {
    /// Whatever is due by now; false if nothing was.
    pub(in crate::load) fn advance<T: Transport>(&mut self, transport: &mut T, now: Instant) -> bool {
        let created = *self.created.get_or_insert(now);
        let mut did = false;
        if now >= self.link_look && self.phase != Phase::Done && self.phase != Phase::Draining {
            did |= self.open_links(transport, now);
        }
        match self.phase {
            Phase::Connecting => did |= self.try_begin(created, now),
            Phase::WarmUp if now >= self.measure_from => {
                self.set_phase(Phase::Measuring);
                self.sampled = (self.measure_from, 0, 0, self.live.latency().snapshot());
                self.sample_at = self.measure_from.after(self.sample_every);
            }
            Phase::Measuring => {
                let has_enough = self.config.calls_max.is_some_and(|max| self.counted >= max);
                if now >= self.measure_to || has_enough {
                    self.begin_drain(now);
                }
            }
            Phase::Draining => self.try_end(now),
            Phase::WarmUp | Phase::Done => {}
        }
        if self.config.hold == Hold::Stall && !self.is_stalled && now >= self.begun.after(STALL_AFTER) {
            self.is_stalled = true;
            for conn in self.conns.iter() {
                transport.pause_rx(conn.id);
            }
        }
        did |= self.issue_due(now);
        did |= self.expire(now);
        if now >= self.sample_at && self.phase == Phase::Measuring {
            self.take_sample(now);
        }
        self.live.set_in_flight(self.calls.count());
        did
    }

    pub(in crate::load) fn poll_timeout(&self) -> Instant {
        let edge = match self.phase {
            Phase::Connecting => self.link_look,
            Phase::WarmUp => self.measure_from,
            Phase::Measuring => self.measure_to.min(self.sample_at),
            Phase::Draining => self.drain_to,
            Phase::Done => Instant::default(),
        };
        let links = if self.links_idle > 0 && self.phase != Phase::Draining {
            self.link_look
        } else {
            Instant(u64::MAX)
        };
        let due = match self.phase {
            Phase::WarmUp | Phase::Measuring if !self.is_blocked => self.next_due(),
            _ => Instant(u64::MAX),
        };
        let expiry = self.expiries.front().map_or(Instant(u64::MAX), |e| e.0);
        let stall = if self.config.hold == Hold::Stall && !self.is_stalled {
            self.begun.after(STALL_AFTER)
        } else {
            Instant(u64::MAX)
        };
        edge.min(links).min(due).min(expiry).min(stall)
    }

    pub(super) fn open_links<T: Transport>(&mut self, transport: &mut T, now: Instant) -> bool {
        let mut did = false;
        let mut next = Instant(u64::MAX);
        for (at, link) in self.links.iter_mut().enumerate() {
            if link.state != LinkState::Down {
                continue;
            }
            if link.retry_at > now || self.links_connecting >= CONNECTING_MAX {
                next = next.min(link.retry_at.max(now.after(RETRY_FIRST)));
                continue;
            }
            let Some(target) = self.config.to.get(link.target) else { continue };
            let id = transport.connect(&target.addr, Via::Route);
            let index = id.index as usize;
            if index >= self.link_of.len() {
                self.link_of.resize(index + 1, usize::MAX);
            }
            if let Some(place) = self.link_of.get_mut(index) {
                *place = at;
            }
            link.state = LinkState::Connecting;
            self.links_connecting += 1;
            self.links_idle -= 1;
            did = true;
        }
        self.link_look = next;
        did
    }

    pub(super) fn try_begin(&mut self, created: Instant, now: Instant) -> bool {
        let all_up = self.conns.count() == self.links.len();
        let some_up = self.conns.count() > 0;
        let has_waited = now >= created.after(LINKS_WAIT);
        if !all_up && (!some_up || !has_waited) {
            let all_failed = self.links.iter().all(|l| l.failures > 0 || l.state == LinkState::Up);
            if !some_up && all_failed && now >= created.after(self.config.patience) {
                self.set_phase(Phase::Done);
            }
            return false;
        }
        self.begun = now;
        self.measure_from = now.after(self.config.warm_up);
        self.measure_to = self.measure_from.after(self.config.run);
        self.set_phase(Phase::WarmUp);
        let ids: Vec<ConnId> = self.conns.iter().map(|c| c.id).collect();
        for id in ids {
            self.fill(id, now);
        }
        true
    }

    pub(super) fn begin_drain(&mut self, now: Instant) {
        if self.phase == Phase::Measuring {
            self.take_sample(now.min(self.measure_to));
        }
        if now < self.measure_to {
            // Ended early: what was due before now still counts, nothing later does.
            self.measure_from = self.measure_from.min(now);
            self.measure_to = now;
        }
        self.live.set_elapsed_ns(self.measure_to.since_ns(self.measure_from));
        self.drain_to = now.after(self.config.drain);
        self.set_phase(Phase::Draining);
    }

    pub(super) fn try_end(&mut self, now: Instant) {
        let is_open = matches!(self.config.pace, Pace::Open { .. });
        let backlog = is_open && self.next_due() < self.measure_to;
        let is_over = self.config.hold != Hold::No || (self.calls.count() == 0 && !backlog);
        if !is_over && now < self.drain_to {
            return;
        }
        if self.config.hold == Hold::No {
            self.count_the_unanswered(now);
        }
        self.set_phase(Phase::Done);
    }

    pub(super) fn count_the_unanswered(&mut self, now: Instant) {
        for key in self.calls.keys_where(|_| true) {
            if let Some(call) = self.calls.remove(key)
                && (call.due >= self.measure_from || matches!(self.config.pace, Pace::Closed { .. }))
                && call.due < self.measure_to
            {
                self.live.record_unanswered(now.since_ns(call.due));
            }
        }
        if matches!(self.config.pace, Pace::Open { .. }) {
            let mut due = self.next_due();
            while due < self.measure_to {
                if due >= self.measure_from {
                    self.live.record_unsent(now.since_ns(due));
                }
                self.issued += 1;
                due = self.next_due();
            }
        }
    }

    pub(super) fn take_sample(&mut self, now: Instant) {
        let (from, counted, failed, ref latency) = self.sampled;
        let fresh = self.live.latency().snapshot();
        let part = fresh.since(latency);
        self.samples.push(sample(
            now.since_ns(self.measure_from),
            now.since_ns(from),
            self.counted - counted,
            self.failed - failed,
            part.quantile_ns(0.5),
            part.quantile_ns(0.99),
        ));
        self.sampled = (now, self.counted, self.failed, fresh);
        self.sample_at = now.after(self.sample_every);
        self.live.set_elapsed_ns(now.since_ns(self.measure_from));
    }

    /// Gives the transport every byte that is ready.
    pub(in crate::load) fn flush<T: Transport>(&mut self, transport: &mut T, roomy: &mut Vec<ConnId>) {
        let mut sent = self.conns.flush(transport, roomy);
        while let Some(id) = roomy.pop() {
            let waiting = self.conns.get(id).map(|c| std::mem::take(&mut c.user.waiting));
            for key in waiting.into_iter().flatten() {
                self.offer_body(key);
                let unsent =
                    self.calls.get(key).is_some_and(|c| c.conn == id && c.body_at < self.frame.len());
                if unsent && let Some(conn) = self.conns.get(id) {
                    conn.user.waiting.push(key);
                }
            }
            self.conns.mark(id);
            if roomy.is_empty() {
                sent += self.conns.flush(transport, roomy);
            }
        }
        if self.phase == Phase::Measuring {
            self.live.add_bytes(sent, 0);
        }
    }
}
