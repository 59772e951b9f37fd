//! Keys of other nodes' sealers, derived: the ones used last.

use aws_lc_rs::aead::LessSafeKey;
use hashbrown::HashMap;
use shard::Seal;

use super::envelope::{Header, Stamp};

/// Keys a thread keeps.
pub(crate) const FAR_MAX: usize = 1024;

/// Which key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FarName {
    pub(crate) ring: u16,
    pub(crate) stamp: Stamp,
}

impl FarName {
    /// The key an envelope names.
    #[inline]
    pub(crate) fn of(seal: &Seal, header: &Header) -> Self {
        Self { ring: seal.ring.0, stamp: header.stamp() }
    }
}

struct Entry {
    cipher: LessSafeKey,
    used: u64,
}

/// At most [`FAR_MAX`] keys.
#[derive(Default)]
pub(crate) struct Far {
    entries: HashMap<FarName, Entry>,
    /// Counts uses.
    tick: u64,
}

impl Far {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(crate) fn find(&mut self, name: &FarName) -> Option<&LessSafeKey> {
        let entry = self.entries.get_mut(name)?;
        self.tick += 1;
        entry.used = self.tick;
        Some(&entry.cipher)
    }

    /// True if it is here; no use of it.
    #[cfg(feature = "dpdk")]
    pub(crate) fn knows(&self, name: &FarName) -> bool {
        self.entries.contains_key(name)
    }

    /// Keeps a key; true if another was given up for it. Looking for that one costs about what deriving does.
    pub(crate) fn keep(&mut self, name: FarName, cipher: LessSafeKey) -> bool {
        let is_full = self.entries.len() >= FAR_MAX;
        if is_full {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.tick += 1;
        self.entries.insert(name, Entry { cipher, used: self.tick });
        is_full
    }
}
