//! What one call will do, drawn before it begins: both its peers read it from the ledger.

use abi::{Encoding, Status};
use wire::h2::Reason;

use crate::gate::GatePlan;
use crate::plan::{MS, SECOND, US};
use crate::rng::Rng;

/// Which ends stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Unary,
    ClientStream,
    ServerStream,
    /// The server answers message by message.
    Bidi,
}

/// How a caller gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancel {
    Never,
    AfterNs(u64),
    AfterMessages(usize),
    /// In the same bytes as its headers.
    AtOnce,
}

/// What one call will do.
#[derive(Clone, Debug)]
pub(crate) struct CallPlan {
    pub(crate) kind: Kind,
    /// Lengths of messages.
    pub(crate) request: Vec<usize>,
    pub(crate) response: Vec<usize>,
    pub(crate) gap_ns: u64,
    /// What the server ends with.
    pub(crate) status: Status,
    pub(crate) message: Option<&'static str>,
    pub(crate) trailers_only: bool,
    /// The server answers after so many request messages, whatever follows.
    pub(crate) early: Option<usize>,
    /// And then tells the caller to stop, instead of reading on.
    pub(crate) early_reset: bool,
    /// Attempts the server refuses first.
    pub(crate) refusals: usize,
    /// The server resets the stream after so many response messages.
    pub(crate) server_reset: Option<(usize, Reason)>,
    pub(crate) server_delay_ns: u64,
    pub(crate) cancel: Cancel,
    pub(crate) deadline_ns: Option<u64>,
    /// Custom metadata: how many fields, and the length of each value.
    pub(crate) metadata: (usize, usize),
    pub(crate) trailers: (usize, usize),
    /// The caller says it reads gzip.
    pub(crate) accepts: Option<Encoding>,
    /// The caller sends its messages compressed.
    pub(crate) sends: Option<Encoding>,
    /// The server sends its messages compressed, if the caller may.
    pub(crate) server_sends: bool,
    /// The chain is asked to reject it.
    pub(crate) reject: Option<Status>,
    /// The chain is asked to delay it, ns.
    pub(crate) chain_delay_ns: u64,
    /// Window credit is held back by so long, at each end.
    pub(crate) client_lag_ns: u64,
    pub(crate) server_lag_ns: u64,
    /// Which service, by its place in the scenario's list.
    pub(crate) to: usize,
    /// Sends headers and messages, but its end in a frame of its own or as trailers.
    pub(crate) late_end: bool,
    /// Sends none of its messages before it has seen the answer's headers.
    pub(crate) waits: bool,
    /// Names itself as only nodes name calls.
    pub(crate) names_itself: bool,
    /// What it asks of a chain that sees messages.
    pub(crate) gate: GatePlan,
}

/// Shares of things in a run, per mille.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) bytes_max: usize,
    pub(crate) cancel: u64,
    pub(crate) deadline: u64,
    pub(crate) failure: u64,
    pub(crate) refusal: u64,
    pub(crate) server_reset: u64,
    pub(crate) early: u64,
    pub(crate) reject: u64,
    pub(crate) delay: u64,
    pub(crate) compressed: u64,
    pub(crate) metadata: u64,
    /// Calls that are unary whatever else is drawn.
    pub(crate) unary: u64,
}

impl Mix {
    /// A mix with nothing but successful calls.
    pub(crate) const PLAIN: Self = Self {
        bytes_max: 2000,
        cancel: 0,
        deadline: 0,
        failure: 0,
        refusal: 0,
        server_reset: 0,
        early: 0,
        reject: 0,
        delay: 0,
        compressed: 0,
        metadata: 0,
        unary: 0,
    };

    pub(crate) fn draw(rng: &mut Rng, bytes_max: usize) -> Self {
        let mut share = |of: &[u64]| rng.pick(of);
        Self {
            bytes_max,
            cancel: share(&[0, 0, 50, 300]),
            deadline: share(&[0, 0, 50, 300]),
            failure: share(&[0, 50, 300]),
            refusal: share(&[0, 0, 50, 200]),
            server_reset: share(&[0, 0, 50, 200]),
            early: share(&[0, 0, 50, 300]),
            reject: share(&[0, 50, 300]),
            delay: share(&[0, 50, 300]),
            compressed: share(&[0, 200, 700]),
            metadata: share(&[0, 100, 700]),
            unary: 0,
        }
    }
}

const REASONS: [Reason; 7] = [
    Reason::NO_ERROR,
    Reason::CANCEL,
    Reason::INTERNAL_ERROR,
    Reason::PROTOCOL_ERROR,
    Reason::ENHANCE_YOUR_CALM,
    Reason::INADEQUATE_SECURITY,
    Reason::FLOW_CONTROL_ERROR,
];

impl CallPlan {
    pub(crate) fn draw(rng: &mut Rng, mix: &Mix) -> Self {
        let kind = rng.pick(&[Kind::Unary, Kind::Unary, Kind::ClientStream, Kind::ServerStream, Kind::Bidi]);
        let is_unary = mix.unary > 0 && rng.chance(mix.unary);
        let kind = if is_unary { Kind::Unary } else { kind };
        let streams = |is_stream: bool, rng: &mut Rng| {
            let count = if is_stream { rng.size(0, 8) } else { 1 };
            let draw = |_| if rng.chance(50) { 0 } else { rng.skewed(mix.bytes_max) };
            (0..count).map(draw).collect::<Vec<_>>()
        };
        let request = streams(matches!(kind, Kind::ClientStream | Kind::Bidi), rng);
        let mut response = streams(matches!(kind, Kind::ServerStream | Kind::Bidi), rng);
        let fails = rng.chance(mix.failure);
        let status =
            if fails { Status::from_code(u8::try_from(rng.between(1, 16)).unwrap_or(2)) } else { Status::OK };
        let trailers_only = fails && rng.chance(500);
        if trailers_only || fails && matches!(kind, Kind::Unary | Kind::ClientStream) {
            response.clear();
        }
        let early = rng.chance(mix.early).then(|| rng.size(0, request.len()));
        let refusals = if rng.chance(mix.refusal) { rng.size(1, 3) } else { 0 };
        let server_reset =
            rng.chance(mix.server_reset).then(|| (rng.size(0, response.len()), rng.pick(&REASONS)));
        let cancel = match rng.below(3) {
            _ if !rng.chance(mix.cancel) => Cancel::Never,
            0 => Cancel::AtOnce,
            1 => Cancel::AfterNs(rng.skewed(20_000_000) as u64),
            _ => Cancel::AfterMessages(rng.size(0, response.len())),
        };
        let has_deadline = rng.chance(mix.deadline);
        // Either far beyond what the call takes, or hopeless.
        let is_hopeless = has_deadline && rng.chance(500);
        let deadline_ns = has_deadline
            .then(|| if is_hopeless { rng.pick(&[1, 50 * US, 5 * MS, 300 * MS]) } else { 300 * SECOND });
        let quick = [0, 0, 50 * US, 5 * MS];
        let metadata = |rng: &mut Rng| {
            if rng.chance(mix.metadata) { (rng.size(1, 12), rng.skewed(2000)) } else { (0, 0) }
        };
        Self {
            kind,
            gap_ns: rng.pick(&[0, 0, 0, 10 * US, 3 * MS]),
            status,
            message: (fails && rng.chance(700)).then_some("it went wrong: 100% ünterwegs"),
            trailers_only,
            early,
            early_reset: rng.chance(500),
            refusals,
            server_reset,
            server_delay_ns: if is_hopeless { 40 * SECOND } else { rng.pick(&quick) },
            cancel,
            deadline_ns,
            metadata: metadata(rng),
            trailers: metadata(rng),
            accepts: rng.chance(mix.compressed).then(|| rng.pick(&[Encoding::Gzip, Encoding::Deflate])),
            sends: rng.chance(mix.compressed / 3).then(|| rng.pick(&[Encoding::Gzip, Encoding::Deflate])),
            server_sends: rng.chance(mix.compressed / 2),
            reject: rng
                .chance(mix.reject)
                .then(|| rng.pick(&[Status::UNAVAILABLE, Status::RESOURCE_EXHAUSTED])),
            chain_delay_ns: if rng.chance(mix.delay) { rng.skewed(50_000_000) as u64 } else { 0 },
            client_lag_ns: rng.pick(&[0, 0, 0, 100 * US, 5 * MS]),
            server_lag_ns: rng.pick(&[0, 0, 0, 100 * US, 5 * MS]),
            to: 0,
            late_end: rng.chance(300),
            waits: false,
            names_itself: false,
            gate: GatePlan::default(),
            request,
            response,
        }
    }

    /// The server can only answer after its time is up.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.deadline_ns.is_some_and(|ns| ns < SECOND)
    }
}

/// The custom fields of one list: names and values that follow from the call.
pub(crate) fn fields(call: usize, what: &str, (count, len): (usize, usize)) -> Vec<(String, Vec<u8>)> {
    let one = |at: usize| {
        let is_binary = at % 3 == 1;
        let name = format!("x-{what}-{}{}", at / 2, if is_binary { "-bin" } else { "" });
        let letter = |k: usize| {
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"[(call + at + k) % 64]
        };
        let len = if at == 2 { 0 } else { len / 4 * 4 };
        (name, (0..len).map(letter).collect())
    };
    (0..count).map(one).collect()
}
