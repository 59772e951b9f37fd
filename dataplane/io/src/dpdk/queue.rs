//! One queue pair as the shard's [`Device`].

use core::time::Duration;
use std::sync::Arc;

use dpdk_sys::{Lcore, Mbuf, RxChecksum, Stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shard::{Burst, Device, DeviceInfo, Instant};

use super::checksum::layers;
use super::{Counters, Seat};
use crate::counters::add;
use crate::wait::SPIN_NS;
use crate::{Poll, Waker, os};

/// The shortest sleep: below this the timer's own slack is longer.
const NAP_MIN_NS: u64 = 20_000;
/// The longest: what a frame after a long silence may wait.
const NAP_MAX_NS: u64 = 1_000_000;
/// A sleep is this part of the silence so far.
const NAP_SHARE: u64 = 4;
/// How long an answer to "is the link up" is good for: some drivers make a system call of it.
const LINK_TTL: Duration = Duration::from_millis(10);
/// When a link that went down is first looked after, where the driver does not do so by itself; then each time
/// after twice as long, so that a slow peer can finish its handshake,
const REVIVE_FIRST: Duration = Duration::from_secs(1);
/// but at least so often.
const REVIVE_LAST: Duration = Duration::from_secs(4);
/// Bytes of an ethernet header.
const ETHERNET: usize = 14;

/// A queue pair of a DPDK port, on the thread that has opened it.
#[derive(Debug)]
pub struct Queue {
    queue: dpdk_sys::Queue,
    info: DeviceInfo,
    poll: Poll,
    waker: Waker,
    counters: Arc<Counters>,
    /// Frames a wait has found, oldest first: handed out before others.
    held: Vec<Mbuf>,
    /// Empty between bursts.
    scratch: Vec<Mbuf>,
    link: (bool, Option<Instant>),
    /// When a link that is still down is to be revived.
    revive_at: Instant,
    revive_pause: Duration,
    /// When a burst last brought something.
    last_rx: Instant,
    // Last: everything above uses it while being dropped.
    _lcore: Lcore,
}

impl Queue {
    pub(super) fn new(seat: Seat, lcore: Lcore) -> Self {
        Self {
            queue: seat.queue,
            info: seat.info,
            poll: seat.poll,
            waker: seat.waker,
            counters: seat.counters,
            held: Vec::with_capacity(Burst::<Mbuf>::MAX),
            scratch: Vec::with_capacity(Burst::<Mbuf>::MAX),
            link: (false, None),
            revive_at: os::now().after(REVIVE_FIRST),
            revive_pause: REVIVE_FIRST,
            last_rx: os::now(),
            _lcore: lcore,
        }
    }

    /// Ends this queue's waits, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What it has done.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What it has done, and on the port's first queue what the driver has counted that we could not: by name.
    pub fn totals(&self) -> Vec<(&'static str, u64)> {
        let mut totals: Vec<_> = self.counters.snapshot().iter().collect();
        if self.queue.index() == 0 {
            let Stats { rx_missed, rx_errors, tx_errors, rx_no_buffer, .. } = self.queue.port_stats();
            totals.extend([
                ("port_rx_missed", rx_missed),
                ("port_rx_errors", rx_errors),
                ("port_tx_errors", tx_errors),
                ("port_rx_no_buffer", rx_no_buffer),
            ]);
        }
        totals
    }

    /// Its buffers: how many there are, and how many are out, in rings or with their owners.
    pub fn buffers(&self) -> [u64; 2] {
        let count = self.queue.pool().count();
        [count.size.into(), count.in_use.into()]
    }

    /// Looks for frames and keeps them for the next `rx_burst`: true if there are any.
    pub fn has_frames(&mut self) -> bool {
        if self.held.is_empty() {
            let mut held = core::mem::take(&mut self.held);
            self.receive(&mut held, Burst::<Mbuf>::MAX);
            self.held = held;
        }
        !self.held.is_empty()
    }

    /// When `link_up` must be asked although nothing has come: a link that is down may need it to come up.
    pub fn retry_at(&self) -> Option<Instant> {
        (!self.link.0 && self.queue.needs_revival()).then_some(self.revive_at)
    }

    /// Receives, drops what is wrong, counts.
    fn receive(&mut self, out: &mut Vec<Mbuf>, max: usize) {
        let received = self.queue.rx_burst(out, max);
        if received.frames + received.dropped == 0 {
            return;
        }
        let fresh = out.len() - received.frames;
        let counters = &self.counters;
        add(&counters.rx_bursts, 1);
        add(&counters.rx_frames, (received.frames + received.dropped) as u64);
        add(&counters.rx_oversize, received.dropped as u64);
        add(&counters.rx_bytes, out[fresh..].iter().map(|frame| frame.len() as u64).sum());
        if self.info.checksums.rx {
            let mut at = 0;
            out.retain(|frame| {
                at += 1;
                at <= fresh || sound(frame)
            });
            add(&counters.rx_bad_checksum, (fresh + received.frames - out.len()) as u64);
        }
    }

    /// Sends from the front of `scratch`; what is left stays there.
    fn send(&mut self) {
        let (offered, bytes) = (self.scratch.len(), total(&self.scratch));
        let mut ready = offered;
        if self.info.checksums.tx {
            for frame in &mut self.scratch {
                if let Some(what) = layers(frame).and_then(|layers| layers.request(frame)) {
                    frame.set_tx_checksum(what);
                }
            }
            ready = self.queue.tx_prepare(&mut self.scratch);
        }
        let sent = self.queue.tx_burst(&mut self.scratch, ready);
        add(&self.counters.tx_frames, sent as u64);
        add(&self.counters.tx_bytes, bytes - total(&self.scratch));
        if sent < ready {
            add(&self.counters.tx_cut, 1);
        } else if ready < offered {
            // The driver refuses the frame now in front, and would for ever.
            drop(self.scratch.remove(0));
            add(&self.counters.tx_refused, 1);
        }
    }

    /// Sleeps for a time, or until the waker is rung.
    fn nap(&self, ns: u64) {
        let timeout = Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        };
        let mut fds = [PollFd::new(self.waker.event(), PollFlags::IN)];
        // Interrupted or refused: the caller looks at its clock and comes back.
        if matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0) {
            let mut count = [0; 8];
            let _ = rustix::io::read(self.waker.event(), &mut count);
        }
    }
}

impl Device for Queue {
    type Frame = Mbuf;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut Burst<Mbuf>) {
        if self.held.is_empty() {
            let mut scratch = core::mem::take(&mut self.scratch);
            self.receive(&mut scratch, out.room());
            move_front(&mut scratch, out);
            self.scratch = scratch;
        } else {
            move_front(&mut self.held, out);
        }
    }

    fn frame(&mut self, len: usize) -> Option<Mbuf> {
        if len > self.info.mtu + ETHERNET {
            add(&self.counters.frame_oversize, 1);
            return None;
        }
        let frame = self.queue.pool().alloc(len);
        if frame.is_none() {
            add(&self.counters.no_buffer, 1);
        }
        frame
    }

    fn tx_burst(&mut self, frames: &mut Burst<Mbuf>) {
        if frames.is_empty() {
            return;
        }
        self.scratch.extend(frames.drain());
        self.send();
        let mut scratch = core::mem::take(&mut self.scratch);
        move_front(&mut scratch, frames);
        self.scratch = scratch;
    }

    fn link_up(&mut self, now: Instant) -> bool {
        let (up, asked) = self.link;
        if asked.is_some_and(|asked| now < asked.after(LINK_TTL)) {
            return up;
        }
        let up = self.queue.link().up;
        self.link = (up, Some(now));
        if up {
            self.revive_pause = REVIVE_FIRST;
            self.revive_at = now.after(REVIVE_FIRST);
        } else if now >= self.revive_at {
            self.queue.revive();
            self.revive_pause = (self.revive_pause * 2).min(REVIVE_LAST);
            self.revive_at = os::now().after(self.revive_pause);
        }
        up
    }

    fn wait(&mut self, until: Option<Instant>) {
        let began = os::now();
        let over = |now: Instant| until.is_some_and(|until| now >= until);
        if self.has_frames() {
            self.last_rx = began;
            return;
        }
        let spin_ns = match self.poll {
            Poll::Adaptive => SPIN_NS,
            Poll::Busy => u64::MAX,
            Poll::Block => 0,
        };
        let mut now = began;
        while now.since_ns(began) < spin_ns {
            if over(now) || self.waker.take() {
                return;
            }
            core::hint::spin_loop();
            now = os::now();
            if self.has_frames() {
                self.last_rx = now;
                add(&self.counters.spins_paid, 1);
                return;
            }
        }
        while !over(now) && !self.waker.is_pending() {
            let share = (now.since_ns(self.last_rx) / NAP_SHARE).clamp(NAP_MIN_NS, NAP_MAX_NS);
            let left = until.map_or(share, |until| until.since_ns(now).min(share));
            add(&self.counters.sleeps, 1);
            self.nap(left);
            now = os::now();
            if self.has_frames() {
                self.last_rx = now;
                return;
            }
        }
        self.waker.take();
    }

    fn now(&self) -> Instant {
        os::now()
    }
}

/// As many as there is room for, in order.
fn move_front(from: &mut Vec<Mbuf>, to: &mut Burst<Mbuf>) {
    let count = to.room().min(from.len());
    for frame in from.drain(..count) {
        // Room was looked for: a frame that finds none goes back to its pool.
        let _ = to.push(frame);
    }
}

/// Their bytes.
fn total(frames: &[Mbuf]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

/// What the port has checked, or else has not and is checked here, is right.
fn sound(frame: &Mbuf) -> bool {
    match frame.rx_checksum() {
        RxChecksum::Good => true,
        RxChecksum::Bad => false,
        RxChecksum::Unknown => layers(frame).is_none_or(|layers| layers.verify(frame)),
    }
}
