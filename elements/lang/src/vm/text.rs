//! Words as text, hashes, and the functions of texts.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use super::code::Fmt;
use crate::ty::EnumId;

/// Writes a word that needs no table: everything but texts, endpoints and services.
pub(crate) fn write_word(out: &mut dyn Write, fmt: Fmt, word: u64) {
    // Writing to a buffer in memory does not fail.
    let _ = match fmt {
        Fmt::Bool => out.write_str(if word == 0 { "false" } else { "true" }),
        Fmt::Int | Fmt::Named(_) => write!(out, "{}", word.cast_signed()),
        Fmt::Uint | Fmt::Str | Fmt::Endpoint | Fmt::Service => write!(out, "{word}"),
        Fmt::Float => write!(out, "{}", f64::from_bits(word)),
        Fmt::Duration => write_duration(out, word.cast_signed()),
        Fmt::Instant => write!(out, "{word}ns"),
        Fmt::Rate => write!(out, "{}/s", f64::from_bits(word)),
        Fmt::Status => out.write_str(abi::Status::from_code(u8::try_from(word).unwrap_or(2)).name()),
        Fmt::Enum(id) => {
            let names = EnumId(id).def().variants;
            out.write_str(usize::try_from(word).ok().and_then(|at| names.get(at)).copied().unwrap_or("?"))
        }
    };
}

fn write_duration(out: &mut dyn Write, ns: i64) -> std::fmt::Result {
    let (unit, per) = match ns.unsigned_abs() {
        0 => ("s", 1.0),
        1..1_000 => ("ns", 1.0),
        1_000..1_000_000 => ("us", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    write!(out, "{}{unit}", ns as f64 / per)
}

/// The longest prefix of at most `max` bytes that ends at a character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// An address given as 16 bytes, IPv4 mapped.
pub(crate) fn ip_of(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// An address, or a range as `in_cidr` reads it.
pub(crate) fn is_range(range: &str) -> bool {
    // The base of a range lies in it, if it is one.
    in_cidr(range.split_once('/').map_or(range, |(base, _)| base), range)
}

/// `ip` lies in `range`, as in `10.0.0.0/8`; what is not readable lies nowhere.
pub(crate) fn in_cidr(ip: &str, range: &str) -> bool {
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    let (base, bits) = range.split_once('/').unwrap_or((range, ""));
    let Ok(base) = base.parse::<IpAddr>() else { return false };
    let (a, b, len) = match (ip.to_canonical(), base.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (u128::from(u32::from(a)) << 96, u128::from(u32::from(b)) << 96, 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let Ok(bits) = (if bits.is_empty() { Ok(len) } else { bits.parse::<u32>() }) else { return false };
    bits <= len && (bits == 0 || (a ^ b) >> (128 - bits) == 0)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648 section 4). Returns the bytes written: of `out` that is too short, all.
pub(crate) fn base64(bytes: &[u8], out: &mut [u8]) -> usize {
    let mut written = 0;
    for (group, slots) in bytes.chunks(3).zip(out.chunks_exact_mut(4)) {
        let mut n = 0_u32;
        for at in 0..3 {
            n = n << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        for (at, slot) in slots.iter_mut().enumerate() {
            let sextet = usize::try_from(n >> (18 - 6 * at) & 63).unwrap_or(0);
            let letter = BASE64.get(sextet).copied().unwrap_or(b'=');
            *slot = if at <= group.len() { letter } else { b'=' };
        }
        written += 4;
    }
    written
}

/// ASCII letters in lower case.
pub(crate) fn lower(bytes: &[u8], out: &mut [u8]) -> usize {
    for (slot, byte) in out.iter_mut().zip(bytes) {
        *slot = byte.to_ascii_lowercase();
    }
    bytes.len().min(out.len())
}

/// The first `keep` characters, and a star for each of the rest.
pub(crate) fn mask(bytes: &[u8], keep: usize, out: &mut [u8]) -> usize {
    let mut chars = 0;
    let mut written = 0;
    for byte in bytes {
        let begins = byte & 0xc0 != 0x80;
        chars += usize::from(begins);
        let letter = if chars <= keep {
            *byte
        } else if begins {
            b'*'
        } else {
            continue;
        };
        if let Some(slot) = out.get_mut(written) {
            *slot = letter;
            written += 1;
        }
    }
    written
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn round(acc: u64, lane: u64) -> u64 {
    acc.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// XXH64 with seed 0: what the ring and `hash` use.
pub(crate) fn xxh64(bytes: &[u8]) -> u64 {
    xxh64_seeded(bytes, 0)
}

/// XXH64.
#[inline]
pub(crate) fn xxh64_seeded(bytes: &[u8], seed: u64) -> u64 {
    let mut rest = bytes;
    let mut hash = if bytes.len() >= 32 {
        let mut lanes =
            [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        while let Some((block, after)) = rest.split_at_checked(32) {
            for (lane, chunk) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                *lane = round(*lane, word(chunk));
            }
            rest = after;
        }
        let [a, b, c, d] = lanes;
        let mixed = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        lanes.iter().fold(mixed, |h, lane| (h ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((chunk, after)) = rest.split_at_checked(8) {
        hash = (hash ^ round(0, word(chunk))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = after;
    }
    if let Some((chunk, after)) = rest.split_at_checked(4) {
        let lane = chunk.try_into().map_or(0, u32::from_le_bytes);
        hash = (hash ^ u64::from(lane).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// Mixes two words: the score of an endpoint for a key.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(P1);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The upper 53 bits of a word as a float from 0 to 1.
pub(crate) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// A word to one of `n`, evenly.
pub(crate) fn below(word: u64, n: usize) -> usize {
    usize::try_from((u128::from(word) * n as u128) >> 64).unwrap_or(0)
}

/// SHA-256 in hexadecimal, small letters.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 64] {
    use sha2::Digest;
    let mut hex = [0; 64];
    for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(sha2::Sha256::digest(bytes)) {
        *pair = [byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)]);
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fmt: Fmt, word: u64) -> String {
        let mut out = String::new();
        write_word(&mut out, fmt, word);
        out
    }

    #[test]
    fn values_read_as_they_are_written() {
        assert_eq!(text(Fmt::Rate, 100.0_f64.to_bits()), "100/s");
        assert_eq!(text(Fmt::Duration, 5_000_000), "5ms");
        assert_eq!(text(Fmt::Duration, 1_500_000_000), "1.5s");
        assert_eq!(text(Fmt::Status, 14), "UNAVAILABLE");
        assert_eq!(text(Fmt::Float, 0.1_f64.to_bits()), "0.1");
    }

    /// Test vectors of the reference implementation.
    #[test]
    fn xxh64_is_the_published_one() {
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(xxh64_seeded(b"", 1), 0xD5AF_BA13_36A3_BE4B);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn base64_pads() {
        let encode = |text: &str| {
            let mut out = [0; 16];
            let len = base64(text.as_bytes(), &mut out);
            String::from_utf8(out[..len].to_vec()).unwrap()
        };
        assert_eq!(encode("f"), "Zg==");
        assert_eq!(encode("fo"), "Zm8=");
        assert_eq!(encode("foobar"), "Zm9vYmFy");
        for text in ["", "f", "fo", "foo", "foobar"] {
            let (padded, mut bytes) = (encode(text), Vec::new());
            assert!(wire::grpc::decode_bin(padded.as_bytes(), &mut bytes) && bytes == text.as_bytes());
            bytes.clear();
            assert!(
                wire::grpc::decode_bin(padded.trim_end_matches('=').as_bytes(), &mut bytes)
                    && bytes == text.as_bytes()
            );
        }
        assert!(
            !wire::grpc::decode_bin(b"Z", &mut Vec::new()) && !wire::grpc::decode_bin(b"Z*", &mut Vec::new())
        );
    }

    #[test]
    fn a_mask_keeps_characters_not_bytes() {
        let mut out = [0; 16];
        let len = mask("aéxy".as_bytes(), 2, &mut out);
        assert_eq!(std::str::from_utf8(&out[..len]).unwrap(), "aé**");
    }

    #[test]
    fn ranges_hold_addresses_of_their_own_family() {
        assert!(in_cidr("10.1.2.3", "10.0.0.0/8"));
        assert!(!in_cidr("11.1.2.3", "10.0.0.0/8"));
        assert!(in_cidr("::ffff:10.1.2.3", "10.0.0.0/8"));
        assert!(in_cidr("fd00::1", "fd00::/8"));
        assert!(in_cidr("1.2.3.4", "0.0.0.0/0"));
        assert!(!in_cidr("x", "10.0.0.0/8"));
        assert!(!in_cidr("10.0.0.1", "10.0.0.0/99"));
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("abc", 2), "ab");
    }
}
