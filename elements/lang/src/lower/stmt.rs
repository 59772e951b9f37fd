//! Statements and effects to instructions.

use abi::Flag;

use crate::hir::{Const, Effect, HBlock, HExpr, HPlace, HStmt};
use crate::source::Span;
use crate::ty::Ty;
use crate::vm::code::{Fmt, LogField, LogSite, Op, RejectSite, Segment, StrFn};

use super::build::{Builder, Val};
use super::fold::fmt_of;

impl Builder<'_> {
    /// The statements of a block, then its value.
    pub(super) fn block_value(&mut self, block: &HBlock) -> Val {
        let later = self.is_later();
        self.along(block);
        let value = match &block.value {
            Some(value) => self.expr(value),
            None => Val::Unit,
        };
        self.came_along(later);
        value
    }

    /// A block of which only the effects matter.
    pub(super) fn block(&mut self, block: &HBlock) {
        let mark = self.next;
        self.block_value(block);
        self.next = mark;
    }

    pub(super) fn stmt(&mut self, stmt: &HStmt) {
        let mark = self.next;
        match stmt {
            HStmt::Let(local, value) => {
                self.bind(*local, value);
                return;
            }
            HStmt::LetElse(local, value, or_else) => {
                let later = self.ahead([or_else]);
                let made = self.expr(value);
                self.came_along(later);
                let bound = match made {
                    Val::Opt(tag) => {
                        let there = self.emit(Op::JumpIf { a: tag, to: 0 });
                        let step = self.step();
                        self.block(or_else);
                        self.other_way(step);
                        self.land(&[there]);
                        Val::Reg(tag.wrapping_add(1))
                    }
                    Val::Const(Const::None) => {
                        self.block(or_else);
                        // What follows is never reached, but is compiled: give it something to name.
                        Val::Reg(self.alloc(1))
                    }
                    Val::Some(inner) => *inner,
                    other => other,
                };
                let bound = self.owned(*local, bound, value.ty.bare(), mark);
                self.set_local(*local, bound);
                return;
            }
            HStmt::Expr(e) => {
                self.expr(e);
            }
            HStmt::Return => {
                let jump = self.jump();
                self.returns.push(jump);
            }
            HStmt::For { local, list, body } => self.for_loop(*local, list, body),
            HStmt::Assign(place, value) => self.assign(place, value),
        }
        self.next = mark;
    }

    fn bind(&mut self, local: crate::hir::LocalId, value: &HExpr) {
        let mark = self.next;
        let made = self.expr(value);
        let made = self.owned(local, made, &value.ty, mark);
        self.set_local(local, made);
    }

    /// A value a local may keep: one that is assigned later, or that lives in another local's register,
    /// gets a register of its own.
    fn owned(&mut self, local: crate::hir::LocalId, value: Val, ty: &Ty, mark: u16) -> Val {
        let is_assigned = self.assigned.contains(&local);
        if !is_assigned && !matches!(value, Val::Some(_)) {
            return self.apart(value, ty, mark);
        }
        let (d, own) = self.place_for(ty);
        self.store(&value, ty, d, mark);
        own
    }

    /// A value that lives in another local's register, which may be assigned, in one of its own. Those from `mark` on
    /// are nobody's yet.
    pub(super) fn apart(&mut self, value: Val, ty: &Ty, mark: u16) -> Val {
        match &value {
            Val::Reg(r) | Val::Opt(r) if u16::from(*r) < mark && !self.assigned.is_empty() => {
                self.copied(&value, ty)
            }
            _ => value,
        }
    }

    /// The same in registers of its own.
    pub(super) fn copied(&mut self, value: &Val, ty: &Ty) -> Val {
        if !matches!(value, Val::Reg(_) | Val::Opt(_)) {
            return value.clone();
        }
        let (d, own) = self.place_for(ty);
        self.store(value, ty, d, u16::MAX);
        own
    }

    fn for_loop(&mut self, local: crate::hir::LocalId, list: &HExpr, body: &HBlock) {
        let later = self.ahead([body]);
        let (mark, ty) = (self.next, &list.ty);
        let list = self.scalar(list);
        self.came_along(later);
        let list = self.apart(Val::Reg(list), ty, mark);
        let list = self.reg(&list);
        let (i, item) = (self.alloc(1), self.alloc(1));
        self.load(i, 0);
        self.set_local(local, Val::Reg(item));
        let back = self.here();
        let done = self.emit(Op::Next { d: item, list, i, to: 0 });
        let changes = self.loop_changes(body);
        self.block(body);
        self.came_along(later);
        self.emit(Op::Jump { to: back });
        self.land(&[done]);
        if changes {
            self.set_dirty(true);
            if !later {
                self.end_step();
            }
        }
    }

    /// In a dry run: says what would have been done.
    fn would(&mut self, what: &str, span: Span) -> bool {
        if !self.link.dry {
            return false;
        }
        let site = self.reject_site(what.to_owned(), span);
        self.emit(Op::Would { site });
        let metric = self.registry.metric("would");
        let one = self.reg(&Val::Const(Const::Word(1)));
        self.emit(Op::Count { metric, a: one });
        true
    }

    fn assign(&mut self, place: &HPlace, value: &HExpr) {
        let later = match place {
            HPlace::State(at) => self.ahead_of(*at),
            _ => self.is_later(),
        };
        let mark = self.next;
        let made = self.expr(value);
        self.came_along(later);
        match place {
            HPlace::Local(local) => {
                if let Some(Val::Reg(d) | Val::Opt(d)) = self.local(*local).cloned() {
                    self.store(&made, &value.ty, d, mark);
                }
                return;
            }
            HPlace::State(at) => {
                self.store_state(*at, &made);
                return;
            }
            HPlace::Map { .. } | HPlace::MapBy { .. } => {
                self.map_assign(place, &made);
                return;
            }
            _ => {}
        }
        let what = match place {
            HPlace::Meta { .. } => "write metadata",
            HPlace::Endpoint => "choose an endpoint",
            HPlace::Destination => "change the destination",
            HPlace::Deadline => "bring the deadline nearer",
            HPlace::Payload(..) | HPlace::WholePayload => "write the payload",
            _ => "change the status",
        };
        if self.would(what, value.span) {
            return;
        }
        match place {
            HPlace::Payload(written, ty) => self.write_field(written, ty, &made),
            HPlace::WholePayload => {
                let a = self.reg(&made);
                let site = self.messages.site;
                self.note_passed();
                self.emit(Op::SetPayload { a, site });
            }
            HPlace::Meta { side, key } => {
                self.check_written(key);
                let key = self.header_name(key);
                let made = if *value.ty.bare() == Ty::Bytes { self.based(made) } else { made };
                let a = self.pair(&made);
                self.emit(Op::SetMeta { side: *side, key, a });
            }
            HPlace::Endpoint => {
                let a = self.pair(&made);
                self.emit(Op::SetEndpoint { a });
            }
            HPlace::Destination => {
                let a = self.reg(&made);
                self.emit(Op::SetDestination { a });
            }
            HPlace::Deadline => {
                let a = self.reg(&made);
                self.emit(Op::SetDeadline { a });
            }
            HPlace::Status => {
                let status = self.reg(&made);
                let text = self.pair(&Val::Const(Const::None));
                self.emit(Op::SetStatus { status, text });
            }
            HPlace::Message => {
                let a = self.reg(&made);
                let text = self.pair(&Val::Some(Box::new(Val::Reg(a))));
                let status = self.alloc(1);
                self.emit(Op::Num { d: status, field: abi::Num::Status });
                self.emit(Op::SetStatus { status, text });
            }
            HPlace::Local(_) | HPlace::State(_) | HPlace::Map { .. } | HPlace::MapBy { .. } => {}
        }
    }

    /// Bytes that may be absent as base64.
    fn based(&mut self, bytes: Val) -> Val {
        if let Val::Const(Const::None) = bytes {
            return bytes;
        }
        let (d, result) = self.place_for(&Ty::Str.opt());
        self.put_pair(&bytes, d);
        let absent = self.emit(Op::JumpUnless { a: d, to: 0 });
        let a = d.wrapping_add(1);
        self.emit(Op::StrFn { op: StrFn::Base64, d: a, a, b: a });
        self.land(&[absent]);
        result
    }

    /// What follows may end the call: the elements before this one have let it through.
    pub(super) fn note_passed(&mut self) {
        if self.at > 0 && !self.in_response && !self.in_message {
            self.emit(Op::Passed { elements: self.at });
        }
    }

    fn reject_site(&mut self, text: String, span: Span) -> u16 {
        let flag = (self.link.element.name == "FaultInjection" && self.link.element.is_std)
            .then_some(Flag::FaultInjected);
        let line = self.line(span);
        self.shared.rejects.push(RejectSite { element: self.at, line, flag, text });
        u16::try_from(self.shared.rejects.len() - 1).unwrap_or(u16::MAX)
    }

    pub(super) fn effect(&mut self, effect: &Effect, span: Span) {
        match effect {
            Effect::Reject { status, text } => self.reject(status, text, span),
            Effect::Delay(time) => self.delay(time, span),
            Effect::Log { level, fields } => self.log(level, fields),
            Effect::Count { name, by, labels } => {
                let metric = self.registry.metric(name);
                let a = self.scalar(by);
                if labels.is_empty() {
                    self.emit(Op::Count { metric, a });
                } else {
                    let site = self.named_values(abi::Level::Info, labels);
                    self.emit(Op::CountLabels { metric, a, site });
                }
            }
            Effect::Observe { name, value } => {
                let metric = self.registry.metric(name);
                let a = self.scalar(value);
                self.emit(Op::Observe { metric, a });
            }
            Effect::AccessLog(to) => {
                if let Some(Const::Str(to)) = self.fold(to) {
                    let sink = self.registry.sink(&to);
                    self.emit(Op::AccessLog { sink });
                }
            }
            Effect::Compress { encoding, min } => {
                let Some(Const::Word(encoding)) = self.fold(encoding) else {
                    self.errors.push(
                        crate::diag::Diagnostic::error(encoding.span, "the algorithm must be constant")
                            .label("expected gzip, deflate or zstd, or a parameter"),
                    );
                    return;
                };
                if self.would("compress", span) {
                    return;
                }
                let encoding = usize::try_from(encoding)
                    .ok()
                    .and_then(|at| abi::Encoding::ALL.get(at).copied())
                    .unwrap_or(abi::Encoding::Gzip);
                let min = self.scalar(min);
                self.emit(Op::Compress { encoding, min });
            }
            // The plan says so, see `boundary`.
            Effect::Boundary { .. } => {}
            Effect::Decompress => {
                if !self.would("decompress", span) {
                    self.emit(Op::Decompress);
                }
            }
        }
    }

    fn reject(&mut self, status: &HExpr, text: &HExpr, span: Span) {
        if self.would("reject", span) {
            let jump = self.jump();
            self.returns.push(jump);
            return;
        }
        let status = self.scalar(status);
        let text_value = self.expr(text);
        if self.in_response {
            let a = self.reg(&text_value);
            let text = self.pair(&Val::Some(Box::new(Val::Reg(a))));
            self.emit(Op::SetStatus { status, text });
            let jump = self.jump();
            self.returns.push(jump);
            return;
        }
        let text = self.reg(&text_value);
        let site = self.reject_site(String::new(), span);
        if self.at > 0 && !self.in_message {
            self.emit(Op::Passed { elements: self.at });
        }
        self.emit(Op::Mark { element: self.at });
        self.emit(Op::Reject { status, text, site });
    }

    fn delay(&mut self, time: &HExpr, span: Span) {
        if self.would("delay", span) {
            return;
        }
        let a = self.scalar(time);
        if self.at > 0 && !self.in_response && !self.in_message {
            self.emit(Op::Passed { elements: self.at });
        }
        if self.link.element.name == "FaultInjection" && self.link.element.is_std {
            self.shared.flags.push(Flag::DelayInjected);
            let site = u16::try_from(self.shared.flags.len() - 1).unwrap_or(u16::MAX);
            self.emit(Op::SetFlag { site });
        }
        let segment = u16::try_from(self.code.segments.len() + 1).unwrap_or(u16::MAX);
        let at = self.emit(Op::Delay { a, segment });
        let pc = u32::try_from(at + 1).unwrap_or(u32::MAX);
        self.code.segments.push(Segment { pc, live: self.next, element: self.at });
        self.here();
        self.load_step();
    }

    fn log(&mut self, level: &HExpr, fields: &[(String, HExpr)]) {
        let level = match self.fold(level) {
            Some(Const::Word(0)) => abi::Level::Debug,
            Some(Const::Word(2)) => abi::Level::Warn,
            Some(Const::Word(3)) => abi::Level::Error,
            _ => abi::Level::Info,
        };
        let site = self.named_values(level, fields);
        self.emit(Op::Log { site });
    }

    /// Values with names, made; the site that says where they are.
    fn named_values(&mut self, level: abi::Level, fields: &[(String, HExpr)]) -> u16 {
        let mut out = Vec::new();
        for (name, value) in fields {
            let mut fmt = fmt_of(&value.ty);
            let direct = matches!(fmt, Fmt::Bool | Fmt::Int | Fmt::Uint | Fmt::Float | Fmt::Str);
            let (optional, reg) = if direct {
                let made = self.expr(value);
                let optional = value.ty.is_opt();
                (optional, if optional { self.pair(&made) } else { self.reg(&made) })
            } else {
                // Durations, statuses and their like are logged as they read.
                let text = HExpr {
                    kind: crate::hir::HKind::Interp(vec![value.clone()]),
                    ty: Ty::Str,
                    span: value.span,
                };
                fmt = Fmt::Str;
                (false, self.scalar(&text))
            };
            out.push(LogField { name: name.clone(), reg, optional, fmt });
        }
        self.shared.logs.push(LogSite { level, element: self.at, fields: out });
        u16::try_from(self.shared.logs.len() - 1).unwrap_or(u16::MAX)
    }
}
