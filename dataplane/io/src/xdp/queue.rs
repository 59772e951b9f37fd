//! The device of one shard: its sockets, one umem, and how to wait for them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use core::num::NonZeroU64;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use shard::{Burst, Device, DeviceInfo, Instant};

use super::interface::Interface;
use super::memory::Mapping;
use super::neighbours::Neighbours;
use super::port::Attachment;
use super::socket::Socket;
use super::umem::{Frame, Pool};
use crate::wait::{Plan, WaitPolicy};
use crate::{Poll, Waker, os};

/// The shortest and longest ethernet header; frames shorter than the first are none.
const HEADER: usize = 14;
/// The link's state is asked for once in this time.
const LINK_EVERY_NS: u64 = 10_000_000;
/// Neighbours' answers are looked for at least every so many bursts.
const NEIGHBOURS_EVERY: u32 = 64;
/// With frames stuck, a wait ends after this to try again.
const STUCK_RETRY_NS: u64 = 1_000_000;
/// Looks at the rings between two looks at the clock.
const SPINS_PER_LOOK: usize = 32;

/// What a queue is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) info: DeviceInfo,
    pub(super) memory: Mapping,
    pub(super) chunk_len: usize,
    pub(super) sockets: Vec<Socket>,
    pub(super) neighbours: Option<Neighbours>,
    pub(super) interface: Interface,
    pub(super) waker: Waker,
    pub(super) poll: Poll,
    pub(super) attachment: Arc<Attachment>,
}

/// One shard's device. Its frames are of its own umem; one of another queue is copied when it is sent.
#[derive(Debug)]
pub struct Queue {
    info: DeviceInfo,
    pool: Rc<Pool>,
    /// Frames leave by the first.
    sockets: Vec<Socket>,
    /// Which socket a burst begins with, so that none starves.
    turn: usize,
    neighbours: Option<Neighbours>,
    /// Bursts since neighbours' answers were looked for.
    unheard: u32,
    interface: Interface,
    link: Link,
    waker: Waker,
    /// Sockets, neighbours and waker.
    epoll: Option<OwnedFd>,
    policy: WaitPolicy,
    counters: Counters,
    _attachment: Arc<Attachment>,
}

/// What is known of the interface's state.
#[derive(Debug)]
struct Link {
    up: bool,
    ask_at: Instant,
    /// The interface is gone: another of its name is not this one.
    gone: bool,
}

/// What a queue has counted since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames given to the kernel to send.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames not sent: shorter than an ethernet header, or longer than the MTU allows.
    pub tx_refused: u64,
    /// Times `frame` found no free chunk, or was asked for more than the MTU.
    pub frames_refused: u64,
    /// Received frames the kernel had no free chunk for.
    pub rx_no_chunk: u64,
    /// Received frames the kernel found no room for in the ring.
    pub rx_ring_full: u64,
    /// Received frames the kernel dropped for other reasons, as their length.
    pub rx_dropped: u64,
    /// Descriptors the kernel refused.
    pub invalid: u64,
}

impl Counters {
    /// Name and value of each, for metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("rx_frames", self.rx_frames),
            ("rx_bytes", self.rx_bytes),
            ("tx_frames", self.tx_frames),
            ("tx_bytes", self.tx_bytes),
            ("tx_refused", self.tx_refused),
            ("frames_refused", self.frames_refused),
            ("rx_no_chunk", self.rx_no_chunk),
            ("rx_ring_full", self.rx_ring_full),
            ("rx_dropped", self.rx_dropped),
            ("invalid", self.invalid),
        ]
        .into_iter()
    }
}

/// Where the chunks of a queue are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunks {
    /// All of them.
    pub total: u32,
    /// Free.
    pub free: u32,
    /// In frames.
    pub held: u32,
    /// With the kernel, to receive into, or received and not taken.
    pub rx: u32,
    /// With the kernel, to be sent.
    pub tx: u32,
}

impl Queue {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { info, memory, chunk_len, sockets, neighbours, interface, waker, poll, attachment } =
            parts;
        // By default a sleep may be 50 µs late. A refusal leaves it at that.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let epoll = watch(&sockets, neighbours.as_ref(), &waker).ok();
        let mut queue = Self {
            info,
            pool: Rc::new(Pool::new(memory, chunk_len)),
            sockets,
            turn: 0,
            neighbours,
            unheard: 0,
            interface,
            link: Link { up: false, ask_at: Instant(0), gone: false },
            waker,
            epoll,
            policy: WaitPolicy::new(poll),
            counters: Counters::default(),
            _attachment: attachment,
        };
        for socket in &mut queue.sockets {
            socket.refill(&queue.pool);
        }
        queue
    }

    /// Ends this device's waits, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What was counted. Asks the kernel: not for every turn.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        for statistics in self.sockets.iter().filter_map(Socket::statistics) {
            counters.rx_no_chunk += statistics.rx_fill_ring_empty_descs.unwrap_or(0);
            counters.rx_ring_full += statistics.rx_ring_full.unwrap_or(0);
            counters.rx_dropped += statistics.rx_dropped;
            counters.invalid += statistics.rx_invalid_descs + statistics.tx_invalid_descs;
        }
        counters
    }

    /// Where the chunks are, after those of sent frames were taken back.
    pub fn chunks(&mut self) -> Chunks {
        let (mut rx, mut tx) = (0, 0);
        for socket in &mut self.sockets {
            socket.reap(&self.pool);
            let (for_rx, for_tx) = socket.chunks();
            rx += for_rx;
            tx += for_tx;
        }
        Chunks { total: self.pool.count(), free: self.pool.free(), held: self.pool.held(), rx, tx }
    }

    /// Calls the kernel where it has to be called before this thread sleeps on [`AsFd`]'s descriptor. True if
    /// frames have come already: then the descriptor may not say so.
    pub fn settle(&mut self) -> bool {
        let mut ready = false;
        for socket in &mut self.sockets {
            socket.reap(&self.pool);
            socket.refill(&self.pool);
            socket.wake_rx();
            if socket.is_stuck() {
                socket.wake_tx();
            }
            ready |= socket.rx_ready(1) > 0;
        }
        ready
    }

    /// When a wait has to end for frames that are stuck.
    pub fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.sockets.iter().any(Socket::is_stuck).then(|| now.after_ns(STUCK_RETRY_NS))
    }

    fn has_frames(&mut self) -> bool {
        self.sockets.iter_mut().any(|socket| socket.rx_ready(1) > 0)
    }

    /// A copy of what only the kernel got, if it is time to look.
    fn listen(&mut self, out: &mut Burst<Frame>) {
        let Some(neighbours) = &self.neighbours else { return };
        self.unheard += 1;
        if !out.is_empty() && self.unheard < NEIGHBOURS_EVERY {
            return;
        }
        self.unheard = 0;
        while out.room() > 0
            && let Some(frame) = neighbours.take(&self.pool)
        {
            // There is room, just asked.
            let _ = out.push(frame);
        }
    }

    /// Blocks until something is readable or so much time has passed.
    fn block(&self, timeout_ns: Option<u64>) {
        let timeout = timeout_ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        // A signal ends it early, which a wait may.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

/// All that can end a wait, behind one descriptor.
fn watch(sockets: &[Socket], neighbours: Option<&Neighbours>, waker: &Waker) -> io::Result<OwnedFd> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd: BorrowedFd<'_>| epoll::add(&set, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
    sockets.iter().try_for_each(|socket| add(socket.as_fd()))?;
    neighbours.iter().flat_map(|neighbours| neighbours.descriptors()).try_for_each(add)?;
    add(waker.event().as_fd())?;
    Ok(set)
}

impl AsFd for Queue {
    /// Readable when frames have come or the waker was rung, for a wait of the caller's own: [`Queue::settle`]
    /// comes before it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.epoll {
            Some(epoll) => epoll.as_fd(),
            // No descriptor was left for a set; there is always a socket.
            None => self.sockets[0].as_fd(),
        }
    }
}

impl Device for Queue {
    type Frame = Frame;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut Burst<Frame>) {
        let count = self.sockets.len();
        for step in 0..count {
            let Some(socket) = self.sockets.get_mut((self.turn + step) % count) else { continue };
            let room = u32::try_from(out.room()).unwrap_or(0);
            for _ in 0..socket.rx_ready(room) {
                let frame = socket.rx_pop(&self.pool);
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
                // There is room, just asked.
                let _ = out.push(frame);
            }
            socket.rx_done();
            socket.refill(&self.pool);
            socket.wake_rx();
        }
        self.turn = (self.turn + 1) % count.max(1);
        self.listen(out);
    }

    fn frame(&mut self, len: usize) -> Option<Frame> {
        if len > self.info.mtu + HEADER {
            self.counters.frames_refused += 1;
            return None;
        }
        if self.pool.free() == 0 {
            self.sockets.iter_mut().for_each(|socket| socket.reap(&self.pool));
        }
        let frame = Frame::new(&self.pool, len);
        self.counters.frames_refused += u64::from(frame.is_none());
        frame
    }

    fn tx_burst(&mut self, frames: &mut Burst<Frame>) {
        let Some(socket) = self.sockets.first_mut() else { return };
        socket.reap(&self.pool);
        let room = socket.tx_room(u32::try_from(frames.len()).unwrap_or(0));
        for frame in frames.drain_front(room as usize) {
            if !(HEADER..=self.info.mtu + HEADER).contains(&frame.len()) {
                self.counters.tx_refused += 1;
                continue;
            }
            let frame = if frame.is_of(&self.pool) {
                frame
            } else {
                let Some(mut copy) = Frame::new(&self.pool, frame.len()) else {
                    self.counters.tx_refused += 1;
                    continue;
                };
                copy.copy_from_slice(&frame);
                copy
            };
            self.counters.tx_frames += 1;
            self.counters.tx_bytes += frame.len() as u64;
            socket.tx_push(frame);
        }
        socket.tx_publish();
    }

    fn link_up(&mut self, now: Instant) -> bool {
        if now >= self.link.ask_at && !self.link.gone {
            let running = self.interface.is_running();
            self.link = Link {
                up: running.as_ref().is_ok_and(|&running| running),
                ask_at: now.after_ns(LINK_EVERY_NS),
                gone: running.is_err(),
            };
        }
        self.link.up
    }

    fn wait(&mut self, until: Option<Instant>) {
        let from = os::now();
        let plan = self.policy.plan();
        let spin_until = match plan {
            Plan::Block => Some(from),
            Plan::Spin(ns) => Some(from.after_ns(ns)),
            Plan::SpinForEver => None,
        };
        let (mut now, mut blocked) = (from, false);
        let mut ready = self.settle();
        let until = match (until, self.retry_at(from)) {
            (Some(until), Some(retry)) => Some(until.min(retry)),
            (until, retry) => until.or(retry),
        };
        while !ready && !blocked && !self.waker.is_pending() && until.is_none_or(|until| now < until) {
            if spin_until.is_some_and(|end| end <= now) {
                self.block(until.map(|until| until.since_ns(now)));
                blocked = true;
            } else {
                (0..SPINS_PER_LOOK).for_each(|_| core::hint::spin_loop());
                ready = self.has_frames();
            }
            now = os::now();
        }
        if self.waker.take() {
            self.waker.clear_event();
        }
        self.policy.ended(now.since_ns(from), blocked);
    }

    fn now(&self) -> Instant {
        os::now()
    }
}
