//! A peer made by hand: it speaks TCP a segment at a time, and behaves as well or as badly as a test wants.

use std::collections::VecDeque;

use net::Secret;
use net::hub::Faults;
use shard::{ConnId, Instant, Transport};

use super::frames::{ACK, FIN, RST, SYN, Tcp};
use super::{MS, PORT, World, config, info, mac, v4};

/// Its port.
pub(crate) const OURS: u16 = 40_000;

/// What it says of itself in its SYN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sacks: bool,
    pub(crate) window: u16,
    /// Its own first sequence number.
    pub(crate) isn: u32,
    /// The stack's secret, which chooses its first sequence number.
    pub(crate) seed: u64,
}

pub(crate) const PLAIN: Manner =
    Manner { mss: Some(1460), scale: Some(7), sacks: true, window: 512, isn: 1000, seed: 1 };

/// The peer, and the one stack it talks to.
pub(crate) struct HandMade {
    pub(crate) world: World,
    pub(crate) manner: Manner,
    /// The stack's connection.
    pub(crate) id: ConnId,
    /// The number of the stack's first byte, and of its own next one.
    pub(crate) first: u32,
    pub(crate) seq: u32,
    /// The window field of what it says.
    pub(crate) window: u16,
    /// What the stack has sent: bytes by place, and whether they have come.
    bytes: Vec<u8>,
    has: Vec<bool>,
    /// Bytes that have come without a hole.
    pub(crate) len: usize,
    /// Where the stream ends, if that is known; and that its end has come.
    fin: Option<usize>,
    pub(crate) is_over: bool,
    pub(crate) is_reset: bool,
    /// Data segments of the stack's, the bytes in them, and when the last one came.
    pub(crate) segments: usize,
    pub(crate) octets: usize,
    pub(crate) last: u64,
    /// All its segments.
    pub(crate) frames: usize,
    /// Turns of the stack without anything having come.
    pub(crate) wakes: usize,
    /// Segments seen and not taken.
    inbox: VecDeque<Tcp>,
}

impl HandMade {
    /// A stack, and a handshake with it.
    pub(crate) fn open(manner: Manner) -> Self {
        Self::open_losing(manner, 0)
    }

    /// The same, but so many SYN-ACKs are lost.
    pub(crate) fn open_losing(manner: Manner, lost: usize) -> Self {
        let mut peer = Self::knock(manner);
        (0..=lost).for_each(|_| peer.meet());
        peer.enter();
        peer
    }

    /// The same, but the peer draws an acknowledgement before it ends the handshake, which takes two SYN-ACKs.
    pub(crate) fn open_asking(manner: Manner) -> Self {
        let mut peer = Self::knock(manner);
        peer.meet();
        let mut old = peer.segment(ACK, 0);
        old.seq = old.seq.wrapping_sub(1);
        peer.put(&old);
        assert_eq!(peer.next(MS).unwrap().flags, ACK);
        peer.put(&old);
        peer.meet();
        peer.enter();
        peer
    }

    /// A stack, and nothing between it and the peer.
    pub(crate) fn make(manner: Manner) -> Self {
        let mut world = World::new(Faults::default(), manner.seed);
        let mut config = config(1);
        config.secret = Secret::from_seed(manner.seed);
        world.add(info(1), config);
        world.hub.record();
        Self {
            world,
            manner,
            id: ConnId { index: 0, generation: 0 },
            first: 0,
            seq: manner.isn,
            window: manner.window,
            bytes: Vec::new(),
            has: Vec::new(),
            len: 0,
            fin: None,
            is_over: false,
            is_reset: false,
            segments: 0,
            octets: 0,
            last: 0,
            frames: 0,
            wakes: 0,
            inbox: VecDeque::new(),
        }
    }

    /// The same, and a SYN to it.
    pub(crate) fn knock(manner: Manner) -> Self {
        let mut peer = Self::make(manner);
        let mut syn = peer.segment(SYN, 0);
        if let Some(mss) = manner.mss {
            syn.options.extend([[2, 4], mss.to_be_bytes()].concat());
        }
        if let Some(scale) = manner.scale {
            syn.options.extend([3, 3, scale, 1]);
        }
        if manner.sacks {
            syn.options.extend([4, 2, 1, 1]);
        }
        syn.window = u16::MAX;
        peer.world.hub.send(&syn.frame());
        peer.seq = peer.seq.wrapping_add(1);
        peer
    }

    /// Awaits the stack's SYN.
    pub(crate) fn meet(&mut self) {
        let answer = loop {
            self.pass(10 * MS);
            if let Some(tcp) = self.inbox.pop_front() {
                break tcp;
            }
        };
        assert_eq!(answer.flags & (SYN | ACK), SYN | ACK);
        self.first = answer.seq.wrapping_add(1);
    }

    /// Ends the handshake.
    pub(crate) fn enter(&mut self) {
        self.say(0);
        self.pass(MS);
        self.id = self.world.hosts[0].accepted[0].0;
        self.frames = 0;
        self.wakes = 0;
    }

    /// A segment of its own, that acknowledges so many bytes.
    pub(crate) fn segment(&self, flags: u8, len: usize) -> Tcp {
        Tcp {
            macs: [mac(1), mac(9)],
            from: (v4(9), OURS),
            to: (v4(1), PORT),
            seq: self.seq,
            ack: self.first.wrapping_add(len as u32).wrapping_add(u32::from(self.is_over)),
            flags,
            window: self.window,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub(crate) fn put(&mut self, tcp: &Tcp) {
        self.world.hub.send(&tcp.frame());
    }

    /// Acknowledges so many bytes.
    pub(crate) fn say(&mut self, len: usize) {
        let tcp = self.segment(ACK, len);
        self.put(&tcp);
    }

    /// Acknowledges what it has, and says what else has come, truly.
    pub(crate) fn acknowledge(&mut self) {
        let mut tcp = self.segment(ACK, self.len);
        if self.manner.sacks && self.has.len() > self.len {
            let start = self.len + self.has[self.len..].iter().position(|has| *has).unwrap_or(0);
            let end = self.has[start..].iter().position(|has| !*has).map_or(self.has.len(), |n| start + n);
            tcp.options = self.block(start as i64, end as i64);
        }
        self.put(&tcp);
    }

    /// A SACK option that says that these bytes have come.
    pub(crate) fn block(&self, start: i64, end: i64) -> Vec<u8> {
        let number = |at: i64| self.first.wrapping_add(at as u32).to_be_bytes();
        [&[1, 1, 5, 10][..], &number(start), &number(end)].concat()
    }

    /// Its own end of the stream.
    pub(crate) fn finish(&mut self) {
        let tcp = self.segment(ACK | FIN, self.len);
        self.put(&tcp);
        self.seq = self.seq.wrapping_add(1);
    }

    /// Lets so much time pass; what the stack sends meanwhile waits in the inbox.
    pub(crate) fn pass(&mut self, ns: u64) {
        let end = self.world.now() + ns;
        while self.world.now() < end {
            if !self.turn(end) {
                return;
            }
        }
    }

    /// One turn of the stack; then time, if nothing is in the inbox. False if something is.
    fn turn(&mut self, end: u64) -> bool {
        self.wakes += 1;
        let had_events = self.world.hosts[0].turn();
        for frame in self.world.hub.record() {
            if frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == [10, 7, 0, 9] {
                let answer = [&mac(1)[..], &mac(9), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac(9), &[10, 7, 0, 9]];
                self.world.hub.send(&[&answer.concat()[..], &mac(1), &[10, 7, 0, 1]].concat());
            }
            if let Some(tcp) = Tcp::read(&frame).filter(|tcp| tcp.from.1 == PORT) {
                self.frames += 1;
                self.inbox.push_back(tcp);
            }
        }
        if !self.inbox.is_empty() {
            return false;
        }
        let stack = &self.world.hosts[0].stack;
        let soon = Instant(self.world.now() + 1000);
        let due = [stack.next_due(), self.world.hub.next_due()].into_iter().flatten().min();
        let next = if had_events || stack.has_work() { Some(soon) } else { due.map(|due| due.max(soon)) };
        self.world.clock.set(next.map_or(Instant(end), |next| next.min(Instant(end))));
        true
    }

    /// The next segment of the stack's within so much time.
    pub(crate) fn next(&mut self, ns: u64) -> Option<Tcp> {
        if self.inbox.is_empty() {
            self.pass(ns);
        }
        self.inbox.pop_front()
    }

    /// Takes a segment in, without a word. True if it is one that must be answered.
    pub(crate) fn take(&mut self, tcp: &Tcp) -> bool {
        self.is_reset |= tcp.flags & RST != 0;
        let at = tcp.seq.wrapping_sub(self.first).cast_signed();
        let is_fin = tcp.flags & FIN != 0;
        if tcp.payload.is_empty() && !is_fin {
            return at < self.len as i32;
        }
        self.segments += 1;
        self.octets += tcp.payload.len();
        self.last = self.world.now();
        let Ok(at) = usize::try_from(at) else { return true };
        let end = at + tcp.payload.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.has.resize(end, false);
        }
        // A keep-alive sends an old byte again, whose value means nothing.
        if tcp.payload.len() > 1 || at >= self.len {
            for (place, byte) in (at..end).zip(&tcp.payload) {
                assert!(!self.has[place] || self.bytes[place] == *byte, "another byte at {place}");
                (self.bytes[place], self.has[place]) = (*byte, true);
            }
        }
        if is_fin {
            self.fin = Some(end);
        }
        self.len += self.has[self.len..].iter().take_while(|has| **has).count();
        self.is_over = self.fin == Some(self.len);
        true
    }

    /// Behaves as a peer should, for so long or until `done`; then true.
    pub(crate) fn behave(&mut self, ns: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.world.now() + ns;
        while self.world.now() < end {
            if done(self) {
                return true;
            }
            if let Some(tcp) = self.next(end - self.world.now())
                && self.take(&tcp)
            {
                self.acknowledge();
            }
        }
        done(self)
    }

    /// Loses all that comes for so long.
    pub(crate) fn lose(&mut self, ns: u64) -> usize {
        let (end, mut lost) = (self.world.now() + ns, 0);
        while self.world.now() < end {
            lost += usize::from(self.next(end - self.world.now()).is_some());
        }
        lost
    }

    /// What has come without a hole.
    pub(crate) fn stream(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The stack sends this.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.world.hosts[0].send(self.id, bytes);
        self.world.hosts[0].stack.flush();
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.world.hosts[0].counters().retransmits
    }
}
