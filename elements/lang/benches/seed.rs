//! What one passage of the seed chain costs, interpreted, with a call that does next to nothing.
//!
//!     cargo bench -p towpath-lang
//!
//! `passage` is request, pick and response; the figure to stay under is 250 ns.
#![allow(missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use abi::Entry;
use common::one;
use criterion::{Criterion, criterion_group, criterion_main};

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("seed");
    let (compiled, mut mock) = one("LoadBalancing - Logging - Compression - FaultInjection(0.1)", "");
    let chain = compiled.program.chains[0].clone();
    for endpoints in [2, 16, 1024] {
        mock.endpoints = (0..endpoints).map(common::endpoint).collect();
        mock.endpoints.iter_mut().for_each(|e| e.latency_ns = 700_000);
        group.bench_function(format!("passage, {endpoints} endpoints"), |b| {
            b.iter(|| {
                mock.id += 1;
                mock.endpoint = None;
                let verdict = chain.run(Entry::Request, 0, black_box(&mut mock));
                chain.run(Entry::Pick, 0, &mut mock);
                chain.run(Entry::Response, 0, &mut mock);
                verdict
            });
        });
    }
    group.bench_function("request", |b| {
        b.iter(|| {
            mock.id += 1;
            chain.run(Entry::Request, 0, black_box(&mut mock))
        });
    });
    let rest = r#"element Tenant(by: call => string?) {
        request { let t = by else { reject(UNAUTHENTICATED, "who?") }
                  if t in ["evil", "worse"] { reject(PERMISSION_DENIED, "blocked") }
                  call.metadata["x-tenant-id"] = "t-{t}" }
        response { if call.status != OK { count("bad") } }
    }"#;
    let (compiled, mock) = one("Tenant(by: call.metadata[\"x-tenant\"])", rest);
    let mut mock = mock.header("x-tenant", "acme");
    let chain = compiled.program.chains[0].clone();
    group.bench_function("a header element", |b| {
        b.iter(|| {
            mock.request.truncate(1);
            let verdict = chain.run(Entry::Request, 0, black_box(&mut mock));
            chain.run(Entry::Response, 0, &mut mock);
            verdict
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
