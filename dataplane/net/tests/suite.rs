//! What `shard::Transport` promises, between two stacks on a wire in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use net::hub::Faults;
use shard::{DeviceInfo, ListenerId, Transport, Why};

use rig::{MS, PORT, SECOND, World, config, info, pattern, v4, v6};

fn pair() -> World {
    World::pair(Faults { delay_ns: 10_000, ..Faults::default() }, 1)
}

#[test]
fn echoes_messages_of_all_sizes_over_both_families() {
    for to in [v4(2), v6(2)] {
        let mut world = pair();
        world.hosts[1].echo = true;
        let (ours, theirs) = world.connection(to);
        let (_, listener, peer) = world.hosts[1].accepted[0];
        assert_eq!(listener, ListenerId(if to.is_ipv4() { 4 } else { 6 }));
        assert_eq!(peer.addr.unwrap().0, if to.is_ipv4() { v4(1) } else { v6(1) });
        let mut sent = Vec::new();
        for len in [1, 2, 100, 4096, 16_383, 16_384, 16_385, 70_000, 300_000] {
            let message = pattern(len, len as u64);
            sent.extend_from_slice(&message);
            world.hosts[0].send(ours, &message);
            world.until("the echo", |world| world.hosts[0].log(ours).data.len() == sent.len());
        }
        assert!(world.hosts[0].log(ours).data == sent);
        world.hosts[0].stack.close(ours);
        world.until("the end", |world| world.hosts[1].log(theirs).eof);
        world.hosts[1].stack.close(theirs);
        world.assert_empty();
    }
}

#[test]
fn jumbo_frames_are_used_where_both_ends_have_them() {
    for (theirs, largest) in [(9000, 9014), (1500, 1514)] {
        let mut world = World::new(Faults::default(), 1);
        world.add(DeviceInfo { mtu: 9000, ..info(1) }, config(1));
        world.add(DeviceInfo { mtu: theirs, ..info(2) }, config(2));
        world.hosts[1].echo = true;
        let (ours, _) = world.connection(v4(2));
        world.hub.record();
        let message = pattern(300_000, 1);
        world.hosts[0].send(ours, &message);
        world.until("the echo", |world| world.hosts[0].log(ours).data.len() == message.len());
        assert!(world.hosts[0].log(ours).data == message);
        let frames = world.hub.record();
        assert_eq!(frames.iter().map(Vec::len).max(), Some(largest));
        assert!(frames.len() < 2 * 300_000 / (largest - 200) * 2, "{} frames", frames.len());
    }
}

#[test]
fn a_turn_that_takes_little_leaves_the_rest_to_the_next_and_nobody_out() {
    let mut world = pair();
    world.hosts[1].echo = true;
    world.hosts[1].share = 700;
    let conns: Vec<_> = (0..4).map(|_| world.connection(v4(2))).collect();
    let messages: Vec<_> = (0..4).map(|seed| pattern(50_000, seed)).collect();
    for (&(ours, _), message) in conns.iter().zip(&messages) {
        world.hosts[0].send(ours, message);
    }
    let mut halfway = None;
    world.until("the echoes", |world| {
        let host = &mut world.hosts[0];
        let lens: Vec<usize> = conns.iter().map(|&(ours, _)| host.log(ours).data.len()).collect();
        halfway = halfway.take().or_else(|| lens.iter().any(|len| *len >= 25_000).then(|| lens.clone()));
        lens.iter().all(|len| *len == 50_000)
    });
    let least = halfway.unwrap().into_iter().min().unwrap();
    assert!(least >= 15_000, "one had {least} bytes when another had half of its 50,000");
    for (&(ours, theirs), message) in conns.iter().zip(&messages) {
        assert!(world.hosts[0].log(ours).data == *message);
        world.hosts[0].stack.close(ours);
        world.until("the end", |world| world.hosts[1].log(theirs).eof);
        world.hosts[1].stack.close(theirs);
    }
    world.assert_empty();
}

#[test]
fn ten_megabytes_each_way_survive_everything_a_wire_can_do() {
    const LEN: usize = 10 << 20;
    for seed in 0..3 {
        let faults = Faults {
            loss_permille: 5,
            duplicate_permille: 10,
            corrupt_permille: 5,
            reorder_permille: 30,
            reorder_ns: 200_000,
            delay_ns: 20_000,
        };
        let mut world = World::pair(faults, seed);
        let (ours, theirs) = world.connection(if seed == 1 { v6(2) } else { v4(2) });
        let (there, back) = (pattern(LEN, seed), pattern(LEN, seed + 100));
        world.hosts[0].send(ours, &there);
        world.hosts[1].send(theirs, &back);
        let end = world.now() + 6000 * SECOND;
        while world.hosts[0].log(ours).data.len() < LEN || world.hosts[1].log(theirs).data.len() < LEN {
            assert!(world.step(end) && world.now() < end, "{}", world.report());
        }
        assert!(world.hosts[0].log(ours).data == back && world.hosts[1].log(theirs).data == there);
        let counters = world.hosts[1].counters();
        assert!(counters.bad_tcp_checksum + counters.bad_ip_checksum > 0, "corruption was seen and counted");
        world.hosts[0].stack.close(ours);
        world.hosts[1].stack.close(theirs);
        world.hub.set_faults(Faults::default());
        world.assert_empty();
    }
}

#[test]
fn the_peers_end_of_stream_leaves_our_side_open() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    let sent = pattern(200_000, 7);
    world.hosts[0].send(ours, &sent);
    world.until("all to be taken", |world| world.hosts[0].owed(ours) == 0);
    world.hosts[0].stack.half_close(ours);
    assert_eq!(world.hosts[0].stack.tx(ours, &[b"too late"]), 0);
    world.until("the end", |world| world.hosts[1].log(theirs).eof);
    assert!(world.hosts[1].log(theirs).data == sent, "everything before the end");
    world.hosts[1].send(theirs, &sent);
    world.until("the other way", |world| world.hosts[0].log(ours).data.len() == sent.len());
    assert!(!world.hosts[0].log(ours).eof);
    world.hosts[1].stack.close(theirs);
    world.until("the end", |world| world.hosts[0].log(ours).eof);
    world.run(15 * SECOND);
    assert_eq!(world.hosts[0].stack.snapshot().conns_open, 1, "the id lives until it is closed");
    assert_eq!(world.hosts[0].stack.snapshot().sockets_in_use, 0, "its socket does not");
    world.hosts[0].stack.close(ours);
    world.assert_empty();
}

#[test]
fn a_reset_is_told_after_the_data_before_it_and_nothing_is_told_to_who_did_it() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    world.hosts[0].stack.tx(ours, &[b"before"]);
    world.hosts[0].stack.flush();
    world.hosts[0].stack.reset(ours);
    world.until("the reset", |world| world.hosts[1].log(theirs).reset.is_some());
    assert_eq!(world.hosts[1].log(theirs).reset, Some(Why::Reset));
    assert_eq!(world.hosts[1].log(theirs).data, b"before");
    assert_eq!(world.hosts[1].stack.tx(theirs, &[b"x"]), 0, "the id means nothing any more");
    let log = world.hosts[0].log(ours);
    assert!(log.reset.is_none() && !log.eof);
    world.assert_empty();
}

#[test]
fn connecting_says_why_it_failed() {
    let mut world = pair();
    let refused = world.hosts[0].stack.connect(&abi::Addr::Ip((v4(2), PORT + 1).into()), shard::Via::Route);
    let absent = world.hosts[0].connect(v4(77));
    let routeless = world.hosts[0].connect("192.0.2.1".parse().unwrap());
    assert!(world.hosts[0].log(refused).failed.is_none(), "never within the call");
    world.run(3 * SECOND);
    assert_eq!(world.hosts[0].log(refused).failed, Some(Why::Refused));
    assert_eq!(world.hosts[0].log(absent).failed, Some(Why::Unreachable));
    assert_eq!(world.hosts[0].log(routeless).failed, Some(Why::Unreachable));
    assert_eq!(world.hosts[1].counters().syns_refused, 1);
    // A host that is there but says nothing.
    world.hub.set_faults(Faults { loss_permille: 1000, ..Faults::default() });
    let silent = world.hosts[0].connect(v4(2));
    world.run(3 * SECOND);
    assert_eq!(world.hosts[0].log(silent).failed, Some(Why::TimedOut));
    assert_eq!(world.hosts[0].counters().connect_errors, 4);
    world.assert_empty();
}

#[test]
fn a_paused_connection_closes_its_window_and_loses_nothing() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    world.hosts[1].stack.pause_rx(theirs);
    let sent = pattern(1 << 20, 3);
    world.hosts[0].send(ours, &sent);
    // Long enough for the window to close and to be probed.
    world.run(20 * SECOND);
    assert!(world.hosts[1].log(theirs).data.is_empty());
    let stuck = world.hosts[0].owed(ours);
    assert!(stuck > 800_000, "{stuck} bytes wait with the sender");
    // Once the first ring had crossed; never since.
    let writable = world.hosts[0].log(ours).writable;
    assert!(writable <= 1, "writable while nothing had room");
    world.hosts[1].stack.resume_rx(theirs);
    world.until("the rest", |world| world.hosts[1].log(theirs).data.len() == sent.len());
    assert!(world.hosts[1].log(theirs).data == sent);
    assert!(world.hosts[0].log(ours).writable > writable);
    world.hosts[0].stack.close(ours);
    world.hosts[1].stack.close(theirs);
    world.assert_empty();
}

#[test]
fn without_buffers_nothing_is_lost() {
    let mut world = World::new(Faults::default(), 1);
    world.add(info(1), config(1));
    let mut small = config(2);
    (small.limits.rx_buffers, small.limits.rx_buffer_bytes) = (8, 1024);
    world.add(info(2), small);
    world.hosts[1].hold = true;
    let conns: Vec<_> = (0..4).map(|_| world.connection(v4(2))).collect();
    let sent = pattern(30_000, 9);
    conns.iter().for_each(|(ours, _)| world.hosts[0].send(*ours, &sent));
    world.run(SECOND);
    assert!(world.hosts[1].counters().rx_no_buffer > 0);
    assert_eq!(world.hosts[1].counters().rx_bytes, 8 * 1024);
    world.until("all bytes", |world| {
        let some = world.hosts[1].held.len().div_ceil(2);
        world.hosts[1].held.drain(..some);
        conns.iter().all(|(_, theirs)| world.hosts[1].log(*theirs).data.len() == sent.len())
    });
    for (ours, theirs) in conns {
        assert!(world.hosts[1].log(theirs).data == sent);
        world.hosts[0].stack.close(ours);
        world.hosts[1].stack.close(theirs);
    }
    world.assert_empty();
}

#[test]
fn closing_delivers_what_was_accepted_but_does_not_wait_for_ever() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    let sent = pattern(1 << 20, 5);
    let taken = world.hosts[0].stack.tx(ours, &[&sent]);
    assert!(taken > 0);
    world.hosts[0].stack.close(ours);
    assert_eq!(world.hosts[0].stack.tx(ours, &[b"x"]), 0);
    world.until("the end", |world| world.hosts[1].log(theirs).eof);
    assert!(world.hosts[1].log(theirs).data == sent[..taken]);
    world.hosts[1].stack.close(theirs);

    let (ours, theirs) = world.connection(v4(2));
    world.hosts[1].stack.pause_rx(theirs);
    world.hosts[0].send(ours, &sent);
    world.run(SECOND);
    world.hosts[0].stack.close(ours);
    world.run(35 * SECOND);
    assert_eq!(world.hosts[0].stack.snapshot().conns_open, 0, "a reader that never reads");
    assert_eq!(world.hosts[1].log(theirs).reset, Some(Why::Reset));
    world.assert_empty();
}

#[test]
fn data_for_a_closed_connection_draws_a_reset() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    world.hosts[0].stack.close(ours);
    world.until("the end", |world| world.hosts[1].log(theirs).eof);
    world.hosts[1].send(theirs, b"is anybody there?");
    world.until("the reset", |world| world.hosts[1].log(theirs).reset == Some(Why::Reset));
    world.assert_empty();
}

#[test]
fn a_silent_peer_is_found_out_by_keepalive_and_an_idle_one_is_left_alone() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    world.run(600 * SECOND);
    assert!(world.hosts[0].log(ours).reset.is_none() && world.hosts[1].log(theirs).reset.is_none());
    world.hub.set_faults(Faults { loss_permille: 1000, ..Faults::default() });
    world.run(70 * SECOND);
    assert_eq!(world.hosts[0].log(ours).reset, Some(Why::TimedOut));
    assert_eq!(world.hosts[1].log(theirs).reset, Some(Why::TimedOut));
    world.hub.set_faults(Faults::default());
    world.assert_empty();
}

#[test]
fn a_stale_id_does_nothing_to_the_slots_next_owner() {
    let mut world = pair();
    let (first, _) = world.connection(v4(2));
    world.hosts[0].stack.reset(first);
    world.run(MS);
    let (second, theirs) = world.connection(v4(2));
    assert_eq!(first.index, second.index, "the slot is used again");
    let stack = &mut world.hosts[0].stack;
    assert_eq!(stack.tx(first, &[b"not yours"]), 0);
    stack.pause_rx(first);
    stack.half_close(first);
    stack.reset(first);
    stack.close(first);
    world.hosts[1].send(theirs, b"ping");
    world.until("the bytes", |world| world.hosts[0].log(second).data == b"ping");
}

#[test]
fn after_stop_accepting_connecting_is_refused_and_the_rest_goes_on() {
    let mut world = pair();
    world.hosts[1].echo = true;
    let (ours, _) = world.connection(v4(2));
    world.hosts[1].stack.stop_accepting();
    world.hosts[1].stack.stop_accepting();
    let late = world.hosts[0].connect(v4(2));
    world.hosts[0].send(ours, b"ping");
    world.until("both", |world| {
        world.hosts[0].log(late).failed == Some(Why::Refused) && world.hosts[0].log(ours).data == b"ping"
    });
}
