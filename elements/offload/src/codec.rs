//! One core's compressor and decompressor, with the memory they need from job to job.
//!
//! "gzip" is RFC 1952, "deflate" RFC 1950 (zlib), as gRPC has it; "zstd" is RFC 8878, one frame with its checksum. Not here: queues and budgets (`cpu`).
//! Invariant: an input is one stream from its first byte to its last; bytes after its end, another gzip member among
//! them, are [`JobError::Corrupt`]. Of several members (RFC 1952 section 2.2) grpc-go and grpc-java read all, tonic the
//! first, and gRPC's C core (C++, Python, …) refuses them: what receivers read differently would be judged as one
//! thing and arrive as another. No gRPC library sends them.

use abi::Encoding;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor, adler32, crc32};
use shard::JobError;
use zstd_safe::{CCtx, CParameter, DCtx};

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
    /// Made when the first message asks for it: most nodes never do.
    zstd: Option<Zstd>,
    scratch: Vec<u8>,
}

struct Zstd {
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
}

/// The error of a buffer that is too small; the library gives errors as negative numbers.
const ZSTD_NO_ROOM: usize = 70_usize.wrapping_neg();
/// How a frame begins, RFC 8878 section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Zstd {
    fn new() -> Option<Self> {
        let (mut compressor, decompressor) = (CCtx::try_create()?, DCtx::try_create()?);
        for parameter in [CParameter::CompressionLevel(1), CParameter::ChecksumFlag(true)] {
            compressor.set_parameter(parameter).ok()?;
        }
        Some(Self { compressor, decompressor })
    }
}

impl Codec {
    pub(crate) fn new() -> Self {
        // Level 1: a call waits for this; higher levels cost 2 to 10 times as much for a tenth fewer bytes.
        let level = CompressionLvl::new(1).unwrap_or_default();
        Self {
            compressor: Compressor::new(level),
            decompressor: Decompressor::new(),
            zstd: None,
            scratch: Vec::new(),
        }
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
            Encoding::Zstd => zstd_safe::compress_bound(input.len()),
        };
        if how == Encoding::Zstd && self.zstd.is_none() {
            self.zstd = Zstd::new();
        }
        let zstd = &mut self.zstd;
        let compressor = &mut self.compressor;
        let run = |room: &mut [u8]| {
            let result = match how {
                Encoding::Gzip => compressor.gzip_compress(input, room).ok(),
                Encoding::Deflate => compressor.zlib_compress(input, room).ok(),
                Encoding::Zstd => zstd.as_mut().and_then(|z| z.compressor.compress2(room, input).ok()),
            };
            // The bound is the library's own promise; were it broken, the message would go as it is.
            result.ok_or(JobError::TooLarge)
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
        if how == Encoding::Zstd {
            return self.decompress_zstd(max, input, output);
        }
        let start = output.len();
        let reachable = max.min(input.len().saturating_mul(EXPANSION_MAX));
        let mut room_bytes = size_hint(how, input)?.max(64).min(reachable);
        loop {
            let run = |room: &mut [u8]| inflate(&mut self.decompressor, how, input, room);
            match fill(&mut self.scratch, output, room_bytes, run) {
                Err(JobError::TooLarge) if room_bytes < reachable => {
                    room_bytes = room_bytes.saturating_mul(4).min(reachable);
                }
                Err(error) => return Err(error),
                Ok(()) if self.is_all(how, input, output, start) => return Ok(()),
                Ok(()) => {
                    output.truncate(start);
                    return Err(JobError::Corrupt);
                }
            }
        }
    }
}

impl Codec {
    /// True if the stream that became `output[start..]` is all of the input. The library does not say where a stream
    /// ends, only that its checksum stands there; if that stands at the end of the input and nowhere else, it is there.
    fn is_all(&mut self, how: Encoding, input: &[u8], output: &mut Vec<u8>, start: usize) -> bool {
        let made = output.get(start..).unwrap_or_default();
        if !ends_with_checksum(how, input, made) {
            return false;
        }
        let Some((_, shorter)) = input.split_last() else { return false };
        let stands_before = match how {
            Encoding::Gzip => contains::<8>(shorter, input),
            Encoding::Deflate | Encoding::Zstd => contains::<4>(shorter, input),
        };
        if !stands_before {
            return true;
        }
        // What is whole without the last byte ends before it.
        let end = output.len();
        let run = |room: &mut [u8]| inflate(&mut self.decompressor, how, shorter, room);
        let result = fill(&mut self.scratch, output, end - start, run);
        output.truncate(end);
        result.is_err()
    }

    /// One frame and nothing else. What the frame says of its size is believed as far as `max`.
    fn decompress_zstd(&mut self, max: usize, input: &[u8], output: &mut Vec<u8>) -> Result<(), JobError> {
        let is_one_frame = input.starts_with(&ZSTD_MAGIC)
            && zstd_safe::find_frame_compressed_size(input).is_ok_and(|len| len == input.len());
        if !is_one_frame {
            return Err(JobError::Corrupt);
        }
        let declared = zstd_safe::get_frame_content_size(input).map_err(|_| JobError::Corrupt)?;
        let declared = declared.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        if declared.is_some_and(|size| size > max) {
            return Err(JobError::TooLarge);
        }
        if self.zstd.is_none() {
            self.zstd = Zstd::new();
        }
        let zstd = self.zstd.as_mut().ok_or(JobError::TooLarge)?;
        let mut room_bytes = declared.unwrap_or_else(|| input.len().saturating_mul(4).max(64).min(max));
        loop {
            let run = |room: &mut [u8]| {
                zstd.decompressor.decompress(room, input).map_err(|code| match code {
                    ZSTD_NO_ROOM if declared.is_none() => JobError::TooLarge,
                    _ => JobError::Corrupt,
                })
            };
            match fill(&mut self.scratch, output, room_bytes, run) {
                Err(JobError::TooLarge) if room_bytes < max => {
                    room_bytes = room_bytes.saturating_mul(4).min(max);
                }
                other => return other,
            }
        }
    }
}

/// A stream at the front of the input, whatever follows it.
fn inflate(
    decompressor: &mut Decompressor,
    how: Encoding,
    input: &[u8],
    room: &mut [u8],
) -> Result<usize, JobError> {
    match how {
        Encoding::Gzip => decompressor.gzip_decompress(input, room),
        Encoding::Deflate | Encoding::Zstd => decompressor.zlib_decompress(input, room),
    }
    .map_err(|e| match e {
        DecompressionError::BadData => JobError::Corrupt,
        DecompressionError::InsufficientSpace => JobError::TooLarge,
    })
}

/// True if the last `N` bytes of `of` are somewhere in `bytes`.
fn contains<const N: usize>(bytes: &[u8], of: &[u8]) -> bool {
    of.last_chunk::<N>().is_some_and(|wanted| bytes.windows(N).any(|some| some == wanted))
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
pub(crate) fn size_hint(how: Encoding, input: &[u8]) -> Result<usize, JobError> {
    match how {
        // RFC 1952 section 2.3.1: ISIZE, the size modulo 2^32.
        Encoding::Gzip if input.len() >= GZIP_BYTES_MIN => Ok(u32::from_le_bytes(last4(input)) as usize),
        Encoding::Deflate if input.len() >= ZLIB_BYTES_MIN => Ok(input.len().saturating_mul(4)),
        _ => Err(JobError::Corrupt),
    }
}

/// True if the input's last bytes are the checksum of `output`: then nothing follows the stream. (The
/// library has checked the sum where the stream ends; this finds what ends elsewhere.)
pub(crate) fn ends_with_checksum(how: Encoding, input: &[u8], output: &[u8]) -> bool {
    match how {
        Encoding::Gzip => {
            let head = input.get(..input.len().saturating_sub(4)).unwrap_or_default();
            u32::from_le_bytes(last4(input)) as usize == output.len() & 0xffff_ffff
                && u32::from_le_bytes(last4(head)) == crc32(output)
        }
        Encoding::Deflate => u32::from_be_bytes(last4(input)) == adler32(output),
        // The library checks the frame it was told is the whole input.
        Encoding::Zstd => true,
    }
}

fn last4(bytes: &[u8]) -> [u8; 4] {
    bytes.last_chunk::<4>().copied().unwrap_or_default()
}
