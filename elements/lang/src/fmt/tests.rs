//! Formatting changes nothing but the layout, and a second time nothing at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::{format, words};
use crate::lex::lex;
use crate::parse::parse;
use crate::source::Span;

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "adn") {
            out.push(path);
        }
    }
}

/// Every application and element of the repository.
fn repository() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    files(&root, &mut found);
    assert!(found.len() > 10);
    found.into_iter().map(|p| (p.clone(), fs::read_to_string(p).unwrap())).collect()
}

/// Formats; checks that it is a fixed point and that no token or comment is lost.
fn checked(name: &str, text: &str) -> String {
    let made = format(name, text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(words(text), words(&made), "{name}");
    let again = format(name, &made).unwrap_or_else(|e| panic!("{e}\n{made}"));
    assert!(made == again, "not a fixed point: {name}\n{text}\n----\n{made}\n----\n{again}");
    made
}

#[test]
fn files_of_the_repository_keep_their_meaning() {
    for (path, text) in repository() {
        let name = path.display().to_string();
        if parse(&text, 0).errors.is_empty() {
            let made = checked(&name, &text);
            assert!(made.lines().all(|l| l.trim_end() == l), "{name}");
        } else {
            let errors = format(&name, &text).unwrap_err();
            assert_eq!(errors.iter().count(), parse(&text, 0).errors.len().min(100));
        }
    }
}

#[test]
fn the_repository_is_formatted() {
    for (path, text) in repository() {
        let is_ours = ["examples", "std"].iter().any(|f| path.parent().is_some_and(|p| p.ends_with(f)));
        if is_ours {
            assert_eq!(format("x", &text).unwrap(), text, "`towpath fmt {}`", path.display());
        }
    }
}

/// Whatever stands between tokens, the text is laid out the same way twice and keeps what it says.
#[test]
fn any_layout_keeps_its_meaning() {
    const GAPS: [&str; 9] =
        [" ", " ", " ", "\n", "\n\n\n", " // behind\n", "\n// own\n", "\n\n// own\n\n", "  // a\n  // b\n"];
    let mut seed = 7_u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let mut runs = 0;
    for (path, text) in repository() {
        if !parse(&text, 0).errors.is_empty() {
            continue;
        }
        let end = u32::try_from(text.len()).unwrap();
        let tokens = lex(&text, Span { file: 0, start: 0, end }).tokens;
        for rarity in [1, 3, 12, 60] {
            for _ in 0..6 {
                let mut mutant = String::new();
                let mut at = 0;
                for token in &tokens {
                    let (start, end) = (token.span.start as usize, token.span.end as usize);
                    mutant.push_str(if random(rarity) == 0 { GAPS[random(9)] } else { &text[at..start] });
                    mutant.push_str(&text[start..end]);
                    at = end;
                }
                if parse(&mutant, 0).errors.is_empty() {
                    checked(&path.display().to_string(), &mutant);
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 100, "{runs}");
}

#[test]
fn style() {
    let text = "\
service   a
service  b   {endpoints:[\"127.0.0.1:1\",{address:\"127.0.0.1:2\",weight:2}]   hosts: [\"b.internal\"]}


a→b:X( 10% ,d:5ms)-Y when(call.method==\"M\")dry  // why
every a->*:X(1%) - Y - X(2%, d: 10ms) - X(3%, d: 100ms) - X(4%, d: 1000ms) - X(5%, d: 10s) - X(6%, d: 12m) - Y
element Y{request{}}
/// Documented.
element X(p:float,d:duration=0s,by:call=>string?=None,l:list<string>=[]){
  state call n:map<string,uint>[max 10,evict]
  // About the handler.
  request{
    if random()<p{
      reject(UNAVAILABLE,\"no {p}\")
    }

    let x=by else{return}
    // Last.
  }
  response { let a = -1 - -2  match by { Some(k) => return, None => { count(\"x\") } } }
}
";
    assert_eq!(
        checked("style", text),
        "\
service a
service b { endpoints: [\"127.0.0.1:1\", { address: \"127.0.0.1:2\", weight: 2 }]  hosts: [\"b.internal\"] }

a -> b: X(10%, d: 5ms) - Y when (call.method == \"M\") dry  // why
every a -> *:
    X(1%)
    - Y
    - X(2%, d: 10ms)
    - X(3%, d: 100ms)
    - X(4%, d: 1000ms)
    - X(5%, d: 10s)
    - X(6%, d: 12m)
    - Y
element Y { request {} }
/// Documented.
element X(p: float, d: duration = 0s, by: call => string? = None, l: list<string> = []) {
    state call n: map<string, uint>[max 10, evict]
    // About the handler.
    request {
        if random() < p { reject(UNAVAILABLE, \"no {p}\") }

        let x = by else { return }
        // Last.
    }
    response { let a = -1 - -2  match by { Some(k) => return, None => { count(\"x\") } } }
}
"
    );
}

#[test]
fn what_does_not_parse_is_refused_with_its_errors() {
    let errors = format("x.adn", "service a\na -> : X\n").unwrap_err();
    assert!(errors.to_string().starts_with("x.adn:2:6: error: expected the called service"), "{errors}");
}
