//! The safe layer, with the feature `dpdk`.

mod drivers;
mod eal;
mod error;
mod lcore;
mod log;
mod mbuf;
mod pool;
mod port;
mod queue;
mod raw;
mod rss;
mod stats;

pub use drivers::{Driver, drivers, is_pci};
pub use eal::{Eal, Memory, Options};
pub use error::Error;
pub use lcore::Lcore;
pub use mbuf::{L4, Mbuf, RxChecksum, TxChecksum};
pub use pool::{Pool, PoolCount, Shape, pools};
pub use port::{Offloads, Port, PortInfo, PortOptions};
pub use queue::{Queue, Received};
pub use rss::Rss;
pub use stats::{Link, Stats};
