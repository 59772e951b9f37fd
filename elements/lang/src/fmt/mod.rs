//! `towpath fmt`: a text in the language's own style, its meaning, comments and groups of lines kept.
//!
//! The text is read token by token along the grammar and laid out anew; comments go with the token they stand
//! before or behind. What comes out is parsed again and must say the same, or nothing is changed.
//!
//! Style: 4 spaces a level, at most 110 columns. A block of one statement stands on one line where it fits; a
//! block of several, a list and a map do if the author had them so. One empty line between groups is kept.

mod doc;
mod expr;
mod item;
mod shape;
#[cfg(test)]
mod tests;

use crate::diag::{Diagnostic, Diagnostics};
use crate::lex::{Tok, lex};
use crate::parse::parse;
use crate::source::{SOURCE_BYTES_MAX, Sources, Span};

/// Layouts after which a text stays as it is; two are many.
const ROUNDS_MAX: usize = 8;

/// Formats a text; `name` is the file's, for messages.
///
/// # Errors
/// The errors of a text that cannot be parsed.
pub fn format(name: &str, text: &str) -> Result<String, Diagnostics> {
    let mut sources = Sources::default();
    let file = sources.add(name, text);
    let parsed = parse(text, file);
    if !parsed.errors.is_empty() {
        return Err(Diagnostics::new(parsed.errors, sources));
    }
    let refuse = |why: &str| {
        let error = Diagnostic::error(Span { file, start: 0, end: 0 }, why);
        Err(Diagnostics::new(vec![error], sources.clone()))
    };
    if text.len() > SOURCE_BYTES_MAX {
        return refuse("this file is too large");
    }
    let made = settle(text);
    let again = parse(&made, file);
    if !again.errors.is_empty()
        || meaning(&parsed.items) != meaning(&again.items)
        || words(text) != words(&made)
    {
        return refuse("this file cannot be formatted without changing it; please report it");
    }
    Ok(made)
}

/// Lays the text out until that changes nothing. A comment in the middle of an expression can move the breaks
/// around it, and they its place, so once is not always enough.
fn settle(text: &str) -> String {
    let mut made = doc::print(&shape::shape(text));
    for _ in 0..ROUNDS_MAX {
        let again = doc::print(&shape::shape(&made));
        if again == made {
            break;
        }
        made = again;
    }
    made
}

/// The tree without its places.
fn meaning(items: &[crate::ast::Item]) -> String {
    let text = format!("{items:?}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("Span {") {
        out.push_str(before);
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out
}

/// Every token and comment. Commas at the end of a list come and go; the tree does not know them either.
fn words(text: &str) -> (Vec<String>, Vec<String>) {
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let tokens = lex(text, Span { file: 0, start: 0, end }).tokens;
    let mut words = Vec::new();
    let mut comments = Vec::new();
    let mut at = 0;
    for token in tokens {
        let gap = text.get(at..token.span.start as usize).unwrap_or("");
        comments.extend(gap.lines().filter_map(|l| l.trim().strip_prefix("//")).map(str::to_owned));
        at = token.span.end as usize;
        match token.tok {
            Tok::Punct(",") => {}
            // A type's end and the sign before its default.
            Tok::Punct(">=") => words.extend([">".to_owned(), "=".to_owned()]),
            Tok::Punct(p) => words.push(p.to_owned()),
            _ => words.push(text.get(token.span.start as usize..at).unwrap_or("").to_owned()),
        }
    }
    (words, comments)
}
