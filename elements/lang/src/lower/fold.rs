//! Constants: what an expression is when its link's arguments are known.

use abi::Status;

use crate::hir::{Const, Func, HBin, HBlock, HExpr, HKind, HPattern};
use crate::ty::Ty;
use crate::vm::arith;
use crate::vm::code::{Bin, Fmt, Un};
use crate::vm::text::write_word;

use super::build::{Builder, Val};
use super::visit;

/// The greatest number that is a status.
pub(super) const STATUS_MAX: u32 = 16;

/// The instruction of an operator on operands of these types, and whether they change places.
pub(super) fn bin_of(op: HBin, left: &Ty, right: &Ty) -> (Bin, bool) {
    let of = |i, u, f| match left {
        Ty::Int | Ty::Duration => i,
        Ty::Float | Ty::Rate => f,
        _ => u,
    };
    match (op, left, right) {
        (HBin::Mul, Ty::Rate, Ty::Duration) => (Bin::MulRD, false),
        (HBin::Mul, Ty::Duration, _) => (Bin::MulDF, false),
        (HBin::Div, Ty::Duration, Ty::Duration) => (Bin::DivDD, false),
        (HBin::Div, Ty::Duration, _) => (Bin::DivDF, false),
        (HBin::Add, Ty::Instant, _) => (Bin::AddTD, false),
        (HBin::Sub, Ty::Instant, Ty::Duration) => (Bin::SubTD, false),
        (HBin::Sub, Ty::Instant, _) => (Bin::SubTT, false),
        (HBin::Add, ..) => (of(Bin::AddI, Bin::AddU, Bin::AddF), false),
        (HBin::Sub, ..) => (of(Bin::SubI, Bin::SubU, Bin::SubF), false),
        (HBin::Mul, ..) => (of(Bin::MulI, Bin::MulU, Bin::MulF), false),
        (HBin::Div, ..) => (of(Bin::DivI, Bin::DivU, Bin::DivF), false),
        (HBin::Rem, ..) => (of(Bin::RemI, Bin::RemU, Bin::RemF), false),
        (HBin::Lt, ..) => (of(Bin::LtI, Bin::LtU, Bin::LtF), false),
        (HBin::Le, ..) => (of(Bin::LeI, Bin::LeU, Bin::LeF), false),
        (HBin::Gt, ..) => (of(Bin::LtI, Bin::LtU, Bin::LtF), true),
        (HBin::Ge, ..) => (of(Bin::LeI, Bin::LeU, Bin::LeF), true),
    }
}

/// `min` or `max` of a type.
pub(super) fn extreme(func: Func, ty: &Ty) -> Bin {
    match (func, ty) {
        (Func::Min, Ty::Int | Ty::Duration) => Bin::MinI,
        (Func::Min, Ty::Float | Ty::Rate) => Bin::MinF,
        (Func::Min, _) => Bin::MinU,
        (_, Ty::Int | Ty::Duration) => Bin::MaxI,
        (_, Ty::Float | Ty::Rate) => Bin::MaxF,
        _ => Bin::MaxU,
    }
}

/// How a type reads as text.
pub(super) fn fmt_of(ty: &Ty) -> Fmt {
    match ty.bare() {
        Ty::Bool => Fmt::Bool,
        Ty::Int => Fmt::Int,
        Ty::Float => Fmt::Float,
        Ty::Duration => Fmt::Duration,
        Ty::Instant => Fmt::Instant,
        Ty::Rate => Fmt::Rate,
        Ty::Status => Fmt::Status,
        Ty::Endpoint => Fmt::Endpoint,
        Ty::Service => Fmt::Service,
        Ty::Enum(id) => Fmt::Enum(id.0),
        Ty::Str | Ty::Bytes => Fmt::Str,
        _ => Fmt::Uint,
    }
}

fn word(b: bool) -> Const {
    Const::Word(u64::from(b))
}

/// Equality of constants of one type.
fn equal(a: &Const, b: &Const, ty: &Ty) -> bool {
    match (a, b, ty.bare()) {
        (Const::Word(a), Const::Word(b), Ty::Float | Ty::Rate) => arith::bin(Bin::EqF, *a, *b) != 0,
        _ => a == b,
    }
}

impl Builder<'_> {
    /// Its value, if that is known now.
    pub(super) fn fold(&self, e: &HExpr) -> Option<Const> {
        let scalar = |e: &HExpr| match self.fold(e)? {
            Const::Word(w) => Some(w),
            _ => None,
        };
        Some(match &e.kind {
            HKind::Const(c) => c.clone(),
            HKind::Local(id) => match self.local(*id)? {
                Val::Const(c) | Val::Data(c) => c.clone(),
                _ => return None,
            },
            HKind::Param(at) | HKind::CallParam(at) => self.param(*at)?.clone(),
            HKind::Wrap(inner) => self.fold(inner)?,
            // A field that no method has.
            HKind::Payload(_) if e.ty.is_nothing() => Const::None,
            HKind::Widen(inner) => {
                let op = if inner.ty == Ty::Int { Un::IntToFloat } else { Un::UintToFloat };
                Const::Word(arith::un(op, scalar(inner)?))
            }
            HKind::Not(inner) => word(scalar(inner)? == 0),
            HKind::Neg(inner) => {
                let op = if e.ty == Ty::Float { Un::NegF } else { Un::NegI };
                Const::Word(arith::un(op, scalar(inner)?))
            }
            HKind::Bin(op, left, right) => {
                let (a, b) = (scalar(left)?, scalar(right)?);
                let (bin, swapped) = bin_of(*op, &left.ty, &right.ty);
                Const::Word(if swapped { arith::bin(bin, b, a) } else { arith::bin(bin, a, b) })
            }
            HKind::And(left, right) => match (scalar(left), scalar(right)) {
                (Some(0), _) => word(false),
                (Some(_), Some(r)) => Const::Word(r),
                _ => return None,
            },
            HKind::Or(left, right) => match (scalar(left), scalar(right)) {
                (Some(l), _) if l != 0 => word(true),
                (Some(_), Some(r)) => Const::Word(r),
                _ => return None,
            },
            HKind::Equal { left, right, negate } => {
                word(equal(&self.fold(left)?, &self.fold(right)?, &left.ty) != *negate)
            }
            HKind::Coalesce(left, right) => match self.fold(left)? {
                Const::None => self.fold(right)?,
                value => value,
            },
            HKind::In(item, list) => match (self.fold(item)?, self.fold(list)?) {
                (Const::None, _) => word(false),
                (item, Const::List(items)) => word(items.iter().any(|i| equal(i, &item, &e.ty))),
                _ => return None,
            },
            HKind::If { cond, then, or_else } => {
                self.fold_block(if scalar(cond)? != 0 { then } else { or_else })?
            }
            HKind::Match { of, arms } => {
                let of_value = self.fold(of)?;
                let arm = arms.iter().find(|arm| self.takes(&arm.pattern, &of_value, &of.ty))?;
                match arm.pattern {
                    HPattern::Some(_) => return None,
                    _ => self.fold_block(&arm.body)?,
                }
            }
            HKind::List(items) => Const::List(items.iter().map(|i| self.fold(i)).collect::<Option<_>>()?),
            HKind::Map(items) => {
                let pair = |(k, v): &(HExpr, HExpr)| Some((self.fold(k)?, self.fold(v)?));
                Const::Map(items.iter().map(pair).collect::<Option<_>>()?)
            }
            HKind::Interp(parts) => {
                let mut text = String::new();
                for part in parts {
                    self.append(&mut text, &self.fold(part)?, &part.ty)?;
                }
                Const::Str(crate::vm::text::cut(&text, 1024).into())
            }
            HKind::Call(func, args) => self.fold_call(*func, args, &e.ty)?,
            _ => return None,
        })
    }

    /// The same as a value: data where an argument has a part in it. Nothing has no value that could be data.
    pub(super) fn folded(&self, e: &HExpr) -> Option<Val> {
        Some(match self.fold(e)? {
            Const::None => Val::Const(Const::None),
            value if self.is_argument(e) => Val::Data(value),
            value => Val::Const(value),
        })
    }

    /// True if an argument of the link has a part in an expression.
    fn is_argument(&self, e: &HExpr) -> bool {
        let mut found = self.in_argument;
        visit::expr(e, &mut |node| {
            if let visit::Node::Expr(e) = node {
                found |= match &e.kind {
                    HKind::Param(_) | HKind::CallParam(_) => true,
                    HKind::Local(id) => matches!(self.local(*id), Some(Val::Data(_))),
                    _ => false,
                };
            }
        });
        found
    }

    fn fold_block(&self, block: &HBlock) -> Option<Const> {
        if !block.stmts.is_empty() {
            return None;
        }
        self.fold(block.value.as_ref()?)
    }

    fn fold_call(&self, func: Func, args: &[HExpr], ty: &Ty) -> Option<Const> {
        let args: Vec<Const> = args.iter().map(|a| self.fold(a)).collect::<Option<_>>()?;
        Some(match (func, args.as_slice()) {
            (Func::Min | Func::Max, [Const::Word(a), Const::Word(b)]) => {
                Const::Word(arith::bin(extreme(func, ty), *a, *b))
            }
            (Func::Clamp, [Const::Word(x), Const::Word(low), Const::Word(high)]) => {
                let x = arith::bin(extreme(Func::Max, ty), *x, *low);
                Const::Word(arith::bin(extreme(Func::Min, ty), x, *high))
            }
            (Func::Floor, [Const::Word(x)]) => Const::Word(arith::un(Un::Floor, *x)),
            (Func::Status, [Const::Word(code)]) => {
                let unknown = u64::from(Status::UNKNOWN.code());
                Const::Word(if *code <= STATUS_MAX.into() { *code } else { unknown })
            }
            (Func::PerSecond, [value]) => value.clone(),
            (Func::Distinct, [Const::List(items)]) => {
                let mut once: Vec<Const> = Vec::new();
                items.iter().for_each(|item| {
                    if !once.contains(item) {
                        once.push(item.clone())
                    }
                });
                Const::List(once)
            }
            (Func::Distinct, [Const::None]) => Const::None,
            (Func::Digest, [Const::Str(text)]) => {
                let hex = crate::vm::text::digest(text.as_bytes());
                Const::Str(String::from_utf8_lossy(&hex).into())
            }
            (Func::Keys, [Const::Map(items)]) => {
                Const::List(items.iter().map(|(key, _)| key.clone()).collect())
            }
            (Func::Len, [Const::Str(text)]) => Const::Word(text.len() as u64),
            (Func::Len, [Const::List(items)]) => Const::Word(items.len() as u64),
            _ => return None,
        })
    }

    /// A pattern takes a known value.
    pub(super) fn takes(&self, pattern: &HPattern, value: &Const, ty: &Ty) -> bool {
        match pattern {
            HPattern::Any => true,
            HPattern::Some(_) => *value != Const::None,
            HPattern::None => *value == Const::None,
            HPattern::Value(e) => self.fold(e).is_some_and(|c| equal(&c, value, ty)),
        }
    }

    /// A constant as text.
    fn append(&self, text: &mut String, value: &Const, ty: &Ty) -> Option<()> {
        match (value, ty.bare()) {
            (Const::None, _) => text.push_str("none"),
            (Const::Str(s), _) => text.push_str(s),
            (Const::Word(at), Ty::Service) => text.push_str(self.service_name(*at)?),
            (Const::Word(_), Ty::Endpoint | Ty::ProtoEnum(_)) => return None,
            (Const::Word(w), ty) => write_word(text, fmt_of(ty), *w),
            _ => return None,
        }
        Some(())
    }
}
