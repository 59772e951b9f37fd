//! Compression and cryptography through software devices, against implementations that are not theirs.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};

use dpdk_sys::{
    AAD_MAX, AcceleratorOptions, Bound, Buffers, Cipher, CompressJob, CompressOutcome, CompressQueue,
    Compressor, CryptoQueue, Direction, Eal, IV_LEN, Memory, Options, Refusal, SealJob, SealOutcome,
    SessionId, TAG_LEN, pools,
};

fn eal() -> Eal {
    Eal::start(&Options { memory: Memory::Ordinary { mib: 256 }, pci: Vec::new() }).unwrap()
}

/// Messages of many lengths: text that repeats, and noise that does not.
fn messages() -> Vec<Vec<u8>> {
    let text =
        |len: usize| b"the quick brown fox of the towpath ".iter().copied().cycle().take(len).collect();
    let noise = |len: usize| {
        let mut state = 88_172_645_463_325_252_u64;
        let next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        core::iter::repeat_with(next).take(len).collect()
    };
    [1, 64, 1000, 16_384, 50_000, 70_001, 300_000]
        .into_iter()
        .flat_map(|len| [text(len), noise(len)])
        .collect()
}

/// What travels with a job: its vectors and its number.
#[derive(Debug, Default)]
struct Message {
    input: Vec<u8>,
    output: Vec<u8>,
    number: usize,
}

impl Buffers for Message {
    fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        (&mut self.input, &mut self.output)
    }
}

/// What came back.
struct Was<O> {
    input: Vec<u8>,
    output: Vec<u8>,
    number: usize,
    outcome: O,
}

fn was<O>(message: Message, outcome: O) -> Was<O> {
    let Message { input, output, number } = message;
    Was { input, output, number, outcome }
}

type Deflated = Was<CompressOutcome>;
type WasSealed = Was<SealOutcome>;

struct ToDeflate {
    direction: Direction,
    message: Message,
    room: usize,
}

impl ToDeflate {
    fn stage(&mut self, queue: &mut CompressQueue<Message>) -> Result<(), Refusal> {
        let Self { direction, room, .. } = *self;
        let body = 2..self.message.input.len() - 1;
        let with = std::mem::take(&mut self.message);
        queue.stage(CompressJob { direction, body, room, with }).map_err(|(why, with)| {
            self.message = with;
            why
        })
    }
}

/// Every job's result, in the order of numbers.
fn compress_all(queue: &mut CompressQueue<Message>, jobs: Vec<ToDeflate>) -> Vec<Deflated> {
    let (count, mut done) = (jobs.len(), Vec::new());
    for mut job in jobs {
        job.stage(queue).unwrap();
    }
    for _ in 0..1_000_000 {
        queue.flush();
        queue.poll(|one| done.push(was(one.with, one.outcome)));
        if done.len() == count {
            break;
        }
    }
    assert_eq!((done.len(), queue.jobs()), (count, 0));
    done.sort_by_key(|done| done.number);
    done
}

#[test]
fn accelerators_agree_with_other_implementations_and_give_buffers_back() {
    let eal = eal();
    // The first one three times: what was closed opens again, and works as hardware would.
    for (device, copies) in [
        ("compress_isal0", false),
        ("compress_zlib0", false),
        ("compress_zlib0", true),
        ("compress_isal0", true),
        ("compress_isal0", false),
    ] {
        deflate(eal, device, copies);
        assert_eq!(pools().iter().map(|pool| pool.in_use).sum::<u32>(), 0, "{device}");
    }
    let scheduler = "crypto_scheduler0,worker=crypto_aesni_gcm0,worker=crypto_aesni_gcm1,mode=round-robin";
    for (device, copies) in [
        ("crypto_aesni_gcm0", false),
        ("crypto_aesni_gcm0", true),
        ("crypto_aesni_mb0", false),
        ("crypto_aesni_mb0", true),
        ("crypto_openssl0", false),
        ("crypto_openssl0", true),
        (scheduler, false),
        (scheduler, true),
        ("crypto_aesni_gcm0", false),
    ] {
        aes_gcm(eal, device, copies);
        assert_eq!(pools().iter().map(|pool| pool.in_use).sum::<u32>(), 0, "{device}");
    }
    for (device, says) in [
        ("compress_nothing0", "no driver is named compress_nothing"),
        ("net_null5", "not a compression device"),
    ] {
        let error =
            Compressor::<Message>::open(eal, device, AcceleratorOptions::default(), None).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    for (device, says) in [
        ("crypto_scheduler1", "worker=crypto_aesni_gcm0,worker="),
        ("crypto_scheduler2,worker=crypto_aesni_gcm0", "needs a mode"),
        ("crypto_scheduler3,worker=crypto_none0,mode=round-robin", "no driver is named crypto_none"),
    ] {
        let error = Cipher::<Sealing>::open(eal, device, AcceleratorOptions::default(), 8).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

fn deflate(eal: Eal, device: &str, copies: bool) {
    let options = AcceleratorOptions { queues: 2, depth: 64, copies };
    let mut open = Compressor::open(eal, device, options, Some(1)).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = open.queue(1).unwrap();
    let again = Compressor::<Message>::open(eal, device, options, None).unwrap_err();
    assert!(again.to_string().contains("open already"), "{again}");
    let messages = messages();
    let job = |direction, bytes: &[u8], room: usize, number: usize| {
        // Among other bytes, on both sides.
        let (input, output) = ([b"<<", bytes, b">"].concat(), b"kept".to_vec());
        ToDeflate { direction, message: Message { input, output, number }, room }
    };
    let result = |done: &Deflated| done.output.strip_prefix(b"kept").unwrap().to_vec();
    let is_chained = device == "compress_isal0";
    let fits = |message: &&Vec<u8>| is_chained || message.len() <= 50_000;
    let jobs = messages.iter().filter(fits).enumerate();
    let jobs =
        jobs.map(|(at, bytes)| job(Direction::Compress, bytes, bytes.len() * 9 / 8 + 64, at)).collect();
    let packed = compress_all(&mut queue, jobs);
    assert_eq!(packed.len(), if is_chained { 14 } else { 10 });
    for (packed, message) in packed.iter().zip(&messages) {
        assert_eq!(packed.outcome, CompressOutcome::Done { consumed: message.len() }, "{device}");
        assert!(packed.input[2..2 + message.len()] == message[..]);
        let mut plain = Vec::new();
        flate2::read::DeflateDecoder::new(&result(packed)[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == *message, "{device}: {} bytes as zlib undoes them", message.len());
    }
    assert!(packed[6].output.len() < 2_000, "{device}: text shrinks: {}", packed[6].output.len());

    let foreign = messages.iter().take(10).enumerate().map(|(at, message)| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(message).unwrap();
        job(Direction::Decompress, &encoder.finish().unwrap(), message.len().max(100), at)
    });
    let plain = compress_all(&mut queue, foreign.collect());
    for (plain, message) in plain.iter().zip(&messages) {
        assert!(matches!(plain.outcome, CompressOutcome::Done { .. }), "{device}: {:?}", plain.outcome);
        assert!(result(plain) == *message, "{device}");
    }

    // No room, and no deflate at all: said, not crashed, and nothing appended; what follows works.
    let odd = vec![
        job(Direction::Compress, &messages[9], 100, 0),
        job(Direction::Decompress, &[0xff; 200], 1000, 1),
        job(Direction::Compress, &messages[2], 60_000, 2),
    ];
    let odd = compress_all(&mut queue, odd);
    assert_eq!((odd[0].outcome, &odd[0].output[..]), (CompressOutcome::OutOfSpace, &b"kept"[..]), "{device}");
    assert!(!matches!(odd[1].outcome, CompressOutcome::Done { .. }), "{device}: {:?}", odd[1].outcome);
    assert_eq!(odd[1].output, b"kept");
    assert!(matches!(odd[2].outcome, CompressOutcome::Done { .. }), "{device}");

    // What can never be done, and what cannot be done now, stays as it was.
    for (bytes, why) in [(&b""[..], Refusal::Unfit), (&vec![0; 8 << 20], Refusal::Unfit)] {
        let mut odd = job(Direction::Compress, bytes, 100, 7);
        assert_eq!(odd.stage(&mut queue), Err(why));
        assert_eq!((odd.message.input.len(), &odd.message.output[..]), (bytes.len() + 3, &b"kept"[..]));
    }
    for at in 0..64 {
        job(Direction::Compress, &messages[4], 60_000, at).stage(&mut queue).unwrap();
    }
    let full = job(Direction::Compress, &messages[4], 60_000, 64).stage(&mut queue);
    assert_eq!((full, queue.jobs()), (Err(Refusal::Full), 64));
    queue.flush();

    // Given up at the device: copies come out, once, and what comes back later is nobody's.
    let mut given_up = Vec::new();
    queue.abandon(|one| given_up.push(was(one.with, one.outcome)));
    assert_eq!((given_up.len(), queue.jobs()), (64, 0));
    assert!(given_up.iter().all(|one| one.outcome == CompressOutcome::Abandoned && one.output == b"kept"));
    assert!(given_up.iter().all(|one| one.input[2..2 + messages[4].len()] == messages[4][..]));
    while queue.poll(|_| panic!("it was given up")) > 0 {}
    let again = compress_all(&mut queue, vec![job(Direction::Compress, &messages[2], 60_000, 2)]);
    assert!(matches!(again[0].outcome, CompressOutcome::Done { .. }), "{device}");

    // Dropped with jobs under way and staged: segments come back (the caller counts them).
    job(Direction::Compress, &messages[4], 60_000, 0).stage(&mut queue).unwrap();
    queue.flush();
    job(Direction::Compress, &messages[4], 60_000, 1).stage(&mut queue).unwrap();
}

struct ToSeal {
    session: SessionId,
    message: Sealing,
}

/// A message, its nonce's bytes, and so much of the associated data.
#[derive(Debug, Default)]
struct Sealing {
    message: Message,
    iv: u8,
    aad: [u8; 9],
    aad_len: usize,
}

impl Buffers for Sealing {
    fn buffers(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        self.message.buffers()
    }
}

impl Bound for Sealing {
    fn aad_len(&self) -> usize {
        self.aad_len
    }

    fn bind(&self, nonce: &mut [u8; IV_LEN], aad: &mut [u8; AAD_MAX]) {
        *nonce = [self.iv; IV_LEN];
        aad[..self.aad_len].copy_from_slice(&self.aad[..self.aad_len]);
    }
}

impl ToSeal {
    /// With so much of the associated data.
    fn stage<const N: usize>(&mut self, queue: &mut CryptoQueue<Sealing>) -> Result<(), Refusal> {
        let mut with = std::mem::take(&mut self.message);
        with.aad_len = N;
        queue.stage(SealJob { session: self.session, start: 3, with }).map_err(|(why, with)| {
            self.message = with;
            why
        })
    }
}

fn seal_all(queue: &mut CryptoQueue<Sealing>, jobs: Vec<ToSeal>) -> Vec<WasSealed> {
    let (count, mut done) = (jobs.len(), Vec::new());
    for mut job in jobs {
        job.stage::<9>(queue).unwrap();
    }
    for _ in 0..1_000_000 {
        queue.flush();
        queue.poll(|one| done.push(was(one.with.message, one.outcome)));
        if done.len() == count {
            break;
        }
    }
    assert_eq!((done.len(), queue.jobs()), (count, 0));
    done.sort_by_key(|done| done.number);
    done
}

fn aes_gcm(eal: Eal, device: &str, copies: bool) {
    let options = AcceleratorOptions { queues: 1, depth: 64, copies };
    let mut open = Cipher::open(eal, device, options, 8).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = open.queue(0).unwrap();
    let job = |session: SessionId, bytes: &[u8], number: usize| {
        let (input, output) = ([b"<<<", bytes].concat(), b"room".to_vec());
        let (message, iv) = (Message { input, output, number }, number.try_into().unwrap());
        ToSeal { session, message: Sealing { message, iv, aad: *b"/pkg.S/M!", aad_len: 0 } }
    };
    let result = |done: &WasSealed| done.input.strip_prefix(b"<<<").unwrap().to_vec();
    // These work on the calling core, unless they are to be like hardware.
    let is_prompt = device.starts_with("crypto_aesni_") && !copies;

    // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 2.
    let zeros = queue.session(&[0; 16], true, 0).unwrap();
    job(zeros, &[0; 16], 0).stage::<0>(&mut queue).unwrap();
    let done = drain(&mut queue);
    let expected = [
        0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78, 0xab,
        0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
    ];
    assert_eq!((done[0].outcome, &result(&done[0])[..]), (SealOutcome::Done, &expected[..]), "{device}");
    assert!(queue.end_session(zeros) && !queue.end_session(zeros));

    // openssl's GCM takes no chain in place, though its flags say so.
    let longest = if device == "crypto_openssl0" || is_prompt { 10 } else { 14 };
    let messages: Vec<_> = messages().into_iter().take(longest).collect();
    for key in [&[7; 16][..], &[9; 32]] {
        let (seal, open) = (queue.session(key, true, 9).unwrap(), queue.session(key, false, 9).unwrap());
        let jobs = messages.iter().enumerate();
        let jobs = jobs.map(|(at, bytes)| job(seal, bytes, at));
        let sealed = seal_all(&mut queue, jobs.collect());
        let mut jobs = Vec::new();
        for (at, (sealed, message)) in sealed.iter().zip(&messages).enumerate() {
            assert_eq!(sealed.outcome, SealOutcome::Done, "{device}");
            assert_eq!(sealed.input.len(), 3 + message.len() + TAG_LEN);
            if message.len() >= 64 {
                assert_ne!(sealed.input[3..3 + message.len()], message[..]);
            }
            jobs.push(job(open, &result(sealed), at));
        }
        // Of the last ones one byte of the text, of the tag, of the associated data and of the nonce is wrong.
        let last = jobs.len() - 1;
        jobs[last].message.message.input[6] ^= 1;
        *jobs[last - 1].message.message.input.last_mut().unwrap() ^= 1;
        jobs[last - 2].message.aad[8] ^= 1;
        jobs[last - 3].message.iv ^= 0x80;
        for (at, opened) in seal_all(&mut queue, jobs).iter().enumerate() {
            if at > last - 4 {
                assert_eq!(opened.outcome, SealOutcome::Forged, "{device}: {at}");
            } else {
                assert_eq!(opened.outcome, SealOutcome::Done, "{device}: {at}");
                assert!(result(opened) == messages[at], "{device}: {at}");
            }
        }
        assert!(queue.end_session(seal) && queue.end_session(open));
    }

    if is_prompt {
        at_once(&mut queue, device);
    }

    // What can never be done stays as it was: no tag, other associated data, too much, no such session.
    let open = queue.session(&[1; 16], false, 0).unwrap();
    let mut short = job(open, &[0; 5], 1);
    assert_eq!(short.stage::<0>(&mut queue), Err(Refusal::Unfit));
    assert_eq!(short.message.message.input, b"<<<\0\0\0\0\0");
    assert_eq!(job(open, &[0; 50], 2).stage::<4>(&mut queue), Err(Refusal::Unfit));
    assert_eq!(job(open, &vec![0; 8 << 20], 2).stage::<0>(&mut queue), Err(Refusal::Unfit));
    assert!(queue.end_session(open));
    assert_eq!(job(open, &[0; 50], 2).stage::<0>(&mut queue), Err(Refusal::Unfit));
    let error = queue.session(&[0; 5], true, 0).unwrap_err();
    assert!(error.to_string().contains("16 or 32 bytes"), "{error}");

    // Full; then given up at the device: copies come out, once, and the session waits for the device.
    let seal = queue.session(&[1; 16], true, 0).unwrap();
    for at in 0..64 {
        job(seal, &messages[4], at).stage::<0>(&mut queue).unwrap();
    }
    assert_eq!(job(seal, &messages[4], 64).stage::<0>(&mut queue), Err(Refusal::Full));
    assert!(queue.flush() >= 32 || is_prompt);
    let mut given_up = Vec::new();
    queue.abandon(|one| given_up.push(was(one.with.message, one.outcome)));
    assert_eq!((given_up.len(), queue.jobs()), (64, 0));
    assert!(given_up.iter().all(|one| one.outcome == SealOutcome::Abandoned));
    assert!(given_up.iter().all(|one| one.input[3..] == messages[4][..]));
    while queue.poll(|_| panic!("it was given up")) > 0 {}
    job(seal, &messages[4], 0).stage::<0>(&mut queue).unwrap();
    assert_eq!(drain(&mut queue)[0].outcome, SealOutcome::Done);

    // Dropped with jobs under way and staged: segments come back (the caller counts them).
    job(seal, &messages[4], 0).stage::<0>(&mut queue).unwrap();
    queue.flush();
    job(seal, &messages[4], 0).stage::<0>(&mut queue).unwrap();
}

/// Devices that work in `poll`: so much in a call, in order, whatever sessions take turns.
fn at_once(queue: &mut CryptoQueue<Sealing>, device: &str) {
    let (seal, open) =
        (queue.session(&[3; 16], true, 9).unwrap(), queue.session(&[3; 16], false, 9).unwrap());
    let job = |session, bytes: &[u8], number: usize| {
        let message = Message { input: [b"<<<", bytes].concat(), output: Vec::new(), number };
        ToSeal { session, message: Sealing { message, iv: 1, aad: [4; 9], aad_len: 9 } }
    };
    let poll = |queue: &mut CryptoQueue<Sealing>, came: &mut Vec<Message>| {
        let before = came.len();
        let count = queue.poll(|one| {
            assert_eq!(one.outcome, SealOutcome::Done, "{device}");
            came.push(one.with.message);
        });
        let bytes: usize = came[before..].iter().map(|message| message.input.len()).sum();
        assert!(count <= 1 || bytes < 66 << 10, "{device}: {count} jobs of {bytes} bytes in a call");
        count
    };
    let mut came = Vec::new();
    job(seal, &[5; 20_000], 0).stage::<9>(queue).unwrap();
    assert_eq!((queue.flush(), poll(queue, &mut came)), (0, 1), "the work is done by who asks");
    let sealed = came.pop().unwrap().input.split_off(3);
    // Three times around all places, taken out by threes.
    for number in 0..192 {
        let (session, bytes) = if number % 3 == 0 { (open, &sealed[..]) } else { (seal, &[5; 20_000][..]) };
        let mut job = job(session, bytes, number);
        while let Err(why) = job.stage::<9>(queue) {
            assert_eq!(why, Refusal::Full, "{device}");
            assert_eq!(poll(queue, &mut came), 3);
        }
    }
    assert!(!queue.end_session(open), "{device}: jobs wait for it");
    while poll(queue, &mut came) > 0 {}
    assert_eq!((came.len(), queue.jobs()), (192, 0));
    for (number, message) in came.iter().enumerate() {
        assert_eq!(message.number, number, "{device}");
        let expected = if number % 3 == 0 { &[5; 20_000][..] } else { &sealed[..] };
        assert!(message.input[3..] == *expected, "{device}: {number}");
    }
    assert_eq!(job(seal, &[0; (64 << 10) + 1], 0).stage::<9>(queue), Err(Refusal::Unfit), "{device}");
    assert!(queue.end_session(seal) && queue.end_session(open));
}

/// The one job that is staged.
fn drain(queue: &mut CryptoQueue<Sealing>) -> Vec<WasSealed> {
    let mut done = Vec::new();
    for _ in 0..1_000_000 {
        queue.flush();
        queue.poll(|one| done.push(was(one.with.message, one.outcome)));
        if queue.jobs() == 0 {
            break;
        }
    }
    done
}
