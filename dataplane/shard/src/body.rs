//! Bodies on their way: from one leg's received bytes to the other leg's connection, with the sender's
//! window given back as the receiver takes them.

use abi::{Encoding, Flag, Status, Unreadable};
use wire::h2::Reason;

use crate::call::{Leg, Phase, Pipe};
use crate::limits::MS;
use crate::pool::Level;
use crate::recode::{Recoder, Step};
use crate::slab::Key;
use crate::state::Core;
use crate::{Done, Job, JobKey};

/// A stream window grows up to this, bytes.
const GROWN_WINDOW_MAX: u32 = 1 << 20;
/// A stream is busy when it uses its window up within this time.
const BUSY_WITHIN_NS: u64 = 200 * MS;

/// Jobs up to this size go first: nobody's small message waits for another's large one. Bytes.
const SMALL_JOB_BYTES: usize = 16 << 10;

/// A recoder stops when this much of what it wrote waits for the receiver, bytes.
const RECODED_AHEAD: usize = 64 << 10;

/// A direction of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToEndpoint,
    ToCaller,
}

impl Core {
    fn pipe(&mut self, key: Key, way: Way) -> Option<&mut Pipe> {
        let call = self.calls.get_mut(key)?;
        Some(match way {
            Way::ToEndpoint => &mut call.to_endpoint,
            Way::ToCaller => &mut call.to_caller,
        })
    }

    fn sender(&self, key: Key, way: Way) -> Option<Leg> {
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
        if let Some(recoder) = pipe.recoder.as_mut() {
            recoder.push(bytes);
            pipe.uncredited += bytes.len();
            self.recode(key, way);
            return;
        }
        // Nothing waits and nothing need be kept: straight into the other connection's frames.
        if !is_kept
            && pipe.waiting() == 0
            && let Some(leg) = receiver
        {
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
        if pipe.recoder.is_some() { self.recode(key, way) } else { self.send_waiting(key, way) }
    }

    /// Goes on with a direction whose receiver may take more.
    pub(crate) fn send_waiting(&mut self, key: Key, way: Way) {
        self.offer(key, way);
        if self.pipe(key, way).is_some_and(|p| p.recoder.as_ref().is_some_and(|r| r.held() > 0)) {
            self.recode(key, way);
        }
    }

    /// Offers what waits to the receiver; ends its stream when all has gone and the sender has finished.
    fn offer(&mut self, key: Key, way: Way) {
        let Some(leg) = self.receiver(key, way) else { return };
        let retry_max = self.limits.retry_bytes_max as usize;
        let Some(call) = self.calls.get_mut(key) else { return };
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        if pipe.end_sent {
            return;
        }
        let is_done = pipe.has_ended && pipe.recoder.as_ref().is_none_or(|r| r.is_between_messages());
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
        let inflated = if is_drained { core::mem::take(&mut pipe.inflated) } else { 0 };
        let mut freed = pipe.head - pipe.credited.min(pipe.head);
        pipe.credited = pipe.credited.max(pipe.head);
        if pipe.recoder.is_some() {
            // What the recoder read is credited when what it wrote has gone.
            freed = 0;
            if is_drained {
                let held = pipe.recoder.as_ref().map_or(0, |r| r.held());
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
    fn credit(&mut self, key: Key, way: Way, bytes: usize) {
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
    fn discharge(&mut self, key: Key, bytes: u64) {
        if bytes > 0
            && let Some(call) = self.calls.get_mut(key)
        {
            call.charged -= bytes;
            self.pool.sub(bytes);
            self.callers.get_mut(call.caller).pool.sub(bytes);
        }
    }

    // ---- recoding ------------------------------------------------------------------------------------

    /// Puts a recoder into a direction; bytes that wait already go through it.
    pub(crate) fn set_recoder(
        &mut self,
        key: Key,
        way: Way,
        decode: Option<Encoding>,
        encode: Option<Encoding>,
    ) {
        let limit = self.limits.message_bytes_max;
        let Some(call) = self.calls.get_mut(key) else { return };
        let min = call.compress.map_or(0, |c| c.min_bytes);
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        let mut recoder = Recoder::new(decode, encode, min, limit);
        recoder.push(pipe.buf.get(pipe.head..).unwrap_or(&[]));
        pipe.uncredited += pipe.waiting();
        pipe.buf.clear();
        pipe.head = 0;
        pipe.credited = 0;
        pipe.recoder = Some(alloc::boxed::Box::new(recoder));
    }

    /// Lets a direction's recoder work until it needs a job's result or more bytes, or the receiver is behind.
    pub(crate) fn recode(&mut self, key: Key, way: Way) {
        loop {
            let mut spare = self.buffers.take();
            let Some(pipe) = self.pipe(key, way) else { return self.buffers.give(spare) };
            let is_behind = pipe.waiting() > RECODED_AHEAD;
            let Some(mut recoder) = pipe.recoder.take_if(|_| !is_behind) else {
                return self.buffers.give(spare);
            };
            let before = recoder.held();
            let room = pipe.head + RECODED_AHEAD;
            let step = recoder.step(&mut spare, &mut pipe.buf, room);
            let (message_len, window) = (recoder.message_len(), pipe.window as usize);
            let is_cut = pipe.has_ended && recoder.is_cut() && recoder.held() == before;
            let has_moved = recoder.held() < before;
            pipe.recoder = Some(recoder);
            self.buffers.give(spare);
            match step {
                Ok(Step::Job(work, input)) => self.submit(key, way, work, input),
                Ok(Step::Wait) if is_cut => return self.fail_unreadable(key, Unreadable::Malformed),
                Ok(Step::Wait) => {
                    // The sender could never finish a message longer than its window.
                    if let Some(len) = message_len
                        && len > window
                    {
                        self.widen(key, way, len - window);
                    }
                }
                Err(error) => return self.fail_unreadable(key, error),
            }
            self.offer(key, way);
            if !has_moved {
                return;
            }
        }
    }

    fn submit(&mut self, key: Key, way: Way, work: crate::Work, input: alloc::vec::Vec<u8>) {
        let output = self.buffers.take();
        let key = JobKey { call: key.index, generation: key.generation, is_request: way == Way::ToEndpoint };
        let is_small = input.len() <= SMALL_JOB_BYTES;
        let queue = if is_small { &mut self.jobs } else { &mut self.large_jobs };
        queue.push(Job { key, work, input, output });
    }

    /// Moves queued jobs to a burst; those whose call has ended are forgotten.
    pub(crate) fn take_jobs(&mut self, large: bool, to: &mut crate::Burst<Job>) {
        let queue = if large { &mut self.large_jobs } else { &mut self.jobs };
        for job in queue.drain(..) {
            let key = Key { index: job.key.call, generation: job.key.generation };
            if self.calls.get(key).is_none() {
                self.buffers.give(job.input);
                self.buffers.give(job.output);
            } else if let Err(job) = to.push(job) {
                self.later_jobs.push(job);
            }
        }
        core::mem::swap(queue, &mut self.later_jobs);
    }

    fn widen(&mut self, key: Key, way: Way, by: usize) {
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        let Some(leg) = self.sender(key, way) else { return };
        if !self.charge(key, u64::from(by)) {
            self.counters.calls_pool_exhausted += 1;
            self.fail(
                key,
                Status::RESOURCE_EXHAUSTED,
                Flag::Overflow,
                "no room in the byte pool for this message",
            );
            return;
        }
        if let Some(pipe) = self.pipe(key, way) {
            pipe.window += by;
        }
        if let Some(h2) = self.conns.get_mut(leg.conn).and_then(|c| c.h2.as_mut()) {
            h2.extend_window(leg.stream, by);
        }
        self.mark_dirty(leg.conn);
    }

    /// An offload job is done.
    pub(crate) fn on_done(&mut self, done: Done) {
        let Done { job, result } = done;
        let key = Key { index: job.key.call, generation: job.key.generation };
        let way = if job.key.is_request { Way::ToEndpoint } else { Way::ToCaller };
        let (input, mut output) = (job.input, job.output);
        let Some(pipe) = self.pipe(key, way) else {
            // The call ended meanwhile; its job's buffers are all that is left of it.
            self.buffers.give(input);
            self.buffers.give(output);
            return;
        };
        let Some(mut recoder) = pipe.recoder.take() else { return };
        let before = pipe.buf.len();
        let step = recoder.finish_job(result, &input, &mut output, &mut pipe.buf);
        let stats = core::mem::take(&mut recoder.stats);
        pipe.recoder = Some(recoder);
        // A message that has grown beyond its window is on the caller's account until the receiver has it.
        let inflated = pipe.buf.len().saturating_sub(before).saturating_sub(RECODED_AHEAD) as u64;
        let has_room = inflated == 0 || self.charge(key, inflated);
        if has_room && let Some(pipe) = self.pipe(key, way) {
            pipe.inflated += inflated;
        }
        self.counters.messages_compressed += stats.compressed;
        self.counters.messages_decompressed += stats.decompressed;
        self.counters.compression_in_bytes += stats.in_bytes;
        self.counters.compression_out_bytes += stats.out_bytes;
        let endpoint = self.calls.get(key).and_then(|c| c.served_by);
        if let Some(endpoint) = endpoint.and_then(|e| self.endpoints.get_mut(e as usize)) {
            endpoint.saved_bytes += stats.in_bytes.saturating_sub(stats.out_bytes);
        }
        self.buffers.give(input);
        self.buffers.give(output);
        match step {
            _ if !has_room => {
                self.counters.calls_pool_exhausted += 1;
                let text = "no room in the byte pool for a decompressed message";
                self.fail(key, Status::RESOURCE_EXHAUSTED, Flag::Overflow, text);
            }
            Ok(Step::Job(work, input)) => self.submit(key, way, work, input),
            Ok(Step::Wait) => {
                self.offer(key, way);
                self.recode(key, way);
            }
            Err(error) => self.fail_unreadable(key, error),
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
            let endpoint = &mut self.endpoints[place as usize];
            endpoint.inflight = endpoint.inflight.saturating_sub(1);
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
