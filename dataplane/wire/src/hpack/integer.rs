//! Integers with a prefix, RFC 7541 section 5.1.

use alloc::vec::Vec;

use super::HpackError;

/// Bytes that may follow a prefix: enough for 32 bits, and the end of any game with leading zeroes.
const FOLLOWING_MAX: u32 = 5;

/// Reads the integer whose first byte is `first` and whose prefix is `mask`; the bytes that follow are taken
/// from `input`.
#[inline]
pub(super) fn parse(first: u8, mask: u8, input: &mut &[u8]) -> Result<u32, HpackError> {
    let prefix = first & mask;
    if prefix < mask {
        return Ok(u32::from(prefix));
    }
    parse_long(mask, input)
}

fn parse_long(mask: u8, input: &mut &[u8]) -> Result<u32, HpackError> {
    let mut value = u64::from(mask);
    for step in 0..FOLLOWING_MAX {
        let (&byte, rest) = input.split_first().ok_or(HpackError::Truncated)?;
        *input = rest;
        value += u64::from(byte & 0x7f) << (7 * step);
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| HpackError::Integer);
        }
    }
    Err(HpackError::Integer)
}

/// Appends `value` with a prefix of `mask`; `flags` are the bits above the prefix.
#[inline]
pub(super) fn emit(value: usize, flags: u8, mask: u8, out: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(small) if small < mask => out.push(flags | small),
        _ => emit_long(value, flags, mask, out),
    }
}

fn emit_long(value: usize, flags: u8, mask: u8, out: &mut Vec<u8>) {
    out.push(flags | mask);
    let mut rest = value - usize::from(mask);
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn parse_all(bytes: &[u8], mask: u8) -> Result<u32, HpackError> {
        let (&first, mut rest) = bytes.split_first().ok_or(HpackError::Truncated)?;
        let value = parse(first, mask, &mut rest)?;
        assert!(rest.is_empty());
        Ok(value)
    }

    #[test]
    fn c_1_examples() {
        for (value, flags, mask, bytes) in
            [(10, 0, 31, vec![10]), (1337, 0, 31, vec![31, 154, 10]), (42, 0, 255, vec![42])]
        {
            let mut out = Vec::new();
            emit(value, flags, mask, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(parse_all(&bytes, mask), Ok(u32::try_from(value).unwrap()));
        }
    }

    #[test]
    fn every_prefix_and_every_boundary_comes_back() {
        for bits in 1..=8 {
            let mask = u8::try_from((1_u16 << bits) - 1).unwrap();
            for shift in 0..32 {
                for value in [(1_u64 << shift) - 1, 1 << shift, u64::from(mask) + (1 << shift)] {
                    let Ok(value) = u32::try_from(value) else { continue };
                    let mut out = Vec::new();
                    emit(value as usize, 0, mask, &mut out);
                    assert_eq!(parse_all(&out, mask), Ok(value));
                }
            }
        }
    }

    #[test]
    fn too_large_too_long_or_cut_short_is_refused() {
        assert_eq!(parse_all(&[31, 0xff, 0xff, 0xff, 0xff, 0x0f], 31), Err(HpackError::Integer));
        assert_eq!(parse_all(&[31, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 31), Err(HpackError::Integer));
        assert_eq!(parse_all(&[31, 0xe0, 0xff, 0xff, 0xff, 0x0f], 31), Ok(u32::MAX));
        assert_eq!(parse_all(&[31], 31), Err(HpackError::Truncated));
        assert_eq!(parse_all(&[31, 0x80], 31), Err(HpackError::Truncated));
    }
}
