//! Chains as machine code: the interpreter's byte code through Cranelift.
//!
//! [`Jit`] is a [`lang::Backend`]. Each entry of a chain becomes one function; code that is the same is
//! compiled once, for all chains and over reloads, since values that come from a rule's arguments are data
//! ([`lang::vm::Shared::consts`]) and no part of it. What an instruction means is said in one place,
//! [`lang::vm::Run::step`]; machine code does the frequent ones itself and calls `step` for the rest.
//!
//! Compilation happens where [`lang::Compiled::link`] is called: on a control thread, never on a data core.
//! Code is freed there too (see [`Jit::sweep`]).
//!
//! Where executable memory is refused, or the machine is none that this crate makes code for, the
//! interpreter serves: [`Jit::refusal`] says why.
//!
//! Not here: what instructions mean, and any check of programs: byte code comes from `lang` alone.

mod arith;
mod cache;
mod callback;
mod memory;
mod translate;

use std::sync::Arc;

use lang::Backend;
use lang::state::Bound;
use lang::vm::{Image, Interpreted};

use cache::Cache;
use callback::Machine;
use translate::Translator;

/// Why chains are interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was asked for.
    Asked,
    /// The kernel forbids executable memory; its error, as in `EACCES`.
    Memory(String),
    /// There is no machine code for this machine; its name.
    Machine(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("as configured"),
            Self::Memory(why) => write!(f, "executable memory was refused ({why})"),
            Self::Machine(name) => write!(f, "no machine code for {name}"),
        }
    }
}

/// What a [`Jit`] has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Chains that run as machine code, made so far.
    pub chains: u64,
    /// Different code among them, compiled.
    pub compiled: u64,
    /// Chains left to the interpreter.
    pub interpreted: u64,
    /// Different code held now.
    pub held: usize,
    /// Bytes of memory it takes.
    pub held_bytes: usize,
}

/// The [`Backend`] that makes machine code. It stays on the control thread.
pub struct Jit {
    translator: Option<Translator>,
    refusal: Option<Refusal>,
    cache: Cache,
    figures: Figures,
}

impl Jit {
    /// Machine code if there may be any, else the interpreter.
    pub fn new() -> Self {
        let made = match memory::CodeMemory::new(&[0]) {
            Ok(_) => Translator::new().map_err(Refusal::Machine),
            Err(errno) => Err(Refusal::Memory(errno_name(errno))),
        };
        match made {
            Ok(translator) => Self { translator: Some(translator), refusal: None, ..Self::interpreting() },
            Err(refusal) => Self { refusal: Some(refusal), ..Self::interpreting() },
        }
    }

    /// The interpreter.
    pub fn interpreting() -> Self {
        Self {
            translator: None,
            refusal: Some(Refusal::Asked),
            cache: Cache::default(),
            figures: Figures::default(),
        }
    }

    /// Why there is no machine code, if there is none.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// What was done so far.
    pub fn figures(&self) -> Figures {
        let (held, held_bytes) = self.cache.held();
        Figures { held, held_bytes, ..self.figures }
    }

    /// What is compiled from here on is another program's.
    pub fn begin_program(&mut self) {
        self.cache.begin_program();
    }

    /// Frees the code that no chain uses any more. Chains end on data cores, with the last call of their
    /// generation; the pages are given back here, by the thread that compiles. True if code that only
    /// earlier programs have is still in use: sweep again later.
    pub fn sweep(&mut self) -> bool {
        self.cache.sweep()
    }

    /// A chain of machine code; an error says what Cranelift did not like, which is a fault of ours.
    ///
    /// # Errors
    /// As above. [`Backend::chain`] leaves such a chain to the interpreter.
    pub fn try_chain(&mut self, image: &Arc<Image>, state: &Bound) -> Result<Arc<dyn abi::Chain>, String> {
        let Some(translator) = &mut self.translator else {
            return Err(self.refusal.as_ref().map(Refusal::to_string).unwrap_or_default());
        };
        let code = self.cache.code(image, |image, shape| {
            self.figures.compiled += 1;
            translator.compile(image, shape)
        })?;
        self.figures.chains += 1;
        Ok(Arc::new(Machine::new(image.clone(), state.clone(), code)))
    }
}

impl Default for Jit {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jit").field("refusal", &self.refusal).field("figures", &self.figures()).finish()
    }
}

impl Backend for Jit {
    fn chain(&mut self, image: Arc<Image>, state: Bound) -> Arc<dyn abi::Chain> {
        match self.try_chain(&image, &state) {
            Ok(chain) => chain,
            Err(why) => {
                debug_assert!(self.refusal.is_some(), "byte code that cannot be compiled: {why}");
                self.figures.interpreted += 1;
                Arc::new(Interpreted::new(image, state))
            }
        }
    }
}

/// `EACCES`, as users look it up.
fn errno_name(errno: rustix::io::Errno) -> String {
    match errno {
        rustix::io::Errno::ACCESS => "EACCES".into(),
        rustix::io::Errno::PERM => "EPERM".into(),
        rustix::io::Errno::NOMEM => "ENOMEM".into(),
        other => format!("errno {}", other.raw_os_error()),
    }
}
