//! What went wrong with connections, in words that say what to do.

use std::fmt;

use abi::Addr;
use shard::Why;

/// Different troubles kept; further ones are dropped.
const TROUBLES_MAX: usize = 32;

/// Why a connection did not come to be or did not last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It could not be opened.
    Connect(Why),
    /// It broke.
    Lost(Why),
    /// The peer closed it; true if it had said something before.
    Closed(bool),
    /// The peer answered in HTTP/1.
    Http1,
    /// The peer answered in TLS.
    Tls,
    /// The peer broke this rule of HTTP/2.
    Protocol(&'static str),
}

impl Trouble {
    /// What the first bytes of a peer show, if they are not HTTP/2.
    pub(super) fn of_first_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'H', b'T', b'T', b'P', ..] => Some(Self::Http1),
            // A TLS alert or handshake record: type, version 3.x, length.
            [0x15 | 0x16, 3, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(Why::Refused) => "connection refused: nobody listens there",
            Self::Connect(Why::TimedOut) => "no answer to the connect in time",
            Self::Connect(Why::Unreachable) => "unreachable: no route, or no such socket",
            Self::Connect(Why::Exhausted) => {
                "no descriptors or ports left here (raise `ulimit -n`, or use fewer connections)"
            }
            Self::Connect(Why::Reset | Why::Other) => "the connect failed",
            Self::Lost(Why::Reset) => "the peer reset the connection",
            Self::Lost(Why::TimedOut) => "the connection timed out",
            Self::Lost(_) => "the connection broke",
            Self::Closed(true) => "the peer closed the connection",
            Self::Closed(false) => {
                "the peer closed the connection without a word: does it speak cleartext HTTP/2 (h2c)?"
            }
            Self::Http1 => {
                "answered in HTTP/1.1: not a gRPC port, or it lacks HTTP/2 with prior knowledge (h2c)"
            }
            Self::Tls => "answered in TLS; pktgen speaks cleartext HTTP/2 only",
            Self::Protocol(fault) => return write!(f, "the peer broke HTTP/2: {fault}"),
        })
    }
}

/// How often each trouble came.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    seen: Vec<(Addr, Trouble, u64)>,
}

impl Troubles {
    pub(super) fn note(&mut self, addr: &Addr, trouble: Trouble) {
        if let Some((.., count)) = self.seen.iter_mut().find(|(a, t, _)| a == addr && *t == trouble) {
            *count += 1;
        } else if self.seen.len() < TROUBLES_MAX {
            self.seen.push((addr.clone(), trouble, 1));
        }
    }

    pub(super) fn list(&self) -> Vec<(String, u64)> {
        self.seen.iter().map(|(addr, trouble, n)| (format!("{addr}: {trouble}"), *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        assert_eq!(Trouble::of_first_bytes(b"HTTP/1.1 400 Bad Request\r\n"), Some(Trouble::Http1));
        assert_eq!(Trouble::of_first_bytes(&[0x15, 3, 3, 0, 2, 2, 10]), Some(Trouble::Tls));
        assert_eq!(Trouble::of_first_bytes(&[0, 0, 18, 4, 0, 0, 0, 0, 0]), None, "SETTINGS");
        assert_eq!(Trouble::of_first_bytes(b""), None);
    }

    #[test]
    fn equal_troubles_are_counted_together() {
        let mut troubles = Troubles::default();
        let addr = Addr::Ip(([127, 0, 0, 1], 9).into());
        troubles.note(&addr, Trouble::Connect(Why::Refused));
        troubles.note(&addr, Trouble::Connect(Why::Refused));
        troubles.note(&addr, Trouble::Http1);
        let list = troubles.list();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0], ("127.0.0.1:9: connection refused: nobody listens there".to_owned(), 2));
    }
}
