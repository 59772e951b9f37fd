//! Calls through a running node: pktgen's echo behind it, pktgen's load before it, both in this process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use abi::{Addr, Status};
use pktgen::{Echo, EchoLive, EchoOptions, Live, Load, LoadConfig, Pace, Summary, Target};
use shard::ListenerId;
use support::{Folder, Towpath, http_get};

struct Backend {
    addr: Addr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn start(latency: Duration) -> Self {
        let spec = io::ListenerSpec { id: ListenerId(0), addr: Addr::Ip(([127, 0, 0, 1], 0).into()) };
        let listeners = io::Listeners::bind(&[spec]).unwrap();
        let addr = listeners.local_addrs()[0].1.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let config =
                io::Config { backend: io::Backend::Epoll, poll: io::Poll::Block, ..io::Config::default() };
            let sockets = io::Sockets::open(&config, &listeners, 0, io::Placement::new(1)).unwrap();
            let options = EchoOptions { latency, ..EchoOptions::default() };
            Echo::new(sockets, options).run(&stopped, &EchoLive::default());
        });
        Self { addr, stop, thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn load(config: LoadConfig, stop: Arc<AtomicBool>, live: Arc<Live>) -> JoinHandle<Summary> {
    std::thread::spawn(move || {
        let io_config =
            io::Config { backend: io::Backend::Epoll, poll: io::Poll::Block, ..io::Config::default() };
        let sockets =
            io::Sockets::open(&io_config, &io::Listeners::none(), 0, io::Placement::new(1)).unwrap();
        Load::new(sockets, config, live).unwrap().run(&stop)
    })
}

fn config(to: std::net::SocketAddr, calls: u64) -> LoadConfig {
    LoadConfig {
        to: vec![Target { addr: Addr::Ip(to), authority: "catalog".into() }],
        method: "/shop.Catalog/List".into(),
        headers: vec![("grpc-accept-encoding".into(), "gzip".into())],
        conns: 2,
        pace: Pace::Closed { streams: 8 },
        message_bytes: 2048,
        warm_up: Duration::ZERO,
        run: Duration::from_secs(60),
        calls_max: Some(calls),
        ..LoadConfig::default()
    }
}

fn app(folder: &Folder, backends: &[&Backend], chain: &str) -> String {
    let list: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.addr)).collect();
    let text = format!(
        "service frontend\nservice catalog {{ endpoints: [{}] }}\n\nfrontend -> catalog: {chain}\n",
        list.join(", ")
    );
    folder.write("shop.adn", &text)
}

fn run(config: LoadConfig) -> Summary {
    load(config, Arc::default(), Arc::new(Live::new())).join().unwrap()
}

#[test]
fn the_seed_chain_balances_logs_compresses_and_injects() {
    for backend in ["auto", "epoll"] {
        let folder = Folder::new(&format!("seed-{backend}"));
        let (a, b) = (Backend::start(Duration::from_millis(1)), Backend::start(Duration::from_millis(1)));
        let app = app(&folder, &[&a, &b], "LoadBalancing - Logging - Compression - FaultInjection(0.1)");
        let node = Towpath::start(&folder, &app, &["--backend", backend]);
        let summary = run(config(node.listening(), 4000));
        let seen = &summary.seen;
        // The load leaves a few calls before and after out of its own count.
        let all = seen.calls() + seen.uncounted_calls;
        let faults = seen.statuses[usize::from(Status::UNAVAILABLE.code())];
        assert!(all >= 4000 && seen.uncounted_calls <= 64, "{}", summary.text());
        assert_eq!(seen.ok() + faults, seen.calls(), "{}", summary.text());
        // Binomial(4000, 0.1) has a deviation of 19: six of them.
        assert!((400 - 114..=400 + 114).contains(&faults), "{faults} faults");

        let metrics = http_get(node.admin(), "/metrics").unwrap();
        let value = |start: &str| -> u64 {
            metrics
                .lines()
                .filter(|l| l.starts_with(start))
                .map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        let verdicts = "towpath_element_verdicts_total{source=\"frontend\",destination=\"catalog\",element=\"FaultInjection\"";
        let rejected = value(&format!("{verdicts},verdict=\"reject\""));
        let forwarded = value(&format!("{verdicts},verdict=\"forward\""));
        assert_eq!(rejected + forwarded, all);
        assert!((faults..=faults + seen.uncounted_calls).contains(&rejected), "{rejected} rejected");
        assert_eq!(value("towpath_endpoint_calls_total"), forwarded);
        for addr in [&a.addr, &b.addr] {
            let calls =
                value(&format!("towpath_endpoint_calls_total{{service=\"catalog\",endpoint=\"{addr}\"}}"));
            // On a busy machine one of them may seem slow for a while: neither may be left out.
            assert!(calls > forwarded / 20, "{addr} had {calls} of {forwarded}");
        }
        assert_eq!(value("response_total{classification=\"success\""), forwarded);
        assert_eq!(value("response_total{classification=\"failure\""), rejected);
        assert!(value("towpath_endpoint_saved_bytes_total") > forwarded * 1000);
        assert_eq!(value("towpath_log_lines_dropped_total"), 0);

        node.signal("TERM");
        let (code, log) = node.end();
        assert_eq!(code, Some(0));
        assert_eq!(log.lines().count() as u64, all, "one line a call");
        assert_eq!(log.lines().filter(|l| l.contains("\"flag\":\"FI\"")).count() as u64, rejected);
        let one = log.lines().find(|l| l.contains("\"flag\":\"FI\"")).unwrap();
        for part in [
            "\"source\":\"frontend\"",
            "\"destination\":\"catalog\"",
            "\"method\":\"/shop.Catalog/List\"",
            "\"status\":\"UNAVAILABLE\"",
            "\"element\":\"FaultInjection(0.1)\"",
            "\"rule_line\":4",
            "\"line\":",
        ] {
            assert!(one.contains(part), "{part} is not in {one}");
        }
    }
}

#[test]
fn sigterm_drains_without_a_lost_call() {
    let folder = Folder::new("drain");
    let slow = Backend::start(Duration::from_millis(300));
    let app = app(&folder, &[&slow], "LoadBalancing");
    let node = Towpath::start(&folder, &app, &["--cores", "0"]);
    let (stop, live) = (Arc::new(AtomicBool::new(false)), Arc::new(Live::new()));
    let calls = LoadConfig { calls_max: None, ..config(node.listening(), 0) };
    let client = load(calls, stop.clone(), live.clone());
    for _ in 0..600 {
        if live.in_flight() > 0 && live.calls() > 0 {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "a test waits for calls to be under way")]
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(live.in_flight() > 0);
    node.signal("TERM");
    assert!(node.says().contains("draining"));
    // Nothing new: what is under way, or comes before the client has seen GOAWAY, must be answered.
    stop.store(true, Ordering::Relaxed);
    let (code, _) = node.end();
    let summary = client.join().unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(summary.seen.unanswered, 0, "{}", summary.text());
    assert_eq!(summary.seen.ok(), summary.seen.calls(), "{}", summary.text());
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let folder = Folder::new("twice");
    let slow = Backend::start(Duration::from_secs(30));
    let app = app(&folder, &[&slow], "LoadBalancing");
    let node = Towpath::start(&folder, &app, &["--cores", "0"]);
    let (stop, live) = (Arc::new(AtomicBool::new(false)), Arc::new(Live::new()));
    let calls = LoadConfig { drain: Duration::from_millis(100), ..config(node.listening(), 100) };
    let client = load(calls, stop.clone(), live.clone());
    for _ in 0..600 {
        if live.in_flight() > 0 {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "a test waits for calls to be under way")]
        std::thread::sleep(Duration::from_millis(20));
    }
    node.signal("TERM");
    assert!(node.says().contains("draining"));
    node.signal("TERM");
    let (code, _) = node.end();
    assert_eq!(code, Some(0));
    stop.store(true, Ordering::Relaxed);
    client.join().unwrap();
}

#[test]
fn no_backend_is_unavailable_and_recovers_without_a_restart() {
    let folder = Folder::new("recover");
    let gone = Backend::start(Duration::ZERO);
    let Addr::Ip(addr) = gone.addr.clone() else { panic!() };
    let app = app(&folder, &[&gone], "LoadBalancing");
    drop(gone);
    let node = Towpath::start(&folder, &app, &["--cores", "0"]);
    let refused = run(config(node.listening(), 50));
    let unavailable = refused.seen.statuses[usize::from(Status::UNAVAILABLE.code())];
    assert!(unavailable >= 50 && refused.seen.calls() == unavailable, "{}", refused.text());

    let spec = io::ListenerSpec { id: ListenerId(0), addr: Addr::Ip(addr) };
    let listeners = io::Listeners::bind(&[spec]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let backend = std::thread::spawn(move || {
        let config =
            io::Config { backend: io::Backend::Epoll, poll: io::Poll::Block, ..io::Config::default() };
        let sockets = io::Sockets::open(&config, &listeners, 0, io::Placement::new(1)).unwrap();
        Echo::new(sockets, EchoOptions::default()).run(&stopped, &EchoLive::default());
    });
    let mut is_back = false;
    for _ in 0..100 {
        let seen = run(config(node.listening(), 20)).seen;
        is_back = seen.ok() >= 20 && seen.failed() == 0;
        if is_back {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "a test waits for the backoff to pass")]
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(is_back);
    stop.store(true, Ordering::Relaxed);
    backend.join().unwrap();
    node.stop();
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_neither_calls_nor_the_end() {
    let folder = Folder::new("unread");
    let backend = Backend::start(Duration::ZERO);
    let app = app(&folder, &[&backend], "LoadBalancing - Logging");
    let node = Towpath::start_with(&folder, &app, &["--cores", "0"], false);
    // More than the pipe and all buffers of a shard hold.
    let summary = run(config(node.listening(), 40_000));
    assert!(summary.seen.calls() >= 40_000 && summary.seen.failed() == 0, "{}", summary.text());
    let metrics = http_get(node.admin(), "/metrics").unwrap();
    let dropped = metrics.lines().find_map(|l| l.strip_prefix("towpath_log_lines_dropped_total ")).unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 0, "{dropped} dropped");
    node.signal("TERM");
    let (code, log) = node.end();
    assert_eq!(code, Some(0));
    assert!(log.lines().all(|l| l.starts_with("{\"time\":")), "whole lines only, to the end");
}

/// The whole demo, as a stranger runs it.
#[test]
fn the_demo_shows_what_it_promises() {
    for backend in ["auto", "epoll"] {
        let done = Towpath::run(&["demo", "--for", "2s", "--backend", backend]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        for part in [
            "frontend -> catalog: LoadBalancing - Logging - Compression - FaultInjection(0.1)",
            "what happened",
            "calls rejected on purpose",
            "kept off the wire",
            "where calls went",
            "cost per call",
            "\"flag\":\"FI\"",
            "decided by FaultInjection(0.1)",
            "next\n",
            " doctor",
        ] {
            assert!(done.stdout.contains(part), "{part} is not in {}", done.stdout);
        }
    }
}
