//! Ethernet frames over a raw port: a generator that counts what comes back, and a forwarder that is the port
//! layer alone (receive, parse, find the flow, swap the addresses, send).
//!
//! Both are generic over [`shard::Device`], own no thread and read no clock but the device's.

mod forward;
mod frame;
mod generate;
#[cfg(test)]
mod tests;

pub use forward::{Forward, Forwarded, Stage};
pub use frame::{FlowKey, Template, flow_key, swap_macs};
pub use generate::{Generate, Generated, Plan};
