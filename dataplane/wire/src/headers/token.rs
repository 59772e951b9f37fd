//! The header names that mean something to a proxy.

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
    /// `towpath-call`: what a node that seals messages tells the one that opens them. Nobody else's.
    TowpathCall,
}

// A set of them is a `u32`.
const _: () = assert!((Token::TowpathCall as u32) < u32::BITS);

impl Token {
    /// Its bit in a set of tokens.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The token of a lower-case name.
    pub fn of(name: &[u8]) -> Self {
        // By length first: most names of no token are told apart by one jump and at most two comparisons.
        let token = match name.len() {
            2 if name == b"te" => Self::Te,
            4 if name == b"host" => Self::Host,
            5 if name == b":path" => Self::Path,
            7 => match name {
                b":method" => Self::Method,
                b":scheme" => Self::Scheme,
                b":status" => Self::Status,
                b"upgrade" => Self::ConnectionSpecific,
                _ => Self::Other,
            },
            9 if name == b":protocol" => Self::Protocol,
            10 => match name {
                b":authority" => Self::Authority,
                b"user-agent" => Self::UserAgent,
                b"connection" | b"keep-alive" => Self::ConnectionSpecific,
                _ => Self::Other,
            },
            11 if name == b"grpc-status" => Self::GrpcStatus,
            12 => match name {
                b"content-type" => Self::ContentType,
                b"grpc-timeout" => Self::GrpcTimeout,
                b"grpc-message" => Self::GrpcMessage,
                b"towpath-call" => Self::TowpathCall,
                _ => Self::Other,
            },
            13 if name == b"grpc-encoding" => Self::GrpcEncoding,
            14 if name == b"content-length" => Self::ContentLength,
            16 if name == b"proxy-connection" => Self::ConnectionSpecific,
            17 if name == b"transfer-encoding" => Self::ConnectionSpecific,
            20 if name == b"grpc-accept-encoding" => Self::GrpcAcceptEncoding,
            22 if name == b"grpc-retry-pushback-ms" => Self::GrpcRetryPushbackMs,
            26 if name == b"grpc-previous-rpc-attempts" => Self::GrpcPreviousRpcAttempts,
            _ => Self::Other,
        };
        if token == Self::Other && name.first() == Some(&b':') { Self::UnknownPseudo } else { token }
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
