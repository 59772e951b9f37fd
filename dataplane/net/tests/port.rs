//! What lies below TCP: neighbours, echo, several queues of one port, links that go down, full queues.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use net::hub::Faults;
use net::{Config, ConfigError, Listener, Route, Stack};
use shard::{ListenerId, Spread, Steering, Transport, Why};

use rig::frames::{Tcp, checksum, solicit, unreachable};
use rig::{MS, PORT, SECOND, World, config, info, mac, pattern, v4, v6};

fn pair() -> World {
    World::pair(Faults { delay_ns: 10_000, ..Faults::default() }, 1)
}

#[test]
fn many_neighbours_are_found_at_once_and_a_lost_question_costs_little() {
    let mut world = World::new(Faults { delay_ns: 10_000, ..Faults::default() }, 1);
    for last in 1..=40 {
        world.add(info(last), config(last));
    }
    let begun = world.now();
    let ids: Vec<_> = (2..=40).map(|last| world.hosts[0].connect(v4(last))).collect();
    world.until("all connections", |world| ids.iter().all(|id| world.hosts[0].log(*id).connected));
    assert!(world.now() - begun < MS, "{} us for 39 neighbours", (world.now() - begun) / 1000);
    // The same with half of all frames lost: questions are asked again soon.
    world.hub.set_faults(Faults { loss_permille: 500, ..Faults::default() });
    let id = world.hosts[1].connect(v6(3));
    let begun = world.now();
    world.until("a neighbour", |world| {
        let asked = world.hosts[1].counters().neighbours_asked > 0;
        asked && (world.hosts[1].stack.snapshot().neighbours > 1 || world.hosts[1].log(id).failed.is_some())
    });
    assert!(world.now() - begun < 2 * SECOND);
}

#[test]
fn echo_requests_are_answered_up_to_a_rate() {
    let mut world = pair();
    world.connection(v4(2));
    world.hub.record();
    let mut message = vec![8, 0, 0, 0, 0, 7, 0, 1];
    message.extend(b"are you there?");
    let sum = checksum(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let total = (20 + message.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2];
    let sum = checksum(&[&ip]).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let frame = [&mac(2)[..], &mac(1), &[8, 0], &ip, &message].concat();
    world.hub.send(&frame);
    world.run(MS);
    let answer = world.hub.record().into_iter().rfind(|frame| frame[23] == 1 && frame[34] == 0).unwrap();
    assert_eq!((&answer[26..34], &answer[38..]), (&[10, 7, 0, 2, 10, 7, 0, 1][..], &message[4..]));
    assert_eq!((checksum(&[&answer[14..34]]), checksum(&[&answer[34..]])), (0, 0));
    for _ in 0..3000 {
        world.hub.send(&frame);
    }
    let mut bad = frame;
    bad[36] ^= 1;
    world.hub.send(&bad);
    world.run(10 * MS);
    let counters = world.hosts[1].counters();
    assert!(counters.echoes < 200 && counters.echoes_suppressed > 2800, "{}", world.report());
    assert_eq!(counters.bad_icmp, 1);
}

#[test]
fn questions_for_our_address_are_answered_and_shared_up_to_a_rate() {
    let spread = Spread { key: vec![0; 40], table: vec![0, 1] };
    let steering = Steering::Hash { queue: 0, spread };
    let mut world = World::new(Faults::default(), 1);
    world.add(info(1), config(1));
    world.add(shard::DeviceInfo { steering, ..info(2) }, config(2));
    world.run(MS);
    let ours = [10, 7, 0, 2];
    let arp =
        [&[0xff; 6][..], &mac(9), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac(9), &[10, 7, 0, 9], &[0; 6], &ours]
            .concat();
    for question in [arp, solicit(v6(9), v6(2))] {
        let (before, mut shared) = (world.hosts[1].counters(), 0);
        world.hub.record();
        for _ in 0..100 {
            for _ in 0..30 {
                world.hub.send(&question);
            }
            world.run(MS);
            world.hosts[1].stack.shared_frames(|_| shared += 1);
        }
        let answers = world.hub.record().iter().filter(|frame| frame[6..12] == mac(2)).count();
        let after = world.hosts[1].counters();
        assert_eq!((answers, after.neighbour_answers - before.neighbour_answers), (3000, 3000));
        assert!((100..250).contains(&shared), "{shared}");
        assert_eq!(after.shared_dropped - before.shared_dropped, 3000 - shared);
        world.run(SECOND);
    }
}

#[test]
fn errors_are_handed_on_only_if_they_may_be_about_a_connect_of_another_queue() {
    let key = (0..40_u8).map(|at| at.wrapping_mul(29) ^ 0x5a).collect();
    // By their addresses alone, the errors come to the first queue.
    let spread = Spread { key, table: vec![1, 0, 0, 1] };
    assert_eq!(spread.queue((v4(2), 0), (v4(1), 0)), Some(0));
    let mut world = World::new(Faults::default(), 1);
    for queue in 0..2 {
        let steering = Steering::Hash { queue, spread: spread.clone() };
        world.add(shard::DeviceInfo { steering, ..info(1) }, Config { seed: u64::from(queue), ..config(1) });
    }
    world.add(info(2), config(2));
    let shared = |world: &mut World| {
        let mut frames = Vec::new();
        world.hosts[0].turn();
        world.hosts[0].stack.shared_frames(|frame| frames.push(frame.to_vec()));
        frames
    };
    world.run(MS);
    world.hosts[2].connect(v4(1));
    world.run(MS);
    shared(&mut world).iter().for_each(|frame| world.hosts[1].stack.inject(frame));
    world.hub.record();
    let id = world.hosts[1].connect(v4(2));
    world.hosts[1].turn();
    let syn = world.hub.record().into_iter().find(|frame| Tcp::read(frame).is_some()).unwrap();
    let before = world.hosts[0].counters();
    let mut quotes = vec![syn[14..].to_vec(); 4];
    quotes[0][12..16].copy_from_slice(&[10, 7, 0, 200]);
    quotes[1][20..22].copy_from_slice(&80_u16.to_be_bytes());
    // A port of the range whose answers come to the queue that has the error.
    let is_own = |port: &u16| spread.queue((v4(2), PORT), (v4(1), *port)) == Some(0);
    let port = (40_000..50_000).find(is_own).unwrap();
    quotes[2][20..22].copy_from_slice(&port.to_be_bytes());
    quotes[3].truncate(20 + 7);
    for quote in &quotes {
        world.hub.send(&unreachable(quote));
    }
    assert!(shared(&mut world).is_empty());
    assert_eq!(world.hosts[0].counters().icmp_ignored - before.icmp_ignored, 4);
    // Of the right kind, but too many: at most a tenth of a second's.
    for _ in 0..20 {
        for _ in 0..30 {
            world.hub.send(&unreachable(&syn[14..]));
        }
        let frames = shared(&mut world);
        frames.iter().for_each(|frame| world.hosts[1].stack.inject(frame));
    }
    let after = world.hosts[0].counters();
    assert_eq!((after.shared - before.shared, after.icmp_ignored - before.icmp_ignored), (100, 4 + 500));
    assert_eq!(world.hosts[1].counters().icmp_ignored, 0, "counted where they came");
    world.hosts[1].turn();
    assert_eq!(world.hosts[1].log(id).failed, Some(Why::Refused));
    assert_eq!(world.hosts[1].counters().icmp_unreachable, 1);
}

#[test]
fn what_lies_behind_a_gateway_is_reached_through_it() {
    let mut world = World::new(Faults::default(), 1);
    let mut near = config(1);
    near.routes = vec![Route { network: "10.9.0.0".parse().unwrap(), prefix_len: 16, via: v4(2) }];
    world.add(info(1), near);
    // The "gateway" is the far host itself, which has an address on another network.
    let mut far = config(2);
    far.addresses.push(("10.9.0.5".parse().unwrap(), 16));
    world.add(info(2), far);
    assert_eq!(world.hosts[0].stack.route_to("10.9.0.5".parse().unwrap()), Some(16));
    assert_eq!(world.hosts[0].stack.route_to(v4(9)), Some(24));
    assert_eq!(world.hosts[0].stack.route_to("192.0.2.1".parse().unwrap()), None);
    world.hosts[1].echo = true;
    let (ours, _) = world.connection("10.9.0.5".parse().unwrap());
    world.hosts[0].send(ours, b"over there");
    world.until("the echo", |world| world.hosts[0].log(ours).data == b"over there");
}

#[test]
fn two_queues_share_a_port_and_what_each_connects_comes_back_to_it() {
    let key = (0..40_u8).map(|at| at.wrapping_mul(29) ^ 0x5a).collect();
    let spread = Spread { key, table: vec![0, 1, 1, 0] };
    let mut world = World::new(Faults { delay_ns: 1000, ..Faults::default() }, 1);
    for queue in 0..2 {
        let steering = Steering::Hash { queue, spread: spread.clone() };
        world.add(shard::DeviceInfo { steering, ..info(1) }, Config { seed: u64::from(queue), ..config(1) });
    }
    world.add(info(2), config(2));
    // ARP comes to queue 0.
    let hand_over = |world: &mut World| {
        let mut frames = Vec::new();
        world.hosts[0].stack.shared_frames(|frame| frames.push(frame.to_vec()));
        frames.iter().for_each(|frame| world.hosts[1].stack.inject(frame));
        frames.len()
    };
    let ids: Vec<_> = (0..2).flat_map(|queue| (0..50).map(move |_| queue)).collect();
    let ids: Vec<_> = ids.into_iter().map(|queue| (queue, world.hosts[queue].connect(v4(2)))).collect();
    let mut shared = 0;
    world.until("all connections", |world| {
        shared += hand_over(world);
        ids.iter().all(|(queue, id)| world.hosts[*queue].log(*id).connected)
    });
    assert!(shared > 0);
    let sent: Vec<_> = world.hosts[..2].iter().map(|host| host.counters().rsts_sent).collect();
    assert_eq!(sent, [0, 0], "nothing came to the wrong queue");
    // And in the other direction each queue accepts what hashes to it.
    let back: Vec<_> = (0..50).map(|_| world.hosts[2].connect(v4(1))).collect();
    world.until("all connections", |world| {
        hand_over(world);
        back.iter().all(|id| world.hosts[2].log(*id).connected)
    });
    // The last segments of the handshakes.
    world.run(MS);
    let accepted = (world.hosts[0].accepted.len(), world.hosts[1].accepted.len());
    assert!(accepted.0 > 5 && accepted.1 > 5 && accepted.0 + accepted.1 == 50, "{accepted:?}");
}

#[test]
fn an_advertisement_that_comes_to_another_queue_reaches_the_one_that_asked() {
    let key = (0..40_u8).map(|at| at.wrapping_mul(29) ^ 0x5a).collect();
    let spread = Spread { key, table: vec![0, 1, 1, 0] };
    let mut world = World::new(Faults { delay_ns: 1000, ..Faults::default() }, 1);
    for queue in 0..2 {
        let steering = Steering::Hash { queue, spread: spread.clone() };
        world.add(shard::DeviceInfo { steering, ..info(1) }, Config { seed: u64::from(queue), ..config(1) });
    }
    for last in 2..12 {
        world.add(info(last), config(last));
    }
    // Each neighbour's advertisement comes to the queue its addresses hash to, whoever asked.
    let asks = |queue| (2..12).map(move |last| (queue, v6(last)));
    let ids: Vec<_> =
        asks(0).chain(asks(1)).map(|(queue, to)| (queue, world.hosts[queue].connect(to))).collect();
    let mut shared = [0, 0];
    world.until("all connections", |world| {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut frames = Vec::new();
            world.hosts[from].stack.shared_frames(|frame| frames.push(frame.to_vec()));
            frames.iter().for_each(|frame| world.hosts[to].stack.inject(frame));
            shared[from] += frames.len();
        }
        ids.iter().all(|(queue, id)| world.hosts[*queue].log(*id).connected)
    });
    assert!(shared[0] > 0 && shared[1] > 0, "{shared:?}");
    // What was handed over is not handed back, and nothing else is heard of it.
    world.run(MS);
    let rest: usize = (0..2)
        .map(|queue| {
            let mut count = 0;
            world.hosts[queue].stack.shared_frames(|_| count += 1);
            count
        })
        .sum();
    assert_eq!(rest, 0);
}

#[test]
fn a_link_that_comes_back_finds_its_connections_alive() {
    let mut world = pair();
    world.hosts[1].echo = true;
    let (ours, _) = world.connection(v4(2));
    world.hub.set_up(false);
    world.hosts[0].send(ours, b"into the dark");
    world.run(5 * SECOND);
    assert_eq!(world.hosts[0].counters().link_downs, 1);
    world.hub.record();
    world.hub.set_up(true);
    world.hosts[0].turn();
    assert!(world.hub.record().iter().any(|frame| frame[12..14] == [8, 6]), "announced again");
    world.until("the echo", |world| world.hosts[0].log(ours).data == b"into the dark");
    assert!(world.hosts[0].log(ours).reset.is_none());
}

#[test]
fn what_is_sent_again_is_counted() {
    let mut world = pair();
    world.hosts[1].echo = true;
    let (ours, _) = world.connection(v4(2));
    world.hosts[0].send(ours, b"arrives");
    world.until("the echo", |world| world.hosts[0].log(ours).data == b"arrives");
    // Acknowledgements too have to be there.
    world.run(SECOND);
    assert_eq!(world.hosts[0].counters().retransmits, 0);
    world.hub.set_faults(Faults { loss_permille: 1000, ..Faults::default() });
    world.hosts[0].send(ours, b", late");
    world.run(5 * SECOND);
    let lost = world.hosts[0].counters().retransmits;
    assert!((1..20).contains(&lost), "{lost} in five seconds");
    world.hub.set_faults(Faults::default());
    world.until("the echo", |world| world.hosts[0].log(ours).data == b"arrives, late");
    let counted: Vec<_> = world.hosts.iter().map(|host| host.counters().retransmits).collect();
    assert!(counted[0] > lost && counted[1] == 0, "{counted:?}");
}

#[test]
fn a_full_queue_holds_back_but_loses_nothing() {
    let mut world = pair();
    let (ours, theirs) = world.connection(v4(2));
    let sent = pattern(300_000, 4);
    world.hosts[0].send(ours, &sent);
    world.until("all bytes", |world| {
        // Room for two frames each time, often for none.
        world.hosts[0].stack.device_mut().tx_room = if world.now() % 3 == 0 { 2 } else { 0 };
        world.hosts[1].log(theirs).data.len() == sent.len()
    });
    assert!(world.hosts[1].log(theirs).data == sent);
    world.hosts[0].stack.device_mut().tx_room = usize::MAX;
    world.hosts[0].stack.close(ours);
    world.hosts[1].stack.close(theirs);
    world.assert_empty();
}

#[test]
fn a_port_that_takes_nothing_is_tried_less_and_less_often() {
    let mut world = pair();
    world.hosts[1].echo = true;
    let ids: Vec<_> = (0..50).map(|_| world.connection(v4(2)).0).collect();
    // More than a burst: some of it stays behind.
    world.hosts[0].stack.device_mut().tx_room = 0;
    ids.iter().for_each(|id| world.hosts[0].send(*id, b"stuck"));
    let (end, mut turns) = (world.now() + 2 * SECOND, 0);
    while world.now() < end {
        world.step(end);
        turns += 1;
    }
    assert!(turns < 1000, "{turns} turns in two seconds");
    world.hosts[0].stack.device_mut().tx_room = usize::MAX;
    let begun = world.now();
    world.until("all echoes", |world| ids.iter().all(|id| world.hosts[0].log(*id).data == b"stuck"));
    assert!(world.now() - begun < 100 * MS, "{} ms", (world.now() - begun) / MS);
}

#[test]
fn a_port_that_takes_nothing_keeps_nobody_waiting_for_ever() {
    let mut world = pair();
    let (ours, _) = world.connection(v4(2));
    let begins = world.hosts[0].connect(v4(77));
    world.hub.set_faults(Faults { loss_permille: 1000, ..Faults::default() });
    world.hosts[0].stack.device_mut().tx_room = 0;
    world.run(70 * SECOND);
    assert_eq!(world.hosts[0].log(ours).reset, Some(Why::TimedOut));
    assert_eq!(world.hosts[0].log(begins).failed, Some(Why::Unreachable));
    world.hosts[0].stack.device_mut().tx_room = usize::MAX;
    world.hub.set_faults(Faults::default());
    world.assert_empty();
}

/// A port that never catches up is stuck at the end of every turn.
#[test]
fn a_busy_port_still_asks_for_neighbours() {
    let mut world = pair();
    world.add(info(3), config(3));
    let bulk: Vec<_> = (0..8).map(|_| world.connection(v4(2)).0).collect();
    let more = pattern(20_000, 1);
    let id = world.hosts[0].connect(v4(3));
    let end = world.now() + 900 * MS;
    while world.now() < end && !world.hosts[0].log(id).connected {
        for at in &bulk {
            if world.hosts[0].owed(*at) < more.len() {
                world.hosts[0].send(*at, &more);
            }
        }
        // Ten gigabits a second.
        world.hosts[0].stack.device_mut().tx_room = 17;
        world.hosts.iter_mut().for_each(|host| _ = host.turn());
        world.hosts[1].logs.clear();
        world.clock.set(shard::Instant(world.now() + 20_000));
    }
    assert!(world.hosts[0].log(id).connected, "{}", world.report());
}

#[test]
fn questions_that_never_left_do_not_count() {
    let mut world = pair();
    // Until the announcements have passed.
    world.run(MS);
    world.hosts[0].stack.device_mut().tx_room = 0;
    let stuck = world.hosts[0].connect(v4(2));
    world.run(1200 * MS);
    world.hosts[0].stack.device_mut().tx_room = usize::MAX;
    world.run(500 * MS);
    assert!(world.hosts[0].log(stuck).connected, "{}", world.report());
    world.hub.set_up(false);
    world.run(MS);
    let asked = world.hosts[0].counters().neighbours_asked;
    let cut_off = world.hosts[0].connect(v6(2));
    world.run(1200 * MS);
    assert_eq!(world.hosts[0].counters().neighbours_asked, asked);
    world.hub.set_up(true);
    world.run(500 * MS);
    assert!(world.hosts[0].log(cut_off).connected, "{}", world.report());
    assert_eq!(world.hosts[0].counters().neighbours_failed, 0);
}

#[test]
fn what_cannot_be_configured_is_said() {
    let open = |change: &dyn Fn(&mut Config)| {
        let world = World::new(Faults::default(), 1);
        let mut config = config(1);
        change(&mut config);
        Stack::open(world.hub.port(info(1), 16), config).err()
    };
    assert_eq!(open(&|_| {}), None);
    let far = "192.0.2.1".parse().unwrap();
    let listener = |address, port| Listener { id: ListenerId(0), address, port };
    type Spoil<'a> = &'a dyn Fn(&mut Config);
    let cases: [(Spoil<'_>, ConfigError); 9] = [
        (&|c| c.addresses.clear(), ConfigError::NoAddress),
        (&|c| c.addresses.push((v4(5), 33)), ConfigError::Prefix(v4(5), 33)),
        (&|c| c.addresses.push((v4(1), 24)), ConfigError::Doubled(v4(1))),
        (
            &|c| c.addresses[0].0 = "224.0.0.1".parse().unwrap(),
            ConfigError::NotUnicast("224.0.0.1".parse().unwrap()),
        ),
        (&|c| c.routes.push(Route { network: v4(0), prefix_len: 0, via: far }), ConfigError::Gateway(far)),
        (&|c| c.listeners.push(listener(far, 80)), ConfigError::ListenAddress(far)),
        (&|c| c.listeners.push(listener(v4(1), 0)), ConfigError::ListenPort(0)),
        (&|c| c.listeners.push(c.listeners[0]), ConfigError::ListenPort(PORT)),
        (&|c| c.limits.peer_timeout = c.limits.keepalive, ConfigError::Limit("peer_timeout")),
    ];
    for (change, error) in cases {
        assert_eq!(open(change), Some(error));
    }
}
