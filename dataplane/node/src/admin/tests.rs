use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn echo() -> Forward {
    Arc::new(|question: Question| {
        let answer = Answer::ok(format!("{:?}\n", question.ask));
        question.reply.try_send(answer).is_ok()
    })
}

fn tcp() -> SocketAddr {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    serve_tcp(listener, echo()).unwrap();
    addr
}

fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.write_all(bytes);
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out);
    String::from_utf8(out).unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("towpath-admin-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn reads_are_answered_on_tcp_and_changes_are_not() {
    let addr = tcp();
    let ready = exchange(addr, b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with("\r\n\r\nReady\n"), "{ready}");
    for (path, ask) in [("/metrics", "Metrics"), ("/config?x=1", "Config"), ("/explain", "Explain")] {
        let text = exchange(addr, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        assert!(text.ends_with(&format!("{ask}\n")), "{text}");
    }
    assert!(exchange(addr, b"GET /status HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 403 "));
    assert!(exchange(addr, b"POST /reload HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 403 "));
    assert!(exchange(addr, b"POST /ready HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(exchange(addr, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_head_has_no_body() {
    let text = exchange(tcp(), b"HEAD /ready HTTP/1.1\r\n\r\n");
    assert!(text.contains("content-length: 6\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn what_is_not_http_is_told_so_and_what_is_too_large_too() {
    let addr = tcp();
    assert!(exchange(addr, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(exchange(addr, b"\x16\x03\x01\x02\x00\x01\x00").starts_with("HTTP/1.1 400 "));
    let long = format!("GET /ready HTTP/1.1\r\nx: {}", "a".repeat(10_000));
    assert!(exchange(addr, long.as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn more_connections_than_the_bound_are_closed() {
    let addr = tcp();
    let held: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut was_closed = false;
    for _ in 0..100 {
        was_closed |= exchange(addr, b"GET /ready HTTP/1.1\r\n\r\n").is_empty();
        if was_closed {
            break;
        }
    }
    assert!(was_closed);
    drop(held);
}

#[test]
fn the_socket_is_for_its_owner_and_answers_everything() {
    let folder = folder("owner");
    let path = folder.join(SOCKET_NAME);
    let (listener, bound) = bind_unix(&path, true).unwrap();
    assert_eq!(bound, path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    serve_unix(listener, echo(), Captures::default()).unwrap();
    assert_eq!(ask(Some(&path), "GET", "/status"), Ok(Answer::ok("Status\n".into())));
    assert_eq!(ask(Some(&path), "POST", "/reload"), Ok(Answer::ok("Reload\n".into())));

    let (_second, other) = bind_unix(&path, true).unwrap();
    assert_ne!(other, path, "a socket in use is left to its node");
    assert!(bind_unix(&path, false).unwrap_err().contains("listens on"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_file_is_not() {
    let folder = folder("stale");
    let path = folder.join(SOCKET_NAME);
    drop(UnixListener::bind(&path).unwrap());
    assert!(bind_unix(&path, false).is_ok());
    let file = folder.join("file");
    fs::write(&file, "x").unwrap();
    assert!(bind_unix(&file, false).unwrap_err().contains("no socket"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_node_is_one_line_that_says_what_to_do() {
    let said = ask(Some(Path::new("/nowhere/towpath.sock")), "GET", "/status").unwrap_err();
    assert!(said.contains("towpath run"), "{said}");
    let said = ask(Some(Path::new("127.0.0.1:9901")), "GET", "/status").unwrap_err();
    assert!(said.contains("socket"), "{said}");
}

#[test]
fn an_address_in_use_is_one_line() {
    let held = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let said = bind_tcp(held.local_addr().unwrap()).unwrap_err();
    assert!(said.contains("in use") && said.contains("--admin"), "{said}");
}

/// A port that receives a frame each turn, numbered in its last byte.
struct Ticking {
    info: shard::DeviceInfo,
    next: u8,
}

impl shard::Device for Ticking {
    type Frame = Vec<u8>;

    fn info(&self) -> &shard::DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, out: &mut shard::Burst<Vec<u8>>) {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        (frame[23], frame[59]) = (6, self.next);
        self.next = self.next.wrapping_add(1);
        out.push(frame).unwrap();
    }

    fn frame(&mut self, _: usize) -> Option<Vec<u8>> {
        None
    }

    fn tx_burst(&mut self, _: &mut shard::Burst<Vec<u8>>) {}

    fn link_up(&mut self, _: shard::Instant) -> bool {
        true
    }

    fn wait(&mut self, _: Option<shard::Instant>) {
        crate::clock::sleep(Duration::from_millis(1));
    }

    fn now(&self) -> shard::Instant {
        crate::clock::monotonic()
    }
}

/// Serves captures of one ticking port, `fabric`, and turns it until the test ends.
fn tapped(name: &str) -> PathBuf {
    use shard::Device;
    let handle = ::io::tap::TapHandle::default();
    let captures = Captures::new(vec![("fabric".to_owned(), vec![handle.clone()])]);
    let (listener, path) = bind_unix(&folder(name).join("s"), false).unwrap();
    serve_unix(listener, echo(), captures).unwrap();
    thread::spawn(move || {
        let (checksums, steering) = (shard::Checksums::default(), shard::Steering::Single);
        let info = shard::DeviceInfo { mac: [2; 6], mtu: 1500, checksums, steering };
        let mut tap = ::io::tap::Tap::new(Ticking { info, next: 0 }, &handle);
        let mut burst = shard::Burst::new();
        loop {
            tap.rx_burst(&mut burst);
            burst.drain();
            tap.wait(None);
        }
    });
    path
}

fn request(filter: &str, count: Option<u64>) -> CaptureRequest {
    CaptureRequest { port: "fabric".to_owned(), filter: filter.to_owned(), snaplen: 64, count, time: None }
}

/// How many frames a stream has, whether they follow each other, and how many it says are missing.
fn frames(mut bytes: &[u8]) -> (usize, bool, Option<u64>) {
    use ::io::tap::pcapng::{Block, first_block};
    let (mut numbers, mut end) = (Vec::new(), None);
    while let Some((block, len)) = first_block(bytes).unwrap() {
        match block {
            Block::Frame => numbers.push(bytes[28 + 59]),
            Block::End { missed } => end = Some(missed),
            Block::Other => {}
        }
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    let in_order = numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
    (numbers.len(), in_order, end)
}

#[test]
fn a_capture_streams_what_the_port_receives_until_it_is_ended() {
    let socket = tapped("capture");
    let read = |request: &CaptureRequest| {
        let (stream, first) = begin(Some(&socket), "POST", &request.path()).unwrap().unwrap();
        (stream, first)
    };
    // By count.
    let (mut stream, mut bytes) = read(&request("tcp", Some(20)));
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(frames(&bytes), (20, true, Some(0)));
    // By time, with a filter that takes none.
    let brief = CaptureRequest { time: Some(Duration::from_millis(50)), ..request("udp", None) };
    let (mut stream, mut bytes) = read(&brief);
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(frames(&bytes), (0, true, Some(0)));
    // By half-closing; meanwhile nobody else has the port.
    let (mut stream, mut bytes) = read(&request("", None));
    let refused = begin(Some(&socket), "POST", &request("", None).path()).unwrap().unwrap_err();
    assert_eq!(refused.code, 409, "{}", refused.body);
    crate::clock::sleep(Duration::from_millis(100));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    let (count, in_order, missed) = frames(&bytes);
    assert!(count > 10 && in_order && missed == Some(0), "{count} {in_order} {missed:?}");
    // By going away: the port is free again.
    drop(read(&request("", None)));
    let again = (0..100).any(|_| {
        crate::clock::sleep(Duration::from_millis(20));
        begin(Some(&socket), "POST", &request("", Some(1)).path()).unwrap().is_ok()
    });
    assert!(again, "a capture outlives its peer");
}

#[test]
fn a_capture_that_cannot_be_says_why() {
    let socket = tapped("refused");
    let refusal = |path: &str| begin(Some(&socket), "POST", path).unwrap().unwrap_err();
    let elsewhere = CaptureRequest { port: "eth0".to_owned(), ..request("", None) };
    let answer = refusal(&elsewhere.path());
    assert_eq!(answer.code, 404);
    assert_eq!(answer.body, "towpath: no port `eth0`; this node has fabric\n");
    let answer = refusal(&request("port http", None).path());
    assert!(
        answer.code == 400 && answer.body.contains("filter at character 6: expected a port"),
        "{answer:?}"
    );
    assert_eq!(refusal("/capture").code, 400);
    assert_eq!(refusal("/capture?port=fabric&count=many").code, 400);
    assert!(exchange(tcp(), b"POST /capture?port=x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 403 "));
}
