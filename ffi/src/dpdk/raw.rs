//! What bindgen made of DPDK's headers.
#![allow(
    warnings,
    clippy::all,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::allow_attributes_without_reason,
    clippy::disallowed_types,
    reason = "generated: the names are C's and the bodies bindgen's"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
