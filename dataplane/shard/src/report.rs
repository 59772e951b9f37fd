//! Load that endpoints report with their answers: ORCA's `xds.data.orca.v3.OrcaLoadReport`, per call, in the
//! trailers `endpoint-load-metrics-bin` (protobuf) or `endpoint-load-metrics` (`TEXT k=v, …`, gRFC A51).
//!
//! Kept per endpoint: the latest of each name, so many names, for so long. A malformed report changes
//! nothing: load is advice, not policy.

use alloc::{string::String, vec::Vec};

use wire::{Headers, Instant};

use crate::limits::SECOND;

/// Names one endpoint may report.
const NAMES_MAX: usize = 16;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// A value counts for so long: gRFC A58's weight expiration period.
const KEPT_NS: u64 = 180 * SECOND;
/// Bytes of a report that are read.
const REPORT_BYTES_MAX: usize = 4 << 10;

const BINARY: &[u8] = b"endpoint-load-metrics-bin";
const TEXT: &[u8] = b"endpoint-load-metrics";

/// Fields of the message that are plain numbers, by tag.
const FIELDS: [(u64, &str); 6] = [
    (1, "cpu_utilization"),
    (2, "mem_utilization"),
    (3, "rps"),
    (6, "rps_fractional"),
    (7, "eps"),
    (9, "application_utilization"),
];
/// Its maps from names to numbers: `request_cost`, `utilization`, `named_metrics`.
const MAPS: [(u64, &str); 3] = [(4, "request_cost"), (5, "utilization"), (8, "named_metrics")];

#[derive(Debug, Default)]
struct Value {
    name: String,
    value: f64,
    at: Instant,
}

/// What one endpoint has reported.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    values: Vec<Value>,
}

impl Reports {
    /// The latest value of this name, unless it is too old.
    pub(crate) fn value(&self, name: &str, now: Instant) -> Option<f64> {
        let found = self.values.iter().find(|v| v.name == name)?;
        (now.since_ns(found.at) <= KEPT_NS).then_some(found.value)
    }

    fn set(&mut self, name: &str, value: f64, now: Instant) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !value.is_finite() {
            return;
        }
        let known = self.values.iter().position(|v| v.name == name);
        // A full table gives the place of a name that is no longer reported to one that is.
        let old = || self.values.iter().position(|v| now.since_ns(v.at) > KEPT_NS);
        let at = match known {
            Some(at) => at,
            None if self.values.len() < NAMES_MAX => {
                self.values.push(Value::default());
                self.values.len() - 1
            }
            None => match old() {
                Some(at) => at,
                None => return,
            },
        };
        if let Some(slot) = self.values.get_mut(at) {
            if known.is_none() {
                slot.name.clear();
                slot.name.push_str(name);
            }
            (slot.value, slot.at) = (value, now);
        }
    }

    /// Takes the report in these trailers, if there is one; `spare` is used and left empty.
    pub(crate) fn take(&mut self, trailers: &Headers, now: Instant, spare: &mut Vec<u8>) {
        if let Some(value) = trailers.get_name(BINARY, 0).filter(|v| v.len() <= REPORT_BYTES_MAX) {
            if wire::grpc::decode_bin(value, spare) {
                self.take_binary(spare, now);
            }
            spare.clear();
        } else if let Some(value) = trailers.get_name(TEXT, 0).filter(|v| v.len() <= REPORT_BYTES_MAX) {
            self.take_text(value, now);
        }
    }

    fn take_binary(&mut self, bytes: &[u8], now: Instant) {
        let mut rest = bytes;
        while let Some((tag, field)) = next_field(&mut rest) {
            match field {
                Field::Number(value) => {
                    if let Some((_, name)) = FIELDS.iter().find(|(t, _)| *t == tag) {
                        self.set(name, value, now);
                    }
                }
                Field::Bytes(entry) if MAPS.iter().any(|(t, _)| *t == tag) => {
                    let (mut entry, mut name, mut value) = (entry, &[][..], 0.0);
                    while let Some((tag, field)) = next_field(&mut entry) {
                        match (tag, field) {
                            (1, Field::Bytes(bytes)) => name = bytes,
                            (2, Field::Number(number)) => value = number,
                            _ => {}
                        }
                    }
                    self.set(core::str::from_utf8(name).unwrap_or(""), value, now);
                }
                Field::Bytes(_) => {}
            }
        }
    }

    /// `TEXT cpu_utilization=0.3, named_metrics.queue=7`.
    fn take_text(&mut self, value: &[u8], now: Instant) {
        let Some(pairs) = core::str::from_utf8(value).ok().and_then(|v| v.strip_prefix("TEXT ")) else {
            return;
        };
        for (name, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            let name = name.trim();
            let in_map = name.split_once('.').filter(|(map, _)| MAPS.iter().any(|(_, m)| m == map));
            let name = in_map.map_or(name, |(_, name)| name);
            if let Ok(value) = value.trim().parse::<f64>() {
                self.set(name, value, now);
            }
        }
    }
}

enum Field<'a> {
    Number(f64),
    Bytes(&'a [u8]),
}

/// The next field of a protobuf message: its tag and value. `None` at the end, and at what is no field.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let head = varint(rest)?;
    let field = match head & 7 {
        #[expect(clippy::cast_precision_loss, reason = "a load of 2^53 calls a second is none")]
        0 => Field::Number(varint(rest)? as f64),
        1 => Field::Number(f64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(take(rest, len)?)
        }
        5 => Field::Bytes(take(rest, 4)?),
        _ => return None,
    };
    Some((head >> 3, field))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000 * SECOND);

    fn taken(name: &[u8], value: &[u8]) -> Reports {
        let mut trailers = Headers::new();
        trailers.push(name, value);
        let mut reports = Reports::default();
        reports.take(&trailers, NOW, &mut Vec::new());
        reports
    }

    /// `cpu_utilization: 0.5, rps: 7, utilization["q"]: 2.5, named_metrics["rif"]: 3, application_utilization:
    /// 0.25`, with padding and without.
    const ENCODED: [&[u8]; 2] = [
        b"CQAAAAAAAOA/GAcqDAoBcREAAAAAAAAEQEIOCgNyaWYRAAAAAAAACEBJAAAAAAAA0D8=",
        b"CQAAAAAAAOA/GAcqDAoBcREAAAAAAAAEQEIOCgNyaWYRAAAAAAAACEBJAAAAAAAA0D8",
    ];

    #[test]
    fn a_binary_report_is_read_padded_or_not() {
        for encoded in ENCODED {
            let reports = taken(BINARY, encoded);
            for (name, value) in [
                ("cpu_utilization", 0.5),
                ("rps", 7.0),
                ("q", 2.5),
                ("rif", 3.0),
                ("application_utilization", 0.25),
            ] {
                assert_eq!(reports.value(name, NOW), Some(value), "{name}");
            }
            assert_eq!(reports.value("eps", NOW), None);
        }
    }

    #[test]
    fn a_text_report_is_read() {
        let reports = taken(TEXT, b"TEXT cpu_utilization=0.3, named_metrics.rif=7,own.name=1,broken,eps=x");
        assert_eq!(reports.value("cpu_utilization", NOW), Some(0.3));
        assert_eq!(reports.value("rif", NOW), Some(7.0));
        assert_eq!(reports.value("own.name", NOW), Some(1.0));
        assert_eq!(reports.value("eps", NOW), None);
    }

    #[test]
    fn a_report_ages_and_the_latest_counts() {
        let mut reports = taken(TEXT, b"TEXT rif=7");
        let later = NOW.after_ns(KEPT_NS);
        assert_eq!(reports.value("rif", later), Some(7.0));
        assert_eq!(reports.value("rif", later.after_ns(1)), None);
        reports.set("rif", 9.0, later.after_ns(1));
        assert_eq!(reports.value("rif", later.after_ns(1)), Some(9.0));
    }

    #[test]
    fn names_are_bounded_and_an_old_one_makes_room() {
        let mut reports = Reports::default();
        for n in 0..20 {
            reports.set(&alloc::format!("n{n}"), 1.0, NOW);
        }
        assert_eq!((reports.value("n15", NOW), reports.value("n16", NOW)), (Some(1.0), None));
        let later = NOW.after_ns(KEPT_NS + 1);
        reports.set("new", 2.0, later);
        assert_eq!((reports.value("new", later), reports.values.len()), (Some(2.0), NAMES_MAX));
        reports.set("x", f64::NAN, later);
        reports.set(&"x".repeat(65), 1.0, later);
        assert_eq!(reports.value("x", later), None);
    }

    #[test]
    fn what_is_no_report_changes_nothing_that_came_before() {
        for cut in 0..ENCODED[1].len() {
            let reports = taken(BINARY, &ENCODED[1][..cut]);
            assert!(reports.values.iter().all(|v| v.value.is_finite()));
        }
        assert!(taken(BINARY, b"%%%").values.is_empty());
        assert!(taken(BINARY, b"//////////////////8=").values.is_empty());
        assert!(taken(TEXT, b"JSON {}").values.is_empty());
    }
}
