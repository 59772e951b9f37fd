//! What each kind of job costs on each provider at a few sizes on this machine, and so which one takes it.
//!
//! Measured once at start, before shards run. A job goes by the smallest size that is not below its own, or by the
//! largest. What a device cannot do is found out here too: the largest size needs chained buffers, which some do not
//! take, whatever their flags say.

#[cfg(feature = "dpdk")]
mod timing;

use core::fmt::Write;

use shard::Work;

#[cfg(feature = "dpdk")]
pub use timing::measure;

/// Sizes that are timed, bytes of input. (Of what comes out, for jobs that undo another.)
pub const SIZES: [usize; 6] = [256, 1 << 10, 4 << 10, 16 << 10, 56 << 10, 256 << 10];

/// Kinds of jobs that are timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// gzip of text like JSON.
    Compress,
    /// The reverse.
    Decompress,
    /// A seal with AES-128-GCM.
    Seal,
    /// The reverse.
    Open,
}

impl Kind {
    /// All, at their numbers.
    pub const ALL: [Self; 4] = [Self::Compress, Self::Decompress, Self::Seal, Self::Open];

    /// As operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compress => "compress",
            Self::Decompress => "decompress",
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }

    fn of(work: &Work) -> Self {
        match work {
            Work::Compress(_) => Self::Compress,
            Work::Decompress(..) => Self::Decompress,
            Work::Seal(_) => Self::Seal,
            Work::Open(_) => Self::Open,
        }
    }
}

/// What a job costs, nanoseconds of this core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// On the CPU.
    pub cpu_ns: u64,
    /// On the device, if there is one that takes it.
    pub device_ns: Option<u64>,
}

/// How a job's place is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// The cheaper one at its size.
    #[default]
    Measured,
    /// The device, whenever it can.
    Pinned,
}

/// Which provider takes what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// How it is chosen.
    pub choice: Choice,
    /// By kind and size; none where nothing was measured, for want of a device.
    pub costs: Option<[[Cost; SIZES.len()]; Kind::ALL.len()]>,
}

impl Placement {
    /// True if a job is the device's, should the device take it.
    pub fn prefers_device(&self, work: &Work, input_bytes: usize) -> bool {
        let Some(costs) = &self.costs else { return self.choice == Choice::Pinned };
        let row = costs.get(Kind::of(work) as usize);
        let len = work.text_len(input_bytes);
        let at = SIZES.iter().position(|size| *size >= len).unwrap_or(SIZES.len() - 1);
        let cost = row.and_then(|row| row.get(at)).copied().unwrap_or_default();
        self.is_device(cost)
    }

    fn is_device(&self, cost: Cost) -> bool {
        cost.device_ns.is_some_and(|device_ns| self.choice == Choice::Pinned || device_ns < cost.cpu_ns)
    }

    /// The same as [`Self::text`] for programs: a JSON list of what each kind of job costs at each size, nanoseconds, and
    /// whether the device takes it.
    pub fn json(&self) -> String {
        let kinds = Kind::ALL.into_iter().zip(self.costs.iter().flatten()).map(|(kind, row)| {
            let sizes = SIZES.iter().zip(row).map(|(bytes, cost)| {
                let device = cost.device_ns.map_or_else(|| "null".to_owned(), |ns| ns.to_string());
                let (cpu, takes) = (cost.cpu_ns, self.is_device(*cost));
                format!("{{\"bytes\":{bytes},\"cpu_ns\":{cpu},\"device_ns\":{device},\"device\":{takes}}}")
            });
            format!("{{\"kind\":\"{}\",\"sizes\":[{}]}}", kind.name(), sizes.collect::<Vec<_>>().join(","))
        });
        format!("[{}]", kinds.collect::<Vec<_>>().join(","))
    }

    /// Which sizes of a kind of job are the device's, in words: a job goes by the next size that was timed.
    fn sizes_of_device(row: &[Cost; SIZES.len()]) -> String {
        let is_device = |at: usize| {
            row.get(at).is_some_and(|cost| cost.device_ns.is_some_and(|device| device < cost.cpu_ns))
        };
        let mut ranges = Vec::new();
        let mut begin = None;
        for at in 0..=SIZES.len() {
            match (begin, is_device(at)) {
                (None, true) => begin = Some(at),
                (Some(from), false) => {
                    let over =
                        from.checked_sub(1).and_then(|at| SIZES.get(at)).map(|size| format!("over {size} B"));
                    let to =
                        SIZES.get(at - 1).filter(|_| at < SIZES.len()).map(|size| format!("up to {size} B"));
                    ranges.push([over, to].into_iter().flatten().collect::<Vec<_>>().join(" "));
                    begin = None;
                }
                _ => {}
            }
        }
        match ranges.as_slice() {
            [] => "cpu".to_owned(),
            [all] if all.is_empty() => "device".to_owned(),
            some => format!("device {}", some.join(", ")),
        }
    }

    /// A table: nanoseconds by size and provider, and who takes what. Empty if nothing was measured.
    pub fn text(&self) -> String {
        let Some(costs) = &self.costs else { return String::new() };
        let mut out = String::from("offload (ns a job, cpu/device):\n           ");
        for size in SIZES {
            // Writing into a String does not fail.
            let _ = write!(out, "{:>16}", format!("{size} B"));
        }
        out.push('\n');
        for (kind, row) in Kind::ALL.into_iter().zip(costs) {
            if row.iter().all(|cost| cost.device_ns.is_none()) {
                continue;
            }
            let _ = write!(out, "  {:<11}", kind.name());
            for Cost { cpu_ns, device_ns } in row {
                let device = device_ns.map_or_else(|| "-".to_owned(), |ns| ns.to_string());
                let _ = write!(out, "{:>14}", format!("{cpu_ns}/{device}"));
            }
            let whose = match self.choice {
                Choice::Pinned if row.iter().all(|cost| cost.device_ns.is_some()) => {
                    "device, pinned".to_owned()
                }
                Choice::Pinned => "device, pinned, where it can".to_owned(),
                Choice::Measured => Self::sizes_of_device(row),
            };
            let _ = writeln!(out, "   {whose}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use abi::Encoding::Gzip;
    use shard::{CallTag, Ring, Seal};

    use super::*;

    fn placement(choice: Choice) -> Placement {
        let cheap_large = |at: usize| Cost { cpu_ns: 100 << at, device_ns: Some(400 + at as u64) };
        let mut costs = [[Cost { cpu_ns: 100, device_ns: None }; SIZES.len()]; Kind::ALL.len()];
        costs[0] = core::array::from_fn(cheap_large);
        costs[0][SIZES.len() - 1].device_ns = None;
        Placement { choice, costs: Some(costs) }
    }

    #[test]
    fn an_envelope_goes_by_what_is_in_it() {
        let mut costs = [[Cost { cpu_ns: 100, device_ns: Some(200) }; SIZES.len()]; Kind::ALL.len()];
        for kind in [Kind::Seal, Kind::Open] {
            costs[kind as usize][1].device_ns = Some(50);
        }
        let placement = Placement { choice: Choice::Measured, costs: Some(costs) };
        let seal = Seal {
            ring: Ring(0),
            tag: CallTag([0; CallTag::LEN]),
            purpose: [0; 16],
            is_request: true,
            index: 0,
            is_final: false,
            encoding: None,
        };
        for (work, more) in [(Work::Seal(seal), Seal::HEAD), (Work::Open(seal), Seal::GROWTH)] {
            let device = [256, 257, 1024, 1025].map(|len| placement.prefers_device(&work, len + more));
            assert_eq!(device, [false, true, true, false], "{work:?}");
        }
    }

    #[test]
    fn the_cheaper_one_takes_a_job_unless_the_device_is_pinned() {
        let measured = placement(Choice::Measured);
        let compress = Work::Compress(Gzip);
        let sizes = [0, 256, 1024, 4096, 4097, 16 << 10, 57 << 10, 1 << 20];
        let device: Vec<bool> = sizes.iter().map(|size| measured.prefers_device(&compress, *size)).collect();
        assert_eq!(device, [false, false, false, false, true, true, false, false], "it takes no chains");
        assert!(!measured.prefers_device(&Work::Decompress(Gzip, 9), 1 << 20), "no device does it");
        assert!(
            measured.json().starts_with(
                "[{\"kind\":\"compress\",\"sizes\":[{\"bytes\":256,\"cpu_ns\":100,\"device_ns\":400,\"device\":false},"
            ) && measured.json().contains("{\"bytes\":16384,\"cpu_ns\":800,\"device_ns\":403,\"device\":true}")
                && measured.json().contains("{\"bytes\":262144,\"cpu_ns\":3200,\"device_ns\":null,\"device\":false}]}"),
            "{}",
            measured.json()
        );
        let pinned = placement(Choice::Pinned);
        assert!(pinned.prefers_device(&compress, 1) && !pinned.prefers_device(&compress, 1 << 20));
        assert!(pinned.text().contains("device, pinned, where it can\n"), "{}", pinned.text());
        let text = measured.text();
        assert!(text.contains("100/400") && text.contains("device over 4096 B up to 57344 B\n"), "{text}");
        assert_eq!(text.lines().count(), 3, "kinds without a device are left out: {text}");
        assert_eq!(Placement::default().text(), "");
        let row = |devices: [u64; SIZES.len()]| devices.map(|ns| Cost { cpu_ns: 100, device_ns: Some(ns) });
        let words = |devices| Placement::sizes_of_device(&row(devices));
        assert_eq!(words([200; 6]), "cpu");
        assert_eq!(words([50; 6]), "device");
        assert_eq!(words([50, 50, 200, 200, 200, 200]), "device up to 1024 B");
        assert_eq!(
            words([50, 200, 50, 200, 50, 50]),
            "device up to 256 B, over 1024 B up to 4096 B, over 16384 B"
        );
    }
}
