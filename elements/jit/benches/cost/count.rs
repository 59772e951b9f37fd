//! Instructions of a passage, counted by callgrind in a process of its own: this one, begun anew.

use std::process::Command;

use crate::cost::{Way, passage};

/// Says in the environment of the counted process what to run: a way's number and how many passages.
const TASK: &str = "TOWPATH_COST_TASK";

/// Runs the task, if this process is the counted one.
#[allow(clippy::disallowed_methods, reason = "how a process tells its child what to do")]
pub(crate) fn is_counted() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let (way, passages) = task.split_once(' ').unwrap_or(("0", "0"));
    let way = way.parse().ok().and_then(|at: usize| Way::ALL.get(at)).copied().unwrap_or(Way::Empty);
    let chain = way.chain();
    let mut call = way.call();
    for id in 0..passages.parse().unwrap_or(0) {
        std::hint::black_box(passage(&*chain, &mut call, id));
    }
    true
}

/// Instructions a passage, by the difference of a long run and a short one; `None` without valgrind.
pub(crate) fn per_passage(way: Way) -> Option<f64> {
    let (short, long) = (1_000, 11_000);
    Some((counted(way, long)? as f64 - counted(way, short)? as f64) / f64::from(long - short))
}

fn counted(way: Way, passages: u32) -> Option<u64> {
    let place = Way::ALL.iter().position(|w| *w == way)?;
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        // For a test binary: the one test that looks at the task.
        .args(["--exact", "the_counted_process"])
        .env(TASK, format!("{place} {passages}"))
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "the counted process failed:\n{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected : "))?;
    line.1.trim().parse().ok()
}
