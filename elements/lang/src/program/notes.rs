//! What is worth knowing of a chain that compiles.

use crate::ast::{HandlerKind, Scope};
use crate::diag::Diagnostic;
use crate::explain::facts::HandlerFacts;
use crate::hir::{CellInit, Effect, HExpr, HKind, HPlace, HStmt, Init, State};
use crate::lower::visit::{self, Node};
use crate::lower::{Link, has_effect};

/// Notes on one chain: who does not see what.
pub(super) fn chain(links: &[Link], out: &mut Vec<Diagnostic>) {
    limits(links, out);
    for (at, log) in links.iter().enumerate() {
        if !has_effect(&log.element, HandlerKind::Request, |e| matches!(e, Effect::AccessLog(_))) {
            continue;
        }
        for (before, link) in links.iter().enumerate().take(at) {
            if link.dry
                || !has_effect(&link.element, HandlerKind::Request, |e| matches!(e, Effect::Reject { .. }))
            {
                continue;
            }
            // Chains that share these two links say it once.
            let begins = format!("calls rejected by {} (", link.element.name);
            if out.iter().any(|d| d.span == log.span && d.message.starts_with(&begins)) {
                continue;
            }
            out.push(
                Diagnostic::note(
                    log.span,
                    format!(
                        "calls rejected by {} ({}) are not seen by {} ({})",
                        link.element.name,
                        before + 1,
                        log.element.name,
                        at + 1
                    ),
                )
                .label("move it to the left to see them"),
            );
        }
    }
}

/// Rejects that a call without some value passes.
pub(super) fn passes(link: &Link, handlers: &[HandlerFacts], out: &mut Vec<Diagnostic>) {
    if link.dry {
        return;
    }
    for absent in handlers.iter().flat_map(|h| &h.rejects).flat_map(|exit| &exit.passes) {
        let note =
            Diagnostic::note(link.span, format!("{} passes calls without `{absent}`", link.element.name))
                .label("where it is absent there is nothing to compare");
        if !out.iter().any(|d| d.span == note.span && d.message == note.message) {
            out.push(note);
        }
    }
}

/// Fields that no method of the chain has: what `payload?.` may name, and a slip may be.
pub(super) fn nowhere(links: &[Link], named: &str, out: &mut Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut meet = |node: Node<'_>| match node {
        Node::Expr(HExpr { kind: HKind::Payload(path), ty, span }) if ty.is_nothing() => {
            found.push((*span, path.text()));
        }
        Node::Stmt(HStmt::Assign(HPlace::Payload(written, ty), value)) if ty.is_nothing() => {
            found.push((value.span, written.path.text()));
        }
        _ => {}
    };
    for link in links {
        link.element.handlers.iter().for_each(|h| visit::block(&h.body, &mut meet));
        link.args.iter().chain(&link.when).for_each(|arg| visit::expr(arg, &mut meet));
    }
    for (span, text) in found {
        let note = Diagnostic::note(span, format!("no method of {named} has `{text}`"))
            .label("always None; a write does nothing");
        if !out.contains(&note) {
            out.push(note);
        }
    }
}

/// Limits that each node keeps by itself.
fn limits(links: &[Link], out: &mut Vec<Diagnostic>) {
    for link in links {
        let is_limit = |s: &State| {
            let cell = match &s.init {
                Init::Cell(cell) | Init::Map(Some(cell)) => Some(cell),
                _ => None,
            };
            s.scope == Scope::Node && matches!(cell, Some(CellInit::Bucket { .. } | CellInit::Counter))
        };
        let rejects = has_effect(&link.element, HandlerKind::Request, |e| matches!(e, Effect::Reject { .. }));
        let message = format!("{} counts on each node by itself: limit × nodes", link.element.name);
        if !rejects
            || !link.element.states.iter().any(is_limit)
            || out.iter().any(|d| d.span == link.span && d.message == message)
        {
            continue;
        }
        out.push(
            Diagnostic::note(link.span, message).label("with two nodes twice as many get through in all"),
        );
    }
}
