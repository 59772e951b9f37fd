//! One HTTP/1.1 request and its answer (RFC 9112), with bounds.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use super::Answer;

/// A peer that neither sends nor takes for this long is left.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// Request line and headers.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 32;
/// Reads a request may come in: with [`IO_TIMEOUT`], what a slow peer can hold a connection for.
const READS_MAX: usize = 16;

/// Reads a request and answers it. One that `answer` leaves is given back, with its path.
pub(super) fn serve<S: Read + Write>(
    mut stream: S,
    answer: impl FnOnce(&str, &str) -> Option<Answer>,
) -> Option<(S, String)> {
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    for _ in 0..READS_MAX {
        let count = match stream.read(&mut chunk) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let method = request.method.unwrap_or_default();
                let is_head = method == "HEAD";
                let path = request.path.unwrap_or_default();
                let Some(reply) = answer(method, path) else {
                    let path = path.to_owned();
                    return Some((stream, path));
                };
                write(&mut stream, &reply, is_head);
                return None;
            }
            Ok(httparse::Status::Partial) if head.len() <= HEAD_BYTES_MAX => {}
            Ok(httparse::Status::Partial) => {
                let reply = Answer { code: 431, body: "the request's head is too large\n".into() };
                write(&mut stream, &reply, false);
                return None;
            }
            Err(_) => {
                let reply =
                    Answer { code: 400, body: "this is the admin address; it speaks HTTP/1.1\n".into() };
                write(&mut stream, &reply, false);
                return None;
            }
        }
    }
    None
}

/// Begins an answer whose length nobody knows yet: the end of the stream is its end.
pub(super) fn begin(stream: &mut impl Write, kind: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n")
}

pub(super) fn write(stream: &mut impl Write, answer: &Answer, is_head: bool) {
    let reason = match answer.code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        answer.code,
        answer.body.len()
    );
    let mut bytes = head.into_bytes();
    if !is_head {
        bytes.extend_from_slice(answer.body.as_bytes());
    }
    // A peer that went away has no use for an error.
    let _ = stream.write_all(&bytes);
    let _ = stream.flush();
}
