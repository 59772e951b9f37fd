//! The proto of generated programs, and messages of its type by chance: whole, repeated, merged and broken.

use crate::call::TEXTS;
use crate::rng::Rng;

/// What `proto "fuzz.proto"` brings. Every method is unary and has one type on both sides.
pub const PROTO: &str = r#"
syntax = "proto3";
package shop;
enum Tier { FREE = 0; GOLD = 1; BANNED = -1; }
message Sub { string name = 1; int64 n = 2; Sub sub = 3; optional string note = 4; }
message Item {
    string name = 1;
    int64 n = 2;
    repeated string tags = 3;
    Sub sub = 4;
    optional string note = 5;
    bool flag = 6;
    double x = 7;
    repeated sint64 numbers = 8;
    map<string, string> labels = 9;
    repeated Sub subs = 10;
    Tier tier = 11;
    uint64 count = 300;
}
service Catalog {
    rpc List(Item) returns (Item);
    rpc Get(Item) returns (Item);
    rpc Export(Item) returns (Item);
}
"#;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, field: u64, of: &[u8]) {
    tag(out, field, 2);
    varint(out, of.len() as u64);
    out.extend_from_slice(of);
}

fn number(rng: &mut Rng) -> u64 {
    rng.word() >> rng.below(64)
}

fn text(rng: &mut Rng) -> &'static str {
    TEXTS[rng.below(TEXTS.len())]
}

fn sub(rng: &mut Rng, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.below(4) {
        match rng.below(5) {
            0 => bytes(&mut out, 1, text(rng).as_bytes()),
            1 => {
                tag(&mut out, 2, 0);
                varint(&mut out, number(rng));
            }
            2 if depth > 0 => bytes(&mut out, 3, &sub(rng, depth - 1)),
            3 => bytes(&mut out, 4, text(rng).as_bytes()),
            _ => unknown(rng, &mut out),
        }
    }
    out
}

/// A field nobody declared, or a declared one of another wire type.
fn unknown(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.below(4) {
        0 => {
            tag(out, 90, 5);
            out.extend_from_slice(&[1, 2, 3, 4]);
        }
        1 => {
            tag(out, 91, 1);
            out.extend_from_slice(&[0; 8]);
        }
        2 => {
            tag(out, 1, 0);
            varint(out, number(rng));
        }
        _ => bytes(out, 2000, b"who knows"),
    }
}

/// A message; one in eight is broken.
pub fn message(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.below(9) {
        match rng.below(14) {
            10 => {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, text(rng).as_bytes());
                bytes(&mut entry, 2, text(rng).as_bytes());
                bytes(&mut out, 9, &entry);
            }
            11 => bytes(&mut out, 10, &sub(rng, 1)),
            12 => {
                tag(&mut out, 11, 0);
                varint(&mut out, [0, 1, u64::MAX, 7][rng.below(4)]);
            }
            // Rarely more than a chain sees.
            13 if rng.once_in(4) => {
                (0..60 + rng.below(10)).for_each(|_| bytes(&mut out, 3, text(rng).as_bytes()));
            }
            0 => bytes(&mut out, 1, text(rng).as_bytes()),
            1 => {
                tag(&mut out, 2, 0);
                varint(&mut out, number(rng));
            }
            2 => bytes(&mut out, 3, text(rng).as_bytes()),
            3 => bytes(&mut out, 4, &sub(rng, 2)),
            4 => bytes(&mut out, 5, text(rng).as_bytes()),
            5 => {
                tag(&mut out, 6, 0);
                varint(&mut out, rng.below(3) as u64);
            }
            6 => {
                tag(&mut out, 7, 1);
                out.extend_from_slice(&f64::from_bits(rng.word()).to_le_bytes());
            }
            7 => {
                let mut packed = Vec::new();
                (0..rng.below(5)).for_each(|_| varint(&mut packed, number(rng)));
                bytes(&mut out, 8, &packed);
            }
            8 => {
                tag(&mut out, 300, 0);
                varint(&mut out, number(rng));
            }
            _ => unknown(rng, &mut out),
        }
    }
    if rng.once_in(8) && !out.is_empty() {
        let at = rng.below(out.len());
        match rng.below(3) {
            0 => out.truncate(at),
            1 => out[at] ^= 1 << rng.below(8),
            _ => out.insert(at, 0xff),
        }
    }
    out
}
