//! `encrypt` and `decrypt`: that they stand where they hold for every call.
//!
//! Not here: what stands on which side of them in a chain (`lower::boundary`).

use crate::ast::{Arg, HandlerKind};
use crate::diag::Diagnostic;
use crate::hir::{Const, Effect, HBlock, HExpr, HKind, HStmt, boundary_name};
use crate::lower::visit::{self, Node};
use crate::lower::{KEY_NAME_MAX, is_key_name};
use crate::source::Span;
use crate::ty::Ty;

use super::{Checker, Context};

impl Checker<'_> {
    /// The call itself: its handler and its argument.
    pub(super) fn boundary(&mut self, opens: bool, at: Span, args: &[Arg], span: Span) -> HExpr {
        let name = boundary_name(opens);
        if !matches!(self.context, Context::Handler(HandlerKind::Request | HandlerKind::Response)) {
            self.error(
                Diagnostic::error(at, format!("`{name}` stands in `request` or `response`"))
                    .label("it holds for every message of that direction"),
            );
        }
        let [key] = self.exprs(name, args, ["key"], span);
        let key = self.coerce(key, &Ty::Str);
        match &key.kind {
            HKind::Const(Const::Str(text)) if !is_key_name(text) => self.error(
                Diagnostic::error(key.span, "this is no name for a key")
                    .label(format!("expected letters, digits, `_`, `.`, `-`, at most {KEY_NAME_MAX}")),
            ),
            HKind::Const(_) | HKind::Param(_) | HKind::Error => {}
            _ => self.error(
                Diagnostic::error(key.span, "the name of the key must be constant")
                    .label("expected a string or a parameter"),
            ),
        }
        HExpr { kind: HKind::Effect(Effect::Boundary { opens, key: Box::new(key) }), ty: Ty::Unit, span }
    }

    /// A boundary holds for every call that passes: no condition stands around it, no way out before it.
    pub(super) fn boundaries(&mut self, body: &HBlock) {
        let mut way_out = None;
        for stmt in &body.stmts {
            if let Some((opens, span)) = own(stmt) {
                if let Some(way_out) = way_out {
                    self.conditional(opens, span, Some(way_out));
                }
                continue;
            }
            let mut found = Vec::new();
            visit::stmt(stmt, &mut |node| {
                if let Node::Expr(HExpr {
                    kind: HKind::Effect(Effect::Boundary { opens, .. }), span, ..
                }) = node
                {
                    found.push((*opens, *span));
                }
            });
            for (opens, span) in found {
                self.conditional(opens, span, None);
            }
            if leaves(stmt) {
                way_out.get_or_insert(span_of(stmt));
            }
        }
    }

    fn conditional(&mut self, opens: bool, span: Span, way_out: Option<Span>) {
        let name = boundary_name(opens);
        let error = Diagnostic::error(span, format!("`{name}` cannot be conditional"))
            .label("the node at the other end could not know which messages are sealed");
        self.error(match way_out {
            Some(at) => error
                .also(at, "a way through the handler ends here")
                .help(format!("write `{name}` before it")),
            None => error.help(
                "write it as a statement of its own in `request` or `response`, \
                 and choose by rules which calls it is for",
            ),
        });
    }
}

/// The statement is a boundary, and nothing else.
fn own(stmt: &HStmt) -> Option<(bool, Span)> {
    match stmt {
        HStmt::Expr(HExpr { kind: HKind::Effect(Effect::Boundary { opens, .. }), span, .. }) => {
            Some((*opens, *span))
        }
        _ => None,
    }
}

/// Some way through it ends the handler and lets the call go on.
fn leaves(stmt: &HStmt) -> bool {
    let mut found = false;
    visit::stmt(stmt, &mut |node| found |= matches!(node, Node::Stmt(HStmt::Return)));
    found
}

/// Some place within a statement.
fn span_of(stmt: &HStmt) -> Span {
    let mut span = None;
    visit::stmt(stmt, &mut |node| {
        if let Node::Expr(e) = node {
            span.get_or_insert(e.span);
        }
    });
    span.unwrap_or_default()
}
