//! Links of a rule to the elements they mean: chains expanded, arguments checked.

use ::std::cell::Cell;
use ::std::rc::Rc;

use crate::ast;
use crate::check::{Checker, Context, no_share};
use crate::diag::Diagnostic;
use crate::hir::{Effect, Element, HExpr, HKind, HStmt};
use crate::lower::{Link, constant_float};
use crate::schema::Coverage;
use crate::source::Span;

use super::World;

/// Elements of one chain, after expansion.
const LINKS_MAX: usize = 256;
/// Chains within chains.
const CHAIN_DEPTH_MAX: usize = 16;
/// Links looked at for one rule, right or wrong.
const STEPS_MAX: usize = 1024;

impl World<'_> {
    /// The links of a rule; None if one of them is wrong.
    pub(super) fn links(&mut self, links: &[ast::Link]) -> Option<Vec<Link>> {
        let mut out = Vec::new();
        self.steps = 0;
        let is_right = self.expand(links, &mut Vec::new(), &mut out);
        self.reachable(&out);
        is_right.then_some(out)
    }

    /// The name of what a link means: of its own file before that of a file around it.
    fn full_name(&self, link: &ast::Link) -> String {
        let mut scope = link.scope.as_str();
        loop {
            let name = format!("{scope}{}", link.name.text);
            if scope.is_empty() || self.chains.contains_key(&name) || self.elements.contains_key(&name) {
                return name;
            }
            let outer = scope.trim_end_matches('.').rfind('.').map_or(0, |at| at + 1);
            scope = scope.get(..outer).unwrap_or("");
        }
    }

    fn expand(&mut self, links: &[ast::Link], trail: &mut Vec<String>, out: &mut Vec<Link>) -> bool {
        let mut is_right = true;
        for link in links {
            if let Some(wire) = link.wire {
                self.error(Diagnostic::unsupported(wire, "`|` (the wire between nodes)"));
                is_right = false;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return false;
            }
            if out.len() >= LINKS_MAX || self.steps == STEPS_MAX {
                self.error(Diagnostic::error(
                    link.span,
                    format!("more than {LINKS_MAX} elements in one chain"),
                ));
                return false;
            }
            if self.chains.contains_key(&self.full_name(link)) {
                is_right &= self.expand_chain(link, trail, out);
                continue;
            }
            match self.link(link) {
                Some(link) => out.push(link),
                None => is_right = false,
            }
        }
        is_right
    }

    fn expand_chain(&mut self, link: &ast::Link, trail: &mut Vec<String>, out: &mut Vec<Link>) -> bool {
        let name = &self.full_name(link);
        for (what, span) in [
            ("arguments", link.args.as_ref().map(|_| link.span)),
            ("`when`", link.when.as_ref().map(|w| w.span)),
            ("`dry`", link.dry),
        ] {
            if let Some(span) = span {
                self.error(
                    Diagnostic::error(span, format!("a chain takes no {what}"))
                        .label("write it at the chain's elements"),
                );
                return false;
            }
        }
        if trail.contains(name) {
            self.error(
                Diagnostic::error(link.span, format!("the chain `{name}` contains itself"))
                    .label(format!("{} → {name}", trail.join(" → "))),
            );
            return false;
        }
        if trail.len() >= CHAIN_DEPTH_MAX {
            self.error(
                Diagnostic::error(
                    link.span,
                    format!("more than {CHAIN_DEPTH_MAX} chains within one another"),
                )
                .label("name the elements themselves"),
            );
            return false;
        }
        let Some((_, links)) = self.chains.get(name).cloned() else { return false };
        trail.push(name.clone());
        let is_right = self.expand(&links, trail, out);
        trail.pop();
        is_right
    }

    fn link(&mut self, link: &ast::Link) -> Option<Link> {
        let Some(element) = self.elements.get(&self.full_name(link)).cloned() else {
            if self.failed.contains(&link.name.text) {
                return None;
            }
            let known: Vec<String> = self.elements.keys().chain(self.chains.keys()).cloned().collect();
            let error = Diagnostic::error(link.name.span, format!("unknown element `{}`", link.name.text))
                .label("expected an element or a chain")
                .nearest(&link.name.text, known.iter().map(String::as_str));
            self.error(error);
            return None;
        };
        let before = self.errors.len();
        let uses = Cell::new(element.uses_payload);
        let (args, when) = self.link_parts(link, &element, None, &uses)?;
        for (param, value) in element.params.iter().zip(&args) {
            if param.is_share {
                self.share(&param.name, value);
            }
        }
        if self.errors.len() > before || element.broken {
            return None;
        }
        let text = self.sources.text(link.span).split_whitespace().collect::<Vec<_>>().join(" ");
        let line = self.sources.place(link.span).0;
        let written = uses.get().then(|| Rc::new(link.clone()));
        let (home, dry) = (Rc::from(""), link.dry.is_some());
        Some(Link { element, args, when, dry, home, text, line, span: link.span, written })
    }

    /// The arguments of a link and its condition, in a chain that covers these methods.
    pub(super) fn link_parts(
        &mut self,
        link: &ast::Link,
        element: &Element,
        coverage: Option<&Coverage>,
        uses: &Cell<bool>,
    ) -> Option<(Vec<HExpr>, Option<HExpr>)> {
        let args = link.args.as_deref().unwrap_or(&[]);
        let checker =
            Checker::new(&self.names, &mut self.errors, Context::Constant).with_types(&self.schema.pool);
        let args = checker.covering(coverage).noting(uses).link_args(element, args, link.span)?;
        let when = link.when.as_ref().map(|when| {
            let checker =
                Checker::new(&self.names, &mut self.errors, Context::CallParam).with_types(&self.schema.pool);
            checker.covering(coverage).noting(uses).when(when)
        });
        Some((args, when))
    }

    /// `random()` is held against it: 0 to 1.
    fn share(&mut self, name: &str, value: &HExpr) {
        if let Some(error) = constant_float(value).and_then(|share| no_share(Some(name), share, value.span)) {
            self.error(error);
        }
    }

    /// What stands right of an element that lets nothing through is never reached.
    fn reachable(&mut self, links: &[Link]) {
        for (at, link) in links.iter().enumerate() {
            let (Some(next), None, false) = (links.get(at + 1), &link.when, link.dry) else { continue };
            if rejects_all(&link.element) {
                self.error(
                    Diagnostic::error(next.span, "this link is never reached")
                        .label(format!("`{}` to its left rejects every call", link.element.name)),
                );
                return;
            }
        }
    }
}

fn rejects_all(element: &Rc<crate::hir::Element>) -> bool {
    let request = element.handlers.iter().find(|h| h.kind == ast::HandlerKind::Request);
    let only_rejects =
        |stmt: &HStmt| matches!(stmt, HStmt::Expr(HExpr { kind: HKind::Effect(Effect::Reject { .. }), .. }));
    request.is_some_and(|h| {
        let no_exit = h.body.stmts.iter().all(|s| matches!(s, HStmt::Let(..) | HStmt::Expr(_)));
        no_exit && h.body.stmts.last().is_some_and(only_rejects) && h.body.stmts.len() == 1
    })
}

/// The span of a rule's links.
pub(super) fn links_span(links: &[ast::Link]) -> Span {
    match (links.first(), links.last()) {
        (Some(first), Some(last)) => first.span.to(last.span),
        _ => Span::default(),
    }
}
