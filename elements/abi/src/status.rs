//! gRPC status codes and the access log's response flags.

/// A gRPC status code, 0..=16 (`grpc/statuscodes.md`). A number outside that range is UNKNOWN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Status(u8);

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Status {
    /// How many codes there are.
    pub const COUNT: usize = NAMES.len();
    /// 0.
    pub const OK: Self = Self(0);
    /// 1.
    pub const CANCELLED: Self = Self(1);
    /// 2.
    pub const UNKNOWN: Self = Self(2);
    /// 4.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// 7.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// 8.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// 10.
    pub const ABORTED: Self = Self(10);
    /// 12.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// 13.
    pub const INTERNAL: Self = Self(13);
    /// 14.
    pub const UNAVAILABLE: Self = Self(14);
    /// 16.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The status with this number; UNKNOWN when there is none.
    pub const fn from_code(code: u8) -> Self {
        if (code as usize) < NAMES.len() { Self(code) } else { Self::UNKNOWN }
    }

    /// Its number, 0..=16.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Its upper-case name, as in `UNAVAILABLE`.
    pub fn name(self) -> &'static str {
        NAMES.get(self.0 as usize).copied().unwrap_or("UNKNOWN")
    }

    /// The status of this upper-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        let at = NAMES.iter().position(|n| *n == name)?;
        u8::try_from(at).ok().map(Self)
    }

    /// All of them, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..17).map(Self)
    }
}

/// Why a call ended as it did: Envoy's response flags, as in the access log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Flag {
    /// Nothing to say: the answer is the upstream's own.
    #[default]
    None,
    /// NR: no service or no rule for this call.
    NoRoute,
    /// UH: no healthy endpoint.
    NoHealthyUpstream,
    /// UF: the connection to the endpoint failed.
    UpstreamConnectFailure,
    /// UR: the endpoint reset the stream.
    UpstreamReset,
    /// UC: the endpoint closed the connection.
    UpstreamClosed,
    /// UT: deadline or timeout.
    Timeout,
    /// UO: overloaded, or a circuit is open.
    Overflow,
    /// RL: rate limited.
    RateLimited,
    /// UAEX: denied by policy.
    Denied,
    /// RBAC: denied by a role rule.
    Rbac,
    /// FI: an injected fault.
    FaultInjected,
    /// DI: an injected delay.
    DelayInjected,
    /// DC: the caller went away.
    DownstreamClosed,
    /// UPE: the endpoint broke the protocol.
    UpstreamProtocolError,
    /// DPE: the caller broke the protocol.
    DownstreamProtocolError,
}

impl Flag {
    /// As Envoy writes it; empty for [`Flag::None`].
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::NoRoute => "NR",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamReset => "UR",
            Self::UpstreamClosed => "UC",
            Self::Timeout => "UT",
            Self::Overflow => "UO",
            Self::RateLimited => "RL",
            Self::Denied => "UAEX",
            Self::Rbac => "RBAC",
            Self::FaultInjected => "FI",
            Self::DelayInjected => "DI",
            Self::DownstreamClosed => "DC",
            Self::UpstreamProtocolError => "UPE",
            Self::DownstreamProtocolError => "DPE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_agree_with_the_grpc_table() {
        assert_eq!(Status::from_name("UNAVAILABLE"), Some(Status::UNAVAILABLE));
        assert_eq!(Status::UNAVAILABLE.code(), 14);
        assert_eq!(Status::from_code(200), Status::UNKNOWN);
        for status in Status::all() {
            assert_eq!(Status::from_name(status.name()), Some(status));
        }
    }
}
