//! Expressions: literals, names, operators, branches.

use crate::ast::{BinOp, Block, Expr, ExprKind, Part, UnOp};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::hir::{Const, Func, HBin, HExpr, HKind};
use crate::source::Span;
use crate::ty::{ENUMS, Ty};

use super::{Checker, constant, func::EFFECTS, func::FUNCS, hint};

fn node(kind: HKind, ty: Ty, span: Span) -> HExpr {
    HExpr { kind, ty, span }
}

impl Checker<'_> {
    /// Checks an expression. `want` only helps to read it: names of enums, literals, lists.
    pub(super) fn expr(&mut self, e: &Expr, want: Option<&Ty>) -> HExpr {
        let value = self.part(e, want);
        if value.ty == Ty::Payload { self.whole_payload(value, want) } else { value }
    }

    /// The same of what may be followed by a field.
    fn part(&mut self, e: &Expr, want: Option<&Ty>) -> HExpr {
        let span = e.span;
        let word = |w: u64, ty: Ty| constant(Const::Word(w), ty, span);
        match &*e.kind {
            ExprKind::Int(n) => word(*n, Ty::Num),
            ExprKind::Float(x) => word(x.to_bits(), Ty::Float),
            ExprKind::Duration(ns) => word(ns.cast_unsigned(), Ty::Duration),
            ExprKind::Rate(r) => word(r.to_bits(), Ty::Rate),
            ExprKind::Bool(b) => word(u64::from(*b), Ty::Bool),
            ExprKind::Str(s) => constant(Const::Str(s.as_str().into()), Ty::Str, span),
            ExprKind::None => constant(Const::None, Ty::NoneLit, span),
            ExprKind::Interp(parts) => self.interp(parts, span),
            ExprKind::Name(name) => self.name(name, span, want),
            ExprKind::Field { of, name, optional } => {
                let of = self.part(of, None);
                if !*optional {
                    return self.field(of, name, span);
                }
                if of.ty.is_error() {
                    return of;
                }
                if !matches!(of.ty.bare(), Ty::Payload | Ty::Message(_) | Ty::AnyMessage) {
                    return self.wrong(
                        Diagnostic::error(name.span, "`?.` stands right after `payload` only")
                            .label("expected `.`"),
                    );
                }
                self.payload_field(of, name, true, span)
            }
            ExprKind::Index { of, key } => self.index(of, key, span),
            ExprKind::Call { of, args } => self.call(of, args, span, want),
            ExprKind::Lambda { .. } => self.wrong(
                Diagnostic::error(span, "a function stands only where one is expected")
                    .label("expected a value")
                    .help("as in `least(list, e => e.inflight)`"),
            ),
            ExprKind::Unary { op, of } => self.unary(*op, of, span),
            ExprKind::Binary { op, left, right } => self.binary(*op, left, right, span, want),
            ExprKind::If { cond, then, or_else } => self.if_expr(cond, then, or_else.as_ref(), span, want),
            ExprKind::Match { of, arms } => self.match_expr(of, arms, span, true, want),
            ExprKind::List(items) => self.list(items, span, want),
            ExprKind::Map(items) => self.map(items, span, want),
            ExprKind::Message(name, fields) => self.made(name, fields, span, want),
            ExprKind::Ask => self.wrong(Diagnostic::unsupported(span, "`ask`")),
            ExprKind::Broken => node(HKind::Error, Ty::Error, span),
        }
    }

    fn interp(&mut self, parts: &[Part], span: Span) -> HExpr {
        let mut out = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push(constant(Const::Str(text.as_str().into()), Ty::Str, span)),
                Part::Expr(e) => {
                    let value = self.expr(e, None);
                    let value = self.settle(value);
                    if !value.ty.bare().is_scalar() && !matches!(value.ty.bare(), Ty::Str | Ty::Error) {
                        self.error(
                            Diagnostic::error(value.span, format!("{} cannot be part of a text", value.ty))
                                .label("expected a number, a string, a duration, …"),
                        );
                    }
                    out.push(value);
                }
            }
        }
        node(HKind::Interp(out), Ty::Str, span)
    }

    fn name(&mut self, name: &str, span: Span, want: Option<&Ty>) -> HExpr {
        if let Some(local) = self.local(name) {
            return node(HKind::Local(local.id), local.ty.clone(), span);
        }
        if let Some(at) = self.params.iter().position(|p| p.name == name)
            && let Some(param) = self.params.get(at)
        {
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            let kind = if param.is_call { HKind::CallParam(at) } else { HKind::Param(at) };
            if *param.ty.bare() != Ty::AnyMessage {
                return node(kind, param.ty.clone(), span);
            }
            self.mark_payload();
            return match self.given.get(usize::from(at)) {
                // None was given.
                Some(ty) if *ty.bare() == Ty::AnyMessage => node(kind, Ty::Opt(Box::new(Ty::Error)), span),
                Some(ty) => node(kind, ty.clone(), span),
                None => node(HKind::Error, Ty::Error, span),
            };
        }
        if let Some(at) = self.states.iter().position(|s| s.name == name)
            && let Some(state) = self.states.get(at)
        {
            if self.in_init && state.scope != crate::ast::Scope::Call {
                let error = Diagnostic::error(span, format!("`{name}` is no first value of other state"))
                    .label("it changes");
                return self.wrong(error.help("assign it in a handler"));
            }
            return node(HKind::State(u16::try_from(at).unwrap_or(u16::MAX)), state.ty.clone(), span);
        }
        if name == "call" {
            if self.has_call() {
                return node(HKind::Place, Ty::Call, span);
            }
            return self.wrong(
                Diagnostic::error(span, "there is no call here: this value is fixed when compiling")
                    .label("expected a constant")
                    .help("a parameter over the call is declared `name: call => type`"),
            );
        }
        if let Some(Ty::Enum(id)) = want.map(Ty::bare) {
            let variants = id.def().variants;
            return match variants.iter().position(|v| *v == name) {
                Some(at) => constant(Const::Word(at as u64), Ty::Enum(*id), span),
                None => self.wrong(
                    Diagnostic::error(span, format!("`{name}` is no {}", id.def().name))
                        .label(format!("expected {}", variants.join(", ")))
                        .nearest(name, variants.iter().copied()),
                ),
            };
        }
        if let Some(Ty::ProtoEnum(of)) = want.map(Ty::bare) {
            return match of.get_value_by_name(name) {
                Some(value) => constant(
                    Const::Word(i64::from(value.number()).cast_unsigned()),
                    Ty::ProtoEnum(of.clone()),
                    span,
                ),
                None => {
                    let known: Vec<String> = of.values().map(|v| v.name().to_owned()).collect();
                    let error = Diagnostic::error(span, format!("`{name}` is no {}", of.full_name()))
                        .nearest(name, known.iter().map(String::as_str));
                    self.wrong(error.label(format!("expected {}", known.join(", "))))
                }
            };
        }
        if let Some(status) = abi::Status::from_name(name) {
            return constant(Const::Word(u64::from(status.code())), Ty::Status, span);
        }
        let is_service = matches!(want.map(Ty::bare), Some(Ty::Service));
        if is_service && let Some(at) = self.services.iter().position(|s| s == name) {
            return constant(Const::Word(at as u64), Ty::Service, span);
        }
        self.unknown_name(name, span, want)
    }

    fn unknown_name(&mut self, name: &str, span: Span, want: Option<&Ty>) -> HExpr {
        if want.map(Ty::bare) == Some(&Ty::Error) {
            // It may be a name of a type that is not known here: of a message, or of what is wrong already.
            return node(HKind::Error, Ty::Error, span);
        }
        let mut known: Vec<String> = Vec::new();
        known.extend(self.scopes.iter().flatten().map(|l| l.name.clone()));
        known.extend(self.params.iter().map(|p| p.name.clone()));
        known.extend(self.states.iter().map(|s| s.name.clone()));
        let mut error = Diagnostic::error(span, format!("unknown name `{name}`"));
        if let Some(hint) = elsewhere::name(name) {
            return self.wrong(error.help(hint));
        }
        if self.has_call() && super::call::FIELDS.contains(&name) {
            return self.wrong(error.help(format!("did you mean `call.{name}`?")));
        }
        match want.map(Ty::bare) {
            Some(Ty::Status) => {
                known.extend(abi::Status::all().map(|s| s.name().to_owned()));
                error = error.label("expected a Status, as in UNAVAILABLE");
            }
            Some(Ty::Service) => {
                known.extend(self.services.iter().cloned());
                error = error.label("expected a service of this file");
            }
            Some(Ty::Str) => error = error.label("expected a string in double quotes"),
            _ if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                known.extend(abi::Status::all().map(|s| s.name().to_owned()));
            }
            _ => {
                known.push("call".to_owned());
                let variant_of = ENUMS.iter().find(|e| e.variants.contains(&name));
                if let Some(def) = variant_of {
                    return self.wrong(
                        error.label(format!("`{name}` is a {}, which is not expected here", def.name)),
                    );
                }
                if FUNCS.iter().chain(&EFFECTS).any(|f| *f == name) {
                    return self.wrong(error.help(format!("did you mean `{name}(…)`?")));
                }
            }
        }
        self.wrong(error.nearest(name, known.iter().map(String::as_str)))
    }

    fn unary(&mut self, op: UnOp, of: &Expr, span: Span) -> HExpr {
        match op {
            UnOp::Not => {
                let of = self.condition(of);
                node(HKind::Not(Box::new(of)), Ty::Bool, span)
            }
            UnOp::Neg => {
                let of = self.expr(of, None);
                if !of.ty.is_number() && !matches!(of.ty, Ty::Duration | Ty::Error) {
                    let error = Diagnostic::error(of.span, format!("`-` needs a number, this is {}", of.ty))
                        .label("expected int, float or duration");
                    return self.wrong(error);
                }
                if of.ty == Ty::Uint {
                    return self.wrong(
                        Diagnostic::error(span, "a uint has no minus")
                            .label("expected int, float or duration"),
                    );
                }
                if let (Ty::Float, HKind::Const(Const::Word(w))) = (&of.ty, &of.kind) {
                    return constant(Const::Word((-f64::from_bits(*w)).to_bits()), Ty::Float, span);
                }
                let ty = of.ty.clone();
                node(HKind::Neg(Box::new(of)), ty, span)
            }
        }
    }

    fn binary(&mut self, op: BinOp, left: &Expr, right: &Expr, span: Span, want: Option<&Ty>) -> HExpr {
        match op {
            BinOp::And | BinOp::Or => {
                let (left, right) = (Box::new(self.condition(left)), Box::new(self.condition(right)));
                let kind = if op == BinOp::And { HKind::And(left, right) } else { HKind::Or(left, right) };
                node(kind, Ty::Bool, span)
            }
            BinOp::Eq | BinOp::Ne => self.equality(op == BinOp::Ne, left, right, span),
            BinOp::In => self.contained(left, right, span),
            BinOp::Coalesce => self.coalesce(left, right, span, want),
            BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Rem => {
                let bin = match op {
                    BinOp::Add => HBin::Add,
                    BinOp::Sub => HBin::Sub,
                    BinOp::Mul => HBin::Mul,
                    BinOp::Div => HBin::Div,
                    _ => HBin::Rem,
                };
                let (left, right) = (self.expr(left, None), self.expr(right, None));
                self.arithmetic(bin, left, right, span)
            }
            BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge => {
                let bin = match op {
                    BinOp::Lt => HBin::Lt,
                    BinOp::Le => HBin::Le,
                    BinOp::Gt => HBin::Gt,
                    _ => HBin::Ge,
                };
                let (left, right) = (self.expr(left, None), self.expr(right, None));
                self.mark_compared(&left, &right);
                let Some((left, right)) = self.same(left, right, op) else {
                    return node(HKind::Error, Ty::Error, span);
                };
                let orders = left.ty.is_number()
                    || matches!(left.ty, Ty::Duration | Ty::Instant | Ty::Rate | Ty::Str | Ty::Error);
                if !orders {
                    let error = Diagnostic::error(span, format!("{} has no order", left.ty))
                        .label("expected numbers, durations, instants, rates or strings");
                    return self.wrong(error);
                }
                node(HKind::Bin(bin, Box::new(left), Box::new(right)), Ty::Bool, span)
            }
        }
    }

    /// What `random()` is compared with is a share.
    fn mark_compared(&mut self, left: &HExpr, right: &HExpr) {
        for (a, b) in [(left, right), (right, left)] {
            if matches!((&a.kind, &b.kind), (HKind::Call(Func::Random, _), HKind::Param(_))) {
                self.mark_share(b);
            }
        }
    }

    /// A share is 0 to 1: told now of one that is known, and of a parameter when it is given.
    pub(super) fn mark_share(&mut self, share: &HExpr) {
        match &share.kind {
            HKind::Param(at) => {
                if let Some(param) = self.params.get_mut(usize::from(*at)) {
                    param.is_share = true;
                }
            }
            HKind::Const(Const::Word(bits)) if share.ty == Ty::Float => {
                if let Some(error) = no_share(None, f64::from_bits(*bits), share.span) {
                    self.error(error);
                }
            }
            _ => {}
        }
    }

    /// Both sides of an operator in one type; neither may be absent.
    fn same(&mut self, left: HExpr, right: HExpr, op: BinOp) -> Option<(HExpr, HExpr)> {
        for side in [&left, &right] {
            if side.ty.is_opt() {
                self.error(
                    Diagnostic::error(
                        side.span,
                        format!("`{}` needs a value, this may be absent", op.text()),
                    )
                    .label(format!("this is {}", side.ty))
                    .help("use `??`, `let … else` or `match`"),
                );
                return None;
            }
        }
        let (left, right) = if left.ty == Ty::Num || (right.ty == Ty::Float && left.ty.is_number()) {
            let right = self.settle(right);
            let ty = right.ty.clone();
            (self.coerce(left, &ty), right)
        } else {
            let ty = left.ty.clone();
            (left, self.coerce(right, &ty))
        };
        (!left.ty.is_error() && !right.ty.is_error()).then_some((left, right))
    }

    fn equality(&mut self, negate: bool, left: &Expr, right: &Expr, span: Span) -> HExpr {
        let left_first = !matches!(&*left.kind, ExprKind::Int(_) | ExprKind::None | ExprKind::Name(_));
        let (left, right) =
            if left_first || matches!(&*right.kind, ExprKind::Int(_) | ExprKind::None | ExprKind::Name(_)) {
                let left = self.expr(left, None);
                let right = self.expr(right, Some(left.ty.bare()));
                (left, right)
            } else {
                let right = self.expr(right, None);
                (self.expr(left, Some(right.ty.bare())), right)
            };
        if left.ty.is_error() || right.ty.is_error() {
            return node(HKind::Error, Ty::Error, span);
        }
        let bare = match (left.ty.bare(), right.ty.bare()) {
            (Ty::Error, other) | (other, Ty::Error) => other.clone(),
            (Ty::Num | Ty::NoneLit, other) | (other, Ty::Num | Ty::NoneLit) => other.clone(),
            (Ty::Float, other) | (other, Ty::Float) if other.is_number() => Ty::Float,
            (left, _) => left.clone(),
        };
        let bare = if bare == Ty::Num { Ty::Uint } else { bare };
        if matches!(bare, Ty::Error | Ty::NoneLit) {
            return constant(Const::Word(u64::from(!negate)), Ty::Bool, span);
        }
        let is_presence = left.ty == Ty::NoneLit || right.ty == Ty::NoneLit;
        if is_presence && matches!(bare, Ty::Message(_) | Ty::AnyMessage) {
            let ty = bare.opt();
            let (left, right) = (self.coerce(left, &ty), self.coerce(right, &ty));
            return node(
                HKind::Equal { left: Box::new(left), right: Box::new(right), negate },
                Ty::Bool,
                span,
            );
        }
        if !bare.is_scalar() && !matches!(bare, Ty::Str | Ty::Bytes | Ty::NoneLit) {
            return self.wrong(Diagnostic::error(span, format!("{bare} cannot be compared")));
        }
        let ty = if left.ty.is_opt() || right.ty.is_opt() { bare.opt() } else { bare };
        let (left, right) = (self.coerce(left, &ty), self.coerce(right, &ty));
        node(HKind::Equal { left: Box::new(left), right: Box::new(right), negate }, Ty::Bool, span)
    }

    fn contained(&mut self, left: &Expr, right: &Expr, span: Span) -> HExpr {
        let is_listed = matches!(&*right.kind, ExprKind::List(_));
        let left = self.expr(left, None);
        if matches!(left.ty, Ty::NoneLit) || left.ty.is_nothing() {
            self.expr(right, None);
            return constant(Const::Word(0), Ty::Bool, span);
        }
        // A number without a type has that of the items, as integers are floats among floats.
        let (left, right) = if left.ty.is_number() && !is_listed {
            let right = self.expr(right, None);
            let right = self.listed(right);
            let left = match &right.ty {
                Ty::List(item) if left.ty == Ty::Num || **item == Ty::Float => self.coerce(left, item),
                _ => self.settle(left),
            };
            (left, right)
        } else {
            let left = self.settle(left);
            let want = Ty::List(Box::new(left.ty.bare().clone()));
            let right = self.expr(right, Some(&want));
            (left, self.listed(right))
        };
        let want = Ty::List(Box::new(left.ty.bare().clone()));
        let right = self.coerce(right, &want);
        if !left.ty.bare().is_scalar() && !matches!(left.ty.bare(), Ty::Str | Ty::Error) {
            return self.wrong(Diagnostic::error(span, format!("{} cannot be looked for", left.ty)));
        }
        node(HKind::In(Box::new(left), Box::new(right)), Ty::Bool, span)
    }

    fn coalesce(&mut self, left: &Expr, right: &Expr, span: Span, want: Option<&Ty>) -> HExpr {
        let left = self.expr(left, want);
        if !left.ty.is_opt() && !left.ty.is_error() {
            let error = Diagnostic::error(left.span, "this is never absent")
                .label(format!("this is {}", left.ty))
                .help("leave the `??` and what follows away");
            return self.wrong(error);
        }
        let bare = left.ty.bare().clone();
        if left.ty == Ty::NoneLit || left.ty.is_nothing() {
            return self.expr(right, want);
        }
        let right = self.expr(right, Some(&bare));
        let ty = if right.ty.is_opt() { left.ty.clone() } else { bare };
        // An integer that may be absent, or else a float: a float.
        if right.ty == Ty::Float && matches!(ty, Ty::Int | Ty::Uint) {
            return self.wrong(
                Diagnostic::error(span, format!("{} and float are two types", left.ty))
                    .label("expected one type"),
            );
        }
        let right = self.coerce(right, &ty);
        node(HKind::Coalesce(Box::new(left), Box::new(right)), ty, span)
    }

    /// The types an arithmetic operator takes and makes.
    pub(super) fn arithmetic(&mut self, op: HBin, left: HExpr, right: HExpr, span: Span) -> HExpr {
        let sign = match op {
            HBin::Add => BinOp::Add,
            HBin::Sub => BinOp::Sub,
            HBin::Mul => BinOp::Mul,
            HBin::Div => BinOp::Div,
            _ => BinOp::Rem,
        };
        if left.ty.is_error() || right.ty.is_error() {
            return node(HKind::Error, Ty::Error, span);
        }
        for side in [&left, &right] {
            if side.ty.is_opt() {
                let error = Diagnostic::error(
                    side.span,
                    format!("`{}` needs a value, this may be absent", sign.text()),
                )
                .label(format!("this is {}", side.ty))
                .help("use `??`, `let … else` or `match`");
                return self.wrong(error);
            }
        }
        let make = |left, right, ty| node(HKind::Bin(op, Box::new(left), Box::new(right)), ty, span);
        let adds = matches!(op, HBin::Add | HBin::Sub);
        let (l, r) = (left.ty.clone(), right.ty.clone());
        match (&l, &r) {
            (l, r) if l.is_number() && r.is_number() => {
                if *l == Ty::Num && *r == Ty::Num {
                    return make(left, right, Ty::Num);
                }
                let Some((left, right)) = self.same(left, right, sign) else {
                    return node(HKind::Error, Ty::Error, span);
                };
                let ty = left.ty.clone();
                make(left, right, ty)
            }
            (Ty::Duration, Ty::Duration) if op == HBin::Div => make(left, right, Ty::Float),
            (Ty::Duration, Ty::Duration) if op != HBin::Mul => make(left, right, Ty::Duration),
            (Ty::Duration | Ty::Rate, r) if r.is_number() && matches!(op, HBin::Mul | HBin::Div) => {
                let right = self.coerce(right, &Ty::Float);
                make(left, right, l)
            }
            (l, Ty::Duration | Ty::Rate) if l.is_number() && op == HBin::Mul => {
                let left = self.coerce(left, &Ty::Float);
                make(right, left, r)
            }
            (Ty::Rate, Ty::Rate) if adds => make(left, right, Ty::Rate),
            (Ty::Rate, Ty::Rate) if op == HBin::Div => make(left, right, Ty::Float),
            (Ty::Rate, Ty::Duration) if op == HBin::Mul => make(left, right, Ty::Float),
            (Ty::Instant, Ty::Duration) if adds => make(left, right, Ty::Instant),
            (Ty::Duration, Ty::Instant) if op == HBin::Add => make(right, left, Ty::Instant),
            (Ty::Instant, Ty::Instant) if op == HBin::Sub => make(left, right, Ty::Duration),
            _ => {
                let error = Diagnostic::error(span, format!("`{}` does not join {l} and {r}", sign.text()))
                    .label(format!("{l} {} {r}", sign.text()));
                let error = match (op, &l, &r) {
                    (HBin::Add, Ty::Str, _) | (HBin::Add, _, Ty::Str) => {
                        error.help("texts are joined by interpolation: \"{a}{b}\"")
                    }
                    (_, Ty::Instant, r) if r.is_number() => error.help("write a unit, as in `5ms`"),
                    _ => match hint(&r, &l) {
                        Some(hint) => error.help(hint),
                        None => error,
                    },
                };
                self.wrong(error)
            }
        }
    }

    fn if_expr(
        &mut self,
        cond: &Expr,
        then: &Block,
        or_else: Option<&Block>,
        span: Span,
        want: Option<&Ty>,
    ) -> HExpr {
        let cond = self.condition(cond);
        let mut then_block = self.block(then, true, want);
        let Some(or_else) = or_else else {
            if then_block.diverges {
                let or_else = crate::hir::HBlock::default();
                return node(HKind::If { cond: Box::new(cond), then: then_block, or_else }, Ty::Unit, span);
            }
            return match &then_block.value {
                Some(value) if matches!(value.ty, Ty::Unit | Ty::Error) => {
                    let or_else = crate::hir::HBlock::default();
                    node(HKind::If { cond: Box::new(cond), then: then_block, or_else }, Ty::Unit, span)
                }
                None => {
                    let or_else = crate::hir::HBlock::default();
                    node(HKind::If { cond: Box::new(cond), then: then_block, or_else }, Ty::Unit, span)
                }
                _ => self.wrong(
                    Diagnostic::error(span, "this `if` has no value when it is false")
                        .label("expected an `else`"),
                ),
            };
        };
        let mut or_else_block = self.block(or_else, true, want);
        let ty = self.join(vec![(&mut then_block, then.span), (&mut or_else_block, or_else.span)], want);
        let ty = if then_block.diverges && or_else_block.diverges { Ty::Never } else { ty };
        node(HKind::If { cond: Box::new(cond), then: then_block, or_else: or_else_block }, ty, span)
    }

    fn list(&mut self, items: &[Expr], span: Span, want: Option<&Ty>) -> HExpr {
        let mut item_ty = match want {
            Some(Ty::List(item)) => Some((**item).clone()),
            Some(Ty::Error) => Some(Ty::Error),
            Some(Ty::Opt(inner)) => match &**inner {
                Ty::List(item) => Some((**item).clone()),
                _ => None,
            },
            _ => None,
        };
        let mut out = Vec::new();
        for item in items {
            let value = self.expr(item, item_ty.as_ref());
            let value = match &item_ty {
                Some(ty) => self.coerce(value, ty),
                None => self.settle(value),
            };
            item_ty.get_or_insert_with(|| value.ty.clone());
            out.push(value);
        }
        let item = item_ty.unwrap_or(Ty::Error);
        node(HKind::List(out), Ty::List(Box::new(item)), span)
    }

    fn map(&mut self, items: &[(Expr, Expr)], span: Span, want: Option<&Ty>) -> HExpr {
        let (mut key_ty, mut value_ty) = match want.map(Ty::bare) {
            Some(Ty::Map(key, value)) => (Some((**key).clone()), Some((**value).clone())),
            _ => (None, None),
        };
        let mut out = Vec::new();
        for (key, value) in items {
            let (key, value) = (self.expr(key, key_ty.as_ref()), self.expr(value, value_ty.as_ref()));
            let (key, value) = (self.settle(key), value);
            let key = match &key_ty {
                Some(ty) => self.coerce(key, ty),
                None => key,
            };
            let value = match &value_ty {
                Some(ty) => self.coerce(value, ty),
                None => self.settle(value),
            };
            key_ty.get_or_insert_with(|| key.ty.clone());
            value_ty.get_or_insert_with(|| value.ty.bare().clone());
            if value.ty.is_opt() {
                let error = Diagnostic::error(value.span, "a map has no values that may be absent");
                self.error(error.label(format!("this is {}", value.ty)).help("use `??`"));
            }
            if !key.ty.is_scalar() && !matches!(key.ty, Ty::Str | Ty::Error) {
                self.error(Diagnostic::error(key.span, format!("{} is no key of a map", key.ty)));
            }
            if let HKind::Const(own) = &key.kind
                && let Some((first, _)) =
                    out.iter().find(|(k, _): &&(HExpr, HExpr)| matches!(&k.kind, HKind::Const(c) if c == own))
            {
                let error = Diagnostic::error(key.span, "this key stands twice").label("the second one");
                self.error(error.also(first.span, "the first one"));
            }
            out.push((key, value));
        }
        let ty = Ty::Map(Box::new(key_ty.unwrap_or(Ty::Error)), Box::new(value_ty.unwrap_or(Ty::Error)));
        node(HKind::Map(out), ty, span)
    }

    fn index(&mut self, of: &Expr, key: &Expr, span: Span) -> HExpr {
        if let ExprKind::Field { name, .. } = &*of.kind
            && name.text == "claims"
        {
            return self.wrong(Diagnostic::unsupported(name.span, &format!("`{}`", name.text)));
        }
        let of = match &*of.kind {
            ExprKind::Field { of: inner, name, optional: false }
                if matches!(name.text.as_str(), "labels" | "report") =>
            {
                let inner = self.part(inner, None);
                if *inner.ty.bare() == Ty::Endpoint {
                    return self.told_of(inner, name.text == "labels", key, span);
                }
                self.field(inner, name, of.span)
            }
            _ => self.expr(of, None),
        };
        if let (HKind::Payload(_), Ty::Map(..)) = (&of.kind, of.ty.bare()) {
            return self.payload_entry(of, key, span);
        }
        match of.ty.clone() {
            Ty::Headers(side) => {
                let key = self.header_key(key);
                let is_bytes = is_binary(&key);
                let (side, key) = (side.side(), Box::new(key));
                if is_bytes {
                    return node(HKind::MetaBin { side, key }, Ty::Bytes.opt(), span);
                }
                node(HKind::Meta { side, key }, Ty::Str.opt(), span)
            }
            Ty::List(item) => {
                let key = self.expr(key, Some(&Ty::Uint));
                // Nothing stands before the first item.
                let key = if key.ty == Ty::Int { key } else { self.coerce(key, &Ty::Uint) };
                node(HKind::Index(Box::new(of), Box::new(key)), (*item).opt(), span)
            }
            _ if of.ty.is_nothing() => self.payload_entry(of, key, span),
            Ty::Map(key_ty, value_ty) => self.map_at(of, key, &key_ty, &value_ty, span),
            Ty::Error => of,
            other => {
                let error = Diagnostic::error(span, format!("{other} has no `[…]`"));
                self.wrong(match other.bare() {
                    Ty::List(_) => error.help("it may be absent: `(… ?? [])[0]`"),
                    Ty::Map(..) => error.help("it may be absent: `(… ?? {})[k]`"),
                    _ => error,
                })
            }
        }
    }

    /// `e.labels["k"]` or `e.report["k"]` of an endpoint.
    fn told_of(&mut self, endpoint: HExpr, is_label: bool, key: &Expr, span: Span) -> HExpr {
        let endpoint = Box::new(self.coerce(endpoint, &Ty::Endpoint));
        let key = self.expr(key, Some(&Ty::Str));
        let key = Box::new(self.coerce(key, &Ty::Str));
        if is_label {
            return node(HKind::EndpointLabel(endpoint, key), Ty::Str.opt(), span);
        }
        node(HKind::EndpointReport(endpoint, key), Ty::Float.opt(), span)
    }

    /// A header's name, lower case.
    pub(super) fn header_key(&mut self, key: &Expr) -> HExpr {
        let mut key_expr = self.expr(key, Some(&Ty::Str));
        key_expr = self.coerce(key_expr, &Ty::Str);
        if let HKind::Const(Const::Str(name)) = &mut key_expr.kind {
            let lower = name.to_ascii_lowercase();
            let is_name = |b: u8| b.is_ascii_graphic() && !b"\"(),/;<=>?@[\\]{}".contains(&b);
            if lower.is_empty() || !lower.bytes().all(is_name) {
                return self.wrong(
                    Diagnostic::error(key_expr.span, "this is no header name")
                        .label("expected letters, digits, `-`, `_` and `.`"),
                );
            }
            *name = lower.as_str().into();
        }
        key_expr
    }
}

/// The header's values are bytes.
pub(super) fn is_binary(key: &HExpr) -> bool {
    matches!(&key.kind, HKind::Const(Const::Str(name)) if name.ends_with("-bin"))
}

/// What is wrong with a share; `name` is of the parameter that it is for, if of one.
pub(crate) fn no_share(name: Option<&str>, share: f64, span: Span) -> Option<Diagnostic> {
    if (0.0..=1.0).contains(&share) {
        return None;
    }
    // 1e300 is no row of three hundred zeros.
    let shown = if share.abs() < 1e6 { share.to_string() } else { format!("{share:e}") };
    let named = name.map_or("this share".to_owned(), |name| format!("`{name}`"));
    let label = format!("{} is 0..1", name.unwrap_or("it"));
    let error = Diagnostic::error(span, format!("{named} is {shown}"));
    Some(if share > 1.0 && share <= 100.0 {
        error.label(format!("{label}; did you mean {share}%?"))
    } else {
        error.label(label)
    })
}
