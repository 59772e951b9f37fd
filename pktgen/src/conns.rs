//! The HTTP/2 connections of one transport, found by [`ConnId`], and their writing out.
//!
//! Invariant: a connection with bytes in `tx()` is either queued for [`Conns::flush`] or waits for the
//! transport's `Writable`.

use shard::{ConnId, Transport};
use wire::h2::{Config, H2Conn};

/// What both ends announce: wide windows, so that it is never pktgen that holds a call up.
pub(crate) fn h2_config(stream_window_bytes: u32, conn_window_bytes: u32) -> Config {
    Config {
        stream_window_bytes,
        conn_window_bytes,
        streams_max: 100_000,
        header_list_bytes_max: 128 * 1024,
        tx_bytes_max: 512 * 1024,
        ..Config::default()
    }
}

/// A connection and what its user keeps with it.
#[derive(Debug)]
pub(crate) struct Conn<U> {
    /// The transport's name for it.
    pub(crate) id: ConnId,
    /// Its protocol state.
    pub(crate) h2: H2Conn,
    /// The user's own.
    pub(crate) user: U,
    is_queued: bool,
    is_full: bool,
}

/// All connections of a transport.
#[derive(Debug)]
pub(crate) struct Conns<U> {
    slots: Vec<Option<Conn<U>>>,
    queue: Vec<ConnId>,
    count: usize,
}

impl<U> Conns<U> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), queue: Vec::new(), count: 0 }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds one and queues what it has to say first.
    pub(crate) fn insert(&mut self, id: ConnId, h2: H2Conn, user: U) {
        let index = id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            self.count += usize::from(slot.is_none());
            *slot = Some(Conn { id, h2, user, is_queued: true, is_full: false });
            self.queue.push(id);
        }
    }

    /// The connection of this name, unless it is gone.
    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Conn<U>> {
        self.slots.get_mut(id.index as usize)?.as_mut().filter(|c| c.id == id)
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn<U>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.as_ref().is_some_and(|c| c.id == id) {
            self.count -= 1;
            return slot.take();
        }
        None
    }

    /// Closes them all.
    pub(crate) fn close<T: Transport>(&mut self, transport: &mut T) {
        for conn in self.slots.drain(..).flatten() {
            transport.close(conn.id);
        }
        (self.count, self.queue) = (0, Vec::new());
    }

    /// All connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Conn<U>> {
        self.slots.iter().flatten()
    }

    /// Queues a connection that may have bytes to write.
    pub(crate) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.slots.get_mut(id.index as usize).and_then(Option::as_mut)
            && conn.id == id
            && !conn.is_queued
            && !conn.is_full
        {
            conn.is_queued = true;
            self.queue.push(id);
        }
    }

    /// The transport takes bytes of this connection again.
    pub(crate) fn writable(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            conn.is_full = false;
            self.mark(id);
        }
    }

    /// Gives every queued connection's bytes to the transport. Those that now have room for body bytes they
    /// refused before are appended to `roomy`: offer the bytes again and flush again. Returns bytes given.
    pub(crate) fn flush<T: Transport>(&mut self, transport: &mut T, roomy: &mut Vec<ConnId>) -> usize {
        let mut total = 0;
        for id in self.queue.drain(..) {
            let Some(conn) = self.slots.get_mut(id.index as usize).and_then(Option::as_mut) else { continue };
            if conn.id != id {
                continue;
            }
            conn.is_queued = false;
            let waiting = conn.h2.tx().len();
            if waiting == 0 {
                continue;
            }
            let taken = transport.tx(id, &[conn.h2.tx()]);
            conn.is_full = taken < waiting;
            total += taken;
            if conn.h2.tx_advance(taken) {
                roomy.push(id);
            }
        }
        total
    }
}
