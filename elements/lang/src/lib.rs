//! The element language: source text to an [`abi::Program`] that a shard runs.
//!
//! [`compile`] is the whole of it: lexer, parser, names, types, rules, byte code, and the interpreter that
//! implements [`abi::Chain`]. [`vm`] is what machine code is made of, [`state`] what outlives a call. The language is described in `elements/LANGUAGE.md`; the standard elements
//! are written in it, under `elements/std`.
//!
//! Not here: reading files and resolving names (a [`Loader`] does), machine code (the JIT takes the same
//! byte code), and anything of HTTP/2.
//!
//! Invariant: whatever the text, [`compile`] ends with a result in bounded time and never panics.
#![forbid(unsafe_code)]

mod ast;
mod check;
mod diag;
mod elsewhere;
pub mod explain;
pub mod fmt;
#[cfg(test)]
mod grammar;
mod hir;
mod lex;
mod lower;
mod parse;
mod program;
mod schema;
mod source;
pub mod state;
mod suggest;
mod ty;
pub mod vm;

use std::net::SocketAddr;
use std::sync::Arc;

pub use diag::{Diagnostic, Diagnostics, Severity};
use state::{Bound, StateReport, Store};
use vm::{Image, Interpreted};

pub use source::{SOURCE_BYTES_MAX, SourceFile, Sources, Span};

/// What the compiler asks the world for. The node implements it; [`NoFiles`] refuses everything.
pub trait Loader {
    /// The file that `use`, `proto` or `file(…)` names in the file `from`; the error is one sentence.
    fn read(&self, from: &str, path: &str) -> Result<SourceText, String>;

    /// The same for a file that need not be text: its name and content.
    ///
    /// # Errors
    /// One sentence.
    fn read_bytes(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        self.read(from, path).map(|source| (source.name, source.text.into_bytes()))
    }

    /// The addresses of `dns("host:port")`; the error is one sentence.
    fn resolve(&self, host_port: &str) -> Result<Vec<SocketAddr>, String>;
}

/// A file a [`Loader`] has read.
#[derive(Clone, Debug)]
pub struct SourceText {
    /// Its name for messages, and what makes it the same file as another.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A [`Loader`] without files and names.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Loader for NoFiles {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Err(format!("cannot read {path}: no files here"))
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<SocketAddr>, String> {
        Err(format!("cannot resolve {host_port}: no names here"))
    }
}

/// Operations one entry of a chain may take in the worst case: a fraction of a millisecond.
pub const CHAIN_COST_MAX: u64 = 100_000;

/// What the operator says from outside the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// A chain that may take more operations than this for one entry of one call does not compile;
    /// [`CHAIN_COST_MAX`] if not said.
    pub chain_cost_max: Option<u64>,
    /// `--set service.NAME.endpoints=A,B`: replaces the endpoints of a service.
    pub set: Vec<(String, Vec<abi::Addr>)>,
    /// The operator's files of `every` rules, which applications cannot change.
    pub every: Vec<SourceText>,
}

/// A compiled application: all but the chains' execution, which [`Compiled::link`] adds.
#[derive(Debug)]
pub struct Compiled {
    /// What the shard runs; its chains are made by [`Compiled::link`].
    pub program: abi::Program,
    /// The byte code of each chain.
    pub images: Vec<Arc<Image>>,
    /// What the compiler found out about them: for [`explain`].
    pub analysis: explain::Analysis,
    /// What is worth knowing: notes and warnings, never errors.
    pub notes: Diagnostics,
    /// What its `proto` lines say: for [`explain`].
    pub protos: explain::Protocols,
    /// Where each of the program's keys is named first.
    pub(crate) key_spans: Vec<Span>,
}

/// What makes byte code run.
pub trait Backend {
    /// A chain that runs this image with this state.
    fn chain(&mut self, image: Arc<Image>, state: Bound) -> Arc<dyn abi::Chain>;
}

/// The [`Backend`] that needs nothing but this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Backend for Interpreter {
    fn chain(&mut self, image: Arc<Image>, state: Bound) -> Arc<dyn abi::Chain> {
        Arc::new(Interpreted::new(image, state))
    }
}

impl Compiled {
    /// Makes the program's chains, each with its state from `store`.
    pub fn link(&mut self, store: &mut Store, backend: &mut dyn Backend) -> StateReport {
        let (bound, report) = store.bind(&self.images);
        self.program.chains =
            self.images.iter().zip(bound).map(|(image, state)| backend.chain(image.clone(), state)).collect();
        report
    }

    /// One for each key that the program names and `node.toml` does not, by its line: an error where there is
    /// a `node.toml`, else a note.
    pub fn keys_missing(&self, known: Option<&dyn Fn(&str) -> bool>) -> Diagnostics {
        let named = self.program.keys.iter().zip(&self.key_spans);
        let missing = named.filter(|(name, _)| !known.is_some_and(|known| known(name)));
        let list = missing.map(|(name, span)| {
            let hint = format!("[keys] with {name} = \"PATH\", or {name} = \"env:VARIABLE\"");
            match known {
                Some(_) => Diagnostic::error(*span, format!("node.toml has no key `{name}`"))
                    .label("no key of this name")
                    .help(format!("write {hint}")),
                None => Diagnostic::note(*span, format!("node.toml must have the key `{name}`")).label(hint),
            }
        });
        Diagnostics::new(list.collect(), self.notes.sources().clone())
    }
}

/// XXH64 of a text: tells one version of a file from another.
pub fn digest(text: &str) -> u64 {
    vm::text::xxh64(text.as_bytes())
}

/// True of the names of standard elements.
pub fn is_standard(name: &str) -> bool {
    program::std::ELEMENTS.iter().any(|(n, _)| *n == name)
}

/// A standard element, as its own file says it.
#[derive(Clone, Copy, Debug)]
pub struct StandardElement {
    /// `RateLimit`.
    pub name: &'static str,
    /// The first sentence of its documentation.
    pub summary: &'static str,
    /// With its parameters, `RateLimit(rate: rate, …)`.
    pub signature: &'static str,
    /// Its whole text.
    pub text: &'static str,
}

/// Every standard element.
pub fn standard_elements() -> impl Iterator<Item = StandardElement> {
    program::std::ELEMENTS.iter().map(|(name, text)| {
        let first = text.trim_start_matches("/// ").lines().next().unwrap_or("");
        let head = text.split_once("\nelement ").map_or("", |(_, rest)| rest);
        let signature = head.split_once(" {").map_or(head, |(signature, _)| signature);
        StandardElement { name, summary: first.trim_end(), signature, text }
    })
}

/// Compiles the file `name` with the text `source`. All errors are found at once.
///
/// # Errors
/// Everything that is wrong with the file, the files it uses, or the overrides.
pub fn compile(
    name: &str,
    source: &str,
    loader: &dyn Loader,
    overrides: &Overrides,
) -> Result<Compiled, Diagnostics> {
    program::compile(name, source, loader, overrides)
}
