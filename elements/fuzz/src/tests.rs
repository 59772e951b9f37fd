use std::sync::Arc;

use lang::state::Store;
use lang::{Interpreter, NoFiles, Overrides};

use crate::compare::{self, Outcome};
use crate::program;
use crate::rng::Rng;

/// What every run does; CI's slow part runs for a minute.
const SEEDS: u64 = 400;

#[test]
fn interpreter_and_machine_code_agree() {
    let (mut agreed, mut refused, mut why) = (0, 0, String::new());
    for seed in 1..=SEEDS {
        match compare::seed(seed) {
            Outcome::Agreed(_) => agreed += 1,
            Outcome::Refused(text) => {
                refused += 1;
                why = format!("seed {seed}: {text}");
            }
            Outcome::Differs(how) => panic!("seed {seed}: {how}"),
        }
    }
    assert!(agreed > refused * 4, "{agreed} ran, {refused} did not compile; the last of these:\n{why}");
}

/// A chain that runs this handler.
fn chain(request: &str) -> Arc<dyn abi::Chain> {
    let source = format!(
        "service frontend\nservice catalog {{ endpoints: [\"127.0.0.1:1\"] }}\n\
         frontend -> catalog: X\nelement X {{ state call n: uint = 0  request {{ {request} }} }}\n"
    );
    let mut compiled = lang::compile("x.adn", &source, &NoFiles, &Overrides::default()).unwrap();
    compiled.link(&mut Store::seeded(1, 7), &mut Interpreter);
    compiled.program.chains[0].clone()
}

#[test]
fn every_kind_of_difference_is_seen() {
    let same = "count(\"n\", call.id)  call.metadata[\"x-a\"] = \"1\"";
    assert_eq!(compare::chains_differ(&*chain(same), &*chain(same), 3), None);
    for other in [
        "call.metadata[\"x-a\"] = \"1\"  count(\"n\", call.id)",
        "count(\"n\", call.id + 1)  call.metadata[\"x-a\"] = \"1\"",
        "count(\"n\", call.id)  call.metadata[\"x-a\"] = \"2\"",
        "count(\"n\", call.id)  call.metadata[\"x-a\"] = \"1\"  delay(1ns)",
        "count(\"n\", call.id)  call.metadata[\"x-a\"] = \"1\"  if call.id == 11 { reject(ABORTED, \"x\") }",
    ] {
        assert!(compare::chains_differ(&*chain(same), &*chain(other), 3).is_some(), "{other}");
    }
}

#[test]
fn programs_can_be_written_otherwise() {
    let programs = (1..=60).map(|seed| program::program(&mut Rng::new(seed)));
    let mut changed = 0;
    for source in programs.filter(|source| compare::compile(source).is_ok()) {
        let written = compare::otherwise(&source);
        changed += usize::from(written != source);
        let refused = compare::compile(&written).err().map(|errors| errors.to_string());
        assert!(refused.is_none(), "{}\n{written}", refused.unwrap_or_default());
    }
    assert!(changed > 40, "{changed}");
}
