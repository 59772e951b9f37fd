//! Receive-side scaling: how a port spreads flows over its queues.
//!
//! The key repeats two bytes, which makes Toeplitz symmetric: both directions of a flow hash alike. Only TCP
//! and UDP are hashed; everything else (ARP, ICMP, fragments) hashes to zero, and so to queue 0.

use super::{Error, raw};

/// A port's spreading, as it has confirmed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rss {
    /// Toeplitz key.
    pub key: Vec<u8>,
    /// The queue of each hash modulo the length, which is a power of two.
    pub table: Vec<u16>,
}

const WANTED: u64 = raw::K_RTE_ETH_RSS_NONFRAG_IPV4_TCP
    | raw::K_RTE_ETH_RSS_NONFRAG_IPV4_UDP
    | raw::K_RTE_ETH_RSS_NONFRAG_IPV6_TCP
    | raw::K_RTE_ETH_RSS_NONFRAG_IPV6_UDP;
const SYMMETRIC: [u8; 2] = [0x6d, 0x5a];
/// Where a driver does not say how long its key is.
const KEY_LEN: u8 = 40;
#[expect(clippy::cast_possible_truncation, reason = "64 entries of a table go in one struct")]
const GROUP: usize = raw::K_RTE_ETH_RETA_GROUP_SIZE as usize;

/// What a port must hash to be of use: TCP over both.
const NEEDED: u64 = raw::K_RTE_ETH_RSS_NONFRAG_IPV4_TCP | raw::K_RTE_ETH_RSS_NONFRAG_IPV6_TCP;

/// True if the port can hash TCP and has a table we can compute with.
pub(crate) fn offered(info: &raw::rte_eth_dev_info) -> bool {
    info.flow_type_rss_offloads & NEEDED == NEEDED && info.reta_size.is_power_of_two()
}

/// The symmetric key at the port's length.
pub(crate) fn key(info: &raw::rte_eth_dev_info) -> Vec<u8> {
    let len = if info.hash_key_size == 0 { KEY_LEN } else { info.hash_key_size };
    SYMMETRIC.iter().copied().cycle().take(usize::from(len)).collect()
}

/// The configuration that asks for it; points into `key`.
#[allow(clippy::needless_update, reason = "later releases have more fields")]
pub(crate) fn wanted(info: &raw::rte_eth_dev_info, key: &mut [u8]) -> raw::rte_eth_rss_conf {
    raw::rte_eth_rss_conf {
        rss_key_len: u8::try_from(key.len()).unwrap_or(u8::MAX),
        rss_key: key.as_mut_ptr(),
        rss_hf: WANTED & info.flow_type_rss_offloads,
        ..Default::default()
    }
}

/// Writes the table, then reads back both table and key: what the port says is what is computed with.
pub(crate) fn apply(device: &str, id: u16, info: &raw::rte_eth_dev_info, queues: u16) -> Result<Rss, Error> {
    let size = info.reta_size;
    let mut groups = vec![raw::rte_eth_rss_reta_entry64::default(); usize::from(size).div_ceil(GROUP)];
    for entry in 0..usize::from(size) {
        let queue = entry % usize::from(queues);
        groups[entry / GROUP].mask |= 1 << (entry % GROUP);
        groups[entry / GROUP].reta[entry % GROUP] = u16::try_from(queue).unwrap_or(0);
    }
    let check = |doing, result: i32| {
        if result < 0 { Err(Error::from_result(device, doing, result)) } else { Ok(()) }
    };
    // SAFETY: as many groups as `size` entries need.
    check("set the RSS table", unsafe { raw::rte_eth_dev_rss_reta_update(id, groups.as_mut_ptr(), size) })?;
    // SAFETY: as above; every entry's mask bit is set, so every entry is filled in.
    check("read the RSS table", unsafe { raw::rte_eth_dev_rss_reta_query(id, groups.as_mut_ptr(), size) })?;
    let table = (0..usize::from(size)).map(|entry| groups[entry / GROUP].reta[entry % GROUP]).collect();
    let mut key = key(info);
    let mut conf = wanted(info, &mut key);
    // Some drivers take the key only here. One that refuses has it from the configuration, or keeps its own.
    // SAFETY: the key outlives the call, which copies it.
    let _ = unsafe { raw::rte_eth_dev_rss_hash_update(id, &raw mut conf) };
    // What it says now is what it does; the key is overwritten in place.
    // SAFETY: the key has room for `rss_key_len` bytes, and outlives the call.
    check("read the RSS key", unsafe { raw::rte_eth_dev_rss_hash_conf_get(id, &raw mut conf) })?;
    if conf.rss_hf & NEEDED != NEEDED {
        return Err(Error::new(device, "spread flows", libc::ENOTSUP, "it does not hash TCP".to_owned()));
    }
    Ok(Rss { key, table })
}
