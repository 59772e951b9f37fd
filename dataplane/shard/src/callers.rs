//! Who pays: every connection, call and buffer is charged to a caller.

use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use wire::Instant;

use crate::limits::{Limits, SECOND};
use crate::pool::Ledger;

/// What tells callers apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Who {
    /// More callers than the table holds.
    Rest,
    /// A service recognised by its `from`; a hash of its name, so that it outlives a reload.
    Service(u64),
    /// An address nobody claims.
    Ip(IpAddr),
    /// A local user nobody claims.
    Uid(u32),
    /// A listener whose peers cannot be told apart.
    Listener(u16),
}

/// A place in [`Callers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CallerId(pub(crate) u16);

#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) connections: u32,
    pub(crate) calls: u32,
    pub(crate) pool: Ledger,
    /// By how much windows of its calls have grown: the few busy streams, never hundreds of stalled ones.
    pub(crate) grown: Ledger,
    /// Upstream resets it may still cause before it gets connections of its own.
    resets_left: u32,
    resets_at: Instant,
    /// Until when its calls travel on connections of their own.
    private_until: Instant,
    /// In the table; false for a free place.
    is_listed: bool,
}

/// By how much the windows of one caller's calls may grow, all together, bytes.
const GROWN_BYTES_MAX: u64 = 8 << 20;
/// How long a caller that was over its reset budget stays by itself.
const PRIVATE_NS: u64 = 60 * SECOND;

/// The callers of a shard. The first entry is the one that all share who find no place.
#[derive(Debug)]
pub(crate) struct Callers {
    entries: Vec<Caller>,
    by_who: HashMap<Who, u16>,
    free: Vec<u16>,
    entries_max: usize,
    pool_bytes: u64,
    resets_per_second: u32,
    /// Connections of all callers.
    pub(crate) connections: u32,
}

impl Callers {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut callers = Self {
            entries: Vec::new(),
            by_who: HashMap::new(),
            free: Vec::new(),
            entries_max: limits.callers_max.clamp(1, u32::from(u16::MAX)) as usize,
            pool_bytes: limits.caller_pool_bytes,
            resets_per_second: limits.caller_resets_per_second,
            connections: 0,
        };
        callers.entries.push(callers.entry(Who::Rest));
        callers
    }

    fn entry(&self, who: Who) -> Caller {
        Caller {
            who,
            connections: 0,
            calls: 0,
            pool: Ledger::new(self.pool_bytes),
            grown: Ledger::new(GROWN_BYTES_MAX),
            resets_left: self.resets_per_second,
            resets_at: Instant(0),
            private_until: Instant(0),
            is_listed: true,
        }
    }

    /// A connection of this caller came: finds or makes its entry.
    pub(crate) fn connect(&mut self, who: Who) -> CallerId {
        let id = match self.by_who.get(&who) {
            Some(id) => *id,
            None if self.free.is_empty() && self.entries.len() >= self.entries_max => 0,
            None => {
                let entry = self.entry(who);
                let id = if let Some(id) = self.free.pop() {
                    self.entries[usize::from(id)] = entry;
                    id
                } else {
                    self.entries.push(entry);
                    u16::try_from(self.entries.len() - 1).unwrap_or(0)
                };
                self.by_who.insert(who, id);
                id
            }
        };
        self.entries[usize::from(id)].connections += 1;
        self.connections += 1;
        CallerId(id)
    }

    /// A connection of it is gone.
    pub(crate) fn disconnect(&mut self, id: CallerId) {
        self.entries[usize::from(id.0)].connections -= 1;
        self.connections -= 1;
        self.forget_idle(id);
    }

    /// A call of it ended.
    pub(crate) fn end_call(&mut self, id: CallerId) {
        self.entries[usize::from(id.0)].calls -= 1;
        self.forget_idle(id);
    }

    fn forget_idle(&mut self, id: CallerId) {
        let per_second = self.resets_per_second;
        let entry = &mut self.entries[usize::from(id.0)];
        let is_gone = id.0 != 0 && entry.is_listed && entry.connections == 0 && entry.calls == 0;
        // Who has spent of its budget is remembered: leaving and coming again does not fill it.
        if is_gone && entry.resets_left == per_second && entry.private_until == Instant(0) {
            assert!(entry.pool.used == 0, "a caller left with bytes");
            entry.is_listed = false;
            self.by_who.remove(&entry.who);
            self.free.push(id.0);
        }
    }

    /// Once a second: budgets that are full again are no reason to remember who has left.
    pub(crate) fn refresh(&mut self, now: Instant) {
        for id in 0..u16::try_from(self.entries.len()).unwrap_or(u16::MAX) {
            let entry = &mut self.entries[usize::from(id)];
            if entry.private_until <= now {
                entry.private_until = Instant(0);
                if now.since_ns(entry.resets_at) >= SECOND {
                    entry.resets_left = self.resets_per_second;
                }
            }
            self.forget_idle(CallerId(id));
        }
    }

    pub(crate) fn get(&self, id: CallerId) -> &Caller {
        &self.entries[usize::from(id.0)]
    }

    pub(crate) fn get_mut(&mut self, id: CallerId) -> &mut Caller {
        &mut self.entries[usize::from(id.0)]
    }

    /// Callers told apart now.
    pub(crate) fn len(&self) -> usize {
        self.by_who.len()
    }

    /// It made us reset an upstream stream. True if that took it over its budget just now.
    pub(crate) fn spend_reset(&mut self, id: CallerId, now: Instant) -> bool {
        let per_second = self.resets_per_second;
        let caller = &mut self.entries[usize::from(id.0)];
        if now.since_ns(caller.resets_at) >= SECOND {
            caller.resets_at = now;
            caller.resets_left = per_second;
        }
        if caller.resets_left > 0 {
            caller.resets_left -= 1;
            return false;
        }
        let was_private = caller.private_until > now;
        caller.private_until = now.after_ns(PRIVATE_NS);
        !was_private
    }

    /// Its calls travel on connections of their own now.
    pub(crate) fn is_private(&self, id: CallerId, now: Instant) -> bool {
        self.entries[usize::from(id.0)].private_until > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn ip(n: u8) -> Who {
        Who::Ip(IpAddr::V4(Ipv4Addr::new(127, 0, 0, n)))
    }

    #[test]
    fn callers_beyond_the_table_share_the_first_entry_and_leaving_frees_a_place() {
        let limits = Limits { callers_max: 3, ..Limits::DEFAULT };
        let mut callers = Callers::new(&limits);
        let a = callers.connect(ip(1));
        let b = callers.connect(ip(2));
        assert_ne!(a, b);
        assert_eq!(callers.connect(ip(1)), a);
        assert_eq!(callers.connect(ip(3)), CallerId(0));
        callers.disconnect(b);
        assert_eq!(callers.connect(ip(4)), b);
    }

    #[test]
    fn a_caller_over_its_reset_budget_is_kept_by_itself_for_a_while() {
        let limits = Limits { caller_resets_per_second: 2, ..Limits::DEFAULT };
        let mut callers = Callers::new(&limits);
        let a = callers.connect(ip(1));
        let now = Instant(5 * SECOND);
        assert!(!callers.spend_reset(a, now));
        assert!(!callers.spend_reset(a, now));
        assert!(callers.spend_reset(a, now));
        assert!(!callers.spend_reset(a, now));
        assert!(callers.is_private(a, now));
        // Leaving and coming again changes nothing; time does.
        callers.disconnect(a);
        assert_eq!(callers.connect(ip(1)), a);
        assert!(callers.is_private(a, now));
        callers.disconnect(a);
        callers.refresh(now.after_ns(PRIVATE_NS));
        assert_eq!(callers.len(), 0);
        callers.connect(ip(1));
        assert!(!callers.is_private(a, now.after_ns(PRIVATE_NS)));
    }
}
