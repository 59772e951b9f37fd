//! What a started node still has, as `/proc` shows it of each of its threads.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use support::{Folder, Towpath, http_get};

const SHOP: &str = "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: LoadBalancing\n";
const NOBODY: u32 = 65534;
const DAC_READ_SEARCH: u64 = 1 << 2;

/// These need root: skipped on a desk, with a line that says so; a failure in CI.
fn is_root() -> bool {
    #[expect(clippy::disallowed_methods, reason = "how CI says that it is CI")]
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root || !is_ci, "this test needs root");
    if !is_root {
        println!("skipped: needs root");
    }
    is_root
}

/// One value of a field for all threads; more than one if they differ.
fn field(pid: u32, name: &str) -> BTreeSet<String> {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert!(tasks.len() >= 4, "a node has shards, a log and a control thread");
    let statuses = tasks.iter().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    statuses
        .map(|text| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().replace('\t', " "))
        .collect()
}

fn capabilities(pid: u32, of: u64) {
    let only = |text: String| BTreeSet::from([text]);
    for name in ["CapPrm:", "CapEff:"] {
        assert_eq!(field(pid, name), only(format!("{of:016x}")), "{name}");
    }
    for name in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(pid, name), only(format!("{:016x}", 0)), "{name}");
    }
    assert_eq!(field(pid, "NoNewPrivs:"), only("1".into()));
}

#[test]
fn root_keeps_no_capability_on_any_thread_and_goes_on_working() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("privileges");
    let app = folder.write("shop.adn", SHOP);
    let log = folder.path("access.log");
    let config = folder.write("node.toml", &format!("[access_log]\nto = \"{log}\"\n"));
    let node = Towpath::start(&folder, &app, &["--config", &config, "--backend", "epoll", "--cores", "0"]);
    assert!(node.ready.ends_with(", capabilities dropped"), "{}", node.ready);
    capabilities(node.pid(), 0);

    fs::write(&app, SHOP.replace("LoadBalancing", "LoadBalancing - Logging")).unwrap();
    fs::rename(&log, folder.path("access.log.1")).unwrap();
    node.signal("HUP");
    assert!(node.says().starts_with("towpath: reloaded"));
    assert!(http_get(node.admin(), "/ready").unwrap().contains("generation 2"));
    let done = Towpath::run(&["status", "--admin", &node.socket()]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(fs::exists(&log).unwrap(), "the log was not opened again");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_private_file_keeps_the_one_capability_that_reads_it() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("privileges-private");
    let app = folder.write("shop.adn", SHOP);
    fs::set_permissions(&app, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&app, Some(NOBODY), Some(NOBODY)).unwrap();
    let node = Towpath::start(&folder, &app, &["--cores", "0"]);
    let expected = format!(", capabilities dropped but DAC_READ_SEARCH to read {app}");
    assert!(node.ready.ends_with(&expected), "{}", node.ready);
    capabilities(node.pid(), DAC_READ_SEARCH);
    node.signal("HUP");
    assert!(node.says().starts_with("towpath: reloaded"));
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn another_user_is_become_on_every_thread_and_serves_reload_and_status() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("privileges-user");
    let app = folder.write("shop.adn", SHOP);
    let logs = Folder::new("privileges-user-logs");
    chown(logs.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let log = logs.path("access.log");
    let config =
        folder.write("node.toml", &format!("[security]\nuser = \"nobody\"\n[access_log]\nto = \"{log}\"\n"));
    let node = Towpath::start(&folder, &app, &["--config", &config, "--cores", "0"]);
    assert!(node.ready.ends_with(", user nobody, capabilities dropped"), "{}", node.ready);
    capabilities(node.pid(), 0);
    for name in ["Uid:", "Gid:"] {
        assert_eq!(field(node.pid(), name), BTreeSet::from([format!("{0} {0} {0} {0}", NOBODY)]));
    }
    assert_eq!(field(node.pid(), "Groups:").first().map(|groups| groups.contains('0')), Some(false));
    fs::rename(&log, logs.path("access.log.1")).unwrap();
    node.signal("HUP");
    assert!(node.says().starts_with("towpath: reloaded"));
    let done = Towpath::run(&["reload", "--admin", &node.socket()]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::metadata(&log).unwrap().uid(), NOBODY, "the log was opened again, by whom the node is");
    assert_eq!(node.stop(), Some(0));

    fs::set_permissions(&app, fs::Permissions::from_mode(0o600)).unwrap();
    let done = Towpath::run(&["run", &app, "--config", &config, "--listen", "127.0.0.1:0", "--admin", "off"]);
    assert_eq!(done.code, 1);
    for part in ["\"nobody\" may not read", &app, "chown"] {
        assert!(done.stderr.contains(part), "{part} is not in {}", done.stderr);
    }
}

#[test]
fn a_user_that_is_not_there_or_cannot_be_become_is_refused_before_anything_opens() {
    let folder = Folder::new("privileges-refused");
    let app = folder.write("shop.adn", SHOP);
    let config = folder.write("node.toml", "[security]\nuser = \"nobody-at-all\"\n");
    let done = Towpath::run(&["run", &app, "--config", &config]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("useradd --system nobody-at-all"), "{}", done.stderr);
    let config = folder.write("node.toml", "[security]\nuser = \"nobody\"\ncapabilities = \"keep\"\n");
    let done = Towpath::run(&["check", &app, "--config", &config]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("node.toml:1"), "{}", done.stderr);
}
