//! Where messages meet the chain: each is judged, held or packed before it goes on, and its sender's window
//! is as wide as one message needs and no wider.
//!
//! A direction gets its [`Messages`] when its chain or its receiver asks for that: a request at its headers,
//! an answer at the endpoint's. Whoever needs none of it pays nothing.
//! Invariant: what stands in a pipe's `buf` has left its handler; another attempt sends just that.

use abi::{Encoding, Entry, Flag, Plan, Reject, Spill, Status, Suspend, Unreadable, Verdict};
use alloc::{boxed::Box, vec::Vec};
use wire::{Headers, Token};

use crate::body::Way;
use crate::call::{Call, Phase};
use crate::messages::{Breach, Leave, Step, Terms};
use crate::outcome::Rest;
use crate::slab::Key;
use crate::state::{Core, Jobs, Timer};
use crate::{Done, Job, JobKey, Work};

/// Jobs up to this size go first: nobody's small message waits for another's large one. Bytes.
const SMALL_JOB_BYTES: usize = 16 << 10;
/// Messages stop when this much of what left waits for the receiver, bytes.
const AHEAD_BYTES: usize = 64 << 10;
/// Spare [`crate::messages::Messages`] that are kept, and boxes of jobs.
const SPARE_MAX: usize = 256;

/// What becomes of the message at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    LetGo,
    Stay,
    /// The call has gone on by itself, or is over.
    Gone,
}

/// How messages with flag 1 come, if that is an encoding known here.
pub(crate) fn encoding_of(list: &Headers) -> Option<Encoding> {
    list.get(Token::GrpcEncoding).and_then(Encoding::from_name)
}

fn copy_spill(from: &Spill, to: &mut Spill) {
    to.clear();
    to.words.extend_from_slice(&from.words);
    to.bytes.extend_from_slice(&from.bytes);
}

/// Keeps a box for the next job.
fn keep_box(spare: &mut Jobs, job: Box<Job>) {
    if spare.len() < SPARE_MAX {
        spare.push(job);
    }
}

impl Core {
    // ---- coming and going ----------------------------------------------------------------------------

    /// Takes a direction's messages one at a time from here on; bytes that wait already are the first.
    pub(crate) fn set_messages(&mut self, key: Key, way: Way, terms: Terms) {
        let limit = self.limits.message_bytes_max;
        let mut messages = self.spare_messages.pop().unwrap_or_default();
        messages.begin(terms, limit);
        let Some(pipe) = self.pipe(key, way) else { return };
        messages.push(pipe.buf.get(pipe.head..).unwrap_or(&[]));
        pipe.uncredited += pipe.waiting();
        pipe.buf.clear();
        pipe.head = 0;
        pipe.credited = 0;
        pipe.messages = Some(messages);
    }

    /// Forgets what a direction still holds of messages: nothing of it will be judged or sent.
    pub(crate) fn drop_messages(&mut self, key: Key, way: Way) {
        let Some(mut messages) = self.pipe(key, way).and_then(|p| p.messages.take()) else { return };
        if let Some(timer) = messages.timer.take() {
            self.wheel.cancel(timer);
        }
        messages.clear();
        if self.spare_messages.len() < SPARE_MAX {
            self.spare_messages.push(messages);
        }
    }

    /// A call has been routed: its request waits for its message if the chain reads it, else the chain has
    /// its say at once.
    pub(crate) fn enter_chain(&mut self, key: Key) {
        let Some(plan) = self.plan_of(key) else { return self.judge_request(key, 0) };
        let whose = || self.calls.get(key).map_or(("", ""), Call::path_halves);
        let terms = Terms {
            judges: plan.request_message,
            reads: plan.request_message_payload,
            holds: plan.holds_request(whose),
            ..Terms::default()
        };
        let is_sealed = plan.request_boundary.is_any();
        let terms = match self.with_seals(key, Way::ToEndpoint, terms) {
            Ok(terms) => terms,
            Err(why) => return self.fail_breach(key, why),
        };
        let Some(call) = self.calls.get_mut(key) else { return };
        // Its end will be sealed, which needs a body.
        call.is_bodiless &= terms.seals.is_none();
        if terms.holds || is_sealed || terms.judges && !call.is_bodiless {
            let decode = encoding_of(&call.request);
            self.set_messages(key, Way::ToEndpoint, Terms { decode, ..terms });
        }
        // Nothing of a sealed call passes before one of its records has been opened.
        if terms.holds || terms.opens.is_some() {
            self.run_messages(key, Way::ToEndpoint);
        } else {
            self.judge_request(key, 0);
        }
    }

    /// Its first record has been opened: now the chain has its say. True if it has not had it before.
    fn enters_opened(&mut self, key: Key, way: Way) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let is_arriving = way == Way::ToEndpoint && call.phase == Phase::Arriving;
        let Some(messages) = call.to_endpoint.messages.as_mut().filter(|_| is_arriving) else { return false };
        let is_first = messages.terms.opens.is_some() && !messages.terms.holds && !messages.has_entered;
        if !is_first || messages.awaits_first() {
            return false;
        }
        messages.has_entered = true;
        true
    }

    /// The endpoint's headers are here: what its messages need. `None` if the call ended over it; else true
    /// if the answer is held.
    pub(crate) fn gate_answer(&mut self, key: Key) -> Option<bool> {
        let Some(plan) = self.plan_of(key) else { return Some(false) };
        let holds = plan.holds_response(|| self.calls.get(key).map_or(("", ""), Call::path_halves));
        let Plan { response_message: judges, response_message_payload: reads, .. } = *plan;
        let is_sealed = plan.response_boundary.is_any();
        if judges || holds || is_sealed {
            let terms = Terms { judges, reads, holds, ..Terms::default() };
            let terms = match self.with_seals(key, Way::ToCaller, terms) {
                Ok(terms) => terms,
                Err(why) => {
                    self.fail_breach(key, why);
                    return None;
                }
            };
            let decode = self.calls.get(key).and_then(|c| encoding_of(&c.response));
            self.set_messages(key, Way::ToCaller, Terms { decode, ..terms });
        }
        Some(holds)
    }

    /// In which encoding a direction's messages leave; they are taken one at a time from here on.
    pub(crate) fn set_leave(&mut self, key: Key, way: Way, decode: Option<Encoding>, leave: Leave) {
        match self.pipe(key, way).and_then(|p| p.messages.as_mut()) {
            Some(messages) => messages.terms.leave = leave,
            None => self.set_messages(key, way, Terms { decode, leave, ..Terms::default() }),
        }
    }

    // ---- running -------------------------------------------------------------------------------------

    /// Works a direction's messages until bytes, a job, a timer or the receiver are waited for.
    pub(crate) fn run_messages(&mut self, key: Key, way: Way) {
        loop {
            let Some(call) = self.calls.get_mut(key) else { return };
            let is_unsent = way == Way::ToEndpoint && call.attempts == 0;
            let is_over = way == Way::ToEndpoint || call.phase == Phase::Ending;
            let is_well = way == Way::ToEndpoint || call.status == Status::OK;
            let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
            let Some(messages) = pipe.messages.as_mut() else { return };
            match is_over && pipe.has_ended {
                true if is_well => messages.set_over(),
                true => messages.excuse(),
                false => {}
            }
            // How a request leaves is decided when it first gets a stream; that it is sealed as it must be, before.
            if is_unsent && !messages.terms.holds && !messages.awaits_first() {
                return;
            }
            if !is_unsent {
                messages.set_sent();
            }
            let waiting = pipe.buf.len() - pipe.head;
            if waiting > AHEAD_BYTES {
                self.offer(key, way);
                if self.pipe(key, way).is_none_or(|p| p.waiting() == waiting) {
                    return;
                }
                continue;
            }
            let mut spare = self.buffers.take();
            let step = messages.step(&mut spare, &mut pipe.buf, pipe.head + AHEAD_BYTES);
            self.buffers.give(spare);
            match step {
                Ok(Step::Job(work, input)) => {
                    self.submit(key, way, work, input);
                    return self.offer(key, way);
                }
                Ok(Step::Behind) => {}
                Ok(Step::Wait) => {
                    self.offer(key, way);
                    return self.at_rest(key, way);
                }
                Ok(Step::Message) => match self.judge(key, way) {
                    Word::LetGo => {
                        if let Some(messages) = self.pipe(key, way).and_then(|p| p.messages.as_mut()) {
                            messages.let_go();
                        }
                    }
                    Word::Stay => {
                        self.make_way(key, way);
                        return self.offer(key, way);
                    }
                    Word::Gone => return,
                },
                Err(why) => return self.fail_unfit(key, why),
            }
        }
    }

    /// Only bytes could go on: are there enough, may more come, or was that all?
    fn at_rest(&mut self, key: Key, way: Way) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let is_answered = way == Way::ToCaller && call.has_outcome && call.phase == Phase::Open;
        let is_well = way == Way::ToEndpoint || call.status == Status::OK;
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        let Some(messages) = pipe.messages.as_mut() else { return };
        let has_ended = pipe.has_ended;
        if has_ended && messages.lacks_end() {
            if is_well {
                return self.fail_breach(key, Breach::Cut);
            }
            // A failure needs no proof that nothing is missing, and may cut a message short.
            messages.give_up_rest();
            return self.run_messages(key, way);
        }
        let is_all = has_ended && messages.is_between_messages();
        if has_ended && messages.is_cut() {
            self.fail_unreadable(key, Unreadable::Cut);
        } else if is_all && way == Way::ToEndpoint && messages.terms.holds && call.phase == Phase::Arriving {
            self.fail_unreadable(key, Unreadable::NotOne);
        } else if is_all && is_answered {
            self.settle(key);
        } else {
            self.make_way(key, way);
        }
    }

    /// The sender could never finish a message longer than its window, or show what follows one that fills it.
    fn make_way(&mut self, key: Key, way: Way) {
        let Some(pipe) = self.pipe(key, way).filter(|pipe| !pipe.has_ended) else { return };
        let (wanted, window) = (pipe.messages.as_ref().and_then(|m| m.wanted_window()), pipe.window as usize);
        if let Some(len) = wanted.filter(|len| *len > window) {
            self.widen(key, way, len - window);
        }
    }

    /// A message is at hand: what becomes of it.
    fn judge(&mut self, key: Key, way: Way) -> Word {
        let Some(call) = self.calls.get_mut(key) else { return Word::Gone };
        let (phase, attempts) = (call.phase, call.attempts);
        let has_outcome = call.has_outcome;
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        let has_ended = pipe.has_ended;
        let Some(messages) = pipe.messages.as_mut() else { return Word::Gone };
        if messages.terms.holds && messages.has_more() {
            self.fail_unreadable(key, Unreadable::NotOne);
            return Word::Gone;
        }
        if way == Way::ToEndpoint && attempts == 0 {
            if phase != Phase::Arriving || messages.has_entered || !has_ended {
                return Word::Stay;
            }
            messages.has_entered = true;
            self.judge_request(key, 0);
            return Word::Gone;
        }
        if messages.terms.judges && !messages.is_judged() {
            if messages.timer.is_some() {
                return Word::Stay;
            }
            let segment = core::mem::take(&mut messages.segment);
            return self.judge_message(key, way, segment);
        }
        if way == Way::ToCaller && messages.terms.holds {
            if has_outcome && phase == Phase::Open {
                self.settle(key);
                return Word::Gone;
            }
            return Word::Stay;
        }
        Word::LetGo
    }

    /// Runs a message handler from a segment. What it says once is not asked again.
    fn judge_message(&mut self, key: Key, way: Way, segment: u16) -> Word {
        let entry = if way == Way::ToEndpoint { Entry::RequestMessage } else { Entry::ResponseMessage };
        if segment != 0 {
            self.take_back(key, way);
        }
        let grown_before = self.growth(key, way);
        let verdict = self.run_chain(key, entry, segment);
        self.follow_deadline(key);
        if !self.charge_growth(key, way, grown_before) {
            return Word::Gone;
        }
        match verdict {
            Verdict::Forward => {
                if let Some(messages) = self.pipe(key, way).and_then(|p| p.messages.as_mut()) {
                    messages.set_judged();
                }
                // Held, it is asked for again; else it goes.
                self.judge(key, way)
            }
            Verdict::Reject(reject) => {
                self.reject_message(key, way, reject);
                Word::Gone
            }
            Verdict::Unreadable(why) => {
                self.fail_unreadable(key, why);
                Word::Gone
            }
            Verdict::Suspend(Suspend::Timer { ns, segment, element }) => {
                self.put_aside(key, way);
                let timer = self.wheel.insert(self.now.after_ns(ns), Timer::Message(key, way));
                if let Some(messages) = self.pipe(key, way).and_then(|p| p.messages.as_mut()) {
                    messages.timer = Some(timer);
                    messages.segment = segment;
                }
                self.count_delay(key, element);
                Word::Stay
            }
            Verdict::Suspend(Suspend::Job { .. }) => {
                self.fail_no_job(key);
                Word::Gone
            }
        }
    }

    /// Both directions of a call may wait at once, and a call's spill has room for one: what a message
    /// handler keeps over its wait is put aside. What the call keeps for good (the texts of its parameters,
    /// from `Request` on) is in both copies.
    fn put_aside(&mut self, key: Key, way: Way) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        if let Some(messages) = pipe.messages.as_mut() {
            copy_spill(&call.spill, &mut messages.spill);
        }
    }

    fn take_back(&mut self, key: Key, way: Way) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let pipe = if way == Way::ToEndpoint { &mut call.to_endpoint } else { &mut call.to_caller };
        if let Some(messages) = pipe.messages.as_mut() {
            copy_spill(&messages.spill, &mut call.spill);
        }
    }

    /// A message handler's delay is over.
    pub(crate) fn on_message_wait_over(&mut self, key: Key, way: Way) {
        if let Some(messages) = self.pipe(key, way).and_then(|p| p.messages.as_mut()) {
            messages.timer = None;
            self.run_messages(key, way);
        }
    }

    /// An element has refused a message: both directions end. Messages of the answer that were let through
    /// before it still go.
    fn reject_message(&mut self, key: Key, way: Way, reject: Reject) {
        self.counters.calls_rejected_by_element += 1;
        self.note_reject(key, reject);
        self.conclude_after(key, if way == Way::ToCaller { Rest::Sent } else { Rest::CutOff });
    }

    // ---- jobs ----------------------------------------------------------------------------------------

    fn submit(&mut self, key: Key, way: Way, work: Work, input: Vec<u8>) {
        let output = self.buffers.take();
        let key = JobKey { call: key.index, generation: key.generation, is_request: way == Way::ToEndpoint };
        let is_small = input.len() <= SMALL_JOB_BYTES;
        let queue = if is_small { &mut self.jobs } else { &mut self.large_jobs };
        let job = Job { key, work, input, output };
        queue.push(match self.spare_jobs.pop() {
            Some(mut spare) => {
                *spare = job;
                spare
            }
            None => Box::new(job),
        });
    }

    /// Moves queued jobs to a burst; those whose call has ended are forgotten.
    pub(crate) fn take_jobs(&mut self, large: bool, to: &mut crate::Burst<Box<Job>>) {
        let queue = if large { &mut self.large_jobs } else { &mut self.jobs };
        for mut job in queue.drain(..) {
            let key = Key { index: job.key.call, generation: job.key.generation };
            if self.calls.get(key).is_none() {
                self.buffers.give(core::mem::take(&mut job.input));
                self.buffers.give(core::mem::take(&mut job.output));
                keep_box(&mut self.spare_jobs, job);
            } else if let Err(job) = to.push(job) {
                self.later_jobs.push(job);
            }
        }
        core::mem::swap(queue, &mut self.later_jobs);
    }

    /// An offload job is done. If its call has ended meanwhile, its buffers are all that is left of it.
    pub(crate) fn on_done(&mut self, done: Done) {
        let Done { mut job, result } = done;
        let key = Key { index: job.key.call, generation: job.key.generation };
        let way = if job.key.is_request { Way::ToEndpoint } else { Way::ToCaller };
        let (mut input, mut output) = (core::mem::take(&mut job.input), core::mem::take(&mut job.output));
        let pipe = match self.calls.get_mut(key) {
            Some(call) if way == Way::ToEndpoint => Some(&mut call.to_endpoint),
            Some(call) => Some(&mut call.to_caller),
            None => None,
        };
        let mut finished = None;
        if let Some(pipe) = pipe
            && let Some(messages) = pipe.messages.as_mut()
        {
            let result = messages.finish_job(result, &job.work, &mut input, &mut output, &mut pipe.buf);
            let swallowed = core::mem::take(&mut messages.swallowed);
            finished = Some((result, core::mem::take(&mut messages.stats), swallowed));
            pipe.uncredited = pipe.uncredited.saturating_sub(swallowed);
        }
        self.buffers.give(input);
        self.buffers.give(output);
        keep_box(&mut self.spare_jobs, job);
        let Some((result, stats, swallowed)) = finished else { return };
        self.credit(key, way, swallowed);
        self.counters.messages_compressed += stats.compressed;
        self.counters.messages_decompressed += stats.decompressed;
        self.counters.compression_in_bytes += stats.in_bytes;
        self.counters.compression_out_bytes += stats.out_bytes;
        self.counters.messages_sealed += stats.sealed;
        self.counters.messages_opened += stats.opened;
        let endpoint = self.calls.get(key).and_then(|c| c.served_by);
        if let Some(endpoint) = endpoint.and_then(|e| self.endpoints.get_mut(e as usize)) {
            endpoint.saved_bytes += stats.in_bytes.saturating_sub(stats.out_bytes);
        }
        match result {
            Ok(()) if stats.decompressed > 0 && !self.charge_growth(key, way, 0) => {}
            Ok(()) if self.enters_opened(key, way) => self.judge_request(key, 0),
            Ok(()) => self.run_messages(key, way),
            Err(why) => self.fail_unfit(key, why),
        }
    }

    // ---- memory --------------------------------------------------------------------------------------

    pub(crate) fn growth(&mut self, key: Key, way: Way) -> usize {
        self.pipe(key, way).and_then(|p| p.messages.as_ref()).map_or(0, |m| m.growth())
    }

    /// What a message has beyond its bytes on the wire is on the caller's account until the receiver has it.
    /// False if there is no room: the call has ended.
    pub(crate) fn charge_growth(&mut self, key: Key, way: Way, before: usize) -> bool {
        let more = self.growth(key, way).saturating_sub(before) as u64;
        if more > 0 && !self.charge(key, more) {
            self.fail_no_room(key, "no room in the byte pool for what has become of a message");
            return false;
        }
        if let Some(pipe) = self.pipe(key, way) {
            pipe.inflated += more;
        }
        true
    }

    fn widen(&mut self, key: Key, way: Way, by: usize) {
        let by = u32::try_from(by).unwrap_or(u32::MAX);
        let Some(leg) = self.sender(key, way) else { return };
        if !self.charge(key, u64::from(by)) {
            return self.fail_no_room(key, "no room in the byte pool for this message");
        }
        if let Some(pipe) = self.pipe(key, way) {
            pipe.window += by;
        }
        if let Some(h2) = self.conns.get_mut(leg.conn).and_then(|c| c.h2.as_mut()) {
            h2.extend_window(leg.stream, by);
        }
        self.mark_dirty(leg.conn);
    }

    fn fail_no_room(&mut self, key: Key, text: &str) {
        self.counters.calls_pool_exhausted += 1;
        self.fail(key, Status::RESOURCE_EXHAUSTED, Flag::Overflow, text);
    }
}
