//! One core's compressor and decompressor, with the memory they need from job to job.
//!
//! "gzip" is RFC 1952, "deflate" RFC 1950 (zlib), as gRPC has it. Not here: queues and budgets (`cpu`).
//! Invariant: an input is one stream from its first byte to its last; bytes after its end are
//! [`JobError::Corrupt`], so that nothing a peer sent is silently dropped.

use abi::Encoding;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor, adler32, crc32};
use shard::JobError;

/// Results up to this size go through the scratch buffer: copied once, never zeroed.
const SCRATCH_BYTES: usize = 64 << 10;
/// No deflate stream expands further (RFC 1951: 258 bytes from two bits, less the block's header).
const EXPANSION_MAX: usize = 1032;
/// Header and trailer of a gzip member without optional fields, RFC 1952 section 2.3.
const GZIP_BYTES_MIN: usize = 18;
/// Header and trailer of a zlib stream, RFC 1950 section 2.2.
const ZLIB_BYTES_MIN: usize = 6;

/// The compressor at the level that costs least, and the decompressor.
pub(crate) struct Codec {
    compressor: Compressor,
    decompressor: Decompressor,
    scratch: Vec<u8>,
}

impl Codec {
    pub(crate) fn new() -> Self {
        // Level 1: a call waits for this; higher levels cost 2 to 10 times as much for a tenth fewer bytes.
        let level = CompressionLvl::new(1).unwrap_or_default();
        Self { compressor: Compressor::new(level), decompressor: Decompressor::new(), scratch: Vec::new() }
    }

    /// Appends the compressed input to `output`.
    pub(crate) fn compress(
        &mut self,
        how: Encoding,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        let bound = match how {
            Encoding::Gzip => self.compressor.gzip_compress_bound(input.len()),
            Encoding::Deflate => self.compressor.zlib_compress_bound(input.len()),
        };
        let compressor = &mut self.compressor;
        let run = |room: &mut [u8]| {
            let result = match how {
                Encoding::Gzip => compressor.gzip_compress(input, room),
                Encoding::Deflate => compressor.zlib_compress(input, room),
            };
            // The bound is the library's own promise; were it broken, the message would go as it is.
            result.map_err(|_| JobError::TooLarge)
        };
        fill(&mut self.scratch, output, bound, run)
    }

    /// Appends the decompressed input to `output`; at most `max` bytes.
    pub(crate) fn decompress(
        &mut self,
        how: Encoding,
        max: usize,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        let start = output.len();
        let reachable = max.min(input.len().saturating_mul(EXPANSION_MAX));
        let mut room_bytes = size_hint(how, input)?.max(64).min(reachable);
        loop {
            let decompressor = &mut self.decompressor;
            let run = |room: &mut [u8]| {
                match how {
                    Encoding::Gzip => decompressor.gzip_decompress(input, room),
                    Encoding::Deflate => decompressor.zlib_decompress(input, room),
                }
                .map_err(|e| match e {
                    DecompressionError::BadData => JobError::Corrupt,
                    DecompressionError::InsufficientSpace => JobError::TooLarge,
                })
            };
            match fill(&mut self.scratch, output, room_bytes, run) {
                Err(JobError::TooLarge) if room_bytes < reachable => {
                    room_bytes = room_bytes.saturating_mul(4).min(reachable);
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    let made = output.get(start..).unwrap_or_default();
                    if ends_with_checksum(how, input, made) {
                        return Ok(());
                    }
                    output.truncate(start);
                    return Err(JobError::Corrupt);
                }
            }
        }
    }
}

/// Runs `run` over `room_bytes` of memory and appends what it made to `output`; nothing on failure.
fn fill(
    scratch: &mut Vec<u8>,
    output: &mut Vec<u8>,
    room_bytes: usize,
    run: impl FnOnce(&mut [u8]) -> Result<usize, JobError>,
) -> Result<(), JobError> {
    if room_bytes <= SCRATCH_BYTES {
        if scratch.len() < room_bytes {
            scratch.resize(SCRATCH_BYTES, 0);
        }
        let room = scratch.get_mut(..room_bytes).unwrap_or_default();
        let made = run(room)?;
        output.extend_from_slice(room.get(..made).unwrap_or_default());
        return Ok(());
    }
    let start = output.len();
    output.resize(start + room_bytes, 0);
    let result = run(output.get_mut(start..).unwrap_or_default());
    output.truncate(start + result.unwrap_or(0));
    result.map(|_| ())
}

/// How large the output probably is. A lie costs another attempt, no more.
fn size_hint(how: Encoding, input: &[u8]) -> Result<usize, JobError> {
    match how {
        // RFC 1952 section 2.3.1: ISIZE, the size modulo 2^32.
        Encoding::Gzip if input.len() >= GZIP_BYTES_MIN => Ok(u32::from_le_bytes(last4(input)) as usize),
        Encoding::Deflate if input.len() >= ZLIB_BYTES_MIN => Ok(input.len().saturating_mul(4)),
        _ => Err(JobError::Corrupt),
    }
}

/// True if the input's last bytes are the checksum of `output`: then nothing follows the stream. (The
/// library has checked the sum where the stream ends; this finds what ends elsewhere.)
fn ends_with_checksum(how: Encoding, input: &[u8], output: &[u8]) -> bool {
    match how {
        Encoding::Gzip => {
            let head = input.get(..input.len().saturating_sub(4)).unwrap_or_default();
            u32::from_le_bytes(last4(input)) as usize == output.len() & 0xffff_ffff
                && u32::from_le_bytes(last4(head)) == crc32(output)
        }
        Encoding::Deflate => u32::from_be_bytes(last4(input)) == adler32(output),
    }
}

fn last4(bytes: &[u8]) -> [u8; 4] {
    bytes.last_chunk::<4>().copied().unwrap_or_default()
}
