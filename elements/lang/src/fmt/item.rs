//! Files, services, rules, links, elements.

use crate::lex::Tok;

use super::doc::Doc;
use super::shape::Shape;

fn space() -> Doc {
    Doc::text(" ")
}

impl Shape<'_> {
    pub(super) fn file(&mut self) -> Doc {
        let mut out = Vec::new();
        while !self.at_end() {
            self.begin();
            out.extend(self.comments());
            out.push(self.item());
            out.push(Doc::Hard);
        }
        out.extend(self.comments());
        Doc::Seq(out)
    }

    fn item(&mut self) -> Doc {
        let is_name = |t: Tok| matches!(t, Tok::Ident | Tok::Str(_));
        if is_name(self.tok(1)) {
            match self.text(0) {
                "use" | "proto" => {
                    let mut out = vec![self.take(), space(), self.take()];
                    if self.is("as") {
                        out.extend([space(), self.take(), space(), self.take()]);
                    }
                    return Doc::Seq(out);
                }
                "service" => return self.service(),
                "chain" => {
                    let mut out = vec![self.take(), space(), self.take(), space(), self.take()];
                    out.push(self.links());
                    return Doc::group(out);
                }
                "element" => return self.element(),
                _ => {}
            }
        }
        self.rule()
    }

    fn service(&mut self) -> Doc {
        let mut out = vec![self.take(), space(), self.take()];
        if self.is("{") {
            out.push(space());
            out.push(self.members(false, true, &mut |s| {
                let mut entry = vec![s.take(), s.take(), space(), s.expr()];
                if s.is(",") {
                    entry.extend(s.drop_token());
                    if !s.is("}") {
                        entry.push(Doc::IfFlat(","));
                    }
                }
                Doc::Seq(entry)
            }));
        }
        Doc::group(out)
    }

    fn rule(&mut self) -> Doc {
        let mut out = Vec::new();
        if self.is("every") && (self.nth_is(1, "*") || matches!(self.tok(1), Tok::Ident | Tok::Str(_))) {
            out.extend([self.take(), space()]);
        }
        out.push(self.take());
        while self.is(",") {
            out.extend([self.take(), space(), self.take()]);
        }
        // The arrow and the destination.
        out.extend([space(), self.take(), space(), self.take()]);
        while !self.is(":") && !self.at_end() {
            out.push(self.take());
        }
        out.push(self.take());
        out.push(self.links());
        Doc::group(out)
    }

    fn links(&mut self) -> Doc {
        let mut out = vec![Doc::Line(" "), self.link()];
        while self.is("-") || self.is("|") {
            out.extend([Doc::Line(" "), self.take(), space(), self.link()]);
        }
        Doc::indent(out)
    }

    fn link(&mut self) -> Doc {
        let mut out = vec![self.take()];
        while self.is(".") {
            out.extend([self.take(), self.take()]);
        }
        if self.is("(") {
            out.push(self.args());
        }
        if self.is("when") && self.nth_is(1, "(") {
            out.extend([space(), self.take(), space(), self.take(), self.expr(), self.take()]);
        }
        let is_source = self.nth_is(1, "->") || self.nth_is(1, ",");
        if self.is("dry") && !is_source {
            out.extend([space(), self.take()]);
        }
        Doc::Seq(out)
    }

    fn element(&mut self) -> Doc {
        let mut out = vec![self.take(), space(), self.take()];
        if self.is("(") {
            out.push(self.list(")", "", false, &mut Self::param));
        }
        out.push(space());
        out.push(self.members(true, false, &mut |s| if s.is("state") { s.state() } else { s.handler() }));
        Doc::group(out)
    }

    /// Braces around members. On one line if the author had it so, or if there is but one and
    /// `one_fits`.
    fn members(&mut self, keeps: bool, one_fits: bool, member: &mut dyn FnMut(&mut Self) -> Doc) -> Doc {
        let open = self.take();
        let starts_line = self.starts_line();
        let mut inner = Vec::new();
        let mut count = 0;
        while !self.is("}") && !self.at_end() {
            if count > 0 {
                inner.push(Doc::Line(if self.follows_comma() { " " } else { "  " }));
            }
            self.begin();
            inner.extend(self.comments());
            inner.push(member(self));
            count += 1;
        }
        inner.extend(self.comments());
        if inner.is_empty() {
            return Doc::Seq(vec![open, self.take()]);
        }
        let breaks = if count == 1 { starts_line && !one_fits } else { keeps || starts_line };
        inner.insert(0, if breaks { Doc::Hard } else { Doc::Line(" ") });
        Doc::Seq(vec![open, Doc::indent(inner), Doc::Line(" "), self.take()])
    }

    fn param(&mut self) -> Doc {
        let mut out = vec![self.take(), self.take(), space()];
        if self.is("call") && self.nth_is(1, "=>") {
            out.extend([self.take(), space(), self.take(), space()]);
        }
        self.typed(&mut out);
        Doc::Seq(out)
    }

    /// A type and, if one stands there, `= value`.
    fn typed(&mut self, out: &mut Vec<Doc>) {
        if self.type_expr(out) {
            out.extend([space(), Doc::text("= "), self.expr()]);
        } else {
            self.default(out);
        }
    }

    fn default(&mut self, out: &mut Vec<Doc>) {
        if self.is("=") {
            out.extend([space(), self.take(), space(), self.expr()]);
        }
    }

    /// True if its last `>` was one token with the `=` behind it.
    fn type_expr(&mut self, out: &mut Vec<Doc>) -> bool {
        out.push(self.take());
        while self.is(".") {
            out.extend([self.take(), self.take()]);
        }
        if self.is("<") {
            out.push(self.take());
            self.type_expr(out);
            while self.is(",") {
                out.extend([self.take(), space()]);
                self.type_expr(out);
            }
            if self.is(">=") {
                out.push(self.take_as(">".to_owned()));
                return true;
            }
            out.push(self.take());
        }
        if self.is("?") {
            out.push(self.take());
        }
        false
    }

    fn state(&mut self) -> Doc {
        let mut out = vec![self.take(), space(), self.take(), space(), self.take()];
        let mut has_value = false;
        if self.is(":") {
            out.extend([self.take(), space()]);
            has_value = self.type_expr(&mut out);
        }
        if self.is("[") {
            out.push(self.list("]", "", false, &mut |s| {
                let mut option = vec![s.take()];
                if !s.is(",") && !s.is("]") {
                    option.extend([space(), s.expr()]);
                }
                Doc::Seq(option)
            }));
        }
        if has_value {
            out.extend([space(), Doc::text("= "), self.expr()]);
        } else {
            self.default(&mut out);
        }
        Doc::group(out)
    }

    fn handler(&mut self) -> Doc {
        let mut out = vec![self.take(), space()];
        if self.is("message") {
            out.extend([self.take(), space()]);
        }
        out.push(self.block());
        Doc::group(out)
    }

    /// `(` arguments `)`.
    pub(super) fn args(&mut self) -> Doc {
        let outer = std::mem::replace(&mut self.no_message, false);
        let doc = self.list(")", "", false, &mut |s| {
            let mut arg = Vec::new();
            if s.tok(0) == Tok::Ident && s.nth_is(1, ":") {
                arg.extend([s.take(), s.take(), space()]);
            }
            if s.tok(0) == Tok::Ident && s.nth_is(1, "=>") {
                arg.extend([s.take(), space(), s.take(), space()]);
            }
            arg.push(s.expr());
            Doc::Seq(arg)
        });
        self.no_message = outer;
        doc
    }

    /// Braces around statements, for a group of the caller's.
    pub(super) fn block(&mut self) -> Doc {
        let outer = std::mem::replace(&mut self.no_message, false);
        let doc = self.members(false, true, &mut Self::stmt);
        self.no_message = outer;
        doc
    }
}
