//! `wire::h2` over the far end of a link: what scripted gRPC peers share.

use wire::Instant;
use wire::h2::{ConnError, H2Conn, H2Event, Input};

use crate::peer::PeerIo;

/// A connection and its events, taken one read at a time.
#[derive(Debug)]
pub(crate) struct H2Io {
    pub(crate) conn: H2Conn,
    /// The proxy broke a rule, or was told of ours.
    pub(crate) error: Option<ConnError>,
}

impl H2Io {
    pub(crate) fn new(conn: H2Conn) -> Self {
        Self { conn, error: None }
    }

    /// Reads at most `max` bytes and hands on what they mean, one event at a time.
    pub(crate) fn receive(
        &mut self,
        io: &mut PeerIo<'_>,
        max: usize,
        mut act: impl FnMut(&mut H2Conn, &mut PeerIo<'_>, H2Event, &[u8]),
    ) {
        let bytes = io.read(max);
        let now = Instant(io.now());
        let mut input = Input { bytes: &bytes, at: 0 };
        while self.error.is_none() {
            match self.conn.next(now, &mut input) {
                Ok(Some(event)) => {
                    let data = match &event {
                        H2Event::Data { range, .. } => bytes.get(range.clone()).unwrap_or(&[]),
                        _ => &[],
                    };
                    act(&mut self.conn, io, event, data);
                }
                Ok(None) => break,
                Err(error) => {
                    io.note(format_args!("connection error {:?}", error.fault));
                    self.error = Some(error);
                }
            }
        }
    }

    /// Writes what is pending. True if streams that waited for room should be asked again, by `receive`.
    pub(crate) fn transmit(&mut self, io: &mut PeerIo<'_>) -> bool {
        let mut again = false;
        loop {
            let bytes = self.conn.tx();
            if bytes.is_empty() {
                return again;
            }
            let given = bytes.len();
            let taken = io.write(bytes);
            again |= self.conn.tx_advance(taken);
            if taken < given {
                return again;
            }
        }
    }

    /// Time for SETTINGS that were never acknowledged and the like.
    pub(crate) fn tick(&mut self, io: &mut PeerIo<'_>) {
        let now = Instant(io.now());
        if self.error.is_none()
            && self.conn.poll_timeout().is_some_and(|at| at <= now)
            && let Err(error) = self.conn.handle_timeout(now)
        {
            io.note(format_args!("connection error {:?}", error.fault));
            self.error = Some(error);
        }
    }
}
