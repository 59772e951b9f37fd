//! Interpreter and machine code agree on every program there is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

/// By the name that the language's own tests know it by.
extern crate lang as towpath_lang;

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{agree, calls, lang_common};
use lang::{Loader, NoFiles, Overrides, SourceText};
use towpath_jit::Jit;

/// Files beside the file that names them.
struct Beside(PathBuf);

impl Loader for Beside {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        let text = fs::read_to_string(self.0.join(path)).map_err(|e| e.to_string())?;
        Ok(SourceText { name: path.to_owned(), text })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        NoFiles.resolve(host_port)
    }
}

/// Compiles a source and holds every chain of it against the interpreter; false if it is no program.
fn agrees(jit: &mut Jit, name: &str, source: &str, folder: &Path) -> bool {
    let loader = Beside(folder.to_owned());
    let Ok(compiled) = lang::compile(name, source, &loader, &Overrides::default()) else { return false };
    for image in &compiled.images {
        if let Err(difference) = agree(jit, image, &calls(300)) {
            panic!("{name}: {difference}");
        }
    }
    true
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "adn"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_agrees() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut jit = Jit::new();
    let mut agreed = 0;
    for folder in ["../../examples", "../lang/tests/golden"] {
        let folder = root.join(folder);
        for path in files(&folder) {
            let source = fs::read_to_string(&path).unwrap();
            agreed += usize::from(agrees(&mut jit, &path.display().to_string(), &source, &folder));
        }
    }
    assert!(agreed >= 5, "only {agreed} files are programs");
    assert!(jit.figures().compiled > 0);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.lines().any(|line| line.contains(" r-xp 00000000 00:00 0")), "no code in memory of ours");
    assert!(!maps.lines().any(|line| line.contains(" rwx")), "writable and executable at once:\n{maps}");
}

/// Each standard element by itself, with its defaults.
#[test]
fn every_standard_element_agrees() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../std");
    let mut jit = Jit::new();
    let mut agreed = 0;
    for path in files(&root) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for args in [
            "",
            "(0.5)",
            "(50%, delay: 1ms)",
            "(100%, headers: true)",
            "(by: call.metadata[\"x-user\"])",
            "(100/s)",
            "(5ms)",
            "(\"fabric\")",
        ] {
            let source = lang_common::app(&format!("{name}{args}"), "");
            agreed += usize::from(agrees(&mut jit, &name, &source, &root));
        }
    }
    assert!(agreed >= files(&root).len(), "only {agreed} links compile");
}

/// The programs in the tests of the language: whatever stands there between quotes and is one.
#[test]
fn the_programs_of_the_language_tests_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lang/tests");
    let mut jit = Jit::new();
    let mut agreed = 0;
    for file in ["suite/elements.rs", "suite/language.rs", "suite/folding.rs", "allocations.rs"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for (rule, rest) in quoted_programs(&text) {
            agreed += usize::from(agrees(&mut jit, file, &lang_common::app(&rule, &rest), &root));
        }
    }
    assert!(agreed >= 20, "only {agreed} programs found");
}

/// String literals that hold an element, each with a rule that links its elements without arguments, and
/// literals that are rules.
fn quoted_programs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let raw = text.split("r#\"").skip(1).filter_map(|t| t.split_once("\"#")).map(|(t, _)| t.to_owned());
    let plain =
        text.split('"').skip(1).step_by(2).map(|t| t.replace("{{", "{").replace("}}", "}").replace("\\", ""));
    for literal in raw.chain(plain) {
        let names: Vec<&str> = literal
            .split("element ")
            .skip(1)
            .filter_map(|t| t.split(|c: char| !c.is_alphanumeric()).next())
            .filter(|name| name.starts_with(char::is_uppercase))
            .collect();
        if names.is_empty() {
            found.push((literal, String::new()));
            continue;
        }
        for args in ["", "(call.metadata[\"x-tenant\"])", "(by: call.metadata[\"x-user\"])", "(0.5)", "(3)"] {
            let rule: Vec<String> = names.iter().map(|n| format!("{n}{args}")).collect();
            found.push((rule.join(" - "), literal.clone()));
        }
    }
    found
}

/// A header held against texts where it is, and a copy of it: the same, whatever the header's bytes.
#[test]
fn comparing_in_place_is_comparing_a_copy() {
    let in_place = r#"element E(list: list<string>) { request {
        count("is", if call.metadata["x-tenant"] == "acme" { 1 } else { 0 })
        count("joined", if call.metadata["x-user"] == "a,b" { 1 } else { 0 })
        count("not", if call.metadata["x-env"] != "" { 1 } else { 0 })
        count("in", if call.metadata["x-debug"] in list { 1 } else { 0 })
        count("bad", if call.metadata["X-Session"] == "�� bad" { 1 } else { 0 })
        count("method", match call.method { "List" => 1  "Get" => 2  _ => 3 })
        count("methods", if call.method in ["Get", "Export"] { 1 } else { 0 }) } }"#;
    let copied = r#"element E(list: list<string>) { request {
        let a = call.metadata["x-tenant"]  count("is", if a == "acme" { 1 } else { 0 })
        let b = call.metadata["x-user"]    count("joined", if b == "a,b" { 1 } else { 0 })
        let c = call.metadata["x-env"]     count("not", if c != "" { 1 } else { 0 })
        let d = call.metadata["x-debug"]   count("in", if d in list { 1 } else { 0 })
        let e = call.metadata["X-Session"] count("bad", if e == "�� bad" { 1 } else { 0 })
        let m = call.method                count("method", match m { "List" => 1  "Get" => 2  _ => 3 })
                                           count("methods", if m in ["Get", "Export"] { 1 } else { 0 }) } }"#;
    let rule = "E([\"evil\", \"a,b\", \"é\", \"42,acme\", \"worse,a,b\"])";
    let chains: Vec<_> =
        [in_place, copied].map(|text| lang_common::compiled(&lang_common::app(rule, text))).into();
    let mut seen = std::collections::BTreeSet::new();
    let mut joined = common::Mock::new(1).header("x-user", "a").header("x-user", "b");
    joined.request.push(("x-session".into(), b"\xff\xfe bad".to_vec()));
    for call in calls(1000).into_iter().chain([joined]) {
        let counts: Vec<_> = chains
            .iter()
            .map(|compiled| {
                let mut call = call.clone();
                compiled.program.chains[0].run(abi::Entry::Request, 0, &mut call);
                call.counts
            })
            .collect();
        assert_eq!(counts[0], counts[1], "{:?}", call.request);
        seen.extend(counts[0].iter().copied());
    }
    // Every answer there is was given.
    assert_eq!(seen.len(), 6 * 2 + 3, "{seen:?}");
}
