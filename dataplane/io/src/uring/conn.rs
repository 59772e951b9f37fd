//! What `uring` keeps of a connection besides what both backends do.

use std::os::fd::AsRawFd;

use io_uring::types::Fd;

/// Operations the kernel has in hand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ops {
    /// Completions to come.
    pub(super) count: u8,
    pub(super) recv: Recv,
    pub(super) sending: bool,
    /// Waits in `rearm`.
    pub(super) rearm: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Recv {
    #[default]
    Off,
    Armed,
    Cancelling,
}

/// A connection.
pub(super) type Conn = crate::conns::Conn<Ops>;

impl Conn {
    /// What the ring calls it.
    pub(super) fn raw(&self) -> Fd {
        Fd(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    pub(super) fn wants_recv(&self) -> bool {
        self.own.recv == Recv::Off && self.may_receive()
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
