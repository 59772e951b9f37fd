//! A call that remembers what a chain did to it.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::panic, reason = "a helper that fails fails its test")]

use abi::{
    CallView, Compress, EndpointIdx, EndpointStat, Entry, Flag, Leaving, Level, LogValue, Note, Num,
    ServiceIdx, Side, SinkIdx, Spill, Status, Text, Verdict,
};
use towpath_lang::{self as lang, Compiled, NoFiles, Overrides};

/// A call in memory.
#[derive(Clone, Default)]
pub(crate) struct Mock {
    pub(crate) id: u64,
    pub(crate) attempt: u64,
    pub(crate) now_ns: u64,
    pub(crate) latency_ns: u64,
    pub(crate) status: u64,
    pub(crate) source: String,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) message: String,
    pub(crate) ip: Option<[u8; 16]>,
    pub(crate) request: Vec<(String, Vec<u8>)>,
    pub(crate) response: Vec<(String, Vec<u8>)>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) deadline: Option<u64>,
    pub(crate) destination: u16,
    pub(crate) endpoint: Option<u16>,
    pub(crate) endpoints: Vec<EndpointStat>,
    pub(crate) picks: u64,
    pub(crate) leaving: Leaving,
    pub(crate) sink: Option<u16>,
    pub(crate) logs: Vec<String>,
    pub(crate) counts: Vec<(u16, u64)>,
    pub(crate) labels: Vec<String>,
    pub(crate) observed: Vec<(u16, f64)>,
    pub(crate) flag: Option<Flag>,
    pub(crate) reject_text: String,
    pub(crate) passed: u16,
    pub(crate) sampled: bool,
    pub(crate) shard: u16,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) reports: Vec<(u16, String, f64)>,
    pub(crate) notes: Vec<Note>,
    pub(crate) marks: Vec<u16>,
    pub(crate) words: Vec<u64>,
    pub(crate) spill: Spill,
}

pub(crate) fn endpoint(hash: u64) -> EndpointStat {
    let hash = (hash + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    EndpointStat { healthy: true, inflight: 0, latency_ns: 0, weight: 1, hash }
}

impl Mock {
    pub(crate) fn new(endpoints: usize) -> Self {
        Self {
            attempt: 1,
            now_ns: 1_000_000_000,
            source: "frontend".into(),
            service: "shop.Catalog".into(),
            method: "List".into(),
            endpoints: (0..endpoints as u64).map(endpoint).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request.push((name.into(), value.as_bytes().to_vec()));
        self
    }

    fn list(&self, side: Side) -> &Vec<(String, Vec<u8>)> {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
            Side::Trailers => &self.trailers,
        }
    }

    pub(crate) fn request_header(&self, name: &str) -> Option<String> {
        self.request.iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    }
}

impl CallView for Mock {
    fn num(&self, field: Num) -> u64 {
        match field {
            Num::Id => self.id,
            Num::Attempt => self.attempt,
            Num::Size => self.payload.as_ref().map_or(0, |p| p.len() as u64),
            Num::LatencyNs => self.latency_ns,
            Num::NowNs => self.now_ns,
            Num::Status => self.status,
        }
    }
    fn text(&self, field: Text) -> &str {
        match field {
            Text::Source => &self.source,
            Text::Service => &self.service,
            Text::Method => &self.method,
            Text::Message => &self.message,
            Text::Authority => "catalog",
            Text::PeerIdentity | Text::Flag => "",
        }
    }
    fn peer_ip(&self) -> Option<[u8; 16]> {
        self.ip
    }
    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        self.list(side).iter().filter(|(n, _)| n == name).nth(nth).map(|(_, v)| v.as_slice())
    }
    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        let list = match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
            Side::Trailers => &mut self.trailers,
        };
        list.retain(|(n, _)| n != name);
        if let Some(value) = value {
            list.push((name.into(), value.to_vec()));
        }
        true
    }
    fn deadline_ns(&self) -> Option<u64> {
        self.deadline
    }
    fn set_deadline_ns(&mut self, at: u64) {
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }
    fn destination(&self) -> ServiceIdx {
        ServiceIdx(self.destination)
    }
    fn set_destination(&mut self, to: ServiceIdx) {
        self.destination = to.0;
    }
    fn endpoint(&self) -> Option<EndpointIdx> {
        self.endpoint.map(EndpointIdx)
    }
    fn set_endpoint(&mut self, to: Option<EndpointIdx>) {
        self.endpoint = to.map(|e| e.0);
    }
    fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }
    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat> {
        self.endpoints.get(usize::from(at.0)).copied()
    }
    fn shard(&self) -> u16 {
        self.shard
    }
    fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }
    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        let Some(held) = &mut self.payload else { return false };
        held.clear();
        held.extend_from_slice(bytes);
        true
    }
    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx> {
        let at = self.endpoints.iter().position(|e| e.hash == hash)?;
        u16::try_from(at).ok().map(EndpointIdx)
    }
    fn endpoint_report(&self, at: EndpointIdx, name: &str) -> Option<f64> {
        self.reports.iter().find(|(e, n, _)| *e == at.0 && n == name).map(|(.., value)| *value)
    }
    fn note(&mut self, what: Note) {
        self.notes.push(what);
    }
    fn pick_number(&mut self) -> u64 {
        self.picks += 1;
        self.picks - 1
    }
    fn draw(&self, element: u32, index: u32) -> u64 {
        let mut x =
            self.id ^ (u64::from(element) << 32 | u64::from(index)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
    fn set_leaving(&mut self, how: Leaving) {
        self.leaving = how;
    }
    fn access_log(&mut self, sink: SinkIdx) {
        self.sink = Some(sink.0);
    }
    fn log(&mut self, level: Level, element: u16, fields: &[(&str, LogValue<'_>)]) {
        self.logs.push(format!("{level:?} {element} {fields:?}"));
    }
    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]) {
        self.counts.push((metric, by));
        if !labels.is_empty() {
            self.labels.push(format!("{labels:?}"));
        }
    }
    fn observe(&mut self, metric: u16, value: f64) {
        self.observed.push((metric, value));
    }
    fn set_status(&mut self, status: Status, message: Option<&str>) {
        self.status = u64::from(status.code());
        if let Some(message) = message {
            self.message = message.into();
        }
    }
    fn set_flag(&mut self, flag: Flag) {
        self.flag = Some(flag);
    }
    fn set_reject_text(&mut self, text: &str) {
        self.reject_text.clear();
        self.reject_text.push_str(text);
    }
    fn passed(&self) -> u16 {
        self.passed
    }
    fn set_passed(&mut self, elements: u16) {
        self.passed = elements;
    }
    fn is_sampled(&self) -> bool {
        self.sampled
    }
    fn mark(&mut self, element: u16) {
        self.marks.push(element);
    }
    fn words(&mut self) -> &mut [u64] {
        &mut self.words
    }
    fn spill(&mut self) -> &mut Spill {
        &mut self.spill
    }
}

/// Services, rule and elements of a test in one text.
pub(crate) fn app(rule: &str, rest: &str) -> String {
    format!(
        "service frontend\nservice catalog {{ endpoints: [\"127.0.0.1:1\", {{ address: \"127.0.0.1:2\", weight: 3, zone: \"b\", labels: {{ tier: \"gold\" }} }}] }}\nservice canary {{ endpoints: [\"127.0.0.1:9\"] }}\nfrontend -> catalog: {rule}\n{rest}\n"
    )
}

pub(crate) fn compiled(source: &str) -> Compiled {
    let mut compiled = lang::compile("test.adn", source, &NoFiles, &Overrides::default())
        .unwrap_or_else(|e| panic!("{e}\n{source}"));
    compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
    compiled
}

/// The same with the state of a store, and what became of that state.
pub(crate) fn linked(source: &str, store: &mut lang::state::Store) -> (Compiled, lang::state::StateReport) {
    let mut compiled = lang::compile("test.adn", source, &NoFiles, &Overrides::default())
        .unwrap_or_else(|e| panic!("{e}\n{source}"));
    let report = compiled.link(store, &mut lang::Interpreter);
    (compiled, report)
}

/// What is wrong with a source.
pub(crate) fn errors(source: &str) -> String {
    match lang::compile("test.adn", source, &NoFiles, &Overrides::default()) {
        Ok(_) => panic!("compiles:\n{source}"),
        Err(errors) => errors.to_string(),
    }
}

/// A compiled test and a call for it.
pub(crate) fn one(rule: &str, rest: &str) -> (Compiled, Mock) {
    let compiled = compiled(&app(rule, rest));
    let mut mock = Mock::new(2);
    mock.destination = 1;
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    (compiled, mock)
}

/// Runs an entry to a verdict, over all delays; returns it and the delays.
pub(crate) fn run(compiled: &Compiled, entry: Entry, mock: &mut Mock) -> (Verdict, Vec<u64>) {
    let mut segment = 0;
    let mut delays = Vec::new();
    loop {
        match compiled.program.chains[0].run(entry, segment, mock) {
            Verdict::Suspend(abi::Suspend::Timer { ns, segment: to, .. }) => {
                delays.push(ns);
                segment = to;
            }
            verdict => return (verdict, delays),
        }
    }
}

/// Request, pick and, if it was let through, response.
pub(crate) fn passage(compiled: &Compiled, mock: &mut Mock) -> Verdict {
    let (verdict, _) = run(compiled, Entry::Request, mock);
    if verdict == Verdict::Forward {
        run(compiled, Entry::Pick, mock);
    }
    run(compiled, Entry::Response, mock);
    verdict
}

/// What `compress(…)` asked for.
pub(crate) fn packed(leaving: Leaving) -> Option<Compress> {
    match leaving {
        Leaving::Packed(how) => Some(how),
        Leaving::AsCame | Leaving::Plain => None,
    }
}
