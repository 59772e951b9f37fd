//! What this kernel offers.

use crate::Backend;

/// One thing io_uring may offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name, as `doctor` prints it.
    pub name: &'static str,
    /// The Linux release that brought it.
    pub since: &'static str,
    /// `uring` does not work without it.
    pub required: bool,
    /// It works here.
    pub works: bool,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Each feature tried; empty if no ring could be made.
    pub features: Vec<Feature>,
    /// Why `uring` cannot be used, and what mends it; `None` if it can.
    pub refusal: Option<Refusal>,
}

/// Why io_uring cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The reason, in a few words.
    pub reason: String,
    /// What the operator can do.
    pub hint: String,
}

impl Report {
    /// What [`Backend::Auto`] takes.
    pub fn choice(&self) -> Backend {
        if self.refusal.is_none() { Backend::Uring } else { Backend::Epoll }
    }

    /// One line for the log: what `backend` becomes and why.
    pub fn line(&self, backend: Backend) -> String {
        let _ = backend;
        unimplemented!()
    }
}

/// Tries io_uring, feature by feature. Costs about a millisecond.
pub fn probe() -> Report {
    unimplemented!()
}
