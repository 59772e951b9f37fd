//! What is the same is compiled once, and freed when nobody runs it any more.
#![allow(clippy::panic, reason = "a test fails by panicking")]

/// By the name that the language's own tests know it by.
extern crate lang as towpath_lang;

#[path = "../../lang/tests/common/mod.rs"]
mod lang_common;

use lang::state::Store;
use lang::{Compiled, NoFiles, Overrides};
use towpath_jit::Jit;

/// A program with a rule for each of these chains.
fn linked(jit: &mut Jit, chains: &[&str]) -> Compiled {
    let mut source = String::from("service catalog { endpoints: [\"127.0.0.1:1\"] }\n");
    for (at, chain) in chains.iter().enumerate() {
        source += &format!("service s{at} {{ from: [\"uid:{at}\"] }}\ns{at} -> catalog: {chain}\n");
    }
    let mut compiled =
        lang::compile("test.adn", &source, &NoFiles, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    compiled.link(&mut Store::new(1), jit);
    compiled
}

#[test]
fn the_same_code_is_compiled_once() {
    let mut jit = Jit::new();
    let first = linked(&mut jit, &["Logging", "Logging", "Logging - Compression", "Logging"]);
    assert_eq!((jit.figures().chains, jit.figures().compiled), (4, 2));
    // A reload that changes nothing compiles nothing, also while the old program runs on.
    let second = linked(&mut jit, &["Logging", "Logging", "Logging - Compression", "Logging"]);
    assert_eq!((jit.figures().chains, jit.figures().compiled), (8, 2));
    drop((first, second));
}

/// Arguments are data: only what changes a chain's shape is code of its own.
#[test]
fn rules_that_differ_in_arguments_share_code() {
    let mut jit = Jit::new();
    let same = [
        "FaultInjection(0.1)",
        "FaultInjection(0.0)",
        "FaultInjection(100%, RESOURCE_EXHAUSTED)",
        "FaultInjection(0.25, UNAVAILABLE) when (call.metadata[\"a\"] == \"b\") dry",
        "FaultInjection(0.26, INTERNAL) when (call.metadata[\"x-c\"] == \"ddd\") dry",
        "FaultInjection(1%, delay: 1ms)",
        "FaultInjection(99%, delay: 90s)",
    ];
    let linked = linked(&mut jit, &same);
    // Without delay, with `when`, with delay.
    assert_eq!((jit.figures().chains, jit.figures().compiled), (7, 3));
    // And yet each has its own numbers.
    let rejected = |chain: usize| {
        let mut call = lang_common::Mock::new(1);
        (0..400)
            .filter(|id| {
                call.id = *id;
                let verdict = linked.program.chains[chain].run(abi::Entry::Request, 0, &mut call);
                matches!(verdict, abi::Verdict::Reject(_))
            })
            .count()
    };
    assert_eq!((rejected(1), rejected(2)), (0, 400));
    assert!((20..60).contains(&rejected(0)));
}

#[test]
fn code_that_nobody_runs_is_freed_by_the_sweep_alone() {
    let mut jit = Jit::new();
    let first = linked(&mut jit, &["Logging", "Logging - Compression"]);
    let chain = first.program.chains[1].clone();
    drop(first);
    jit.sweep();
    assert_eq!(jit.figures().held, 1, "a chain still runs");
    drop(chain);
    assert_eq!(jit.figures().held, 1, "the last user frees nothing");
    jit.sweep();
    assert_eq!((jit.figures().held, jit.figures().held_bytes), (0, 0));
}

/// The control thread looks again as long as there is something to wait for, and no longer.
#[test]
fn a_sweep_tells_whether_earlier_programs_hold_code() {
    let mut jit = Jit::new();
    let first = linked(&mut jit, &["Logging", "Logging - Compression"]);
    jit.begin_program();
    let second = linked(&mut jit, &["Logging", "Compression"]);
    assert!(jit.sweep(), "the first program's second chain runs still");
    drop(first);
    assert!(!jit.sweep(), "what is left is the second's");
    assert_eq!(jit.figures().held, 2);
    drop(second);
}
