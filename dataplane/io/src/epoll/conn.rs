//! One connection, as `epoll` keeps it.

use std::os::fd::OwnedFd;

use shard::Why;

use crate::base::Stage;
use crate::os;
use crate::outgoing::Outgoing;

/// A connection.
pub(super) struct Conn {
    /// `None` if there never was one: the connect failed before it began.
    pub(super) fd: Option<OwnedFd>,
    pub(super) out: Outgoing,
    pub(super) stage: Stage,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel reported the end of the peer's stream or an error: read on until it shows.
    pub(super) ending: bool,
    pub(super) paused: bool,
    pub(super) eof: bool,
    /// A FIN is to follow what is pending, or has.
    pub(super) fin: bool,
    pub(super) fin_sent: bool,
    /// `tx` was cut: a `Writable` is owed.
    pub(super) cut: bool,
    pub(super) dirty: bool,
    /// Waits in `ready`.
    pub(super) queued: bool,
    pub(super) accepted: bool,
    /// A write failed; what was received before is still being told.
    pub(super) broken: Option<Why>,
}

impl Conn {
    pub(super) fn new(fd: Option<OwnedFd>, stage: Stage, accepted: bool) -> Self {
        Self {
            fd,
            out: Outgoing::default(),
            stage,
            readable: false,
            writable: stage == Stage::Open,
            ending: false,
            paused: false,
            eof: false,
            fin: false,
            fin_sent: false,
            cut: false,
            dirty: false,
            queued: false,
            accepted,
            broken: None,
        }
    }

    /// The socket's pending error.
    pub(super) fn outcome(&self) -> Result<(), Why> {
        self.fd.as_ref().map_or(Err(Why::Other), |fd| os::connect_outcome(fd).map_err(os::why))
    }

    /// A RST is to be sent when the descriptor closes.
    pub(super) fn abort(&self) {
        if let Some(fd) = &self.fd {
            os::abort_on_close(fd);
        }
    }

    pub(super) fn wants_read(&self) -> bool {
        self.stage == Stage::Open && self.readable && !self.paused && !self.eof
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_idle_connection_is_small() {
        // Its buffers are with the pools; ten thousand of them take little more than a megabyte.
        assert!(size_of::<super::Conn>() <= 128, "{} bytes", size_of::<super::Conn>());
    }
}
