//! What this kernel offers, found by trying.

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
    /// `uring` uses it where it works.
    pub used: bool,
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
    /// The reason, in a few words: "io_uring is …".
    pub reason: String,
    /// What the operator can do.
    pub hint: String,
}

impl Report {
    /// What [`Backend::Auto`] takes.
    pub fn choice(&self) -> Backend {
        if self.refusal.is_none() { Backend::Uring } else { Backend::Epoll }
    }

    /// The same for a configuration with `force_baseline`: nothing newer than Linux 6.1 is used.
    pub fn baseline(mut self) -> Self {
        for feature in &mut self.features {
            feature.used &= feature.required;
        }
        self
    }

    /// One line for the log: what `asked` becomes, and why.
    pub fn line(&self, asked: Backend) -> String {
        match (asked, &self.refusal) {
            (Backend::Epoll, _) => "backend epoll: as configured".to_owned(),
            (_, None) => {
                let names: Vec<&str> =
                    self.features.iter().filter(|f| f.works && f.used).map(|f| f.name).collect();
                format!("backend uring (kernel {}: {})", self.kernel, names.join(", "))
            }
            (Backend::Auto, Some(refusal)) => {
                format!("backend epoll: {} (kernel {}); {}", refusal.reason, self.kernel, refusal.hint)
            }
            (Backend::Uring, Some(refusal)) => {
                format!(
                    "backend uring refused: {} (kernel {}); {}",
                    refusal.reason, self.kernel, refusal.hint
                )
            }
        }
    }
}

/// Tries io_uring, feature by feature. Costs about a millisecond.
pub fn probe() -> Report {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    #[cfg(feature = "uring")]
    {
        match crate::uring::probe() {
            Ok(features) => {
                let missing: Vec<&str> =
                    features.iter().filter(|f| f.required && !f.works).map(|f| f.name).collect();
                let refusal = (!missing.is_empty()).then(|| Refusal {
                    reason: format!("io_uring lacks {}", missing.join(", ")),
                    hint: "Linux 6.1 or later has it".to_owned(),
                });
                Report { kernel, features, refusal }
            }
            Err(errno) => {
                let facts = Facts::read();
                let refusal = Some(explain(errno, &facts, old(&kernel)));
                Report { kernel, features: Vec::new(), refusal }
            }
        }
    }
    #[cfg(not(feature = "uring"))]
    {
        let refusal = Refusal {
            reason: "this binary was built without io_uring".to_owned(),
            hint: "build it with the feature `uring`".to_owned(),
        };
        Report { kernel, features: Vec::new(), refusal: Some(refusal) }
    }
}

/// What may explain a refusal.
#[cfg(feature = "uring")]
#[derive(Debug, Default)]
struct Facts {
    /// The sysctl `kernel.io_uring_disabled`.
    disabled: Option<u8>,
    /// A seccomp filter is installed on this thread.
    seccomp: bool,
}

#[cfg(feature = "uring")]
impl Facts {
    fn read() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp: text("/proc/thread-self/status")
                .lines()
                .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
        }
    }
}

/// Below Linux 6.1, as far as the release can be read.
#[cfg(feature = "uring")]
fn old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (6, 1),
        _ => false,
    }
}

/// Why a ring could not be made, and what mends it.
#[cfg(feature = "uring")]
fn explain(errno: rustix::io::Errno, facts: &Facts, old: bool) -> Refusal {
    use rustix::io::Errno;
    let refusal = |reason: &str, hint: &str| Refusal { reason: reason.to_owned(), hint: hint.to_owned() };
    match (errno, facts.disabled) {
        (Errno::PERM, Some(2)) => refusal(
            "io_uring is disabled by the sysctl kernel.io_uring_disabled=2 (EPERM)",
            "`sysctl kernel.io_uring_disabled=0` allows it",
        ),
        (Errno::PERM, Some(1)) if !facts.seccomp => refusal(
            "io_uring is kept from this user by the sysctl kernel.io_uring_disabled=1 (EPERM)",
            "`sysctl kernel.io_uring_disabled=0`, or the group of kernel.io_uring_group, allows it",
        ),
        (Errno::PERM | Errno::ACCESS, _) => refusal(
            "io_uring is blocked by seccomp (EPERM)",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
        ),
        (Errno::NOSYS, _) if facts.seccomp && !old => refusal(
            "io_uring is blocked by seccomp (ENOSYS)",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
        ),
        (Errno::NOSYS, _) => refusal("this kernel has no io_uring (ENOSYS)", "Linux 6.1 or later has it"),
        (Errno::INVAL, _) => {
            refusal("this kernel's io_uring is too old (EINVAL)", "Linux 6.1 or later has what is needed")
        }
        (Errno::NOMEM, _) => refusal(
            "locked memory does not suffice for io_uring (ENOMEM)",
            "raise it: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit",
        ),
        (Errno::MFILE | Errno::NFILE, _) => {
            refusal("no file descriptors are left for io_uring", "raise `ulimit -n`")
        }
        (other, _) => Refusal {
            reason: format!("io_uring failed: {other}"),
            hint: "`towpath doctor` shows more".to_owned(),
        },
    }
}

#[cfg(all(test, feature = "uring"))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn each_refusal_names_its_cause_and_what_mends_it() {
        let facts = |disabled, seccomp| Facts { disabled, seccomp };
        let cases = [
            (Errno::PERM, facts(Some(2), true), false, "io_uring_disabled=2"),
            (Errno::PERM, facts(Some(1), false), false, "io_uring_disabled=1"),
            (Errno::PERM, facts(Some(0), true), false, "seccomp (EPERM)"),
            (Errno::NOSYS, facts(None, true), false, "seccomp (ENOSYS)"),
            (Errno::NOSYS, facts(None, true), true, "no io_uring"),
            (Errno::NOSYS, facts(None, false), false, "no io_uring"),
            (Errno::INVAL, facts(None, false), true, "too old"),
            (Errno::NOMEM, facts(Some(0), false), false, "locked memory"),
        ];
        for (errno, facts, old, expected) in cases {
            let refusal = explain(errno, &facts, old);
            assert!(refusal.reason.contains(expected), "{errno:?} {facts:?}: {refusal:?}");
            assert!(!refusal.hint.is_empty());
        }
    }

    #[test]
    fn releases_before_6_1_are_old() {
        assert!(old("5.15.0-100-generic") && old("6.0.9"));
        assert!(!old("6.1.0-18-amd64") && !old("6.18.44") && !old("unknown"));
    }

    #[test]
    fn the_line_says_what_was_taken_and_why() {
        let refusal = explain(Errno::PERM, &Facts { disabled: Some(0), seccomp: true }, false);
        let report = Report { kernel: "6.8.0".into(), features: Vec::new(), refusal: Some(refusal) };
        assert_eq!(report.choice(), Backend::Epoll);
        let line = report.line(Backend::Auto);
        assert!(line.starts_with("backend epoll: io_uring is blocked by seccomp (EPERM)"), "{line}");
        assert!(report.line(Backend::Uring).contains("refused"));
    }

    #[test]
    fn what_is_found_here_is_consistent() {
        let report = probe();
        println!("{}", report.line(Backend::Auto));
        assert_eq!(report.refusal.is_none(), report.choice() == Backend::Uring);
        assert!(!report.clone().baseline().line(Backend::Auto).contains("no iowait"));
        for feature in report.features.iter().filter(|f| f.required) {
            assert!(feature.works || report.refusal.is_some(), "{feature:?}");
        }
    }
}
