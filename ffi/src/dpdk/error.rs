//! What could not be done, with which device, and what the operator can do about it.

use core::ffi::CStr;
use core::fmt;

use super::{log, raw};

/// A refusal of DPDK's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The device string, or "EAL".
    pub device: String,
    /// What was being done: "open the device".
    pub doing: &'static str,
    /// The errno DPDK gave; 0 if it gave none.
    pub errno: i32,
    /// What mends it; empty if that is not known.
    pub hint: String,
    /// The last lines DPDK logged meanwhile.
    pub said: Vec<String>,
}

impl Error {
    /// From a function's negative result. Drivers give -1 where they have no errno.
    pub(crate) fn from_result(device: &str, doing: &'static str, result: i32) -> Self {
        let errno = if result < -1 { result.saturating_neg() } else { 0 };
        Self::new(device, doing, errno, String::new())
    }

    /// From `rte_errno`, which functions of the EAL's and of pools set.
    pub(crate) fn last(device: &str, doing: &'static str) -> Self {
        Self::new(device, doing, last_errno(), String::new())
    }

    pub(crate) fn new(device: &str, doing: &'static str, errno: i32, hint: String) -> Self {
        Self { device: device.to_owned(), doing, errno, hint, said: log::recent() }
    }

    /// The same with a line on what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// `rte_errno` of this thread.
fn last_errno() -> i32 {
    // SAFETY: reads a thread-local variable of DPDK's that exists from the process's start.
    unsafe { raw::towpath_errno() }
}

/// DPDK's words for an errno, its own included.
fn describe(errno: i32) -> String {
    // SAFETY: always a NUL-terminated string, in a buffer of this thread's or static.
    let text = unsafe { raw::rte_strerror(errno) };
    if text.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: not null, terminated, and unchanged until this thread asks again.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}", self.device, self.doing)?;
        if self.errno != 0 {
            write!(f, ": {} (errno {})", describe(self.errno), self.errno)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        if !self.said.is_empty() {
            write!(f, " [DPDK: {}]", self.said.join(" | "))?;
        }
        Ok(())
    }
}

impl core::error::Error for Error {}
