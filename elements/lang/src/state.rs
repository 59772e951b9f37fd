//! What elements remember: state of the scopes `shard` and `node`.
//!
//! State lives outside generations. An image says what it needs ([`StateDecl`]); the [`Store`] finds what an
//! earlier generation left under the same key, or makes it, and the chain holds it by [`Bound`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::vm::Image;

/// One piece of state that an image needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateDecl {
    /// What makes it the same over reloads: rule, element, which of that name, and the state's own name.
    pub key: String,
    /// What it is, as a user would write it: type, capacity, options. Another shape starts anew.
    pub shape: String,
}

/// One piece of state.
#[derive(Debug)]
pub struct Item {
    shape: String,
}

/// What one chain remembers, by place in [`Image::states`].
#[derive(Clone, Debug, Default)]
pub struct Bound {
    items: Vec<Arc<Item>>,
}

impl Bound {
    /// The state at a place.
    pub fn item(&self, at: u16) -> Option<&Item> {
        self.items.get(usize::from(at)).map(|i| &**i)
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
    items: BTreeMap<String, Arc<Item>>,
}

impl Store {
    /// A store for a node of this many shards.
    pub fn new(shards: usize) -> Self {
        Self { shards: shards.max(1), items: BTreeMap::new() }
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
            let mut bound = Bound::default();
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
        report.dropped = self.items.keys().filter(|k| !items.contains_key(*k)).cloned().collect();
        self.items = items;
        (all, report)
    }

    fn keep(&self, decl: &StateDecl, report: &mut StateReport) -> Arc<Item> {
        match self.items.get(&decl.key) {
            Some(item) if item.shape == decl.shape => {
                report.kept.push(decl.key.clone());
                return item.clone();
            }
            Some(item) => {
                report.reset.push((decl.key.clone(), format!("was {}, is {}", item.shape, decl.shape)))
            }
            None => report.added.push(decl.key.clone()),
        }
        Arc::new(Item { shape: decl.shape.clone() })
    }
}
