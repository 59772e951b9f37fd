//! A bounded list that is filled and emptied once a turn and never grows.

use alloc::vec::Vec;

/// At most [`Burst::MAX`] items.
#[derive(Debug)]
pub struct Burst<T> {
    items: Vec<T>,
}

impl<T> Burst<T> {
    /// The most one burst holds.
    pub const MAX: usize = 32;

    /// An empty one; allocates once.
    pub fn new() -> Self {
        Self { items: Vec::with_capacity(Self::MAX) }
    }

    /// How many more it takes.
    pub fn room(&self) -> usize {
        Self::MAX - self.items.len()
    }

    /// Appends, or gives the item back when full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == Self::MAX {
            return Err(item);
        }
        self.items.push(item);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What is in it, in order.
    pub fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// Each in turn, in place.
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.items.iter_mut()
    }

    /// Takes them all, in order.
    pub fn drain(&mut self) -> alloc::vec::Drain<'_, T> {
        self.items.drain(..)
    }

    /// Gives items away from the front until one is refused: that one and all behind it stay, in order. How many
    /// were taken.
    pub fn give(&mut self, mut to: impl FnMut(T) -> Result<(), T>) -> usize {
        let before = self.items.len();
        self.items.reverse();
        while let Some(item) = self.items.pop() {
            if let Err(item) = to(item) {
                self.items.push(item);
                break;
            }
        }
        self.items.reverse();
        before - self.items.len()
    }

    /// Takes the first `count`, or as many as there are, in order; what stays moves up.
    pub fn drain_front(&mut self, count: usize) -> alloc::vec::Drain<'_, T> {
        self.items.drain(..count.min(self.items.len()))
    }
}

impl<T> Default for Burst<T> {
    fn default() -> Self {
        Self::new()
    }
}
