//! Properties: any cutting of a byte stream gives the same events; no bytes panic; windows are conserved
//! and every byte arrives whatever the order of things.
//!
//! The `#[ignore]`d ones are the same for longer: `cargo test -p towpath-wire --release -- --ignored`.

use alloc::vec::Vec;
use alloc::{format, vec};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::hostile::block;
use super::pair::*;
use crate::Instant;
use crate::h2::frame::{self, PREFACE, kind};
use crate::h2::{Config, ConnError, H2Conn, H2Event, HeadersKind, Input, Reason, ResetBy, Role, StreamKey};

fn cases(n: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases: n, failure_persistence: None, ..ProptestConfig::default() })
}

/// One frame, likely to mean something.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![8 => (0..6_u32).prop_map(|i| 2 * i + 1), 1 => 0..8_u32, 1 => any::<u32>()];
    let flags = prop_oneof![4 => prop::sample::select(vec![0_u8, 1, 4, 5, 5, 5]), 1 => any::<u8>()];
    let block = prop_oneof![
        3 => Just(vec![0x83, 0x86, 0x84, 0x41, 1, b'a']),
        1 => Just(vec![0x88]),
        1 => Just(block(&[("grpc-status", "0")])),
        1 => Just(block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("content-length", "3")])),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let fixed = |n: usize| prop::collection::vec(any::<u8>(), n);
    let small = (0..100_u32).prop_map(|n| n.to_be_bytes().to_vec());
    let payload = prop_oneof![
        6 => block.prop_map(|b| (kind::HEADERS, b)),
        6 => body.prop_map(|b| (kind::DATA, b)),
        1 => fixed(5).prop_map(|b| (kind::PRIORITY, b)),
        2 => fixed(4).prop_map(|b| (kind::RST_STREAM, b)),
        1 => (1..9_u8, small.clone()).prop_map(|(id, v)| (kind::SETTINGS, [&[0, id][..], &v].concat())),
        1 => fixed(8).prop_map(|b| (kind::PING, b)),
        1 => fixed(8).prop_map(|b| (kind::GOAWAY, b)),
        2 => small.prop_map(|b| (kind::WINDOW_UPDATE, b)),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|b| (kind::CONTINUATION, b)),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)),
    ];
    (id, flags, payload).prop_map(|(id, flags, (kind, payload))| {
        let id = if matches!(kind, kind::SETTINGS | kind::PING | kind::GOAWAY) { 0 } else { id };
        let mut out = Vec::new();
        frame::push(&mut out, kind, flags, id & 0x7fff_ffff, &payload);
        out
    })
}

/// A peer's whole speech: frames, sometimes with a byte changed.
fn any_speech() -> impl Strategy<Value = Vec<u8>> {
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    (prop::collection::vec(any_frame(), 1..40), change).prop_map(|(frames, change)| {
        let mut all = Vec::new();
        frame::push(&mut all, kind::SETTINGS, 0, 0, &[]);
        all.extend(frames.concat());
        if let Some((at, byte)) = change {
            let at = at.index(all.len());
            all[at] = byte;
        }
        all
    })
}

fn listener(role: Role) -> H2Conn {
    let now = Instant(1);
    let mut conn = H2Conn::new(role, &Config::default(), now);
    if role == Role::Server {
        feed(&mut conn, now, PREFACE);
        return conn;
    }
    for end in [false, true, false] {
        let key = conn.open(0).unwrap();
        assert!(conn.send_headers(key, &request(), end));
        if !end {
            conn.send_data(key, &[0; 70_000], false);
        }
    }
    conn
}

/// Events with the pieces of a body put together.
fn hear(conn: &mut H2Conn, pieces: &[&[u8]]) -> (Vec<Seen>, Option<ConnError>) {
    let mut all: Vec<Seen> = Vec::new();
    for piece in pieces {
        let (seen, error) = feed(conn, Instant(2), piece);
        for s in seen {
            if let (H2Event::Data { stream, .. }, Some(last)) = (&s.event, all.last_mut())
                && matches!(last.event, H2Event::Data { stream: l, .. } if l == *stream)
            {
                last.bytes.extend(&s.bytes);
                last.event = s.event;
            } else {
                all.push(s);
            }
        }
        if error.is_some() {
            return (all, error);
        }
    }
    (all, None)
}

/// `Data` ranges depend on the cutting; the rest does not.
fn comparable(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter()
        .map(|mut s| {
            if let H2Event::Data { range, .. } = &mut s.event {
                *range = 0..0;
            }
            s
        })
        .collect()
}

fn any_cutting_gives_the_same(n: u32) {
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..30);
    cases(n)
        .run(&(any_speech(), cuts, any::<bool>()), |(speech, cuts, is_server)| {
            let role = if is_server { Role::Server } else { Role::Client };
            let (mut whole, mut cut, mut bytewise) = (listener(role), listener(role), listener(role));
            let mut places: Vec<_> = cuts.iter().map(|c| c.index(speech.len())).collect();
            places.extend([0, speech.len()]);
            places.sort_unstable();
            let pieces: Vec<_> = places.windows(2).map(|w| &speech[w[0]..w[1]]).collect();
            let bytes: Vec<_> = speech.chunks(1).collect();
            let (seen, error) = hear(&mut whole, &[&speech]);
            let seen = comparable(seen);
            for (conn, pieces) in [(&mut cut, pieces), (&mut bytewise, bytes)] {
                let (s, e) = hear(conn, &pieces);
                prop_assert_eq!(&seen, &comparable(s));
                prop_assert_eq!(error, e);
                prop_assert_eq!(whole.tx(), conn.tx());
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_cutting_of_a_byte_stream_gives_the_same_events() {
    any_cutting_gives_the_same(400);
}

#[test]
#[ignore = "long"]
fn any_cutting_of_a_byte_stream_gives_the_same_events_long() {
    any_cutting_gives_the_same(100_000);
}

/// Feeds bytes that may be anything, answering as a careless caller would.
fn no_bytes_panic(n: u32) {
    let noise = prop_oneof![3 => any_speech(), 1 => prop::collection::vec(any::<u8>(), 0..300)];
    cases(n)
        .run(&(noise, any::<bool>(), any::<u64>()), |(speech, is_server, dice)| {
            let mut conn = listener(if is_server { Role::Server } else { Role::Client });
            let mut dice = dice;
            for (i, piece) in speech.chunks(1 + dice as usize % 90).enumerate() {
                let mut input = Input::new(piece);
                while let Ok(Some(event)) = conn.next(Instant(i as u64 * 1000), &mut input) {
                    dice = dice.rotate_left(7).wrapping_mul(0x9e37_79b9);
                    let (H2Event::Headers { stream, .. }
                    | H2Event::Data { stream, .. }
                    | H2Event::Reset { stream, .. }
                    | H2Event::Writable { stream, .. }) = event
                    else {
                        continue;
                    };
                    match dice % 7 {
                        0 => conn.reset(stream, Reason::CANCEL),
                        1 => conn.release(stream, dice as usize % 300),
                        2 => _ = conn.send_headers(stream, &response(), dice & 8 == 0),
                        3 => _ = conn.send_data(stream, &[0; 300], dice & 8 == 0),
                        4 => conn.extend_window(stream, dice as u32),
                        5 => _ = conn.open(1).map(|k| conn.send_headers(k, &request(), true)),
                        _ => conn.set_stream_window(dice as u32 >> 8),
                    }
                }
                let n = conn.tx().len().min(dice as usize % 500);
                conn.tx_advance(n);
                _ = conn.handle_timeout(Instant(i as u64 * 1000));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_bytes_panic_short() {
    no_bytes_panic(600);
}

#[test]
#[ignore = "long"]
fn no_bytes_panic_long() {
    no_bytes_panic(300_000);
}

/// What happens in a conversation.
#[derive(Clone, Debug)]
enum Op {
    Open,
    /// Which stream, whose side, how much, whether it ends.
    Send(usize, bool, usize, bool),
    Release(usize, bool, usize),
    Extend(usize, bool, u32),
    Reset(usize, bool),
    Window(bool, u32),
    Carry(bool, usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = 0..8_usize;
    prop_oneof![
        2 => Just(Op::Open),
        8 => (n.clone(), any::<bool>(), 0..5000_usize, prop::bool::weighted(0.2)).prop_map(|(a, b, c, d)| Op::Send(a, b, c, d)),
        6 => (n.clone(), any::<bool>(), 0..9000_usize).prop_map(|(a, b, c)| Op::Release(a, b, c)),
        1 => (n.clone(), any::<bool>(), 0..9000_u32).prop_map(|(a, b, c)| Op::Extend(a, b, c)),
        1 => (n, any::<bool>()).prop_map(|(a, b)| Op::Reset(a, b)),
        1 => (any::<bool>(), 0..5000_u32).prop_map(|(a, b)| Op::Window(a, b)),
        9 => (any::<bool>(), 0..7000_usize).prop_map(|(a, b)| Op::Carry(a, b)),
    ]
}

/// One direction of one stream, as the callers see it.
#[derive(Default, Debug)]
struct Half {
    /// What the sender wants to send in all, and how much was taken.
    offered: usize,
    taken: usize,
    wants_end: bool,
    /// A refusal not yet followed by `Writable`.
    waits: bool,
    received: usize,
    ended: bool,
    held: usize,
}

#[derive(Default, Debug)]
struct Call {
    client: Option<StreamKey>,
    server: Option<StreamKey>,
    is_reset: bool,
    up: Half,
    down: Half,
}

struct Talk {
    conns: [H2Conn; 2],
    calls: Vec<Call>,
}

impl Talk {
    fn new() -> Self {
        let config = Config { stream_window_bytes: 2000, tx_bytes_max: 3000, ..Config::default() };
        let pair = Pair::new(&config, &Config { conn_window_bytes: 0, ..config });
        Self { conns: [pair.client, pair.server], calls: Vec::new() }
    }

    fn key(&self, call: usize, client: bool) -> Option<StreamKey> {
        let c = self.calls.get(call)?;
        if client { c.client } else { c.server }
    }

    fn half(&mut self, call: usize, up: bool) -> &mut Half {
        let c = &mut self.calls[call];
        if up { &mut c.up } else { &mut c.down }
    }

    /// Offers what is left of a half.
    fn push(&mut self, call: usize, up: bool) {
        let Some(key) = self.key(call, up) else { return };
        let half = self.half(call, up);
        let bytes: Vec<u8> = (half.taken..half.offered).map(|i| i as u8).collect();
        let end = half.wants_end;
        let taken = self.conns[usize::from(!up)].send_data(key, &bytes, end);
        let half = self.half(call, up);
        half.taken += taken;
        half.waits = half.taken < half.offered;
    }

    fn op(&mut self, op: &Op) {
        match *op {
            Op::Open => {
                let tag = self.calls.len() as u32;
                let Some(key) = self.conns[0].open(tag) else { return };
                assert!(self.conns[0].send_headers(key, &request(), false));
                self.calls.push(Call { client: Some(key), ..Call::default() });
            }
            Op::Send(call, up, n, end) => {
                let Some(_) = self.key(call, up) else { return };
                let half = self.half(call, up);
                if half.wants_end || half.waits {
                    return;
                }
                half.offered += n;
                half.wants_end = end;
                self.push(call, up);
            }
            Op::Release(call, client, n) => {
                let Some(key) = self.key(call, client) else { return };
                let half = self.half(call, !client);
                let n = n.min(half.held);
                half.held -= n;
                self.conns[usize::from(!client)].release(key, n);
            }
            Op::Extend(call, client, n) => {
                let Some(key) = self.key(call, client) else { return };
                self.conns[usize::from(!client)].extend_window(key, n);
            }
            Op::Reset(call, client) => {
                let Some(key) = self.key(call, client) else { return };
                self.conns[usize::from(!client)].reset(key, Reason::CANCEL);
                self.calls[call].is_reset = true;
            }
            Op::Window(client, n) => self.conns[usize::from(!client)].set_stream_window(n),
            Op::Carry(up, n) => self.carry(up, n),
        }
    }

    fn carry(&mut self, up: bool, n: usize) {
        let from = usize::from(!up);
        let n = n.min(self.conns[from].tx().len());
        let bytes = self.conns[from].tx()[..n].to_vec();
        if self.conns[from].tx_advance(n) {
            self.hear(from, &[]);
        }
        self.hear(1 - from, &bytes);
    }

    fn hear(&mut self, at: usize, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        loop {
            let event = match self.conns[at].next(Instant(1), &mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => panic!("{error:?}"),
            };
            let sends_up = at == 0;
            match event {
                H2Event::Headers { stream, kind: HeadersKind::Request, .. } => {
                    // The calls arrive in the order of their ids.
                    let call = self.calls.iter().position(|c| c.client.unwrap().id == stream.id).unwrap();
                    self.conns[1].set_tag(stream, call as u32);
                    self.calls[call].server = Some(stream);
                    assert!(self.conns[1].send_headers(stream, &response(), false));
                }
                H2Event::Headers { .. } | H2Event::Capacity => {}
                H2Event::Data { tag, range, end_stream, .. } => {
                    let half = self.half(tag as usize, !sends_up);
                    for b in &bytes[range] {
                        assert_eq!(*b, half.received as u8);
                        half.received += 1;
                        half.held += 1;
                    }
                    assert!(half.received <= half.taken && !half.ended);
                    half.ended = end_stream;
                }
                H2Event::Reset { tag, by, .. } => {
                    assert_eq!(by, ResetBy::Peer);
                    assert!(self.calls[tag as usize].is_reset);
                }
                H2Event::Writable { tag, .. } => {
                    let half = self.half(tag as usize, sends_up);
                    assert!(half.waits, "told without having been refused");
                    self.push(tag as usize, sends_up);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Carries, releases and ends until nothing moves.
    fn finish(&mut self) {
        for call in 0..self.calls.len() {
            for up in [true, false] {
                if self.key(call, up).is_some()
                    && !self.half(call, up).waits
                    && !self.half(call, up).wants_end
                {
                    self.op(&Op::Send(call, up, 10, true));
                }
            }
        }
        for client in [true, false] {
            self.op(&Op::Window(client, 3000));
        }
        for _ in 0..10_000 {
            let before = format!("{:?}", self.calls);
            for up in [true, false] {
                self.carry(up, 1000);
                for call in 0..self.calls.len() {
                    self.op(&Op::Release(call, up, usize::MAX));
                    let half = self.half(call, up);
                    if !half.waits && !half.wants_end {
                        self.op(&Op::Send(call, up, 10, true));
                    }
                }
            }
            if self.conns.iter().all(|c| c.tx().is_empty()) && before == format!("{:?}", self.calls) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.calls);
    }
}

fn conversations(n: u32) {
    cases(n)
        .run(&prop::collection::vec(any_op(), 0..120), |ops| {
            let mut talk = Talk::new();
            for op in &ops {
                talk.op(op);
            }
            talk.finish();
            for call in &talk.calls {
                for half in [&call.up, &call.down] {
                    let whole = half.received == half.offered && half.ended;
                    prop_assert!(whole || call.is_reset, "{:?}", call);
                }
            }
            let [client, server] = &talk.conns;
            prop_assert_eq!((client.streams_open(), server.streams_open()), (0, 0));
            // What one may send is what the other expects.
            prop_assert_eq!(client.send_window.unsigned_abs(), server.recv.left());
            prop_assert_eq!(server.send_window.unsigned_abs(), client.recv.left());
            prop_assert!(!client.streams.is_waiting() && !server.streams.is_waiting());
            Ok(())
        })
        .unwrap();
}

#[test]
fn windows_are_conserved_and_every_byte_arrives() {
    conversations(150);
}

#[test]
#[ignore = "long"]
fn windows_are_conserved_and_every_byte_arrives_long() {
    conversations(30_000);
}
