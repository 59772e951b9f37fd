//! Looking things up: constant maps, ranks of lists, patterns of texts.

use crate::diag::Diagnostic;
use crate::hir::{Const, HExpr, LocalId};
use crate::vm::Pattern;
use crate::vm::code::{Op, Reg};

use super::build::{Builder, Val};
use super::payload::is_text;

impl Builder<'_> {
    /// `m[k]` of a map that is no state: its keys are looked at one by one.
    pub(super) fn map_at(&mut self, map: &HExpr, key: &HExpr) -> Val {
        let Some(Const::Map(items)) = self.fold(map) else {
            let of_texts = is_text(&key.ty);
            let (map, key) = (self.scalar(map), self.scalar(key));
            return self.two(|d| Op::FindPair { d, map, key, of_texts });
        };
        let (keys, values): (Vec<Const>, Vec<Const>) = items.into_iter().unzip();
        let key_reg = self.scalar(key);
        let (list, of) = (self.reg(&Val::Data(Const::List(keys))), self.reg(&Val::Data(Const::List(values))));
        let d = self.alloc(2);
        let (i, item, last) = (self.alloc(1), self.alloc(1), self.alloc(1));
        self.load(d, 0);
        self.load(i, 0);
        let back = self.here();
        self.emit(Op::Move { d: last, a: i });
        let done = self.emit(Op::Next { d: item, list, i, to: 0 });
        let mark = self.next;
        let same = self.same(item, key_reg, &key.ty);
        let same = self.reg(&same);
        self.emit(Op::JumpUnless { a: same, to: back });
        self.next = mark;
        self.emit(Op::Nth { d, a: of, b: last });
        self.land(&[done]);
        Val::Opt(d)
    }

    /// `quantile(list, q, e => x)`.
    pub(super) fn quantile(&mut self, list: &HExpr, q: &HExpr, param: LocalId, body: &HExpr) -> Val {
        let (list, q) = (self.scalar(list), self.scalar(q));
        let (d, of, i, item): (Reg, Reg, Reg, Reg) =
            (self.alloc(1), self.alloc(1), self.alloc(1), self.alloc(1));
        self.emit(Op::List { d: of });
        self.load(i, 0);
        self.set_local(param, Val::Reg(item));
        let mark = self.next;
        let back = self.here();
        let done = self.emit(Op::Next { d: item, list, i, to: 0 });
        let x = self.scalar(body);
        self.emit(Op::Push { list: of, a: x });
        self.emit(Op::Jump { to: back });
        self.land(&[done]);
        self.next = mark;
        self.emit(Op::Quantile { d, a: of, b: q });
        Val::Reg(d)
    }

    /// `matches(text, "pattern")`.
    pub(super) fn matches(&mut self, args: &[HExpr], a: Reg) -> Val {
        let Some(pattern) = args.get(1) else { return Val::Unit };
        let Some(Const::Str(text)) = self.fold(pattern) else {
            self.not_constant(pattern, "the pattern");
            return Val::Unit;
        };
        match Pattern::new(&text) {
            Ok(pattern) => {
                self.shared.patterns.push(pattern);
                let pattern = u16::try_from(self.shared.patterns.len() - 1).unwrap_or(u16::MAX);
                self.one(|d| Op::Matches { d, a, pattern })
            }
            Err(why) => {
                self.errors.push(
                    Diagnostic::error(pattern.span, "this pattern cannot be read").label(why).help(
                        "as in matches(x, \"^/v[0-9]+/\"); there are no look-arounds and no back-references",
                    ),
                );
                Val::Reg(self.alloc(1))
            }
        }
    }
}
