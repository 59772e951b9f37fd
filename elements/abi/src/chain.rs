//! The seam between a shard and a compiled chain.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{CallView, ElementInfo, Flag, KeyIdx, Status};

/// Where in a call's life a chain is entered. Request entries run elements left to right, response
/// entries right to left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Once per passage, before anything goes on.
    Request,
    /// Once per attempt: chooses `call.endpoint`. Made of the elements whose `request` does nothing else.
    Pick,
    /// Every message towards the upstream (`request message`), in order.
    RequestMessage,
    /// The upstream's headers, before they go on.
    ResponseHeaders,
    /// Every message towards the downstream (`response message`), in order.
    ResponseMessage,
    /// Exactly once for each passage that `Request` let through: the outcome is known. Runs only the
    /// elements left of `CallView::passed`.
    Response,
}

/// What a chain needs and does: read once by the shard, when it adopts the chain.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Elements from left to right.
    pub elements: Vec<ElementInfo>,
    /// `Entry::Request` has something to run.
    pub request: bool,
    /// `Entry::Pick` has something to run; otherwise the shard's own P2C chooses.
    pub pick: bool,
    /// `Entry::ResponseHeaders` has something to run.
    pub response_headers: bool,
    /// `Entry::Response` has something to run.
    pub response: bool,
    /// `Entry::RequestMessage` has something to run.
    pub request_message: bool,
    /// `Entry::ResponseMessage` has something to run.
    pub response_message: bool,
    /// `request` reads or changes `payload`, or reads `size`: the call waits for its one message.
    pub request_payload: bool,
    /// `response` reads or changes `payload`, or reads `size`: the answer is held until its trailers.
    pub response_payload: bool,
    /// Service and method of the calls of which that is so; of all if none is named.
    pub request_payload_of: Vec<(String, String)>,
    /// The same for the answer.
    pub response_payload_of: Vec<(String, String)>,
    /// `request message` reads or changes `payload` (else it needs the size alone).
    pub request_message_payload: bool,
    /// `response message` reads or changes `payload` (else it needs the size alone).
    pub response_message_payload: bool,
    /// `encrypt` and `decrypt` towards the upstream.
    pub request_boundary: Boundary,
    /// The same towards the downstream.
    pub response_boundary: Boundary,
    /// Some element reads what endpoints report of their load (`CallView::endpoint_report`).
    pub endpoint_reports: bool,
    /// 64-bit words of `state call` and call-parameters a passage needs in its slot.
    pub call_words: usize,
}

/// Where the messages of a direction cross between sealed and plain. Elements see them plain: they are opened
/// before the first has its say, and sealed when they leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Boundary {
    /// They come sealed with this key: `decrypt(…)`.
    pub opens: Option<KeyIdx>,
    /// They leave sealed with this key: `encrypt(…)`.
    pub seals: Option<KeyIdx>,
}

impl Boundary {
    /// There is one.
    pub const fn is_any(self) -> bool {
        self.opens.is_some() || self.seals.is_some()
    }
}

impl Plan {
    /// A call waits for its one message. `whose` gives its service and method; asked for only by plans that hold some.
    pub fn holds_request<'a>(&self, whose: impl FnOnce() -> (&'a str, &'a str)) -> bool {
        self.request_payload && is_among(&self.request_payload_of, whose())
    }

    /// An answer is held until its trailers; `whose` as in [`Plan::holds_request`].
    pub fn holds_response<'a>(&self, whose: impl FnOnce() -> (&'a str, &'a str)) -> bool {
        self.response_payload && is_among(&self.response_payload_of, whose())
    }
}

fn is_among(list: &[(String, String)], (service, method): (&str, &str)) -> bool {
    list.is_empty() || list.iter().any(|(s, m)| s == service && m == method)
}

/// A compiled chain. Any number of calls of a shard are in it at once, each suspended or not at all.
pub trait Chain: Send + Sync {
    /// What it needs and does.
    fn plan(&self) -> &Plan;

    /// Runs `entry` from `segment` (0 at first, else what the last [`Suspend`] said) until a verdict.
    fn run(&self, entry: Entry, segment: u16, call: &mut dyn CallView) -> Verdict;
}

/// What a chain decides of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Goes on.
    Forward,
    /// Ends here; the text is in `CallView::set_reject_text`.
    Reject(Reject),
    /// Goes on later.
    Suspend(Suspend),
    /// A message the chain reads cannot be read. The call ends before any handler has seen it: nothing
    /// unreadable is ever forwarded.
    Unreadable(Unreadable),
}

/// Why a message that a chain reads cannot be read. The shard says so itself for everything but the
/// message's own content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// Its bytes are no message of the method's type: INTERNAL.
    Malformed,
    /// The flag before it is neither 0 nor 1: INTERNAL.
    BadFlag,
    /// Its side ends inside it: INTERNAL.
    Cut,
    /// Compressed, and damaged or cut short: INTERNAL.
    Corrupt,
    /// Longer than `message_bytes_max`: RESOURCE_EXHAUSTED.
    TooLarge,
    /// Unpacked, it would be longer than that: RESOURCE_EXHAUSTED.
    Inflates,
    /// Compressed in a way nobody here knows: UNIMPLEMENTED.
    UnknownEncoding,
    /// A unary side without its message, or with more than one: INTERNAL.
    NotOne,
    /// No proto of the application knows the method, so nobody can say what its message means:
    /// UNIMPLEMENTED.
    UnknownMethod,
    /// A list of it has more items than the chain reads: RESOURCE_EXHAUSTED.
    ListTooLong,
    /// The call's texts are longer than a chain holds: RESOURCE_EXHAUSTED.
    TextTooLong,
}

/// An element's refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// What the caller sees.
    pub status: Status,
    /// What the access log says.
    pub flag: Flag,
    /// Which element, an index into [`Plan::elements`].
    pub element: u16,
    /// The line of the `reject` in the element's own file, from 1.
    pub line: u32,
}

/// Run on at `segment` when this has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suspend {
    /// After this many nanoseconds.
    Timer {
        /// How long.
        ns: u64,
        /// Where to go on.
        segment: u16,
        /// Which element waits, an index into [`Plan::elements`].
        element: u16,
    },
    /// When the offload job of this call completes.
    Job {
        /// Where to go on.
        segment: u16,
        /// Which element waits.
        element: u16,
    },
}
