//! What both backends keep in the same way: events waiting to be told, deadlines, accepted sockets, limits.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shard::{Burst, ConnId, Event, Instant, ListenerId, Peer};

use crate::counters::add;
use crate::listen::Door;
use crate::outgoing::TxPool;
use crate::placement::Handed;
use crate::wait::{SPIN_NS, WaitPolicy};
use crate::{Config, Counters, Limits, Listeners, Placement, Rx, Waker, os};

/// How long a closed connection may go on sending what was accepted.
const LINGER: Duration = Duration::from_secs(1);
/// The first pause after a failed accept; doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause after failed accepts.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where a connection is in its life.
///
/// ```text
///   Connecting ──► Open ──► Closing ──► Dead
///        └───────────┴─► Ended ───────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// `Connected` or `Failed` will follow.
    Connecting,
    Open,
    /// The peer or the kernel ended it; the event that says so waits to be told.
    Ended,
    /// The shard closed it; bytes accepted before are still going out. The id is stale.
    Closing,
    /// The kernel still has something of it in hand. The id is stale. Only io_uring keeps things.
    #[cfg_attr(not(feature = "uring"), expect(dead_code, reason = "only io_uring keeps things"))]
    Dead,
}

/// Moments at which a transport must act by itself.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// Constant delays, so in order of arrival.
    connects: VecDeque<(Instant, ConnId)>,
    lingers: VecDeque<(Instant, ConnId)>,
    accept: Option<Instant>,
    accept_pause: Duration,
}

/// A deadline that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Connect(ConnId),
    Linger(ConnId),
    Accept,
}

impl Deadlines {
    pub(crate) fn linger(&mut self, conn: ConnId) {
        self.lingers.push_back((os::now().after(LINGER), conn));
    }

    pub(crate) fn connect(&mut self, conn: ConnId, timeout: Duration) {
        self.connects.push_back((os::now().after(timeout), conn));
    }

    /// An accept failed: none for a while.
    pub(crate) fn pause_accept(&mut self) {
        self.accept_pause = (self.accept_pause * 2).clamp(ACCEPT_PAUSE_MIN, ACCEPT_PAUSE_MAX);
        self.accept = Some(os::now().after(self.accept_pause));
    }

    /// An accept succeeded.
    pub(crate) fn accept_works(&mut self) {
        self.accept_pause = Duration::ZERO;
    }

    pub(crate) fn accept_paused(&self) -> bool {
        self.accept.is_some()
    }

    /// The next one.
    pub(crate) fn next(&self) -> Option<Instant> {
        let connect = self.connects.front().map(|&(at, _)| at);
        let linger = self.lingers.front().map(|&(at, _)| at);
        [connect, linger, self.accept].into_iter().flatten().min()
    }

    /// Takes one that has passed.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.accept.is_some_and(|at| at <= now) {
            self.accept = None;
            return Some(Due::Accept);
        }
        let passed = |queue: &mut VecDeque<(Instant, ConnId)>| match queue.front() {
            Some(&(at, conn)) if at <= now => queue.pop_front().map(|_| conn),
            _ => None,
        };
        passed(&mut self.connects).map(Due::Connect).or_else(|| passed(&mut self.lingers).map(Due::Linger))
    }
}

/// The part of a transport that does not depend on how the kernel is asked.
pub(crate) struct Base {
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) waker: Waker,
    pub(crate) doors: Vec<Arc<Door>>,
    pub(crate) accepting: bool,
    pub(crate) events: VecDeque<Event<Rx>>,
    pub(crate) pool: TxPool,
    pub(crate) policy: WaitPolicy,
    pub(crate) deadlines: Deadlines,
    placement: Arc<Placement>,
    shard: usize,
    /// The waker was rung during a wait: look for handed-over sockets.
    woken: bool,
}

impl Base {
    pub(crate) fn new(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
        waker: Waker,
    ) -> Self {
        let doors = listeners.doors().to_vec();
        for door in &doors {
            door.enter();
        }
        Self {
            limits: config.limits,
            counters: Arc::new(Counters::default()),
            waker,
            doors,
            accepting: true,
            events: VecDeque::with_capacity(64),
            pool: TxPool::default(),
            policy: WaitPolicy::new(config.poll),
            deadlines: Deadlines::default(),
            placement,
            shard,
            woken: false,
        }
    }

    /// Tells an event, after those that wait already.
    pub(crate) fn tell(&mut self, event: Event<Rx>, out: &mut Burst<Event<Rx>>) {
        if !self.events.is_empty() {
            self.events.push_back(event);
        } else if let Err(event) = out.push(event) {
            self.events.push_back(event);
        }
    }

    /// The next deadline, or the caller's if that is sooner.
    pub(crate) fn until(&self, until: Option<Instant>) -> Option<Instant> {
        [until, self.deadlines.next()].into_iter().flatten().min()
    }

    /// A wait that began at `from` is over.
    pub(crate) fn waited(&mut self, from: Instant, blocked: bool, event: bool) {
        let gap_ns = os::now().since_ns(from);
        // A deadline soon after says nothing about events.
        if event || gap_ns > SPIN_NS {
            self.policy.ended(gap_ns, blocked);
        }
        if !blocked && event {
            add(&self.counters.spins_paid, 1);
        }
        self.has_news();
    }

    pub(crate) fn count_open(&self, open: u32) {
        self.counters.conns_open.store(open.into(), Ordering::Relaxed);
    }

    /// Decides where an accepted socket lives: here, if it is given back.
    pub(crate) fn place(&mut self, handed: Handed) -> Option<Handed> {
        let stays = self.placement.place(self.shard, handed);
        if stays.is_none() {
            add(&self.counters.handed_over, 1);
        }
        stays
    }

    /// The next socket another shard handed over, if anybody rang.
    pub(crate) fn take_handed(&mut self) -> Option<(std::os::fd::OwnedFd, ListenerId, Peer)> {
        if !self.woken && !self.waker.is_pending() {
            return None;
        }
        let handed = self.placement.take(self.shard);
        if handed.is_none() {
            self.woken = false;
        }
        handed.map(|h| (h.fd, h.listener, h.peer))
    }

    /// True if a wait should not begin: there is something to tell or somebody rang.
    pub(crate) fn has_news(&mut self) -> bool {
        if self.waker.take() {
            self.woken = true;
        }
        self.woken || !self.events.is_empty()
    }

    /// An accepted connection is gone.
    pub(crate) fn accepted_gone(&self) {
        self.placement.closed(self.shard);
    }

    pub(crate) fn publish(&mut self, calls: u32) {
        self.policy.calls(calls);
        self.placement.publish(self.shard, calls);
    }

    /// Stops accepting; true if it had not been stopped before.
    pub(crate) fn stop_accepting(&mut self) -> bool {
        if !self.accepting {
            return false;
        }
        self.accepting = false;
        self.placement.leave(self.shard);
        for door in &self.doors {
            door.leave();
        }
        true
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.stop_accepting();
        // Sockets that were on their way here have nobody to go to.
        while self.placement.take(self.shard).is_some() {}
    }
}

/// The connection an event is about.
pub(crate) fn subject(event: &Event<Rx>) -> ConnId {
    match event {
        Event::Accepted(id, ..)
        | Event::Data(id, _)
        | Event::Eof(id)
        | Event::Reset(id, _)
        | Event::Connected(id)
        | Event::Failed(id, _)
        | Event::Writable(id) => *id,
    }
}
