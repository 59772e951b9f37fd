//! What a command says: data on standard output, and why it did not succeed on standard error.

use std::fmt;
use std::io::{IsTerminal, Write};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};

/// Why a command was refused; the process exits with 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    text: String,
}

/// Shorthand.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// One line that says what is the matter and what to do.
    pub(crate) fn line(text: impl Into<String>) -> Self {
        Self { text: format!("towpath: {}\n", text.into()) }
    }

    /// Diagnostics drawn already.
    pub(crate) fn drawn(text: String) -> Self {
        Self { text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Something wrong with a place in a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// What is the matter.
    pub(crate) message: String,
    /// Where, byte offsets.
    pub(crate) span: std::ops::Range<usize>,
    /// What was expected there.
    pub(crate) label: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

/// Draws problems with their source excerpts, as the compiler draws its own.
pub(crate) fn draw(name: &str, text: &str, problems: &[Problem]) -> String {
    let theme = if is_coloured() { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110);
    let mut out = String::new();
    for problem in problems {
        let len = problem.span.end.saturating_sub(problem.span.start);
        let label = Some(problem.label.clone()).filter(|l| !l.is_empty());
        let mut report = MietteDiagnostic::new(problem.message.clone()).with_label(LabeledSpan::new(
            label,
            problem.span.start,
            len,
        ));
        if let Some(help) = &problem.help {
            report = report.with_help(help.clone());
        }
        let report = Report::new(report).with_source_code(NamedSource::new(name, text.to_owned()));
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            out.push_str(&format!("{name}: {}\n", problem.message));
        }
    }
    out
}

/// Writes data to standard output. Whoever reads it may stop when it has seen enough (`| head`): then there
/// is nothing left to do.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// True if standard error is a terminal that shows colours.
pub(crate) fn is_coloured() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the convention by which users switch colours off")]
    let is_refused = std::env::var("NO_COLOR").is_ok_and(|v| !v.is_empty());
    !is_refused && std::io::stderr().is_terminal()
}

/// The line of a byte offset, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}
