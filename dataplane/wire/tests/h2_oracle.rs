//! The `h2` crate as the other end, both ways, in memory: bodies, trailers, windows and resets agree.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use towpath_wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Reason, Role, StreamKey};
use towpath_wire::{Headers, Instant, Token};

const SIZES: [usize; 8] = [0, 1, 5, 16_384, 16_385, 65_535, 70_000, 300_000];

fn body(i: usize) -> Vec<u8> {
    (0..SIZES[i % SIZES.len()]).map(|b| (b * 31 + i) as u8).collect()
}

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name.as_bytes(), value.as_bytes());
    }
    out
}

/// One stream on our side.
#[derive(Default)]
struct Call {
    key: Option<StreamKey>,
    received: Vec<u8>,
    trailer: Option<Vec<u8>>,
    to_send: Vec<u8>,
    sent: usize,
    ended: bool,
    reset: Option<Reason>,
}

/// Our side: a connection over one end of a pipe, and its calls by tag.
struct Ours {
    conn: H2Conn,
    pipe: DuplexStream,
    calls: Vec<Call>,
    is_server: bool,
}

impl Ours {
    fn new(role: Role, pipe: DuplexStream) -> Self {
        let conn = H2Conn::new(role, &Config::default(), Instant(1));
        Self { conn, pipe, calls: Vec::new(), is_server: role == Role::Server }
    }

    /// Sends what can be sent; then a server's trailers.
    fn push(&mut self, tag: usize) {
        let call = &mut self.calls[tag];
        let key = call.key.unwrap();
        call.sent += self.conn.send_data(key, &call.to_send[call.sent..], !self.is_server);
        if self.is_server && call.sent == call.to_send.len() {
            assert!(self.conn.send_headers(key, &list(&[("x-check", &call.sent.to_string())]), true));
        }
    }

    fn handle(&mut self, event: H2Event, bytes: &[u8]) {
        match event {
            H2Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                let tag = self.calls.len();
                self.conn.set_tag(stream, tag as u32);
                let reset = self.conn.headers().get(Token::Path) == Some(b"/reset");
                self.calls.push(Call { key: Some(stream), ..Call::default() });
                if reset {
                    self.conn.reset(stream, Reason::ENHANCE_YOUR_CALM);
                } else if end_stream {
                    self.end(tag);
                }
            }
            H2Event::Headers { tag, kind, end_stream, .. } => {
                if kind == HeadersKind::Trailers {
                    let check = self.conn.headers().get_name(b"x-check", 0).map(<[u8]>::to_vec);
                    self.calls[tag as usize].trailer = check;
                }
                if end_stream {
                    self.end(tag as usize);
                }
            }
            H2Event::Data { stream, tag, range, end_stream } => {
                self.conn.release(stream, range.len());
                self.calls[tag as usize].received.extend(&bytes[range]);
                if end_stream {
                    self.end(tag as usize);
                }
            }
            H2Event::Writable { tag, .. } => self.push(tag as usize),
            H2Event::Reset { tag, reason, .. } => {
                self.calls[tag as usize].reset = Some(reason);
                self.calls[tag as usize].ended = true;
            }
            _ => {}
        }
    }

    /// The peer has ended: a server echoes.
    fn end(&mut self, tag: usize) {
        let call = &mut self.calls[tag];
        call.ended = true;
        if self.is_server {
            call.to_send = call.received.clone();
            let key = call.key.unwrap();
            assert!(self.conn.send_headers(key, &list(&[(":status", "200")]), false));
            self.push(tag);
        }
    }

    /// Until the peer closes, or all calls have ended (client).
    async fn run(&mut self) {
        let mut buffer = vec![0; 50_000];
        loop {
            while !self.conn.tx().is_empty() {
                let Ok(n) = self.pipe.write(self.conn.tx()).await else { return };
                if self.conn.tx_advance(n) {
                    self.pull(&[]);
                }
            }
            if !self.is_server && self.calls.iter().all(|c| c.ended) {
                return;
            }
            match self.pipe.read(&mut buffer).await {
                Ok(n) if n > 0 => self.pull(&buffer[..n]),
                _ => return,
            }
        }
    }

    fn pull(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while let Some(event) = self.conn.next(Instant(1), &mut input).expect("h2 is no hostile peer") {
            self.handle(event, bytes);
        }
    }
}

fn block_on(f: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f);
}

/// Sends a body as the window allows.
async fn send_all(stream: &mut h2::SendStream<Bytes>, body: Vec<u8>, end: bool) {
    let mut rest = Bytes::from(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let n = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let chunk = rest.split_to(n.min(rest.len()));
        stream.send_data(chunk, end && rest.is_empty()).unwrap();
    }
}

async fn receive_all(stream: &mut h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        all.extend(chunk);
    }
    all
}

#[test]
fn an_h2_client_is_served() {
    block_on(async {
        let (near, far) = tokio::io::duplex(30_000);
        let mut ours = Ours::new(Role::Server, near);
        let theirs = async move {
            let (client, conn) = h2::client::handshake(far).await.unwrap();
            let calls = async move {
                let mut running = Vec::new();
                for i in 0..24 {
                    let mut client = client.clone().ready().await.unwrap();
                    running.push(tokio::spawn(async move {
                        let path = if i == 20 { "http://a/reset" } else { "http://a/echo" };
                        let request = Request::post(path).header("x-n", i.to_string()).body(()).unwrap();
                        let has_body = !body(i).is_empty() && i != 20;
                        let (response, mut sender) = client.send_request(request, !has_body).unwrap();
                        if has_body {
                            send_all(&mut sender, body(i), true).await;
                        }
                        if i == 20 {
                            let error = response.await.unwrap_err();
                            assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
                            return;
                        }
                        let mut stream = response.await.unwrap().into_body();
                        assert_eq!(receive_all(&mut stream).await, body(i));
                        let trailers = stream.trailers().await.unwrap().unwrap();
                        assert_eq!(trailers["x-check"], body(i).len().to_string());
                    }));
                }
                for call in running {
                    call.await.unwrap();
                }
            };
            let conn = tokio::spawn(conn);
            calls.await;
            conn.abort();
        };
        tokio::task::LocalSet::new()
            .run_until(async {
                let theirs = tokio::task::spawn_local(theirs);
                ours.run().await;
                theirs.await.unwrap();
            })
            .await;
        assert_eq!(ours.calls.len(), 24);
        assert_eq!(ours.conn.streams_open(), 0);
    });
}

#[test]
fn an_h2_server_is_called() {
    block_on(async {
        let (near, far) = tokio::io::duplex(30_000);
        let theirs = tokio::spawn(async move {
            let mut server = h2::server::Builder::new()
                .initial_window_size(20_000)
                .max_concurrent_streams(1000)
                .handshake::<_, Bytes>(far)
                .await
                .unwrap();
            while let Some(Ok((request, mut respond))) = server.accept().await {
                tokio::spawn(async move {
                    if request.uri().path() == "/reset" {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        return;
                    }
                    assert_eq!(request.headers()["te"], "trailers");
                    let all = receive_all(&mut request.into_body()).await;
                    let check = all.len();
                    let mut sender = respond.send_response(Response::new(()), false).unwrap();
                    send_all(&mut sender, all, false).await;
                    let trailers = HeaderMap::from_iter([(
                        http::HeaderName::from_static("x-check"),
                        http::HeaderValue::from(check),
                    )]);
                    sender.send_trailers(trailers).unwrap();
                });
            }
        });
        let mut ours = Ours::new(Role::Client, near);
        for i in 0..24 {
            let key = ours.conn.open(i as u32).unwrap();
            let path = if i == 20 { "/reset" } else { "/echo" };
            let request = list(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", path),
                ("te", "trailers"),
            ]);
            assert!(ours.conn.send_headers(key, &request, false));
            ours.calls.push(Call { key: Some(key), to_send: body(i), ..Call::default() });
            ours.push(i);
        }
        ours.run().await;
        for (i, call) in ours.calls.iter().enumerate() {
            if i == 20 {
                assert_eq!(call.reset, Some(Reason::REFUSED_STREAM));
                continue;
            }
            assert!(call.received == body(i), "call {i}");
            assert_eq!(call.trailer, Some(body(i).len().to_string().into_bytes()));
        }
        theirs.abort();
    });
}
