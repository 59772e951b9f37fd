//! Lists, and choosing from them.
//!
//! The lists of endpoints are not stored: they are read from the call, item by item, so that a pick costs
//! the same whatever their length, except where a choice must look at each.

use abi::{EndpointIdx, EndpointStat};

use super::code::{HEALTHY_ENDPOINTS, Where, slice_parts, slice_word};
use super::exec::Run;
use super::text::{below, mix, unit, xxh64};

/// The most items a stored list has.
const ITEMS_MAX: usize = 1024;
/// The most parts `split` makes.
pub(crate) const PARTS_MAX: usize = 64;
/// The most `sample` takes.
const SAMPLE_MAX: usize = 32;
/// `next` over this many endpoints or fewer skips the unhealthy evenly; over more it takes the one after.
const EVEN_TURNS_MAX: usize = 64;

impl Run<'_> {
    fn stat(&self, endpoint: u64) -> Option<EndpointStat> {
        self.call.endpoint_stat(EndpointIdx(u16::try_from(endpoint).ok()?))
    }

    fn is_healthy(&self, endpoint: u64) -> bool {
        self.stat(endpoint).is_some_and(|s| s.healthy)
    }

    /// How many places a list has; those of unhealthy endpoints may be empty.
    fn places(&self, list: u64) -> usize {
        match slice_parts(list) {
            (Where::Consts | Where::Scratch, _, len) => len,
            _ => self.call.endpoint_count().min(ITEMS_MAX),
        }
    }

    /// The item at a place.
    fn at(&self, list: u64, place: usize) -> Option<u64> {
        match slice_parts(list) {
            (Where::Scratch, at, len) => {
                (place < len).then(|| self.scratch.words.get(at + place).copied())?
            }
            (Where::Consts, at, _) => self.shared.list(at).get(place).copied(),
            (Where::AllEndpoints, ..) => Some(place as u64),
            (Where::HealthyEndpoints, ..) => Some(place as u64).filter(|e| self.is_healthy(*e)),
        }
    }

    /// The next item from place `i`, which moves behind it.
    #[inline]
    pub fn next(&self, list: u64, i: &mut u64) -> Option<u64> {
        if let (Where::Scratch, at, len) = slice_parts(list) {
            let place = usize::try_from(*i).ok().filter(|p| *p < len)?;
            *i += 1;
            return self.scratch.words.get(at + place).copied();
        }
        let places = self.places(list);
        while let Some(place) = usize::try_from(*i).ok().filter(|p| *p < places) {
            *i += 1;
            if let Some(item) = self.at(list, place) {
                return Some(item);
            }
        }
        None
    }

    pub(super) fn len(&self, list: u64) -> usize {
        match slice_parts(list).0 {
            Where::HealthyEndpoints => (0..self.places(list)).filter(|p| self.at(list, *p).is_some()).count(),
            _ => self.places(list),
        }
    }

    /// The item at a place.
    pub fn nth(&self, list: u64, n: usize) -> Option<u64> {
        match slice_parts(list).0 {
            Where::HealthyEndpoints => (0..self.places(list)).filter_map(|p| self.at(list, p)).nth(n),
            _ if n < self.places(list) => self.at(list, n),
            _ => None,
        }
    }

    /// Appends to a stored list; one that is not at the end of the scratch moves there first.
    pub(super) fn push(&mut self, list: u64, item: u64) -> u64 {
        if slice_parts(list).2 >= ITEMS_MAX {
            return list;
        }
        self.grown(list, &[item])
    }

    fn grown(&mut self, list: u64, items: &[u64]) -> u64 {
        let (place, mut at, len) = slice_parts(list);
        let words = &mut self.scratch.words;
        if place != Where::Scratch || at + len != words.len() {
            let from = at;
            at = words.len();
            match place {
                Where::Scratch if from + len <= at => words.extend_from_within(from..from + len),
                Where::Consts => words.extend_from_slice(self.shared.list(from)),
                _ => {}
            }
        }
        words.extend_from_slice(items);
        slice_word(at, len + items.len(), false)
    }

    /// Where the value of a key stands in a map, which is a list of keys and values by turns.
    fn place_in(&self, map: u64, key: u64, of_texts: bool) -> Option<usize> {
        (1..self.places(map)).step_by(2).find(|place| {
            let known = self.at(map, place - 1);
            known.is_some_and(|k| if of_texts { self.bytes(k) == self.bytes(key) } else { k == key })
        })
    }

    /// Puts a key and its value into a map that is stored; the last value of a key counts.
    pub(super) fn put_pair(&mut self, map: u64, pair: [u64; 2], of_texts: bool) -> u64 {
        let [key, value] = pair;
        let Some(place) = self.place_in(map, key, of_texts) else { return self.grown(map, &pair) };
        if let Some(slot) = self.scratch.words.get_mut(slice_parts(map).1 + place) {
            *slot = value;
        }
        map
    }

    pub(super) fn find_pair(&self, map: u64, key: u64, of_texts: bool) -> Option<u64> {
        self.at(map, self.place_in(map, key, of_texts)?)
    }

    pub(super) fn keys(&mut self, map: u64) -> u64 {
        let mut out = slice_word(self.scratch.words.len(), 0, false);
        for place in (0..self.places(map)).step_by(2) {
            if let Some(key) = self.at(map, place) {
                out = self.push(out, key);
            }
        }
        out
    }

    /// A list as bytes: its words, one after the other.
    pub(super) fn pack(&mut self, list: u64) -> u64 {
        let at = self.scratch.bytes.len();
        let mut place = 0;
        while let Some(item) = self.next(list, &mut place) {
            self.scratch.bytes.extend_from_slice(&item.to_le_bytes());
        }
        let len = self.scratch.bytes.len() - at;
        self.text_max += len;
        slice_word(at, len, false)
    }

    /// The list that was packed so.
    pub(super) fn unpack(&mut self, packed: u64) -> u64 {
        let (_, from, len) = slice_parts(packed);
        let at = self.scratch.words.len();
        let bytes = self.scratch.bytes.get(from..from + len).unwrap_or(&[]);
        let words = bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk));
        self.scratch.words.extend(words);
        slice_word(at, len / 8, false)
    }

    /// The items of a list, each where it first comes.
    pub(super) fn distinct(&mut self, list: u64, of_texts: bool) -> u64 {
        let mut out = slice_word(self.scratch.words.len(), 0, false);
        let mut place = 0;
        while let Some(item) = self.next(list, &mut place) {
            let is_same =
                |other| if of_texts { self.bytes(other) == self.bytes(item) } else { other == item };
            let mut known = 0;
            let mut is_known = false;
            while let Some(other) = self.next(out, &mut known) {
                is_known |= is_same(other);
            }
            if !is_known {
                out = self.push(out, item);
            }
        }
        out
    }

    /// The healthy ones, or all if none is.
    pub fn healthy(&mut self, list: u64) -> u64 {
        let any = (0..self.places(list)).any(|p| self.at(list, p).is_some_and(|e| self.is_healthy(e)));
        match slice_parts(list).0 {
            _ if !any => list,
            Where::AllEndpoints | Where::HealthyEndpoints => HEALTHY_ENDPOINTS,
            _ => {
                let mut out = slice_word(self.scratch.words.len(), 0, false);
                for place in 0..self.places(list) {
                    if let Some(item) = self.at(list, place).filter(|e| self.is_healthy(*e)) {
                        out = self.push(out, item);
                    }
                }
                out
            }
        }
    }

    /// `n` different items by chance, at most [`SAMPLE_MAX`]. A few draws nearly always do; where most
    /// places are empty the rest is taken in order from a place drawn.
    pub fn sample(&mut self, list: u64, n: u64) -> u64 {
        let places = self.places(list);
        let wanted = usize::try_from(n).unwrap_or(SAMPLE_MAX).min(SAMPLE_MAX);
        let mut out = slice_word(self.scratch.words.len(), 0, false);
        if places == 0 || wanted == 0 {
            return out;
        }
        let mut draw = self.draw();
        if wanted == 2
            && places >= 2
            && let Some(pair) = self.two(list, places, draw)
        {
            self.scratch.words.extend_from_slice(&pair);
            return slice_word(self.scratch.words.len() - 2, 2, false);
        }
        let mut taken = [usize::MAX; SAMPLE_MAX];
        let mut found = 0;
        if places > wanted {
            for _ in 0..2 * wanted + 8 {
                // Each draw serves two places: its upper and its lower half.
                for half in [draw, draw << 32] {
                    let place = below(half & 0xffff_ffff_0000_0000, places);
                    if found == wanted || taken.iter().take(found).any(|t| *t == place) {
                        continue;
                    }
                    if let (Some(item), Some(slot)) = (self.at(list, place), taken.get_mut(found)) {
                        *slot = place;
                        found += 1;
                        out = self.push(out, item);
                    }
                }
                if found == wanted {
                    return out;
                }
                draw = self.draw();
            }
        }
        let first = below(draw, places);
        for step in 0..places {
            let place = (first + step) % places;
            if found == wanted {
                break;
            }
            if taken.iter().take(found).any(|t| *t == place) {
                continue;
            }
            if let (Some(item), Some(slot)) = (self.at(list, place), taken.get_mut(found)) {
                *slot = place;
                found += 1;
                out = self.push(out, item);
            }
        }
        out
    }

    /// Two different places by one draw, if both hold an item: the usual case of the usual policy.
    #[inline]
    fn two(&self, list: u64, places: usize, draw: u64) -> Option<[u64; 2]> {
        let first = below(draw, places);
        let second = below(draw << 32, places - 1);
        let second = second + usize::from(second >= first);
        Some([self.at(list, first)?, self.at(list, second)?])
    }

    /// The parts of a text between those that are `by`; the text itself where that is empty.
    pub(super) fn split(&mut self, text: u64, by: u64) -> u64 {
        let (whole, by) = (self.text(text), self.text(by));
        let mut parts = [(0, 0); PARTS_MAX];
        let mut found = 0;
        let (mut begin, mut is_cut) = (0, false);
        for slot in &mut parts {
            let rest = whole.get(begin..).unwrap_or("");
            let len = if by.is_empty() { None } else { rest.find(by) };
            *slot = (begin, len.unwrap_or(rest.len()));
            found += 1;
            let Some(len) = len else { break };
            begin += len + by.len();
            is_cut = found == PARTS_MAX;
        }
        self.is_cut |= is_cut;
        let mut out = slice_word(self.scratch.words.len(), 0, false);
        for (skipped, len) in parts.into_iter().take(found) {
            let part = self.part(text, skipped, len);
            out = self.push(out, part);
        }
        out
    }

    /// The item below which a share `q` of a stored list of floats lies, the nearest rank; 0 of nothing.
    pub(super) fn quantile(&mut self, list: u64, q: u64) -> u64 {
        let (Where::Scratch, at, len) = slice_parts(list) else { return 0 };
        let Some(items) = self.scratch.words.get_mut(at..at + len).filter(|items| !items.is_empty()) else {
            return 0;
        };
        let mut rank = 0;
        while rank + 1 < len && ((rank + 1) as f64) < f64::from_bits(q) * len as f64 {
            rank += 1;
        }
        let (_, item, _) =
            items.select_nth_unstable_by(rank, |a, b| f64::from_bits(*a).total_cmp(&f64::from_bits(*b)));
        *item
    }

    /// By turns: the destination's pick number decides.
    pub(super) fn turn(&mut self, list: u64) -> Option<u64> {
        let number = usize::try_from(self.call.pick_number()).unwrap_or(0);
        let places = self.places(list);
        if places == 0 {
            return None;
        }
        if places <= EVEN_TURNS_MAX {
            let len = self.len(list);
            return self.nth(list, number.checked_rem(len)?);
        }
        (0..places).find_map(|step| self.at(list, (number + step) % places))
    }

    /// Rendezvous hashing: each endpoint has a score for each key, the highest takes it. When one goes,
    /// only its keys move; weights scale the shares.
    pub(super) fn ring(&mut self, list: u64, key: u64) -> Option<u64> {
        let key = xxh64(self.text(key).as_bytes());
        let mut best: Option<(u64, u64)> = None;
        let mut weights = None;
        let mut is_even = true;
        for place in 0..self.places(list) {
            let Some(item) = self.at(list, place) else { continue };
            let Some(stat) = self.stat(item) else { continue };
            is_even &= *weights.get_or_insert(stat.weight) == stat.weight;
            let score = mix(key, stat.hash);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, item));
            }
        }
        if is_even { best.map(|(_, item)| item) } else { self.weighted_ring(list, key) }
    }

    /// The same with weights: the least of -ln(u) / weight.
    fn weighted_ring(&self, list: u64, key: u64) -> Option<u64> {
        let mut best: Option<(f64, u64)> = None;
        for place in 0..self.places(list) {
            let Some(item) = self.at(list, place) else { continue };
            let Some(stat) = self.stat(item).filter(|s| s.weight > 0) else { continue };
            let cost = -unit(mix(key, stat.hash)).max(f64::MIN_POSITIVE).ln() / f64::from(stat.weight);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, item));
            }
        }
        best.map(|(_, item)| item)
    }

    /// The endpoint that the destination's table has for the key; where that is ill, or gone, the next that
    /// will do. The table is of all endpoints: of a list of some, and where hardly any is healthy, it is
    /// [`Run::ring`].
    pub(super) fn maglev(&mut self, list: u64, key: u64) -> Option<u64> {
        let place = slice_parts(list).0;
        let service = self.shared.services.get(usize::from(self.call.destination().0));
        if let (Where::AllEndpoints | Where::HealthyEndpoints, Some(table)) =
            (place, service.and_then(|s| s.maglev.get()))
        {
            let key = xxh64(self.text(key).as_bytes());
            for endpoint in table.from(key) {
                let stat = self.stat(endpoint.into());
                if stat.is_some_and(|s| s.healthy || place == Where::AllEndpoints) {
                    return Some(endpoint.into());
                }
            }
        }
        self.ring(list, key)
    }

    /// By weight: by a draw, or by a key's hash.
    pub(super) fn by_weight(&mut self, list: u64, key: Option<u64>) -> Option<u64> {
        let places = self.places(list);
        let weight = |run: &Self, place| {
            let item = run.at(list, place)?;
            Some((item, u64::from(run.stat(item)?.weight)))
        };
        let total: u64 = (0..places).filter_map(|p| weight(self, p)).map(|(_, w)| w).sum();
        let word = match key {
            Some(key) => xxh64(self.text(key).as_bytes()),
            None => self.draw(),
        };
        let mut left = below(word, usize::try_from(total).unwrap_or(usize::MAX)) as u64;
        for place in 0..places {
            let Some((item, weight)) = weight(self, place) else { continue };
            if left < weight {
                return Some(item);
            }
            left -= weight;
        }
        None
    }

    /// One of a table of weights, summed up; 0 if all are nothing.
    pub(super) fn by_table(&mut self, table: u16, key: Option<u64>) -> u64 {
        let word = match key {
            Some(key) => xxh64(self.text(key).as_bytes()),
            None => self.draw(),
        };
        let Some(sums) = self.shared.tables.get(usize::from(table)) else { return 0 };
        let total = sums.last().copied().unwrap_or(0);
        let at = below(word, usize::try_from(total).unwrap_or(usize::MAX)) as u64;
        sums.iter().position(|sum| at < *sum).unwrap_or(0) as u64
    }
}
