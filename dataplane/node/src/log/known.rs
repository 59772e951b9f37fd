//! Parts of lines that were written before: most calls have a method and an endpoint that another had.
//!
//! Each part has one place, by a hash; another that falls there takes it over. Not here: what the parts look like.

use std::net::SocketAddr;

use shard::AccessRecord;

/// Places for each kind: more than a node has methods or endpoints, mostly. A power of two.
const PLACES: usize = 256;
/// Longer ones are written anew each time.
const KEY_BYTES_MAX: usize = 512;

/// What one shard remembers.
pub(super) struct Known {
    whose: Vec<Whose>,
    endpoints: Vec<(Option<SocketAddr>, Vec<u8>)>,
}

impl Default for Known {
    fn default() -> Self {
        let (mut whose, mut endpoints) = (Vec::new(), Vec::new());
        whose.resize_with(PLACES, Whose::default);
        endpoints.resize_with(PLACES, Default::default);
        Self { whose, endpoints }
    }
}

/// Who called what.
#[derive(Default)]
struct Whose {
    /// Source, destination and path, one after the other.
    key: Vec<u8>,
    source_len: usize,
    destination_len: usize,
    text: Vec<u8>,
}

impl Whose {
    fn is(&self, r: &AccessRecord<'_>) -> bool {
        let Some((source, rest)) = self.key.split_at_checked(self.source_len) else { return false };
        let Some((destination, path)) = rest.split_at_checked(self.destination_len) else { return false };
        path == r.path && destination == r.destination.as_bytes() && source == r.source.as_bytes()
    }
}

impl Known {
    /// Appends what `write` makes of the record's source, destination and path.
    #[inline]
    pub(super) fn whose(
        &mut self,
        out: &mut Vec<u8>,
        r: &AccessRecord<'_>,
        write: impl FnOnce(&mut Vec<u8>, &AccessRecord<'_>),
    ) {
        let end = r.path.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
        let Some(known) = self.whose.get_mut(place(end ^ r.path.len() as u64)) else { return };
        if !known.is(r) {
            if r.source.len() + r.destination.len() + r.path.len() > KEY_BYTES_MAX {
                return write(out, r);
            }
            known.key.clear();
            for part in [r.source.as_bytes(), r.destination.as_bytes(), r.path] {
                known.key.extend_from_slice(part);
            }
            (known.source_len, known.destination_len) = (r.source.len(), r.destination.len());
            known.text.clear();
            write(&mut known.text, r);
        }
        out.extend_from_slice(&known.text);
    }

    /// Appends what `write` makes of an address.
    #[inline]
    pub(super) fn endpoint(
        &mut self,
        out: &mut Vec<u8>,
        addr: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>, SocketAddr),
    ) {
        let ip = match addr {
            SocketAddr::V4(addr) => u32::from(*addr.ip()).into(),
            #[expect(clippy::cast_possible_truncation, reason = "the half that tells hosts apart")]
            SocketAddr::V6(addr) => u128::from(*addr.ip()) as u64,
        };
        let Some((known, text)) = self.endpoints.get_mut(place(ip ^ u64::from(addr.port()))) else { return };
        if *known != Some(addr) {
            *known = Some(addr);
            text.clear();
            write(text, addr);
        }
        out.extend_from_slice(text);
    }
}

/// Spreads close numbers (Fibonacci hashing).
fn place(key: u64) -> usize {
    usize::try_from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_record_whatever_was_there_before() {
        let mut known = Known::default();
        let paths: Vec<String> = (0..2000).map(|n| format!("/p.S{}/M{n}", n % 7)).collect();
        let long = "/x".repeat(KEY_BYTES_MAX);
        for round in 0..3 {
            for (at, path) in paths.iter().map(String::as_str).chain([&*long, "", "/"]).enumerate() {
                // The same bytes, cut at other places.
                let (source, destination) = if at % 2 == round % 2 { ("ab", "c") } else { ("a", "bc") };
                let r = AccessRecord { source, destination, path: path.as_bytes(), ..record() };
                let mut out = b">".to_vec();
                known.whose(&mut out, &r, |out, r| {
                    out.extend_from_slice(format!("{}|{}|", r.source, r.destination).as_bytes());
                    out.extend_from_slice(r.path);
                });
                assert_eq!(String::from_utf8(out).unwrap(), format!(">{source}|{destination}|{path}"));
            }
            for n in 0..2000_u16 {
                let text = if n % 3 == 0 { format!("[::1]:{n}") } else { format!("10.0.{}.1:{n}", n % 5) };
                let mut out = Vec::new();
                known.endpoint(&mut out, text.parse().unwrap(), |out, addr| {
                    out.extend_from_slice(addr.to_string().as_bytes());
                });
                assert_eq!(String::from_utf8(out).unwrap(), text);
            }
        }
    }

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            at: shard::Instant(0),
            id: 0,
            source: "",
            destination: "",
            path: b"",
            authority: b"",
            status: abi::Status::OK,
            message: b"",
            flag: abi::Flag::None,
            latency_ns: 0,
            request_bytes: 0,
            response_bytes: 0,
            endpoint: None,
            attempts: 1,
            element: None,
        }
    }
}
