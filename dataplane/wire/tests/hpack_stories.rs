//! The public HPACK stories (`data/README.md` beside the checkout): other encoders' blocks through our
//! decoder, and our blocks through our decoder and nghttp2's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use towpath_wire::Headers;
use towpath_wire::hpack::{HpackDecoder, HpackEncoder};

const SETS: [&str; 3] = ["go-hpack", "haskell-http2-linear-huffman", "nghttp2-change-table-size"];
const LIST_MAX: usize = 1 << 20;

/// What the oracle's exit code is when it has no nghttp2.
const NO_ORACLE: i32 = 77;

struct Case {
    table_bytes: Option<usize>,
    wire: Vec<u8>,
    list: Headers,
}

struct Story {
    name: String,
    cases: Vec<Case>,
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn case(value: &Value) -> Case {
    let mut list = Headers::new();
    for field in value["headers"].as_array().unwrap() {
        for (name, value) in field.as_object().unwrap() {
            list.push(name.as_bytes(), value.as_str().unwrap().as_bytes());
        }
    }
    Case {
        table_bytes: value["header_table_size"].as_u64().map(|b| usize::try_from(b).unwrap()),
        wire: hex(value["wire"].as_str().unwrap()),
        list,
    }
}

/// All stories of a set, or none, with a printed line, where the data is not.
fn stories(set: &str) -> Vec<Story> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hpack-stories").join(set);
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("SKIP: no HPACK stories in ../shared/data/hpack-stories/{set}");
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let story: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            Story {
                name: format!("{set}/{name}"),
                cases: story["cases"].as_array().unwrap().iter().map(case).collect(),
            }
        })
        .collect()
}

#[test]
fn other_encoders_stories_decode() {
    for set in SETS {
        let stories = stories(set);
        let mut count = 0;
        for story in &stories {
            let mut decoder = HpackDecoder::default();
            let mut out = Headers::new();
            for case in &story.cases {
                if let Some(bytes) = case.table_bytes {
                    decoder.set_table_bytes_max(bytes);
                }
                decoder
                    .decode(&case.wire, LIST_MAX, &mut out)
                    .unwrap_or_else(|e| panic!("{}: {e:?}", story.name));
                assert_eq!(strip(&out), case.list, "{}", story.name);
                count += 1;
            }
        }
        println!("{set}: {} stories, {count} blocks", stories.len());
    }
}

/// The list without never-indexed marks, which stories do not tell of.
fn strip(list: &Headers) -> Headers {
    let mut out = Headers::new();
    for (_, name, value) in list {
        out.push(name, value);
    }
    out
}

/// Table sizes that a peer may come up with in a story, by its number and the case's.
fn size_change(story: usize, case: usize) -> Option<usize> {
    const SIZES: [usize; 8] = [4096, 0, 100, 1365, 256, 65_536, 33, 2730];
    (!story.is_multiple_of(3) && case % 5 == story % 5).then(|| SIZES[(story + case / 5) % SIZES.len()])
}

#[test]
fn our_encoding_of_the_stories_decodes_with_us_and_with_nghttp2() {
    let mut script = String::new();
    let mut expected = Vec::new();
    let (mut plain_bytes, mut block_bytes) = (0, 0);
    for set in SETS {
        for (number, story) in stories(set).iter().enumerate() {
            let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::new(65_536));
            let mut out = Headers::new();
            writeln!(script, "story - {}", story.name).unwrap();
            for (at, case) in story.cases.iter().enumerate() {
                if let Some(bytes) = size_change(number, at) {
                    encoder.set_table_bytes_max(bytes);
                    decoder.set_table_bytes_max(bytes);
                    writeln!(script, "table {bytes} -").unwrap();
                }
                let mut block = Vec::new();
                encoder.encode(&case.list, &mut block);
                decoder
                    .decode(&block, LIST_MAX, &mut out)
                    .unwrap_or_else(|e| panic!("{}: {e:?}", story.name));
                assert_eq!(strip(&out), case.list, "{}", story.name);
                writeln!(script, "block {} -", to_hex(&block)).unwrap();
                plain_bytes += case.list.bytes_len();
                block_bytes += block.len();
                expected.push((story.name.clone(), out.clone()));
            }
        }
    }
    if expected.is_empty() {
        return;
    }
    println!("{} lists, {plain_bytes} bytes as {block_bytes}", expected.len());
    let Some(answer) = ask_nghttp2(&script) else { return };
    let mut answers = answer.split_terminator("\n\n");
    for (name, list) in &expected {
        assert_eq!(answers.next(), Some(as_answer(list).as_str()), "{name}");
    }
    assert_eq!(answers.next(), None);
}

/// A list as the oracle prints it.
fn as_answer(list: &Headers) -> String {
    let field = |never, name, value| format!("{} {} {}", to_hex(name), to_hex(value), u8::from(never));
    let fields: Vec<String> = list.iter().map(|(f, n, v)| field(f.never_indexed, n, v)).collect();
    fields.join("\n")
}

/// A repeatable sequence of numbers below `end` (xorshift).
fn draw(state: &mut u64, end: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap() % end
}

#[test]
fn damaged_blocks_mean_the_same_to_us_and_to_nghttp2() {
    // Blocks of every form, from other encoders' stories, with a few bytes changed; a connection ends with
    // the first block that is refused.
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut script = String::new();
    let mut expected = Vec::new();
    for set in SETS {
        for story in stories(set) {
            for from in (0..story.cases.len()).step_by(6) {
                writeln!(script, "story - {}", story.name).unwrap();
                let mut decoder = HpackDecoder::default();
                let mut out = Headers::new();
                for case in story.cases.iter().skip(from).take(6) {
                    let mut block = case.wire.clone();
                    for _ in 0..draw(&mut seed, 3) {
                        let at = draw(&mut seed, block.len());
                        block[at] = u8::try_from(draw(&mut seed, 256)).unwrap();
                    }
                    writeln!(script, "block {} -", to_hex(&block)).unwrap();
                    let result = decoder.decode(&block, LIST_MAX, &mut out);
                    expected.push((result, to_hex(&block), as_answer(&out)));
                    if result.is_err() {
                        break;
                    }
                }
            }
        }
    }
    if expected.is_empty() {
        return;
    }
    let refused = expected.iter().filter(|(result, _, _)| result.is_err()).count();
    println!("{} blocks, {refused} refused", expected.len());
    let Some(answer) = ask_nghttp2(&script) else { return };
    let mut answers = answer.split_terminator("\n\n");
    for (result, block, list) in &expected {
        let answer = answers.next().unwrap_or("missing");
        match result {
            Ok(()) => assert_eq!(answer, list, "{block}"),
            Err(error) => assert!(answer.contains("error -"), "{block}: {error:?}, but {answer}"),
        }
    }
}

/// What nghttp2 makes of a script, or `None`, with a printed line, where there is no Python or no nghttp2.
fn ask_nghttp2(script: &str) -> Option<String> {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nghttp2_oracle.py");
    let child = Command::new("python3").arg(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("SKIP: no python3 to ask nghttp2 with");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let script = script.to_owned();
    // It answers while it reads: both at once, or both pipes fill up.
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    if output.status.code() == Some(NO_ORACLE) {
        println!("SKIP: no libnghttp2 to decode our blocks");
        return None;
    }
    assert!(output.status.success(), "the oracle failed");
    written.unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}
