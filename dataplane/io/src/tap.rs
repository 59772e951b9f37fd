//! A tap on a raw port: copies of its frames for a capture, taken while it runs.
//!
//! [`Tap`] wraps a device and belongs to the shard; its [`TapHandle`] stays with the control side, which arms
//! taps with [`Capture::arm`] and drains what they copied. Between them lie two bounded queues of buffers made
//! at arming: empty ones go to the shard, filled ones come back. The shard never waits: a frame for which no
//! buffer is free is counted as missed. Nobody is woken: the control side looks every few milliseconds.
//!
//! ```text
//! shard  Tap::rx_burst ── filter ── copy ──► full ──► Capture::drain ── pcapng
//!                                      ◄──── free ◄──
//! ```
//!
//! Not armed, a tap costs one load and two branches a burst.

mod filter;
mod frame;
pub mod pcapng;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use shard::{Burst, Device, DeviceInfo, Instant};

pub use filter::{Filter, FilterError};

/// The longest copy of a frame.
pub const SNAPLEN_MAX: usize = 16_384;
/// Frames handed over by one [`Capture::drain`] of one tap.
const DRAIN_MAX: usize = 4096;

/// Which way a frame went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received by the port.
    In,
    /// Sent by the port.
    Out,
}

/// A copy of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// When its burst was taken or given, by the device's clock.
    pub at: Instant,
    /// Which way it went.
    pub direction: Direction,
    /// Its first bytes: at most the snaplen.
    pub bytes: Vec<u8>,
    /// Bytes of the frame itself.
    pub len: usize,
}

impl Record {
    fn fill(&mut self, at: Instant, direction: Direction, frame: &[u8], snaplen: usize) {
        self.at = at;
        self.direction = direction;
        self.len = frame.len();
        self.bytes.clear();
        self.bytes.extend_from_slice(frame.get(..snaplen).unwrap_or(frame));
    }
}

/// What a capture takes.
#[derive(Clone, Debug)]
pub struct CaptureSpec {
    /// Which frames.
    pub filter: Filter,
    /// Bytes copied of each: at most [`SNAPLEN_MAX`].
    pub snaplen: usize,
    /// Buffers of each tap: how many frames may come between two drains.
    pub buffers: usize,
}

/// One tap's part in one capture.
#[derive(Debug)]
struct Session {
    filter: Filter,
    snaplen: usize,
    free: ArrayQueue<Box<Record>>,
    full: ArrayQueue<Box<Record>>,
    /// Frames that matched when no buffer was free.
    missed: AtomicU64,
    /// The capture has ended.
    over: AtomicBool,
}

impl Session {
    fn new(spec: &CaptureSpec) -> Self {
        let count = spec.buffers.max(1);
        let free = ArrayQueue::new(count);
        let snaplen = spec.snaplen.min(SNAPLEN_MAX);
        for _ in 0..count {
            let (at, direction) = (Instant(0), Direction::In);
            let record = Record { at, direction, bytes: Vec::with_capacity(snaplen), len: 0 };
            // As many as it holds.
            let _ = free.push(Box::new(record));
        }
        Self {
            filter: spec.filter.clone(),
            snaplen,
            free,
            full: ArrayQueue::new(count),
            missed: 0.into(),
            over: false.into(),
        }
    }

    /// A copy, if the frame is of those wanted and there is a buffer for it.
    fn copy(&self, at: Instant, direction: Direction, frame: &[u8]) -> Copied {
        if !self.filter.matches(frame) {
            return Copied::Unwanted;
        }
        let Some(mut record) = self.free.pop() else { return Copied::Missed };
        record.fill(at, direction, frame, self.snaplen);
        Copied::Taken(record)
    }

    fn hand_over(&self, copied: Copied) {
        match copied {
            Copied::Unwanted => {}
            // Only this side adds; the other only looks.
            Copied::Missed => self.missed.store(self.missed.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            // There are no more buffers than it holds.
            Copied::Taken(record) => drop(self.full.push(record)),
        }
    }
}

/// What became of a frame.
#[derive(Debug)]
enum Copied {
    Unwanted,
    Missed,
    Taken(Box<Record>),
}

/// What a tap and its handles share.
#[derive(Debug)]
struct Shared {
    /// Changes whenever there is a session to take up or to leave.
    generation: AtomicU32,
    /// The session to take up; empty when there is none.
    next: ArrayQueue<Arc<Session>>,
    /// A capture has this tap.
    taken: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self { generation: 0.into(), next: ArrayQueue::new(1), taken: false.into() }
    }
}

/// The control side of a tap, from any thread; made before its tap.
#[derive(Clone, Debug, Default)]
pub struct TapHandle(Arc<Shared>);

/// A device that can be listened to.
#[derive(Debug)]
pub struct Tap<D> {
    device: D,
    shared: Arc<Shared>,
    /// The generation `session` is of.
    seen: u32,
    session: Option<Arc<Session>>,
    /// Copies of frames about to be sent; empty between bursts.
    staged: Vec<Copied>,
}

impl<D> Tap<D> {
    /// Wraps a device. A handle has one tap.
    pub fn new(device: D, handle: &TapHandle) -> Self {
        Self { device, shared: Arc::clone(&handle.0), seen: 0, session: None, staged: Vec::new() }
    }

    /// The device.
    pub fn inner(&self) -> &D {
        &self.device
    }

    /// The device. What passes through it here is not captured.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The session, if there is one.
    #[inline]
    fn session(&mut self) -> Option<Arc<Session>> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.seen {
            self.change(generation);
        }
        self.session.clone()
    }

    /// Takes a session up or leaves one. The next one may be here before its generation is, so what is not
    /// over stays.
    #[cold]
    fn change(&mut self, generation: u32) {
        self.seen = generation;
        if let Some(next) = self.shared.next.pop() {
            self.session = Some(next);
        } else if self.session.as_ref().is_some_and(|session| session.over.load(Ordering::Relaxed)) {
            self.session = None;
        }
    }
}

impl<D: Device> Device for Tap<D> {
    type Frame = D::Frame;

    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn rx_burst(&mut self, out: &mut Burst<D::Frame>) {
        let before = out.len();
        self.device.rx_burst(out);
        if let Some(session) = self.session()
            && out.len() > before
        {
            let now = self.device.now();
            for frame in out.as_slice().iter().skip(before) {
                session.hand_over(session.copy(now, Direction::In, frame));
            }
        }
    }

    fn frame(&mut self, len: usize) -> Option<D::Frame> {
        self.device.frame(len)
    }

    fn tx_burst(&mut self, frames: &mut Burst<D::Frame>) {
        let Some(session) = self.session() else {
            return self.device.tx_burst(frames);
        };
        // What the port takes is gone afterwards; what it does not take comes again with the next burst.
        let now = self.device.now();
        let copies = frames.as_slice().iter().map(|frame| session.copy(now, Direction::Out, frame));
        self.staged.extend(copies);
        self.device.tx_burst(frames);
        let sent = self.staged.len().saturating_sub(frames.len());
        for (copied, at) in self.staged.drain(..).zip(0..) {
            match copied {
                copied if at < sent => session.hand_over(copied),
                Copied::Taken(record) => drop(session.free.push(record)),
                Copied::Unwanted | Copied::Missed => {}
            }
        }
    }

    fn link_up(&mut self, now: Instant) -> bool {
        self.device.link_up(now)
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.device.wait(until);
    }

    fn now(&self) -> Instant {
        self.device.now()
    }
}

/// A capture under way. Dropped, the taps are quiet again.
#[derive(Debug)]
pub struct Capture {
    taps: Vec<(TapHandle, Arc<Session>)>,
    /// Taken out of the queues, to be put in order; empty between drains.
    drained: Vec<(Box<Record>, usize)>,
}

impl Capture {
    /// Arms the taps of one port; `None` if another capture has one of them.
    pub fn arm(handles: &[TapHandle], spec: &CaptureSpec) -> Option<Self> {
        let mut capture = Self { taps: Vec::new(), drained: Vec::new() };
        for handle in handles {
            // Those armed so far are let go by `drop`.
            if handle.0.taken.swap(true, Ordering::AcqRel) {
                return None;
            }
            let session = Arc::new(Session::new(spec));
            handle.0.next.force_push(Arc::clone(&session));
            handle.0.generation.fetch_add(1, Ordering::Release);
            capture.taps.push((handle.clone(), session));
        }
        Some(capture)
    }

    /// Hands over what was copied since, in the order of time; how many frames that were.
    pub fn drain(&mut self, mut each: impl FnMut(&Record)) -> usize {
        for (at, (_, session)) in self.taps.iter().enumerate() {
            self.drained.extend(std::iter::from_fn(|| session.full.pop()).take(DRAIN_MAX).map(|r| (r, at)));
        }
        self.drained.sort_by_key(|(record, _)| record.at);
        let count = self.drained.len();
        for (record, at) in self.drained.drain(..) {
            each(&record);
            if let Some((_, session)) = self.taps.get(at) {
                // There are no more buffers than it holds.
                let _ = session.free.push(record);
            }
        }
        count
    }

    /// Frames that matched and were not copied, for want of buffers.
    pub fn missed(&self) -> u64 {
        self.taps.iter().map(|(_, session)| session.missed.load(Ordering::Relaxed)).sum()
    }

    /// Quietens the taps; what they have copied can still be drained.
    pub fn stop(&mut self) {
        for (handle, session) in &self.taps {
            session.over.store(true, Ordering::Relaxed);
            // If the shard has not seen it yet, it never will.
            let _ = handle.0.next.pop();
            handle.0.generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
        for (handle, _) in &self.taps {
            handle.0.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
