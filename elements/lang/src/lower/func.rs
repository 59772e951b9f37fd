//! Calls of functions to instructions.

use abi::Status;

use crate::hir::{Const, Each, Func, HExpr};
use crate::ty::Ty;
use crate::vm::code::{Bin, Op, StrBin, StrFn, Un};

use super::build::{Builder, Val};
use super::fold::{STATUS_MAX, bin_of, extreme};

impl Builder<'_> {
    pub(super) fn func(&mut self, func: Func, args: &[HExpr], e: &HExpr) -> Val {
        if let (Func::Min | Func::Max, [left, right]) = (func, args)
            && let Some(n) = self.small(right)
        {
            let a = self.scalar(left);
            return self.one(|d| Op::BinSmall { op: extreme(func, &e.ty), d, a, n });
        }
        let mut regs = [0; 3];
        // The tables of weights are constants, not registers; so are patterns.
        if func != Func::WeightedMap {
            let taken = if func == Func::Matches { 1 } else { args.len() };
            for (slot, arg) in regs.iter_mut().zip(args.iter().take(taken)) {
                let value = self.expr(arg);
                *slot = if arg.ty.is_opt() { self.pair(&value) } else { self.reg(&value) };
            }
        }
        let [a, b, c] = regs;
        let text = |op| move |d| Op::StrBin { op, d, a, b };
        match func {
            Func::Now => self.one(|d| Op::Num { d, field: abi::Num::NowNs }),
            Func::Random => self.one(|d| Op::Random { d }),
            Func::Chance => {
                let share = if args.len() > 1 {
                    let hash = self.one(|d| Op::Hash { d, a: b });
                    let a = self.reg(&hash);
                    self.one(|d| Op::Share { d, a })
                } else {
                    self.one(|d| Op::Random { d })
                };
                let share = self.reg(&share);
                self.one(|d| Op::Bin { op: Bin::LtF, d, a: share, b: a })
            }
            Func::Hash => self.one(|d| Op::Hash { d, a }),
            Func::Min | Func::Max => self.one(|d| Op::Bin { op: extreme(func, &e.ty), d, a, b }),
            Func::Clamp => {
                let low = self.one(|d| Op::Bin { op: extreme(Func::Max, &e.ty), d, a, b });
                let low = self.reg(&low);
                self.one(|d| Op::Bin { op: extreme(Func::Min, &e.ty), d, a: low, b: c })
            }
            Func::Abs => match e.ty {
                Ty::Float | Ty::Rate => self.one(|d| Op::Un { op: Un::AbsF, d, a }),
                Ty::Int | Ty::Duration => self.one(|d| Op::Un { op: Un::AbsI, d, a }),
                _ => Val::Reg(a),
            },
            Func::Floor => self.one(|d| Op::Un { op: Un::Floor, d, a }),
            // A constant list's word tells its length, as a text's does.
            Func::Len
                if args.first().is_some_and(|x| {
                    matches!(x.ty, Ty::Str | Ty::Bytes) || matches!(self.fold(x), Some(Const::List(_)))
                }) =>
            {
                self.one(|d| Op::StrLen { d, a })
            }
            Func::Len => self.one(|d| Op::Len { d, a }),
            Func::Lower => self.one(|d| Op::StrFn { op: StrFn::Lower, d, a, b }),
            Func::Trim => self.one(|d| Op::StrFn { op: StrFn::Trim, d, a, b }),
            Func::Prefix => self.one(|d| Op::StrFn { op: StrFn::Prefix, d, a, b }),
            Func::Mask => self.one(|d| Op::StrFn { op: StrFn::Mask, d, a, b }),
            Func::Base64 => self.one(|d| Op::StrFn { op: StrFn::Base64, d, a, b }),
            Func::Contains => self.one(text(StrBin::Contains)),
            Func::StartsWith => self.one(text(StrBin::StartsWith)),
            Func::EndsWith => self.one(text(StrBin::EndsWith)),
            Func::InCidr => self.one(text(StrBin::InCidr)),
            Func::Split => self.one(|d| Op::Split { d, a, b }),
            Func::Matches => self.matches(args, a),
            Func::ParseInt => self.two(|d| Op::ParseInt { d, a }),
            Func::Status => {
                let d = self.alloc(1);
                self.emit(Op::Move { d, a });
                let is_one = self.alloc(1);
                self.emit(Op::BinSmall { op: Bin::LeU, d: is_one, a, n: STATUS_MAX });
                let known = self.emit(Op::JumpIf { a: is_one, to: 0 });
                self.load(d, Status::UNKNOWN.code().into());
                self.land(&[known]);
                Val::Reg(d)
            }
            Func::Healthy => self.one(|d| Op::Healthy { d, a }),
            Func::Sample => self.one(|d| Op::Sample { d, a, b }),
            Func::Next => self.two(|d| Op::Turn { d, a }),
            Func::Ring => self.two(|d| Op::Ring { d, a, key: b }),
            Func::Maglev => self.two(|d| Op::Maglev { d, a, key: b }),
            Func::WeightedEndpoint => {
                let key = if args.len() > 1 { b } else { self.pair(&Val::Const(Const::None)) };
                self.two(|d| Op::ByWeight { d, a, key })
            }
            Func::WeightedMap => self.weighted_map(args),
            Func::PerSecond => Val::Reg(a),
            Func::Digest => self.one(|d| Op::StrFn { op: StrFn::Digest, d, a, b }),
            Func::Keys => self.one(|d| Op::Keys { d, a }),
            Func::Distinct => {
                let item = e.ty.bare();
                let of_texts = matches!(item, Ty::List(item) if matches!(**item, Ty::Str | Ty::Bytes));
                self.one(|d| Op::Distinct { d, a, of_texts })
            }
        }
    }

    fn weighted_map(&mut self, args: &[HExpr]) -> Val {
        let Some(map) = args.first() else { return Val::Unit };
        let Some(Const::Map(items)) = self.fold(map) else {
            self.not_constant(map, "the map of weights");
            return Val::Unit;
        };
        if items.is_empty() {
            self.errors.push(crate::diag::Diagnostic::error(self.link.span, "the map of weights is empty"));
            return Val::Unit;
        }
        let key = match args.get(1) {
            Some(key) => {
                let value = self.expr(key);
                self.pair(&value)
            }
            None => self.pair(&Val::Const(Const::None)),
        };
        let mut sums = Vec::new();
        let mut sum = 0_u64;
        for (_, weight) in &items {
            if let Const::Word(w) = weight {
                sum = sum.saturating_add(*w);
            }
            sums.push(sum);
        }
        self.shared.tables.push(sums);
        let table = u16::try_from(self.shared.tables.len() - 1).unwrap_or(u16::MAX);
        let at = self.one(|d| Op::ByTable { d, key, table });
        let keys = Const::List(items.into_iter().map(|(k, _)| k).collect());
        let (b, a) = (self.reg(&at), self.reg(&Val::Const(keys)));
        // The table's answer is a place of the list, so the item is there.
        let Val::Opt(found) = self.two(|d| Op::Nth { d, a, b }) else { return Val::Unit };
        Val::Reg(found.wrapping_add(1))
    }

    pub(super) fn each(&mut self, what: Each, list: &HExpr, param: crate::hir::LocalId, body: &HExpr) -> Val {
        let list = self.scalar(list);
        let (d, result) = match what {
            Each::Least => self.place_for(&Ty::Endpoint.opt()),
            _ => self.place_for(&Ty::Bool),
        };
        match what {
            Each::Filter => {
                self.emit(Op::List { d });
            }
            Each::All => self.load(d, 1),
            Each::Least | Each::Any => self.load(d, 0),
        }
        let (i, item, best) = (self.alloc(1), self.alloc(1), self.alloc(1));
        self.load(i, 0);
        self.set_local(param, Val::Reg(item));
        let mark = self.next;
        let back = self.here();
        let done = self.emit(Op::Next { d: item, list, i, to: 0 });
        let mut ends = vec![done];
        match what {
            Each::Least => {
                let key = self.scalar(body);
                let first = self.emit(Op::JumpUnless { a: d, to: 0 });
                let (lt, _) = bin_of(crate::hir::HBin::Lt, &body.ty, &body.ty);
                let less = self.one(|d| Op::Bin { op: lt, d, a: key, b: best });
                let less = self.reg(&less);
                self.emit(Op::JumpUnless { a: less, to: back });
                self.land(&[first]);
                self.load(d, 1);
                self.emit(Op::Move { d: d.wrapping_add(1), a: item });
                self.emit(Op::Move { d: best, a: key });
                self.emit(Op::Jump { to: back });
            }
            Each::Filter => {
                let mut no = Vec::new();
                self.jump_unless(body, &mut no);
                self.emit(Op::Push { list: d, a: item });
                self.land(&no);
                self.emit(Op::Jump { to: back });
            }
            Each::Any | Each::All => {
                let decides = u64::from(what == Each::Any);
                let mut on = Vec::new();
                if what == Each::Any {
                    self.jump_unless(body, &mut on);
                } else {
                    self.jump_if(body, &mut on);
                }
                self.load(d, decides);
                ends.push(self.jump());
                self.land(&on);
                self.emit(Op::Jump { to: back });
            }
        }
        self.land(&ends);
        self.next = mark;
        result
    }
}
