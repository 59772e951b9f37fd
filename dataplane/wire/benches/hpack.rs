//! HPACK on what gRPC sends: `cargo bench -p towpath-wire --bench hpack`.
//!
//! *warm*: the block of the next call, an earlier one byte for byte. *miss*: the same blocks with a value
//! that changes in each, so that no memo helps, and every field is looked up or copied.

#![expect(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use towpath_wire::hpack::{HpackDecoder, HpackEncoder};
use towpath_wire::{Headers, Token};

const LIST_MAX: usize = 16 * 1024;

/// Calls of one connection.
const CALLS: u64 = 1000;

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name.as_bytes(), value.as_bytes());
    }
    out
}

fn request() -> Headers {
    list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.testing.BenchmarkService/UnaryCall"),
        (":authority", "catalog.shop.svc.cluster.local:8080"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-c++/1.62.0 grpc-c/39.0.0 (linux; chttp2)"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
    ])
}

fn response() -> Headers {
    list(&[
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
    ])
}

fn trailers() -> Headers {
    list(&[("grpc-status", "0"), ("grpc-message", "")])
}

/// An encoder whose table holds the lists, and a decoder that has read everything it sent.
fn warm(lists: &[Headers]) -> (HpackEncoder, HpackDecoder) {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    let (mut block, mut out) = (Vec::new(), Headers::new());
    for list in lists.iter().cycle().take(lists.len() * 5) {
        block.clear();
        encoder.encode(list, &mut block);
        assert_eq!(decoder.decode(&block, LIST_MAX, &mut out), Ok(()));
    }
    (encoder, decoder)
}

fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("warm");
    for (name, list) in [("request", request()), ("response", response()), ("trailers", trailers())] {
        let (mut encoder, mut decoder) = warm(&[request(), response(), trailers()]);
        let (mut block, mut out) = (Vec::new(), Headers::new());
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| {
                block.clear();
                encoder.encode(black_box(&list), &mut block);
            });
        });
        block.clear();
        encoder.encode(&list, &mut block);
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| decoder.decode(black_box(&block), LIST_MAX, &mut out));
        });
        eprintln!(
            "{name}: {} fields, {} bytes as {}; memory: encoder {}, decoder {}",
            list.len(),
            list.bytes_len(),
            block.len(),
            encoder.capacity_bytes(),
            decoder.capacity_bytes()
        );
    }
}

/// Lists that are all alike but for one value.
fn varied(name: &str, value: impl Fn(u64) -> String) -> Vec<Headers> {
    (0..64_u64)
        .map(|i| {
            let mut list = request();
            list.push(name.as_bytes(), value(i).as_bytes());
            list
        })
        .collect()
}

fn misses(c: &mut Criterion) {
    let mut group = c.benchmark_group("miss");
    let timeouts = varied("grpc-timeout", |i| format!("{}u", 4_999_000 + i * 7));
    let traces = varied("traceparent", |i| {
        let id = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("00-{id:016x}{:016x}-{:016x}-01", id.rotate_left(17), id.rotate_left(40))
    });
    for (name, lists) in [("request+timeout", timeouts), ("request+traceparent", traces)] {
        let (mut encoder, mut decoder) = warm(&lists);
        let blocks: Vec<Vec<u8>> = lists
            .iter()
            .map(|list| {
                let mut block = Vec::new();
                encoder.encode(list, &mut block);
                block
            })
            .collect();
        let (mut block, mut out) = (Vec::new(), Headers::new());
        let mut at = 0;
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| {
                at = (at + 1) % lists.len();
                block.clear();
                encoder.encode(black_box(&lists[at]), &mut block);
            });
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| {
                at = (at + 1) % blocks.len();
                decoder.decode(black_box(&blocks[at]), LIST_MAX, &mut out)
            });
        });
        eprintln!("{name}: {} fields in {} bytes", lists[0].len(), blocks[0].len());
    }
    // As grpc-go sends them: every timeout enters the table, and what was there moves.
    let mut encoder = fluke_hpack::Encoder::new();
    let calls: Vec<Vec<u8>> = (0..CALLS)
        .map(|i| {
            let mut list = request();
            list.push(b"grpc-timeout", format!("{}u", 4_999_000 + i * 7).as_bytes());
            encoder.encode(list.iter().map(|(_, name, value)| (name, value)))
        })
        .collect();
    let mut out = Headers::new();
    group.throughput(Throughput::Elements(CALLS));
    group.bench_function("decode/a connection whose timeouts are indexed", |b| {
        b.iter(|| {
            let mut decoder = HpackDecoder::default();
            for block in &calls {
                assert_eq!(decoder.decode(black_box(block), LIST_MAX, &mut out), Ok(()));
            }
        });
    });
}

fn first(c: &mut Criterion) {
    let list = request();
    let mut group = c.benchmark_group("first");
    let mut block = Vec::new();
    group.bench_function("encode/request", |b| {
        b.iter(|| {
            block.clear();
            HpackEncoder::new().encode(black_box(&list), &mut block);
        });
    });
    block.clear();
    HpackEncoder::new().encode(&list, &mut block);
    let mut out = Headers::new();
    group.bench_function("decode/request", |b| {
        b.iter(|| HpackDecoder::default().decode(black_box(&block), LIST_MAX, &mut out));
    });
    let mut changed = list.clone();
    group.bench_function("headers/copy and set the timeout", |b| {
        b.iter(|| {
            changed.copy_from(black_box(&list));
            changed.set(Token::GrpcTimeout, b"grpc-timeout", b"4999000u");
        });
    });
}

criterion_group!(benches, hits, misses, first);
criterion_main!(benches);
