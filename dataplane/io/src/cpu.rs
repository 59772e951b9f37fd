//! Cores: which there are, and staying on one.

/// Where this process may run.
#[derive(Clone, PartialEq, Debug)]
pub struct Cores {
    /// The affinity mask.
    pub ids: Vec<usize>,
    /// The cgroup's CPU quota, in cores; `None` if there is none.
    pub quota: Option<f64>,
}

impl Cores {
    /// How many shards make sense: the mask, cut to the quota, at least one.
    pub fn count(&self) -> usize {
        self.ids.len().max(1)
    }
}

/// Reads the affinity mask and the CPU quota.
pub fn available_cores() -> Cores {
    unimplemented!()
}

/// Keeps the calling thread on one core; false if the kernel refuses.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
