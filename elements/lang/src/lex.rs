//! Text to tokens.
//!
//! Literals with units become their value here: `5ms`, `64KiB`, `1000/s`, `0.1%`. A string keeps its
//! pieces; the text between braces is lexed again by the parser when it gets there.

use crate::diag::Diagnostic;
use crate::source::Span;
use crate::suggest::nearest;

/// What a token is. Names are read from the text by their span.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Tok {
    Ident,
    Int(u64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Units per second.
    Rate(f64),
    /// An index into [`Lexed::strings`].
    Str(u32),
    Punct(&'static str),
    /// Something that has been complained about.
    Broken,
    Eof,
}

/// A token and its place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) span: Span,
    /// It is the first of its line.
    pub(crate) starts_line: bool,
}

/// A piece of a string literal.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Piece {
    Text(String),
    /// What stands between braces.
    Expr(Span),
}

/// The tokens of a text.
#[derive(Debug, Default)]
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) strings: Vec<Vec<Piece>>,
    pub(crate) errors: Vec<Diagnostic>,
}

const DURATIONS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86400e9),
];

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Longest first, so that the first that matches is the token.
const PUNCTS: [&str; 34] = [
    "->", "→", "=>", "==", "!=", "<=", ">=", "&&", "||", "??", "?.", "+=", "-=", "{", "}", "(", ")", "[",
    "]", ",", ":", ".", "?", "-", "|", "<", ">", "=", "+", "*", "/", "%", "!", ";",
];

/// Lexes the part of `text` that `range` covers.
pub(crate) fn lex(text: &str, range: Span) -> Lexed {
    let end = (range.end as usize).min(text.len());
    let mut lexer = Lexer { text, at: range.start as usize, end, file: range.file, out: Lexed::default() };
    lexer.run();
    lexer.out
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    file: u16,
    out: Lexed,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..self.end).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn span(&self, start: usize) -> Span {
        let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { file: self.file, start: cut(start), end: cut(self.at) }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> usize {
        let n: usize = self.rest().chars().take_while(|c| keep(*c)).map(char::len_utf8).sum();
        self.at += n;
        n
    }

    fn run(&mut self) {
        let mut starts_line = true;
        while let Some(c) = self.peek() {
            let start = self.at;
            if c == '\n' {
                starts_line = true;
                self.at += 1;
                continue;
            }
            if c.is_whitespace() {
                self.at += c.len_utf8();
                continue;
            }
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
                continue;
            }
            let tok = if c.is_ascii_digit() {
                self.number()
            } else if c.is_ascii_alphabetic() || c == '_' {
                self.take_while(is_word);
                Some(Tok::Ident)
            } else if c == '"' {
                self.string()
            } else {
                self.punct(c)
            };
            if let Some(tok) = tok {
                let span = self.span(start);
                self.out.tokens.push(Token { tok, span, starts_line });
                starts_line = false;
            }
        }
        let span = self.span(self.at);
        self.out.tokens.push(Token { tok: Tok::Eof, span, starts_line: true });
    }

    fn punct(&mut self, c: char) -> Option<Tok> {
        let start = self.at;
        if let Some(p) = PUNCTS.iter().find(|p| self.rest().starts_with(**p)) {
            self.at += p.len();
            return Some(Tok::Punct(if *p == "→" { "->" } else { p }));
        }
        self.at += c.len_utf8();
        if c == '\'' {
            return Some(self.single_quoted(start));
        }
        if c == '#' {
            self.take_while(|c| c != '\n');
        }
        let error = Diagnostic::error(self.span(start), format!("`{c}` means nothing here"));
        let error = match c {
            '&' => error.help("did you mean `&&`?"),
            '#' => error.help("a comment begins with `//`"),
            '@' => error.help("an element's documentation stands before it: `/// …`"),
            '“' | '”' => error.help("use the plain quote \""),
            '–' | '—' => error.help("links are joined by the plain minus `-`"),
            _ => error,
        };
        self.out.errors.push(error);
        None
    }

    fn number(&mut self) -> Option<Tok> {
        let start = self.at;
        self.take_while(|c| c.is_ascii_digit() || c == '_');
        let mut is_float = false;
        let mut ahead = self.rest().chars();
        if ahead.next() == Some('.') && ahead.next().is_some_and(|c| c.is_ascii_digit()) {
            is_float = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit() || c == '_');
        }
        let mut ahead = self.rest().chars();
        if matches!(ahead.next(), Some('e' | 'E')) {
            let sign = ahead.next();
            let exponent = match sign {
                Some('+' | '-') => ahead.next().is_some_and(|c| c.is_ascii_digit()),
                Some(c) => c.is_ascii_digit(),
                None => false,
            };
            if exponent {
                is_float = true;
                self.at += 2;
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        let digits: String = self.text[start..self.at].chars().filter(|c| *c != '_').collect();
        let value: f64 = digits.parse().unwrap_or(f64::INFINITY);
        let whole = if is_float { None } else { Some(digits.parse::<u64>()) };
        if let Some(Err(_)) = whole {
            let span = self.span(start);
            self.out.errors.push(
                Diagnostic::error(span, "this number is too large").label(format!("at most {}", u64::MAX)),
            );
            return Some(Tok::Broken);
        }
        if self.peek() == Some('%') {
            self.at += 1;
            return Some(Tok::Float(value / 100.0));
        }
        let unit_at = self.at;
        self.take_while(|c| c.is_alphabetic() || c == '_');
        let unit = &self.text[unit_at..self.at];
        let tok = if unit.is_empty() {
            match whole {
                Some(Ok(n)) => Tok::Int(n),
                _ => Tok::Float(value),
            }
        } else if let Some((_, ns)) = DURATIONS.iter().find(|(u, _)| *u == unit) {
            return Some(Tok::Duration(saturate(value * ns)));
        } else if let Some((_, bytes)) = SIZES.iter().find(|(u, _)| *u == unit) {
            match whole {
                Some(Ok(n)) => Tok::Int(n.saturating_mul(*bytes)),
                _ => Tok::Int(u64::try_from(saturate(value * *bytes as f64)).unwrap_or(0)),
            }
        } else {
            let known = DURATIONS.iter().map(|(u, _)| *u).chain(SIZES.iter().map(|(u, _)| *u));
            let span = Span { start: u32::try_from(unit_at).unwrap_or(u32::MAX), ..self.span(start) };
            let near = nearest(unit, known);
            let error = Diagnostic::error(span, format!("`{unit}` is no unit"))
                .label("expected a time (ns us ms s m h d) or a size (B KiB MiB GiB)");
            self.out.errors.push(match near {
                Some(near) => error.help(format!("did you mean `{digits}{near}`?")),
                None => error,
            });
            return Some(Tok::Broken);
        };
        let amount = match tok {
            Tok::Int(n) => n as f64,
            _ => value,
        };
        Some(self.rate(amount).unwrap_or(tok))
    }

    /// `/s` or `/5s` right after a number makes it a rate.
    fn rate(&mut self, amount: f64) -> Option<Tok> {
        let rest = self.rest().strip_prefix('/')?;
        let digits: usize = rest.chars().take_while(char::is_ascii_digit).count();
        let unit: String = rest[digits..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let (name, ns) = DURATIONS.iter().find(|(u, _)| *u == unit)?;
        let times: f64 = if digits == 0 { 1.0 } else { rest[..digits].parse().ok()? };
        self.at += 1 + digits + name.len();
        let per_second = if times == 0.0 { 0.0 } else { amount / (times * ns / 1e9) };
        Some(Tok::Rate(per_second))
    }

    fn string(&mut self) -> Option<Tok> {
        let start = self.at;
        self.at += 1;
        let mut pieces = Vec::new();
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.peek() else { return self.unended(start) };
            self.at += c.len_utf8();
            match c {
                '"' => break,
                '\n' => {
                    self.at = at;
                    return self.unended(start);
                }
                '\\' => self.escape(at, &mut text),
                '{' => {
                    let inner = self.at;
                    if !self.skip_braces() {
                        return self.unended(start);
                    }
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                    let span = Span { file: self.file, start: cut(inner), end: cut(self.at - 1) };
                    pieces.push(Piece::Expr(span));
                }
                '}' => {
                    let span = self.span(at);
                    self.out.errors.push(
                        Diagnostic::error(span, "a lone `}` in a string")
                            .help("write `\\}` for the character itself"),
                    );
                }
                _ => text.push(c),
            }
        }
        if !text.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(text));
        }
        self.out.strings.push(pieces);
        Some(Tok::Str(u32::try_from(self.out.strings.len() - 1).unwrap_or(0)))
    }

    /// `'text'`: read as if it were right.
    fn single_quoted(&mut self, start: usize) -> Tok {
        let begin = self.at;
        self.take_while(|c| c != '\'' && c != '\n');
        let text = self.text.get(begin..self.at).unwrap_or("").to_owned();
        if self.peek() == Some('\'') {
            self.at += 1;
        }
        let error = Diagnostic::error(self.span(start), "strings stand in double quotes");
        self.out.errors.push(error.help(format!("write \"{text}\"")));
        self.out.strings.push(vec![Piece::Text(text)]);
        Tok::Str(u32::try_from(self.out.strings.len() - 1).unwrap_or(0))
    }

    fn unended(&mut self, start: usize) -> Option<Tok> {
        self.take_while(|c| c != '\n');
        let span = self.span(start);
        // What seemed wrong within it is no matter.
        self.out.errors.retain(|e| e.span.file != span.file || e.span.start < span.start);
        self.out.errors.push(
            Diagnostic::error(span, "this string does not end on its line")
                .label("expected a closing \"")
                .help("write \\n for a line break and \\{ for a brace"),
        );
        self.out.strings.push(vec![Piece::Text(String::new())]);
        Some(Tok::Str(u32::try_from(self.out.strings.len() - 1).unwrap_or(0)))
    }

    /// After an opening brace: to right behind its closing one, over strings and inner braces.
    fn skip_braces(&mut self) -> bool {
        let mut depth = 1_u32;
        let mut in_string = false;
        while let Some(c) = self.peek() {
            if c == '\n' {
                return false;
            }
            self.at += c.len_utf8();
            match c {
                '\\' if in_string => self.at += self.peek().map_or(0, char::len_utf8),
                '"' => in_string = !in_string,
                '{' if !in_string => depth += 1,
                '}' if !in_string => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return true;
            }
        }
        false
    }

    fn escape(&mut self, at: usize, text: &mut String) {
        let c = self.peek();
        self.at += c.map_or(0, char::len_utf8);
        match c {
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some(c @ ('"' | '\\' | '{' | '}')) => text.push(c),
            _ => {
                let span = self.span(at);
                self.out.errors.push(
                    Diagnostic::error(span, "unknown escape").label("known: \\n \\r \\t \\\" \\\\ \\{ \\}"),
                );
            }
        }
    }
}

/// A float to the nearest i64.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn saturate(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toks(text: &str) -> Vec<Tok> {
        let end = u32::try_from(text.len()).unwrap();
        lex(text, Span { file: 0, start: 0, end }).tokens.iter().map(|t| t.tok).collect()
    }

    #[test]
    fn literals_carry_their_unit() {
        assert_eq!(
            toks("5ms 64KiB 1000/s 1/5s 10MiB/s 0.1% 1e3 7"),
            [
                Tok::Duration(5_000_000),
                Tok::Int(65536),
                Tok::Rate(1000.0),
                Tok::Rate(0.2),
                Tok::Rate(10_485_760.0),
                Tok::Float(0.001),
                Tok::Float(1000.0),
                Tok::Int(7),
                Tok::Eof
            ]
        );
    }

    #[test]
    fn a_division_is_no_rate() {
        assert_eq!(toks("10/2"), [Tok::Int(10), Tok::Punct("/"), Tok::Int(2), Tok::Eof]);
        assert_eq!(toks("10/size"), [Tok::Int(10), Tok::Punct("/"), Tok::Ident, Tok::Eof]);
    }

    #[test]
    fn both_arrows_are_one_token() {
        assert_eq!(toks("S1→S2"), toks("S1->S2"));
        assert_eq!(toks("A-B"), [Tok::Ident, Tok::Punct("-"), Tok::Ident, Tok::Eof]);
    }

    #[test]
    fn wrong_units_and_strings_are_told() {
        let errors = |text: &str| {
            let end = u32::try_from(text.len()).unwrap();
            lex(text, Span { file: 0, start: 0, end }).errors
        };
        assert_eq!(errors("5msec")[0].message, "`msec` is no unit");
        assert_eq!(errors("64KIB")[0].help.as_deref(), Some("did you mean `64KiB`?"));
        assert_eq!(errors("\"abc").len(), 1);
        assert_eq!(errors("\"a\\qb\"").len(), 1);
        assert_eq!(errors("\"a {\"x\"} b\"").len(), 0);
    }
}
