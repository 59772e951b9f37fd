//! Calls that go as they should.

use alloc::vec::Vec;

use super::pair::*;
use crate::h2::{H2Event, HeadersKind};

#[test]
fn section_8_1_a_unary_exchange() {
    let mut pair = Pair::default();
    let c = pair.client.open(7).unwrap();
    assert!(pair.client.send_headers(c, &request(), false));
    assert_eq!(pair.client.send_data(c, b"hello", true), 5);
    let (_, seen) = pair.run();
    assert_eq!(seen.len(), 2);
    let H2Event::Headers { stream, kind: HeadersKind::Request, end_stream: false, .. } = seen[0].event else {
        panic!("{seen:?}")
    };
    assert_eq!(seen[0].headers.as_ref(), Some(&request()));
    assert!(matches!(seen[1].event, H2Event::Data { end_stream: true, .. }));
    assert_eq!(seen[1].bytes, b"hello");
    let s = stream;
    pair.server.set_tag(s, 9);
    pair.server.release(s, 5);
    assert!(pair.server.send_headers(s, &response(), false));
    assert_eq!(pair.server.send_data(s, b"world", false), 5);
    assert!(pair.server.send_headers(s, &trailers(), true));
    assert!(!pair.server.send_headers(s, &trailers(), true));
    let (seen, _) = pair.run();
    let kinds: Vec<_> = seen.iter().map(|e| &e.event).collect();
    assert!(matches!(
        kinds[0],
        H2Event::Headers { tag: 7, kind: HeadersKind::Response, end_stream: false, .. }
    ));
    assert!(matches!(kinds[1], H2Event::Data { tag: 7, end_stream: false, .. }));
    assert!(matches!(
        kinds[2],
        H2Event::Headers { tag: 7, kind: HeadersKind::Trailers, end_stream: true, .. }
    ));
    assert_eq!(seen[1].bytes, b"world");
    assert_eq!((pair.client.streams_open(), pair.server.streams_open()), (0, 0));
}
