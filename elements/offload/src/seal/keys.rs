//! The node's named keys, shared by every queue: read once, read again while calls run.
//!
//! A queue keeps what it needs of them and asks one atomic number a burst whether that is still all. Every
//! sealer of the process has a seat of its own, so no two derive the same key from the same name.

use core::fmt;
#[expect(clippy::disallowed_types, reason = "taken when keys change, never on the datapath")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::counters::{SealCounters, SealSnapshot};
use super::envelope::Sender;
use super::keyring::{KeyError, KeyFault, Keyring, NamedKey, Source};
use super::replay::Replay;

/// What a derived key is for; the number is that of the envelope's format.
const INFO: &[u8; 14] = b"towpath seal 1";

/// What the node decides about seals.
#[derive(Clone, Copy, Debug)]
pub struct SealOptions {
    /// Seconds since 1970.
    pub clock: fn() -> u32,
    /// How far a call's second may be from our clock.
    pub age_max_s: u32,
    /// Senders whose calls are remembered: one for each core of each peer.
    pub senders_max: usize,
}

impl SealOptions {
    /// [`SealOptions::age_max_s`] when nobody says.
    pub const AGE_MAX_S: u32 = 60;
    /// [`SealOptions::senders_max`] when nobody says. A busy sender takes 256 KiB.
    pub const SENDERS_MAX: usize = 1024;

    /// The defaults, by this clock.
    pub fn with_clock(clock: fn() -> u32) -> Self {
        Self { clock, age_max_s: Self::AGE_MAX_S, senders_max: Self::SENDERS_MAX }
    }
}

/// One name.
struct Slot {
    name: String,
    source: Source,
    #[expect(clippy::disallowed_types, reason = "taken when keys change, never on the datapath")]
    ring: Mutex<Arc<Keyring>>,
}

/// The named keys of a node.
pub struct Keys {
    slots: Vec<Slot>,
    /// Counts what a reload changed; queues compare it.
    version: AtomicU64,
    boot: [u8; 16],
    seats: AtomicU32,
    pub(super) replay: Replay,
    pub(super) clock: fn() -> u32,
    #[expect(clippy::disallowed_types, reason = "taken when a queue is made or figures are read")]
    counters: Mutex<Vec<Arc<SealCounters>>>,
}

impl Keys {
    /// Reads the named keys. With them come warnings, a line each.
    ///
    /// # Errors
    /// The first thing that is wrong.
    #[expect(clippy::disallowed_types, reason = "made here")]
    pub fn open(
        named: impl IntoIterator<Item = (String, Source)>,
        options: SealOptions,
    ) -> Result<(Self, Vec<String>), KeyError> {
        let mut boot = [0; 16];
        let no_random =
            |_| KeyError { source: Source::File("/dev/urandom".into()), line: 0, fault: KeyFault::NoRandom };
        SystemRandom::new().fill(&mut boot).map_err(no_random)?;
        let (mut slots, mut warnings) = (Vec::new(), Vec::new());
        for (name, source) in named {
            let (ring, warning) = Keyring::read(&source)?;
            warnings.extend(warning);
            slots.push(Slot { name, source, ring: Mutex::new(Arc::new(ring)) });
        }
        let keys = Self {
            slots,
            version: AtomicU64::new(0),
            boot,
            seats: AtomicU32::new(0),
            replay: Replay::new(options.age_max_s, options.senders_max),
            clock: options.clock,
            counters: Mutex::new(Vec::new()),
        };
        Ok((keys, warnings))
    }

    /// One key nobody else has, named "timing": what start-up timing seals with.
    #[cfg(any(test, feature = "dpdk"))]
    pub(crate) fn for_timing() -> Option<Self> {
        let mut key = Zeroizing::new([0; 16]);
        SystemRandom::new().fill(&mut key[..]).ok()?;
        let mut keys = Self::open([], SealOptions::with_clock(|| 0)).ok()?.0;
        let ring = Keyring::of(1, &key[..]);
        #[expect(clippy::disallowed_types, reason = "made here")]
        let ring = Mutex::new(Arc::new(ring));
        keys.slots.push(Slot { name: "timing".into(), source: Source::Env(String::new()), ring });
        Some(keys)
    }

    /// Reads them all again; queues take them over with their next burst. Warnings, a line each.
    ///
    /// # Errors
    /// The first thing that is wrong; then nothing has changed.
    pub fn reload(&self) -> Result<Vec<String>, KeyError> {
        let mut warnings = Vec::new();
        let mut rings = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let (ring, warning) = Keyring::read(&slot.source)?;
            warnings.extend(warning);
            rings.push(Arc::new(ring));
        }
        for (slot, ring) in self.slots.iter().zip(rings) {
            *slot.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(warnings)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// The place of a name.
    pub(crate) fn place(&self, name: &str) -> Option<u16> {
        self.names().position(|known| known == name).and_then(|at| u16::try_from(at).ok())
    }

    /// Everything this node has sealed and opened.
    pub fn snapshot(&self) -> SealSnapshot {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = counters.iter().fold(SealSnapshot::default(), |sum, one| sum.and(&one.snapshot()));
        sum.senders = self.replay.senders() as u64;
        sum
    }

    /// Counters of a new queue, part of [`Keys::snapshot`] from here on.
    pub(crate) fn count(&self) -> Arc<SealCounters> {
        let new = Arc::new(SealCounters::default());
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(new.clone());
        new
    }

    /// A seat nobody had before; none after 2^16.
    pub(crate) fn seat(&self) -> Option<Sender> {
        let next = |seat: u32| (seat <= u32::from(u16::MAX)).then_some(seat + 1);
        let seat = self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Sender { boot: self.boot, shard: u16::try_from(seat).ok()? })
    }

    /// Changes when [`Keys::rings`] does.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The keys as they are now, by place.
    pub(crate) fn rings(&self) -> impl Iterator<Item = Arc<Keyring>> {
        self.slots.iter().map(|slot| slot.ring.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A key for one sender, derived from a named one.
pub(crate) struct Derived(Zeroizing<Vec<u8>>);

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 5869 with SHA-256.
pub(super) fn hkdf(salt: &[u8], secret: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    extracted.expand(&[info], Length(out.len())).ok()?.fill(out).ok()
}

impl Derived {
    /// The boot is the salt; purpose, shard and key id are the info.
    pub(crate) fn new(named: &NamedKey, sender: Sender) -> Option<Self> {
        let mut info = [0; INFO.len() + 6];
        info[..INFO.len()].copy_from_slice(INFO);
        info[INFO.len()..INFO.len() + 2].copy_from_slice(&sender.shard.to_be_bytes());
        info[INFO.len() + 2..].copy_from_slice(&named.id.to_be_bytes());
        let mut key = Zeroizing::new(vec![0; named.bytes().len()]);
        hkdf(&sender.boot, named.bytes(), &info, &mut key)?;
        Some(Self(key))
    }

    /// For a device.
    #[cfg(feature = "dpdk")]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the CPU.
    pub(crate) fn cipher(&self) -> Option<LessSafeKey> {
        raw(&self.0)
    }
}

/// AES-GCM with a key of 16 or 32 bytes.
pub(super) fn raw(key: &[u8]) -> Option<LessSafeKey> {
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new)
}
