//! What a firewall on a message's field costs, interpreted, with a call that does next to nothing.
//!
//!     cargo bench -p towpath-lang --bench payload
//!
//! The message has 1 KiB. The figure to stay under is 150 ns over the empty chain.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use abi::Entry;
use common::Mock;
use criterion::{Criterion, criterion_group, criterion_main};
use towpath_lang::{self as lang, Loader, Overrides, SourceText};
use wire::proto::{Wire, put_key, put_varint};

const PROTO: &str = r#"
syntax = "proto3";
package p;
service S { rpc M(Request) returns (Request); }
message User { string id = 1; string name = 2; }
message Request { string id = 1; User user = 2; repeated uint32 sizes = 3; string text = 4; bytes blob = 5; }
"#;

struct Files;

impl Loader for Files {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Ok(SourceText { name: path.to_owned(), text: PROTO.to_owned() })
    }
    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

fn put(to: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(to, number, Wire::Len);
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// 1 KiB, most of it in field `number`.
fn message(number: u32) -> Vec<u8> {
    let (mut user, mut out) = (Vec::new(), Vec::new());
    put(&mut user, 1, b"u-12345678");
    put(&mut user, 2, b"Anna Example");
    put(&mut out, 1, b"0d9f2c1e");
    put(&mut out, 2, &user);
    put(&mut out, 3, &[1, 2, 3, 4, 100, 5]);
    let rest = 1024 - 3 - out.len();
    put(&mut out, number, &vec![b'x'; rest]);
    assert_eq!(out.len(), 1024);
    out
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("payload");
    for (name, link, number) in [
        ("nothing", "Null", 4),
        ("a header", "Firewall(call.metadata[\"x-user\"], deny: [\"mallory\"])", 4),
        ("a field, a long text beside it", "Firewall(call.payload.user.id, deny: [\"mallory\"])", 4),
        ("a field, long bytes beside it", "Firewall(call.payload.user.id, deny: [\"mallory\"])", 5),
    ] {
        let source = format!(
            "proto \"p.proto\"\nservice a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b.p.S/M: {link}\n"
        );
        let mut compiled = lang::compile("app.adn", &source, &Files, &Overrides::default()).unwrap();
        compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
        let chain = compiled.program.chains[0].clone();
        let mut mock = Mock::new(1).header("x-user", "u-12345678");
        (mock.service, mock.method) = ("p.S".into(), "M".into());
        mock.payload = Some(message(number));
        mock.words = vec![0; chain.plan().call_words];
        group.bench_function(name, |b| {
            b.iter(|| {
                // As the shard does when the slot gets another call.
                mock.words.fill(0);
                mock.spill.clear();
                chain.run(Entry::Request, 0, black_box(&mut mock))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
