//! The binary as users and scripts meet it: messages, exit codes, ready line, drain.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use support::{Folder, Towpath, http_get};

const SHOP: &str = "service frontend\nservice catalog { endpoints: [\"127.0.0.1:1\"] }\n\n\
                    frontend -> catalog: LoadBalancing - Logging - Compression - FaultInjection(0.1)\n";

#[test]
fn check_says_in_one_line_what_it_found() {
    let folder = Folder::new("check-ok");
    let app = folder.write("shop.adn", SHOP);
    let done = Towpath::run(&["check", &app]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    assert!(done.stdout.contains("ok: 2 services, 1 endpoint, 1 rule, 4 elements"), "{}", done.stdout);
}

#[test]
fn what_the_documents_show_is_accepted() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let text = fs::read_to_string(format!("{root}/docs/operating.md")).unwrap();
    let (_, from) = text.split_once("## node.toml\n\n").unwrap();
    let (block, _) = from.split_once("\n\n").unwrap();
    let folder = Folder::new("docs");
    let every = folder.write("every.adn", "every * -> *: Logging\n");
    let config: String = block.lines().map(|line| format!("{}\n", line.trim())).collect();
    let config = folder.write("node.toml", &config.replace("/etc/towpath/every.adn", &every));
    let done = Towpath::run(&["check", &format!("{root}/examples/shop.adn"), "--config", &config]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let done = Towpath::run(&[
        "check",
        &format!("{root}/examples/seed.adn"),
        "--set",
        "service.S2.endpoints=127.0.0.1:1",
    ]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("1 endpoint, 1 rule, 4 elements"), "{}", done.stdout);
}

/// The text of one key of a config map: the lines below it that stand further in.
fn block(yaml: &str, key: &str) -> String {
    let (_, from) = yaml.split_once(&format!("\n  {key}: |\n")).unwrap();
    let inside = |line: &'_ str| line.is_empty() || line.starts_with("    ");
    from.lines().take_while(|line| inside(line)).map(|line| format!("{}\n", line.trim_start())).collect()
}

#[test]
fn what_is_deployed_and_what_the_lab_runs_is_accepted() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for settings in ["kernel", "xdp", "dpdk"] {
        let config = format!("{root}/examples/lab/{settings}.toml");
        let done = Towpath::run(&["check", &format!("{root}/examples/lab/lab.adn"), "--config", &config]);
        assert_eq!(done.code, 0, "{settings}: {}", done.stderr);
    }
    let yaml = fs::read_to_string(format!("{root}/deploy/kubernetes/daemonset.yaml")).unwrap();
    let folder = Folder::new("deploy");
    let app = folder.write("app.adn", &block(&yaml, "app.adn"));
    let settings = block(&yaml, "node.toml").replace("@DEVICE@", "0000:3b:10.0");
    let config = folder.write("node.toml", &settings.replace("@ADDRESS@", "10.7.0.11/24"));
    let done = Towpath::run(&["check", &app, "--config", &config]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_bad_application_is_refused_with_file_line_and_hint() {
    let folder = Folder::new("check-bad");
    let app = folder.write("shop.adn", &SHOP.replace("Logging", "Loging"));
    for args in [vec!["check", &app], vec!["run", &app, "--admin", "off"]] {
        let done = Towpath::run(&args);
        assert_eq!(done.code, 1);
        assert_eq!(done.stdout, "");
        for part in ["Loging", "shop.adn:4", "Logging"] {
            assert!(done.stderr.contains(part), "{part} is not in {}", done.stderr);
        }
    }
}

#[test]
fn a_missing_application_is_one_line() {
    let done = Towpath::run(&["run", "/nowhere/shop.adn"]);
    assert_eq!((done.code, done.stderr.as_str()), (1, "towpath: /nowhere/shop.adn: no such file\n"));
    let done = Towpath::run(&["check", "/tmp"]);
    assert!(done.code == 1 && done.stderr.contains("is a folder"), "{}", done.stderr);
}

#[test]
fn a_bad_node_toml_is_refused_with_file_line_and_hint() {
    let folder = Folder::new("toml-bad");
    let app = folder.write("shop.adn", SHOP);
    let config = folder.write("node.toml", "[shards]\npol = \"busy\"\n");
    for command in ["run", "check"] {
        let done = Towpath::run(&[command, &app, "--config", &config]);
        assert_eq!(done.code, 1);
        for part in ["unknown key `pol`", "node.toml:2", "did you mean `poll`?", "expected one of"] {
            assert!(done.stderr.contains(part), "{part} is not in {}", done.stderr);
        }
    }
}

#[test]
fn an_address_in_use_is_one_line_that_says_what_to_do() {
    let folder = Folder::new("in-use");
    let app = folder.write("shop.adn", SHOP);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let done = Towpath::run(&["run", &app, "--listen", &addr, "--admin", "off"]);
    assert_eq!(done.code, 1);
    let last = done.stderr.lines().last().unwrap();
    assert!(last.starts_with("towpath: ") && last.contains(&addr) && last.contains("in use"), "{last}");
    assert!(last.contains("another address"), "{last}");

    let done = Towpath::run(&["run", &app, "--listen", "127.0.0.1:0", "--admin", &addr]);
    let last = done.stderr.lines().last().unwrap();
    assert!(done.code == 1 && last.contains("admin") && last.contains("in use"), "{last}");
}

#[test]
fn an_unknown_core_is_one_line_that_says_which_there_are() {
    let folder = Folder::new("core");
    let app = folder.write("shop.adn", SHOP);
    let done = Towpath::run(&["run", &app, "--listen", "127.0.0.1:0", "--admin", "off", "--cores", "4095"]);
    assert_eq!(done.code, 1);
    let last = done.stderr.lines().last().unwrap();
    assert!(last.contains("core 4095") && last.contains("--cores"), "{last}");
}

#[test]
fn a_listener_for_an_unknown_service_is_one_line() {
    let folder = Folder::new("destination");
    let app = folder.write("shop.adn", SHOP);
    let config = folder.write(
        "node.toml",
        "[admin]\naddress = \"off\"\nsocket = \"off\"\n[[listen]]\naddress = \"127.0.0.1:0\"\ndestination = \"catalogue\"\n",
    );
    let done = Towpath::run(&["run", &app, "--config", &config]);
    let last = done.stderr.lines().last().unwrap();
    assert_eq!(done.code, 1);
    assert!(last.contains("line 4") && last.contains("did you mean \"catalog\"?"), "{last}");
}

#[test]
fn what_is_not_understood_exits_with_2_and_what_comes_later_says_so() {
    assert_eq!(Towpath::run(&["fly"]).code, 2);
    let done = Towpath::run(&["run", "x.adn", "--listen", ":80"]);
    assert!(done.code == 2 && done.stderr.contains("127.0.0.1:80"), "{}", done.stderr);
    let done = Towpath::run(&["trace", "--json"]);
    assert!(done.code == 1 && done.stderr.contains("not supported yet"), "{}", done.stderr);
    let folder = Folder::new("backend");
    let app = folder.write("shop.adn", SHOP);
    let done = Towpath::run(&["run", &app, "--backend", "dpdk", "--admin", "off"]);
    assert!(done.code == 1 && done.stderr.contains("needs a raw port"), "{}", done.stderr);
}

#[test]
fn status_without_a_node_is_one_line() {
    let done = Towpath::run(&["status", "--admin", "/nowhere/towpath.sock"]);
    assert_eq!((done.code, done.stderr.lines().count()), (1, 1));
    assert!(done.stderr.contains("towpath run"), "{}", done.stderr);
}

#[test]
fn doctor_reports_on_every_part() {
    let done = Towpath::run(&["doctor"]);
    assert_eq!(done.code, 0);
    for part in ["on Linux ", "epoll", "xdp", "dpdk", "open files", "CPU quota", "hugepages", "NICs"] {
        assert!(done.stdout.contains(part), "{part} is not in {}", done.stdout);
    }
    let done = Towpath::run(&["doctor", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(all["sections"][0]["lines"].as_array().unwrap().iter().any(|line| line["what"] == "epoll"));
    assert!(all["nics"].is_array());
}

#[test]
fn the_ready_line_names_addresses_and_the_admin_addresses_answer() {
    let folder = Folder::new("ready");
    let app = folder.write("shop.adn", SHOP);
    for backend in ["auto", "epoll"] {
        let node = Towpath::start(&folder, &app, &["--backend", backend, "--cores", "0"]);
        assert_eq!(node.ready.lines().count(), 1);
        assert!(node.ready.starts_with("towpath ready: backend "), "{}", node.ready);
        assert!(node.ready.contains(", cores 0, listening 127.0.0.1:"), "{}", node.ready);
        TcpStream::connect(node.listening()).unwrap();

        let ready = http_get(node.admin(), "/ready").unwrap();
        assert!(
            ready.starts_with("ready, generation 1 on every shard\n") && ready.contains("(xxh64 "),
            "{ready}"
        );
        let metrics = http_get(node.admin(), "/metrics").unwrap();
        for name in ["towpath_build_info", "towpath_element_verdicts_total{", "towpath_endpoint_healthy{"] {
            assert!(metrics.contains(name), "{name} is not in {metrics}");
        }
        let config = http_get(node.admin(), "/config").unwrap();
        assert!(config.contains("connect_timeout = \"2s\""), "{config}");
        let explain = http_get(node.admin(), "/explain").unwrap();
        assert!(
            explain.contains("generation 1\n") && explain.contains("frontend -> catalog   ("),
            "{explain}"
        );
        assert!(http_get(node.admin(), "/status").is_err(), "only on the socket");

        let status = Towpath::run(&["status", "--admin", &node.socket()]);
        assert_eq!(status.code, 0, "{}", status.stderr);
        for part in ["serving for", "127.0.0.1:1", "FaultInjection(0.1)"] {
            assert!(status.stdout.contains(part), "{part} is not in {}", status.stdout);
        }
        let code = node.stop();
        assert_eq!(code, Some(0));
    }
}

#[test]
fn a_client_that_speaks_tls_or_http1_is_named_in_one_line_each() {
    let folder = Folder::new("tls");
    let app = folder.write("shop.adn", SHOP);
    let node = Towpath::start(&folder, &app, &[]);
    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    for (bytes, what) in
        [(&hello[..], "client_speaks_tls"), (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "client_speaks_http1")]
    {
        let mut stream = TcpStream::connect(node.listening()).unwrap();
        stream.write_all(bytes).unwrap();
        let said = node.says();
        assert!(said.contains(what) && said.contains(&node.listening().to_string()), "{said}");
        let metrics = http_get(node.admin(), "/metrics").unwrap();
        assert!(
            metrics.contains(&format!("towpath_downstream_faults_total{{fault=\"{what}\"}} 1")),
            "{metrics}"
        );
    }
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_reader_that_stops_early_does_no_harm() {
    let closed = std::process::Command::new("sh")
        .args(["-c", "\"$0\" doctor | true; \"$0\" demo --for 1s | head -n 1", env!("CARGO_BIN_EXE_towpath")])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&closed.stderr).contains("panicked"), "{closed:?}");
}

#[test]
fn memory_after_start_is_small() {
    let folder = Folder::new("memory");
    let app = folder.write("shop.adn", SHOP);
    let node = Towpath::start(&folder, &app, &[]);
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let kib: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|v| v.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    // The bound is 15 MiB; an unoptimised program is itself some eight larger.
    let max_mib = if cfg!(debug_assertions) { 23 } else { 15 };
    assert!(kib < max_mib << 10, "{kib} KiB resident");
    node.stop();
}

#[test]
fn a_reload_takes_over_what_compiles_and_refuses_what_does_not() {
    let folder = Folder::new("reload");
    let app = folder.write("shop.adn", SHOP);
    let node = Towpath::start(&folder, &app, &[]);
    folder.write("shop.adn", &SHOP.replace("0.1", "0.2"));
    let done = Towpath::run(&["reload", "--admin", &node.socket()]);
    assert!(done.code == 0 && done.stdout.contains("generation 2"), "{}{}", done.stdout, done.stderr);
    assert!(http_get(node.admin(), "/explain").unwrap().contains("FaultInjection(0.2)"));

    folder.write("shop.adn", &SHOP.replace("0.1", "10"));
    let done = Towpath::run(&["reload", "--admin", &node.socket()]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("generation 2 stays"), "{}", done.stderr);
    assert!(http_get(node.admin(), "/explain").unwrap().contains("FaultInjection(0.2)"));
    assert!(http_get(node.admin(), "/ready").unwrap().starts_with("ready, generation 2 on every shard\n"));
    let status = Towpath::run(&["status", "--json", "--admin", &node.socket()]);
    assert!(
        status.stdout.contains("\"shard\":0,") && status.stdout.contains("\"generation\":2,"),
        "{}",
        status.stdout
    );
    node.stop();
}

#[test]
fn a_socket_of_another_node_is_left_alone() {
    let folder = Folder::new("socket");
    let app = folder.write("shop.adn", SHOP);
    let path = folder.path("held.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let socket = format!("unix:{path}");
    let done =
        Towpath::run(&["run", &app, "--listen", "127.0.0.1:0", "--admin", &socket, "--admin", "127.0.0.1:0"]);
    let last = done.stderr.lines().last().unwrap();
    assert!(done.code == 1 && last.contains("held.sock"), "{last}");
}

#[test]
fn fmt_lays_out_checks_and_leaves_what_has_errors() {
    let folder = Folder::new("fmt");
    let app = folder.write("shop.adn", &SHOP.replace(" - ", "-"));
    let bad = folder.write("bad.adn", "service a\na -> : X\n");
    let done = Towpath::run(&["fmt", "--check", &app]);
    assert_eq!((done.code, done.stdout.trim()), (1, app.as_str()), "{}", done.stderr);

    let done = Towpath::run(&["fmt", &bad, &app]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("bad.adn:2") && done.stderr.contains("expected the called service"));
    assert_eq!(fs::read_to_string(&bad).unwrap(), "service a\na -> : X\n");
    assert_eq!(fs::read_to_string(&app).unwrap(), SHOP);
    assert_eq!(Towpath::run(&["fmt", "--check", &app]).code, 0);
}

#[test]
fn explain_says_what_was_decided_and_what_one_call_would_meet() {
    let folder = Folder::new("explain");
    let app = folder.write("shop.adn", SHOP);
    let done = Towpath::run(&["explain", &app]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    for part in ["rejects with UNAVAILABLE \"fault injected\" with a chance of 10 %", "headers only"] {
        assert!(done.stdout.contains(part), "{part} is not in {}", done.stdout);
    }
    let json = Towpath::run(&["explain", &app, "--json"]);
    assert!(json.code == 0 && json.stdout.starts_with("{\"file\":"), "{}", json.stdout);

    let call =
        ["explain", &app, "--call", "frontend -> catalog.shop.Catalog/List", "--seed", "7", "-H", "a:b"];
    let done = Towpath::run(&call);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("by seed 7") && done.stdout.contains("\nverdict   "), "{}", done.stdout);
    assert_eq!(done.stdout, Towpath::run(&call).stdout);

    let wrong = Towpath::run(&["explain", &app, "--call", "frontend -> catalogue.shop.Catalog/List"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (1, ""));
    assert!(wrong.stderr.contains("did you mean `catalog`?"), "{}", wrong.stderr);
    folder.write("shop.adn", &SHOP.replace("Logging", "Loging"));
    let wrong = Towpath::run(&["explain", &app, "--json"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("shop.adn:4") && wrong.stdout.is_empty());
}

/// As Kubernetes has it: the file is a link into `..data`, which is a link to a folder that is replaced.
#[test]
fn a_watched_application_is_reloaded_when_its_config_map_is_swapped() {
    let folder = Folder::new("watch");
    let at = |name: &str| folder.path(name);
    for (version, share) in [("..1", "0.1"), ("..2", "0.2"), ("..3", "10")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(&format!("{version}/shop.adn")), SHOP.replace("0.1", share)).unwrap();
    }
    let swap = |to: &str| {
        std::os::unix::fs::symlink(to, at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
    };
    swap("..1");
    std::os::unix::fs::symlink("..data/shop.adn", at("shop.adn")).unwrap();
    let node = Towpath::start(&folder, &at("shop.adn"), &["--watch", "--cores", "0"]);
    swap("..2");
    assert!(node.says().contains("shop.adn has changed"));
    let said = node.says();
    assert!(said.contains("reloaded, generation 2 on every shard"), "{said}");
    assert!(http_get(node.admin(), "/explain").unwrap().contains("FaultInjection(0.2)"));
    // One that does not compile changes nothing, and is not tried again and again.
    swap("..3");
    let said: String =
        (0..40).map(|_| node.says()).take_while(|l| !l.contains("generation 2 stays")).collect();
    assert!(said.contains("did you mean 10%?"), "{said}");
    assert!(http_get(node.admin(), "/explain").unwrap().contains("FaultInjection(0.2)"));
    node.stop();
}

#[test]
fn systemd_is_told_when_the_node_is_ready_and_when_it_drains() {
    let folder = Folder::new("notify");
    let app = folder.write("shop.adn", SHOP);
    let heard = std::os::unix::net::UnixDatagram::bind(folder.path("notify")).unwrap();
    heard.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut node = std::process::Command::new(env!("CARGO_BIN_EXE_towpath"))
        .args(["run", &app, "--listen", "127.0.0.1:0", "--admin", "off", "--cores", "0"])
        .env("NOTIFY_SOCKET", folder.path("notify"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let says = || {
        let mut text = [0; 64];
        let len = heard.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    assert_eq!(says(), "READY=1");
    let told = std::process::Command::new("kill").arg(node.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(says(), "STOPPING=1");
    assert!(node.wait().unwrap().success());
}

#[test]
fn keys_of_an_application_are_those_of_node_toml() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sealed");
    for node in ["caller", "callee"] {
        let (app, config) = (format!("{root}/{node}.adn"), format!("{root}/{node}.toml"));
        let done = Towpath::run(&["check", &app, "--config", &config]);
        assert_eq!((done.code, done.stderr.contains("the key")), (0, false), "{}", done.stderr);
        // Nobody says what keys there are: a note. Somebody does, and this is none of them: an error.
        let done = Towpath::run(&["check", &app]);
        assert_eq!(done.code, 0);
        assert!(done.stderr.contains("node.toml must have the key `fabric`"), "{}", done.stderr);
        let done = Towpath::run(&["explain", &app]);
        let says = ["sealed with key \"fabric\" and are opened", "are sealed with key \"fabric\""];
        assert!(says.iter().all(|part| done.stdout.contains(part)), "{}", done.stdout);
    }
    let folder = Folder::new("keys");
    let sealed = SHOP.replace("Compression", "Encryption(\"fabric\")");
    let app = folder.write("shop.adn", &sealed);
    let key = folder.write("k", "1 00112233445566778899aabbccddeeff\n");
    let config = folder.write("node.toml", &format!("[keys]\nother = \"{key}\"\n"));
    for args in [vec!["check", &app, "--config", &config], vec!["run", &app, "--config", &config]] {
        let done = Towpath::run(&args);
        assert_eq!(done.code, 1);
        for part in ["node.toml has no key `fabric`", "shop.adn:4:", "[keys] with fabric = "] {
            assert!(done.stderr.contains(part), "{part} is not in {}", done.stderr);
        }
    }
}

#[test]
fn a_reload_reads_keys_again_and_refuses_what_names_others() {
    let folder = Folder::new("keys-reload");
    let app = folder.write("shop.adn", &SHOP.replace("Compression", "Encryption(\"fabric\")"));
    let key = folder.write("k", "1 00112233445566778899aabbccddeeff\n");
    let config = folder.write("node.toml", &format!("[keys]\nfabric = \"{key}\"\n"));
    let node = Towpath::start(&folder, &app, &["--config", &config]);
    let socket = node.socket();
    let reload = || Towpath::run(&["reload", "--admin", &socket]);
    let done = reload();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("  keys     fabric: read again"), "{}", done.stdout);
    folder.write("k", "1 0011\n");
    let done = reload();
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(
        done.code == 1 && said.contains("a key of 2 bytes") && said.contains("generation 2 stays"),
        "{said}"
    );
    folder.write("k", "1 00112233445566778899aabbccddeeff\n");
    folder.write("shop.adn", &SHOP.replace("Compression", "Encryption(\"spare\")"));
    let done = reload();
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(
        done.code == 1 && said.contains("no key `spare`") && said.contains("generation 2 stays"),
        "{said}"
    );
    node.stop();
}
