//! The first bytes of a connection: the client preface, or whatever a peer that is no HTTP/2 client sends
//! instead (RFC 9113 section 3.4), named so that its operator finds the mistake.

use super::frame::{self, PREFACE, kind};
use super::recv::Rx;
use super::{Fault, H2Conn, Input, Role};

/// What the first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guess {
    /// Too few to tell.
    Unsure,
    /// The preface, whole.
    Preface,
    /// Something else.
    Wrong(Fault),
}

const METHODS: [&[u8]; 9] =
    [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];

/// For a client that speaks HTTP/1: it can show this to its user.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
content-length: 71\r\n\r\nthis listener speaks HTTP/2 with prior knowledge (h2c), and not HTTP/1\n";

fn guess_client(bytes: &[u8]) -> Guess {
    if bytes.starts_with(PREFACE) {
        return Guess::Preface;
    }
    let is_tls = bytes.first() == Some(&0x16) && bytes.get(1).is_none_or(|b| *b == 3);
    if is_tls && bytes.len() > 1 {
        return Guess::Wrong(Fault::ClientSpeaksTls);
    }
    if METHODS.iter().any(|m| bytes.starts_with(m)) {
        return Guess::Wrong(Fault::ClientSpeaksHttp1);
    }
    if is_tls || PREFACE.starts_with(bytes) || METHODS.iter().any(|m| m.starts_with(bytes)) {
        return Guess::Unsure;
    }
    Guess::Wrong(Fault::Preface)
}

/// A server's first bytes, at least a frame head: none that begins like this is a frame we would take.
pub(crate) fn guess_server(bytes: &[u8]) -> Option<Fault> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Fault::ServerSpeaksHttp1),
        [0x15 | 0x16, 3, ..] => Some(Fault::ServerSpeaksTls),
        _ => None,
    }
}

impl H2Conn {
    /// Reads the client's preface; our SETTINGS answer it. A server has none but its first frame.
    pub(super) fn recv_preface(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        if self.role == Role::Client {
            self.rx = Rx::First;
            return Ok(());
        }
        let wanted = PREFACE.len() - self.part.len();
        let fresh = input.rest();
        let fresh = fresh.get(..wanted).unwrap_or(fresh);
        input.at += fresh.len();
        self.part.extend_from_slice(fresh);
        match guess_client(&self.part) {
            Guess::Unsure => Ok(()),
            Guess::Wrong(fault) => Err(fault),
            Guess::Preface => {
                self.part.clear();
                self.rx = Rx::First;
                self.ours.preface_arrived(self.now);
                self.send_settings();
                Ok(())
            }
        }
    }

    /// GOAWAY, or what the peer understands better.
    pub(super) fn say_last_words(&mut self, fault: Fault) {
        if fault == Fault::ClientSpeaksHttp1 {
            self.tx.clear();
            self.tx.buf.extend_from_slice(HTTP1_ANSWER);
            return;
        }
        let last = if self.role == Role::Server { self.id_max } else { 0 };
        let last = self.goaway_sent.map_or(last, |sent| sent.min(last));
        let head = [last.to_be_bytes(), fault.reason().0.to_be_bytes()];
        let name = fault.name().as_bytes();
        // The first frame of a server is its SETTINGS (section 3.4), even when all it has to say is goodbye.
        if self.role == Role::Server && self.rx == Rx::Preface {
            self.send_settings();
        }
        #[expect(clippy::cast_possible_truncation, reason = "names of faults are short")]
        let len = 8 + name.len() as u32;
        let head9 = frame::Head { len, kind: kind::GOAWAY, flags: 0, id: 0 };
        self.tx.buf.extend_from_slice(&head9.emit());
        self.tx.buf.extend_from_slice(head.as_flattened());
        self.tx.buf.extend_from_slice(name);
        self.tx.pushed(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_3_4_first_bytes_are_named_however_they_are_cut() {
        let table: [(&[u8], Guess); 9] = [
            (PREFACE, Guess::Preface),
            (b"GET / HTTP/1.1\r\n", Guess::Wrong(Fault::ClientSpeaksHttp1)),
            (b"POST /a HTTP/1.1", Guess::Wrong(Fault::ClientSpeaksHttp1)),
            (b"PUT / HTTP/1.1", Guess::Wrong(Fault::ClientSpeaksHttp1)),
            (b"CONNECT a:1 HTTP/1.1", Guess::Wrong(Fault::ClientSpeaksHttp1)),
            (&[0x16, 3, 1, 2, 0], Guess::Wrong(Fault::ClientSpeaksTls)),
            (&[0x16, 4], Guess::Wrong(Fault::Preface)),
            (b"INVALID CONNECTION PREFACE\r\n\r\n", Guess::Wrong(Fault::Preface)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ", Guess::Wrong(Fault::Preface)),
        ];
        for (bytes, wanted) in table {
            let first = (1..=bytes.len()).map(|n| guess_client(&bytes[..n])).find(|g| *g != Guess::Unsure);
            assert_eq!(first, Some(wanted), "{:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_http1_answer_has_the_length_it_says() {
        let text = core::str::from_utf8(HTTP1_ANSWER).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&alloc::format!("content-length: {}\r\n", body.len())));
    }
}
