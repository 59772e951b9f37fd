//! The five elements as one would write them in Rust for this rule, with the language's meaning: a header of
//! several values reads joined, sampled calls are marked.

use abi::{CallView, Chain, Entry, Flag, Num, Plan, Reject, Side, SinkIdx, Status, Verdict};

pub(crate) struct Hand {
    plan: Plan,
    header: String,
    denied: Vec<String>,
    stamped: String,
    stamp: String,
    share: f64,
    fault: u32,
    limit_ns: i64,
}

impl Hand {
    pub(crate) fn new(fault: u32) -> Self {
        Self {
            plan: Plan { request: true, ..Plan::default() },
            header: "x-tenant".into(),
            denied: ["evil", "worse", "mallory"].map(String::from).into(),
            stamped: "x-env".into(),
            stamp: "production".into(),
            share: 0.01,
            fault,
            limit_ns: 5_000_000_000,
        }
    }

    fn is_denied(&self, call: &dyn CallView) -> bool {
        let Some(first) = call.metadata(Side::Request, &self.header, 0) else { return false };
        if call.metadata(Side::Request, &self.header, 1).is_some() {
            let all = (0..64).map_while(|nth| call.metadata(Side::Request, &self.header, nth));
            let joined = all.map(|v| String::from_utf8_lossy(v)).collect::<Vec<_>>().join(",");
            return self.denied.contains(&joined);
        }
        self.denied.iter().any(|text| text.as_bytes() == first)
    }

    fn request(&self, call: &mut dyn CallView) -> Verdict {
        let is_sampled = call.is_sampled();
        if self.is_denied(call) {
            if is_sampled {
                call.mark(0);
            }
            call.set_reject_text("denied");
            return reject(Status::PERMISSION_DENIED, Flag::Denied, 0);
        }
        if is_sampled {
            call.mark(0);
        }
        call.set_metadata(Side::Request, &self.stamped, Some(self.stamp.as_bytes()));
        if is_sampled {
            call.mark(1);
        }
        let draw = (call.draw(self.fault, 0) >> 11) as f64 / (1_u64 << 53) as f64;
        if draw < self.share {
            call.set_passed(2);
            if is_sampled {
                call.mark(2);
            }
            call.set_reject_text("fault injected");
            return reject(Status::UNAVAILABLE, Flag::FaultInjected, 2);
        }
        if is_sampled {
            call.mark(2);
        }
        let at = call.num(Num::NowNs).saturating_add_signed(self.limit_ns);
        call.set_deadline_ns(at);
        if is_sampled {
            call.mark(3);
        }
        call.access_log(SinkIdx(0));
        if is_sampled {
            call.mark(4);
        }
        call.set_passed(5);
        Verdict::Forward
    }
}

fn reject(status: Status, flag: Flag, element: u16) -> Verdict {
    Verdict::Reject(Reject { status, flag, element, line: 1 })
}

impl Chain for Hand {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(&self, entry: Entry, _segment: u16, call: &mut dyn CallView) -> Verdict {
        match entry {
            Entry::Request => self.request(call),
            _ => Verdict::Forward,
        }
    }
}
