//! The interpreter: byte code against a [`CallView`]. It is the semantics; the JIT is held against it.
//!
//! One [`Image`] is one chain. Nothing is allocated in the steady state: registers stand on the stack,
//! texts and lists in the call's own [`abi::Spill`], whose memory stays with the slot.

pub(crate) mod arith;
pub(crate) mod code;
mod dump;
mod exec;
mod lists;
pub(crate) mod text;

use abi::{CallView, Chain, Entry, Plan, Verdict};

pub(crate) use code::{Code, Shared};

/// A chain as byte code.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) plan: Plan,
    pub(crate) shared: Shared,
    pub(crate) request: Code,
    pub(crate) pick: Code,
    pub(crate) response: Code,
}

impl Image {
    fn code(&self, entry: Entry) -> Option<&Code> {
        match entry {
            Entry::Request => Some(&self.request),
            Entry::Pick => Some(&self.pick),
            Entry::Response => Some(&self.response),
            Entry::RequestMessage | Entry::ResponseMessage | Entry::ResponseHeaders => None,
        }
    }
}

impl Chain for Image {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(&self, entry: Entry, segment: u16, call: &mut dyn CallView) -> Verdict {
        match self.code(entry) {
            Some(code) if !code.ops.is_empty() => exec::run(&self.shared, code, entry, segment, call),
            _ => Verdict::Forward,
        }
    }
}
