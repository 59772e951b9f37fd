//! What `towpath explain` and the byte code say of the examples and of every standard element, as golden files:
//! source → IR → plan. `TOWPATH_BLESS=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use std::fs;
use std::path::{Path, PathBuf};

use towpath_lang::explain::Report;
use towpath_lang::{Loader, NoFiles, Overrides, SourceText, compile, standard_elements};

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

fn explained(name: &str, source: &str, loader: &dyn Loader, with_code: bool) -> String {
    let compiled = compile(name, source, loader, &Overrides::default())
        .unwrap_or_else(|e| panic!("{name}: {e}\n{source}"));
    let mut out = Report::of(&compiled).text();
    for image in compiled.images.iter().filter(|_| with_code) {
        out.push('\n');
        out.push_str(&image.listing());
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The first rule of an element's documentation, in an application of its own.
fn example(text: &str) -> String {
    let rule = text.lines().filter_map(|line| line.strip_prefix("///     ")).find(|line| line.contains("->"));
    let rule = rule.unwrap_or_else(|| panic!("no example in\n{text}"));
    let proto = if rule.contains("payload") { "proto \"orders.proto\"\n" } else { "" };
    let services = ["catalog", "canary", "carts", "reports", "catalog_eu", "catalog_us", "next"]
        .map(|name| format!("service {name} {{ endpoints: [\"127.0.0.1:{}\"] }}\n", 1000 + name.len()));
    format!("{proto}service frontend\n{}{rule}\n", services.concat())
}

#[test]
fn what_is_explained_stays_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let bless = std::env::var_os("TOWPATH_BLESS").is_some();
    let mut all = Vec::new();
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "adn") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let source = fs::read_to_string(&path).unwrap();
            all.push((name.clone(), explained(&name, &source, &Folder(examples.clone()), false)));
        }
    }
    for element in standard_elements() {
        let source = example(element.text);
        let source =
            if source.contains("payload") { source.replace("payload.user.id", "method") } else { source };
        let source = source.replace("proto \"orders.proto\"\n", "");
        all.push((
            element.name.to_owned(),
            format!("{source}\n{}", explained(element.name, &source, &NoFiles, true)),
        ));
    }
    let mut wrong = Vec::new();
    for (name, made) in &all {
        let path = folder.join(format!("{name}.txt"));
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, made).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != *made {
            wrong.push(format!("--- {name}\n{made}"));
        }
    }
    assert!(all.len() > 24, "{}", all.len());
    assert!(wrong.is_empty(), "TOWPATH_BLESS=1 accepts these:\n{}", wrong.join("\n"));
}
