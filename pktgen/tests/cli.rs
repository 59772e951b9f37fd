//! The binary as a user has it: `pktgen call` against `pktgen echo` over loopback, on every backend there is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const PKTGEN: &str = env!("CARGO_BIN_EXE_pktgen");

/// A backend process; ended with SIGINT, as by Ctrl-C.
struct Backend {
    child: Child,
    addr: String,
    line: String,
}

impl Backend {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(PKTGEN);
        command.args(["echo", "--listen", "127.0.0.1:0", "--poll", "block"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addr = line.split_whitespace().find(|w| w.starts_with("127.0.0.1:")).unwrap_or("").to_owned();
        Self { child, addr, line }
    }

    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Gone already after `stop`; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call(to: &str, options: &[&str]) -> Output {
    let fixed = ["call", "--to", to, "--method", "/p.S/M", "--warm-up", "50ms", "--poll", "block"];
    Command::new(PKTGEN).args(fixed).args(options).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn in_temp(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pktgen-{}-{name}", std::process::id()))
}

#[test]
fn calls_are_answered_over_every_backend() {
    for backend in ["epoll", "uring"] {
        let echo = Backend::start(&["--backend", backend]);
        if echo.addr.is_empty() && backend == "uring" {
            println!("skipped: no uring here: {}", echo.line);
            continue;
        }
        assert!(echo.line.contains(backend), "{}", echo.line);
        for load in [["--streams", "16"], ["--rate", "2000"]] {
            let options =
                [&load[..], &["--conns", "3", "--for", "300ms", "--json", "-", "--backend", backend]];
            let output = call(&echo.addr, &options.concat());
            let seen = json(&output);
            assert!(output.status.success() && seen["failed"] == 0, "{backend}: {seen}");
            assert!(seen["ok"].as_u64().unwrap() >= 300, "{backend}: {seen}");
            assert!(seen["latency_us"]["p50"].as_f64().unwrap() > 1.0);
        }
        let large =
            ["--size", "1MiB", "--count", "20", "--streams", "4", "--json", "-", "--backend", backend];
        let seen = json(&call(&echo.addr, &large));
        assert!(seen["ok"].as_u64().unwrap() >= 20 && seen["failed"] == 0, "{backend}: {seen}");
        let counts = echo.stop();
        assert!(counts.contains("/p.S/M"), "{counts}");
    }
}

#[test]
fn a_backend_that_always_refuses_makes_the_exit_code_1_and_is_reported() {
    let echo = Backend::start(&["--status", "UNAVAILABLE", "--message", "gone fishing"]);
    let page = in_temp("report.html");
    let file = in_temp("figures.json");
    let options = ["--for", "200ms", "--report", page.to_str().unwrap(), "--json", file.to_str().unwrap()];
    let output = call(&echo.addr, &options);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("UNAVAILABLE"));
    assert!(stderr(&output).contains("no call succeeded"));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("UNAVAILABLE"));
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(figures["statuses"]["UNAVAILABLE"].as_u64().unwrap() > 0);
    std::fs::remove_file(page).unwrap();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn answers_of_another_size_only_where_asked_for() {
    let echo = Backend::start(&["--answer", "1MiB", "--answer-method", "/p.S/Large"]);
    let small = json(&call(&echo.addr, &["--count", "10", "--json", "-"]));
    assert!(small["rx_bytes"].as_u64().unwrap() < 1 << 20, "{small}");
    let mut large = Command::new(PKTGEN);
    large.args(["call", "--to", &echo.addr, "--method", "/p.S/Large", "--count", "5", "--json", "-"]);
    let large = json(&large.args(["--warm-up", "0s"]).output().unwrap());
    assert!(large["rx_bytes"].as_u64().unwrap() > 4 << 20 && large["failed"] == 0, "{large}");
}

#[test]
fn peers_that_are_not_there_or_speak_something_else_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let speaker = std::thread::spawn(move || {
        let (mut peer, _) = taken.accept().unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").unwrap();
        let mut rest = [0; 64];
        // Whatever it says, and however it ends.
        let _ = peer.read(&mut rest);
        taken
    });
    let output = call(&addr, &["--for", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(format!("{output:?}").contains("HTTP/1.1"), "{output:?}");
    drop(speaker.join().unwrap());
    let output = call(&addr, &["--for", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("connection refused"), "{output:?}");
}

#[test]
fn a_wrong_command_line_is_explained() {
    let cases = [
        (vec!["call", "--to", "127.0.0.1", "--method", "/p.S/M"], 2, "HOST:PORT"),
        (vec!["call", "--to", "127.0.0.1:1", "--method", "p.S.M"], 1, "/pkg.Service/Method"),
        (vec!["call", "--to", "127.0.0.1:1", "--method", "/p.S/M", "--for", "3 fortnights"], 2, "ns, us, ms"),
        (vec!["call", "--to", "127.0.0.1:1", "--method", "/p.S/M", "-H", "te:x"], 1, "pktgen sets it"),
        (vec!["echo", "--listen", "127.0.0.1:0", "--status", "SAD"], 2, "gRPC status"),
    ];
    for (line, code, word) in cases {
        let output = Command::new(PKTGEN).args(&line).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line:?}: {output:?}");
        assert!(stderr(&output).contains(word), "{line:?}: {output:?}");
    }
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let echo = Backend::start(&[]);
    let output = Command::new(PKTGEN).args(["echo", "--listen", &echo.addr]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&echo.addr), "{output:?}");
}
