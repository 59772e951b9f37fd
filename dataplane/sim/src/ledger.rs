//! What every peer did and saw, compared when a run ends and, for contents, as bytes arrive.

use abi::Status;
use wire::h2::Reason;

use crate::body::Way;
use crate::gate::Gates;
use crate::net::LinkId;
use crate::plan_call::CallPlan;

/// All that is known of a run, by whoever saw it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) flows: Vec<Flow>,
    pub(crate) calls: Vec<Call>,
    /// What no peer should have seen.
    pub(crate) problems: Vec<String>,
    /// Connections to backends that their backend broke or left on purpose: calls there may fail.
    pub(crate) backend_faults: u64,
    /// What chains see of messages, if they see anything.
    pub(crate) gates: Option<Gates>,
    /// All callers are done: wires between nodes end.
    pub(crate) is_over: bool,
}

/// One end of a relayed byte stream.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) link: LinkId,
    pub(crate) is_client: bool,
    /// The flow at the other end of the relay, once its first bytes have come.
    pub(crate) partner: Option<usize>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// It sent all it had, and a FIN.
    pub(crate) finished: bool,
    pub(crate) saw_eof: bool,
    pub(crate) saw_reset: bool,
    /// It broke the connection by itself.
    pub(crate) aborted: bool,
    pub(crate) done: bool,
}

/// How a call ended for its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// With trailers.
    Status(Status),
    /// By RST_STREAM.
    Reset(Reason),
    /// The connection ended first, or said it never saw the call.
    ConnLost,
    /// The caller cancelled.
    Cancelled,
    /// It never left the caller.
    NotSent,
}

/// How an attempt ended for the server that got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttemptEnd {
    /// The server answered, all of it.
    Answered,
    /// It refused.
    Refused,
    /// It reset the stream.
    Broke,
    /// The proxy reset the stream.
    Reset(Reason),
    /// The connection was lost.
    ConnLost,
}

/// A call as one server saw it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) link: LinkId,
    /// Whole request messages received, and whether their end was.
    pub(crate) messages: usize,
    pub(crate) saw_end: bool,
    /// Whole response messages handed to the connection.
    pub(crate) answered: usize,
    pub(crate) end: Option<(u64, AttemptEnd)>,
}

/// A call as everybody saw it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) plan: CallPlan,
    pub(crate) link: Option<LinkId>,
    pub(crate) sent_at: Option<u64>,
    pub(crate) request_done: bool,
    pub(crate) end: Option<(u64, End)>,
    /// Whole response messages, and bytes of one that was cut.
    pub(crate) messages: usize,
    pub(crate) partial: usize,
    pub(crate) message: String,
    pub(crate) saw_headers: bool,
    /// When the caller cancelled or its connection went.
    pub(crate) left_at: Option<u64>,
    pub(crate) attempts: Vec<Attempt>,
    /// Sent by a peer that abuses its connection: its outcome is its own affair.
    pub(crate) is_abuse: bool,
}

impl Ledger {
    pub(crate) fn problem(&mut self, what: String) {
        // One is enough to fail a run, and a broken run may find very many.
        if self.problems.len() < 20 {
            self.problems.push(what);
        }
    }

    /// What the chain appends to messages of this call.
    pub(crate) fn suffix(&self, plan: &CallPlan, way: Way) -> Vec<u8> {
        self.gates.filter(|_| plan.gate.marks).map_or(Vec::new(), |gates| gates.suffix(way))
    }

    /// Opens a flow.
    pub(crate) fn flow(&mut self, link: LinkId, is_client: bool) -> usize {
        self.flows.push(Flow {
            link,
            is_client,
            partner: None,
            sent: 0,
            received: 0,
            finished: false,
            saw_eof: false,
            saw_reset: false,
            aborted: false,
            done: false,
        });
        self.flows.len() - 1
    }

    /// Plans a call.
    pub(crate) fn call(&mut self, plan: CallPlan) -> usize {
        self.calls.push(Call {
            plan,
            link: None,
            sent_at: None,
            request_done: false,
            end: None,
            messages: 0,
            partial: 0,
            message: String::new(),
            saw_headers: false,
            left_at: None,
            attempts: Vec::new(),
            is_abuse: false,
        });
        self.calls.len() - 1
    }

    /// A call has ended for its caller: once.
    pub(crate) fn end(&mut self, call: usize, now: u64, end: End) {
        if let Some((_, before)) = self.calls[call].end {
            return self.problem(format!("call {call} ended twice: {before:?}, then {end:?}"));
        }
        self.calls[call].end = Some((now, end));
        if matches!(end, End::Cancelled | End::ConnLost) {
            self.calls[call].left_at = Some(now);
        }
    }
}
