//! Attackers who see nothing of a connection and guess: their segments are forged, and right in all but the numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use net::hub::Faults;
use shard::{Transport, Why};

use rig::frames::{ACK, RST, SYN, Tcp};
use rig::peer::{HandMade, OURS, PLAIN};
use rig::{MS, PORT, SECOND, World, pattern, v4};

/// smoltcp's generator as it is after drawing `last`, if its seed is known.
fn follow(mut state: u64, last: u32) -> Option<u64> {
    for _ in 0..1000 {
        state = state.wrapping_mul(0xbb2e_fcec_3c39_611d).wrapping_add(0x7590_ef39);
        if (state >> (29 - (state >> 61))) as u32 == last {
            return Some(state);
        }
    }
    None
}

/// First sequence numbers of host 1 that it tells host 0, one for each connection.
fn isns(world: &mut World, count: usize) -> Vec<u32> {
    world.hub.record();
    (0..count).for_each(|_| _ = world.connection(v4(2)));
    let frames = world.hub.record();
    let segments = frames.iter().filter_map(|frame| Tcp::read(frame));
    segments.filter(|tcp| tcp.flags == SYN | ACK).map(|tcp| tcp.seq).collect()
}

/// Who knows the state of a generator from some numbers knows the others: so they do not come from one.
#[test]
fn first_sequence_numbers_say_nothing_of_the_next() {
    let mut world = World::pair(Faults::default(), 1);
    let isns = isns(&mut world, 50);
    assert_eq!(isns.len(), 50);
    let mut guessed = 0;
    for pair in isns.windows(2) {
        // Host 1's seed is 2. Two numbers in a row would give it away as well.
        let state = follow(2, pair[0]);
        guessed += usize::from(state.is_some_and(|state| follow(state, pair[1]).is_some()));
        // Nor are they near each other.
        let apart = pair[1].wrapping_sub(pair[0]).cast_signed().unsigned_abs();
        assert!(apart > 1 << 16, "{apart}");
    }
    assert_eq!(guessed, 0, "of 49");
}

/// A connection between the same ends begins beyond the numbers of the one before, however that ended.
#[test]
fn the_same_ends_begin_anew_beyond_their_old_numbers() {
    let mut world = World::pair(Faults::default(), 1);
    let mut last = None;
    for _ in 0..20 {
        world.hub.record();
        let to = (v4(2), PORT).into();
        let id = world.hosts[0].stack.connect_from((v4(1), 7000), to);
        world.until("a connection", |world| world.hosts[0].log(id).connected);
        world.hosts[0].send(id, &[1; 5000]);
        world.run(MS);
        world.hosts[0].stack.reset(id);
        let frames = world.hub.record();
        for flags in [SYN, SYN | ACK] {
            let mut segments = frames.iter().filter_map(|frame| Tcp::read(frame));
            assert!(segments.any(|tcp| tcp.flags == flags));
        }
        let mut segments = frames.iter().filter_map(|frame| Tcp::read(frame));
        let isn = segments.find(|tcp| tcp.flags == SYN).unwrap().seq;
        if let Some(last) = last.replace(isn) {
            assert!((1..1 << 30).contains(&isn.wrapping_sub(last)), "{last} and then {isn}");
        }
        world.run(SECOND / 10);
        let _ = world.hosts[1].accepted.pop();
    }
}

impl HandMade {
    /// A RST with the number of the next byte and so many on.
    fn forge_rst(&mut self, off: u32) {
        let mut rst = self.segment(RST, 0);
        rst.seq = self.seq.wrapping_add(off);
        self.put(&rst);
    }

    /// A segment with bytes that acknowledges what is so much older than all that was acknowledged.
    fn put_old(&mut self, payload: &[u8], age: u32) {
        let mut tcp = self.segment(ACK, self.len);
        tcp.ack = tcp.ack.wrapping_sub(age);
        tcp.payload = payload.to_vec();
        self.put(&tcp);
    }
}

/// RFC 5961 section 3.2: the peer is asked, once a second, and only whoever knows its next number ends the connection.
#[test]
fn a_reset_within_the_window_is_asked_about() {
    let mut peer = HandMade::open(PLAIN);
    let id = peer.id;
    peer.send(&pattern(3000, 1));
    assert!(peer.behave(SECOND, |peer| peer.len == 3000));
    let mut tcp = peer.segment(ACK, peer.len);
    tcp.payload = b"hello".to_vec();
    peer.put(&tcp);
    peer.seq = peer.seq.wrapping_add(5);
    peer.behave(SECOND, |_| false);
    for off in [1, 1000, 60_000] {
        peer.forge_rst(off);
        let answer = peer.next(10 * MS).unwrap();
        let next = peer.first.wrapping_add(3000);
        assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, next, peer.seq));
        assert!(answer.window > 32_000 && answer.payload.is_empty(), "{}", answer.window);
        peer.forge_rst(off);
        peer.forge_rst(off + 1);
        assert!(peer.next(10 * MS).is_none(), "once a second");
        peer.lose(SECOND);
    }
    for off in [u32::MAX, 66_000, 1 << 20, 1 << 31] {
        peer.forge_rst(off);
        assert!(peer.next(10 * MS).is_none(), "{off}");
    }
    let counters = peer.world.hosts[0].counters();
    assert_eq!((counters.resets_inexact, counters.challenges, counters.resets_received), (13, 3, 0));
    peer.send(b"still there");
    assert!(peer.behave(SECOND, |peer| peer.len == 3011));
    peer.forge_rst(0);
    peer.pass(MS);
    assert_eq!(peer.world.hosts[0].log(id).reset, Some(Why::Reset));
    peer.world.hosts[0].stack.close(id);
    peer.world.assert_empty();
}

#[test]
fn a_reset_amid_the_handshake_is_asked_about() {
    let mut peer = HandMade::knock(PLAIN);
    peer.meet();
    peer.forge_rst(1000);
    assert_eq!(peer.next(10 * MS).unwrap().flags, ACK);
    peer.enter();
    let mut peer = HandMade::knock(PLAIN);
    peer.meet();
    peer.forge_rst(0);
    peer.pass(MS);
    assert_eq!(peer.world.hosts[0].stack.snapshot().half_open, 0);
}

/// Its window is no larger than the ring, although the SYN-ACK's was not scaled.
#[test]
fn a_question_amid_the_handshake_tells_the_window_there_is() {
    let mut peer = HandMade::knock(PLAIN);
    peer.meet();
    peer.forge_rst(1000);
    let asked = peer.next(10 * MS).unwrap();
    // Rings of 64 KiB have a scale of one.
    assert!(u32::from(asked.window) << 1 <= 1 << 16, "{}", asked.window);
}

/// A peer that has lost a segment before its RST, or all it knew, is asked and answers with the right number.
#[test]
fn who_has_forgotten_a_connection_ends_it_when_asked() {
    let mut world = World::pair(Faults::default(), 1);
    let (ours, theirs) = world.connection(v4(2));
    world.hub.set_up(false);
    world.hosts[1].send(theirs, b"lost");
    world.hosts[1].turn();
    world.hub.set_up(true);
    world.hosts[1].stack.reset(theirs);
    world.until("the reset", |world| world.hosts[0].log(ours).reset == Some(Why::Reset));
}

/// RFC 5961 section 5: no peer is behind by more than it may have been sent at once.
#[test]
fn bytes_with_an_acknowledgement_older_than_a_window_are_not_taken() {
    let mut peer = HandMade::open(PLAIN);
    let id = peer.id;
    let sent = pattern(200_000, 1);
    peer.send(&sent);
    assert!(peer.behave(SECOND, |peer| peer.len == sent.len()));
    peer.pass(MS);
    for age in [65_537, 100_000, 1 << 20, (1 << 24) - 1, 1 << 24, 1 << 30] {
        peer.put_old(b"forged", age);
        let answer = peer.next(10 * MS).unwrap();
        assert_eq!((answer.flags, answer.ack, answer.payload.len()), (ACK, peer.seq, 0), "{age}");
        peer.put_old(b"forged", age);
        assert!(peer.next(10 * MS).is_none(), "once a second");
        peer.lose(SECOND);
    }
    assert_eq!(peer.world.hosts[0].log(id).data, b"");
    assert_eq!(peer.world.hosts[0].counters().bad_tcp_ack, 12);
    // What was merely overtaken counts.
    for (age, payload) in [(65_536, b"one"), (1, b"two"), (0, b"six")] {
        peer.put_old(payload, age);
        peer.seq = peer.seq.wrapping_add(3);
    }
    peer.pass(MS);
    assert_eq!(peer.world.hosts[0].log(id).data, b"onetwosix");
}

/// RFC 9293 section 3.5.2: a RST that answers has the number that was acknowledged. A peer that has restarted and knows
/// nothing of the old connection's end believes no other.
#[test]
fn a_peer_that_holds_on_to_an_old_connection_is_made_to_let_go() {
    for age in [5000_u32, 1_u32.wrapping_neg()] {
        let mut peer = HandMade::make(PLAIN);
        let host = &mut peer.world.hosts[0];
        let id = host.stack.connect_from((v4(1), PORT), (v4(9), OURS).into());
        host.stack.flush();
        let syn = peer.next(SECOND).unwrap();
        assert_eq!(syn.flags, SYN);
        peer.first = syn.seq.wrapping_add(1);
        // What it has to say of the old connection.
        let mut tcp = peer.segment(ACK, 0);
        tcp.ack = tcp.ack.wrapping_sub(age);
        peer.put(&tcp);
        let rst = peer.next(10 * MS).unwrap();
        assert_eq!((rst.flags & RST, rst.seq), (RST, tcp.ack));
        // Now it listens to the SYN that comes again.
        let again = peer.next(2 * SECOND).unwrap();
        assert_eq!((again.flags, again.seq), (SYN, syn.seq));
        let mut answer = peer.segment(SYN | ACK, 0);
        answer.window = 1000;
        peer.put(&answer);
        peer.pass(MS);
        assert!(peer.world.hosts[0].log(id).connected);
    }
}

/// Nor does a forged acknowledgement make us say what the peer would believe.
#[test]
fn a_forged_acknowledgement_amid_the_handshake_does_not_end_it() {
    for off in [-3000, -2, 1, 3000] {
        let mut peer = HandMade::knock(PLAIN);
        peer.meet();
        let mut forged = peer.segment(ACK, 0);
        forged.ack = forged.ack.wrapping_add_signed(off);
        peer.put(&forged);
        let rst = peer.next(10 * MS).unwrap();
        assert_eq!((rst.flags & RST, rst.seq), (RST, forged.ack), "{off}");
        peer.enter();
        peer.send(b"hello");
        assert!(peer.behave(SECOND, |peer| peer.len == 5));
    }
}
