//! A call that writes down, in order, all that a chain does to it and every number it draws.

use std::cell::RefCell;
use std::fmt::Arguments;

use abi::{
    CallView, EndpointIdx, EndpointStat, Flag, Leaving, Level, LogValue, Note, Num, ServiceIdx, Side,
    SinkIdx, Spill, Status, Text,
};

use super::Mock;

pub(crate) struct Recorder {
    pub(crate) mock: Mock,
    said: RefCell<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new(mock: Mock) -> Self {
        Self { mock, said: RefCell::default() }
    }

    pub(crate) fn says(&self, what: Arguments<'_>) {
        self.said.borrow_mut().push(what.to_string());
    }

    /// Where what was done begins to differ.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<usize> {
        let (one, other) = (self.said.borrow(), other.said.borrow());
        (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))
    }

    /// What was done at a place, and just before.
    pub(crate) fn line(&self, at: usize) -> String {
        let said = self.said.borrow();
        said.get(at.saturating_sub(3)..said.len().min(at + 1)).unwrap_or(&[]).join("; ")
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.said.borrow().clone()
    }
}

impl CallView for Recorder {
    fn num(&self, field: Num) -> u64 {
        self.mock.num(field)
    }
    fn text(&self, field: Text) -> &str {
        self.mock.text(field)
    }
    fn shard(&self) -> u16 {
        self.mock.shard()
    }
    fn peer_ip(&self) -> Option<[u8; 16]> {
        self.mock.peer_ip()
    }
    fn metadata(&self, side: Side, name: &str, nth: usize) -> Option<&[u8]> {
        self.mock.metadata(side, name, nth)
    }
    fn set_metadata(&mut self, side: Side, name: &str, value: Option<&[u8]>) -> bool {
        self.says(format_args!("set_metadata {side:?} {name} {value:?}"));
        self.mock.set_metadata(side, name, value)
    }
    fn payload(&self) -> Option<&[u8]> {
        self.mock.payload()
    }
    fn set_payload(&mut self, bytes: &[u8]) -> bool {
        self.says(format_args!("set_payload {bytes:?}"));
        self.mock.set_payload(bytes)
    }
    fn deadline_ns(&self) -> Option<u64> {
        self.mock.deadline_ns()
    }
    fn set_deadline_ns(&mut self, at: u64) {
        self.says(format_args!("set_deadline_ns {at}"));
        self.mock.set_deadline_ns(at);
    }
    fn destination(&self) -> ServiceIdx {
        self.mock.destination()
    }
    fn set_destination(&mut self, to: ServiceIdx) {
        self.says(format_args!("set_destination {to:?}"));
        self.mock.set_destination(to);
    }
    fn endpoint(&self) -> Option<EndpointIdx> {
        self.mock.endpoint()
    }
    fn set_endpoint(&mut self, to: Option<EndpointIdx>) {
        self.says(format_args!("set_endpoint {to:?}"));
        self.mock.set_endpoint(to);
    }
    fn endpoint_count(&self) -> usize {
        self.mock.endpoint_count()
    }
    fn endpoint_stat(&self, at: EndpointIdx) -> Option<EndpointStat> {
        self.mock.endpoint_stat(at)
    }
    fn endpoint_by_hash(&self, hash: u64) -> Option<EndpointIdx> {
        self.mock.endpoint_by_hash(hash)
    }
    fn endpoint_report(&self, at: EndpointIdx, name: &str) -> Option<f64> {
        self.mock.endpoint_report(at, name)
    }
    fn pick_number(&mut self) -> u64 {
        self.says(format_args!("pick_number"));
        self.mock.pick_number()
    }
    fn draw(&self, element: u32, index: u32) -> u64 {
        self.says(format_args!("draw {element} {index}"));
        self.mock.draw(element, index)
    }
    fn set_leaving(&mut self, how: Leaving) {
        self.says(format_args!("set_leaving {how:?}"));
        self.mock.set_leaving(how);
    }
    fn access_log(&mut self, sink: SinkIdx) {
        self.says(format_args!("access_log {sink:?}"));
        self.mock.access_log(sink);
    }
    fn log(&mut self, level: Level, element: u16, fields: &[(&str, LogValue<'_>)]) {
        self.says(format_args!("log {level:?} {element} {fields:?}"));
        self.mock.log(level, element, fields);
    }
    fn count(&mut self, metric: u16, by: u64, labels: &[(&str, LogValue<'_>)]) {
        self.says(format_args!("count {metric} {by} {labels:?}"));
        self.mock.count(metric, by, labels);
    }
    fn note(&mut self, what: Note) {
        self.says(format_args!("note {what:?}"));
        self.mock.note(what);
    }
    fn observe(&mut self, metric: u16, value: f64) {
        self.says(format_args!("observe {metric} {:#x}", value.to_bits()));
        self.mock.observe(metric, value);
    }
    fn set_status(&mut self, status: Status, message: Option<&str>) {
        self.says(format_args!("set_status {status:?} {message:?}"));
        self.mock.set_status(status, message);
    }
    fn set_flag(&mut self, flag: Flag) {
        self.says(format_args!("set_flag {flag:?}"));
        self.mock.set_flag(flag);
    }
    fn set_reject_text(&mut self, text: &str) {
        self.says(format_args!("set_reject_text {text:?}"));
        self.mock.set_reject_text(text);
    }
    fn passed(&self) -> u16 {
        self.mock.passed()
    }
    fn set_passed(&mut self, elements: u16) {
        self.says(format_args!("set_passed {elements}"));
        self.mock.set_passed(elements);
    }
    fn is_sampled(&self) -> bool {
        self.mock.is_sampled()
    }
    fn mark(&mut self, element: u16) {
        self.says(format_args!("mark {element}"));
        self.mock.mark(element);
    }
    fn words(&mut self) -> &mut [u64] {
        self.mock.words()
    }
    fn spill(&mut self) -> &mut Spill {
        self.mock.spill()
    }
}
