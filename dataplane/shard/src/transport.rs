//! What the shard sees of any backend: kernel sockets, raw ports or the simulator.
//!
//! A shard calls, once a turn and in this order: [`Transport::rx_burst`] and for each event whatever it
//! asks for, then `tx` for each connection with bytes pending, then [`Transport::flush`], and, if the turn
//! did nothing, [`Transport::wait`].
//!
//! Invariant: a backend never calls back; everything it has to say is an [`Event`].

use core::net::IpAddr;

use abi::Addr;
use wire::Instant;

use crate::Burst;

/// A connection of a transport. `generation` tells a reused slot from its predecessor: operations on a
/// connection that is gone do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// The backend's slot.
    pub index: u32,
    /// Which user of the slot.
    pub generation: u32,
}

/// A listener, by its place in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u16);

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Address and port; `None` on a unix socket.
    pub addr: Option<(IpAddr, u16)>,
    /// Peer credentials of a unix socket: uid.
    pub uid: Option<u32>,
}

/// The port a connection leaves by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Via {
    /// By the longest prefix, else the kernel.
    #[default]
    Route,
    /// A configured raw port, by its place in the configuration.
    Port(u16),
}

/// Why a connection ended or did not come to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The peer reset it.
    Reset,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No path to it, or the socket does not exist.
    Unreachable,
    /// Descriptors, buffers or ports have run out here.
    Exhausted,
    /// Anything else.
    Other,
}

/// What happened on a transport.
#[derive(Debug)]
pub enum Event<Rx> {
    /// A new connection through this listener.
    Accepted(ConnId, ListenerId, Peer),
    /// Bytes arrived.
    Data(ConnId, Rx),
    /// The peer will send no more; sending is still possible.
    Eof(ConnId),
    /// The connection is gone; its id means nothing any more.
    Reset(ConnId, Why),
    /// A `connect` succeeded.
    Connected(ConnId),
    /// A `connect` failed; its id means nothing any more.
    Failed(ConnId, Why),
    /// `tx` took fewer bytes than it was given, and would take some now.
    Writable(ConnId),
}

/// A source and sink of bytes, by connection.
pub trait Transport {
    /// A linear handle to received bytes; dropping it gives the buffer back.
    type Rx;

    /// Appends at most `out.room()` events; never blocks.
    fn rx_burst(&mut self, out: &mut Burst<Event<Self::Rx>>);

    /// The bytes of a handle.
    fn bytes<'a>(&'a self, rx: &'a Self::Rx) -> &'a [u8];

    /// Hands over bytes in order; returns how many were accepted (copied or sent), from the front. The rest
    /// stays with the caller, and a `Writable` follows when there is room.
    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize;

    /// Stops `Data` for a connection after what has been received already.
    fn pause_rx(&mut self, conn: ConnId);

    /// Undoes `pause_rx`.
    fn resume_rx(&mut self, conn: ConnId);

    /// Begins a connection; `Connected` or `Failed` follows, never within this call.
    fn connect(&mut self, to: &Addr, via: Via) -> ConnId;

    /// Sends what was accepted, then a FIN. No `tx` may follow.
    fn half_close(&mut self, conn: ConnId);

    /// Sends what was accepted if the backend can without waiting, then closes both ways and frees the id.
    /// No event follows for it.
    fn close(&mut self, conn: ConnId);

    /// Drops what was accepted, sends a RST where there is one, and frees the id. No event follows for it.
    fn reset(&mut self, conn: ConnId);

    /// The end of a turn: everything accepted goes out in one submission or burst.
    fn flush(&mut self);

    /// Waits until something may have happened or `until` has passed: adaptive backends spin a little, then
    /// block. `None` waits for an event only.
    fn wait(&mut self, until: Option<Instant>);

    /// The monotonic clock (virtual in the simulator).
    fn now(&self) -> Instant;

    /// When the last burst was taken, or a moment later: as good as [`Self::now`] for whatever it brought, and cheaper
    /// where it can be.
    fn burst_at(&self) -> Instant {
        self.now()
    }

    /// Tells the backend how many calls this shard has in flight, so that it can place new connections
    /// where there is least. Called once a turn.
    fn publish_load(&mut self, calls: u32) {
        let _ = calls;
    }

    /// Stops accepting on every listener: the node drains.
    fn stop_accepting(&mut self);
}
