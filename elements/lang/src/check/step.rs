//! Atomic steps: where a handler's step over its element's `node` scalars begins, and what may not stand in it.
//!
//! A step begins at the first statement that uses such a scalar and ends behind the last change on each way
//! through the handler. When another shard was quicker it is run again from its beginning, so it may do
//! nothing that would then happen twice.

use crate::diag::Diagnostic;
use crate::hir::{Effect, Func, HBlock, HExpr, HKind, HPlace, HStmt, State};
use crate::lower::visit::{self, Node};
use crate::source::Span;

use super::Checker;

/// What is asked of a handler's body.
pub(crate) struct Steps<'h> {
    states: &'h [State],
}

impl<'h> Steps<'h> {
    pub(crate) fn new(states: &'h [State]) -> Self {
        Self { states }
    }

    fn is_scalar(&self, at: u16) -> bool {
        self.states.get(usize::from(at)).is_some_and(State::is_node_scalar)
    }

    fn used_by(&self, node: &Node<'_>) -> bool {
        match node {
            Node::Expr(HExpr { kind: HKind::State(at), .. })
            | Node::Stmt(HStmt::Assign(HPlace::State(at), _)) => self.is_scalar(*at),
            _ => false,
        }
    }

    fn is_change(&self, node: &Node<'_>) -> bool {
        matches!(node, Node::Stmt(HStmt::Assign(HPlace::State(at), _)) if self.is_scalar(*at))
    }

    /// Some way through the block changes a scalar.
    pub(crate) fn changes(&self, block: &HBlock) -> bool {
        let mut found = false;
        visit::block(block, &mut |node| found |= self.is_change(&node));
        found
    }

    /// The same of a statement, and of statements.
    pub(crate) fn stmts_change(&self, stmts: &[HStmt]) -> bool {
        let mut found = false;
        stmts.iter().for_each(|s| visit::stmt(s, &mut |node| found |= self.is_change(&node)));
        found
    }

    fn uses(&self, stmt: &HStmt) -> bool {
        let mut found = false;
        visit::stmt(stmt, &mut |node| found |= self.used_by(&node));
        found
    }

    fn expr_uses(&self, e: &HExpr) -> bool {
        let mut found = false;
        visit::expr(e, &mut |node| found |= self.used_by(&node));
        found
    }

    /// The statements that steps begin before: one on each way that uses a scalar.
    pub(crate) fn begins(&self, block: &'h HBlock, out: &mut Vec<&'h HStmt>) {
        let mut using = block.stmts.iter().filter(|s| self.uses(s));
        let Some(first) = using.next() else { return };
        let is_only = using.next().is_none() && !block.value.as_ref().is_some_and(|v| self.expr_uses(v));
        if let (true, HStmt::Expr(e)) = (is_only, first) {
            match &e.kind {
                HKind::If { cond, then, or_else } if !self.expr_uses(cond) => {
                    self.begins(then, out);
                    self.begins(or_else, out);
                    return;
                }
                HKind::Match { of, arms } if !self.expr_uses(of) => {
                    arms.iter().for_each(|arm| self.begins(&arm.body, out));
                    return;
                }
                _ => {}
            }
        }
        out.push(first);
    }
}

impl Checker<'_> {
    /// Nothing in a handler's steps happens twice.
    pub(super) fn steps(&mut self, body: &HBlock) {
        let states = std::mem::take(&mut self.states);
        let steps = Steps::new(&states);
        if steps.changes(body) {
            let mut begins = Vec::new();
            steps.begins(body, &mut begins);
            let mut walk = Walk { steps, begins, begun: None, dirty: false, errors: self };
            walk.block(body, false);
        }
        self.states = states;
    }
}

/// A walk along all ways through a handler.
struct Walk<'h, 'c, 'a> {
    steps: Steps<'h>,
    begins: Vec<&'h HStmt>,
    /// Where the step at hand began.
    begun: Option<Span>,
    /// Something was changed and has not taken effect.
    dirty: bool,
    errors: &'c mut Checker<'a>,
}

impl<'h> Walk<'h, '_, '_> {
    /// `later`: behind the block there are changes on some way.
    fn block(&mut self, block: &'h HBlock, later: bool) {
        let later = later && !block.diverges;
        if self.dirty && !later && !self.steps.changes(block) {
            self.dirty = false;
        }
        for (at, stmt) in block.stmts.iter().enumerate() {
            let rest = block.stmts.get(at + 1..).unwrap_or(&[]);
            let later = later || self.steps.stmts_change(rest);
            if self.begins.iter().any(|b| std::ptr::eq(*b, stmt)) {
                self.begun = Some(self.first_use(stmt));
            }
            self.stmt(stmt, later);
        }
        if let Some(value) = &block.value {
            self.plain(value, later);
        }
    }

    fn first_use(&self, stmt: &HStmt) -> Span {
        let mut span = None;
        visit::stmt(stmt, &mut |node| match node {
            Node::Expr(e) if self.steps.used_by(&Node::Expr(e)) => {
                span.get_or_insert(e.span);
            }
            Node::Stmt(HStmt::Assign(_, value)) if self.steps.is_change(&node) => {
                span.get_or_insert(value.span);
            }
            _ => {}
        });
        span.unwrap_or_default()
    }

    fn stmt(&mut self, stmt: &'h HStmt, later: bool) {
        match stmt {
            HStmt::Expr(HExpr { kind: HKind::If { cond, then, or_else }, .. }) => {
                self.plain(cond, later || self.steps.changes(then) || self.steps.changes(or_else));
                self.ways(&[then, or_else], later);
            }
            HStmt::Expr(HExpr { kind: HKind::Match { of, arms }, .. }) => {
                let blocks: Vec<&HBlock> = arms.iter().map(|a| &a.body).collect();
                self.plain(of, later || blocks.iter().any(|b| self.steps.changes(b)));
                self.ways(&blocks, later);
            }
            HStmt::Let(_, e) | HStmt::Expr(e) => self.plain(e, later),
            HStmt::LetElse(_, e, or_else) => {
                self.plain(e, later || self.steps.changes(or_else));
                let before = (self.begun, self.dirty);
                self.block(or_else, later);
                (self.begun, self.dirty) = before;
            }
            HStmt::Assign(place, value) => self.assign(place, value, later),
            HStmt::For { list, body, .. } => {
                let changes = self.steps.changes(body);
                self.plain(list, later || changes);
                self.dirty |= changes;
                self.block(body, later || changes);
                self.dirty |= changes;
                self.dirty &= later;
            }
            HStmt::Return => {}
        }
    }

    fn ways(&mut self, blocks: &[&'h HBlock], later: bool) {
        let before = (self.begun, self.dirty);
        let mut dirty = false;
        for block in blocks {
            (self.begun, self.dirty) = before;
            self.block(block, later);
            dirty |= self.dirty && !block.diverges;
        }
        (self.begun, self.dirty) = (before.0, dirty);
    }

    fn assign(&mut self, place: &HPlace, value: &'h HExpr, later: bool) {
        let is_change = matches!(place, HPlace::State(at) if self.steps.is_scalar(*at));
        self.plain(value, later || is_change);
        let what = match place {
            _ if is_change => {
                self.dirty = later;
                return;
            }
            HPlace::Local(_) | HPlace::State(_) => return,
            HPlace::Map { .. } | HPlace::MapBy { .. } => "a change of a map",
            HPlace::Meta { .. } => "a change of metadata",
            _ => "a change of the call",
        };
        self.refuse(what, value.span, later);
    }

    /// An expression that is no way by itself.
    fn plain(&mut self, e: &'h HExpr, later: bool) {
        let mut found: Vec<(&str, Span)> = Vec::new();
        let mut hidden = None;
        visit::expr(e, &mut |node| {
            if self.steps.is_change(&node)
                && let Node::Stmt(HStmt::Assign(_, value)) = &node
            {
                hidden.get_or_insert(value.span);
            }
            let Node::Expr(e) = node else { return };
            match &e.kind {
                HKind::Effect(Effect::Reject { .. }) => {}
                HKind::Effect(effect) => found.push((effect_name(effect), e.span)),
                HKind::Call(Func::Next, _) => found.push(("`next`", e.span)),
                HKind::Cell { .. } if visit::changes_cell(e) => found.push(("a change of a cell", e.span)),
                _ => {}
            }
        });
        if let Some(span) = hidden {
            self.errors.error(
                Diagnostic::error(span, "`node` state is changed within a value")
                    .label("expected a statement of its own"),
            );
        }
        for (what, span) in found {
            self.refuse(what, span, later);
        }
    }

    fn refuse(&mut self, what: &str, span: Span, later: bool) {
        let Some(begun) = self.begun.filter(|_| self.dirty || later) else { return };
        self.errors.error(
            Diagnostic::error(span, format!("{what} stands within an atomic step over `node` state"))
                .label("it would happen again when shards meet")
                .also(begun, "the step begins here and ends with the last change")
                .help("move it before the first use or behind the last change, or use a `counter`, `bucket` or `window`"),
        );
    }
}

fn effect_name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Reject { .. } => "`reject`",
        Effect::Delay(_) => "`delay`",
        Effect::Log { .. } => "`log`",
        Effect::Count { .. } => "`count`",
        Effect::Observe { .. } => "`observe`",
        Effect::AccessLog(_) => "`access_log`",
        Effect::Compress { .. } => "`compress`",
        Effect::Decompress => "`decompress`",
        Effect::Boundary { opens: false, .. } => "`encrypt`",
        Effect::Boundary { opens: true, .. } => "`decrypt`",
    }
}
