//! `/capture`: taps a raw port and streams what it copies as pcapng, until somebody ends it.
//!
//! Runs on the connection's own thread. The shards only copy; if this thread or the peer is too slow, buffers
//! run out and frames are counted as missed. Half-closing its side is how a peer asks for a proper end.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ::io::tap::{Capture, CaptureSpec, Filter, SNAPLEN_MAX, TapHandle, pcapng};
use rustix::net::RecvFlags;

use super::{Answer, http, query};
use crate::clock;

/// How often the taps are drained.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// Memory for copies, shared by the port's shards.
const BUFFER_BYTES: usize = 32 << 20;
/// Buffers of each shard, at most: what comes between two drains.
const BUFFERS_MAX: usize = 8192;

/// What is asked of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// The port's name.
    pub(crate) port: String,
    /// Which frames, see [`Filter`].
    pub(crate) filter: String,
    /// Bytes of each frame.
    pub(crate) snaplen: usize,
    /// Frames until it ends by itself.
    pub(crate) count: Option<u64>,
    /// How long until it ends by itself.
    pub(crate) time: Option<Duration>,
}

impl Request {
    /// As the path of a POST.
    pub(crate) fn path(&self) -> String {
        let optional = [
            ("count", self.count.map(|count| count.to_string())),
            ("ms", self.time.map(|time| time.as_millis().to_string())),
        ];
        let pairs = [
            ("port", self.port.clone()),
            ("filter", self.filter.clone()),
            ("snaplen", self.snaplen.to_string()),
        ];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
        query::encode("/capture", pairs.into_iter().chain(optional))
    }

    fn parse(path: &str) -> Option<Self> {
        let number = |name| query::value(path, name).map(|text| text.parse::<u64>().ok());
        Some(Self {
            port: query::value(path, "port")?,
            filter: query::value(path, "filter").unwrap_or_default(),
            snaplen: usize::try_from(number("snaplen").unwrap_or(Some(SNAPLEN_MAX as u64))?).ok()?,
            count: number("count").map_or(Some(None), |count| count.map(Some))?,
            time: number("ms").map_or(Some(None), |ms| ms.map(|ms| Some(Duration::from_millis(ms))))?,
        })
    }
}

/// The taps of the node's raw ports, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures {
    ports: Arc<Vec<(String, Vec<TapHandle>)>>,
}

impl Captures {
    /// Of these ports; each has a tap for each shard.
    pub(crate) fn new(ports: Vec<(String, Vec<TapHandle>)>) -> Self {
        Self { ports: Arc::new(ports) }
    }

    /// Answers one request, to its end.
    pub(super) fn serve(&self, mut stream: UnixStream, path: &str) {
        match self.arm(path) {
            // A peer that went away has no use for an error.
            Ok((request, capture)) => drop(stream_out(&mut stream, &request, capture)),
            Err(refused) => http::write(&mut stream, &refused, false),
        }
    }

    fn arm(&self, path: &str) -> Result<(Request, Capture), Answer> {
        let refuse = |code, line: String| Answer { code, body: format!("towpath: {line}\n") };
        let request = Request::parse(path).ok_or_else(|| {
            refuse(400, "expected /capture?port=NAME and filter=, snaplen=, count= or ms= behind".to_owned())
        })?;
        let port = self.ports.iter().find(|(name, _)| *name == request.port);
        let (_, handles) = port.ok_or_else(|| {
            let names: Vec<&str> = self.ports.iter().map(|(name, _)| name.as_str()).collect();
            let known = if names.is_empty() {
                "this node has no raw ports, and kernel sockets are seen by tcpdump".to_owned()
            } else {
                format!("this node has {}", names.join(", "))
            };
            refuse(404, format!("no port `{}`; {known}", request.port))
        })?;
        let filter = Filter::parse(&request.filter).map_err(|e| refuse(400, format!("filter {e}")))?;
        let room = BUFFER_BYTES / handles.len().max(1) / request.snaplen.clamp(64, SNAPLEN_MAX);
        let spec = CaptureSpec { filter, snaplen: request.snaplen, buffers: room.clamp(64, BUFFERS_MAX) };
        let capture = Capture::arm(handles, &spec);
        let busy = || refuse(409, format!("another capture of `{}` is running; one at a time", request.port));
        capture.ok_or_else(busy).map(|capture| (request, capture))
    }
}

/// Streams until the peer half-closes or goes, the count is reached or the time is over.
fn stream_out(stream: &mut UnixStream, request: &Request, mut capture: Capture) -> io::Result<()> {
    http::begin(stream, "application/x-pcapng")?;
    let start = clock::monotonic();
    let epoch_ns = u64::try_from(clock::wall_ns() - i128::from(start.0)).unwrap_or(0);
    let mut out = Vec::new();
    let (filter, snaplen) = (request.filter.trim(), request.snaplen.min(SNAPLEN_MAX));
    let writer = pcapng::Writer::begin(&mut out, &request.port, filter, snaplen, epoch_ns);
    let (mut left, mut taken) = (request.count.unwrap_or(u64::MAX), 0);
    loop {
        // What was copied before the end is still drained.
        let is_last = is_over(stream, request, start);
        if is_last {
            capture.stop();
        }
        let drained = capture.drain(|record| {
            if left > 0 {
                writer.frame(&mut out, record);
                (left, taken) = (left - 1, taken + 1);
            }
        });
        if (is_last && drained == 0) || left == 0 {
            break;
        }
        stream.write_all(&out)?;
        out.clear();
        if drained == 0 {
            clock::sleep(DRAIN_EVERY);
        }
    }
    let missed = capture.missed();
    writer.end(&mut out, clock::monotonic().0, taken + missed, missed);
    stream.write_all(&out)
}

fn is_over(stream: &UnixStream, request: &Request, start: shard::Instant) -> bool {
    let is_late =
        request.time.is_some_and(|time| u128::from(clock::monotonic().since_ns(start)) >= time.as_nanos());
    // Nothing but an end is expected of the peer.
    let peer = rustix::net::recv(stream, &mut [0_u8; 16][..], RecvFlags::DONTWAIT);
    is_late || matches!(peer, Ok((0, _)))
}
