//! The example files compile, and say what they are meant to.

use std::fs;
use std::path::{Path, PathBuf};

use towpath_lang::{Loader, Overrides, SourceText, compile};

/// Files beside the one that names them.
struct Folder(PathBuf);

impl Loader for Folder {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        let text = fs::read_to_string(self.0.join(path)).map_err(|e| e.to_string())?;
        Ok(SourceText { name: path.to_owned(), text })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

#[test]
fn every_example_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    let files = Folder(folder.clone());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "adn") {
            let text = fs::read_to_string(&path).unwrap();
            let compiled = compile(&path.to_string_lossy(), &text, &files, &Overrides::default());
            let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
            assert!(!compiled.program.routes.is_empty());
            count += 1;
        }
    }
    assert!(count >= 4);
}

/// Blocks of `elements/LANGUAGE.md`: those marked `adn` compile, those marked `adn error` fail as their first line says.
#[test]
fn the_language_description_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../LANGUAGE.md");
    let text = fs::read_to_string(path).unwrap();
    let protos = Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos"));
    let (mut right, mut wrong) = (0, 0);
    for block in text.split("```adn").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let (mark, source) = block.split_once('\n').unwrap();
        let mut source = source.to_owned();
        if !source.contains("->") {
            source.push_str("service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: Null\n");
        }
        let compiled = compile("LANGUAGE.md", &source, &protos, &Overrides::default());
        if mark.trim() == "error" {
            let expected = source.lines().next().unwrap().trim_start_matches("// ").to_owned();
            let errors = compiled.map(|_| source.clone()).unwrap_err().to_string();
            assert!(errors.contains(&expected), "expected: {expected}\n{errors}");
            wrong += 1;
        } else {
            compiled.unwrap_or_else(|e| panic!("{e}\n{source}"));
            right += 1;
        }
    }
    assert!(right >= 3 && wrong >= 3, "{right} {wrong}");
}

/// The table of functions: each is there, and its example is an expression.
#[test]
fn every_example_of_a_function_compiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../LANGUAGE.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("| function | gives | example |\n").unwrap();
    let mut count = 0;
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let row = row.replace("\\|", "\u{1}");
        let example = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        let Some(example) = example.strip_prefix('`').and_then(|e| e.strip_suffix('`')) else { continue };
        let source = format!(
            "service a\nservice catalog {{ endpoints: [\"127.0.0.1:1\"] }}\na -> catalog: E\n\
             element E {{ request {{ let x = {} }} }}\n",
            example.replace('\u{1}', "|")
        );
        let files = Folder(PathBuf::new());
        compile("row", &source, &files, &Overrides::default()).unwrap_or_else(|e| panic!("{e}\n{source}"));
        count += 1;
    }
    assert!(count > 25, "{count}");
}
