//! Ethernet addresses of neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861), as a table.
//!
//! ```text
//!   Asking ──answer──► Known ──unconfirmed for a while──► Known, being asked ──answer──► Known
//!      └─no answer─► gone           └─segments come from it: confirmed─┘   └─no answer─► Asking
//! ```
//!
//! An address stays in use while it is asked again, so a connection never waits for a confirmation. Only
//! questions of ours may push another entry out; who asks for us is learnt while there is room. A quarter of
//! the places is kept for connections that cannot send without: callers, who can, take none of them, however
//! many they are.

use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use shard::Instant;

use crate::parse::Mac;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// A neighbour not confirmed for so long is asked again when it is next needed.
const FRESH_NS: u64 = 30_000 * MS;
/// And one whose address nobody has confirmed, unless its connections do before (RFC 4861 section 10).
const DELAY_NS: u64 = 5_000 * MS;
/// Between questions.
const ASK_NS: u64 = 200 * MS;
/// Questions before a neighbour counts as gone.
const ASKS_MAX: u8 = 5;
/// An entry nobody has needed for so long may make room for another.
const UNUSED_NS: u64 = 10_000 * MS;
/// A full table is searched for such an entry no more often than this.
pub(crate) const SEARCH_NS: u64 = 20 * MS;

#[derive(Debug)]
struct Entry {
    ip: IpAddr,
    mac: Option<Mac>,
    confirmed: Instant,
    used: Instant,
    /// Questions asked since the last answer, and when the next one is due.
    asks: u8,
    ask_at: Option<Instant>,
    /// Slots of connections that wait for the answer. Some may have other owners by now: whoever acts on
    /// this makes sure that the owner waits, and for this address.
    waiting: Vec<u32>,
}

/// When a neighbour would have been confirmed that is to be asked soon: RFC 4861's STALE and DELAY in one.
fn doubtful(now: Instant) -> Instant {
    Instant(now.0.saturating_sub(FRESH_NS - DELAY_NS))
}

/// What a neighbour's word is worth; the flags S and O of RFC 4861. ARP overrides always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// An answer to us: the neighbour hears us.
    pub(crate) is_solicited: bool,
    /// It may replace another address.
    pub(crate) overrides: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: Vec<Entry>,
    places: HashMap<IpAddr, u32>,
    max: usize,
    next: Option<Instant>,
    /// When the table was last searched in vain for an entry that may go.
    searched: Option<Instant>,
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// Ask for this address: everybody, or the one that had it.
    Ask(IpAddr, Option<Mac>),
    /// It did not answer; the owners of these slots were waiting for it.
    Gone(IpAddr, Vec<u32>),
}

/// A remembered place in the table; only a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(u32);

impl Place {
    pub(crate) const NOWHERE: Self = Self(u32::MAX);
}

impl Neighbours {
    pub(crate) fn new(max: u32) -> Self {
        Self { entries: Vec::new(), places: HashMap::new(), max: max as usize, next: None, searched: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Where `ip` stands, beginning with a guess.
    fn find(&self, ip: IpAddr, hint: Place) -> Option<u32> {
        if self.entries.get(hint.0 as usize).is_some_and(|entry| entry.ip == ip) {
            return Some(hint.0);
        }
        self.places.get(&ip).copied()
    }

    /// The ethernet address of `ip`, if it is known; `hint` is where it was last and is brought up to date.
    pub(crate) fn mac(&mut self, ip: IpAddr, hint: &mut Place, now: Instant) -> Option<Mac> {
        let place = self.find(ip, *hint)?;
        *hint = Place(place);
        self.entries.get_mut(place as usize)?.used = now;
        self.mac_at(place, now)
    }

    /// The same for a handshake, which anybody can begin: it keeps no entry in use.
    pub(crate) fn peek(&mut self, ip: IpAddr, now: Instant) -> Option<Mac> {
        let place = *self.places.get(&ip)?;
        self.mac_at(place, now)
    }

    fn mac_at(&mut self, place: u32, now: Instant) -> Option<Mac> {
        let entry = self.entries.get_mut(place as usize)?;
        let mac = entry.mac?;
        if entry.ask_at.is_none() && now.since_ns(entry.confirmed) > FRESH_NS {
            (entry.asks, entry.ask_at) = (0, Some(now));
            self.next = Some(self.next.map_or(now, |next| next.min(now)));
        }
        Some(mac)
    }

    /// A segment of a connection came from `mac`: if that is its neighbour, the neighbour is there.
    pub(crate) fn confirm(&mut self, ip: IpAddr, hint: Place, mac: Mac, now: Instant) {
        if let Some(entry) = self.entries.get_mut(hint.0 as usize)
            && entry.ip == ip
            && entry.mac == Some(mac)
        {
            entry.confirmed = now;
            (entry.asks, entry.ask_at) = (0, None);
        }
    }

    /// A connection needs `ip`, which is not known; `is_mute` if it cannot send before. False if the table has
    /// no room for the question.
    pub(crate) fn wait(&mut self, ip: IpAddr, conn: u32, is_mute: bool, now: Instant) -> bool {
        let place = match self.places.get(&ip) {
            Some(place) => *place,
            None => match self.ask_for(ip, is_mute, now) {
                Some(place) => place,
                None => return false,
            },
        };
        let Some(entry) = self.entries.get_mut(place as usize) else { return false };
        if entry.ask_at.is_none() {
            (entry.asks, entry.ask_at) = (0, Some(now));
        }
        entry.used = now;
        // While nobody can be asked, connections give up and others come into their slots.
        if entry.waiting.len() == entry.waiting.capacity() {
            entry.waiting.sort_unstable();
            entry.waiting.dedup();
            entry.waiting.reserve(entry.waiting.len() + 1);
        }
        entry.waiting.push(conn);
        self.next = Some(self.next.map_or(now, |next| next.min(now)));
        true
    }

    /// `ip` is at `mac`: somebody said so. Gives the slots of connections that waited for it.
    pub(crate) fn learn(
        &mut self,
        ip: IpAddr,
        mac: Mac,
        word: Word,
        now: Instant,
        freed: &mut Vec<u32>,
    ) -> Result<(), NoRoom> {
        let place = match self.places.get(&ip) {
            Some(place) => *place,
            // Nobody has needed what was only heard: it goes first.
            None if self.entries.len() < self.room(false) => self.insert(ip, Instant(0)).ok_or(NoRoom)?,
            None => return Err(NoRoom),
        };
        let Some(entry) = self.entries.get_mut(place as usize) else { return Ok(()) };
        // RFC 4861 section 7.2.5.
        let is_other = entry.mac.is_some_and(|known| known != mac);
        if is_other && !word.overrides {
            entry.confirmed = entry.confirmed.min(doubtful(now));
            return Ok(());
        }
        let is_news = entry.mac.replace(mac) != Some(mac);
        if word.is_solicited {
            entry.confirmed = now;
        } else if is_news {
            entry.confirmed = doubtful(now);
        }
        if word.is_solicited || is_news {
            (entry.asks, entry.ask_at) = (0, None);
        }
        freed.append(&mut entry.waiting);
        Ok(())
    }

    /// True if `ip` is in the table.
    pub(crate) fn knows(&self, ip: IpAddr) -> bool {
        self.places.contains_key(&ip)
    }

    /// The next thing that is due; `None` when all is done for now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Due> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let due = self.entries.iter().position(|entry| entry.ask_at.is_some_and(|at| at <= now));
        let Some(place) = due else {
            self.next = self.entries.iter().filter_map(|entry| entry.ask_at).min();
            return None;
        };
        let entry = &mut self.entries[place];
        if entry.asks < ASKS_MAX {
            entry.asks += 1;
            entry.ask_at = Some(now.after_ns(ASK_NS));
            return Some(Due::Ask(entry.ip, entry.mac));
        }
        if entry.mac.take().is_some() {
            // It has moved or gone: ask everybody.
            (entry.asks, entry.ask_at) = (0, Some(now));
            return self.poll(now);
        }
        let (ip, waiting) = (entry.ip, core::mem::take(&mut entry.waiting));
        self.remove(place);
        Some(Due::Gone(ip, waiting))
    }

    /// Nobody can be asked before `until`.
    pub(crate) fn put_off(&mut self, until: Instant) {
        self.next = self.next.map(|next| next.max(until));
    }

    /// The last question for `ip` was not sent.
    pub(crate) fn take_back(&mut self, ip: IpAddr) {
        let entry = self.places.get(&ip).and_then(|place| self.entries.get_mut(*place as usize));
        if let Some(entry) = entry {
            entry.asks = entry.asks.saturating_sub(1);
        }
    }

    /// The link was down: whoever is there has to say so again, and is asked when needed.
    pub(crate) fn doubt_all(&mut self) {
        // What was put off is due.
        self.next = self.next.map(|_| Instant(0));
        for entry in &mut self.entries {
            entry.confirmed = Instant(0);
        }
    }

    /// Entries there may be before one is added.
    fn room(&self, is_mute: bool) -> usize {
        if is_mute { self.max } else { self.max - self.max / 4 }
    }

    /// A place for an address to be asked for, if need be another's.
    fn ask_for(&mut self, ip: IpAddr, is_mute: bool, now: Instant) -> Option<u32> {
        if self.entries.len() >= self.room(is_mute) {
            if self.searched.is_some_and(|at| now.since_ns(at) < SEARCH_NS) {
                return None;
            }
            let is_idle = |entry: &Entry| entry.waiting.is_empty() && now.since_ns(entry.used) >= UNUSED_NS;
            let idle = self.entries.iter().enumerate().filter(|(_, entry)| is_idle(entry));
            let Some((place, _)) = idle.min_by_key(|(_, entry)| entry.used) else {
                self.searched = Some(now);
                return None;
            };
            self.remove(place);
            // Callers had more than their part, or we have had some of it ourselves.
            if self.entries.len() >= self.room(is_mute) {
                return None;
            }
        }
        self.insert(ip, now)
    }

    fn insert(&mut self, ip: IpAddr, used: Instant) -> Option<u32> {
        let place = u32::try_from(self.entries.len()).ok()?;
        let (confirmed, waiting) = (Instant(0), Vec::new());
        self.entries.push(Entry { ip, mac: None, confirmed, used, asks: 0, ask_at: None, waiting });
        self.places.insert(ip, place);
        Some(place)
    }

    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.ip);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.ip, u32::try_from(place).unwrap_or(u32::MAX));
        }
    }
}

/// The table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRoom;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const ANSWER: Word = Word { is_solicited: true, overrides: true };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 7, 0, last])
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * MS)
    }

    fn asks(table: &mut Neighbours, now: Instant) -> Vec<(IpAddr, Option<Mac>)> {
        let mut out = Vec::new();
        while let Some(due) = table.poll(now) {
            match due {
                Due::Ask(ip, mac) => out.push((ip, mac)),
                Due::Gone(..) => panic!("gone"),
            }
        }
        out
    }

    #[test]
    fn many_are_asked_at_once_and_each_answer_frees_its_own() {
        let mut table = Neighbours::new(100);
        for last in 1..=20 {
            assert!(table.wait(ip(last), u32::from(last), true, at(0)));
        }
        assert_eq!(asks(&mut table, at(0)).len(), 20);
        assert_eq!(asks(&mut table, at(0)).len(), 0);
        let mut freed = Vec::new();
        table.learn(ip(7), MAC, ANSWER, at(1), &mut freed).unwrap();
        assert_eq!(freed, [7]);
        let mut hint = Place::NOWHERE;
        assert_eq!(table.mac(ip(7), &mut hint, at(1)), Some(MAC));
        assert_ne!(hint, Place::NOWHERE);
        assert_eq!(table.mac(ip(8), &mut hint, at(1)), None);
        assert_eq!(asks(&mut table, at(200)).len(), 19, "those that have not answered");
    }

    #[test]
    fn who_never_answers_is_gone_after_a_second() {
        let mut table = Neighbours::new(100);
        table.wait(ip(1), 77, true, at(0));
        let mut asked = 0;
        let mut now = at(0);
        let waiting = loop {
            match table.poll(now) {
                Some(Due::Ask(..)) => asked += 1,
                Some(Due::Gone(gone, waiting)) if gone == ip(1) => break waiting,
                Some(Due::Gone(..)) => panic!("another"),
                None => now = table.next().unwrap(),
            }
        };
        assert_eq!((asked, waiting, now), (5, alloc::vec![77], at(1000)));
        assert_eq!((table.len(), table.next()), (0, Some(at(1000))));
        assert!(table.poll(at(1000)).is_none() && table.next().is_none());
    }

    #[test]
    fn a_stale_neighbour_is_asked_alone_while_its_address_stays_in_use() {
        let mut table = Neighbours::new(100);
        table.learn(ip(1), MAC, ANSWER, at(0), &mut Vec::new()).unwrap();
        let mut hint = Place::NOWHERE;
        assert_eq!(table.mac(ip(1), &mut hint, at(29_000)), Some(MAC));
        assert_eq!(table.next(), None);
        table.confirm(ip(1), hint, MAC, at(29_000));
        assert_eq!(table.mac(ip(1), &mut hint, at(50_000)), Some(MAC));
        assert_eq!(table.next(), None, "confirmed by traffic");
        assert_eq!(table.mac(ip(1), &mut hint, at(60_000)), Some(MAC));
        assert_eq!(asks(&mut table, at(60_000)), [(ip(1), Some(MAC))]);
        assert_eq!(table.mac(ip(1), &mut hint, at(60_100)), Some(MAC));
        table.learn(ip(1), MAC, ANSWER, at(60_150), &mut Vec::new()).unwrap();
        assert!(asks(&mut table, at(61_000)).is_empty());
    }

    #[test]
    fn rfc4861_section_7_2_5_what_a_word_is_worth() {
        const OTHER: Mac = [2, 0, 0, 0, 0, 8];
        let word = |is_solicited, overrides| Word { is_solicited, overrides };
        // Said of a neighbour at MAC, confirmed at 100 s: where it is then, and when it is asked again.
        let cases = [
            (word(false, false), OTHER, MAC, 105),
            (word(true, false), OTHER, MAC, 105),
            (word(false, true), OTHER, OTHER, 105),
            (word(true, true), OTHER, OTHER, 140),
            (word(false, true), MAC, MAC, 130),
            (word(true, false), MAC, MAC, 140),
        ];
        for (word, said, mac, asked) in cases {
            let mut table = Neighbours::new(1);
            let mut learn = |mac, word, at| table.learn(ip(1), mac, word, at, &mut Vec::new()).unwrap();
            learn(MAC, ANSWER, at(100_000));
            learn(said, word, at(if asked == 140 { 110_000 } else { 100_000 }));
            let mut hint = Place::NOWHERE;
            assert_eq!(table.mac(ip(1), &mut hint, at(asked * 1000)), Some(mac));
            assert_eq!(table.next(), None, "{word:?} {said:?}");
            assert_eq!(table.mac(ip(1), &mut hint, at(asked * 1000 + 1)), Some(mac));
            assert_eq!(asks(&mut table, at(asked * 1000 + 1)), [(ip(1), Some(mac))], "{word:?} {said:?}");
        }
        // Of one that is not known anything is welcome.
        let mut table = Neighbours::new(1);
        table.wait(ip(1), 7, true, at(0));
        let mut freed = Vec::new();
        table.learn(ip(1), MAC, word(false, false), at(1), &mut freed).unwrap();
        assert_eq!((freed, asks(&mut table, at(10)).len()), (alloc::vec![7], 0));
        assert_eq!(table.mac(ip(1), &mut Place::NOWHERE.clone(), at(10)), Some(MAC));
    }

    #[test]
    fn hearsay_never_pushes_anybody_out() {
        let mut table = Neighbours::new(3);
        for last in 1..=3 {
            table.learn(ip(last), MAC, ANSWER, at(0), &mut Vec::new()).unwrap();
        }
        assert_eq!(table.learn(ip(4), MAC, ANSWER, at(60_000), &mut Vec::new()), Err(NoRoom));
        table.mac(ip(2), &mut Place::NOWHERE.clone(), at(60_000));
        assert!(table.wait(ip(5), 1, true, at(60_000)), "a question may");
        assert!(table.knows(ip(2)) && table.knows(ip(5)));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_quarter_is_kept_for_who_cannot_send_and_a_full_table_is_seldom_searched() {
        let mut table = Neighbours::new(8);
        for last in 1..=7 {
            assert_eq!(table.wait(ip(last), 0, false, at(0)), last <= 6);
        }
        assert_eq!(table.learn(ip(7), MAC, ANSWER, at(0), &mut Vec::new()), Err(NoRoom));
        assert!(table.wait(ip(8), 0, true, at(0)) && table.wait(ip(9), 0, true, at(0)));
        for last in 1..=6 {
            table.learn(ip(last), MAC, ANSWER, at(1), &mut Vec::new()).unwrap();
        }
        assert!(!table.wait(ip(10), 0, true, at(9_990)));
        assert!(!table.wait(ip(10), 0, true, at(10_009)), "not searched again");
        assert!(table.wait(ip(10), 0, true, at(10_010)));
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn callers_take_no_kept_place_of_a_full_table_either() {
        let mut table = Neighbours::new(8);
        for last in 1..=8 {
            assert!(table.wait(ip(last), 0, true, at(0)));
            table.learn(ip(last), MAC, ANSWER, at(1), &mut Vec::new()).unwrap();
        }
        // All eight are idle by now, and callers come who go on.
        let mut late = 20_000;
        for last in 101..=120 {
            late += 100;
            table.wait(ip(last), 0, false, at(late));
        }
        assert!(table.wait(ip(50), 0, true, at(late + 100)), "one of the two places kept for us");
    }

    #[test]
    fn who_gives_up_and_comes_again_leaves_no_trail() {
        let mut table = Neighbours::new(8);
        // The link is down: nobody is asked. Slot 3 has one owner after the other.
        (0..100_000).for_each(|ms| assert!(table.wait(ip(1), 3, true, at(ms))));
        assert!(table.entries[0].waiting.len() < 1000, "{}", table.entries[0].waiting.len());
    }
}
