//! Walks over the typed tree: what a handler writes, and whether it only chooses an endpoint.

use crate::hir::{Effect, HBlock, HExpr, HKind, HPattern, HPlace, HStmt, LocalId, Made, Pairs, Path, Root};
use crate::ty::Ty;

/// What a walk meets.
pub(crate) enum Node<'h> {
    Expr(&'h HExpr),
    Stmt(&'h HStmt),
}

/// Every statement and expression of a block.
pub(crate) fn block<'h>(block: &'h HBlock, meet: &mut dyn FnMut(Node<'h>)) {
    block.stmts.iter().for_each(|s| stmt(s, meet));
    if let Some(value) = &block.value {
        expr(value, meet);
    }
}

/// A statement and all within it.
pub(crate) fn stmt<'h>(stmt: &'h HStmt, meet: &mut dyn FnMut(Node<'h>)) {
    meet(Node::Stmt(stmt));
    match stmt {
        HStmt::Let(_, e) | HStmt::Expr(e) => expr(e, meet),
        HStmt::LetElse(_, e, or_else) => {
            expr(e, meet);
            block(or_else, meet);
        }
        HStmt::Assign(place, e) => {
            if let HPlace::Meta { key, .. } | HPlace::Map { key, .. } | HPlace::MapBy { key, .. } = place {
                expr(key, meet);
            }
            if let HPlace::Payload(written, _) = place {
                written.picks().for_each(|pick| expr(pick, meet));
            }
            expr(e, meet);
        }
        HStmt::For { list, body, .. } => {
            expr(list, meet);
            block(body, meet);
        }
        HStmt::Return => {}
    }
}

/// An expression and all within it.
pub(crate) fn expr<'h>(e: &'h HExpr, meet: &mut dyn FnMut(Node<'h>)) {
    meet(Node::Expr(e));
    match &e.kind {
        HKind::Meta { key: a, .. }
        | HKind::MapAt { key: a, .. }
        | HKind::MetaAll { key: a, .. }
        | HKind::MetaBin { key: a, .. }
        | HKind::EndpointField(_, a)
        | HKind::Widen(a)
        | HKind::Wrap(a)
        | HKind::Not(a)
        | HKind::Neg(a) => expr(a, meet),
        HKind::Quantile { list, q, body, .. } => {
            expr(list, meet);
            expr(q, meet);
            expr(body, meet);
        }
        HKind::EndpointLabel(a, b)
        | HKind::EndpointReport(a, b)
        | HKind::Bin(_, a, b)
        | HKind::And(a, b)
        | HKind::Or(a, b)
        | HKind::Equal { left: a, right: b, .. }
        | HKind::Coalesce(a, b)
        | HKind::In(a, b)
        | HKind::Index(a, b)
        | HKind::Each { list: a, body: b, .. } => {
            expr(a, meet);
            expr(b, meet);
        }
        HKind::Cell { of, arg, .. } => {
            expr(of, meet);
            arg.iter().for_each(|arg| expr(arg, meet));
        }
        HKind::If { cond, then, or_else } => {
            expr(cond, meet);
            block(then, meet);
            block(or_else, meet);
        }
        HKind::Match { of, arms } => {
            expr(of, meet);
            for arm in arms {
                if let HPattern::Value(value) = &arm.pattern {
                    expr(value, meet);
                }
                block(&arm.body, meet);
            }
        }
        HKind::List(items) | HKind::Interp(items) | HKind::Call(_, items) => {
            items.iter().for_each(|item| expr(item, meet));
        }
        HKind::Map(items) => pairs(items, meet),
        HKind::Effect(effect) => match effect {
            Effect::Reject { status: a, text: b } | Effect::Compress { encoding: a, min: b } => {
                expr(a, meet);
                expr(b, meet);
            }
            Effect::Decompress => {}
            Effect::Delay(a) | Effect::AccessLog(a) | Effect::Boundary { key: a, .. } => expr(a, meet),
            Effect::Count { by: a, labels, .. } => {
                expr(a, meet);
                labels.iter().for_each(|(_, label)| expr(label, meet));
            }
            Effect::Observe { value: a, .. } => expr(a, meet),
            Effect::Log { level, fields } => {
                expr(level, meet);
                fields.iter().for_each(|(_, field)| expr(field, meet));
            }
        },
        HKind::Made(fields) => fields.iter().for_each(|(_, made)| match made {
            Made::Value(value) => expr(value, meet),
            Made::Entries(entries) => listed(entries, meet),
        }),
        HKind::Entries(.., entries) => listed(entries, meet),
        HKind::Payload(path) => {
            if let Root::Value(of) = &path.root {
                expr(of, meet);
            }
            if let Some(key) = &path.key {
                expr(key, meet);
            }
        }
        HKind::Error
        | HKind::WholePayload
        | HKind::Const(_)
        | HKind::Local(_)
        | HKind::Param(_)
        | HKind::CallParam(_)
        | HKind::State(_)
        | HKind::Num(_)
        | HKind::Text(_)
        | HKind::Source
        | HKind::PeerIp
        | HKind::Deadline
        | HKind::Destination
        | HKind::Endpoint
        | HKind::Endpoints
        | HKind::Flag
        | HKind::Place => {}
    }
}

fn listed<'h>(entries: &'h Pairs, meet: &mut dyn FnMut(Node<'h>)) {
    match entries {
        Pairs::Listed(items) => pairs(items, meet),
        Pairs::Of(map) => expr(map, meet),
    }
}

fn pairs<'h>(items: &'h [(HExpr, HExpr)], meet: &mut dyn FnMut(Node<'h>)) {
    for (k, v) in items {
        expr(k, meet);
        expr(v, meet);
    }
}

/// The locals that are assigned after their `let`.
pub(super) fn assigned(body: &HBlock) -> Vec<LocalId> {
    let mut out = Vec::new();
    block(body, &mut |node| out.extend(assigned_by(&node)));
    out
}

/// The locals that are assigned within an expression, where an operand before it may have read them already.
pub(super) fn assigned_within(body: &HBlock) -> Vec<LocalId> {
    let mut out = Vec::new();
    within_block(body, &mut out);
    out
}

fn within_block(block: &HBlock, out: &mut Vec<LocalId>) {
    for stmt in &block.stmts {
        match stmt {
            HStmt::Let(_, e) | HStmt::Expr(e) | HStmt::Assign(HPlace::Local(_) | HPlace::State(_), e) => {
                within(e, out);
            }
            HStmt::Assign(..) => self::stmt(stmt, &mut |node| out.extend(assigned_by(&node))),
            HStmt::LetElse(_, e, or_else) => {
                within(e, out);
                within_block(or_else, out);
            }
            HStmt::For { list, body, .. } => {
                within(list, out);
                within_block(body, out);
            }
            HStmt::Return => {}
        }
    }
    block.value.iter().for_each(|value| within(value, out));
}

/// An expression that is no operand of another: the blocks of an `if` or `match` stand for themselves.
fn within(e: &HExpr, out: &mut Vec<LocalId>) {
    match &e.kind {
        HKind::If { cond, then, or_else } => {
            within(cond, out);
            within_block(then, out);
            within_block(or_else, out);
        }
        HKind::Match { of, arms } => {
            within(of, out);
            for arm in arms {
                if let HPattern::Value(value) = &arm.pattern {
                    expr(value, &mut |node| out.extend(assigned_by(&node)));
                }
                within_block(&arm.body, out);
            }
        }
        _ => expr(e, &mut |node| out.extend(assigned_by(&node))),
    }
}

fn assigned_by(node: &Node<'_>) -> Option<LocalId> {
    match node {
        Node::Stmt(HStmt::Assign(HPlace::Local(id), _)) => Some(*id),
        _ => None,
    }
}

/// It writes `call.endpoint`.
pub(super) fn writes_endpoint(body: &HBlock) -> bool {
    let mut found = false;
    block(body, &mut |node| found |= matches!(node, Node::Stmt(HStmt::Assign(HPlace::Endpoint, _))));
    found
}

/// It does nothing but choose `call.endpoint`: it can run once per attempt.
pub(super) fn only_chooses(body: &HBlock) -> bool {
    let mut only = true;
    block(body, &mut |node| match node {
        Node::Stmt(HStmt::Assign(place, _)) => {
            only &= matches!(place, HPlace::Endpoint | HPlace::Local(_));
        }
        Node::Expr(HExpr { kind: HKind::Effect(_), .. }) => only = false,
        Node::Expr(e) if changes_cell(e) => only = false,
        _ => {}
    });
    only && writes_endpoint(body)
}

/// What a block reads of the message at hand, whether it reads the message whole or in parts.
pub(super) fn block_reads(body: &HBlock) -> Reads {
    let mut reads = Reads::default();
    block(body, &mut |node| match node {
        Node::Expr(e) => reads.add(e),
        Node::Stmt(HStmt::Assign(HPlace::Payload(..), _)) => reads.fields = true,
        Node::Stmt(HStmt::Assign(HPlace::WholePayload, _)) => reads.whole = true,
        Node::Stmt(_) => {}
    });
    reads
}

/// What is read of the message at hand.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Reads {
    /// Fields of it.
    pub(super) fields: bool,
    /// All of its bytes.
    pub(super) whole: bool,
    /// How long it is.
    pub(super) size: bool,
}

impl Reads {
    fn add(&mut self, e: &HExpr) {
        match &e.kind {
            HKind::Payload(path) => self.fields |= matches!(path.root, Root::Call(_)),
            HKind::WholePayload => {
                self.whole = true;
                // As a message it is read like any part of it.
                self.fields |= e.ty != Ty::Bytes;
            }
            HKind::Num(abi::Num::Size) => self.size = true,
            _ => {}
        }
    }

    /// With what an expression reads.
    pub(super) fn and(mut self, e: &HExpr) -> Self {
        expr(e, &mut |node| {
            if let Node::Expr(e) = node {
                self.add(e);
            }
        });
        self
    }

    /// With what else is read.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            fields: self.fields | other.fields,
            whole: self.whole | other.whole,
            size: self.size | other.size,
        }
    }

    /// Anything.
    pub(super) fn any(self) -> bool {
        self.fields || self.whole || self.size
    }
}

/// The fields of the request that a block reads after it has left.
pub(super) fn kept<'h>(body: &'h HBlock, out: &mut Vec<(&'h Path, &'h HExpr)>) {
    block(body, &mut |node| {
        if let Node::Expr(e @ HExpr { kind: HKind::Payload(path), .. }) = node
            && matches!(path.root, Root::Kept)
            && !out.iter().any(|(known, _)| known.name() == path.name())
        {
            out.push((path, e));
        }
    });
}

/// It is an operation that changes a cell.
pub(crate) fn changes_cell(e: &HExpr) -> bool {
    use crate::vm::code::CellOp::{Count, Max, Mean, Quantile, Sum, Value};
    match &e.kind {
        HKind::Cell { op, .. } => !matches!(op, Value | Count | Sum | Mean | Max | Quantile),
        _ => false,
    }
}

/// It makes a message.
pub(super) fn makes(e: &HExpr) -> bool {
    let mut found = false;
    expr(e, &mut |node| found |= matches!(node, Node::Expr(HExpr { kind: HKind::Made(_), .. })));
    found
}

/// The call-parameters it reads.
pub(super) fn call_params(body: &HBlock) -> Vec<u16> {
    let mut out = Vec::new();
    block(body, &mut |node| out.extend(call_param(&node)));
    out
}

/// The same of an expression.
pub(super) fn call_params_of(e: &HExpr) -> Vec<u16> {
    let mut out = Vec::new();
    expr(e, &mut |node| out.extend(call_param(&node)));
    out
}

fn call_param(node: &Node<'_>) -> Option<u16> {
    match node {
        Node::Expr(HExpr { kind: HKind::CallParam(at), .. }) => Some(*at),
        _ => None,
    }
}

/// It draws random numbers.
pub(super) fn draws(e: &HExpr) -> bool {
    use crate::hir::Func;
    let mut found = false;
    expr(e, &mut |node| {
        if let Node::Expr(HExpr { kind: HKind::Call(func, _), .. }) = node {
            found |= matches!(
                func,
                Func::Random | Func::Chance | Func::Sample | Func::WeightedEndpoint | Func::WeightedMap
            );
        }
    });
    found
}

/// The same of a block.
pub(super) fn block_draws(body: &HBlock) -> bool {
    let mut found = false;
    block(body, &mut |node| {
        if let Node::Expr(e) = node
            && matches!(e.kind, HKind::Call(..))
        {
            found |= draws(e);
        }
    });
    found
}
