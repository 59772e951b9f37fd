//! The shard's log as the simulator keeps it: every line, for the checkers.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{Flag, Status};
use shard::{AccessRecord, ElementRecord, Log, Notice};
use wire::Instant;

/// One access-log line, owned.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Whose log has it.
    pub(crate) node: usize,
    pub(crate) sink: u16,
    pub(crate) path: String,
    pub(crate) status: Status,
    pub(crate) flag: Flag,
    pub(crate) latency_ns: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) attempts: u32,
    pub(crate) element: Option<String>,
}

/// Lines the shard wrote, shared with the checkers.
pub(crate) type Lines = Rc<RefCell<Vec<Line>>>;

/// A log that keeps everything.
#[derive(Debug, Default)]
pub(crate) struct SimLog {
    pub(crate) node: usize,
    pub(crate) lines: Lines,
}

impl Log for SimLog {
    fn access(&mut self, sink: u16, record: &AccessRecord<'_>) {
        self.lines.borrow_mut().push(Line {
            node: self.node,
            sink,
            path: String::from_utf8_lossy(record.path).into_owned(),
            status: record.status,
            flag: record.flag,
            latency_ns: record.latency_ns,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            attempts: record.attempts,
            element: record.element.map(|(info, line)| format!("{}:{line}", info.name)),
        });
    }

    fn element(&mut self, _record: &ElementRecord<'_>) {}

    fn notice(&mut self, _notice: &Notice<'_>) {}

    fn flush(&mut self, _now: Instant) {}
}
