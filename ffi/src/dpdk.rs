//! The safe layer, with the feature `dpdk`.

mod accel;
mod compress;
mod crypto;
mod drivers;
mod eal;
mod error;
mod flow;
mod lcore;
mod log;
mod mbuf;
mod memif;
mod pool;
mod port;
mod queue;
mod raw;
mod rss;
mod segments;
mod setup;
mod stats;

pub use accel::{AcceleratorOptions, BURST_MAX, Buffers, Refusal};
pub use compress::{CompressJob, CompressOutcome, CompressQueue, Compressed, Compressor, Direction};
pub use crypto::{
    AAD_MAX, Bound, Cipher, CryptoQueue, IV_LEN, SealJob, SealOutcome, Sealed, SessionId, TAG_LEN,
};
pub use drivers::{Driver, drivers, is_pci};
pub use eal::{Eal, Memory, Options};
pub use error::Error;
pub use flow::{FlowAction, FlowMatch, FlowRule};
pub use lcore::Lcore;
pub use mbuf::{L4, Mbuf, RxChecksum, TxChecksum};
pub use pool::{Pool, PoolCount, Shape, pools};
pub use port::{Offloads, Port, PortInfo, PortOptions};
pub use queue::{Queue, Received};
pub use rss::Rss;
pub use segments::SEGMENT_BYTES;
pub use stats::{Link, Stats};
