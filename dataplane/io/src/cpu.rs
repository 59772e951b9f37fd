//! Cores: which there are, and staying on one.

use std::path::{Path, PathBuf};

/// Where this process may run.
#[derive(Clone, PartialEq, Debug)]
pub struct Cores {
    /// The affinity mask, ascending.
    pub ids: Vec<usize>,
    /// The cgroup's CPU quota in cores, the smallest on the way up; `None` if there is none.
    pub quota: Option<f64>,
}

impl Cores {
    /// How many shards make sense: as many as cores, cut to the quota, at least one.
    pub fn count(&self) -> usize {
        let cores = self.ids.len().max(1);
        match self.quota {
            // Rounded down: a shard more than the quota pays for is throttled.
            Some(quota) => {
                (1..=cores).rev().find(|&n| f64::from(u32::try_from(n).unwrap_or(u32::MAX)) <= quota)
            }
            None => Some(cores),
        }
        .unwrap_or(1)
    }
}

/// Reads the affinity mask and the CPU quota.
pub fn available_cores() -> Cores {
    let mut ids: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    ids.sort_unstable();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Cores { ids, quota: quota(&own, Path::new("/sys/fs/cgroup")) }
}

/// Keeps the calling thread on one core; false if the kernel refuses.
pub fn pin(core: usize) -> bool {
    // The kernel's fixed-size CPU set, beyond which core_affinity panics.
    core < 1024 && core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// The smallest quota from the process's cgroup up to the root, version 2 or 1.
fn quota(own: &str, root: &Path) -> Option<f64> {
    let mut least: Option<f64> = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let base: PathBuf = if controllers.is_empty() {
            root.into()
        } else if controllers.split(',').any(|name| name == "cpu") {
            root.join("cpu")
        } else {
            continue;
        };
        let mut dir = Some(Path::new(path.trim_start_matches('/')));
        while let Some(rel) = dir {
            let found = quota_of(&base.join(rel), controllers.is_empty());
            least = match (least, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            dir = rel.parent();
        }
    }
    least
}

fn quota_of(dir: &Path, v2: bool) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let (quota, period) = if v2 {
        let text = read("cpu.max")?;
        let (quota, period) = text.trim().split_once(' ')?;
        (quota.to_owned(), period.to_owned())
    } else {
        (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
    };
    // "max" or -1 means none.
    let quota: f64 = quota.trim().parse().ok().filter(|&quota| quota > 0.0)?;
    let period: f64 = period.trim().parse().ok().filter(|&period| period > 0.0)?;
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_one_can_be_kept() {
        let cores = available_cores();
        assert!(cores.count() >= 1 && cores.count() <= cores.ids.len().max(1));
        let last = *cores.ids.last().unwrap();
        assert!(std::thread::spawn(move || pin(last)).join().unwrap());
        assert!(!std::thread::spawn(|| pin(1 << 20)).join().unwrap());
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("towpath-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/cpu.max"), "150000 100000\n").unwrap();
        std::fs::write(root.join("a/b/cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota("0::/a/b\n", &root), Some(1.5));
        assert_eq!(quota("0::/\n", &root), None);
        std::fs::create_dir_all(root.join("cpu/c")).unwrap();
        std::fs::write(root.join("cpu/c/cpu.cfs_quota_us"), "50000\n").unwrap();
        std::fs::write(root.join("cpu/c/cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota("4:cpu,cpuacct:/c\n3:memory:/c\n", &root), Some(0.5));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn shards_fit_the_quota() {
        let cores = |quota| Cores { ids: vec![0, 1, 2, 3], quota };
        assert_eq!(cores(None).count(), 4);
        assert_eq!(cores(Some(2.5)).count(), 2);
        assert_eq!(cores(Some(0.3)).count(), 1);
        assert_eq!(cores(Some(64.0)).count(), 4);
    }
}
