//! A warm unary exchange, client to server and back, in memory: `cargo bench -p towpath-wire --bench conn`.
//!
//! *server*: one call at the server alone: HEADERS + DATA + END_STREAM in, HEADERS + DATA + trailers out,
//! replayed bytes with only the stream id changed. *exchange*: both ends. *pipelined*: 32 calls to a burst.
#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use towpath_wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Role, StreamKey};
use towpath_wire::{Headers, Instant};

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name.as_bytes(), value.as_bytes());
    }
    out
}

struct Lists {
    request: Headers,
    response: Headers,
    trailers: Headers,
}

impl Lists {
    fn new() -> Self {
        Self {
            request: list(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.testing.BenchmarkService/UnaryCall"),
                (":authority", "catalog.shop.svc.cluster.local:8080"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "grpc-c++/1.62.0 grpc-c/39.0.0 (linux; chttp2)"),
                ("grpc-accept-encoding", "identity, deflate, gzip"),
            ]),
            response: list(&[
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-accept-encoding", "identity, deflate, gzip"),
            ]),
            trailers: list(&[("grpc-status", "0"), ("grpc-message", "")]),
        }
    }
}

/// The server's side of a burst: answers each request when it has ended.
fn serve(server: &mut H2Conn, now: Instant, bytes: &[u8], lists: &Lists, body: &[u8]) -> u32 {
    let mut input = Input::new(bytes);
    let mut answered = 0;
    while let Some(event) = server.next(now, &mut input).expect("no fault") {
        match event {
            H2Event::Headers { stream, kind: HeadersKind::Request, .. } => server.set_tag(stream, 1),
            H2Event::Data { stream, range, end_stream, .. } => {
                server.release(stream, range.len());
                if end_stream {
                    server.send_headers(stream, &lists.response, false);
                    server.send_data(stream, body, false);
                    server.send_headers(stream, &lists.trailers, true);
                    answered += 1;
                }
            }
            _ => {}
        }
    }
    answered
}

fn call(client: &mut H2Conn, lists: &Lists, body: &[u8]) -> StreamKey {
    let stream = client.open(1).expect("room");
    client.send_headers(stream, &lists.request, false);
    client.send_data(stream, body, true);
    stream
}

fn drain(client: &mut H2Conn, now: Instant, bytes: &[u8]) -> u32 {
    let mut input = Input::new(bytes);
    let mut ended = 0;
    while let Some(event) = client.next(now, &mut input).expect("no fault") {
        match event {
            H2Event::Headers { end_stream: true, .. } => ended += 1,
            H2Event::Data { stream, range, .. } => client.release(stream, range.len()),
            _ => {}
        }
    }
    ended
}

fn pair(lists: &Lists, body: &[u8]) -> (H2Conn, H2Conn) {
    let now = Instant(1);
    let mut client = H2Conn::new(Role::Client, &Config::default(), now);
    let mut server = H2Conn::new(Role::Server, &Config::default(), now);
    // Settings, and a few calls so that tables and memos are warm.
    for round in 0..8 {
        if round > 1 {
            call(&mut client, lists, body);
        }
        let up = client.tx().to_vec();
        client.tx_advance(up.len());
        serve(&mut server, now, &up, lists, body);
        let down = server.tx().to_vec();
        server.tx_advance(down.len());
        drain(&mut client, now, &down);
    }
    (client, server)
}

fn bench(c: &mut Criterion) {
    let lists = Lists::new();
    let now = Instant(2);
    let mut group = c.benchmark_group("conn");
    for size in [32, 1024] {
        let body = vec![7; size];
        group.throughput(Throughput::Elements(1));

        // The next call's bytes, with the id patched in each of its two frames.
        let (mut client, mut server) = pair(&lists, &body);
        let first = call(&mut client, &lists, &body);
        let mut bytes = client.tx().to_vec();
        let data_at = bytes.len() - body.len() - 9;
        let mut id = first.id;
        group.bench_function(BenchmarkId::new("server", size), |b| {
            b.iter(|| {
                bytes[5..9].copy_from_slice(&id.to_be_bytes());
                bytes[data_at + 5..data_at + 9].copy_from_slice(&id.to_be_bytes());
                id += 2;
                assert_eq!(serve(&mut server, now, black_box(&bytes), &lists, &body), 1);
                let n = black_box(server.tx()).len();
                server.tx_advance(n);
            });
        });

        for burst in [1, 32] {
            let (mut client, mut server) = pair(&lists, &body);
            group.throughput(Throughput::Elements(burst));
            group.bench_function(BenchmarkId::new(format!("exchange_{burst}"), size), |b| {
                b.iter(|| {
                    for _ in 0..burst {
                        call(&mut client, &lists, &body);
                    }
                    serve(&mut server, now, client.tx(), &lists, &body);
                    let n = client.tx().len();
                    client.tx_advance(n);
                    let ended = drain(&mut client, now, server.tx());
                    assert_eq!(u64::from(ended), burst);
                    let n = server.tx().len();
                    server.tx_advance(n);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
