//! Which frames a capture takes, in a small part of the language tcpdump has.
//!
//! ```text
//! any    = all { "or" all }
//! all    = not { "and" not }
//! not    = "not" not | "(" any ")" | test
//! test   = "tcp" | "udp" | "icmp" | "icmp6" | "arp" | "ip" | "ip6"
//!        | [ "src" | "dst" ] ( "host" ADDRESS | "net" ADDRESS "/" BITS | "port" NUMBER )
//! ```
//! Words mean what they mean there: `ip` is version 4, `host` asks ARP's addresses too, `port` those of TCP,
//! UDP and SCTP. Every operator is written: `tcp and port 80`. An empty filter takes every frame.

use core::fmt;
use core::net::IpAddr;

use super::frame::{Fields, ICMP, ICMPV6, Network, TCP, UDP};

/// Bytes of a filter's text.
const TEXT_MAX: usize = 1024;
/// Parentheses and negations inside each other.
const DEPTH_MAX: usize = 32;
/// What may stand where a test is expected.
const TESTS: &str =
    "tcp, udp, icmp, icmp6, arp, ip, ip6, host ADDRESS, net ADDRESS/BITS, port NUMBER, src, dst, not or (";

/// A filter that has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    test: Option<Test>,
    text: String,
}

/// Why a filter could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterError {
    /// Bytes from the start of the text.
    pub at: usize,
    /// What was expected there.
    pub expected: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: expected {}", self.at + 1, self.expected)
    }
}

impl std::error::Error for FilterError {}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    Network(Network),
    /// A protocol, over this layer 3 or any.
    Transport(u8, Option<Network>),
    Host(Side, IpAddr),
    Net(Side, IpAddr, u8),
    Port(Side, u16),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

/// Which of two addresses or ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Either,
    From,
    To,
}

impl Side {
    fn any<T>(self, from: T, to: T, is: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Either => is(from) || is(to),
            Self::From => is(from),
            Self::To => is(to),
        }
    }
}

impl Filter {
    /// Takes every frame.
    pub fn everything() -> Self {
        Self { test: None, text: String::new() }
    }

    /// Reads a filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_MAX {
            return Err(FilterError { at: TEXT_MAX, expected: format!("at most {TEXT_MAX} bytes") });
        }
        let mut parser = Parser { text, at: 0, depth: 0 };
        let (_, first) = parser.peek();
        let test = if first.is_empty() { None } else { Some(parser.any()?) };
        let (at, rest) = parser.peek();
        if !rest.is_empty() {
            return Err(FilterError { at, expected: format!("`and`, `or` or the end, found `{rest}`") });
        }
        Ok(Self { test, text: text.trim().to_owned() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it takes this frame.
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.test.as_ref().is_none_or(|test| test.holds(&Fields::of(frame)))
    }
}

impl Test {
    fn holds(&self, fields: &Fields) -> bool {
        match self {
            Self::Network(network) => fields.network == *network,
            Self::Transport(protocol, network) => {
                fields.transport == Some(*protocol) && network.is_none_or(|network| fields.network == network)
            }
            Self::Host(side, host) => side.any(fields.from, fields.to, |address| address == Some(*host)),
            Self::Net(side, net, bits) => {
                side.any(fields.from, fields.to, |address| address.is_some_and(|a| in_net(a, *net, *bits)))
            }
            Self::Port(side, port) => {
                fields.ports.is_some_and(|(from, to)| side.any(from, to, |p| p == *port))
            }
            Self::Not(test) => !test.holds(fields),
            Self::All(tests) => tests.iter().all(|test| test.holds(fields)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(fields)),
        }
    }
}

fn in_net(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let differ = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= bits.into()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The next word and where it begins; empty at the end. Parentheses are words.
    fn peek(&self) -> (usize, &'a str) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let word = rest.trim_start();
        let at = self.at + rest.len() - word.len();
        let len = match word.find(|c: char| c.is_whitespace() || c == '(' || c == ')') {
            Some(0) => 1,
            Some(len) => len,
            None => word.len(),
        };
        (at, word.get(..len).unwrap_or_default())
    }

    fn next(&mut self) -> (usize, &'a str) {
        let (at, word) = self.peek();
        self.at = at + word.len();
        (at, word)
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, word: &str) -> bool {
        let is_it = self.peek().1 == word;
        if is_it {
            self.next();
        }
        is_it
    }

    fn any(&mut self) -> Result<Test, FilterError> {
        let mut tests = vec![self.all()?];
        while self.take("or") {
            tests.push(self.all()?);
        }
        Ok(one_or(tests, Test::Any))
    }

    fn all(&mut self) -> Result<Test, FilterError> {
        let mut tests = vec![self.not()?];
        while self.take("and") {
            tests.push(self.not()?);
        }
        Ok(one_or(tests, Test::All))
    }

    fn not(&mut self) -> Result<Test, FilterError> {
        let (at, word) = self.peek();
        if !matches!(word, "not" | "(") {
            return self.test();
        }
        self.next();
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(FilterError {
                at,
                expected: format!("at most {DEPTH_MAX} parentheses and negations"),
            });
        }
        let test = if word == "not" {
            Test::Not(Box::new(self.not()?))
        } else {
            let test = self.any()?;
            let (at, word) = self.next();
            if word != ")" {
                return Err(FilterError { at, expected: expected("`and`, `or` or `)`", word) });
            }
            test
        };
        self.depth -= 1;
        Ok(test)
    }

    fn test(&mut self) -> Result<Test, FilterError> {
        let (at, word) = self.next();
        let side = match word {
            "src" => Side::From,
            "dst" => Side::To,
            _ => Side::Either,
        };
        let (at, word) = if side == Side::Either { (at, word) } else { self.next() };
        Ok(match word {
            "host" => Test::Host(side, self.address()?),
            "net" => self.net(side)?,
            "port" => Test::Port(side, self.value("a port, 0 to 65535")?),
            _ if side != Side::Either => {
                return Err(FilterError { at, expected: expected("host, net or port", word) });
            }
            "ip" => Test::Network(Network::Ipv4),
            "ip6" => Test::Network(Network::Ipv6),
            "arp" => Test::Network(Network::Arp),
            "tcp" => Test::Transport(TCP, None),
            "udp" => Test::Transport(UDP, None),
            "icmp" => Test::Transport(ICMP, Some(Network::Ipv4)),
            "icmp6" => Test::Transport(ICMPV6, Some(Network::Ipv6)),
            _ => return Err(FilterError { at, expected: expected(TESTS, word) }),
        })
    }

    fn address(&mut self) -> Result<IpAddr, FilterError> {
        self.value("an address, as 10.7.0.2 or fd00::2")
    }

    fn value<T: core::str::FromStr>(&mut self, what: &str) -> Result<T, FilterError> {
        let (at, word) = self.next();
        word.parse().map_err(|_| FilterError { at, expected: expected(what, word) })
    }

    fn net(&mut self, side: Side) -> Result<Test, FilterError> {
        let (at, word) = self.next();
        let net = word.split_once('/').and_then(|(address, bits)| {
            let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
            let width = if address.is_ipv4() { 32 } else { 128 };
            (bits <= width).then_some(Test::Net(side, address, bits))
        });
        net.ok_or_else(|| FilterError { at, expected: expected("a network, as 10.7.0.0/24", word) })
    }
}

fn expected(what: &str, found: &str) -> String {
    if found.is_empty() { format!("{what}, found the end") } else { format!("{what}, found `{found}`") }
}

fn one_or(mut tests: Vec<Test>, many: fn(Vec<Test>) -> Test) -> Test {
    match (tests.pop(), tests.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            tests.extend(last);
            many(tests)
        }
    }
}
