//! The only source of chance in a run: splitmix64, so that a seed is the whole of a run's input.

/// A seeded generator. Forks are independent: drawing from one does not move another.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

/// Mixes a word: the finaliser of splitmix64.
pub(crate) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// A generator for this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// The next word.
    pub(crate) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A generator of its own for `tag`.
    pub(crate) fn fork(&mut self, tag: u64) -> Self {
        Self::new(self.word() ^ mix(tag))
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.word() % n }
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// The same for sizes.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        usize::try_from(self.between(low as u64, high as u64)).unwrap_or(high)
    }

    /// True `permille` times in a thousand.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of a list, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.size(0, of.len().saturating_sub(1));
        of[at]
    }

    /// A size whose order of magnitude is what is drawn, in `1..=high`.
    pub(crate) fn skewed(&mut self, high: usize) -> usize {
        let bits = u64::from(usize::BITS - high.max(1).leading_zeros());
        let top = 1_usize << self.below(bits);
        self.size(1, (top * 2 - 1).min(high.max(1)))
    }
}
