//! A call that exists only to be explained: it tells what a chain does to it.

use std::cell::RefCell;

use abi::{
    CallView, Compress, EndpointIdx, EndpointStat, Flag, Leaving, Level, LogValue, Note, Num, Program,
    ServiceIdx, Side, SinkIdx, Spill, Status, Text,
};

use crate::vm::code::Fmt;
use crate::vm::text::{mix, unit, write_word};

use super::call::Imagined;

/// When the call is: any instant does.
const NOW_NS: u64 = 1_000_000_000;

/// The call, and what has happened to it since somebody looked.
pub(super) struct View<'a> {
    program: &'a Program,
    call: &'a Imagined,
    pub(super) now_ns: u64,
    lists: [Vec<(String, Vec<u8>)>; 3],
    deadline: Option<u64>,
    destination: ServiceIdx,
    pub(super) endpoint: Option<EndpointIdx>,
    pub(super) status: Status,
    message: String,
    flag: Flag,
    pub(super) reject_text: String,
    passed: u16,
    picks: u64,
    words: Vec<u64>,
    spill: Spill,
    pub(super) payload: Option<Vec<u8>>,
    /// What happened, and in which element; the latest are not assigned yet.
    open: RefCell<Vec<String>>,
    pub(super) done: Vec<(u16, Vec<String>)>,
}

fn list_of(side: Side) -> usize {
    match side {
        Side::Request => 0,
        Side::Response => 1,
        Side::Trailers => 2,
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

/// A time as the language writes it.
pub(super) fn duration(ns: u64) -> String {
    let mut out = String::new();
    write_word(&mut out, Fmt::Duration, ns);
    out
}

impl<'a> View<'a> {
    pub(super) fn new(program: &'a Program, call: &'a Imagined, to: ServiceIdx, words: usize) -> Self {
        let request = call.headers.iter().map(|(k, v)| (k.to_lowercase(), v.as_bytes().to_vec())).collect();
        Self {
            program,
            call,
            now_ns: NOW_NS,
            lists: [request, Vec::new(), Vec::new()],
            deadline: None,
            destination: to,
            endpoint: None,
            status: Status::OK,
            message: String::new(),
            flag: Flag::None,
            reject_text: String::new(),
            passed: 0,
            picks: 0,
            words: vec![0; words],
            spill: Spill::default(),
            payload: call.message.clone(),
            open: RefCell::default(),
            done: Vec::new(),
        }
    }

    fn event(&self, text: String) {
        self.open.borrow_mut().push(text);
    }

    /// What has happened belongs to this element.
    pub(super) fn close(&mut self, element: u16) {
        let events = self.open.take();
        match self.done.last_mut() {
            Some((last, so_far)) if *last == element => so_far.extend(events),
            _ => self.done.push((element, events)),
        }
    }

    /// Takes what happened so far, by element.
    pub(super) fn take(&mut self) -> Vec<(u16, Vec<String>)> {
        std::mem::take(&mut self.done)
    }

    fn service(&self) -> Option<&abi::Service> {
        self.program.services.get(usize::from(self.destination.0))
    }

    /// The address of an endpoint of the destination.
    pub(super) fn address(&self, at: EndpointIdx) -> String {
        let endpoint = self.service().and_then(|s| s.endpoints.get(usize::from(at.0)));
        endpoint.map_or_else(|| "none".to_owned(), |e| e.addr.to_string())
    }

    /// The destination's name.
    pub(super) fn destination_name(&self) -> &str {
        self.service().map_or("", |s| s.name.as_str())
    }
}

fn value(value: &LogValue<'_>) -> String {
    match value {
        LogValue::None => "none".to_owned(),
        LogValue::Bool(b) => b.to_string(),
        LogValue::Int(n) => n.to_string(),
        LogValue::Uint(n) => n.to_string(),
        LogValue::Float(x) => x.to_string(),
        LogValue::Text(text) => (*text).to_owned(),
    }
}

fn fields(fields: &[(&str, LogValue<'_>)]) -> String {
    fields.iter().map(|(name, v)| format!(" {name}={}", value(v))).collect()
}

impl CallView for View<'_> {
    fn num(&self, field: Num) -> u64 {
        match field {
            Num::Id => 0,
            Num::Attempt => 1,
            Num::Size => self.payload.as_ref().map_or(0, |p| p.len() as u64),
            Num::LatencyNs => self.now_ns - NOW_NS,
            Num::NowNs => self.now_ns,
            Num::Status => u64::from(self.status.code()),
        }
    }

    fn text(&self, field: Text) -> &str {
        match field {
            Text::Source => self.call.source.as_deref().unwrap_or(""),
            Text::Service => &self.call.service,
            Text::Method => &self.call.method,
            Text::Authority => &self.call.destination,
            Text::PeerIdentity => "",
            Text::Message => &self.message,
            Text::Flag => self.flag.name(),
        }
    }

    fn shard(&self) -> u16 {
        0
    }

    fn peer_ip(&self) -> Option<[u8; 16]> {
        self.call.peer.map(|ip| match ip {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(ip) => ip.octets(),
        })
    }

    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        let list = self.lists.get(list_of(side))?;
        list.iter().filter(|(n, _)| n == name).nth(nth).map(|(_, v)| v.as_slice())
    }

    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        let what = ["metadata", "answer's metadata", "trailers"].get(list_of(side)).copied().unwrap_or("");
        self.event(match value {
            Some(value) => format!("{what}[{name:?}] = {}", quoted(value)),
            None => format!("{what}[{name:?}] is removed"),
        });
        if let Some(list) = self.lists.get_mut(list_of(side)) {
            list.retain(|(n, _)| n != name);
            list.extend(value.map(|v| (name.to_owned(), v.to_vec())));
        }
        true
    }

    fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        if self.payload.is_none() {
            return false;
        }
        self.event(format!("the message is written anew, {} bytes", bytes.len()));
        self.payload = Some(bytes.to_vec());
        true
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.deadline
    }

    fn set_deadline_ns(&mut self, at: u64) {
        let nearer = self.deadline.is_none_or(|d| at < d);
        let left = duration(at.saturating_sub(self.now_ns));
        self.event(if nearer {
            format!("deadline in {left}")
        } else {
            format!("a deadline in {left} changes nothing: the call's is nearer")
        });
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }

    fn destination(&self) -> ServiceIdx {
        self.destination
    }

    fn set_destination(&mut self, to: ServiceIdx) {
        self.destination = to;
        self.endpoint = None;
        self.event(format!("destination = {}", self.destination_name()));
    }

    fn endpoint(&self) -> Option<EndpointIdx> {
        self.endpoint
    }

    fn set_endpoint(&mut self, to: Option<EndpointIdx>) {
        self.endpoint = to;
        self.event(match to {
            Some(at) => format!("endpoint = {}", self.address(at)),
            None => "endpoint is left open".to_owned(),
        });
    }

    fn endpoint_count(&self) -> usize {
        self.service().map_or(0, |s| s.endpoints.len())
    }

    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat> {
        let endpoint = self.service()?.endpoints.get(usize::from(at.0))?;
        Some(EndpointStat {
            healthy: true,
            inflight: 0,
            latency_ns: 0,
            weight: endpoint.weight,
            hash: endpoint.addr.ring_place(),
        })
    }

    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx> {
        let is_it = |e: &abi::Endpoint| e.addr.ring_place() == hash;
        let at = self.service()?.endpoints.iter().position(is_it)?;
        u16::try_from(at).ok().map(EndpointIdx)
    }

    fn endpoint_report(&self, _at: EndpointIdx, _name: &str) -> Option<f64> {
        None
    }

    fn pick_number(&mut self) -> u64 {
        self.picks += 1;
        self.picks - 1
    }

    fn draw(&self, element: u32, index: u32) -> u64 {
        let drawn = mix(self.call.seed, (u64::from(element) << 32) | u64::from(index));
        self.event(format!("drew {:.4} by seed {}", unit(drawn), self.call.seed));
        drawn
    }

    fn set_leaving(&mut self, how: Leaving) {
        self.event(match how {
            Leaving::AsCame => return,
            Leaving::Plain => "messages leave plain".to_owned(),
            Leaving::Packed(Compress { encoding, min_bytes }) => {
                format!(
                    "messages from {min_bytes} bytes leave as {} where the peer takes it",
                    encoding.name()
                )
            }
        });
    }

    fn access_log(&mut self, sink: SinkIdx) {
        let to = self.program.sinks.get(usize::from(sink.0)).map_or("", String::as_str);
        self.event(format!("an access-log line goes to {to} at the end"));
    }

    fn log(&mut self, level: Level, _element: u16, of: &[(&str, LogValue<'_>)]) {
        self.event(match of {
            [("would", what)] => format!("would {}", value(what)),
            _ => format!("logs {}:{}", format!("{level:?}").to_lowercase(), fields(of)),
        });
    }

    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]) {
        let name = self.program.metrics.get(usize::from(metric)).map_or("", String::as_str);
        // What a dry run counts is told by its log line.
        if name != "would" {
            self.event(format!("counts {name} +{by}{}", fields(labels)));
        }
    }

    fn note(&mut self, what: Note) {
        self.event(format!("note: {what:?}"));
    }

    fn observe(&mut self, metric: u16, value: f64) {
        let name = self.program.metrics.get(usize::from(metric)).map_or("", String::as_str);
        self.event(format!("observes {name} {value}"));
    }

    fn set_status(&mut self, status: Status, message: Option<&str>) {
        self.status = status;
        let text = message.map(|m| format!(" {m:?}")).unwrap_or_default();
        self.event(format!("outcome = {}{text}", status.name()));
        if let Some(message) = message {
            message.clone_into(&mut self.message);
        }
    }

    fn set_flag(&mut self, flag: Flag) {
        self.flag = flag;
    }

    fn set_reject_text(&mut self, text: &str) {
        text.clone_into(&mut self.reject_text);
    }

    fn passed(&self) -> u16 {
        self.passed
    }

    fn set_passed(&mut self, elements: u16) {
        self.passed = elements;
    }

    fn is_sampled(&self) -> bool {
        true
    }

    fn mark(&mut self, element: u16) {
        self.close(element);
    }

    fn words(&mut self) -> &mut [u64] {
        &mut self.words
    }

    fn spill(&mut self) -> &mut Spill {
        &mut self.spill
    }
}
