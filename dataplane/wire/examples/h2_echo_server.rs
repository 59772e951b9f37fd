//! An HTTP/2 server over `H2Conn` and blocking sockets, a thread per connection, for conformance tools:
//!
//!     cargo run --release -p towpath-wire --example h2_echo_server -- 127.0.0.1:8080
//!     h2spec -S -p 8080
//!
//! It answers every request with 200 and a small body once the request has ended. It shows the call order
//! of `H2Conn`; it is no server to put anywhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use towpath_wire as wire;
use wire::h2::{Config, H2Conn, H2Event, Input, Role, StreamKey};

const BODY: &[u8] = b"hello from towpath\n";

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let listener = TcpListener::bind(&address)?;
    eprintln!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "an example reads its own clock")]
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let zero = Instant::now();
    let now = || wire::Instant(u64::try_from(zero.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut conn = H2Conn::new(Role::Server, &Config::default(), now());
    let mut waiting = Waiting::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        flush(&mut conn, &mut stream)?;
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(e) => return Err(e),
        };
        let mut input = Input::new(buffer.get(..n).unwrap_or(&[]));
        let outcome = loop {
            match conn.next(now(), &mut input) {
                Ok(Some(event)) => waiting.handle(&mut conn, event),
                Ok(None) => break conn.handle_timeout(now()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = outcome {
            eprintln!("{}: {}", error.fault.name(), error.reason.0);
            flush(&mut conn, &mut stream)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Wait for the peer to read it before the socket goes.
            let _ = stream.read(&mut buffer);
            return Ok(());
        }
    }
}

fn flush(conn: &mut H2Conn, stream: &mut TcpStream) -> std::io::Result<()> {
    while !conn.tx().is_empty() {
        let n = stream.write(conn.tx())?;
        conn.tx_advance(n);
    }
    Ok(())
}

/// Streams whose body has not been taken whole: how much was.
#[derive(Default)]
struct Waiting(Vec<(StreamKey, usize)>);

impl Waiting {
    fn handle(&mut self, conn: &mut H2Conn, event: H2Event) {
        match event {
            H2Event::Headers { stream, end_stream, .. } if end_stream => self.answer(conn, stream),
            H2Event::Data { stream, range, end_stream, .. } => {
                conn.release(stream, range.len());
                if end_stream {
                    self.answer(conn, stream);
                }
            }
            H2Event::Writable { stream, .. } => {
                if let Some(at) = self.0.iter().position(|w| w.0 == stream) {
                    let (_, sent) = self.0.swap_remove(at);
                    self.send(conn, stream, sent);
                }
            }
            H2Event::Reset { stream, .. } => self.0.retain(|w| w.0 != stream),
            _ => {}
        }
    }

    fn answer(&mut self, conn: &mut H2Conn, stream: StreamKey) {
        let mut list = wire::Headers::new();
        list.push(b":status", b"200");
        list.push(b"content-type", b"text/plain");
        conn.send_headers(stream, &list, false);
        self.send(conn, stream, 0);
    }

    fn send(&mut self, conn: &mut H2Conn, stream: StreamKey, sent: usize) {
        let rest = BODY.get(sent..).unwrap_or(&[]);
        let taken = conn.send_data(stream, rest, true);
        if taken < rest.len() {
            self.0.push((stream, sent + taken));
        }
    }
}
