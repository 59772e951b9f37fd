//! A header list: one flat buffer and a table of fields, so that copying, comparing and clearing it are
//! memory moves and a reused list allocates nothing.

use alloc::vec::Vec;

/// Names the proxy acts on; everything else is [`Token::Other`]. Known at decode, so that no code after
/// HPACK compares these names again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the header of that name")]
pub enum Token {
    #[default]
    Other,
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
    /// A name beginning with `:` that is none of the above.
    UnknownPseudo,
    Host,
    Te,
    ContentType,
    ContentLength,
    UserAgent,
    /// `connection`, `proxy-connection`, `keep-alive`, `upgrade`, `transfer-encoding`.
    ConnectionSpecific,
    GrpcTimeout,
    GrpcEncoding,
    GrpcAcceptEncoding,
    GrpcStatus,
    GrpcMessage,
    GrpcPreviousRpcAttempts,
    GrpcRetryPushbackMs,
}

/// One field of a list: where it is and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    at: u32,
    name_len: u32,
    value_len: u32,
    /// Which name it is.
    pub token: Token,
    /// Sent as never-indexed (RFC 7541 section 6.2.3); re-emitted as such.
    pub never_indexed: bool,
}

/// An ordered header list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    buf: Vec<u8>,
    fields: Vec<Field>,
}

impl Token {
    /// The token of a lower-case name.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            [b':', ..] => Self::UnknownPseudo,
            b"host" => Self::Host,
            b"te" => Self::Te,
            b"content-type" => Self::ContentType,
            b"content-length" => Self::ContentLength,
            b"user-agent" => Self::UserAgent,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"upgrade" | b"transfer-encoding" => {
                Self::ConnectionSpecific
            }
            b"grpc-timeout" => Self::GrpcTimeout,
            b"grpc-encoding" => Self::GrpcEncoding,
            b"grpc-accept-encoding" => Self::GrpcAcceptEncoding,
            b"grpc-status" => Self::GrpcStatus,
            b"grpc-message" => Self::GrpcMessage,
            b"grpc-previous-rpc-attempts" => Self::GrpcPreviousRpcAttempts,
            b"grpc-retry-pushback-ms" => Self::GrpcRetryPushbackMs,
            _ => Self::Other,
        }
    }

    /// True for names that begin with a colon.
    pub const fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Authority
                | Self::Method
                | Self::Path
                | Self::Scheme
                | Self::Status
                | Self::Protocol
                | Self::UnknownPseudo
        )
    }
}

impl Headers {
    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        Self { buf: Vec::new(), fields: Vec::new() }
    }

    /// Forgets the fields, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.fields.clear();
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of names and values.
    pub fn bytes_len(&self) -> usize {
        self.buf.len()
    }

    /// Bytes of memory held, used or not.
    pub fn capacity_bytes(&self) -> usize {
        self.buf.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// The size RFC 9113 section 10.5.1 limits: names, values and 32 bytes a field.
    pub fn list_size(&self) -> usize {
        self.buf.len() + 32 * self.fields.len()
    }

    /// Appends a field whose token is known.
    pub fn push_field(&mut self, token: Token, name: &[u8], value: &[u8], never_indexed: bool) {
        let at = u32::try_from(self.buf.len()).unwrap_or(u32::MAX);
        self.buf.extend_from_slice(name);
        self.buf.extend_from_slice(value);
        self.fields.push(Field {
            at,
            name_len: u32::try_from(name.len()).unwrap_or(u32::MAX),
            value_len: u32::try_from(value.len()).unwrap_or(u32::MAX),
            token,
            never_indexed,
        });
    }

    /// Appends a field; the name must be lower case.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Token::of(name), name, value, false);
    }

    /// Replaces this list by a copy of another: two memory moves.
    pub fn copy_from(&mut self, other: &Self) {
        self.buf.clear();
        self.buf.extend_from_slice(&other.buf);
        self.fields.clear();
        self.fields.extend_from_slice(&other.fields);
    }

    /// The same into memory of just that size, for a copy that is kept.
    pub(crate) fn copy_from_exact(&mut self, other: &Self) {
        self.clear();
        self.buf.reserve_exact(other.buf.len());
        self.fields.reserve_exact(other.fields.len());
        self.copy_from(other);
    }

    /// Equality, made to be quick on lists that are equal.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.buf == other.buf && self.fields == other.fields
    }

    /// Appends a field given as its name and value in one piece.
    #[inline]
    pub(crate) fn push_joined(&mut self, token: Token, joined: &[u8], name_len: usize) {
        let at = self.buf.len();
        self.buf.extend_from_slice(joined);
        self.push_stored(token, at, name_len, joined.len().saturating_sub(name_len), false);
    }

    /// Appends a field whose name and value are the buffer's bytes from `at` on.
    #[inline]
    pub(crate) fn push_stored(
        &mut self,
        token: Token,
        at: usize,
        name_len: usize,
        value_len: usize,
        never_indexed: bool,
    ) {
        self.fields.push(Field {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            name_len: u32::try_from(name_len).unwrap_or(u32::MAX),
            value_len: u32::try_from(value_len).unwrap_or(u32::MAX),
            token,
            never_indexed,
        });
    }

    /// The bytes of names and values, for `push_stored`.
    #[inline]
    pub(crate) fn buf_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Appends all fields of another list.
    pub fn append(&mut self, other: &Self) {
        for (field, name, value) in other {
            self.push_field(field.token, name, value, field.never_indexed);
        }
    }

    /// Name of a field of this list.
    pub fn name(&self, field: &Field) -> &[u8] {
        let at = field.at as usize;
        self.buf.get(at..at + field.name_len as usize).unwrap_or(&[])
    }

    /// Value of a field of this list.
    pub fn value(&self, field: &Field) -> &[u8] {
        let at = field.at as usize + field.name_len as usize;
        self.buf.get(at..at + field.value_len as usize).unwrap_or(&[])
    }

    /// The fields in order, with names and values.
    pub fn iter(&self) -> Iter<'_> {
        Iter { headers: self, fields: self.fields.iter() }
    }

    /// The first value of a well-known name. A missing header is `None`, an empty one is `Some(b"")`.
    pub fn get(&self, token: Token) -> Option<&[u8]> {
        self.fields.iter().find(|f| f.token == token).map(|f| self.value(f))
    }

    /// The `nth` value (from 0) of a name.
    pub fn get_name(&self, name: &[u8], nth: usize) -> Option<&[u8]> {
        self.fields.iter().filter(|f| self.name(f) == name).nth(nth).map(|f| self.value(f))
    }

    /// Removes every field the predicate refuses. The bytes stay until `clear`.
    pub fn retain(&mut self, mut keep: impl FnMut(&Field, &[u8], &[u8]) -> bool) {
        let buf = &self.buf;
        self.fields.retain(|f| {
            let at = f.at as usize;
            let value_at = at + f.name_len as usize;
            let name = buf.get(at..value_at).unwrap_or(&[]);
            let value = buf.get(value_at..value_at + f.value_len as usize).unwrap_or(&[]);
            keep(f, name, value)
        });
    }

    /// Removes every field of a well-known name.
    pub fn remove(&mut self, token: Token) {
        self.fields.retain(|f| f.token != token);
    }

    /// Gives a well-known name exactly one value: in the place of its first field, or at the end.
    pub fn set(&mut self, token: Token, name: &[u8], value: &[u8]) {
        let at = u32::try_from(self.buf.len()).unwrap_or(u32::MAX);
        let Some(place) = self.fields.iter().position(|f| f.token == token) else {
            return self.push_field(token, name, value, false);
        };
        self.buf.extend_from_slice(name);
        self.buf.extend_from_slice(value);
        let mut seen = 0;
        self.fields.retain(|f| {
            seen += usize::from(f.token == token);
            f.token != token || seen == 1
        });
        if let Some(field) = self.fields.get_mut(place) {
            field.at = at;
            field.name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
            field.value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        }
    }
}

/// The fields of a list with their names and values.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    headers: &'a Headers,
    fields: core::slice::Iter<'a, Field>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Field, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some((field, self.headers.name(field), self.headers.value(field)))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a Field, &'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
