//! `window(over)`: what was added during the last `over`, in ten slices that pass away one by one.
//!
//! Each shard writes a stripe of its own, so that adding costs no more than a few stores; who reads sums up
//! all stripes. A slice says of which time and of which generation it is: one of another time is empty, and
//! `clear` is a new generation. A reader takes a slice only if it is the same slice after reading.

use super::words::Words;

/// Slices of a window.
const SLICES: usize = 10;
/// Words of a slice: its tag, count, sum and greatest value.
const SLICE_WORDS: usize = 4;
/// Classes of the histogram that `quantile` needs: four to a doubling, from 2^-32 to 2^32.
const CLASSES: usize = 256;
/// Bits of a float below the class: two of its mantissa count.
const CLASS_SHIFT: u32 = 50;
/// The class of 2^-32.
const CLASS_BASE: u64 = (1023 - 32) << 2;

/// A window's measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Nanoseconds of one slice.
    slice_ns: u64,
    /// It keeps what `quantile` needs.
    histogram: bool,
}

/// Count, sum and greatest of what was added.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sums {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) max: f64,
}

impl Sums {
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

impl Window {
    /// The last `over_ns` nanoseconds.
    pub(crate) fn new(over_ns: u64, histogram: bool) -> Self {
        Self { slice_ns: (over_ns / SLICES as u64).max(1), histogram }
    }

    fn slice_words(self) -> usize {
        SLICE_WORDS + if self.histogram { CLASSES } else { 0 }
    }

    fn stripe_words(self) -> usize {
        SLICES * self.slice_words()
    }

    /// Words it takes for this many shards: the generation, then the stripes.
    pub(crate) fn words(self, shards: usize) -> usize {
        1 + shards * self.stripe_words()
    }

    /// What a slice of this time and generation is called. Never 0, which is a slice never used.
    fn tag(words: &(impl Words + ?Sized), slice: u64) -> u64 {
        (words.load(0) << 40) | (slice & 0xff_ffff_ffff) | 1 << 39
    }

    fn place(self, stripe: usize, slice: u64) -> usize {
        let slot = usize::try_from(slice % SLICES as u64).unwrap_or(0);
        1 + stripe * self.stripe_words() + slot * self.slice_words()
    }

    /// Adds a value, as the shard that owns this stripe. What is no number is not added.
    pub(crate) fn add(self, words: &(impl Words + ?Sized), stripe: usize, now_ns: u64, x: f64) {
        if x.is_nan() {
            return;
        }
        let slice = now_ns / self.slice_ns;
        let (tag, at) = (Self::tag(words, slice), self.place(stripe, slice));
        let is_new = words.load(at) != tag;
        if is_new {
            words.store(at, 0);
            (1..self.slice_words()).for_each(|word| words.store(at + word, 0));
        }
        let (count, sum) = (words.load(at + 1), f64::from_bits(words.load(at + 2)));
        let max = if count == 0 { x } else { f64::from_bits(words.load(at + 3)).max(x) };
        words.store(at + 2, (sum + x).to_bits());
        words.store(at + 3, max.to_bits());
        if self.histogram {
            let class = at + SLICE_WORDS + class_of(x);
            words.store(class, words.load(class) + 1);
        }
        words.store(at + 1, count + 1);
        if is_new {
            words.store(at, tag);
        }
    }

    /// The places of the slices that are of the last `over`, with their tags.
    fn live(
        self,
        words: &(impl Words + ?Sized),
        stripes: usize,
        now_ns: u64,
    ) -> impl Iterator<Item = (usize, u64)> {
        let newest = now_ns / self.slice_ns;
        let oldest = newest.saturating_sub(SLICES as u64 - 1);
        (0..stripes).flat_map(move |stripe| {
            (oldest..=newest).filter_map(move |slice| {
                let (tag, at) = (Self::tag(words, slice), self.place(stripe, slice));
                (words.load(at) == tag).then_some((at, tag))
            })
        })
    }

    /// Everything that was added.
    pub(crate) fn sums(self, words: &(impl Words + ?Sized), stripes: usize, now_ns: u64) -> Sums {
        let mut all = Sums { count: 0, sum: 0.0, max: 0.0 };
        for (at, tag) in self.live(words, stripes, now_ns) {
            let count = words.load(at + 1);
            let (sum, max) = (f64::from_bits(words.load(at + 2)), f64::from_bits(words.load(at + 3)));
            if count == 0 || words.load(at) != tag {
                continue;
            }
            all.max = if all.count == 0 { max } else { all.max.max(max) };
            all.count += count;
            all.sum += sum;
        }
        all
    }

    /// The value below which a share `q` of all lies, to a fifth; 0 of nothing.
    pub(crate) fn quantile(self, words: &(impl Words + ?Sized), stripes: usize, now_ns: u64, q: f64) -> f64 {
        let mut classes = [0_u64; CLASSES];
        for (at, _) in self.live(words, stripes, now_ns) {
            for (class, slot) in classes.iter_mut().enumerate() {
                *slot += words.load(at + SLICE_WORDS + class);
            }
        }
        let total: u64 = classes.iter().sum();
        let wanted = total as f64 * q.clamp(0.0, 1.0);
        let mut below = 0;
        for (class, n) in classes.iter().enumerate() {
            below += n;
            if *n > 0 && below as f64 >= wanted {
                return middle_of(class);
            }
        }
        0.0
    }

    /// Forgets everything.
    pub(crate) fn clear(self, words: &(impl Words + ?Sized)) {
        words.update(0, |generation| Some(generation.wrapping_add(1)));
    }
}

fn class_of(x: f64) -> usize {
    if x <= 0.0 {
        return 0;
    }
    let class = (x.to_bits() >> CLASS_SHIFT).saturating_sub(CLASS_BASE);
    usize::try_from(class).unwrap_or(CLASSES).min(CLASSES - 1)
}

fn middle_of(class: usize) -> f64 {
    if class == 0 {
        return 0.0;
    }
    let low = f64::from_bits((CLASS_BASE + class as u64) << CLASS_SHIFT);
    let high = f64::from_bits((CLASS_BASE + class as u64 + 1) << CLASS_SHIFT);
    (low + high) / 2.0
}
