//! Is a header list a well-formed request, response or trailer section (RFC 9113 sections 8.1 to 8.3)?
//! A malformed one never leaves this crate.
//!
//! Bodies' lengths are counted in `stream.rs`; here `content-length` is only read.

use super::Fault;
use super::stream::LEN_UNKNOWN;
use crate::{Headers, Token, decimal};

/// `content-length`, or [`LEN_UNKNOWN`].
pub(crate) type BodyLen = u64;

/// What a response says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Response {
    pub(crate) is_informational: bool,
    /// 204 and 304 have no body, whatever `content-length` says (RFC 9110 section 8.6).
    pub(crate) body_len: BodyLen,
}

/// Which pseudo-header fields have been seen, one bit each.
struct Seen(u8);

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const PATH: u8 = 4;
const AUTHORITY: u8 = 8;
const STATUS: u8 = 16;
const REGULAR: u8 = 128;

impl Seen {
    /// Section 8.3: each at most once, and all before regular fields.
    fn pseudo(&mut self, bit: u8) -> Result<(), Fault> {
        if self.0 & REGULAR != 0 {
            return Err(Fault::PseudoOrder);
        }
        if self.0 & bit != 0 {
            return Err(Fault::PseudoDuplicate);
        }
        self.0 |= bit;
        Ok(())
    }
}

/// Checks a request.
pub(crate) fn request(list: &Headers) -> Result<BodyLen, Fault> {
    let mut seen = Seen(0);
    let mut body_len = LEN_UNKNOWN;
    let (mut method, mut path, mut authority): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    for (field, name, value) in list {
        match field.token {
            Token::Method => {
                seen.pseudo(METHOD)?;
                if value.is_empty() || !value.iter().all(|b| NAME[usize::from(*b)] != 0) {
                    return Err(Fault::PseudoValue);
                }
                method = value;
            }
            Token::Scheme => {
                seen.pseudo(SCHEME)?;
                if value.is_empty() || !value.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
                {
                    return Err(Fault::PseudoValue);
                }
            }
            Token::Path => {
                seen.pseudo(PATH)?;
                if !is_visible(value) {
                    return Err(Fault::PseudoValue);
                }
                path = value;
            }
            Token::Authority => {
                seen.pseudo(AUTHORITY)?;
                // Section 8.3.1 forbids user information.
                if !is_visible(value) || value.contains(&b'@') {
                    return Err(Fault::PseudoValue);
                }
                authority = value;
            }
            Token::Host => {
                seen.0 |= REGULAR;
                check_value(value)?;
                if seen.0 & AUTHORITY != 0 && !value.eq_ignore_ascii_case(authority) {
                    return Err(Fault::HostMismatch);
                }
            }
            token => {
                seen.0 |= REGULAR;
                regular(token, name, value, &mut body_len)?;
            }
        }
    }
    if method == b"CONNECT" {
        // Section 8.5: only with :authority. Well-formed or not, it opens no tunnel here.
        let wanted = METHOD | AUTHORITY;
        let all = METHOD | AUTHORITY | SCHEME | PATH;
        return Err(if seen.0 & all == wanted { Fault::Connect } else { Fault::PseudoMissing });
    }
    let wanted = METHOD | SCHEME | PATH;
    if seen.0 & wanted != wanted {
        return Err(Fault::PseudoMissing);
    }
    // Section 8.3.1: not empty, and it begins with "/", but for OPTIONS of the server itself.
    if path.first() != Some(&b'/') && !(path == b"*" && method == b"OPTIONS") {
        return Err(Fault::PseudoValue);
    }
    Ok(body_len)
}

/// Could this be sent as a regular field: a lower-case name that HTTP/2 does not forbid, and a value without
/// NUL, CR, LF and outer spaces? For fields that come from elsewhere than a peer's list.
pub fn field_is_valid(name: &[u8], value: &[u8]) -> bool {
    let token = Token::of(name);
    !token.is_pseudo()
        && check_name(name).is_ok()
        && regular(token, name, value, &mut LEN_UNKNOWN.clone()).is_ok()
}

/// Checks a response, interim or final.
pub(crate) fn response(list: &Headers) -> Result<Response, Fault> {
    let mut seen = Seen(0);
    let mut body_len = LEN_UNKNOWN;
    let mut status: &[u8] = b"";
    for (field, name, value) in list {
        if field.token == Token::Status {
            seen.pseudo(STATUS)?;
            // Three digits, and never 101 (section 8.6).
            if !matches!(value, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']) || value == b"101" {
                return Err(Fault::PseudoValue);
            }
            status = value;
        } else {
            seen.0 |= REGULAR;
            if field.token == Token::Host {
                check_value(value)?;
            } else {
                regular(field.token, name, value, &mut body_len)?;
            }
        }
    }
    if status.is_empty() {
        return Err(Fault::PseudoMissing);
    }
    if status == b"204" || status == b"304" {
        body_len = LEN_UNKNOWN;
    }
    Ok(Response { is_informational: status.first() == Some(&b'1'), body_len })
}

/// Checks trailers.
pub(crate) fn trailers(list: &Headers) -> Result<(), Fault> {
    let mut ignored = LEN_UNKNOWN;
    for (field, name, value) in list {
        if field.token.is_pseudo() {
            return Err(Fault::PseudoInTrailers);
        }
        if field.token == Token::Host {
            check_value(value)?;
        } else {
            regular(field.token, name, value, &mut ignored)?;
        }
    }
    Ok(())
}

fn regular(token: Token, name: &[u8], value: &[u8], body_len: &mut BodyLen) -> Result<(), Fault> {
    match token {
        Token::Other => check_name(name)?,
        Token::ConnectionSpecific => return Err(Fault::FieldConnectionSpecific),
        Token::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(Fault::FieldTe),
        Token::ContentLength => {
            // 18 digits at most, so that no length is [`LEN_UNKNOWN`].
            let len = decimal(value).ok_or(Fault::ContentLengthInvalid)?;
            if *body_len != LEN_UNKNOWN && *body_len != len {
                return Err(Fault::ContentLengthInvalid);
            }
            *body_len = len;
        }
        // Pseudo-header fields of the other direction, or of none.
        _ if token.is_pseudo() => return Err(Fault::PseudoUnknown),
        _ => {}
    }
    check_value(value)
}

/// 1 for the characters of RFC 9110's `token` in lower case: what a field name may have (section 8.2.1), and
/// 2 for upper-case letters, which only methods may have.
const NAME: [u8; 256] = {
    let mut table = [0; 256];
    let marks = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = 1;
        i += 1;
    }
    let mut upper = b'A';
    while upper <= b'Z' {
        table[upper as usize] = 2;
        upper += 1;
    }
    table
};

fn check_name(name: &[u8]) -> Result<(), Fault> {
    let all = name.iter().fold(1, |all, b| if NAME[usize::from(*b)] == 1 { all } else { 0 });
    if all == 1 && !name.is_empty() { Ok(()) } else { Err(Fault::FieldName) }
}

/// Section 8.2.1: no NUL, CR or LF, and no space or tab at either end.
fn check_value(value: &[u8]) -> Result<(), Fault> {
    let (Some(first), Some(last)) = (value.first(), value.last()) else { return Ok(()) };
    if matches!(first, b' ' | b'\t') || matches!(last, b' ' | b'\t') {
        return Err(Fault::FieldValue);
    }
    // Eight bytes at a time: is any below 14? Tabs, the only honest ones, take the exact way.
    let (chunks, rest) = value.as_chunks::<8>();
    let mut low = 0;
    for chunk in chunks {
        let x = u64::from_ne_bytes(*chunk);
        low |= x.wrapping_sub(0x0e0e_0e0e_0e0e_0e0e) & !x & 0x8080_8080_8080_8080;
    }
    let low = low != 0 || rest.iter().any(|b| *b < 14);
    if low && value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        return Err(Fault::FieldValue);
    }
    Ok(())
}

/// Neither empty nor with a control character, space or DEL.
fn is_visible(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().fold(true, |all, b| all & (*b > b' ') & (*b != 0x7f))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn list(fields: &[(&str, &str)]) -> Headers {
        let mut h = Headers::new();
        for (n, v) in fields {
            h.push(n.as_bytes(), v.as_bytes());
        }
        h
    }

    const OK: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "h:1")];

    fn with(more: &[(&str, &str)]) -> Result<BodyLen, Fault> {
        request(&list(&[&OK[..], more].concat()))
    }

    fn without(name: &str, more: &[(&str, &str)]) -> Result<BodyLen, Fault> {
        let base: Vec<_> = more.iter().chain(OK.iter().filter(|f| f.0 != name)).copied().collect();
        request(&list(&base))
    }

    #[test]
    fn section_8_3_1_requests() {
        assert_eq!(with(&[]), Ok(LEN_UNKNOWN));
        assert_eq!(without(":authority", &[]), Ok(LEN_UNKNOWN));
        for name in [":method", ":scheme", ":path"] {
            assert_eq!(without(name, &[]), Err(Fault::PseudoMissing));
            assert_eq!(without(name, &[(name, "")]), Err(Fault::PseudoValue));
            assert_eq!(without(name, &[(name, "a b")]), Err(Fault::PseudoValue));
        }
        assert_eq!(with(&[(":path", "/")]), Err(Fault::PseudoDuplicate));
        assert_eq!(with(&[("a", "b"), (":path", "/")]), Err(Fault::PseudoOrder));
        assert_eq!(with(&[(":status", "200")]), Err(Fault::PseudoUnknown));
        assert_eq!(with(&[(":protocol", "websocket")]), Err(Fault::PseudoUnknown));
        assert_eq!(with(&[(":x", "1")]), Err(Fault::PseudoUnknown));
        assert_eq!(without(":path", &[(":path", "*")]), Err(Fault::PseudoValue));
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")];
        assert_eq!(request(&list(&options)), Ok(LEN_UNKNOWN));
        assert_eq!(without(":path", &[(":path", "a")]), Err(Fault::PseudoValue));
        assert_eq!(without(":authority", &[(":authority", "u@h")]), Err(Fault::PseudoValue));
    }

    #[test]
    fn section_8_3_1_host_and_authority_agree() {
        assert_eq!(with(&[("host", "H:1")]), Ok(LEN_UNKNOWN));
        assert_eq!(with(&[("host", "h:2")]), Err(Fault::HostMismatch));
        assert_eq!(without(":authority", &[]), Ok(LEN_UNKNOWN));
        let only_host: Vec<_> = OK[..3].iter().chain(&[("host", "x")]).copied().collect();
        assert_eq!(request(&list(&only_host)), Ok(LEN_UNKNOWN));
    }

    #[test]
    fn section_8_2_2_connection_specific_fields() {
        for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
            assert_eq!(with(&[(name, "x")]), Err(Fault::FieldConnectionSpecific));
        }
        assert_eq!(with(&[("te", "trailers")]), Ok(LEN_UNKNOWN));
        assert_eq!(with(&[("te", "trailers, deflate")]), Err(Fault::FieldTe));
    }

    #[test]
    fn section_8_2_1_names_and_values() {
        for bad in ["", "A", "a b", "a:", "\u{7f}", "é", "a\r\n", "x\0"] {
            let mut h = list(&OK);
            h.push_field(Token::of(bad.as_bytes()), bad.as_bytes(), b"v", false);
            assert_eq!(request(&h), Err(Fault::FieldName), "{bad:?}");
        }
        for bad in
            [" a", "a ", "\ta", "a\t", "a\rb", "a\nb", "a\0b", "12345678\n12345678", "1234567\x001", "\n"]
        {
            assert_eq!(with(&[("x", bad)]), Err(Fault::FieldValue), "{bad:?}");
            assert_eq!(trailers(&list(&[("grpc-message", bad)])), Err(Fault::FieldValue));
            assert_eq!(response(&list(&[(":status", "200"), ("x", bad)])).err(), Some(Fault::FieldValue));
        }
        for good in ["", "a b", "a\tb", "\u{e9}\u{ff}", "\x01", "abcdefgh\tabcdefgh\x7f"] {
            assert_eq!(with(&[("x", good)]), Ok(LEN_UNKNOWN), "{good:?}");
        }
    }

    #[test]
    fn fields_from_elsewhere_are_judged_alike() {
        assert!(field_is_valid(b"x-a", b"b c") && field_is_valid(b"te", b"trailers"));
        for (name, value) in
            [("X-a", "b"), ("", "b"), (":path", "/"), ("connection", "close"), ("te", "gzip"), ("a", "b\n")]
        {
            assert!(!field_is_valid(name.as_bytes(), value.as_bytes()), "{name}");
        }
    }

    #[test]
    fn section_8_1_1_content_length() {
        assert_eq!(with(&[("content-length", "12")]), Ok(12));
        assert_eq!(with(&[("content-length", "12"), ("content-length", "12")]), Ok(12));
        for bad in ["", "-1", "+1", "1 2", "0x1", "9999999999999999999"] {
            assert_eq!(with(&[("content-length", bad)]), Err(Fault::ContentLengthInvalid), "{bad}");
        }
        assert_eq!(
            with(&[("content-length", "1"), ("content-length", "2")]),
            Err(Fault::ContentLengthInvalid)
        );
    }

    #[test]
    fn section_8_3_2_responses() {
        let ok = response(&list(&[(":status", "200"), ("content-length", "3")]));
        assert_eq!(ok, Ok(Response { is_informational: false, body_len: 3 }));
        assert!(response(&list(&[(":status", "103")])).is_ok_and(|r| r.is_informational));
        assert!(
            response(&list(&[(":status", "304"), ("content-length", "3")]))
                .is_ok_and(|r| r.body_len == LEN_UNKNOWN)
        );
        for bad in ["", "20", "2000", "abc", "101", "099"] {
            assert_eq!(response(&list(&[(":status", bad)])).err(), Some(Fault::PseudoValue), "{bad}");
        }
        assert_eq!(response(&list(&[("a", "b")])).err(), Some(Fault::PseudoMissing));
        assert_eq!(response(&list(&[(":status", "200"), (":path", "/")])).err(), Some(Fault::PseudoUnknown));
        assert_eq!(response(&list(&[("a", "b"), (":status", "200")])).err(), Some(Fault::PseudoOrder));
        let twice = [(":status", "200"), (":status", "200")];
        assert_eq!(response(&list(&twice)).err(), Some(Fault::PseudoDuplicate));
    }

    #[test]
    fn section_8_1_trailers_and_section_8_5_connect() {
        assert_eq!(trailers(&list(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(trailers(&list(&[(":status", "0")])), Err(Fault::PseudoInTrailers));
        let connect = [(":method", "CONNECT"), (":authority", "h:1")];
        assert_eq!(request(&list(&connect)), Err(Fault::Connect));
        assert_eq!(without(":method", &[(":method", "CONNECT")]), Err(Fault::PseudoMissing));
    }
}
