//! Jobs on DPDK's compression and cryptography devices: one queue pair of each for a shard.
//!
//! While a job is under way its two vectors are the queue pair's (`dpdk_sys`), which software is pointed at and hardware
//! gets a copy of. The input is only read until the device is done: a job that fails is as it was. Of a device that has
//! died, jobs come back as copies, and what it may still write stays where it is. So whatever becomes of the device, its
//! jobs are still ours, and go to the CPU. Drivers that seal on this core do it in place, and at once: nothing is under way
//! there; one that says it failed has perhaps spoilt the text, which ends that call and the driver's use.
//!
//! Not here: which jobs go to a device at all (`placement`), and what becomes of those it gives back (`queue`).

mod aead;
mod deflate;

use std::collections::VecDeque;

use dpdk_sys::{AcceleratorOptions, Buffers, Cipher, Compressor, Eal, Error, Memory, Options, is_pci};
use shard::{Burst, Done, Job, JobError, Work};

use crate::seal::Sealer;
use aead::AeadLane;
use deflate::DeflateLane;

/// Jobs a lane has under way.
const DEPTH: u16 = 64;
/// A device that has given nothing back for this long is dead, seconds.
const DEAD_AFTER_S: u32 = 3;
/// Keys a lane keeps on its device.
const SESSIONS_MAX: u16 = 256;

/// Which devices a node opens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceOptions {
    /// A compressdev: its PCI address or device string.
    pub compression: Option<String>,
    /// A cryptodev.
    pub crypto: Option<String>,
    /// Where buffers live.
    pub memory: DeviceMemory,
    /// Other DPDK devices of the node, which its one EAL must know of at start.
    pub others: Vec<String>,
    /// Copies bytes into the device's memory, as hardware needs it, for software too.
    pub copies: bool,
}

/// Where a device's buffers live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceMemory {
    /// Hugepages where there are some.
    #[default]
    Auto,
    /// Hugepages.
    Huge,
    /// Ordinary pages, at most so many MiB.
    Ordinary(u32),
}

/// The devices of a node, a lane for each shard.
pub struct Devices {
    lanes: Vec<Option<Lanes>>,
}

/// Why a device is not used. One line, with what to do.
pub type DeviceError = Error;

impl Devices {
    /// Opens what is named, with a queue pair for each of `shards`.
    ///
    /// # Errors
    /// DPDK's, with a hint.
    pub fn open(options: &DeviceOptions, shards: u16) -> Result<Self, DeviceError> {
        let mut lanes: Vec<_> = (0..shards).map(|_| Some(Lanes::default())).collect();
        let named = [&options.compression, &options.crypto];
        let mut devices = named.into_iter().flatten().chain(&options.others).map(String::as_str);
        if options.compression.is_none() && options.crypto.is_none() {
            return Ok(Self { lanes });
        }
        let address = |device: &str| is_pci(device.split(',').next().unwrap_or(device));
        let memory = match options.memory {
            DeviceMemory::Auto => Memory::Auto,
            DeviceMemory::Huge => Memory::Huge,
            DeviceMemory::Ordinary(mib) => Memory::Ordinary { mib },
        };
        let pci = devices.by_ref().filter(|device| address(device)).map(str::to_owned).collect();
        let eal = Eal::start(&Options { memory, pci })?;
        let pair = AcceleratorOptions { queues: shards, depth: DEPTH, copies: options.copies };
        let many = |error: Error| {
            if shards > 8 {
                return error
                    .with_hint("software devices have 8 queue pairs, one a shard: max_nb_queue_pairs=N");
            }
            error
        };
        if let Some(device) = &options.compression {
            // Level 1, as on the CPU: a call waits for this.
            let mut open = Compressor::open(eal, device, pair, Some(1)).map_err(many)?;
            for (at, lanes) in (0..shards).zip(lanes.iter_mut().flatten()) {
                lanes.deflate = open.queue(at).map(DeflateLane::new);
            }
        }
        if let Some(device) = &options.crypto {
            let sessions = u32::from(SESSIONS_MAX) * u32::from(shards);
            let mut open = Cipher::open(eal, device, pair, sessions).map_err(many)?;
            for (at, lanes) in (0..shards).zip(lanes.iter_mut().flatten()) {
                lanes.aead = open.queue(at).map(AeadLane::new);
            }
        }
        Ok(Self { lanes })
    }

    /// A shard's lanes; each once. `None` if no device is open.
    pub fn take(&mut self, shard: usize) -> Option<Lanes> {
        let lanes = self.lanes.get_mut(shard)?.take()?;
        (lanes.deflate.is_some() || lanes.aead.is_some()).then_some(lanes)
    }

    /// Gives back what was taken for a while.
    pub(crate) fn put(&mut self, shard: usize, lanes: Lanes) {
        if let Some(place) = self.lanes.get_mut(shard) {
            *place = Some(lanes);
        }
    }
}

impl core::fmt::Debug for Devices {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Devices({} shards)", self.lanes.len())
    }
}

/// Why a lane did not take a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No room now.
    Full,
    /// The device cannot do this one.
    Unfit,
    /// The device is dead.
    Dead,
    /// There is no device for such work.
    Absent,
}

impl From<dpdk_sys::Refusal> for Refusal {
    fn from(refusal: dpdk_sys::Refusal) -> Self {
        match refusal {
            dpdk_sys::Refusal::Full => Self::Full,
            dpdk_sys::Refusal::Unfit => Self::Unfit,
        }
    }
}

/// What lanes give back.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Done: a list to be handed over as it is.
    pub(crate) ready: Burst<Done>,
    /// Done too, when that is full.
    pub(crate) later: VecDeque<Done>,
    /// For the CPU to do, and why.
    pub(crate) again: VecDeque<Box<Job>>,
    /// Jobs the device failed at.
    pub(crate) failed: u64,
    /// Devices that have died since this was last looked at.
    pub(crate) died: Vec<&'static str>,
}

impl Outbox {
    #[inline]
    fn done(&mut self, job: Box<Job>, result: Result<(), JobError>) {
        if let Err(one) = self.ready.push(Done { job, result }) {
            self.later.push_back(one);
        }
    }

    /// Results that are here.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.later.len() + self.again.len()
    }

    /// True unless the caller has to take something first.
    fn has_room(&self) -> bool {
        self.later.is_empty()
    }

    /// Moves what is done.
    #[inline]
    pub(crate) fn hand_over(&mut self, done: &mut Burst<Done>) {
        if done.is_empty() {
            core::mem::swap(done, &mut self.ready);
        }
        for one in self.ready.drain_front(done.room()) {
            let is_in = done.push(one).is_ok();
            debug_assert!(is_in);
        }
        while done.room() > 0 {
            let Some(one) = self.later.pop_front() else { break };
            let is_in = done.push(one).is_ok();
            debug_assert!(is_in);
        }
    }
}

/// A job under way on a device, and what the lane has to remember of it.
struct Carried<M> {
    job: Box<Job>,
    mark: M,
}

impl<M> Buffers for Carried<M> {
    #[inline]
    fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        (&mut self.job.input, &mut self.job.output)
    }
}

/// A shard's part of the devices.
#[derive(Default)]
pub struct Lanes {
    deflate: Option<DeflateLane>,
    aead: Option<AeadLane>,
}

impl Lanes {
    /// True if there is a device for this work.
    pub(crate) fn has(&self, work: &Work) -> bool {
        match work {
            Work::Compress(_) | Work::Decompress(..) => self.deflate.is_some(),
            Work::Seal(_) | Work::Open(_) => self.aead.is_some(),
        }
    }

    /// Takes a job, or gives it back as it was.
    #[inline]
    pub(crate) fn take(
        &mut self,
        job: Box<Job>,
        sealer: &mut Sealer,
        out: &mut Outbox,
    ) -> Result<(), (Refusal, Box<Job>)> {
        match (&job.work, &mut self.deflate, &mut self.aead) {
            (Work::Seal(_) | Work::Open(_), _, Some(lane)) => lane.take(job, sealer, out),
            (Work::Compress(_) | Work::Decompress(..), Some(lane), _) => lane.take(job, out),
            _ => Err((Refusal::Absent, job)),
        }
    }

    /// Hands over what has been taken since: a burst.
    pub(crate) fn flush(&mut self) {
        if let Some(lane) = &mut self.deflate {
            lane.flush();
        }
        if let Some(lane) = &mut self.aead {
            lane.flush();
        }
    }

    /// Collects what is done.
    pub(crate) fn poll(&mut self, sealer: &mut Sealer, out: &mut Outbox) {
        if let Some(lane) = &mut self.deflate
            && lane.under_way() > 0
        {
            lane.flush();
            let is_moving = !out.has_room() || lane.poll(out) > 0 || lane.under_way() == 0;
            if lane.watch.is_dead(is_moving, sealer) {
                lane.die(out);
                out.died.push("compression");
            }
        }
        if let Some(lane) = &mut self.aead
            && lane.under_way() > 0
        {
            lane.flush();
            let is_moving = !out.has_room() || lane.poll(sealer, out) > 0 || lane.under_way() == 0;
            if lane.watch.is_dead(is_moving, sealer) {
                lane.die(out);
                out.died.push("crypto");
            }
        }
    }

    /// Jobs taken and not given back.
    pub(crate) fn under_way(&self) -> usize {
        self.deflate.as_ref().map_or(0, DeflateLane::under_way)
            + self.aead.as_ref().map_or(0, AeadLane::under_way)
    }

    /// Forgets keys that were for timing only.
    pub(crate) fn forget_keys(&mut self) {
        if let Some(lane) = &mut self.aead {
            lane.forget();
        }
    }

    /// The devices' completions stop coming.
    #[cfg(test)]
    pub(crate) fn fall_silent(&mut self) {
        if let Some(lane) = &mut self.deflate {
            lane.watch.is_silenced = true;
        }
        if let Some(lane) = &mut self.aead {
            lane.watch.is_silenced = true;
        }
    }
}

/// Finds out that a device has stopped working.
#[derive(Default)]
struct Watch {
    /// Since when nothing has come back.
    since: Option<u32>,
    is_dead: bool,
    /// It has lost a job.
    is_broken: bool,
    #[cfg(test)]
    is_silenced: bool,
}

impl Watch {
    /// Asked after each poll with jobs under way.
    fn is_dead(&mut self, is_moving: bool, sealer: &Sealer) -> bool {
        if self.is_broken {
            self.is_dead = true;
            return true;
        }
        if is_moving {
            self.since = None;
            return false;
        }
        let now = sealer.now_s();
        let since = *self.since.get_or_insert(now);
        self.is_dead = now.saturating_sub(since) >= DEAD_AFTER_S;
        self.is_dead
    }

    /// True if completions may be asked for.
    fn hears(&self) -> bool {
        #[cfg(test)]
        if self.is_silenced {
            return false;
        }
        !self.is_dead
    }
}
