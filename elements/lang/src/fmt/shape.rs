//! The tokens of a text that has been parsed, with the comments and breaks between them.

use crate::lex::{Tok, lex};
use crate::source::Span;

use super::doc::Doc;

/// A token and what stands around it.
struct Word<'a> {
    text: &'a str,
    tok: Tok,
    /// Comments on lines of their own before it; true if an empty line stands before one.
    comments: Vec<(&'a str, bool)>,
    /// The comment behind it, on its line.
    behind: Option<&'a str>,
    /// An empty line stands right before it.
    blank: bool,
    starts_line: bool,
}

/// Walks over the tokens along the grammar. The text has no errors; where it had, this would only lay it out
/// badly.
pub(super) struct Shape<'a> {
    words: Vec<Word<'a>>,
    at: usize,
    /// `{` does not begin a message here, as in the parser.
    pub(super) no_message: bool,
    /// The next token begins a statement, item or member: the empty line before it is kept.
    begins: bool,
}

/// The layout of a whole text.
pub(super) fn shape(text: &str) -> Doc {
    let mut shape = Shape { words: words(text), at: 0, no_message: false, begins: false };
    shape.file()
}

fn words(text: &str) -> Vec<Word<'_>> {
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut at = 0;
    for token in lex(text, Span { file: 0, start: 0, end }).tokens {
        let (start, end) = (token.span.start as usize, token.span.end as usize);
        let gap = text.get(at..start).unwrap_or("");
        at = end;
        let mut word = Word {
            text: text.get(start..end).unwrap_or(""),
            tok: token.tok,
            comments: Vec::new(),
            behind: None,
            blank: false,
            starts_line: token.starts_line,
        };
        if token.tok == Tok::Punct("->") {
            word.text = "->";
        }
        let mut lines = gap.split('\n').map(str::trim);
        let first = lines.next().filter(|l| l.starts_with("//"));
        if let Some(comment) = first {
            match words.last_mut() {
                Some(before) => before.behind = Some(comment),
                None => word.comments.push((comment, false)),
            }
        }
        let lines: Vec<&str> = lines.collect();
        let mut blank = false;
        for (n, line) in lines.iter().enumerate() {
            if line.starts_with("//") {
                word.comments.push((line, std::mem::take(&mut blank)));
            } else if n + 1 < lines.len() {
                blank |= line.is_empty();
            }
        }
        word.blank = blank;
        words.push(word);
    }
    words
}

impl Shape<'_> {
    fn word(&self, ahead: usize) -> Option<&Word<'_>> {
        self.words.get(self.at + ahead).or(self.words.last())
    }

    pub(super) fn text(&self, ahead: usize) -> &str {
        self.word(ahead).map_or("", |w| w.text)
    }

    pub(super) fn tok(&self, ahead: usize) -> Tok {
        self.word(ahead).map_or(Tok::Eof, |w| w.tok)
    }

    /// Punctuation or a word; a string is neither.
    pub(super) fn nth_is(&self, ahead: usize, text: &str) -> bool {
        matches!(self.tok(ahead), Tok::Punct(_) | Tok::Ident) && self.text(ahead) == text
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.nth_is(0, text)
    }

    pub(super) fn at_end(&self) -> bool {
        self.tok(0) == Tok::Eof
    }

    /// The author began a line before this token.
    pub(super) fn starts_line(&self) -> bool {
        self.word(0).is_some_and(|w| w.starts_line || !w.comments.is_empty())
    }

    pub(super) fn follows_comma(&self) -> bool {
        self.at.checked_sub(1).and_then(|at| self.words.get(at)).is_some_and(|w| w.text == ",")
    }

    /// The next token begins a statement, an item or a member.
    pub(super) fn begin(&mut self) {
        self.begins = true;
    }

    /// Takes the comments before the next token.
    pub(super) fn comments(&mut self) -> Vec<Doc> {
        let mut out = Vec::new();
        let begins = std::mem::take(&mut self.begins);
        let Some(word) = self.words.get_mut(self.at) else { return out };
        let comments = std::mem::take(&mut word.comments);
        let blank = std::mem::take(&mut word.blank);
        let had = !comments.is_empty();
        for (text, blank) in comments {
            if blank {
                out.push(Doc::Blank);
            }
            out.push(Doc::Own(text.to_owned()));
        }
        if blank && (had || begins) {
            out.push(Doc::Blank);
        }
        out
    }

    /// The next token with its comments.
    pub(super) fn take(&mut self) -> Doc {
        let text = self.text(0).to_owned();
        self.take_as(text)
    }

    /// The same, written in another way.
    pub(super) fn take_as(&mut self, text: String) -> Doc {
        let mut out = self.comments();
        out.push(Doc::Text(text));
        out.extend(self.behind());
        if !self.at_end() {
            self.at += 1;
        }
        if out.len() == 1 { out.pop().unwrap_or(Doc::Seq(Vec::new())) } else { Doc::Seq(out) }
    }

    /// Passes over a token; its comments stay.
    pub(super) fn drop_token(&mut self) -> Vec<Doc> {
        let mut out = self.comments();
        out.extend(self.behind());
        if !self.at_end() {
            self.at += 1;
        }
        out
    }

    fn behind(&mut self) -> Option<Doc> {
        let comment = self.words.get_mut(self.at)?.behind.take()?;
        Some(Doc::Behind(comment.to_owned()))
    }

    /// Brackets around a list: on one line if it fits, unless `keeps` and the author broke it after the
    /// bracket. `pad` stands inside the brackets on one line.
    pub(super) fn list(
        &mut self,
        close: &str,
        pad: &'static str,
        keeps: bool,
        item: &mut dyn FnMut(&mut Self) -> Doc,
    ) -> Doc {
        let open = self.take();
        if self.is(close) {
            let comments = self.comments();
            let close = self.take();
            return if comments.is_empty() {
                Doc::Seq(vec![open, close])
            } else {
                Doc::group(vec![open, Doc::indent(comments), Doc::Line(""), close])
            };
        }
        let is_broken = keeps && self.starts_line();
        let mut inner = vec![if is_broken { Doc::Hard } else { Doc::Line(pad) }];
        loop {
            if keeps {
                self.begin();
            }
            inner.extend(self.comments());
            inner.push(item(self));
            if self.is(",") {
                let comments = self.drop_token();
                let is_last = self.is(close);
                inner.push(if is_last { Doc::IfBroken(",".to_owned()) } else { Doc::text(",") });
                inner.extend(comments);
                if is_last {
                    break;
                }
                inner.push(Doc::Line(" "));
            } else {
                inner.push(Doc::IfBroken(",".to_owned()));
                break;
            }
        }
        inner.extend(self.comments());
        let close = self.take();
        Doc::group(vec![open, Doc::indent(inner), Doc::Line(pad), close])
    }
}
