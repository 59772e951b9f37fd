//! Numbered places that are used again: the tag of an HTTP/2 stream is such a number.

/// Values under small numbers.
#[derive(Debug)]
pub(crate) struct Slab<V> {
    places: Vec<Option<V>>,
    free: Vec<u32>,
}

impl<V> Slab<V> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The number the next [`Slab::insert`] will use.
    pub(crate) fn next_key(&self) -> u32 {
        self.free.last().copied().unwrap_or_else(|| u32::try_from(self.places.len()).unwrap_or(u32::MAX))
    }

    /// Keeps a value; its number.
    pub(crate) fn insert(&mut self, value: V) -> u32 {
        let key = self.next_key();
        if self.free.pop().is_some() {
            if let Some(place) = self.places.get_mut(key as usize) {
                *place = Some(value);
            }
        } else {
            self.places.push(Some(value));
        }
        key
    }

    pub(crate) fn get(&mut self, key: u32) -> Option<&mut V> {
        self.places.get_mut(key as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, key: u32) -> Option<V> {
        let value = self.places.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(value)
    }

    /// The numbers in use whose value the predicate accepts.
    pub(crate) fn keys_where(&self, mut accept: impl FnMut(&V) -> bool) -> Vec<u32> {
        let matches = |(i, p): (usize, &Option<V>)| match p {
            Some(v) if accept(v) => u32::try_from(i).ok(),
            _ => None,
        };
        self.places.iter().enumerate().filter_map(matches).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new();
        let a = slab.insert("a");
        assert_eq!((a, slab.next_key()), (0, 1));
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.count(), slab.next_key()), (1, a));
        assert_eq!(slab.insert("c"), a);
        assert_eq!(slab.get(b), Some(&mut "b"));
        assert_eq!(slab.keys_where(|v| *v == "c"), [a]);
    }
}
