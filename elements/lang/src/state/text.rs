//! Texts that are state: in words, so that any number of shards read and write one.
//!
//! The first word says how long it is and which version; the rest are its bytes. A writer marks the first
//! word, writes, and gives it the next version; who reads begins anew if the version has changed meanwhile.
//! Of two writers at once one's text is dropped: the last wins, and either is as good.

use super::words::Words;

/// Bytes of a text that is a map's value.
pub(crate) const MAP_BYTES_MAX: usize = 256;
/// Bytes of a text that is state of a call.
pub(crate) const CALL_BYTES_MAX: usize = 1024;
/// Tries of a reader or writer that others disturb.
const TRIES: usize = 64;
/// The mark of a writer at work.
const BUSY: u64 = 1;
/// The first word: a mark, 15 bits of length, and the version.
const VERSION_SHIFT: u32 = 16;

/// Words that a text of so many bytes takes.
pub(crate) const fn words(bytes_max: usize) -> usize {
    1 + bytes_max.div_ceil(8)
}

fn head(version: u64, len: usize) -> u64 {
    version << VERSION_SHIFT | (len as u64) << 1
}

/// Makes it empty.
pub(crate) fn clear(to: &(impl Words + ?Sized)) {
    to.update(0, |was| Some(head((was >> VERSION_SHIFT) + 1, 0)));
}

/// Keeps the beginning of a text: all of it, if it fits.
pub(crate) fn put(to: &(impl Words + ?Sized), text: &[u8], bytes_max: usize) {
    let text = beginning(text, bytes_max);
    for _ in 0..TRIES {
        let was = to.load(0);
        if was & BUSY != 0 || to.swap(0, was, was | BUSY).is_err() {
            std::hint::spin_loop();
            continue;
        }
        for (at, chunk) in (1..).zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            to.store(at, u64::from_le_bytes(bytes));
        }
        to.store(0, head((was >> VERSION_SHIFT) + 1, text.len()));
        return;
    }
}

/// Appends it to `out`. False if others wrote it all the time.
pub(crate) fn get(of: &(impl Words + ?Sized), out: &mut Vec<u8>) -> bool {
    let from = out.len();
    for _ in 0..TRIES {
        let head = of.load(0);
        if head & BUSY != 0 {
            std::hint::spin_loop();
            continue;
        }
        let len = usize::try_from(head >> 1 & 0x7fff).unwrap_or(0);
        for at in 0..len.div_ceil(8) {
            out.extend_from_slice(&of.load(at + 1).to_le_bytes());
        }
        out.truncate(from + len);
        if of.load(0) == head {
            return true;
        }
        out.truncate(from);
    }
    false
}

/// At most so many bytes; a text is cut at a character.
fn beginning(text: &[u8], bytes_max: usize) -> &[u8] {
    let Some(part) = text.get(..bytes_max) else { return text };
    match std::str::from_utf8(text) {
        Ok(text) => crate::vm::text::cut(text, bytes_max).as_bytes(),
        Err(_) => part,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU64;

    use super::{MAP_BYTES_MAX, get, put, words};
    use crate::state::words::zeroed;

    #[test]
    fn what_is_put_is_got() {
        let mut own = [0_u64; words(MAP_BYTES_MAX)];
        let own = Cell::from_mut(own.as_mut_slice()).as_slice_of_cells();
        for len in [0, 1, 7, 8, 9, 255, 256, 257, 5000] {
            let text: Vec<u8> = (0..len).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
            put(own, &text, MAP_BYTES_MAX);
            let mut out = b"before".to_vec();
            assert!(get(own, &mut out));
            assert_eq!(out, [b"before", &text[..len.min(256)]].concat());
        }
        put(own, "ä".repeat(200).as_bytes(), 255);
        let mut out = Vec::new();
        assert!(get(own, &mut out));
        assert_eq!(out, "ä".repeat(127).as_bytes(), "cut at a character");
    }

    /// Writers of texts of one letter each: nobody ever sees two letters in one text.
    #[test]
    fn no_text_is_of_two_writers() {
        let shared = zeroed(words(MAP_BYTES_MAX));
        let shared: &[AtomicU64] = &shared;
        std::thread::scope(|scope| {
            for letter in [b'a', b'b'] {
                scope.spawn(move || {
                    for round in 0..20_000_usize {
                        put(shared, &vec![letter; 1 + round % 256], MAP_BYTES_MAX);
                    }
                });
            }
            for _ in 0..20_000 {
                let mut out = Vec::new();
                if get(shared, &mut out) {
                    assert!(out.windows(2).all(|pair| pair[0] == pair[1]), "{out:?}");
                }
            }
        });
    }
}
