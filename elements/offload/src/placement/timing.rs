//! The timing itself: the same jobs through the CPU and through a shard's lanes, a few milliseconds each.

use std::sync::Arc;
use std::time::Duration;

use abi::Encoding::Gzip;
use shard::{Job, JobKey, Ring, Seal, Work};

use super::{Choice, Cost, Kind, Placement, SIZES};
use crate::cpu::Bench;
use crate::device::{Devices, Lanes, Outbox};
use crate::seal::Keys;

/// How long one figure may take, unless a single burst takes longer.
const FIGURE: Duration = Duration::from_micros(1500);
/// Bursts a figure is the best of, at least.
const BURSTS_MIN: u32 = 3;
/// Jobs a burst has, of a size.
fn burst_of(size: usize) -> usize {
    if size > 64 << 10 { 2 } else { 8 }
}

/// Times both providers at every size; about 150 ms.
///
/// # Errors
/// A device that spoils a job, or stops: it is no good for others either. Or the system gives no random numbers.
pub fn measure(devices: &mut Devices, choice: Choice) -> Result<Placement, String> {
    let Some(mut lanes) = devices.take(0) else { return Ok(Placement { choice, costs: None }) };
    let no_random = || "the system gives no random numbers".to_owned();
    let keys = Arc::new(Keys::for_timing().ok_or_else(no_random)?);
    let mut bench = Bench::new(&keys, &keys.count()).map_err(|_| no_random())?;
    let mut costs = [[Cost::default(); SIZES.len()]; Kind::ALL.len()];
    for (kind, row) in Kind::ALL.into_iter().zip(&mut costs) {
        for (size, cost) in SIZES.into_iter().zip(row) {
            let job = job(kind, size, &mut bench).ok_or_else(no_random)?;
            let burst = burst_of(size);
            cost.cpu_ns = on_cpu(&job, burst, &mut bench);
            cost.device_ns = on_device(&job, burst, &mut bench, &mut lanes).map_err(|which| {
                format!(
                    "the {which} device failed or stopped at a job of {size} bytes; name another, or \"cpu\""
                )
            })?;
        }
    }
    lanes.forget_keys();
    devices.put(0, lanes);
    Ok(Placement { choice, costs: Some(costs) })
}

/// Text that compresses about as JSON does.
fn text(len: usize) -> Vec<u8> {
    let mut seed = 7_u64;
    let mut out = Vec::with_capacity(len + 32);
    while out.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(format!("{{\"id\":{},\"name\":\"item\"}}", seed >> 50).as_bytes());
    }
    out.truncate(len);
    out
}

fn job(kind: Kind, size: usize, bench: &mut Bench) -> Option<Job> {
    let plain = text(size);
    let (is_request, index) = (true, 1);
    let seal = Seal {
        ring: Ring(0),
        tag: bench.sealer.tag(),
        purpose: [0; 16],
        is_request,
        index,
        is_final: false,
        encoding: None,
    };
    let forth = match kind {
        Kind::Compress | Kind::Decompress => Work::Compress(Gzip),
        Kind::Seal | Kind::Open => Work::Seal(seal),
    };
    let key = JobKey { call: 0, generation: 0, is_request };
    let head = if matches!(kind, Kind::Seal | Kind::Open) { Seal::HEAD } else { 0 };
    let input = [&vec![0; head], &plain[..]].concat();
    let mut job = Job { key, work: forth, input, output: Vec::new() };
    if matches!(kind, Kind::Decompress | Kind::Open) {
        bench.run(&mut job, usize::MAX).ok()?;
        let (work, input) = match kind {
            Kind::Open => (Work::Open(seal), job.input),
            _ => (Work::Decompress(Gzip, size), job.output),
        };
        job = Job { key, work, input, output: Vec::new() };
        // Opened once, so that the device will take it from this sender.
        bench.run(&mut copy(&job), usize::MAX).ok()?;
    }
    Some(job)
}

#[expect(clippy::disallowed_methods, reason = "times this machine, before any shard runs")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Nanoseconds a job, of the best of a few bursts of copies of it: what is not the provider's own only makes it longer.
fn best(job: &Job, count: usize, mut burst: impl FnMut(&mut Vec<Box<Job>>) -> Option<()>) -> Option<u64> {
    let mut jobs: Vec<_> = (0..count).map(|_| Box::new(copy(job))).collect();
    let begun = now();
    let mut best = None;
    for rounds in 1.. {
        for mine in &mut jobs {
            mine.input.clone_from(&job.input);
            mine.output.clear();
        }
        let start = now();
        burst(&mut jobs)?;
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) / count.max(1) as u64;
        best = Some(best.map_or(ns, |so_far: u64| so_far.min(ns)));
        // More than one, for one may have been interrupted.
        if rounds >= BURSTS_MIN && begun.elapsed() >= FIGURE {
            break;
        }
    }
    best
}

fn copy(job: &Job) -> Job {
    Job { key: job.key, work: job.work, input: job.input.clone(), output: Vec::with_capacity(2 << 16) }
}

fn on_cpu(job: &Job, count: usize, bench: &mut Bench) -> u64 {
    let burst =
        |jobs: &mut Vec<Box<Job>>| jobs.iter_mut().try_for_each(|job| bench.run(job, usize::MAX).ok());
    best(job, count, burst).unwrap_or(u64::MAX)
}

/// `None` if it does none such; which device, if it has died of it.
fn on_device(
    job: &Job,
    count: usize,
    bench: &mut Bench,
    lanes: &mut Lanes,
) -> Result<Option<u64>, &'static str> {
    if !lanes.has(&job.work) {
        return Ok(None);
    }
    let mut out = Outbox::default();
    let best = best(job, count, |jobs| {
        for job in jobs.drain(..) {
            lanes.take(job, &mut bench.sealer, &mut out).ok()?;
        }
        lanes.flush();
        // A device that answers nothing is left to the CPU.
        let begun = now();
        while lanes.under_way() > 0 && begun.elapsed() < Duration::from_millis(100) {
            lanes.poll(&mut bench.sealer, &mut out);
        }
        jobs.extend(out.ready.drain().filter(|done| done.result.is_ok()).map(|done| done.job));
        (jobs.len() == count).then_some(())
    });
    out.died.first().map_or(Ok(best), |which| Err(which))
}
