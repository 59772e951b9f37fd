//! The editors' grammar knows every word the compiler knows: read both, compare.

use std::fs;
use std::path::Path;

use crate::check::{EFFECTS, FUNCS, TYPES};
use crate::ty::ENUMS;

/// Words of the parser, which has no list of them.
const WORDS: [&str; 24] = [
    "use", "as", "proto", "service", "chain", "every", "element", "state", "shard", "node", "request",
    "response", "dry", "when", "let", "else", "if", "match", "for", "in", "return", "true", "false", "None",
];

/// Every alternative of every pattern of the grammar.
fn known(grammar: &str) -> Vec<String> {
    let groups = grammar.split("(?:").skip(1).filter_map(|rest| rest.split(')').next());
    groups.flat_map(|group| group.split('|')).map(str::to_owned).collect()
}

#[test]
fn the_grammar_knows_every_word_of_the_compiler() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../editors/adn.tmLanguage.json");
    let grammar = fs::read_to_string(path).unwrap();
    let known = known(&grammar);
    let enums = ENUMS.iter().map(|e| e.name);
    let statuses = abi::Status::all().map(abi::Status::name);
    let all = WORDS.into_iter().chain(FUNCS).chain(EFFECTS).chain(TYPES).chain(enums).chain(statuses);
    let missing: Vec<&str> = all.filter(|word| !known.iter().any(|k| k == word)).collect();
    assert!(missing.is_empty(), "editors/adn.tmLanguage.json does not know {missing:?}");
}
