//! Seals: messages between two nodes that hold the same named key, encrypted and bound to their place.
//!
//! AES-GCM under a key derived for each boot and sealer, counters as nonces. What is bound to a message besides
//! its bytes: see [`envelope`]. Which calls have been opened: see [`replay`]. Not here: which calls are sealed,
//! how the tag travels, that indices count up and that nothing follows the final message (the shard's).

mod counters;
mod envelope;
mod far;
mod keyring;
mod keys;
mod replay;

use std::sync::Arc;
#[cfg(feature = "dpdk")]
use std::sync::atomic::Ordering;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use shard::{CallTag, JobError, Ring, Seal};

pub use counters::SealSnapshot;
pub use envelope::OVERHEAD_BYTES;
pub use keyring::{KeyError, KeyFault, Source};
pub use keys::{Keys, SealOptions};

pub(crate) use counters::SealCounters;
#[cfg(feature = "dpdk")]
pub(crate) use envelope::{AAD_BYTES, associate, nonce};
pub(crate) use envelope::{Flags, HEADER_BYTES, Header, Stamp, TAG_BYTES};
pub(crate) use far::FarName;

use counters::add;
use envelope::{Sender, TagParts};
use far::Far;
use keyring::Keyring;
use keys::Derived;
use replay::Met;

/// Messages sealed with one derived key; then the sealer takes another seat. Far below where AES-GCM wears
/// out: 2^32 messages of 64 KiB leave an attacker a chance of 2^-40.
const SEALS_MAX: u64 = 1 << 32;

/// One thread's part: it seals with keys no other thread has.
pub(crate) struct Sealer {
    keys: Arc<Keys>,
    counters: Arc<SealCounters>,
    version: u64,
    /// Counts changes of keys, ours too.
    epoch: u64,
    rings: Vec<Arc<Keyring>>,
    /// By ring: the key that seals, derived when first needed.
    own: Vec<Option<Own>>,
    seat: Sender,
    next_counter: u64,
    /// Who tags are from: the first seat, whatever seals now.
    tagger: Sender,
    next_call: u64,
    far: Far,
    met: Met,
}

struct Own {
    stamp: Stamp,
    cipher: LessSafeKey,
}

impl Sealer {
    /// `None` when all seats of this process are taken.
    pub(crate) fn new(keys: Arc<Keys>, counters: Arc<SealCounters>) -> Option<Self> {
        let seat = keys.seat()?;
        let mut sealer = Self {
            counters,
            version: keys.version(),
            epoch: 0,
            rings: Vec::new(),
            own: Vec::new(),
            seat,
            next_counter: 0,
            tagger: seat,
            next_call: 0,
            far: Far::default(),
            met: Met::default(),
            keys,
        };
        sealer.adopt();
        Some(sealer)
    }

    /// Takes changed keys over; once a burst.
    pub(crate) fn refresh(&mut self) {
        let version = self.keys.version();
        if version != self.version {
            self.version = version;
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        self.epoch += 1;
        self.rings.clear();
        self.rings.extend(self.keys.rings());
        self.own.clear();
        self.own.resize_with(self.rings.len(), || None);
        // What changed is derived anew: none of it may open any more.
        self.far.clear();
    }

    /// The place of a name.
    pub(crate) fn ring(&self, name: &str) -> Option<Ring> {
        self.keys.place(name).map(Ring)
    }

    /// A tag no other call has.
    pub(crate) fn tag(&mut self) -> CallTag {
        let call = self.next_call;
        self.next_call += 1;
        TagParts { sender: self.tagger, call, second: (self.keys.clock)() }.emit()
    }

    /// Makes an envelope of the text behind the room for its header.
    pub(crate) fn seal(&mut self, seal: &Seal, bytes: &mut Vec<u8>) -> Result<(), JobError> {
        let header = self.next_header(seal)?;
        let (room, text) = bytes.split_first_chunk_mut().ok_or(JobError::Corrupt)?;
        header.emit_to(room);
        let aad = Aad::from(envelope::associated(room, seal));
        let nonce = Nonce::assume_unique_for_key(envelope::nonce(room));
        let own = self.own.get(usize::from(seal.ring.0)).and_then(Option::as_ref);
        let tag = own.and_then(|own| own.cipher.seal_in_place_separate_tag(nonce, aad, text).ok());
        let tag = tag.ok_or(JobError::UnknownKey)?;
        bytes.extend_from_slice(tag.as_ref());
        add(&self.counters.sealed);
        Ok(())
    }

    /// The next header of this ring; its counter is used up.
    #[inline]
    pub(crate) fn next_header(&mut self, seal: &Seal) -> Result<Header, JobError> {
        let at = usize::from(seal.ring.0);
        let known = self.own.get(at).and_then(Option::as_ref).filter(|_| self.next_counter < SEALS_MAX);
        let stamp = match known {
            Some(own) => own.stamp,
            None => self.begin_ring(at)?,
        };
        let counter = self.next_counter;
        self.next_counter += 1;
        Ok(stamp.header(counter, seal))
    }

    /// Derives the key that seals for a ring; from another seat if this one has sealed what it may.
    #[cold]
    fn begin_ring(&mut self, at: usize) -> Result<Stamp, JobError> {
        self.epoch += 1;
        if self.next_counter == SEALS_MAX {
            self.seat = self.keys.seat().ok_or(JobError::UnknownKey)?;
            self.next_counter = 0;
            self.own.fill_with(|| None);
        }
        let Some(own) = self.own.get_mut(at) else {
            add(&self.counters.unknown_key);
            return Err(JobError::UnknownKey);
        };
        let named = self.rings.get(at).and_then(|ring| ring.sealing()).ok_or(JobError::UnknownKey)?;
        let cipher = Derived::new(named, self.seat).and_then(|key| key.cipher());
        let stamp = Stamp::new(named.id, self.seat);
        *own = Some(Own { stamp, cipher: cipher.ok_or(JobError::UnknownKey)? });
        Ok(stamp)
    }

    /// Makes what was sealed of its envelope, behind the header, and fills in what only its sealer knew. On failure nothing
    /// of it is left.
    pub(crate) fn open(&mut self, seal: &mut Seal, bytes: &mut Vec<u8>) -> Result<(), JobError> {
        let result = self.try_open(seal, bytes);
        if result.is_err() {
            bytes.truncate(HEADER_BYTES);
        }
        self.count_open(result);
        result
    }

    fn try_open(&mut self, seal: &mut Seal, bytes: &mut Vec<u8>) -> Result<(), JobError> {
        let header = self.begin_open(seal, bytes)?;
        let (head, text) = bytes.split_first_chunk_mut().ok_or(JobError::Corrupt)?;
        let (aad, nonce) = (envelope::associated(head, seal), envelope::nonce(head));
        let name = FarName::of(seal, &header);
        let mut unseal = |cipher: &LessSafeKey| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            cipher.open_in_place(nonce, Aad::from(aad), text).map(|_| ()).map_err(|_| JobError::Forged)
        };
        match self.far.find(&name) {
            Some(cipher) => unseal(cipher)?,
            None => {
                let cipher = self.derive(&name).and_then(|key| key.cipher()).ok_or(JobError::UnknownKey)?;
                unseal(&cipher)?;
                // Kept only now: nobody without the named key can push the others' out.
                let evicted = self.far.keep(name, cipher);
                add(&self.counters.derived);
                if evicted {
                    add(&self.counters.evicted);
                }
            }
        }
        bytes.truncate(bytes.len() - TAG_BYTES);
        self.finish_open(seal, header.flags())
    }

    // ---- the steps, for a device that does the cipher ----------------------------------------------------

    /// Takes an envelope apart, if there is a key for it.
    pub(crate) fn begin_open(&self, seal: &Seal, input: &[u8]) -> Result<Header, JobError> {
        let header = Header::parse(input)?;
        let ring = self.rings.get(usize::from(seal.ring.0)).ok_or(JobError::UnknownKey)?;
        ring.find(header.stamp().key()).ok_or(JobError::UnknownKey)?;
        Ok(header)
    }

    /// The envelope has proved to be its sealer's: judges the call, and fills in what only the sealer knew.
    #[inline]
    pub(crate) fn finish_open(&mut self, seal: &mut Seal, flags: Flags) -> Result<(), JobError> {
        if seal.is_request && seal.index == 0 {
            self.record(&seal.tag)?;
        }
        seal.is_final = flags.is_final();
        seal.encoding = flags.encoding();
        Ok(())
    }

    /// A call has begun; not among what is done for each message.
    #[inline(never)]
    fn record(&mut self, tag: &CallTag) -> Result<(), JobError> {
        self.keys.replay.record(&mut self.met, &TagParts::parse(tag), (self.keys.clock)())
    }

    /// Counts how opening an envelope went.
    pub(crate) fn count_open(&self, result: Result<(), JobError>) {
        let counters = &*self.counters;
        add(match result {
            Ok(()) => &counters.opened,
            Err(JobError::UnknownKey) => &counters.unknown_key,
            Err(JobError::Forged) => &counters.forged,
            Err(JobError::Replayed) => &counters.replayed,
            Err(JobError::Expired) => &counters.expired,
            Err(JobError::Corrupt | JobError::TooLarge) => &counters.malformed,
            // The device's, and counted as that.
            Err(JobError::Lost) => return,
        });
    }

    /// The key of this name, derived.
    fn derive(&self, name: &FarName) -> Option<Derived> {
        let named = self.rings.get(usize::from(name.ring))?.find(name.stamp.key())?;
        Derived::new(named, name.stamp.sender())
    }
}

/// What a device's lane needs besides.
#[cfg(feature = "dpdk")]
impl Sealer {
    /// Counts messages that the device sealed and opened.
    pub(crate) fn count_device(&self, sealed: u64, opened: u64) {
        for (counter, more) in [(&self.counters.sealed, sealed), (&self.counters.opened, opened)] {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// This envelope has been opened, by another sealer of the queue's: its sender has proved itself here too.
    pub(crate) fn learn(&mut self, seal: &Seal, opened: &[u8]) {
        let Ok(header) = Header::read(opened) else { return };
        let name = FarName::of(seal, &header);
        if self.far.knows(&name) {
            return;
        }
        if let Some(cipher) = self.derive(&name).and_then(|key| key.cipher()) {
            add(&self.counters.derived);
            if self.far.keep(name, cipher) {
                add(&self.counters.evicted);
            }
        }
    }

    /// True if a message under this key has been opened here.
    pub(crate) fn knows(&self, name: &FarName) -> bool {
        self.far.knows(name)
    }

    /// The bytes of a key, own or far.
    pub(crate) fn key(&self, name: &FarName) -> Option<Derived> {
        self.derive(name)
    }

    /// Changes when a key may have become another.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// As if all but so many messages of this seat had been sealed.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self, left: u64) {
        self.next_counter = SEALS_MAX - left;
    }

    /// The node's clock, seconds.
    pub(crate) fn now_s(&self) -> u32 {
        (self.keys.clock)()
    }
}

#[cfg(test)]
pub(crate) mod tests;
