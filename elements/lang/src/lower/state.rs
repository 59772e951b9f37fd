//! State: what each link's state is to the store and to its instructions; cells and maps.

use crate::ast::Scope;
use crate::check::state::scalar_bytes;
use crate::diag::Diagnostic;
use crate::hir::{CellInit, Const, HBin, HExpr, HKind, HPlace, Init, State};
use crate::state::{Bucket, Field, Full, Kind, StateDecl, Value, Window, text};
use crate::ty::Ty;
use crate::vm::code::{CellKind, CellOp, CellPlace, CellSite, KeyKind, MapSite, Op, Reg, ValueKind};

use super::build::{Builder, Slot, Val};
use super::fold::bin_of;
use super::{Link, visit};

/// Entries of the largest map.
const ENTRIES_MAX: u64 = 1 << 24;
/// Bytes an entry of a map takes besides its value, which it has room for four times.
const ENTRY_BYTES: u64 = 16;
/// Slots for each entry.
const SPREAD: u64 = 4;

/// Where a state of the link at hand is.
#[derive(Clone, Debug)]
pub(super) enum StateAt {
    /// In the call's words.
    Word(Slot),
    /// A text in the call's words; of a `T?`, whether it is there stands before it.
    Text(Slot),
    /// Among the element's `node` scalars; a `T?` has its presence beside it.
    Node {
        value: Field,
        presence: Option<Field>,
    },
    /// In words of the shard.
    Shard {
        at: u16,
        optional: bool,
    },
    Cell {
        site: u16,
    },
    Map {
        site: u16,
    },
    /// Something is wrong and has been told.
    Nowhere,
}

/// Gives the states of the link at hand their places.
pub(super) struct Places<'p> {
    pub(super) decls: &'p mut Vec<StateDecl>,
    /// The next of the call's words.
    pub(super) next: &'p mut u16,
    /// Where the element's `node` scalars are.
    pub(super) scalars: Option<u16>,
}

impl Places<'_> {
    fn declare(&mut self, decl: StateDecl) -> u16 {
        self.decls.push(decl);
        u16::try_from(self.decls.len() - 1).unwrap_or(u16::MAX)
    }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Call => "call",
        Scope::Shard => "shard",
        Scope::Node => "node",
    }
}

fn push<T>(to: &mut Vec<T>, value: T) -> u16 {
    to.push(value);
    u16::try_from(to.len() - 1).unwrap_or(u16::MAX)
}

/// Lays the `node` scalars of an element out in two words: whole words first.
fn fields(states: &[State], init: impl Fn(&State) -> (u64, bool)) -> Vec<Field> {
    let (mut words, mut out) = (0_u8, Vec::new());
    let scalars = || states.iter().filter(|s| s.is_node_scalar());
    let field = |s: &State, name: String, init| Field {
        name,
        shape: s.ty.to_string(),
        word: 0,
        shift: 0,
        bits: 8,
        init,
    };
    for state in scalars().filter(|s| scalar_bytes(&s.ty) >= 8) {
        out.push(Field { word: words, bits: 64, ..field(state, state.name.clone(), init(state).0) });
        words += 1;
    }
    let mut shift = 0;
    let mut byte = |field: Field| {
        out.push(Field { word: words + shift / 64, shift: shift % 64, ..field });
        shift += 8;
    };
    for state in scalars() {
        if scalar_bytes(&state.ty) < 8 {
            byte(field(state, state.name.clone(), init(state).0));
        }
        if state.ty.is_opt() {
            byte(field(state, presence_of(&state.name), u64::from(init(state).1)));
        }
    }
    out
}

/// The field that says whether a `T?` is there. No name of a state ends so.
fn presence_of(name: &str) -> String {
    format!("{name}?")
}

impl Builder<'_> {
    /// Places of the states of a link, by their order.
    pub(super) fn place_states(&mut self, link: &Link, to: &mut Places<'_>) -> Vec<StateAt> {
        let states = &link.element.states;
        let fields = fields(states, |state| self.first_value(state));
        if !fields.is_empty() {
            let key = link.home.to_string();
            let kind = Kind::Scalars(fields.clone());
            to.scalars = Some(to.declare(StateDecl { key, shape: String::new(), per_shard: false, kind }));
        }
        (states.iter().enumerate())
            .map(|(at, state)| self.place_state(link, at, state, &fields, to))
            .collect()
    }

    /// A constant first value, and whether it is there.
    fn first_value(&self, state: &State) -> (u64, bool) {
        let Init::Value(init) = &state.init else { return (0, false) };
        match self.fold(init) {
            Some(Const::Word(w)) => (w, true),
            _ => (0, false),
        }
    }

    fn place_state(
        &mut self,
        link: &Link,
        at: usize,
        state: &State,
        fields: &[Field],
        to: &mut Places<'_>,
    ) -> StateAt {
        let optional = state.ty.is_opt();
        let decl = |shape: String, kind| StateDecl {
            key: format!("{}.{}", link.home, state.name),
            shape: format!("{} {shape}", scope_name(state.scope)),
            per_shard: state.scope == Scope::Shard,
            kind,
        };
        match &state.init {
            Init::Value(_)
                if state.scope == Scope::Call && matches!(state.ty.bare(), Ty::Str | Ty::Bytes) =>
            {
                let slot = super::slot(to.next, optional);
                let words = u16::try_from(text::words(text::CALL_BYTES_MAX)).unwrap_or(u16::MAX);
                *to.next = to.next.saturating_add(words - 1);
                StateAt::Text(slot)
            }
            Init::Value(_) if state.scope == Scope::Call => StateAt::Word(super::slot(to.next, optional)),
            Init::Value(init) => {
                if !matches!(self.fold(init), Some(Const::Word(_) | Const::None)) {
                    self.not_constant(init, "the first value of state that outlives a call");
                    return StateAt::Nowhere;
                }
                if state.scope == Scope::Shard {
                    let (value, is_there) = self.first_value(state);
                    let words = if optional { vec![u64::from(is_there), value] } else { vec![value] };
                    let at = to.declare(decl(state.ty.to_string(), Kind::Words(words)));
                    return StateAt::Shard { at, optional };
                }
                let named = |name: &str| fields.iter().find(|f| f.name == name).cloned();
                let presence = optional.then(|| named(&presence_of(&state.name))).flatten();
                match named(&state.name) {
                    Some(value) => StateAt::Node { value, presence },
                    None => StateAt::Nowhere,
                }
            }
            Init::Cell(init) => {
                let quantiles = wants_quantiles(link, at);
                let Some((kind, shape)) = self.cell_kind(init, quantiles) else { return StateAt::Nowhere };
                let place = if state.scope == Scope::Call {
                    let words = match kind {
                        CellKind::Window(window) => u16::try_from(window.words(1)).unwrap_or(u16::MAX),
                        _ => 1,
                    };
                    let word = *to.next;
                    *to.next = to.next.saturating_add(words);
                    CellPlace::Call { word, words }
                } else {
                    let kind = match kind {
                        CellKind::Window(window) => Kind::Window(window),
                        _ => Kind::Words(vec![0]),
                    };
                    CellPlace::State(to.declare(decl(shape, kind)))
                };
                StateAt::Cell { site: push(&mut self.shared.cells, CellSite { place, kind }) }
            }
            Init::Map(init) => self.place_map(link, at, state, init.as_ref(), decl, to),
        }
    }

    fn place_map(
        &mut self,
        link: &Link,
        at: usize,
        state: &State,
        init: Option<&CellInit>,
        decl: impl FnOnce(String, Kind) -> StateDecl,
        to: &mut Places<'_>,
    ) -> StateAt {
        let Ty::Map(key, of) = &state.ty else { return StateAt::Nowhere };
        let value = match (init, &**of) {
            (Some(init), _) => match self.cell_kind(init, wants_quantiles(link, at)) {
                Some((kind, _)) => ValueKind::Cell(kind),
                None => return StateAt::Nowhere,
            },
            (None, Ty::Endpoint) => ValueKind::Endpoint,
            (None, Ty::Service) => ValueKind::Service,
            (None, Ty::Str | Ty::Bytes) => ValueKind::Text,
            (None, _) => ValueKind::Word,
        };
        let kept = match value {
            ValueKind::Cell(CellKind::Window(window)) => Value::Window(window),
            ValueKind::Text => Value::Text,
            _ => Value::Word,
        };
        let options = &state.options;
        let Some(max) = options.max.as_ref().and_then(|max| self.option(max, "how much a map holds")) else {
            return StateAt::Nowhere;
        };
        let entry_bytes = SPREAD
            * match kept {
                Value::Word => ENTRY_BYTES + 8,
                Value::Window(window) => ENTRY_BYTES + 8 * window.words(1) as u64,
                Value::Text => ENTRY_BYTES + 8 * text::words(text::MAP_BYTES_MAX) as u64,
            };
        let entries = if options.is_bytes { max / entry_bytes } else { max };
        if !(1..=ENTRIES_MAX).contains(&entries) {
            let span = options.max.as_ref().map_or(link.span, |m| m.span);
            self.errors.push(
                Diagnostic::error(span, format!("this map would hold {entries} entries"))
                    .label(format!("expected 1 to {ENTRIES_MAX}; an entry takes {entry_bytes} B")),
            );
            return StateAt::Nowhere;
        }
        let ttl_ns = match &options.ttl {
            None => u64::MAX,
            Some(ttl) => match self.option(ttl, "how long an entry stays") {
                Some(ttl) => ttl.cast_signed().max(0).cast_unsigned(),
                None => return StateAt::Nowhere,
            },
        };
        let full = options.full.unwrap_or(Full::Refuse);
        let word = match full {
            Full::Evict => "evict",
            Full::Refuse => "refuse",
            Full::Share => "share",
        };
        let inner = match kept {
            Value::Window(_) => " of windows",
            Value::Word | Value::Text => "",
        };
        let shape = format!("{}{inner}[max {entries}, {word}]", state.ty);
        let max = usize::try_from(entries).unwrap_or(1);
        let place = to.declare(decl(shape, Kind::Map { max, full, value: kept }));
        let key = match **key {
            Ty::Str => KeyKind::Text,
            Ty::Endpoint => KeyKind::Endpoint,
            Ty::Service => KeyKind::Service,
            _ => KeyKind::Word,
        };
        let site = MapSite { at: place, key, value, ttl_ns };
        StateAt::Map { site: push(&mut self.shared.maps, site) }
    }

    /// A number that must be known.
    fn option(&mut self, e: &HExpr, what: &str) -> Option<u64> {
        match self.fold(e) {
            Some(Const::Word(w)) => Some(w),
            _ => {
                self.not_constant(e, what);
                None
            }
        }
    }

    /// What a cell is, and how a user calls it.
    fn cell_kind(&mut self, init: &CellInit, quantiles: bool) -> Option<(CellKind, String)> {
        match init {
            CellInit::Counter => Some((CellKind::Counter, "counter".to_owned())),
            CellInit::Bucket { rate, burst } => {
                let per_second = f64::from_bits(self.option(rate, "the rate of a bucket")?);
                let burst = match burst {
                    Some(burst) => f64::from_bits(self.option(burst, "the burst of a bucket")?),
                    None => per_second,
                };
                Some((CellKind::Bucket(Bucket::new(per_second, burst)), "bucket".to_owned()))
            }
            CellInit::Window { over } => {
                let ns = self.option(over, "the length of a window")?.cast_signed();
                if ns <= 0 {
                    self.errors.push(
                        Diagnostic::error(over.span, "this window has no length")
                            .label("expected more than 0s"),
                    );
                    return None;
                }
                let mut shape = "window over ".to_owned();
                crate::vm::text::write_word(&mut shape, crate::vm::code::Fmt::Duration, ns.cast_unsigned());
                if quantiles {
                    shape.push_str(" with quantiles");
                }
                Some((CellKind::Window(Window::new(ns.unsigned_abs(), quantiles)), shape))
            }
        }
    }

    pub(super) fn state_at(&self, at: u16) -> StateAt {
        self.states.get(usize::from(at)).cloned().unwrap_or(StateAt::Nowhere)
    }

    /// The value of a state.
    pub(super) fn load_state(&mut self, at: u16) -> Val {
        match self.state_at(at) {
            StateAt::Word(slot) => self.load_slot(slot),
            StateAt::Text(slot) => self.load_text(slot),
            StateAt::Node { value, presence } => self.load_node(&value, presence.as_ref()),
            StateAt::Shard { at, optional } => {
                let d = self.alloc(if optional { 2 } else { 1 });
                self.emit(Op::LoadState { d, at, word: 0 });
                if !optional {
                    return Val::Reg(d);
                }
                self.emit(Op::LoadState { d: d.wrapping_add(1), at, word: 1 });
                Val::Opt(d)
            }
            StateAt::Cell { .. } | StateAt::Map { .. } | StateAt::Nowhere => Val::Unit,
        }
    }

    /// Assigns a state.
    pub(super) fn store_state(&mut self, at: u16, value: &Val) {
        self.store_state_at(&self.state_at(at), value);
    }

    pub(super) fn store_state_at(&mut self, at: &StateAt, value: &Val) {
        match at {
            StateAt::Word(slot) => self.store_slot(*slot, value),
            StateAt::Text(slot) => self.store_text(*slot, value),
            StateAt::Node { value: field, presence } => self.store_node(field, presence.as_ref(), value),
            StateAt::Shard { at, optional } => {
                let at = *at;
                if *optional {
                    let a = self.pair(value);
                    self.emit(Op::StoreState { a, at, word: 0 });
                    self.emit(Op::StoreState { a: a.wrapping_add(1), at, word: 1 });
                } else {
                    let a = self.reg(value);
                    self.emit(Op::StoreState { a, at, word: 0 });
                }
            }
            StateAt::Cell { .. } | StateAt::Map { .. } | StateAt::Nowhere => {}
        }
    }

    fn load_text(&mut self, slot: Slot) -> Val {
        if !slot.optional {
            return self.one(|d| Op::LoadText { d, word: slot.word });
        }
        let d = self.alloc(2);
        self.emit(Op::LoadWord { d, word: slot.word });
        self.emit(Op::LoadText { d: d.wrapping_add(1), word: slot.word + 1 });
        Val::Opt(d)
    }

    fn store_text(&mut self, slot: Slot, value: &Val) {
        if !slot.optional {
            let a = self.reg(value);
            self.emit(Op::StoreText { a, word: slot.word });
            return;
        }
        let a = self.pair(value);
        self.emit(Op::StoreWord { a, word: slot.word });
        let absent = self.emit(Op::JumpUnless { a, to: 0 });
        self.emit(Op::StoreText { a: a.wrapping_add(1), word: slot.word + 1 });
        self.land(&[absent]);
    }

    fn map_site(&self, map: u16) -> Option<u16> {
        match self.state_at(map) {
            StateAt::Map { site } => Some(site),
            _ => None,
        }
    }

    /// `m[k]` of plain values.
    pub(super) fn map_get(&mut self, map: u16, key: &HExpr) -> Val {
        let Some(site) = self.map_site(map) else { return Val::Unit };
        let key = self.scalar(key);
        let d = self.alloc(2);
        self.emit(Op::MapGet { d, key, site });
        Val::Opt(d)
    }

    /// `m[k] = v`, `m[k] += n`.
    pub(super) fn map_assign(&mut self, place: &HPlace, value: &Val) {
        match place {
            HPlace::Map { map, key } => {
                let Some(site) = self.map_site(*map) else { return };
                let a = self.pair(value);
                let key = self.scalar(key);
                self.emit(Op::MapSet { key, a, site });
            }
            HPlace::MapBy { map, key, op, ty } => {
                let Some(site) = self.map_site(*map) else { return };
                let a = self.reg(value);
                let key = self.scalar(key);
                let op = if *op == HBin::Sub { HBin::Sub } else { HBin::Add };
                let (op, _) = bin_of(op, ty, ty);
                self.emit(Op::MapChange { op, key, a, site });
            }
            _ => {}
        }
    }

    /// An operation of a cell.
    pub(super) fn cell(&mut self, of: &HExpr, op: CellOp, arg: Option<&HExpr>) -> Val {
        let key = match &of.kind {
            HKind::MapAt { key, .. } => Some(self.scalar(key)),
            _ => None,
        };
        let a = arg.map_or(0, |arg| self.scalar(arg));
        let d: Reg = if op.gives() { self.alloc(1) } else { 0 };
        match (&of.kind, key) {
            (HKind::State(at), _) => {
                let StateAt::Cell { site } = self.state_at(*at) else { return Val::Unit };
                self.emit(Op::Cell { op, d, a, site });
            }
            (HKind::MapAt { map, .. }, Some(key)) => {
                let Some(site) = self.map_site(*map) else { return Val::Unit };
                self.emit(Op::MapCell { op, d, a, key, site });
            }
            _ => return Val::Unit,
        }
        if op.gives() { Val::Reg(d) } else { Val::Unit }
    }
}

/// The element asks for quantiles of its state at this place.
fn wants_quantiles(link: &Link, at: usize) -> bool {
    let mut found = false;
    for handler in &link.element.handlers {
        visit::block(&handler.body, &mut |node| {
            if let visit::Node::Expr(HExpr { kind: HKind::Cell { of, op: CellOp::Quantile, .. }, .. }) = node
                && let HKind::State(state) | HKind::MapAt { map: state, .. } = of.kind
            {
                found |= usize::from(state) == at;
            }
        });
    }
    found
}
