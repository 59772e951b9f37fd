//! One shard's sockets, whichever backend carries them.

use std::io;
use std::sync::Arc;

use abi::Addr;
use shard::{Burst, ConnId, Event, Instant, Transport, Via};

use crate::{Backend, Config, Counters, Listeners, Placement, Waker};

/// A linear handle to received bytes; dropping it gives the buffer back.
#[derive(Debug)]
pub struct Rx(());

/// Kernel sockets of one shard. Opened on the shard's own thread and never moved from it.
pub enum Sockets {
    /// Over io_uring.
    #[doc(hidden)]
    Uring(std::rc::Rc<()>),
    /// Over epoll.
    #[doc(hidden)]
    Epoll(std::rc::Rc<()>),
}

impl Sockets {
    /// Opens the sockets of shard number `shard` on the calling thread. `Backend::Auto` falls back to epoll;
    /// an explicit backend fails if the kernel refuses it.
    pub fn open(
        config: &Config,
        listeners: &Listeners,
        shard: usize,
        placement: Arc<Placement>,
    ) -> io::Result<Self> {
        let _ = (config, listeners, shard, placement);
        unimplemented!()
    }

    /// What it became: `Uring` or `Epoll`.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Uring(_) => Backend::Uring,
            Self::Epoll(_) => Backend::Epoll,
        }
    }

    /// Ends this shard's `wait` from any thread.
    pub fn waker(&self) -> Waker {
        unimplemented!()
    }

    /// What these sockets have done; lives on after them.
    pub fn counters(&self) -> Arc<Counters> {
        unimplemented!()
    }
}

impl Transport for Sockets {
    type Rx = Rx;

    fn rx_burst(&mut self, out: &mut Burst<Event<Rx>>) {
        let _ = out;
        unimplemented!()
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        let _ = rx;
        unimplemented!()
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        let _ = (conn, slices);
        unimplemented!()
    }

    fn pause_rx(&mut self, conn: ConnId) {
        let _ = conn;
        unimplemented!()
    }

    fn resume_rx(&mut self, conn: ConnId) {
        let _ = conn;
        unimplemented!()
    }

    fn connect(&mut self, to: &Addr, via: Via) -> ConnId {
        let _ = (to, via);
        unimplemented!()
    }

    fn half_close(&mut self, conn: ConnId) {
        let _ = conn;
        unimplemented!()
    }

    fn close(&mut self, conn: ConnId) {
        let _ = conn;
        unimplemented!()
    }

    fn reset(&mut self, conn: ConnId) {
        let _ = conn;
        unimplemented!()
    }

    fn flush(&mut self) {
        unimplemented!()
    }

    fn wait(&mut self, until: Option<Instant>) {
        let _ = until;
        unimplemented!()
    }

    fn now(&self) -> Instant {
        unimplemented!()
    }

    fn stop_accepting(&mut self) {
        unimplemented!()
    }
}
