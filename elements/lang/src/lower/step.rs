//! The atomic step over an element's `node` scalars.
//!
//! Where it begins the scalars' words are loaded; from then on they are read and changed in registers. Behind
//! the last change on each way they are swapped in, if they are still what was loaded; else the step is run
//! again, with the locals and `state call` it may have changed as they were. [`crate::check::step`] has made
//! sure that nothing else happens in it.

use crate::check::step::Steps;
use crate::hir::{HBlock, HPlace, HStmt, LocalId};
use crate::state::Field;
use crate::vm::code::{Op, Reg};

use super::build::{Builder, Slot, Val};
use super::state::StateAt;
use super::visit::{self, Node};

/// A step under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Where the scalars are.
    at: u16,
    /// The words as they were loaded.
    old: Reg,
    /// As they are to be; the same registers if the handler changes nothing.
    new: Reg,
    /// Where a further try begins.
    to: u32,
    /// Something was changed and not yet swapped in, perhaps.
    dirty: bool,
}

/// What is known of the handler at hand.
#[derive(Clone, Debug, Default)]
pub(super) struct Handling {
    /// The statements that steps begin before.
    begins: Vec<*const HStmt>,
    /// It changes scalars.
    changes: bool,
    /// `state call` it changes.
    slots: Vec<u16>,
    /// Behind the place at hand there are changes on some way.
    later: bool,
    step: Option<Step>,
}

impl Builder<'_> {
    /// Turns to a handler's body.
    pub(super) fn begin_handling(&mut self, body: &HBlock) {
        let element = self.link.element.clone();
        let steps = Steps::new(&element.states);
        let mut begins = Vec::new();
        steps.begins(body, &mut begins);
        let mut slots = Vec::new();
        visit::block(body, &mut |node| {
            if let Node::Stmt(HStmt::Assign(HPlace::State(at), _)) = node {
                slots.push(*at);
            }
        });
        self.handling = Handling {
            begins: begins.into_iter().map(std::ptr::from_ref).collect(),
            changes: steps.changes(body),
            slots,
            later: false,
            step: None,
        };
    }

    /// Runs `block` with what is known of the ways behind it.
    pub(super) fn along(&mut self, block: &HBlock) {
        let element = self.link.element.clone();
        let steps = Steps::new(&element.states);
        let (outer, was_dirty) = (self.handling.later, self.is_dirty());
        let later = outer && !block.diverges;
        if was_dirty && !later && !steps.changes(block) {
            self.end_step();
        }
        for (at, stmt) in block.stmts.iter().enumerate() {
            let rest = block.stmts.get(at + 1..).unwrap_or(&[]);
            self.handling.later = later || (self.handling.changes && steps.stmts_change(rest));
            if self.handling.begins.iter().any(|b| std::ptr::eq(*b, stmt)) {
                self.begin_step();
            }
            self.stmt(stmt);
        }
        self.handling.later = later;
    }

    /// What comes next stands before these blocks: their changes are still ahead. What was known before.
    pub(super) fn ahead<'b>(&mut self, blocks: impl IntoIterator<Item = &'b HBlock>) -> bool {
        let later = self.handling.later;
        if self.handling.changes && !later {
            let element = self.link.element.clone();
            let steps = Steps::new(&element.states);
            self.handling.later = blocks.into_iter().any(|b| steps.changes(b));
        }
        later
    }

    /// The same before the change of a state.
    pub(super) fn ahead_of(&mut self, state: u16) -> bool {
        let later = self.handling.later;
        self.handling.later |= matches!(self.state_at(state), StateAt::Node { .. });
        later
    }

    /// Sets what is known back to what it was before a block.
    pub(super) fn came_along(&mut self, later: bool) {
        self.handling.later = later;
    }

    pub(super) fn is_later(&self) -> bool {
        self.handling.later
    }

    pub(super) fn step(&self) -> Option<Step> {
        self.handling.step
    }

    /// Another way begins where `step` was.
    pub(super) fn other_way(&mut self, step: Option<Step>) {
        self.handling.step = step;
    }

    /// Ways that began where `step` was meet; on some of them something may be left to swap in.
    pub(super) fn ways_meet(&mut self, step: Option<Step>, dirty: bool) {
        self.handling.step = step.map(|s| Step { dirty, ..s });
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.handling.step.is_some_and(|s| s.dirty)
    }

    /// A loop's body may come after its own changes.
    pub(super) fn loop_changes(&mut self, body: &HBlock) -> bool {
        let element = self.link.element.clone();
        let changes = self.handling.changes && Steps::new(&element.states).changes(body);
        if changes {
            self.handling.later = true;
            self.set_dirty(true);
        }
        changes
    }

    pub(super) fn set_dirty(&mut self, dirty: bool) {
        if let Some(step) = &mut self.handling.step {
            step.dirty = dirty;
        }
    }

    fn begin_step(&mut self) {
        let Some(at) = self.scalars else { return };
        let old = self.alloc(2);
        if !self.handling.changes {
            self.handling.step = Some(Step { at, old, new: old, to: 0, dirty: false });
            self.emit(Op::LoadScalars { d: old, at });
            return;
        }
        let new = self.alloc(2);
        let kept = self.keep_for_tries();
        self.emit(Op::StepStart);
        let to = self.here();
        for kept in kept {
            match kept {
                Kept::Reg { own, copy } => self.emit(Op::Move { d: own, a: copy }),
                Kept::Word { word, copy } => self.emit(Op::StoreWord { a: copy, word }),
            };
        }
        self.handling.step = Some(Step { at, old, new, to, dirty: false });
        self.load_step();
    }

    /// Copies what the step may change besides the scalars.
    fn keep_for_tries(&mut self) -> Vec<Kept> {
        let mut out = Vec::new();
        let locals: Vec<LocalId> = self.assigned.clone();
        for local in locals {
            let (first, count) = match self.local(local) {
                Some(Val::Reg(r)) => (*r, 1),
                Some(Val::Opt(r)) => (*r, 2),
                _ => (0, 0),
            };
            for own in (0..count).map(|nth| first.wrapping_add(nth)) {
                let copy = self.alloc(1);
                self.emit(Op::Move { d: copy, a: own });
                out.push(Kept::Reg { own, copy });
            }
        }
        for state in self.handling.slots.clone() {
            let StateAt::Word(Slot { word, optional }) = self.state_at(state) else { continue };
            for word in word..=word + u16::from(optional) {
                let copy = self.alloc(1);
                self.emit(Op::LoadWord { d: copy, word });
                out.push(Kept::Word { word, copy });
            }
        }
        out
    }

    /// Loads the words: at the beginning of a try, and after time has passed.
    pub(super) fn load_step(&mut self) {
        let Some(Step { at, old, new, .. }) = self.handling.step else { return };
        self.emit(Op::LoadScalars { d: old, at });
        if new != old {
            self.emit(Op::Move { d: new, a: old });
            self.emit(Op::Move { d: new.wrapping_add(1), a: old.wrapping_add(1) });
        }
    }

    /// Behind a change: the last on this way swaps in.
    fn changed(&mut self) {
        self.set_dirty(true);
        if !self.handling.later {
            self.end_step();
        }
    }

    /// Swaps the changes in.
    pub(super) fn end_step(&mut self) {
        if let Some(Step { at, old, new, to, .. }) = self.handling.step {
            self.emit(Op::SwapScalars { old, new, at, to });
            self.set_dirty(false);
        }
    }

    fn field_reg(&self, field: &Field) -> Reg {
        self.handling.step.map_or(0, |s| s.new.wrapping_add(field.word))
    }

    fn load_field(&mut self, field: &Field, d: Reg) {
        let a = self.field_reg(field);
        if field.bits == 64 {
            self.emit(Op::Move { d, a });
        } else {
            self.emit(Op::Byte { d, a, shift: field.shift });
        }
    }

    fn store_field(&mut self, field: &Field, a: Reg) {
        let d = self.field_reg(field);
        if field.bits == 64 {
            self.emit(Op::Move { d, a });
        } else {
            self.emit(Op::SetByte { d, a, shift: field.shift });
        }
    }

    pub(super) fn load_node(&mut self, value: &Field, presence: Option<&Field>) -> Val {
        match presence {
            None => {
                let d = self.alloc(1);
                self.load_field(value, d);
                Val::Reg(d)
            }
            Some(presence) => {
                let d = self.alloc(2);
                self.load_field(presence, d);
                self.load_field(value, d.wrapping_add(1));
                Val::Opt(d)
            }
        }
    }

    pub(super) fn store_node(&mut self, field: &Field, presence: Option<&Field>, value: &Val) {
        match presence {
            None => {
                let a = self.reg(value);
                self.store_field(field, a);
            }
            Some(presence) => {
                let a = self.pair(value);
                self.store_field(presence, a);
                self.store_field(field, a.wrapping_add(1));
            }
        }
        self.changed();
    }
}

/// Something a further try finds as it was.
enum Kept {
    Reg { own: Reg, copy: Reg },
    Word { word: u16, copy: Reg },
}
