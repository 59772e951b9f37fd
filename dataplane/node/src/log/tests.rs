use std::sync::mpsc::{Sender, channel};

use abi::{Addr, ElementInfo, Flag, Level, LogValue, Status};

use super::*;

/// A sink that sends what it is given.
struct Tap(Sender<Vec<u8>>);

impl std::io::Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn record<'a>(endpoint: &'a Addr, element: Option<(&'a ElementInfo, u32)>) -> AccessRecord<'a> {
    AccessRecord {
        at: Instant(5_000_000_000),
        id: 7,
        source: "frontend",
        destination: "catalog",
        path: b"/shop.Catalog/List",
        authority: b"catalog",
        status: if element.is_some() { Status::UNAVAILABLE } else { Status::OK },
        message: if element.is_some() { b"fault injected" } else { b"" },
        flag: if element.is_some() { Flag::FaultInjected } else { Flag::None },
        latency_ns: 123_456,
        request_bytes: 32,
        response_bytes: 1024,
        endpoint: if element.is_some() { None } else { Some(endpoint) },
        attempts: 1,
        element,
    }
}

fn endpoint() -> Addr {
    Addr::Ip("127.0.0.1:50051".parse().unwrap())
}

/// Without the time, which is never the same.
fn after_time(line: &str) -> String {
    assert_eq!(&line[..9], "{\"time\":\"");
    assert_eq!(&line[35..37], "Z\"");
    line[37..].to_owned()
}

#[test]
fn golden_lines() {
    let (send, got) = channel();
    let (writer, mut logs) = Writer::start(1, Target::Other(Box::new(Tap(send)))).unwrap();
    let mut log = logs.pop().unwrap();
    let endpoint = endpoint();
    let fault = ElementInfo { name: "FaultInjection".into(), text: "FaultInjection(0.1)".into(), line: 3 };
    log.access(SINK_NODE, &record(&endpoint, None));
    log.access(SINK_NODE, &record(&endpoint, Some((&fault, 12))));
    log.access(
        SINK_NODE,
        &AccessRecord {
            source: "",
            destination: "",
            authority: b"nobody",
            attempts: 0,
            ..record(&endpoint, None)
        },
    );
    let fields = [("tenant", LogValue::Text("a\"b")), ("share", LogValue::Float(0.5)), ("n", LogValue::None)];
    log.element(&ElementRecord {
        at: Instant(5_000_000_000),
        id: 9,
        element: &fault,
        level: Level::Warn,
        fields: &fields,
    });
    drop(log);
    drop(writer);
    let text = String::from_utf8(got.try_recv().unwrap()).unwrap();
    let lines: Vec<String> = text.lines().map(after_time).collect();
    assert_eq!(
        lines,
        [
            r#","source":"frontend","destination":"catalog","method":"/shop.Catalog/List","status":"OK","latency_us":123,"request_bytes":32,"response_bytes":1024,"endpoint":"127.0.0.1:50051","attempts":1}"#,
            r#","source":"frontend","destination":"catalog","method":"/shop.Catalog/List","status":"UNAVAILABLE","flag":"FI","latency_us":123,"request_bytes":32,"response_bytes":1024,"attempts":1,"element":"FaultInjection(0.1)","line":12,"rule_line":3,"message":"fault injected"}"#,
            r#","authority":"nobody","method":"/shop.Catalog/List","status":"OK","latency_us":123,"request_bytes":32,"response_bytes":1024,"endpoint":"127.0.0.1:50051","attempts":0}"#,
            r#","level":"warn","element":"FaultInjection(0.1)","call":9,"tenant":"a\"b","share":0.5,"n":null}"#,
        ]
    );
}

#[test]
fn a_line_waits_at_most_ten_milliseconds_for_others() {
    let (send, got) = channel();
    let (_writer, mut logs) = Writer::start(1, Target::Other(Box::new(Tap(send)))).unwrap();
    let mut log = logs.pop().unwrap();
    let oldest = log.oldest();
    let start = Instant(5_000_000_000);
    assert_eq!(oldest.due(), None);
    log.access(SINK_NODE, &record(&endpoint(), None));
    assert_eq!(oldest.due(), Some(start.after_ns(LINE_AGE_NS)));
    log.flush(start.after_ns(LINE_AGE_NS - 1));
    assert!(oldest.get().is_some(), "not due yet");
    log.flush(start.after_ns(LINE_AGE_NS));
    assert_eq!(oldest.get(), None);
    assert!(got.recv_timeout(std::time::Duration::from_secs(10)).is_ok());
}

#[test]
fn a_stalled_writer_costs_lines_and_never_blocks() {
    /// Blocks until told.
    struct Stall(std::sync::mpsc::Receiver<()>);
    impl std::io::Write for Stall {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (go, gate) = channel();
    let (writer, mut logs) = Writer::start(1, Target::Other(Box::new(Stall(gate)))).unwrap();
    let mut log = logs.pop().unwrap();
    let endpoint = endpoint();
    for _ in 0..20_000 {
        log.access(SINK_NODE, &record(&endpoint, None));
    }
    let lines = log.counters.lines.load(Ordering::Relaxed);
    let dropped = log.counters.dropped.load(Ordering::Relaxed);
    assert_eq!(lines + dropped, 20_000);
    assert!(dropped > 0, "buffers are bounded");
    assert!(usize::try_from(lines).unwrap() * 200 <= (BUFFERS_MAX + 1) * BUFFER_BYTES);
    assert_eq!(log.made, BUFFERS_MAX);
    drop(go);
    drop(log);
    drop(writer);
}

#[test]
fn buffers_come_back_and_are_used_again() {
    let (send, got) = channel();
    let (writer, mut logs) = Writer::start(1, Target::Other(Box::new(Tap(send)))).unwrap();
    let mut log = logs.pop().unwrap();
    let endpoint = endpoint();
    let mut bytes = 0;
    for _ in 0..100 {
        for _ in 0..100 {
            log.access(SINK_NODE, &record(&endpoint, None));
        }
        // The writer has the buffer; wait until it has written it.
        log.hand_over_all();
        bytes += got.recv_timeout(std::time::Duration::from_secs(10)).unwrap().len();
    }
    assert_eq!(bytes % 10_000, 0, "all lines, all equally long");
    assert!(log.made <= 4, "{} buffers were made for 100 rounds", log.made);
    drop(log);
    drop(writer);
}

#[test]
fn files_are_appended_to_and_reopened() {
    let folder = std::env::temp_dir().join(format!("towpath-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("access.json");
    let moved = folder.join("access.json.1");
    std::fs::write(&path, "before\n").unwrap();
    let (mut writer, mut logs) = Writer::start(1, Target::Off).unwrap();
    let mut log = logs.pop().unwrap();
    let sink = writer.sink(path.to_str().unwrap()).unwrap();
    assert_eq!(writer.sink(path.to_str().unwrap()), Ok(sink), "the same name is the same sink");
    log.access(sink, &record(&endpoint(), None));
    log.hand_over_all();
    // Reopening comes after what was handed over: the channel keeps its order.
    std::fs::rename(&path, &moved).unwrap();
    writer.reopen();
    log.access(sink, &record(&endpoint(), None));
    drop(log);
    drop(writer);
    assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().count(), 2);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_path_that_cannot_be_written_is_one_line() {
    let Err(said) = Writer::start(1, Target::Path("/nowhere/at/all.json".into())) else { panic!("opened") };
    assert!(said.contains("/nowhere/at/all.json") && said.contains("choose a path"), "{said}");
}

#[test]
fn notices_of_one_kind_are_few_in_a_second() {
    let (_writer, mut logs) = Writer::start(1, Target::Off).unwrap();
    let mut log = logs.pop().unwrap();
    for at in 0..10 {
        log.notice(&Notice { at: Instant(at), what: "client_speaks_tls", subject: "pods", text: "use h2c" });
    }
    assert_eq!(log.counters.notices_muted.load(Ordering::Relaxed), 8);
    assert_eq!(log.counters.lines.load(Ordering::Relaxed), 2);
}

/// Not a test of speed (machines differ) but a figure to read: `cargo test --release -p towpath -- --ignored
/// --nocapture line_costs`.
#[test]
#[ignore = "prints a figure"]
fn line_costs() {
    let (_writer, mut logs) = Writer::start(1, Target::Path("/dev/null".into())).unwrap();
    let mut log = logs.pop().unwrap();
    let endpoint = endpoint();
    #[expect(clippy::disallowed_methods, reason = "a figure needs a clock")]
    let now = std::time::Instant::now;
    let start = now();
    let count = 2_000_000_u32;
    for at in 0..count {
        let record =
            AccessRecord { at: Instant(5_000_000_000 + u64::from(at) * 5_000), ..record(&endpoint, None) };
        log.access(SINK_NODE, &record);
        log.flush(record.at);
    }
    let each = start.elapsed() / count;
    println!("{each:?} a line, {} dropped", log.counters.dropped.load(Ordering::Relaxed));
}
