//! Asks a running node over its socket: what `status`, `reload` and `capture` do.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, RELOAD_TIMEOUT, socket_default};

/// How long the node may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More is no answer of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Sends `METHOD PATH` to the node whose socket this is, or to the one at the usual place.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn ask(socket: Option<&Path>, method: &str, path: &str) -> Result<Answer, String> {
    let (stream, shown) = connect(socket)?;
    exchange(stream, method, path).map_err(|e| silent(&shown, &e))
}

/// Sends the same, and leaves a 200's body to be read: the stream, and what of the body has come already.
///
/// # Errors
/// One line that says what to do, or what the node said.
pub(crate) fn begin(
    socket: Option<&Path>,
    method: &str,
    path: &str,
) -> Result<Result<(UnixStream, Vec<u8>), Answer>, String> {
    let (stream, shown) = connect(socket)?;
    open(stream, method, path).map_err(|e| silent(&shown, &e))
}

fn silent(shown: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("the node on {shown} did not answer; it serves root and its own user only")
        }
        _ => format!("{shown}: {error}"),
    }
}

fn connect(socket: Option<&Path>) -> Result<(UnixStream, String), String> {
    let default = socket_default();
    let socket = socket.unwrap_or(&default);
    let shown = socket.display().to_string();
    if shown.parse::<SocketAddr>().is_ok() {
        return Err(format!(
            "{shown} is the admin address; this command needs the socket, as the ready line names it"
        ));
    }
    let socket = Path::new(shown.strip_prefix("unix:").unwrap_or(&shown));
    let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no node listens on {shown}; start one with `towpath run APP.adn`, or say --admin SOCKET")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{shown} belongs to another user; run this as that user, or as root")
        }
        _ => format!("{shown}: {e}"),
    })?;
    Ok((stream, shown))
}

/// Reads until the head is complete; what is no 200 to its end.
fn open(
    mut stream: UnixStream,
    method: &str,
    path: &str,
) -> io::Result<Result<(UnixStream, Vec<u8>), Answer>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: towpath\r\nconnection: close\r\n\r\n")?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let Some((code, at)) = head(&bytes)? else { continue };
        let mut body = bytes.split_off(at);
        if code == 200 {
            return Ok(Ok((stream, body)));
        }
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut body)?;
        return Ok(Err(Answer { code, body: String::from_utf8_lossy(&body).into_owned() }));
    }
}

/// The code, and where the body begins; `None` until the head is complete.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(at)) => Ok(Some((response.code.unwrap_or(0), at))),
        Ok(httparse::Status::Partial) if bytes.len() < 16 << 10 => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn exchange(mut stream: UnixStream, method: &str, path: &str) -> io::Result<Answer> {
    let wait = if path == "/reload" { RELOAD_TIMEOUT + TIMEOUT } else { TIMEOUT };
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: towpath\r\nconnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (code, at) = head(&bytes)?.ok_or(io::ErrorKind::InvalidData)?;
    let body = bytes.get(at..).unwrap_or_default();
    Ok(Answer { code, body: String::from_utf8_lossy(body).into_owned() })
}
