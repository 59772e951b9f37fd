use super::*;

fn frame(flag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = alloc::vec![flag];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn packed_from(min_bytes: u32) -> Leave {
    Leave::Packed { encoding: Encoding::Gzip, min_bytes }
}

/// A toy encoding that shrinks: every byte of the plain text is there twice.
fn unpack(packed: &[u8]) -> Vec<u8> {
    packed.iter().flat_map(|b| [*b, *b]).collect()
}

fn pack(plain: &[u8]) -> Vec<u8> {
    plain.iter().step_by(2).copied().collect()
}

/// Feeds `stream` in chunks, does the jobs with the toy encoding, lets messages go after `judge` has had
/// its say; returns what left.
fn run(
    terms: Terms,
    stream: &[u8],
    chunk: usize,
    mut judge: impl FnMut(&mut Messages),
) -> Result<(Vec<u8>, Messages), Unfit> {
    let mut messages = Messages::default();
    messages.begin(terms, 1000);
    let (mut out, mut spare) = (Vec::new(), Vec::new());
    for part in stream.chunks(chunk) {
        messages.push(part);
        loop {
            match messages.step(&mut spare, &mut out, usize::MAX)? {
                Step::Wait | Step::Behind => break,
                Step::Message => {
                    judge(&mut messages);
                    messages.set_judged();
                    messages.let_go();
                }
                Step::Job(work, mut input) => {
                    let mut output = match work {
                        Work::Compress(_) => pack(&input),
                        Work::Decompress(..) => unpack(&input),
                        Work::Seal(_) | Work::Open(_) => unreachable!("no key here"),
                    };
                    messages.finish_job(Ok(()), &work, &mut input, &mut output, &mut out)?;
                }
            }
        }
    }
    Ok((out, messages))
}

#[test]
fn small_messages_pass_unpacked_in_any_chunking() {
    let stream = [frame(0, b"hello"), frame(0, b""), frame(0, b"world!")].concat();
    let terms = Terms { leave: packed_from(1024), ..Terms::default() };
    for chunk in 1..stream.len() {
        let (out, messages) = run(terms, &stream, chunk, |_| {}).unwrap();
        assert_eq!(out, stream);
        assert!(messages.is_between_messages());
    }
}

#[test]
fn each_message_is_judged_once_plain_and_in_order_in_any_chunking() {
    let stream = [frame(1, b"abc"), frame(0, b""), frame(0, b"xxyyzz"), frame(1, b"q")].concat();
    for (reads, leave) in [(true, Leave::AsCame), (false, Leave::AsCame), (true, Leave::Plain)] {
        for chunk in 1..stream.len() {
            let terms =
                Terms { decode: Some(Encoding::Gzip), judges: true, reads, leave, ..Terms::default() };
            let mut seen = Vec::new();
            let judge = |m: &mut Messages| seen.push((m.size(), m.payload().map(<[u8]>::to_vec)));
            let (out, messages) = run(terms, &stream, chunk, judge).unwrap();
            assert!(messages.is_between_messages());
            let sizes: Vec<usize> = seen.iter().map(|(size, _)| *size).collect();
            assert_eq!(sizes, [6, 0, 6, 2], "sizes are those of plain messages");
            assert_eq!(
                seen[0].1.as_deref(),
                Some(&b"aabbcc"[..]),
                "packed ones are unpacked whatever is read"
            );
            assert_eq!(seen[2].1.is_some(), reads, "a plain one is not gathered for its size");
            let plain = [frame(0, b"aabbcc"), frame(0, b""), frame(0, b"xxyyzz"), frame(0, b"qq")].concat();
            assert_eq!(out, if leave == Leave::Plain { plain } else { stream.clone() });
        }
    }
}

#[test]
fn what_was_rewritten_leaves_as_it_came_packed_or_not() {
    let stream = [frame(1, b"abc"), frame(0, b"xxyyzz")].concat();
    let terms = Terms { decode: Some(Encoding::Gzip), judges: true, reads: true, ..Terms::default() };
    for chunk in 1..stream.len() {
        let judge = |m: &mut Messages| {
            assert!(m.set_payload(b"1122"));
            assert_eq!((m.payload(), m.size()), (Some(&b"1122"[..]), 4));
            assert!(!m.set_payload(&[0; 1001]), "longer than a message may be");
        };
        let (out, _) = run(terms, &stream, chunk, judge).unwrap();
        assert_eq!(out, [frame(1, b"12"), frame(0, b"1122")].concat());
    }
}

#[test]
fn a_message_whose_size_is_enough_flows_before_it_is_whole() {
    let terms = Terms { judges: true, ..Terms::default() };
    let stream = frame(0, &[7; 300]);
    let (out, messages) = run(terms, &stream[..10], 10, |m| {
        assert_eq!(m.size(), 300);
        assert!(!m.set_payload(b"x"), "it is not here");
    })
    .unwrap();
    assert_eq!(out, stream[..10]);
    assert!(messages.is_cut());
    assert!(messages.may_pass(295, true) && messages.may_pass(1, false) && !messages.may_pass(1, true));
}

#[test]
fn a_message_that_does_not_shrink_goes_plain() {
    let mut messages = Messages::default();
    messages.begin(Terms { leave: packed_from(4), ..Terms::default() }, 1000);
    let (mut out, mut spare) = (Vec::new(), Vec::new());
    messages.push(&frame(0, b"abcdef"));
    messages.push(&frame(0, b"xy"));
    let Ok(Step::Job(Work::Compress(Encoding::Gzip), mut input)) =
        messages.step(&mut spare, &mut out, usize::MAX)
    else {
        unreachable!()
    };
    assert!(matches!(messages.step(&mut spare, &mut out, usize::MAX), Ok(Step::Wait)));
    assert!(out.is_empty(), "the second message waits for the first");
    assert_eq!(messages.held(), 18);
    let mut output = b"longer than that".to_vec();
    let work = Work::Compress(Encoding::Gzip);
    messages.finish_job(Ok(()), &work, &mut input, &mut output, &mut out).unwrap();
    assert!(matches!(messages.step(&mut spare, &mut out, usize::MAX), Ok(Step::Wait)));
    assert_eq!(out, [frame(0, b"abcdef"), frame(0, b"xy")].concat());
    assert_eq!((messages.stats.compressed, messages.held()), (0, 0));
}

#[test]
fn a_held_message_stays_and_says_whether_there_is_more() {
    let terms = Terms { holds: true, ..Terms::default() };
    for (stream, more) in [(frame(0, b"one"), false), ([frame(0, b"one"), alloc::vec![0]].concat(), true)] {
        let mut messages = Messages::default();
        messages.begin(terms, 1000);
        messages.push(&stream);
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let step = messages.step(&mut spare, &mut out, usize::MAX);
            assert!(matches!(step, Ok(Step::Message)));
        }
        assert_eq!((messages.is_holding(), messages.has_more(), out.len()), (true, more, 0));
    }
}

#[test]
fn a_wrong_flag_a_long_message_and_an_unnamed_encoding_are_told_apart() {
    let read = Terms { judges: true, reads: true, ..Terms::default() };
    let step = |bytes: &[u8]| run(read, bytes, 99, |_| {}).map(|_| ()).err();
    assert_eq!(step(&frame(255, b"a")), Some(Unreadable::BadFlag.into()));
    assert_eq!(step(&[0, 0, 0, 255, 0]), Some(Unreadable::TooLarge.into()));
    assert_eq!(step(&frame(1, b"a")), Some(Unreadable::UnknownEncoding.into()));
    assert_eq!(step(&frame(0, b"a")), None);
}

mod sealed;
