//! Interpreter and machine code agree on every program there is.

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
        for args in ["", "(0.5)", "(50%, delay: 1ms)", "(by: call.metadata[\"x-user\"])", "(100/s)", "(5ms)"]
        {
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
    for file in ["elements.rs", "language.rs", "folding.rs", "allocations.rs"] {
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
