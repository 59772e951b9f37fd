//! A warm connection allocates nothing: not per call, not per cut frame, not per refused byte.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use towpath_wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Role, StreamKey};
use towpath_wire::{Headers, Instant};

const NOW: Instant = Instant(1);

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name.as_bytes(), value.as_bytes());
    }
    out
}

struct Both {
    client: H2Conn,
    server: H2Conn,
    request: Headers,
    response: Headers,
    trailers: Headers,
    /// Bytes go in pieces of this size.
    piece: usize,
    /// Streams that wait to send, with what is left.
    left: Vec<(StreamKey, usize)>,
}

static BODY: [u8; 200_000] = [7; 200_000];

impl Both {
    fn new(piece: usize) -> Self {
        Self {
            client: H2Conn::new(Role::Client, &Config::default(), NOW),
            server: H2Conn::new(Role::Server, &Config::default(), NOW),
            request: list(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.testing.BenchmarkService/UnaryCall"),
                (":authority", "catalog:8080"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ]),
            response: list(&[(":status", "200"), ("content-type", "application/grpc")]),
            trailers: list(&[("grpc-status", "0")]),
            piece,
            left: Vec::with_capacity(64),
        }
    }

    fn serve(&mut self) -> usize {
        let mut answered = 0;
        let bytes = self.client.tx();
        let taken = bytes.len();
        for piece in bytes.chunks(self.piece) {
            let mut input = Input::new(piece);
            while let Some(event) = self.server.next(NOW, &mut input).unwrap() {
                match event {
                    H2Event::Headers { stream, kind: HeadersKind::Request, .. } => {
                        self.server.set_tag(stream, 1);
                    }
                    H2Event::Data { stream, range, end_stream, .. } => {
                        self.server.release(stream, range.len());
                        if end_stream {
                            self.server.send_headers(stream, &self.response, false);
                            self.server.send_data(stream, b"answer", false);
                            self.server.send_headers(stream, &self.trailers, true);
                            answered += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.client.tx_advance(taken);
        answered
    }

    fn listen(&mut self) {
        let bytes = self.server.tx();
        let taken = bytes.len();
        for piece in bytes.chunks(self.piece) {
            let mut input = Input::new(piece);
            while let Some(event) = self.client.next(NOW, &mut input).unwrap() {
                match event {
                    H2Event::Data { stream, range, .. } => self.client.release(stream, range.len()),
                    H2Event::Writable { stream, .. } => {
                        if let Some(at) = self.left.iter().position(|l| l.0 == stream) {
                            let (_, left) = self.left.swap_remove(at);
                            let taken = self.client.send_data(stream, &BODY[..left], true);
                            if taken < left {
                                self.left.push((stream, left - taken));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        self.server.tx_advance(taken);
    }

    /// So many calls at once, with bodies of so many bytes, to the end.
    fn calls(&mut self, count: usize, size: usize) {
        for _ in 0..count {
            let stream = self.client.open(1).unwrap();
            assert!(self.client.send_headers(stream, &self.request, false));
            let taken = self.client.send_data(stream, &BODY[..size], true);
            if taken < size {
                self.left.push((stream, size - taken));
            }
        }
        let mut answered = 0;
        while answered < count {
            answered += self.serve();
            self.listen();
        }
        self.serve();
        assert_eq!((self.client.streams_open(), self.server.streams_open()), (0, 0));
    }
}

#[test]
fn a_warm_connection_allocates_nothing() {
    let counts = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 10])));
    assert_eq!(counts.count_total, 1, "the counter counts");
    for (count, size, piece) in
        [(1, 32, usize::MAX), (32, 1024, usize::MAX), (32, 1024, 61), (3, 150_000, 4000)]
    {
        let mut both = Both::new(piece);
        for _ in 0..20 {
            both.calls(count, size);
        }
        let info = allocation_counter::measure(|| {
            for _ in 0..50 {
                both.calls(count, size);
            }
        });
        assert_eq!(info.count_total, 0, "{count} calls of {size} bytes in pieces of {piece}");
    }
}
