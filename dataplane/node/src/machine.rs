//! What the machine says of itself and of this process, from `/proc` and `/sys`.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Outcome};

/// Resident memory of this process, bytes; 0 if it cannot be read.
pub(crate) fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// CPU time of this process's threads that bear one of these names, nanoseconds.
pub(crate) fn thread_cpu_ns(names: &[&str]) -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let spent = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        if !names.contains(&name.trim()) {
            return None;
        }
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    spent.sum()
}

/// Raises the soft limit of open files to the hard one; returns what it is now, `None` if unlimited.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// The cores to run on, one shard each.
///
/// # Errors
/// One line that says what to do, when a core is not there or `poll` does not go with a quota.
pub(crate) fn choose_cores(
    asked: Option<&[usize]>,
    available: &io::Cores,
    poll: io::Poll,
) -> Outcome<Vec<usize>> {
    if poll == io::Poll::Busy
        && let Some(quota) = available.quota
    {
        return Err(Failure::line(format!(
            "poll = \"busy\" under a CPU quota of {quota:.2} cores would be throttled; use poll = \"adaptive\", or \
             lift the quota (cpu.max of the cgroup, or the container's CPU limit)"
        )));
    }
    let Some(asked) = asked else {
        return Ok(available.ids.iter().copied().take(available.count()).collect());
    };
    match asked.iter().find(|core| !available.ids.contains(core)) {
        Some(core) => Err(Failure::line(format!(
            "core {core} is not among those this process may use ({}); choose from these with --cores or [shards] \
             cores, or widen the set with taskset or the cgroup's cpuset",
            show_cores(&available.ids)
        ))),
        None => Ok(asked.to_vec()),
    }
}

/// `0-3,6`.
pub(crate) fn show_cores(ids: &[usize]) -> String {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for id in ids {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => parts.push((id, id)),
        }
    }
    let show = |(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    parts.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(quota: Option<f64>) -> io::Cores {
        io::Cores { ids: vec![0, 1, 2, 3], quota }
    }

    #[test]
    fn an_unknown_core_is_one_line_with_those_there_are() {
        let said = choose_cores(Some(&[0, 9]), &four(None), io::Poll::Adaptive).unwrap_err().to_string();
        assert!(said.contains("core 9") && said.contains("(0-3)") && said.contains("--cores"), "{said}");
        assert_eq!(said.lines().count(), 1);
    }

    #[test]
    fn busy_polling_is_refused_under_a_quota() {
        let said = choose_cores(None, &four(Some(1.5)), io::Poll::Busy).unwrap_err().to_string();
        assert!(said.contains("1.50 cores") && said.contains("adaptive"), "{said}");
        assert!(choose_cores(None, &four(Some(1.5)), io::Poll::Adaptive).is_ok());
        assert!(choose_cores(None, &four(None), io::Poll::Busy).is_ok());
    }

    #[test]
    fn asked_cores_keep_their_order() {
        assert_eq!(choose_cores(Some(&[2, 0]), &four(None), io::Poll::Block), Ok(vec![2, 0]));
    }

    #[test]
    fn cores_are_shown_as_ranges() {
        assert_eq!(show_cores(&[3, 0, 1, 2, 6]), "0-3,6");
        assert_eq!(show_cores(&[0, 1]), "0,1");
        assert_eq!(show_cores(&[]), "");
    }

    #[test]
    fn this_process_has_memory_and_threads_that_ran() {
        assert!(resident_bytes() > 100_000);
        assert_eq!(thread_cpu_ns(&["nobody is called this"]), 0);
    }
}
