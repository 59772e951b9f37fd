//! Blocks, statements, patterns, assignable places.

use crate::ast::{Arm, AssignOp, Block, Expr, ExprKind, HandlerKind, Pattern, Stmt};
use crate::diag::Diagnostic;
use crate::hir::{Const, HArm, HBin, HBlock, HExpr, HKind, HPattern, HPlace, HStmt};
use crate::lower;
use crate::source::Span;
use crate::ty::{HeaderSide, Ty};

use super::{Checker, Context, constant};

/// Names an element may not write, although it may read them.
const READ_ONLY: [&str; 2] = ["te", "content-type"];

impl Checker<'_> {
    /// `wants_value`: the last expression is the block's value, of type `want` if that is known.
    pub(super) fn block(&mut self, block: &Block, wants_value: bool, want: Option<&Ty>) -> HBlock {
        self.scopes.push(Vec::new());
        let mut out = HBlock::default();
        for (at, stmt) in block.stmts.iter().enumerate() {
            if out.diverges {
                self.error(
                    Diagnostic::error(stmt_span(stmt), "this is never reached")
                        .label("what stands before ends the handler"),
                );
                break;
            }
            let is_last = at + 1 == block.stmts.len();
            match stmt {
                Stmt::Expr(e) if is_last && wants_value => {
                    let value = self.expr(e, want);
                    out.diverges = value.ty == Ty::Never;
                    out.value = Some(Box::new(value));
                }
                _ => {
                    let (stmt, diverges) = self.stmt(stmt);
                    out.diverges = diverges;
                    out.stmts.extend(stmt);
                }
            }
        }
        self.scopes.pop();
        out
    }

    /// The checked statement, and whether what follows is never reached.
    fn stmt(&mut self, stmt: &Stmt) -> (Option<HStmt>, bool) {
        match stmt {
            Stmt::Let { name, value, or_else: None } => {
                let value = self.expr(value, None);
                let mut value = self.settle(value);
                let is_state_map = matches!((&value.ty, &value.kind), (Ty::Map(..), HKind::State(_)));
                if is_state_map
                    || matches!(
                        value.ty.bare(),
                        Ty::Cell(_)
                            | Ty::NoneLit
                            | Ty::Unit
                            | Ty::Call
                            | Ty::Peer
                            | Ty::CallRequest
                            | Ty::Headers(_)
                            | Ty::AnyMessage
                    )
                {
                    value = self.wrong(
                        Diagnostic::error(value.span, format!("{} is no value to keep", value.ty))
                            .label("expected a value"),
                    );
                }
                let diverges = value.ty == Ty::Never;
                let local = self.bind(&name.text, value.ty.clone());
                (Some(HStmt::Let(local, value)), diverges)
            }
            Stmt::Let { name, value, or_else: Some(or_else) } => {
                let value = self.expr(value, None);
                if !value.ty.is_opt() && !value.ty.is_error() {
                    self.error(
                        Diagnostic::error(value.span, "this is never absent")
                            .label(format!("this is {}", value.ty))
                            .help("`let … else` is for a `T?`; leave the `else` away"),
                    );
                }
                let block = self.block(or_else, false, None);
                if !block.diverges {
                    self.error(
                        Diagnostic::error(or_else.span, "the `else` of a `let` must not fall through")
                            .label("expected `return` or `reject(…)`"),
                    );
                }
                let local = self.bind(&name.text, value.ty.bare().clone());
                (Some(HStmt::LetElse(local, value, block)), false)
            }
            Stmt::Return(_) => (Some(HStmt::Return), true),
            Stmt::For { name, list, body, span } => {
                let list = self.expr(list, None);
                let list = self.listed(list);
                let item = match &list.ty {
                    Ty::List(item) => (**item).clone(),
                    other if other.bare().is_error() => Ty::Error,
                    other => {
                        let error = Diagnostic::error(list.span, format!("expected a list, found {other}"));
                        self.error(error);
                        Ty::Error
                    }
                };
                let _ = span;
                self.scopes.push(Vec::new());
                let local = self.bind(&name.text, item);
                let body = self.block(body, false, None);
                self.scopes.pop();
                (Some(HStmt::For { local, list, body }), false)
            }
            Stmt::Assign { place, op, value } => (self.assign(place, *op, value), false),
            Stmt::Expr(e) => {
                let value = self.statement_expr(e);
                let diverges = value.ty == Ty::Never;
                let is_done = lower::visit::changes_cell(&value);
                if !is_done && !matches!(value.ty, Ty::Unit | Ty::Never | Ty::Error) {
                    self.error(
                        Diagnostic::error(value.span, "this value is not used")
                            .label(format!("this is {}", value.ty))
                            .help("assign it, or leave it away"),
                    );
                }
                (Some(HStmt::Expr(value)), diverges)
            }
        }
    }

    /// An expression whose value nobody wants: branches need not agree.
    fn statement_expr(&mut self, e: &Expr) -> HExpr {
        match &*e.kind {
            ExprKind::If { cond, then, or_else } => {
                let cond = self.condition(cond);
                let then = self.block(then, false, None);
                let or_else = or_else.as_ref().map_or_else(HBlock::default, |b| self.block(b, false, None));
                let ty = if then.diverges && or_else.diverges { Ty::Never } else { Ty::Unit };
                HExpr { kind: HKind::If { cond: Box::new(cond), then, or_else }, ty, span: e.span }
            }
            ExprKind::Match { of, arms } => self.match_expr(of, arms, e.span, false, None),
            _ => self.expr(e, None),
        }
    }

    pub(super) fn condition(&mut self, cond: &Expr) -> HExpr {
        let value = self.expr(cond, Some(&Ty::Bool));
        self.coerce(value, &Ty::Bool)
    }

    pub(super) fn match_expr(
        &mut self,
        of: &Expr,
        arms: &[Arm],
        span: Span,
        wants_value: bool,
        want: Option<&Ty>,
    ) -> HExpr {
        let of = self.expr(of, None);
        let of = self.settle(of);
        let mut out: Vec<HArm> = Vec::new();
        for arm in arms {
            if let Some(span) = self.unreachable_arm(&out, &arm.pattern) {
                self.error(
                    Diagnostic::error(span, "this arm is never reached")
                        .label("the arms above take everything"),
                );
            }
            self.scopes.push(Vec::new());
            let pattern = self.pattern(&arm.pattern, &of.ty);
            let body = self.block(&arm.body, wants_value, want);
            self.scopes.pop();
            out.push(HArm { pattern, body });
        }
        let mut ty = None;
        if wants_value {
            let blocks = out.iter_mut().zip(arms).map(|(o, a)| (&mut o.body, a.body.span)).collect();
            ty = Some(self.join(blocks, want));
        }
        self.exhaustive(&of.ty, &out, span);
        let diverges = !out.is_empty() && out.iter().all(|a| a.body.diverges);
        let ty = match (diverges, wants_value) {
            (true, _) => Ty::Never,
            (false, false) => Ty::Unit,
            (false, true) => ty.unwrap_or(Ty::Error),
        };
        HExpr { kind: HKind::Match { of: Box::new(of), arms: out }, ty, span }
    }

    /// Gives the values of all branches one type: that of the first that says more than a literal, absent
    /// if one may be, a float if one is.
    pub(super) fn join(&mut self, blocks: Vec<(&mut HBlock, Span)>, want: Option<&Ty>) -> Ty {
        let values: Vec<&HExpr> = blocks.iter().filter_map(|(b, _)| b.value.as_deref()).collect();
        let known = || {
            values
                .iter()
                .map(|v| v.ty.bare())
                .filter(|t| !matches!(t, Ty::Num | Ty::NoneLit | Ty::Never | Ty::Error))
        };
        let literals = || match want.map(Ty::bare) {
            _ if values.iter().any(|v| v.ty.bare().is_error()) => Ty::Error,
            Some(want) if values.iter().all(|v| v.ty == Ty::NoneLit) || want.is_number() => want.clone(),
            _ if values.iter().any(|v| super::is_negated(v)) => Ty::Int,
            _ => Ty::Uint,
        };
        let float = known().find(|t| **t == Ty::Float).filter(|_| known().all(Ty::is_number));
        let bare = float.or_else(|| known().next()).cloned().unwrap_or_else(literals);
        let ty = match bare {
            Ty::Error if values.iter().all(|v| v.ty.is_opt()) => Ty::Opt(Box::new(Ty::Error)),
            bare if values.iter().any(|v| v.ty.is_opt()) => bare.opt(),
            bare => bare,
        };
        for (block, span) in blocks.into_iter().filter(|(b, _)| !b.diverges) {
            match block.value.take() {
                Some(value) => block.value = Some(Box::new(self.coerce(*value, &ty))),
                None => self.error(
                    Diagnostic::error(span, "this branch has no value").label("expected a value at its end"),
                ),
            }
        }
        ty
    }

    fn pattern(&mut self, pattern: &Pattern, of: &Ty) -> HPattern {
        let not_optional = |span| {
            Diagnostic::error(span, "this pattern is for a value that may be absent")
                .label(format!("the value is {of}"))
        };
        match pattern {
            Pattern::Any(_) => HPattern::Any,
            Pattern::None(span) => {
                if !of.is_opt() && !of.is_error() {
                    self.error(not_optional(*span));
                }
                HPattern::None
            }
            Pattern::Some(name) => {
                if !of.is_opt() && !of.is_error() {
                    self.error(not_optional(name.span));
                }
                HPattern::Some(self.bind(&name.text, of.bare().clone()))
            }
            Pattern::Value(expr) => {
                let bare = of.bare().clone();
                let value = self.expr(expr, Some(&bare));
                let value = self.coerce(value, &bare);
                if !matches!(value.kind, HKind::Const(_) | HKind::Error) {
                    self.error(
                        Diagnostic::error(value.span, "a pattern is a constant")
                            .label("expected a literal, a name of the type, `Some(x)`, `None` or `_`"),
                    );
                }
                HPattern::Value(value)
            }
        }
    }

    fn unreachable_arm(&self, before: &[HArm], pattern: &Pattern) -> Option<Span> {
        let has_any = before.iter().any(|a| matches!(a.pattern, HPattern::Any));
        let span = match pattern {
            Pattern::Some(name) => name.span,
            Pattern::None(span) | Pattern::Any(span) => *span,
            Pattern::Value(expr) => expr.span,
        };
        let some = before.iter().any(|a| matches!(a.pattern, HPattern::Some(_)));
        let none = before.iter().any(|a| matches!(a.pattern, HPattern::None));
        let taken = match pattern {
            Pattern::None(_) => none,
            Pattern::Any(_) => some && none,
            _ => some,
        };
        (has_any || taken).then_some(span)
    }

    fn exhaustive(&mut self, of: &Ty, arms: &[HArm], span: Span) {
        let has = |test: &dyn Fn(&HPattern) -> bool| arms.iter().any(|a| test(&a.pattern));
        if of.is_error() || has(&|p| matches!(p, HPattern::Any)) {
            return;
        }
        let takes = |word: u64| {
            arms.iter().any(|a| {
                matches!(&a.pattern, HPattern::Value(HExpr { kind: HKind::Const(Const::Word(w)), .. }) if *w == word)
            })
        };
        let mut missing: Vec<String> = Vec::new();
        if of.is_opt() && !has(&|p| matches!(p, HPattern::None)) {
            missing.push("None".to_owned());
        }
        if !has(&|p| matches!(p, HPattern::Some(_))) {
            match of.bare() {
                Ty::Bool => {
                    missing.extend(
                        [(0, "false"), (1, "true")]
                            .iter()
                            .filter(|(w, _)| !takes(*w))
                            .map(|(_, n)| (*n).to_owned()),
                    );
                }
                Ty::Enum(id) => {
                    let names = id.def().variants.iter().zip(0_u64..);
                    missing.extend(names.filter(|(_, w)| !takes(*w)).map(|(n, _)| (*n).to_owned()));
                }
                _ if of.is_opt() => missing.push("Some(x)".to_owned()),
                _ => missing.push("_".to_owned()),
            }
        }
        if !missing.is_empty() {
            let list = missing.join("`, `");
            self.error(
                Diagnostic::error(span, format!("this match leaves out `{list}`"))
                    .label("not every value has an arm")
                    .help("`_ => …` takes the rest"),
            );
        }
    }

    fn assign(&mut self, place: &Expr, op: AssignOp, value: &Expr) -> Option<HStmt> {
        let target = self.expr(place, None);
        if target.ty.is_error() {
            self.expr(value, Some(&Ty::Error));
            return None;
        }
        let Some((to, ty)) = self.place(&target) else {
            self.expr(value, None);
            return None;
        };
        if let (HPlace::Payload(written, _), AssignOp::Set, ExprKind::None) = (&to, op, &*value.kind) {
            // A field that is never absent is as it is where nobody has set it: at its default, or empty.
            let ty = ty.opt();
            let none = constant(Const::None, ty.clone(), value.span);
            return Some(HStmt::Assign(HPlace::Payload(written.clone(), ty), none));
        }
        let value = match op {
            AssignOp::Set => match (&to, &ty) {
                (HPlace::WholePayload, _) => {
                    let value = self.expr(value, Some(&ty));
                    self.whole_message(value)
                }
                (HPlace::Payload(..), Ty::Map(..)) => {
                    let HKind::Payload(path) = &target.kind else { return None };
                    let Some((number, entry)) = path.map_entry() else {
                        let error =
                            Diagnostic::error(target.span, "this map has another number in each method");
                        self.error(error.help("write it entry by entry"));
                        return None;
                    };
                    let entries = self.entries(&entry, value);
                    let kind = HKind::Entries(number, entry, entries);
                    HExpr { kind, ty: ty.clone(), span: value.span }
                }
                _ => {
                    let value = self.expr(value, Some(&ty));
                    self.coerce(value, &ty)
                }
            },
            AssignOp::Add | AssignOp::Sub => {
                let bin = if op == AssignOp::Add { HBin::Add } else { HBin::Sub };
                if let HPlace::Map { map, key } = to {
                    return self.map_by(map, key, bin, &target, value);
                }
                let right = self.expr(value, Some(&ty));
                let span = target.span.to(right.span);
                let sum = self.arithmetic(bin, target, right, span);
                self.coerce(sum, &ty)
            }
        };
        Some(HStmt::Assign(to, value))
    }

    /// The place an expression names, and the type it takes.
    fn place(&mut self, target: &HExpr) -> Option<(HPlace, Ty)> {
        let in_response = self.context == Context::Handler(HandlerKind::Response);
        let only_response = |what: &str| {
            Diagnostic::error(target.span, format!("`{what}` can be written in `response` only"))
                .label("there is no answer yet")
        };
        let is_message = matches!(
            self.context,
            Context::Handler(HandlerKind::RequestMessage | HandlerKind::ResponseMessage)
        );
        let is_of_call = matches!(
            target.kind,
            HKind::Endpoint
                | HKind::Destination
                | HKind::Deadline
                | HKind::Meta { .. }
                | HKind::MetaBin { .. }
        );
        if is_message && is_of_call {
            self.error(
                Diagnostic::error(target.span, "the call is on its way when its messages come")
                    .label("cannot be written in a message handler")
                    .help("write it in `request` or `response`"),
            );
            return None;
        }
        let place = match &target.kind {
            HKind::Local(id) => (HPlace::Local(*id), target.ty.clone()),
            HKind::State(_) | HKind::MapAt { .. } if matches!(target.ty, Ty::Cell(_) | Ty::Map(..)) => {
                self.error(
                    Diagnostic::error(target.span, format!("a {} is not assigned", target.ty))
                        .label("it has operations of its own"),
                );
                return None;
            }
            HKind::State(at) => (HPlace::State(*at), target.ty.clone()),
            HKind::MapAt { map, key } => (HPlace::Map { map: *map, key: (**key).clone() }, target.ty.clone()),
            HKind::Endpoint if !in_response => (HPlace::Endpoint, target.ty.clone()),
            HKind::Destination if !in_response => (HPlace::Destination, target.ty.clone()),
            HKind::Endpoint | HKind::Destination => {
                self.error(
                    Diagnostic::error(target.span, "the endpoint is final in `response`")
                        .label("choose it in `request`"),
                );
                return None;
            }
            HKind::Deadline => (HPlace::Deadline, Ty::Instant),
            HKind::Num(abi::Num::Status) if in_response => (HPlace::Status, Ty::Status),
            HKind::Num(abi::Num::Status) => {
                self.error(only_response("call.status"));
                return None;
            }
            HKind::Text(abi::Text::Message) => (HPlace::Message, Ty::Str),
            HKind::Meta { side, key } => {
                self.writable_key(target, *side, key)?;
                (HPlace::Meta { side: *side, key: (**key).clone() }, target.ty.clone())
            }
            HKind::MetaBin { side, key } => {
                self.writable_key(target, *side, key)?;
                (HPlace::Meta { side: *side, key: (**key).clone() }, target.ty.clone())
            }
            HKind::WholePayload => (HPlace::WholePayload, Ty::Bytes),
            HKind::Payload(_) => (self.payload_place(target)?, target.ty.clone()),
            HKind::Index(of, _) if matches!(of.kind, HKind::Payload(_)) => {
                (self.payload_place(target)?, target.ty.clone())
            }
            HKind::Param(_) | HKind::CallParam(_) => {
                self.error(
                    Diagnostic::error(target.span, "a parameter is constant").label("cannot be assigned"),
                );
                return None;
            }
            _ => {
                self.error(
                    Diagnostic::error(target.span, "this cannot be assigned")
                        .label("expected a variable, a state or a field of `call`"),
                );
                return None;
            }
        };
        Some(place)
    }

    fn writable_key(&mut self, target: &HExpr, side: abi::Side, key: &HExpr) -> Option<()> {
        if side == abi::Side::Request && self.is_response() {
            self.error(
                Diagnostic::error(target.span, "the request has left").label("read-only in `response`"),
            );
            return None;
        }
        let HKind::Const(Const::Str(name)) = &key.kind else { return Some(()) };
        if is_read_only(name) {
            self.error(
                Diagnostic::error(key.span, format!("`{name}` is read-only"))
                    .label("pseudo-headers, grpc-*, te and content-type cannot be written"),
            );
            return None;
        }
        Some(())
    }

    /// `metadata` of the handler at hand.
    pub(super) fn own_side(&self) -> HeaderSide {
        if self.is_response() { HeaderSide::Response } else { HeaderSide::Request }
    }
}

/// A header that no element writes.
pub(crate) fn is_read_only(name: &str) -> bool {
    name.starts_with(':') || name.starts_with("grpc-") || READ_ONLY.contains(&name)
}

fn stmt_span(stmt: &Stmt) -> Span {
    match stmt {
        Stmt::Let { name, .. } => name.span,
        Stmt::Assign { place, .. } => place.span,
        Stmt::For { span, .. } | Stmt::Return(span) => *span,
        Stmt::Expr(e) => e.span,
    }
}
