//! The request every call sends: its headers and its message, made once.

use wire::{Headers, grpc};

use super::config::LoadConfig;

/// A message of exactly this many bytes, with gRPC's prefix: field 1 holding text, so that it is sound
/// protobuf of most types and compresses as text does. One byte is an unknown field that cannot be; it is 0.
pub(super) fn frame_of(message_bytes: u32) -> Vec<u8> {
    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog and runs home again; ";
    let mut frame = grpc::Prefix { is_compressed: false, len: message_bytes }.emit().to_vec();
    let total = frame.len() + message_bytes as usize;
    if message_bytes >= 2 {
        let length_of_varint = |n: u32| (32 - (n | 1).leading_zeros()).div_ceil(7);
        let mut text = message_bytes - 2;
        while 1 + length_of_varint(text) + text > message_bytes {
            text -= 1;
        }
        frame.push(0x0a);
        let pad = message_bytes - 1 - text;
        for i in 0..pad {
            let more = if i + 1 < pad { 0x80 } else { 0 };
            frame.push(u8::try_from(text >> (7 * i) & 0x7f).unwrap_or(0) | more);
        }
        frame.extend(TEXT.iter().cycle().take(text as usize));
    }
    frame.resize(total, 0);
    frame
}

/// The header list of every call to a target of this authority.
pub(super) fn request_of(config: &LoadConfig, authority: &str) -> Headers {
    let mut list = Headers::new();
    list.push(b":method", b"POST");
    list.push(b":scheme", b"http");
    list.push(b":path", config.method.as_bytes());
    list.push(b":authority", authority.as_bytes());
    list.push(b"te", b"trailers");
    list.push(b"content-type", b"application/grpc");
    if !config.headers.iter().any(|(name, _)| name == "user-agent") {
        list.push(b"user-agent", concat!("pktgen/", env!("CARGO_PKG_VERSION")).as_bytes());
    }
    if let Some(timeout) = config.timeout {
        let mut value = Vec::new();
        grpc::emit_timeout(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX), &mut value);
        list.push(b"grpc-timeout", &value);
    }
    for (name, value) in &config.headers {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_asked_for_and_is_sound_protobuf() {
        for len in [0u32, 1, 2, 3, 32, 128, 129, 130, 131, 1024, 16_385, 16_386, 16_387, 70_000] {
            let frame = frame_of(len);
            assert_eq!(frame.len(), 5 + len as usize, "{len}");
            assert_eq!(frame.get(1..5), Some(&len.to_be_bytes()[..]));
            if len < 2 {
                continue;
            }
            let (mut at, mut text, mut shift) = (6, 0usize, 0);
            loop {
                let byte = frame[at];
                text |= usize::from(byte & 0x7f) << shift;
                (at, shift) = (at + 1, shift + 7);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            assert_eq!((frame[5], at + text), (0x0a, frame.len()), "{len}");
        }
    }
}
