//! What elements remember: state of the scopes `shard` and `node`.
//!
//! State lives outside generations. An image says what it needs ([`StateDecl`]); the [`Store`] finds what an
//! earlier generation left under the same key, or makes it, and the chain holds it by [`Bound`]. Everything
//! is atomic words, so chains of all shards use it without locks; nothing is allocated after the binding.
//!
//! State `call` is not here: it lies in the call's own words.

pub(crate) mod bucket;
mod map;
pub(crate) mod scalars;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod window;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::vm::Image;

pub use bucket::Bucket;
pub use map::Full;
pub(crate) use map::{Found, Map};
pub use scalars::Field;
pub(crate) use scalars::Scalars;
pub use window::Window;
use words::zeroed;

/// One piece of state that an image needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateDecl {
    /// What makes it the same over reloads: rule, element, which of that name, and the state's own name.
    pub key: String,
    /// What it is, as a user would write it: type, capacity, options. Another shape starts anew.
    pub shape: String,
    /// Each shard has its own.
    pub per_shard: bool,
    /// What it takes.
    pub kind: Kind,
}

impl StateDecl {
    /// Its shape; of an element's `node` scalars, whose shapes are told apart, all of them.
    pub(crate) fn described(&self) -> String {
        let Kind::Scalars(fields) = &self.kind else { return self.shape.clone() };
        // Whether a `T?` is there is a field of its own.
        let own = fields.iter().filter(|f| !f.name.ends_with('?'));
        let own: Vec<String> = own.map(|f| format!("{}: {}", f.name, f.shape)).collect();
        format!("node {}", own.join(", "))
    }

    /// Its value serves the other too.
    fn is_same(&self, other: &Self) -> bool {
        let is_alike = match (&self.kind, &other.kind) {
            // What was is no matter of the first value now.
            (Kind::Words(a), Kind::Words(b)) => a.len() == b.len(),
            (a, b) => a == b,
        };
        is_alike && self.per_shard == other.per_shard && self.shape == other.shape
    }
}

/// What a piece of state takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The `node` scalars of one element; `key` is the element's. Each is kept or reset by itself.
    Scalars(Vec<Field>),
    /// Words with these first values: a `shard` scalar, a counter, a bucket.
    Words(Vec<u64>),
    /// A window.
    Window(Window),
    /// A map.
    Map {
        /// Entries it holds.
        max: usize,
        /// What happens to further keys.
        full: Full,
        /// What its values are.
        value: Value,
    },
}

/// What the values of a map are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// One word.
    Word,
    /// A window.
    Window(Window),
    /// A text of at most 256 bytes.
    Text,
}

/// One place where state is: the node's, or one shard's.
#[derive(Debug)]
pub(crate) enum Place {
    Scalars(Scalars),
    Words(Box<[AtomicU64]>),
    Map(Map),
}

/// One piece of state.
#[derive(Debug)]
pub struct Item {
    decl: StateDecl,
    /// One, or one for each shard.
    places: Box<[Place]>,
    /// Of its keys' hashes.
    secret: u64,
}

impl Item {
    fn new(decl: &StateDecl, shards: usize, secret: u64, before: Option<&Self>) -> Self {
        let (places, stripes) = if decl.per_shard { (shards, 1) } else { (1, shards) };
        let place = |_| match &decl.kind {
            Kind::Scalars(fields) => {
                Place::Scalars(Scalars::new(fields, |f| before.and_then(|b| b.kept(f)).unwrap_or(f.init)))
            }
            Kind::Words(first) => Place::Words(first.iter().map(|w| AtomicU64::new(*w)).collect()),
            Kind::Window(window) => Place::Words(zeroed(window.words(stripes))),
            Kind::Map { max, full, value } => {
                let width = match value {
                    Value::Word => 1,
                    Value::Window(window) => window.words(stripes),
                    Value::Text => text::words(text::MAP_BYTES_MAX),
                };
                Place::Map(Map::new(*max, *full, width))
            }
        };
        Self { decl: decl.clone(), places: (0..places).map(place).collect(), secret }
    }

    /// The value of a scalar of the same name and type.
    fn kept(&self, field: &Field) -> Option<u64> {
        let Kind::Scalars(fields) = &self.decl.kind else { return None };
        let same = fields.iter().find(|f| f.name == field.name && f.shape == field.shape)?;
        let Some(Place::Scalars(scalars)) = self.places.first() else { return None };
        Some(same.get(scalars.load()))
    }

    /// Where it is for this shard.
    pub(crate) fn place(&self, shard: u16) -> Option<&Place> {
        self.places.get(if self.decl.per_shard { usize::from(shard) } else { 0 })
    }

    /// Windows in it have a stripe for each shard.
    pub(crate) fn is_striped(&self) -> bool {
        !self.decl.per_shard
    }

    /// The hash of a key: not to be foreseen by who sends it.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        // SipHash-1-3 that begins with a secret.
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write(key);
        hasher.finish()
    }
}

/// What one chain remembers, by place in [`Image::states`].
#[derive(Clone, Debug, Default)]
pub struct Bound {
    items: Vec<Arc<Item>>,
    shards: usize,
}

impl Bound {
    /// The state at a place.
    pub fn item(&self, at: u16) -> Option<&Item> {
        self.items.get(usize::from(at)).map(|i| &**i)
    }

    /// How many shards there are, at least one.
    pub(crate) fn shards(&self) -> usize {
        self.shards.max(1)
    }
}

/// What a reload did to state: for the user who asked for it.
#[derive(Clone, Debug, Default)]
pub struct StateReport {
    /// Keys whose value went over.
    pub kept: Vec<String>,
    /// Keys that begin anew, and why.
    pub reset: Vec<(String, String)>,
    /// Keys there were none of before.
    pub added: Vec<String>,
    /// Keys that nothing names any more.
    pub dropped: Vec<String>,
}

/// Every state of a node, over all generations. Used by the control thread alone.
#[derive(Debug)]
pub struct Store {
    shards: usize,
    secret: u64,
    items: BTreeMap<String, Arc<Item>>,
}

impl Store {
    /// A store for a node of this many shards.
    pub fn new(shards: usize) -> Self {
        Self::seeded(shards, RandomState::new().hash_one(0))
    }

    /// The same with known hashes of keys: for runs that must repeat.
    pub fn seeded(shards: usize, secret: u64) -> Self {
        Self { shards: shards.max(1), secret, items: BTreeMap::new() }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Finds or makes the state of these images, in their order. What none of them names is let go, and
    /// dies with the last call of the generation that used it.
    pub fn bind(&mut self, images: &[Arc<Image>]) -> (Vec<Bound>, StateReport) {
        let mut report = StateReport::default();
        let mut items: BTreeMap<String, Arc<Item>> = BTreeMap::new();
        let mut all = Vec::with_capacity(images.len());
        for image in images {
            let mut bound = Bound { items: Vec::with_capacity(image.states.len()), shards: self.shards };
            for decl in &image.states {
                let item = match items.get(&decl.key) {
                    Some(item) => item.clone(),
                    None => {
                        let item = self.keep(decl, &mut report);
                        items.insert(decl.key.clone(), item.clone());
                        item
                    }
                };
                bound.items.push(item);
            }
            all.push(bound);
        }
        for (key, item) in self.items.iter().filter(|(key, _)| !items.contains_key(*key)) {
            report.dropped.extend(names(key, &item.decl));
        }
        self.items = items;
        (all, report)
    }

    fn keep(&self, decl: &StateDecl, report: &mut StateReport) -> Arc<Item> {
        let before = self.items.get(&decl.key);
        match before {
            Some(item) if item.decl.is_same(decl) => {
                report.kept.extend(names(&decl.key, decl));
                return item.clone();
            }
            Some(item) => compare(&item.decl, decl, report),
            None => report.added.extend(names(&decl.key, decl)),
        }
        let item = Item::new(decl, self.shards, self.secret, before.map(|b| &**b));
        Arc::new(item)
    }
}

/// What a user calls it.
fn names(key: &str, decl: &StateDecl) -> Vec<String> {
    match &decl.kind {
        Kind::Scalars(fields) => fields.iter().map(|f| format!("{key}.{}", f.name)).collect(),
        _ => vec![key.to_owned()],
    }
}

/// Tells what of `was` begins anew as `is`.
fn compare(was: &StateDecl, is: &StateDecl, report: &mut StateReport) {
    let (Kind::Scalars(old), Kind::Scalars(new)) = (&was.kind, &is.kind) else {
        report.reset.push((is.key.clone(), format!("was {}, is {}", was.shape, is.shape)));
        return;
    };
    for field in new {
        let key = format!("{}.{}", is.key, field.name);
        match old.iter().find(|f| f.name == field.name) {
            Some(same) if same.shape == field.shape => report.kept.push(key),
            Some(other) => report.reset.push((key, format!("was {}, is {}", other.shape, field.shape))),
            None => report.added.push(key),
        }
    }
    let gone = old.iter().filter(|f| !new.iter().any(|n| n.name == f.name));
    report.dropped.extend(gone.map(|f| format!("{}.{}", is.key, f.name)));
}
