//! Lines of the access log: one JSON object each, written by hand into a buffer.
//!
//! What is absent is left out. Bytes that are not UTF-8 become U+FFFD, long texts are cut, so a line has at
//! most [`LINE_BYTES_MAX`] bytes. Not here: buffers and who writes them.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use abi::{Addr, Flag, Level, LogValue, Status};
use shard::{AccessRecord, ElementRecord, Instant, Notice};

use super::known::Known;

/// Texts are cut at this many bytes before they are escaped.
const TEXT_BYTES_MAX: usize = 1024;
/// Fields of an element's own line; more are left out.
const FIELDS_MAX: usize = 16;
/// No line is longer: each text grows at most sixfold by escapes.
pub(super) const LINE_BYTES_MAX: usize = 32 << 10;
/// What an element's own fields may take together.
const FIELDS_BYTES_MAX: usize = 16 << 10;

/// Turns the shard's instants into RFC 3339 text; the second's digits are kept from line to line.
pub(super) struct WallClock {
    /// Wall clock minus monotonic clock, nanoseconds; read anew each second.
    offset_ns: i128,
    second: u64,
    /// `2026-11-20T11:17:00.`
    prefix: [u8; 20],
    synced_second: Option<u64>,
}

impl WallClock {
    pub(super) fn new() -> Self {
        Self { offset_ns: 0, second: 0, prefix: *b"1970-01-01T00:00:00.", synced_second: None }
    }

    fn write(&mut self, out: &mut Vec<u8>, at: Instant) {
        let mono_second = at.0 / 1_000_000_000;
        if self.synced_second != Some(mono_second) {
            #[expect(
                clippy::disallowed_methods,
                reason = "once a second, so that lines carry the wall clock"
            )]
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.offset_ns = i128::try_from(wall.as_nanos()).unwrap_or(0) - i128::from(at.0);
            self.synced_second = Some(mono_second);
        }
        self.write_wall(out, u64::try_from(i128::from(at.0) + self.offset_ns).unwrap_or(0));
    }

    fn write_wall(&mut self, out: &mut Vec<u8>, wall_ns: u64) {
        let second = wall_ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.prefix = date(second);
        }
        out.extend_from_slice(&self.prefix);
        let mut micros = wall_ns / 1_000 % 1_000_000;
        let mut digits = *b"000000Z";
        for place in digits.iter_mut().take(6).rev() {
            *place = digit(micros);
            micros /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or(0)
}

/// `YYYY-MM-DDTHH:MM:SS.` of a second since 1970 (proleptic Gregorian, years of 400).
pub(crate) fn date(second: u64) -> [u8; 20] {
    let (days, rest) = (second / 86_400, second % 86_400);
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let mut out = *b"0000-00-00T00:00:00.";
    let fields = [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, rest / 3600), (14, 2, rest / 60 % 60)];
    for (start, len, mut number) in fields.into_iter().chain([(17, 2, rest % 60)]) {
        for place in out.iter_mut().skip(start).take(len).rev() {
            *place = digit(number);
            number /= 10;
        }
    }
    out
}

/// Appends the line of a finished call.
pub(super) fn access(out: &mut Vec<u8>, clock: &mut WallClock, known: &mut Known, r: &AccessRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write(out, r.at);
    out.push(b'"');
    if r.destination.is_empty() {
        whose(out, r);
    } else {
        known.whose(out, r, whose);
    }
    if r.status == Status::OK && r.flag == Flag::None {
        out.extend_from_slice(b",\"status\":\"OK\"");
    } else {
        out.extend_from_slice(b",\"status\":\"");
        out.extend_from_slice(r.status.name().as_bytes());
        out.push(b'"');
        let flag = r.flag.name();
        if !flag.is_empty() {
            out.extend_from_slice(b",\"flag\":\"");
            out.extend_from_slice(flag.as_bytes());
            out.push(b'"');
        }
    }
    number(out, b",\"latency_us\":", r.latency_ns / 1_000);
    number(out, b",\"request_bytes\":", r.request_bytes);
    number(out, b",\"response_bytes\":", r.response_bytes);
    match r.endpoint {
        Some(Addr::Ip(addr)) => known.endpoint(out, *addr, endpoint),
        Some(Addr::Unix(path)) => unix(out, path),
        None => {}
    }
    if r.attempts == 1 {
        out.extend_from_slice(b",\"attempts\":1");
    } else {
        number(out, b",\"attempts\":", u64::from(r.attempts));
    }
    if let Some((element, line)) = r.element {
        text(out, b",\"element\":", element.text.as_bytes());
        number(out, b",\"line\":", u64::from(line));
        number(out, b",\"rule_line\":", u64::from(element.line));
    }
    if !r.message.is_empty() {
        text(out, b",\"message\":", r.message);
    }
    out.extend_from_slice(b"}\n");
}

/// Who called what.
fn whose(out: &mut Vec<u8>, r: &AccessRecord<'_>) {
    if !r.source.is_empty() {
        text(out, b",\"source\":", r.source.as_bytes());
    }
    if !r.destination.is_empty() {
        text(out, b",\"destination\":", r.destination.as_bytes());
    } else if !r.authority.is_empty() {
        // Nobody knows it: what it asked for is what an operator needs.
        text(out, b",\"authority\":", r.authority);
    }
    text(out, b",\"method\":", r.path);
}

/// Appends an element's own line.
pub(super) fn element(out: &mut Vec<u8>, clock: &mut WallClock, r: &ElementRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write(out, r.at);
    out.extend_from_slice(match r.level {
        Level::Debug => b"\",\"level\":\"debug\"".as_slice(),
        Level::Info => b"\",\"level\":\"info\"",
        Level::Warn => b"\",\"level\":\"warn\"",
        Level::Error => b"\",\"level\":\"error\"",
    });
    text(out, b",\"element\":", r.element.text.as_bytes());
    number(out, b",\"call\":", r.id);
    let end = out.len() + FIELDS_BYTES_MAX;
    for (name, value) in r.fields.iter().take(FIELDS_MAX) {
        if out.len() >= end {
            break;
        }
        text(out, b",", name.get(..64.min(name.len())).unwrap_or("field").as_bytes());
        out.push(b':');
        field(out, value);
    }
    out.extend_from_slice(b"}\n");
}

fn field(out: &mut Vec<u8>, value: &LogValue<'_>) {
    // Writing into a Vec does not fail.
    let _ = match value {
        LogValue::None => out.write_all(b"null"),
        LogValue::Bool(is) => write!(out, "{is}"),
        LogValue::Int(number) => write!(out, "{number}"),
        LogValue::Uint(number) => write!(out, "{number}"),
        // JSON has no NaN and no infinity.
        LogValue::Float(number) if number.is_finite() => write!(out, "{number:?}"),
        LogValue::Float(_) => out.write_all(b"null"),
        LogValue::Text(value) => {
            text(out, b"", value.as_bytes());
            Ok(())
        }
    };
}

/// What to do about the faults that a setting on the other side mends.
fn advice(what: &str) -> Option<&'static str> {
    Some(match what {
        "client_speaks_tls" => {
            "a client speaks TLS to this cleartext listener; give it an insecure (plaintext) channel"
        }
        "client_speaks_http1" => {
            "a client speaks HTTP/1.1; this listener takes HTTP/2 with prior knowledge (gRPC)"
        }
        "server_speaks_tls" => {
            "the endpoint speaks TLS; Towpath speaks cleartext HTTP/2 to it: give it a plaintext port"
        }
        "server_speaks_http1" => "the endpoint speaks HTTP/1.1; is this the port of its gRPC server?",
        _ => return None,
    })
}

/// Appends a notice: a line for people, on standard error.
pub(super) fn notice(out: &mut Vec<u8>, n: &Notice<'_>) {
    out.extend_from_slice(b"towpath: ");
    let text = advice(n.what).unwrap_or(n.text);
    for part in [n.subject, ": ", text, " (", n.what, ")"] {
        let shown = part.as_bytes();
        for byte in shown.iter().take(TEXT_BYTES_MAX) {
            // A peer's bytes must not drive a terminal.
            out.push(if *byte < 0x20 || *byte == 0x7f { b'?' } else { *byte });
        }
    }
    out.push(b'\n');
}

fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn unix(out: &mut Vec<u8>, path: &str) {
    out.extend_from_slice(b",\"endpoint\":\"unix:");
    rest_of_text(out, path.as_bytes());
}

fn endpoint(out: &mut Vec<u8>, addr: SocketAddr) {
    // Writing into a Vec does not fail.
    let _ = write!(out, ",\"endpoint\":\"{addr}\"");
}

/// Appends a key and a JSON string.
fn text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    rest_of_text(out, value);
}

/// A string whose opening quote stands already.
fn rest_of_text(out: &mut Vec<u8>, value: &[u8]) {
    let (value, is_cut) = match value.get(..TEXT_BYTES_MAX) {
        Some(head) => (head, value.len() > TEXT_BYTES_MAX),
        None => (value, false),
    };
    let is_odd =
        value.iter().fold(false, |odd, b| odd | !(0x20..0x7f).contains(b) | (*b == b'"') | (*b == b'\\'));
    if is_odd {
        escape(out, value);
    } else {
        out.extend_from_slice(value);
    }
    out.extend_from_slice(if is_cut { "…\"".as_bytes() } else { b"\"" });
}

/// RFC 8259 section 7: quotes, backslashes and control characters; what is not UTF-8 is replaced.
#[cold]
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 | 0x7f => {
                    let _ = write!(out, "\\u{byte:04x}");
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(ns: u64) -> String {
        let mut out = Vec::new();
        WallClock::new().write_wall(&mut out, ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc3339_dates_agree_with_the_calendar() {
        assert_eq!(wall(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(wall(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(wall(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(wall(1_795_173_420_123_456_789), "2026-11-20T11:17:00.123456Z");
        assert_eq!(wall(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn rfc8259_section_7_strings_are_escaped() {
        let mut out = Vec::new();
        text(&mut out, b"", b"a\"b\\c\n\x01\x7f\xff\xc3\xa9");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"b\\\\c\\n\\u0001\\u007f\u{fffd}é\"");
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let mut out = Vec::new();
        text(&mut out, b"", &[0; 5000]);
        assert!(out.len() <= 6 * TEXT_BYTES_MAX + 8);
        assert!(String::from_utf8(out).unwrap().ends_with("…\""));
    }

    #[test]
    fn a_character_cut_in_half_stays_valid_json() {
        let value = "é".repeat(600);
        let mut out = Vec::new();
        text(&mut out, b"", &value.as_bytes()[1..]);
        assert!(String::from_utf8(out).is_ok());
    }

    #[test]
    fn addresses_are_as_rust_writes_them() {
        for addr in ["127.0.0.1:50051", "255.255.255.255:1", "[::1]:65535"] {
            let mut out = Vec::new();
            endpoint(&mut out, addr.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), format!(",\"endpoint\":\"{addr}\""));
        }
        let mut out = Vec::new();
        unix(&mut out, "/run/a\"b.sock");
        assert_eq!(String::from_utf8(out).unwrap(), r#","endpoint":"unix:/run/a\"b.sock""#);
    }

    #[test]
    fn a_notice_cannot_drive_a_terminal() {
        let mut out = Vec::new();
        let n =
            Notice { at: Instant(0), what: "frame_length", subject: "\x1b[2J", text: "a caller\nbroke it" };
        notice(&mut out, &n);
        assert_eq!(out, b"towpath: ?[2J: a caller?broke it (frame_length)\n");
    }

    #[test]
    fn a_client_that_speaks_tls_is_told_what_to_do() {
        let mut out = Vec::new();
        let n = Notice { at: Instant(0), what: "client_speaks_tls", subject: "pods", text: "" };
        notice(&mut out, &n);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("towpath: pods: a client speaks TLS"), "{text}");
        assert!(text.ends_with("channel (client_speaks_tls)\n"), "{text}");
    }
}
