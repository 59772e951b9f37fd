//! Random well-typed programs of the element language, and random calls for them: interpreter and machine
//! code must agree on every effect, in order. What the compiler gets wrong both get wrong alike, so that its code is
//! held against itself too: no register is read that nothing wrote, a name that is bound twice to one value keeps it,
//! and a program written in another way that means the same does the same.
//!
//! `cargo run --release -p towpath-langfuzz -- --minutes 60` looks for differences; `--seed 17` shows one
//! seed's program and what became of it.
//!
//! Not here: the shard (that is `sim`), and texts that do not compile (those are tests of `lang`).

pub mod call;
pub mod compare;
pub mod message;
pub mod program;
pub mod rng;
pub mod written;

#[cfg(test)]
mod tests;
