//! Paths into messages to slots, and the tree of types that one pass over a message follows.

use std::collections::BTreeMap;
use std::rc::Rc;

use prost_reflect::{FieldDescriptor, Kind as ProtoKind, MessageDescriptor, Syntax};

use crate::diag::Diagnostic;
use crate::hir::{Const, End, HExpr, Leg, Path, Root, Written};
use crate::schema::{Direction, Method};
use crate::ty::Ty;
use crate::vm::code::{EMPTY_TEXT, Op, Reg};
use crate::vm::message::{Act, Field, Key, Kind, Node, Reading, Slot};
use crate::vm::rewrite::{Pick, Step, Target, Write};

use super::build::{self, Builder, Val};

/// Message types of one reading.
const NODES_MAX: usize = 20_000;

/// What one entry reads of its message, while its code is made.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Which reading, once one has begun.
    pub(super) site: Option<u16>,
    /// Which message of the methods.
    direction: Option<Direction>,
    tree: Tree,
    /// Slots by path.
    known: Vec<(String, Option<Key>, u16)>,
    /// A path that must be there was read.
    is_strict: bool,
    /// The message is written.
    is_written: bool,
    /// It is read as a value: all of it.
    is_whole: bool,
    /// Readings of values, by message type and path.
    inside: Vec<(String, u16)>,
}

/// Of which methods an entry's message is read.
#[derive(Debug)]
pub(super) enum Held {
    No,
    All,
    /// Service and name of each.
    Of(Vec<(String, String)>),
}

impl Held {
    /// Of all, if something else reads it whole.
    pub(super) fn or_all(self, is_whole: bool) -> Self {
        if is_whole { Self::All } else { self }
    }

    /// Whether it is read, and where only of some, of which.
    pub(super) fn parts(self) -> (bool, Vec<(String, String)>) {
        match self {
            Self::No => (false, Vec::new()),
            Self::All => (true, Vec::new()),
            Self::Of(methods) => (true, methods),
        }
    }
}

/// What happens at a field, in a message type at its place.
#[derive(Debug, Default)]
struct Place {
    slots: Vec<u16>,
    below: Option<usize>,
    entries: Vec<(Key, u16, usize)>,
}

/// A message type at its place.
#[derive(Debug)]
struct TreeNode {
    message: MessageDescriptor,
    places: BTreeMap<u32, Place>,
    defaults: Vec<(u16, u64)>,
}

/// Everything one pass looks for.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<TreeNode>,
    roots: BTreeMap<(String, String), Option<usize>>,
    slots: Vec<Slot>,
    words: u32,
}

impl Tree {
    fn node(&mut self, message: &MessageDescriptor) -> usize {
        self.nodes.push(TreeNode { message: message.clone(), places: BTreeMap::new(), defaults: Vec::new() });
        self.nodes.len() - 1
    }

    /// The node that the message of a method begins with.
    fn root(&mut self, method: &Method, direction: Direction) -> usize {
        let name = (method.service.clone(), method.name.clone());
        if let Some(Some(root)) = self.roots.get(&name) {
            return *root;
        }
        let root = self.node(method.message(direction));
        self.roots.insert(name, Some(root));
        root
    }

    fn slot(&mut self, end: &End, items_max: u16) -> u16 {
        let field = match end {
            End::Field(field) => Some(field),
            _ => None,
        };
        // The entries of a map that is looked through are a list too.
        let is_list = field.is_some_and(|f| f.is_list() || f.is_map());
        let is_lossy = field.is_some_and(|f| f.kind() == ProtoKind::String && !is_checked(f));
        self.slots.push(Slot { at: 0, is_list, items_max, is_lossy });
        u16::try_from(self.slots.len() - 1).unwrap_or(u16::MAX)
    }

    /// The slot takes what the path leads to, from this node.
    fn insert(&mut self, mut node: usize, steps: &[Rc<str>], key: Option<&Key>, slot: u16) {
        for (at, step) in steps.iter().enumerate() {
            let Some(here) = self.nodes.get(node) else { return };
            let Some(field) = here.message.get_field_by_name(step) else { return };
            if at + 1 < steps.len() {
                let below = here.places.get(&field.number()).and_then(|p| p.below);
                node = match (below, field.kind()) {
                    (Some(below), _) => below,
                    (None, ProtoKind::Message(message)) => {
                        let below = self.node(&message);
                        self.at(node, &field, |place| place.below = Some(below));
                        below
                    }
                    _ => return,
                };
                continue;
            }
            match (key, field.kind()) {
                (Some(key), ProtoKind::Message(entry)) => {
                    let below = self.node(&entry);
                    let value = entry.map_entry_value_field();
                    self.at(below, &value, |place| place.slots.push(slot));
                    self.give(below, slot, Some(default_word(&value).unwrap_or(EMPTY_TEXT)));
                    self.at(node, &field, |place| place.entries.push((key.clone(), slot, below)));
                }
                _ => {
                    self.at(node, &field, |place| place.slots.push(slot));
                    if !field.supports_presence() && !field.is_list() {
                        self.give(node, slot, default_word(&field));
                    }
                }
            }
        }
    }

    fn at(&mut self, node: usize, field: &FieldDescriptor, change: impl FnOnce(&mut Place)) {
        if let Some(node) = self.nodes.get_mut(node) {
            change(node.places.entry(field.number()).or_default());
        }
    }

    fn give(&mut self, node: usize, slot: u16, word: Option<u64>) {
        if let (Some(node), Some(word)) = (self.nodes.get_mut(node), word) {
            node.defaults.push((slot, word));
        }
    }

    /// Every slot at or below a place.
    fn slots_below(&self, place: &Place, out: &mut Vec<u16>) {
        out.extend_from_slice(&place.slots);
        out.extend(place.entries.iter().map(|(_, slot, _)| *slot));
        if let Some(node) = place.below.and_then(|at| self.nodes.get(at)) {
            node.places.values().for_each(|p| self.slots_below(p, out));
        }
    }

    /// Lays the slots out: their sizes are known.
    fn finish(mut self, is_exact: bool, is_strict: bool) -> Option<Reading> {
        for slot in &mut self.slots {
            slot.at = self.words;
            self.words += if slot.is_list { 2 + u32::from(slot.items_max) } else { 2 };
        }
        let mut plain = Plain { known: BTreeMap::new(), open: Vec::new(), next: self.nodes.len() };
        let mut nodes: Vec<Node> = self.nodes.iter().map(|n| self.lower(n, &mut plain)).collect();
        while let Some((at, message)) = plain.open.pop() {
            let none = TreeNode { message, places: BTreeMap::new(), defaults: Vec::new() };
            let node = self.lower(&none, &mut plain);
            nodes.resize_with(nodes.len().max(at + 1), Node::default);
            if let Some(slot) = nodes.get_mut(at) {
                *slot = node;
            }
            if nodes.len() > NODES_MAX {
                return None;
            }
        }
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let roots = self.roots.into_iter().map(|((s, m), at)| (s, m, at.map(number))).collect();
        let (slots, words) = (self.slots, self.words);
        Some(Reading { roots, is_exact, is_strict, nodes, slots, words, is_written: false })
    }

    fn lower(&self, node: &TreeNode, plain: &mut Plain) -> Node {
        let at = |slot: u16| self.slots.get(usize::from(slot)).map_or(0, |s| s.at);
        let items_max = |slot: u16| self.slots.get(usize::from(slot)).map_or(0, |s| s.items_max);
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let fields = node.message.fields().map(|field| {
            let place = node.places.get(&field.number());
            let mut acts = self.resets(node, &field);
            for slot in place.map_or(&[][..], |p| &p.slots) {
                acts.push(match field.kind() {
                    _ if field.is_list() || field.is_map() => Act::Push(at(*slot), items_max(*slot)),
                    ProtoKind::Message(_) => Act::Join(at(*slot)),
                    _ => Act::Set(at(*slot)),
                });
            }
            for (key, slot, below) in place.map_or(&[][..], |p| &p.entries) {
                acts.push(Act::Entry { key: key.clone(), node: number(*below), slot: *slot });
            }
            let inner = match (place.and_then(|p| p.below), field.kind()) {
                (Some(below), _) => number(below),
                (None, ProtoKind::Message(message)) => plain.node(&message),
                _ => 0,
            };
            let repeated = field.is_list() || field.is_map();
            Field { number: field.number(), kind: kind_of(&field), repeated, node: inner, acts }
        });
        let defaults = node.defaults.iter().map(|(slot, value)| (at(*slot), *value)).collect();
        Node::new(fields.collect(), defaults)
    }

    /// What the other members of a field's oneof have is gone when it comes.
    fn resets(&self, node: &TreeNode, field: &FieldDescriptor) -> Vec<Act> {
        let Some(oneof) = field.containing_oneof().filter(|o| !o.is_synthetic()) else { return Vec::new() };
        let mut slots = Vec::new();
        for other in oneof.fields().filter(|f| f != field) {
            if let Some(place) = node.places.get(&other.number()) {
                self.slots_below(place, &mut slots);
            }
        }
        slots.into_iter().map(Act::Reset).collect()
    }
}

/// Message types of which nothing is read, each once.
struct Plain {
    known: BTreeMap<String, u16>,
    open: Vec<(usize, MessageDescriptor)>,
    next: usize,
}

impl Plain {
    fn node(&mut self, message: &MessageDescriptor) -> u16 {
        if let Some(at) = self.known.get(message.full_name()) {
            return *at;
        }
        let at = u16::try_from(self.next).unwrap_or(u16::MAX);
        self.known.insert(message.full_name().to_owned(), at);
        self.open.push((self.next, message.clone()));
        self.next += 1;
        at
    }
}

/// Strings of proto3 must be UTF-8; those of proto2 need not be.
fn is_checked(field: &FieldDescriptor) -> bool {
    field.parent_file().syntax() != Syntax::Proto2
}

pub(super) fn kind_of(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        ProtoKind::Double => Kind::Double,
        ProtoKind::Float => Kind::Float,
        ProtoKind::Int32 | ProtoKind::Enum(_) => Kind::Int32,
        ProtoKind::Int64 => Kind::Int64,
        ProtoKind::Uint32 => Kind::Uint32,
        ProtoKind::Uint64 => Kind::Uint64,
        ProtoKind::Sint32 => Kind::Sint32,
        ProtoKind::Sint64 => Kind::Sint64,
        ProtoKind::Fixed32 => Kind::Fixed32,
        ProtoKind::Fixed64 => Kind::Fixed64,
        ProtoKind::Sfixed32 => Kind::Sfixed32,
        ProtoKind::Sfixed64 => Kind::Sfixed64,
        ProtoKind::Bool => Kind::Bool,
        ProtoKind::String if is_checked(field) => Kind::String,
        ProtoKind::String | ProtoKind::Bytes => Kind::Bytes,
        ProtoKind::Message(_) if field.is_group() => Kind::Group,
        ProtoKind::Message(_) => Kind::Message,
    }
}

/// The word of a field that is implicitly there; None for messages.
fn default_word(field: &FieldDescriptor) -> Option<u64> {
    match kind_of(field) {
        Kind::Message | Kind::Group => None,
        Kind::String | Kind::Bytes => Some(EMPTY_TEXT),
        // All other defaults that are implicit are zero; an open enumeration's first number is.
        _ => Some(0),
    }
}

impl Builder<'_> {
    /// Begins an entry that reads its message: the first thing it does.
    pub(super) fn read_message(&mut self, direction: Direction) {
        let site = u16::try_from(self.shared.readings.len()).unwrap_or(u16::MAX);
        self.shared.readings.push(Reading::default());
        self.messages.site = Some(site);
        self.messages.direction = Some(direction);
        self.emit(Op::Decode { site });
    }

    /// Ends it: what was asked for decides what is read, and of which methods.
    pub(super) fn end_message(&mut self) -> Held {
        let messages = std::mem::take(&mut self.messages);
        let Some(site) = messages.site else { return Held::No };
        if messages.known.is_empty() && !messages.is_written && !messages.is_whole {
            if let Some(first) = self.code.ops.first_mut() {
                *first = Op::Jump { to: 1 };
            }
            return Held::No;
        }
        let mut tree = messages.tree;
        let held = if messages.is_strict {
            Held::All
        } else {
            // Nothing waits for a message of which nothing is read: it may be one of many.
            match tree.roots.keys().cloned().collect::<Vec<_>>() {
                none if none.is_empty() => Held::No,
                some => Held::Of(some),
            }
        };
        for method in &self.coverage.methods {
            tree.roots.entry((method.service.clone(), method.name.clone())).or_insert(None);
        }
        let mut reading = tree.finish(self.coverage.is_exact, messages.is_strict);
        if let Some(reading) = &mut reading {
            reading.is_written = messages.is_written;
        }
        self.set_reading(site, reading);
        held
    }

    fn set_reading(&mut self, site: u16, reading: Option<Reading>) {
        match (self.shared.readings.get_mut(usize::from(site)), reading) {
            (Some(slot), Some(reading)) => *slot = reading,
            _ => self
                .errors
                .push(Diagnostic::error(self.link.span, format!("more than {NODES_MAX} message types"))),
        }
    }

    /// The message at hand is read as a value: none is let through that cannot be.
    pub(super) fn read_whole(&mut self) {
        let Some(direction) = self.messages.direction else { return };
        (self.messages.is_strict, self.messages.is_whole) = (true, true);
        for method in &self.coverage.methods {
            self.messages.tree.root(method, direction);
        }
    }

    /// The value that a path leads to.
    pub(super) fn payload(&mut self, path: &Path, e: &HExpr) -> Val {
        if e.ty.is_nothing() {
            return Val::Const(Const::None);
        }
        if matches!(e.ty, Ty::Map(..)) {
            return self.whole_map(path, e);
        }
        if let Some(key) = self.open_key(path) {
            return self.entry_of(path, key, e);
        }
        match &path.root {
            Root::Value(of) => self.inside(of, path, e),
            Root::Kept => {
                let name = path.name();
                let slot = self.kept.iter().find(|(known, _)| *known == name).map(|(_, slot)| *slot);
                let Some(slot) = slot else { return Val::Unit };
                let value = self.load_slot(slot);
                self.unpacked(value, &e.ty)
            }
            Root::Call(_) => {
                let Some((site, slot)) = self.path_slot(path) else { return Val::Unit };
                if matches!(e.ty, Ty::List(_)) {
                    return self.one(|d| Op::SlotList { d, site, slot });
                }
                present(self.two(|d| Op::Slot { d, site, slot }), &e.ty)
            }
        }
    }

    /// The key of a path into a map, if it is known no sooner than the call is there.
    fn open_key<'p>(&self, path: &'p Path) -> Option<&'p HExpr> {
        path.key.as_ref().filter(|key| self.fold(key).is_none())
    }

    /// What a map has for a key that is not known yet: all its entries are read, and looked through.
    fn entry_of(&mut self, path: &Path, key: &HExpr, e: &HExpr) -> Val {
        if matches!(path.root, Root::Kept) {
            self.errors.push(
                Diagnostic::error(key.span, "this key is not known when the request leaves")
                    .label("expected a constant")
                    .help("read it in `request`, and keep it: `state call x: string? = …`"),
            );
            return Val::Unit;
        }
        let Some((list, entry)) = self.entries_of(path, e) else { return Val::Unit };
        let (kind, key) = (kinds(&entry).0, self.scalar(key));
        let found = self.two(|d| Op::FindEntry { d, list, key, kind });
        let value = entry.map_entry_value_field();
        let value = End::Field(value);
        let site = self.reading_inside(&entry, &["value".into()], None, &value, 0);
        let (Val::Opt(tag), (d, result)) = (found, self.place_for(&e.ty)) else { return Val::Unit };
        self.load(d, 0);
        let absent = self.emit(Op::JumpUnless { a: tag, to: 0 });
        self.emit(Op::Inside { d, a: tag.wrapping_add(1), site });
        if !kinds(&entry).1.is_scalar() {
            // An entry without a value has an empty one.
            let there = self.emit(Op::JumpIf { a: d, to: 0 });
            self.load(d, 1);
            self.load(d.wrapping_add(1), EMPTY_TEXT);
            self.land(&[there]);
        }
        self.land(&[absent]);
        result
    }

    /// All entries of a map as messages, and the type of these.
    fn entries_of(&mut self, path: &Path, e: &HExpr) -> Option<(Reg, MessageDescriptor)> {
        let mut maps = path.maps().map(|(_, entry)| entry);
        let entry = maps.next()?;
        if maps.any(|other| kinds(&other) != kinds(&entry)) {
            self.errors.push(
                Diagnostic::error(e.span, "this map is laid out another way in each method")
                    .label("expected a constant key")
                    .help("give the methods rules of their own"),
            );
            return None;
        }
        let whole = Path { key: None, ..path.clone() };
        let entries = HExpr { ty: Ty::List(Box::new(Ty::Message(entry.clone()))), ..e.clone() };
        let list = match &path.root {
            Root::Value(of) => self.inside(of, &whole, &entries),
            _ => {
                let (site, slot) = self.path_slot(&whole)?;
                self.one(|d| Op::SlotList { d, site, slot })
            }
        };
        Some((self.reg(&list), entry))
    }

    /// A map as a value: of each key the last entry, keys and values by turns.
    fn whole_map(&mut self, path: &Path, e: &HExpr) -> Val {
        let Some((list, entry)) = self.entries_of(path, e) else { return Val::Unit };
        let (map, i, item) = (self.alloc(1), self.alloc(1), self.alloc(1));
        self.emit(Op::List { d: map });
        self.load(i, 0);
        let mark = self.next;
        let back = self.here();
        let done = self.emit(Op::Next { d: item, list, i, to: 0 });
        let key = self.entry_part(&entry, &entry.map_entry_key_field(), item);
        let a = self.entry_part(&entry, &entry.map_entry_value_field(), item);
        self.emit(Op::PutPair { map, key, a, of_texts: !kinds(&entry).0.is_scalar() });
        self.emit(Op::Jump { to: back });
        self.land(&[done]);
        self.next = mark;
        Val::Reg(map)
    }

    /// The key or the value of an entry, which is its default where it was left out.
    fn entry_part(&mut self, entry: &MessageDescriptor, field: &FieldDescriptor, item: Reg) -> Reg {
        let site = self.reading_inside(entry, &[field.name().into()], None, &End::Field(field.clone()), 0);
        let d = self.alloc(2);
        let part = d.wrapping_add(1);
        self.emit(Op::Inside { d, a: item, site });
        let there = self.emit(Op::JumpIf { a: d, to: 0 });
        self.load(part, if kind_of(field).is_scalar() { 0 } else { EMPTY_TEXT });
        self.land(&[there]);
        part
    }

    /// Writes a part of the message at hand. The whole message is read before, and anew after.
    pub(super) fn write_field(&mut self, written: &Written, ty: &Ty, value: &Val) {
        let (Some(reading), Some(direction)) = (self.messages.site, self.messages.direction) else { return };
        if ty.is_nothing() {
            return;
        }
        let path = &written.path;
        self.messages.is_strict |= !path.is_lenient;
        self.messages.is_written = true;
        let mut methods = Vec::new();
        for (method, end) in &path.ends {
            let (Some(method), false) = (method, matches!(end, End::Nothing)) else { continue };
            self.messages.tree.root(method, direction);
            if let Some(target) = target(method.message(direction), written) {
                methods.push((method.service.clone(), method.name.clone(), target));
            }
        }
        let site = u16::try_from(self.shared.writes.len()).unwrap_or(u16::MAX);
        self.shared.writes.push(Write { methods, is_exact: self.coverage.is_exact, reading });
        let value = if ty.is_opt() { value.clone() } else { Val::Some(Box::new(value.clone())) };
        let a = self.pair(&value);
        let count = u8::try_from(written.picks().count()).unwrap_or(u8::MAX);
        let picks = if count == 0 { 0 } else { self.alloc(count.into()) };
        for (d, pick) in (picks..).zip(written.picks()) {
            let mark = self.next;
            let value = self.expr(pick);
            self.store(&value, &pick.ty, d, mark);
            self.next = mark;
        }
        self.note_passed();
        self.emit(Op::SetField { site, a, picks, count });
    }

    /// Keeps what a path leads to in words of the call.
    pub(super) fn keep_path(&mut self, path: &Path, e: &HExpr, at: build::Slot) {
        if matches!(e.ty.bare(), Ty::Map(..)) {
            let map = self.whole_map(path, e);
            let a = self.reg(&map);
            self.emit(Op::KeepList { word: at.word, a });
            self.next = 0;
            return;
        }
        if let Some((site, slot)) = self.path_slot(path) {
            if matches!(e.ty.bare(), Ty::List(_)) {
                let list = self.one(|d| Op::SlotList { d, site, slot });
                let a = self.reg(&list);
                self.emit(Op::KeepList { word: at.word, a });
                self.next = 0;
                return;
            }
            let is_text = is_text(e.ty.bare());
            self.emit(Op::KeepSlot { site, slot, word: at.word, is_text });
        }
    }

    fn path_slot(&mut self, path: &Path) -> Option<(u16, u16)> {
        let site = self.messages.site?;
        let direction = self.messages.direction?;
        let key = match &path.key {
            Some(key) => Some(self.map_key(key, path)?),
            None => None,
        };
        self.messages.is_strict |= !path.is_lenient;
        // A lenient path and a strict one lead to the same slot.
        let text = path.steps.join(".");
        let tree = &mut self.messages.tree;
        if let Some((.., slot)) = self.messages.known.iter().find(|(t, k, _)| *t == text && *k == key) {
            // Who allows more items speaks for all.
            if let Some(known) = tree.slots.get_mut(usize::from(*slot)) {
                known.items_max = known.items_max.max(path.items_max);
            }
            return Some((site, *slot));
        }
        let end = path.ends.iter().map(|(_, end)| end).find(|end| !matches!(end, End::Nothing))?;
        let slot = match (&key, end) {
            (Some(_), End::Field(field)) => match field.kind() {
                ProtoKind::Message(entry) => tree.slot(&End::Field(entry.map_entry_value_field()), 0),
                _ => return None,
            },
            _ => tree.slot(end, path.items_max),
        };
        for (method, end) in &path.ends {
            let (Some(method), false) = (method, matches!(end, End::Nothing)) else { continue };
            let root = tree.root(method, direction);
            tree.insert(root, &path.steps, key.as_ref(), slot);
        }
        self.messages.known.push((text, key, slot));
        Some((site, slot))
    }

    /// A field of a message that an expression is.
    fn inside(&mut self, of: &HExpr, path: &Path, e: &HExpr) -> Val {
        let Ty::Message(message) = of.ty.bare() else { return Val::Unit };
        let key = match &path.key {
            Some(key) => match self.map_key(key, path) {
                Some(key) => Some(key),
                None => return Val::Unit,
            },
            None => None,
        };
        let end = path.ends.first().map_or(&End::Nothing, |(_, end)| end);
        let site = self.reading_inside(message, &path.steps, key.as_ref(), end, path.items_max);
        let value = self.expr(of);
        let is_list = matches!(e.ty, Ty::List(_));
        let (d, result) = if is_list { self.place_for(&e.ty) } else { self.place_for(&e.ty.clone().opt()) };
        let mut absent = Vec::new();
        let a = match &value {
            Val::Opt(tag) => {
                let tag = *tag;
                // What is behind an absent message is absent, or an empty list.
                self.load(d, 0);
                absent.push(self.emit(Op::JumpUnless { a: tag, to: 0 }));
                tag.wrapping_add(1)
            }
            other => self.reg(other),
        };
        self.emit(if is_list { Op::InsideList { d, a, site } } else { Op::Inside { d, a, site } });
        self.land(&absent);
        if is_list { result } else { present(result, &e.ty) }
    }

    /// How a field of a message of this type is read, where the message is a value.
    fn reading_inside(
        &mut self,
        message: &MessageDescriptor,
        steps: &[Rc<str>],
        key: Option<&Key>,
        end: &End,
        items_max: u16,
    ) -> u16 {
        let name = format!("{}.{}{key:?} {items_max}", message.full_name(), steps.join("."));
        if let Some((_, site)) = self.messages.inside.iter().find(|(n, _)| *n == name) {
            return *site;
        }
        let mut tree = Tree::default();
        let slot = match (key, end) {
            (Some(_), End::Field(field)) => match field.kind() {
                ProtoKind::Message(entry) => tree.slot(&End::Field(entry.map_entry_value_field()), 0),
                _ => tree.slot(end, items_max),
            },
            _ => tree.slot(end, items_max),
        };
        let root = tree.node(message);
        tree.roots.insert((String::new(), String::new()), Some(root));
        tree.insert(root, steps, key, slot);
        let site = u16::try_from(self.shared.readings.len()).unwrap_or(u16::MAX);
        self.shared.readings.push(Reading::default());
        let reading = tree.finish(true, true);
        self.set_reading(site, reading);
        self.messages.inside.push((name, site));
        site
    }

    fn map_key(&mut self, key: &HExpr, path: &Path) -> Option<Key> {
        let map = path.ends.iter().find_map(|(_, end)| match end {
            End::Field(field) => Some(field),
            _ => None,
        });
        let Some(ProtoKind::Message(entry)) = map.map(FieldDescriptor::kind) else { return None };
        match self.fold(key) {
            Some(Const::Str(text)) => Some(Key::Text(text.to_string())),
            Some(Const::Word(word)) => Some(Key::Word(kind_of(&entry.map_entry_key_field()), word)),
            _ => None,
        }
    }
}

/// How the keys and values of a map are encoded.
fn kinds(entry: &MessageDescriptor) -> (Kind, Kind) {
    (kind_of(&entry.map_entry_key_field()), kind_of(&entry.map_entry_value_field()))
}

/// The place that a write leads to in a message, as writing needs it.
fn target(message: &MessageDescriptor, written: &Written) -> Option<Target> {
    let mut message = message.clone();
    let mut steps: Vec<Step> = Vec::new();
    let mut last: Option<FieldDescriptor> = None;
    // What is at the place, of an item or an entry.
    let mut picked = None;
    let fields = written.path.steps.iter().cloned().map(Leg::Field);
    for leg in fields.chain(written.legs.iter().cloned()) {
        match leg {
            Leg::Field(name) => {
                let field = message.get_field_by_name(&name)?;
                let rivals = match field.containing_oneof().filter(|o| !o.is_synthetic()) {
                    Some(oneof) => {
                        let others = oneof.fields().filter(|other| *other != field);
                        others.map(|other| (other.number(), kind_of(&other).wire())).collect()
                    }
                    None => Vec::new(),
                };
                steps.push(Step { number: field.number(), rivals, pick: None });
                if let ProtoKind::Message(inner) = field.kind() {
                    message = inner;
                }
                (last, picked) = (Some(field), None);
            }
            Leg::Pick(_) => {
                let (pick, value) = match last.as_ref()? {
                    map if map.is_map() => {
                        let value = message.map_entry_value_field();
                        (Pick::Entry(kind_of(&message.map_entry_key_field())), value)
                    }
                    list => (Pick::Item(kind_of(list)), list.clone()),
                };
                steps.last_mut()?.pick = Some(pick);
                if let ProtoKind::Message(inner) = value.kind() {
                    message = inner;
                }
                picked = Some(kind_of(&value));
            }
        }
    }
    let field = last?;
    Some(match picked {
        Some(kind) => Target { steps, ..Target::plain(0, kind) },
        None => Target { steps, is_raw: field.is_map(), ..shape_of(&field) },
    })
}

/// How a field is written.
pub(super) fn shape_of(field: &FieldDescriptor) -> Target {
    Target {
        is_list: field.is_list(),
        is_packed: field.is_packed(),
        is_implicit: !field.supports_presence() && !field.is_list() && !field.is_map(),
        ..Target::plain(field.number(), kind_of(field))
    }
}

/// A value that is always there, of an instruction that says whether it is.
fn present(value: Val, ty: &Ty) -> Val {
    match value {
        Val::Opt(d) if !ty.is_opt() => Val::Reg(d.wrapping_add(1)),
        other => other,
    }
}

/// It is kept as bytes of the scratch.
pub(super) fn is_text(ty: &Ty) -> bool {
    matches!(ty, Ty::Str | Ty::Bytes | Ty::Message(_) | Ty::AnyMessage)
}
