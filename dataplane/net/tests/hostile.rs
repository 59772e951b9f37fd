//! A wire that means harm: floods, forgeries and noise. Whatever comes is counted and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use std::net::IpAddr;

use net::hub::Faults;
use proptest::prelude::*;
use shard::{Transport, Why};

use rig::frames::{ACK, FIN, RST, SYN, Tcp};
use rig::{MS, PORT, Random, SECOND, World, config, info, mac, pattern, v4, v6};

/// A segment to host 2 from an address that nobody has.
fn forged(from: (IpAddr, u16), flags: u8) -> Tcp {
    Tcp {
        macs: [mac(2), mac(99)],
        from,
        to: (v4(2), PORT),
        seq: 1000,
        ack: 0,
        flags,
        window: 1000,
        options: Vec::new(),
        payload: Vec::new(),
    }
}

#[test]
fn a_syn_flood_is_bounded_and_passes() {
    let mut world = World::pair(Faults { delay_ns: 10_000, ..Faults::default() }, 1);
    let (quiet, _) = world.connection(v4(2));
    // 50,000 SYNs a second from everywhere on the network, for three seconds.
    for at in 0..150_000_u32 {
        let from = IpAddr::from([10, 7, 0, 10 + (at % 200) as u8]);
        world.hub.send(&forged((from, 1024 + (at / 200 % 50_000) as u16), SYN).frame());
        if at % 50 == 49 {
            world.run(MS);
        }
        assert!(world.hosts[1].stack.snapshot().half_open <= 1024);
    }
    let flooded = world.hosts[1].counters();
    assert!(flooded.syns_dropped > 100_000 && flooded.half_open_evicted > 1000, "{}", world.report());
    assert!(world.hosts[1].stack.snapshot().ring_bytes <= 64 << 20);
    // A single source has its share and no more, and the others their own.
    world.run(10 * SECOND);
    for at in 0..1000 {
        world.hub.send(&forged((v4(77), 2000 + at), SYN).frame());
        if at % 20 == 19 {
            world.run(MS);
        }
    }
    assert_eq!(world.hosts[1].counters().syns_dropped_source - flooded.syns_dropped_source, 1000 - 256);
    let (late, _) = world.connection(v4(2));
    world.hosts[1].echo = true;
    for id in [quiet, late] {
        world.hosts[0].send(id, b"still there?");
        world.until("the echo", |world| world.hosts[0].log(id).data == b"still there?");
    }
    assert!(world.hosts[1].counters().half_open_expired + world.hosts[1].counters().neighbours_failed > 0);
    world.hosts[0].stack.reset(quiet);
    world.hosts[0].stack.reset(late);
    world.assert_empty();
}

/// 50,000 SYNs a second from 200 addresses, for so many milliseconds.
fn flood(world: &mut World, ms: u32, at: &mut u32) {
    for _ in 0..ms {
        for _ in 0..50 {
            let from = IpAddr::from([10, 7, 0, 10 + (*at % 200) as u8]);
            world.hub.send(&forged((from, 1024 + (*at / 200 % 50_000) as u16), SYN).frame());
            *at += 1;
        }
        world.run(MS);
    }
}

#[test]
fn during_a_syn_flood_known_callers_connect_at_once_and_others_with_their_second_syn() {
    let mut world = World::pair(Faults { delay_ns: 200_000, ..Faults::default() }, 1);
    world.add(info(3), config(3));
    world.connection(v4(2));
    let mut at = 0;
    flood(&mut world, 1000, &mut at);
    assert!(world.hosts[1].counters().syns_dropped > 30_000, "{}", world.report());
    for _ in 0..20 {
        let known = world.hosts[0].connect(v4(2));
        flood(&mut world, 5, &mut at);
        assert!(world.hosts[0].log(known).connected, "{}", world.report());
    }
    let others: Vec<_> = (0..10).map(|_| world.hosts[2].connect(v4(2))).collect();
    let connected = |world: &mut World| others.iter().filter(|id| world.hosts[2].log(**id).connected).count();
    flood(&mut world, 900, &mut at);
    let at_once = connected(&mut world);
    flood(&mut world, 200, &mut at);
    let in_time = connected(&mut world);
    assert!(at_once < 5 && in_time == 10, "{at_once} at once, {in_time} in time: {}", world.report());
}

#[test]
fn segments_of_no_connection_draw_one_reset_each_up_to_a_rate() {
    let mut world = World::pair(Faults::default(), 1);
    world.hub.record();
    for at in 0..10_000_u16 {
        world.hub.send(&forged((v4(9), 1000 + at), ACK).frame());
        world.hub.send(&forged((v4(9), 1000 + at), RST).frame());
        if at % 10 == 9 {
            world.run(MS);
        }
    }
    let counters = world.hosts[1].counters();
    let resets = world
        .hub
        .record()
        .iter()
        .filter_map(|frame| Tcp::read(frame))
        .filter(|tcp| tcp.from.1 == PORT)
        .count();
    assert_eq!(resets as u64, counters.rsts_sent);
    assert!((1000..=1200).contains(&counters.rsts_sent), "in one second: {}", counters.rsts_sent);
    assert_eq!(counters.rsts_sent + counters.rsts_suppressed, 10_000, "a RST draws none");
}

/// smoltcp alone takes the window of a SYN for twice what it says when rings are 64 KiB.
#[test]
fn more_than_the_first_window_is_refused_and_the_rest_arrives() {
    let mut world = World::pair(Faults::default(), 1);
    // They know each other.
    world.connection(v4(2));
    world.hub.record();
    let mut tcp = forged((v4(1), 50_000), SYN);
    tcp.macs[1] = mac(1);
    tcp.options = vec![3, 3, 7, 2, 4, 5, 0xb4];
    world.hub.send(&tcp.frame());
    for _ in 0..3 {
        // Not host 1's turn: it would reset what it knows nothing of.
        world.hosts[1].turn();
    }
    let syn_ack = world
        .hub
        .record()
        .iter()
        .filter_map(|frame| Tcp::read(frame))
        .find(|tcp| tcp.from.1 == PORT)
        .unwrap();
    assert_eq!(syn_ack.flags, SYN | ACK);
    let stream = pattern(128 << 10, 1);
    (tcp.options, tcp.flags, tcp.ack) = (Vec::new(), ACK, syn_ack.seq.wrapping_add(1));
    // The last first: smoltcp would note that it has bytes for which it has no room.
    let chunks: Vec<_> = stream.chunks(1460).enumerate().collect();
    for (at, chunk) in chunks.into_iter().rev() {
        tcp.seq = 1001 + at as u32 * 1460;
        tcp.payload = chunk.to_vec();
        world.hub.send(&tcp.frame());
    }
    world.hosts[1].turn();
    let id = world.hosts[1].accepted[1].0;
    while world.hosts[1].turn() {}
    let received = world.hosts[1].log(id).data.clone();
    assert!(world.hosts[1].counters().bad_tcp_window > 0, "{}", world.report());
    assert!(received.len() > 60_000 && received == stream[..received.len()], "{} bytes", received.len());
    assert_eq!(received.len(), 65_535 / 1460 * 1460, "all that was within the window");
}

#[test]
fn connections_over_the_limit_are_refused() {
    let mut world = World::new(Faults::default(), 1);
    world.add(info(1), config(1));
    let mut few = config(2);
    few.limits.conns_max = 2;
    world.add(info(2), few);
    let (_, first) = world.connection(v4(2));
    world.connection(v4(2));
    let third = world.hosts[0].connect(v4(2));
    world.until("the refusal", |world| world.hosts[0].log(third).failed == Some(Why::Refused));
    assert_eq!(world.hosts[1].counters().syns_over_conns_max, 1);
    let own = world.hosts[1].connect(v4(1));
    world.until("the failure", |world| world.hosts[1].log(own).failed == Some(Why::Exhausted));
    world.hosts[1].stack.reset(first);
    world.run(MS);
    world.connection(v4(2));
}

#[test]
fn thousands_of_connections_come_and_go_and_leave_nothing() {
    let mut world = World::pair(Faults { delay_ns: 5000, loss_permille: 2, ..Faults::default() }, 5);
    world.hosts[1].echo = true;
    let mut made = 0;
    for round in 0..60_u64 {
        let ids: Vec<_> =
            (0..100).map(|at| world.hosts[0].connect(if at % 2 == 0 { v4(2) } else { v6(2) })).collect();
        world.until("all of them", |world| ids.iter().all(|id| world.hosts[0].log(*id).connected));
        let message = pattern(3000, round);
        ids.iter().for_each(|id| world.hosts[0].send(*id, &message));
        world.until("all echoes", |world| ids.iter().all(|id| world.hosts[0].log(*id).data == message));
        made += ids.len();
        // Each way of parting: we first, they first, both, abruptly.
        let theirs: Vec<_> = world.hosts[1].accepted.drain(..).map(|(id, ..)| id).collect();
        for (at, id) in ids.iter().enumerate() {
            match at % 4 {
                0 => world.hosts[0].stack.reset(*id),
                1 => world.hosts[0].stack.half_close(*id),
                2 => world.hosts[0].stack.close(*id),
                _ => {}
            }
        }
        world.run(MS);
        theirs.iter().for_each(|id| world.hosts[1].stack.close(*id));
        ids.iter().for_each(|id| world.hosts[0].stack.close(*id));
        world.hosts[0].logs.clear();
        world.hosts[1].logs.clear();
    }
    assert_eq!(made, 6000);
    let snapshot = world.hosts[0].stack.snapshot();
    assert!(snapshot.sockets < 700, "sockets are used again: {}", snapshot.sockets);
    world.hub.set_faults(Faults::default());
    world.assert_empty();
    let snapshot = world.hosts[0].stack.snapshot();
    assert_eq!(snapshot.time_wait + world.hosts[1].stack.snapshot().time_wait, 0, "{}", world.report());
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.word() % n.max(1) as u64) as usize
    }

    /// A number near enough to a true one to get somewhere.
    fn near(&mut self, value: u32) -> u32 {
        match self.below(8) {
            0 => self.word() as u32,
            1 => value.wrapping_add(1 << 31),
            2 => value.wrapping_add(self.below(1 << 17) as u32),
            3 => value.wrapping_sub(self.below(1 << 17) as u32),
            4 => value.wrapping_add(1),
            5 => value.wrapping_sub(1),
            _ => value,
        }
    }

    /// Another segment of the same flow, with right checksums.
    fn forge(&mut self, mut tcp: Tcp) -> Vec<u8> {
        tcp.seq = self.near(tcp.seq);
        tcp.ack = self.near(tcp.ack);
        if self.below(2) == 0 {
            tcp.flags =
                [ACK, ACK | FIN, ACK | SYN, SYN, ACK | 8, 0, FIN, RST, ACK | RST, 0xff][self.below(10)];
            // Or nothing would be left to forge.
            if tcp.flags & RST != 0 && self.below(4) > 0 {
                tcp.flags = ACK;
            }
        }
        if self.below(3) == 0 {
            tcp.window = [0, 1, 100, u16::MAX][self.below(4)];
        }
        if self.below(3) == 0 {
            let len = [0, 1, 100, 1400, 1460][self.below(5)];
            tcp.payload = (0..len).map(|_| self.word() as u8).collect();
        }
        if self.below(4) == 0 {
            tcp.options = (0..self.below(41)).map(|_| self.word() as u8 % 9).collect();
            tcp.payload.truncate(1400);
        }
        tcp.frame()
    }

    /// Noise: bits flipped, bytes overwritten, cut short or drawn out.
    fn mangle(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(frame.len());
            if let Some(byte) = frame.get_mut(at) {
                *byte = if self.below(2) == 0 { *byte ^ 1 << self.below(8) } else { self.word() as u8 };
            }
        }
        match self.below(6) {
            0 => frame.truncate(self.below(frame.len() + 1)),
            1 => frame.extend((0..self.below(2000)).map(|at| at as u8)),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forged and mangled frames amid true ones, at every stage of a connection's life, to both its ends:
    /// nothing panics, every frame is accounted for, and when all is closed nothing is left.
    #[test]
    fn no_frame_does_harm(seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut world = World::pair(Faults { delay_ns: 2000, ..Faults::default() }, seed);
        world.hosts[1].echo = true;
        world.hub.record();
        for round in 0..60_u64 {
            match random.below(10) {
                0..=2 => {
                    world.hosts[0].connect(if random.below(2) == 0 { v4(2) } else { v6(2) });
                }
                3..=7 => {
                    let mut ids: Vec<_> = world.hosts[0].logs.keys().copied().collect();
                    ids.sort_unstable_by_key(|id| (id.index, id.generation));
                    if !ids.is_empty() {
                        let id = ids[random.below(ids.len())];
                        let message = pattern(random.below(20_000), round);
                        match random.below(12) {
                            0 => world.hosts[0].stack.half_close(id),
                            1 => world.hosts[0].stack.close(id),
                            2 => world.hosts[0].stack.pause_rx(id),
                            3 => world.hosts[0].stack.resume_rx(id),
                            _ => world.hosts[0].send(id, &message),
                        }
                    }
                }
                _ => world.run(random.below(200) as u64 * MS),
            }
            world.run(random.below(20) as u64 * 1000);
            for frame in world.hub.record() {
                for _ in 0..random.below(3) {
                    let mut other = match Tcp::read(&frame) {
                        Some(tcp) if random.below(4) > 0 => random.forge(tcp),
                        _ => frame.clone(),
                    };
                    if random.below(4) == 0 {
                        random.mangle(&mut other);
                    }
                    world.hub.send(&other);
                }
            }
            // What has just been sent is not to be forged again.
            world.hub.record();
        }
        world.run(SECOND);
        for host in &mut world.hosts {
            let mut ids: Vec<_> = host.logs.keys().copied().collect();
            ids.sort_unstable_by_key(|id| (id.index, id.generation));
            ids.into_iter().for_each(|id| host.stack.reset(id));
        }
        world.assert_empty();
    }
}
