//! The string code of RFC 7541 section 5.2 and appendix B.
//!
//! The code is canonical, so its 257 lengths are all there is to write down: codes, the decoder's tables and
//! the encoder's are derived from them when this file is compiled.
//!
//! Decoding looks at 11 bits a step, which are one or two whole symbols of up to that length; longer codes
//! (control bytes, non-ASCII) are found by their length.

use alloc::vec::Vec;

use super::HpackError;

/// Bits of each symbol's code, by symbol; the last is EOS. From RFC 7541 appendix B.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const EOS: usize = 256;
const LENGTH_MAX: usize = 30;
/// Bits a step looks at.
const STEP: u32 = 11;
/// Decoded bytes gathered before they are appended.
const CHUNK: usize = 128;

/// What the next [`STEP`] bits begin with.
#[derive(Clone, Copy)]
struct Step {
    first: u8,
    second: u8,
    /// Bits of the first symbol; 0 if its code is longer than a step.
    first_bits: u8,
    /// Bits of both symbols; that of the first if there is no second.
    bits: u8,
}

/// Codes of one length.
#[derive(Clone, Copy)]
struct Rank {
    /// The first code of this length.
    code: u32,
    /// How many there are.
    count: u32,
    /// Where the first one's symbol stands in [`SYMBOLS`].
    at: u32,
}

static CODES: [(u32, u8); 257] = codes();
static STEPS: [Step; 1 << STEP] = steps();
static RANKS: [Rank; LENGTH_MAX + 1] = ranks();
static SYMBOLS: [u16; 257] = symbols();

const fn ranks() -> [Rank; LENGTH_MAX + 1] {
    let mut out = [Rank { code: 0, count: 0, at: 0 }; LENGTH_MAX + 1];
    let mut symbol = 0;
    while symbol < LENGTHS.len() {
        out[LENGTHS[symbol] as usize].count += 1;
        symbol += 1;
    }
    let mut bits = 1;
    while bits <= LENGTH_MAX {
        let below = out[bits - 1];
        out[bits].code = (below.code + below.count) << 1;
        out[bits].at = below.at + below.count;
        bits += 1;
    }
    out
}

#[expect(clippy::cast_possible_truncation, reason = "symbols are below 257")]
const fn symbols() -> [u16; 257] {
    let mut next = ranks();
    let mut out = [0; 257];
    let mut symbol = 0;
    while symbol < LENGTHS.len() {
        let rank = &mut next[LENGTHS[symbol] as usize];
        out[rank.at as usize] = symbol as u16;
        rank.at += 1;
        symbol += 1;
    }
    out
}

const fn codes() -> [(u32, u8); 257] {
    let mut next = ranks();
    let mut out = [(0, 0); 257];
    let mut symbol = 0;
    while symbol < LENGTHS.len() {
        let bits = LENGTHS[symbol];
        out[symbol] = (next[bits as usize].code, bits);
        next[bits as usize].code += 1;
        symbol += 1;
    }
    out
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "symbols of at most 11 bits are below 256, as are the sums"
)]
const fn steps() -> [Step; 1 << STEP] {
    let codes = codes();
    let mut out = [Step { first: 0, second: 0, first_bits: 0, bits: 0 }; 1 << STEP];
    let mut first = 0;
    while first < EOS {
        let (code, bits) = codes[first];
        if bits as u32 <= STEP {
            let free = STEP - bits as u32;
            let from = code << free;
            let mut low = 0;
            while low < 1 << free {
                let entry = Step { first: first as u8, second: 0, first_bits: bits, bits };
                out[(from + low) as usize] = entry;
                low += 1;
            }
            let mut second = 0;
            while second < EOS {
                let (code, more) = codes[second];
                if more as u32 <= free {
                    let left = free - more as u32;
                    let from = from + (code << left);
                    let mut low = 0;
                    while low < 1 << left {
                        let entry = Step {
                            first: first as u8,
                            second: second as u8,
                            first_bits: bits,
                            bits: bits + more,
                        };
                        out[(from + low) as usize] = entry;
                        low += 1;
                    }
                }
                second += 1;
            }
        }
        first += 1;
    }
    out
}

/// The symbol of more than [`STEP`] bits at the top of `window`, and its bits. EOS is none.
#[cold]
fn long(window: u64) -> Option<(u8, u32)> {
    for (bits, rank) in RANKS.iter().enumerate().skip(STEP as usize + 1) {
        let code = u32::try_from(window >> (64 - bits)).ok()?;
        let nth = code.wrapping_sub(rank.code);
        if nth < rank.count {
            let symbol = SYMBOLS.get((rank.at + nth) as usize)?;
            return Some((u8::try_from(*symbol).ok()?, u32::try_from(bits).ok()?));
        }
    }
    None
}

/// Decodes `src`, appends at most `keep` bytes of it to `out`, and returns how many there are.
///
/// A padding of 8 bits or more, or of anything but ones, and EOS are errors (section 5.2).
pub(super) fn decode(src: &[u8], keep: usize, out: &mut Vec<u8>) -> Result<usize, HpackError> {
    let mut chunk = [0_u8; CHUNK];
    let mut filled = 0_usize;
    let mut total = 0_usize;
    let mut src = src;
    // The next bits are the top `held` ones of `window`; those below are 0 until the input is used up.
    let mut window = 0_u64;
    let mut held = 0_u32;
    loop {
        while held <= 32 {
            if let Some((four, rest)) = src.split_first_chunk::<4>() {
                window |= u64::from(u32::from_be_bytes(*four)) << (32 - held);
                held += 32;
                src = rest;
            } else if let Some((&byte, rest)) = src.split_first() {
                window |= u64::from(byte) << (56 - held);
                held += 8;
                src = rest;
            } else {
                break;
            }
        }
        if held < 32 {
            break;
        }
        // No code is longer than 30 bits: one symbol at least is whole, two if they share a step.
        let step = STEPS[(window >> (64 - STEP)) as usize];
        let bits = if step.bits > 0 {
            chunk[filled] = step.first;
            chunk[filled + 1] = step.second;
            filled += 1 + usize::from(step.bits > step.first_bits);
            u32::from(step.bits)
        } else {
            let (symbol, bits) = long(window).ok_or(HpackError::Huffman)?;
            chunk[filled] = symbol;
            filled += 1;
            bits
        };
        window <<= bits;
        held -= bits;
        if filled > CHUNK - 2 {
            flush(&chunk[..filled], total, keep, out);
            total += filled;
            filled = 0;
        }
    }
    // The last bits, followed by ones: what is no symbol of `held` bits must be padding.
    window |= u64::MAX >> held;
    while held > 0 {
        let step = STEPS[(window >> (64 - STEP)) as usize];
        let (symbol, bits) = if step.bits > 0 {
            (step.first, u32::from(step.first_bits))
        } else if let Some(found) = long(window) {
            found
        } else {
            break;
        };
        if bits > held {
            break;
        }
        chunk[filled] = symbol;
        filled += 1;
        window = window << bits | ((1 << bits) - 1);
        held -= bits;
        if filled > CHUNK - 2 {
            flush(&chunk[..filled], total, keep, out);
            total += filled;
            filled = 0;
        }
    }
    if held > 7 || window != u64::MAX {
        return Err(HpackError::Huffman);
    }
    flush(&chunk[..filled], total, keep, out);
    Ok(total + filled)
}

fn flush(chunk: &[u8], total: usize, keep: usize, out: &mut Vec<u8>) {
    let room = keep.saturating_sub(total).min(chunk.len());
    out.extend_from_slice(&chunk[..room]);
}

/// Bytes that `text` takes in this code.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|b| usize::from(LENGTHS[usize::from(*b)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` in this code.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    // `held` bits stand at the bottom of `window`: fewer than 32 between two symbols.
    let mut window = 0_u64;
    let mut held = 0_u32;
    for byte in text {
        let (code, bits) = CODES[usize::from(*byte)];
        window = window << bits | u64::from(code);
        held += u32::from(bits);
        if held >= 32 {
            held -= 32;
            let [_, _, _, _, a, b, c, d] = (window >> held).to_be_bytes();
            out.extend_from_slice(&[a, b, c, d]);
        }
    }
    if held > 0 {
        // Section 5.2: padded with the most significant bits of EOS.
        let bytes = (window << (32 - held) | (0xffff_ffff >> held)).to_be_bytes();
        let len = held.div_ceil(8) as usize;
        out.extend_from_slice(bytes[4..].get(..len).unwrap_or(&[]));
    }
}

#[cfg(test)]
mod tests;
