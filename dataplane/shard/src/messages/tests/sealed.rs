//! Messages that are sealed by one node and opened by the next.

use super::*;
use crate::{CallTag, Ring};

/// As long as the real envelope's.
const SUM: usize = Seal::GROWTH - Seal::HEAD;

fn seal(is_request: bool) -> Seal {
    let tag = CallTag([7; CallTag::LEN]);
    Seal { ring: Ring(3), tag, purpose: [5; 16], is_request, index: 0, is_final: false, encoding: None }
}

/// What is before a toy envelope's text.
fn head(seal: &Seal) -> [u8; Seal::HEAD] {
    let mut out = [0; Seal::HEAD];
    out[0] = u8::from(seal.is_final);
    out[1] = seal.encoding.map_or(0, |e| e as u8 + 1);
    out[2] = u8::from(seal.is_request);
    out[3..7].copy_from_slice(&seal.index.to_be_bytes());
    out
}

/// Of head and text, and the call.
fn checksum(seal: &Seal, bytes: &[u8]) -> [u8; SUM] {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    u128::from(seal.tag.0.iter().chain(bytes).fold(0xcbf2_9ce4, mix)).to_be_bytes()
}

fn toy_seal(seal: &Seal, input: &mut Vec<u8>) {
    let (room, text) = input.split_first_chunk_mut().unwrap();
    *room = head(seal);
    text.iter_mut().for_each(|b| *b ^= 0x5a);
    let sum = checksum(seal, input);
    input.extend_from_slice(&sum);
}

fn toy_open(seal: &mut Seal, input: &mut Vec<u8>) -> Result<(), JobError> {
    let (rest, sum) = input.split_last_chunk::<SUM>().ok_or(JobError::Corrupt)?;
    let (said, _) = rest.split_first_chunk().ok_or(JobError::Corrupt)?;
    seal.is_final = said[0] == 1;
    seal.encoding = said[1].checked_sub(1).and_then(|at| Encoding::ALL.get(usize::from(at)).copied());
    if head(seal) != *said || checksum(seal, rest) != *sum {
        return Err(JobError::Forged);
    }
    input.truncate(input.len() - SUM);
    input[Seal::HEAD..].iter_mut().for_each(|b| *b ^= 0x5a);
    Ok(())
}

/// Does a job as a queue would.
fn work(messages: &mut Messages, mut work: Work, mut input: Vec<u8>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let (mut output, mut result) = (Vec::new(), Ok(()));
    match &mut work {
        Work::Compress(_) => output = pack(&input),
        Work::Decompress(..) => output = unpack(&input),
        Work::Seal(seal) => toy_seal(seal, &mut input),
        Work::Open(seal) => result = toy_open(seal, &mut input),
    }
    messages.finish_job(result, &work, &mut input, &mut output, out)
}

/// Goes on as far as it can.
fn go_on(messages: &mut Messages, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut spare = Vec::new();
    loop {
        match messages.step(&mut spare, out, usize::MAX)? {
            Step::Wait | Step::Behind => return Ok(()),
            Step::Message => {
                messages.set_judged();
                messages.let_go();
            }
            Step::Job(what, input) => work(messages, what, input, out)?,
        }
    }
}

/// A direction through one node. With `ends_at_once` its end is known before its last message is worked on.
fn pass(terms: Terms, stream: &[u8], chunk: usize, ends_at_once: bool) -> Result<(Vec<u8>, Messages), Unfit> {
    let mut messages = Messages::default();
    messages.begin(terms, 1000);
    messages.set_sent();
    let mut out = Vec::new();
    let mut chunks = stream.chunks(chunk).peekable();
    while let Some(part) = chunks.next() {
        messages.push(part);
        if ends_at_once && chunks.peek().is_none() {
            messages.set_over();
        }
        go_on(&mut messages, &mut out)?;
    }
    messages.set_over();
    go_on(&mut messages, &mut out)?;
    Ok((out, messages))
}

fn records(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    while let Some(head) = stream.first_chunk::<PREFIX_LEN>() {
        let len = PREFIX_LEN + Prefix::parse(*head).unwrap().len as usize;
        let (record, rest) = stream.split_at(len);
        out.push(record);
        stream = rest;
    }
    out
}

fn sealing(leave: Leave) -> Terms {
    Terms { leave, seals: Some(seal(true)), ..Terms::default() }
}

fn opening() -> Terms {
    Terms { opens: Some(seal(true)), ..Terms::default() }
}

fn streams() -> [Vec<u8>; 5] {
    let long = frame(0, b"aabbccddaabbccdd");
    [
        Vec::new(),
        frame(0, b""),
        long.clone(),
        [long.clone(), frame(0, b""), frame(0, b"xxyy")].concat(),
        [frame(0, b"q"), long, frame(0, b"")].concat(),
    ]
}

#[test]
fn what_is_sealed_opens_as_it_was_in_any_chunking_whenever_its_end_is_known() {
    for (stream, ends_at_once) in streams().into_iter().flat_map(|s| [(s.clone(), false), (s, true)]) {
        let count = records(&stream).len();
        for chunk in 1..stream.len().max(2) {
            let (wire, sealer) = pass(sealing(Leave::AsCame), &stream, chunk, ends_at_once).unwrap();
            assert!(sealer.is_complete());
            let has_record = !ends_at_once || count == 0;
            // Its first message is not whole when it is sent: it begins with a record that is none.
            let begins = records(&stream).first().is_some_and(|first| first.len() > chunk);
            let others = usize::from(has_record) + usize::from(begins);
            assert_eq!(records(&wire).len(), count + others, "a begin and an end of their own");
            assert_eq!(sealer.stats.sealed, count as u64, "the end is no message");
            assert!(records(&wire).iter().all(|r| r[0] == 0 && r.len() >= PREFIX_LEN + Seal::GROWTH));
            let (plain, opener) = pass(opening(), &wire, chunk, false).unwrap();
            assert_eq!(plain, stream);
            assert!(opener.is_complete() && !opener.lacks_end());
            assert_eq!((opener.stats.opened, opener.held()), (count as u64, 0));
        }
    }
}

#[test]
fn messages_are_packed_before_they_are_sealed_and_leave_as_the_header_says() {
    let packed = sealing(packed_from(4));
    let gzip = Some(Encoding::Gzip);
    let unpacked = frame(0, b"aabbccddaabbccdd");
    let repacked = frame(1, b"abcdabcd");
    for (header, leave, wanted) in [
        (gzip, Leave::AsCame, &repacked),
        (gzip, Leave::Plain, &unpacked),
        // Who sits on the wire has taken the header away, or put another there.
        (None, Leave::AsCame, &unpacked),
        (Some(Encoding::Deflate), Leave::AsCame, &unpacked),
    ] {
        let (wire, sealer) = pass(packed, &unpacked, 99, true).unwrap();
        assert_eq!(sealer.stats.compressed, 1);
        assert_eq!(wire.len(), PREFIX_LEN + 8 + Seal::GROWTH, "packed inside");
        let (out, _) = pass(Terms { decode: header, leave, ..opening() }, &wire, 7, true).unwrap();
        assert_eq!(out, *wanted, "{header:?} {leave:?}");
    }
    // A message that comes packed is sealed so, and may be read on the other side.
    let (wire, sealer) = pass(Terms { decode: gzip, ..sealing(Leave::AsCame) }, &repacked, 3, false).unwrap();
    assert_eq!((sealer.stats.decompressed, sealer.stats.sealed), (0, 1));
    let judged = Terms { decode: gzip, judges: true, reads: true, ..opening() };
    assert_eq!(pass(judged, &wire, 9, false).unwrap().0, repacked);
    // Packed and empty would look like an end.
    let empty = pass(Terms { decode: gzip, ..sealing(Leave::AsCame) }, &frame(1, b""), 3, false);
    assert_eq!(empty.err(), Some(Unreadable::Corrupt.into()));
    let unknown = pass(sealing(Leave::AsCame), &frame(1, b"?"), 3, false);
    assert_eq!(unknown.err(), Some(Unreadable::UnknownEncoding.into()));
}

#[test]
fn a_held_message_is_at_hand_only_with_its_end() {
    let stream = frame(0, b"hello");
    for ends_at_once in [false, true] {
        let (wire, _) = pass(sealing(Leave::AsCame), &stream, 99, ends_at_once).unwrap();
        let mut messages = Messages::default();
        messages.begin(Terms { holds: true, ..opening() }, 1000);
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        for (at, byte) in wire.iter().enumerate() {
            messages.push(core::slice::from_ref(byte));
            assert!(messages.wanted_window().is_none_or(|w| w >= wire.len().min(PREFIX_LEN + 5 + 48)));
            match messages.step(&mut spare, &mut out, usize::MAX).unwrap() {
                Step::Wait => assert!(!messages.is_holding()),
                Step::Job(what, input) => work(&mut messages, what, input, &mut out).unwrap(),
                other => unreachable!("{at}: {other:?}"),
            }
        }
        assert!(matches!(messages.step(&mut spare, &mut out, usize::MAX), Ok(Step::Message)));
        assert_eq!((messages.payload(), messages.has_more()), (Some(&b"hello"[..]), false));
        messages.let_go();
        go_on(&mut messages, &mut out).unwrap();
        assert_eq!((out, messages.is_complete()), (stream.clone(), true));
    }
    // Two messages are not one; a failure that follows one needs no end.
    let terms = Terms { holds: true, ..opening() };
    let two = pass(sealing(Leave::AsCame), &[stream.clone(), stream.clone()].concat(), 99, true).unwrap().0;
    assert_eq!(pass(terms, &two, 99, false).err(), Some(Unreadable::NotOne.into()));
    let mut messages = Messages::default();
    messages.begin(terms, 1000);
    messages.push(records(&two)[0]);
    let mut out = Vec::new();
    go_on(&mut messages, &mut out).unwrap();
    assert!(messages.lacks_end() && !messages.is_holding());
    // However it came, there is room for what may follow it.
    assert_eq!(messages.wanted_window(), Some(records(&two)[0].len() + PREFIX_LEN + Seal::GROWTH));
    messages.excuse();
    assert!(messages.is_holding());
    let mut plain = Messages::default();
    plain.begin(Terms { holds: true, ..Terms::default() }, 1000);
    plain.push(&stream);
    assert!(matches!(plain.step(&mut Vec::new(), &mut out, usize::MAX), Ok(Step::Message)));
    assert_eq!(plain.wanted_window(), Some(stream.len() + PREFIX_LEN));
}

#[test]
fn whatever_is_done_to_sealed_messages_is_noticed() {
    let stream = [frame(0, b"one"), frame(0, b""), frame(0, b"three")].concat();
    for ends_at_once in [false, true] {
        let (wire, _) = pass(sealing(Leave::AsCame), &stream, 99, ends_at_once).unwrap();
        let parts = records(&wire);
        let opened = |parts: &[&[u8]]| pass(opening(), &parts.concat(), 31, false);
        // Left out, repeated, swapped: the place is wrong, or the end is missing.
        for at in 0..parts.len() {
            let mut less = parts.clone();
            less.remove(at);
            match opened(&less) {
                Err(why) => assert_eq!(why, Breach::Forged.into()),
                Ok((_, opener)) => {
                    assert!(at + 1 == parts.len() && opener.lacks_end() && !opener.is_complete())
                }
            }
            let mut more = parts.clone();
            more.insert(at, parts[at]);
            assert_eq!(opened(&more).err(), Some(Breach::Forged.into()));
            let mut swapped = parts.clone();
            swapped.swap(at, (at + 1) % parts.len());
            assert_eq!(opened(&swapped).err(), Some(Breach::Forged.into()));
        }
        // Nothing follows the end, not even one byte.
        assert_eq!(
            pass(opening(), &[&wire[..], &[0]].concat(), 31, false).err(),
            Some(Breach::Forged.into())
        );
        // Any byte of any envelope; a prefix says where it ends, so its change is malformed or too long.
        for at in 0..wire.len() {
            let mut changed = wire.clone();
            changed[at] ^= 1 << (at % 8);
            match pass(opening(), &changed, 31, false) {
                Ok((_, opener)) => assert!(opener.is_cut(), "byte {at}"),
                Err(Unfit::Sealed(_) | Unfit::Unreadable(Unreadable::TooLarge | Unreadable::BadFlag)) => {}
                Err(other) => unreachable!("byte {at}: {other:?}"),
            }
        }
        // The other direction, another call.
        let answer = Terms { opens: Some(seal(false)), ..Terms::default() };
        assert_eq!(pass(answer, &wire, 31, false).err(), Some(Breach::Forged.into()));
        let other = Seal { tag: CallTag([8; CallTag::LEN]), ..seal(true) };
        let other = Terms { opens: Some(other), ..Terms::default() };
        assert_eq!(pass(other, &wire, 31, false).err(), Some(Breach::Forged.into()));
    }
    // What was never sealed is no envelope.
    assert_eq!(pass(opening(), &frame(0, b"plain"), 31, false).err(), Some(Breach::Malformed.into()));
    assert_eq!(pass(opening(), &frame(1, b"packed"), 31, false).err(), Some(Breach::Malformed.into()));
}

#[test]
fn a_node_in_between_opens_and_seals_again() {
    let between = Terms { opens: Some(seal(true)), seals: Some(seal(false)), ..Terms::default() };
    for (stream, ends_at_once) in streams().into_iter().flat_map(|s| [(s.clone(), false), (s, true)]) {
        let (wire, _) = pass(sealing(Leave::AsCame), &stream, 99, ends_at_once).unwrap();
        for chunk in [1, 20, 999] {
            let (again, node) = pass(between, &wire, chunk, false).unwrap();
            assert!(node.is_complete() && again != wire || stream.is_empty());
            let answer = Terms { opens: Some(seal(false)), ..Terms::default() };
            assert_eq!(pass(answer, &again, chunk, false).unwrap().0, stream);
        }
        // Without the first end there is no second.
        if let [first, .., _] = records(&wire)[..] {
            let (_, node) = pass(between, first, 9, true).unwrap();
            assert!(!node.is_complete() && node.lacks_end());
        }
    }
}

#[test]
fn how_a_message_leaves_may_be_decided_after_it_was_opened() {
    let plain = frame(0, b"aabbccddaabbccdd");
    let (wire, _) = pass(sealing(packed_from(4)), &plain, 99, true).unwrap();
    let mut messages = Messages::default();
    messages.begin(Terms { decode: Some(Encoding::Gzip), ..opening() }, 1000);
    messages.push(&wire);
    let (mut out, mut spare) = (Vec::new(), Vec::new());
    assert!(messages.awaits_first());
    let Ok(Step::Job(what, input)) = messages.step(&mut spare, &mut out, usize::MAX) else { unreachable!() };
    work(&mut messages, what, input, &mut out).unwrap();
    assert!(!messages.awaits_first());
    messages.terms.leave = Leave::Plain;
    go_on(&mut messages, &mut out).unwrap();
    assert_eq!((out, messages.swallowed), (plain, 0));
}

#[test]
fn a_record_that_is_no_message_names_the_call_once_and_is_credited() {
    let stream = frame(0, b"later");
    let (wire, sealer) = pass(sealing(Leave::AsCame), &stream, 3, true).unwrap();
    assert_eq!(records(&wire).len(), 2);
    assert_eq!(sealer.stats.sealed, 1);
    let (plain, opener) = pass(opening(), &wire, 99, true).unwrap();
    assert_eq!((plain, opener.swallowed), (stream, PREFIX_LEN + Seal::GROWTH));
    // An answer is sealed under a call that is named already.
    let answer = Terms { seals: Some(seal(false)), ..Terms::default() };
    assert_eq!(records(&pass(answer, &frame(0, b"later"), 3, true).unwrap().0).len(), 1);
}

#[test]
fn a_message_that_is_lost_on_its_way_is_said_to_be() {
    let mut messages = Messages::default();
    messages.begin(sealing(Leave::AsCame), 1000);
    messages.set_sent();
    messages.push(&frame(0, b"text"));
    let mut out = Vec::new();
    let Ok(Step::Job(what, mut input)) = messages.step(&mut Vec::new(), &mut out, usize::MAX) else {
        unreachable!()
    };
    assert_eq!((&input[..Seal::HEAD], &input[Seal::HEAD..]), (&[0; Seal::HEAD][..], &b"text"[..]));
    assert!(input.capacity() >= 4 + Seal::GROWTH, "with room for what is behind it");
    let result = messages.finish_job(Err(JobError::Lost), &what, &mut input, &mut Vec::new(), &mut out);
    assert_eq!((result, out.len()), (Err(Breach::Lost.into()), 0));
}
