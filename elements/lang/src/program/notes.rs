//! What is worth knowing of a chain that compiles.

use crate::ast::HandlerKind;
use crate::diag::Diagnostic;
use crate::hir::Effect;
use crate::lower::{Link, has_effect};

/// Notes on one chain: who does not see what.
pub(super) fn chain(links: &[Link], out: &mut Vec<Diagnostic>) {
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
