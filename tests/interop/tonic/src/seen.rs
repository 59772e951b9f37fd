//! What tonic's own interface does not show: the compressed flag of each received message, and trailers of
//! a successful answer. A layer around the service adds both.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tower::{Layer, Service};

/// The flags of the messages received so far, in a request's extensions.
#[derive(Clone, Default)]
pub struct Flags(pub Arc<Mutex<Vec<bool>>>);

/// The calls named by `x-test-id` that were cancelled.
pub fn cancelled() -> &'static Mutex<HashSet<String>> {
    static CANCELLED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    CANCELLED.get_or_init(Mutex::default)
}

/// The layer.
#[derive(Clone)]
pub struct SeenLayer;

impl<S> Layer<S> for SeenLayer {
    type Service = Seen<S>;

    fn layer(&self, inner: S) -> Seen<S> {
        Seen { inner }
    }
}

/// A service with the layer around it.
#[derive(Clone)]
pub struct Seen<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Seen<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let flags = Flags::default();
        parts.extensions.insert(flags.clone());
        let trailers = asked(&parts.headers);
        let initial = parts.headers.get("x-grpc-test-echo-initial").cloned();
        let body = Body::new(Watched { body, flags, head: Vec::new(), skip: 0 });
        let answer = self.inner.call(Request::from_parts(parts, body));
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(value) = initial {
                response.headers_mut().insert("x-grpc-test-echo-initial", value);
            }
            Ok(response.map(|body| Body::new(Trailed { body, trailers })))
        })
    }
}

/// The trailers that request metadata asks for.
fn asked(headers: &HeaderMap) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(value) = headers.get("x-grpc-test-echo-trailing-bin") {
        trailers.insert("x-grpc-test-echo-trailing-bin", value.clone());
    }
    if headers.contains_key("x-test-report") {
        let left = text("grpc-timeout").map_or("none".to_owned(), |value| millis(&value).to_string());
        insert(&mut trailers, "x-test-remaining-ms", &left);
    }
    if let Some(id) = text("x-test-was-cancelled") {
        let found = cancelled().lock().unwrap().contains(&id);
        insert(&mut trailers, "x-test-cancelled", if found { "yes" } else { "no" });
    }
    trailers
}

fn insert(trailers: &mut HeaderMap, name: &'static str, value: &str) {
    trailers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
}

/// A `grpc-timeout` in milliseconds.
fn millis(value: &str) -> u64 {
    let (digits, unit) = value.split_at(value.len() - 1);
    let amount: u64 = digits.parse().unwrap_or(0);
    match unit {
        "H" => amount * 3_600_000,
        "M" => amount * 60_000,
        "S" => amount * 1000,
        "m" => amount,
        "u" => amount / 1000,
        _ => amount / 1_000_000,
    }
}

/// A request body whose message heads are read as they pass.
struct Watched {
    body: Body,
    flags: Flags,
    head: Vec<u8>,
    skip: usize,
}

impl Watched {
    fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let [flag, a, b, c, d] = self.head[..] {
                self.skip = u32::from_be_bytes([a, b, c, d]) as usize;
                self.flags.0.lock().unwrap().push(flag == 1);
                self.head.clear();
            }
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.look(&data.clone());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A response body with more trailers than the service gave.
struct Trailed {
    body: Body,
    trailers: HeaderMap,
}

impl HttpBody for Trailed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                trailers.extend(std::mem::take(&mut self.trailers));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
