//! The far end of a link: what a scripted peer may do, and when it is woken.

use crate::ledger::Ledger;
use crate::net::{LinkId, Net, Phase};
use crate::rng::Rng;

/// What the other side has done to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Nothing: bytes may follow.
    Open,
    /// All bytes have been read and none will follow.
    Eof,
    /// Gone.
    Reset,
}

/// When a peer wants to be woken although nothing happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// Not at all.
    OnNews,
    /// At this time, or earlier if something happens.
    At(u64),
    /// It is done; its end is closed if it is not yet.
    Done,
}

/// A script at the far end of one link.
pub(crate) trait Peer {
    /// Something happened, or the time asked for has come.
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake;
}

/// One link's far end, lent to its peer.
pub(crate) struct PeerIo<'a> {
    net: &'a mut Net,
    link: LinkId,
}

impl<'a> PeerIo<'a> {
    pub(crate) fn new(net: &'a mut Net, link: LinkId) -> Self {
        Self { net, link }
    }

    pub(crate) fn now(&self) -> u64 {
        self.net.now
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.net.rng
    }

    pub(crate) fn link(&self) -> LinkId {
        self.link
    }

    /// Another link's peer has something to do.
    pub(crate) fn tell(&mut self, other: LinkId) {
        self.net.links[other.0].peer_news = true;
    }

    /// Says something in the trace.
    pub(crate) fn note(&mut self, what: core::fmt::Arguments<'_>) {
        let (now, link) = (self.net.now, self.link.0);
        self.net.trace.note(now, format_args!("  peer {link}: {what}"));
    }

    /// Bytes that can be read now.
    pub(crate) fn readable(&self) -> usize {
        self.net.links[self.link.0].to_peer.readable()
    }

    /// Reads at most `max` bytes.
    pub(crate) fn read(&mut self, max: usize) -> Vec<u8> {
        self.net.links[self.link.0].to_peer.read(max)
    }

    /// How the connection stands once what is readable has been read.
    pub(crate) fn end(&self) -> End {
        let it = &self.net.links[self.link.0];
        let now = self.net.now;
        if it.reset_to_peer.is_some_and(|due| due <= now) && it.to_peer.readable() == 0 {
            End::Reset
        } else if it.to_peer.at_end(now) {
            End::Eof
        } else {
            End::Open
        }
    }

    /// Writes a prefix of `bytes`; the peer is woken when there is room for the rest.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let lag = self.net.lag(self.link);
        let now = self.net.now;
        let it = &mut self.net.links[self.link.0];
        let shard_left = it.slot.is_none() && !matches!(it.phase, Phase::Arriving(..));
        if shard_left {
            it.reset_to_peer.get_or_insert(lag);
        }
        if shard_left || it.reset_to_shard.is_some() || it.to_shard.is_finished() {
            return bytes.len();
        }
        it.to_shard.is_blocked = false;
        it.to_shard.write(now, &it.plan, &mut self.net.rng, bytes)
    }

    /// Sends no more.
    pub(crate) fn finish(&mut self) {
        let now = self.net.now;
        let it = &mut self.net.links[self.link.0];
        it.to_shard.finish(now, &it.plan, &mut self.net.rng);
    }

    /// Sends no more and reads no more.
    pub(crate) fn close(&mut self) {
        let lag = self.net.lag(self.link);
        let it = &mut self.net.links[self.link.0];
        if it.to_peer.held() > 0 && it.plan.harsh_close {
            it.to_shard.drop_flight();
            it.reset_to_shard.get_or_insert((lag, shard::Why::Reset));
        } else if !it.to_shard.is_finished() {
            self.finish();
        }
        let it = &mut self.net.links[self.link.0];
        it.peer_gone = true;
        it.to_peer.drop_all();
    }

    /// Drops everything, with a RST.
    pub(crate) fn reset(&mut self) {
        let lag = self.net.lag(self.link);
        let it = &mut self.net.links[self.link.0];
        it.to_shard.drop_flight();
        it.reset_to_shard.get_or_insert((lag, shard::Why::Reset));
        it.peer_gone = true;
        it.to_peer.drop_all();
    }

    /// The network, not an end, broke this link.
    pub(crate) fn is_faulted(&self) -> bool {
        self.net.links[self.link.0].is_faulted
    }
}
