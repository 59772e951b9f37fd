//! What instructions do with messages: decode the one at hand, and give out what was found.

use abi::{Text, Unreadable, Verdict};
use wire::proto::Malformed;

use super::code::{Where, slice_parts, slice_word};
use super::exec::Run;
use super::message::{KeyRef, Kind, Reading, Scan, Slot, tag, view_parts};
use super::rewrite::{PICKS_MAX, Pick, Picked, Target};
use super::text::mix;
use super::texts::{bytes_of, text_of};
use super::work::Work;

/// Bytes of texts that one call keeps of its request.
const KEPT_BYTES_MAX: usize = 4096;

impl Run<'_> {
    fn reading(&self, site: u16) -> Option<&'_ Reading> {
        self.shared.readings.get(usize::from(site))
    }

    /// Reads the message at hand, all of it. None: go on.
    pub(super) fn decode(&mut self, site: u16) -> Option<Verdict> {
        let reading = self.shared.readings.get(usize::from(site))?;
        // A call that failed has no answer: its handlers see an empty one.
        let is_missing = self.is_response() && self.call.payload().is_none();
        let words = reading.words as usize;
        if self.scratch.words.len() < words {
            self.scratch.words.resize(words, 0);
        }
        let slots = self.scratch.words.get_mut(..words)?;
        let root = match reading.only_root() {
            Some(root) => Some(root),
            None => reading.root(self.call.text(Text::Service), self.call.text(Text::Method)),
        };
        if root.is_none() && !is_missing {
            return Some(Verdict::Unreadable(Unreadable::UnknownMethod));
        }
        let Some(root) = root.flatten() else {
            reading.clear(slots);
            return None;
        };
        let payload = match self.call.payload() {
            Some(payload) => payload,
            None if is_missing => &[],
            None => return Some(Verdict::Unreadable(Unreadable::NotOne)),
        };
        let mut scan = Scan::new(reading, payload, slots);
        if scan.run(root).is_err() {
            return Some(Verdict::Unreadable(Unreadable::Malformed));
        }
        let (merged, is_cut) = (scan.merged, scan.is_cut);
        if !merged.is_empty() {
            settle(reading, slots, &merged, &mut self.scratch.bytes);
        }
        is_cut.then_some(Verdict::Unreadable(Unreadable::ListTooLong))
    }

    /// What is in a slot. Texts and messages are copied when they are first asked for.
    pub fn slot(&mut self, site: u16, slot: u16) -> Option<u64> {
        let slot = *self.reading(site)?.slots.get(usize::from(slot))?;
        let at = slot.at as usize;
        let value = *self.scratch.words.get(at + 1)?;
        match *self.scratch.words.get(at)? {
            tag::ABSENT => None,
            tag::VIEW => {
                let word = self.copy(value, slot.is_lossy);
                if let Some([tag, held]) = self.scratch.words.get_mut(at..).and_then(<[u64]>::first_chunk_mut)
                {
                    (*tag, *held) = (tag::READY, word);
                }
                Some(word)
            }
            _ => Some(value),
        }
    }

    /// The list in a slot.
    pub fn slot_list(&mut self, site: u16, slot: u16) -> u64 {
        let Some(Slot { at, items_max, is_lossy, .. }) =
            self.reading(site).and_then(|r| r.slots.get(usize::from(slot))).copied()
        else {
            return slice_word(0, 0, false);
        };
        let at = at as usize;
        let word = |words: &[u64], at: usize| words.get(at).copied().unwrap_or(0);
        let count = usize::try_from(word(&self.scratch.words, at + 1)).unwrap_or(0).min(items_max.into());
        if word(&self.scratch.words, at) == tag::VIEW {
            for item in at + 2..at + 2 + count {
                let view = word(&self.scratch.words, item);
                let text = self.copy(view, is_lossy);
                if let Some(item) = self.scratch.words.get_mut(item) {
                    *item = text;
                }
            }
            if let Some(tag) = self.scratch.words.get_mut(at) {
                *tag = tag::READY;
            }
        }
        if self.reading(site).is_some_and(|r| r.is_written) {
            // The slots will be filled anew while this list may still be in use.
            let copy = self.scratch.words.len();
            self.scratch.words.extend_from_within(at + 2..at + 2 + count);
            return slice_word(copy, count, false);
        }
        slice_word(at + 2, count, false)
    }

    /// The whole message.
    pub(super) fn payload(&mut self) -> Result<u64, Verdict> {
        let payload = match self.call.payload() {
            Some(payload) => payload,
            None if self.is_response() => &[],
            None => return Err(Verdict::Unreadable(Unreadable::NotOne)),
        };
        let at = self.scratch.bytes.len();
        self.scratch.bytes.extend_from_slice(payload);
        self.text_max += payload.len();
        Ok(slice_word(at, payload.len(), false))
    }

    /// A part of the message that a word is. Its bytes have been read before as part of another, so they
    /// are well formed.
    pub(super) fn inside(&mut self, site: u16, message: u64) -> Option<u64> {
        let reading = self.shared.readings.get(usize::from(site))?;
        let (place, from, len) = slice_parts(message);
        let slot = reading.slots.first()?;
        let (.., root) = reading.roots.first()?;
        let base = self.scratch.words.len();
        self.scratch.words.resize(base + reading.words as usize, 0);
        let words = self.scratch.words.get_mut(base..)?;
        let whole = match place {
            Where::Scratch => self.scratch.bytes.get(from..from + len)?,
            _ => &[],
        };
        let mut scan = Scan::new(reading, whole, words);
        let read = scan.run((*root)?);
        let (merged, is_cut) = (scan.merged, scan.is_cut);
        self.is_cut |= is_cut;
        if !merged.is_empty() {
            settle(reading, words, &merged, &mut self.scratch.bytes);
        }
        read.ok()?;
        let at = slot.at as usize;
        let (tag, value) = (*words.get(at)?, *words.get(at + 1)?);
        if slot.is_list {
            let count = usize::try_from(value).unwrap_or(0).min(slot.items_max.into());
            let items = words.get_mut(at + 2..at + 2 + count)?;
            if tag == tag::VIEW {
                items
                    .iter_mut()
                    .for_each(|item| *item = part(&mut self.scratch.bytes, from, *item, slot.is_lossy));
            }
            return Some(slice_word(base + at + 2, count, false));
        }
        self.scratch.words.truncate(base);
        match tag {
            tag::ABSENT => None,
            tag::VIEW => Some(part(&mut self.scratch.bytes, from, value, slot.is_lossy)),
            _ => Some(value),
        }
    }

    /// The last of a list of a map's entries that has this key. They have been read before, as all of it.
    pub(super) fn find_entry(&self, list: u64, key: u64, kind: Kind) -> Option<u64> {
        let text = if kind.is_scalar() { &[] } else { bytes_of(self.shared, &self.scratch, key) };
        let key = KeyRef::new(kind, key, text)?;
        let (mut place, mut found) = (0, None);
        while let Some(entry) = self.next(list, &mut place) {
            if key.is_of(bytes_of(self.shared, &self.scratch, entry)) {
                found = Some(entry);
            }
        }
        found
    }

    /// What a write picks on its way; None if a map cannot have such a key.
    fn picked<'p>(
        &'p self,
        target: &Target,
        words: &[u64],
        out: &'p mut [Picked<'p>; PICKS_MAX],
    ) -> Option<&'p [Picked<'p>]> {
        let picks = target.steps.iter().filter_map(|step| step.pick);
        for ((slot, pick), word) in out.iter_mut().zip(picks).zip(words) {
            *slot = match pick {
                Pick::Item(_) => Picked::Item(*word),
                Pick::Entry(kind) if kind.is_scalar() => Picked::Entry(KeyRef::new(kind, *word, &[])?),
                Pick::Entry(_) => Picked::Entry(KeyRef::Text(bytes_of(self.shared, &self.scratch, *word))),
            };
        }
        out.get(..words.len())
    }

    /// Writes a field of the message at hand. None: go on.
    pub(super) fn set_field(&mut self, site: u16, value: Option<u64>, picks: &[u64]) -> Option<Verdict> {
        let write = self.shared.writes.get(usize::from(site))?;
        let target = write.target(self.call.text(Text::Service), self.call.text(Text::Method))?;
        let payload = match self.call.payload() {
            Some(payload) => payload,
            None if self.is_response() => return None,
            None => return Some(Verdict::Unreadable(Unreadable::NotOne)),
        };
        let mut picked = [Picked::Item(0); PICKS_MAX];
        let picked = self.picked(target, picks, &mut picked)?;
        let mut work = Work::take();
        if let (Some(value), true) = (value, target.is_raw) {
            work.part.extend_from_slice(bytes_of(self.shared, &self.scratch, value));
        } else if let Some(value) = value {
            self.encode(target, value, &mut work.part);
        }
        let rewritten = target.rewrite(payload, picked, &work.part, &mut work.whole);
        let is_set = rewritten != Ok(true) || self.call.set_payload(&work.whole);
        work.put_back();
        match rewritten {
            Ok(true) if is_set => self.decode(write.reading),
            Ok(true) => Some(Verdict::Unreadable(Unreadable::TooLarge)),
            Ok(false) => None,
            Err(Malformed) => Some(Verdict::Unreadable(Unreadable::Malformed)),
        }
    }

    /// Appends a field with this value, a list's items one after the other.
    fn encode(&self, target: &Target, value: u64, to: &mut Vec<u8>) {
        let bytes =
            |word| if target.kind.is_scalar() { &[] } else { bytes_of(self.shared, &self.scratch, word) };
        let mut at = 0;
        let mut items = std::iter::from_fn(|| self.next(value, &mut at));
        match (target.is_list, target.is_packed) {
            (false, _) => target.encode(value, bytes(value), to),
            (true, true) => target.encode_packed(items, to),
            (true, false) => items.by_ref().for_each(|item| target.encode(item, bytes(item), to)),
        }
    }

    /// A field of a message that is being made; a value that is absent is none.
    pub(super) fn message_field(&mut self, site: u16, value: [u64; 2]) {
        let Some(target) = self.shared.fields.get(usize::from(site)) else { return };
        let value = match value {
            [list, _] if target.is_list => list,
            [0, _] => return,
            [_, value] => value,
        };
        let mut work = Work::take();
        self.encode(target, value, &mut work.part);
        self.scratch.bytes.extend_from_slice(&work.part);
        work.put_back();
    }

    /// An entry of a map of it.
    pub(super) fn message_entry(&mut self, site: u16, key: u64, value: u64) {
        let site = usize::from(site);
        let Some([of, keys, values]) = self.shared.fields.get(site..).and_then(<[Target]>::first_chunk)
        else {
            return;
        };
        let mut work = Work::take();
        self.encode(keys, key, &mut work.part);
        self.encode(values, value, &mut work.part);
        of.encode(0, &work.part, &mut self.scratch.bytes);
        work.put_back();
    }

    /// The message is made.
    pub(super) fn message_end(&mut self) -> u64 {
        let at = self.text_at.min(self.scratch.bytes.len());
        self.is_cut |= self.scratch.bytes.len() > self.text_max;
        slice_word(at, self.scratch.bytes.len() - at, false)
    }

    /// Writes the message at hand. None: go on.
    pub(super) fn set_payload(&mut self, bytes: u64, site: Option<u16>) -> Option<Verdict> {
        if self.is_response() && self.call.payload().is_none() {
            return None;
        }
        if !self.call.set_payload(bytes_of(self.shared, &self.scratch, bytes)) {
            return Some(Verdict::Unreadable(Unreadable::TooLarge));
        }
        self.decode(site?)
    }

    /// The first value of a header whose name ends in `-bin`; one that is no base64 is none.
    pub(super) fn metadata_bytes(&mut self, side: abi::Side, key: u64) -> Option<u64> {
        let key = text_of(self.shared, &self.scratch, key);
        let value = self.call.metadata(side, key, 0)?;
        let first = value.split(|b| *b == b',').next().unwrap_or(value);
        decoded(first, &mut self.scratch.bytes, self.text_max, &mut self.is_cut)
    }

    /// Every value of such a header, also of those that one line holds with commas between them.
    pub(super) fn metadata_bytes_all(&mut self, side: abi::Side, key: u64, max: u16) -> u64 {
        let mut list = slice_word(self.scratch.words.len(), 0, false);
        let mut count = 0;
        for nth in 0.. {
            let key = text_of(self.shared, &self.scratch, key);
            let Some(value) = self.call.metadata(side, key, nth) else { break };
            for one in value.split(|b| *b == b',') {
                let Some(word) = decoded(one, &mut self.scratch.bytes, self.text_max, &mut self.is_cut)
                else {
                    continue;
                };
                if count == max {
                    self.is_cut = true;
                    return list;
                }
                count += 1;
                self.scratch.words.push(word);
                list = slice_word(self.scratch.words.len() - usize::from(count), count.into(), false);
            }
        }
        list
    }

    /// Counts the messages of one direction in a word of the call.
    pub(super) fn count_message(&mut self, word: u16) {
        if let Some(count) = self.call.words().get_mut(usize::from(word)) {
            *count = count.wrapping_add(1);
            self.message = (mix(*count, 1) >> 32) as u32;
        }
    }

    /// Keeps what is in a slot for `response`: a word of the call says whether it is there, the next what.
    /// Texts are kept as long as there is room.
    pub(super) fn keep(&mut self, site: u16, slot: u16, word: u16, is_text: bool) {
        let value = if is_text && !self.has_room(site, slot) { None } else { self.slot(site, slot) };
        let kept = self.scratch.bytes.len() as u64;
        let words = self.call.words();
        if let Some([there, held]) = words.get_mut(usize::from(word)..).and_then(<[u64]>::first_chunk_mut) {
            (*there, *held) = (u64::from(value.is_some()), value.unwrap_or(0));
        }
        if let (true, Some(first)) = (is_text, words.first_mut()) {
            *first = kept;
        }
    }

    /// The same of a list, if there is room.
    pub(super) fn keep_list(&mut self, word: u16, list: u64) {
        let has_room = self.scratch.bytes.len() + 8 * self.len(list) <= KEPT_BYTES_MAX;
        let value = has_room.then(|| self.pack(list));
        let kept = self.scratch.bytes.len() as u64;
        let words = self.call.words();
        if let Some([there, held]) = words.get_mut(usize::from(word)..).and_then(<[u64]>::first_chunk_mut) {
            (*there, *held) = (u64::from(has_room), value.unwrap_or(0));
        }
        if let Some(first) = words.first_mut() {
            *first = kept;
        }
    }

    /// Copies a part of the message at hand to the scratch.
    fn copy(&mut self, view: u64, is_lossy: bool) -> u64 {
        let part = self.call.payload().and_then(|p| p.get(view_parts(view))).unwrap_or(&[]);
        let bytes = &mut self.scratch.bytes;
        let at = bytes.len();
        if is_lossy {
            bytes.extend_from_slice(String::from_utf8_lossy(part).as_bytes());
        } else {
            bytes.extend_from_slice(part);
        }
        let len = bytes.len() - at;
        self.text_max += len;
        slice_word(at, len, false)
    }

    fn has_room(&self, site: u16, slot: u16) -> bool {
        let at = self.reading(site).and_then(|r| r.slots.get(usize::from(slot))).map_or(0, |s| s.at as usize);
        match self.scratch.words.get(at..).and_then(<[u64]>::first_chunk) {
            Some([tag::VIEW, view]) => self.scratch.bytes.len() + view_parts(*view).len() <= KEPT_BYTES_MAX,
            _ => true,
        }
    }
}

/// Base64 as bytes of the scratch.
fn decoded(value: &[u8], to: &mut Vec<u8>, text_max: usize, is_cut: &mut bool) -> Option<u64> {
    let at = to.len();
    if at + value.len() > text_max {
        *is_cut = true;
        return None;
    }
    if wire::grpc::decode_bin(value, to) {
        return Some(slice_word(at, to.len() - at, false));
    }
    to.truncate(at);
    None
}

/// A part of a message that stands in the scratch from `from`: it stays where it is, if it can.
fn part(bytes: &mut Vec<u8>, from: usize, view: u64, is_lossy: bool) -> u64 {
    let place = view_parts(view);
    let place = from + place.start..from + place.end;
    match bytes.get(place.clone()).map(std::str::from_utf8) {
        Some(Err(_)) if is_lossy => {
            let text = String::from_utf8_lossy(bytes.get(place).unwrap_or(&[])).into_owned();
            bytes.extend_from_slice(text.as_bytes());
            slice_word(bytes.len() - text.len(), text.len(), false)
        }
        _ => slice_word(place.start, place.len(), false),
    }
}

/// Messages that came in several parts become bytes of the scratch.
fn settle(reading: &Reading, words: &mut [u64], merged: &[Vec<u8>], bytes: &mut Vec<u8>) {
    for slot in &reading.slots {
        if let Some([tag, value]) = words.get_mut(slot.at as usize..).and_then(<[u64]>::first_chunk_mut)
            && *tag == tag::MERGED
        {
            let joined = usize::try_from(*value).ok().and_then(|at| merged.get(at)).map_or(&[][..], |m| m);
            (*tag, *value) = (tag::READY, slice_word(bytes.len(), joined.len(), false));
            bytes.extend_from_slice(joined);
        }
    }
}
