//! One connection.

use core::net::IpAddr;

use shard::{Instant, ListenerId, Why};
use smoltcp::socket::tcp::State;

use crate::listen::Kind;
use crate::neighbours::Place;
use crate::outbox::Sent;
use crate::parse::{Flow, Mac};
use crate::recovery::Recovery;
use crate::sockets::TcpSocket;

/// Where a connection is in its life, as the shard sees it.
///
/// ```text
///   SYN ─► HalfOpen ─► Open ─► Closing ─► (slot free)
///   connect ─► Connecting ─┘└──────────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Accepted by nobody yet: the handshake goes on.
    HalfOpen(ListenerId),
    /// `Connected` or `Failed` will follow.
    Connecting,
    /// The shard has its id.
    Open,
    /// The shard has closed or reset it: what was accepted goes out. The id is stale.
    Closing,
}

/// A connection's state besides TCP's.
#[derive(Debug)]
pub(crate) struct Conn {
    /// `None` once both directions are over, or if the connect never began.
    pub(crate) tcp: Option<TcpSocket>,
    pub(crate) flow: Flow,
    /// The neighbour its packets go to, and where that stood last.
    pub(crate) hop: IpAddr,
    pub(crate) hop_place: Place,
    /// Where its SYN came from, if it is from our own network and its neighbour is not known: the way its handshake
    /// goes. So a SYN, which anybody can forge, asks for nobody; who has ended the handshake is asked for, and
    /// accepted if the answer comes from there.
    pub(crate) way_back: Option<Mac>,
    pub(crate) stage: Stage,
    /// Which place of the backlog it has while it is half open.
    pub(crate) kind: Kind,
    /// What ended it, to be told once what was received before has been told.
    pub(crate) end: Option<Why>,
    /// When something of ours is due: the handshake's end, or a closed connection's last moment.
    pub(crate) deadline: Option<Instant>,
    /// When its socket, or it, next has something to do.
    pub(crate) due: Option<Instant>,
    /// When it is woken: often before `due`, because moving an alarm with every segment costs more than
    /// waking once too often.
    pub(crate) alarm: Option<Instant>,
    /// The last segment sent.
    pub(crate) sent: Sent,
    /// What of it was lost.
    pub(crate) recovery: Recovery,
    /// When the peer may be challenged again.
    pub(crate) challenge_at: Instant,
    /// Bytes ever accepted from the shard, modulo 2^32.
    pub(crate) accepted: u32,
    /// The number of the first received byte that the shard was not given.
    pub(crate) unread_seq: u32,
    /// The window field of the newest segment from the peer.
    pub(crate) window: u16,
    pub(crate) paused: bool,
    /// The peer's FIN has come.
    pub(crate) peer_fin: bool,
    pub(crate) eof_told: bool,
    /// The shard has said its last byte.
    pub(crate) fin: bool,
    /// The socket is to be closed once all is acknowledged: see [`Conn::end_stream`].
    pub(crate) ends_later: bool,
    /// `tx` was cut: a `Writable` is owed.
    pub(crate) cut: bool,
    /// In the list of those to be sent for.
    pub(crate) dirty: bool,
    /// In the queue of those that may have events.
    pub(crate) ready: bool,
    /// In its neighbour's list.
    pub(crate) waits: bool,
}

impl Conn {
    pub(crate) fn new(tcp: Option<TcpSocket>, flow: Flow, hop: IpAddr, stage: Stage) -> Self {
        Self {
            tcp,
            flow,
            hop,
            hop_place: Place::NOWHERE,
            way_back: None,
            stage,
            kind: Kind::Common,
            end: None,
            deadline: None,
            due: None,
            alarm: None,
            sent: Sent::default(),
            recovery: Recovery::default(),
            challenge_at: Instant(0),
            accepted: 0,
            unread_seq: 0,
            window: 0,
            paused: false,
            peer_fin: false,
            eof_told: false,
            fin: false,
            ends_later: false,
            cut: false,
            dirty: false,
            ready: false,
            waits: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.tcp.as_ref().map_or(State::Closed, TcpSocket::state)
    }

    /// True if it cannot send before its neighbour answers.
    pub(crate) fn is_mute(&self) -> bool {
        self.waits && self.way_back.is_none()
    }

    /// The question for `ip` has ended: true if this connection waited for that, which it no longer does.
    pub(crate) fn waited_for(&mut self, ip: IpAddr) -> bool {
        let waited = self.waits && self.hop == ip;
        self.waits &= !waited;
        waited
    }

    /// Received bytes the shard has not been given.
    pub(crate) fn unread(&self) -> usize {
        self.tcp.as_ref().map_or(0, |tcp| tcp.get().recv_queue())
    }

    /// `tx` was cut and there is room again: says so once.
    pub(crate) fn take_writable(&mut self) -> bool {
        let has_room = self.tcp.as_ref().is_some_and(|tcp| {
            let socket = tcp.get();
            socket.may_send() && socket.send_queue() <= socket.send_capacity() / 2
        });
        let is_due = self.cut && !self.fin && has_room;
        self.cut &= !is_due;
        is_due
    }

    /// Notes what a segment or a timer has done to the socket, which was in `before`: a FIN, or the end.
    /// `rst` says that the segment was a RST.
    pub(crate) fn note(&mut self, before: State, rst: bool) {
        let after = self.state();
        self.peer_fin |=
            matches!(after, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if after != State::Closed || before == State::Closed {
            return;
        }
        // Both FINs acknowledged: over, and nothing to tell beyond the end of stream. In time-wait a RST says
        // only that the peer has met a straggler and forgotten us (RFC 1337).
        let is_clean = before == State::TimeWait || (before == State::LastAck && !rst);
        if !is_clean && self.end.is_none() {
            self.end = Some(match (rst, before) {
                (true, State::SynSent) => Why::Refused,
                (true, _) => Why::Reset,
                (false, _) => Why::TimedOut,
            });
        }
    }
}
