//! Compression queues beside a shard: [`Cpu`], and with a later issue DPDK's compressdev.
//!
//! Not here: when to compress and what it means on the wire (that is the shard's).
#![forbid(unsafe_code)]

mod codec;
mod cpu;

pub use cpu::{Cpu, INLINE_INPUT_BYTES, INLINE_TURN_BYTES};
