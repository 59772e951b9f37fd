//! What `epoll` keeps of a connection besides what both backends do.

/// Readiness, as last reported.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel reported the end of the peer's stream or an error: read on until it shows.
    pub(super) ending: bool,
    /// Waits in `ready`.
    pub(super) queued: bool,
}

/// A connection.
pub(super) type Conn = crate::conns::Conn<Ready>;

impl Conn {
    pub(super) fn wants_read(&self) -> bool {
        self.own.readable && self.may_receive()
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
