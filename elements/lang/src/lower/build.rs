//! The builder of one entry's code: registers, constants, jumps.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::diag::Diagnostic;
use crate::hir::{Const, HExpr, LocalId};
use crate::schema::Coverage;
use crate::source::{Sources, Span};
use crate::ty::Ty;
use crate::vm::code::{Code, Op, Reg, Shared, Un, const_list, const_text};

use super::payload::Messages;
use super::state::StateAt;
use super::step::Handling;
use super::{Link, Registry};

/// Registers there are.
const REGS_MAX: u16 = 250;
/// Instructions of one entry.
const OPS_MAX: usize = 60_000;

/// Where a value is.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Const(Const),
    /// A constant that a rule's argument decides, never [`Const::None`]: known now, but data to the code, so
    /// that rules which differ in it have the same code.
    Data(Const),
    Reg(Reg),
    /// A `T?`: presence here, value in the next.
    Opt(Reg),
    /// A `T?` that is present.
    Some(Box<Val>),
    /// Nothing: an effect has happened, or the place is never reached.
    Unit,
}

/// A call-parameter, state or condition in the call's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) word: u16,
    pub(super) optional: bool,
}

/// What is known of a parameter of the link at hand.
#[derive(Clone, Debug)]
pub(super) enum ParamAt {
    Const(Const),
    Word(Slot),
    /// Only `request` reads it: the value that it has there.
    Held(Val),
    /// A message of constants: made where it is used.
    Made(Rc<HExpr>),
    /// No handler reads it.
    Unused,
}

/// Constants and tables already made.
#[derive(Debug, Default)]
pub(super) struct Pools {
    texts: BTreeMap<String, u64>,
    words: BTreeMap<u64, u16>,
}

/// Everything one chain's code is made with.
pub(super) struct Builder<'a> {
    pub(super) shared: &'a mut Shared,
    pub(super) pools: &'a mut Pools,
    pub(super) registry: &'a mut Registry,
    pub(super) sources: &'a Sources,
    pub(super) services: &'a [abi::Service],
    pub(super) errors: &'a mut Vec<Diagnostic>,
    pub(super) code: Code,
    pub(super) next: u16,
    /// The latest instruction something jumps to.
    label: usize,
    /// The link at hand.
    pub(super) link: &'a Link,
    pub(super) at: u16,
    pub(super) params: Vec<ParamAt>,
    pub(super) states: Vec<StateAt>,
    /// Where the link's `node` scalars are among the chain's state.
    pub(super) scalars: Option<u16>,
    pub(super) handling: Handling,
    pub(super) locals: Vec<Option<Val>>,
    pub(super) assigned: Vec<LocalId>,
    /// Of these, the ones an expression that has read them may assign before it is done.
    pub(super) assigned_within: Vec<LocalId>,
    /// Jumps to the end of the handler at hand.
    pub(super) returns: Vec<usize>,
    pub(super) in_response: bool,
    /// What is compiled is an argument of the link, no text of the element.
    pub(super) in_argument: bool,
    /// In a message handler.
    pub(super) in_message: bool,
    /// The methods of the chain.
    pub(super) coverage: &'a Coverage,
    /// What the entry reads of its message.
    pub(super) messages: Messages,
    /// Fields of the request that `response` reads, and where they are kept.
    pub(super) kept: Vec<(String, Slot)>,
    too_large: bool,
}

impl<'a> Builder<'a> {
    #[expect(clippy::too_many_arguments, reason = "everything a chain's entries share")]
    pub(super) fn new(
        shared: &'a mut Shared,
        pools: &'a mut Pools,
        registry: &'a mut Registry,
        sources: &'a Sources,
        services: &'a [abi::Service],
        errors: &'a mut Vec<Diagnostic>,
        coverage: &'a Coverage,
        link: &'a Link,
    ) -> Self {
        Self {
            shared,
            pools,
            registry,
            sources,
            services,
            errors,
            code: Code::default(),
            next: 0,
            label: 0,
            link,
            at: 0,
            params: Vec::new(),
            states: Vec::new(),
            scalars: None,
            handling: Handling::default(),
            locals: Vec::new(),
            assigned: Vec::new(),
            assigned_within: Vec::new(),
            returns: Vec::new(),
            in_response: false,
            in_argument: false,
            in_message: false,
            coverage,
            messages: Messages::default(),
            kept: Vec::new(),
            too_large: false,
        }
    }

    pub(super) fn local(&self, id: LocalId) -> Option<&Val> {
        self.locals.get(usize::from(id))?.as_ref()
    }

    pub(super) fn set_local(&mut self, id: LocalId, value: Val) {
        let at = usize::from(id);
        if self.locals.len() <= at {
            self.locals.resize(at + 1, None);
        }
        if let Some(slot) = self.locals.get_mut(at) {
            *slot = Some(value);
        }
    }

    /// A parameter's constant.
    pub(super) fn param(&self, at: u16) -> Option<&Const> {
        match self.params.get(usize::from(at))? {
            ParamAt::Const(c) => Some(c),
            _ => None,
        }
    }

    pub(super) fn service_name(&self, at: u64) -> Option<&str> {
        self.services.get(usize::try_from(at).ok()?).map(|s| s.name.as_str())
    }

    pub(super) fn line(&self, span: Span) -> u32 {
        self.sources.place(span).0
    }

    pub(super) fn emit(&mut self, op: Op) -> usize {
        if self.code.ops.len() >= OPS_MAX {
            self.refuse("this chain has too many instructions");
            return self.code.ops.len();
        }
        self.code.ops.push(op);
        self.code.ops.len() - 1
    }

    /// A bound that no sensible element meets.
    fn refuse(&mut self, what: &str) {
        if !self.too_large {
            self.too_large = true;
            self.errors.push(
                Diagnostic::error(self.link.span, what)
                    .label("in the handlers of this element")
                    .help("make it smaller"),
            );
        }
    }

    /// `n` registers in a row.
    pub(super) fn alloc(&mut self, n: u16) -> Reg {
        if self.next + n > REGS_MAX {
            self.refuse("this handler holds too many values at once");
            return 0;
        }
        let at = self.next;
        self.next += n;
        self.code.regs = self.code.regs.max(self.next);
        Reg::try_from(at).unwrap_or(0)
    }

    /// A jump to be pointed somewhere by [`Self::land`].
    pub(super) fn jump(&mut self) -> usize {
        self.emit(Op::Jump { to: 0 })
    }

    /// Points jumps to what comes next.
    pub(super) fn land(&mut self, jumps: &[usize]) {
        let here = u32::try_from(self.code.ops.len()).unwrap_or(u32::MAX);
        for at in jumps {
            if let Some(to) = self.code.ops.get_mut(*at).and_then(Op::target_mut) {
                *to = here;
            }
        }
        if !jumps.is_empty() {
            self.label = self.code.ops.len();
        }
    }

    /// A place to jump back to.
    pub(super) fn here(&mut self) -> u32 {
        self.label = self.code.ops.len();
        u32::try_from(self.label).unwrap_or(u32::MAX)
    }

    /// A text among the constants; the same text is stored once.
    pub(super) fn text(&mut self, text: &str) -> u64 {
        if let Some(word) = self.pools.texts.get(text) {
            return *word;
        }
        let word = const_text(self.shared.texts.len(), text.len());
        self.shared.texts.push(text.into());
        self.shared.has_replaced |= text.contains(char::REPLACEMENT_CHARACTER);
        self.pools.texts.insert(text.to_owned(), word);
        word
    }

    /// The word of a constant.
    pub(super) fn word(&mut self, value: &Const) -> u64 {
        match value {
            Const::Word(w) => *w,
            Const::Str(s) => self.text(s),
            Const::List(items) => {
                let words: Box<[u64]> = items.iter().map(|i| self.word(i)).collect();
                let word = const_list(self.shared.lists.len(), words.len());
                self.shared.lists.push(words);
                word
            }
            // Keys and values by turns.
            Const::Map(items) => {
                let flat = items.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
                self.word(&Const::List(flat.collect()))
            }
            Const::None => 0,
        }
    }

    /// Puts a word into a register.
    pub(super) fn load(&mut self, d: Reg, word: u64) {
        if let Ok(n) = u32::try_from(word) {
            self.emit(Op::Small { d, n });
            return;
        }
        let consts = &mut self.shared.consts;
        let k = *self.pools.words.entry(word).or_insert_with(|| {
            consts.push(word);
            u16::try_from(consts.len() - 1).unwrap_or(u16::MAX)
        });
        self.emit(Op::Const { d, k });
    }

    /// Puts a word into a register that an argument decides: it gets a place of its own among the constants,
    /// even if it is small or there already, so that the code is the same whatever it is.
    fn load_data(&mut self, d: Reg, word: u64) {
        let Ok(k) = u16::try_from(self.shared.consts.len()) else {
            self.refuse("this chain has too many constants");
            return;
        };
        self.shared.consts.push(word);
        self.emit(Op::Const { d, k });
    }

    /// The register of a value that is no `T?`.
    pub(super) fn reg(&mut self, value: &Val) -> Reg {
        match value {
            Val::Reg(r) => *r,
            Val::Opt(r) => r.wrapping_add(1),
            Val::Some(inner) => self.reg(inner),
            Val::Const(c) => {
                let word = self.word(c);
                let d = self.alloc(1);
                self.load(d, word);
                d
            }
            Val::Data(c) => {
                let word = self.word(c);
                let d = self.alloc(1);
                self.load_data(d, word);
                d
            }
            Val::Unit => self.alloc(1),
        }
    }

    /// The first of the two registers of a `T?`.
    pub(super) fn pair(&mut self, value: &Val) -> Reg {
        match value {
            Val::Opt(r) => *r,
            _ => {
                let d = self.alloc(2);
                self.put_pair(value, d);
                d
            }
        }
    }

    pub(super) fn put_pair(&mut self, value: &Val, d: Reg) {
        match value {
            Val::Opt(r) => {
                self.shift(*r, d);
                self.shift(r.wrapping_add(1), d.wrapping_add(1));
            }
            Val::Const(Const::None) | Val::Unit => {
                self.load(d, 0);
                self.load(d.wrapping_add(1), 0);
            }
            Val::Some(inner) => {
                self.put(inner, d.wrapping_add(1));
                self.load(d, 1);
            }
            Val::Reg(_) | Val::Const(_) | Val::Data(_) => {
                self.put(value, d.wrapping_add(1));
                self.load(d, 1);
            }
        }
    }

    fn shift(&mut self, from: Reg, d: Reg) {
        if from != d {
            self.emit(Op::Move { d, a: from });
        }
    }

    fn put(&mut self, value: &Val, d: Reg) {
        match value {
            Val::Reg(r) => self.shift(*r, d),
            Val::Opt(r) => self.shift(r.wrapping_add(1), d),
            Val::Some(inner) => self.put(inner, d),
            Val::Const(c) => {
                let word = self.word(c);
                self.load(d, word);
            }
            Val::Data(c) => {
                let word = self.word(c);
                self.load_data(d, word);
            }
            Val::Unit => {}
        }
    }

    /// Puts a value of type `ty` where a join wants it. A result just made in a register of its own, which are those
    /// from `mark` on, is made there instead.
    pub(super) fn store(&mut self, value: &Val, ty: &Ty, d: Reg, mark: u16) {
        if ty.is_opt() {
            self.put_pair(value, d);
            return;
        }
        if let Val::Reg(r) = value
            && u16::from(*r) > u16::from(d)
            && u16::from(*r) >= mark
            && self.label < self.code.ops.len()
            && let Some(
                Op::Bin { d: made, .. }
                | Op::BinSmall { d: made, .. }
                | Op::Un { d: made, .. }
                | Op::EpNum { d: made, .. }
                | Op::Num { d: made, .. },
            ) = self.code.ops.last_mut()
            && made == r
        {
            *made = d;
            return;
        }
        self.put(value, d);
    }

    /// If the latest instruction only negated for `a`, which is nobody else's, since it is not below `mark`: takes it
    /// back and says what it negated.
    pub(super) fn unnegate(&mut self, a: Reg, mark: u16) -> Option<Reg> {
        match self.code.ops.last() {
            Some(Op::Un { op: Un::Not, d, a: from })
                if *d == a && u16::from(a) >= mark && self.label < self.code.ops.len() =>
            {
                let from = *from;
                self.code.ops.pop();
                Some(from)
            }
            _ => None,
        }
    }

    /// Registers for a value of this type, and the value they will hold.
    pub(super) fn place_for(&mut self, ty: &Ty) -> (Reg, Val) {
        if ty.is_opt() {
            let d = self.alloc(2);
            (d, Val::Opt(d))
        } else {
            let d = self.alloc(1);
            (d, Val::Reg(d))
        }
    }

    /// Loads a value from the call's words.
    pub(super) fn load_slot(&mut self, slot: Slot) -> Val {
        let d = self.alloc(if slot.optional { 2 } else { 1 });
        self.emit(Op::LoadWord { d, word: slot.word });
        if !slot.optional {
            return Val::Reg(d);
        }
        self.emit(Op::LoadWord { d: d.wrapping_add(1), word: slot.word + 1 });
        Val::Opt(d)
    }

    /// A value that is to be kept: a list or map as bytes, all else as it is.
    pub(super) fn packed(&mut self, value: Val, ty: &Ty) -> Val {
        if !matches!(ty.bare(), Ty::List(_) | Ty::Map(..)) || matches!(value, Val::Const(Const::None)) {
            return value;
        }
        let a = if ty.is_opt() { self.pair(&value).wrapping_add(1) } else { self.reg(&value) };
        if ty.is_opt() {
            // What is absent has no items.
            let there = a.wrapping_sub(1);
            let d = self.alloc(2);
            self.load(d.wrapping_add(1), 0);
            self.emit(Op::Move { d, a: there });
            let absent = self.emit(Op::JumpUnless { a: there, to: 0 });
            self.emit(Op::PackList { d: d.wrapping_add(1), a });
            self.land(&[absent]);
            return Val::Opt(d);
        }
        let d = self.alloc(1);
        self.emit(Op::PackList { d, a });
        Val::Reg(d)
    }

    /// The same value as it was.
    pub(super) fn unpacked(&mut self, value: Val, ty: &Ty) -> Val {
        if !matches!(ty.bare(), Ty::List(_) | Ty::Map(..)) {
            return value;
        }
        let a = self.reg(&value);
        self.emit(Op::UnpackList { d: a, a });
        value
    }

    /// Stores a value into the call's words.
    pub(super) fn store_slot(&mut self, slot: Slot, value: &Val) {
        if slot.optional {
            let a = self.pair(value);
            self.emit(Op::StoreWord { a, word: slot.word });
            self.emit(Op::StoreWord { a: a.wrapping_add(1), word: slot.word + 1 });
        } else {
            let a = self.reg(value);
            self.emit(Op::StoreWord { a, word: slot.word });
        }
    }
}
