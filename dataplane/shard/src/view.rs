//! The shard's side of [`CallView`]: one call, its program and the endpoints it may choose from.

use alloc::{boxed::Box, vec::Vec};

use abi::{
    CallView, EndpointIdx, EndpointStat, Flag, Leaving, Level, LogValue, Note, Num, Program, ServiceIdx,
    Side, SinkIdx, Spill, Status, Text,
};
use wire::{Headers, Instant, Token};

use crate::body::Way;
use crate::call::{Call, Phase};
use crate::counters::Counters;
use crate::endpoint::Endpoint;
use crate::messages::Messages;
use crate::metric::Metrics;
use crate::stats::ChainStats;
use crate::{ElementRecord, Log};

/// `grpc-message` of an element's reject, bytes.
const REJECT_TEXT_MAX: usize = 1024;
/// One call in this many has its elements timed.
const SAMPLED_ONE_IN: u64 = 64;

pub(crate) struct View<'a> {
    pub(crate) call: &'a mut Call,
    pub(crate) program: &'a Program,
    /// Service, endpoint: the shard-wide endpoint.
    pub(crate) places: &'a [Vec<u32>],
    pub(crate) picks: &'a mut [u64],
    pub(crate) chains: &'a mut [ChainStats],
    pub(crate) sinks: &'a [u16],
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) metric_places: &'a [u16],
    pub(crate) counters: &'a mut Counters,
    pub(crate) log: &'a mut Box<dyn Log>,
    pub(crate) now: Instant,
    pub(crate) seed: u64,
    pub(crate) shard: u16,
    pub(crate) clock: fn() -> Instant,
    /// True in `Pick`: an endpoint chosen now may be chosen again for the next attempt.
    pub(crate) is_pick: bool,
    /// Which direction's message is at hand, if one is.
    pub(crate) message: Option<Way>,
}

impl View<'_> {
    /// A sampled call's elements are timed from here.
    pub(crate) fn begin_marks(&mut self) {
        if self.is_sampled() {
            self.call.mark = (self.clock)();
        }
    }

    fn list(&self, side: Side) -> &Headers {
        match side {
            Side::Request => &self.call.request,
            Side::Response => &self.call.response,
            Side::Trailers => &self.call.trailers,
        }
    }

    fn messages(&self) -> Option<&Messages> {
        match self.message? {
            Way::ToEndpoint => self.call.to_endpoint.messages.as_deref(),
            Way::ToCaller => self.call.to_caller.messages.as_deref(),
        }
    }

    /// The endpoints of the call's destination, as shard-wide numbers.
    fn my_places(&self) -> &[u32] {
        self.call
            .destination
            .and_then(|d| self.places.get(usize::from(d.0)))
            .map_or(&[], |places| places.as_slice())
    }
}

impl CallView for View<'_> {
    fn num(&self, field: Num) -> u64 {
        match field {
            Num::Id => self.call.id,
            Num::Attempt => u64::from(self.call.attempts),
            Num::Size => self.messages().map_or(0, |m| m.size()) as u64,
            Num::LatencyNs => self.now.since_ns(self.call.started),
            Num::NowNs => self.now.0,
            Num::Status => u64::from(self.call.status.code()),
        }
    }

    fn text(&self, field: Text) -> &str {
        let utf8 = |bytes| core::str::from_utf8(bytes).unwrap_or("");
        match field {
            Text::Source | Text::PeerIdentity => self.program.service_name(self.call.source),
            Text::Service => self.call.path_halves().0,
            Text::Method => self.call.path_halves().1,
            Text::Authority => utf8(self.call.request.get(Token::Authority).unwrap_or(b"")),
            Text::Message => utf8(&self.call.message),
            Text::Flag => self.call.flag.name(),
        }
    }

    fn shard(&self) -> u16 {
        self.shard
    }

    fn peer_ip(&self) -> Option<[u8; 16]> {
        self.call.peer_ip
    }

    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        self.list(side).get_name(name.as_bytes(), nth)
    }

    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        let is_valid = wire::h2::field_is_valid(name.as_bytes(), value.unwrap_or(b""));
        if !is_valid || !may_write(name.as_bytes()) {
            self.counters.metadata_refused += 1;
            return false;
        }
        // What is written once the headers have gone travels with the trailers.
        let list = match side {
            Side::Request => &mut self.call.request,
            Side::Response if !self.call.response_headers_sent => &mut self.call.response,
            Side::Response | Side::Trailers => &mut self.call.trailers,
        };
        list.retain(|_, n, _| n != name.as_bytes());
        if let Some(value) = value {
            list.push(name.as_bytes(), value);
        }
        true
    }

    fn payload(&self) -> Option<&[u8]> {
        self.messages()?.payload()
    }

    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        let messages = match self.message {
            Some(Way::ToEndpoint) => self.call.to_endpoint.messages.as_mut(),
            Some(Way::ToCaller) => self.call.to_caller.messages.as_mut(),
            None => None,
        };
        messages.is_some_and(|m| m.set_payload(bytes))
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.call.deadline.map(|d| d.0)
    }

    fn set_deadline_ns(&mut self, at: u64) {
        if self.call.deadline.is_none_or(|d| at < d.0) {
            self.call.deadline = Some(Instant(at));
            self.call.is_deadline_moved = true;
        }
    }

    fn destination(&self) -> ServiceIdx {
        self.call.destination.unwrap_or(ServiceIdx(0))
    }

    fn set_destination(&mut self, to: ServiceIdx) {
        if self.call.destination != Some(to) {
            self.call.destination = Some(to);
            self.call.endpoint = None;
            self.call.is_pinned = false;
        }
    }

    fn endpoint(&self) -> Option<EndpointIdx> {
        self.call.endpoint
    }

    fn set_endpoint(&mut self, to: Option<EndpointIdx>) {
        let to = to.filter(|e| usize::from(e.0) < self.my_places().len());
        self.call.endpoint = to;
        self.call.is_pinned = to.is_some() && !self.is_pick;
    }

    fn endpoint_count(&self) -> usize {
        self.my_places().len()
    }

    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat> {
        let place = *self.my_places().get(usize::from(at.0))?;
        let endpoint = self.endpoints.get(place as usize)?;
        let service = self.program.services.get(usize::from(self.destination().0))?;
        Some(EndpointStat {
            healthy: endpoint.is_healthy(),
            inflight: endpoint.inflight,
            latency_ns: endpoint.latency_ns(self.now),
            weight: service.endpoints.get(usize::from(at.0)).map_or(1, |e| e.weight),
            hash: endpoint.hash,
        })
    }

    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx> {
        let is_it = |place: &u32| self.endpoints.get(*place as usize).is_some_and(|e| e.hash == hash);
        let at = self.my_places().iter().position(is_it)?;
        u16::try_from(at).ok().map(EndpointIdx)
    }

    fn endpoint_report(&self, at: EndpointIdx, name: &str) -> Option<f64> {
        let place = *self.my_places().get(usize::from(at.0))?;
        self.endpoints.get(place as usize)?.reports.as_ref()?.value(name, self.now)
    }

    fn pick_number(&mut self) -> u64 {
        let service = self.call.destination.map_or(0, |d| usize::from(d.0));
        let Some(count) = self.picks.get_mut(service) else { return 0 };
        *count += 1;
        *count - 1
    }

    fn draw(&self, element: u32, index: u32) -> u64 {
        let place = (u64::from(element) << 32) | u64::from(index);
        mix(self.seed ^ mix(self.call.id ^ mix(place)))
    }

    fn set_leaving(&mut self, how: Leaving) {
        self.call.leaving = how;
    }

    fn access_log(&mut self, sink: SinkIdx) {
        if let Some(sink) = self.sinks.get(usize::from(sink.0)) {
            self.call.add_sink(*sink);
        }
    }

    fn log(&mut self, level: Level, element: u16, fields: &[(&str, LogValue<'_>)]) {
        let chain = self.call.chain.and_then(|c| self.program.chains.get(c as usize));
        let Some(info) = chain.and_then(|c| c.plan().elements.get(usize::from(element))) else { return };
        self.log.element(&ElementRecord { at: self.now, id: self.call.id, element: info, level, fields });
    }

    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]) {
        if let Some(place) = self.metric_places.get(usize::from(metric))
            && !self.metrics.count(*place, by, labels)
        {
            self.counters.metric_sets_overflowed += 1;
        }
    }

    fn note(&mut self, what: Note) {
        *match what {
            Note::StateConflict => &mut self.counters.state_conflicts,
            Note::MapFull => &mut self.counters.map_writes_refused,
            Note::MapShared => &mut self.counters.map_keys_shared,
            Note::TextCut => &mut self.counters.texts_cut,
        } += 1;
    }

    fn observe(&mut self, metric: u16, value: f64) {
        if let Some(place) = self.metric_places.get(usize::from(metric)) {
            self.metrics.observe(*place, value);
        }
    }

    fn set_status(&mut self, status: Status, message: Option<&str>) {
        self.call.status = status;
        if let Some(text) = message {
            self.call.message.clear();
            self.call.message.extend_from_slice(text.as_bytes());
        }
        self.call.is_status_rewritten = true;
    }

    fn set_flag(&mut self, flag: Flag) {
        self.call.flag = flag;
    }

    fn set_reject_text(&mut self, text: &str) {
        let mut end = text.len().min(REJECT_TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.call.message.clear();
        self.call.message.extend_from_slice(&text.as_bytes()[..end]);
    }

    fn passed(&self) -> u16 {
        self.call.passed
    }

    fn set_passed(&mut self, elements: u16) {
        self.call.passed = elements;
    }

    fn is_sampled(&self) -> bool {
        self.call.id.is_multiple_of(SAMPLED_ONE_IN) && self.call.phase != Phase::Free
    }

    fn mark(&mut self, element: u16) {
        let now = (self.clock)();
        let chain = self.call.chain.and_then(|c| self.chains.get_mut(c as usize));
        if let Some(stats) = chain.and_then(|c| c.elements.get_mut(usize::from(element))) {
            stats.sampled += 1;
            stats.sampled_ns += now.since_ns(self.call.mark);
        }
        self.call.mark = now;
    }

    fn words(&mut self) -> &mut [u64] {
        &mut self.call.words
    }

    fn spill(&mut self) -> &mut Spill {
        &mut self.call.spill
    }
}

/// Elements may write ordinary metadata only.
fn may_write(name: &[u8]) -> bool {
    !name.starts_with(b"grpc-")
        && !name.starts_with(b"towpath-")
        && !matches!(
            Token::of(name),
            Token::Te | Token::ContentType | Token::ContentLength | Token::Host | Token::ConnectionSpecific
        )
}

/// SplitMix64's finaliser.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
