//! The example files compile, and say what they are meant to.

use std::fs;
use std::path::Path;

use towpath_lang::{NoFiles, Overrides, compile};

#[test]
fn every_example_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "adn") {
            let text = fs::read_to_string(&path).unwrap();
            let compiled = compile(&path.to_string_lossy(), &text, &NoFiles, &Overrides::default());
            let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
            assert!(!compiled.program.routes.is_empty());
            count += 1;
        }
    }
    assert!(count >= 3);
}

/// The elements of `elements/LANGUAGE.md`, and its first lines.
#[test]
fn the_language_description_compiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../LANGUAGE.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<String> = text
        .split("\n\n")
        .filter(|b| b.starts_with("    service ") || b.contains("    element "))
        .map(|b| b.lines().filter(|l| l.starts_with("    ")).collect::<Vec<_>>().join("\n"))
        .collect();
    assert_eq!(blocks.len(), 3);
    let source = blocks.join("\n");
    compile("LANGUAGE.md", &source, &NoFiles, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
}
