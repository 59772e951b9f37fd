//! `[limits]`: the bounds of a shard by their names in `shard::Limits`, below the ceilings set there.
//!
//! A time is written `connect_timeout = "2s"` (its name without `_ns`), a size `pool_bytes = "256MiB"` or a
//! number of bytes, everything else is a number.

use shard::Limits;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use crate::failure::Problem;
use crate::value::{duration_ns, nearest, show_bytes, show_ns, size_bytes};

/// One bound: its key and how to read and write it.
struct Bound {
    key: &'static str,
    read: fn(&Limits) -> u64,
    write: fn(&mut Limits, u64),
}

macro_rules! bounds {
    ($($field:ident: $type:ty,)*) => {
        const BOUNDS: &[Bound] = &[$(Bound {
            key: stringify!($field),
            read: |limits| u64::from(limits.$field),
            write: |limits, value| limits.$field = <$type>::try_from(value).unwrap_or(<$type>::MAX),
        },)*];

        /// Does not compile when a bound is missing above.
        #[cfg(test)]
        fn all_are_listed(limits: Limits) {
            let Limits { $($field: _,)* } = limits;
        }
    };
}

bounds! {
    connections_max: u32,
    caller_connections_max: u32,
    calls_max: u32,
    caller_calls_max: u32,
    streams_max: u32,
    queue_max: u32,
    endpoint_connections_max: u32,
    callers_max: u32,
    header_bytes_max: u32,
    message_bytes_max: u32,
    retry_bytes_max: u32,
    pool_bytes: u64,
    caller_pool_bytes: u64,
    stream_window_bytes: u32,
    small_window_bytes: u32,
    tx_bytes_max: u32,
    methods_max: u32,
    connect_timeout_ns: u64,
    backoff_min_ns: u64,
    backoff_max_ns: u64,
    queue_wait_ns: u64,
    stream_idle_ns: u64,
    conn_idle_ns: u64,
    preface_timeout_ns: u64,
    keepalive_ns: u64,
    keepalive_timeout_ns: u64,
    drain_ns: u64,
    caller_resets_per_second: u32,
}

impl Bound {
    /// The key as it is written.
    fn name(&self) -> &'static str {
        self.key.strip_suffix("_ns").unwrap_or(self.key)
    }

    fn is_time(&self) -> bool {
        self.key.ends_with("_ns")
    }

    fn is_size(&self) -> bool {
        self.key.contains("_bytes")
    }

    fn show(&self, value: u64) -> String {
        match self {
            b if b.is_time() => show_ns(value),
            b if b.is_size() => show_bytes(value),
            _ => value.to_string(),
        }
    }
}

/// Reads the table into `limits`.
pub(super) fn read(r: &mut Reader, value: &Spanned<DeValue<'_>>, limits: &mut Limits) {
    let DeValue::Table(table) = value.get_ref() else {
        r.problem(value.span(), "[limits] is a table", "expected a table");
        return;
    };
    bounded(r, table, limits);
}

fn bounded(r: &mut Reader, table: &DeTable<'_>, limits: &mut Limits) {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let Some(bound) = BOUNDS.iter().find(|b| b.name() == name || b.key == name) else {
            let near = nearest(name, BOUNDS.iter().map(Bound::name));
            r.problems.push(Problem {
                message: format!("unknown limit `{name}`"),
                span: key.span(),
                label: "no such limit".into(),
                help: Some(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        format!("known: {}", BOUNDS.iter().map(Bound::name).collect::<Vec<_>>().join(", "))
                    }
                }),
            });
            continue;
        };
        let number = match (value.get_ref(), bound) {
            (DeValue::String(_), b) if b.is_time() => r.parsed(value, duration_ns),
            (DeValue::String(_), b) if b.is_size() => r.parsed(value, size_bytes),
            (DeValue::Integer(_), b) if b.is_time() && name != b.key => {
                r.problem(
                    value.span(),
                    format!("`{name}` needs a unit"),
                    "expected a duration such as \"2s\"",
                );
                None
            }
            _ => r.integer(value),
        };
        let ceiling = (bound.read)(&Limits::CEILING);
        match number {
            Some(number) if (1..=ceiling).contains(&number) => (bound.write)(limits, number),
            Some(number) => r.problem(
                value.span(),
                format!(
                    "`{name}` is {}; it must be from {} to {}",
                    bound.show(number),
                    bound.show(1),
                    bound.show(ceiling)
                ),
                "out of range",
            ),
            None => {}
        }
    }
}

/// The limits in force, one `key = value` a line, as `node.toml` has them.
pub(crate) fn describe(limits: &Limits) -> String {
    let mut out = String::new();
    for bound in BOUNDS {
        let value = (bound.read)(limits);
        let text = match bound {
            b if b.is_time() => format!("\"{}\"", exact_duration(value)),
            _ => value.to_string(),
        };
        out.push_str(&format!("{} = {text}\n", bound.name()));
    }
    out
}

/// The shortest text that `duration_ns` reads back.
fn exact_duration(ns: u64) -> String {
    for (unit, scale) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if ns.is_multiple_of(scale) {
            return format!("{}{unit}", ns / scale);
        }
    }
    format!("{ns}ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_key_and_keeps_its_value() {
        all_are_listed(Limits::DEFAULT);
        let text = format!("[limits]\n{}", describe(&Limits::CEILING));
        let read = crate::config::parse("node.toml", &text).unwrap();
        assert_eq!(read.limits, Limits::CEILING);
    }
}
