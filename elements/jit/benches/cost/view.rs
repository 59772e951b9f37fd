//! A call as lean as the shard's: headers in one buffer, everything else in fields.

use abi::{
    CallView, EndpointIdx, EndpointStat, Flag, Leaving, Level, LogValue, Note, Num, ServiceIdx, Side,
    SinkIdx, Spill, Status, Text,
};
use wire::Headers;

#[derive(Default)]
pub(crate) struct Slim {
    pub(crate) id: u64,
    pub(crate) request: Headers,
    pub(crate) deadline: Option<u64>,
    pub(crate) passed: u16,
    pub(crate) sinks: u64,
    pub(crate) leaving: Leaving,
    pub(crate) flag: Flag,
    pub(crate) rejected: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) words: Vec<u64>,
    pub(crate) spill: Spill,
}

impl Slim {
    /// A call as gRPC clients make them.
    pub(crate) fn new() -> Self {
        let mut it = Self { words: vec![0; 16], ..Self::default() };
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/shop.Catalog/List"),
            (":authority", "catalog"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-go/1.60.0"),
            ("te", "trailers"),
            ("x-tenant", "acme"),
            ("x-request-id", "5f0c1a7e-1e3d-4c8e-9d3a-0f6a3b2c1d4e"),
        ] {
            it.request.push(name.as_bytes(), value.as_bytes());
        }
        it
    }
}

impl CallView for Slim {
    fn num(&self, field: Num) -> u64 {
        match field {
            Num::Id => self.id,
            Num::Attempt => 1,
            Num::Size => self.payload.len() as u64,
            Num::LatencyNs => 5_000,
            Num::NowNs => 1_000_000_000 + self.id,
            Num::Status => 0,
        }
    }
    fn text(&self, field: Text) -> &str {
        match field {
            Text::Method => "List",
            Text::Service => "shop.Catalog",
            _ => "",
        }
    }
    fn shard(&self) -> u16 {
        0
    }
    fn peer_ip(&self) -> Option<[u8; 16]> {
        None
    }
    fn metadata(&self, _side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        self.request.get_name(name.as_bytes(), nth)
    }
    fn set_metadata(&mut self, _side: Side, name: &str, value: Option<&[u8]>) -> bool {
        self.request.retain(|_, n, _| n != name.as_bytes());
        if let Some(value) = value {
            self.request.push(name.as_bytes(), value);
        }
        true
    }
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.payload)
    }
    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        self.payload = bytes.to_vec();
        true
    }
    fn deadline_ns(&self) -> Option<u64> {
        self.deadline
    }
    fn set_deadline_ns(&mut self, at: u64) {
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }
    fn destination(&self) -> ServiceIdx {
        ServiceIdx(1)
    }
    fn set_destination(&mut self, _to: ServiceIdx) {}
    fn endpoint(&self) -> Option<EndpointIdx> {
        None
    }
    fn set_endpoint(&mut self, _to: Option<EndpointIdx>) {}
    fn endpoint_count(&self) -> usize {
        0
    }
    fn endpoint_stat(&self, _at: EndpointIdx) -> Option<EndpointStat> {
        None
    }
    fn endpoint_by_hash(&self, _hash: u64) -> Option<EndpointIdx> {
        None
    }
    fn endpoint_report(&self, _at: EndpointIdx, _name: &str) -> Option<f64> {
        None
    }
    fn pick_number(&mut self) -> u64 {
        self.id
    }
    fn draw(&self, element: u32, index: u32) -> u64 {
        let mut z = self.id ^ (u64::from(element) << 32 | u64::from(index));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn set_leaving(&mut self, how: Leaving) {
        self.leaving = how;
    }
    fn access_log(&mut self, sink: SinkIdx) {
        self.sinks |= 1 << (sink.0 & 63);
    }
    fn log(&mut self, _level: Level, _element: u16, _fields: &[(&str, LogValue<'_>)]) {}
    fn count(&mut self, _metric: u16, _by: u64, _labels: &[(&str, LogValue<'_>)]) {}
    fn note(&mut self, _what: Note) {}
    fn observe(&mut self, _metric: u16, _value: f64) {}
    fn set_status(&mut self, _status: Status, _message: Option<&str>) {}
    fn set_flag(&mut self, flag: Flag) {
        self.flag = flag;
    }
    fn set_reject_text(&mut self, text: &str) {
        self.rejected += text.len();
    }
    fn passed(&self) -> u16 {
        self.passed
    }
    fn set_passed(&mut self, elements: u16) {
        self.passed = elements;
    }
    fn is_sampled(&self) -> bool {
        self.id.is_multiple_of(64)
    }
    fn mark(&mut self, _element: u16) {}
    fn words(&mut self) -> &mut [u64] {
        &mut self.words
    }
    fn spill(&mut self) -> &mut Spill {
        &mut self.spill
    }
}
