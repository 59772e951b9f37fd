//! Running a call's chain.

use abi::{Entry, Flag, Plan, Reject, Status, Suspend, Unreadable, Verdict};

use crate::body::Way;
use crate::call::Decider;
use crate::slab::Key;
use crate::state::{Core, Timer};
use crate::view::View;

/// Suspensions that are skipped when a call ends at once (its caller has left).
const SKIPPED_SUSPENSIONS_MAX: usize = 16;

impl Core {
    /// The plan of a call's chain, once it is routed.
    pub(crate) fn plan_of(&self, key: Key) -> Option<&Plan> {
        let call = self.calls.get(key)?;
        let generation = self.generations.get(usize::from(call.program))?.as_ref()?;
        generation.program.chains.get(call.chain? as usize).map(|c| c.plan())
    }

    pub(crate) fn run_chain(&mut self, key: Key, entry: Entry, segment: u16) -> Verdict {
        let Some(call) = self.calls.get_mut(key) else { return Verdict::Forward };
        let Some(generation) = self.generations.get_mut(usize::from(call.program)).and_then(Option::as_mut)
        else {
            return Verdict::Forward;
        };
        let Some(chain) = call.chain.and_then(|c| generation.program.chains.get(c as usize)) else {
            return Verdict::Forward;
        };
        let message = match entry {
            Entry::Request | Entry::RequestMessage => Some(Way::ToEndpoint),
            Entry::ResponseMessage | Entry::Response => Some(Way::ToCaller),
            Entry::Pick | Entry::ResponseHeaders => None,
        };
        let mut view = View {
            call,
            program: &generation.program,
            places: &generation.endpoints,
            picks: &mut generation.picks,
            chains: &mut generation.chains,
            sinks: &generation.sinks,
            endpoints: &self.endpoints,
            metrics: &mut self.metrics,
            metric_places: &generation.metrics,
            counters: &mut self.counters,
            log: &mut self.log,
            now: self.now,
            seed: self.seed,
            shard: self.shard,
            clock: self.clock,
            is_pick: entry == Entry::Pick,
            message,
        };
        view.begin_marks();
        chain.run(entry, segment, &mut view)
    }

    /// An element has refused the call.
    pub(crate) fn reject(&mut self, key: Key, reject: Reject) {
        self.counters.calls_rejected_by_element += 1;
        self.note_reject(key, reject);
        self.conclude(key);
    }

    pub(crate) fn note_reject(&mut self, key: Key, reject: Reject) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.status = reject.status;
        call.flag = reject.flag;
        call.decider = Some(Decider { element: reject.element, line: reject.line });
        let generation = self.generations.get_mut(usize::from(call.program)).and_then(Option::as_mut);
        let Some(generation) = generation else { return };
        let Some(chain) = call.chain else { return };
        if let Some(stats) = generation
            .chains
            .get_mut(chain as usize)
            .and_then(|c| c.elements.get_mut(usize::from(reject.element)))
        {
            stats.rejected += 1;
        }
        // The message names the element, so that a caller knows whom to ask.
        let info = generation
            .program
            .chains
            .get(chain as usize)
            .and_then(|c| c.plan().elements.get(usize::from(reject.element)));
        if let Some(info) = info {
            let mut text = self.buffers.take();
            text.extend_from_slice(info.name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(&call.message);
            core::mem::swap(&mut text, &mut call.message);
            self.buffers.give(text);
        }
    }

    pub(crate) fn count_delay(&mut self, key: Key, element: u16) {
        let Some(call) = self.calls.get(key) else { return };
        let generation = self.generations.get_mut(usize::from(call.program)).and_then(Option::as_mut);
        let chain = call.chain.and_then(|c| generation?.chains.get_mut(c as usize));
        if let Some(stats) = chain.and_then(|c| c.elements.get_mut(usize::from(element))) {
            stats.delayed += 1;
        }
    }

    /// Runs the response side once, from a segment. False if it waits: the timer goes on from here.
    pub(crate) fn judge_response(&mut self, key: Key, segment: Option<u16>) -> bool {
        let has_response = self.plan_of(key).is_some_and(|p| p.response);
        let Some(call) = self.calls.get_mut(key) else { return true };
        if (call.is_judged && segment.is_none()) || !has_response || call.passed == 0 {
            call.is_judged = true;
            return true;
        }
        call.is_judged = true;
        let is_held = call.to_caller.messages.as_ref().is_some_and(|m| m.is_holding());
        let grown_before = if is_held { self.growth(key, Way::ToCaller) } else { 0 };
        let verdict = self.run_chain(key, Entry::Response, segment.unwrap_or(0));
        if is_held && !self.charge_growth(key, Way::ToCaller, grown_before) {
            return false;
        }
        match verdict {
            Verdict::Forward => true,
            Verdict::Reject(reject) => {
                self.counters.calls_rejected_by_element += 1;
                self.note_reject(key, reject);
                if is_held {
                    // What was refused is not sent.
                    self.drop_messages(key, Way::ToCaller);
                }
                if let Some(call) = self.calls.get_mut(key) {
                    call.is_status_rewritten = true;
                    call.is_own_outcome |= is_held;
                }
                true
            }
            Verdict::Suspend(Suspend::Timer { ns, segment, element }) => {
                let at = self.now.after_ns(ns);
                let timer = self.wheel.insert(at, Timer::Wait(key));
                if let Some(call) = self.calls.get_mut(key) {
                    call.resume_segment = segment;
                    call.wait_timer = Some(timer);
                    call.is_response_waiting = true;
                }
                self.count_delay(key, element);
                false
            }
            Verdict::Suspend(Suspend::Job { .. }) => true,
            Verdict::Unreadable(why) => {
                // No handler has seen the answer yet: they see that it failed, without the message.
                if let Some(call) = self.calls.get_mut(key).filter(|_| is_held) {
                    call.is_judged = false;
                }
                self.fail_unreadable(key, why);
                false
            }
        }
    }

    /// An element brought the deadline nearer: its timer follows.
    pub(crate) fn follow_deadline(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key).filter(|c| c.is_deadline_moved) else { return };
        call.is_deadline_moved = false;
        if let Some(timer) = call.deadline_timer.take() {
            self.wheel.cancel(timer);
        }
        call.deadline_timer = call.deadline.map(|at| self.wheel.insert(at, Timer::Deadline(key)));
    }

    pub(crate) fn fail_no_job(&mut self, key: Key) {
        self.fail(key, Status::INTERNAL, Flag::None, "the chain waits for a job that nobody runs");
    }

    /// A message the chain reads cannot be read: the call ends, and says why.
    pub(crate) fn fail_unreadable(&mut self, key: Key, why: Unreadable) {
        let (count, status, text) = match why {
            Unreadable::Malformed => {
                (&mut self.counters.calls_message_malformed, Status::INTERNAL, "a message is malformed")
            }
            Unreadable::BadFlag => (
                &mut self.counters.calls_message_flag,
                Status::INTERNAL,
                "a message's compressed-flag is neither 0 nor 1",
            ),
            Unreadable::Cut => {
                (&mut self.counters.calls_message_cut, Status::INTERNAL, "the stream ends inside a message")
            }
            Unreadable::Corrupt => (
                &mut self.counters.calls_message_corrupt,
                Status::INTERNAL,
                "a compressed message is damaged or cut short",
            ),
            Unreadable::Inflates => (
                &mut self.counters.calls_message_inflates,
                Status::RESOURCE_EXHAUSTED,
                "a compressed message unpacks to more than message_bytes_max",
            ),
            Unreadable::TooLarge => (
                &mut self.counters.calls_message_too_large,
                Status::RESOURCE_EXHAUSTED,
                "a message is larger than message_bytes_max",
            ),
            Unreadable::UnknownEncoding => (
                &mut self.counters.calls_message_encoding,
                Status::UNIMPLEMENTED,
                "a message's encoding is not known",
            ),
            Unreadable::UnknownMethod => {
                (&mut self.counters.calls_method_unknown, Status::UNIMPLEMENTED, "no proto knows this method")
            }
            Unreadable::ListTooLong => (
                &mut self.counters.lists_cut,
                Status::RESOURCE_EXHAUSTED,
                "a list of a message has more items than the chain reads",
            ),
            Unreadable::TextTooLong => (
                &mut self.counters.texts_cut,
                Status::RESOURCE_EXHAUSTED,
                "the call's texts are too long to judge",
            ),
            Unreadable::NotOne => {
                (&mut self.counters.calls_message_not_one, Status::INTERNAL, "expected exactly one message")
            }
        };
        *count += 1;
        self.fail(key, status, Flag::None, text);
    }

    /// The same for a call that ends at once: waits are skipped, effects are not.
    pub(crate) fn judge_response_now(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let mut segment = call.is_response_waiting.then_some(call.resume_segment);
        if let Some(timer) = call.wait_timer.take() {
            self.wheel.cancel(timer);
        }
        for _ in 0..SKIPPED_SUSPENSIONS_MAX {
            if self.judge_response(key, segment) {
                break;
            }
            let Some(call) = self.calls.get_mut(key) else { return };
            segment = Some(call.resume_segment);
            if let Some(timer) = call.wait_timer.take() {
                self.wheel.cancel(timer);
            }
        }
    }
}
