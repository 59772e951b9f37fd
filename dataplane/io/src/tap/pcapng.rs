//! Captures as files: pcapng (draft-ietf-opsawg-pcapng), the four blocks a capture of one port needs.
//!
//! Section header, interface description with nanosecond times, an enhanced packet block for each frame with
//! the direction in its flags, and interface statistics at the end that say how many frames were missed. All
//! numbers are little-endian, whatever the machine.

use super::{Direction, Record};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
/// The type of an enhanced packet block.
pub const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
/// Of a section header: the program that wrote it.
const USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const INTERFACE_FILTER: u16 = 11;
const PACKET_FLAGS: u16 = 2;
const DROPPED_BY_INTERFACE: u16 = 5;
const FILTER_ACCEPTED: u16 = 6;

/// Appends blocks to a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// Added to a record's time to make it one since 1970.
    epoch_ns: u64,
}

impl Writer {
    /// Begins a file. `epoch_ns` is what the wall clock is ahead of the records' clock.
    pub fn begin(out: &mut Vec<u8>, port: &str, filter: &str, snaplen: usize, epoch_ns: u64) -> Self {
        block(out, SECTION_HEADER, |out| {
            out.extend(BYTE_ORDER.to_le_bytes());
            out.extend(1_u16.to_le_bytes());
            out.extend(0_u16.to_le_bytes());
            // The section's length is not known yet.
            out.extend(u64::MAX.to_le_bytes());
            option(out, USER_APPLICATION, concat!("towpath ", env!("CARGO_PKG_VERSION")).as_bytes());
            option(out, OPTION_END, &[]);
        });
        block(out, INTERFACE_DESCRIPTION, |out| {
            out.extend(LINKTYPE_ETHERNET.to_le_bytes());
            out.extend(0_u16.to_le_bytes());
            out.extend(length(snaplen).to_le_bytes());
            option(out, INTERFACE_NAME, port.as_bytes());
            if !filter.is_empty() {
                // The first byte says that text follows, in libpcap's language.
                option(out, INTERFACE_FILTER, &[&[0], filter.as_bytes()].concat());
            }
            // Ten to the minus ninth.
            option(out, TIME_RESOLUTION, &[9]);
            option(out, OPTION_END, &[]);
        });
        Self { epoch_ns }
    }

    /// One frame.
    pub fn frame(&self, out: &mut Vec<u8>, record: &Record) {
        block(out, ENHANCED_PACKET, |out| {
            out.extend(0_u32.to_le_bytes());
            time(out, self.epoch_ns.saturating_add(record.at.0));
            out.extend(length(record.bytes.len()).to_le_bytes());
            out.extend(length(record.len).to_le_bytes());
            padded(out, &record.bytes);
            let flags: u32 = match record.direction {
                Direction::In => 1,
                Direction::Out => 2,
            };
            option(out, PACKET_FLAGS, &flags.to_le_bytes());
            option(out, OPTION_END, &[]);
        });
    }

    /// The end: at this time of the records' clock, so many frames had matched and so many of them are missing.
    pub fn end(&self, out: &mut Vec<u8>, at_ns: u64, matched: u64, missed: u64) {
        block(out, INTERFACE_STATISTICS, |out| {
            out.extend(0_u32.to_le_bytes());
            time(out, self.epoch_ns.saturating_add(at_ns));
            option(out, DROPPED_BY_INTERFACE, &missed.to_le_bytes());
            option(out, FILTER_ACCEPTED, &matched.to_le_bytes());
            option(out, OPTION_END, &[]);
        });
    }
}

/// What reads a stream of blocks, as far as a copy of it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// A frame.
    Frame,
    /// The statistics at the end.
    End {
        /// Frames that are missing.
        missed: u64,
    },
    /// Anything else.
    Other,
}

/// The first block of `bytes` and its length; `None` until it is all there. `Err` if these are no blocks of
/// [`Writer`]'s.
pub fn first_block(bytes: &[u8]) -> Result<Option<(Block, usize)>, NotPcapng> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
    let (Some(kind), Some(len)) = (word(0), word(4)) else { return Ok(None) };
    let len = len as usize;
    if !(12..=BLOCK_MAX).contains(&len) || !len.is_multiple_of(4) {
        return Err(NotPcapng);
    }
    let Some(block) = bytes.get(..len) else { return Ok(None) };
    Ok(Some(match kind {
        ENHANCED_PACKET => (Block::Frame, len),
        INTERFACE_STATISTICS => {
            // The first option, behind interface and time.
            let missed = block.get(24..).and_then(<[u8]>::first_chunk);
            (Block::End { missed: u64::from_le_bytes(*missed.ok_or(NotPcapng)?) }, len)
        }
        _ => (Block::Other, len),
    }))
}

/// The longest block: a frame and what is around it.
const BLOCK_MAX: usize = super::SNAPLEN_MAX + 4096;

/// The bytes are no blocks of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotPcapng;

/// A block: its type, its length, what it says, and its length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = length(out.len() - start + 4).to_le_bytes();
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&len);
    }
    out.extend(len);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer ones than a length can say are cut: names and filters are shorter.
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_le_bytes());
    out.extend(len.to_le_bytes());
    padded(out, value.get(..len.into()).unwrap_or(value));
}

/// Bytes, and zeros up to a multiple of four.
fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend(core::iter::repeat_n(0, bytes.len().next_multiple_of(4) - bytes.len()));
}

/// The upper half first.
fn time(out: &mut Vec<u8>, ns: u64) {
    out.extend(((ns >> 32) as u32).to_le_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    out.extend((ns as u32).to_le_bytes());
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
