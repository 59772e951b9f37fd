//! Operations a second through a shard's queue: `provider [cpu|dpdk:DEVICE] [compress|decompress|seal|open]
//! SIZE SECONDS [FILE]`. Bursts of 32, the jobs' buffers used again; what they work on is put into them outside of
//! the time that counts. `benches/offload.py` holds it against DPDK's own tools.
#![expect(clippy::unwrap_used, reason = "a measuring program ends where it fails")]
#![allow(clippy::print_stdout, reason = "its result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::Encoding::Gzip;
use shard::{Burst, Done, Job, JobKey, Offload, Seal, Work};
#[cfg(feature = "dpdk")]
use towpath_offload as offload;
use towpath_offload::{Cpu, Keys, Queue, QueueCounters, SealOptions, Source};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, place, what, size, seconds, rest @ ..] = &arguments[..] else {
        eprintln!("provider cpu|dpdk:DEVICE compress|decompress|seal|open SIZE SECONDS [FILE]");
        std::process::exit(2);
    };
    let (size, seconds): (usize, f64) = (size.parse().unwrap(), seconds.parse().unwrap());
    let file = match rest.first() {
        Some(file) => std::fs::read(file).unwrap(),
        None => b"{\"id\":12345,\"name\":\"item\"}".iter().copied().cycle().take(size).collect(),
    };
    let mut queue = queue(place, what);
    let counters = queue.1;
    let queue = &mut queue.0;
    let seal = Seal {
        ring: queue.ring("wire").unwrap(),
        tag: queue.tag(),
        purpose: [0; 16],
        is_request: true,
        index: 1,
        is_final: false,
        encoding: None,
    };
    let (first, work, room) = match what.as_str() {
        "compress" => (None, Work::Compress(Gzip), 0),
        "decompress" => (Some(Work::Compress(Gzip)), Work::Decompress(Gzip, size), 0),
        "seal" => (None, Work::Seal(seal), Seal::HEAD),
        _ => (Some(Work::Seal(seal)), Work::Open(seal), Seal::HEAD),
    };
    // One burst of different pieces of the file, as the tools take it.
    let pieces: Vec<Vec<u8>> = (file.chunks_exact(size).cycle().take(Burst::<Job>::MAX))
        .map(|piece| [&vec![0; room], piece].concat())
        .map(|piece| first.map_or_else(|| piece.clone(), |first| once(queue, first, piece.clone())))
        .collect();
    // Of a sender that is known.
    let output = once(queue, work, pieces[0].clone()).len();
    let before = counters.snapshot();
    let (ops, elapsed) = run(queue, work, &pieces, Duration::from_secs_f64(seconds));
    let after = counters.snapshot();
    let on_device = after.device_jobs - before.device_jobs;
    println!(
        "{{\"ops\":{ops},\"seconds\":{elapsed},\"ops_per_second\":{:.0},\"input\":{},\"output\":{output},\
         \"on_device\":{on_device},\"fallbacks\":{}}}",
        ops as f64 / elapsed,
        pieces[0].len(),
        after.device_full + after.device_again - before.device_full - before.device_again,
    );
}

fn queue(place: &str, what: &str) -> (Queue, Arc<QueueCounters>) {
    let path = std::env::temp_dir().join(format!("towpath-provider-{}", std::process::id()));
    std::fs::write(&path, "1 000102030405060708090a0b0c0d0e0f").unwrap();
    let named = [("wire".to_owned(), Source::File(path.clone()))];
    let keys = Arc::new(Keys::open(named, SealOptions::with_clock(|| 0)).unwrap().0);
    std::fs::remove_file(path).unwrap();
    let counters = Arc::new(QueueCounters::default());
    let queue = Queue::new(Cpu::new(&keys, || {}).unwrap(), counters.clone());
    #[cfg(feature = "dpdk")]
    let queue = match place.strip_prefix("dpdk:") {
        Some(device) => {
            let device = Some(device.to_owned());
            let is_compression = matches!(what, "compress" | "decompress");
            let (compression, crypto) = if is_compression { (device, None) } else { (None, device) };
            let options = offload::DeviceOptions { compression, crypto, ..offload::DeviceOptions::default() };
            let placement = Arc::new(offload::Placement { choice: offload::Choice::Pinned, costs: None });
            let mut devices = offload::Devices::open(&options, 1).unwrap();
            queue.beside(devices.take(0), placement, |line| eprintln!("{line}"))
        }
        None => queue,
    };
    #[cfg(not(feature = "dpdk"))]
    assert_eq!(place, "cpu", "{what}: built without DPDK");
    (queue, counters)
}

fn job(work: Work, input: Vec<u8>) -> Box<Job> {
    let room = 2 * input.len() + 65_536 + 1088;
    let key = JobKey { call: 0, generation: 0, is_request: true };
    Box::new(Job { key, work, input, output: Vec::with_capacity(room) })
}

fn once(queue: &mut Queue, work: Work, input: Vec<u8>) -> Vec<u8> {
    let (mut burst, mut done) = (Burst::new(), Burst::new());
    burst.push(job(work, input)).unwrap();
    queue.submit(&mut burst);
    loop {
        queue.poll(&mut done);
        if let Some(one) = done.drain().next() {
            one.result.unwrap();
            let is_in_place = matches!(work, Work::Seal(_) | Work::Open(_));
            return if is_in_place { one.job.input } else { one.job.output };
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a measuring program")]
fn run(queue: &mut Queue, work: Work, pieces: &[Vec<u8>], how_long: Duration) -> (u64, f64) {
    let (mut burst, mut done) = (Burst::new(), Burst::new());
    // With room for the tag, as who hands jobs over leaves it.
    let roomy = |piece: &Vec<u8>| {
        let mut input = Vec::with_capacity(piece.len() + Seal::GROWTH - Seal::HEAD);
        input.extend_from_slice(piece);
        input
    };
    let mut idle: Vec<_> = pieces.iter().map(|piece| job(work, roomy(piece))).collect();
    let (mut ops, mut elapsed) = (0, Duration::ZERO);
    // What reading the clock twice adds.
    let empty = (0..100).map(|_| Instant::now().elapsed()).min().unwrap_or_default();
    while elapsed < how_long {
        for (job, piece) in idle.iter_mut().zip(pieces) {
            match work {
                // The tools, too, encrypt the same bytes again, and decrypt the same.
                Work::Seal(_) => job.input.truncate(piece.len()),
                Work::Open(_) => job.input.clone_from(&pieces[0]),
                Work::Compress(_) | Work::Decompress(..) => job.output.clear(),
            }
        }
        let begun = Instant::now();
        for job in idle.drain(..) {
            burst.push(job).unwrap();
        }
        queue.submit(&mut burst);
        queue.poll(&mut done);
        for Done { job, result } in done.drain() {
            debug_assert!(result.is_ok());
            idle.push(job);
            ops += 1;
        }
        idle.extend(burst.drain());
        elapsed += begun.elapsed().saturating_sub(empty);
    }
    (ops, elapsed.as_secs_f64())
}
