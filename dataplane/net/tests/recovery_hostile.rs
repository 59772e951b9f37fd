//! Loss recovery against peers made by hand, which lie, forget, shrink their windows or say odd things at odd times. Such
//! a peer may slow its own connection down; it makes the stack neither spin nor flood, and what it lets in is intact.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "tests know their numbers")]

mod rig;

use proptest::prelude::*;
use rig::frames::{ACK, FIN, SYN};
use rig::peer::{HandMade, Manner, PLAIN};
use rig::{MS, Random, SECOND, pattern};
use shard::Transport;

/// Bytes that are said to have arrived but were never sent are no reason to send others again.
#[test]
fn arrivals_beyond_all_that_was_sent_are_ignored() {
    let mut peer = HandMade::open(PLAIN);
    let sent = pattern(200_000, 1);
    peer.send(&sent);
    let mut lies = 0;
    while peer.len < sent.len() {
        let Some(tcp) = peer.next(SECOND) else { panic!("nothing at {}", peer.len) };
        peer.take(&tcp);
        // All that is under way, and longer than any of it is merely late.
        while let Some(tcp) = peer.next(5 * MS) {
            peer.take(&tcp);
        }
        if lies < 4 {
            let mut lie = peer.segment(ACK, 0);
            lie.options = peer.block(1 << 20, (1 << 20) + 1000);
            peer.put(&lie);
            lies += 1;
        }
        peer.acknowledge();
    }
    assert_eq!(peer.stream(), sent);
    // Repetitions are a reason to send again once.
    assert!(peer.retransmits() <= 4, "{} sent again", peer.retransmits());
}

/// A last segment of a single byte is acknowledged, and found missing, like any other.
#[test]
fn a_single_byte_at_the_end_counts() {
    let mut peer = HandMade::open(PLAIN);
    let mut all = Vec::new();
    for round in 0..20 {
        let message = pattern(1461, round);
        all.extend(&message);
        peer.send(&message);
        assert!(peer.behave(SECOND, |peer| peer.len == all.len()));
        peer.behave(SECOND, |_| false);
    }
    assert_eq!((peer.stream(), peer.retransmits()), (&all[..], 0));
    // And now the byte is lost.
    all.extend(pattern(1461, 99));
    peer.send(&all[all.len() - 1461..]);
    let first = peer.next(SECOND).unwrap();
    peer.take(&first);
    assert_eq!(peer.next(SECOND).unwrap().payload.len(), 1);
    let start = peer.world.now();
    peer.acknowledge();
    assert!(peer.behave(10 * SECOND, |peer| peer.len == all.len()));
    let took = (peer.last - start) / MS;
    assert!((40..300).contains(&took), "{took} ms");
}

/// One byte is under way, and the peer repeats itself for ever.
#[test]
fn repetitions_while_a_byte_is_under_way_are_no_storm() {
    for len in [1, 2, 1460, 20_000] {
        let mut peer = HandMade::open(PLAIN);
        peer.send(&pattern(len, 1));
        let (start, mut wakes) = (peer.segments, peer.wakes);
        for _ in 0..2000 {
            peer.say(0);
            while let Some(tcp) = peer.next(MS) {
                peer.take(&tcp);
            }
        }
        wakes = peer.wakes - wakes;
        let segments = peer.segments - start;
        // 14 of these are the first window; the rest are timeouts.
        assert!(segments <= 30, "{len} bytes: {segments} segments for 2,000 repetitions");
        assert!(wakes <= 3 * 2000 + 300, "{len} bytes: {wakes} wakes");
        peer.acknowledge();
        assert!(peer.behave(20 * SECOND, |peer| peer.len == len));
        assert_eq!(peer.stream(), pattern(len, 1));
    }
}

/// The peer has said its last byte, so have we, and ours is lost while it repeats itself: LAST-ACK.
#[test]
fn what_is_lost_in_last_ack_goes_again_without_a_storm() {
    let mut peer = HandMade::open(PLAIN);
    peer.finish();
    peer.behave(10 * MS, |_| false);
    let sent = pattern(8000, 1);
    peer.send(&sent);
    let id = peer.id;
    peer.world.hosts[0].stack.half_close(id);
    peer.world.hosts[0].stack.flush();
    let first = peer.next(MS).unwrap();
    assert_eq!(first.payload.len(), 1460);
    while let Some(tcp) = peer.next(MS) {
        peer.take(&tcp);
        peer.acknowledge();
    }
    let (wakes, frames) = (peer.wakes, peer.frames);
    peer.lose(900 * MS);
    assert!(peer.wakes - wakes < 50, "{} wakes", peer.wakes - wakes);
    assert!(peer.frames - frames < 5, "{} frames", peer.frames - frames);
    assert!(peer.behave(20 * SECOND, |peer| peer.is_over), "the end");
    assert_eq!(peer.stream(), sent);
}

/// A window larger than what may be under way changes: that is no repetition.
#[test]
fn changes_of_a_wide_window_are_not_taken_for_losses() {
    let mut peer = HandMade::open(PLAIN);
    peer.send(&pattern(100_000, 1));
    for change in 1..=8 {
        peer.window = PLAIN.window - change;
        peer.say(0);
        while let Some(tcp) = peer.next(MS) {
            peer.take(&tcp);
        }
    }
    assert_eq!(peer.retransmits(), 0);
    peer.acknowledge();
    assert!(peer.behave(SECOND, |peer| peer.len == 100_000));
    assert_eq!((peer.stream(), peer.retransmits()), (&pattern(100_000, 1)[..], 0));
}

/// Half of what is under way is lost, then the window is closed with the rest outside; and that it opens is lost as well.
#[test]
fn a_window_that_closes_over_what_is_under_way_and_opens_in_silence() {
    for scale in [None, Some(0), Some(7), Some(14)] {
        let mut peer =
            HandMade::open(Manner { scale, window: 20_000 >> scale.unwrap_or(0).min(12), ..PLAIN });
        let sent = pattern(8000, 1);
        peer.send(&sent);
        for _ in 0..2 {
            let tcp = peer.next(MS).unwrap();
            peer.take(&tcp);
        }
        peer.lose(MS);
        let open = core::mem::replace(&mut peer.window, 0);
        peer.say(2920);
        let wakes = peer.wakes;
        peer.lose(2 * SECOND);
        assert!(peer.wakes - wakes < 100, "{} wakes", peer.wakes - wakes);
        peer.window = open;
        assert!(peer.behave(30 * SECOND, |peer| peer.len == sent.len()), "{scale:?}: {} bytes", peer.len);
        assert_eq!(peer.stream(), sent);
    }
}

/// A round trip is not what passes until the second SYN-ACK is answered (Karn's rule).
#[test]
fn a_lost_syn_ack_does_not_make_the_connection_slow() {
    let mut peer = HandMade::open_losing(PLAIN, 1);
    peer.send(b"hello");
    let start = peer.world.now();
    assert!(peer.next(SECOND).is_some());
    peer.pass(MS);
    assert!(peer.behave(10 * SECOND, |peer| peer.len == 5));
    // No round trip was measured yet, so it takes a second; after that it does not.
    assert!(peer.last - start <= 1100 * MS, "{} ms", (peer.last - start) / MS);
    peer.pass(MS);
    peer.send(b"hello");
    assert!(peer.behave(SECOND, |peer| peer.len == 10));
    peer.pass(MS);
    peer.send(b"hello");
    let start = peer.world.now();
    assert!(peer.next(SECOND).is_some());
    assert!(peer.behave(10 * SECOND, |peer| peer.len == 15));
    assert!(peer.last - start <= 300 * MS, "{} ms", (peer.last - start) / MS);
}

/// A port that takes nothing for a while, just when something is to be sent again.
#[test]
fn a_full_port_does_not_swallow_what_is_sent_again() {
    for stuck_ms in [1, 100, 700, 1500, 5000] {
        let mut peer = HandMade::open(PLAIN);
        peer.send(&pattern(5000, 1));
        peer.next(MS).unwrap();
        while let Some(tcp) = peer.next(MS) {
            peer.take(&tcp);
        }
        // Others fill its queue.
        peer.world.hosts[0].stack.device_mut().tx_room = 0;
        let mut syn = peer.segment(SYN, 0);
        syn.to.1 = 9;
        (0..100).for_each(|_| peer.put(&syn));
        peer.pass(MS / 2);
        (0..3).for_each(|_| peer.acknowledge());
        peer.pass(stuck_ms * MS);
        peer.world.hosts[0].stack.device_mut().tx_room = usize::MAX;
        let start = peer.world.now();
        assert!(peer.behave(10 * SECOND, |peer| peer.len == 5000), "{stuck_ms}: {}", peer.world.report());
        assert!(peer.last - start < 10 * MS, "{stuck_ms}: {} ms", (peer.last - start) / MS);
        assert_eq!(peer.stream(), pattern(5000, 1));
    }
}

/// However little a peer says it takes, all arrives.
#[test]
fn any_segment_size_and_any_scale() {
    for mss in [None, Some(0), Some(1), Some(48), Some(536), Some(1460), Some(9000), Some(u16::MAX)] {
        for scale in [None, Some(0), Some(14), Some(255)] {
            let window = if scale > Some(7) { 4 } else { 9000 };
            let mut peer = HandMade::open(Manner { mss, scale, window, sacks: mss.is_some(), ..PLAIN });
            let sent = pattern(30_000, 1);
            peer.send(&sent);
            let mut count = 0;
            while peer.len < sent.len() {
                let tcp = peer.next(5 * SECOND).unwrap_or_else(|| panic!("{mss:?} {scale:?}: {}", peer.len));
                let mss = mss.filter(|mss| *mss > 0).unwrap_or(536).max(48);
                assert!(tcp.payload.len() <= usize::from(mss), "{mss}: {}", tcp.payload.len());
                count += 1;
                if count % 29 != 0 && peer.take(&tcp) {
                    peer.acknowledge();
                }
            }
            assert_eq!(peer.stream(), sent);
            assert!(peer.octets < 2 * sent.len(), "{mss:?} {scale:?}: {} bytes sent", peer.octets);
        }
    }
}

/// Sequence numbers pass zero in the middle of a lossy transfer, for several first numbers just below it.
#[test]
fn the_end_of_the_number_space_is_a_place_like_others() {
    let near = |seed: &u64| {
        let first = HandMade::open(Manner { seed: *seed, ..PLAIN }).first;
        (1..200_000).contains(&first.wrapping_neg())
    };
    let seeds = [20_085, 27_956, 33_564];
    assert!(seeds.iter().all(near));
    for seed in seeds {
        for every in [3, 5, 17] {
            let mut peer = HandMade::open(Manner { seed, ..PLAIN });
            let sent = pattern(400_000, 1);
            peer.send(&sent);
            let mut count = 0;
            while peer.len < sent.len() {
                let tcp = peer.next(SECOND).unwrap_or_else(|| panic!("{every}: {}", peer.len));
                count += 1;
                if count % every != 0 && peer.take(&tcp) {
                    peer.acknowledge();
                }
            }
            assert_eq!(peer.stream(), sent);
            assert!(peer.octets < 2 * sent.len(), "{} bytes sent", peer.octets);
        }
    }
}

/// A last segment that reaches beyond the window ends the stream where it ends, not where the window does.
#[test]
fn an_end_beyond_the_window_is_not_the_end_yet() {
    let mut peer = HandMade::open(PLAIN);
    let (id, sent) = (peer.id, pattern(45 * 1460, 3));
    peer.world.hosts[0].stack.pause_rx(id);
    let put = |peer: &mut HandMade, at: usize| {
        let flags = if at + 1460 == sent.len() { ACK | FIN } else { ACK };
        let mut tcp = peer.segment(flags, 0);
        tcp.seq = peer.seq.wrapping_add(at as u32);
        tcp.payload = sent[at..at + 1460].to_vec();
        peer.put(&tcp);
        let mut answer = None;
        while let Some(tcp) = peer.next(100 * MS) {
            answer = Some(tcp);
        }
        answer.map(|tcp| (tcp.ack.wrapping_sub(peer.seq) as usize, tcp.window))
    };
    let mut last = None;
    for at in 0..44 {
        last = put(&mut peer, at * 1460);
    }
    // Windows are told in pairs of bytes.
    assert_eq!(last, Some((44 * 1460, 648)));
    assert_eq!(put(&mut peer, 44 * 1460), Some((65_536, 0)));
    peer.world.hosts[0].stack.resume_rx(id);
    peer.lose(100 * MS);
    assert!(!peer.world.hosts[0].log(id).eof);
    assert_eq!(put(&mut peer, 44 * 1460).unwrap().0, sent.len() + 1);
    let log = peer.world.hosts[0].log(id);
    assert!(log.eof && log.data == sent);
}

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A segment such as peers send, true or not. What has not come is acknowledged only by one that `lies`.
    fn speak(&mut self, peer: &mut HandMade, lies: bool) {
        if self.one_in(4) {
            peer.window = [0, 1, 3, 12, 46, 512, u16::MAX][self.below(7) as usize];
        }
        let mut tcp = peer.segment(ACK, peer.len);
        if self.one_in(4) {
            let off = match self.below(4) {
                0 => (1 << 31) + self.below(3) as u32,
                1 => (1 << 24) + self.below(1 << 30) as u32,
                _ => (self.below(peer.len as u64 + 1) as u32).wrapping_neg(),
            };
            tcp.ack = tcp.ack.wrapping_add(off);
        } else if lies && self.one_in(4) {
            tcp.ack = tcp.ack.wrapping_add(self.below(20_000) as u32);
        }
        if self.one_in(3) {
            let start = peer.len as i64 + self.below(100_000) as i64 - 30_000;
            tcp.options = peer.block(start, start + self.below(20_000) as i64 - 2000);
        }
        if self.one_in(8) {
            tcp.seq = tcp.seq.wrapping_add(self.below(200_000) as u32).wrapping_sub(100_000);
        } else if self.one_in(8) {
            tcp.payload = pattern(1 + self.below(1400) as usize, 7);
            peer.seq = peer.seq.wrapping_add(tcp.payload.len() as u32);
        }
        if self.one_in(30) {
            tcp.flags |= [2, 8, 32][self.below(3) as usize];
        }
        for _ in 0..[1, 1, 1, 2, 3, 5][self.below(6) as usize] {
            peer.put(&tcp);
        }
    }

    fn manner(&mut self) -> Manner {
        Manner {
            mss: [None, Some(1), Some(536), Some(1460), Some(9000)][self.below(5) as usize],
            scale: [None, Some(0), Some(2), Some(7), Some(14)][self.below(5) as usize],
            sacks: self.one_in(2),
            window: 512,
            isn: [1000, u32::MAX - self.below(20_000) as u32][self.below(2) as usize],
            seed: self.word(),
        }
    }
}

/// A conversation with a peer of no good manners, while which the stack has `sent` to say.
fn converse(random: &mut Random, peer: &mut HandMade, sent: &[u8], lies: bool) -> Result<(), TestCaseError> {
    let id = peer.id;
    let mut parts = sent.chunks(500 + random.below(30_000) as usize);
    for _ in 0..200 {
        if random.one_in(3)
            && let Some(part) = parts.next()
        {
            peer.send(part);
        }
        match random.below(40) {
            0 => {
                // Silence.
                peer.world.hosts[0].stack.device_mut().tx_room = usize::MAX;
                peer.lose(20 * MS);
                let (wakes, frames) = (peer.wakes, peer.frames);
                peer.lose(300 * MS);
                let (wakes, frames) = (peer.wakes - wakes, peer.frames - frames);
                prop_assert!(wakes < 80 && frames < 1500, "{wakes} wakes and {frames} segments in silence");
            }
            1 => {
                peer.world.hub.set_up(false);
                peer.lose(random.below(100) * MS);
                peer.world.hub.set_up(true);
            }
            2 => peer.world.hosts[0].stack.device_mut().tx_room = random.below(20) as usize,
            3..=9 => random.speak(peer, lies),
            11..=14 => {
                let ns = random.below(30) * MS;
                peer.pass(ns);
            }
            _ => {
                let (is_lost, is_mute) = (random.one_in(4), random.one_in(5));
                if let Some(tcp) = peer.next(MS)
                    && !is_lost
                    && peer.take(&tcp)
                    && !is_mute
                {
                    peer.acknowledge();
                }
            }
        }
        if random.one_in(3) {
            peer.world.hosts[0].stack.device_mut().tx_room = usize::MAX;
        }
    }
    peer.world.hosts[0].stack.device_mut().tx_room = usize::MAX;
    parts.for_each(|part| peer.send(part));
    if random.one_in(2) {
        peer.finish();
    }
    if random.one_in(2) {
        peer.behave(10 * SECOND, |peer| peer.world.hosts[0].owed(id) == 0);
        peer.world.hosts[0].stack.half_close(id);
        peer.world.hosts[0].stack.flush();
    }
    Ok(())
}

fn gets_its_bytes(seed: u64) -> Result<(), TestCaseError> {
    let random = &mut Random(seed);
    let manner = random.manner();
    let mut peer = HandMade::open(manner);
    let sent = pattern(60_000, seed);
    converse(random, &mut peer, &sent, false)?;
    peer.window = 512;
    if random.one_in(2) {
        peer.acknowledge();
    }
    let start = peer.world.now();
    let is_done = peer.behave(100 * SECOND, |peer| peer.len == sent.len());
    prop_assert!(is_done, "{} of {} bytes: {}", peer.len, sent.len(), peer.world.report());
    prop_assert!(peer.stream() == sent);
    let took = (peer.world.now() - start) / SECOND;
    prop_assert!(took < 40, "{took} s");
    let id = peer.id;
    peer.world.hosts[0].stack.half_close(id);
    prop_assert!(peer.behave(40 * SECOND, |peer| peer.is_over), "no end: {}", peer.world.report());
    prop_assert!(peer.world.hosts[0].log(id).reset.is_none());
    Ok(())
}

fn harms_only_itself(seed: u64) -> Result<(), TestCaseError> {
    let random = &mut Random(seed);
    let manner = random.manner();
    let mut peer = HandMade::open(manner);
    let sent = pattern(60_000, seed);
    converse(random, &mut peer, &sent, true)?;
    let (wakes, frames) = (peer.wakes, peer.frames);
    peer.lose(10 * SECOND);
    let (wakes, frames) = (peer.wakes - wakes, peer.frames - frames);
    // A scale of 14 says 16 KiB at the least, and these are 342 segments of 48 bytes each time.
    prop_assert!(wakes < 300 && frames < 4000, "{wakes} wakes and {frames} segments in ten seconds");
    let id = peer.id;
    peer.world.hosts[0].stack.reset(id);
    peer.world.assert_empty();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever it says, as long as it acknowledges only what it has: once it behaves, all arrives.
    #[test]
    fn a_peer_that_talks_nonsense_gets_its_bytes(seed in any::<u64>()) {
        gets_its_bytes(seed)?;
    }

    /// One that lies about what it has: bounded harm, and nothing left when it is gone.
    #[test]
    fn a_peer_that_lies_harms_only_itself(seed in any::<u64>()) {
        harms_only_itself(seed)?;
    }
}
