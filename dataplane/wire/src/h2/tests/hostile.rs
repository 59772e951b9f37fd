//! The frame scripts of `hostile.txt`: each run whole, in pieces and byte by byte, with the same outcome.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::pair::*;
use crate::Instant;
use crate::h2::frame::{self, HEAD_LEN, Head, PREFACE, kind};
use crate::h2::{Config, ConnError, Fault, H2Conn, H2Event, Reason, ResetBy, Role, StreamKey};

/// A header block of literals, so that scripts need no table.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, v) in fields {
        for (i, s) in [n, v].into_iter().enumerate() {
            if i == 0 {
                out.push(0);
            }
            assert!(s.len() < 127);
            out.push(s.len() as u8);
            out.extend_from_slice(s.as_bytes());
        }
    }
    out
}

const REQ: &str = ":method=POST,:scheme=http,:path=/a.B/C,:authority=a";

fn named_block(word: &str) -> Vec<u8> {
    let (first, rest) = word.split_once(',').map_or((word, ""), |(a, b)| (a, b));
    let base = match first {
        "req" => REQ,
        "resp" => ":status=200",
        "i100" => ":status=100",
        "trail" => "grpc-status=0",
        other => other,
    };
    let all = format!("{base},{rest}").replace('_', " ");
    let fields: Vec<_> =
        all.split(',').filter(|f| !f.is_empty()).map(|f| f.split_once('=').unwrap()).collect();
    block(&fields)
}

fn bytes(word: &str) -> Vec<u8> {
    if let Some(name) = word.strip_prefix('@') {
        return named_block(name);
    }
    if let Some((n, byte)) = word.split_once('*') {
        return vec![u8::from_str_radix(byte, 16).unwrap(); n.parse().unwrap()];
    }
    assert!(word.len().is_multiple_of(2) && word.bytes().all(|b| b.is_ascii_hexdigit()), "{word:?}");
    (0..word.len()).step_by(2).map(|i| u8::from_str_radix(&word[i..i + 2], 16).unwrap()).collect()
}

/// One frame of a script, `id` added to its stream.
fn emit(words: &[&str], more: u32, out: &mut Vec<u8>) {
    if words[0] == "raw" {
        return words[1..].iter().for_each(|w| out.extend(bytes(w)));
    }
    let id = words.get(1).map_or(0, |w| u32::from_str_radix(w, 16).unwrap()) + more;
    let compound = |out: &mut Vec<u8>, frames: &[&str]| {
        for f in frames {
            let words: Vec<_> = f.split_whitespace().collect();
            emit(&words, id, out);
        }
    };
    let kind = match words[0] {
        "OPEN_RESET" => return compound(out, &["HEADERS 0 EH @req", "RST_STREAM 0 00000008"]),
        "OPEN_BREAK" => return compound(out, &["HEADERS 0 EH @req", "WINDOW_UPDATE 0 00000000"]),
        "BAD_REQUEST" => return compound(out, &["HEADERS 0 EH @x=y"]),
        "DATA" => kind::DATA,
        "HEADERS" => kind::HEADERS,
        "PRIORITY" => kind::PRIORITY,
        "RST_STREAM" => kind::RST_STREAM,
        "SETTINGS" => kind::SETTINGS,
        "PUSH_PROMISE" => 5,
        "PING" => kind::PING,
        "GOAWAY" => kind::GOAWAY,
        "WINDOW_UPDATE" => kind::WINDOW_UPDATE,
        "CONTINUATION" => kind::CONTINUATION,
        number => number.parse().unwrap(),
    };
    let mut rest = &words[2..];
    let mut flags = 0;
    if let Some(letters) = rest.first().filter(|w| w.bytes().all(|b| b"EHPRA".contains(&b))) {
        for letter in letters.bytes() {
            flags |= match letter {
                b'E' | b'A' => 1,
                b'H' => 4,
                b'P' => 8,
                _ => 0x20,
            };
        }
        rest = &rest[1..];
    }
    let payload: Vec<u8> = rest.iter().flat_map(|w| bytes(w)).collect();
    out.extend(Head { len: payload.len() as u32, kind, flags, id }.emit());
    out.extend(payload);
}

/// How the bytes are cut.
#[derive(Clone, Copy)]
enum Cut {
    Whole,
    Pieces(usize),
}

struct Run {
    conn: H2Conn,
    now: Instant,
    cut: Cut,
    keys: Vec<StreamKey>,
    resets: Vec<(u32, ResetBy)>,
    error: Option<ConnError>,
}

impl Run {
    fn new(who: &str, cut: Cut) -> Self {
        let mut config = Config { header_list_bytes_max: 64 * 1024, ..Config::default() };
        match who {
            "few-server" => config.streams_max = 2,
            "small-server" => (config.conn_window_bytes, config.frame_bytes_max) = (0, 1 << 17),
            _ => {}
        }
        let role = if who.ends_with("server") { Role::Server } else { Role::Client };
        let now = Instant(1_000_000_000);
        let conn = H2Conn::new(role, &config, now);
        let mut run = Self { conn, now, cut, keys: Vec::new(), resets: Vec::new(), error: None };
        if role == Role::Server {
            run.feed(PREFACE);
        }
        if !who.starts_with("fresh") {
            let mut hello = Vec::new();
            frame::push(&mut hello, kind::SETTINGS, 0, 0, &[]);
            run.feed(&hello);
            if role == Role::Client {
                for end in [false, true] {
                    let key = run.conn.open(0).unwrap();
                    assert!(run.conn.send_headers(key, &request(), end));
                    run.keys.push(key);
                }
            }
            let n = run.conn.tx().len();
            run.conn.tx_advance(n);
        }
        run
    }

    fn feed(&mut self, bytes: &[u8]) {
        let size = match self.cut {
            Cut::Whole => bytes.len().max(1),
            Cut::Pieces(n) => n,
        };
        for piece in bytes.chunks(size) {
            if self.error.is_some() {
                return;
            }
            let (seen, error) = feed(&mut self.conn, self.now, piece);
            self.error = error;
            for s in seen {
                match s.event {
                    H2Event::Headers { stream, .. } if !self.keys.contains(&stream) => self.keys.push(stream),
                    H2Event::Reset { stream, by, .. } => self.resets.push((stream.id, by)),
                    H2Event::Data { stream, .. } => assert!(self.keys.contains(&stream)),
                    _ => {}
                }
            }
        }
    }

    fn key(&self, id: &str) -> StreamKey {
        let id = id.parse().unwrap();
        *self.keys.iter().find(|k| k.id == id).unwrap()
    }

    fn step(&mut self, step: &str) {
        let mut words: Vec<_> = step.split_whitespace().collect();
        match words[0] {
            "wait" => self.now = self.now.after_ns(words[1].parse::<u64>().unwrap() * 1_000_000),
            "ours" => match words[1] {
                "reset" => self.conn.reset(self.key(words[2]), Reason::CANCEL),
                "read" => {
                    let n = self.conn.tx().len();
                    self.conn.tx_advance(n);
                }
                "answer" => assert!(self.conn.send_headers(self.key(words[2]), &response(), true)),
                other => panic!("{other}"),
            },
            _ => {
                let mut times = 1;
                let mut grows = 0;
                if words.get(1) == Some(&"x") {
                    times = words[0].parse().unwrap();
                    words.drain(..2);
                }
                if let Some(name) = words[0].strip_prefix('+') {
                    words[0] = name;
                    grows = 2;
                }
                let mut all = Vec::new();
                for i in 0..times {
                    if words[0] == "OPEN_WAIT_RESET" {
                        let id = format!("{:x}", 1 + i * 2);
                        self.step(&format!("HEADERS {id} EH @req"));
                        self.step("wait 2");
                        self.step(&format!("RST_STREAM {id} 00000008"));
                    } else {
                        emit(&words, i * grows, &mut all);
                    }
                }
                self.feed(&all);
            }
        }
    }

    fn outcome(&self) -> String {
        if let Some(error) = self.error {
            return format!("conn {}", error.fault.name());
        }
        match self.resets.last() {
            None => "ok".to_string(),
            Some((id, ResetBy::Fault(fault))) => format!("stream {id} {}", fault.name()),
            Some((id, by)) => format!("{} {id}", format!("{by:?}").to_lowercase()),
        }
    }

    /// The last frame in `tx()` with its payload.
    fn last_frame(&self) -> Option<(Head, Vec<u8>)> {
        let tx = self.conn.tx();
        let mut rest = tx.strip_prefix(&PREFACE[..]).unwrap_or(tx);
        let mut last = None;
        while let Some(head) = rest.first_chunk().map(Head::parse) {
            let end = HEAD_LEN + head.len as usize;
            last = Some((head, rest[HEAD_LEN..end].to_vec()));
            rest = &rest[end..];
        }
        assert!(rest.is_empty(), "tx holds a torn frame");
        last
    }
}

/// What went wrong, if anything did.
fn check(line: &str, cut: Cut) -> Option<String> {
    let (script, wanted) = line.split_once("=>").unwrap();
    let (who, steps) = script.split_once(':').unwrap();
    let mut run = Run::new(who.trim(), cut);
    for step in steps.split(';').map(str::trim) {
        run.step(step);
    }
    let (got, wanted) = (run.outcome(), wanted.trim());
    if got != wanted && !(wanted == "ok" && got.starts_with("peer")) {
        return Some(format!("{line}\n    came to: {got}"));
    }
    match (run.error, run.resets.last()) {
        (Some(error), _) => {
            // Section 5.4.1: GOAWAY comes last; nothing works after it.
            let (head, payload) = run.last_frame().expect("GOAWAY");
            assert_eq!((head.kind, head.id), (kind::GOAWAY, 0), "{line}");
            assert_eq!(payload[4..8], error.reason.0.to_be_bytes(), "{line}");
            assert_eq!(&payload[8..], error.fault.name().as_bytes());
            assert_eq!(feed(&mut run.conn, run.now, b"anything").1, Some(error));
            assert_eq!(run.conn.open(0), None);
        }
        (None, last) => {
            if let Some((id, ResetBy::Fault(fault))) = last {
                let (head, payload) = run.last_frame().expect("RST_STREAM");
                assert_eq!((head.kind, head.id), (kind::RST_STREAM, *id), "{line}");
                assert_eq!(payload, fault.reason().0.to_be_bytes(), "{line}");
            }
            // The connection lives: a ping is answered.
            run.now = run.now.after_ns(1_000_000_000);
            let n = run.conn.tx().len();
            run.conn.tx_advance(n);
            run.step("PING 0 0102030405060708");
            assert_eq!(run.last_frame().map(|f| f.1), Some(vec![1, 2, 3, 4, 5, 6, 7, 8]), "{line}");
        }
    }
    None
}

fn check_all(cut: Cut) {
    let wrong: Vec<_> = lines().filter_map(|line| check(line, cut)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("hostile.txt").lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
}

#[test]
fn scripts_whole() {
    check_all(Cut::Whole);
}

#[test]
fn scripts_in_pieces() {
    for size in [1, 7, 8, 9, 10, 1000] {
        check_all(Cut::Pieces(size));
    }
}

#[test]
fn every_fault_of_a_peer_has_a_script() {
    let elsewhere = [
        Fault::ClientSpeaksTls,
        Fault::ClientSpeaksHttp1,
        Fault::Preface,
        Fault::PrefaceTimeout,
        Fault::SettingsTimeout,
        Fault::HeaderListTooLarge,
        Fault::FloodOutbound,
    ];
    for fault in Fault::ALL.iter().filter(|f| !elsewhere.contains(f)) {
        assert!(lines().any(|l| l.ends_with(&format!(" {}", fault.name()))), "{}", fault.name());
    }
}
