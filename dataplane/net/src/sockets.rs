//! smoltcp's sockets, each in a set of its own, and the memory of their rings.
//!
//! Rings are fixed when a socket is made, so a socket is made for good and used again. How large they are
//! follows from how many connections there are when one begins: few get large rings and a wide window, many
//! get small ones. Memory is the lesser reason. A ring's place moves on with every byte, so the rings of
//! thousands of connections are never in the cache: at 2,000 connections 64 KiB rings cost twice the time of
//! small ones, for the same messages.

use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration as TcpDuration;

use crate::Limits;

/// A connection's two rings take at most a quarter of its equal share of the budget. So, with the defaults,
/// the first 128 get the largest rings, each doubling of the connections halves those of the next, and from
/// 1,024 on all get the smallest.
const SHARE: usize = 4;

/// One socket, alone in its set.
#[derive(Debug)]
pub(crate) struct TcpSocket {
    pub(crate) set: SocketSet<'static>,
    handle: SocketHandle,
    /// Bytes of each of its two rings.
    ring_bytes: usize,
}

impl TcpSocket {
    pub(crate) fn get(&self) -> &Socket<'static> {
        self.set.get::<Socket<'static>>(self.handle)
    }

    pub(crate) fn get_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut::<Socket<'static>>(self.handle)
    }

    /// Reads a little of everything there is to a socket.
    pub(crate) fn look(&self) -> usize {
        let socket = self.get();
        let queues = socket.recv_queue().wrapping_add(socket.send_queue());
        let ends = socket.remote_endpoint().map_or(0, |end| usize::from(end.port));
        let options = usize::from(socket.nagle_enabled()) + usize::from(socket.timeout().is_some());
        queues.wrapping_add(ends).wrapping_add(options).wrapping_add(socket.state() as usize)
    }

    pub(crate) fn state(&self) -> State {
        self.get().state()
    }
}

/// All sockets: the budget, and those nobody uses.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// By size of ring, from the smallest.
    spare: Vec<Vec<TcpSocket>>,
    limits: Limits,
    made: u64,
    in_use: u64,
    in_use_bytes: usize,
    spare_bytes: usize,
}

impl Sockets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let classes = limits.ring_bytes_max.ilog2().saturating_sub(limits.ring_bytes_min.ilog2()) + 1;
        Self {
            spare: (0..classes).map(|_| Vec::new()).collect(),
            limits: *limits,
            made: 0,
            in_use: 0,
            in_use_bytes: 0,
            spare_bytes: 0,
        }
    }

    /// Made, in use, bytes of rings in use, bytes of spare rings.
    pub(crate) fn count(&self) -> [u64; 4] {
        [self.made, self.in_use, self.in_use_bytes as u64, self.spare_bytes as u64]
    }

    /// A closed socket, ready to listen or to connect.
    pub(crate) fn take(&mut self) -> TcpSocket {
        let conns = usize::try_from(self.in_use).unwrap_or(usize::MAX).saturating_add(1);
        let share = self.limits.ring_budget_bytes / (2 * SHARE) / conns;
        let share = share.clamp(self.limits.ring_bytes_min, self.limits.ring_bytes_max);
        let class = (share.ilog2() - self.limits.ring_bytes_min.ilog2()) as usize;
        let ring_bytes = self.limits.ring_bytes_min << class;
        self.in_use += 1;
        self.in_use_bytes += 2 * ring_bytes;
        match self.spare.get_mut(class).and_then(Vec::pop) {
            Some(socket) => {
                self.spare_bytes -= 2 * ring_bytes;
                socket
            }
            None => self.make(ring_bytes),
        }
    }

    /// A socket nobody needs any more.
    pub(crate) fn give(&mut self, mut socket: TcpSocket) {
        // Whatever it was doing: an open socket can neither listen nor connect.
        socket.get_mut().abort();
        self.in_use -= 1;
        self.in_use_bytes -= 2 * socket.ring_bytes;
        let class = (socket.ring_bytes.ilog2() - self.limits.ring_bytes_min.ilog2()) as usize;
        // Spare memory counts against the budget too: what would exceed it goes back to the allocator.
        if self.in_use_bytes + self.spare_bytes + 2 * socket.ring_bytes > self.limits.ring_budget_bytes
            && socket.ring_bytes > self.limits.ring_bytes_min
        {
            self.made -= 1;
            return;
        }
        self.spare_bytes += 2 * socket.ring_bytes;
        if let Some(spare) = self.spare.get_mut(class) {
            spare.push(socket);
        }
    }

    fn make(&mut self, ring_bytes: usize) -> TcpSocket {
        self.made += 1;
        let ring = || SocketBuffer::new(alloc::vec![0; ring_bytes]);
        let mut socket = Socket::new(ring(), ring());
        // Messages wait for nobody; what a turn has to say leaves in one segment anyway.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(duration(self.limits.ack_delay)));
        socket.set_keep_alive(Some(duration(self.limits.keepalive)));
        socket.set_timeout(Some(duration(self.limits.peer_timeout)));
        let mut set = SocketSet::new(alloc::vec![SocketStorage::EMPTY]);
        let handle = set.add(socket);
        TcpSocket { set, handle, ring_bytes }
    }
}

fn duration(d: Duration) -> TcpDuration {
    TcpDuration::from_micros(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_shrink_as_connections_come_and_the_budget_holds() {
        let limits = Limits { ring_budget_bytes: 16 << 20, ..Limits::default() };
        let mut sockets = Sockets::new(&limits);
        let held: Vec<_> = (0..3000).map(|_| sockets.take()).collect();
        assert_eq!(held[0].ring_bytes, limits.ring_bytes_max);
        assert_eq!(held[100].ring_bytes, 16 << 10);
        assert_eq!(held[2999].ring_bytes, limits.ring_bytes_min);
        assert!(held.windows(2).all(|pair| pair[1].ring_bytes <= pair[0].ring_bytes));
        let [made, in_use, bytes, _] = sockets.count();
        assert_eq!((made, in_use), (3000, 3000));
        assert!(bytes <= (16 << 20) + 3000 * 2 * 8192, "{bytes}");
        held.into_iter().for_each(|socket| sockets.give(socket));
        let [made, in_use, bytes, spare] = sockets.count();
        assert_eq!((in_use, bytes), (0, 0));
        assert!(spare <= (16 << 20) + 3000 * 2 * 8192);
        // A second wave makes few new ones.
        let again: Vec<_> = (0..100).map(|_| sockets.take()).collect();
        assert!(sockets.count()[0] <= made + 100);
        drop(again);
    }
}
