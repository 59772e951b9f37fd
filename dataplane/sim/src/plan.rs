//! Which faults a run injects: drawn from the seed, all at once, before the run begins.

use crate::rng::Rng;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// How nasty a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Any chunking and delay, but no connection is lost.
    Fair,
    /// Resets, refusals and timeouts too.
    Foul,
}

/// Faults of a whole run.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    /// Links may be lost, connects may fail.
    pub(crate) weather: Weather,
    /// Most events in one burst, 1..=32; 0 draws one each time.
    pub(crate) burst_max: usize,
    /// Receive buffers there are.
    pub(crate) rx_buffers: usize,
    /// The largest `Data`, bytes.
    pub(crate) chunk_bytes_max: usize,
    /// No link holds less than this, bytes a direction.
    pub(crate) capacity_bytes_min: usize,
    /// Links reset on the way, per mille of links.
    pub(crate) reset_permille: u64,
    /// Connects refused, per mille.
    pub(crate) refuse_permille: u64,
    /// Connects never answered, per mille.
    pub(crate) lost_permille: u64,
    /// Keeps taking events of one connection until it has none, per mille of bursts.
    pub(crate) clump_permille: u64,
    /// Reuse the lowest free slot (true) or a random one.
    pub(crate) reuse_lowest: bool,
    /// Virtual time of a turn, at most, ns.
    pub(crate) turn_ns_max: u64,
}

/// Faults of one link.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    /// Bytes a direction holds.
    pub(crate) capacity_bytes: usize,
    /// Writes cut short although there is room, per mille.
    pub(crate) short_permille: u64,
    /// Bytes delivered together, at most.
    pub(crate) segment_bytes_max: usize,
    /// Delivery takes at least this, ns.
    pub(crate) delay_ns_min: u64,
    /// And less than this.
    pub(crate) delay_ns_max: u64,
    /// Writes after which the direction stalls, per mille.
    pub(crate) stall_permille: u64,
    /// For at most so long, ns.
    pub(crate) stall_ns_max: u64,
    /// The link is lost after so many bytes, both directions together.
    pub(crate) reset_after_bytes: Option<u64>,
    /// The link is lost so long after its beginning, ns.
    pub(crate) reset_after_ns: Option<u64>,
    /// An end that the other side closed or reset is seen even while reading is paused.
    pub(crate) sees_end_paused: bool,
    /// A shard's `close` with unread bytes turns into a RST that destroys what is on its way, as Linux does.
    pub(crate) harsh_close: bool,
}

impl FaultPlan {
    /// Draws a plan.
    pub(crate) fn draw(rng: &mut Rng, weather: Weather) -> Self {
        let foul = weather == Weather::Foul;
        Self {
            weather,
            burst_max: if rng.chance(400) { 0 } else { rng.size(1, 32) },
            rx_buffers: rng.pick(&[64, 256, 1024, 4096]),
            chunk_bytes_max: rng.pick(&[1, 3, 17, 300, 1460, 4096, 16_384, 65_536]),
            capacity_bytes_min: rng.pick(&[64, 1000, 16_384]),
            reset_permille: if foul { rng.pick(&[0, 50, 200, 500]) } else { 0 },
            refuse_permille: if foul { rng.pick(&[0, 0, 100, 400]) } else { 0 },
            lost_permille: if foul { rng.pick(&[0, 0, 50, 200]) } else { 0 },
            clump_permille: rng.pick(&[0, 300, 1000]),
            reuse_lowest: rng.chance(700),
            turn_ns_max: rng.pick(&[1, 500, 5 * US, 50 * US]),
        }
    }

    /// Bytes that may cross a link without a run becoming nothing but tiny steps.
    pub(crate) fn bytes_max(&self) -> usize {
        (self.chunk_bytes_max * 1000).min(self.capacity_bytes_min * 200).min(1 << 20)
    }

    /// Draws the faults of one link.
    pub(crate) fn link(&self, rng: &mut Rng) -> LinkPlan {
        let delay_ns_max = rng.pick(&[2, US, 20 * US, 200 * US, 2 * MS]);
        let is_lost = rng.chance(self.reset_permille);
        let by_bytes = rng.chance(500);
        // Tiny segments on a fat pipe would make a run of nothing but segments.
        let capacity_bytes =
            rng.pick(&[64, 1000, 4096, 16_384, 65_536, 262_144]).max(self.capacity_bytes_min);
        let segment_bytes_max = rng.pick(&[1, 9, 100, 1460, 16_384, 65_536]).max(capacity_bytes / 512);
        LinkPlan {
            capacity_bytes,
            short_permille: rng.pick(&[0, 0, 50, 300, 800]),
            segment_bytes_max,
            delay_ns_min: rng.below(delay_ns_max / 2),
            delay_ns_max,
            stall_permille: rng.pick(&[0, 0, 5, 50]),
            stall_ns_max: rng.pick(&[US, MS, 50 * MS]),
            reset_after_bytes: (is_lost && by_bytes).then(|| rng.skewed(200_000) as u64),
            reset_after_ns: (is_lost && !by_bytes).then(|| rng.skewed(100_000_000) as u64),
            sees_end_paused: rng.chance(500),
            harsh_close: rng.chance(500),
        }
    }
}
