//! What the compiler says of what is wrong: tables of sources and diagnostics. `TOWPATH_BLESS=1` writes them anew.
//!
//! A table is a text file of cases: a line `=== what it is about`, the source, a line `---`, and what is said. A
//! source without a rule stands in an application whose rule is `frontend -> catalog: E`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use std::fs;
use std::path::Path;

use crate::shop::Protos;
use towpath_lang::{Overrides, compile};

const APP: &str = "service frontend
service catalog { endpoints: [\"127.0.0.1:1\"] }
frontend -> catalog: E
";

fn said(source: &str) -> String {
    let whole = source.contains("->").then(|| source.to_owned());
    let source = whole.unwrap_or_else(|| format!("{source}{APP}"));
    let drawn = match compile("app.adn", &source, &Protos, &Overrides::default()) {
        Ok(compiled) => format!("compiles\n{}", compiled.notes),
        Err(errors) => errors.render(false),
    };
    drawn.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn every_mistake_is_told_once_with_its_place_and_a_way_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let bless = std::env::var_os("TOWPATH_BLESS").is_some();
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let table = fs::read_to_string(&path).unwrap();
        let mut made = String::new();
        for case in table.split("=== ").skip(1) {
            let (title, rest) = case.split_once('\n').unwrap();
            let (source, _) = rest.split_once("---\n").unwrap_or((rest, ""));
            let source = format!("{}\n", source.trim_end());
            let said = said(&source);
            assert!(!said.starts_with("compiles"), "{}: {title} compiles:\n{source}{said}", path.display());
            made.push_str(&format!("=== {title}\n{source}---\n{}\n\n", said.trim_end()));
            cases += 1;
        }
        let made = format!("{}\n", made.trim_end());
        if bless {
            fs::write(&path, made).unwrap();
        } else if made != table {
            wrong.push(format!("--- {}\n{made}", path.display()));
        }
    }
    assert!(cases > 80, "{cases}");
    assert!(wrong.is_empty(), "TOWPATH_BLESS=1 accepts these:\n{}", wrong.join("\n"));
}
