//! A chain by hand, which does to a call what the call's own metadata asks for: so the checkers know what
//! must come of it. `Balance - Log - Zip - Fault`, as the seed chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{
    CallView, Chain, Compress, ElementInfo, Encoding, EndpointIdx, Entry, Flag, Leaving, Plan, Reject, Side,
    SinkIdx, Status, Suspend, Verdict,
};

use crate::body::Way;
use crate::gate::{Gate, Gates, Watch};

/// The line of the reject in the element that rejects.
pub(crate) const REJECT_LINE: u32 = 7;

/// Passages counted over all chains of a run.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    pub(crate) entered: AtomicU64,
    pub(crate) judged: AtomicU64,
    /// Judged twice, or without having entered.
    pub(crate) wrong: AtomicU64,
    pub(crate) watch: Watch,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct MockChain {
    plan: Plan,
    passages: Arc<Passages>,
    compress: Option<Compress>,
    picks: bool,
    gates: Option<Gates>,
}

impl MockChain {
    pub(crate) fn new(
        passages: Arc<Passages>,
        compress: Option<Encoding>,
        min_bytes: u32,
        picks: bool,
        gates: Option<Gates>,
    ) -> Self {
        let element = |name: &str| ElementInfo { name: name.into(), text: name.into(), line: 3 };
        let plan = Plan {
            elements: ["Balance", "Log", "Zip", "Fault"].map(element).into(),
            request: true,
            pick: picks,
            response: true,
            call_words: 1,
            ..Plan::default()
        };
        let plan = gates.map_or(plan.clone(), |gates| gates.plan(plan));
        let compress = compress.map(|encoding| Compress { encoding, min_bytes });
        Self { plan, passages, compress, picks, gates }
    }

    fn gate(&self) -> Option<Gate<'_>> {
        self.gates.map(|gates| Gate { gates, watch: &self.passages.watch })
    }

    fn request(&self, segment: u16, call: &mut dyn CallView) -> Verdict {
        if let Some(verdict) = self.gate().and_then(|gate| gate.request(segment, call)) {
            return verdict;
        }
        if segment == 0 {
            self.passages.entered.fetch_add(1, Ordering::Relaxed);
            call.words()[0] = 1;
            call.access_log(SinkIdx(0));
            if let Some(how) = self.compress {
                call.set_leaving(Leaving::Packed(how));
            }
            call.set_passed(3);
            let delay = call.metadata(Side::Request, "x-sim-delay", 0).and_then(number);
            if let (Some(ns), Some(gate)) = (delay, self.gate()) {
                return gate.request_waits(ns, call);
            }
            if let Some(ns) = delay {
                return Verdict::Suspend(Suspend::Timer { ns, segment: 1, element: 3 });
            }
        }
        let name = call.metadata(Side::Request, "x-sim-reject", 0).and_then(|v| core::str::from_utf8(v).ok());
        if let Some(status) = name.and_then(Status::from_name) {
            call.set_reject_text("fault injected");
            return Verdict::Reject(Reject {
                status,
                flag: Flag::FaultInjected,
                element: 3,
                line: REJECT_LINE,
            });
        }
        if let Some(verdict) = self.gate().and_then(|gate| gate.request_done(call)) {
            return verdict;
        }
        call.set_passed(4);
        Verdict::Forward
    }
}

fn number(value: &[u8]) -> Option<u64> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

impl Chain for MockChain {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(&self, entry: Entry, segment: u16, call: &mut dyn CallView) -> Verdict {
        match entry {
            Entry::Request => self.request(segment, call),
            Entry::Pick if self.picks => {
                let count = call.endpoint_count();
                let first = usize::try_from(call.draw(0, 0)).unwrap_or(0).checked_rem(count).unwrap_or(0);
                let all =
                    (0..count).filter_map(|at| u16::try_from((first + at) % count).ok()).map(EndpointIdx);
                let healthy = all.into_iter().find(|at| call.endpoint_stat(*at).is_some_and(|s| s.healthy));
                call.set_endpoint(healthy);
                Verdict::Forward
            }
            Entry::RequestMessage | Entry::ResponseMessage => {
                let way = if entry == Entry::RequestMessage { Way::Request } else { Way::Response };
                self.gate().map_or(Verdict::Forward, |gate| gate.message(way, segment, call))
            }
            Entry::Response => {
                let passed = call.passed();
                let word = call.words()[0];
                let enter = || {
                    self.passages.judged.fetch_add(1, Ordering::Relaxed);
                    if word != 1 || passed < 3 {
                        self.passages.wrong.fetch_add(1, Ordering::Relaxed);
                    }
                };
                match self.gate() {
                    None => {
                        enter();
                        call.words()[0] = 2;
                        Verdict::Forward
                    }
                    Some(gate) => {
                        let verdict = gate.response(segment, call, enter);
                        if !matches!(verdict, Verdict::Unreadable(_)) {
                            call.words()[0] = 2;
                        }
                        verdict
                    }
                }
            }
            _ => Verdict::Forward,
        }
    }
}
