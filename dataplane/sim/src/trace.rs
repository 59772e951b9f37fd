//! What happened, as a hash and, if asked for, as lines.
//!
//! Two runs of one seed must give the same hash: every step of the transport, the peers and the log is
//! noted here, with the virtual time at which it happened.

use core::fmt::{self, Write};

/// The running hash of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    prints: bool,
}

impl Trace {
    /// An empty trace; `prints` shows each note on standard error.
    pub(crate) fn new(prints: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, prints }
    }

    /// Notes that something happened at `now_ns`.
    pub(crate) fn note(&mut self, now_ns: u64, what: fmt::Arguments<'_>) {
        self.absorb(&now_ns.to_le_bytes());
        // Writing to a hash cannot fail.
        let _ = self.write_fmt(what);
        if self.prints {
            eprintln!("{:>13} {what}", Micros(now_ns));
        }
    }

    /// Whether notes are shown.
    pub(crate) fn prints(&self) -> bool {
        self.prints
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn absorb(&mut self, bytes: &[u8]) {
        self.hash = digest(self.hash, bytes);
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.absorb(text.as_bytes());
        Ok(())
    }
}

/// FNV-1a over words: continues `hash` with `bytes`.
pub(crate) fn digest(hash: u64, bytes: &[u8]) -> u64 {
    let mut hash = hash;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3);
        hash ^= hash >> 29;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// Nanoseconds shown as microseconds.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.pad(&text)
    }
}
