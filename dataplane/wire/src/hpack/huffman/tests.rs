use alloc::vec::Vec;

use super::*;

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
    let mut out = Vec::new();
    let len = decode(bytes, usize::MAX, &mut out)?;
    assert_eq!(len, out.len());
    Ok(out)
}

#[test]
fn appendix_b_codes_follow_from_their_lengths() {
    assert_eq!(CODES[usize::from(b'0')], (0x0, 5));
    assert_eq!(CODES[usize::from(b'a')], (0x3, 5));
    assert_eq!(CODES[usize::from(b' ')], (0x14, 6));
    assert_eq!(CODES[usize::from(b'X')], (0xfc, 8));
    assert_eq!(CODES[usize::from(b'|')], (0x7fc, 11));
    assert_eq!(CODES[0], (0x1ff8, 13));
    assert_eq!(CODES[249], (0x0fff_fffe, 28));
    assert_eq!(CODES[22], (0x3fff_fffe, 30));
    assert_eq!(CODES[EOS], (0x3fff_ffff, 30));
}

#[test]
fn every_byte_and_every_pair_comes_back() {
    for a in 0..=255_u8 {
        for b in 0..=255_u8 {
            let text = [a, b, a, b'e', b];
            let mut out = Vec::new();
            encode(&text, &mut out);
            assert_eq!(out.len(), encoded_len(&text));
            assert_eq!(decoded(&out).unwrap(), text);
        }
    }
}

#[test]
fn every_length_comes_back() {
    let text: Vec<u8> = (0..2000_u32).map(|i| b"www.example/\x01\xffA"[(i * i % 15) as usize]).collect();
    for len in (0..300).chain([1000, 2000]) {
        let mut out = Vec::new();
        encode(&text[..len], &mut out);
        assert_eq!(decoded(&out).unwrap(), &text[..len]);
        for keep in [0, 1, len / 2, len + 1] {
            let mut kept = Vec::new();
            assert_eq!(decode(&out, keep, &mut kept), Ok(len));
            assert_eq!(kept, &text[..keep.min(len)]);
        }
    }
}

#[test]
fn section_5_2_padding_is_below_8_bits_and_all_ones() {
    // '0' is 00000, '&' 11111000.
    assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
    assert_eq!(decoded(&[0b0000_0110]), Err(HpackError::Huffman));
    assert_eq!(decoded(&[0b0000_0000]), Err(HpackError::Huffman));
    assert_eq!(decoded(&[0xf8]).unwrap(), b"&");
    assert_eq!(decoded(&[0xff]), Err(HpackError::Huffman));
    assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HpackError::Huffman));
    assert_eq!(decoded(&[0xf8, 0xff, 0xff, 0xff, 0xff]), Err(HpackError::Huffman));
}

#[test]
fn section_5_2_eos_is_refused_wherever_it_stands() {
    // EOS, then 'a's: the 30 ones are no padding.
    for before in 0..12 {
        let mut bits = Vec::new();
        for _ in 0..before {
            bits.extend([0, 0, 0, 1, 1]);
        }
        bits.extend([1; 30]);
        for _ in 0..9 {
            bits.extend([0, 0, 0, 1, 1]);
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        let bytes: Vec<u8> = bits.chunks(8).map(|c| c.iter().fold(0, |b, bit| b << 1 | bit)).collect();
        assert_eq!(decoded(&bytes), Err(HpackError::Huffman));
    }
}
