//! What honest peers do at their busiest, which no flood limit may take for an attack.

use alloc::vec::Vec;

use super::pair::*;
use crate::h2::frame::{self, MAX_31, kind};
use crate::h2::{Config, H2Event, HeadersKind, Reason, StreamKey};

const MS: u64 = 1_000_000;

fn requests(seen: &[Seen]) -> Vec<StreamKey> {
    seen.iter()
        .filter_map(|s| match s.event {
            H2Event::Headers { stream, kind: HeadersKind::Request, .. } => Some(stream),
            _ => None,
        })
        .collect()
}

#[test]
fn ten_thousand_calls_a_second_all_cancelled_by_a_deadline() {
    let mut pair = Pair::default();
    let mut open: Vec<(u64, StreamKey)> = Vec::new();
    for turn in 0..5_000_u64 {
        pair.now = pair.now.after_ns(MS);
        for _ in 0..10 {
            let key = pair.client.open(0).unwrap();
            pair.client.send_headers(key, &request(), true);
            open.push((turn, key));
        }
        while open.first().is_some_and(|o| o.0 + 5 <= turn) {
            let (_, key) = open.remove(0);
            pair.client.reset(key, Reason::CANCEL);
        }
        pair.run();
    }
}

#[test]
fn a_proxy_cancels_while_answers_are_on_their_way() {
    let mut pair = Pair::default();
    for _ in 0..3_000 {
        pair.now = pair.now.after_ns(MS / 10);
        let keys: Vec<_> = (0..10)
            .map(|_| {
                let key = pair.client.open(0).unwrap();
                pair.client.send_headers(key, &request(), false);
                key
            })
            .collect();
        let up = pair.client.tx().to_vec();
        pair.client.tx_advance(up.len());
        let (seen, _) = feed(&mut pair.server, pair.now, &up);
        for s in requests(&seen) {
            pair.server.send_headers(s, &response(), false);
            pair.server.send_data(s, &[0; 100], false);
            pair.server.send_headers(s, &trailers(), true);
            // As gRPC servers do when the request has not ended.
            pair.server.reset(s, Reason::NO_ERROR);
        }
        for key in keys {
            pair.client.reset(key, Reason::CANCEL);
        }
        pair.run();
    }
}

#[test]
fn a_long_download_with_two_updates_a_frame_and_a_ping_a_round_trip() {
    let config = Config { stream_window_bytes: 1 << 20, tx_bytes_max: 1 << 20, ..Config::default() };
    let mut pair = Pair::new(&config, &config);
    let (_, s) = pair.call(1, true);
    pair.server.send_headers(s, &response(), false);
    for _ in 0..50_000 {
        pair.now = pair.now.after_ns(MS / 20);
        assert_eq!(pair.server.send_data(s, &[0; 8000], false), 8000);
        let n = pair.server.tx().len();
        pair.server.tx_advance(n);
        let mut updates = Vec::new();
        for id in [0, s.id] {
            frame::push(&mut updates, kind::WINDOW_UPDATE, 0, id, &8000_u32.to_be_bytes());
        }
        frame::push(&mut updates, kind::PING, 0, 0, &[1; 8]);
        let (_, error) = feed(&mut pair.server, pair.now, &updates);
        assert_eq!(error, None);
    }
}

#[test]
fn keepalive_for_weeks_and_a_window_that_grows_with_need() {
    let mut pair = Pair::default();
    for i in 0..200_000_u32 {
        pair.now = pair.now.after_ns(10_000 * MS);
        pair.client.ping();
        if i % 100 == 0 {
            pair.client.set_stream_window((i * 50) % (MAX_31 / 4));
        }
        let up = pair.client.tx().to_vec();
        pair.client.tx_advance(up.len());
        assert_eq!(feed(&mut pair.server, pair.now, &up).1, None);
        let down = pair.server.tx().to_vec();
        pair.server.tx_advance(down.len());
        assert_eq!(feed(&mut pair.client, pair.now, &down).1, None);
    }
}

#[test]
fn a_client_that_stops_cancels_every_stream_it_has() {
    let mut pair = Pair::default();
    for _ in 0..3 {
        let keys: Vec<_> = (0..1024)
            .map(|_| {
                let key = pair.client.open(0).unwrap();
                pair.client.send_headers(key, &request(), true);
                key
            })
            .collect();
        pair.run();
        pair.now = pair.now.after_ns(20_000 * MS);
        for key in keys {
            pair.client.reset(key, Reason::CANCEL);
        }
        pair.run();
    }
}
