//! An endpoint as this shard knows it: its health, its load, and the calls that wait for it.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use abi::{Addr, Encoding};
use wire::Instant;

use crate::Via;
use crate::Why;
use crate::callers::CallerId;
use crate::limits::SECOND;
use crate::report::Reports;
use crate::slab::Key;

/// The EWMA's decay, nanoseconds (Linkerd's 10 s).
const DECAY_NS: f64 = 10e9;
const DECAY_NS_INT: u64 = 10 * SECOND;
/// Lines of waiting calls that are kept when they are empty.
const KEPT_LINES: usize = 8;
/// A call may ask for another attempt at an endpoint this long after the last one began.
const ASK_AGAIN_NS: u64 = SECOND;

/// Whether an endpoint takes calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    /// Never tried: calls may wait for its first connection.
    Unknown,
    /// Has, or had last time, a connection.
    Up,
    /// The last attempt failed: tried again in the background, no call waits for it.
    Down,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) addr: Addr,
    pub(crate) via: Via,
    /// Its place on a ring: a hash of its address, stable over reloads.
    pub(crate) hash: u64,
    /// Generations that name it; with none it is forgotten when its last call ends.
    pub(crate) generations: u32,
    pub(crate) health: Health,
    pub(crate) conns: Vec<Key>,
    /// Connection attempts under way.
    pub(crate) connecting: u32,
    /// A timer for the next attempt runs.
    pub(crate) is_backing_off: bool,
    pub(crate) failures_in_row: u32,
    pub(crate) attempted_at: Instant,
    pub(crate) last_why: Option<Why>,
    /// What it said instead of SETTINGS, if it said anything.
    pub(crate) last_fault: Option<wire::h2::Fault>,
    pub(crate) inflight: u32,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) saved_bytes: u64,
    /// What it has said of its load, where some chain reads that.
    pub(crate) reports: Option<Box<Reports>>,
    latency_ns: f64,
    latency_at: Instant,
    /// `grpc-accept-encoding` of its last answer, by `Encoding`.
    accepts: [bool; Encoding::ALL.len()],
    queue: WaitQueue,
    holders: Holders,
}

impl Endpoint {
    pub(crate) fn new(addr: Addr, via: Via, hash: u64) -> Self {
        Self {
            addr,
            via,
            hash,
            generations: 0,
            health: Health::Unknown,
            conns: Vec::new(),
            connecting: 0,
            is_backing_off: false,
            failures_in_row: 0,
            attempted_at: Instant(0),
            last_why: None,
            last_fault: None,
            inflight: 0,
            calls: 0,
            failures: 0,
            saved_bytes: 0,
            reports: None,
            latency_ns: 0.0,
            latency_at: Instant(0),
            accepts: [false; Encoding::ALL.len()],
            queue: WaitQueue::default(),
            holders: Holders::default(),
        }
    }

    /// Takes calls.
    pub(crate) fn is_healthy(&self) -> bool {
        self.health != Health::Down
    }

    /// A call found it down: is it time to try again?
    pub(crate) fn may_be_asked_again(&self, now: Instant) -> bool {
        self.connecting == 0 && now.since_ns(self.attempted_at) >= ASK_AGAIN_NS
    }

    /// Peak EWMA (Linkerd's, after Finagle): a slower answer counts at once, a faster one decays in.
    pub(crate) fn observe(&mut self, latency_ns: u64, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "52 bits of nanoseconds are 52 days")]
        let sample = latency_ns as f64;
        let keep = self.weight_of_past(now);
        self.latency_ns =
            if sample > self.latency_ns { sample } else { self.latency_ns * keep + sample * (1.0 - keep) };
        self.latency_at = now;
    }

    /// Its answer time now, nanoseconds: decays while nothing is heard, so that a peak is tried again.
    pub(crate) fn latency_ns(&self, now: Instant) -> u64 {
        // Within a thousandth of the decay nothing has faded: the division is saved where calls are many.
        let is_recent = now.since_ns(self.latency_at) < DECAY_NS_INT / 1000;
        let decayed = if is_recent { self.latency_ns } else { self.latency_ns * self.weight_of_past(now) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and bounded")]
        let ns = decayed as u64;
        // An endpoint that has answered is never as good as one that nobody has asked yet.
        if self.latency_ns > 0.0 { ns.max(1) } else { 0 }
    }

    /// exp(-t/decay) as 1/(1+t/decay): close enough for t much smaller than the decay, and no libm.
    fn weight_of_past(&self, now: Instant) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "52 bits of nanoseconds are 52 days")]
        let since = now.since_ns(self.latency_at) as f64;
        1.0 / (1.0 + since / DECAY_NS)
    }

    pub(crate) fn accepts(&self, encoding: Encoding) -> bool {
        self.accepts[encoding as usize]
    }

    /// Its answer said which encodings it reads.
    pub(crate) fn learn_accepts(&mut self, list: &[u8]) {
        for encoding in Encoding::ALL {
            self.accepts[encoding as usize] = names_encoding(list, encoding);
        }
    }

    /// A call of this caller got a stream.
    pub(crate) fn took_stream(&mut self, caller: CallerId) {
        self.inflight += 1;
        self.holders.add(caller);
    }

    /// It gave the stream back.
    pub(crate) fn gave_stream(&mut self, caller: CallerId) {
        self.inflight = self.inflight.saturating_sub(1);
        self.holders.sub(caller);
    }

    /// True if others hold so many streams that this caller has less than an equal share.
    pub(crate) fn is_short(&self, caller: CallerId) -> bool {
        let held = self.holders.of(caller);
        let among = self.holders.count + u32::from(held == 0);
        u64::from(held) * u64::from(among) < u64::from(self.inflight)
    }

    pub(crate) fn queue(&mut self) -> &mut WaitQueue {
        &mut self.queue
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len
    }
}

/// How many streams each caller holds.
#[derive(Debug, Default)]
struct Holders {
    streams: Vec<u32>,
    /// Callers that hold any.
    count: u32,
}

impl Holders {
    fn of(&self, caller: CallerId) -> u32 {
        self.streams.get(usize::from(caller.0)).copied().unwrap_or(0)
    }

    fn add(&mut self, caller: CallerId) {
        let at = usize::from(caller.0);
        if self.streams.len() <= at {
            self.streams.resize(at + 1, 0);
        }
        self.count += u32::from(self.streams[at] == 0);
        self.streams[at] += 1;
    }

    fn sub(&mut self, caller: CallerId) {
        let Some(streams) = self.streams.get_mut(usize::from(caller.0)).filter(|n| **n > 0) else { return };
        *streams -= 1;
        self.count -= u32::from(*streams == 0);
    }
}

/// True if a `grpc-accept-encoding` list names this encoding.
pub(crate) fn names_encoding(list: &[u8], encoding: Encoding) -> bool {
    list.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(encoding.name().as_bytes()))
}

/// Calls that wait for a stream, first come first served within a caller, callers in turn.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    lines: Vec<(CallerId, VecDeque<Key>)>,
    turn: usize,
    len: usize,
}

impl WaitQueue {
    /// How many calls of this caller wait.
    pub(crate) fn waiting(&self, caller: CallerId) -> usize {
        self.lines.iter().find(|(c, _)| *c == caller).map_or(0, |(_, line)| line.len())
    }

    /// The caller whose calls wait in this line; `None` beyond the last line.
    pub(crate) fn caller_at(&self, line: usize) -> Option<(CallerId, bool)> {
        self.lines.get(line).map(|(caller, calls)| (*caller, !calls.is_empty()))
    }

    pub(crate) fn push(&mut self, caller: CallerId, call: Key) {
        self.len += 1;
        match self.lines.iter_mut().find(|(c, _)| *c == caller) {
            Some((_, line)) => line.push_back(call),
            None => self.lines.push((caller, VecDeque::from([call]))),
        }
    }

    /// The next call, and the next caller's turn after it. `may` refuses callers that cannot go now.
    pub(crate) fn pop(&mut self, mut may: impl FnMut(CallerId) -> bool) -> Option<Key> {
        let lines = self.lines.len();
        for step in 0..lines {
            let at = (self.turn + step) % lines;
            let (caller, line) = &mut self.lines[at];
            if !may(*caller) {
                continue;
            }
            let Some(call) = line.pop_front() else { continue };
            self.len -= 1;
            self.turn = (at + 1) % lines;
            self.forget_line(at);
            return Some(call);
        }
        None
    }

    /// Takes a call out wherever it stands.
    pub(crate) fn remove(&mut self, caller: CallerId, call: Key) {
        let Some(at) = self.lines.iter().position(|(c, _)| *c == caller) else { return };
        let line = &mut self.lines[at].1;
        if let Some(place) = line.iter().position(|k| *k == call) {
            line.remove(place);
            self.len -= 1;
        }
        self.forget_line(at);
    }

    /// An empty line goes once there are many; a few stay, so that waiting allocates nothing.
    fn forget_line(&mut self, at: usize) {
        if self.lines.len() > KEPT_LINES && self.lines[at].1.is_empty() {
            self.lines.swap_remove(at);
            self.turn = at % self.lines.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn callers_take_turns_whatever_the_length_of_their_lines() {
        let mut queue = WaitQueue::default();
        for n in 0..5 {
            queue.push(CallerId(1), key(n));
        }
        queue.push(CallerId(2), key(10));
        queue.push(CallerId(2), key(11));
        let order: Vec<u32> = core::iter::from_fn(|| queue.pop(|_| true)).map(|k| k.index).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3, 4]);
        assert_eq!(queue.len, 0);
    }

    #[test]
    fn a_removed_call_is_not_served_and_a_refused_caller_keeps_its_place() {
        let mut queue = WaitQueue::default();
        queue.push(CallerId(1), key(0));
        queue.push(CallerId(1), key(1));
        queue.push(CallerId(2), key(2));
        queue.remove(CallerId(1), key(0));
        assert_eq!(queue.pop(|c| c == CallerId(2)).map(|k| k.index), Some(2));
        assert_eq!(queue.waiting(CallerId(1)), 1);
        assert_eq!(queue.pop(|_| true).map(|k| k.index), Some(1));
    }

    #[test]
    fn peak_ewma_rises_at_once_and_falls_slowly() {
        let mut e = Endpoint::new(Addr::Unix("x".into()), Via::Route, 0);
        assert_eq!(e.latency_ns(Instant(0)), 0);
        e.observe(1_000, Instant(0));
        e.observe(9_000, Instant(10));
        assert_eq!(e.latency_ns(Instant(10)), 9_000);
        e.observe(1_000, Instant(1_000_000_010));
        let now = e.latency_ns(Instant(1_000_000_010));
        assert!((8_000..9_000).contains(&now), "{now}");
        assert!(e.latency_ns(Instant(100_000_000_000)) < 1_000);
    }

    #[test]
    fn accept_lists() {
        assert!(names_encoding(b"identity, deflate,gzip", Encoding::Gzip));
        assert!(!names_encoding(b"identity", Encoding::Gzip));
        assert!(!names_encoding(b"xgzip", Encoding::Gzip));
    }
}
