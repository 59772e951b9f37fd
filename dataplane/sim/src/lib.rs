//! Towpath: sim.
