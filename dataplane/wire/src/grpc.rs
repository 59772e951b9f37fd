//! gRPC over HTTP/2: message prefix, `grpc-timeout`, `grpc-message`, path, and which status an HTTP answer or
//! an HTTP/2 error code means. The source is gRPC's `PROTOCOL-HTTP2.md`.
//!
//! Not here: the names of the statuses and what becomes of a call.

use alloc::vec::Vec;

use crate::h2::Reason;

/// Bytes of a message's prefix: a flag and a big-endian length.
pub const PREFIX_LEN: usize = 5;

/// A message's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The message is encoded as `grpc-encoding` says.
    pub is_compressed: bool,
    /// Bytes that follow.
    pub len: u32,
}

impl Prefix {
    /// Reads a prefix; a flag other than 0 and 1 is `None`.
    pub fn parse(bytes: [u8; PREFIX_LEN]) -> Option<Self> {
        let [flag, a, b, c, d] = bytes;
        (flag < 2).then_some(Self { is_compressed: flag == 1, len: u32::from_be_bytes([a, b, c, d]) })
    }

    /// Its bytes.
    pub fn emit(self) -> [u8; PREFIX_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [u8::from(self.is_compressed), a, b, c, d]
    }
}

/// The units of `grpc-timeout`, the smallest first, and their nanoseconds.
const TIMEOUT_UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// `grpc-timeout` has at most this many digits.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// `grpc-timeout` to nanoseconds, saturating: 1 to 8 digits and a unit of `HMSmun`.
pub fn parse_timeout_ns(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    let (_, unit_ns) = TIMEOUT_UNITS.iter().find(|(u, _)| u == unit)?;
    if digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    Some(crate::decimal(digits)?.saturating_mul(*unit_ns))
}

/// Nanoseconds as the most exact `grpc-timeout` of at most 8 digits, rounded down; 0 gives `1n`.
pub fn emit_timeout(ns: u64, out: &mut Vec<u8>) {
    let ns = ns.max(1);
    for (unit, unit_ns) in TIMEOUT_UNITS {
        // Hours always fit: there are not 10^8 of them in 64 bits of nanoseconds.
        let mut count = ns / unit_ns;
        if count > 99_999_999 {
            continue;
        }
        let mut text = [0_u8; TIMEOUT_DIGITS_MAX];
        let mut at = text.len();
        for place in text.iter_mut().rev() {
            let [digit, ..] = (count % 10).to_le_bytes();
            *place = b'0' + digit;
            at -= 1;
            count /= 10;
            if count == 0 {
                break;
            }
        }
        out.extend_from_slice(text.get(at..).unwrap_or(&[]));
        return out.push(unit);
    }
}

/// Percent-encodes a status message: what is not printable ASCII, and `%`. A space at either end too, since
/// no field value may begin or end with one (RFC 9113 section 8.2.1).
pub fn encode_message(text: &[u8], out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    out.reserve(text.len());
    let last = text.len().wrapping_sub(1);
    for (at, byte) in text.iter().enumerate() {
        let is_plain = match byte {
            b'%' => false,
            b' ' => at != 0 && at != last,
            _ => byte.is_ascii_graphic(),
        };
        if is_plain {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Percent-decodes a status message; what is not a valid escape stays as it is.
pub fn decode_message(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        if let [b'%', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
            rest = after;
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Appends what a `-bin` value says: base64 (RFC 4648), padded or not. False if it is none.
pub fn decode_bin(from: &[u8], to: &mut Vec<u8>) -> bool {
    let from = from.strip_suffix(b"=").unwrap_or(from);
    let from = from.strip_suffix(b"=").unwrap_or(from);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in from {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            to.push((held >> bits).to_le_bytes()[0]);
        }
    }
    // A single character is half a byte; bits that are left over say nothing.
    bits < 6
}

/// The gRPC status code of a plain HTTP answer (CONVENTIONS: 400 INTERNAL, 401 UNAUTHENTICATED, 403
/// PERMISSION_DENIED, 404 UNIMPLEMENTED, 429/502/503/504 UNAVAILABLE, else UNKNOWN).
pub fn status_of_http(status: u16) -> u8 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The gRPC status code of an RST_STREAM or GOAWAY code (`PROTOCOL-HTTP2.md`, "Errors"). For the two that
/// document leaves open, what its implementations do: HTTP_1_1_REQUIRED is INTERNAL, and a code of no
/// meaning UNKNOWN.
pub fn status_of_reason(code: u32) -> u8 {
    match Reason(code) {
        Reason::REFUSED_STREAM => UNAVAILABLE,
        Reason::CANCEL => CANCELLED,
        Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
        Reason::INADEQUATE_SECURITY => PERMISSION_DENIED,
        Reason(0..=0xd) => INTERNAL,
        Reason(_) => UNKNOWN,
    }
}

/// The halves of a gRPC `:path`, `/pkg.Service/Method`. A service's name may hold slashes, a method's not.
pub fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let slash = path.iter().rposition(|b| *b == b'/')?;
    let (service, method) = (path.get(..slash)?, path.get(slash + 1..)?);
    (!service.is_empty() && !method.is_empty()).then_some((service, method))
}

const CANCELLED: u8 = 1;
const UNKNOWN: u8 = 2;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn emitted(ns: u64) -> String {
        let mut out = Vec::new();
        emit_timeout(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prefix_comes_back_and_other_flags_do_not() {
        let prefix = Prefix { is_compressed: true, len: 0x0102_0304 };
        assert_eq!(prefix.emit(), [1, 1, 2, 3, 4]);
        assert_eq!(Prefix::parse(prefix.emit()), Some(prefix));
        assert_eq!(Prefix::parse([2, 0, 0, 0, 0]), None);
        assert_eq!(Prefix::parse([0xff, 0, 0, 0, 0]), None);
    }

    #[test]
    fn timeout_units_and_limits() {
        assert_eq!(parse_timeout_ns(b"1n"), Some(1));
        assert_eq!(parse_timeout_ns(b"20u"), Some(20_000));
        assert_eq!(parse_timeout_ns(b"300m"), Some(300_000_000));
        assert_eq!(parse_timeout_ns(b"00000005S"), Some(5_000_000_000));
        assert_eq!(parse_timeout_ns(b"2M"), Some(120_000_000_000));
        assert_eq!(parse_timeout_ns(b"1H"), Some(3_600_000_000_000));
        assert_eq!(parse_timeout_ns(b"0n"), Some(0));
        assert_eq!(parse_timeout_ns(b"99999999H"), Some(u64::MAX));
        assert_eq!(parse_timeout_ns(b"99999999M"), Some(99_999_999 * 60_000_000_000));
        for bad in
            [&b""[..], b"S", b"1", b"123456789S", b"1s", b"1h", b"-1S", b"+1S", b" 1S", b"1 S", b"1.5S"]
        {
            assert_eq!(parse_timeout_ns(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn timeout_is_as_exact_as_8_digits_allow_and_never_longer_than_it_was() {
        for (ns, text) in [
            (0, "1n"),
            (1, "1n"),
            (99_999_999, "99999999n"),
            (100_000_000, "100000u"),
            (100_000_999, "100000u"),
            (99_999_999_999, "99999999u"),
            (100_000_000_000, "100000m"),
            (u64::MAX, "5124095H"),
        ] {
            assert_eq!(emitted(ns), text);
        }
        let mut ns = 1_u64;
        while let Some(next) = ns.checked_mul(3) {
            let exact = ns + ns / 7;
            let text = emitted(exact);
            assert!(text.len() <= 9);
            let back = parse_timeout_ns(text.as_bytes()).unwrap();
            assert!(back <= exact && exact - back <= exact / 100_000, "{exact} {text}");
            ns = next;
        }
    }

    #[test]
    fn message_escapes_what_the_grammar_says() {
        for (text, value) in [
            (&b"all is well"[..], &b"all is well"[..]),
            (b"100%", b"100%25"),
            (b"\r\n\0~\x7f", b"%0D%0A%00~%7F"),
            ("caf\u{e9}".as_bytes(), b"caf%C3%A9"),
            (b" two ends ", b"%20two ends%20"),
            (b" ", b"%20"),
            (b"", b""),
        ] {
            let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
            encode_message(text, &mut encoded);
            assert_eq!(encoded, value);
            decode_message(&encoded, &mut decoded);
            assert_eq!(decoded, text);
        }
    }

    #[test]
    fn message_that_is_no_valid_escape_stays() {
        for (value, text) in [
            (&b"%"[..], &b"%"[..]),
            (b"%4", b"%4"),
            (b"%zz%41", b"%zzA"),
            (b"%%41", b"%A"),
            (b"%c3%a9", "\u{e9}".as_bytes()),
            (b"50%!", b"50%!"),
        ] {
            let mut out = Vec::new();
            decode_message(value, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn statuses() {
        let by_http = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (500, 2),
            (302, 2),
        ];
        for (http, grpc) in by_http {
            assert_eq!(status_of_http(http), grpc);
        }
        let by_code = [13, 13, 13, 13, 13, 13, 13, 14, 1, 13, 13, 8, 7, 13, 2];
        for (code, grpc) in (0..).zip(by_code) {
            assert_eq!(status_of_reason(code), grpc, "{code}");
        }
    }

    #[test]
    fn path_halves() {
        assert_eq!(split_path(b"/pkg.Service/Method"), Some((&b"pkg.Service"[..], &b"Method"[..])));
        assert_eq!(split_path(b"/a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
        for bad in [&b""[..], b"/", b"//", b"/a", b"/a/", b"//m", b"a/b", b"*"] {
            assert_eq!(split_path(bad), None);
        }
    }
}
