//! Offload queues beside a shard: compression and seals, on the CPU ([`Cpu`]) and with the feature `dpdk` on
//! compressdevs and cryptodevs ([`Devices`]); [`Queue`] is both, and [`Placement`] says which takes what.
//!
//! Not here: when to compress or seal and what it means on the wire (that is the shard's).
#![forbid(unsafe_code)]

mod codec;
mod cpu;
#[cfg(feature = "dpdk")]
mod device;
mod placement;
mod queue;
mod seal;
#[cfg(any(feature = "dpdk", test))]
mod wrapper;

pub use cpu::{Cpu, INLINE_INPUT_BYTES, INLINE_TURN_BYTES};
#[cfg(feature = "dpdk")]
pub use device::{DeviceError, DeviceMemory, DeviceOptions, Devices, Lanes};
#[cfg(feature = "dpdk")]
pub use placement::measure;
pub use placement::{Choice, Cost, Kind, Placement, SIZES};
pub use queue::{Queue, QueueCounters, QueueSnapshot};
pub use seal::{KeyError, KeyFault, Keys, OVERHEAD_BYTES, SealOptions, SealSnapshot, Source};

/// True if this build knows DPDK's devices.
pub const HAS_DPDK: bool = cfg!(feature = "dpdk");
