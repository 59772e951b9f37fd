//! What a load is told.

use std::fmt;
use std::time::Duration;

use abi::Addr;

/// How calls follow each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// So many calls under way on each connection.
    Closed {
        /// Per connection.
        streams: u32,
    },
    /// Calls at fixed times, over all connections together.
    Open {
        /// Calls a second.
        calls_per_s: f64,
    },
}

/// Whether a load makes calls at all: the two others are what a bad neighbour does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// Calls, and answers are read.
    #[default]
    No,
    /// Connections that exchange SETTINGS and then stay silent.
    Idle,
    /// Calls with windows of 1 GiB, after which nothing is read any more.
    Stall,
}

/// Where calls go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Whom to connect to.
    pub addr: Addr,
    /// The `:authority` of calls to it.
    pub authority: String,
}

/// What a load does. `Default` is one connection with one call under way for ten seconds, to nobody yet.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Whom to call; connections are dealt out in turn.
    pub to: Vec<Target>,
    /// The `:path`, `/pkg.Service/Method`.
    pub method: String,
    /// Metadata of every call, in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many connections.
    pub conns: u32,
    /// How calls follow each other.
    pub pace: Pace,
    /// Bytes of the request message, without gRPC's prefix.
    pub message_bytes: u32,
    /// Calls made before counting begins.
    pub warm_up: Duration,
    /// How long calls are counted.
    pub run: Duration,
    /// An end after so many counted calls, if that comes first.
    pub calls_max: Option<u64>,
    /// The deadline of each call, as `grpc-timeout`; also kept here.
    pub timeout: Option<Duration>,
    /// How long unreachable targets are tried before the load gives up.
    pub patience: Duration,
    /// How long the last answers may take after the end.
    pub drain: Duration,
    /// Calls, or something worse.
    pub hold: Hold,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            method: String::new(),
            headers: Vec::new(),
            conns: 1,
            pace: Pace::Closed { streams: 1 },
            message_bytes: 32,
            warm_up: Duration::from_secs(1),
            run: Duration::from_secs(10),
            calls_max: None,
            timeout: None,
            patience: Duration::ZERO,
            drain: Duration::from_secs(2),
            hold: Hold::No,
        }
    }
}

/// What a load cannot do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// No target.
    NoTarget,
    /// A method that is not `/pkg.Service/Method`.
    Method(String),
    /// A header that HTTP/2 does not allow, or that is not the caller's to set.
    Header(String, &'static str),
    /// A number that makes no load: which.
    Number(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget => write!(f, "nobody to call: --to ADDR is missing"),
            Self::Method(m) => write!(f, "method {m:?} is not of the form /pkg.Service/Method"),
            Self::Header(name, why) => write!(f, "header {name:?}: {why}"),
            Self::Number(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl LoadConfig {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.to.is_empty() {
            return Err(ConfigError::NoTarget);
        }
        let is_method = self.method.strip_prefix('/').and_then(|m| m.rsplit_once('/'));
        if is_method.is_none_or(|(service, method)| service.is_empty() || method.is_empty())
            || !self.method.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(ConfigError::Method(self.method.clone()));
        }
        if self.conns == 0 {
            return Err(ConfigError::Number("--conns must be at least 1"));
        }
        match self.pace {
            Pace::Closed { streams: 0 } => return Err(ConfigError::Number("--streams must be at least 1")),
            Pace::Open { calls_per_s } if !(calls_per_s > 0.0 && calls_per_s <= 1e9) => {
                return Err(ConfigError::Number("--rate must be above 0 and at most 1e9 calls a second"));
            }
            _ => {}
        }
        for (name, value) in &self.headers {
            check_header(name, value).map_err(|why| ConfigError::Header(name.clone(), why))?;
        }
        Ok(())
    }
}

/// RFC 9113 section 8.2.1, and gRPC's reserved names.
fn check_header(name: &str, value: &str) -> Result<(), &'static str> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err("a name is lower-case letters, digits and -_.");
    }
    if matches!(name, "connection" | "proxy-connection" | "keep-alive" | "upgrade" | "transfer-encoding") {
        return Err("HTTP/2 does not allow it");
    }
    if matches!(name, "te" | "content-type" | "grpc-timeout") {
        return Err("pktgen sets it");
    }
    if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err("the value holds a control character");
    }
    if value.trim_matches([' ', '\t']) != value {
        return Err("the value begins or ends with a blank");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> LoadConfig {
        let addr = Addr::Ip(([127, 0, 0, 1], 1).into());
        LoadConfig {
            to: vec![Target { addr, authority: "a".to_owned() }],
            method: "/p.S/M".to_owned(),
            ..LoadConfig::default()
        }
    }

    #[test]
    fn what_makes_no_load_is_refused() {
        assert_eq!(sound().check(), Ok(()));
        assert_eq!(LoadConfig { to: vec![], ..sound() }.check(), Err(ConfigError::NoTarget));
        for method in ["", "/", "p.S/M", "/p.S/", "//M", "/p.S/M M"] {
            let config = LoadConfig { method: method.to_owned(), ..sound() };
            assert!(matches!(config.check(), Err(ConfigError::Method(_))), "{method}");
        }
        for pace in [Pace::Closed { streams: 0 }, Pace::Open { calls_per_s: 0.0 }] {
            assert!(LoadConfig { pace, ..sound() }.check().is_err());
        }
        assert!(LoadConfig { pace: Pace::Open { calls_per_s: f64::NAN }, ..sound() }.check().is_err());
        assert!(LoadConfig { conns: 0, ..sound() }.check().is_err());
    }

    #[test]
    fn rfc9113_8_2_1_header_names_and_values() {
        assert_eq!(check_header("x-tenant", "a b\tc"), Ok(()));
        assert_eq!(check_header("x-empty", ""), Ok(()));
        for (name, value) in [
            ("X-Tenant", "a"),
            ("", "a"),
            (":path", "a"),
            ("te", "a"),
            ("upgrade", "a"),
            ("x", "a\r\nb"),
            ("x", " a"),
        ] {
            assert!(check_header(name, value).is_err(), "{name}: {value:?}");
        }
    }
}
