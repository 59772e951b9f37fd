//! Frame heads: nine bytes, parsed and emitted (RFC 9113 section 4.1), and the constants of section 6.

use alloc::vec::Vec;

/// Bytes of a frame head.
pub(crate) const HEAD_LEN: usize = 9;

/// The smallest SETTINGS_MAX_FRAME_SIZE there is, and what holds until SETTINGS say otherwise.
pub(crate) const FRAME_BYTES_MIN: u32 = 1 << 14;

/// The largest SETTINGS_MAX_FRAME_SIZE there is.
pub(crate) const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;

/// The largest window, and the largest stream id.
pub(crate) const MAX_31: u32 = (1 << 31) - 1;

/// What a client sends first (section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types. An unknown type is any other number.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags; their meaning depends on the type.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Bytes of payload.
    pub(crate) len: u32,
    /// See [`kind`].
    pub(crate) kind: u8,
    /// See [`flag`].
    pub(crate) flags: u8,
    /// The stream, its reserved bit cleared as section 4.1 asks.
    pub(crate) id: u32,
}

impl Head {
    pub(crate) fn parse(b: &[u8; HEAD_LEN]) -> Self {
        Self {
            len: u32::from_be_bytes([0, b[0], b[1], b[2]]),
            kind: b[3],
            flags: b[4],
            id: u32::from_be_bytes([b[5], b[6], b[7], b[8]]) & MAX_31,
        }
    }

    pub(crate) fn emit(self) -> [u8; HEAD_LEN] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [d, e, f, g] = self.id.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame whose payload is at hand and short.
pub(crate) fn push(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "callers pass payloads below 2^14")]
    let len = payload.len() as u32;
    out.extend_from_slice(&Head { len, kind, flags, id }.emit());
    out.extend_from_slice(payload);
}

/// The first four bytes of a payload as a number; the caller has checked the length.
pub(crate) fn be32(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_4_1_heads_survive_the_round_trip_and_the_reserved_bit_does_not() {
        let head = Head { len: 0x01_0203, kind: 9, flags: 0x25, id: 0x7fff_fffe };
        assert_eq!(Head::parse(&head.emit()), head);
        let mut bytes = head.emit();
        bytes[5] |= 0x80;
        assert_eq!(Head::parse(&bytes), head);
    }
}
