//! What the decoder remembers of a block must not be taken for what another kind of block may be.

use super::pair::*;
use crate::h2::frame::{self, kind};
use crate::h2::{Fault, H2Event, HeadersKind, ResetBy};

fn faults(seen: &[Seen]) -> alloc::vec::Vec<Fault> {
    seen.iter()
        .filter_map(|s| match s.event {
            H2Event::Reset { by: ResetBy::Fault(fault), .. } => Some(fault),
            _ => None,
        })
        .collect()
}

#[test]
fn a_block_valid_as_trailers_is_no_request_and_the_reverse() {
    let mut pair = Pair::default();
    let mut send = |flags: u8, id: u32, block: &[u8]| {
        let mut bytes = alloc::vec::Vec::new();
        frame::push(&mut bytes, kind::HEADERS, flags, id, block);
        feed(&mut pair.server, pair.now, &bytes)
    };
    let trailers = super::hostile::block(&[("grpc-status", "0")]);
    let request = super::hostile::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    let mut id = 1;
    for _ in 0..3 {
        assert_eq!(send(4, id, &request).0.len(), 1);
        let (seen, _) = send(5, id, &trailers);
        assert!(matches!(seen[0].event, H2Event::Headers { kind: HeadersKind::Trailers, .. }));
        assert_eq!(faults(&send(5, id + 2, &trailers).0), [Fault::PseudoMissing]);
        assert_eq!(send(4, id + 4, &request).0.len(), 1);
        assert_eq!(faults(&send(5, id + 4, &request).0), [Fault::PseudoInTrailers]);
        id += 6;
    }
}

#[test]
fn a_remembered_content_length_still_counts() {
    let mut pair = Pair::default();
    let mut lists = [request(), response()];
    for list in &mut lists {
        list.push(b"content-length", b"3");
    }
    for round in 0..6 {
        let c = pair.client.open(round).unwrap();
        assert!(pair.client.send_headers(c, &lists[0], false));
        pair.client.send_data(c, if round % 2 == 0 { b"abc" } else { b"abcd" }, true);
        let (_, seen) = pair.run();
        assert_eq!(faults(&seen).len(), round as usize % 2, "{seen:?}");
        if round % 2 == 1 {
            continue;
        }
        let H2Event::Headers { stream, .. } = seen[0].event else { panic!("{seen:?}") };
        assert!(pair.server.send_headers(stream, &lists[1], false));
        pair.server.send_data(stream, if round % 4 == 0 { b"abc" } else { b"ab" }, true);
        let (seen, _) = pair.run();
        assert_eq!(faults(&seen).len(), usize::from(round % 4 != 0), "{seen:?}");
    }
}

#[test]
fn an_interim_response_is_never_remembered_as_final() {
    let mut pair = Pair::default();
    for tag in 0..4 {
        let (_, s) = pair.call(tag, true);
        for _ in 0..2 {
            assert!(pair.server.send_headers(s, &list(&[(":status", "103")]), false));
        }
        assert!(pair.server.send_headers(s, &response(), true));
        let (seen, _) = pair.run();
        let kinds: alloc::vec::Vec<_> = seen
            .iter()
            .map(|s| match s.event {
                H2Event::Headers { kind, end_stream, .. } => (kind, end_stream),
                _ => panic!("{s:?}"),
            })
            .collect();
        use HeadersKind::{Informational, Response};
        assert_eq!(kinds, [(Informational, false), (Informational, false), (Response, true)]);
    }
}
