//! The access log: lines are formatted on the shard, written by one thread for the whole node.
//!
//! A shard formats into a buffer per sink and hands it over when it is full or its first line is 10 ms old.
//! Buffers circulate between the shard and the writer, [`BUFFERS_MAX`] for each shard, and the channel has
//! room for all of them: handing over never blocks. When the writer is behind and a shard has no buffer
//! left, its lines are dropped and counted.
//!
//! Invariant: in the steady state nothing here allocates, locks or waits on a shard's thread.

mod known;
mod line;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use shard::{AccessRecord, ElementRecord, Instant, Log, Notice};

use known::Known;
use line::WallClock;
pub(crate) use line::date;
use writer::{Chunk, Message};
pub(crate) use writer::{Target, Writer};

/// A buffer's size.
const BUFFER_BYTES: usize = 256 << 10;
/// A buffer this full is handed over: the longest line still fits behind it.
const HANDOVER_BYTES: usize = BUFFER_BYTES - line::LINE_BYTES_MAX;
/// Buffers of one shard, all sinks together.
const BUFFERS_MAX: usize = 16;
/// How long a line may wait for others.
const LINE_AGE_NS: u64 = 10_000_000;
/// Notices of one kind in a second; more are counted only.
const NOTICES_PER_SECOND: u32 = 2;
/// Kinds of notices told apart.
const NOTICE_KINDS_MAX: usize = 64;
/// The node's own access log.
pub(crate) const SINK_NODE: u16 = 0;
/// Where notices go: standard error.
pub(crate) const SINK_NOTICES: u16 = 1;

/// What became of one shard's lines. Each number has one writer; the control thread reads them.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    /// Lines handed to the writer.
    pub(crate) lines: AtomicU64,
    /// Lines dropped because the writer was behind.
    pub(crate) dropped: AtomicU64,
    /// Lines whose sink could not be written; the writer's to count.
    pub(crate) failed: AtomicU64,
    /// Notices that were counted and not written.
    pub(crate) notices_muted: AtomicU64,
}

impl LogCounters {
    /// Lines handed over, dropped, failed; notices muted.
    pub(crate) fn read(&self) -> [u64; 4] {
        [&self.lines, &self.dropped, &self.failed, &self.notices_muted].map(|c| c.load(Ordering::Relaxed))
    }
}

/// Adds to a counter with one writer.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// When the oldest waiting line was written. Atomic only so that a log can move to its shard's thread.
#[derive(Debug)]
pub(crate) struct Oldest(AtomicU64);

impl Oldest {
    fn none() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    fn get(&self) -> Option<Instant> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ns| *ns != u64::MAX).map(Instant)
    }

    fn set(&self, at: Option<Instant>) {
        self.0.store(at.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    /// When the log wants a turn, to hand over what waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.get().map(|at| at.after_ns(LINE_AGE_NS))
    }
}

/// One shard's end of the log.
pub(crate) struct ShardLog {
    shard: u16,
    /// By sink.
    filling: Vec<Option<Vec<u8>>>,
    /// When the oldest line in `filling` was written; read by the shard's thread to bound its wait.
    oldest: Arc<Oldest>,
    made: usize,
    out: SyncSender<Message>,
    back: Receiver<Vec<u8>>,
    clock: WallClock,
    known: Known,
    counters: Arc<LogCounters>,
    notices: Vec<(&'static str, u64, u32)>,
    has_node_log: bool,
}

impl ShardLog {
    /// The cell that says when the oldest line was written; one thread reads and writes it.
    pub(crate) fn oldest(&self) -> Arc<Oldest> {
        self.oldest.clone()
    }

    /// Runs `write` on the buffer of a sink, or counts a lost line.
    fn line(&mut self, sink: u16, at: Instant, write: impl FnOnce(&mut Vec<u8>, &mut WallClock, &mut Known)) {
        let place = usize::from(sink);
        if place >= self.filling.len() {
            self.filling.resize_with(place + 1, || None);
        }
        let Some(slot) = self.filling.get_mut(place) else { return };
        let buffer = match slot {
            Some(buffer) => buffer,
            None => {
                let fresh = match self.back.try_recv() {
                    Ok(mut used) => {
                        used.clear();
                        used
                    }
                    Err(_) if self.made < BUFFERS_MAX => {
                        self.made += 1;
                        Vec::with_capacity(BUFFER_BYTES)
                    }
                    Err(_) => {
                        add(&self.counters.dropped, 1);
                        return;
                    }
                };
                slot.insert(fresh)
            }
        };
        write(buffer, &mut self.clock, &mut self.known);
        let is_full = buffer.len() >= HANDOVER_BYTES;
        add(&self.counters.lines, 1);
        if self.oldest.get().is_none() {
            self.oldest.set(Some(at));
        }
        if is_full {
            self.hand_over(place);
        }
    }

    fn hand_over(&mut self, place: usize) {
        let Some(bytes) = self.filling.get_mut(place).and_then(Option::take) else { return };
        let sink = u16::try_from(place).unwrap_or(SINK_NODE);
        let chunk = Message::Chunk(Chunk { shard: self.shard, sink, bytes });
        if self.out.try_send(chunk).is_err() {
            // The writer has ended: nobody will read this any more.
            self.made = self.made.saturating_sub(1);
        }
    }

    fn hand_over_all(&mut self) {
        for place in 0..self.filling.len() {
            self.hand_over(place);
        }
        self.oldest.set(None);
    }
}

impl Log for ShardLog {
    fn access(&mut self, sink: u16, record: &AccessRecord<'_>) {
        self.line(sink, record.at, |out, clock, known| line::access(out, clock, known, record));
    }

    fn element(&mut self, record: &ElementRecord<'_>) {
        if self.has_node_log {
            self.line(SINK_NODE, record.at, |out, clock, _| line::element(out, clock, record));
        }
    }

    fn notice(&mut self, notice: &Notice<'_>) {
        let second = notice.at.0 / 1_000_000_000;
        let is_room = self.notices.len() < NOTICE_KINDS_MAX;
        match self.notices.iter_mut().find(|(what, ..)| *what == notice.what) {
            Some((_, at, count)) if *at == second && *count >= NOTICES_PER_SECOND => {
                add(&self.counters.notices_muted, 1);
                return;
            }
            Some((_, at, count)) if *at == second => *count += 1,
            Some((_, at, count)) => (*at, *count) = (second, 1),
            None if is_room => self.notices.push((notice.what, second, 1)),
            None => return,
        }
        self.line(SINK_NOTICES, notice.at, |out, _, _| line::notice(out, notice));
    }

    fn flush(&mut self, now: Instant) {
        if self.oldest.get().is_some_and(|at| now.since_ns(at) >= LINE_AGE_NS) {
            self.hand_over_all();
        }
    }
}

impl Drop for ShardLog {
    fn drop(&mut self) {
        self.hand_over_all();
    }
}

#[cfg(test)]
mod tests;
