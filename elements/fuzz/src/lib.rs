//! Random well-typed programs of the element language, and random calls for them: interpreter and machine
//! code must agree on every effect, in order.
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
