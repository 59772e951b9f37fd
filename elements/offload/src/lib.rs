//! Offload queues beside a shard: compression and seals, on the CPU ([`Cpu`]).
//!
//! Not here: when to compress or seal and what it means on the wire (that is the shard's).
#![forbid(unsafe_code)]

mod codec;
mod cpu;
mod seal;

pub use cpu::{Cpu, INLINE_INPUT_BYTES, INLINE_TURN_BYTES};
pub use seal::{KeyError, KeyFault, Keys, OVERHEAD_BYTES, SealOptions, SealSnapshot, Source};
