//! Values on the command line: `5ms`, `64KiB`, `127.0.0.1:50051`, `unix:/run/x.sock`, `name: value`.

use std::net::ToSocketAddrs;
use std::time::Duration;

use abi::Addr;

fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    Ok((number, unit.trim()))
}

/// `300ns`, `5us`, `5ms`, `10s`, `2m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: ns, us, ms, s, m, h")),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|e| format!("{text:?}: {e}"))
}

/// `32`, `32B`, `64KiB`, `16MiB`, `1kB`; at most 1 GiB.
pub(crate) fn bytes(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "B" | "" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "KiB" => 1024.0,
        "MiB" => 1048576.0,
        "GiB" => 1073741824.0,
        _ => return Err(format!("{unit:?} is no unit of size: B, KiB, MiB, GiB, kB, MB")),
    };
    let value = (number * scale).round();
    if value <= f64::from(1u32 << 30) {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line above, and not negative")]
        Ok(value as u32)
    } else {
        Err(format!("{text}: a message is at most 1 GiB"))
    }
}

/// `02:00:00:00:00:0a`.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text.split(':').map_while(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let whole = text.split(':').count() == 6;
    let mac = bytes.try_into().ok().filter(|_| whole);
    mac.ok_or_else(|| format!("{text:?} is no ethernet address: 02:00:00:00:00:0a"))
}

/// `50000` or `50k`, a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text.strip_suffix("/s").unwrap_or(text))?;
    match unit {
        "" => Ok(number),
        "k" => Ok(number * 1e3),
        "M" => Ok(number * 1e6),
        _ => Err(format!("{unit:?} is no unit of a rate: 5000, 50k, 1M")),
    }
}

/// `host:port` (a name is looked up once) or `unix:PATH`.
pub(crate) fn addr(text: &str) -> Result<Addr, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Addr::Unix(path.to_owned()));
    }
    let mut found = text.to_socket_addrs().map_err(|e| {
        if text.contains(':') { format!("{text:?}: {e}") } else { format!("{text:?} has no port: HOST:PORT") }
    })?;
    found.next().map(Addr::Ip).ok_or_else(|| format!("{text:?} has no address"))
}

/// `name: value`; the name becomes lower case, as HTTP/2 wants it.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not NAME:VALUE"))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// A status by name or number.
pub(crate) fn status(text: &str) -> Result<abi::Status, String> {
    let by_number = text.parse().ok().filter(|n| usize::from(*n) < abi::Status::COUNT);
    by_number
        .map(abi::Status::from_code)
        .or_else(|| abi::Status::from_name(&text.to_ascii_uppercase()))
        .ok_or_else(|| format!("{text:?} is no gRPC status: a name such as UNAVAILABLE, or 0 to 16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_others_named() {
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert!(duration("10 parsecs").is_err_and(|e| e.contains("parsecs")));
        assert!(duration("ms").is_err());
        assert_eq!(bytes("64KiB"), Ok(65536));
        assert_eq!(bytes("1kB"), Ok(1000));
        assert!(bytes("2GiB").is_err());
        assert_eq!(rate("50k"), Ok(50_000.0));
        assert_eq!(rate("5000/s"), Ok(5000.0));
        assert_eq!(addr("127.0.0.1:80"), Ok(Addr::Ip(([127, 0, 0, 1], 80).into())));
        assert_eq!(addr("unix:/run/x"), Ok(Addr::Unix("/run/x".to_owned())));
        assert!(addr("127.0.0.1").is_err_and(|e| e.contains("port")));
        assert_eq!(header("X-A: b:c"), Ok(("x-a".to_owned(), "b:c".to_owned())));
        assert_eq!(status("unavailable"), Ok(abi::Status::UNAVAILABLE));
        assert_eq!(status("14"), Ok(abi::Status::UNAVAILABLE));
        assert!(status("17").is_err());
    }
}
