//! `towpath fmt`: applications in the language's own style.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::app::read;
use crate::cli::Fmt;
use crate::failure::{Failure, Outcome, is_coloured, print};

/// Formats each file in its place; `-` is standard input to standard output. A file with errors is left as it
/// is, the others go on.
///
/// # Errors
/// What is wrong with files that cannot be read or parsed; with `--check`, which are not formatted.
pub(crate) fn fmt(args: &Fmt) -> Outcome<()> {
    let mut refused = String::new();
    let mut others = 0;
    for path in &args.files {
        match one(path, args.check) {
            Ok(true) => {}
            Ok(false) => others += 1,
            Err(failure) => refused.push_str(&failure.to_string()),
        }
    }
    if others > 0 {
        let what = if others == 1 { "1 file is".to_owned() } else { format!("{others} files are") };
        refused.push_str(&format!("towpath: {what} not formatted; `towpath fmt` mends that\n"));
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::drawn(refused)) }
}

/// False if `check` found it not formatted.
fn one(path: &Path, check: bool) -> Outcome<bool> {
    let is_input = path == Path::new("-");
    let name = if is_input { "<stdin>".to_owned() } else { path.display().to_string() };
    let text = if is_input { read_input()? } else { read(path).map_err(Failure::line)? };
    let made = lang::fmt::format(&name, &text).map_err(|e| Failure::drawn(e.render(is_coloured())))?;
    if check {
        if made != text {
            print(&format!("{name}\n"));
        }
        return Ok(made == text);
    }
    if is_input {
        print(&made);
    } else if made != text {
        fs::write(path, made).map_err(|e| Failure::line(format!("{name}: {e}")))?;
    }
    Ok(true)
}

fn read_input() -> Outcome<String> {
    let mut bytes = Vec::new();
    let most = lang::SOURCE_BYTES_MAX as u64 + 1;
    let read = std::io::stdin().take(most).read_to_end(&mut bytes);
    read.map_err(|e| Failure::line(format!("standard input: {e}")))?;
    String::from_utf8(bytes).map_err(|_| Failure::line("standard input is not UTF-8 text"))
}
