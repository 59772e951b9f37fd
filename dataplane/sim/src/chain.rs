//! A chain by hand, which does to a call what the call's own metadata asks for: so the checkers know what
//! must come of it. `Balance - Log - Zip - Fault`, as the seed chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{
    CallView, Chain, Compress, ElementInfo, Encoding, EndpointIdx, Entry, Flag, Plan, Reject, Side, SinkIdx,
    Status, Suspend, Verdict,
};

/// The line of the reject in the element that rejects.
pub(crate) const REJECT_LINE: u32 = 7;

/// Passages counted over all chains of a run.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    pub(crate) entered: AtomicU64,
    pub(crate) judged: AtomicU64,
    /// Judged twice, or without having entered.
    pub(crate) wrong: AtomicU64,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct MockChain {
    plan: Plan,
    passages: Arc<Passages>,
    compress: Option<Compress>,
    picks: bool,
}

impl MockChain {
    pub(crate) fn new(
        passages: Arc<Passages>,
        compress: Option<Encoding>,
        min_bytes: u32,
        picks: bool,
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
        Self { plan, passages, compress: compress.map(|encoding| Compress { encoding, min_bytes }), picks }
    }

    fn request(&self, segment: u16, call: &mut dyn CallView) -> Verdict {
        if segment == 0 {
            self.passages.entered.fetch_add(1, Ordering::Relaxed);
            call.words()[0] = 1;
            call.access_log(SinkIdx(0));
            if let Some(how) = self.compress {
                call.set_compress(how);
            }
            call.set_passed(3);
            let delay = call.metadata(Side::Request, "x-sim-delay", 0).and_then(number);
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
            Entry::Response => {
                self.passages.judged.fetch_add(1, Ordering::Relaxed);
                let passed = call.passed();
                let word = core::mem::replace(&mut call.words()[0], 2);
                if word != 1 || passed < 3 {
                    self.passages.wrong.fetch_add(1, Ordering::Relaxed);
                }
                Verdict::Forward
            }
            _ => Verdict::Forward,
        }
    }
}
