//! The whole shard between hand-driven peers, for what a user sees of one rule. Weather, chains and chance
//! are the simulator's.

mod books;
mod draining;
mod fair;
mod rig;
