//! The element language: source text to an [`abi::Program`] that a shard runs.
//!
//! [`compile`] is the whole of it: lexer, parser, names, types, rules, byte code, and the interpreter that
//! implements [`abi::Chain`]. The language is described in `elements/LANGUAGE.md`; the standard elements
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
mod hir;
mod lex;
mod lower;
mod parse;
mod program;
mod source;
mod suggest;
mod ty;
mod vm;

use std::net::SocketAddr;

pub use diag::{Diagnostic, Diagnostics, Severity};
pub use source::{SOURCE_BYTES_MAX, SourceFile, Sources, Span};

/// What the compiler asks the world for. The node implements it; [`NoFiles`] refuses everything.
pub trait Loader {
    /// The file that `use`, `proto` or `file(…)` names in the file `from`; the error is one sentence.
    fn read(&self, from: &str, path: &str) -> Result<SourceText, String>;

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

/// What the operator says from outside the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--set service.NAME.endpoints=A,B`: replaces the endpoints of a service.
    pub set: Vec<(String, Vec<abi::Addr>)>,
    /// The operator's files of `every` rules, which applications cannot change.
    pub every: Vec<SourceText>,
}

/// A compiled application.
#[derive(Debug)]
pub struct Compiled {
    /// What the shard runs.
    pub program: abi::Program,
    /// What is worth knowing: notes and warnings, never errors.
    pub notes: Diagnostics,
    /// The byte code of each chain, one text per entry of `program.chains`.
    pub listings: Vec<String>,
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
