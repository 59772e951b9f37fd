//! Things by number, in places that are used again.

/// At most as many as it was made for.
pub(super) struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    pub(super) fn new(count: usize) -> Self {
        Self { items: (0..count).map(|_| None).collect(), free: (0..count).rev().collect() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Its number, or the thing back.
    pub(super) fn insert(&mut self, item: T) -> Result<u64, T> {
        let Some(at) = self.free.pop() else { return Err(item) };
        if let Some(place) = self.items.get_mut(at) {
            *place = Some(item);
        }
        Ok(at as u64)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let at = usize::try_from(number).ok()?;
        let item = self.items.get_mut(at)?.take()?;
        self.free.push(at);
        Some(item)
    }

    /// Takes them all.
    pub(super) fn remove_all(&mut self) -> impl Iterator<Item = T> {
        let count = self.items.len() as u64;
        (0..count).filter_map(|number| self.remove(number))
    }
}
