//! A call in memory that writes down everything a chain does to it, in order.

use abi::{
    CallView, EndpointIdx, EndpointStat, Flag, Leaving, Level, LogValue, Note, Num, ServiceIdx, Side,
    SinkIdx, Spill, Status, Text,
};

use crate::rng::{Rng, mix};

/// Header names that programs and calls share, so that programs find something.
pub const KEYS: [&str; 6] = ["x-a", "x-b", "x-tenant", "x-num", "x-none", "x-bytes-bin"];
/// Texts that calls carry and programs compare with.
pub const TEXTS: [&str; 12] = [
    "",
    "a",
    "b",
    "ab",
    "Acme",
    "17",
    "-3",
    "10.1.2.3",
    "über straße",
    "a,b",
    "x y  z ",
    "9223372036854775807",
];
/// Methods of `shop.Catalog`.
pub const METHODS: [&str; 3] = ["List", "Get", "Export"];

type Headers = Vec<(String, Vec<u8>)>;

/// A call. Two that went through the same are equal.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was done, in order.
    pub journal: Vec<String>,
    /// Where the clock stands; moved by suspensions.
    pub now_ns: u64,
    /// The outcome as `response` sees it.
    pub status: u64,
    /// Which attempt, from 1.
    pub attempt: u64,
    /// The message at hand.
    pub payload: Option<Vec<u8>>,
    /// `Plan::call_words` words.
    pub words: Vec<u64>,
    /// Elements that let the request through.
    pub passed: u16,
    id: u64,
    shard: u16,
    began_ns: u64,
    source: &'static str,
    method: &'static str,
    message: String,
    ip: Option<[u8; 16]>,
    headers: [Headers; 3],
    deadline: Option<u64>,
    destination: u16,
    endpoint: Option<u16>,
    stats: Vec<EndpointStat>,
    reports: Vec<f64>,
    picks: u64,
    spill: Spill,
}

fn headers(rng: &mut Rng) -> Headers {
    let mut list = Vec::new();
    for key in KEYS {
        for _ in 0..rng.below(3) {
            let text = rng.pick(&TEXTS);
            let value = if key.ends_with("-bin") { b"YWJj".to_vec() } else { text.as_bytes().to_vec() };
            list.push((key.to_owned(), value));
        }
    }
    if rng.once_in(20) {
        list.push(("x-a".into(), vec![0xff, 0xfe, b'a']));
    }
    list
}

impl Call {
    /// A call by chance; `id` is its number.
    pub fn new(rng: &mut Rng, id: u64, shard: u16, now_ns: u64, words: usize) -> Self {
        let endpoints = rng.below(5);
        let stats = (0..endpoints as u64)
            .map(|at| EndpointStat {
                healthy: !rng.once_in(4),
                inflight: u32::try_from(rng.below(9)).unwrap_or(0),
                latency_ns: rng.word() >> (20 + rng.below(30)),
                weight: u32::try_from(rng.below(4)).unwrap_or(0),
                hash: mix(at + 1),
            })
            .collect();
        Self {
            journal: Vec::new(),
            now_ns,
            status: rng.below(17) as u64,
            attempt: 1 + rng.below(3) as u64,
            payload: None,
            words: vec![0; words],
            passed: 0,
            id,
            shard,
            began_ns: now_ns,
            source: rng.pick(&["frontend", "", "unheard-of"]),
            method: rng.pick(&METHODS),
            message: rng.pick(&TEXTS).to_owned(),
            ip: (!rng.once_in(3)).then(|| std::net::Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets()),
            headers: [headers(rng), headers(rng), headers(rng)],
            deadline: rng.once_in(2).then(|| now_ns + (rng.word() >> 30)),
            destination: 1,
            endpoint: None,
            stats,
            reports: (0..endpoints).map(|_| rng.below(100) as f64 / 7.0).collect(),
            picks: rng.below(10) as u64,
            spill: Spill::default(),
        }
    }

    /// Everything that must agree; how the chain keeps its own things is its own business.
    pub fn account(&self) -> String {
        let Self {
            headers, deadline, destination, endpoint, picks, status, message, passed, payload, ..
        } = self;
        format!(
            "{}\npassed {passed} status {status} {message:?} deadline {deadline:?} destination {destination} \
             endpoint {endpoint:?} picks {picks} payload {payload:?}\n{headers:?}",
            self.journal.join("\n")
        )
    }

    fn did(&mut self, what: String) {
        self.journal.push(what);
    }
}

fn place(side: Side) -> usize {
    match side {
        Side::Request => 0,
        Side::Response => 1,
        Side::Trailers => 2,
    }
}

impl CallView for Call {
    fn num(&self, field: Num) -> u64 {
        match field {
            Num::Id => self.id,
            Num::Attempt => self.attempt,
            Num::Size => self.payload.as_ref().map_or(0, |p| p.len() as u64),
            Num::LatencyNs => self.now_ns - self.began_ns,
            Num::NowNs => self.now_ns,
            Num::Status => self.status,
        }
    }
    fn text(&self, field: Text) -> &str {
        match field {
            Text::Source => self.source,
            Text::Service => "shop.Catalog",
            Text::Method => self.method,
            Text::Authority => "catalog:443",
            Text::PeerIdentity => self.source,
            Text::Message => &self.message,
            Text::Flag => "",
        }
    }
    fn shard(&self) -> u16 {
        self.shard
    }
    fn peer_ip(&self) -> Option<[u8; 16]> {
        self.ip
    }
    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        let list = &self.headers[place(side)];
        list.iter().filter(|(n, _)| n == name).nth(nth).map(|(_, v)| v.as_slice())
    }
    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        self.did(format!("{side:?} {name} = {value:?}"));
        let list = &mut self.headers[place(side)];
        list.retain(|(n, _)| n != name);
        if let Some(value) = value {
            list.push((name.to_owned(), value.to_vec()));
        }
        true
    }
    fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }
    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        self.did(format!("payload = {bytes:?}"));
        let held = self.payload.is_some();
        if held {
            self.payload = Some(bytes.to_vec());
        }
        held
    }
    fn deadline_ns(&self) -> Option<u64> {
        self.deadline
    }
    fn set_deadline_ns(&mut self, at: u64) {
        self.did(format!("deadline = {at}"));
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }
    fn destination(&self) -> ServiceIdx {
        ServiceIdx(self.destination)
    }
    fn set_destination(&mut self, to: ServiceIdx) {
        self.did(format!("destination = {to:?}"));
        self.destination = to.0;
    }
    fn endpoint(&self) -> Option<EndpointIdx> {
        self.endpoint.map(EndpointIdx)
    }
    fn set_endpoint(&mut self, to: Option<EndpointIdx>) {
        self.did(format!("endpoint = {to:?}"));
        self.endpoint = to.map(|e| e.0);
    }
    fn endpoint_count(&self) -> usize {
        self.stats.len()
    }
    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat> {
        self.stats.get(usize::from(at.0)).copied()
    }
    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx> {
        let at = self.stats.iter().position(|s| s.hash == hash)?;
        u16::try_from(at).ok().map(EndpointIdx)
    }
    fn endpoint_report(&self, at: EndpointIdx, name: &str) -> Option<f64> {
        (name == "rif").then(|| self.reports.get(usize::from(at.0)).copied()).flatten()
    }
    fn pick_number(&mut self) -> u64 {
        self.picks += 1;
        self.picks - 1
    }
    fn draw(&self, element: u32, index: u32) -> u64 {
        mix(self.id ^ mix(u64::from(element) << 32 | u64::from(index)))
    }
    fn set_leaving(&mut self, how: Leaving) {
        self.did(format!("leave {how:?}"));
    }
    fn access_log(&mut self, sink: SinkIdx) {
        self.did(format!("access log {sink:?}"));
    }
    fn log(&mut self, level: Level, element: u16, fields: &[(&str, LogValue<'_>)]) {
        self.did(format!("log {level:?} {element} {fields:?}"));
    }
    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]) {
        self.did(format!("count {metric} {by} {labels:?}"));
    }
    fn note(&mut self, what: Note) {
        self.did(format!("note {what:?}"));
    }
    fn observe(&mut self, metric: u16, value: f64) {
        // NaNs of one sign and another are one value of the language.
        self.did(if value.is_nan() {
            format!("observe {metric} NaN")
        } else {
            format!("observe {metric} {value:?}")
        });
    }
    fn set_status(&mut self, status: Status, message: Option<&str>) {
        self.did(format!("status = {} {message:?}", status.name()));
        self.status = u64::from(status.code());
        if let Some(text) = message {
            self.message = text.to_owned();
        }
    }
    fn set_flag(&mut self, flag: Flag) {
        self.did(format!("flag {flag:?}"));
    }
    fn set_reject_text(&mut self, text: &str) {
        self.did(format!("text {text:?}"));
    }
    fn passed(&self) -> u16 {
        self.passed
    }
    fn set_passed(&mut self, elements: u16) {
        self.passed = elements;
    }
    fn is_sampled(&self) -> bool {
        self.id.is_multiple_of(2)
    }
    fn mark(&mut self, element: u16) {
        self.did(format!("mark {element}"));
    }
    fn words(&mut self) -> &mut [u64] {
        &mut self.words
    }
    fn spill(&mut self) -> &mut Spill {
        &mut self.spill
    }
}
