//! What a connection holds: little when idle, nothing that a peer's word alone reserves.

use alloc::vec;

use super::pair::*;
use crate::Instant;
use crate::h2::{Config, H2Conn, Role};

fn held(conn: &H2Conn) -> usize {
    size_of::<H2Conn>() + conn.capacity_bytes()
}

#[test]
fn an_idle_connection_holds_less_than_a_kibibyte() {
    let pair = Pair::default();
    for conn in [&pair.client, &pair.server] {
        assert!(held(conn) <= 1024, "{} + {}", size_of::<H2Conn>(), conn.capacity_bytes());
    }
}

#[test]
fn trim_gives_back_what_calls_needed() {
    let mut pair = Pair::default();
    for tag in 0..100 {
        let (c, s) = pair.call(tag, true);
        assert!(pair.server.send_headers(s, &response(), true));
        pair.run();
        assert!(pair.client.streams_open() == 0 && !pair.client.send_headers(c, &trailers(), true));
    }
    pair.client.trim();
    pair.server.trim();
    for conn in [&pair.client, &pair.server] {
        assert!(held(conn) <= 8 * 1024, "{}", held(conn));
    }
    pair.call(1, true);
}

#[test]
fn a_cut_frame_reserves_no_more_than_has_come() {
    let config = Config { frame_bytes_max: 1 << 24, ..Config::default() };
    let mut conn = H2Conn::new(Role::Server, &config, Instant(0));
    feed(&mut conn, Instant(0), crate::h2::frame::PREFACE);
    feed(&mut conn, Instant(0), &[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // HEADERS of 16 MiB, of which ten bytes come.
    let before = conn.capacity_bytes();
    let (_, error) = feed(&mut conn, Instant(0), &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1, 0x82]);
    assert_eq!(error, None);
    assert!(conn.capacity_bytes() < before + 64);
}

#[test]
fn tx_buffers_can_be_lent() {
    let mut pair = Pair::default();
    let mut pool = vec::Vec::with_capacity(4096);
    let (c, _) = pair.call(1, false);
    let own = pair.client.tx.buf.capacity();
    pair.client.tx_swap(&mut pool);
    assert_eq!((pair.client.tx.buf.capacity(), pool.capacity()), (4096, own));
    assert_eq!(pair.client.send_data(c, b"abc", false), 3);
    // Not while there is something to write.
    pair.client.tx_swap(&mut pool);
    assert_eq!(pair.client.tx().len(), 12);
    let n = pair.client.tx().len();
    pair.client.tx_advance(n);
    pair.client.tx_swap(&mut vec::Vec::new());
    assert_eq!(pair.client.tx.buf.capacity(), 0);
}

#[test]
fn a_large_header_list_is_given_back() {
    let mut pair = Pair::default();
    let c = pair.client.open(1).unwrap();
    let mut big = request();
    for i in 0..60_u8 {
        big.push(&[b'x', b'a' + i % 26, b'a' + i / 26], &[b'v'; 1000]);
    }
    assert!(pair.client.send_headers(c, &big, true));
    let (_, seen) = pair.run();
    assert_eq!(seen[0].headers.as_ref(), Some(&big));
    assert!(pair.server.capacity_bytes() < 40_000, "{}", pair.server.capacity_bytes());
}
