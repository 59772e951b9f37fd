//! Source texts and places in them.

use std::fmt;
use std::sync::Arc;

/// Bytes of the largest source file that is read: some 25,000 rules.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;

/// A range of bytes of one source file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Span {
    /// Which file, an index into [`Sources`].
    pub file: u16,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From the beginning of this one to the end of `other`.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The empty place right after this one.
    #[must_use]
    pub fn after(self) -> Self {
        Self { file: self.file, start: self.end, end: self.end }
    }
}

/// One source file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As the user named it; `std/NAME.adn` for standard elements.
    pub name: String,
    /// Its text.
    pub text: Arc<str>,
    /// Where its lines begin.
    lines: Vec<u32>,
}

impl SourceFile {
    /// It is one of the standard elements, not read from anywhere.
    fn is_standard(&self) -> bool {
        self.name.strip_prefix("std/").and_then(|n| n.strip_suffix(".adn")).is_some_and(crate::is_standard)
    }
}

/// Every file of one compilation.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> u16 {
        let breaks = text.bytes().zip(1_u32..).filter(|(b, _)| *b == b'\n').map(|(_, next)| next);
        let lines = std::iter::once(0).chain(breaks).collect();
        self.files.push(SourceFile { name: name.to_owned(), text: Arc::from(text), lines });
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The file a span is in.
    pub fn file(&self, index: u16) -> Option<&SourceFile> {
        self.files.get(usize::from(index))
    }

    /// A hash of the texts, one after the other, but for those of standard elements.
    pub fn digest(&self) -> u64 {
        let own = self.files.iter().filter(|f| !f.is_standard());
        crate::digest(&own.map(|f| &*f.text).collect::<String>())
    }

    /// The text of a span; empty when there is none.
    pub fn text(&self, span: Span) -> &str {
        self.file(span.file).and_then(|f| f.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// Line and column of a span's beginning, both from 1; the column counts characters.
    pub fn place(&self, span: Span) -> (u32, u32) {
        let Some(file) = self.file(span.file) else { return (1, 1) };
        let mut start = (span.start as usize).min(file.text.len());
        while !file.text.is_char_boundary(start) {
            start -= 1;
        }
        let line = file.lines.partition_point(|at| *at as usize <= start);
        let begin = line.checked_sub(1).and_then(|at| file.lines.get(at)).map_or(0, |at| *at as usize);
        let column = file.text.get(begin..start).unwrap_or("").chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}

/// `file:line:column` of a span.
pub(crate) struct Place<'a>(pub(crate) &'a Sources, pub(crate) Span);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.0.place(self.1);
        let name = self.0.file(self.1.file).map_or("", |file| file.name.as_str());
        write!(f, "{name}:{line}:{column}")
    }
}
