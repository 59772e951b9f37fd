//! Privileges, given up by every thread of the process.
//!
//! Linux keeps credentials per thread: capset(2) and its like change the caller only, and one thread that keeps
//! what the others gave up keeps it for whoever can write to their common memory. So each thread is interrupted
//! by a signal whose handler gives up, those of libraries (DPDK) too, and `/proc` is read until it shows that
//! none is left. What the kernel runs for us (io_uring's workers) takes no signal and needs none: it acts with
//! the credentials of whoever submitted.
//!
//! Not here: what a node still needs afterwards (the node decides).

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Gid, Uid, getpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, NanosleepRelativeResult, capabilities, nanosleep, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// How often the threads are looked at, and how long apart.
const LOOKS: u32 = 400;
const LOOK: Duration = Duration::from_millis(5);
/// Looks between two signals to the same thread.
const LOOKS_PER_SIGNAL: u32 = 50;
/// Looks in a row that must find nobody: a thread may begin while the list is read.
const CLEAN_LOOKS: u32 = 2;
/// Flags of `/proc/…/stat`: a thread of the kernel's on our behalf.
const PF_IO_WORKER: u64 = 0x10;
const PF_USER_WORKER: u64 = 0x4000;

/// What a process goes on with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Privileges {
    /// The capabilities it keeps, as far as it has them.
    pub capabilities: CapabilitySet,
    /// Whom it becomes; `None` to stay who it is.
    pub user: Option<User>,
}

/// A user of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// The groups it is in besides.
    pub groups: Vec<u32>,
}

/// What the signal's handler reads: set once, before the first signal.
static ORDER: OnceLock<Order> = OnceLock::new();

/// [`Privileges`] in the kernel's types: nothing is left to do in a handler but system calls.
#[derive(PartialEq, Eq, Debug)]
struct Order {
    keep: CapabilitySet,
    user: Option<(Uid, Gid)>,
    groups: Vec<Gid>,
}

impl Order {
    fn of(to: &Privileges) -> Self {
        let user = to.user.as_ref();
        Self {
            keep: to.capabilities,
            user: user.map(|u| (Uid::from_raw(u.uid), Gid::from_raw(u.gid))),
            groups: user.iter().flat_map(|u| &u.groups).map(|gid| Gid::from_raw(*gid)).collect(),
        }
    }

    /// Gives up on the calling thread. System calls only: this runs in a signal handler.
    fn obey(&self) -> rustix::io::Result<()> {
        let keep = self.keep & capabilities(None)?.permitted;
        if let Some((uid, gid)) = self.user {
            // Without this the kernel would take those to keep as well.
            set_keep_capabilities(true)?;
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            set_keep_capabilities(false)?;
        }
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)?;
        set_no_new_privs(true)
    }
}

/// The capabilities the calling thread has.
pub fn capabilities_held() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

/// Gives up on the calling thread alone: to try, on a thread that then ends, what would still work.
///
/// # Errors
/// The kernel's, mostly for a user that only root can become.
pub fn reduce_thread(to: &Privileges) -> io::Result<()> {
    Order::of(to).obey().map_err(io::Error::from)
}

/// Gives up on every thread there is; those they start later have no more than they. Once in a process.
///
/// # Errors
/// Why a thread still has what it should not: the process should then end.
pub fn reduce_process(to: &Privileges) -> io::Result<()> {
    let order = ORDER.get_or_init(|| Order::of(to));
    if *order != Order::of(to) {
        return Err(io::Error::other("privileges were given up already, to others"));
    }
    order.obey()?;
    let signal = libc::SIGRTMAX();
    on_signal(signal)?;
    let (mut clean, mut left) = (0, Vec::new());
    for look in 0..LOOKS {
        left = threads()?.into_iter().filter(|thread| thread.has_more_than(order)).collect();
        clean = if left.is_empty() { clean + 1 } else { 0 };
        if clean == CLEAN_LOOKS {
            return Ok(());
        }
        if look % LOOKS_PER_SIGNAL == 0 {
            left.iter().for_each(|thread| interrupt(thread.tid, signal));
        }
        sleep(LOOK);
    }
    let names: Vec<&str> = left.iter().map(|thread| thread.name.as_str()).collect();
    Err(io::Error::other(format!("these threads keep theirs: {}", names.join(", "))))
}

/// What runs on each thread.
extern "C" fn handle(_: libc::c_int) {
    if let Some(order) = ORDER.get() {
        // A failure shows in /proc, where `reduce_process` looks.
        let _ = order.obey();
    }
}

#[expect(unsafe_code, reason = "rustix installs no signal handlers")]
fn on_signal(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction`: default action, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
    // Whoever sleeps in a system call goes on sleeping; a stack of its own is used where there is one.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` lives for the call. Its handler does nothing but load a cell that is set already and make
    // system calls that go round libc: no lock, no allocation, no errno, so it may interrupt anything.
    match unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "rustix does not signal single threads")]
fn interrupt(tid: i32, signal: libc::c_int) {
    let pid = getpid().as_raw_pid();
    // SAFETY: tgkill takes three numbers and touches no memory of ours. It fails if the thread has ended.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

fn sleep(how_long: Duration) {
    let mut left = rustix::time::Timespec::try_from(how_long).unwrap_or_default();
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

/// A thread, as `/proc` shows it.
#[derive(Debug)]
struct Thread {
    tid: i32,
    name: String,
    uids: Vec<u32>,
    permitted: CapabilitySet,
    no_new_privs: bool,
}

impl Thread {
    /// From its `status`.
    fn parse(tid: i32, status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
        let bits = u64::from_str_radix(field("CapPrm:"), 16).unwrap_or(u64::MAX);
        Self {
            tid,
            name: field("Name:").to_owned(),
            uids: field("Uid:").split_whitespace().filter_map(|uid| uid.parse().ok()).collect(),
            permitted: CapabilitySet::from_bits_retain(bits),
            no_new_privs: field("NoNewPrivs:") == "1",
        }
    }

    fn has_more_than(&self, order: &Order) -> bool {
        let is_somebody_else =
            order.user.is_some_and(|(uid, _)| self.uids.iter().any(|own| *own != uid.as_raw()));
        is_somebody_else || !order.keep.contains(self.permitted) || !self.no_new_privs
    }
}

/// Those of this process, less the kernel's own.
fn threads() -> io::Result<Vec<Thread>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let folder = entry?.path();
        let tid = folder.file_name().and_then(|name| name.to_str()).and_then(|tid| tid.parse().ok());
        // One that ends meanwhile cannot be read any more.
        let (Some(tid), Ok(stat), Ok(status)) =
            (tid, fs::read_to_string(folder.join("stat")), fs::read_to_string(folder.join("status")))
        else {
            continue;
        };
        if !is_kernels(&stat) {
            found.push(Thread::parse(tid, &status));
        }
    }
    Ok(found)
}

/// Whether a `stat` is of a thread that the kernel runs for this process. The name may hold anything, and ends
/// with the last parenthesis.
fn is_kernels(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags: u64 = after_name.split_whitespace().nth(6).and_then(|flags| flags.parse().ok()).unwrap_or(0);
    flags & (PF_IO_WORKER | PF_USER_WORKER) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_judged_by_users_capabilities_and_no_new_privs() {
        let order = |keep, uid: Option<u32>| Order {
            keep,
            user: uid.map(|uid| (Uid::from_raw(uid), Gid::from_raw(7))),
            groups: Vec::new(),
        };
        let status = |uids: &str, caps: &str, nnp: &str| {
            format!("Name:\tshard-0\nUid:\t{uids}\nCapInh:\t00\nCapPrm:\t{caps}\nNoNewPrivs:\t{nnp}\n")
        };
        let none = CapabilitySet::empty();
        let cases = [
            ("0 0 0 0", "0", "1", order(none, None), false),
            ("0 0 0 0", "0", "0", order(none, None), true),
            ("0 0 0 0", "4", "1", order(none, None), true),
            ("0 0 0 0", "4", "1", order(CapabilitySet::DAC_READ_SEARCH, None), false),
            ("0 0 0 0", "0", "1", order(none, Some(990)), true),
            ("990 990 0 990", "0", "1", order(none, Some(990)), true),
            ("990 990 990 990", "0", "1", order(none, Some(990)), false),
            ("990 990 990 990", "not a number", "1", order(none, Some(990)), true),
        ];
        for (uids, caps, nnp, order, expected) in cases {
            let thread = Thread::parse(1, &status(uids, caps, nnp));
            assert_eq!(thread.has_more_than(&order), expected, "{thread:?} {order:?}");
        }
    }

    #[test]
    fn the_kernels_own_threads_are_told_by_their_flags() {
        let stat = |flags: u64| format!("71 (a) b) S 1 1 1 0 -1 {flags} 0 0 0");
        assert!(is_kernels(&stat(0x0040_4050)) && is_kernels(&stat(0x4000)));
        assert!(!is_kernels(&stat(0x0040_0040)) && !is_kernels(""));
        assert!(threads().unwrap().iter().any(|t| t.tid == rustix::thread::gettid().as_raw_pid()));
    }

    /// On a thread of its own: the test's process keeps what it has.
    #[test]
    fn a_thread_that_gave_up_has_nothing_left_and_the_others_have() {
        let before = capabilities_held();
        let tried = std::thread::spawn(|| {
            reduce_thread(&Privileges { capabilities: CapabilitySet::empty(), user: None }).unwrap();
            let raised = set_capabilities(
                None,
                CapabilitySets {
                    effective: CapabilitySet::empty(),
                    permitted: CapabilitySet::NET_ADMIN,
                    inheritable: CapabilitySet::empty(),
                },
            );
            (capabilities_held(), raised.is_err())
        });
        assert_eq!(tried.join().unwrap(), (CapabilitySet::empty(), true));
        assert_eq!(capabilities_held(), before);
    }
}
