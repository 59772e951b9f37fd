//! gRPC over HTTP/2: message prefix, `grpc-timeout`, `grpc-message`, HTTP status mapping.

use alloc::vec::Vec;

/// Bytes of a message's prefix: a flag and a big-endian length.
pub const PREFIX_LEN: usize = 5;

/// A message's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The message is encoded as `grpc-encoding` says.
    pub is_compressed: bool,
    /// Bytes that follow.
    pub len: u32,
}

impl Prefix {
    /// Reads a prefix; a flag other than 0 and 1 is `None`.
    pub fn parse(bytes: [u8; PREFIX_LEN]) -> Option<Self> {
        let [flag, a, b, c, d] = bytes;
        (flag < 2).then_some(Self { is_compressed: flag == 1, len: u32::from_be_bytes([a, b, c, d]) })
    }

    /// Its bytes.
    pub fn emit(self) -> [u8; PREFIX_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [u8::from(self.is_compressed), a, b, c, d]
    }
}

/// `grpc-timeout` to nanoseconds, saturating: 1 to 8 digits and a unit of `HMSmun`.
pub fn parse_timeout_ns(value: &[u8]) -> Option<u64> {
    let _ = value;
    unimplemented!()
}

/// Nanoseconds as the most exact `grpc-timeout` of at most 8 digits, rounded down; 0 gives `1n`.
pub fn emit_timeout(ns: u64, out: &mut Vec<u8>) {
    let _ = (ns, out);
    unimplemented!()
}

/// Percent-encodes a status message.
pub fn encode_message(text: &[u8], out: &mut Vec<u8>) {
    let _ = (text, out);
    unimplemented!()
}

/// Percent-decodes a status message; what is not a valid escape stays as it is.
pub fn decode_message(value: &[u8], out: &mut Vec<u8>) {
    let _ = (value, out);
    unimplemented!()
}

/// The gRPC status code of a plain HTTP answer (CONVENTIONS: 400 INTERNAL, 401 UNAUTHENTICATED, 403
/// PERMISSION_DENIED, 404 UNIMPLEMENTED, 429/502/503/504 UNAVAILABLE, else UNKNOWN).
pub fn status_of_http(status: u16) -> u8 {
    let _ = status;
    unimplemented!()
}

/// The gRPC status code of an RST_STREAM or GOAWAY code (`PROTOCOL-HTTP2.md`, "Errors").
pub fn status_of_reason(code: u32) -> u8 {
    let _ = code;
    unimplemented!()
}

/// The halves of a gRPC `:path`, `/pkg.Service/Method`.
pub fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let _ = path;
    unimplemented!()
}
