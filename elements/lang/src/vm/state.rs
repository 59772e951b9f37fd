//! What the instructions of state mean: scalars, cells, maps.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use abi::{EndpointIdx, Note, Num};

use super::arith;
use super::code::{
    CellKind, CellOp, CellPlace, EMPTY_TEXT, KeyKind, MapSite, Op, Reg, ServiceText, ValueKind, slice_word,
};
use super::exec::{Flow, Run};
use super::text::xxh64;
use super::texts::bytes_of;
use crate::state::scalars::byte_set;
use crate::state::text;
use crate::state::words::Words;
use crate::state::{Found, Item, Map, Place, bucket};

/// Times an atomic step is tried before its writes are dropped.
const TRIES_MAX: u8 = 8;

/// An atomic step under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Atomic {
    /// Draws before it: a further try draws the same numbers.
    draws: u32,
    tries: u8,
}

fn get(regs: &[u64], reg: Reg) -> u64 {
    regs.get(usize::from(reg)).copied().unwrap_or(0)
}

fn put(regs: &mut [u64], reg: Reg, value: u64) {
    if let Some(slot) = regs.get_mut(usize::from(reg)) {
        *slot = value;
    }
}

fn pair(regs: &[u64], reg: Reg) -> [u64; 2] {
    [get(regs, reg), get(regs, reg.wrapping_add(1))]
}

fn put_pair(regs: &mut [u64], reg: Reg, value: [u64; 2]) {
    put(regs, reg, value[0]);
    put(regs, reg.wrapping_add(1), value[1]);
}

/// Where and when an operation of a cell happens.
#[derive(Clone, Copy)]
struct At {
    now_ns: u64,
    /// The stripe that is this shard's own, and how many there are.
    stripe: usize,
    stripes: usize,
}

/// An operation of a cell; what it gives.
fn cell_op(words: &(impl Words + ?Sized), kind: CellKind, op: CellOp, a: u64, at: At) -> u64 {
    let x = f64::from_bits(a);
    match (kind, op) {
        (CellKind::Bucket(b), CellOp::Take) => u64::from(b.take(words, at.now_ns, x)),
        (CellKind::Bucket(b), CellOp::Reserve) => b.reserve(words, at.now_ns, x),
        (CellKind::Bucket(b), _) => {
            b.drain(words, at.now_ns);
            0
        }
        (CellKind::Counter, CellOp::Value) => bucket::value(words),
        (CellKind::Counter, op) => {
            let n = if op == CellOp::AddInt { a.cast_signed() } else { i64::try_from(a).unwrap_or(i64::MAX) };
            bucket::add(words, n);
            0
        }
        (CellKind::Window(w), CellOp::Add) => {
            w.add(words, at.stripe, at.now_ns, x);
            0
        }
        (CellKind::Window(w), CellOp::Quantile) => w.quantile(words, at.stripes, at.now_ns, x).to_bits(),
        (CellKind::Window(w), CellOp::Clear) => {
            w.clear(words);
            0
        }
        (CellKind::Window(w), op) => {
            let sums = w.sums(words, at.stripes, at.now_ns);
            match op {
                CellOp::Count => sums.count,
                CellOp::Sum => sums.sum.to_bits(),
                CellOp::Max => sums.max.to_bits(),
                _ => sums.mean().to_bits(),
            }
        }
    }
}

/// A map and the key at hand.
struct Keyed<'s> {
    map: &'s Map,
    site: MapSite,
    hash: u64,
    now_ns: u64,
}

impl Keyed<'_> {
    fn find(&self) -> Option<&[AtomicU64]> {
        let own = self.map.find(self.hash, self.now_ns, self.site.ttl_ns);
        Some(self.map.value(own.or_else(|| self.map.find_shared())?))
    }

    fn enter(&self, fresh: impl Fn(&[AtomicU64])) -> Found {
        self.map.enter(self.hash, self.now_ns, self.site.ttl_ns, fresh)
    }
}

impl Run<'_> {
    /// One instruction of state.
    pub(super) fn state_step(&mut self, op: &Op, regs: &mut [u64]) -> Flow {
        match *op {
            Op::LoadScalars { d, at } => {
                let words = match self.place(at) {
                    Some(Place::Scalars(scalars)) => scalars.load(),
                    _ => [0; 2],
                };
                put_pair(regs, d, words);
            }
            Op::StepStart => self.atomic = Atomic { draws: self.draws.count, tries: 0 },
            Op::SwapScalars { old, new, at, to } if !self.swap(at, pair(regs, old), pair(regs, new)) => {
                return Flow::Jump(to);
            }
            Op::Byte { d, a, shift } => put(regs, d, (get(regs, a) >> shift) & 0xff),
            Op::SetByte { d, a, shift } => put(regs, d, byte_set(get(regs, d), get(regs, a), shift)),
            Op::LoadState { d, at, word } => {
                let value = self.words(at).map_or(0, |words| words.load(usize::from(word)));
                put(regs, d, value);
            }
            Op::StoreState { a, at, word } => {
                if let Some(words) = self.words(at) {
                    words.store(usize::from(word), get(regs, a));
                }
            }
            Op::Cell { op, d, a, site } => {
                let a = if op.takes() { get(regs, a) } else { 0 };
                let value = self.cell(op, a, site);
                if op.gives() {
                    put(regs, d, value);
                }
            }
            Op::MapCell { op, d, a, key, site } => {
                let a = if op.takes() { get(regs, a) } else { 0 };
                let value = self.map_cell(op, a, get(regs, key), site);
                if op.gives() {
                    put(regs, d, value);
                }
            }
            Op::MapGet { d, key, site } => {
                let value = self.map_get(get(regs, key), site);
                put_pair(regs, d, [u64::from(value.is_some()), value.unwrap_or(0)]);
            }
            Op::MapSet { key, a, site } => self.map_set(get(regs, key), pair(regs, a), site),
            Op::MapChange { op, key, a, site } => {
                let (key, a) = (get(regs, key), get(regs, a));
                self.map_change(key, site, |old| arith::bin(op, old, a));
            }
            _ => {}
        }
        Flow::Next
    }

    fn item(&self, at: u16) -> Option<&Item> {
        self.state.item(at)
    }

    fn place(&self, at: u16) -> Option<&Place> {
        self.item(at)?.place(self.call.shard())
    }

    fn words(&self, at: u16) -> Option<&[AtomicU64]> {
        match self.place(at)? {
            Place::Words(words) => Some(words),
            _ => None,
        }
    }

    fn cell_at(&self, is_striped: bool) -> At {
        let now_ns = self.call.num(Num::NowNs);
        if !is_striped {
            return At { now_ns, stripe: 0, stripes: 1 };
        }
        let stripes = self.state.shards();
        At { now_ns, stripe: usize::from(self.call.shard()).min(stripes - 1), stripes }
    }

    /// Ends an atomic step. False: it is to be tried again.
    fn swap(&mut self, at: u16, old: [u64; 2], new: [u64; 2]) -> bool {
        let is_done = old == new
            || match self.place(at) {
                Some(Place::Scalars(scalars)) => scalars.swap(old, new),
                _ => true,
            };
        if is_done {
            return true;
        }
        self.atomic.tries += 1;
        if self.atomic.tries >= TRIES_MAX {
            self.call.note(Note::StateConflict);
            return true;
        }
        self.draws.count = self.atomic.draws;
        false
    }

    fn cell(&mut self, op: CellOp, a: u64, site: u16) -> u64 {
        let Some(site) = self.shared.cells.get(usize::from(site)) else { return 0 };
        match site.place {
            CellPlace::Call { word, words } => {
                let at = self.cell_at(false);
                let range = usize::from(word)..usize::from(word) + usize::from(words);
                let Some(words) = self.call.words().get_mut(range) else { return 0 };
                cell_op(Cell::from_mut(words).as_slice_of_cells(), site.kind, op, a, at)
            }
            CellPlace::State(place) => {
                let at = self.cell_at(self.item(place).is_some_and(Item::is_striped));
                self.words(place).map_or(0, |words| cell_op(words, site.kind, op, a, at))
            }
        }
    }

    /// The map of a site, with the hash of a key.
    fn keyed(&self, key: u64, site: u16) -> Option<Keyed<'_>> {
        let site = *self.shared.maps.get(usize::from(site))?;
        let item = self.item(site.at)?;
        let Place::Map(map) = item.place(self.call.shard())? else { return None };
        let hash = match site.key {
            KeyKind::Text => item.hash(self.text(key).as_bytes()),
            KeyKind::Word => item.hash(&key.to_le_bytes()),
            KeyKind::Endpoint => item.hash(&self.endpoint_hash(key)?.to_le_bytes()),
            KeyKind::Service => {
                item.hash(self.shared.services.get(usize::try_from(key).ok()?)?.name.as_bytes())
            }
        };
        Some(Keyed { map, site, hash, now_ns: self.call.num(Num::NowNs) })
    }

    fn endpoint_hash(&self, endpoint: u64) -> Option<u64> {
        let at = EndpointIdx(u16::try_from(endpoint).ok()?);
        self.call.endpoint_stat(at).map(|stat| stat.hash)
    }

    fn map_cell(&mut self, op: CellOp, a: u64, key: u64, site: u16) -> u64 {
        let Some(keyed) = self.keyed(key, site) else { return 0 };
        let ValueKind::Cell(kind) = keyed.site.value else { return 0 };
        let at = self.cell_at(self.item(keyed.site.at).is_some_and(Item::is_striped));
        let fresh = |words: &[AtomicU64]| match kind {
            CellKind::Window(window) => window.clear(words),
            _ => words.store(0, 0),
        };
        let found = keyed.enter(fresh);
        let value = match found {
            Found::Own(slot) | Found::Shared(slot) => cell_op(keyed.map.value(slot), kind, op, a, at),
            // As if it were made now, and forgotten: what a full map refuses has no limit of its own.
            Found::Nowhere => match kind {
                CellKind::Window(_) => 0,
                _ => cell_op([Cell::new(0)].as_slice(), kind, op, a, at),
            },
        };
        self.note_full(found);
        value
    }

    /// A text of `state call`.
    pub(super) fn load_text(&mut self, word: u16) -> u64 {
        let range = usize::from(word)..usize::from(word) + text::words(text::CALL_BYTES_MAX);
        let at = self.scratch.bytes.len();
        if at + text::CALL_BYTES_MAX > self.text_max {
            self.is_cut = true;
            return EMPTY_TEXT;
        }
        if let Some(words) = self.call.words().get_mut(range) {
            text::get(Cell::from_mut(words).as_slice_of_cells(), &mut self.scratch.bytes);
        }
        slice_word(at, self.scratch.bytes.len() - at, false)
    }

    pub(super) fn store_text(&mut self, word: u16, value: u64) {
        let range = usize::from(word)..usize::from(word) + text::words(text::CALL_BYTES_MAX);
        let bytes = bytes_of(self.shared, &self.scratch, value);
        if let Some(words) = self.call.words().get_mut(range) {
            text::put(Cell::from_mut(words).as_slice_of_cells(), bytes, text::CALL_BYTES_MAX);
        }
    }

    fn note_full(&mut self, found: Found) {
        match found {
            Found::Own(_) => {}
            Found::Shared(_) => self.call.note(Note::MapShared),
            Found::Nowhere => self.call.note(Note::MapFull),
        }
    }

    fn map_get(&mut self, key: u64, site: u16) -> Option<u64> {
        let keyed = self.keyed(key, site)?;
        let words = keyed.find()?;
        let value = words.load(0);
        match keyed.site.value {
            ValueKind::Endpoint => self.call.endpoint_by_hash(value).map(|e| u64::from(e.0)),
            ValueKind::Service => {
                let is_it = |s: &ServiceText| xxh64(s.name.as_bytes()) == value;
                self.shared.services.iter().position(is_it).map(|at| at as u64)
            }
            ValueKind::Text => {
                let mut found = Vec::with_capacity(text::MAP_BYTES_MAX + 8);
                let is_whole = text::get(words, &mut found);
                let at = self.scratch.bytes.len();
                if at + found.len() > self.text_max {
                    self.is_cut = true;
                    return None;
                }
                self.scratch.bytes.extend_from_slice(&found);
                is_whole.then(|| slice_word(at, found.len(), false))
            }
            _ => Some(value),
        }
    }

    fn map_set(&mut self, key: u64, value: [u64; 2], site: u16) {
        let Some(keyed) = self.keyed(key, site) else { return };
        let value = match keyed.site.value {
            _ if value[0] == 0 => None,
            ValueKind::Endpoint => self.endpoint_hash(value[1]),
            ValueKind::Service => {
                let at = usize::try_from(value[1]).unwrap_or(usize::MAX);
                self.shared.services.get(at).map(|s| xxh64(s.name.as_bytes()))
            }
            _ => Some(value[1]),
        };
        let Some(value) = value else {
            keyed.map.remove(keyed.hash);
            return;
        };
        let is_text = keyed.site.value == ValueKind::Text;
        let found = keyed.enter(|words| if is_text { text::clear(words) } else { words.store(0, value) });
        if let Found::Own(slot) | Found::Shared(slot) = found {
            let words = keyed.map.value(slot);
            if is_text {
                text::put(words, bytes_of(self.shared, &self.scratch, value), text::MAP_BYTES_MAX);
            } else {
                words.store(0, value);
            }
        }
        self.note_full(found);
    }

    fn map_change(&mut self, key: u64, site: u16, change: impl Fn(u64) -> u64) {
        let Some(keyed) = self.keyed(key, site) else { return };
        let found = keyed.enter(|words| words.store(0, 0));
        if let Found::Own(slot) | Found::Shared(slot) = found {
            keyed.map.value(slot).update(0, |old| Some(change(old)));
        }
        self.note_full(found);
    }
}
