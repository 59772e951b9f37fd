//! Through software devices, against the CPU: what one makes the other undoes, and what goes wrong has the same
//! name. One test, since a process has one EAL and a device one owner.
#![cfg(feature = "dpdk")]

use std::io::{Read, Write};
use std::sync::atomic::AtomicU32;

use abi::Encoding::{self, Deflate, Gzip, Zstd};
use dpdk_sys::{AcceleratorOptions, Cipher, Eal, Memory, Options, SealJob, SealOutcome};
use shard::{JobError, JobKey, Seal, Work};

use super::*;
use crate::cpu::tests::{corpus, not_one_stream, python_vectors};
use crate::seal::tests::vectors;
use crate::{Choice, DeviceMemory, DeviceOptions, Devices, Keys, Kind, SealOptions, measure};

static CLOCK: AtomicU32 = AtomicU32::new(1_800_000_000);

fn clock() -> u32 {
    CLOCK.load(Ordering::Relaxed)
}

fn keys() -> Arc<Keys> {
    let path = std::env::temp_dir().join(format!("towpath-queue-keys-{}", std::process::id()));
    std::fs::write(&path, "3 000102030405060708090a0b0c0d0e0f").unwrap();
    let source = crate::Source::File(path.clone());
    let keys = Keys::open([("wire".to_owned(), source)], SealOptions::with_clock(clock)).unwrap().0;
    std::fs::remove_file(path).unwrap();
    Arc::new(keys)
}

struct Bed {
    queue: Queue,
    counters: Arc<QueueCounters>,
    said: Arc<AtomicU64>,
}

fn bed(keys: &Arc<Keys>, lanes: Option<Lanes>) -> Bed {
    let (counters, said) = (Arc::new(QueueCounters::default()), Arc::new(AtomicU64::new(0)));
    let placement = Arc::new(Placement { choice: Choice::Pinned, costs: None });
    let lines = said.clone();
    let queue =
        Queue::new(Cpu::new(keys, || {}).unwrap(), counters.clone())
            .beside(lanes, placement, move |_| _ = lines.fetch_add(1, Ordering::Relaxed));
    Bed { queue, counters, said }
}

impl Bed {
    fn run(&mut self, work: Work, input: &[u8]) -> (Result<Vec<u8>, JobError>, Work) {
        let key = JobKey { call: 1, generation: 1, is_request: true };
        let mut burst = Burst::new();
        let head = if matches!(work, Work::Seal(_)) { &[0; Seal::HEAD][..] } else { &[] };
        let job = Job { key, work, input: [head, input].concat(), output: b"kept".to_vec() };
        burst.push(Box::new(job)).unwrap();
        assert_eq!(self.queue.submit(&mut burst), 1);
        let mut done = self.collect(1).pop().unwrap();
        assert_eq!(self.queue.pending(), 0);
        let bytes = &mut done.job.input;
        match work {
            Work::Seal(_) => return (done.result.map(|()| bytes.clone()), done.job.work),
            Work::Open(_) => {
                let text = bytes.split_off(bytes.len().min(Seal::HEAD));
                assert!(done.result.is_ok() || text.is_empty(), "nothing is shown of what does not open");
                return (done.result.map(|()| text), done.job.work);
            }
            Work::Compress(_) | Work::Decompress(..) => {}
        }
        assert_eq!(done.job.input, input, "the input comes back as it was");
        assert_eq!(&done.job.output[..4], b"kept");
        assert!(done.result.is_ok() || done.job.output.len() == 4);
        (done.result.map(|()| done.job.output.split_off(4)), done.job.work)
    }

    fn collect(&mut self, count: usize) -> Vec<Done> {
        let mut all = Vec::new();
        for _ in 0..5_000_000_u32 {
            let mut done = Burst::new();
            self.queue.poll(&mut done);
            all.extend(done.drain());
            if all.len() >= count {
                return all;
            }
            std::thread::yield_now();
        }
        panic!("{} of {count} came back; {} are pending", all.len(), self.queue.pending());
    }
}

fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|n: u64| format!("{{\"id\":{},\"name\":\"item\"}}", n * n % 7919).into_bytes())
        .take(len)
        .collect()
}

fn oracle_packs(how: Encoding, plain: &[u8]) -> Vec<u8> {
    match how {
        Gzip => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            to.write_all(plain).unwrap();
            to.finish().unwrap()
        }
        _ => {
            let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
            to.write_all(plain).unwrap();
            to.finish().unwrap()
        }
    }
}

fn oracle_unpacks(how: Encoding, packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match how {
        Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut out),
        _ => flate2::read::ZlibDecoder::new(packed).read_to_end(&mut out),
    }
    .unwrap();
    out
}

#[test]
fn devices_do_what_the_cpu_does() {
    let scheduler = "crypto_scheduler0,worker=crypto_aesni_gcm0,worker=crypto_aesni_gcm1,mode=round-robin";
    for (compression, crypto, copies) in [
        ("compress_isal0", "crypto_aesni_gcm0", false),
        ("compress_zlib0", "crypto_openssl0", false),
        ("compress_isal0", "crypto_aesni_mb0", false),
        ("compress_isal0", scheduler, false),
        // As hardware would have it.
        ("compress_isal0", "crypto_aesni_gcm0", true),
    ] {
        let options = DeviceOptions {
            compression: Some(compression.into()),
            crypto: Some(crypto.into()),
            memory: DeviceMemory::Ordinary(256),
            others: Vec::new(),
            copies,
        };
        if !copies {
            gcm_vectors(crypto);
        }
        let mut devices = Devices::open(&options, 2).unwrap_or_else(|error| panic!("{error}"));
        let placement = measure(&mut devices, Choice::Measured).unwrap();
        let costs = placement.costs.unwrap();
        for kind in Kind::ALL {
            let row = costs[kind as usize];
            let [own @ .., chained] = row;
            assert!(
                row.iter().all(|cost| cost.cpu_ns > 0) && own.iter().all(|cost| cost.device_ns.is_some()),
                "{compression} {kind:?} {row:?}"
            );
            assert_eq!(
                chained.device_ns.is_some(),
                chains(kind, compression, crypto, copies),
                "{compression} {crypto} {kind:?}"
            );
        }
        eprintln!("{compression} {crypto}\n{}", placement.text());
        let keys = keys();
        let mut device = bed(&keys, devices.take(1));
        let mut cpu = bed(&keys, None);
        assert!(devices.take(1).is_none(), "a lane has one owner");
        deflate(&mut device, compression, copies);
        seals(&mut device, &mut cpu, crypto);
        known_by_large_messages(&mut device, &mut bed(&keys, None));
        worn_key(&mut device, &mut cpu);
        no_allocation(&mut device);
        death(&mut device);
        drop(device);
        drop(devices);
        assert_eq!(
            dpdk_sys::pools().iter().map(|pool| pool.in_use).sum::<u32>(),
            0,
            "{compression} {crypto}"
        );
    }
    for (device, says) in
        [("compress_nothing0", "there are: compress_isal"), ("net_null7", "not a compression device")]
    {
        let options = DeviceOptions { compression: Some(device.into()), ..DeviceOptions::default() };
        let error = Devices::open(&options, 1).unwrap_err().to_string();
        assert!(error.contains(device) && error.contains(says), "{error}");
    }
}

/// What the devices do with more than a mbuf holds. What 256 KiB of text are packed in is less.
fn chains(kind: Kind, compression: &str, crypto: &str, copies: bool) -> bool {
    match kind {
        Kind::Compress => compression == "compress_isal0",
        Kind::Decompress => false,
        // What works on this core is not kept busy for so long.
        Kind::Seal | Kind::Open => {
            crypto.starts_with("crypto_scheduler") || crypto.starts_with("crypto_aesni") && copies
        }
    }
}

/// What Python's zlib makes of a stream with gzip's wrapper or zlib's; `None` without a Python.
fn python_unpacks(packed: &[u8]) -> Option<Vec<u8>> {
    let script = "import sys, zlib; i, o = sys.stdin.buffer, sys.stdout.buffer; o.write(zlib.decompress(i.read(), 47))";
    let mut python = std::process::Command::new("python3");
    let piped = std::process::Stdio::piped;
    let mut python = python.args(["-c", script]).stdin(piped()).stdout(piped()).spawn().ok()?;
    python.stdin.take()?.write_all(packed).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

/// A message with a nonce and associated data of its own.
struct Vector {
    input: Vec<u8>,
    output: Vec<u8>,
    nonce: Vec<u8>,
    aad: Vec<u8>,
}

impl dpdk_sys::Buffers for Vector {
    fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        (&mut self.input, &mut self.output)
    }
}

impl dpdk_sys::Bound for Vector {
    fn aad_len(&self) -> usize {
        self.aad.len()
    }

    fn bind(&self, nonce: &mut [u8; dpdk_sys::IV_LEN], aad: &mut [u8; dpdk_sys::AAD_MAX]) {
        nonce.copy_from_slice(&self.nonce);
        aad[..self.aad.len()].copy_from_slice(&self.aad);
    }
}

/// The standard's, both ways, by the device alone. (Without text nothing is asked of a device.)
fn gcm_vectors(device: &str) {
    let eal = Eal::start(&Options { memory: Memory::Ordinary { mib: 256 }, pci: Vec::new() }).unwrap();
    let pair = AcceleratorOptions { queues: 1, depth: 8, copies: false };
    let mut open = Cipher::<Vector>::open(eal, device, pair, 32).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = open.queue(0).unwrap();
    let mut run = |key: &[u8], seals, (nonce, aad, input): (&[u8], &[u8], Vec<u8>)| {
        let session = queue.session(key, seals, aad.len()).unwrap();
        let with = Vector { input, output: Vec::new(), nonce: nonce.to_vec(), aad: aad.to_vec() };
        assert!(queue.stage(SealJob { session, start: 0, with }).is_ok());
        let mut seen = None;
        for _ in 0..1_000_000 {
            queue.flush();
            queue.poll(|one| seen = Some((one.outcome, one.with.input)));
            if seen.is_some() {
                break;
            }
        }
        assert!(queue.end_session(session));
        seen.unwrap()
    };
    let with_text =
        vectors::GCM.iter().map(|case| case.map(vectors::unhex)).filter(|case| !case[2].is_empty());
    assert_eq!(with_text.clone().count(), 8);
    for [key, nonce, text, aad, sealed, tag] in with_text {
        let envelope = [&sealed[..], &tag].concat();
        let seen = run(&key, true, (&nonce, &aad, text.clone()));
        assert_eq!(seen, (SealOutcome::Done, envelope.clone()), "{device}");
        assert_eq!(run(&key, false, (&nonce, &aad, envelope.clone())), (SealOutcome::Done, text), "{device}");
        let mut bad = envelope;
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(run(&key, false, (&nonce, &aad, bad)).0, SealOutcome::Forged, "{device}");
    }
}

/// How many more jobs the device did, and how many of those the CPU had to do again.
fn by_device(bed: &mut Bed, work: Work, input: &[u8]) -> (u64, u64) {
    let before = bed.counters.snapshot();
    bed.run(work, input).0.unwrap();
    let after = bed.counters.snapshot();
    (after.device_jobs - before.device_jobs, after.device_again - before.device_again)
}

fn deflate(bed: &mut Bed, device: &str, copies: bool) {
    for len in [70_000, 300_001, 4 << 20] {
        // What works on this core is not kept busy for longer; hardware may have a megabyte of our memory.
        let is_chained = chains(Kind::Compress, device, "", copies) && len < 1 << 20;
        let seen = by_device(bed, Work::Compress(Gzip), &text(len));
        assert_eq!(seen, (u64::from(is_chained), 0), "{device} {len}");
    }
    for (how, packed, plain) in python_vectors() {
        let unpacked = bed.run(Work::Decompress(how, plain.len()), &packed).0;
        assert_eq!(unpacked, Ok(plain), "{device} {how:?}");
    }
    for (name, plain) in corpus() {
        for how in [Gzip, Deflate] {
            let ours = bed.run(Work::Compress(how), &plain).0.unwrap();
            assert!(oracle_unpacks(how, &ours) == plain, "{device} {how:?} {name}");
            assert!(python_unpacks(&ours).is_none_or(|seen| seen == plain), "{device} {how:?} {name}");
            let back = bed.run(Work::Decompress(how, plain.len()), &oracle_packs(how, &plain)).0;
            assert!(back == Ok(plain.clone()), "{device} {how:?} {name}");
        }
    }
    for how in [Gzip, Deflate] {
        for len in [1, 100, 1024, 16 << 10, 50_000, 70_000, 300_000] {
            let plain = text(len);
            let ours = bed.run(Work::Compress(how), &plain).0.unwrap();
            assert_eq!(oracle_unpacks(how, &ours), plain, "{device} {how:?} {len}");
            let theirs = oracle_packs(how, &plain);
            assert_eq!(
                bed.run(Work::Decompress(how, len), &theirs).0.as_ref(),
                Ok(&plain),
                "{device} {how:?} {len}"
            );
            assert_eq!(
                bed.run(Work::Decompress(how, len - 1), &theirs).0,
                Err(JobError::TooLarge),
                "{device} {len}"
            );
        }
        let bomb = oracle_packs(how, &vec![0; 8 << 20]);
        assert_eq!(bed.run(Work::Decompress(how, 4000), &bomb).0, Err(JobError::TooLarge), "{device} bomb");
        assert_eq!(
            bed.run(Work::Decompress(how, 4 << 20), &bomb).0,
            Err(JobError::TooLarge),
            "{device} bomb"
        );
        let good = oracle_packs(how, &text(500));
        for cut in 0..good.len() {
            assert_eq!(
                bed.run(Work::Decompress(how, 4096), &good[..cut]).0,
                Err(JobError::Corrupt),
                "{device} {how:?} cut at {cut} of {}",
                good.len()
            );
        }
        let other = oracle_packs(how, &text(501));
        let two = [&good[..], &other].concat();
        assert_eq!(bed.run(Work::Decompress(how, 4096), &two).0, Err(JobError::Corrupt), "{device}");
        for len in [500, 30_000] {
            for (what, input) in not_one_stream(how, &text(len)) {
                let result = bed.run(Work::Decompress(how, 1 << 20), &input).0;
                assert_eq!(result, Err(JobError::Corrupt), "{device} {how:?} of {len} with {what}");
            }
        }
        for junk in 1..12 {
            let longer = [&good[..], &vec![7; junk]].concat();
            assert_eq!(
                bed.run(Work::Decompress(how, 4096), &longer).0,
                Err(JobError::Corrupt),
                "{device} +{junk}"
            );
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            match bed.run(Work::Decompress(how, 4096), &bad).0 {
                // Bytes of the gzip header (time, system, extra flags) carry no meaning.
                Ok(out) => assert!(how == Gzip && (4..10).contains(&at) && out == text(500), "{device} {at}"),
                Err(error) => {
                    assert!(matches!(error, JobError::Corrupt | JobError::TooLarge), "{device} {at}")
                }
            }
        }
    }
    let seen = bed.counters.snapshot();
    assert!(seen.device_jobs > 400, "{device}: {seen:?}");
    let packed = bed.run(Work::Compress(Zstd), &text(900)).0.unwrap();
    assert_eq!(bed.run(Work::Decompress(Zstd, 900), &packed).0, Ok(text(900)));
    assert_eq!(bed.counters.snapshot().device_unfit, seen.device_unfit + 2, "zstd is the cpu's");
    // A burst larger than the device's depth: the rest is the cpu's, nothing is lost, and one line says so.
    let plain = text(2000);
    let mut wanted = 0;
    for _ in 0..4 {
        let mut burst = Burst::new();
        for call in 0..32 {
            let key = JobKey { call, generation: 1, is_request: true };
            burst
                .push(Box::new(Job {
                    key,
                    work: Work::Compress(Gzip),
                    input: plain.clone(),
                    output: Vec::new(),
                }))
                .unwrap();
        }
        wanted += bed.queue.submit(&mut burst);
    }
    assert_eq!(wanted, 128);
    for done in bed.collect(128) {
        assert_eq!(done.result, Ok(()));
        assert_eq!(oracle_unpacks(Gzip, &done.job.output), plain);
    }
    assert_eq!((bed.counters.snapshot().device_full, bed.said.load(Ordering::Relaxed)), (64, 1), "{device}");
}

fn seals(device: &mut Bed, cpu: &mut Bed, name: &str) {
    let ring = device.queue.ring("wire").unwrap();
    for len in [1, 15, 16, 64, 1000, 16 << 10, 64_000, 65_100, 300_001] {
        let plain = text(len);
        let tag = device.queue.tag();
        let seal = |index| Seal {
            ring,
            tag,
            purpose: [5; 16],
            is_request: true,
            index,
            is_final: true,
            encoding: Some(Zstd),
        };
        let asked = |index| Seal { is_final: false, encoding: None, ..seal(index) };
        let ours = device.run(Work::Seal(seal(0)), &plain).0.unwrap();
        assert_eq!(ours.len(), len + crate::OVERHEAD_BYTES, "{name}");
        assert_eq!(
            cpu.run(Work::Open(asked(0)), &ours),
            (Ok(plain.clone()), Work::Open(seal(0))),
            "{name} {len}"
        );
        assert_eq!(
            device.run(Work::Open(asked(0)), &ours).0,
            Err(JobError::Replayed),
            "{name}: one window for both"
        );
        let theirs = cpu.run(Work::Seal(seal(1)), &plain).0.unwrap();
        for _ in 0..2 {
            // The first time on the cpu, then on the device.
            let opened = device.run(Work::Open(asked(1)), &theirs);
            assert_eq!(opened, (Ok(plain.clone()), Work::Open(seal(1))), "{name} {len}");
        }
        for at in [0, 3, 20, 31, 32, theirs.len() - 17, theirs.len() - 1] {
            let mut bad = theirs.clone();
            bad[at] ^= 1;
            let expected = match at {
                0 => JobError::Corrupt,
                3 => JobError::UnknownKey,
                _ => JobError::Forged,
            };
            assert_eq!(device.run(Work::Open(asked(1)), &bad).0, Err(expected), "{name} {len} {at}");
        }
        assert_eq!(device.run(Work::Open(asked(2)), &theirs).0, Err(JobError::Forged), "{name}");
        assert_eq!(device.run(Work::Open(asked(1)), &theirs[..40]).0, Err(JobError::Corrupt), "{name}");
    }
}

/// A sender that has sent nothing the shard opened itself: its second message is the device's.
fn known_by_large_messages(device: &mut Bed, stranger: &mut Bed) {
    let (ring, tag) = (device.queue.ring("wire").unwrap(), stranger.queue.tag());
    let (is_request, is_final, encoding) = (true, false, None);
    let seal = Seal { ring, tag, purpose: [5; 16], is_request, index: 1, is_final, encoding };
    let sealed = stranger.run(Work::Seal(seal), &text(40_000)).0.unwrap();
    let seen = [0, 1, 1].map(|_| by_device(device, Work::Open(seal), &sealed));
    assert_eq!(seen, [(0, 0), (1, 0), (1, 0)]);
}

/// The key that seals gives way to another: so does the device's.
fn worn_key(device: &mut Bed, cpu: &mut Bed) {
    let (ring, tag) = (device.queue.ring("wire").unwrap(), device.queue.tag());
    let (is_request, is_final, encoding) = (true, false, None);
    let seal = |index| Seal { ring, tag, purpose: [5; 16], is_request, index, is_final, encoding };
    device.queue.cpu.sealer().wear_out(1);
    let seats = [1, 2, 3].map(|index| {
        let before = device.counters.snapshot().device_jobs;
        let sealed = device.run(Work::Seal(seal(index)), b"text").0.unwrap();
        assert_eq!(device.counters.snapshot().device_jobs, before + 1);
        assert_eq!(cpu.run(Work::Open(seal(index)), &sealed).0, Ok(b"text".to_vec()));
        [sealed[30], sealed[31]]
    });
    assert!(seats[0] != seats[1] && seats[1] == seats[2], "{seats:?}");
}

fn no_allocation(bed: &mut Bed) {
    let ring = bed.queue.ring("wire").unwrap();
    let seal = Seal {
        ring,
        tag: bed.queue.tag(),
        purpose: [5; 16],
        is_request: true,
        index: 1,
        is_final: false,
        encoding: None,
    };
    let plain = text(3000);
    let envelope = bed.run(Work::Seal(seal), &plain).0.unwrap();
    let kinds = [
        (Work::Compress(Gzip), plain.clone()),
        (Work::Decompress(Gzip, plain.len()), oracle_packs(Gzip, &plain)),
        (Work::Seal(seal), [&[0; Seal::HEAD], &plain[..]].concat()),
        (Work::Open(seal), envelope),
    ];
    let mut jobs: Vec<_> = (0..16)
        .map(|call| {
            let key = JobKey { call, generation: 1, is_request: true };
            let [input, output] = [Vec::with_capacity(8192), Vec::with_capacity(8192)];
            Box::new(Job { key, work: Work::Compress(Gzip), input, output })
        })
        .collect();
    let (mut burst, mut done) = (Burst::new(), Burst::new());
    let mut pass = |rounds: u32| {
        for _ in 0..rounds {
            for mut job in jobs.drain(..) {
                let (work, input) = &kinds[job.key.call as usize % kinds.len()];
                job.work = *work;
                job.input.clear();
                job.input.extend_from_slice(input);
                job.output.clear();
                burst.push(job).unwrap();
            }
            assert_eq!(bed.queue.submit(&mut burst), 16);
            while jobs.len() < 16 {
                bed.queue.poll(&mut done);
                for done in done.drain() {
                    assert_eq!(done.result, Ok(()));
                    jobs.push(done.job);
                }
            }
        }
    };
    pass(20);
    let seen = allocation_counter::measure(|| pass(50));
    assert_eq!(seen.count_total, 0);
}

fn death(bed: &mut Bed) {
    let said = bed.said.load(Ordering::Relaxed);
    bed.queue.device.as_mut().unwrap().lanes.fall_silent();
    let plain = text(3000);
    let mut burst = Burst::new();
    let ring = bed.queue.ring("wire").unwrap();
    let tag = bed.queue.tag();
    let seal =
        Seal { ring, tag, purpose: [5; 16], is_request: true, index: 0, is_final: false, encoding: None };
    for call in 0..20 {
        let key = JobKey { call, generation: 1, is_request: true };
        let work = if call % 2 == 0 { Work::Compress(Gzip) } else { Work::Seal(seal) };
        let head = if call % 2 == 0 { &[][..] } else { &[0; Seal::HEAD] };
        let input = [head, &plain].concat();
        burst.push(Box::new(Job { key, work, input, output: Vec::new() })).unwrap();
    }
    assert_eq!(bed.queue.submit(&mut burst), 20);
    let mut done = Burst::new();
    bed.queue.poll(&mut done);
    assert!(done.is_empty());
    CLOCK.fetch_add(3, Ordering::Relaxed);
    let all = bed.collect(20);
    for done in &all {
        assert_eq!(done.result, Ok(()));
        match done.job.work {
            Work::Compress(_) => assert_eq!(oracle_unpacks(Gzip, &done.job.output), plain),
            _ => assert_eq!(done.job.input.len(), plain.len() + crate::OVERHEAD_BYTES),
        }
    }
    let mut calls: Vec<u32> = all.iter().map(|done| done.job.key.call).collect();
    calls.sort_unstable();
    assert_eq!(calls, (0..20).collect::<Vec<_>>(), "each comes back once");
    assert_eq!(bed.counters.snapshot().device_died, 2);
    assert_eq!(bed.said.load(Ordering::Relaxed), said + 2);
    let before = bed.counters.snapshot().cpu_jobs;
    assert!(bed.run(Work::Compress(Gzip), &plain).0.is_ok());
    assert_eq!(bed.counters.snapshot().cpu_jobs, before + 1, "from here on the cpu's");
}
