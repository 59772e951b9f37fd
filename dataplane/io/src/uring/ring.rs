//! The io_uring itself: setting it up, submitting, entering.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};
use rustix::event::{EventfdFlags, eventfd};

use crate::Counters;
use crate::counters::add;

/// Submissions that fit before an early enter.
const SQ_ENTRIES: u32 = 512;
/// Completions that fit; more are kept by the kernel and cost an enter.
const CQ_ENTRIES: u32 = 4096;
/// IORING_ENTER_GETEVENTS: run deferred work and post its completions.
const GETEVENTS: u32 = 1;
/// IORING_ENTER_EXT_ARG: the argument carries a timeout.
const EXT_ARG: u32 = 1 << 3;
/// IORING_ENTER_NO_IOWAIT: the core counts as idle, not as waiting for a disk, while this waits.
const NO_IOWAIT: u32 = 1 << 7;

/// One io_uring. Used by the thread that made it only.
pub(super) struct Ring {
    ring: IoUring,
    /// Flags of an enter that waits.
    wait_flags: u32,
    /// Signalled with every completion, if somebody polls.
    event: Option<OwnedFd>,
}

/// A ring with the flags `uring` needs, all of Linux 6.1; `newer` asks for one of 6.6, too.
pub(super) fn build(sq: u32, cq: u32, newer: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if newer {
        // One cache line less per submission.
        builder.setup_no_sqarray();
    }
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(cq)
        .build(sq)
}

impl Ring {
    pub(super) fn new(force_baseline: bool) -> io::Result<Self> {
        let newer = if force_baseline { None } else { build(SQ_ENTRIES, CQ_ENTRIES, true).ok() };
        let mut ring = match newer {
            Some(ring) => ring,
            None => build(SQ_ENTRIES, CQ_ENTRIES, false)?,
        };
        let no_iowait = !force_baseline && ring.params().is_feature_no_iowait();
        let wait_flags = GETEVENTS | EXT_ARG | if no_iowait { NO_IOWAIT } else { 0 };
        // Saves looking the descriptor up at each enter; works without.
        let _ = ring.submitter().register_ring_fd();
        ring.completion().sync();
        Ok(Self { ring, wait_flags, event: None })
    }

    /// Has the kernel signal [`Self::as_fd`] from now on. The ring's own descriptor would not do: work that is
    /// deferred until an enter wakes only those who wait in an enter, not those who poll.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.ring.submitter().register_eventfd(event.as_raw_fd())?;
        self.event = Some(event);
        Ok(())
    }

    /// Forgets signals so far. What they were for is found by looking afterwards.
    pub(super) fn forget_signals(&self) {
        if let Some(event) = &self.event {
            // Fails if there were none.
            let _ = rustix::io::read(event, &mut [0_u8; 8]);
        }
    }

    /// Once signalled, readable when there are completions, or work the kernel has deferred until an enter.
    #[expect(unsafe_code, reason = "io-uring lends its descriptor as a number only")]
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.event {
            Some(event) => event.as_fd(),
            // SAFETY: the ring owns the descriptor and is borrowed as long as this.
            None => unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) },
        }
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation; submits the queue first if it is full.
    ///
    /// # Safety
    ///
    /// What the entry points to stays where it is until its completion is in.
    #[expect(unsafe_code, reason = "the caller keeps the entry's memory alive")]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry, counters: &Counters) {
        loop {
            // SAFETY: passed on to the caller.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter(counters);
        }
    }

    /// True if something waits to be submitted.
    pub(super) fn has_submissions(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// True if the kernel has work that only an enter turns into completions.
    pub(super) fn has_deferred(&mut self) -> bool {
        let sq = self.ring.submission();
        sq.taskrun() || sq.cq_overflow()
    }

    /// True if completions can be read without an enter.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Reads completions that are there.
    pub(super) fn completions<'a>(
        &mut self,
        into: &'a mut [core::mem::MaybeUninit<cqueue::Entry>],
    ) -> &'a [cqueue::Entry] {
        self.ring.completion().fill(into)
    }

    /// Completions the kernel could not post at once, so far.
    pub(super) fn overflows(&mut self) -> u64 {
        u64::from(self.ring.completion().overflow())
    }

    /// Submits what is queued and collects what has completed, without waiting.
    #[expect(unsafe_code, reason = "the crate's safe submit does not collect deferred work")]
    pub(super) fn enter(&mut self, counters: &Counters) {
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        add(&counters.enters, 1);
        // SAFETY: no argument is passed, and what queued entries point to is vouched for by `push`.
        let outcome = unsafe { self.ring.submitter().enter::<()>(queued, 0, GETEVENTS, None) };
        // Interrupted, or the completion queue is full: what is left goes with the next enter.
        drop(outcome);
    }

    /// Submits what is queued and waits until something has completed or the time is over.
    #[expect(unsafe_code, reason = "the crate's safe submit does not know NO_IOWAIT")]
    pub(super) fn enter_and_wait(&mut self, timeout_ns: Option<u64>, counters: &Counters) {
        let time = timeout_ns.map(timespec);
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        add(&counters.enters, 1);
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        // SAFETY: the argument is what EXT_ARG says it is and lives through the call, as does the time it
        // points to; what queued entries point to is vouched for by `push`.
        let outcome = unsafe { self.ring.submitter().enter(queued, 1, self.wait_flags, Some(&args)) };
        // Interrupted, timed out, or the completion queue is full: the caller looks at the completions.
        drop(outcome);
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec::new().sec(ns / 1_000_000_000).nsec(u32::try_from(ns % 1_000_000_000).unwrap_or(0))
}
