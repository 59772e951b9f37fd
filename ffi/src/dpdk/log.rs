//! DPDK's log, kept in memory instead of on standard error: its last lines become part of an [`Error`].
//!
//! [`Error`]: super::Error

use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use std::collections::VecDeque;
#[expect(clippy::disallowed_types, reason = "the log is written off the datapath, by any thread")]
use std::sync::Mutex;
use std::sync::PoisonError;

use super::raw;

/// Lines kept.
const LINES_MAX: usize = 64;
/// Lines an error quotes.
const QUOTED_MAX: usize = 4;
/// Of a line, kept.
const LINE_CHARS_MAX: usize = 300;

#[expect(clippy::disallowed_types, reason = "the log is written off the datapath, by any thread")]
static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Makes DPDK log here. Before the EAL starts, so that its first lines are caught too.
pub(crate) fn capture() {
    let functions = raw::cookie_io_functions_t { read: None, write: Some(append), seek: None, close: None };
    // SAFETY: the mode is a literal, the callback needs no cookie and lives as long as the process.
    let stream = unsafe { raw::fopencookie(ptr::null_mut(), c"w".as_ptr(), functions) };
    if !stream.is_null() {
        // SAFETY: a stream that is never closed. It refuses nothing.
        let _ = unsafe { raw::rte_openlog_stream(stream) };
    }
}

/// Forgets what was logged: what comes next belongs to the operation that begins.
pub(crate) fn begin() {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The last lines since `begin`.
pub(crate) fn recent() -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().skip(lines.len().saturating_sub(QUOTED_MAX)).cloned().collect()
}

/// stdio's write callback: one call may bring a part of a line or several.
unsafe extern "C" fn append(_cookie: *mut c_void, bytes: *const c_char, len: usize) -> i64 {
    if bytes.is_null() {
        return 0;
    }
    // SAFETY: stdio gives `len` readable bytes for the time of this call.
    let bytes = unsafe { core::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        if lines.back().is_none_or(|last| last != line) {
            lines.push_back(line.chars().take(LINE_CHARS_MAX).collect());
        }
    }
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// DPDK's level for "notice and worse".
pub(crate) const LEVEL: c_int = 6;
