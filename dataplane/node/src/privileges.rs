//! What a node gives up once its ports are open, and what it has to keep.
//!
//! By default it stays who it is and gives up every capability; `[security] user` makes it somebody else as well.
//! What it will still touch is tried before, by a thread that has given up already: root without capabilities
//! cannot read a developer's private file, say, and a reload must not fail for that. So the capability that such
//! a file needs is kept, and named; a user that cannot read it is refused at the start.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::thread;

use abi::Addr;
use io::privileges::{Privileges, User, capabilities_held, reduce_process, reduce_thread};
use rustix::fs::{Access, OFlags, access};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::CapabilitySet;

use crate::failure::{Failure, Outcome};

/// `[security]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Security {
    /// Whom to become: a name, or numbers as in `990` and `990:990`.
    pub(crate) user: Option<String>,
    /// Give up nothing.
    pub(crate) keeps_all: bool,
}

/// What a running node still touches by its path.
#[derive(Clone, Default, Debug)]
pub(crate) struct Touched {
    /// Read by a reload.
    pub(crate) reads: Vec<PathBuf>,
    /// Log files, opened again when they were moved away.
    pub(crate) logs: Vec<PathBuf>,
    /// Unix sockets connected to.
    pub(crate) endpoints: Vec<PathBuf>,
    /// DPDK's AF_XDP devices, whose driver takes its program off the interface at the end by itself.
    pub(crate) af_xdp: Vec<PathBuf>,
}

impl Touched {
    /// By a program's own sinks and endpoints, besides `self`.
    pub(crate) fn by(mut self, program: &abi::Program) -> Self {
        self.logs.extend(program.sinks.iter().filter(|sink| sink.contains('/')).map(PathBuf::from));
        let endpoints = program.services.iter().flat_map(|service| &service.endpoints);
        self.endpoints.extend(endpoints.filter_map(|endpoint| match &endpoint.addr {
            Addr::Unix(path) => Some(PathBuf::from(path)),
            Addr::Ip(_) => None,
        }));
        self
    }

    /// What the calling thread may not do, and the capability that would allow it.
    fn refused(&self) -> Vec<Refused> {
        // A file may be named that is not there: an import is looked for in several folders.
        let reads = self.reads.iter().filter(|path| access(*path, Access::READ_OK) == Err(Errno::ACCESS));
        let logs = self.logs.iter().filter(|path| !may_reopen(path));
        let endpoints = self.endpoints.iter().filter(|path| access(*path, Access::WRITE_OK).is_err());
        let is = |capability, deed| move |path: &PathBuf| Refused { path: path.clone(), capability, deed };
        reads
            .map(is(CapabilitySet::DAC_READ_SEARCH, "read"))
            .chain(logs.map(is(CapabilitySet::DAC_OVERRIDE, "write")))
            .chain(endpoints.map(is(CapabilitySet::DAC_OVERRIDE, "connect to")))
            .chain(self.af_xdp.iter().map(is(of_af_xdp(), "detach")))
            .collect()
    }
}

/// What libxdp needs to find its program again and to detach it.
fn of_af_xdp() -> CapabilitySet {
    CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN | CapabilitySet::BPF
}

/// A log is opened where it was, or made anew in its folder.
fn may_reopen(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    access(path, Access::WRITE_OK).is_ok()
        && (!is_file || access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

/// Something that would fail afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Refused {
    path: PathBuf,
    capability: CapabilitySet,
    deed: &'static str,
}

impl Refused {
    /// `DAC_READ_SEARCH to read shop.adn`.
    fn text(&self) -> String {
        let names: Vec<&str> = self.capability.iter_names().map(|(name, _)| name).collect();
        format!("{} to {} {}", names.join("+"), self.deed, self.path.display())
    }
}

/// Finds the user, to say early that there is none.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn check(security: &Security) -> Outcome<()> {
    let Some(name) = &security.user else { return Ok(()) };
    let user = user(name, Path::new("/etc")).map_err(Failure::line)?;
    if geteuid().is_root() || geteuid().as_raw() == user.uid {
        return Ok(());
    }
    Err(Failure::line(format!(
        "[security] user = \"{name}\": only root can become somebody else; start it as root, or as {name}"
    )))
}

/// Gives up all that is not needed any more, on every thread. The admin socket and the logs change hands with the
/// node. Gives the end of the ready line.
///
/// # Errors
/// One line: the user cannot be become, or could not go on as that user.
pub(crate) fn give_up(security: &Security, touched: Touched, socket: Option<&Path>) -> Outcome<String> {
    let had = capabilities_held();
    if security.keeps_all {
        let text = if had.is_empty() { "" } else { ", capabilities kept (as asked)" };
        return Ok(text.to_owned());
    }
    let user = security.user.as_deref().map(|name| user(name, Path::new("/etc"))).transpose();
    let user = user.map_err(Failure::line)?.filter(|user| user.uid != geteuid().as_raw());
    if had.is_empty() && user.is_none() {
        return Ok(String::new());
    }
    if let Some(user) = &user {
        let failed = |path: &Path, e| Failure::line(format!("{}: cannot be given away: {e}", path.display()));
        touched.logs.iter().try_for_each(|log| hand_over(log, user).map_err(|e| failed(log, e)))?;
        if let Some(socket) = socket {
            lchown(socket, Some(user.uid), Some(user.gid)).map_err(|e| failed(socket, e))?;
        }
    }
    let name = security.user.as_deref().filter(|_| user.is_some());
    let mut to = Privileges { capabilities: CapabilitySet::empty(), user };
    let mut refused = tried(&to, touched)?;
    if let (Some(name), Some(first)) = (name, refused.iter().find(|refused| refused.path.exists())) {
        let path = first.path.display();
        return Err(Failure::line(format!(
            "[security] user = \"{name}\" may not {} {path}, which a reload or a log's rotation needs; give it to \
             that user (chown, or a group it is in), or leave `user` out",
            first.deed
        )));
    }
    refused.retain(|refused| to.user.is_none() && had.contains(refused.capability));
    refused.iter().for_each(|refused| to.capabilities |= refused.capability);
    reduce_process(&to).map_err(|e| failed(&e.to_string()))?;
    Ok(text(name, &refused))
}

/// Gives a log file, made by root a moment ago or at an earlier start, to the user that goes on with it. Nothing
/// else: no link, and no file that has another name, which a user with the folder could have put there.
fn hand_over(log: &Path, user: &User) -> std::io::Result<()> {
    let is_file = fs::symlink_metadata(log).is_ok_and(|found| found.is_file());
    if !is_file {
        return Ok(());
    }
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = fs::OpenOptions::new().append(true).custom_flags(flags).open(log)?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() == 1 && found.uid() == geteuid().as_raw() {
        fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// The end of the ready line.
fn text(user: Option<&str>, kept: &[Refused]) -> String {
    let who = match user {
        Some(name) => format!(", user {name}"),
        None => String::new(),
    };
    let Some(first) = kept.first() else { return format!("{who}, capabilities dropped") };
    let more = if kept.len() > 1 { format!(" and {} more", kept.len() - 1) } else { String::new() };
    format!("{who}, capabilities dropped but {}{more}", first.text())
}

/// What would fail afterwards, found out by a thread that gives up first, and ends.
fn tried(to: &Privileges, touched: Touched) -> Outcome<Vec<Refused>> {
    let to = to.clone();
    let run = move || reduce_thread(&to).map(|()| touched.refused());
    let thread =
        thread::Builder::new().name("tries".into()).spawn(run).map_err(|e| failed(&e.to_string()))?;
    let result = thread.join().map_err(|_| failed("the thread that tries it ended"))?;
    result.map_err(|e| failed(&e.to_string()))
}

fn failed(why: &str) -> Failure {
    Failure::line(format!(
        "privileges could not be given up: {why}; [security] capabilities = \"keep\" in node.toml goes without"
    ))
}

/// A user by name, from `passwd` and `group` in a folder, or by numbers.
fn user(name: &str, etc: &Path) -> Result<User, String> {
    let read = |file: &str| fs::read_to_string(etc.join(file)).unwrap_or_default();
    let (uid, gid) = name.split_once(':').unwrap_or((name, name));
    if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let passwd = read("passwd");
    let found =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name));
    let number = |at: usize| found.as_ref().and_then(|fields| fields.get(at)?.parse().ok());
    let (Some(uid), Some(gid)) = (number(2), number(3)) else {
        return Err(format!(
            "[security] user = \"{name}\": no such user in {}/passwd; make one with `useradd --system {name}`, or \
             give numbers, as in \"990:990\"",
            etc.display()
        ));
    };
    let is_member = |members: &str| members.split(',').any(|member| member == name);
    let groups = read("group")
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.get(3).is_some_and(|members| is_member(members)))
        .filter_map(|fields| fields.get(2)?.parse().ok())
        .collect();
    Ok(User { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_its_groups_or_is_given_by_numbers() {
        let etc = std::env::temp_dir().join(format!("towpath-etc-{}", std::process::id()));
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\ntowpath:x:990:991::/:/sbin/nologin\n")
            .unwrap();
        fs::write(etc.join("group"), "vfio:x:106:dev,towpath\nlog:x:107:dev\ntowpath:x:991:\n").unwrap();
        let found = |name| user(name, &etc);
        assert_eq!(found("towpath"), Ok(User { uid: 990, gid: 991, groups: vec![106] }));
        assert_eq!(found("7:8"), Ok(User { uid: 7, gid: 8, groups: vec![] }));
        assert_eq!(found("7"), Ok(User { uid: 7, gid: 7, groups: vec![] }));
        let said = found("towpaht").unwrap_err();
        assert!(said.contains("useradd --system towpaht") && said.contains("990:990"), "{said}");
        fs::remove_dir_all(&etc).unwrap();
    }

    #[test]
    fn the_ready_line_says_who_it_is_and_what_was_kept() {
        let kept = |path: &str| Refused {
            path: path.into(),
            capability: CapabilitySet::DAC_READ_SEARCH,
            deed: "read",
        };
        assert_eq!(text(None, &[]), ", capabilities dropped");
        assert_eq!(text(Some("towpath"), &[]), ", user towpath, capabilities dropped");
        assert_eq!(
            text(None, &[kept("a.adn"), kept("b.adn")]),
            ", capabilities dropped but DAC_READ_SEARCH to read a.adn and 1 more"
        );
    }
}
