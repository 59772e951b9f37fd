//! Expressions, by precedence.

use crate::ast::{Arg, BinOp, Block, Expr, ExprKind, Ident, Part, UnOp};
use crate::diag::Diagnostic;
use crate::lex::{Piece, Tok, lex};
use crate::source::Span;

use super::{DEPTH_MAX, Parsed, Parser, Told};

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.nested(|p| p.binary(0))
    }

    /// The expression before a block: `{` ends it.
    pub(super) fn head_expr(&mut self) -> Parsed<Expr> {
        let outer = std::mem::replace(&mut self.no_message, true);
        let result = self.expr();
        self.no_message = outer;
        result
    }

    /// An argument: an expression, or `x => expr`.
    pub(super) fn argument(&mut self) -> Parsed<Expr> {
        if self.token().tok != Tok::Ident || !self.nth_is(1, "=>") {
            return self.expr();
        }
        let param = self.ident("a name")?;
        self.bump();
        let body = self.expr()?;
        let (span, depth) = (param.span.to(body.span), body.depth);
        self.node(ExprKind::Lambda { param, body }, span, depth)
    }

    fn node(&mut self, kind: ExprKind, span: Span, inner: u16) -> Parsed<Expr> {
        let depth = inner.saturating_add(1);
        if depth > 4 * DEPTH_MAX {
            return self.too_deep();
        }
        Ok(Expr { kind: Box::new(kind), span, depth })
    }

    fn operator(&self) -> Option<BinOp> {
        let op = match self.token().tok {
            Tok::Punct(p) => match p {
                "*" => BinOp::Mul,
                "/" => BinOp::Div,
                "%" => BinOp::Rem,
                "+" => BinOp::Add,
                "-" => BinOp::Sub,
                "??" => BinOp::Coalesce,
                "<" => BinOp::Lt,
                "<=" => BinOp::Le,
                ">" => BinOp::Gt,
                ">=" => BinOp::Ge,
                "==" => BinOp::Eq,
                "!=" => BinOp::Ne,
                "&&" => BinOp::And,
                "||" => BinOp::Or,
                _ => return None,
            },
            Tok::Ident if self.is_word("in") => BinOp::In,
            _ => return None,
        };
        Some(op)
    }

    fn binary(&mut self, level: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        while let Some(op) = self.operator().filter(|op| op.level() >= level) {
            self.bump();
            let right = self.nested(|p| p.binary(op.level() + 1))?;
            let (span, depth) = (left.span.to(right.span), left.depth.max(right.depth));
            left = self.node(ExprKind::Binary { op, left, right }, span, depth)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.token().span;
        let op = match self.token().tok {
            Tok::Punct("!") => UnOp::Not,
            Tok::Punct("-") => UnOp::Neg,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.bump();
        let of = self.nested(Self::unary)?;
        let (span, depth) = (start.to(of.span), of.depth);
        self.node(ExprKind::Unary { op, of }, span, depth)
    }

    fn postfix(&mut self, mut of: Expr) -> Parsed<Expr> {
        loop {
            let (depth, start) = (of.depth, of.span);
            let (kind, inner) = if self.is(".") || self.is("?.") {
                let optional = self.is("?.");
                self.bump();
                let name = self.ident("a field")?;
                (ExprKind::Field { of, name, optional }, depth)
            } else if self.eat("[") {
                let key = self.expr()?;
                self.expect("]", "after the key")?;
                let inner = depth.max(key.depth);
                (ExprKind::Index { of, key }, inner)
            } else if self.eat("(") {
                let args = self.args()?;
                let inner = args.iter().map(|a| a.value.depth).max().unwrap_or(0).max(depth);
                (ExprKind::Call { of, args }, inner)
            } else {
                return Ok(of);
            };
            let span = start.to(self.last_span());
            of = self.node(kind, span, inner)?;
        }
    }

    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let token = self.token();
        let span = token.span;
        let kind = match token.tok {
            Tok::Int(n) => ExprKind::Int(n),
            Tok::Float(x) => ExprKind::Float(x),
            Tok::Duration(ns) => ExprKind::Duration(ns),
            Tok::Rate(r) => ExprKind::Rate(r),
            Tok::Broken => ExprKind::Broken,
            Tok::Str(at) => {
                self.bump();
                return self.interpolated(at, span);
            }
            Tok::Punct("(") => {
                self.bump();
                let outer = std::mem::replace(&mut self.no_message, false);
                let inner = self.expr()?;
                self.no_message = outer;
                self.expect(")", "")?;
                return Ok(Expr { span: span.to(self.last_span()), ..inner });
            }
            Tok::Punct("[") => return self.list(span),
            Tok::Punct("{") if !self.no_message => return self.map(span),
            Tok::Ident => return self.word(span),
            _ => return self.expected("an expression"),
        };
        self.bump();
        self.node(kind, span, 0)
    }

    fn word(&mut self, span: Span) -> Parsed<Expr> {
        let text = self.text_of(span);
        match text {
            "if" => return self.if_expr(),
            "match" => {
                self.bump();
                let of = self.head_expr()?;
                let arms = self.arms()?;
                let inner = arms.iter().map(|a| a.body.depth()).max().unwrap_or(0).max(of.depth);
                return self.node(ExprKind::Match { of, arms }, span.to(self.last_span()), inner);
            }
            "ask" if self.nth(1).tok == Tok::Ident && self.nth_is(2, ".") => return self.ask(span),
            "let" | "for" | "return" | "else" | "in" => return self.expected("an expression"),
            _ => {}
        }
        self.bump();
        let kind = match text {
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "None" => ExprKind::None,
            _ => {
                let upper = text.starts_with(|c: char| c.is_ascii_uppercase());
                if upper && !self.no_message && self.is("{") {
                    self.bump();
                    let fields = self.fields()?;
                    let name = Ident { text: text.to_owned(), span };
                    let inner = fields.iter().map(|(_, e)| e.depth).max().unwrap_or(0);
                    return self.node(ExprKind::Message(name, fields), span.to(self.last_span()), inner);
                }
                ExprKind::Name(text.to_owned())
            }
        };
        self.node(kind, span, 0)
    }

    fn if_expr(&mut self) -> Parsed<Expr> {
        let start = self.bump().span;
        let cond = self.head_expr()?;
        let then = self.block()?;
        let mut or_else = None;
        if self.eat_word("else") {
            or_else = Some(if self.is_word("if") {
                let inner = self.nested(Self::if_expr)?;
                Block { span: inner.span, stmts: vec![crate::ast::Stmt::Expr(inner)] }
            } else {
                self.block()?
            });
        }
        let inner = cond.depth.max(then.depth()).max(or_else.as_ref().map_or(0, Block::depth));
        self.node(ExprKind::If { cond, then, or_else }, start.to(self.last_span()), inner)
    }

    /// After `{`: `name: expr, …` to `}`.
    fn fields(&mut self) -> Parsed<Vec<(Ident, Expr)>> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let name = self.ident("a field, or `}`")?;
            self.expect(":", "after the field")?;
            fields.push((name, self.expr()?));
            if !self.eat(",") && !self.is("}") {
                return self.expected("`,` or `}` after the field");
            }
        }
        Ok(fields)
    }

    fn ask(&mut self, start: Span) -> Parsed<Expr> {
        self.bump();
        self.ident("a service")?;
        self.expect(".", "and the method")?;
        self.rpc()?;
        self.expect("{", "and the message's fields")?;
        self.fields()?;
        if !self.eat_word("within") {
            return self.expected("`within` and a duration");
        }
        self.expr()?;
        self.node(ExprKind::Ask, start.to(self.last_span()), 0)
    }

    fn list(&mut self, start: Span) -> Parsed<Expr> {
        self.bump();
        let outer = std::mem::replace(&mut self.no_message, false);
        let mut items = Vec::new();
        while !self.eat("]") {
            items.push(self.expr()?);
            if !self.eat(",") && !self.is("]") {
                return self.expected("`,` or `]` in the list");
            }
        }
        self.no_message = outer;
        let inner = items.iter().map(|e| e.depth).max().unwrap_or(0);
        self.node(ExprKind::List(items), start.to(self.last_span()), inner)
    }

    fn map(&mut self, start: Span) -> Parsed<Expr> {
        self.bump();
        let mut items = Vec::new();
        while !self.eat("}") {
            let key = self.expr()?;
            self.expect(":", "after the key")?;
            items.push((key, self.expr()?));
            if !self.eat(",") && !self.is("}") {
                return self.expected("`,` or `}` in the map");
            }
        }
        let inner = items.iter().map(|(k, v)| k.depth.max(v.depth)).max().unwrap_or(0);
        self.node(ExprKind::Map(items), start.to(self.last_span()), inner)
    }

    fn interpolated(&mut self, at: u32, span: Span) -> Parsed<Expr> {
        let pieces = self.lexed.strings.get(at as usize).cloned().unwrap_or_default();
        if let [Piece::Text(text)] = pieces.as_slice() {
            return self.node(ExprKind::Str(text.clone()), span, 0);
        }
        let mut parts = Vec::new();
        let mut inner = 0;
        for piece in pieces {
            match piece {
                Piece::Text(text) => parts.push(Part::Text(text)),
                Piece::Expr(range) => {
                    let expr = self.within_braces(range)?;
                    inner = inner.max(expr.depth);
                    parts.push(Part::Expr(expr));
                }
            }
        }
        self.node(ExprKind::Interp(parts), span, inner)
    }

    /// The expression between the braces of a string: lexed and parsed by a parser of its own.
    fn within_braces(&mut self, range: Span) -> Parsed<Expr> {
        // Each level of strings within strings lexes its text again, so their depth counts eightfold.
        let depth = self.depth.saturating_add(DEPTH_MAX / 8);
        if depth >= DEPTH_MAX {
            return self.too_deep();
        }
        let mut inner = Parser::new(self.text, lex(self.text, range), depth);
        inner.end = "`}`";
        let result = inner.expr();
        if result.is_ok() && inner.token().tok != Tok::Eof {
            let error =
                Diagnostic::error(inner.token().span, format!("expected `}}`, found {}", inner.found()))
                    .label("one expression stands between the braces");
            inner.error(error);
        }
        let failed = !inner.errors.is_empty();
        self.errors.append(&mut inner.errors);
        match result {
            Ok(_) | Err(Told) if failed => {
                Ok(Expr { kind: Box::new(ExprKind::Broken), span: range, depth: 1 })
            }
            other => other,
        }
    }
}

impl Arg {
    /// From the name, if it has one, to the end of the value.
    pub(crate) fn span(&self) -> Span {
        self.name.as_ref().map_or(self.value.span, |n| n.span.to(self.value.span))
    }
}
