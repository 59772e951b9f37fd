//! Two connections joined in memory, and what each was told.

use alloc::vec::Vec;

use crate::h2::{Config, ConnError, H2Conn, H2Event, HeadersKind, Input, Role, StreamKey};
use crate::{Headers, Instant};

/// A list from pairs.
pub(super) fn list(fields: &[(&str, &str)]) -> Headers {
    let mut h = Headers::new();
    for (n, v) in fields {
        h.push(n.as_bytes(), v.as_bytes());
    }
    h
}

pub(super) fn request() -> Headers {
    list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "h"),
        ("te", "trailers"),
    ])
}

pub(super) fn response() -> Headers {
    list(&[(":status", "200"), ("content-type", "application/grpc")])
}

pub(super) fn trailers() -> Headers {
    list(&[("grpc-status", "0")])
}

/// An event with its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) event: H2Event,
    pub(super) bytes: Vec<u8>,
    pub(super) headers: Option<Headers>,
}

/// Everything a connection makes of some bytes.
pub(super) fn feed(conn: &mut H2Conn, now: Instant, bytes: &[u8]) -> (Vec<Seen>, Option<ConnError>) {
    let mut input = Input::new(bytes);
    let mut seen = Vec::new();
    loop {
        match conn.next(now, &mut input) {
            Ok(Some(event)) => {
                let data = match &event {
                    H2Event::Data { range, .. } => bytes[range.clone()].to_vec(),
                    _ => Vec::new(),
                };
                let headers = matches!(event, H2Event::Headers { .. }).then(|| conn.headers().clone());
                seen.push(Seen { event, bytes: data, headers });
            }
            Ok(None) => {
                assert_eq!(input.at, bytes.len(), "None before the input was used up");
                return (seen, None);
            }
            Err(error) => return (seen, Some(error)),
        }
    }
}

/// A client and a server.
pub(super) struct Pair {
    pub(super) client: H2Conn,
    pub(super) server: H2Conn,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new(client: &Config, server: &Config) -> Self {
        let now = Instant(1_000_000_000);
        let mut pair = Self {
            client: H2Conn::new(Role::Client, client, now),
            server: H2Conn::new(Role::Server, server, now),
            now,
        };
        let (c, s) = pair.run();
        assert!(c.iter().all(|e| e.event == H2Event::Capacity) && s.is_empty(), "{c:?} {s:?}");
        assert_eq!((pair.client.poll_timeout(), pair.server.poll_timeout()), (None, None));
        pair
    }

    pub(super) fn default() -> Self {
        Self::new(&Config::default(), &Config::default())
    }

    /// All bytes to the other end, until there are none; what client and server saw.
    pub(super) fn run(&mut self) -> (Vec<Seen>, Vec<Seen>) {
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        loop {
            let (up, down) = (self.client.tx().to_vec(), self.server.tx().to_vec());
            if up.is_empty() && down.is_empty() {
                return (to_client, to_server);
            }
            self.client.tx_advance(up.len());
            self.server.tx_advance(down.len());
            let (seen, error) = feed(&mut self.server, self.now, &up);
            assert_eq!(error, None, "server after {seen:?}");
            to_server.extend(seen);
            let (seen, error) = feed(&mut self.client, self.now, &down);
            assert_eq!(error, None, "client after {seen:?}");
            to_client.extend(seen);
        }
    }

    /// A request on a new stream, and its key at the server.
    pub(super) fn call(&mut self, tag: u32, end: bool) -> (StreamKey, StreamKey) {
        let c = self.client.open(tag).expect("a stream");
        assert!(self.client.send_headers(c, &request(), end));
        let (_, seen) = self.run();
        let s = seen
            .iter()
            .find_map(|e| match e.event {
                H2Event::Headers { stream, kind: HeadersKind::Request, .. } => Some(stream),
                _ => None,
            })
            .expect("a request");
        self.server.set_tag(s, tag + 1000);
        (c, s)
    }
}
