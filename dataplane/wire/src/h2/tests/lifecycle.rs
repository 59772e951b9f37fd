//! How connections begin and end, and what limits a client: prefaces, timeouts, GOAWAY, streams.

use alloc::vec;
use alloc::vec::Vec;

use super::hostile::block;
use super::pair::*;
use crate::Instant;
use crate::h2::frame::{self, Head, MAX_31, PREFACE, kind};
use crate::h2::limits::{OUTBOUND_FRAMES_MAX, SETTINGS_TIMEOUT_NS, STREAMS_ASSUMED};
use crate::h2::{Config, Fault, H2Conn, H2Event, Reason, ResetBy, Role};

const T: Instant = Instant(5);

fn server() -> H2Conn {
    H2Conn::new(Role::Server, &Config::default(), T)
}

fn push(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, kind, flags, id, payload);
    out
}

/// A client whose peer we play, after both SETTINGS.
fn client(streams_max: Option<u32>) -> H2Conn {
    let mut conn = H2Conn::new(Role::Client, &Config::default(), T);
    let setting = streams_max.map(|n| [&[0, 3][..], &n.to_be_bytes()].concat()).unwrap_or_default();
    feed(&mut conn, T, &push(kind::SETTINGS, 0, 0, &setting));
    feed(&mut conn, T, &push(kind::SETTINGS, 1, 0, &[]));
    let n = conn.tx().len();
    conn.tx_advance(n);
    conn
}

#[test]
fn section_3_4_what_is_no_http2_is_named() {
    let table: [(&[u8], Fault); 4] = [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Fault::ClientSpeaksHttp1),
        (b"POST /a.B/C HTTP/1.1\r\n\r\n", Fault::ClientSpeaksHttp1),
        (&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3], Fault::ClientSpeaksTls),
        (b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n", Fault::Preface),
    ];
    for (bytes, fault) in table {
        for size in [1, 3, bytes.len()] {
            let mut conn = server();
            let error = bytes.chunks(size).find_map(|c| feed(&mut conn, T, c).1);
            assert_eq!(error.map(|e| e.fault), Some(fault));
            let text = conn.tx().starts_with(b"HTTP/1.1 400 ");
            assert_eq!(text, fault == Fault::ClientSpeaksHttp1);
            assert!(text || conn.tx()[3] == kind::SETTINGS, "the first frame is SETTINGS, even so");
        }
    }
}

#[test]
fn a_server_says_nothing_before_the_preface() {
    let mut conn = server();
    assert!(conn.tx().is_empty());
    conn.ping();
    assert!(conn.tx().is_empty());
    feed(&mut conn, T, &PREFACE[..23]);
    assert!(conn.tx().is_empty());
    feed(&mut conn, T, &PREFACE[23..]);
    assert_eq!(conn.tx()[3], kind::SETTINGS);
}

#[test]
fn section_6_5_3_settings_time_out() {
    let mut conn = server();
    let late = Instant(5 + SETTINGS_TIMEOUT_NS);
    assert_eq!(conn.poll_timeout(), Some(late));
    assert_eq!(conn.handle_timeout(Instant(late.0 - 1)), Ok(()));
    assert_eq!(conn.handle_timeout(late).map_err(|e| e.fault), Err(Fault::PrefaceTimeout));
    assert_eq!(conn.poll_timeout(), None);

    let mut conn = H2Conn::new(Role::Client, &Config::default(), T);
    feed(&mut conn, T, &push(kind::SETTINGS, 0, 0, &[]));
    assert_eq!(conn.handle_timeout(late).map_err(|e| e.fault), Err(Fault::SettingsTimeout));

    let mut conn = client(None);
    assert_eq!(conn.poll_timeout(), None);
    conn.set_stream_window(7);
    assert_eq!(conn.poll_timeout(), Some(late));
}

#[test]
fn section_5_1_2_a_client_keeps_the_servers_limit() {
    let mut conn = H2Conn::new(Role::Client, &Config::default(), T);
    assert_eq!(conn.open_room(), STREAMS_ASSUMED as usize);
    let (seen, _) = feed(&mut conn, T, &push(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]));
    assert_eq!(seen[0].event, H2Event::Capacity);
    let a = conn.open(1).unwrap();
    let b = conn.open(2).unwrap();
    assert_eq!((conn.open(3), conn.open_room()), (None, 0));
    for key in [a, b] {
        assert!(conn.send_headers(key, &request(), true));
    }
    // Lowered to 0: those open stay.
    feed(&mut conn, T, &push(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]));
    let (seen, _) = feed(&mut conn, T, &push(kind::RST_STREAM, 0, 1, &7_u32.to_be_bytes()));
    assert!(matches!(
        seen[0].event,
        H2Event::Reset { tag: 1, reason: Reason::REFUSED_STREAM, by: ResetBy::Peer, .. }
    ));
    assert_eq!(conn.open_room(), 0);
    let (seen, _) = feed(&mut conn, T, &push(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 5]));
    assert_eq!((seen.last().map(|s| &s.event), conn.open_room()), (Some(&H2Event::Capacity), 4));
    // No setting at all: no limit.
    assert!(client(None).open_room() > 1_000_000);
}

#[test]
fn capacity_is_told_when_a_full_connection_has_room_again() {
    let mut conn = client(Some(1));
    let a = conn.open(1).unwrap();
    conn.send_headers(a, &request(), true);
    let reply = push(kind::HEADERS, 5, 1, &block(&[(":status", "200")]));
    let (seen, _) = feed(&mut conn, T, &reply);
    assert_eq!(seen.iter().filter(|s| s.event == H2Event::Capacity).count(), 1);
    // Also by our own doing, at the next `next`.
    let b = conn.open(2).unwrap();
    conn.send_headers(b, &request(), true);
    conn.reset(b, Reason::CANCEL);
    assert_eq!(feed(&mut conn, T, &[]).0.len(), 1);
    assert_eq!(feed(&mut conn, T, &[]).0.len(), 0);
}

#[test]
fn section_5_1_1_ids_run_out() {
    let mut conn = client(None);
    conn.id_next = MAX_31 - 2;
    assert_eq!(conn.open_room(), 2);
    assert_eq!(conn.open(1).map(|k| k.id), Some(MAX_31 - 2));
    assert_eq!(conn.open(1).map(|k| k.id), Some(MAX_31));
    assert_eq!((conn.open(1), conn.open_room()), (None, 0));
}

#[test]
fn section_5_1_1_a_stream_passed_over_is_gone() {
    let mut conn = client(None);
    let (a, b) = (conn.open(1).unwrap(), conn.open(2).unwrap());
    assert!(conn.send_headers(b, &request(), true));
    assert!(!conn.send_headers(a, &request(), true));
    assert_eq!(conn.streams_open(), 1);
}

#[test]
fn an_opened_and_reset_stream_never_leaves() {
    let mut conn = client(None);
    let a = conn.open(1).unwrap();
    conn.reset(a, Reason::CANCEL);
    assert!(conn.tx().is_empty() && conn.streams_open() == 0);
    // The server does not know of it: a frame on it is on an idle stream.
    let (_, error) = feed(&mut conn, T, &push(kind::RST_STREAM, 0, 1, &[0; 4]));
    assert_eq!(error.map(|e| e.fault), Some(Fault::StreamIdle));
}

#[test]
fn section_6_8_goaway_tells_which_streams_were_not_seen() {
    let mut conn = client(None);
    let keys: Vec<_> = (0..4).map(|tag| conn.open(tag).unwrap()).collect();
    for k in &keys[..3] {
        conn.send_headers(*k, &request(), true);
    }
    let goaway = |last: u32| push(kind::GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"bye"].concat());
    let resets = |seen: &[Seen]| -> Vec<u32> {
        seen.iter()
            .filter_map(|s| match s.event {
                H2Event::Reset { tag, by: ResetBy::Goaway, reason: Reason::REFUSED_STREAM, .. } => Some(tag),
                _ => None,
            })
            .collect()
    };
    // The graceful first one: only what has not been sent.
    let (seen, _) = feed(&mut conn, T, &goaway(MAX_31));
    assert_eq!(seen[0].event, H2Event::Goaway { reason: Reason::NO_ERROR });
    assert_eq!(resets(&seen), [3]);
    assert_eq!((conn.open(9), conn.open_room()), (None, 0));
    let (seen, _) = feed(&mut conn, T, &goaway(3));
    assert_eq!(resets(&seen), [2]);
    // A third that raises it changes nothing.
    assert_eq!(resets(&feed(&mut conn, T, &goaway(99)).0), []);
    assert_eq!(conn.streams_open(), 2);
    let (seen, error) = feed(&mut conn, T, &push(kind::HEADERS, 5, 3, &block(&[(":status", "200")])));
    assert!(error.is_none() && matches!(seen[0].event, H2Event::Headers { tag: 1, .. }));
}

#[test]
fn section_6_8_a_server_drains_without_losing_a_call() {
    let mut pair = Pair::default();
    let (_, first) = pair.call(1, true);
    pair.server.drain_start();
    pair.server.drain_start();
    // On its way before the client has heard.
    let late = pair.client.open(2).unwrap();
    pair.client.send_headers(late, &request(), true);
    let (told, seen) = pair.run();
    assert!(matches!(told[0].event, H2Event::Goaway { .. }) && told.len() == 1);
    assert!(matches!(seen[0].event, H2Event::Headers { .. }), "served");
    assert_eq!(pair.client.open(3), None);
    pair.server.drain_finish();
    let (told, _) = pair.run();
    assert_eq!(told.len(), 1, "nobody is told of a reset: {told:?}");
    assert!(pair.server.send_headers(first, &response(), true));
    let (told, _) = pair.run();
    assert!(matches!(told[0].event, H2Event::Headers { tag: 1, end_stream: true, .. }));
}

#[test]
fn section_6_8_frames_beyond_our_goaway_are_passed_over_but_decoded() {
    let mut conn = server();
    feed(&mut conn, T, &[&PREFACE[..], &push(kind::SETTINGS, 0, 0, &[])].concat());
    conn.drain_finish();
    let req = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let (seen, error) = feed(&mut conn, T, &push(kind::HEADERS, 4, 1, &block(&req)));
    assert!(seen.is_empty() && error.is_none());
    let (seen, error) = feed(&mut conn, T, &push(kind::DATA, 1, 1, &[0; 100]));
    assert!(seen.is_empty() && error.is_none());
    // A block that does not decode ends the connection all the same (section 4.3).
    let (_, error) = feed(&mut conn, T, &push(kind::HEADERS, 5, 3, &[0x80]));
    assert_eq!(error.map(|e| e.fault), Some(Fault::HpackIndex));
}

#[test]
fn pings_are_answered_and_ours_are_heard() {
    let mut pair = Pair::default();
    pair.client.ping();
    pair.server.ping();
    let (told, seen) = pair.run();
    assert_eq!((told[0].event.clone(), seen[0].event.clone()), (H2Event::Pong, H2Event::Pong));
}

#[test]
fn a_peer_that_does_not_read_is_let_go() {
    let mut conn = server();
    feed(&mut conn, T, &[&PREFACE[..], &push(kind::SETTINGS, 0, 0, &[])].concat());
    let req = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    let mut error = None;
    for i in 0..OUTBOUND_FRAMES_MAX + 100 {
        let (seen, e) = feed(&mut conn, T, &push(kind::HEADERS, 5, 2 * i + 1, &req));
        error = e;
        if error.is_some() {
            break;
        }
        let H2Event::Headers { stream, .. } = seen[0].event else { panic!("{seen:?}") };
        conn.send_headers(stream, &response(), true);
    }
    assert_eq!(error.map(|e| e.fault), Some(Fault::FloodOutbound));
}

#[test]
fn sending_too_much_is_told_at_the_next_timeout() {
    let mut conn = client(None);
    for _ in 0..=OUTBOUND_FRAMES_MAX {
        let key = conn.open(0).unwrap();
        conn.send_headers(key, &request(), true);
    }
    assert_eq!(conn.poll_timeout(), Some(T));
    assert_eq!(conn.handle_timeout(T).map_err(|e| e.fault), Err(Fault::FloodOutbound));
    assert_eq!(conn.poll_timeout(), None);
}

#[test]
fn section_10_5_1_a_header_list_too_large_ends_the_stream_only() {
    let config = Config { header_list_bytes_max: 200, ..Config::default() };
    let mut conn = H2Conn::new(Role::Server, &config, T);
    feed(&mut conn, T, &[&PREFACE[..], &push(kind::SETTINGS, 0, 0, &[])].concat());
    let req = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let big = vec![("x-something", "and its value, many times"); 5];
    let (seen, _) = feed(&mut conn, T, &push(kind::HEADERS, 5, 1, &block(&[&req[..], &big].concat())));
    assert!(matches!(
        seen[0].event,
        H2Event::Reset {
            by: ResetBy::Fault(Fault::HeaderListTooLarge),
            reason: Reason::ENHANCE_YOUR_CALM,
            ..
        }
    ));
    let (seen, _) = feed(&mut conn, T, &push(kind::HEADERS, 5, 3, &block(&req)));
    assert!(matches!(seen[0].event, H2Event::Headers { end_stream: true, .. }));
}

#[test]
fn header_blocks_above_the_peers_frame_size_are_continued() {
    let mut pair = Pair::default();
    let c = pair.client.open(1).unwrap();
    let mut big = request();
    for i in 0..50_u8 {
        // Bytes without a short Huffman code.
        big.push(&[b'x', b'a' + i % 26, b'a' + i / 26], &[b'~' - i % 8; 1000]);
    }
    assert!(pair.client.send_headers(c, &big, true));
    let head = |at: usize| pair.client.tx()[at..].first_chunk().map(Head::parse).unwrap();
    let first = head(0);
    assert_eq!((first.kind, first.flags, first.len), (kind::HEADERS, 1, 16_384));
    assert_eq!(head(16_393).kind, kind::CONTINUATION);
    let (_, seen) = pair.run();
    assert_eq!(seen[0].headers.as_ref(), Some(&big));
}
