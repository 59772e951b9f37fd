//! Bindings to the system's DPDK, and a thin safe layer above them. Without the feature `dpdk`: nothing.
//!
//! The layer keeps DPDK's own shape and words: one [`Eal`] per process, threads registered as lcores
//! ([`Lcore`]), pools of buffers ([`Pool`]), buffers that are owned ([`Mbuf`]), ports ([`Port`]) and their queue
//! pairs ([`Queue`]). Opening and closing take a lock and may be slow; bursts take none.
//!
//! Invariants, each held by a type:
//! - nothing of DPDK is called before the EAL runs: everything is made from an [`Eal`], or from what was;
//! - a buffer has one owner: an [`Mbuf`], a queue of a port, or its pool; dropping an [`Mbuf`] gives it back;
//! - a buffer never outlives its memory: pools live as long as the process and are used again;
//! - a port is stopped and closed when its last [`Queue`] and its [`Port`] are gone, not before.
//!
//! Not here: what the bytes mean, beyond the headers that checksum offloads need told.
#![cfg_attr(not(feature = "dpdk"), forbid(unsafe_code))]
#![cfg_attr(feature = "dpdk", allow(unsafe_code, reason = "this crate is the seam to C"))]

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "dpdk")]
pub use dpdk::*;
