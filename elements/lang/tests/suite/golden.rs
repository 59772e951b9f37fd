//! Golden files: `.adn` text to byte code, notes or diagnostics. `TOWPATH_BLESS=1` writes them anew.

use std::fs;
use std::path::Path;

use towpath_lang::{self as lang, Loader, NoFiles, Overrides, SourceText};

/// Files of the test's own folder.
struct Folder<'a>(&'a Path);

impl Loader for Folder<'_> {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        let text = fs::read_to_string(self.0.join(path)).map_err(|_| "no such file".to_owned())?;
        Ok(SourceText { name: path.to_owned(), text })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        NoFiles.resolve(host_port)
    }
}

fn outcome(name: &str, source: &str, folder: &Path) -> String {
    match lang::compile(name, source, &Folder(folder), &Overrides::default()) {
        Ok(compiled) => {
            let mut out = String::new();
            for route in &compiled.program.routes {
                let side = |s: Option<abi::ServiceIdx>| {
                    s.map_or("*".to_owned(), |s| compiled.program.services[usize::from(s.0)].name.clone())
                };
                out += &format!(
                    "route {} -> {} {:?} chain {} line {}\n",
                    side(route.source),
                    side(route.destination),
                    route.method,
                    route.chain,
                    route.line
                );
            }
            for image in &compiled.images {
                out += &image.listing();
            }
            if !compiled.notes.is_empty() {
                out += &compiled.notes.to_string();
            }
            out
        }
        Err(errors) => format!("{errors}\n{}", errors.render(false)),
    }
}

#[test]
fn golden_files_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("TOWPATH_BLESS").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "adn"))
        .collect();
    files.sort();
    assert!(files.len() > 5, "golden files are missing");
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = fs::read_to_string(&path).unwrap();
        let made: String =
            outcome(&name, &source, &folder).lines().map(|l| format!("{}\n", l.trim_end())).collect();
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &made).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != made {
            wrong.push(format!("--- {name}\n{made}"));
        }
    }
    assert!(wrong.is_empty(), "TOWPATH_BLESS=1 accepts these:\n{}", wrong.join("\n"));
}
