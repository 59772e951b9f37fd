//! One program, the same calls, two ways to run it.

use std::fmt::Write;
use std::sync::Arc;

use abi::{Chain, Entry, Suspend, Verdict};
use lang::state::Store;
use lang::{Backend, Interpreter, Loader, Overrides, SourceText};

use crate::call::Call;
use crate::message::{PROTO, message};
use crate::program;
use crate::rng::Rng;
use crate::written;

/// Suspensions one entry is followed through.
const SUSPENSIONS_MAX: usize = 40;
/// Calls one program is run for.
const CALLS: u64 = 12;

/// The one file programs use.
struct Proto;

impl Loader for Proto {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Ok(SourceText { name: path.to_owned(), text: PROTO.to_owned() })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(format!("{host_port} has no address here"))
    }
}

/// What became of a program.
#[derive(Debug)]
pub enum Outcome {
    /// It ran, both ways alike; how many instructions it has.
    Agreed(usize),
    /// The compiler refused it: the generator is not perfect.
    Refused(String),
    /// The two ways differ.
    Differs(String),
}

/// Makes the program of a seed and runs it both ways.
pub fn seed(seed: u64) -> Outcome {
    let source = program::program(&mut Rng::new(seed));
    source_both_ways(&source, seed)
}

pub(crate) fn compile(source: &str) -> Result<lang::Compiled, lang::Diagnostics> {
    lang::compile("fuzz.adn", source, &Proto, &Overrides::default())
}

/// Runs a program both ways.
pub fn source_both_ways(source: &str, seed: u64) -> Outcome {
    let mut first = match compile(source) {
        Ok(compiled) => compiled,
        Err(errors) => return Outcome::Refused(errors.to_string()),
    };
    let Ok(mut second) = compile(source) else {
        return Outcome::Differs("compiles once and not twice".into());
    };
    if let Some(what) = first.images.iter().find_map(|image| written::unwritten(image)) {
        return Outcome::Differs(what);
    }
    let interpreted = chains(&mut first, &mut Interpreter, seed);
    let mut machine = jit::Jit::new();
    let compiled = chains(&mut second, &mut machine, seed);
    if machine.figures().interpreted > 0 {
        return Outcome::Differs(format!("not compiled: {:?}", machine.refusal()));
    }
    let ops = first.images.iter().map(|i| i.op_count()).sum();
    let differs = interpreted.iter().zip(&compiled).find_map(|(a, b)| chains_differ(&**a, &**b, seed));
    let differs = differs.or_else(|| otherwise_differs(source, seed));
    differs.map_or(Outcome::Agreed(ops), Outcome::Differs)
}

/// Where the program does something else once it is written in another way that means the same. What the compiler gets
/// wrong, interpreter and machine code get wrong alike.
fn otherwise_differs(source: &str, seed: u64) -> Option<String> {
    let written = otherwise(source);
    let (mut first, mut second) = (compile(source).ok()?, compile(&written).ok()?);
    let told = |compiled: &mut lang::Compiled| -> Vec<Vec<String>> {
        let chains = chains(compiled, &mut Interpreter, seed);
        let metrics = &compiled.program.metrics;
        let essence = |call: String| call.lines().filter_map(|line| essence(line, metrics)).collect();
        chains.iter().map(|chain| run(&**chain, seed).into_iter().map(essence).collect()).collect()
    };
    let (a, b) = (told(&mut first), told(&mut second));
    let (a, b) = a.iter().zip(&b).find(|(a, b)| a != b)?;
    Some(format!("written otherwise (the second), it does something else: {}\n{written}", difference(a, b)))
}

/// What is said of an effect, but for how the program is laid out: what is never reached has no segment and no metric,
/// and only an element that has something to do makes its mark.
fn essence(line: &str, metrics: &[String]) -> Option<String> {
    let mut words = line.split_inclusive(' ');
    let first = words.next().filter(|word| *word != "mark ")?;
    let mut out = first.to_owned();
    let mut before = first;
    for word in words {
        let number = word.trim_end_matches([' ', ',']).parse::<usize>();
        match (before, number) {
            ("segment: ", Ok(_)) => out.push_str("… "),
            ("count " | "observe ", Ok(at)) => out.extend(metrics.get(at).map(|name| format!("{name} "))),
            _ => out.push_str(word),
        }
        before = word;
    }
    out.push('\n');
    Some(out)
}

/// The same program, where simple statements and values stand in an `if` of their own, which the compiler does not see
/// through.
pub(crate) fn otherwise(source: &str) -> String {
    let mut out = String::new();
    for (at, line) in source.lines().enumerate() {
        let statement = line.trim_start();
        let is_simple =
            ["count(", "log(", "observe(", "delay(", "call.", "s0 ", "s1 ", "v0 ", "v1 ", "v2 ", "v3 "]
                .iter()
                .any(|begin| statement.starts_with(begin));
        let bound = statement.strip_prefix("let ").and_then(|bound| bound.split_once(" = "));
        let value = bound.filter(|(_, value)| !value.contains(" else return") && !value.contains("let "));
        let _ = match value {
            _ if !line.starts_with("        ") => writeln!(out, "{line}"),
            Some((name, value)) => {
                writeln!(out, "let {name} = (if call.id == call.id {{ {value} }} else {{ {value} }})")
            }
            None if is_simple && at % 2 == 0 => writeln!(out, "if call.id == call.id {{ {statement} }}"),
            None if is_simple => writeln!(out, "if call.id != call.id {{ }} else {{ {statement} }}"),
            None => writeln!(out, "{line}"),
        };
    }
    out
}

/// Where two chains do not do the same to the same calls.
pub fn chains_differ(interpreted: &dyn Chain, compiled: &dyn Chain, seed: u64) -> Option<String> {
    let (a, b) = (run(interpreted, seed), run(compiled, seed));
    if a != b {
        return Some(format!("interpreter and machine code: {}", difference(&a, &b)));
    }
    let lines = || a.iter().flat_map(|call| call.lines());
    lines().find(|line| line.contains(program::TWINS_DIFFER)).map(|line| format!("both say: {line}"))
}

fn chains(compiled: &mut lang::Compiled, backend: &mut dyn Backend, seed: u64) -> Vec<Arc<dyn Chain>> {
    compiled.link(&mut Store::seeded(2, seed), backend);
    compiled.program.chains.clone()
}

/// Every call's whole passage, told.
fn run(chain: &dyn Chain, seed: u64) -> Vec<String> {
    let mut rng = Rng::new(seed ^ 0xca11);
    let mut now = 1_000_000_000;
    (0..CALLS)
        .map(|id| {
            now += rng.word() >> (34 + rng.below(20));
            let shard = u16::try_from(rng.below(2)).unwrap_or(0);
            let mut call = Call::new(&mut rng, id, shard, now, chain.plan().call_words);
            passage(chain, &mut call, &mut rng);
            now = now.max(call.now_ns);
            call.account()
        })
        .collect()
}

fn passage(chain: &dyn Chain, call: &mut Call, rng: &mut Rng) {
    call.payload = Some(message(rng));
    let verdict = entry(chain, Entry::Request, call);
    if verdict == Verdict::Forward {
        for attempt in 1..=call.attempt {
            call.attempt = attempt;
            entry(chain, Entry::Pick, call);
        }
        for (which, count) in [(Entry::RequestMessage, rng.below(3)), (Entry::ResponseMessage, rng.below(3))]
        {
            for _ in 0..count {
                call.payload = Some(message(rng));
                if entry(chain, which, call) != Verdict::Forward {
                    break;
                }
            }
        }
    }
    call.payload = (!rng.once_in(3)).then(|| message(rng));
    entry(chain, Entry::Response, call);
}

/// One entry, over all its suspensions; they take the time they say.
fn entry(chain: &dyn Chain, entry: Entry, call: &mut Call) -> Verdict {
    let mut segment = 0;
    for _ in 0..SUSPENSIONS_MAX {
        let verdict = chain.run(entry, segment, call);
        call.journal.push(format!("{entry:?} {verdict:?}"));
        let Verdict::Suspend(Suspend::Timer { ns, segment: to, .. }) = verdict else { return verdict };
        call.now_ns = call.now_ns.saturating_add(ns.min(1 << 40));
        segment = to;
    }
    Verdict::Forward
}

fn difference(interpreted: &[String], compiled: &[String]) -> String {
    let mut calls = interpreted.iter().zip(compiled).enumerate();
    let Some((call, (a, b))) = calls.find(|(_, (a, b))| a != b) else {
        return "one tells of more calls".to_owned();
    };
    let lines = a.lines().zip(b.lines()).enumerate().find(|(_, (a, b))| a != b);
    let (line, (a, b)) = lines.unwrap_or((0, ("(one tells more)", "")));
    format!("call {call}, line {line}\n  one:       {a}\n  the other: {b}")
}
