//! What a formatted text is made of, and the printer that decides where its lines end.
//!
//! A group is printed on one line if that fits, else every line of it is broken; a group with a comment or a
//! break of the author's own is always broken. Comments behind a token wait for the end of the line.

use std::fmt::Write;

/// Columns a line may have.
const COLUMNS: usize = 110;
/// Columns of one level.
const INDENT: usize = 4;

/// A piece of text that may be broken over lines.
#[derive(Clone, Debug)]
pub(super) enum Doc {
    Text(String),
    Seq(Vec<Doc>),
    /// This text, or a new line where the group is broken.
    Line(&'static str),
    /// A new line; breaks the groups around it.
    Hard,
    /// An empty line before what follows, unless a bracket has just been opened.
    Blank,
    /// A comment on a line of its own.
    Own(String),
    /// A comment behind what stands on the line.
    Behind(String),
    Indent(Box<Doc>),
    Group(Box<Doc>, bool),
    /// Only where the group is on one line.
    IfFlat(&'static str),
    /// Only where the group is broken.
    IfBroken(String),
}

impl Doc {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn group(docs: Vec<Self>) -> Self {
        let doc = Self::Seq(docs);
        let is_broken = doc.breaks(true);
        Self::Group(Box::new(doc), is_broken)
    }

    pub(super) fn indent(docs: Vec<Self>) -> Self {
        Self::Indent(Box::new(Self::Seq(docs)))
    }

    /// Has something in it that needs a line of its own. A comment behind the very end needs none.
    fn breaks(&self, at_end: bool) -> bool {
        match self {
            Self::Hard | Self::Own(_) => true,
            Self::Behind(_) => !at_end,
            Self::Seq(docs) => {
                let last = docs.len().saturating_sub(1);
                docs.iter().enumerate().any(|(at, doc)| doc.breaks(at_end && at == last))
            }
            Self::Indent(doc) => doc.breaks(at_end),
            Self::Group(doc, is_broken) => *is_broken || doc.breaks(at_end),
            _ => false,
        }
    }

    /// Columns on one line; `None` if it cannot stand on one.
    pub(super) fn width(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::Line(flat) | Self::IfFlat(flat) => Some(flat.len()),
            Self::Seq(docs) => docs.iter().map(Self::width).sum(),
            Self::Indent(doc) | Self::Group(doc, false) => doc.width(),
            // A comment may stand beyond the last column.
            Self::Blank | Self::IfBroken(_) | Self::Behind(_) => Some(0),
            Self::Hard | Self::Own(_) | Self::Group(_, true) => None,
        }
    }
}

/// Lays a document out.
pub(super) fn print(doc: &Doc) -> String {
    let mut printer = Printer::default();
    let mut todo = vec![(0, true, doc)];
    while let Some((indent, is_broken, doc)) = todo.pop() {
        match doc {
            Doc::Text(text) => printer.text(text, indent),
            Doc::Seq(docs) => todo.extend(docs.iter().rev().map(|d| (indent, is_broken, d))),
            Doc::Line(_) | Doc::Hard if is_broken => printer.new_line(),
            Doc::Line(flat) | Doc::IfFlat(flat) if !is_broken => printer.text(flat, indent),
            Doc::IfBroken(text) if is_broken => printer.text(text, indent),
            Doc::Blank => printer.wants_blank = true,
            Doc::Own(text) => {
                printer.new_line();
                printer.text(text, indent);
                printer.is_opened = false;
                printer.new_line();
            }
            Doc::Behind(text) => printer.behind(text),
            Doc::Indent(inner) => todo.push((indent + INDENT, is_broken, inner)),
            Doc::Group(inner, must_break) => {
                let room = COLUMNS.saturating_sub(printer.column(indent));
                let breaks = *must_break || !fits(room, inner, &todo);
                todo.push((indent, breaks, inner));
            }
            Doc::Line(_) | Doc::Hard | Doc::IfFlat(_) | Doc::IfBroken(_) => {}
        }
    }
    printer.new_line();
    printer.out
}

/// The document on one line, and what follows it up to the next place where a line may end.
fn fits(room: usize, doc: &Doc, after: &[(usize, bool, &Doc)]) -> bool {
    let Some(width) = doc.width() else { return false };
    let Some(mut room) = room.checked_sub(width) else { return false };
    let mut rest: Vec<(bool, &Doc)> = after.iter().map(|(_, b, d)| (*b, *d)).collect();
    while let Some((is_broken, doc)) = rest.pop() {
        let width = match doc {
            Doc::Line(_) | Doc::Hard if is_broken => return true,
            Doc::Own(_) => return true,
            Doc::Text(text) => text.chars().count(),
            Doc::Line(flat) | Doc::IfFlat(flat) if !is_broken => flat.len(),
            Doc::Seq(docs) => {
                rest.extend(docs.iter().rev().map(|d| (is_broken, d)));
                0
            }
            Doc::Indent(inner) => {
                rest.push((is_broken, inner));
                0
            }
            // What follows breaks where it may.
            Doc::Group(inner, _) => {
                rest.push((true, inner));
                0
            }
            _ => 0,
        };
        match room.checked_sub(width) {
            Some(left) => room = left,
            None => return false,
        }
    }
    true
}

#[derive(Default)]
struct Printer {
    out: String,
    /// Columns of the line at hand; 0 at its beginning.
    column: usize,
    /// What stands behind the line at hand.
    behind: Option<String>,
    wants_blank: bool,
    /// The latest text opened a bracket.
    is_opened: bool,
}

impl Printer {
    fn column(&self, indent: usize) -> usize {
        if self.column == 0 { indent } else { self.column }
    }

    fn text(&mut self, text: &str, indent: usize) {
        if self.column == 0 {
            let text = text.trim_start();
            if text.is_empty() {
                return;
            }
            if std::mem::take(&mut self.wants_blank) && !self.is_opened && !self.out.is_empty() {
                self.out.push('\n');
            }
            self.out.extend(std::iter::repeat_n(' ', indent));
            self.column = indent;
            self.push(text);
        } else {
            self.wants_blank = false;
            self.push(text);
        }
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
        if !text.trim().is_empty() {
            self.is_opened = text.ends_with(['{', '[', '(']);
        }
    }

    /// Ends the line, if anything is on it.
    fn new_line(&mut self) {
        if self.column == 0 {
            return;
        }
        self.out.truncate(self.out.trim_end().len());
        if let Some(comment) = self.behind.take() {
            // Writing to a String does not fail.
            let _ = write!(self.out, "  {comment}");
        }
        self.out.push('\n');
        self.column = 0;
    }

    /// A line has room for one comment.
    fn behind(&mut self, comment: &str) {
        if self.behind.is_some() {
            self.new_line();
        }
        if self.column == 0 {
            self.out.push_str(comment);
            self.out.push('\n');
        } else {
            self.behind = Some(comment.to_owned());
        }
    }
}
