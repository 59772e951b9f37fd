//! What was lost and when to send it again, and how much may be under way: loss recovery and congestion control.
//!
//! smoltcp 0.14 sends again after a second at the earliest, or when three acknowledgements in a row say the same: then
//! one segment, also where several are missing, and also where the network has only changed their order; and it takes
//! each for a new reason to send less. So all that is decided here. Acknowledgements that say nothing new do not reach
//! smoltcp; when a segment is taken for lost, smoltcp is told so in the way it understands (`Stack::send_again`), and
//! sends the first segment that is not acknowledged. The window it sees is the smaller of the peer's and ours.
//!
//! A segment is taken for lost when later ones have arrived and it still has not after a while (as RFC 8985 has it),
//! when a retransmission has uncovered it as the next hole (RFC 6582), or when nothing is heard for the time of RFC 6298,
//! with a floor as low as other systems'. The congestion window is RFC 5681's, begins with ten segments (RFC 6928), is
//! halved once for all that was under way at a loss, and gets back what it lost if the peer says that it had arrived.

use shard::Instant;

use crate::outbox::Sent;

/// The least retransmission timeout beyond the round trip: above all delayed acknowledgements of other systems.
const FLOOR_NS: u64 = 200_000_000;
/// The same for the first try at the end of a burst: above most delayed acknowledgements.
const PROBE_NS: u64 = 50_000_000;
/// Until a round trip was measured (RFC 6298 section 2.1).
const FIRST_NS: u64 = 1_000_000_000;
/// Acknowledgements that say nothing new, after which segments are no longer expected to be merely late.
const DOUBLES: u8 = 3;
/// How late they may be at least.
const LATE_NS: u64 = 1_000_000;
/// Timeouts in a row, each twice as long; after that smoltcp's own does, until it gives the peer up.
const TRIES_MAX: u32 = 6;

/// Segments that may be under way before anything was acknowledged (RFC 6928), and their bytes in any case.
const FIRST_SEGMENTS: u32 = 10;
const FIRST_BYTES: u32 = 14_600;
/// The largest segment a peer takes that does not say (RFC 9293 section 3.7.1).
const MSS_DEFAULT: u16 = 536;
/// smoltcp's segments are never smaller, whatever the peer says.
const MSS_MIN: u32 = 48;

/// True if sequence number `a` comes after `b`.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// What a segment's options say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    mss: Option<u16>,
    /// The scale of the windows of who says so (RFC 7323), a shift.
    pub(crate) scale: Option<u8>,
    /// Where the last received byte ends (RFC 2018).
    arrived: Option<u32>,
    /// The first byte of what was received twice (RFC 2883).
    doubled: Option<u32>,
}

impl Options {
    /// Of a TCP header, whose acknowledgement is `ack`.
    pub(crate) fn of(header: &[u8], ack: u32) -> Self {
        let mut out = Self::default();
        let mut options = header.get(20..).unwrap_or_default();
        loop {
            options = match *options {
                [] | [0, ..] => return out,
                [1, ref rest @ ..] => rest,
                [kind, len, ..] if len >= 2 && usize::from(len) <= options.len() => {
                    let (option, rest) = options.split_at(len.into());
                    match (kind, &option[2..]) {
                        (2, &[high, low]) => out.mss = Some(u16::from_be_bytes([high, low])),
                        // RFC 7323 section 2.3: more is taken for 14.
                        (3, &[scale]) => out.scale = Some(scale.min(14)),
                        (5, blocks) => blocks.as_chunks::<8>().0.iter().for_each(|block| out.add(block, ack)),
                        _ => {}
                    }
                    rest
                }
                _ => return out,
            };
        }
    }

    /// True if bytes are said to have arrived after others that have not.
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.is_some()
    }

    fn add(&mut self, block: &[u8; 8], ack: u32) {
        let [a, b, c, d, end @ ..] = *block;
        let (start, end) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(end));
        if !is_after(end, start) {
            // No block at all.
        } else if !is_after(end, ack) {
            self.doubled = Some(start);
        } else if self.arrived.is_none_or(|known| is_after(end, known)) {
            self.arrived = Some(end);
        }
    }
}

/// One connection's.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// SND.UNA as last seen.
    una: Option<u32>,
    /// SND.NXT as last seen.
    next: u32,
    /// Since when nothing has moved: no acknowledgement, nothing sent again.
    since: Instant,
    /// RFC 6298's; no time at all until a round trip was measured.
    srtt_ns: u64,
    deviation_ns: u64,
    /// The segment whose round trip is being measured: its end, and when it went.
    timed: Option<(u32, Instant)>,
    /// Since when bytes after SND.UNA are known to have arrived.
    overtaken: Option<Instant>,
    /// Where the last byte ends that is known to have arrived.
    arrived: Option<u32>,
    /// Acknowledgements in a row that said nothing new.
    doubles: u8,
    /// SND.NXT when something was sent again: until all before it is acknowledged, holes are losses.
    until: Option<u32>,
    /// What was sent again last.
    again: Option<u32>,
    /// Timeouts in a row.
    tries: u32,
    /// A timeout has begun this, so that what follows the lost segment may well be lost too.
    is_silent: bool,
    /// This network changes the order of segments.
    reorders: bool,
    /// RFC 5681's, in bytes; the window is never larger than what the socket can hold.
    mss: u32,
    window: u32,
    window_max: u32,
    threshold: u32,
    /// The window before it was halved.
    whole: u32,
    /// The scale of the peer's windows.
    scale: u8,
}

impl Recovery {
    /// A connection begins: the peer has sent its SYN.
    pub(crate) fn begin(&mut self, options: Options, mss_max: u32, window_max: u32) {
        let mss = options.mss.filter(|mss| *mss > 0).unwrap_or(MSS_DEFAULT);
        self.mss = u32::from(mss).clamp(MSS_MIN, mss_max.max(MSS_MIN));
        self.scale = options.scale.unwrap_or(0);
        self.window = (FIRST_SEGMENTS * self.mss).min(FIRST_BYTES.max(2 * self.mss));
        (self.window_max, self.threshold) = (window_max, u32::MAX);
    }

    /// What a window may be in a SYN, which is not scaled.
    pub(crate) fn first_window(&self) -> u16 {
        u16::try_from(self.window).unwrap_or(u16::MAX)
    }

    /// A window as later segments would say it.
    pub(crate) fn scaled(&self, window: u16) -> u16 {
        (window >> self.scale).max(window.min(1))
    }

    /// The smaller of a window field of the peer's and ours, of which there are whole segments only: what is left over
    /// would go as a small one. A window that is open stays so.
    pub(crate) fn window(&self, field: u16) -> u16 {
        if self.window >= self.window_max {
            return field;
        }
        let whole = self.window - self.window % self.mss.max(1);
        field.min(u16::try_from(whole >> self.scale).unwrap_or(u16::MAX).max(1))
    }

    /// The peer's window is no longer `before`. What went unheard while it was closed says nothing.
    pub(crate) fn opened(&mut self, before: u16, after: u16) {
        if before == 0 && after != 0 {
            self.tries = 0;
        }
    }

    /// SND.UNA has become this.
    pub(crate) fn acknowledged(&mut self, una: u32, sent: &mut Sent, now: Instant) {
        let Some(before) = self.una.replace(una) else { return self.time(una, now) };
        if !is_after(una, before) {
            self.una = Some(before);
            return;
        }
        if self.overtaken.is_some() && !sent.has_again(before) {
            self.reorders = true;
        }
        // Silence, and then exactly what was sent again has arrived: the next is missing too.
        let is_next = self.is_silent && sent.again_ends(una);
        self.grow(una.wrapping_sub(before), self.next.wrapping_sub(before));
        sent.acknowledged(una);
        self.since = now;
        (self.tries, self.doubles) = (0, 0);
        self.arrived = self.arrived.filter(|end| is_after(*end, una));
        self.until = self.until.filter(|until| is_after(*until, una));
        self.overtaken = (self.arrived.is_some() || (is_next && self.until.is_some())).then_some(now);
        self.time(una, now);
    }

    /// Ends the measurement of a round trip.
    fn time(&mut self, una: u32, now: Instant) {
        if let Some((end, at)) = self.timed
            && !is_after(end, una)
        {
            self.timed = None;
            self.measure(now.since_ns(at).max(1));
        }
    }

    /// RFC 6298 section 2.
    fn measure(&mut self, rtt_ns: u64) {
        if self.srtt_ns == 0 {
            (self.srtt_ns, self.deviation_ns) = (rtt_ns, rtt_ns / 2);
            return;
        }
        self.deviation_ns = (3 * self.deviation_ns + self.srtt_ns.abs_diff(rtt_ns)) / 4;
        self.srtt_ns = (7 * self.srtt_ns + rtt_ns) / 8;
    }

    /// RFC 5681 section 3.1: so many bytes of those under way have arrived. A window that is not used does not grow.
    fn grow(&mut self, bytes: u32, flight: u32) {
        if self.window >= self.window_max || flight < self.window / 2 {
            return;
        }
        let more = if self.window < self.threshold {
            bytes.min(self.threshold - self.window)
        } else if self.until.is_none() {
            (u64::from(self.mss) * u64::from(bytes) / u64::from(self.window)).try_into().unwrap_or(bytes)
        } else {
            0
        };
        self.window = self.window.saturating_add(more).min(self.window_max);
    }

    /// An acknowledgement has said nothing new, but perhaps what has arrived beyond.
    pub(crate) fn doubled(&mut self, options: Options, now: Instant) {
        // What was never sent cannot have arrived.
        if let Some(end) = options.arrived.filter(|end| !is_after(*end, self.next))
            && self.arrived.is_none_or(|known| is_after(end, known))
        {
            self.arrived = Some(end);
        }
        if options.doubled.is_some() {
            self.regret(options.doubled);
            if options.arrived.is_none() {
                return;
            }
        }
        self.overtaken.get_or_insert(now);
        self.doubles = self.doubles.saturating_add(1);
    }

    /// What begins here had arrived before it was sent again: it was late, not lost.
    fn regret(&mut self, doubled: Option<u32>) {
        if doubled.is_some() && self.again == doubled {
            self.reorders = true;
            self.window = self.window.max(self.whole);
            (self.again, self.whole) = (None, 0);
        }
    }

    /// Something may have been sent.
    pub(crate) fn sent(&mut self, sent: &Sent, now: Instant) {
        let Some(next) = sent.next() else { return };
        let una = self.una.unwrap_or(next);
        if self.next != next {
            if !is_after(self.next, una) {
                self.since = now;
            }
            self.next = next;
            if self.una != Some(next) {
                self.timed.get_or_insert((next, now));
            }
        }
        // Karn's rule: whose acknowledgement is it?
        if sent.has_again(una) {
            self.timed = None;
            self.halve(una);
        } else if self.una.is_none() && sent.has_again(next.wrapping_sub(1)) {
            // A SYN.
            self.timed = None;
        }
    }

    /// Once for all that is under way.
    fn halve(&mut self, una: u32) {
        if self.until.is_none() {
            self.until = Some(self.next);
            self.whole = self.window;
            self.threshold = (self.next.wrapping_sub(una) / 2).max(2 * self.mss);
            self.window = self.threshold;
            self.is_silent = false;
        }
    }

    /// When the first unacknowledged segment is to be sent again, if there is one.
    pub(crate) fn due(&self, sent: &Sent) -> Option<Instant> {
        let una = self.una?;
        if !is_after(self.next, una) || self.tries >= TRIES_MAX {
            return None;
        }
        let timeout = self.since.after_ns(self.timeout_ns(sent.has_several(una)));
        Some(self.hole(una, sent).map_or(timeout, |hole| hole.min(timeout)))
    }

    /// When the first unacknowledged segment is given up because it was overtaken: once, whatever came of it.
    fn hole(&self, una: u32, sent: &Sent) -> Option<Instant> {
        let since = self.overtaken.filter(|_| !sent.has_again(una) && self.again != Some(una))?;
        Some(since.after_ns(self.patience_ns()))
    }

    /// How long a peer may say nothing. It acknowledges several segments sooner than one, so the end of a burst is tried
    /// for once before its time (RFC 8985 section 7).
    fn timeout_ns(&self, are_several: bool) -> u64 {
        let variance_ns = 4 * self.deviation_ns;
        match self.srtt_ns {
            0 => FIRST_NS << self.tries,
            srtt_ns if are_several && self.tries == 0 => 2 * srtt_ns + PROBE_NS + variance_ns,
            srtt_ns => (srtt_ns + FLOOR_NS.max(variance_ns)) << (self.tries - u32::from(are_several)),
        }
    }

    /// How long a segment that was overtaken may still be only late.
    fn patience_ns(&self) -> u64 {
        match self.reorders {
            true => self.srtt_ns.max(LATE_NS),
            false if self.doubles >= DOUBLES || self.until.is_some() => 0,
            false => (self.srtt_ns / 4).max(LATE_NS),
        }
    }

    /// The first unacknowledged segment is being sent again.
    pub(crate) fn tried(&mut self, sent: &Sent, now: Instant) {
        let Some(una) = self.una else { return };
        let is_timeout = self.hole(una, sent).is_none_or(|at| at > now);
        self.halve(una);
        if is_timeout {
            self.tries += 1;
            self.is_silent = true;
            if self.tries > 1 {
                self.window = self.mss;
            }
        }
        (self.again, self.timed) = (Some(una), None);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn options_are_read_and_anything_is_survived() {
        let header = |options: &[u8]| [&[0; 20], options].concat();
        let syn = header(&[2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 0, 99]);
        let read = Options::of(&syn, 0);
        assert_eq!((read.mss, read.scale, read.arrived), (Some(1460), Some(7), None));
        let sack = header(&[1, 1, 5, 18, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 1, 0, 0, 0, 2, 0]);
        let read = Options::of(&sack, 100);
        assert_eq!((read.arrived, read.doubled), (Some(512), Some(10)));
        assert_eq!(Options::of(&header(&[3, 3, 200]), 0).scale, Some(14));
        proptest::proptest!(|(bytes in proptest::collection::vec(0_u8.., 0..80), ack: u32)| {
            Options::of(&bytes, ack);
        });
    }

    /// Ten segments of 1000 bytes under way since `now` on a path of a millisecond.
    fn under_way(now: Instant) -> (Recovery, Sent) {
        let mut recovery = Recovery::default();
        recovery.begin(Options { mss: Some(1000), ..Options::default() }, 1460, 64 << 10);
        let mut sent = Sent::default();
        sent.test_new(0, 1);
        recovery.sent(&sent, now);
        recovery.acknowledged(1, &mut sent, now.after_ns(MS));
        for at in 0..10 {
            sent.test_new(1 + 1000 * at, 1000);
        }
        recovery.sent(&sent, now.after_ns(MS));
        (recovery, sent)
    }

    #[test]
    fn what_was_only_late_costs_patience_and_not_the_window() {
        let now = Instant(1000 * MS).after_ns(MS);
        let (mut recovery, mut sent) = under_way(Instant(1000 * MS));
        let sacked = Options { arrived: Some(5001), ..Options::default() };
        recovery.doubled(sacked, now);
        assert_eq!(recovery.due(&sent), Some(now.after_ns(LATE_NS)), "it may yet come");
        (0..2).for_each(|_| recovery.doubled(sacked, now));
        assert_eq!(recovery.due(&sent), Some(now), "three are enough");
        recovery.tried(&sent, now);
        sent.test_again(1, 1000);
        recovery.sent(&sent, now);
        assert_eq!(recovery.window, 5000, "half of what was under way");
        assert!(recovery.due(&sent) > Some(now.after_ns(50 * MS)), "once is enough");
        // It had come.
        let later = now.after_ns(MS);
        recovery.acknowledged(10_001, &mut sent, later);
        recovery.doubled(Options { doubled: Some(1), ..Options::default() }, later);
        assert_eq!((recovery.window, recovery.reorders), (10_000, true));
        sent.test_new(10_001, 2000);
        recovery.sent(&sent, later);
        (0..9).for_each(|_| recovery.doubled(Options { arrived: Some(12_001), ..Options::default() }, later));
        assert_eq!(recovery.due(&sent), Some(later.after_ns(LATE_NS)), "patience from now on");
    }

    #[test]
    fn the_window_is_whole_segments_in_the_peers_scale_and_never_closed() {
        let mut recovery = Recovery::default();
        recovery.begin(Options { mss: Some(1460), scale: Some(7), ..Options::default() }, 8960, 64 << 10);
        assert_eq!((recovery.first_window(), recovery.window(u16::MAX)), (14_600, 14_600 >> 7));
        assert_eq!((recovery.window(3), recovery.window(0)), (3, 0));
        recovery.window += 1459;
        assert_eq!(recovery.window(u16::MAX), 14_600 >> 7);
        recovery.scale = 14;
        assert_eq!((recovery.window(9), recovery.scaled(100), recovery.scaled(0)), (1, 1, 0));
        recovery.begin(Options::default(), 1460, 64 << 10);
        assert_eq!(recovery.window, 5360, "a peer that does not say takes 536 bytes");
    }

    /// One step of a conversation whose numbers begin at `first`; `steps` decides what happens.
    fn step(
        (recovery, sent): &mut (Recovery, Sent),
        place: &mut (u32, u32),
        first: u32,
        step: u32,
        now: Instant,
    ) {
        let (una, next) = (first.wrapping_add(place.0), first.wrapping_add(place.1));
        let under_way = place.1 - place.0;
        match step % 8 {
            0..=2 if under_way < 1 << 20 => {
                let len = 1 + (step >> 3) % 60_000;
                sent.test_new(next, len);
                place.1 += len;
                recovery.sent(sent, now);
            }
            3 | 4 => {
                place.0 += under_way - under_way / 4 * ((step >> 3) % 4);
                recovery.acknowledged(first.wrapping_add(place.0), sent, now);
            }
            5 => {
                let end = una.wrapping_add((step >> 3) % (1 << 21));
                recovery.doubled(
                    Options { arrived: Some(end).filter(|end| is_after(*end, una)), ..Options::default() },
                    now,
                );
            }
            6 => recovery.doubled(Options { doubled: recovery.again, ..Options::default() }, now),
            _ if under_way > 0 && recovery.due(sent).is_some_and(|due| due <= now) => {
                recovery.tried(sent, now);
                sent.test_again(una, under_way.min(1000));
                recovery.sent(sent, now);
            }
            _ => {}
        }
    }

    /// Numbers pass zero, twice in five gibibytes; what is decided depends on none of it.
    #[test]
    fn no_number_is_a_special_one() {
        let begin = |first: u32| {
            let mut both = (Recovery::default(), Sent::default());
            both.0.begin(Options { mss: Some(1460), scale: Some(7), ..Options::default() }, 1460, 1 << 20);
            both.1.test_new(first.wrapping_sub(1), 1);
            both.0.sent(&both.1, Instant(0));
            both.0.acknowledged(first, &mut both.1, Instant(1));
            both
        };
        let firsts = [1, u32::MAX - 100_000, 1 << 31, (1 << 31) - 70_000];
        let mut all = firsts.map(begin);
        let (mut total, mut moved, mut seed) = (0_u64, 0_u32, 1_u64);
        for at in 0..600_000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (random, now) = ((seed >> 33) as u32, Instant(at * MS));
            let mut told = alloc::vec![];
            for (both, first) in all.iter_mut().zip(firsts) {
                let first = first.wrapping_add(moved);
                let una = both.0.una.unwrap();
                let mut place = (una.wrapping_sub(first), both.1.next().unwrap().wrapping_sub(first));
                step(both, &mut place, first, random, now);
                told.push((both.0.due(&both.1), both.0.window(u16::MAX), place));
            }
            assert!(told.iter().all(|one| *one == told[0]), "step {at}: {told:?}");
            moved = moved.wrapping_add(told[0].2.0);
            total += u64::from(told[0].2.0);
        }
        assert!(total > 5 << 30, "{total}");
    }
}
