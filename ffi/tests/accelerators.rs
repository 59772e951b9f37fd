//! Compression and cryptography through software devices, against implementations that are not theirs.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};

use dpdk_sys::{
    AAD_MAX, AcceleratorOptions, Cipher, CompressJob, CompressOutcome, CompressQueue, Compressed, Compressor,
    CryptoQueue, Direction, Eal, Mbuf, Memory, Options, Pool, SealJob, SealOutcome, Sealed, SessionId, Shape,
    TAG_LEN, pools,
};

fn pool() -> (Eal, Pool) {
    let eal = Eal::start(&Options { memory: Memory::Ordinary { mib: 256 }, pci: Vec::new() }).unwrap();
    let pool = Pool::take(eal, Shape { count: 512, frame_len_max: 60_000, socket: None }).unwrap();
    (eal, pool)
}

fn filled(pool: &Pool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc(bytes.len()).unwrap();
    mbuf.copy_from_slice(bytes);
    mbuf
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
    [1, 64, 1000, 16_384, 50_000].into_iter().flat_map(|len| [text(len), noise(len)]).collect()
}

/// Every job's result, in the order of tokens.
fn compress_all(queue: &mut CompressQueue, mut jobs: Vec<CompressJob>) -> Vec<Compressed> {
    let (count, mut done) = (jobs.len(), Vec::new());
    for _ in 0..1_000_000 {
        queue.enqueue(&mut jobs);
        queue.dequeue(&mut done);
        if done.len() == count {
            break;
        }
    }
    assert_eq!((done.len(), queue.under_way()), (count, 0));
    done.sort_by_key(|done| done.token);
    done
}

#[test]
fn accelerators_agree_with_other_implementations_and_give_buffers_back() {
    let (eal, pool) = pool();
    // The first one twice: what was closed opens again.
    for device in ["compress_isal0", "compress_zlib0", "compress_isal0"] {
        deflate(eal, &pool, device);
        assert_eq!(pool.count().in_use, 0, "{device}");
    }
    for device in ["crypto_aesni_gcm0", "crypto_openssl0", "crypto_aesni_gcm0"] {
        aes_gcm(eal, &pool, device);
        assert_eq!(pool.count().in_use, 0, "{device}");
    }
    let error = Compressor::open(eal, "compress_nothing0", AcceleratorOptions::default(), None).unwrap_err();
    assert!(error.to_string().contains("no driver is named compress_nothing"), "{error}");
    let error = Compressor::open(eal, "net_null5", AcceleratorOptions::default(), None).unwrap_err();
    assert!(error.to_string().contains("not a compression device"), "{error}");
    assert_eq!(pools().iter().map(|pool| pool.in_use).sum::<u32>(), 0);
}

fn deflate(eal: Eal, pool: &Pool, device: &str) {
    let options = AcceleratorOptions { queues: 2, depth: 64 };
    let mut open = Compressor::open(eal, device, options, Some(1)).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = open.queue(1).unwrap();
    let again = Compressor::open(eal, device, options, None).unwrap_err();
    assert!(again.to_string().contains("open already"), "{again}");
    let messages = messages();
    let job = |direction, bytes: &[u8], room: usize, token: usize| CompressJob {
        direction,
        from: filled(pool, bytes),
        to: pool.alloc(room).unwrap(),
        token: token as u64,
    };
    let jobs = messages.iter().enumerate();
    let jobs = jobs.map(|(at, bytes)| job(Direction::Compress, bytes, 60_000, at)).collect();
    let packed = compress_all(&mut queue, jobs);
    for (packed, message) in packed.iter().zip(&messages) {
        assert_eq!(packed.outcome, CompressOutcome::Done { consumed: message.len() }, "{device}");
        let mut plain = Vec::new();
        flate2::read::DeflateDecoder::new(&packed.to[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == *message, "{device}: {} bytes as zlib undoes them", message.len());
    }
    assert!(packed[6].to.len() < 2_000, "{device}: text shrinks: {}", packed[6].to.len());
    drop(packed);

    let foreign = messages.iter().enumerate().map(|(at, message)| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(message).unwrap();
        job(Direction::Decompress, &encoder.finish().unwrap(), message.len().max(100), at)
    });
    let plain = compress_all(&mut queue, foreign.collect());
    for (plain, message) in plain.iter().zip(&messages) {
        assert!(matches!(plain.outcome, CompressOutcome::Done { .. }), "{device}: {:?}", plain.outcome);
        assert!(plain.to[..] == message[..], "{device}");
    }
    drop(plain);

    // No room, and no deflate at all: said, not crashed; what follows works.
    let odd = vec![
        job(Direction::Compress, &messages[9], 100, 0),
        job(Direction::Decompress, &[0xff; 200], 1000, 1),
        job(Direction::Compress, &messages[2], 60_000, 2),
    ];
    let odd = compress_all(&mut queue, odd);
    assert_eq!(odd[0].outcome, CompressOutcome::OutOfSpace, "{device}");
    assert!(!matches!(odd[1].outcome, CompressOutcome::Done { .. }), "{device}: {:?}", odd[1].outcome);
    assert!(matches!(odd[2].outcome, CompressOutcome::Done { .. }), "{device}");

    // Dropped with jobs under way: buffers come back (the caller counts them).
    let mut jobs = vec![job(Direction::Compress, &messages[4], 60_000, 0)];
    assert_eq!(queue.enqueue(&mut jobs), 1);
}

fn seal_all(queue: &mut CryptoQueue, mut jobs: Vec<SealJob>) -> Vec<Sealed> {
    let (count, mut done, mut refused) = (jobs.len(), Vec::new(), Vec::new());
    for _ in 0..1_000_000 {
        queue.enqueue(&mut jobs, &mut refused);
        queue.dequeue(&mut done);
        if done.len() == count {
            break;
        }
    }
    assert!(refused.is_empty());
    assert_eq!((done.len(), queue.under_way()), (count, 0));
    done.sort_by_key(|done| done.token);
    done
}

fn aes_gcm(eal: Eal, pool: &Pool, device: &str) {
    let options = AcceleratorOptions { queues: 1, depth: 64 };
    let mut open = Cipher::open(eal, device, options, 8).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = open.queue(0).unwrap();
    let job = |session: SessionId, bytes: &[u8], iv: u8, aad: &[u8], token: usize| {
        let mut own = [0; AAD_MAX];
        own[..aad.len()].copy_from_slice(aad);
        SealJob { session, buffer: filled(pool, bytes), iv: [iv; 12], aad: own, token: token as u64 }
    };

    // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 2.
    let zeros = queue.session(&[0; 16], true, 0).unwrap();
    let done = seal_all(&mut queue, vec![job(zeros, &[0; 16], 0, &[], 0)]);
    let expected = [
        0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78, 0xab,
        0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
    ];
    assert_eq!((done[0].outcome, &done[0].buffer[..]), (SealOutcome::Done, &expected[..]), "{device}");
    drop(done);
    assert!(queue.end_session(zeros) && !queue.end_session(zeros));

    for key in [&[7; 16][..], &[9; 32]] {
        let (seal, open) = (queue.session(key, true, 9).unwrap(), queue.session(key, false, 9).unwrap());
        let messages = messages();
        let jobs = messages.iter().enumerate();
        let jobs: Vec<_> =
            jobs.map(|(at, bytes)| job(seal, bytes, u8::try_from(at).unwrap(), b"/pkg.S/M!", at)).collect();
        let sealed = seal_all(&mut queue, jobs);
        let mut jobs = Vec::new();
        for (at, (sealed, message)) in sealed.iter().zip(&messages).enumerate() {
            assert_eq!((sealed.outcome, sealed.buffer.len()), (SealOutcome::Done, message.len() + TAG_LEN));
            if message.len() >= 64 {
                assert_ne!(sealed.buffer[..message.len()], message[..]);
            }
            jobs.push(job(open, &sealed.buffer, u8::try_from(at).unwrap(), b"/pkg.S/M!", at));
        }
        drop(sealed);
        // Of the last ones one byte of the text, of the tag, of the associated data and of the nonce is wrong.
        let last = jobs.len() - 1;
        jobs[last].buffer[3] ^= 1;
        *jobs[last - 1].buffer.last_mut().unwrap() ^= 1;
        jobs[last - 2].aad[8] ^= 1;
        jobs[last - 3].iv[0] ^= 0x80;
        for (at, opened) in seal_all(&mut queue, jobs).iter().enumerate() {
            if at > last - 4 {
                assert_eq!(opened.outcome, SealOutcome::Forged, "{device}: {at}");
            } else {
                assert_eq!(opened.outcome, SealOutcome::Done, "{device}: {at}");
                assert!(opened.buffer[..] == messages[at][..], "{device}: {at}");
            }
        }
        assert!(queue.end_session(seal) && queue.end_session(open));
    }

    // Jobs that make no sense come back by another way.
    let open = queue.session(&[1; 16], false, 0).unwrap();
    let mut jobs = vec![job(open, &[0; 5], 0, &[], 1), job(zeros, &[0; 50], 0, &[], 2)];
    let mut refused = Vec::new();
    // `zeros` was ended, but `open` may have its number: then the second is tried, and forged.
    while !jobs.is_empty() {
        queue.enqueue(&mut jobs, &mut refused);
    }
    assert_eq!(refused[0].token, 1);
    let error = queue.session(&[0; 5], true, 0).unwrap_err();
    assert!(error.to_string().contains("16 or 32 bytes"), "{error}");
}
