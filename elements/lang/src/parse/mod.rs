//! Tokens to the tree of `ast`, by recursive descent.
//!
//! After an error the parser goes on at the next statement or item, so that one run tells all errors of a
//! file. Depth is bounded by [`DEPTH_MAX`]: no text overflows the stack here or in any later pass.

mod expr;
mod item;
mod stmt;
#[cfg(test)]
mod tests;

use crate::ast::{Ident, Item};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::lex::{Lexed, Piece, Tok, Token, lex};
use crate::source::Span;

/// How deep expressions and blocks may nest.
pub(crate) const DEPTH_MAX: u16 = 64;
/// After this many errors a file is left.
const ERRORS_MAX: usize = 200;

/// What was wrong has been said; the caller finds the next place to go on.
#[derive(Debug)]
pub(crate) struct Told;

type Parsed<T> = Result<T, Told>;

/// A parsed file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) items: Vec<Item>,
    /// Names of items that could not be read: they are not unknown.
    pub(crate) failed: Vec<String>,
    pub(crate) errors: Vec<Diagnostic>,
}

/// Parses a whole text.
pub(crate) fn parse(text: &str, file: u16) -> File {
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut parser = Parser::new(text, lex(text, Span { file, start: 0, end }), 0);
    let items = parser.file();
    File { items, failed: parser.failed, errors: parser.errors }
}

struct Parser<'a> {
    text: &'a str,
    lexed: Lexed,
    at: usize,
    depth: u16,
    /// `{` does not begin a message here: it is the block of an `if`, `match` or `for`.
    no_message: bool,
    errors: Vec<Diagnostic>,
    /// What comes after the last token.
    end: &'static str,
    /// The item at hand, once its name is read.
    name: Option<String>,
    failed: Vec<String>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, mut lexed: Lexed, depth: u16) -> Self {
        let errors = std::mem::take(&mut lexed.errors);
        Self {
            text,
            lexed,
            at: 0,
            depth,
            no_message: false,
            errors,
            end: "the end of the file",
            name: None,
            failed: Vec::new(),
        }
    }

    fn token(&self) -> Token {
        self.nth(0)
    }

    fn nth(&self, ahead: usize) -> Token {
        let end = Token { tok: Tok::Eof, span: Span::default(), starts_line: true };
        self.lexed.tokens.get(self.at + ahead).or(self.lexed.tokens.last()).copied().unwrap_or(end)
    }

    fn last_span(&self) -> Span {
        let last = self.at.checked_sub(1).and_then(|at| self.lexed.tokens.get(at));
        last.map_or_else(|| self.token().span, |t| t.span)
    }

    fn bump(&mut self) -> Token {
        let token = self.token();
        if token.tok != Tok::Eof {
            self.at += 1;
        }
        token
    }

    fn text_of(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }

    fn is(&self, punct: &str) -> bool {
        self.nth_is(0, punct)
    }

    fn nth_is(&self, ahead: usize, punct: &str) -> bool {
        matches!(self.nth(ahead).tok, Tok::Punct(p) if p == punct)
    }

    fn is_word(&self, word: &str) -> bool {
        self.nth_is_word(0, word)
    }

    fn nth_is_word(&self, ahead: usize, word: &str) -> bool {
        let token = self.nth(ahead);
        token.tok == Tok::Ident && self.text_of(token.span) == word
    }

    fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.at += 1;
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.at += 1;
        }
        found
    }

    fn error(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    /// What stands here, in words.
    fn found(&self) -> String {
        let token = self.token();
        match token.tok {
            Tok::Eof => self.end.to_owned(),
            _ => {
                let text = self.text_of(token.span);
                let cut: String = text.chars().take(24).collect();
                if cut.len() < text.len() { format!("`{cut}…`") } else { format!("`{cut}`") }
            }
        }
    }

    fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        let error = Diagnostic::error(self.token().span, format!("expected {what}, found {}", self.found()))
            .label(format!("expected {what}"));
        let help = match self.nth(0).tok {
            Tok::Punct("+" | "-") if self.at > 0 && self.previous_is_same() => Some("write `x += 1`"),
            Tok::Ident if self.follows_number() => Some("a unit follows its number directly, as in `5ms`"),
            _ => elsewhere::found(self.text_of(self.token().span), what),
        };
        self.error(match help {
            Some(help) => error.help(help),
            None => error,
        });
        Err(Told)
    }

    fn follows_number(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.lexed.tokens.get(at));
        let is_unit = matches!(
            self.text_of(self.token().span),
            "ns" | "us" | "ms" | "s" | "m" | "h" | "d" | "B" | "KiB" | "MiB"
        );
        is_unit && before.is_some_and(|t| matches!(t.tok, Tok::Int(_) | Tok::Float(_)))
    }

    /// `++`, `--`.
    fn previous_is_same(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.lexed.tokens.get(at));
        before.is_some_and(|t| t.tok == self.token().tok)
    }

    fn expect(&mut self, punct: &str, after: &str) -> Parsed<Span> {
        if self.is(punct) {
            return Ok(self.bump().span);
        }
        let what = if after.is_empty() { format!("`{punct}`") } else { format!("`{punct}` {after}") };
        self.expected(&what)
    }

    fn ident(&mut self, what: &str) -> Parsed<Ident> {
        if self.token().tok != Tok::Ident {
            return self.expected(what);
        }
        let span = self.bump().span;
        Ok(Ident { text: self.text_of(span).to_owned(), span })
    }

    /// A string literal without interpolation.
    fn string(&mut self, what: &str) -> Parsed<Ident> {
        let token = self.token();
        let Tok::Str(at) = token.tok else { return self.expected(what) };
        self.bump();
        match self.lexed.strings.get(at as usize).map(Vec::as_slice) {
            Some([Piece::Text(text)]) => Ok(Ident { text: text.clone(), span: token.span }),
            _ => {
                self.error(
                    Diagnostic::error(token.span, "this string must be constant")
                        .help("write `\\{` for the character itself"),
                );
                Err(Told)
            }
        }
    }

    /// `name = ID | STR`.
    fn name(&mut self, what: &str) -> Parsed<Ident> {
        if matches!(self.token().tok, Tok::Str(_)) { self.string(what) } else { self.ident(what) }
    }

    /// Runs `inner` one level deeper, or says that it is too deep.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return self.too_deep();
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn too_deep<T>(&mut self) -> Parsed<T> {
        let span = self.token().span;
        self.error(
            Diagnostic::error(span, "nested too deeply")
                .label(format!("at most {DEPTH_MAX} levels"))
                .help("name a part with `let`"),
        );
        Err(Told)
    }
}
