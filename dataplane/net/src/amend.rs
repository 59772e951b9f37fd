//! Received segments that smoltcp 0.14 would take wrongly, put right or kept from it. What it sends wrongly
//! is put right in `outbox`.

use shard::Instant;
use smoltcp::socket::tcp::State;
use smoltcp::wire::TcpRepr;

use crate::conn::Conn;
use crate::emit::acknowledgement;
use crate::parse::{ACK, FIN, RST, SYN, Segment};
use crate::recovery::Options;
use crate::sockets::TcpSocket;

fn set_window(tcp: &mut [u8], window: u16) {
    if let Some(field) = tcp.get_mut(14..16) {
        field.copy_from_slice(&window.to_be_bytes());
    }
}

impl Conn {
    /// Takes note of the segment that begins the peer's side.
    ///
    /// The window in a SYN is not scaled (RFC 7323 section 2.2), but smoltcp 0.14 remembers ours as if it were
    /// (`remote_last_win` in its `dispatch`): until it has told another it notes bytes as received for which its
    /// ring has no room. It would hand over what it never had, or panic in `RingBuffer::enqueue_unallocated`; and
    /// anybody can make it do so. [`Self::exceeds`] keeps such bytes from it.
    pub(crate) fn greet(&mut self, segment: &Segment, tcp: &mut [u8], mss_max: u32) {
        let Some(socket) = self.tcp.as_ref().map(TcpSocket::get) else { return };
        if !matches!(socket.state(), State::Listen | State::SynSent) || segment.flags & SYN == 0 {
            return;
        }
        let size = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = size(socket.recv_capacity()).min(u32::from(u16::MAX));
        self.unread_seq = segment.seq.wrapping_add(1);
        self.sent.limit = segment.seq.wrapping_add(room);
        self.sent.has_syn_window = true;
        let header = tcp.get(..tcp.len().saturating_sub(segment.payload_len)).unwrap_or_default();
        let options = Options::of(header, segment.ack);
        if options.scale.is_none() {
            self.sent.scale = 0;
        }
        self.recovery.begin(options, mss_max, size(socket.send_capacity()));
        let window = segment.window.min(self.recovery.first_window());
        self.window = self.recovery.scaled(window);
        set_window(tcp, window);
    }

    /// True if a segment reaches beyond the receive ring while smoltcp does not see it: see [`Self::greet`].
    pub(crate) fn exceeds(&self, segment: &Segment) -> bool {
        if !self.sent.has_syn_window || segment.payload_len == 0 {
            return false;
        }
        let size = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let ring_bytes = self.tcp.as_ref().map_or(0, |tcp| tcp.get().recv_capacity());
        let ring_end = self.unread_seq.wrapping_add(size(ring_bytes));
        let end = segment.seq.wrapping_add(size(segment.payload_len));
        end.wrapping_sub(ring_end).cast_signed() > 0
    }

    /// Brings a segment that was overtaken up to date: its acknowledgement and window become those of the
    /// newest segment from the peer. And no window is larger than what may be under way in this network.
    ///
    /// smoltcp drops a segment whose acknowledgement is older than what it knows, with all its data. RFC 9293
    /// section 3.10.7.4 has it ignore the acknowledgement only; without that, each reordered segment of a
    /// busy connection is a lost one. It does not look at checksums: `parse` has done so.
    pub(crate) fn refresh(&mut self, segment: &Segment, una: Option<u32>, tcp: &mut [u8], now: Instant) {
        if segment.flags & (ACK | SYN | RST) != ACK {
            return;
        }
        let una = una.unwrap_or(segment.ack);
        let age = una.wrapping_sub(segment.ack);
        if age.cast_signed() <= 0 {
            if self.is_within(segment) && (age == 0 || !self.sent.is_after_next(segment.ack)) {
                self.recovery.opened(self.window, segment.window);
                self.window = segment.window;
                if age != 0 {
                    self.recovery.acknowledged(segment.ack, &mut self.sent, now);
                }
            }
        } else if let Some(field) = tcp.get_mut(8..12) {
            let carries = segment.payload_len > 0 || segment.flags & FIN != 0;
            if !carries {
                return;
            }
            field.copy_from_slice(&una.to_be_bytes());
        }
        // smoltcp must not know another window than is known here, or news of it would be taken for old.
        set_window(tcp, self.recovery.window(self.window));
        self.cut_fin(segment, tcp);
    }

    /// Takes the FIN from a segment that ends beyond the receive window. Of such a one smoltcp 0.14 takes the bytes within
    /// and the FIN: the stream would end before its end. The peer sends the rest again.
    fn cut_fin(&self, segment: &Segment, tcp: &mut [u8]) {
        if segment.flags & FIN == 0 || segment.payload_len == 0 {
            return;
        }
        let len = u32::try_from(segment.payload_len).unwrap_or(u32::MAX);
        let beyond = segment.seq.wrapping_add(len).wrapping_sub(self.sent.limit).cast_signed();
        if beyond > 0
            && let Some(flags) = tcp.get_mut(13)
        {
            *flags &= !FIN;
        }
    }

    /// True of a segment with bytes after the peer's FIN, which smoltcp 0.14 takes in CLOSE-WAIT and LAST-ACK. RFC 9293 section
    /// 3.10.7.4 ignores them. A byte in the FIN's place is a keep-alive, and to be answered.
    pub(crate) fn follows_fin(&self, segment: &Segment) -> bool {
        let len = u32::try_from(segment.payload_len).unwrap_or(u32::MAX);
        let beyond = segment.seq.wrapping_add(len).wrapping_sub(self.expected()).cast_signed();
        self.peer_fin && len > 0 && beyond > 0
    }

    /// True of a segment that begins in the receive window: smoltcp will not reject it.
    pub(crate) fn is_within(&self, segment: &Segment) -> bool {
        let from_start = segment.seq.wrapping_sub(self.expected());
        let to_end = self.sent.limit.wrapping_sub(segment.seq);
        from_start == 0 || (from_start.cast_signed() > 0 && to_end.cast_signed() > 0)
    }

    /// True of an acknowledgement that repeats what is known while bytes are under way, but for a window of which ours
    /// is the smaller one. smoltcp would take the third for a loss.
    pub(crate) fn repeats(&self, segment: &Segment, una: Option<u32>) -> bool {
        let is_bare = segment.flags & (ACK | SYN | RST | FIN) == ACK && segment.payload_len == 0;
        is_bare
            && una == Some(segment.ack)
            && self.sent.next() != una
            && segment.window != 0
            && self.window != 0
            && self.recovery.window(segment.window) == self.recovery.window(self.window)
            && self.is_within(segment)
    }

    /// Such an acknowledgement has come. If it does not merely change the window, it says that others have arrived.
    pub(crate) fn repeat(&mut self, segment: &Segment, tcp: &[u8], now: Instant) {
        let options = Options::of(tcp, segment.ack);
        let is_same = core::mem::replace(&mut self.window, segment.window) == segment.window;
        if is_same || options.has_arrived() {
            self.recovery.doubled(options, now);
        }
    }

    /// SND.UNA of a synchronised connection: the first of our bytes that the peer has not acknowledged. smoltcp does
    /// not tell; but it begins after the SYN and has moved by all that was accepted and is not in the ring any more.
    pub(crate) fn unacknowledged(&self) -> Option<u32> {
        let state = self.state();
        if matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived) {
            return None;
        }
        let queue = u32::try_from(self.tcp.as_ref()?.get().send_queue()).ok()?;
        let fin = u32::from(matches!(state, State::FinWait2 | State::TimeWait));
        Some(self.sent.first?.wrapping_add(self.accepted).wrapping_sub(queue).wrapping_add(fin))
    }

    /// Our side of the stream ends here.
    ///
    /// In LAST-ACK smoltcp 0.14 looks at nothing but acknowledgements of something new: not at those that repeat what is
    /// known, nor at windows that open. So what was accepted is to arrive before.
    pub(crate) fn end_stream(&mut self) {
        let Some(tcp) = &mut self.tcp else { return };
        self.ends_later = tcp.state() == State::CloseWait && tcp.get().send_queue() > 0;
        if !self.ends_later {
            tcp.get_mut().close();
        }
    }

    /// RCV.NXT: the number of the next byte from the peer.
    pub(crate) fn expected(&self) -> u32 {
        let unread = u32::try_from(self.unread()).unwrap_or(0);
        self.unread_seq.wrapping_add(unread).wrapping_add(self.peer_fin.into())
    }

    /// The window field of what the peer has been told last, as it is by now.
    pub(crate) fn window_left(&self) -> u16 {
        let bytes = self.sent.limit.wrapping_sub(self.expected());
        // That of a SYN is not scaled, but smoltcp's notion of it is: see [`Self::greet`].
        let scale = if self.sent.has_syn_window { self.sent.scale } else { 0 };
        let bytes = if bytes.cast_signed() > 0 { bytes >> scale } else { 0 };
        u16::try_from(bytes >> self.sent.scale).unwrap_or(u16::MAX)
    }

    /// When the first unacknowledged segment is to be sent again. A FIN alone is not: smoltcp's own timer does that.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        let at = self.recovery.due(&self.sent)?;
        let has_data = self.tcp.as_ref().is_some_and(|tcp| tcp.get().send_queue() > 0);
        has_data.then_some(at)
    }

    /// The acknowledgement that a peer repeats when something is missing.
    pub(crate) fn repetition(&self) -> Option<TcpRepr<'static>> {
        let una = self.unacknowledged()?;
        let ports = (self.flow.remote_port, self.flow.local_port);
        Some(acknowledgement(ports, self.expected(), una, self.recovery.window(self.window)))
    }
}
