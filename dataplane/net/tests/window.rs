//! Peers that send more than there is room for, at the moments when smoltcp believes that there is more.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use rig::frames::ACK;
use rig::peer::{HandMade, Manner, PLAIN};
use rig::{MS, SECOND, pattern};
use shard::Transport;

/// 128 KiB back to back, of which the ring holds half: nothing breaks, and what is told is what was sent.
fn overrun(peer: &mut HandMade) {
    let stream = pattern(128 << 10, 1);
    for (at, chunk) in stream.chunks(1460).enumerate() {
        let mut tcp = peer.segment(ACK, peer.len);
        tcp.seq = peer.seq.wrapping_add(at as u32 * 1460);
        tcp.payload = chunk.to_vec();
        peer.put(&tcp);
    }
    peer.pass(10 * MS);
    let id = peer.id;
    let data = &peer.world.hosts[0].log(id).data;
    assert!(data.len() > 60_000 && *data == stream[..data.len()], "{} bytes", data.len());
}

/// The whole stream, in segments that keep to the window they are told.
fn deliver(peer: &mut HandMade) {
    let stream = pattern(300_000, 2);
    let id = peer.id;
    let before = peer.world.hosts[0].log(id).data.len();
    for chunk in stream.chunks(1460) {
        let mut tcp = peer.segment(ACK, peer.len);
        tcp.payload = chunk.to_vec();
        peer.put(&tcp);
        peer.seq = peer.seq.wrapping_add(chunk.len() as u32);
        while let Some(tcp) = peer.next(MS) {
            peer.take(&tcp);
        }
    }
    let data = &peer.world.hosts[0].log(id).data[before..];
    assert!(*data == stream, "{} bytes", data.len());
}

/// The window of a SYN is all that smoltcp remembers until a segment that is no probe has left.
#[test]
fn probes_of_a_closed_window_do_not_open_ours() {
    let mut peer = HandMade::open(Manner { window: 0, ..PLAIN });
    peer.send(b"hello");
    assert_eq!(peer.next(SECOND).unwrap().payload.len(), 1);
    overrun(&mut peer);
}

/// The last of them has no byte left to probe with, and looks like an acknowledgement.
#[test]
fn an_empty_probe_of_a_closed_window_does_not_open_ours() {
    let mut peer = HandMade::open(Manner { window: 0, ..PLAIN });
    peer.send(b"hi");
    assert!(peer.behave(20 * SECOND, |peer| peer.len == 2));
    let empty = peer.next(60 * SECOND).unwrap();
    assert!(empty.payload.is_empty() && empty.flags == ACK);
    overrun(&mut peer);
}

#[test]
fn a_keepalive_before_the_first_byte_does_not_open_our_window() {
    let mut peer = HandMade::open(PLAIN);
    let probe = peer.next(30 * SECOND).unwrap();
    assert_eq!((probe.payload.len(), probe.seq), (1, peer.first.wrapping_sub(1)));
    overrun(&mut peer);
}

/// An acknowledgement amid the handshake tells the window there is, and the SYN sent again the other one.
#[test]
fn a_syn_sent_again_takes_back_the_window_told_before() {
    let mut peer = HandMade::open_asking(PLAIN);
    overrun(&mut peer);
}

/// A peer whose own window stays closed sends all it has.
#[test]
fn a_closed_window_does_not_stop_the_other_direction() {
    let mut peer = HandMade::open(Manner { window: 0, ..PLAIN });
    peer.send(b"hello");
    peer.lose(SECOND);
    deliver(&mut peer);
    let mut peer = HandMade::open_asking(PLAIN);
    deliver(&mut peer);
}

/// RFC 9293 section 3.10.7.4: once the peer has ended its stream there are no more bytes of it.
#[test]
fn nothing_follows_the_end() {
    for (ends_too, start) in [(false, 0), (false, -1), (false, -4), (true, 0), (true, -4)] {
        let mut peer = HandMade::open(PLAIN);
        let id = peer.id;
        let mut tcp = peer.segment(ACK, 0);
        tcp.payload = b"hello".to_vec();
        peer.put(&tcp);
        peer.seq = peer.seq.wrapping_add(5);
        peer.finish();
        peer.pass(MS);
        assert!(peer.world.hosts[0].log(id).eof);
        if ends_too {
            peer.world.hosts[0].stack.half_close(id);
            peer.world.hosts[0].stack.flush();
        }
        peer.lose(100 * MS);
        let mut more = peer.segment(ACK, 0);
        more.seq = more.seq.wrapping_add_signed(start);
        more.payload = b"and more".to_vec();
        peer.put(&more);
        peer.lose(100 * MS);
        assert_eq!(peer.world.hosts[0].log(id).data, b"hello", "{start}");
        assert_eq!(peer.world.hosts[0].counters().bad_tcp_after_fin, 1);
        // What comes again is answered, and so is a keep-alive, whose byte has the FIN's number.
        for (seq, payload) in [(-6, &b"hello"[..]), (-1, b"x")] {
            let mut again = peer.segment(ACK, 0);
            again.seq = again.seq.wrapping_add_signed(seq);
            again.payload = payload.to_vec();
            peer.put(&again);
            assert_eq!(peer.next(10 * MS).unwrap().ack, peer.seq);
        }
        assert_eq!(peer.world.hosts[0].log(id).data, b"hello");
        assert_eq!(peer.world.hosts[0].counters().bad_tcp_after_fin, 1);
    }
}
