//! What a chain of five header-only elements costs: nanoseconds, and instructions where valgrind is there.
//!
//!     cargo bench -p towpath-jit --bench cost
//!
//! The aims: 150 ns over the empty chain, 1.2 times the instructions of the same chain by hand, and 150 ns
//! more for a firewall on a field of a message of 1 KiB.
#![allow(missing_docs, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "cost/mod.rs"]
mod cost;
#[path = "cost/count.rs"]
mod count;

use std::hint::black_box;
use std::time::Instant;

use abi::{Chain, Verdict};
use cost::{Slim, Way, compiles, done, firewall, linked, many_rules, passage};
use towpath_jit::Jit;

/// The least of many rounds, ns a passage.
fn ns(chain: &dyn Chain, mut call: Slim) -> f64 {
    const PASSAGES: u64 = 20_000;
    let round = |call: &mut Slim| {
        let begun = Instant::now();
        for id in 0..PASSAGES {
            black_box(passage(chain, call, black_box(id)));
        }
        begun.elapsed().as_nanos() as f64 / PASSAGES as f64
    };
    (0..40).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

/// A way's instructions a passage, or a question mark without valgrind.
fn instructions(way: Way) -> String {
    count::per_passage(way).map_or_else(|| "?".to_owned(), |n| format!("{n:.0}"))
}

/// What looking into a message costs.
fn firewalls() {
    let ways = [(Way::Closed, Way::Firewall), (Way::ClosedInterpreted, Way::FirewallInterpreted)];
    for ((closed, firewall), how) in ways.into_iter().zip(["compiled", "interpreted"]) {
        let (without, with) = (closed.chain(), firewall.chain());
        for (what, number) in firewall::LONG {
            let call = || firewall::call("u-12345678", number);
            let mallory = passage(&*with, &mut firewall::call("mallory", number), 1);
            assert!(matches!(mallory, Verdict::Reject(_)), "the firewall is there");
            let (before, after) = (ns(&*without, call()), ns(&*with, call()));
            println!(
                "a firewall on a field, {how}, {what} beside it: {:.1} ns more, to {after:.1}",
                after - before
            );
        }
        println!("in instructions: {}, {} with it", instructions(closed), instructions(firewall));
    }
}

/// Milliseconds that something takes.
fn ms(what: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    what();
    begun.elapsed().as_secs_f64() * 1e3
}

fn compile_times() {
    let first = ms(|| compiles(&mut Jit::new()));
    let again = (0..20).map(|_| ms(|| compiles(&mut Jit::new()))).fold(f64::INFINITY, f64::min);
    println!("five elements to machine code: {first:.2} ms the first time, {again:.2} ms at best");
    let source = many_rules();
    let mut jit = Jit::new();
    let all = ms(|| drop(linked(&source, &mut jit)));
    println!("10,000 rules of 50 shapes: {all:.0} ms, {:?}", jit.figures());
}

fn main() {
    if count::is_counted() {
        return;
    }
    let [hand, compiled, _] = Way::HEADERS.map(|way| done(&*way.chain(), 7));
    assert_eq!(hand, compiled, "what is compared does the same");
    compile_times();
    for way in Way::HEADERS.into_iter().chain([Way::Empty]) {
        let nanoseconds = ns(&*way.chain(), way.call());
        println!("{:12} {nanoseconds:6.1} ns, {} instructions a passage", way.name(), instructions(way));
    }
    firewalls();
}
