//! The interpreter: byte code against a [`CallView`]. It is the semantics; the JIT is held against it.
//!
//! One [`Image`] is one chain, [`Interpreted`] makes it run. Nothing is allocated in the steady state:
//! registers stand on the stack, texts and lists in the call's own [`abi::Spill`], whose memory stays with
//! the slot.

pub(crate) mod arith;
pub mod code;
mod compare;
mod dump;
mod exec;
pub(crate) mod lists;
pub(crate) mod maglev;
pub mod message;
mod operands;
pub(crate) mod pattern;
mod payload;
mod place;
pub mod rewrite;
mod shared;
mod state;
pub(crate) mod text;
mod texts;
mod work;

use std::sync::Arc;

use abi::{CallView, Chain, Entry, Plan, Verdict};

use crate::state::{Bound, StateDecl};
pub use code::{Code, Op, Shared};
pub use exec::{Draws, Flow, Run, first_draw};
pub use operands::{Operands, Touched};
pub use pattern::Pattern;

/// Entries there are.
const ENTRIES: usize = Entry::Response as usize + 1;

/// A chain as byte code: what a rule says, without the state it will keep.
#[derive(Debug, Default)]
pub struct Image {
    /// What it needs and does.
    pub plan: Plan,
    /// Constants, names and sites.
    pub shared: Shared,
    /// By entry.
    codes: [Code; ENTRIES],
    /// State of its elements that outlives a passage; instructions name it by its place here.
    pub states: Vec<StateDecl>,
}

impl Image {
    /// The code of an entry, which may be empty.
    #[inline]
    pub fn place(&self, entry: Entry) -> &Code {
        &self.codes[entry as usize]
    }

    pub(crate) fn set_code(&mut self, entry: Entry, code: Code) {
        self.codes[entry as usize] = code;
    }

    /// The code of an entry; `None` where there is nothing to run.
    pub fn code(&self, entry: Entry) -> Option<&Code> {
        Some(self.place(entry)).filter(|code| !code.ops.is_empty())
    }

    /// Every entry that has something to run.
    pub fn entries(&self) -> impl Iterator<Item = (Entry, &Code)> {
        let all =
            [Entry::Request, Entry::Pick, Entry::RequestMessage, Entry::ResponseMessage, Entry::Response];
        all.into_iter().filter_map(|entry| Some((entry, self.code(entry)?)))
    }

    /// Instructions of all entries.
    pub fn op_count(&self) -> usize {
        self.entries().map(|(_, code)| code.ops.len()).sum()
    }
}

/// A chain that the interpreter runs.
#[derive(Debug)]
pub struct Interpreted {
    image: Arc<Image>,
    state: Bound,
}

impl Interpreted {
    /// Makes an image run, with this state.
    pub fn new(image: Arc<Image>, state: Bound) -> Self {
        Self { image, state }
    }
}

impl Chain for Interpreted {
    fn plan(&self) -> &Plan {
        &self.image.plan
    }

    fn run(&self, entry: Entry, segment: u16, call: &mut dyn CallView) -> Verdict {
        match self.image.code(entry) {
            Some(code) => exec::run(&self.image.shared, &self.state, code, entry, segment, call),
            None => Verdict::Forward,
        }
    }
}
