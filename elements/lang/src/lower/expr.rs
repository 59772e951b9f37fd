//! Expressions to instructions.

use crate::check::is_read_only;
use crate::diag::Diagnostic;
use crate::hir::{Const, EndpointField, HBlock, HExpr, HKind, HPattern};
use crate::ty::Ty;
use crate::vm::code::{Bin, EpNum, Fmt, Op, Reg, StrBin, StrFn, Un};

use super::build::{Builder, ParamAt, Val};
use super::fold::{bin_of, fmt_of};
use super::payload::is_text;

/// A text that a call has itself.
enum View {
    Meta(abi::Side, Reg),
    Text(abi::Text),
}

impl Builder<'_> {
    /// The value of an expression.
    pub(super) fn expr(&mut self, e: &HExpr) -> Val {
        if let Some(value) = self.folded(e) {
            return value;
        }
        match &e.kind {
            HKind::Const(c) => Val::Const(c.clone()),
            HKind::Local(id) => {
                let value = self.local(*id).cloned().unwrap_or(Val::Unit);
                if self.assigned_within.contains(id) { self.copied(&value, &e.ty) } else { value }
            }
            HKind::Param(at) | HKind::CallParam(at) => match self.params.get(usize::from(*at)) {
                Some(ParamAt::Word(slot)) => {
                    let slot = *slot;
                    let value = self.load_slot(slot);
                    self.unpacked(value, &e.ty)
                }
                Some(ParamAt::Held(value)) => value.clone(),
                Some(ParamAt::Made(arg)) => {
                    let (arg, outer) = (arg.clone(), self.in_argument);
                    self.in_argument = true;
                    let value = self.expr(&arg);
                    self.in_argument = outer;
                    value
                }
                _ => Val::Unit,
            },
            HKind::State(at) => self.load_state(*at),
            HKind::MapAt { map, key } => self.map_get(*map, key),
            HKind::Cell { of, op, arg } => self.cell(of, *op, arg.as_deref()),
            HKind::Num(field) => self.one(|d| Op::Num { d, field: *field }),
            HKind::Text(field) => self.one(|d| Op::Text { d, field: *field }),
            HKind::Flag => self.one(|d| Op::Text { d, field: abi::Text::Flag }),
            HKind::Source => self.two(|d| Op::Source { d }),
            HKind::PeerIp => self.two(|d| Op::PeerIp { d }),
            HKind::Deadline => self.two(|d| Op::Deadline { d }),
            HKind::Destination => self.one(|d| Op::Destination { d }),
            HKind::Endpoint => self.two(|d| Op::Endpoint { d }),
            HKind::Endpoints => self.one(|d| Op::Endpoints { d }),
            HKind::Meta { side, key } => {
                let key = self.header_name(key);
                self.two(|d| Op::Meta { side: *side, d, key })
            }
            HKind::MetaBin { side, key } => {
                let key = self.header_name(key);
                self.two(|d| Op::MetaBin { side: *side, d, key })
            }
            HKind::MetaAll { side, key, max, is_bin } => {
                let key = self.header_name(key);
                self.one(|d| Op::MetaAll { side: *side, d, key, max: *max, is_bin: *is_bin })
            }
            HKind::EndpointField(field, of) => {
                let a = self.scalar(of);
                let field = match field {
                    EndpointField::Healthy => EpNum::Healthy,
                    EndpointField::Inflight => EpNum::Inflight,
                    EndpointField::Latency => EpNum::Latency,
                    EndpointField::Weight => EpNum::Weight,
                    EndpointField::Zone => return self.one(|d| Op::EpZone { d, a }),
                };
                self.one(|d| Op::EpNum { field, d, a })
            }
            HKind::EndpointLabel(of, key) => {
                let (a, key) = (self.scalar(of), self.scalar(key));
                self.two(|d| Op::EpLabel { d, a, key })
            }
            HKind::EndpointReport(of, key) => {
                let (a, key) = (self.scalar(of), self.scalar(key));
                self.two(|d| Op::EpReport { d, a, key })
            }
            HKind::Quantile { list, q, param, body } => self.quantile(list, q, *param, body),
            HKind::Widen(inner) => {
                let op = if inner.ty == Ty::Int { Un::IntToFloat } else { Un::UintToFloat };
                self.un(op, inner)
            }
            HKind::Not(inner) => self.un(Un::Not, inner),
            HKind::Neg(inner) => self.un(if e.ty == Ty::Float { Un::NegF } else { Un::NegI }, inner),
            HKind::Wrap(inner) => match self.expr(inner) {
                value @ (Val::Const(_) | Val::Data(_) | Val::Opt(_)) => value,
                value => Val::Some(Box::new(value)),
            },
            HKind::Bin(op, left, right) => {
                let mark = self.next;
                let (bin, swapped) = bin_of(*op, &left.ty, &right.ty);
                if let (Some(n), false) = (self.small(right), swapped || left.ty == Ty::Str) {
                    let a = self.scalar(left);
                    self.next = mark;
                    return self.one(|d| Op::BinSmall { op: bin, d, a, n });
                }
                let (a, b) = (self.scalar(left), self.scalar(right));
                // Operands are read before the result is written: it may take their place.
                self.next = mark;
                let (a, b) = if swapped { (b, a) } else { (a, b) };
                if left.ty == Ty::Str {
                    let op = if matches!(bin, Bin::LtU) { StrBin::Lt } else { StrBin::Le };
                    return self.one(|d| Op::StrBin { op, d, a, b });
                }
                self.one(|d| Op::Bin { op: bin, d, a, b })
            }
            HKind::And(..) | HKind::Or(..) => {
                let (d, value) = self.place_for(&Ty::Bool);
                let mark = self.next;
                let mut no = Vec::new();
                self.jump_unless(e, &mut no);
                self.load(d, 1);
                let end = self.jump();
                self.land(&no);
                self.load(d, 0);
                self.land(&[end]);
                self.next = mark;
                value
            }
            HKind::Equal { left, right, negate } => self.equal(left, right, *negate),
            HKind::Coalesce(left, right) => self.coalesce(left, right, &e.ty),
            HKind::In(item, list) => self.contained(item, list),
            HKind::If { cond, then, or_else } => self.if_value(cond, then, or_else, &e.ty),
            HKind::Match { of, arms } => self.match_value(of, arms, &e.ty),
            HKind::List(items) => {
                let list = self.alloc(1);
                self.emit(Op::List { d: list });
                for item in items {
                    let mark = self.next;
                    let a = self.scalar(item);
                    self.emit(Op::Push { list, a });
                    self.next = mark;
                }
                Val::Reg(list)
            }
            HKind::Map(items) => {
                let map = self.alloc(1);
                self.emit(Op::List { d: map });
                for (key, value) in items {
                    let mark = self.next;
                    let of_texts = is_text(&key.ty);
                    let (key, a) = (self.scalar(key), self.scalar(value));
                    self.emit(Op::PutPair { map, key, a, of_texts });
                    self.next = mark;
                }
                Val::Reg(map)
            }
            HKind::Index(map, key) if matches!(map.ty, Ty::Map(..)) => self.map_at(map, key),
            HKind::Index(list, at) => {
                let (a, b) = (self.scalar(list), self.scalar(at));
                self.two(|d| Op::Nth { d, a, b })
            }
            HKind::Interp(parts) => self.interp(parts),
            HKind::Call(func, args) => self.func(*func, args, e),
            HKind::Each { what, list, param, body } => self.each(*what, list, *param, body),
            HKind::Effect(effect) => {
                self.effect(effect, e.span);
                Val::Unit
            }
            HKind::Payload(path) => self.payload(path, e),
            HKind::WholePayload => {
                if e.ty != Ty::Bytes {
                    self.read_whole();
                }
                self.one(|d| Op::Payload { d })
            }
            HKind::Made(fields) => self.made(fields),
            HKind::Entries(number, entry, entries) => self.entries(entry, entries, *number),
            HKind::Error | HKind::Place => Val::Unit,
        }
    }

    pub(super) fn not_constant(&mut self, e: &HExpr, what: &str) {
        self.errors.push(
            crate::diag::Diagnostic::error(e.span, format!("{what} must be constant here"))
                .label("expected a constant"),
        );
    }

    /// The register of an expression that is no `T?`.
    pub(super) fn scalar(&mut self, e: &HExpr) -> Reg {
        let value = self.expr(e);
        self.reg(&value)
    }

    /// A constant of the element's own text that fits into an instruction.
    pub(super) fn small(&self, e: &HExpr) -> Option<u32> {
        match self.folded(e)? {
            Val::Const(Const::Word(w)) => u32::try_from(w).ok(),
            _ => None,
        }
    }

    pub(super) fn one(&mut self, op: impl FnOnce(Reg) -> Op) -> Val {
        let d = self.alloc(1);
        self.emit(op(d));
        Val::Reg(d)
    }

    pub(super) fn two(&mut self, op: impl FnOnce(Reg) -> Op) -> Val {
        let d = self.alloc(2);
        self.emit(op(d));
        Val::Opt(d)
    }

    fn un(&mut self, op: Un, of: &HExpr) -> Val {
        let mark = self.next;
        let a = self.scalar(of);
        self.next = mark;
        self.one(|d| Op::Un { op, d, a })
    }

    /// Goes on if `e` holds; else the jumps collected in `no` are taken.
    pub(super) fn jump_unless(&mut self, e: &HExpr, no: &mut Vec<usize>) {
        if let Some(Const::Word(w)) = self.fold(e) {
            if w == 0 {
                no.push(self.jump());
            }
            return;
        }
        match &e.kind {
            HKind::And(left, right) => {
                self.jump_unless(left, no);
                self.jump_unless(right, no);
            }
            HKind::Or(left, right) => {
                let mut yes = Vec::new();
                self.jump_if(left, &mut yes);
                self.jump_unless(right, no);
                self.land(&yes);
            }
            HKind::Not(inner) => self.jump_if(inner, no),
            _ => {
                let mark = self.next;
                let a = self.scalar(e);
                let op = match self.unnegate(a, mark) {
                    Some(a) => Op::JumpIf { a, to: 0 },
                    None => Op::JumpUnless { a, to: 0 },
                };
                no.push(self.emit(op));
                self.next = mark;
            }
        }
    }

    /// Goes on unless `e` holds.
    pub(super) fn jump_if(&mut self, e: &HExpr, yes: &mut Vec<usize>) {
        if let Some(Const::Word(w)) = self.fold(e) {
            if w != 0 {
                yes.push(self.jump());
            }
            return;
        }
        match &e.kind {
            HKind::Or(left, right) => {
                self.jump_if(left, yes);
                self.jump_if(right, yes);
            }
            HKind::And(left, right) => {
                let mut no = Vec::new();
                self.jump_unless(left, &mut no);
                self.jump_if(right, yes);
                self.land(&no);
            }
            HKind::Not(inner) => self.jump_unless(inner, yes),
            _ => {
                let mark = self.next;
                let a = self.scalar(e);
                let op = match self.unnegate(a, mark) {
                    Some(a) => Op::JumpUnless { a, to: 0 },
                    None => Op::JumpIf { a, to: 0 },
                };
                yes.push(self.emit(op));
                self.next = mark;
            }
        }
    }

    /// Equality of two present values.
    pub(super) fn same(&mut self, a: Reg, b: Reg, ty: &Ty) -> Val {
        match ty.bare() {
            Ty::Str | Ty::Bytes => self.one(|d| Op::StrBin { op: StrBin::Eq, d, a, b }),
            Ty::Float | Ty::Rate => self.one(|d| Op::Bin { op: Bin::EqF, d, a, b }),
            _ => self.one(|d| Op::Bin { op: Bin::Eq, d, a, b }),
        }
    }

    fn negated(&mut self, value: Val, negate: bool) -> Val {
        if !negate {
            return value;
        }
        let a = self.reg(&value);
        self.one(|d| Op::Un { op: Un::Not, d, a })
    }

    /// A header that an argument names may be none that can be written.
    pub(super) fn check_written(&mut self, key: &HExpr) {
        let Some(Const::Str(name)) = self.fold(key) else { return };
        let name = name.to_ascii_lowercase();
        if !matches!(key.kind, HKind::Const(_)) && is_read_only(&name) {
            let error = Diagnostic::error(self.link.span, format!("`{name}` is read-only"))
                .label("pseudo-headers, grpc-*, te and content-type cannot be written");
            self.errors.push(error.also(key.span, "it would be written here"));
        }
    }

    /// The register of a header's name, in lower case.
    pub(super) fn header_name(&mut self, key: &HExpr) -> Reg {
        let lower = |c: Const| match c {
            Const::Str(name) => Const::Str(name.to_ascii_lowercase().into()),
            other => other,
        };
        let value = match self.expr(key) {
            Val::Const(c) => Val::Const(lower(c)),
            Val::Data(c) => Val::Data(lower(c)),
            made => {
                let a = self.reg(&made);
                self.one(|d| Op::StrFn { op: StrFn::Lower, d, a, b: a })
            }
        };
        self.reg(&value)
    }

    /// A header or text field, held against a text that is there: compared where it is.
    fn compared_in_place(&mut self, view: &HExpr, with: &HExpr) -> Option<Val> {
        let with = match &with.kind {
            HKind::Wrap(inner) => inner,
            _ => with,
        };
        if with.ty != Ty::Str || self.fold(with) == Some(Const::None) {
            return None;
        }
        self.in_place(view, |b, view| {
            let b = b.scalar(with);
            match view {
                View::Meta(side, key) => Op::MetaIs { side, d: 0, key, b },
                View::Text(field) => Op::TextIs { field, d: 0, b },
            }
        })
    }

    /// Emits what `op` makes of a view, if `e` is one: a result of its own register.
    fn in_place(&mut self, e: &HExpr, op: impl FnOnce(&mut Self, View) -> Op) -> Option<Val> {
        let e = match &e.kind {
            HKind::Wrap(inner) => inner,
            _ => e,
        };
        if self.fold(e).is_some() {
            return None;
        }
        let mark = self.next;
        let view = match &e.kind {
            HKind::Meta { side, key } if e.ty.bare() == &Ty::Str => View::Meta(*side, self.header_name(key)),
            HKind::Text(field) => View::Text(*field),
            _ => return None,
        };
        let mut made = op(self, view);
        self.next = mark;
        let result = self.alloc(1);
        if let Op::MetaIs { d, .. } | Op::MetaIn { d, .. } | Op::TextIs { d, .. } | Op::TextIn { d, .. } =
            &mut made
        {
            *d = result;
        }
        self.emit(made);
        Some(Val::Reg(result))
    }

    fn equal(&mut self, left: &HExpr, right: &HExpr, negate: bool) -> Val {
        let in_place = match self.compared_in_place(left, right) {
            Some(found) => Some(found),
            None => self.compared_in_place(right, left),
        };
        if let Some(found) = in_place {
            return self.negated(found, negate);
        }
        let (l, r) = (self.expr(left), self.expr(right));
        let (l, r) = match (&l, &r) {
            (Val::Const(Const::None), _) => (r, l),
            _ => (l, r),
        };
        match (&l, &r) {
            (Val::Some(_), Val::Const(Const::None)) => Val::Const(Const::Word(u64::from(negate))),
            // `x == None` is the absence of x.
            (Val::Opt(tag), Val::Const(Const::None)) => self.negated(Val::Reg(*tag), !negate),
            (Val::Opt(a), Val::Opt(b)) => {
                let (a, b) = (*a, *b);
                let (d, value) = self.place_for(&Ty::Bool);
                let tags = self.one(|d| Op::Bin { op: Bin::Eq, d, a, b });
                let tags = self.reg(&tags);
                self.emit(Op::Move { d, a: tags });
                // Different presence, or both absent: decided.
                let different = self.emit(Op::JumpUnless { a: tags, to: 0 });
                let absent = self.emit(Op::JumpUnless { a, to: 0 });
                let mark = self.next;
                let same = self.same(a.wrapping_add(1), b.wrapping_add(1), &left.ty);
                self.store(&same, &Ty::Bool, d, mark);
                self.land(&[different, absent]);
                self.negated(value, negate)
            }
            (Val::Opt(opt), _) | (_, Val::Opt(opt)) => {
                let opt = *opt;
                let other = if matches!(l, Val::Opt(_)) { r } else { l };
                let (d, value) = self.place_for(&Ty::Bool);
                self.emit(Op::Move { d, a: opt });
                let absent = self.emit(Op::JumpUnless { a: opt, to: 0 });
                let b = self.reg(&other);
                let mark = self.next;
                let same = self.same(opt.wrapping_add(1), b, &left.ty);
                self.store(&same, &Ty::Bool, d, mark);
                self.land(&[absent]);
                self.negated(value, negate)
            }
            (_, Val::Const(Const::Word(w)))
                if !matches!(left.ty, Ty::Float | Ty::Rate) && u32::try_from(*w).is_ok() =>
            {
                let (a, n) = (self.reg(&l), u32::try_from(*w).unwrap_or(0));
                let same = self.one(|d| Op::BinSmall { op: Bin::Eq, d, a, n });
                self.negated(same, negate)
            }
            _ => {
                let (a, b) = (self.reg(&l), self.reg(&r));
                let same = self.same(a, b, &left.ty);
                self.negated(same, negate)
            }
        }
    }

    fn coalesce(&mut self, left: &HExpr, right: &HExpr, ty: &Ty) -> Val {
        let before = self.next;
        match self.expr(left) {
            Val::Const(Const::None) => self.expr(right),
            Val::Some(value) if !ty.is_opt() => *value,
            value @ (Val::Const(_) | Val::Data(_) | Val::Some(_)) => value,
            // A value of its own is completed in place.
            Val::Opt(opt) if u16::from(opt) >= before => {
                self.next = u16::from(opt) + 2;
                let there = self.emit(Op::JumpIf { a: opt, to: 0 });
                let mark = self.next;
                let other = self.expr(right);
                let (d, value) = if ty.is_opt() {
                    (opt, Val::Opt(opt))
                } else {
                    (opt.wrapping_add(1), Val::Reg(opt.wrapping_add(1)))
                };
                self.store(&other, ty, d, mark);
                self.land(&[there]);
                self.next = mark;
                value
            }
            Val::Opt(opt) => {
                let (d, value) = self.place_for(ty);
                let mark = self.next;
                let absent = self.emit(Op::JumpUnless { a: opt, to: 0 });
                let have = if ty.is_opt() { Val::Opt(opt) } else { Val::Reg(opt.wrapping_add(1)) };
                self.store(&have, ty, d, mark);
                let end = self.jump();
                self.land(&[absent]);
                let other = self.expr(right);
                self.store(&other, ty, d, mark);
                self.land(&[end]);
                self.next = mark;
                value
            }
            other => other,
        }
    }

    fn contained(&mut self, item: &HExpr, list: &HExpr) -> Val {
        let in_place = self.in_place(item, |b, view| {
            let list = b.scalar(list);
            match view {
                View::Meta(side, key) => Op::MetaIn { side, d: 0, key, list },
                View::Text(field) => Op::TextIn { field, d: 0, list },
            }
        });
        if let Some(found) = in_place {
            return found;
        }
        let value = self.expr(item);
        let is_text = matches!(item.ty.bare(), Ty::Str | Ty::Bytes);
        if is_text && !matches!(value, Val::Opt(_) | Val::Const(Const::None)) {
            let (a, list) = (self.reg(&value), self.scalar(list));
            return self.one(|d| Op::StrIn { d, a, list });
        }
        let (d, result) = self.place_for(&Ty::Bool);
        self.load(d, 0);
        let mut ends = Vec::new();
        let a = match value {
            Val::Opt(opt) => {
                ends.push(self.emit(Op::JumpUnless { a: opt, to: 0 }));
                opt.wrapping_add(1)
            }
            Val::Const(Const::None) => return result,
            value => self.reg(&value),
        };
        let list = self.scalar(list);
        if is_text {
            self.emit(Op::StrIn { d, a, list });
            self.land(&ends);
            return result;
        }
        let (i, b) = (self.alloc(1), self.alloc(1));
        self.load(i, 0);
        let back = self.here();
        ends.push(self.emit(Op::Next { d: b, list, i, to: 0 }));
        let same = self.same(a, b, &item.ty);
        let same = self.reg(&same);
        self.emit(Op::JumpUnless { a: same, to: back });
        self.load(d, 1);
        self.land(&ends);
        result
    }

    fn if_value(&mut self, cond: &HExpr, then: &HBlock, or_else: &HBlock, ty: &Ty) -> Val {
        if let Some(Const::Word(w)) = self.fold(cond) {
            return self.block_value(if w != 0 { then } else { or_else });
        }
        let (d, value) = self.join_place(ty);
        let mut no = Vec::new();
        let later = self.ahead([then, or_else]);
        self.jump_unless(cond, &mut no);
        self.came_along(later);
        let step = self.step();
        self.branch(then, ty, d);
        let mut dirty = self.is_dirty() && !then.diverges;
        self.other_way(step);
        let is_nothing = or_else.stmts.is_empty() && or_else.value.is_none();
        if is_nothing && (self.is_later() || !self.is_dirty()) {
            self.land(&no);
            self.ways_meet(step, dirty || self.is_dirty());
            return value;
        }
        let end = if then.diverges { Vec::new() } else { vec![self.jump()] };
        self.land(&no);
        self.branch(or_else, ty, d);
        self.land(&end);
        dirty |= self.is_dirty() && !or_else.diverges;
        self.ways_meet(step, dirty);
        value
    }

    /// Where the branches of a value meet; nothing where there is no value.
    fn join_place(&mut self, ty: &Ty) -> (Option<Reg>, Val) {
        match ty {
            Ty::Unit | Ty::Never | Ty::Error => (None, Val::Unit),
            _ => {
                let (d, value) = self.place_for(ty);
                (Some(d), value)
            }
        }
    }

    fn branch(&mut self, block: &HBlock, ty: &Ty, d: Option<Reg>) {
        let mark = self.next;
        let value = self.block_value(block);
        if let (Some(d), false) = (d, block.diverges) {
            self.store(&value, ty, d, mark);
        }
        self.next = mark;
    }

    fn match_value(&mut self, of: &HExpr, arms: &[crate::hir::HArm], ty: &Ty) -> Val {
        let later = self.ahead(arms.iter().map(|arm| &arm.body));
        // A text field is held against known texts where it is.
        let in_place = match of.kind {
            HKind::Text(field)
                if arms.iter().all(|arm| matches!(arm.pattern, HPattern::Any | HPattern::Value(_))) =>
            {
                Some(field)
            }
            _ => None,
        };
        let mark = self.next;
        let scrutinee = if in_place.is_some() { Val::Unit } else { self.expr(of) };
        self.came_along(later);
        let binds = arms.iter().any(|arm| matches!(arm.pattern, HPattern::Some(_)));
        let scrutinee = if binds { self.apart(scrutinee, &of.ty, mark) } else { scrutinee };
        if let Val::Const(value) | Val::Data(value) = &scrutinee {
            // What is known decides now.
            let Some(arm) = arms.iter().find(|arm| self.takes(&arm.pattern, value, &of.ty)) else {
                return Val::Unit;
            };
            if let HPattern::Some(local) = arm.pattern {
                self.set_local(local, scrutinee.clone());
            }
            return self.block_value(&arm.body);
        }
        let (d, result) = self.join_place(ty);
        let mut ends = Vec::new();
        let (step, mut dirty) = (self.step(), false);
        for arm in arms {
            self.other_way(step);
            let mark = self.next;
            let mut next = Vec::new();
            match (&arm.pattern, &scrutinee) {
                (HPattern::Any, _) => {}
                (HPattern::None, Val::Opt(tag)) => next.push(self.emit(Op::JumpIf { a: *tag, to: 0 })),
                (HPattern::None, _) => continue,
                (HPattern::Some(local), Val::Opt(tag)) => {
                    next.push(self.emit(Op::JumpUnless { a: *tag, to: 0 }));
                    self.set_local(*local, Val::Reg(tag.wrapping_add(1)));
                }
                (HPattern::Some(local), Val::Some(inner)) => self.set_local(*local, (**inner).clone()),
                (HPattern::Some(local), other) => self.set_local(*local, other.clone()),
                (HPattern::Value(value), _) => {
                    if let Val::Opt(tag) = &scrutinee {
                        next.push(self.emit(Op::JumpUnless { a: *tag, to: 0 }));
                    }
                    let same = if let Some(field) = in_place {
                        let b = self.scalar(value);
                        self.one(|d| Op::TextIs { field, d, b })
                    } else {
                        let (a, b) = (self.reg(&scrutinee), self.scalar(value));
                        self.same(a, b, &of.ty)
                    };
                    let same = self.reg(&same);
                    next.push(self.emit(Op::JumpUnless { a: same, to: 0 }));
                }
            }
            self.branch(&arm.body, ty, d);
            dirty |= self.is_dirty() && !arm.body.diverges;
            if !arm.body.diverges {
                ends.push(self.jump());
            }
            self.land(&next);
            self.next = mark;
        }
        self.land(&ends);
        self.ways_meet(step, dirty);
        result
    }

    /// How a type reads as text.
    fn fmt(&mut self, ty: &Ty) -> Fmt {
        let Ty::ProtoEnum(of) = ty.bare() else { return fmt_of(ty) };
        let names: Vec<(u64, String)> =
            of.values().map(|v| (i64::from(v.number()).cast_unsigned(), v.name().to_owned())).collect();
        let enums = &mut self.shared.enums;
        let at = enums.iter().position(|known| *known == names).unwrap_or_else(|| {
            enums.push(names);
            enums.len() - 1
        });
        Fmt::Named(u16::try_from(at).unwrap_or(u16::MAX))
    }

    fn interp(&mut self, parts: &[HExpr]) -> Val {
        // Every part first, then the text in one go: parts may be texts themselves.
        let values: Vec<(Val, Ty)> = parts.iter().map(|p| (self.expr(p), p.ty.clone())).collect();
        let mut ready = Vec::new();
        for (value, ty) in values {
            let value = match value {
                Val::Opt(_) | Val::Const(Const::None) => value,
                other => Val::Reg(self.reg(&other)),
            };
            ready.push((value, ty));
        }
        let none = self.text("none");
        let scratch = self.alloc(1);
        self.emit(Op::TextStart);
        for (value, ty) in ready {
            let fmt = self.fmt(&ty);
            match value {
                Val::Opt(tag) => {
                    let absent = self.emit(Op::JumpUnless { a: tag, to: 0 });
                    self.emit(Op::TextPart { fmt, a: tag.wrapping_add(1) });
                    let end = self.jump();
                    self.land(&[absent]);
                    self.load(scratch, none);
                    self.emit(Op::TextPart { fmt: Fmt::Str, a: scratch });
                    self.land(&[end]);
                }
                Val::Reg(a) => {
                    self.emit(Op::TextPart { fmt, a });
                }
                _ => {
                    self.load(scratch, none);
                    self.emit(Op::TextPart { fmt: Fmt::Str, a: scratch });
                }
            }
        }
        self.emit(Op::TextEnd { d: scratch });
        Val::Reg(scratch)
    }
}
