//! Blocks and statements.

use crate::ast::{Arm, AssignOp, Block, Pattern, Stmt};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::lex::Tok;

use super::{ERRORS_MAX, Parsed, Parser, Told};

const STMT_WORDS: [&str; 5] = ["let", "if", "match", "for", "return"];
const ELEMENT_WORDS: [&str; 3] = ["request", "response", "state"];

impl Parser<'_> {
    pub(super) fn block(&mut self) -> Parsed<Block> {
        let start = self.expect("{", "")?;
        let outer = std::mem::replace(&mut self.no_message, false);
        let result = self.nested(|p| {
            let mut stmts = Vec::new();
            while !p.is("}") {
                if p.token().tok == Tok::Eof {
                    return p.expected("`}`");
                }
                if p.token().starts_line && p.begins_item() {
                    let error =
                        Diagnostic::error(p.token().span, format!("expected `}}`, found {}", p.found()))
                            .label("expected `}` before it")
                            .also(start, "this block has no end");
                    p.error(error);
                    return Err(Told);
                }
                match p.stmt() {
                    Ok(stmt) => stmts.push(stmt),
                    Err(Told) => p.skip_to_stmt()?,
                }
            }
            p.bump();
            Ok(stmts)
        });
        self.no_message = outer;
        Ok(Block { stmts: result?, span: start.to(self.last_span()) })
    }

    /// After an error: to the `}` of this block or the next line that begins a statement. Fails where the
    /// block seems to have lost its end.
    fn skip_to_stmt(&mut self) -> Parsed<()> {
        let mut depth = 0_u32;
        if self.errors.len() >= ERRORS_MAX {
            return Err(Told);
        }
        loop {
            let token = self.token();
            match token.tok {
                Tok::Eof => return Err(Told),
                Tok::Punct("{") => depth += 1,
                Tok::Punct("}") if depth == 0 => return Ok(()),
                Tok::Punct("}") => depth -= 1,
                Tok::Ident if token.starts_line && depth == 0 => {
                    let word = self.text_of(token.span);
                    let is_handler = ELEMENT_WORDS.contains(&word)
                        && (self.nth_is(1, "{") || matches!(self.nth(1).tok, Tok::Ident));
                    let is_item = matches!(word, "element" | "service" | "chain" | "every" | "use")
                        && matches!(self.nth(1).tok, Tok::Ident | Tok::Str(_));
                    if is_handler || is_item {
                        return Err(Told);
                    }
                    return Ok(());
                }
                Tok::Ident if depth == 0 && STMT_WORDS.contains(&self.text_of(token.span)) => return Ok(()),
                _ => {}
            }
            self.bump();
        }
    }

    /// A block, or one statement standing for it.
    fn block_or_stmt(&mut self) -> Parsed<Block> {
        if self.is("{") {
            return self.block();
        }
        let stmt = self.nested(Self::stmt)?;
        Ok(Block { stmts: vec![stmt], span: self.last_span() })
    }

    fn stmt(&mut self) -> Parsed<Stmt> {
        let start = self.token().span;
        if self.eat_word("let") {
            if self.is_word("mut") && self.nth(1).tok == Tok::Ident {
                let error = Diagnostic::error(self.bump().span, "every `let` may be assigned again");
                self.error(error.label("leave this away"));
            }
            let name = self.ident("a name")?;
            if self.is(":") {
                let from = self.bump().span;
                self.type_expr()?;
                let span = from.to(self.last_span());
                let error = Diagnostic::error(span, "a `let` has the type of its value");
                self.error(error.label("leave this away"));
            }
            self.expect("=", "and a value")?;
            let value = self.expr()?;
            let or_else = if self.eat_word("else") { Some(self.block_or_stmt()?) } else { None };
            return Ok(Stmt::Let { name, value, or_else });
        }
        if self.is_word("return") {
            let span = self.bump().span;
            let literal = matches!(
                self.token().tok,
                Tok::Int(_) | Tok::Float(_) | Tok::Str(_) | Tok::Duration(_) | Tok::Rate(_)
            );
            if (literal || self.is_word("true") || self.is_word("false")) && !self.token().starts_line {
                let value = self.expr()?;
                let error = Diagnostic::error(value.span, "a handler has no value").label("leave this away");
                self.error(error.help("`reject(Status, \"text\")` ends the call, `return` the handler"));
            }
            return Ok(Stmt::Return(span));
        }
        self.foreign()?;
        if self.eat_word("for") {
            let name = self.ident("a name for each item")?;
            if !self.eat_word("in") {
                return self.expected("`in` and a list");
            }
            let list = self.head_expr()?;
            let span = start.to(list.span);
            return Ok(Stmt::For { name, list, body: self.block()?, span });
        }
        // Only the first of a block or arm: anywhere else it would go on with what stands before.
        let is_first = self.at.checked_sub(1).and_then(|at| self.lexed.tokens.get(at));
        let is_first = is_first.is_some_and(|t| matches!(t.tok, Tok::Punct("{" | "=>")));
        let begins = matches!(self.token().tok, Tok::Punct("(" | "[" | "-"));
        if (begins && !is_first) || self.is("{") {
            return self.expected("a statement (none begins with `(`, `[`, `{` or `-`)");
        }
        let place = self.expr()?;
        let op = if self.eat("=") {
            AssignOp::Set
        } else if self.eat("+=") {
            AssignOp::Add
        } else if self.eat("-=") {
            AssignOp::Sub
        } else {
            return Ok(Stmt::Expr(place));
        };
        Ok(Stmt::Assign { place, op, value: self.expr()? })
    }

    /// Statements of other languages, told and read over.
    fn foreign(&mut self) -> Parsed<()> {
        let (token, next) = (self.token(), self.nth(1));
        if self.is_word("if") && self.nth_is_word(1, "let") {
            let error = Diagnostic::error(token.span.to(next.span), "there is no `if let`")
                .label("expected a condition");
            self.error(error.help("`match x { Some(y) => …  None => … }`, or `let y = x else { … }`"));
            return Err(Told);
        }
        if token.tok != Tok::Ident {
            return Ok(());
        }
        // A name that is assigned, called or has fields is somebody's own.
        let is_own = matches!(next.tok, Tok::Punct("=" | "+=" | "-=" | "." | "["));
        let Some((what, help)) = elsewhere::statement(self.text_of(token.span)).filter(|_| !is_own) else {
            return Ok(());
        };
        self.error(Diagnostic::error(token.span, what).label("not known here").help(help));
        // Its condition and block go with it.
        while !matches!(self.token().tok, Tok::Eof | Tok::Punct("{" | "}")) {
            self.bump();
            if self.token().starts_line {
                break;
            }
        }
        let mut depth = 0_u32;
        while self.is("{") || depth > 0 && self.token().tok != Tok::Eof {
            match self.bump().tok {
                Tok::Punct("{") => depth += 1,
                Tok::Punct("}") => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Err(Told)
    }

    /// After the scrutinee: `{ pattern => stmt … }`.
    pub(super) fn arms(&mut self) -> Parsed<Vec<Arm>> {
        self.expect("{", "and the arms")?;
        let outer = std::mem::replace(&mut self.no_message, false);
        let mut arms = Vec::new();
        let result = loop {
            if self.eat("}") {
                break Ok(arms);
            }
            match self.arm() {
                Ok(arm) => arms.push(arm),
                Err(Told) => break self.skip_arms(),
            }
        };
        self.no_message = outer;
        result
    }

    fn arm(&mut self) -> Parsed<Arm> {
        let pattern = self.pattern()?;
        self.expect("=>", "after the pattern")?;
        let body = self.block_or_stmt()?;
        self.eat(",");
        Ok(Arm { pattern, body })
    }

    /// After an error: behind the `}` of this `match`, if it stands before the next item or handler.
    fn skip_arms<T>(&mut self) -> Parsed<T> {
        let begin = self.at;
        let mut depth = 0_u32;
        loop {
            let token = self.token();
            match token.tok {
                Tok::Punct("{") => depth += 1,
                Tok::Punct("}") if depth == 0 => {
                    self.bump();
                    return Err(Told);
                }
                Tok::Punct("}") => depth -= 1,
                Tok::Eof => break,
                _ if token.starts_line && self.begins_item() => break,
                _ => {}
            }
            self.bump();
        }
        self.at = begin;
        Err(Told)
    }

    fn pattern(&mut self) -> Parsed<Pattern> {
        if self.is_word("Some") && self.nth_is(1, "(") {
            self.bump();
            self.bump();
            let name = self.ident("a name")?;
            self.expect(")", "after the name")?;
            return Ok(Pattern::Some(name));
        }
        if self.is_word("None") {
            return Ok(Pattern::None(self.bump().span));
        }
        if self.is_word("_") {
            return Ok(Pattern::Any(self.bump().span));
        }
        match self.token().tok {
            Tok::Punct(_) | Tok::Eof => {
                self.expected("a pattern: a literal, a name, `Some(x)`, `None` or `_`")
            }
            _ => self.primary().map(Pattern::Value),
        }
    }
}
