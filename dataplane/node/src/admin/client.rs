//! Asks a running node over its socket: what `status` and `reload` do.

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
    exchange(stream, method, path).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("the node on {shown} did not answer; it serves root and its own user only")
        }
        _ => format!("{shown}: {e}"),
    })
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
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&bytes) {
        Ok(httparse::Status::Complete(at)) => Ok(Answer {
            code: response.code.unwrap_or(0),
            body: String::from_utf8_lossy(bytes.get(at..).unwrap_or_default()).into_owned(),
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
