//! Flow control, both directions (RFC 9113 sections 5.2 and 6.9).

use alloc::vec;
use alloc::vec::Vec;

use super::pair::*;
use crate::h2::frame::{HEAD_LEN, Head, kind};
use crate::h2::{Config, H2Event, Reason, StreamKey};

fn small(window: u32) -> Config {
    Config { stream_window_bytes: window, ..Config::default() }
}

fn writable(seen: &[Seen]) -> Vec<u32> {
    seen.iter()
        .filter_map(|s| match s.event {
            H2Event::Writable { tag, .. } => Some(tag),
            _ => None,
        })
        .collect()
}

/// The frames in some bytes: type, stream, and WINDOW_UPDATE's increment.
fn frames(bytes: &[u8]) -> Vec<(u8, u32, u32)> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some(head) = rest.first_chunk().map(Head::parse) {
        let end = HEAD_LEN + head.len as usize;
        let by = rest[HEAD_LEN..end].first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        out.push((head.kind, head.id, by));
        rest = &rest[end..];
    }
    out
}

fn data_bytes(seen: &[Seen]) -> usize {
    seen.iter().map(|s| s.bytes.len()).sum()
}

#[test]
fn section_5_2_a_stream_stops_at_its_window_and_is_told_once() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, s) = pair.call(5, false);
    assert_eq!(pair.client.send_data(c, &[1; 2500], true), 1000);
    assert_eq!(pair.client.send_data(c, &[1; 1500], true), 0);
    let (told, seen) = pair.run();
    assert_eq!((writable(&told), data_bytes(&seen)), (vec![], 1000));
    // Stalled: at once, however little.
    pair.server.release(s, 500);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [5]);
    assert_eq!(pair.client.send_data(c, &[1; 1500], true), 500);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), []);
    pair.server.release(s, 5000);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [5]);
    assert_eq!(pair.client.send_data(c, &[1; 1000], true), 1000);
    let (told, seen) = pair.run();
    assert_eq!((writable(&told), data_bytes(&seen)), (vec![], 1000));
    assert!(matches!(seen.last().unwrap().event, H2Event::Data { end_stream: true, .. }));
}

#[test]
fn section_6_9_1_the_connections_window_is_shared_in_turn() {
    // The server credits the connection on receipt; so the client must not hear of it: hold its bytes back.
    let roomy = Config { tx_bytes_max: 1 << 20, ..Config::default() };
    let mut pair = Pair::new(&roomy, &Config { conn_window_bytes: 0, ..small(1 << 20) });
    let keys: Vec<_> = (0..3).map(|tag| pair.call(tag, false).0).collect();
    let taken: Vec<_> = keys.iter().map(|k| pair.client.send_data(*k, &[0; 40_000], false)).collect();
    assert_eq!(taken, [40_000, 25_535, 0]);
    let up = pair.client.tx().to_vec();
    assert!(!pair.client.tx_advance(up.len()), "the window is shut, room in tx() helps nobody");
    feed(&mut pair.server, pair.now, &up);
    let down = pair.server.tx().to_vec();
    let (told, _) = feed(&mut pair.client, pair.now, &down);
    assert_eq!(writable(&told), [1, 2], "in the order of refusal");
}

#[test]
fn room_in_tx_bounds_data_and_is_shared_in_turn() {
    let config = Config { tx_bytes_max: 10_000, ..Config::default() };
    let mut pair = Pair::new(&config, &small(1 << 20));
    let keys: Vec<_> = (0..3).map(|tag| pair.call(tag, false).0).collect();
    assert_eq!(pair.client.send_data(keys[2], &[0; 20_000], false), 10_000);
    assert_eq!(pair.client.send_data(keys[0], &[0; 20_000], false), 0);
    // Headers are not held back.
    let extra = pair.client.open(9).unwrap();
    assert!(pair.client.send_headers(extra, &request(), false));
    assert!(!pair.client.tx_advance(2000), "half of tx_bytes_max must be free first");
    assert!(pair.client.tx_advance(6000));
    let (told, _) = feed(&mut pair.client, pair.now, &[]);
    assert_eq!(writable(&told), [2, 0]);
    assert!(!pair.client.tx_advance(0));
    // Each gets its turn again behind the other.
    let room = 10_000 - pair.client.tx().len();
    assert_eq!(pair.client.send_data(keys[2], &[0; 10_000], false), room);
    assert_eq!(pair.client.send_data(keys[0], &[0; 20_000], false), 0);
    assert!(pair.client.tx_advance(9000));
    let (told, _) = feed(&mut pair.client, pair.now, &[]);
    assert_eq!(writable(&told), [2, 0]);
}

#[test]
fn an_end_without_bytes_needs_no_window() {
    let mut pair = Pair::new(&Config::default(), &small(0));
    let (c, _) = pair.call(1, false);
    assert_eq!(pair.client.send_data(c, &[1], false), 0);
    assert_eq!(pair.client.send_data(c, &[], true), 0);
    let (_, seen) = pair.run();
    assert!(matches!(seen[0].event, H2Event::Data { end_stream: true, .. }));
}

#[test]
fn section_6_9_2_a_lowered_window_goes_below_zero_and_comes_back() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, s) = pair.call(1, false);
    assert_eq!(pair.client.send_data(c, &[0; 800], false), 800);
    pair.server.set_stream_window(100);
    pair.run();
    assert_eq!(pair.client.streams.get(c).unwrap().send_window, -700);
    assert_eq!(pair.client.send_data(c, &[0; 50], false), 0);
    // 700 of debt and 50 of credit after 750.
    pair.server.release(s, 750);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [1]);
    assert_eq!(pair.client.send_data(c, &[0; 200], false), 50);
    // Raised again: at once.
    pair.server.set_stream_window(2000);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [1]);
    assert_eq!(pair.client.streams.get(c).unwrap().send_window, 1900);
}

#[test]
fn section_6_5_3_a_lowered_window_holds_only_once_acknowledged() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, _) = pair.call(1, false);
    pair.server.set_stream_window(10);
    // Sent before the client has heard of it.
    assert_eq!(pair.client.send_data(c, &[0; 1000], false), 1000);
    let (_, seen) = pair.run();
    assert_eq!(data_bytes(&seen), 1000);
    assert_eq!(pair.server.ours.window_enforced, 10);
}

#[test]
fn extended_windows_hold_and_never_reach_2_31() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, s) = pair.call(1, false);
    pair.server.extend_window(s, 4000);
    pair.run();
    assert_eq!(pair.client.send_data(c, &[0; 9000], false), 5000);
    pair.run();
    pair.server.release(s, 2499);
    assert!(frames(pair.server.tx()).is_empty() || pair.server.tx().len() == 13);
    pair.server.extend_window(s, u32::MAX);
    pair.server.extend_window(s, u32::MAX);
    pair.server.set_stream_window(u32::MAX);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [1]);
    let window = i64::from(pair.client.streams.get(c).unwrap().send_window);
    assert!(window > 1 << 30 && window < 1 << 31);
}

#[test]
fn a_window_extended_before_the_headers_is_announced_after_them() {
    let mut pair = Pair::default();
    let c = pair.client.open(1).unwrap();
    pair.client.extend_window(c, 500);
    assert!(pair.client.tx().is_empty());
    pair.client.send_headers(c, &request(), true);
    let seen: Vec<_> = frames(pair.client.tx()).iter().map(|f| f.0).collect();
    assert_eq!(seen, [kind::HEADERS, kind::WINDOW_UPDATE]);
    pair.run();
}

#[test]
fn padding_is_credited_though_nobody_releases_it() {
    let mut pair = Pair::new(&Config::default(), &small(512));
    let (c, _) = pair.call(1, false);
    // 256 bytes of payload, none of body, for ever; END_STREAM never.
    for _ in 0..20 {
        let mut frame = Head { len: 257, kind: kind::DATA, flags: 8, id: c.id }.emit().to_vec();
        frame.push(255);
        frame.push(b'x');
        frame.extend([0; 255]);
        let (seen, error) = feed(&mut pair.server, pair.now, &frame);
        assert_eq!((data_bytes(&seen), error), (1, None));
        if let Some(Seen { event: H2Event::Data { stream, .. }, .. }) = seen.first() {
            pair.server.release(*stream, 1);
        }
    }
}

#[test]
fn a_reset_stream_leaves_the_line_and_its_data_is_credited() {
    let mut pair = Pair::new(&Config::default(), &Config { conn_window_bytes: 0, ..small(1 << 20) });
    let (a, _) = pair.call(1, false);
    let (b, s) = pair.call(2, false);
    assert_eq!(pair.client.send_data(a, &[0; 70_000], false), 65_535);
    assert_eq!(pair.client.send_data(b, &[0; 70_000], false), 0);
    pair.client.reset(a, Reason::CANCEL);
    pair.server.reset(s, Reason::CANCEL);
    let (told, _) = pair.run();
    assert!(writable(&told).is_empty() || writable(&told) == [2]);
    assert_eq!(pair.client.send_data(a, &[0; 5], false), 5, "stale streams take all");
    // The connection's window is whole again.
    let (c, _) = pair.call(3, false);
    assert!(pair.client.send_data(c, &[0; 40_000], false) >= 32_767);
}

#[test]
fn windows_stay_silent_after_the_peers_end() {
    let mut pair = Pair::new(&Config::default(), &small(100));
    let (c, s): (StreamKey, StreamKey) = pair.call(1, false);
    assert_eq!(pair.client.send_data(c, &[0; 100], true), 100);
    pair.run();
    pair.server.release(s, 100);
    pair.server.extend_window(s, 100);
    assert!(pair.server.tx().is_empty());
}

#[test]
fn updates_wait_for_half_the_window_unless_the_peer_stalls() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, s) = pair.call(1, false);
    assert_eq!(pair.client.send_data(c, &[0; 600], false), 600);
    pair.run();
    pair.server.release(s, 499);
    assert!(pair.server.tx().is_empty(), "400 are left, and 499 is less than half");
    pair.server.release(s, 1);
    assert_eq!(frames(pair.server.tx()), [(kind::WINDOW_UPDATE, s.id, 500)]);
    pair.run();
    assert_eq!(pair.client.send_data(c, &[0; 700], false), 700);
    pair.run();
    pair.server.release(s, 124);
    assert!(pair.server.tx().is_empty(), "200 are left, and 124 is less than an eighth");
    // What is pending when the window is used up goes at once.
    assert_eq!(pair.client.send_data(c, &[0; 1000], false), 200);
    let (told, _) = pair.run();
    assert_eq!(writable(&told), [1]);
    assert_eq!(pair.client.send_data(c, &[0; 1000], false), 124);
}

#[test]
fn more_than_was_received_cannot_be_released() {
    let mut pair = Pair::new(&Config::default(), &small(1000));
    let (c, s) = pair.call(1, false);
    pair.client.send_data(c, &[0; 600], false);
    pair.run();
    for _ in 0..5 {
        pair.server.release(s, usize::MAX);
    }
    pair.run();
    assert_eq!(pair.client.streams.get(c).unwrap().send_window, 1000);
}

#[test]
fn a_stream_in_line_whose_window_falls_below_zero_leaves_the_line() {
    let roomy = Config { tx_bytes_max: 1 << 20, ..Config::default() };
    let mut pair = Pair::new(&roomy, &Config { conn_window_bytes: 0, ..small(65_535) });
    let (a, _) = pair.call(1, false);
    let (b, s) = pair.call(2, false);
    assert_eq!(pair.client.send_data(b, &[0; 10_000], false), 10_000);
    assert_eq!(pair.client.send_data(a, &[0; 65_535], false), 55_535);
    assert_eq!(pair.client.send_data(b, &[0; 10_000], false), 0);
    // Both wait for the connection; then the new initial window takes the stream's own.
    let mut lower = Vec::new();
    crate::h2::frame::push(&mut lower, kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]);
    feed(&mut pair.client, pair.now, &lower);
    let mut more = Vec::new();
    crate::h2::frame::push(&mut more, kind::WINDOW_UPDATE, 0, 0, &50_000_u32.to_be_bytes());
    let (told, _) = feed(&mut pair.client, pair.now, &more);
    assert_eq!(writable(&told), []);
    more.clear();
    crate::h2::frame::push(&mut more, kind::WINDOW_UPDATE, 0, s.id, &50_000_u32.to_be_bytes());
    let (told, _) = feed(&mut pair.client, pair.now, &more);
    assert_eq!(writable(&told), [2]);
}

/// A DATA frame of one byte of body and 200 of padding.
fn padded(id: u32) -> Vec<u8> {
    let mut frame = Head { len: 202, kind: kind::DATA, flags: 8, id }.emit().to_vec();
    frame.extend([200, b'x']);
    frame.extend([0; 200]);
    frame
}

#[test]
fn section_6_1_padding_counts_against_both_windows() {
    let mut pair = Pair::new(&Config::default(), &small(10_000));
    let (_, s) = pair.call(1, false);
    let left = pair.server.recv.left();
    feed(&mut pair.server, pair.now, &padded(s.id));
    assert_eq!(pair.server.recv.left(), left - 202);
    let stream = pair.server.streams.get(s).unwrap();
    assert_eq!((stream.recv_rel, stream.recv_pending, stream.recv_held), (-202, 201, 1));
}

#[test]
fn a_stream_reset_in_the_middle_of_a_cut_frame_takes_the_rest_with_it() {
    for cut in 10..211 {
        let mut pair = Pair::default();
        let (_, s) = pair.call(1, false);
        let frame = padded(s.id);
        feed(&mut pair.server, pair.now, &frame[..cut]);
        pair.server.reset(s, Reason::CANCEL);
        let (seen, error) = feed(&mut pair.server, pair.now, &frame[cut..]);
        assert!(seen.is_empty() && error.is_none(), "{cut}");
        let (_, error) = feed(&mut pair.server, pair.now, &[0, 0, 0, 99, 0, 0, 0, 0, 0]);
        assert_eq!(error, None, "{cut}");
        assert!(pair.server.part.is_empty());
    }
}
