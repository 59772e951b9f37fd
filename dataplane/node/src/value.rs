//! Values as people write them: sizes, durations, addresses, lists of cores. Shared by the command line and
//! `node.toml`; an error is one clause that says what was expected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use abi::Addr;

const NS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const BYTES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// `10s`, `1.5ms`, `2m`: nanoseconds.
pub(crate) fn duration_ns(text: &str) -> Result<u64, String> {
    with_unit(text, &NS)
        .ok_or_else(|| format!("`{text}` is no duration; expected a number with ns, us, ms, s, m or h"))
}

/// `64KiB`, `10MB`, `512B`: bytes.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    with_unit(text, &BYTES)
        .ok_or_else(|| format!("`{text}` is no size; expected a number with B, KiB, MiB or GiB"))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(end);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let mut sum = u128::from(whole.parse::<u64>().ok()?) * u128::from(*scale);
    if number.contains('.') {
        let digits = u32::try_from(part.len()).ok().filter(|n| (1..=9).contains(n))?;
        sum += u128::from(part.parse::<u64>().ok()?) * u128::from(*scale) / 10_u128.pow(digits);
    }
    u64::try_from(sum).ok()
}

/// `IP:PORT`, `localhost:PORT` or `unix:PATH`.
pub(crate) fn addr(text: &str) -> Result<Addr, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // sockaddr_un holds 108 bytes with the terminating zero.
        return match path.len() {
            0 => Err("`unix:` needs a path".into()),
            1..108 => Ok(Addr::Unix(path.to_owned())),
            _ => Err(format!("`{path}` is too long for a unix socket (at most 107 bytes)")),
        };
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Addr::Ip(addr));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|p| p.parse().ok()) {
        return Ok(Addr::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Err(format!("`{text}` is no address; did you mean 127.0.0.1:{port} or 0.0.0.0:{port}?"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` has no port; expected IP:PORT"));
    }
    if text.starts_with('/') {
        return Err(format!("`{text}` is no address; did you mean unix:{text}?"));
    }
    Err(format!("`{text}` is no address; expected IP:PORT or unix:PATH"))
}

/// `10.7.0.2`, `fd07::2`.
pub(crate) fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IP address"))
}

/// `40000-49999`: a range of TCP ports.
pub(crate) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let bad = || format!("`{text}` is no range of ports; expected, for example, 40000-49999");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let first: u16 = first.trim().parse().map_err(|_| bad())?;
    let last: u16 = last.trim().parse().map_err(|_| bad())?;
    if first == 0 || first > last { Err(bad()) } else { Ok(first..=last) }
}

/// `0,1`, `2-5`: core numbers, each once, in the order written.
pub(crate) fn cores(text: &str) -> Result<Vec<usize>, String> {
    let bad = || format!("`{text}` is no list of cores; expected numbers as in 0,1 or 2-5");
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| bad())?;
        let last: usize = last.trim().parse().map_err(|_| bad())?;
        if first > last || last - first > 4096 {
            return Err(bad());
        }
        list.extend(first..=last);
    }
    match list.iter().enumerate().find(|(at, core)| list.iter().take(*at).any(|c| c == *core)) {
        Some((_, twice)) => Err(format!("core {twice} is named twice")),
        None => Ok(list),
    }
}

/// The known name nearest to what was written, if one is near.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = written.len() / 3 + 1;
    known
        .into_iter()
        // The beginning of a name is as near as one slip: `streams` means `streams_max`.
        .map(|name| match written.len() >= 4 && name.starts_with(written) {
            true => (1, name),
            false => (strsim::damerau_levenshtein(written, name), name),
        })
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `12.3 µs`, for tables: three digits and a unit.
pub(crate) fn show_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    three_digits(value, unit)
}

/// `12.3 MiB`, for tables.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let (value, unit) = match bytes {
        0..1_024 => return format!("{bytes} B"),
        1_024..1_048_576 => (bytes as f64 / 1024.0, "KiB"),
        1_048_576..1_073_741_824 => (bytes as f64 / 1_048_576.0, "MiB"),
        _ => (bytes as f64 / 1_073_741_824.0, "GiB"),
    };
    three_digits(value, unit)
}

fn three_digits(value: f64, unit: &str) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2} {unit}"),
        v if v < 99.95 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// The nearest whole number that is not negative.
pub(crate) fn rounded(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and NaN is 0")]
    {
        value.round() as u64
    }
}

/// `1,234,567`, for tables.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration_ns("2s"), Ok(2_000_000_000));
        assert_eq!(duration_ns("1.5ms"), Ok(1_500_000));
        assert_eq!(duration_ns("10m"), Ok(600_000_000_000));
        assert_eq!(size_bytes("64KiB"), Ok(65_536));
        assert_eq!(size_bytes("4 MiB"), Ok(4 << 20));
        for bad in ["", "2", "s", "-2s", "2 parsecs", "1.s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration_ns(bad).is_err(), "{bad}");
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_say_what_is_missing() {
        assert_eq!(addr("127.0.0.1:80"), Ok(Addr::Ip("127.0.0.1:80".parse().unwrap())));
        assert_eq!(addr("[::1]:80"), Ok(Addr::Ip("[::1]:80".parse().unwrap())));
        assert_eq!(addr("localhost:80"), Ok(Addr::Ip("127.0.0.1:80".parse().unwrap())));
        assert_eq!(addr("unix:/a"), Ok(Addr::Unix("/a".into())));
        assert!(addr(":80").unwrap_err().contains("127.0.0.1:80"));
        assert!(addr("10.0.0.1").unwrap_err().contains("no port"));
        assert!(addr(&format!("unix:/{}", "x".repeat(107))).unwrap_err().contains("too long"));
        assert!(addr("unix:").is_err());
    }

    #[test]
    fn cores_are_lists_and_ranges() {
        assert_eq!(cores("0,1"), Ok(vec![0, 1]));
        assert_eq!(cores("2-4, 7"), Ok(vec![2, 3, 4, 7]));
        assert_eq!(cores("1,1"), Err("core 1 is named twice".into()));
        for bad in ["", "a", "3-1", "0-999999999"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(show_ns(999), "999 ns");
        assert_eq!(show_ns(12_345), "12.3 µs");
        assert_eq!(show_ns(999_600_000), "1000 ms");
        assert_eq!(show_bytes(1536), "1.50 KiB");
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_count(12), "12");
    }

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        assert_eq!(nearest("adress", ["address", "socket"]), Some("address"));
        assert_eq!(nearest("zebra", ["address", "socket"]), None);
        assert_eq!(nearest("streams", ["stream_idle", "streams_max"]), Some("streams_max"));
    }
}
