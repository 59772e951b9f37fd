//! Code by content: what is the same is compiled once.
//!
//! The cache holds code strongly, so that the last chain to go, on a data core, frees no pages; the control
//! thread does, in [`Cache::sweep`].

use std::sync::Arc;

use abi::Entry;
use hashbrown::HashMap;
use lang::vm::code::Segment;
use lang::vm::{Code, Image, Op, Operands};

use crate::memory::ChainCode;

/// The entries that have code, in the order of [`ChainCode`]'s.
pub(crate) const ENTRIES: [Entry; 5] =
    [Entry::Request, Entry::Pick, Entry::RequestMessage, Entry::ResponseMessage, Entry::Response];

/// All that machine code depends on.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(crate) struct Shape {
    /// Constants are read without looking how many there are.
    consts: usize,
    entries: Vec<EntryShape>,
}

#[derive(PartialEq, Eq, Hash, Debug, Default)]
struct EntryShape {
    ops: Vec<Op>,
    segments: Vec<Segment>,
    regs: u16,
    /// Registers that stand beside the code: those of each `log`, of each count's labels, and of each field
    /// of a message that is made.
    beside: Vec<u8>,
}

struct Collect<'a>(&'a mut Vec<u8>);

impl Operands for Collect<'_> {
    fn read(&mut self, reg: u8) {
        self.0.push(reg);
    }

    fn write(&mut self, reg: u8) {
        self.0.push(reg);
    }
}

impl Shape {
    /// The shape of an image.
    pub(crate) fn of(image: &Image) -> Self {
        let entry = |entry: &Entry| match image.code(*entry) {
            Some(code) => EntryShape::of(image, code),
            None => EntryShape::default(),
        };
        Self { consts: image.shared.consts.len(), entries: ENTRIES.iter().map(entry).collect() }
    }
}

impl EntryShape {
    fn of(image: &Image, code: &Code) -> Self {
        let mut beside = Vec::new();
        let is_beside =
            |op: &&Op| matches!(op, Op::Log { .. } | Op::CountLabels { .. } | Op::MessageField { .. });
        for op in code.ops.iter().filter(is_beside) {
            op.operands(&image.shared, code, &mut Collect(&mut beside));
        }
        Self { ops: code.ops.clone(), segments: code.segments.clone(), regs: code.regs, beside }
    }
}

/// All code there is.
#[derive(Default)]
pub(crate) struct Cache {
    codes: HashMap<Arc<Shape>, Held>,
    /// The program at hand.
    program: u64,
}

struct Held {
    code: Arc<ChainCode>,
    /// The latest program that has it.
    program: u64,
}

impl Cache {
    /// The code of an image: the one there is, or what `compile` makes.
    pub(crate) fn code(
        &mut self,
        image: &Image,
        compile: impl FnOnce(&Image, Arc<Shape>) -> Result<ChainCode, String>,
    ) -> Result<Arc<ChainCode>, String> {
        let shape = Arc::new(Shape::of(image));
        if let Some(held) = self.codes.get_mut(&shape) {
            held.program = self.program;
            return Ok(held.code.clone());
        }
        let code = Arc::new(compile(image, shape.clone())?);
        self.codes.insert(shape, Held { code: code.clone(), program: self.program });
        Ok(code)
    }

    /// Another program is compiled from here on.
    pub(crate) fn begin_program(&mut self) {
        self.program += 1;
    }

    /// Frees what only the cache knows. True if something is left that only earlier programs have.
    pub(crate) fn sweep(&mut self) -> bool {
        self.codes.retain(|_, held| Arc::strong_count(&held.code) > 1);
        self.codes.values().any(|held| held.program < self.program)
    }

    /// How many, and how many bytes.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.codes.len(), self.codes.values().map(|held| held.code.bytes()).sum())
    }
}
