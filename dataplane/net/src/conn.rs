//! One connection.

use core::net::IpAddr;

use shard::{Instant, ListenerId, Why};
use smoltcp::socket::tcp::State;

use crate::neighbours::Place;
use crate::outbox::Sent;
use crate::parse::{ACK, Flow, SYN, Segment};
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
    pub(crate) stage: Stage,
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
    /// Where the receive ring ends, as long as the last segment sent was a SYN: see [`Conn::exceeds`].
    ring_end: Option<u32>,
    pub(crate) paused: bool,
    /// The peer's FIN has come.
    pub(crate) peer_fin: bool,
    pub(crate) eof_told: bool,
    /// The shard has said its last byte.
    pub(crate) fin: bool,
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
            stage,
            end: None,
            deadline: None,
            due: None,
            alarm: None,
            sent: Sent::default(),
            ring_end: None,
            paused: false,
            peer_fin: false,
            eof_told: false,
            fin: false,
            cut: false,
            dirty: false,
            ready: false,
            waits: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.tcp.as_ref().map_or(State::Closed, TcpSocket::state)
    }

    /// Received bytes the shard has not been given.
    pub(crate) fn unread(&self) -> usize {
        self.tcp.as_ref().map_or(0, |tcp| tcp.get().recv_queue())
    }

    /// True if a segment reaches beyond the receive ring while smoltcp does not see it.
    ///
    /// The window in a SYN is not scaled (RFC 7323 section 2.2), but smoltcp 0.14 remembers it as if it were
    /// (`remote_last_win` in its `dispatch`): until the first segment without SYN is out it notes bytes as
    /// received for which its ring has no room. It would hand over what it never had, or panic in
    /// `RingBuffer::enqueue_unallocated`; and anybody can make it do so.
    pub(crate) fn exceeds(&mut self, segment: &Segment) -> bool {
        let Some(tcp) = &self.tcp else { return false };
        if matches!(tcp.state(), State::Listen | State::SynSent) && segment.flags & SYN != 0 {
            let room = u32::try_from(tcp.get().recv_capacity()).unwrap_or(0).min(u32::from(u16::MAX));
            self.ring_end = Some(segment.seq.wrapping_add(1).wrapping_add(room));
            return false;
        }
        if self.ring_end.is_some() && self.sent.flags & (SYN | ACK) == ACK {
            self.ring_end = None;
        }
        let len = u32::try_from(segment.payload_len).unwrap_or(u32::MAX);
        let end = segment.seq.wrapping_add(len);
        self.ring_end.is_some_and(|ring_end| len > 0 && end.wrapping_sub(ring_end).cast_signed() > 0)
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
        // Both FINs acknowledged: over, and nothing to tell beyond the end of stream.
        let is_clean = !rst && (before == State::LastAck || before == State::TimeWait);
        if !is_clean && self.end.is_none() {
            self.end = Some(match (rst, before) {
                (true, State::SynSent) => Why::Refused,
                (true, _) => Why::Reset,
                (false, _) => Why::TimedOut,
            });
        }
    }
}
