//! What stands around a deflate stream: gzip's header and trailer (RFC 1952), zlib's (RFC 1950). Devices know
//! the stream only.

use core::ops::Range;

use abi::Encoding;
use libdeflater::{adler32, crc32};
use shard::JobError;

/// What a stream of ours begins with. gzip: no time, no name, fastest, unknown system; zlib: 32 KiB, fastest.
pub(crate) fn header(how: Encoding) -> &'static [u8] {
    match how {
        Encoding::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff],
        Encoding::Deflate | Encoding::Zstd => &[0x78, 0x01],
    }
}

/// The most that `end` appends.
#[cfg(feature = "dpdk")]
pub(crate) const END_BYTES_MAX: usize = 8;

/// Appends what it ends with.
pub(crate) fn end(how: Encoding, plain: &[u8], output: &mut Vec<u8>) {
    match how {
        Encoding::Gzip => {
            output.extend_from_slice(&crc32(plain).to_le_bytes());
            // RFC 1952 section 2.3.1: the size modulo 2^32.
            #[expect(clippy::cast_possible_truncation, reason = "modulo is meant")]
            output.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        }
        Encoding::Deflate | Encoding::Zstd => output.extend_from_slice(&adler32(plain).to_be_bytes()),
    }
}

/// Where the deflate stream stands in `input`.
pub(crate) fn body(how: Encoding, input: &[u8]) -> Result<Range<usize>, JobError> {
    let (start, end_bytes) = match how {
        Encoding::Gzip => (gzip_header(input).ok_or(JobError::Corrupt)?, 8),
        Encoding::Deflate | Encoding::Zstd => (zlib_header(input).ok_or(JobError::Corrupt)?, 4),
    };
    let end = input.len().checked_sub(end_bytes).filter(|end| *end > start).ok_or(JobError::Corrupt)?;
    Ok(start..end)
}

/// RFC 1952 section 2.3: the header's length.
fn gzip_header(input: &[u8]) -> Option<usize> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _] = input.first_chunk::<10>()? else { return None };
    // Reserved bits must be zero.
    if flags & 0xe0 != 0 {
        return None;
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let len = input.get(at..)?.first_chunk::<2>()?;
        at += 2 + usize::from(u16::from_le_bytes(*len));
    }
    // A name, a comment.
    for bit in [8, 16] {
        if flags & bit != 0 {
            at += 1 + input.get(at..)?.iter().position(|byte| *byte == 0)?;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Some(at)
}

/// RFC 1950 section 2.2: the header's length.
fn zlib_header(input: &[u8]) -> Option<usize> {
    let [method, flags] = *input.first_chunk::<2>()?;
    let is_deflate = method & 0xf == 8 && method >> 4 <= 7;
    let has_dictionary = flags & 0x20 != 0;
    (is_deflate && !has_dictionary && u16::from_be_bytes([method, flags]).is_multiple_of(31)).then_some(2)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_we_wrap_another_implementation_unwraps_and_the_reverse() {
        let plain = b"towpath ".repeat(50);
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        raw.write_all(&plain).unwrap();
        let raw = raw.finish().unwrap();
        for how in [Encoding::Gzip, Encoding::Deflate] {
            let mut wrapped = [header(how), &raw].concat();
            end(how, &plain, &mut wrapped);
            let mut out = Vec::new();
            match how {
                Encoding::Gzip => flate2::read::GzDecoder::new(&wrapped[..]).read_to_end(&mut out),
                _ => flate2::read::ZlibDecoder::new(&wrapped[..]).read_to_end(&mut out),
            }
            .unwrap();
            assert_eq!(out, plain);
            assert_eq!(&wrapped[body(how, &wrapped).unwrap()], raw);
            for cut in 0..header(how).len() + 1 {
                assert_eq!(body(how, &wrapped[..cut]), Err(JobError::Corrupt));
            }
        }
    }

    #[test]
    fn rfc1952_section_2_3_optional_fields_are_stepped_over() {
        let builder = flate2::GzBuilder::new().filename("a").comment("bc").extra(vec![1, 2, 3]).mtime(7);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"text").unwrap();
        let mut wrapped = encoder.finish().unwrap();
        let mut plain = Vec::new();
        let range = body(Encoding::Gzip, &wrapped).unwrap();
        flate2::read::DeflateDecoder::new(&wrapped[range.clone()]).read_to_end(&mut plain).unwrap();
        assert_eq!((plain.as_slice(), range.start), (&b"text"[..], 10 + 2 + 3 + 2 + 3));
        wrapped[3] |= 0x20;
        assert_eq!(body(Encoding::Gzip, &wrapped), Err(JobError::Corrupt));
        assert_eq!(body(Encoding::Deflate, &[0x78, 0x02, 1, 2, 3, 4, 5, 6]), Err(JobError::Corrupt));
        assert_eq!(
            body(Encoding::Deflate, &[0x78, 0xbb, 1, 2, 3, 4, 5, 6]),
            Err(JobError::Corrupt),
            "dictionary"
        );
    }
}
