//! Statements and expressions.

use crate::lex::Tok;

use super::doc::Doc;
use super::shape::Shape;

/// Patterns up to this width have their arrows below one another.
const ALIGNED_MAX: usize = 24;

const OPERATORS: [&str; 14] = ["*", "/", "%", "+", "-", "??", "<", "<=", ">", ">=", "==", "!=", "&&", "||"];

/// An arm, before it is known how wide its neighbours' patterns are.
struct Arm {
    /// Before it, on one line.
    gap: &'static str,
    comments: Vec<Doc>,
    pattern: Doc,
    /// From the arrow on.
    body: Vec<Doc>,
}

fn space() -> Doc {
    Doc::text(" ")
}

impl Shape<'_> {
    pub(super) fn stmt(&mut self) -> Doc {
        let mut out = Vec::new();
        if self.is("let") {
            out.extend([self.take(), space(), self.take(), space(), self.take(), space(), self.expr()]);
            if self.is("else") {
                out.extend([space(), self.take(), space(), self.block_or_stmt()]);
            }
            return Doc::group(out);
        }
        if self.is("return") {
            return self.take();
        }
        if self.is("for") {
            out.extend([self.take(), space(), self.take(), space(), self.take(), space()]);
            out.extend([self.head(), space(), self.block()]);
            return Doc::group(out);
        }
        out.push(self.expr());
        if self.is("=") || self.is("+=") || self.is("-=") {
            out.extend([space(), self.take(), space(), self.expr()]);
        }
        Doc::Seq(out)
    }

    fn block_or_stmt(&mut self) -> Doc {
        if self.is("{") { self.block() } else { self.stmt() }
    }

    /// The expression before a block.
    fn head(&mut self) -> Doc {
        let outer = std::mem::replace(&mut self.no_message, true);
        let doc = self.expr();
        self.no_message = outer;
        doc
    }

    pub(super) fn expr(&mut self) -> Doc {
        let first = self.unary();
        let mut rest = Vec::new();
        while self.is("in") || (matches!(self.tok(0), Tok::Punct(_)) && OPERATORS.contains(&self.text(0))) {
            rest.extend([space(), self.take(), Doc::Line(" "), self.unary()]);
        }
        if rest.is_empty() { first } else { Doc::group(vec![first, Doc::indent(rest)]) }
    }

    fn unary(&mut self) -> Doc {
        if self.is("!") || self.is("-") {
            return Doc::Seq(vec![self.take(), self.unary()]);
        }
        let mut out = vec![self.primary()];
        loop {
            if self.is(".") || self.is("?.") {
                out.extend([self.take(), self.take()]);
            } else if self.is("[") {
                out.extend([self.take(), self.expr(), self.take()]);
            } else if self.is("(") {
                out.push(self.args());
            } else {
                return Doc::Seq(out);
            }
        }
    }

    fn primary(&mut self) -> Doc {
        match self.tok(0) {
            Tok::Punct("(") => {
                let outer = std::mem::replace(&mut self.no_message, false);
                let doc = Doc::Seq(vec![self.take(), self.expr(), self.take()]);
                self.no_message = outer;
                doc
            }
            Tok::Punct("[") => {
                let outer = std::mem::replace(&mut self.no_message, false);
                let doc = self.list("]", "", true, &mut Self::expr);
                self.no_message = outer;
                doc
            }
            Tok::Punct("{") if !self.no_message => self.list("}", " ", true, &mut |s| {
                let mut entry = vec![s.expr(), s.take(), space()];
                entry.push(s.expr());
                Doc::Seq(entry)
            }),
            Tok::Ident => self.name(),
            _ => self.take(),
        }
    }

    fn name(&mut self) -> Doc {
        match self.text(0) {
            "if" => Doc::group(self.if_chain()),
            "match" => {
                let head = vec![self.take(), space(), self.head(), space()];
                self.arms(head)
            }
            "ask" if self.tok(1) == Tok::Ident && self.nth_is(2, ".") => self.ask(),
            _ => {
                let upper = self.text(0).starts_with(|c: char| c.is_ascii_uppercase());
                let constant = matches!(self.text(0), "None");
                let name = self.take();
                if upper && !constant && !self.no_message && self.is("{") {
                    return Doc::Seq(vec![name, space(), self.fields()]);
                }
                name
            }
        }
    }

    fn if_chain(&mut self) -> Vec<Doc> {
        let mut out = vec![self.take(), space(), self.head(), space(), self.block()];
        if self.is("else") {
            out.extend([space(), self.take(), space()]);
            if self.is("if") {
                out.extend(self.if_chain());
            } else {
                out.push(self.block());
            }
        }
        out
    }

    /// `{ name: value, … }`
    fn fields(&mut self) -> Doc {
        self.list("}", " ", true, &mut |s| Doc::Seq(vec![s.take(), s.take(), space(), s.expr()]))
    }

    fn ask(&mut self) -> Doc {
        let mut out = vec![self.take(), space()];
        while !self.is("{") && !self.at_end() {
            out.push(self.take());
        }
        out.extend([space(), self.fields(), space(), self.take(), space(), self.expr()]);
        Doc::Seq(out)
    }

    fn arms(&mut self, mut head: Vec<Doc>) -> Doc {
        let outer = std::mem::replace(&mut self.no_message, false);
        head.push(self.take());
        let is_broken = self.starts_line();
        let mut arms: Vec<Arm> = Vec::new();
        while !self.is("}") && !self.at_end() {
            let gap = if self.follows_comma() { " " } else { "  " };
            self.begin();
            let comments = self.comments();
            let pattern = self.pattern();
            let mut body = vec![self.take(), space(), Doc::group(vec![self.block_or_stmt()])];
            if self.is(",") {
                body.extend(self.drop_token());
                if !self.is("}") {
                    body.push(Doc::IfFlat(","));
                }
            }
            arms.push(Arm { gap, comments, pattern, body });
        }
        let widest = arms.iter().filter_map(|a| a.pattern.width()).max().unwrap_or(0);
        let mut inner = Vec::new();
        for Arm { gap, comments, pattern, body } in arms {
            inner.push(match inner.is_empty() {
                true if is_broken => Doc::Hard,
                true => Doc::Line(" "),
                false => Doc::Line(gap),
            });
            inner.extend(comments);
            let pad = widest.saturating_sub(pattern.width().unwrap_or(widest));
            inner.push(pattern);
            if pad > 0 && widest <= ALIGNED_MAX {
                inner.push(Doc::IfBroken(" ".repeat(pad)));
            }
            inner.push(space());
            inner.extend(body);
        }
        inner.extend(self.comments());
        head.extend([Doc::indent(inner), Doc::Line(" "), self.take()]);
        self.no_message = outer;
        Doc::group(head)
    }

    fn pattern(&mut self) -> Doc {
        if self.is("Some") && self.nth_is(1, "(") {
            return Doc::Seq(vec![self.take(), self.take(), self.take(), self.take()]);
        }
        match self.tok(0) {
            Tok::Punct(_) => self.primary(),
            _ => self.take(),
        }
    }
}
