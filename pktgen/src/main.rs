//! The `pktgen` binary.
fn main() {}
