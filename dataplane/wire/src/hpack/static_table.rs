//! The static table, RFC 7541 appendix A, and how to find a field in it.

use crate::Token;

/// A field of the static table.
#[derive(Clone, Copy)]
pub(super) struct StaticField {
    /// Name and value, one after the other.
    pub(super) joined: &'static [u8],
    /// Where the value begins.
    pub(super) name_len: usize,
    /// Which name it is.
    pub(super) token: Token,
}

impl StaticField {
    fn name(&self) -> &'static [u8] {
        self.joined.get(..self.name_len).unwrap_or(&[])
    }

    fn value(&self) -> &'static [u8] {
        self.joined.get(self.name_len..).unwrap_or(&[])
    }
}

/// How many fields there are; the dynamic table begins after them.
pub(super) const STATIC_COUNT: usize = 61;

macro_rules! fields {
    ($($name:literal $value:literal $token:ident,)*) => {
        [$(StaticField {
            joined: concat!($name, $value).as_bytes(),
            name_len: $name.len(),
            token: Token::$token,
        },)*]
    };
}

/// Index 1 is the first.
static FIELDS: [StaticField; STATIC_COUNT] = FIELDS_CONST;
const FIELDS_CONST: [StaticField; STATIC_COUNT] = fields! {
    ":authority" "" Authority,
    ":method" "GET" Method,
    ":method" "POST" Method,
    ":path" "/" Path,
    ":path" "/index.html" Path,
    ":scheme" "http" Scheme,
    ":scheme" "https" Scheme,
    ":status" "200" Status,
    ":status" "204" Status,
    ":status" "206" Status,
    ":status" "304" Status,
    ":status" "400" Status,
    ":status" "404" Status,
    ":status" "500" Status,
    "accept-charset" "" Other,
    "accept-encoding" "gzip, deflate" Other,
    "accept-language" "" Other,
    "accept-ranges" "" Other,
    "accept" "" Other,
    "access-control-allow-origin" "" Other,
    "age" "" Other,
    "allow" "" Other,
    "authorization" "" Other,
    "cache-control" "" Other,
    "content-disposition" "" Other,
    "content-encoding" "" Other,
    "content-language" "" Other,
    "content-length" "" ContentLength,
    "content-location" "" Other,
    "content-range" "" Other,
    "content-type" "" ContentType,
    "cookie" "" Other,
    "date" "" Other,
    "etag" "" Other,
    "expect" "" Other,
    "expires" "" Other,
    "from" "" Other,
    "host" "" Host,
    "if-match" "" Other,
    "if-modified-since" "" Other,
    "if-none-match" "" Other,
    "if-range" "" Other,
    "if-unmodified-since" "" Other,
    "last-modified" "" Other,
    "link" "" Other,
    "location" "" Other,
    "max-forwards" "" Other,
    "proxy-authenticate" "" Other,
    "proxy-authorization" "" Other,
    "range" "" Other,
    "referer" "" Other,
    "refresh" "" Other,
    "retry-after" "" Other,
    "server" "" Other,
    "set-cookie" "" Other,
    "strict-transport-security" "" Other,
    "transfer-encoding" "" ConnectionSpecific,
    "user-agent" "" UserAgent,
    "vary" "" Other,
    "via" "" Other,
    "www-authenticate" "" Other,
};

/// Indices the encoder's policy speaks of.
pub(super) mod index {
    pub(crate) const AUTHORITY: u8 = 1;
    pub(crate) const METHOD: u8 = 2;
    pub(crate) const PATH: u8 = 4;
    pub(crate) const SCHEME: u8 = 6;
    pub(crate) const STATUS: u8 = 8;
    pub(crate) const ACCEPT_ENCODING: u8 = 16;
    pub(crate) const AUTHORIZATION: u8 = 23;
    pub(crate) const CONTENT_LENGTH: u8 = 28;
    pub(crate) const CONTENT_TYPE: u8 = 31;
    pub(crate) const COOKIE: u8 = 32;
    pub(crate) const HOST: u8 = 38;
    pub(crate) const PROXY_AUTHORIZATION: u8 = 49;
    pub(crate) const SET_COOKIE: u8 = 55;
    pub(crate) const USER_AGENT: u8 = 58;
}

/// The field with this index, from 1.
#[inline]
pub(super) fn field(index: usize) -> Option<&'static StaticField> {
    FIELDS.get(index.wrapping_sub(1))
}

/// Where names hash to, without collisions: checked when this is compiled.
static NAMES: [u8; NAME_SLOTS] = names();
const NAME_SLOTS: usize = 128;

const fn slot(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [only] => (3 + (54 + 59) * *only as usize) % NAME_SLOTS,
        [first, .., last] => (3 * name.len() + 54 * *first as usize + 59 * *last as usize) % NAME_SLOTS,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are 61 indices")]
const fn names() -> [u8; NAME_SLOTS] {
    let mut out = [0_u8; NAME_SLOTS];
    let mut at = 0;
    while at < STATIC_COUNT {
        let field = FIELDS_CONST[at];
        let (name, _) = field.joined.split_at(field.name_len);
        let taken = out[slot(name)];
        if taken == 0 {
            out[slot(name)] = at as u8 + 1;
        } else {
            let other = FIELDS_CONST[taken as usize - 1];
            // Only the same name again, as with `:method`, may find its slot taken.
            assert!(other.name_len == field.name_len && other.joined[1] == field.joined[1], "names collide");
        }
        at += 1;
    }
    out
}

/// The first index of a name; 0 if there is none.
#[inline]
pub(super) fn name_index(token: Token, name: &[u8]) -> u8 {
    match token {
        Token::Authority => index::AUTHORITY,
        Token::Method => index::METHOD,
        Token::Path => index::PATH,
        Token::Scheme => index::SCHEME,
        Token::Status => index::STATUS,
        Token::Host => index::HOST,
        Token::ContentType => index::CONTENT_TYPE,
        Token::ContentLength => index::CONTENT_LENGTH,
        Token::UserAgent => index::USER_AGENT,
        Token::Other | Token::ConnectionSpecific => {
            let index = NAMES[slot(name)];
            match field(usize::from(index)) {
                Some(field) if field.name() == name => index,
                _ => 0,
            }
        }
        Token::Protocol
        | Token::UnknownPseudo
        | Token::Te
        | Token::GrpcTimeout
        | Token::GrpcEncoding
        | Token::GrpcAcceptEncoding
        | Token::GrpcStatus
        | Token::GrpcMessage
        | Token::GrpcPreviousRpcAttempts
        | Token::GrpcRetryPushbackMs
        | Token::TowpathCall => 0,
    }
}

/// The index of name and value, given what [`name_index`] said; 0 if there is none.
#[inline]
pub(super) fn exact_index(name_index: u8, value: &[u8]) -> u8 {
    let last = match name_index {
        index::METHOD => 3,
        index::PATH => 5,
        index::SCHEME => 7,
        index::STATUS => 14,
        index::ACCEPT_ENCODING => 16,
        _ => return 0,
    };
    (name_index..=last).find(|i| field(usize::from(*i)).is_some_and(|f| f.value() == value)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appendix_a_every_name_is_found_at_its_first_index() {
        for at in 1..=STATIC_COUNT {
            let field = field(at).unwrap();
            assert_eq!(Token::of(field.name()), field.token);
            let index = usize::from(name_index(field.token, field.name()));
            let first = (1..=STATIC_COUNT).find(|i| super::field(*i).unwrap().name() == field.name());
            assert_eq!(Some(index), first);
            if !field.value().is_empty() {
                assert_eq!(
                    usize::from(exact_index(name_index(field.token, field.name()), field.value())),
                    at
                );
            }
        }
        assert!(field(0).is_none());
        assert!(field(62).is_none());
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [&b""[..], b"x", b"x-request-id", b"grpc-trace-bin", b"traceparent", b"dat", b"agee"] {
            assert_eq!(name_index(Token::of(name), name), 0);
        }
        assert_eq!(exact_index(index::STATUS, b"201"), 0);
        assert_eq!(exact_index(index::PATH, b""), 0);
        assert_eq!(exact_index(0, b""), 0);
    }
}
