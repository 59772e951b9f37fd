//! Storage by itself: against models, and under threads.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::map::{Found, Full, Map};
use super::window::Window;
use super::words::{Words, zeroed};
use super::{Bucket, Field, Scalars, bucket};

const S: u64 = 1_000_000_000;
const FOREVER: u64 = u64::MAX;

fn on_threads(n: u64, work: impl Fn(u64) + Sync) {
    let barrier = Barrier::new(usize::try_from(n).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..n {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                work(thread);
            });
        }
    });
}

/// A token bucket as one would explain it.
struct Tokens {
    per_ns: f64,
    burst: f64,
    left: f64,
    at: u64,
}

impl Tokens {
    fn at(&mut self, now: u64) {
        self.left = (self.left + (now - self.at) as f64 * self.per_ns).min(self.burst);
        self.at = now;
    }
}

proptest! {
    #[test]
    fn a_bucket_is_a_token_bucket(
        rate in 1_u32..2000,
        burst in 1_u32..50,
        steps in prop::collection::vec((0_u64..20_000_000, 1_u8..4, 0_u8..8), 1..200),
    ) {
        let (rate, burst) = (f64::from(rate), f64::from(burst));
        let bucket = Bucket::new(rate, burst);
        let words = [Cell::new(0)];
        let mut model = Tokens { per_ns: rate / 1e9, burst, left: burst, at: 5 * S };
        let mut now = 5 * S;
        for (wait, n, what) in steps {
            now += wait;
            model.at(now);
            let n = f64::from(n);
            // What is decided by a rounding error decides nothing here.
            let is_close = (model.left - n).abs() < 1e-3;
            match what {
                0 => {
                    bucket.drain(words.as_slice(), now);
                    model.left = model.left.min(0.0);
                }
                1 => {
                    let wait = bucket.reserve(words.as_slice(), now, n);
                    model.left -= n;
                    let expected = (-model.left).max(0.0) / model.per_ns;
                    prop_assert!((wait as f64 - expected).abs() < 1e6_f64.max(expected * 1e-6), "{wait} {expected}");
                }
                _ if is_close => now += 1,
                _ => {
                    let taken = bucket.take(words.as_slice(), now, n);
                    prop_assert_eq!(taken, model.left >= n, "left {} of {}", model.left, n);
                    if taken {
                        model.left -= n;
                    }
                }
            }
        }
    }

    #[test]
    fn a_map_is_a_map(
        full in prop::sample::select(vec![Full::Evict, Full::Refuse, Full::Share]),
        max in 1_usize..70,
        steps in prop::collection::vec((0_u64..100, 0_u8..10, 0_u64..1000, 0_u64..3), 1..600),
    ) {
        let ttl = 100;
        let map = Map::new(max, full, 1);
        // Key to value and last use; uses have an order of their own.
        let mut model: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        let mut shared: Option<u64> = None;
        let (mut now, mut order) = (10, 0);
        // Time that passes ends entries when they are met; the model ends them all the same.
        let is_exact = max <= 64;
        for (key, what, value, wait) in steps {
            now += wait;
            order += 1;
            let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let ttl = if is_exact && full == Full::Evict { FOREVER } else { ttl };
            let before = model.len();
            if ttl != FOREVER {
                model.retain(|_, (_, used, _)| now - *used <= ttl);
            }
            let has_expired = before != model.len();
            let set = |word: u64| move |words: &[AtomicU64]| words.store(0, word);
            match what {
                0 => {
                    map.remove(hash);
                    model.remove(&key);
                }
                1..=4 => {
                    let found = map.find(hash, now, ttl).map(|slot| map.value(slot).load(0));
                    let expected = model.get_mut(&key).map(|entry| {
                        (entry.1, entry.2) = (now, order);
                        entry.0
                    });
                    prop_assert_eq!(found, expected);
                }
                _ => {
                    let found = map.enter(hash, now, ttl, set(value));
                    let is_known = model.contains_key(&key);
                    // Entries past their time are swept as it goes: then a full map may have room.
                    if !is_known && model.len() >= max {
                        match full {
                            Full::Evict => {
                                let (oldest, _) = model.iter().min_by_key(|(_, e)| e.2).unwrap();
                                let oldest = *oldest;
                                if is_exact {
                                    model.remove(&oldest);
                                } else {
                                    // One of those used least: whoever it was.
                                    model.retain(|k, _| map.find(k.wrapping_mul(0x9E37_79B9_7F4A_7C15), now, FOREVER).is_some());
                                }
                            }
                            Full::Refuse => prop_assert_eq!(found, Found::Nowhere),
                            Full::Share => prop_assert!(matches!(found, Found::Shared(_))),
                        }
                    }
                    match found {
                        Found::Own(slot) => {
                            map.value(slot).store(0, value);
                            model.insert(key, (value, now, order));
                        }
                        Found::Shared(slot) => {
                            map.value(slot).store(0, value);
                            shared = Some(value);
                        }
                        Found::Nowhere => prop_assert!(full == Full::Refuse),
                    }
                }
            }
            prop_assert!(map.len() <= max);
            prop_assert!(has_expired || map.len() >= model.len());
            if let Some(slot) = map.find_shared() {
                prop_assert_eq!(Some(map.value(slot).load(0)), shared);
            }
        }
    }

    #[test]
    fn a_window_forgets_what_is_older(
        steps in prop::collection::vec((0_u64..400, -5_i32..1000), 1..300),
    ) {
        // Ten slices of 100.
        let window = Window::new(1000, true);
        let words = zeroed(window.words(1));
        let mut added: Vec<(u64, f64)> = Vec::new();
        let mut now = 10_000;
        for (wait, x) in steps {
            now += wait;
            if x < 0 {
                window.clear(&words[..]);
                added.clear();
            } else {
                window.add(&words[..], 0, now, f64::from(x));
                added.push((now, f64::from(x)));
            }
            let oldest = now / 100 - 9;
            added.retain(|(at, _)| at / 100 >= oldest);
            let sums = window.sums(&words[..], 1, now);
            let sum: f64 = added.iter().map(|(_, x)| x).sum();
            let max = added.iter().map(|(_, x)| *x).fold(0.0, f64::max);
            prop_assert_eq!((sums.count, sums.sum, sums.max), (added.len() as u64, sum, max));
            let mut sorted: Vec<f64> = added.iter().map(|(_, x)| *x).collect();
            sorted.sort_by(f64::total_cmp);
            let median = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
            let told = window.quantile(&words[..], 1, now, 0.5);
            prop_assert!((told - median).abs() <= median * 0.15 + 1e-9, "{} {}", told, median);
        }
    }
}

#[test]
fn a_bucket_admits_its_rate_over_any_number_of_shards() {
    let bucket = Bucket::new(1000.0, 1000.0);
    let words = zeroed(1);
    let (clock, admitted) = (AtomicU64::new(S), AtomicU64::new(0));
    on_threads(4, |_| {
        for _ in 0..200_000 {
            // Every ask is 25 us later: 20 s in all.
            let now = clock.fetch_add(25_000, Ordering::SeqCst);
            if bucket.take(&words[..], now, 1.0) {
                admitted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // The burst, and a thousand a second for twenty seconds.
    let admitted = admitted.into_inner();
    assert!((20_990..=21_001).contains(&admitted), "{admitted}");
}

#[test]
fn slow_and_fast_buckets_are_exact() {
    for (rate, n, seconds) in
        [(0.2, 1.0, 5000_u64), (3.0, 1.0, 1000), (10_737_418_240.0, 65_536.0, 1), (1e9, 1.0, 0)]
    {
        let bucket = Bucket::new(rate, 2.0 * n);
        let words = [Cell::new(0)];
        bucket.drain(words.as_slice(), 7);
        let (mut taken, asks) = (0_u64, 200_000_u64);
        let span = if seconds == 0 { 400_000 } else { seconds * S };
        for ask in 0..asks {
            taken += u64::from(bucket.take(words.as_slice(), 7 + span / asks * (ask + 1), n));
        }
        let expected = (rate * span as f64 / 1e9 / n).min(asks as f64);
        assert!((taken as f64 - expected).abs() <= 1.0 + expected * 0.001, "{rate}: {taken} of {expected}");
    }
    let nothing = Bucket::new(0.0, 5.0);
    assert!(!nothing.take([Cell::new(0)].as_slice(), S, 1.0), "a rate of nothing gives nothing");
    let words = [Cell::new(0)];
    let one = Bucket::new(1.0, 1.0);
    assert!(one.take(words.as_slice(), S, 1.0) && !one.take(words.as_slice(), S, 1.0));
    assert!(one.take(words.as_slice(), 3 * 365 * 86_400 * S, 1.0), "years later it is full");
}

#[test]
fn counters_and_scalars_lose_nothing() {
    let words = zeroed(1);
    let field = |name: &str, word, shift, bits| Field {
        name: name.into(),
        shape: "uint".into(),
        word,
        shift,
        bits,
        init: 0,
    };
    let fields = [field("count", 0, 0, 64), field("odd", 1, 8, 8)];
    let scalars = Scalars::new(&fields, |f| f.init);
    on_threads(4, |thread| {
        for round in 0..50_000_i64 {
            bucket::add(&words[..], if thread == 3 { -1 } else { 1 });
            loop {
                let old = scalars.load();
                let count = fields[0].get(old) + 1;
                assert_eq!(fields[1].get(old), fields[0].get(old) % 2, "both words of one moment");
                let new = fields[1].set(fields[0].set(old, count), count % 2);
                if scalars.swap(old, new) {
                    break;
                }
            }
            assert!(round >= 0);
        }
    });
    assert_eq!(bucket::value(&words[..]), 100_000);
    assert_eq!(fields[0].get(scalars.load()), 200_000);
}

#[test]
fn stripes_of_a_window_add_up() {
    let window = Window::new(10 * S, false);
    let words = zeroed(window.words(4));
    on_threads(4, |shard| {
        for n in 0..100_000 {
            window.add(&words[..], usize::try_from(shard).unwrap(), S + n, 2.0);
        }
    });
    let sums = window.sums(&words[..], 4, 2 * S);
    assert_eq!((sums.count, sums.sum, sums.mean()), (400_000, 800_000.0, 2.0));
}

#[test]
fn a_key_entered_by_all_shards_at_once_has_one_entry() {
    for round in 0..200_u64 {
        let map = Map::new(1000, Full::Refuse, 1);
        on_threads(4, |_| {
            for key in 0..100_u64 {
                // Keys of a few homes, so that they meet.
                let hash = (key % 7) << 8 | key << 32 | round << 48;
                let found = map.enter(hash, S, FOREVER, |words| words.store(0, 0));
                let Found::Own(slot) = found else { panic!("{found:?}") };
                map.value(slot).update(0, |n| Some(n + 1));
            }
        });
        assert_eq!(map.len(), 100);
        for key in 0..100_u64 {
            let hash = (key % 7) << 8 | key << 32 | round << 48;
            let slot = map.find(hash, S, FOREVER).expect("it was entered");
            assert_eq!(map.value(slot).load(0), 4, "round {round} key {key}");
        }
    }
}

#[test]
fn a_full_map_holds_exactly_what_it_says() {
    for (full, max) in [(Full::Refuse, 1000), (Full::Share, 1000), (Full::Evict, 1000), (Full::Evict, 60)] {
        let map = Map::new(max, full, 1);
        let own = AtomicU64::new(0);
        on_threads(4, |thread| {
            for n in 0..5000_u64 {
                let hash = (thread * 5000 + n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                match map.enter(hash, S + n, FOREVER, |words| words.store(0, 1)) {
                    Found::Own(_) => {
                        own.fetch_add(1, Ordering::SeqCst);
                    }
                    Found::Shared(_) => assert_eq!(full, Full::Share),
                    Found::Nowhere => assert_ne!(full, Full::Share),
                }
                assert!(map.len() <= max);
            }
        });
        assert_eq!(map.len(), max, "{full:?}");
        let own = own.into_inner();
        let expected = if full == Full::Evict { 19_000..=20_000 } else { max as u64..=max as u64 };
        assert!(expected.contains(&own), "{full:?} {own}");
    }
}

#[test]
fn large_maps_evict_what_was_not_used_for_long() {
    let map = Map::new(10_000, Full::Evict, 1);
    let hash = |key: u64| (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let set = |words: &[AtomicU64]| words.store(0, 1);
    for key in 0..10_000 {
        map.enter(hash(key), S + key, FOREVER, set);
    }
    // The second half is used again, then as many new ones come.
    for key in 5000..10_000 {
        assert!(map.find(hash(key), 2 * S + key, FOREVER).is_some());
    }
    for key in 10_000..14_000 {
        map.enter(hash(key), 3 * S + key, FOREVER, set);
    }
    let left =
        |keys: std::ops::Range<u64>| keys.filter(|k| map.find(hash(*k), 4 * S, FOREVER).is_some()).count();
    let (old, used, new) = (left(0..5000), left(5000..10_000), left(10_000..14_000));
    assert_eq!(old + used + new, 10_000);
    assert!(used > 4400 && new > 3900, "{old} {used} {new}");
}

#[test]
fn churn_for_long_leaves_a_map_in_order() {
    let map = Map::new(500, Full::Refuse, 1);
    let hash = |key: u64| (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut refused = 0;
    for n in 0..200_000_u64 {
        // Each lives for 400 ticks: never more than 400 at once.
        let found = map.enter(hash(n), n, 400, |words| words.store(0, n));
        refused += u64::from(found == Found::Nowhere);
    }
    assert_eq!(refused, 0, "what is past its time makes room");
    let there: BTreeSet<u64> =
        (199_000..200_000).filter(|n| map.find(hash(*n), 200_000, 400).is_some()).collect();
    assert_eq!(there, (199_600..200_000).collect());
}
