//! A shard's queue: the CPU, and where there is one a device beside it.
//!
//! Each job goes to the provider that [`Placement`](crate::Placement) prefers at its size. What a device has no room for, cannot
//! do, failed at or took to its grave goes to the CPU: counted, said once, and nothing is lost but a text that it spoilt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "dpdk")]
use shard::Work;
use shard::{Burst, CallTag, Done, Job, Offload, Ring};

use crate::cpu::Cpu;
#[cfg(feature = "dpdk")]
use crate::device::{Lanes, Outbox, Refusal};
#[cfg(feature = "dpdk")]
use crate::placement::Placement;

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Totals of a shard's queue, readable from any thread.
        #[derive(Debug, Default)]
        pub struct QueueCounters {
            $(#[doc = $doc] $name: AtomicU64,)*
        }

        /// [`QueueCounters`] at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct QueueSnapshot {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl QueueCounters {
            /// Reads them all, each by itself.
            pub fn snapshot(&self) -> QueueSnapshot {
                QueueSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl QueueSnapshot {
            /// Name, meaning and value of each, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc.trim_ascii_start(), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Jobs the CPU took.
    cpu_jobs,
    /// Jobs a device took.
    device_jobs,
    /// Jobs the CPU took because the device had no room.
    device_full,
    /// Jobs the CPU took because the device cannot do them: their size, zstd, a sender's first message.
    device_unfit,
    /// Jobs the CPU took over because the device failed at them or their output outgrew its buffers.
    device_again,
    /// Jobs a device said it failed at.
    device_failed,
    /// Devices that are not used any more: they stopped answering, or spoilt a job.
    device_died,
}

/// A job's queue for one shard.
pub struct Queue {
    cpu: Cpu,
    counters: Arc<QueueCounters>,
    #[cfg(feature = "dpdk")]
    device: Option<Box<Beside>>,
}

/// A device beside the CPU.
#[cfg(feature = "dpdk")]
struct Beside {
    lanes: Lanes,
    placement: Arc<Placement>,
    out: Outbox,
    /// Jobs the device took, not yet counted.
    took: u64,
    /// Says a line to the operator.
    say: Box<dyn Fn(&str) + Send>,
    has_said_full: bool,
}

impl Queue {
    /// The CPU alone.
    pub fn new(cpu: Cpu, counters: Arc<QueueCounters>) -> Self {
        Self {
            cpu,
            counters,
            #[cfg(feature = "dpdk")]
            device: None,
        }
    }

    /// With a shard's lanes of the node's devices, for the jobs `placement` gives them; `say` is told, once each, when it cannot be used as meant.
    #[cfg(feature = "dpdk")]
    pub fn beside(
        mut self,
        lanes: Option<Lanes>,
        placement: Arc<Placement>,
        say: impl Fn(&str) + Send + 'static,
    ) -> Self {
        self.device = lanes.map(|lanes| {
            let out = Outbox::default();
            Box::new(Beside { lanes, placement, out, took: 0, say: Box::new(say), has_said_full: false })
        });
        self
    }

    /// Gives a job to whom it belongs; or back, if nobody has room.
    #[inline]
    fn take(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        #[cfg(feature = "dpdk")]
        let job = match &mut self.device {
            Some(beside) if beside.placement.prefers_device(&job.work, job.input.len()) => {
                match beside.lanes.take(job, self.cpu.sealer(), &mut beside.out) {
                    Ok(()) => {
                        beside.took += 1;
                        return Ok(());
                    }
                    Err((why, job)) => {
                        beside.note(why, &self.counters);
                        job
                    }
                }
            }
            _ => job,
        };
        self.cpu.take(job)?;
        add(&self.counters.cpu_jobs, 1);
        Ok(())
    }

    /// Collects from the device, and gives the CPU what the device gave back.
    #[cfg(feature = "dpdk")]
    #[inline]
    fn poll_device(&mut self, done: &mut Burst<Done>) {
        let Some(beside) = &mut self.device else { return };
        let Beside { lanes, out, say, .. } = &mut **beside;
        lanes.poll(self.cpu.sealer(), out);
        add(&self.counters.device_failed, core::mem::take(&mut out.failed));
        for which in out.died.drain(..) {
            add(&self.counters.device_died, 1);
            say(&format!(
                "the {which} device has failed or stopped answering; its jobs go to the cpu until the node is started again"
            ));
        }
        while let Some(job) = out.again.pop_front() {
            if let Err(job) = self.cpu.take(job) {
                out.again.push_front(job);
                break;
            }
            add(&self.counters.device_again, 1);
        }
        out.hand_over(done);
    }

    #[cfg(not(feature = "dpdk"))]
    fn poll_device(&mut self, _done: &mut Burst<Done>) {}
}

#[cfg(feature = "dpdk")]
impl Beside {
    /// The device has not taken a job.
    #[cold]
    fn note(&mut self, why: Refusal, counters: &QueueCounters) {
        match why {
            Refusal::Full => {
                add(&counters.device_full, 1);
                if !self.has_said_full {
                    self.has_said_full = true;
                    (self.say)(
                        "a device's queue is full; what it has no room for goes to the cpu (said once)",
                    );
                }
            }
            Refusal::Unfit => add(&counters.device_unfit, 1),
            Refusal::Dead | Refusal::Absent => {}
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

impl Offload for Queue {
    fn submit(&mut self, jobs: &mut Burst<Box<Job>>) -> usize {
        self.cpu.begin();
        let taken = jobs.give(|job| self.take(job));
        #[cfg(feature = "dpdk")]
        if let Some(beside) = &mut self.device {
            beside.lanes.flush();
            add(&self.counters.device_jobs, core::mem::take(&mut beside.took));
        }
        taken
    }

    fn poll(&mut self, done: &mut Burst<Done>) {
        self.poll_device(done);
        #[cfg(feature = "dpdk")]
        let own = done.len();
        self.cpu.poll(done);
        // A sender whose messages are all large is known to the helper thread alone; the device is to have them too.
        #[cfg(feature = "dpdk")]
        if self.device.is_some() {
            for Done { job, result } in done.as_slice().get(own..).unwrap_or_default() {
                if let (Work::Open(seal), Ok(())) = (&job.work, result) {
                    self.cpu.sealer().learn(seal, &job.input);
                }
            }
        }
    }

    fn pending(&self) -> usize {
        let own = self.cpu.pending();
        #[cfg(feature = "dpdk")]
        let own = own + self.device.as_ref().map_or(0, |beside| beside.lanes.under_way() + beside.out.len());
        own
    }

    fn ring(&self, name: &str) -> Option<Ring> {
        self.cpu.ring(name)
    }

    fn tag(&mut self) -> CallTag {
        self.cpu.tag()
    }
}

#[cfg(test)]
mod tests;
