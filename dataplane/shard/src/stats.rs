//! What is counted per chain and per method.

use alloc::{string::String, vec::Vec};

use abi::Status;
use hashbrown::HashMap;

use crate::snapshot::{LATENCY_BOUNDS_NS, MethodSnapshot};

/// One chain of one program.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChainStats {
    pub(crate) entered: u64,
    pub(crate) elements: Vec<ElementStats>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ElementStats {
    pub(crate) rejected: u64,
    pub(crate) delayed: u64,
    pub(crate) sampled: u64,
    pub(crate) sampled_ns: u64,
}

impl ChainStats {
    pub(crate) fn new(elements: usize) -> Self {
        Self { entered: 0, elements: alloc::vec![ElementStats::default(); elements] }
    }
}

/// Methods with statistics of their own. The first entry is what all others are counted under.
#[derive(Debug)]
pub(crate) struct Methods {
    entries: Vec<MethodSnapshot>,
    by_name: HashMap<(String, String, String), u16>,
    max: usize,
}

impl Methods {
    pub(crate) fn new(max: u32) -> Self {
        let max = max.clamp(1, u32::from(u16::MAX)) as usize;
        Self { entries: alloc::vec![entry("", "", "other")], by_name: HashMap::new(), max }
    }

    /// The entry of a method, made if there is room; 0 when there is none.
    pub(crate) fn intern(&mut self, source: &str, destination: &str, method: &str) -> u16 {
        let key = (String::from(source), String::from(destination), String::from(method));
        if let Some(id) = self.by_name.get(&key) {
            return *id;
        }
        if self.entries.len() >= self.max {
            return 0;
        }
        let id = u16::try_from(self.entries.len()).unwrap_or(0);
        self.entries.push(entry(source, destination, method));
        self.by_name.insert(key, id);
        id
    }

    pub(crate) fn at(&mut self, id: u16) -> &mut MethodSnapshot {
        let id = if usize::from(id) < self.entries.len() { usize::from(id) } else { 0 };
        &mut self.entries[id]
    }

    /// All that have counted anything.
    pub(crate) fn list(&self) -> Vec<MethodSnapshot> {
        self.entries.iter().filter(|m| m.started > 0).cloned().collect()
    }
}

fn entry(source: &str, destination: &str, method: &str) -> MethodSnapshot {
    MethodSnapshot {
        source: source.into(),
        destination: destination.into(),
        method: method.into(),
        started: 0,
        by_status: [0; Status::COUNT],
        latency: [0; LATENCY_BOUNDS_NS.len() + 1],
        latency_ns_sum: 0,
        attempts: 0,
        request_bytes: 0,
        response_bytes: 0,
    }
}

/// The bucket of a latency.
pub(crate) fn latency_bucket(ns: u64) -> usize {
    LATENCY_BOUNDS_NS.partition_point(|bound| *bound < ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_closed_above_as_prometheus_has_them() {
        assert_eq!(latency_bucket(10_000), 0);
        assert_eq!(latency_bucket(10_001), 1);
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BOUNDS_NS.len());
    }

    #[test]
    fn methods_beyond_the_limit_are_counted_as_other() {
        let mut methods = Methods::new(2);
        assert_eq!(methods.intern("a", "b", "c"), 1);
        assert_eq!(methods.intern("a", "b", "c"), 1);
        assert_eq!(methods.intern("a", "b", "d"), 0);
    }
}
