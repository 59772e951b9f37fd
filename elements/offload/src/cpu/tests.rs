//! Against vectors made by Python's zlib, and against flate2 (miniz) in both directions.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use abi::Encoding::{self, Deflate, Gzip};
use shard::{JobKey, Seal};

use super::*;
use crate::SealOptions;

const PYTHON_GZIP: &str = "1f8b08000000000000032bc92f2f482cc9502819a434005e285929a0000000";
const PYTHON_ZLIB: &str = "789c2bc92f2f482cc9502819a43400ee493f0d";
const PYTHON_GZIP_EMPTY: &str = "1f8b080000000000020303000000000000000000";
const PYTHON_ZLIB_EMPTY: &str = "789c030000000001";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn no_keys() -> Arc<Keys> {
    Arc::new(Keys::open([], SealOptions::with_clock(|| 0)).unwrap().0)
}

fn cpu() -> Cpu {
    Cpu::new(&no_keys(), || {}).unwrap()
}

type Jobs = Vec<Box<Job>>;

fn job(call: u32, work: Work, input: &[u8]) -> Box<Job> {
    let key = JobKey { call, generation: 1, is_request: true };
    Box::new(Job { key, work, input: input.to_vec(), output: Vec::new() })
}

/// Submits all, polls until all are back; in order of completion.
fn run_all(cpu: &mut Cpu, jobs: Jobs) -> Vec<Done> {
    let count = jobs.len();
    let mut waiting = jobs.into_iter();
    let mut burst = Burst::new();
    let mut finished = Vec::new();
    for _ in 0..20_000 {
        while burst.room() > 0 {
            let Some(next) = waiting.next() else { break };
            burst.push(next).unwrap();
        }
        cpu.submit(&mut burst);
        let mut done = Burst::new();
        cpu.poll(&mut done);
        finished.extend(done.drain());
        if finished.len() == count {
            assert_eq!(cpu.pending(), 0);
            return finished;
        }
        std::thread::yield_now();
        if done.is_empty() {
            #[expect(clippy::disallowed_methods, reason = "a test waits for the helper thread")]
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("jobs did not finish");
}

fn run_one(work: Work, input: &[u8]) -> Result<Vec<u8>, JobError> {
    let done = run_all(&mut cpu(), vec![job(1, work, input)]).pop().unwrap();
    assert_eq!(done.job.input, input, "the input comes back as it was");
    done.result.map(|()| done.job.output)
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

fn oracle_decompress(how: Encoding, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match how {
        Gzip => flate2::read::GzDecoder::new(input).read_to_end(&mut out).unwrap(),
        _ => flate2::read::ZlibDecoder::new(input).read_to_end(&mut out).unwrap(),
    };
    out
}

fn oracle_compress(how: Encoding, input: &[u8]) -> Vec<u8> {
    match how {
        Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(input).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(input).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// What Python's zlib made, and of what.
pub(crate) fn python_vectors() -> [(Encoding, Vec<u8>, Vec<u8>); 4] {
    let plain = b"towpath ".repeat(20);
    [
        (Gzip, unhex(PYTHON_GZIP), plain.clone()),
        (Deflate, unhex(PYTHON_ZLIB), plain),
        (Gzip, unhex(PYTHON_GZIP_EMPTY), Vec::new()),
        (Deflate, unhex(PYTHON_ZLIB_EMPTY), Vec::new()),
    ]
}

/// Files as they come: prose, code, a list with checksums, machine code, hexadecimal digits; and noise and nothing but zeros.
pub(crate) fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    program.truncate(200_000);
    let mut state = 7_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    vec![
        ("prose", include_bytes!("../../../../LICENSE").to_vec()),
        ("code", include_bytes!("tests.rs").to_vec()),
        ("list", include_bytes!("../../../../Cargo.lock").to_vec()),
        ("digits", include_bytes!("../seal/tests/gcm.in").to_vec()),
        ("program", program),
        ("noise", noise.take(30_000).collect()),
        ("zeros", vec![0; 60_000]),
    ]
}

#[test]
fn vectors_of_another_implementation_decompress() {
    for (how, packed, plain) in python_vectors() {
        assert_eq!(run_one(Work::Decompress(how, plain.len()), &packed), Ok(plain), "{how:?}");
    }
}

#[test]
fn files_as_they_come_are_the_same_afterwards() {
    for (name, plain) in corpus() {
        for how in [Gzip, Deflate] {
            let ours = run_one(Work::Compress(how), &plain).unwrap();
            assert!(oracle_decompress(how, &ours) == plain, "{how:?} {name}");
            let theirs = oracle_compress(how, &plain);
            assert!(
                run_one(Work::Decompress(how, plain.len()), &theirs) == Ok(plain.clone()),
                "{how:?} {name}"
            );
        }
    }
}

#[test]
fn both_directions_agree_with_flate2_at_every_size() {
    for how in [Gzip, Deflate] {
        for len in [0, 1, 100, 1024, INLINE_INPUT_BYTES, INLINE_INPUT_BYTES + 1, 70_000, 1 << 20] {
            let plain = text(len);
            let ours = run_one(Work::Compress(how), &plain).unwrap();
            assert_eq!(oracle_decompress(how, &ours), plain, "{how:?} {len}");
            let theirs = oracle_compress(how, &plain);
            assert_eq!(run_one(Work::Decompress(how, len), &theirs), Ok(plain), "{how:?} {len}");
        }
    }
}

#[test]
fn a_bomb_is_bounded_by_max() {
    let zeros = vec![0_u8; 32 << 20];
    for how in [Gzip, Deflate] {
        let bomb = oracle_compress(how, &zeros);
        let mut cpu = cpu();
        for max in [0, 1000, INLINE_TURN_BYTES, 4 << 20, zeros.len() - 1] {
            let done = run_all(&mut cpu, vec![job(1, Work::Decompress(how, max), &bomb)]).pop().unwrap();
            assert_eq!(done.result, Err(JobError::TooLarge), "{how:?} {max}");
            assert!(done.job.output.is_empty());
            assert!(done.job.output.capacity() <= max.max(4 << 20) * 2, "memory stays near the limit");
        }
        let done = run_all(&mut cpu, vec![job(1, Work::Decompress(how, zeros.len()), &bomb)]).pop().unwrap();
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.job.output.len(), zeros.len());
    }
}

#[test]
fn a_small_input_with_a_large_output_leaves_the_turn() {
    let plain = vec![b'x'; 1 << 20];
    let small = oracle_compress(Gzip, &plain);
    assert!(small.len() < INLINE_INPUT_BYTES);
    let mut cpu = cpu();
    let mut burst = Burst::new();
    burst.push(job(1, Work::Decompress(Gzip, 2 << 20), &small)).unwrap();
    assert_eq!(cpu.submit(&mut burst), 1);
    assert!(cpu.ready.is_empty(), "not done inside the turn");
    assert_eq!(cpu.at_helper, 1);
    let done = run_all_more(&mut cpu, Vec::new(), 1);
    assert_eq!(done[0].job.output, plain);
    assert_eq!(cpu.pending(), 0);
}

#[test]
fn every_truncation_and_every_flipped_byte_is_corrupt_or_bounded() {
    let plain = text(500);
    for how in [Gzip, Deflate] {
        let good = oracle_compress(how, &plain);
        for cut in 0..good.len() {
            assert_eq!(run_one(Work::Decompress(how, 4096), &good[..cut]), Err(JobError::Corrupt), "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            // Bytes of the gzip header (time, system, extra flags) carry no meaning; all others must show.
            if let Ok(out) = run_one(Work::Decompress(how, 4096), &bad) {
                assert!(how == Gzip && (4..10).contains(&at), "{how:?} {at}");
                assert_eq!(out, plain);
            }
        }
    }
}

/// What is no stream from its first byte to its last, though each begins with `plain`'s and ends with its checksum.
pub(crate) fn not_one_stream(how: Encoding, plain: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let good = oracle_compress(how, plain);
    let (head, trailer) = good.split_at(good.len() - if how == Gzip { 8 } else { 4 });
    let empty = oracle_compress(how, b"");
    [
        ("an equal one behind it", [&good[..], &good].concat()),
        ("two equal ones behind it", [&good[..], &good, &good].concat()),
        ("an empty one and its checksum behind it", [&good[..], &empty, trailer].concat()),
        ("its checksum twice", [&good[..], trailer].concat()),
        ("bytes before the checksum", [head, &[7; 30], trailer].concat()),
    ]
}

#[test]
fn rfc1952_section_2_2_bytes_after_the_member_are_not_dropped_silently() {
    let plain = text(300);
    for how in [Gzip, Deflate] {
        let mut good = oracle_compress(how, &plain);
        good.extend_from_slice(b"junk");
        assert_eq!(run_one(Work::Decompress(how, 4096), &good), Err(JobError::Corrupt));
        let mut two = oracle_compress(how, &plain);
        two.extend(oracle_compress(how, &text(77)));
        assert_eq!(run_one(Work::Decompress(how, 4096), &two), Err(JobError::Corrupt));
        for plain in [&plain[..], &[0; 5], b"aaaaaaaaaaaaaaaaaaaaaaaaaaaa", &text(100_000)] {
            for (what, input) in not_one_stream(how, plain) {
                let result = run_one(Work::Decompress(how, 1 << 20), &input);
                assert_eq!(result, Err(JobError::Corrupt), "{how:?} of {} with {what}", plain.len());
            }
        }
    }
    // A stream may hold its own checksum.
    let trailer = oracle_compress(Gzip, &plain).split_off(oracle_compress(Gzip, &plain).len() - 8);
    let mut encoder = flate2::GzBuilder::new().extra(trailer).write(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&plain).unwrap();
    assert_eq!(run_one(Work::Decompress(Gzip, 4096), &encoder.finish().unwrap()), Ok(plain));
}

#[test]
fn output_is_appended_and_kept_on_failure() {
    let mut cpu = cpu();
    let mut first = job(1, Work::Compress(Gzip), b"hello hello hello");
    first.output.extend_from_slice(b"frame");
    let done = run_all(&mut cpu, vec![first]).pop().unwrap();
    assert_eq!(&done.job.output[..5], b"frame");
    assert_eq!(oracle_decompress(Gzip, &done.job.output[5..]), b"hello hello hello");

    let mut bad = job(2, Work::Decompress(Gzip, 100), b"not gzip at all, not at all");
    bad.output.extend_from_slice(b"frame");
    let done = run_all(&mut cpu, vec![bad]).pop().unwrap();
    assert_eq!(done.result, Err(JobError::Corrupt));
    assert_eq!(done.job.output, b"frame");
}

#[test]
fn a_turn_works_on_a_bounded_number_of_bytes_and_everything_completes() {
    let mut cpu = cpu();
    let mut burst = Burst::new();
    for call in 0..32 {
        burst.push(job(call, Work::Compress(Gzip), &text(INLINE_INPUT_BYTES))).unwrap();
    }
    let taken = cpu.submit(&mut burst);
    assert!(cpu.ready.len() <= INLINE_TURN_BYTES / INLINE_INPUT_BYTES, "{} inline", cpu.ready.len());
    assert_eq!(taken + burst.len(), 32);
    assert_eq!(cpu.pending(), taken);
    let rest: Vec<_> = burst.drain().collect();
    let mut calls: Vec<u32> = run_all_more(&mut cpu, rest, taken).iter().map(|d| d.job.key.call).collect();
    calls.sort_unstable();
    assert_eq!(calls, (0..32).collect::<Vec<_>>());
}

#[test]
fn what_does_not_open_counts_as_much_as_what_does() {
    let mut cpu = Cpu::new(&Arc::new(Keys::for_timing().unwrap()), || {}).unwrap();
    let tag = cpu.tag();
    let (purpose, is_final, encoding) = ([0; 16], false, None);
    let seal = Seal { ring: Ring(0), tag, purpose, is_request: true, index: 0, is_final, encoding };
    let mut forged = vec![0; Seal::HEAD + INLINE_INPUT_BYTES / 2];
    cpu.bench.sealer.seal(&seal, &mut forged).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let mut burst = Burst::new();
    for call in 0..32 {
        burst.push(job(call, Work::Open(seal), &forged)).unwrap();
    }
    assert_eq!(cpu.submit(&mut burst), 32);
    let most = INLINE_TURN_BYTES / (INLINE_INPUT_BYTES / 2);
    assert!((1..=most).contains(&cpu.ready.len()), "{} opened in a turn", cpu.ready.len());
    let done = run_all_more(&mut cpu, Vec::new(), 32);
    assert!(done.iter().all(|one| one.result == Err(JobError::Forged)));
}

fn run_all_more(cpu: &mut Cpu, jobs: Jobs, before: usize) -> Vec<Done> {
    let mut finished = Vec::new();
    while finished.len() < before {
        let mut done = Burst::new();
        cpu.poll(&mut done);
        finished.extend(done.drain());
        std::thread::yield_now();
    }
    finished.extend(run_all(cpu, jobs));
    finished
}

#[test]
fn a_full_queue_leaves_the_rest_in_the_burst_in_order() {
    let mut cpu = cpu();
    let large = text(4 << 20);
    let mut submitted = 0;
    let mut kept = Vec::new();
    for round in 0..4_u32 {
        let mut burst = Burst::new();
        for at in 0..32 {
            burst.push(job(round * 32 + at, Work::Compress(Gzip), &large)).unwrap();
        }
        submitted += cpu.submit(&mut burst);
        kept.extend(burst.drain());
    }
    assert_eq!(submitted + kept.len(), 128);
    assert!(!kept.is_empty(), "the queue is bounded");
    let calls: Vec<u32> = kept.iter().map(|j| j.key.call).collect();
    assert!(calls.is_sorted());
    assert_eq!(cpu.pending(), submitted);
    drop(cpu);
}

#[test]
fn the_shard_is_woken_for_jobs_of_the_helper() {
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = woken.clone();
    let mut cpu = Cpu::new(&no_keys(), move || {
        counter.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    run_all(&mut cpu, vec![job(1, Work::Compress(Gzip), &text(100))]);
    assert_eq!(woken.load(Ordering::SeqCst), 0, "small jobs need no wake-up");
    run_all(&mut cpu, vec![job(1, Work::Compress(Gzip), &text(100_000))]);
    for _ in 0..2000 {
        if woken.load(Ordering::SeqCst) == 1 {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a test waits for the helper thread")]
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not woken");
}

#[test]
fn zstd_undoes_itself_and_what_is_wrong_has_a_name() {
    let zstd = Encoding::Zstd;
    for len in [0, 1, 1000, INLINE_INPUT_BYTES + 1, 1 << 20] {
        let plain = text(len);
        let packed = run_one(Work::Compress(zstd), &plain).unwrap();
        assert!(len < 1000 || packed.len() < len / 2);
        assert_eq!(run_one(Work::Decompress(zstd, len), &packed), Ok(plain), "{len}");
        if len > 0 {
            assert_eq!(run_one(Work::Decompress(zstd, len - 1), &packed), Err(JobError::TooLarge), "{len}");
        }
    }
    let good = run_one(Work::Compress(zstd), &text(500)).unwrap();
    for cut in 0..good.len() {
        assert_eq!(run_one(Work::Decompress(zstd, 4096), &good[..cut]), Err(JobError::Corrupt), "{cut}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        // Some bits of the tables carry no meaning; the frame's checksum vouches for what comes out.
        match run_one(Work::Decompress(zstd, 4096), &bad) {
            Ok(out) => assert_eq!(out, text(500), "{at}"),
            Err(error) => assert!(matches!(error, JobError::Corrupt | JobError::TooLarge), "{at}"),
        }
    }
    // A second frame, a skippable frame, anything else behind the first.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
    for more in [&good[..], &skippable, b"x"] {
        let longer = [&good[..], more].concat();
        assert_eq!(run_one(Work::Decompress(zstd, 4096), &longer), Err(JobError::Corrupt));
    }
    assert_eq!(run_one(Work::Decompress(zstd, 4096), &skippable), Err(JobError::Corrupt));
}

#[test]
fn a_zstd_bomb_is_bounded_by_max_whether_or_not_it_says_its_size() {
    let zeros = vec![0_u8; 8 << 20];
    let mut declared = vec![0; zstd_safe::compress_bound(zeros.len())];
    let len = zstd_safe::compress(&mut declared[..], &zeros, 3).unwrap();
    declared.truncate(len);
    let mut silent = vec![0; declared.capacity()];
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
    let len = context.compress2(&mut silent[..], &zeros).unwrap();
    silent.truncate(len);
    assert_eq!(zstd_safe::get_frame_content_size(&silent).unwrap(), None);
    for bomb in [&declared, &silent] {
        assert!(bomb.len() < zeros.len() / 1000);
        for max in [0, 1000, INLINE_TURN_BYTES, zeros.len() - 1] {
            let done =
                run_all(&mut cpu(), vec![job(1, Work::Decompress(Encoding::Zstd, max), bomb)]).pop().unwrap();
            assert_eq!(done.result, Err(JobError::TooLarge), "{max}");
            assert!(done.job.output.capacity() <= max.max(64 << 10) * 2, "memory stays near the limit");
        }
        assert_eq!(run_one(Work::Decompress(Encoding::Zstd, zeros.len()), bomb).as_ref(), Ok(&zeros));
    }
}
