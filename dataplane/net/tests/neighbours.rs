//! Neighbours that do not answer, answer late or are too many, and what connections make of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use std::net::IpAddr;

use net::hub::Faults;
use shard::{Transport, Why};

use rig::frames::{ACK, RST, SYN, Tcp, discovery};
use rig::{MS, PORT, SECOND, World, config, info, mac, v4, v6};

fn syn(from: (IpAddr, u16), source: [u8; 6]) -> Tcp {
    Tcp {
        macs: [mac(2), source],
        from,
        to: (v4(2), PORT),
        seq: 1000,
        ack: 0,
        flags: SYN,
        window: 1000,
        options: Vec::new(),
        payload: Vec::new(),
    }
}

/// Hosts 1 and 2 on 10.7.0.0/`prefix_len`.
fn wide_pair(prefix_len: u8) -> World {
    let mut world = World::new(Faults { delay_ns: 10_000, ..Faults::default() }, 1);
    for last in 1..=2 {
        let mut wide = config(last);
        wide.addresses[0].1 = prefix_len;
        world.add(info(last), wide);
    }
    world
}

#[test]
fn syns_take_no_places_from_what_we_ask_for_ourselves() {
    let mut world = wide_pair(20);
    for at in 0..4000_u16 {
        let from = IpAddr::from([10, 7, 1 + (at / 250) as u8 % 14, 1 + (at % 250) as u8]);
        world.hub.send(&syn((from, 4000), mac(99)).frame());
        if at % 2 == 1 {
            world.run(MS);
        }
    }
    let flooded = world.hosts[1].stack.snapshot();
    assert!(flooded.half_open > 100 && flooded.neighbours <= 1, "{} neighbours", flooded.neighbours);
    assert_eq!(flooded.counters.neighbours_asked, 0, "nobody is asked for before the handshake is done");
    let id = world.hosts[1].connect(v4(1));
    world
        .until("an end", |world| world.hosts[1].log(id).connected || world.hosts[1].log(id).failed.is_some());
    assert!(world.hosts[1].log(id).connected, "{}", world.report());
}

/// What host 2 sends to `to`.
fn segments_to(world: &World, to: [u8; 6]) -> Vec<Tcp> {
    let frames = world.hub.record();
    frames.iter().filter_map(|frame| Tcp::read(frame)).filter(|tcp| tcp.macs[0] == to).collect()
}

/// A handshake from 10.7.0.`last`, begun and ended by the way of mac 99, with a first message.
fn handshake(world: &mut World, last: u8) -> Tcp {
    world.hosts[1].echo = true;
    world.hub.record();
    let mut tcp = syn((v4(last), 4000), mac(99));
    world.hub.send(&tcp.frame());
    world.run(MS);
    let frames = world.hub.record();
    assert!(frames.iter().all(|frame| frame[12..14] != [8, 6]), "nobody is asked for yet");
    let answer = frames.iter().filter_map(|frame| Tcp::read(frame)).next_back().unwrap();
    assert_eq!((answer.macs[0], answer.flags), (mac(99), SYN | ACK));
    (tcp.seq, tcp.ack, tcp.flags, tcp.payload) = (1001, answer.seq.wrapping_add(1), ACK, b"ping".to_vec());
    world.hub.send(&tcp.frame());
    world.run(MS);
    tcp
}

#[test]
fn a_handshake_goes_by_the_way_it_came_and_is_accepted_once_its_neighbour_is_found_there() {
    let mut world = wide_pair(24);
    handshake(&mut world, 50);
    assert!(world.hosts[1].accepted.is_empty());
    let frames = world.hub.record();
    assert!(frames.iter().any(|frame| frame[12..14] == [8, 6]), "asked for");
    let ours = [10, 7, 0, 2];
    let theirs = [10, 7, 0, 50];
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    world.hub.send(&[&mac(2)[..], &mac(99), &head, &mac(99), &theirs, &mac(2), &ours].concat());
    world.run(MS);
    assert_eq!(world.hosts[1].accepted.len(), 1, "{}", world.report());
    assert!(segments_to(&world, mac(99)).iter().any(|tcp| tcp.payload == b"ping"));
}

#[test]
fn nobody_is_accepted_in_the_name_of_a_neighbour_that_is_there_or_of_nobody() {
    let mut world = wide_pair(24);
    for (at, last) in [(1, 1), (2, 50)] {
        handshake(&mut world, last);
        world.run(2 * SECOND);
        assert!(world.hosts[1].accepted.is_empty(), "{:?}", world.hosts[1].accepted);
        assert_eq!(world.hosts[1].counters().accepts_unproved, at, "{}", world.report());
    }
    assert_eq!(world.hosts[1].stack.snapshot().half_open, 0);
}

#[test]
fn whoever_speaks_in_a_neighbours_name_is_told_nothing() {
    let mut world = wide_pair(24);
    let (ours, _) = world.connection(v4(2));
    for port in [4000, 4001] {
        world.hub.record();
        let mut tcp = syn((v4(1), port), mac(99));
        world.hub.send(&tcp.frame());
        world.run(MS);
        // An acknowledgement of what was never sent, which calls for an answer.
        (tcp.seq, tcp.ack, tcp.flags) = (1001, 77, ACK);
        world.hub.send(&tcp.frame());
        world.run(MS);
        // At most that nothing is known of the flow, which the neighbour itself has ended.
        let told = segments_to(&world, mac(99));
        assert!(told.iter().all(|tcp| (tcp.flags, tcp.seq) == (RST, 77)), "{port}: {told:?}");
        if port == 4000 {
            // However long ago it was heard of.
            world.hosts[0].stack.reset(ours);
            world.run(40 * SECOND);
        }
    }
    // And within a connection.
    world.connection(v4(2));
    let from = world.hosts[1].accepted.last().unwrap().2.addr.unwrap();
    world.hub.record();
    world.hub.send(&syn(from, mac(99)).frame());
    world.run(MS);
    let frames = world.hub.record();
    let answers: Vec<_> = frames.iter().filter_map(|frame| Tcp::read(frame)).collect();
    assert!(answers.iter().all(|tcp| tcp.macs[0] != mac(99)));
    // RFC 5961 section 4.2: who begins anew has perhaps forgotten the connection, and is asked.
    let is_question = |tcp: &Tcp| tcp.macs == [mac(1), mac(2)] && tcp.flags == ACK && tcp.payload.is_empty();
    assert!(answers.iter().any(is_question), "{answers:?}");
    assert_eq!((world.hosts[1].counters().challenges, world.hosts[1].counters().bad_tcp_syn), (1, 1));
}

#[test]
fn who_finds_no_place_in_the_table_does_not_ask_for_one_all_the_time() {
    let mut world = World::new(Faults::default(), 1);
    let mut few = config(1);
    few.limits.neighbours_max = 4;
    world.add(info(1), few);
    let ids: Vec<_> = (100..120).map(|last| world.hosts[0].connect(v4(last))).collect();
    let (end, mut turns) = (world.now() + SECOND, 0);
    while world.now() < end {
        world.step(end);
        turns += 1;
    }
    assert!(turns < 200, "{turns} turns in a second");
    assert_eq!(world.hosts[0].stack.snapshot().neighbours, 4);
    world.run(10 * SECOND);
    assert!(ids.iter().all(|id| world.hosts[0].log(*id).failed.is_some()));
    world.assert_empty();
}

#[test]
fn a_slots_next_owner_does_not_inherit_a_neighbour_that_is_gone() {
    let mut world = wide_pair(24);
    let first = world.hosts[0].connect(v4(77));
    world.run(900 * MS);
    world.hosts[0].stack.reset(first);
    world.hub.set_faults(Faults { loss_permille: 1000, ..Faults::default() });
    let second = world.hosts[0].connect(v4(2));
    assert_eq!(first.index, second.index);
    world.run(300 * MS);
    assert_eq!(world.hosts[0].counters().neighbours_failed, 1, "the first one's");
    assert_eq!(world.hosts[0].log(second).failed, None, "the second waits for another");
    world.hub.set_faults(Faults::default());
    world.until("an end", |world| world.hosts[0].log(second).connected);
    // And one whose own neighbour is gone is told so.
    let third = world.hosts[0].connect(v4(78));
    world.run(1100 * MS);
    assert_eq!(world.hosts[0].log(third).failed, Some(Why::Unreachable));
}

/// RFC 4861 section 7.2.5.
#[test]
fn an_advertisement_without_override_moves_no_neighbour() {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let mut world = wide_pair(24);
    world.hosts[1].echo = true;
    let (id, _) = world.connection(v6(2));
    let mut sent = Vec::new();
    // Where the next message goes after host 2 was said to be at `mac`; nobody is there.
    let mut goes_to = |world: &mut World, flags, mac| {
        world.hub.send(&discovery(136, flags, v6(2), v6(1), v6(2), mac));
        world.run(MS);
        world.hub.record();
        sent.extend_from_slice(b"where?");
        world.hosts[0].send(id, b"where?");
        world.hosts[0].turn();
        let frames = world.hub.record();
        let to = frames.iter().filter_map(|frame| Tcp::read(frame)).next_back().unwrap().macs[0];
        world.hub.send(&discovery(136, SOLICITED | OVERRIDE, v6(2), v6(1), v6(2), 2));
        world.until("the echo", |world| world.hosts[0].log(id).data == sent);
        to
    };
    assert_eq!(goes_to(&mut world, SOLICITED, 66), mac(2));
    assert_eq!(goes_to(&mut world, 0, 66), mac(2));
    assert_eq!(goes_to(&mut world, OVERRIDE, 66), mac(66));
    assert_eq!(goes_to(&mut world, OVERRIDE | SOLICITED, 66), mac(66));
}
