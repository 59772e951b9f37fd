//! What the compiler has to say: errors, warnings and notes with their places.
//!
//! One list for all files of a compilation, in the order of the text. [`Diagnostics::render`] draws them
//! with source excerpts; `Display` gives one line each for logs.

use std::fmt;

use miette::{
    Diagnostic as _, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource,
};

use crate::source::{Place, Sources, Span};

/// At most this many are kept; the rest are counted.
const DIAGNOSTICS_MAX: usize = 100;

/// How grave it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// It does not compile.
    Error,
    /// It compiles, and probably does not do what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// What is the matter, one line.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What stands under the place: what was expected, or what it is.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// An error.
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message.into())
    }

    /// A note.
    pub(crate) fn note(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, span, message.into())
    }

    /// The error of what the grammar knows and the compiler does not do yet.
    pub(crate) fn unsupported(span: Span, what: &str) -> Self {
        Self::error(span, format!("{what}: not supported yet"))
    }

    fn new(severity: Severity, span: Span, message: String) -> Self {
        Self { severity, message, span, label: None, help: None, related: Vec::new() }
    }

    /// With the text that stands under the place.
    #[must_use]
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        self.label = Some(text.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// With the name nearest to what was written, if one is near.
    #[must_use]
    pub(crate) fn nearest<'a>(self, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        match crate::suggest::nearest(name, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// With another place.
    #[must_use]
    pub(crate) fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }
}

/// Everything the compiler has to say about one application.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    left_out: usize,
    sources: Sources,
}

impl Diagnostics {
    pub(crate) fn new(mut list: Vec<Diagnostic>, sources: Sources) -> Self {
        list.sort_by_key(|d| (d.span.file, d.span.start, d.severity));
        list.dedup();
        let left_out = list.len().saturating_sub(DIAGNOSTICS_MAX);
        list.truncate(DIAGNOSTICS_MAX);
        Self { list, left_out, sources }
    }

    /// In the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The texts the places are in.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Draws each with its file, line and source excerpt. `colour` uses ANSI colours and unicode lines;
    /// without it the drawing is plain ASCII.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110);
        let mut out = String::new();
        for item in &self.list {
            if !out.is_empty() {
                out.push('\n');
            }
            // Rendering into a String fails only if the label lies outside the text; then one line must do.
            if handler.render_report(&mut out, self.report(item).as_ref()).is_err() {
                out.push_str(&self.line(item));
            }
        }
        if self.left_out > 0 {
            out.push_str(&format!("… and {} more\n", self.left_out));
        }
        out
    }

    fn report(&self, item: &Diagnostic) -> miette::Report {
        let severity = match item.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        };
        let label = |span: Span, text: Option<String>| {
            LabeledSpan::new(text, span.start as usize, (span.end.max(span.start) - span.start) as usize)
        };
        let mut labels = vec![label(item.span, item.label.clone())];
        for (span, text) in &item.related {
            // One report shows one file; a place in another file is told in words.
            let text = if span.file == item.span.file {
                text.clone()
            } else {
                continue;
            };
            labels.push(label(*span, Some(text)));
        }
        let mut report =
            MietteDiagnostic::new(item.message.clone()).with_severity(severity).with_labels(labels);
        let elsewhere = item.related.iter().filter(|(span, _)| span.file != item.span.file);
        let help: Vec<String> = item
            .help
            .iter()
            .cloned()
            .chain(elsewhere.map(|(span, text)| format!("{text}: {}", Place(&self.sources, *span))))
            .collect();
        if !help.is_empty() {
            report = report.with_help(help.join("\n"));
        }
        debug_assert!(report.labels().is_some());
        let (name, text) = self
            .sources
            .file(item.span.file)
            .map_or((String::new(), String::new()), |f| (f.name.clone(), f.text.to_string()));
        miette::Report::new(report).with_source_code(NamedSource::new(name, text))
    }

    fn line(&self, item: &Diagnostic) -> String {
        let mut line =
            format!("{}: {}: {}", Place(&self.sources, item.span), item.severity.name(), item.message);
        // A label often repeats what the message says, for the drawing's sake.
        let label = item.label.iter().filter(|l| !item.message.contains(l.as_str()));
        for text in label.chain(&item.help) {
            line.push_str("; ");
            line.push_str(text);
        }
        for (span, text) in &item.related {
            line.push_str(&format!("; {text} ({})", Place(&self.sources, *span)));
        }
        line.push('\n');
        line
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.list {
            f.write_str(&self.line(item))?;
        }
        if self.left_out > 0 {
            writeln!(f, "… and {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
