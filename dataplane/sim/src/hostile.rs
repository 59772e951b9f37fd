//! Peers that break the rules on purpose: callers that send any frame, backends that answer anything.
//!
//! Their own outcome is not judged. What is judged is everybody else's, and that the shard stays whole.

use std::collections::BTreeMap;

use wire::Headers;
use wire::hpack::HpackEncoder;

use crate::ledger::Ledger;
use crate::peer::{End, Peer, PeerIo, Wake};
use crate::plan::{MS, SECOND};
use crate::rng::Rng;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a hostile peer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trick {
    /// Connects and says nothing.
    Silence,
    /// Bytes that are no protocol at all.
    Noise,
    /// TLS to a cleartext port.
    Tls,
    /// HTTP/1.1.
    Http1,
    /// Frames of every type with any content.
    Frames,
    /// One kind of frame, as fast as it goes.
    Flood(u8),
    /// Proper HTTP/2, whose messages and headers are not gRPC, not allowed, or too large.
    Oddities,
}

impl Trick {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 => Self::Silence,
            1 => Self::Noise,
            2 => Self::Tls,
            3 => Self::Http1,
            4 | 5 => Self::Frames,
            6 | 7 => Self::Flood(rng.pick(&[0, 1, 2, 3, 4, 6, 7, 8, 9, 200])),
            _ => Self::Oddities,
        }
    }
}

/// A hostile end of a link.
#[derive(Debug)]
pub(crate) struct Hostile {
    trick: Trick,
    is_caller: bool,
    authority: String,
    out: Vec<u8>,
    encoder: HpackEncoder,
    next_stream: u32,
    steps: u32,
    reads: bool,
    leaves_at: Option<u64>,
    stays_ns: u64,
    /// Streams seen from the shard, by id (backends).
    asked: BTreeMap<u32, ()>,
    input: Vec<u8>,
    hello_done: bool,
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(0);
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

impl Hostile {
    pub(crate) fn new(rng: &mut Rng, trick: Trick, is_caller: bool, authority: &str) -> Self {
        Self {
            trick,
            is_caller,
            authority: authority.into(),
            out: Vec::new(),
            encoder: HpackEncoder::new(),
            next_stream: if is_caller { 1 } else { 2 },
            steps: u32::try_from(rng.skewed(2000)).unwrap_or(1),
            reads: rng.chance(700),
            leaves_at: None,
            stays_ns: rng.pick(&[MS, 100 * MS, 30 * SECOND]),
            asked: BTreeMap::new(),
            input: Vec::new(),
            hello_done: false,
        }
    }

    fn stream(&mut self, rng: &mut Rng) -> u32 {
        match rng.below(10) {
            0 => 0,
            1 => u32::try_from(rng.below(1 << 31)).unwrap_or(0),
            2 => {
                self.next_stream += 2;
                self.next_stream
            }
            _ if !self.asked.is_empty() && !self.is_caller => {
                let all: Vec<u32> = self.asked.keys().copied().collect();
                rng.pick(&all)
            }
            _ => u32::try_from(rng.size(0, self.next_stream as usize)).unwrap_or(0) | 1,
        }
    }

    fn request(&mut self, rng: &mut Rng) -> Headers {
        let mut list = Headers::new();
        let odd = rng.below(14);
        list.push(b":method", if odd == 0 { b"GET" } else { b"POST" });
        list.push(b":scheme", b"http");
        if odd != 1 {
            list.push(b":path", if odd == 2 { b"" } else { b"/sim.S/Hostile" });
        }
        list.push(b":authority", self.authority.as_bytes());
        list.push(b"te", if odd == 3 { b"gzip" } else { b"trailers" });
        list.push(b"content-type", if odd == 4 { b"text/html" } else { b"application/grpc" });
        match odd {
            5 => list.push(b"connection", b"close"),
            6 => list.push(b"x-evil", b"a\r\nx-injected: 1"),
            7 => list.push(b"x-large", &vec![b'x'; rng.size(1000, 200_000)]),
            8 => list.push(b"grpc-timeout", b"99999999999999S"),
            9 => list.push(b"grpc-encoding", b"snappy"),
            10 => list.push(b"content-length", b"3"),
            11 => list.push(b":late", b"pseudo"),
            12 => list.push(b"UPPER", b"case"),
            _ => {}
        }
        list
    }

    fn answer(&mut self, rng: &mut Rng) -> Headers {
        let mut list = Headers::new();
        let odd = rng.below(12);
        let status: &[u8] = match odd {
            0 => b"503",
            1 => b"100",
            2 => b"101",
            3 => b"999",
            4 => b"",
            _ => b"200",
        };
        list.push(b":status", status);
        list.push(b"content-type", if odd == 5 { b"text/html" } else { b"application/grpc" });
        match odd {
            6 => list.push(b"grpc-status", b"0"),
            7 => list.push(b"grpc-status", b"77777777777777777777"),
            8 => list.push(b"x-evil", b"a\r\nb"),
            9 => list.push(b"transfer-encoding", b"chunked"),
            10 => list.push(b"x-large", &vec![b'x'; rng.size(1000, 200_000)]),
            11 => list.push(b"grpc-encoding", b"gzip"),
            _ => {}
        }
        list
    }

    fn headers_frame(&mut self, rng: &mut Rng, stream: u32) {
        let list = if self.is_caller { self.request(rng) } else { self.answer(rng) };
        let mut block = Vec::new();
        self.encoder.encode(&list, &mut block);
        let ends = u8::from(rng.chance(300));
        let (first, rest) = block.split_at(block.len().min(rng.pick(&[1, 100, 16_384])));
        put_frame(&mut self.out, 1, ends | if rest.is_empty() { 4 } else { 0 }, stream, first);
        let count = rest.chunks(16_000).len();
        for (at, part) in rest.chunks(16_000).enumerate() {
            put_frame(&mut self.out, 9, if at + 1 == count { 4 } else { 0 }, stream, part);
        }
    }

    fn any_frame(&mut self, rng: &mut Rng) {
        let stream = self.stream(rng);
        match rng.below(12) {
            0..=2 => self.headers_frame(rng, stream),
            3 | 4 => {
                let len = rng.skewed(20_000);
                let ends = u8::from(rng.chance(200));
                put_frame(&mut self.out, 0, ends, stream, &vec![0; len]);
            }
            5 => put_frame(&mut self.out, 3, 0, stream, &[0, 0, 0, 8]),
            6 => {
                let id = u8::try_from(rng.below(9)).unwrap_or(0);
                let value = u32::try_from(rng.word() >> rng.between(32, 63)).unwrap_or(0).to_be_bytes();
                put_frame(&mut self.out, 4, 0, 0, &[0, id, value[0], value[1], value[2], value[3]]);
            }
            7 => put_frame(&mut self.out, 6, u8::from(rng.chance(300)), 0, &[7; 8]),
            8 => {
                let by = u32::try_from(rng.word() >> rng.between(33, 63)).unwrap_or(0);
                put_frame(&mut self.out, 8, 0, stream, &by.to_be_bytes());
            }
            9 => put_frame(&mut self.out, 7, 0, 0, &[0; 8]),
            10 => put_frame(&mut self.out, 2, 0, stream, &[0, 0, 0, 1, 16]),
            _ => {
                let (kind, flags) = (rng.word().to_le_bytes()[0], rng.word().to_le_bytes()[0]);
                let payload: Vec<u8> = (0..rng.size(0, 40)).map(|_| rng.word().to_le_bytes()[0]).collect();
                put_frame(&mut self.out, kind, flags, stream, &payload);
            }
        }
    }

    fn flood(&mut self, rng: &mut Rng, kind: u8) {
        for _ in 0..20 {
            match kind {
                0 => put_frame(&mut self.out, 0, 0, 1, &[]),
                1 => {
                    // Rapid reset.
                    let stream = self.next_stream;
                    self.next_stream += 2;
                    let list = if self.is_caller { plain_request(&self.authority) } else { self.answer(rng) };
                    let mut block = Vec::new();
                    self.encoder.encode(&list, &mut block);
                    put_frame(&mut self.out, 1, 4, stream, &block);
                    put_frame(&mut self.out, 3, 0, stream, &[0, 0, 0, 8]);
                }
                3 => put_frame(&mut self.out, 3, 0, self.next_stream, &[0, 0, 0, 8]),
                4 => put_frame(&mut self.out, 4, 0, 0, &[]),
                6 => put_frame(&mut self.out, 6, 0, 0, &[1; 8]),
                8 => put_frame(&mut self.out, 8, 0, 0, &[0, 0, 0, 1]),
                9 => {
                    put_frame(&mut self.out, 1, 0, self.next_stream, &[]);
                    put_frame(&mut self.out, 9, 0, self.next_stream, &[]);
                }
                kind => put_frame(&mut self.out, kind, 0, 0, &[0; 5]),
            }
        }
    }

    /// The next bytes of its script.
    fn step(&mut self, rng: &mut Rng) {
        if !core::mem::replace(&mut self.hello_done, true)
            && matches!(self.trick, Trick::Frames | Trick::Flood(_) | Trick::Oddities)
        {
            if self.is_caller {
                self.out.extend_from_slice(PREFACE);
            }
            if !rng.chance(50) {
                put_frame(&mut self.out, 4, 0, 0, &[]);
            }
        }
        match self.trick {
            Trick::Silence => {}
            Trick::Noise => {
                let len = rng.skewed(5000);
                self.out.extend((0..len).map(|_| rng.word().to_le_bytes()[0]));
            }
            Trick::Tls => self.out.extend_from_slice(&[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]),
            Trick::Http1 if self.is_caller => {
                self.out.extend_from_slice(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            }
            Trick::Http1 => {
                self.out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            }
            Trick::Frames => self.any_frame(rng),
            Trick::Flood(kind) => self.flood(rng, kind),
            Trick::Oddities => {
                let stream = if self.is_caller {
                    self.next_stream += 2;
                    self.next_stream - 2
                } else {
                    let Some((stream, ())) = self.asked.pop_first() else { return };
                    stream
                };
                self.headers_frame(rng, stream);
                let mut body = vec![rng.pick(&[0, 0, 1, 7]), 0, 0, 0, 0];
                body[4] = rng.pick(&[0, 3, 200]);
                body.extend_from_slice(&[0xff; 3]);
                put_frame(&mut self.out, 0, u8::from(rng.chance(700)), stream, &body);
            }
        }
    }

    /// Which streams the shard has opened, so that the answers have somewhere to go.
    fn look(&mut self, bytes: &[u8]) {
        if self.is_caller {
            return;
        }
        self.input.extend_from_slice(bytes);
        if self.input.starts_with(PREFACE) {
            self.input.drain(..PREFACE.len());
        }
        while let Some(head) = self.input.first_chunk::<9>() {
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, stream) = (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            if self.input.len() < 9 + len {
                break;
            }
            self.input.drain(..9 + len);
            if kind == 1 {
                self.asked.insert(stream, ());
            }
        }
    }
}

fn plain_request(authority: &str) -> Headers {
    let mut list = Headers::new();
    list.push(b":method", b"POST");
    list.push(b":scheme", b"http");
    list.push(b":path", b"/sim.S/Hostile");
    list.push(b":authority", authority.as_bytes());
    list.push(b"te", b"trailers");
    list.push(b"content-type", b"application/grpc");
    list
}

impl Peer for Hostile {
    fn wake(&mut self, io: &mut PeerIo<'_>, _ledger: &mut Ledger) -> Wake {
        let now = io.now();
        let leaves_at = *self.leaves_at.get_or_insert(now + self.stays_ns);
        if self.reads {
            let bytes = io.read(usize::MAX);
            self.look(&bytes);
        }
        if io.end() != End::Open {
            return Wake::Done;
        }
        if now >= leaves_at {
            if io.rng().chance(500) {
                io.reset();
            }
            return Wake::Done;
        }
        // A bounded share at a time, so that others' bytes come in between.
        let mut rng = io.rng().fork(1);
        for _ in 0..rng.size(1, 10) {
            if self.steps == 0 || self.out.len() > 100_000 {
                break;
            }
            self.steps -= 1;
            self.step(&mut rng);
        }
        let taken = io.write(&self.out);
        self.out.drain(..taken);
        let soon = now + 1 + rng.below(200_000);
        Wake::At(if self.steps > 0 { soon.min(leaves_at) } else { leaves_at })
    }
}
