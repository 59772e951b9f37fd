//! What elements count and observe, by name and label set. Bounded: a metric has so many label sets, further
//! ones are counted as one; a set that is known is found without allocating.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt::Write;
use core::hash::BuildHasher;

use abi::LogValue;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Label sets of one metric.
const SETS_MAX: usize = 1000;
/// Bytes of one label's value; the rest is cut.
const VALUE_BYTES_MAX: usize = 128;
/// Names that programs of a shard's life may use.
const METRICS_MAX: usize = 4096;

/// Upper bounds of what `observe` is given; the last bucket is open.
pub const OBSERVED_BOUNDS: [f64; 28] = [
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1_000.0,
    2_000.0,
    5_000.0,
    10_000.0,
    20_000.0,
    50_000.0,
    100_000.0,
    200_000.0,
    500_000.0,
    1_000_000.0,
];

/// One metric of elements.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MetricSnapshot {
    /// As the application names it.
    pub name: String,
    /// By label set, names and values; the first set has no labels.
    pub counts: Vec<(Vec<(String, String)>, u64)>,
    /// Counted under further sets than are told apart.
    pub overflow: u64,
    /// What was observed, if anything was.
    pub observed: Option<ObservedSnapshot>,
}

/// Observed values.
#[derive(Clone, PartialEq, Debug)]
pub struct ObservedSnapshot {
    /// How many.
    pub count: u64,
    /// Added up.
    pub sum: f64,
    /// By [`OBSERVED_BOUNDS`], then the rest.
    pub buckets: [u64; OBSERVED_BOUNDS.len() + 1],
}

#[derive(Debug, Default)]
struct Metric {
    name: String,
    plain: u64,
    sets: Vec<(Box<[u8]>, u64)>,
    by_key: HashTable<u32>,
    overflow: u64,
    observed: Option<Box<ObservedSnapshot>>,
}

/// All metrics of a shard, over all programs: a name means the same in each.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    all: Vec<Metric>,
    hasher: DefaultHashBuilder,
    key: Vec<u8>,
}

impl Metrics {
    /// The places of a program's metrics.
    pub(crate) fn places(&mut self, names: &[String]) -> Vec<u16> {
        let mut place = |name: &String| {
            let known = self.all.iter().position(|m| m.name == *name);
            let at = known.unwrap_or_else(|| {
                if self.all.len() < METRICS_MAX {
                    self.all.push(Metric { name: name.clone(), ..Metric::default() });
                }
                self.all.len() - 1
            });
            u16::try_from(at).unwrap_or(u16::MAX)
        };
        names.iter().map(&mut place).collect()
    }

    /// Adds to a metric under these labels. False if that set is one too many.
    pub(crate) fn count(&mut self, place: u16, by: u64, labels: &[(&str, LogValue<'_>)]) -> bool {
        let Some(metric) = self.all.get_mut(usize::from(place)) else { return true };
        if labels.is_empty() {
            metric.plain = metric.plain.saturating_add(by);
            return true;
        }
        self.key.clear();
        for (name, value) in labels {
            write_part(&mut self.key, &LogValue::Text(name));
            write_part(&mut self.key, value);
        }
        let hash = self.hasher.hash_one(&self.key[..]);
        let at = |set: &u32| usize::try_from(*set).unwrap_or(usize::MAX);
        let found = metric.by_key.find(hash, |set| *metric.sets[at(set)].0 == *self.key);
        let place = match found {
            Some(set) => at(set),
            None if metric.sets.len() < SETS_MAX => {
                metric.sets.push((self.key.as_slice().into(), 0));
                let set = u32::try_from(metric.sets.len() - 1).unwrap_or(u32::MAX);
                let (sets, hasher) = (&metric.sets, &self.hasher);
                metric.by_key.insert_unique(hash, set, |set| hasher.hash_one(&sets[at(set)].0[..]));
                at(&set)
            }
            None => {
                metric.overflow = metric.overflow.saturating_add(by);
                return false;
            }
        };
        if let Some((_, count)) = metric.sets.get_mut(place) {
            *count = count.saturating_add(by);
        }
        true
    }

    /// Takes a value; one that is no number is left out.
    pub(crate) fn observe(&mut self, place: u16, value: f64) {
        let Some(metric) = self.all.get_mut(usize::from(place)).filter(|_| !value.is_nan()) else { return };
        let observed = metric.observed.get_or_insert_with(|| {
            Box::new(ObservedSnapshot { count: 0, sum: 0.0, buckets: [0; OBSERVED_BOUNDS.len() + 1] })
        });
        observed.count += 1;
        observed.sum += value;
        observed.buckets[OBSERVED_BOUNDS.partition_point(|bound| *bound < value)] += 1;
    }

    pub(crate) fn snapshot(&self) -> Vec<MetricSnapshot> {
        let one = |metric: &Metric| {
            let sets = metric.sets.iter().map(|(key, count)| (labels_of(key), *count));
            MetricSnapshot {
                name: metric.name.clone(),
                counts: core::iter::once((Vec::new(), metric.plain)).chain(sets).collect(),
                overflow: metric.overflow,
                observed: metric.observed.as_deref().cloned(),
            }
        };
        self.all.iter().map(one).collect()
    }
}

/// Text into bytes, up to a limit.
struct Cut<'a> {
    to: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let mut end = text.len().min(self.room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.to.extend_from_slice(&text.as_bytes()[..end]);
        self.room = if end < text.len() { 0 } else { self.room - end };
        Ok(())
    }
}

/// A length in one byte, then the text.
fn write_part(to: &mut Vec<u8>, value: &LogValue<'_>) {
    let at = to.len();
    to.push(0);
    let mut cut = Cut { to, room: VALUE_BYTES_MAX };
    // Writing into memory does not fail.
    let _ = match value {
        LogValue::None => cut.write_str("none"),
        LogValue::Bool(value) => write!(cut, "{value}"),
        LogValue::Int(value) => write!(cut, "{value}"),
        LogValue::Uint(value) => write!(cut, "{value}"),
        LogValue::Float(value) => write!(cut, "{value}"),
        LogValue::Text(value) => cut.write_str(value),
    };
    to[at] = u8::try_from(to.len() - at - 1).unwrap_or(u8::MAX);
}

fn labels_of(key: &[u8]) -> Vec<(String, String)> {
    let mut rest = key;
    let mut part = || {
        let (len, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    core::iter::from_fn(|| Some((part()?, part()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn counts(metrics: &Metrics) -> Vec<(String, u64)> {
        let text = |labels: &Vec<(String, String)>| {
            labels.iter().map(|(k, v)| alloc::format!("{k}={v}")).collect::<Vec<_>>().join(",")
        };
        metrics.snapshot()[0].counts.iter().map(|(labels, count)| (text(labels), *count)).collect()
    }

    #[test]
    fn label_sets_are_told_apart_by_names_and_values_of_any_kind() {
        let mut metrics = Metrics::default();
        let place = metrics.places(&["hits".into()])[0];
        let text = |t| LogValue::Text(t);
        metrics.count(place, 1, &[]);
        metrics.count(place, 2, &[("a", text("x")), ("b", LogValue::Int(-3))]);
        metrics.count(place, 3, &[("a", text("x")), ("b", LogValue::Int(-3))]);
        metrics.count(place, 5, &[("a", text("xb")), ("", LogValue::Int(-3))]);
        metrics.count(place, 7, &[("a", LogValue::Float(0.5))]);
        metrics.count(place, 9, &[("a", LogValue::None)]);
        let wanted = [("", 1), ("a=x,b=-3", 5), ("a=xb,=-3", 5), ("a=0.5", 7), ("a=none", 9)];
        assert_eq!(counts(&metrics), wanted.map(|(k, n)| (k.to_string(), n)));
    }

    #[test]
    fn sets_and_values_are_bounded() {
        let mut metrics = Metrics::default();
        let place = metrics.places(&["hits".into()])[0];
        for round in 0..2 {
            for n in 0..1010 {
                let fits = metrics.count(place, 1, &[("n", LogValue::Uint(n))]);
                assert_eq!(fits, n < 1000, "{round} {n}");
            }
        }
        let snapshot = &metrics.snapshot()[0];
        assert_eq!((snapshot.counts.len(), snapshot.overflow), (1001, 20));
        assert!(snapshot.counts[1..].iter().all(|(_, count)| *count == 2));
        let long = "ü".repeat(300);
        let other = metrics.places(&["other".into()])[0];
        metrics.count(other, 1, &[("k", LogValue::Text(&long))]);
        assert_eq!(metrics.snapshot()[1].counts[1].0[0].1, "ü".repeat(64));
    }

    #[test]
    fn a_name_means_the_same_in_every_program() {
        let mut metrics = Metrics::default();
        assert_eq!(metrics.places(&["a".into(), "b".into()]), [0, 1]);
        assert_eq!(metrics.places(&["b".into(), "c".into(), "a".into()]), [1, 2, 0]);
    }

    #[test]
    fn observed_values_fall_into_buckets_closed_above() {
        let mut metrics = Metrics::default();
        let place = metrics.places(&["seconds".into()])[0];
        for value in [0.001, 0.0011, 1e9, f64::NAN, -1.0] {
            metrics.observe(place, value);
        }
        let observed = metrics.snapshot()[0].observed.clone().unwrap();
        assert_eq!((observed.count, observed.buckets[0], observed.buckets[1]), (4, 2, 1));
        assert_eq!(observed.buckets[OBSERVED_BOUNDS.len()], 1);
    }
}
